"""One computation of a key in all processes of a real Redis server: leases, their renewal, and who waits for them."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from framecache import Cache, _lease, _sleepers
from framecache._asking import run
from framecache._lease import LASTS, RENEWALS
from framecache.crypto import Keyring
from framecache.redis import Redis
from framecache.testing import Clock
from hearing import listens
from redis_record import Layout
from redis_server import begin, server  # noqa: F401  # a fixture
from waiting import PATIENCE, Thread, Work, until

LEASE = Layout("").lease("key")

#: Computes a key, until it is told to end.
OWNER = """
    import asyncio, sys, framecache
    url, kind, lock, key = sys.argv[1:5]

    def compute():
        print("computing", flush=True)
        sys.stdin.readline()
        return "owner's"

    async def acompute():
        print("computing", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        return "owner's"

    async def main(place):
        cache = framecache.Cache(place)
        print(await cache.aget_or_set(key, acompute, lock=float(lock)), flush=True)
        print(cache.stats(), flush=True)

    async def with_client():
        import redis.asyncio
        client = redis.asyncio.Redis.from_url(url, socket_timeout=5)
        await main(client)
        await client.aclose()

    if kind == "threads":
        cache = framecache.Cache(url)
        print(cache.get_or_set(key, compute, lock=float(lock)), flush=True)
        print(cache.stats(), flush=True)
    else:
        asyncio.run(main(url) if kind == "loop" else with_client())
"""


@contextmanager
def owner(url, kind="threads", lock=60, key="key"):
    """A process that computes."""
    process = begin(OWNER, url, kind, str(lock), key)
    try:
        assert process.stdout.readline() == "computing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process):
    """Have it end its computation; return what it got, and its counters."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip(), process.stdout.readline()


@pytest.fixture
def cache(server, monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")
    with Cache(server.url) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["threads", "loop", "loop of a client"])
def test_a_computation_that_takes_longer_than_its_lease_keeps_it(server, kind):
    client, backend = server.client(), Redis(server.url)
    with owner(server.url, kind, lock=1) as process:
        renewed, left = 0, client.pttl(LEASE)
        while renewed <= RENEWALS:
            now = client.pttl(LEASE)
            assert 0 < now <= 1000
            renewed += now > left
            left = now
        assert not backend.lease(LEASE, 1, 1000)
        value, counters = finish(process)
        assert value == "owner's"
        assert "lease_lost" not in counters
    assert not client.exists(LEASE)


def test_a_lease_is_short_however_long_others_are_ready_to_wait(server):
    with owner(server.url, lock=86400):
        assert 0 < server.client().pttl(LEASE) <= LASTS * 1000


def test_what_was_given_back_is_not_renewed(server):
    backend, client = Redis(server.url), server.client()
    assert backend.lease(LEASE, 7, 60_000)
    assert not backend.renew(LEASE, 8, 120_000)
    assert client.pttl(LEASE) <= 60_000
    assert backend.renew(LEASE, 7, 120_000)
    assert client.pttl(LEASE) > 60_000
    assert backend.release(LEASE, 7)
    assert not backend.renew(LEASE, 7, 120_000)
    assert not client.exists(LEASE)


def test_one_thread_renews_the_leases_of_all_computations(cache, server):
    def renewers():
        return [one for one in threading.enumerate() if one.name == "framecache-leases"]

    works = [Work(number) for number in range(30)]
    threads = [Thread(lambda n=n: cache.get_or_set(f"key:{n}", works[n], lock=1)) for n in range(30)]
    for work in works:
        work.wait_for_begin()
    client = server.client()
    names = [Layout("").lease(f"key:{number}") for number in range(30)]
    renewed, left = [0] * 30, [client.pttl(name) for name in names]
    while min(renewed) <= RENEWALS:
        now = [client.pttl(name) for name in names]
        assert min(now) > 0
        renewed = [times + (new > old) for times, new, old in zip(renewed, now, left, strict=True)]
        left = now
    assert len(renewers()) == 1
    for work in works:
        work.go.set()
    assert [thread.value for thread in threads] == list(range(30))
    assert client.exists(*names) == 0


@pytest.fixture
def no_looks(monkeypatch):
    """Who waits looks again only when he is told."""
    for name in ("FIRST", "TOLD", "UNTOLD"):
        monkeypatch.setattr(_sleepers, name, 10 * PATIENCE)


def is_told(cache):
    cache.get("nothing")
    return listens(cache)


def test_threads_that_wait_are_woken_by_what_the_owner_stores(cache, server, no_looks):
    until(lambda: is_told(cache))
    with owner(server.url) as process:
        waiting = Thread(lambda: cache.get_or_set("key", lambda: "mine", lock=100 * PATIENCE))
        until(lambda: cache._tiers.store.link.sleepers._by_name)
        assert finish(process)[0] == "owner's"
        assert waiting.value == "owner's"
    assert not cache._tiers.store.link.sleepers._by_name


def test_tasks_that_wait_are_woken_and_cost_no_thread(cache, server, no_looks):
    """Two hundred tasks wait for two hundred keys: the threads are those of the pool, the listener and the renewals."""
    keys = [f"key:{number}" for number in range(200)]
    sleepers = cache._tiers.store.link.sleepers

    async def mine():
        return "mine"

    async def main(backend):
        waiting = [asyncio.create_task(cache.aget_or_set(key, mine, lock=100 * PATIENCE)) for key in keys]
        while len(sleepers._by_name) < 200:
            await asyncio.sleep(0)
        names = [one.name for one in threading.enumerate() if one.name.startswith("framecache")]
        with Cache(server.url, l1=None) as other:
            assert other.set_many(dict.fromkeys(keys, "theirs")) == 200
        values = await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE)
        return names, values

    until(lambda: is_told(cache))
    backend = Redis(server.url)
    for key in keys:
        assert backend.lease(Layout("").lease(key), 7, 600_000)
    names, values = asyncio.run(main(backend))
    assert values == ["theirs"] * 200
    assert names.count("framecache-worker") <= 8
    assert set(names) <= {"framecache-worker", "framecache-listener", "framecache-leases"}
    assert names.count("framecache-listener") == 1


def test_who_waits_looks_again_where_nobody_tells(server):
    with Cache(Redis(server.url, listen=False)) as cache, owner(server.url) as process:
        waiting = Thread(lambda: cache.get_or_set("key", lambda: "mine", lock=100 * PATIENCE))
        assert finish(process)[0] == "owner's"
        assert waiting.value == "owner's"


@pytest.mark.parametrize("kind", ["threads", "loop"])
def test_an_evicted_lease_is_noticed_and_what_comes_late_is_not_stored(cache, server, kind):
    with owner(server.url, kind, lock=0.3) as process:
        assert server.client().delete(LEASE) == 1
        assert cache.get_or_set("key", lambda: "mine") == "mine"
        # The owner finds it gone before it ends.
        value, counters = finish(process)
        assert value == "owner's"
        assert "'superseded': 1" in counters
    assert cache.get("key") == "mine"
    assert Cache(server.url, l1=None).get("key") == "mine"


def test_a_lease_that_is_lost_is_counted_and_not_taken_from_who_has_it(server):
    backend, client = Redis(server.url), server.client()
    work = Work("late")
    with Cache(server.url) as cache:
        computing = Thread(lambda: cache.get_or_set("key", work, lock=0.3))
        work.wait_for_begin()
        client.set(LEASE, 7, px=600_000)
        until(lambda: cache.stats().get("lease_lost") == 1)
        # Nobody has stored anything: what was computed in time of the fence is, and the other's lease stays.
        work.go.set()
        assert computing.value == "late"
        assert cache.get("key") == "late"
        assert backend.renew(LEASE, 7, 600_000)


def test_an_owner_that_stood_still_stores_nothing_late(server):
    with owner(server.url, lock=0.3) as process, Cache(server.url) as cache:
        process.send_signal(signal.SIGSTOP)
        assert cache.get_or_set("key", lambda: "mine", lock=60) == "mine"
        process.send_signal(signal.SIGCONT)
        value, counters = finish(process)
        assert value == "owner's"
        assert "'superseded': 1" in counters
        assert cache.get("key") == "mine"


@pytest.mark.parametrize("skew", [-86400, 86400])
def test_clocks_of_clients_do_not_end_leases(server, skew):
    clock = Clock(time.time() + skew)
    with owner(server.url, lock=60) as process, Cache(server.url, clock=clock) as cache:
        assert run(cache._computer.leases.ask("key", 60)) == "held"
        assert 0 < server.client().pttl(LEASE) <= LASTS * 1000
        assert finish(process)[0] == "owner's"
        mine = run(cache._computer.leases.ask("key", 60))
        assert LASTS * 500 < server.client().pttl(LEASE) <= LASTS * 1000
        run(mine.release())


tenant: ContextVar[str] = ContextVar("tenant")


@pytest.mark.parametrize("ends", ["raises", "is cancelled"])
def test_a_tenants_lease_is_given_back_from_whatever_context(server, ends, monkeypatch):
    """A lease of a sealed entry stands under a name that only the tenant's key gives. It does not run out meanwhile."""
    monkeypatch.setattr(_lease, "LASTS", 100 * PATIENCE)
    client = server.client()

    async def main():
        begun = asyncio.Event()

        async def compute():
            assert client.keys("fcl:*")
            begun.set()
            if ends == "raises":
                raise ValueError
            await asyncio.Event().wait()

        tenant.set("one")
        task = asyncio.create_task(cache.aget_or_set("key", compute, lock=100 * PATIENCE))
        await begun.wait()
        if ends == "is cancelled":
            task.cancel()
        await asyncio.wait([task])
        assert isinstance(task.exception(), ValueError) if ends == "raises" else task.cancelled()

    with Cache(server.url, keyring=Keyring(bytes(range(32)), tenant=tenant)) as cache:
        asyncio.run(main())
        until(lambda: client.keys("fcl:*") == [])
        assert cache.stats().get("error") is None
