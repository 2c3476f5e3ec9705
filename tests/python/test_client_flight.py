"""One computation of a key for all threads that ask for it meanwhile."""

import contextvars
import gc
import signal
import threading
import weakref
from contextlib import suppress

import pytest

from framecache import RecursiveCall
from support import run
from waiting import PATIENCE, Thread, Work, anywhere, cache_of, until, waiters


@pytest.fixture
def cache(request, tmp_path):
    with cache_of(request, tmp_path) as opened:
        yield opened


@anywhere
def test_two_hundred_threads_run_a_function_once(cache):
    calls = []

    @cache(name="f")
    def f(x):
        calls.append(x)
        until(lambda: waiters(cache) == 199)
        return [x]

    threads = [Thread(f, 1) for _ in range(200)]
    values = [thread.value for thread in threads]
    assert calls == [1]
    assert values == [[1]] * 200
    assert len({id(value) for value in values}) == 200
    assert f.cache_info()[:2] == (199, 1)
    assert cache.stats()["joined"] == 199


@anywhere
def test_threads_compute_different_keys_at_the_same_time(cache):
    both = threading.Barrier(2)

    @cache(name="f")
    def f(x):
        both.wait(PATIENCE)
        return x

    threads = [Thread(f, x) for x in range(2)]
    assert [thread.value for thread in threads] == [0, 1]


def test_each_waiter_has_an_object_of_its_own_where_it_may_be_changed(cache):
    work = Work({"list": [1], "table": bytearray(b"x")})
    f = cache(name="f")(lambda: work())
    first = Thread(f)
    work.wait_for_begin()
    others = [Thread(f) for _ in range(3)]
    until(lambda: waiters(cache) == 3)
    work.go.set()
    values = [first.value, *(thread.value for thread in others), f()]
    for value in values:
        value["list"].append(2)
        value["table"] += b"y"
    assert values == [{"list": [1, 2], "table": bytearray(b"xy")}] * 5
    assert work.value == {"list": [1], "table": bytearray(b"x")}
    assert f() == {"list": [1], "table": bytearray(b"x")}


def test_shared_results_are_one_object_for_all_who_wait(cache):
    work = Work([1])
    f = cache(share=True, name="f")(lambda: work())
    first = Thread(f)
    work.wait_for_begin()
    others = [Thread(f) for _ in range(3)]
    until(lambda: waiters(cache) == 3)
    work.go.set()
    assert len({id(thread.value) for thread in [first, *others]} | {id(f())}) == 1


@anywhere
def test_an_exception_reaches_those_who_wait_and_is_not_kept(cache):
    work = Work(ValueError("no"))
    f = cache(name="f")(lambda: work())
    first = Thread(f)
    work.wait_for_begin()
    others = [Thread(f) for _ in range(5)]
    until(lambda: waiters(cache) == 5)
    work.go.set()
    assert all(isinstance(thread.error, ValueError) for thread in [first, *others])
    assert work.calls == 1
    work.value = "now"
    assert f() == "now"
    assert work.calls == 2
    assert f.cache_info().errors == 6


def test_a_traceback_does_not_grow_with_those_who_wait(cache):
    work = Work(ValueError("no"))
    f = cache(name="f")(lambda: work())
    threads = [Thread(f)]
    work.wait_for_begin()
    threads += [Thread(f) for _ in range(50)]
    until(lambda: waiters(cache) == 50)
    work.go.set()
    error = [thread.error for thread in threads].pop()
    frames, entry = [], error.__traceback__
    while entry is not None:
        frames.append(entry.tb_frame.f_code.co_name)
        entry = entry.tb_next
    assert len(frames) < 10, frames
    assert frames[-2:] == ["<lambda>", "__call__"]
    assert "lead" not in frames


def test_a_handled_exception_leaves_no_cycle_behind(cache):
    class Big:
        pass

    @cache(name="f")
    def f():
        big = Big()
        alive.append(weakref.ref(big))
        raise ValueError

    alive = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with suppress(ValueError):
                f()
        assert [one() for one in alive] == [None, None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_reaches_the_one_it_hits_and_another_one_computes(cache, kind):
    calls = []
    work = Work(kind("stop"))

    @cache(name="f")
    def f():
        calls.append(threading.get_ident())
        return work() if len(calls) == 1 else "value"

    first = Thread(f)
    work.wait_for_begin()
    others = [Thread(f) for _ in range(5)]
    until(lambda: waiters(cache) == 5)
    work.go.set()
    assert type(first.error) is kind
    assert [thread.value for thread in others] == ["value"] * 5
    assert len(calls) == 2
    assert calls[1] in [thread.ident for thread in others]


def test_recursion_on_one_key_raises(cache):
    @cache(name="f")
    def f(x):
        return f(x)

    with pytest.raises(RecursiveCall, match=r"f#.*expected a computation that does not need its own result"):
        f(1)
    assert isinstance(RecursiveCall(), RecursionError)


def test_recursion_on_other_keys_is_recursion(cache):
    @cache(name="f")
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(40) == 102334155
    assert fib.cache_info().misses == 41


def test_recursion_of_get_or_set_raises(cache):
    with pytest.raises(RecursiveCall):
        cache.get_or_set("key", lambda: cache.get_or_set("key", int))


@anywhere
def test_recursion_after_the_key_was_invalidated_raises(cache):
    @cache(name="f", tags=["tag"])
    def f(invalidate):
        ways[invalidate]()
        return f(invalidate)

    ways = [lambda: f.invalidate(0), lambda: cache.invalidate_tags("tag"), cache.clear]
    for invalidate in range(3):
        with pytest.raises(RecursiveCall):
            f(invalidate)


def test_recursion_in_what_a_decorator_calls_raises(cache):
    @cache(name="f", cache_if=lambda value: f(1))
    def f(x):
        return x

    with pytest.raises(RecursiveCall):
        f(1)


@pytest.mark.parametrize("number", [2, 3])
def test_threads_that_would_wait_for_one_another_do_not(cache, number):
    started = threading.Barrier(number)

    @cache(name="f")
    def f(x):
        started.wait(PATIENCE)
        return f((x + 1) % number)

    errors = [thread.error for thread in [Thread(f, x) for x in range(number)]]
    assert [type(error) for error in errors] == [RecursiveCall] * number


def test_a_caller_computes_itself_at_the_limit(cache):
    works = [Work("first"), Work("second")]
    order = iter(works)

    @cache(name="f", lock=0.02)
    def f():
        return next(order)()

    first = Thread(f)
    works[0].wait_for_begin()
    works[1].go.set()
    assert f() == "second"
    works[0].go.set()
    assert first.value == "first"


def test_without_a_lock_everybody_computes(cache):
    both = threading.Barrier(5)

    @cache(name="f", lock=False)
    def f():
        both.wait(PATIENCE)
        return 1

    assert [thread.value for thread in [Thread(f) for _ in range(5)]] == [1] * 5


def test_a_limit_of_a_thousand_years_can_be_waited_for(cache):
    work = Work(1)
    f = cache(name="f", lock=1000 * 365 * 86400)(lambda: work())
    first = Thread(f)
    work.wait_for_begin()
    second = Thread(f)
    until(lambda: waiters(cache) == 1)
    work.go.set()
    assert (first.value, second.value) == (1, 1)


def test_the_function_runs_in_a_copy_of_its_callers_context(cache):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []

    def body():
        seen.append(variable.get())
        variable.set("theirs")
        return 1

    variable.set("mine")
    cache(name="f")(body)()
    cache(name="g", lock=False)(body)()
    assert seen == ["mine", "mine"]
    assert variable.get() == "mine"


def test_a_signal_handler_that_raises_ends_the_wait():
    code = """
        import signal, threading, framecache
        cache = framecache.Cache()
        begun, go = threading.Event(), threading.Event()

        @cache(name="f")
        def f():
            begun.set()
            go.wait()
            return 1

        class Stop(Exception):
            pass

        def stop(*_):
            raise Stop

        signal.signal(signal.SIGALRM, stop)
        threading.Thread(target=f).start()
        begun.wait()

        def ring():
            while not any(flight.waiters for flight in cache._flights.of(cache._tiers.scope, "")):
                pass
            signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

        threading.Thread(target=ring).start()
        try:
            f()
        except Stop:
            print("stopped")
        assert not any(flight.waiters for flight in cache._flights.of(cache._tiers.scope, ""))
        go.set()
        assert f() == 1
        print(len(cache._flights))
    """
    assert run(code).split() == ["stopped", "0"]


def test_a_signal_handler_may_use_the_cache_whose_computation_it_interrupts(cache):
    caught = []

    @cache(name="f")
    def f():
        signal.raise_signal(signal.SIGUSR1)
        return "value"

    def handler(*_):
        cache.set("key", "in a handler")
        try:
            f()
        except RecursiveCall as error:
            caught.append(error)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert f() == "value"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(caught) == 1
    assert cache.get("key") == "in a handler"


def test_a_finalizer_that_runs_while_the_flights_are_locked_may_use_the_cache(cache):
    f = cache(name="f")(lambda x: x)
    with cache._flights.mutex:
        assert f(1) == 1


def test_who_waits_releases_the_gil(cache):
    work = Work("value")
    f = cache(name="f")(lambda: work())
    first = Thread(f)
    work.wait_for_begin()
    teller = threading.Timer(0, lambda: (until(lambda: waiters(cache) == 1), work.go.set()))
    teller.start()
    assert f() == "value"
    assert first.value == "value"
