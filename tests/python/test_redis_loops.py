"""What coroutines ask a real Redis server over a client for event loops: by that alone, while the loop goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from framecache import Cache
from framecache.crypto import Keyring
from framecache.redis import Redis
from proxy import Proxy
from redis_server import server  # noqa: F401  # a fixture
from waiting import PATIENCE, Thread, until

#: Seconds that an answer waits for a turn of the loop.
_TURN = 10.0
BIG = bytes(range(256)) * 1024

#: What a cache is opened with.
KINDS = {
    "plain": {"l1": None},
    "URL": {"l1": None},
    "L1": {"l1": "1MiB"},
    "sealed": {"l1": None, "keyring": Keyring(bytes(range(32)), previous=[bytes(range(1, 33))])},
    "sealed and L1": {"l1": "1MiB", "keyring": Keyring(bytes(range(32)))},
    "copies": {"l1": None, "store": "file"},
}


class Turns:
    """Holds each answer of a server until the loop has had a turn."""

    def __init__(self, proxy: Proxy) -> None:
        self.held = self.passed = 0
        self._go = threading.Semaphore(0)
        proxy.change = self._pass

    def _pass(self, reply):
        self.held += 1
        assert self._go.acquire(timeout=_TURN)
        return reply.data

    async def run(self, operation):
        """What it comes to. If it kept the loop, nobody would let the answer pass that it waits for."""
        task = asyncio.ensure_future(operation)
        while not task.done():
            await asyncio.sleep(0.0005)
            if self.held > self.passed:
                self.passed += 1
                self._go.release()
        return task.result()


@pytest.fixture(params=KINDS)
def opened(request, server, tmp_path):
    """Opens a cache, through a proxy that knows how many connections ask."""
    import redis.asyncio

    settings = dict(KINDS[request.param])
    if "store" in settings:
        settings["store"] = f"file://{tmp_path}/copies"
    with Proxy(server.port) as proxy:

        def open_cache():
            if request.param == "URL":
                return Cache(f"{proxy.url}?listen=no&socket_timeout={_TURN}", on_error="raise", **settings), None
            client = redis.asyncio.Redis(port=proxy.port, socket_timeout=_TURN, max_connections=1)
            return Cache(Redis(client, listen=False), on_error="raise", **settings), client

        yield proxy, open_cache


def run(opened, steps):
    proxy, open_cache = opened

    async def main():
        cache, client = open_cache()
        turns = Turns(proxy)
        with cache:
            await steps(cache, turns.run)
        assert turns.passed
        turns._go.release(100)
        if client is not None:
            await client.aclose()

    asyncio.run(main())
    assert proxy.connections == 1


def test_values(opened):
    async def steps(cache, run):
        assert await run(cache.aget("key")) is None
        assert await run(cache.aset("key", [1, "two"], ttl=60, max_age=600)) is True
        assert await run(cache.aget("key")) == [1, "two"]
        assert await run(cache.acontains("key")) is True
        assert await run(cache.atouch("key", 300)) is True
        entry = await run(cache.aget_entry("key"))
        assert entry.value == [1, "two"]
        assert entry.deadline - entry.created > 299
        assert await run(cache.aset("key", "other", if_absent=True)) is False
        assert await run(cache.aset("new", "first", if_absent=True)) is True
        assert await run(cache.adelete("key")) is True
        assert await run(cache.adelete("key")) is False
        assert await run(cache.aget("key", "nothing")) == "nothing"
        assert await run(cache.acontains("key")) is False
        assert await run(cache.atouch("key", 300)) is False

    run(opened, steps)


def test_several_values(opened):
    values = {f"key {number}": {"number": number} for number in range(20)}

    async def steps(cache, run):
        assert await run(cache.aset_many(values, tags=["all"])) == 20
        assert await run(cache.aget_many([*values, "absent"])) == values
        assert await run(cache.adelete_many(["key 0", "key 1", "absent"])) == 2
        found = await run(cache.aget_many(values))
        assert found == {key: value for key, value in values.items() if key not in ("key 0", "key 1")}

    run(opened, steps)


def test_large_values(opened):
    async def steps(cache, run):
        await run(cache.aset("big", BIG))
        for _ in range(2):
            assert await run(cache.aget("big")) == BIG
        assert bytes(await run(cache.aget("big", views=True))) == BIG
        assert await run(cache.aget_many(["big", "absent"])) == {"big": BIG}

    run(opened, steps)


def test_tags_and_namespaces(opened):
    async def steps(cache, run):
        await run(cache.aset("one", 1, tags=["a", "b"]))
        await run(cache.aset("two", 2, tags=["b"]))
        await run(cache.aset("three", 3))
        await run(cache.ainvalidate_tags("a"))
        assert await run(cache.aget_many(["one", "two", "three"])) == {"two": 2, "three": 3}
        await run(cache.aclear())
        assert await run(cache.aget_many(["one", "two", "three"])) == {}

    run(opened, steps)


def test_computed_values(opened):
    calls = []

    async def compute():
        calls.append("one")
        return "computed"

    async def compute_many(keys):
        calls.append(sorted(keys))
        return {key: key.upper() for key in keys}

    async def fails():
        raise LookupError("computing failed")

    async def steps(cache, run):
        assert await run(cache.aget_or_set("key", compute, tags=["tag"])) == "computed"
        assert await run(cache.aget_or_set("key", compute)) == "computed"
        assert await run(cache.aget_many(["key", "a", "b"], compute=compute_many)) == {
            "key": "computed",
            "a": "A",
            "b": "B",
        }
        assert calls == ["one", ["a", "b"]]
        with pytest.raises(LookupError):
            await run(cache.aget_or_set("failing", fails))
        # Its lease was given back: nobody waits for it.
        assert await run(cache.aget_or_set("failing", compute)) == "computed"

    run(opened, steps)


def test_functions(opened):
    calls = []

    async def steps(cache, run):
        @cache(ttl=60)
        async def double(number):
            calls.append(number)
            return [2 * number]

        assert await run(double.get(2)) is None
        assert await run(double(2)) == [4]
        assert await run(double(2)) == [4]
        assert await run(double.get(2)) == [4]
        assert await run(double.set([5], 2)) is True
        assert await run(double(2)) == [5]
        assert await run(double.invalidate(2)) is True
        assert await run(double.warm(2)) is True
        assert await run(double.refresh(2)) == [4]
        assert calls == [2, 2, 2]

    run(opened, steps)


def test_who_is_cancelled_while_it_waits_for_a_lease_leaves_none(server):
    """The lease is given, though its answer comes when nobody wants it any more."""
    import redis.asyncio

    async def compute():
        return "computed"

    async def main():
        client = redis.asyncio.Redis(port=proxy.port, socket_timeout=PATIENCE)
        with Cache(Redis(client, listen=False), l1=None) as cache:
            await cache.aget("absent")
            proxy.hold(lambda reply: reply.is_about("fcl:"))
            task = asyncio.create_task(cache.aget_or_set("key", compute))
            while not leases():
                await asyncio.sleep(0.001)
            task.cancel()
            await asyncio.wait([task])
            proxy.go_on()
            while leases():
                await asyncio.sleep(0.001)
            assert await asyncio.wait_for(cache.aget_or_set("key", compute), PATIENCE) == "computed"
        await client.aclose()

    def leases():
        return server.client().keys("fcl:*")

    with Proxy(server.port) as proxy:
        asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def connections(server):
    """How many there are but for the one that asks."""
    return len(server.client().client_list()) - 1


async def use(cache, key):
    await cache.aset(key, "value")
    for _ in range(20):
        assert await cache.aget(key) == "value"


#: Says what the interpreter has to say of connections that nobody closed.
_ENDS = """
import asyncio, gc, sys, framecache

async def main():
    await cache.aset("key", "value")
    assert await asyncio.gather(*(cache.aget("key") for _ in range(20))) == ["value"] * 20
    print(len(cache._backend._loops._by_loop), flush=True)
    if sys.argv[2] == "closes":
        cache.close()

cache = framecache.Cache(sys.argv[1], l1=None, on_error="raise")
for _ in range(1 if sys.argv[2] == "closes" else 3):
    asyncio.run(main())
    gc.collect()
    print(len(cache._backend._loops._by_loop), flush=True)
cache.close()
"""


@pytest.mark.parametrize("ends", ["closes", "is left"])
def test_connections_of_a_url_end_with_their_loop(server, ends):
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", _ENDS, f"{server.url}?listen=no", ends],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["1", "0"] * (1 if ends == "closes" else 3)
    until(lambda: connections(server) == 0)


def test_a_loop_that_goes_on_closes_what_it_had_when_the_cache_is_closed_elsewhere(server):
    async def main():
        await use(cache, "key")
        assert connections(server) > 0
        await asyncio.to_thread(cache.close)
        while connections(server):
            await asyncio.sleep(0.001)

    cache = Cache(f"{server.url}?listen=no", l1=None)
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_loops_of_several_threads_use_one_cache(server):
    def work(number):
        asyncio.run(use(cache, f"key {number}"))

    with Cache(f"{server.url}?listen=no", l1=None, on_error="raise") as cache:
        threads = [Thread(work, number) for number in range(4)]
        for thread in threads:
            assert thread.value is None
    assert not cache._backend._loops._by_loop


def test_more_wait_at_once_than_there_are_threads(server):
    """Callers that wait for a slow server do not wait for one another."""

    async def main():
        with Cache(f"{proxy.url}?listen=no&socket_timeout={PATIENCE}", l1=None, on_error="raise") as cache:
            await cache.aget("absent")
            held = []
            proxy.hold(lambda reply: reply.command[:1] == (b"MGET",) and held.append(reply) is None)
            tasks = [asyncio.create_task(cache.aget(f"key {number}")) for number in range(500)]
            while len(held) < 32:
                await asyncio.sleep(0.001)
            proxy.go_on()
            assert await asyncio.gather(*tasks) == [None] * 500
            assert 32 <= proxy.connections <= 34

    with Proxy(server.port) as proxy:
        asyncio.run(asyncio.wait_for(main(), PATIENCE))
