"""One computation of a key for all tasks that ask for it meanwhile."""

import asyncio
import contextvars
import gc
import threading
import weakref
from contextlib import suppress

import pytest

from framecache import RecursiveCall
from framecache._lease import Lease
from support import run
from waiting import (
    PATIENCE,
    AsyncWork,
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
def test_two_thousand_tasks_run_a_function_once(cache, new_loop):
    calls = []

    @cache(name="f")
    async def f(x):
        calls.append(x)
        await until_waiting(cache, 2000)
        return [x]

    async def main():
        return await asyncio.gather(*(f(1) for _ in range(2000)))

    values = run_in(new_loop, main())
    assert calls == [1]
    assert values == [[1]] * 2000
    assert len({id(value) for value in values}) == 2000
    assert f.cache_info()[:2] == (1999, 1)


@anywhere
@every_loop
def test_cancelling_one_caller_harms_nobody(cache, new_loop):
    async def main():
        work = AsyncWork("value")
        f = cached(cache, work)
        tasks = [asyncio.create_task(f()) for _ in range(4)]
        await until_waiting(cache, 4)
        await work.begun.wait()
        # The one that leads, and one that follows.
        for task in (tasks[0], tasks[2]):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        work.go.set()
        assert [await tasks[1], await tasks[3]] == ["value"] * 2
        assert await f() == "value"
        assert work.calls == 1

    run_in(new_loop, main())


@anywhere
@every_loop
def test_the_last_one_who_is_cancelled_cancels_the_computation(cache, new_loop):
    async def main():
        work = AsyncWork("value")
        f = cached(cache, work)
        tasks = [asyncio.create_task(f()) for _ in range(3)]
        await until_waiting(cache, 3)
        await work.begun.wait()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        # Who comes at this very moment is not given what is being cancelled.
        work.go.set()
        assert await f() == "value"
        await work.cancelled.wait()
        assert work.calls == 2

    run_in(new_loop, main())


def test_a_computation_that_ignores_its_cancellation_is_not_stored(cache):
    async def main():
        begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @cache(name="f")
        async def f():
            begun.set()
            try:
                await go.wait()
            except asyncio.CancelledError:
                await go.wait()
            ended.set()
            return "stubborn"

        task = asyncio.create_task(f())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        go.set()
        await ended.wait()
        while len(cache._flights):
            await asyncio.sleep(0)
        assert await f.get() is None

    asyncio.run(main())


@anywhere
def test_a_computation_that_is_cancelled_before_it_began_is_forgotten(cache):
    async def main():
        f = cached(cache, AsyncWork())
        task = asyncio.ensure_future(f())
        while not waiters(cache):
            await asyncio.sleep(0)
        for one in asyncio.all_tasks() - {asyncio.current_task()}:
            one.cancel()
        await asyncio.wait([task])

    for _ in range(3):
        asyncio.run(main())
        until(lambda: len(cache._flights) == 0)


@anywhere
def test_the_right_to_compute_that_a_cancelled_task_asked_for_is_given_back(cache, monkeypatch):
    if cache._path is None:
        pytest.skip("only a store gives leases")
    store = cache._tiers.store
    asked, go, leases = threading.Event(), threading.Event(), cache._computer.leases
    released = threading.Event()

    class Slow:
        are_given = staticmethod(leases.are_given)

        def ask(self, *arguments):
            asked.set()
            assert go.wait(PATIENCE)
            return leases.ask(*arguments)

    async def release(lease):
        await given_back(lease)
        released.set()

    given_back = Lease.release
    monkeypatch.setattr(Lease, "release", release)

    async def main():
        f = cached(cache, AsyncWork())
        cache._computer.leases = Slow()
        task = asyncio.create_task(f())
        while not asked.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        go.set()
        return f.key()

    key = asyncio.run(main())
    assert released.wait(PATIENCE)
    assert store.lease(key, 1000, 0) is not None


@anywhere
@every_loop
def test_an_exception_reaches_those_who_wait_and_is_not_kept(cache, new_loop):
    async def main():
        work = AsyncWork(ValueError("no"))
        f = cached(cache, work)
        tasks = [asyncio.create_task(f()) for _ in range(5)]
        await until_waiting(cache, 5)
        work.go.set()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, ValueError) for error in errors)
        assert work.calls == 1
        work.value = "now"
        assert await f() == "now"

    run_in(new_loop, main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_an_interruption_reaches_the_one_it_hits_and_another_one_computes(cache, kind):
    async def main():
        works = [AsyncWork(kind("stop")), AsyncWork("value")]
        order = iter(works)

        @cache(name="f")
        async def f():
            return await next(order)()

        async def caught():
            try:
                return await f()
            except kind as error:
                return error

        tasks = [asyncio.create_task(caught()) for _ in range(4)]
        await until_waiting(cache, 4)
        for work in works:
            work.go.set()
        values = await asyncio.gather(*tasks)
        assert isinstance(values[0], kind)
        assert values[1:] == ["value"] * 3

    asyncio.run(main())


def test_a_handled_exception_leaves_no_cycle_behind(cache):
    class Big:
        pass

    alive = []

    async def main():
        @cache(name="f")
        async def f():
            big = Big()
            alive.append(weakref.ref(big))
            await asyncio.sleep(0)
            raise ValueError

        for _ in range(3):
            with suppress(ValueError):
                await f()
            await asyncio.sleep(0)
        return [one() for one in alive]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main()) == [None] * 3
    finally:
        gc.enable()


@anywhere
@every_loop
@pytest.mark.parametrize("through", ["call", "gather", "task", "thread", "loop of its own"])
def test_recursion_on_one_key_raises(cache, new_loop, through):
    ways = {
        "call": lambda f: f(),
        "gather": lambda f: asyncio.gather(f(), f()),
        "task": lambda f: asyncio.create_task(f()),
        "thread": lambda f: asyncio.to_thread(asyncio.run, f()),
        "loop of its own": lambda f: asyncio.to_thread(lambda: asyncio.new_event_loop().run_until_complete(f())),
    }

    async def main():
        @cache(name="f")
        async def f():
            return await ways[through](f)

        with pytest.raises(RecursiveCall):
            await f()
        while len(cache._flights):
            await asyncio.sleep(0)

    run_in(new_loop, main())


def test_a_thread_that_a_computation_waits_for_cannot_wait_for_it(cache):
    async def main():
        async def compute():
            return await asyncio.to_thread(cache.get_or_set, "key", int)

        with pytest.raises(RecursiveCall):
            await cache.aget_or_set("key", compute)

    asyncio.run(main())


def test_a_task_that_outlives_the_computation_may_ask_for_its_result(cache):
    later = []

    async def main():
        go = asyncio.Event()

        @cache(name="f")
        async def f():
            async def use():
                await go.wait()
                return await f()

            later.append(asyncio.create_task(use()))
            return "value"

        assert await f() == "value"
        await f.invalidate()
        go.set()
        assert await later[0] == "value"
        for task in later:
            await task

    asyncio.run(main())


def test_tasks_that_would_wait_for_one_another_do_not(cache):
    async def main():
        started = asyncio.Event()

        @cache(name="f")
        async def f(x):
            if x:
                started.set()
            await started.wait()
            return await f(1 - x)

        errors = await asyncio.gather(f(0), f(1), return_exceptions=True)
        assert [type(error) for error in errors] == [RecursiveCall] * 2

    asyncio.run(main())


def test_the_function_runs_in_a_copy_of_its_callers_context(cache):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    async def body():
        seen.append(variable.get())
        variable.set("theirs")
        return 1

    async def main():
        variable.set("mine")
        for name, lock in (("f", True), ("g", False)):
            await cache(name=name, lock=lock)(body)()
        assert variable.get() == "mine"

    asyncio.run(main())
    assert seen == ["mine", "mine"]


@anywhere
def test_a_task_computes_itself_at_the_limit(cache):
    async def main():
        works = [AsyncWork("first"), AsyncWork("second")]
        order = iter(works)

        @cache(name="f", lock=0.02)
        async def f():
            return await next(order)()

        first = asyncio.create_task(f())
        await works[0].begun.wait()
        works[1].go.set()
        assert await f() == "second"
        works[0].go.set()
        assert await first == "first"

    asyncio.run(main())


@anywhere
def test_a_result_that_was_outdated_while_it_was_computed_is_not_stored(cache):
    async def main():
        fences = [
            lambda f: f.invalidate(1),
            lambda f: cache.adelete(f.key(1)),
            lambda f: cache.ainvalidate_tags("tag"),
            lambda f: cache.aclear(),
        ]
        for fence in fences:
            work = AsyncWork("old")
            f = cached(cache, work, tags=["tag"])
            task = asyncio.create_task(f(1))
            await work.begun.wait()
            await fence(f)
            work.go.set()
            assert await task == "old"
            assert await f.get(1) is None

    asyncio.run(main())


def test_a_refresh_is_not_content_with_what_began_before_it(cache):
    async def main():
        old, new = AsyncWork("old"), AsyncWork("new")
        order = iter([old, new])

        @cache(name="f")
        async def f():
            return await next(order)()

        first = asyncio.create_task(f())
        await old.begun.wait()
        refreshes = [asyncio.create_task(f.refresh()) for _ in range(5)]
        await until_waiting(cache, 6)
        old.go.set()
        await new.begun.wait()
        new.go.set()
        assert await first == "old"
        assert await asyncio.gather(*refreshes) == ["new"] * 5
        assert await f() == "new"

    asyncio.run(main())


def test_tasks_that_begin_at_once_are_no_different(cache):
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("needs Python 3.12")

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        f = cached(cache, lambda x: asyncio.sleep(0, [x]))
        assert await asyncio.gather(*(f(1) for _ in range(10))) == [[1]] * 10
        assert f.cache_info().misses == 1

    asyncio.run(main())


def test_a_program_that_ends_while_a_task_computes_ends_without_a_word(tmp_path):
    code = f"""
        import asyncio, framecache
        cache = framecache.Cache("file://{tmp_path}/cache")

        @cache
        async def f(x):
            await asyncio.Event().wait()

        async def main():
            tasks = [asyncio.create_task(f(x)) for x in range(20)]
            while len(cache._flights) != 20:
                await asyncio.sleep(0)

        asyncio.run(main())
        print(len(cache._flights))
    """
    assert run(code) == "0\n"
