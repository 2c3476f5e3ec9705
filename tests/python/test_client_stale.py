"""Values that are served after their time, and how often they are computed anew."""

import asyncio
import contextvars
import threading

import pytest

import framecache
from framecache import Cache
from framecache.testing import Clock, Recorder
from support import run
from waiting import PATIENCE, Thread, cache_of, until, waiters


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", "store", "store alone"])
def cache(request, tmp_path, clock):
    with cache_of(request, tmp_path, clock=clock) as opened:
        yield opened


class Source:
    """What functions here return: a number that is counted up, or an error; each call waits while it is closed."""

    def __init__(self):
        self.calls = 0
        self.error = None
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Semaphore(0)

    def __call__(self, *_):
        self.calls += 1
        mine = self.calls
        self.begun.release()
        assert self.open.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return mine

    async def later(self, *_):
        self.calls += 1
        mine = self.calls
        self.begun.release()
        while not self.open.is_set():
            await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        return mine


def is_idle(cache):
    return len(cache._flights) == 0


def test_a_stale_value_is_served_while_one_thread_computes_it_anew(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=20, jitter=0)(lambda x: source(x))
    assert f(0) == 1
    clock.advance(9.9)
    assert f(0) == 1
    source.open.clear()
    source.begun.acquire()
    clock.advance(0.2)
    assert [f(0) for _ in range(50)] == [1] * 50
    assert source.begun.acquire(timeout=PATIENCE)
    assert [f(0) for _ in range(50)] == [1] * 50
    source.open.set()
    until(lambda: f.get(0) == 2)
    until(lambda: is_idle(cache))
    assert f(0) == 2
    assert source.calls == 2
    assert f.cache_info().stale == 100
    assert cache.stats()["stale"] == 100


def test_a_stale_value_is_served_while_one_task_computes_it_anew(cache, clock):
    source = Source()

    @cache(name="f", ttl=10, stale_for=20, jitter=0)
    async def f(x):
        return await source.later(x)

    async def main():
        assert await f(0) == 1
        clock.advance(11)
        source.open.clear()
        assert await asyncio.gather(*(f(0) for _ in range(100))) == [1] * 100
        source.open.set()
        while await f.get(0) != 2 or not is_idle(cache):
            await asyncio.sleep(0.001)
        assert await f(0) == 2

    asyncio.run(main())
    assert source.calls == 2


def test_after_the_time_in_which_it_is_served_stale_a_value_is_computed_by_the_caller(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=20, jitter=0)(lambda: source())
    assert f() == 1
    clock.advance(30.1)
    assert f() == 2
    assert f.cache_info() == (0, 2, 0, 0)
    assert cache.stats().get("stale") is None


def test_a_failing_refresh_is_tried_again_after_its_cool_down(cache, clock, caplog):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=100, jitter=0)(lambda: source())
    f()
    source.error = ValueError("no")
    clock.advance(11)
    for attempt in range(1, 4):
        assert f() == 1
        until(lambda: source.calls == 1 + attempt and is_idle(cache))  # noqa: B023
        assert [f() for _ in range(20)] == [1] * 20
        until(lambda: is_idle(cache))
        clock.advance(4.9)
        assert f() == 1
        until(lambda: is_idle(cache))
        assert source.calls == 1 + attempt
        clock.advance(0.2)
    assert len([one for one in caplog.records if "anew failed" in one.message]) == 1
    source.error = None
    assert f() == 1
    until(lambda: f.get() == 5 and is_idle(cache))
    assert f() == 5
    assert len(cache._computer.cooling) == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_refresh_that_is_interrupted_cools_down_too(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=100, jitter=0)(lambda: source())
    f()
    source.error = SystemExit()
    clock.advance(11)
    assert f() == 1
    until(lambda: source.calls == 2 and is_idle(cache))
    assert [f() for _ in range(20)] == [1] * 20
    until(lambda: is_idle(cache))
    assert source.calls == 2
    until(lambda: not any(thread.name == "framecache-refresh" for thread in threading.enumerate()))


def test_a_stale_value_is_served_if_computing_it_anew_fails(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_if_error=20, jitter=0)(lambda: source())
    assert f() == 1
    clock.advance(11)
    source.error = ValueError("no")
    assert [f() for _ in range(10)] == [1] * 10
    assert source.calls == 2
    clock.advance(5.1)
    assert [f() for _ in range(10)] == [1] * 10
    assert source.calls == 3
    assert f.cache_info() == (0, 1, 20, 2)
    clock.advance(14.5)
    with pytest.raises(ValueError, match="no"):
        f()
    source.error = None
    assert f() == 5
    clock.advance(5)
    assert f() == 5


def test_a_stale_value_is_served_to_tasks_if_computing_it_anew_fails(cache, clock):
    source = Source()

    @cache(name="f", ttl=10, stale_if_error=20, jitter=0)
    async def f():
        return [await source.later()]

    async def main():
        assert await f() == [1]
        clock.advance(11)
        source.error = ValueError("no")
        values = await asyncio.gather(*(f() for _ in range(10)))
        assert values == [[1]] * 10
        assert len({id(value) for value in values}) == 10
        assert source.calls == 2
        clock.advance(25)
        with pytest.raises(ValueError, match="no"):
            await f()

    asyncio.run(main())


def test_those_who_wait_get_the_stale_value_too_if_computing_it_anew_fails(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_if_error=20, jitter=0)(lambda: [source()])
    f()
    source.begun.acquire()
    clock.advance(11)
    source.open.clear()
    source.error = ValueError("no")
    threads = [Thread(f)]
    assert source.begun.acquire(timeout=PATIENCE)
    threads += [Thread(f) for _ in range(5)]
    until(lambda: waiters(cache) == 5)
    source.open.set()
    values = [thread.value for thread in threads]
    assert values == [[1]] * 6
    assert len({id(value) for value in values}) == 6
    assert source.calls == 2


def test_a_value_that_was_invalidated_while_it_was_computed_anew_is_not_served_stale(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_if_error=20, jitter=0, tags=["tag"])(lambda: source())
    for invalidate in (f.invalidate, lambda: cache.invalidate_tags("tag"), cache.clear):
        source.error = None
        f()
        while source.begun.acquire(blocking=False):
            pass
        clock.advance(11)
        source.open.clear()
        source.error = ValueError("no")
        thread = Thread(f)
        assert source.begun.acquire(timeout=PATIENCE)
        invalidate()
        source.open.set()
        assert isinstance(thread.error, ValueError)
        clock.advance(6)


def test_a_value_that_became_too_old_while_it_was_computed_anew_is_not_served_stale(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_if_error=20, jitter=0)(lambda: source())
    f()
    source.begun.acquire()
    clock.advance(11)
    source.open.clear()
    source.error = ValueError("no")
    thread = Thread(f)
    assert source.begun.acquire(timeout=PATIENCE)
    clock.advance(20)
    source.open.set()
    assert isinstance(thread.error, ValueError)


def test_a_refresh_that_is_outdated_is_not_stored(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=100, jitter=0)(lambda: source())
    f()
    source.begun.acquire()
    clock.advance(11)
    source.open.clear()
    assert f() == 1
    assert source.begun.acquire(timeout=PATIENCE)
    f.invalidate()
    source.open.set()
    until(lambda: is_idle(cache))
    assert f.get() is None


def test_refreshers_are_part_of_no_computation_and_see_their_callers_context(cache, clock):
    variable = contextvars.ContextVar("variable", default="none")
    seen, inner_done = [], threading.Event()

    @cache(name="inner", ttl=10, stale_for=100, jitter=0)
    def inner():
        if seen:
            # Asks for what waits for nothing of it.
            assert outer() == "outer"
            inner_done.set()
        seen.append(variable.get())
        return len(seen)

    @cache(name="outer")
    def outer():
        inner()
        inner_waits = lambda: waiters(cache) == 1 or inner_done.is_set()  # noqa: E731
        until(inner_waits)
        return "outer"

    inner()
    clock.advance(11)
    variable.set("mine")
    assert outer() == "outer"
    until(lambda: inner.get() == 2)
    assert seen == ["none", "mine"]


def test_a_refresh_that_another_cache_on_the_directory_does_is_left_to_it(tmp_path, clock):
    url, source = f"file://{tmp_path}/cache", Source()

    with Cache(url, clock=clock) as one, Cache(url, clock=clock) as other:
        f, g = (cache(name="f", version=1, ttl=10, stale_for=100, jitter=0)(lambda: source()) for cache in (one, other))
        f()
        source.begun.acquire()
        clock.advance(11)
        source.open.clear()
        assert f() == 1
        assert source.begun.acquire(timeout=PATIENCE)
        assert [g() for _ in range(20)] == [1] * 20
        until(lambda: is_idle(other))
        assert len(other._computer.resting) == 1
        source.open.set()
        until(lambda: is_idle(one))
        assert g() == 2
        assert source.calls == 2


def test_more_refreshes_than_threads_are_done_bit_by_bit(cache, clock):
    source = Source()
    f = cache(name="f", ttl=10, stale_for=100, jitter=0)(lambda x: (source(), x)[1])
    for x in range(40):
        f(x)
    clock.advance(11)
    source.open.clear()
    assert [f(x) for x in range(40)] == list(range(40))
    assert len(cache._flights) <= 8
    source.open.set()
    hits = lambda: f.cache_info().hits  # noqa: E731

    def all_fresh():
        before = hits()
        for x in range(40):
            f(x)
        return hits() - before == 40

    until(all_fresh)
    assert source.calls == 80


# Times


def test_jitter_takes_a_part_of_the_ttl_off(clock):
    cache = Cache(clock=clock)
    f = cache(name="f", ttl=100, jitter=0.5)(lambda x: x)
    for x in range(200):
        f(x)
    deadlines = [cache.get_entry(f.key(x)).deadline - clock.time() for x in range(200)]
    assert all(50 <= left <= 100 for left in deadlines)
    assert max(deadlines) - min(deadlines) > 25
    assert len(set(deadlines)) > 100
    assert {cache.get_entry(cache_key).deadline for cache_key in [f.key(1)]} == {clock.time() + deadlines[1]}


def test_a_ttl_may_depend_on_the_result(cache, clock):
    f = cache(name="f", ttl=lambda value: value, jitter=0)(lambda value: value)
    for value in (5, 50, None):
        f(value)
    clock.advance(6)
    assert [f.get(value) for value in (5, 50)] == [None, 50]
    clock.advance(60)
    assert f.get(50) is None
    assert cache.get_entry(f.key(None)).deadline is None
    for wrong in (0, -1, float("nan"), float("inf"), "5"):
        with pytest.raises(framecache.InvalidArgument, match="ttl"):
            f(wrong)


def test_a_ttl_that_depends_on_the_result_goes_with_staleness(cache, clock):
    source = Source()
    f = cache(name="f", ttl=lambda value: 10 * value, stale_if_error=5, jitter=0)(lambda: source())
    assert f() == 1
    clock.advance(12)
    source.error = ValueError("no")
    assert f() == 1
    clock.advance(5)
    with pytest.raises(ValueError, match="no"):
        f()


def test_a_jump_of_the_wall_clock_does_not_move_deadlines_in_memory(clock):
    cache = Cache(clock=clock)
    cache.set("key", "value", ttl=100)
    for jump in (-1e8, 1e8):
        clock.set_time(clock.time() + jump)
        assert cache.get("key") == "value"
    clock.advance(99)
    assert cache.get("key") == "value"
    clock.advance(2)
    assert cache.get("key") is None


def test_until_is_the_last_moment(cache, clock):
    f = cache(name="f", ttl=10, stale_for=20, stale_if_error=30, jitter=0)(lambda: "value")
    f()
    entry = cache.get_entry(f.key())
    assert (entry.deadline, entry.until) == (clock.time() + 10, clock.time() + 40)


def test_hooks_are_told_of_stale_values(clock):
    cache, recorder = Cache(clock=clock), Recorder()
    f = cache(name="f", ttl=10, stale_if_error=20, jitter=0)(Source())
    f()
    cache.add_hook(recorder)
    clock.advance(11)
    f.__wrapped__.error = ValueError("no")
    assert f() == 1
    assert recorder.kinds() == ["miss", "stale"]
    assert recorder.events[1].key == f.key()


def test_keys_that_failed_once_are_forgotten(cache, clock):
    f = cache(name="f", ttl=1, stale_if_error=10**6, jitter=0)(lambda x: 1 // (x if clock.time() < 1e9 + 1 else 0))
    for x in range(1, 3000):
        f(x)
    for x in range(1, 3000):
        clock.advance(6 if x == 1 else 0.01)
        assert f(x) in (0, 1)
    assert len(cache._computer.cooling) < 2100


# The end of a program


@pytest.mark.parametrize("where", ["function", "store"])
@pytest.mark.parametrize("url", ["None", "'file://{directory}/cache'"])
def test_a_program_ends_without_a_word_while_values_are_refreshed(tmp_path, where, url):
    code = f"""
        import framecache, framecache.testing, threading
        clock = framecache.testing.Clock()
        cache = framecache.Cache({url.format(directory=tmp_path)}, clock=clock)
        big, begun, stop = bytes(20_000_000), threading.Semaphore(0), threading.Event()

        @cache(ttl=10, stale_for=10**6, jitter=0)
        def f(x):
            if clock.time() > 1_000_000_005:
                begun.release()
                if {where == "function"}:
                    stop.wait()
            return big

        for x in range(6):
            f(x)
        clock.advance(11)
        for x in range(6):
            f(x)
        for x in range(6):
            begun.acquire()
    """
    assert run(code, env={"PYTHONWARNINGS": "error"}) == ""


def test_a_program_ends_without_a_word_while_threads_of_its_own_use_a_store(tmp_path):
    code = f"""
        import framecache, threading
        cache = framecache.Cache("file://{tmp_path}/cache", l1=None)
        begun = threading.Semaphore(0)

        def use(x):
            begun.release()
            while True:
                cache.set(str(x), bytes(100_000))
                cache.get(str(x))

        for x in range(4):
            threading.Thread(target=use, args=(x,), daemon=True).start()
        for x in range(4):
            begun.acquire()
    """
    for _ in range(3):
        # Tracing memory, Rust's allocations take the GIL, which ends a daemon where it stands.
        assert run(code, env={"PYTHONTRACEMALLOC": "0"}) == ""
