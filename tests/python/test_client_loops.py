"""One computation of a key for tasks of several loops, and threads beside them."""

import asyncio
import random
import threading
from contextlib import suppress
from functools import partial

import pytest

from framecache import Cache
from waiting import (
    PATIENCE,
    AsyncWork,
    Thread,
    anywhere,
    cache_of,
    cached,
    every_loop,
    run_in,
    until,
    until_waiting,
    waiters,
)


@pytest.fixture
def cache(request, tmp_path):
    with cache_of(request, tmp_path) as opened:
        yield opened


@anywhere
@every_loop
def test_threads_with_loops_of_their_own_and_threads_without_compute_once(cache, new_loop):
    calls = []

    def compute():
        calls.append(1)
        until(lambda: waiters(cache) >= 19)
        return [1]

    async def acompute():
        calls.append(1)
        while waiters(cache) < 20:
            await asyncio.sleep(0.001)
        return [1]

    threads = [
        Thread(cache.get_or_set, "key", compute)
        if number % 2
        else Thread(run_in_thread, new_loop, lambda: cache.aget_or_set("key", acompute))
        for number in range(20)
    ]
    values = [thread.value for thread in threads]
    assert values == [[1]] * 20
    assert len({id(value) for value in values}) == 20
    assert calls == [1]


def run_in_thread(new_loop, work):
    loop = new_loop()
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


@every_loop
def test_loops_in_sequence_share_a_cache(cache, new_loop):
    f = cached(cache, lambda x: asyncio.sleep(0, [x]))
    for number in range(5):
        assert run_in(new_loop, f(number)) == [number]
        assert run_in(new_loop, f(0)) == [0]
    assert f.cache_info()[:2] == (5, 5)


@anywhere
@every_loop
@pytest.mark.parametrize("closing", ["returns", "closes", "stops"])
def test_who_waits_for_a_loop_that_ends_computes_himself(cache, new_loop, closing):
    begun, end, calls = threading.Event(), threading.Event(), []

    async def never():
        calls.append("never")
        begun.set()
        await asyncio.Event().wait()

    async def soon():
        calls.append("soon")
        return "value"

    async def leave():
        task = asyncio.ensure_future(cache.aget_or_set("key", never))
        while not end.is_set():
            await asyncio.sleep(0.001)
        if closing == "returns":
            task.cancel()

    kept = []

    def first():
        loop = new_loop()
        loop.set_exception_handler(lambda *_: None)
        loop.run_until_complete(leave())
        if closing == "returns":
            for task in asyncio.all_tasks(loop):
                task.cancel()
                loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        if closing != "stops":
            loop.close()
        kept.append(loop)

    leader = Thread(first)
    assert begun.wait(PATIENCE)
    others = [
        Thread(cache.get_or_set, "key", lambda: calls.append("soon") or "value"),
        Thread(run_in_thread, new_loop, lambda: cache.aget_or_set("key", soon)),
    ]
    until(lambda: waiters(cache) == 3)
    end.set()
    leader.value  # noqa: B018
    assert [thread.value for thread in others] == ["value"] * 2
    assert calls == ["never", "soon"]
    for task in asyncio.all_tasks(kept[0]):
        task._log_destroy_pending = False
    kept[0].close()
    cache.delete("key")
    cache.get_or_set("key", int)


def test_a_thread_in_the_loops_own_thread_does_not_wait_for_the_loop(cache):
    async def main():
        work = AsyncWork("from the loop")
        task = asyncio.create_task(cache.aget_or_set("key", work))
        await work.begun.wait()
        assert cache.get_or_set("key", lambda: "from the thread") == "from the thread"
        work.go.set()
        assert await task in ("from the loop", "from the thread")

    asyncio.run(main())


def test_a_full_pool_of_the_loop_does_not_keep_a_leader_from_storing(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with Cache(f"file://{tmp_path}/cache") as cache:

        async def main():
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
            work = AsyncWork("value")
            leader = asyncio.create_task(cache.aget_or_set("key", work))
            await work.begun.wait()
            others = [asyncio.create_task(asyncio.to_thread(cache.get_or_set, "key", str)) for _ in range(2)]
            await until_waiting(cache, 3)
            work.go.set()
            assert await asyncio.gather(leader, *others) == ["value"] * 3

        asyncio.run(main())


@anywhere
def test_nothing_is_left_of_threads_and_tasks_that_come_and_go(cache):
    seeds = iter(range(100))

    class Boom(Exception):
        pass

    def compute(x, number):
        if number < 0.1:
            raise Boom
        return [x]

    async def acompute(x, number):
        await asyncio.sleep(number / 1000)
        return compute(x, number)

    def in_threads():
        numbers = random.Random(next(seeds))
        for _ in range(300):
            x, number = numbers.randrange(5), numbers.random()
            with suppress(Boom):
                if number < 0.1:
                    cache.delete(str(x))
                value = cache.get_or_set(str(x), lambda: compute(x, number), ttl=0.02)  # noqa: B023
                assert value == [x]
                value.append("changed")

    async def in_tasks(numbers):
        for _ in range(30):
            x, number = numbers.randrange(5), numbers.random()
            limit = numbers.random() / 500 if number < 0.4 else None
            with suppress(Boom, asyncio.TimeoutError):
                asked = cache.aget_or_set(str(x), partial(acompute, x, number), ttl=0.02)
                value = await asyncio.wait_for(asked, limit)
                assert value == [x]
                value.append("changed")

    async def main():
        tasks = [asyncio.create_task(in_tasks(random.Random(next(seeds)))) for _ in range(10)]
        await asyncio.wait(tasks[:5])
        # The others are cancelled by the end of the loop.
        return [task.exception() for task in tasks[:5]]

    threads = [Thread(in_threads) for _ in range(3)] + [Thread(asyncio.run, main()) for _ in range(3)]
    assert [thread.value for thread in threads] == [None] * 3 + [[None] * 5] * 3
    until(lambda: len(cache._flights) == 0)
