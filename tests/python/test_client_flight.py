"""One computation of a key for all threads that ask for it meanwhile."""

import contextvars
import gc
import linecache
import os
import signal
import sys
import threading
import time
import weakref

import pytest

import framecache
from framecache import Cache, RecursiveCall
from framecache._flight import Flight, Flights, Outcome
from support import run
from waiting import PATIENCE, Thread, anywhere, cache, until, waiters  # noqa: F401


class Work:
    """A function's body that begins, waits to be told, and ends."""

    def __init__(self, value=None):
        self.value = value
        self.calls = 0
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, *_):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    def wait_for_begin(self):
        assert self.begun.wait(PATIENCE)


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
    error = [thread.error for thread in threads][0]
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
            try:
                f()
            except ValueError:
                pass
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
    def f():
        invalidate()
        return f()

    for invalidate in (lambda: f.invalidate(), lambda: cache.invalidate_tags("tag"), cache.clear):
        with pytest.raises(RecursiveCall):
            f()


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


# Late writes

FENCES = {
    "delete": lambda cache, f: cache.delete(f.key(1)),
    "delete_many": lambda cache, f: cache.delete_many([f.key(1), "other"]),
    "clear": lambda cache, f: cache.clear(),
    "cache_clear": lambda cache, f: f.cache_clear(),
    "invalidate": lambda cache, f: f.invalidate(1),
    "invalidate_tags": lambda cache, f: cache.invalidate_tags("tag"),
}


@anywhere
@pytest.mark.parametrize("tags", [("tag",), lambda value: [value[:3]]], ids=["tags", "tags of the value"])
@pytest.mark.parametrize("fence", FENCES)
def test_a_result_that_was_outdated_while_it_was_computed_is_not_stored(cache, tags, fence):
    old, new = Work("tag old"), Work("tag new")
    order = iter([old, new])

    @cache(name="f", tags=tags)
    def f(x):
        return next(order)()

    first = Thread(f, 1)
    old.wait_for_begin()
    FENCES[fence](cache, f)
    # Who asks now is not given what was begun before.
    second = Thread(f, 1)
    new.wait_for_begin()
    old.go.set()
    assert first.value == "tag old"
    assert f.get(1) is None
    new.go.set()
    assert second.value == "tag new"
    assert f.get(1) == f(1) == "tag new"
    assert cache.stats()["superseded"] == 1


@anywhere
def test_a_value_that_is_set_is_not_replaced_by_one_whose_computation_began_before(cache):
    work = Work("computed")
    first = Thread(cache.get_or_set, "key", work)
    work.wait_for_begin()
    assert cache.set("key", "set")
    assert cache.get_or_set("key", lambda: "not called") == "set"
    work.go.set()
    assert first.value == "computed"
    assert cache.get("key") == "set"
    f_work = Work("computed")
    f = cache(name="f")(lambda: f_work())
    first = Thread(f)
    f_work.wait_for_begin()
    assert f.set("set")
    f_work.go.set()
    assert first.value == "computed"
    assert f() == "set"


@anywhere
@pytest.mark.parametrize("lock", [False, 0.001])
def test_what_is_computed_alone_is_fenced_too(cache, lock):
    works = [Work("first"), Work("second")]
    order = iter(works)

    @cache(name="f", lock=lock)
    def f():
        return next(order)()

    threads = [Thread(f)]
    works[0].wait_for_begin()
    threads.append(Thread(f))
    works[1].wait_for_begin()
    f.invalidate()
    for work in works:
        work.go.set()
    assert [thread.value for thread in threads] == ["first", "second"]
    assert f.get() is None


@anywhere
def test_a_refresh_is_not_content_with_what_began_before_it(cache):
    old, new = Work("old"), Work("new")
    order = iter([old, new])
    f = cache(name="f")(lambda: next(order)())
    first = Thread(f)
    old.wait_for_begin()
    refreshes = [Thread(f.refresh) for _ in range(5)]
    until(lambda: waiters(cache) == 5)
    old.go.set()
    new.wait_for_begin()
    until(lambda: waiters(cache) == 4)
    new.go.set()
    assert first.value == "old"
    assert [thread.value for thread in refreshes] == ["new"] * 5
    assert f() == "new"


@anywhere
def test_the_right_to_compute_is_given_back_whatever_happens(cache):
    if cache._path is None:
        pytest.skip("only a store gives leases")

    def is_free(key):
        token = cache._tiers.store.lease(key, 60_000, int(time.time() * 1000))
        return token is not None and cache._tiers.store.release(key, token)

    def raising(error):
        raise error

    def cases():
        yield cache(name="raises")(lambda: raising(ValueError())), ValueError
        yield cache(name="interrupted")(lambda: raising(KeyboardInterrupt())), KeyboardInterrupt
        yield cache(name="not stored", cache_if=lambda value: False)(lambda: 0), None
        yield cache(name="condition raises", cache_if=lambda value: raising(OSError()))(lambda: 0), OSError
        yield cache(name="tags raise", tags=lambda value: raising(OSError()))(lambda: 0), OSError
        yield cache(name="ttl is wrong", ttl=lambda value: -1)(lambda: 0), framecache.InvalidArgument
        yield cache(name="unencodable")(lambda: object()), framecache.EncodeError
        fenced = cache(name="fenced")(lambda: fenced.invalidate())
        yield fenced, None
        tagged = cache(name="tagged", tags=["tag"])(lambda: cache.invalidate_tags("tag"))
        yield tagged, None

    for f, error in cases():
        if error is None:
            f()
        else:
            with pytest.raises(error):
                f()
        assert is_free(f.key()), f.key()


# Flights themselves


def test_what_closed_loops_left_behind_is_dropped():
    class Closed:
        is_closed = staticmethod(lambda: True)
        is_running = staticmethod(lambda: False)
        call_soon_threadsafe = None

    flights = Flights()
    for number in range(10_000):
        flights.begin(Flight(flights, 1, str(number), Closed()))
    assert len(flights) < 200


def test_a_flight_ends_once_and_only_if_it_began():
    flights = Flights()
    mine, other = Flight(flights, 1, "key"), Flight(flights, 1, "key", background=True)
    assert flights.begin(mine) is mine
    assert flights.begin(other) is mine
    flights.end(other, Outcome("lost"))
    assert flights.current(1, "key") is mine
    first = Outcome("lost")
    flights.end(mine, first)
    flights.end(mine, Outcome("alone"))
    assert mine.outcome is first
    assert len(flights) == 0


def test_a_leader_that_is_interrupted_anywhere_does_not_leave_its_key_locked():
    """Raise at every line that the client executes, one after another, as a signal handler may."""
    cache = Cache()
    files = [os.path.join(os.path.dirname(framecache.__file__), name) for name in ("_compute.py", "_flight.py")]

    class Stop(BaseException):
        pass

    def is_handing_over(frame):
        """Where there is no place to go back to: at the call that does it, and in it."""
        while frame is not None and frame.f_code.co_filename in files:
            if frame.f_code.co_name == "end":
                return True
            frame = frame.f_back
        return False

    def tracer(at):
        seen = 0

        def trace(frame, event, _):
            nonlocal seen
            if frame.f_code.co_filename not in files or is_handing_over(frame):
                return None
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if event == "line" and "flights.end(" not in line:
                seen += 1
                if seen == at:
                    raise Stop
            return trace

        return trace

    number, stopped = 0, True
    while stopped:
        number += 1
        f = cache(name=f"f{number}")(lambda: 1)
        sys.settrace(tracer(number))
        try:
            f()
            stopped = False
        except Stop:
            pass
        finally:
            sys.settrace(None)
        assert len(cache._flights) == 0, number
        assert f() == 1
    assert number > 50
