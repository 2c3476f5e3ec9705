"""Computations that are outdated before they end, that are interrupted, and what is left of them."""

import linecache
import os
import sys
import time

import pytest

import framecache
from framecache import Cache
from framecache._flight import Flight, Flights, Outcome
from waiting import Thread, Work, anywhere, cache_of, until, waiters


@pytest.fixture
def cache(request, tmp_path):
    with cache_of(request, tmp_path) as opened:
        yield opened


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


def test_what_a_closed_loop_left_behind_keeps_its_lease_until_that_is_given_back():
    class Closed:
        is_closed = staticmethod(lambda: True)
        is_running = staticmethod(lambda: False)

    flights = Flights()
    left = Flight(flights, 1, "key", Closed())
    flights.begin(left)
    left.lease = 1
    mine = Flight(flights, 1, "key")
    assert flights.begin(mine) is mine
    flights.end(Flight(flights, 1, "key"), Outcome("lost"))
    assert flights.before(mine) == [left]
    left.lease = None
    flights.end(mine, Outcome("lost"))
    assert len(flights) == 0


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
