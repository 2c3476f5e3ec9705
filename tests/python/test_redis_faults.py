"""Faults of a Redis server, its values and its clients: what the caller sees."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct

import pytest

import framecache
from framecache import Cache, StoreError
from framecache.redis import Redis
from framecache.testing import Clock
from redis_record import Layout, unpack
from redis_server import begin, server  # noqa: F401  # a fixture
from waiting import Thread, until


@pytest.fixture
def cache(server):
    """A cache that does not wait for long."""
    with Cache(f"{server.url}?socket_timeout=0.1&socket_connect_timeout=0.1") as opened:
        yield opened


def test_a_killed_server_is_a_miss_and_comes_back_empty(server):
    clock = Clock()
    with Cache(server.url, clock=clock) as cache:
        cache.set("key", "value")
        server.kill()
        assert cache.get("key", "default") == "default"
        assert not cache.set("key", 1)
        with pytest.raises(StoreError):
            cache.delete("key")
        for _ in range(5):
            assert cache.get("key") is None
        assert cache.health()["store"] == "open"
        server.start()
        clock.advance(120)
        assert cache.get("key") is None
        assert cache.health()["store"] == "closed"
        assert cache.set("key", "again")
        assert cache.get("key") == "again"


def test_a_paused_server_stops_nobody(cache, server):
    cache.set("key", "value")
    server.pause()
    assert cache.get("key", "default") == "default"
    assert cache.get_many(["key"]) == {}
    assert not cache.set("key", "newer")
    assert cache.get_or_set("key", lambda: "computed") == "computed"
    assert cache.health()["errors"] >= 2
    with pytest.raises(StoreError):
        cache.invalidate_tags("x")
    server.go_on()


def test_a_paused_server_does_not_stop_a_loop(server):
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    async def main(cache):
        await cache.aset("key", "value")
        server.pause()
        reads = [asyncio.ensure_future(cache.aget("key", "default")) for _ in range(4)]
        turns = 0
        while not all(read.done() for read in reads):
            await asyncio.sleep(0)
            turns += 1
        server.go_on()
        return [read.result() for read in reads], turns

    for client in (
        f"{server.url}?socket_timeout=0.1",
        redis.asyncio.Redis(port=server.port, socket_timeout=0.1, retry=Retry(NoBackoff(), 0)),
    ):
        with Cache(client) as cache:
            values, turns = asyncio.run(main(cache))
            assert values == ["default"] * 4
            assert turns > 100


def test_a_cancelled_reader_leaves_its_command_to_end(server):
    import redis.asyncio

    async def main():
        client = redis.asyncio.Redis(port=server.port, socket_timeout=5, max_connections=1)
        with Cache(client) as cache:
            for number in range(10):
                await cache.aset(f"key:{number}", number)
            for number in range(10):
                read = asyncio.ensure_future(cache.aget(f"key:{number}"))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                read.cancel()
                await asyncio.gather(read, return_exceptions=True)
                await cache._backend.for_loop().close()
                # No connection has the answer to another question.
                assert await cache.aget(f"key:{(number + 1) % 10}") == (number + 1) % 10
            assert "error" not in cache.stats()
        await client.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("server", [("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")], indirect=True)
def test_a_full_server_refuses_and_goes_on(cache, server):
    assert cache.set("small", "value")
    assert not cache.set("large", bytes(4 << 20))
    until(lambda: not cache.set(f"key:{random.random()}", bytes(100_000)))
    assert cache.stats()["dropped"] >= 2
    assert cache.get("small") == "value"
    assert cache.get_or_set("other", lambda: "computed") == "computed"
    assert cache.delete("small")


@pytest.mark.parametrize("server", [("--maxmemory", "4mb", "--maxmemory-policy", "allkeys-random")], indirect=True)
def test_evicting_anything_causes_misses_only(cache):
    for number in range(300):
        cache.set(f"key:{number}", bytes([number % 256]) * 20_000, tags=[f"tag:{number % 10}"])
        for old in range(0, number, 50):
            assert cache.get(f"key:{old}") in (None, bytes([old % 256]) * 20_000)
    assert "error" not in cache.stats()


def test_every_truncation_is_a_miss(cache, server):
    client, name = server.client(), Layout("").entry("key")
    cache.set("key", {"a": [1, 2, 3]}, tags=["x"])
    whole = client.get(name)
    for length in range(len(whole)):
        client.set(name, whole[:length])
        assert cache.get("key") is None
        assert cache.get_many(["key"]) == {}
        assert not cache.contains("key") or length >= unpack(whole).length
    assert cache.stats()["unreadable"] > 0
    assert "error" not in cache.stats()
    client.set(name, whole)
    assert cache.get("key") == {"a": [1, 2, 3]}


@pytest.mark.parametrize("kind", ["msgpack", "arrow", "raw"])
def test_changed_bytes_are_never_more_than_another_value(cache, server, kind):
    import pyarrow as pa

    values = {"msgpack": {"a": [1, "b", 2.5]}, "arrow": pa.table({"n": [1, 2], "t": ["a", "b"]}), "raw": b"bytes"}
    client, name = server.client(), Layout("").entry("key")
    cache.set("key", values[kind])
    whole = client.get(name)
    chosen = random.Random(7)
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(chosen.randrange(1, 4)):
            changed[chosen.randrange(len(changed))] = chosen.randrange(256)
        client.set(name, bytes(changed))
        found = cache.get("key")
        if isinstance(found, pa.Table):
            found.validate(full=True)
    client.set(name, os.urandom(1000))
    assert cache.get("key") is None


def test_a_hash_at_the_place_of_an_entry_is_an_error_of_that_read(cache, server):
    server.client().hset(Layout("").entry("key"), "field", "value")
    assert cache.get("key") is None
    assert cache.set("key", 1)
    assert cache.get("key") == 1


def test_the_entry_of_another_key_is_an_error(server):
    layout = Layout("")
    with Cache(server.url) as cache, Cache(server.url, on_error="raise") as strict:
        cache.set_many({"mine": 1, "other": 2})
        client = server.client()
        client.copy(layout.entry("other"), layout.entry("mine"), replace=True)
        assert cache.get("mine") is None
        assert cache.stats()["error"] == 1
        with pytest.raises(StoreError, match="the answer for 'mine' is the entry of 'other'"):
            strict.get("mine")
        assert cache.get("other") == 2


def test_a_compressed_frame_is_not_decoded(cache, server):
    name = Layout("").entry("key")
    cache.set("key", b"hello")
    raw = server.client().get(name)
    head = unpack(raw)
    frame = framecache.SerializationWrapper.wrap(
        b"hello", {"py": {"type": "bytes"}, "compression": "lz4", "size": 5, "key": "key", "length": 5}, "raw"
    )
    server.client().set(name, raw[: head.length] + frame)
    assert cache.get("key") is None
    assert cache.stats()["undecodable"] == 1


def test_a_head_with_very_many_tags_is_refused(cache, server):
    name = Layout("").entry("key")
    cache.set("key", 1)
    raw = server.client().get(name)
    server.client().set(name, raw[:48] + struct.pack(">I", 2**32 - 1) + raw[52:])
    assert cache.get("key") is None
    assert cache.stats()["unreadable"] == 1


OWNER = """
    import sys, time, framecache
    cache = framecache.Cache(sys.argv[1])
    def compute():
        print("computing", flush=True)
        time.sleep(600)
    cache.get_or_set("key", compute, lock=float(sys.argv[2]))
"""


def test_the_lease_of_a_killed_owner_runs_out(cache, server):
    owner = begin(OWNER, server.url, "0.5")
    assert owner.stdout.readline() == "computing\n"
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    # Who comes now waits for the lease to end, then computes.
    assert cache.get_or_set("key", lambda: "computed", lock=60) == "computed"
    assert cache.get("key") == "computed"


def test_an_evicted_lease_lets_another_one_compute(cache, server):
    owner = begin(OWNER, server.url, "600")
    assert owner.stdout.readline() == "computing\n"
    waiting = Thread(cache.get_or_set, "key", lambda: "computed")
    assert server.client().delete(Layout("").lease("key")) == 1
    assert waiting.value == "computed"
    owner.send_signal(signal.SIGKILL)
    owner.communicate()


def test_a_backend_that_is_no_client(server):
    backend = Redis(server.url)
    with Cache(backend) as cache:
        assert cache.set("key", 1)
    # The cache does not close what it was given.
    with Cache(backend) as cache:
        assert cache.get("key") == 1
    backend.close()
