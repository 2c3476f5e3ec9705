"""Loops stay awake for answers that come soon, and sleep for others: real servers, and how often a loop sleeps."""

from __future__ import annotations

import asyncio
import selectors

import pytest

pytest.importorskip("redis", reason="redis-py is not installed")

from framecache import Cache, _redis_async_wire
from proxy import Proxy
from redis_server import server  # noqa: F401  # a fixture
from waiting import PATIENCE


class Sleeps(selectors.DefaultSelector):
    """Counts how often a loop waits for something to happen."""

    count = 0

    def select(self, timeout=None):
        self.count += timeout is None or timeout > 0
        return super().select(timeout)


@pytest.fixture
def sleeps():
    return Sleeps()


@pytest.fixture
def run(sleeps):
    """Runs a coroutine in a loop that sleeps with `sleeps`."""
    loop = asyncio.SelectorEventLoop(sleeps)
    yield lambda main: loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def cache(server):
    with Cache(server.url, l1=None) as opened:
        opened.set("key", "value")
        yield opened


async def count(cache, sleeps, reads):
    """How often the loop sleeps in each of some reads."""
    found = []
    for _ in range(reads):
        before = sleeps.count
        assert await cache.aget("key") == "value"
        found.append(sleeps.count - before)
    return found


def test_a_loop_does_not_sleep_where_answers_come_soon(cache, sleeps, run, monkeypatch):
    monkeypatch.setattr(_redis_async_wire, "_AWAKE", PATIENCE)

    async def main():
        await cache.aget("key")  # connects
        assert await count(cache, sleeps, 20) == [0] * 20

    run(main())


def test_a_loop_sleeps_where_the_last_answer_took_long(cache, sleeps, run, monkeypatch):
    async def main():
        await cache.aget("key")
        monkeypatch.setattr(_redis_async_wire, "_AWAKE", 0.0)
        assert await count(cache, sleeps, 1) != [0]
        monkeypatch.setattr(_redis_async_wire, "_AWAKE", PATIENCE)
        slept = await count(cache, sleeps, _redis_async_wire._ASLEEP)
        assert 0 not in slept
        # Whether they come soon by now is then tried again.
        assert await count(cache, sleeps, 5) == [0] * 5

    run(main())


def test_who_is_cancelled_while_the_loop_is_awake_leaves_it_to_the_next_one(server, sleeps, run, monkeypatch):
    monkeypatch.setattr(_redis_async_wire, "_AWAKE", PATIENCE)

    async def main(cache, proxy):
        await cache.aget("key")
        made = proxy.connections
        proxy.hold(lambda reply: reply.connection < made)
        asking = asyncio.ensure_future(cache.aget("key"))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not asking.done()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await cache.aget("key") == "value"  # connects
        assert await count(cache, sleeps, 5) == [0] * 5
        proxy.go_on()

    with Proxy(server.port) as proxy, Cache(f"redis://127.0.0.1:{proxy.port}", l1=None) as cache:
        cache.set("key", "value")
        run(main(cache, proxy))


def test_others_go_on_while_a_loop_is_awake(server, sleeps, run, monkeypatch):
    """The second command is not looked for, and is answered all the same."""
    monkeypatch.setattr(_redis_async_wire, "_AWAKE", PATIENCE)

    async def main(cache):
        await asyncio.gather(*[cache.aget(f"key:{number}") for number in range(8)])
        before = sleeps.count
        found = await asyncio.gather(*[cache.aget(f"key:{number}") for number in range(8)])
        assert found == list(range(8))
        return sleeps.count - before

    with Cache(server.url, l1=None) as cache:
        cache.set_many({f"key:{number}": number for number in range(8)})
        assert run(main(cache)) < 8
