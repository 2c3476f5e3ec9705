"""Sentinel with a replica, and a cluster, of real servers."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from framecache import Cache, InvalidArgument, StoreError
from framecache.backend import Write
from framecache.redis import Cluster, Redis
from redis_server import begin
from redis_topologies import cluster, is_master, sentinels, servers, taking_over  # noqa: F401  # fixtures
from test_redis_anywhere import said
from waiting import PATIENCE, until


def test_a_failover_is_survived_and_flushes(sentinels, monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")
    master, replica, url = sentinels
    with Cache(url) as cache:
        assert cache.set("key", "value")
        assert cache.get("key") == "value"
        until(lambda: cache.health()["engine"]["listener"] == "on")
        until(lambda: cache.get("key") == "value" and cache.get_entry("key").tier == "l1")
        until(lambda: replica.client().dbsize() == master.client().dbsize())
        master.kill()
        until(lambda: is_master(replica))
        # The breaker lets one through from time to time.
        until(lambda: cache.set("key", "after"))
        until(lambda: cache.health()["engine"]["listener"] == "on")
        # A connection to the old master may be found out by the first command only.
        until(lambda: cache.get("key") == "after")
        with Cache(replica.client(), l1=None) as other:
            until(lambda: cache.get("key") == "after" and cache.get_entry("key").tier == "l1")
            assert other.set("key", "newest")
            until(lambda: cache.get("key") == "newest")


def in_loop_of(url, main):
    """Run `main(backend)`, over a client for event loops that Sentinels gave, which tries once."""
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    async def run():
        hosts = [tuple(host.split(":")) for host in url.partition("://")[2].partition("/")[0].split(",")]
        watched = Sentinel(hosts, sentinel_kwargs={"socket_timeout": 1})
        client = watched.master_for("main", socket_timeout=1, retry=Retry(NoBackoff(), 0))
        try:
            with Cache(client, l1=None) as cache:
                await main(cache._backend)
                await cache._backend.for_loop().close()
        finally:
            for one in (client, *watched.sentinels):
                await one.aclose()

    asyncio.run(run())


def write(name):
    return Write(name, [b"value"], None, {}, ())


def test_a_failover_in_a_loop(sentinels):
    """The commands of an event loop, and those of the threads beside it, find the new master."""
    master, replica, url = sentinels

    async def main(backend):
        one = backend.for_loop()
        assert one._wire is not None
        assert backend.place == "redis+sentinel:///main/0"
        assert await one.set(write("fc:before"))
        assert bytes(backend.get("fc:before")) == b"value"
        until(lambda: replica.client().dbsize() == master.client().dbsize())
        master.kill()
        for name, is_written in (("fc:loop", one.set), ("fc:thread", in_thread(backend.set))):
            ends = time.monotonic() + PATIENCE
            while not await is_true(is_written(write(name))):
                assert time.monotonic() < ends
                await asyncio.sleep(0.05)
        assert replica.client().mget("fc:before", "fc:loop", "fc:thread") == [b"value"] * 3

    async def is_true(done):
        with contextlib.suppress(StoreError):
            return await done
        return False

    def in_thread(work):
        return lambda *arguments: asyncio.to_thread(work, *arguments)

    in_loop_of(url, main)


def test_a_master_that_is_none_any_more_is_left(sentinels):
    """A connection to it is given up, so that the Sentinels are asked again."""
    master, replica, url = sentinels

    async def main(backend):
        one = backend.for_loop()
        for _ in range(2):
            assert await one.set(write("fc:before"))
        [connection] = one._client.connection_pool._available_connections
        master.client().execute_command("REPLICAOF", "127.0.0.1", replica.port)
        with pytest.raises(StoreError, match=r"previous master is now a (replica|slave)"):
            await one.set(write("fc:after"))
        assert not connection.is_connected

    in_loop_of(url, main)


def test_urls_of_sentinels(servers):
    for wrong in ("redis+sentinel://host:1", "redis+sentinel://host/main", "redis+sentinel:///main/0"):
        with pytest.raises(InvalidArgument, match=r"expected redis\+sentinel://host:port,host:port/service/db"):
            Cache(wrong)
    with Cache("redis+sentinel://user:secret@host:1,host:2/main/3?socket_timeout=2&max_remote_bytes=1MiB") as cache:
        settings = cache._backend.client.connection_pool.connection_kwargs
        assert (settings["db"], settings["password"], settings["socket_timeout"]) == (3, "secret", 2)
        assert repr(cache) == "framecache.Cache('redis+sentinel:///main/3')"


def test_a_cluster(cluster, monkeypatch):
    import redis.asyncio

    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    with Cache(url) as cache, Cache(redis.RedisCluster("127.0.0.1", cluster[1].port, socket_timeout=5)) as other:
        values = {f"key:{number}": number for number in range(50)}
        assert cache.set_many(values, tags=["x", "y"]) == 50
        assert other.get_many(values) == values
        slots = {cache._backend.client.keyslot(cache._tiers.store.entries.entries([key])[0]) for key in values}
        assert len(slots) > 30
        other.invalidate_tags("y")
        assert cache.get_many(values) == {}

        def changed():
            other.delete("late")
            return "older"

        assert cache.get_or_set("late", changed) == "older"
        assert other.get("late") is None
        assert cache.get_or_set("late", lambda: other.invalidate_tags("x"), tags=["x"]) is None
        assert other.get("late", "nothing") == "nothing"

        @cache(tags=lambda result: [result])
        def function():
            other.invalidate_tags("z")
            return "z"

        assert function() == "z"
        assert function.get() is None
        assert cache.set("once", 1, if_absent=True)
        assert not other.set("once", 2, if_absent=True)
        assert other.delete_many(["once", "twice"]) == 1
        cache.set("key", 1)
        other.clear()
        assert cache.get("key") is None
        assert cache.stats().get("error", 0) == 0
    in_memory = said("memory://", FRAMECACHE_L1="16MiB")
    assert said(url, FRAMECACHE_L1="16MiB") == in_memory
    with pytest.raises(InvalidArgument, match=r"expected a redis\.RedisCluster, .*, got redis\.client\.Redis"):
        Cluster(cluster[0].client())
    with pytest.raises(InvalidArgument, match=r"threads do for event loops, got redis\.asyncio\.client\.Redis"):
        Cluster(redis.asyncio.Redis(port=cluster[1].port, socket_timeout=5))
    with pytest.raises(InvalidArgument, match=r"threads do for event loops, got redis\.asyncio\.cluster\.RedisCluster"):
        Cache(redis.asyncio.RedisCluster("127.0.0.1", cluster[1].port, socket_timeout=5))
    with pytest.raises(InvalidArgument, match=r"expected a redis\.Redis or a redis\.asyncio\.Redis"):
        Redis(redis.RedisCluster("127.0.0.1", cluster[1].port, socket_timeout=5))


LOAD = """
    import sys, framecache
    cache = framecache.Cache(sys.argv[1], l1=None)
    print("ready", flush=True)
    number = 0
    while True:
        value = cache.get(f"key:{number % 100}", number % 100)
        assert value == number % 100, (value, number)
        cache.set(f"key:{number % 100}", number % 100, ttl=100)
        number += 1
        if number % 100 == 0:
            print(number, flush=True)
"""


def test_a_master_killed_under_load(cluster):
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}?socket_timeout=0.3"
    load = begin(LOAD, url)
    assert load.stdout.readline() == "ready\n"
    assert load.stdout.readline() == "100\n"
    masters = [node for node in cluster if is_master(node)]
    rest = [node for node in cluster if node is not masters[-1]]
    with taking_over(cluster):
        masters[-1].kill()
        until(lambda: sum(is_master(node) for node in rest) == 3)
    until(lambda: b"cluster_state:ok" in rest[0].ask("CLUSTER INFO"))
    with Cache(f"redis+cluster://127.0.0.1:{rest[0].port}") as cache:
        for number in range(100):
            until(lambda number=number: cache.set(f"new:{number}", number))
            assert cache.get(f"new:{number}") == number
    # The other process never saw a wrong value, and goes on.
    assert load.poll() is None
    ends = time.monotonic() + 30
    last = int(load.stdout.readline())
    while int(load.stdout.readline()) < last + 1000:
        assert time.monotonic() < ends
    load.kill()
    with contextlib.suppress(ValueError):
        load.communicate()
