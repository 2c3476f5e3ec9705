"""A store that fails is a miss; results that cannot be stored are returned."""

import asyncio
import errno
import logging
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress

import pytest

from framecache import Cache, EncodeError, StoreBusy, StoreError
from framecache._breaker import Breaker, Circuit, Pauses
from framecache.testing import Clock, Recorder
from support import run
from waiting import PATIENCE, Thread, anywhere, cache_of, until, waiters


@pytest.fixture
def cache(request, tmp_path):
    with cache_of(request, tmp_path) as opened:
        yield opened


class Failing:
    """A store of which some methods fail, as a store in Rust does."""

    def __init__(self, store):
        self._store = store
        self.broken = ()
        self.error = StoreError(errno.EIO, "input/output error")
        self.calls = []

    def __getattr__(self, name):
        method = getattr(self._store, name)

        def called(*arguments, **options):
            self.calls.append(name)
            if name in self.broken:
                raise self.error
            return method(*arguments, **options)

        return called


READS = ("look", "contains", "get_many")
WRITES = ("put_many", "lease", "release")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def broken(tmp_path, clock):
    """A cache without memory whose store can be made to fail: the cache and its store."""
    with Cache(f"file://{tmp_path}/cache", l1=None, clock=clock) as opened:
        store = Failing(opened._tiers.store)
        opened._tiers.store, opened._tiers.direct = store, None
        yield opened, store
        assert len(opened._flights) == 0


def test_a_store_that_fails_is_a_miss_and_counted(broken, caplog):
    cache, store = broken
    cache.set("key", "value")
    store.broken = READS + WRITES
    f = cache(name="f")(lambda x: [x])
    assert f(1) == [1]
    assert cache.get("key", "default") == "default"
    assert cache.set("key", "other") is False
    assert "key" not in cache
    stats = cache.stats()
    assert stats["error"] >= 3
    assert stats["unreadable"] >= 2
    assert stats["dropped"] >= 1
    assert cache.health()["errors"] == stats["error"]
    store.broken = ()


@pytest.mark.parametrize("method", [*READS, *WRITES, "fence"])
@pytest.mark.parametrize("kind", [StoreError, StoreBusy])
def test_a_function_does_not_raise_because_of_its_store(broken, method, kind):
    cache, store = broken
    store.broken, store.error = (method,), kind(errno.EIO, "no")
    f = cache(name="f", tags=["tag"])(lambda x: [x])

    @cache(name="g")
    async def g(x):
        return [x]

    for x in range(20):
        assert f(x) == f(x) == [x]
        assert asyncio.run(g(x)) == [x]
        assert f.get(x) in (None, [x])
        assert f.warm(x) in (True, False)
        assert f.refresh(x) == [x]
    assert cache.get_or_set("key", lambda: "value") == "value"


def test_without_guards_nothing_is_stored(broken):
    cache, store = broken
    store.broken = ("fence",)
    f = cache(name="f")(lambda: "value")
    assert f() == "value"
    assert f.get() is None
    assert cache.stats()["dropped"] == 1


def test_a_busy_store_drops_what_is_set(broken):
    cache, store = broken
    store.broken, store.error = ("put_many",), StoreBusy(errno.EAGAIN, "busy")
    assert cache.set("key", "value") is False
    assert cache.stats()["dropped"] == 1


def test_a_stale_value_is_not_taken_for_one_that_could_not_be_stored(broken, clock):
    cache, store = broken
    values = iter(["old", "new", "newer"])
    f = cache(name="f", ttl=10, stale_if_error=100, jitter=0)(lambda: next(values))
    f()
    clock.advance(11)
    store.broken = ("put_many",)
    assert f() == "new"
    store.broken = ()
    assert f() == "newer"


def test_failures_are_logged_at_most_once_a_minute(broken, caplog, monkeypatch):
    cache, store = broken
    store.broken = ("look",)
    now = time.monotonic()

    class Time:
        perf_counter = staticmethod(time.perf_counter)
        monotonic = staticmethod(lambda: now)

    monkeypatch.setattr("framecache._shared.time", Time)
    caplog.set_level(logging.WARNING, "framecache")

    def lines():
        return [one for one in caplog.records if "the store failed" in one.message]

    for minute in range(1, 4):
        for _ in range(4):
            cache.get("key")
            cache._shared.breaker.succeeded()
        assert len(lines()) == minute
        now += 59.9
        cache.get("key")
        assert len(lines()) == minute
        now += 0.2
        cache._shared.breaker.succeeded()
    store.broken = ()


def test_a_store_that_fails_raises_if_that_is_wanted(tmp_path):
    with Cache(f"file://{tmp_path}/cache", l1=None, on_error="raise") as cache:
        store = cache._tiers.store = Failing(cache._tiers.store)
        f = cache(name="f")(lambda x: x)

        @cache(name="g")
        async def g(x):
            return x

        for method in ("look", "put_many", "lease"):
            store.broken = (method,)
            with pytest.raises(StoreError):
                f(1)
            with pytest.raises(StoreError):
                asyncio.run(g(1))
            cache._shared.breaker.succeeded()
            cache._shared.breaker.succeeded(write=True)
        store.broken = ()
        assert f(1) == 1
        assert len(cache._flights) == 0


def test_the_breaker_opens_half_opens_and_closes(broken, clock):
    cache, store = broken
    f = cache(name="f")(lambda: "value")
    f()
    store.broken = READS
    assert cache.health()["store"] == "closed"
    for _ in range(5):
        assert cache.get("key") is None
    assert cache.health()["store"] == "open"
    store.calls.clear()
    for _ in range(10):
        assert cache.get("key") is None
        assert "key" not in cache
    assert "look" not in store.calls
    assert "contains" not in store.calls
    clock.advance(1.1)
    assert cache.health()["store"] == "half-open"
    for _ in range(10):
        cache.get("key")
    assert store.calls.count("look") == 1
    assert cache.health()["store"] == "open"
    clock.advance(1.1)
    assert cache.health()["store"] == "open"
    clock.advance(1)
    store.broken = ()
    assert f() == "value"
    assert cache.health()["store"] == "closed"
    assert cache.stats()["error"] == 6


@pytest.mark.parametrize("read", [lambda cache: cache.get_many(["key"]), lambda cache: {"key": cache.get("key")}])
def test_a_trial_that_succeeds_closes_the_breaker_whatever_read_it_is(tmp_path, clock, read):
    with Cache(f"file://{tmp_path}/cache", l1=None, clock=clock) as cache:
        cache.set("key", b"value")
        for _ in range(5):
            cache._shared.breaker.failed()
        clock.advance(1.1)
        assert cache.health()["store"] == "half-open"
        assert read(cache) == {"key": b"value"}
        assert cache.health()["store"] == "closed"


def test_a_store_to_which_nothing_can_be_written_is_read_on(broken, clock):
    cache, store = broken
    f = cache(name="f")(lambda x: x)
    f(0)
    store.broken = WRITES
    for x in range(1, 10):
        assert f(x) == x
        assert f(0) == 0
    assert cache.health()["store"] == "open"
    store.calls.clear()
    assert [f(x) for x in range(20)] == list(range(20))
    assert cache.set("key", "value") is False
    assert set(store.calls) == {"look", "fence"}
    assert f.get(0) == 0
    clock.advance(1.1)
    assert cache.health()["store"] == "half-open"
    store.broken = ()
    # The trial is the lease, after which the value may be written.
    assert f(30) == 30
    assert f.get(30) == 30
    assert cache.health()["store"] == "closed"


def test_hooks_are_told_of_errors(broken):
    cache, store = broken
    recorder = Recorder()
    cache.add_hook(recorder)
    store.broken = ("look",)
    cache.get("key")
    assert recorder.kinds() == ["error", "miss"]
    assert recorder.events[0][1:3] == ("store", "key")


# The breaker itself


def test_a_circuit_opens_for_longer_each_time_its_trial_fails_and_at_most_a_minute(clock):
    circuit = Circuit(clock)
    for _ in range(4):
        circuit.failed()
    circuit.succeeded()
    for _ in range(4):
        circuit.failed()
    assert circuit.state == "closed"
    circuit.failed()
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        # What began before it opened fails now.
        for _ in range(200):
            circuit.failed()
        clock.advance(seconds - 0.01)
        assert (circuit.state, circuit.allows()) == ("open", False)
        clock.advance(0.02)
        assert circuit.state == "half-open"
        assert [circuit.allows() for _ in range(3)] == [True, False, False]
        circuit.failed()
    clock.advance(61)
    assert circuit.allows()
    circuit.succeeded()
    assert (circuit.state, circuit.allows()) == ("closed", True)
    for _ in range(5):
        circuit.failed()
    clock.advance(1.01)
    assert circuit.state == "half-open"


def test_a_trial_of_which_nothing_is_heard_is_followed_by_another(clock):
    circuit = Circuit(clock)
    for _ in range(5):
        circuit.failed()
    clock.advance(1.1)
    assert [circuit.allows(), circuit.allows()] == [True, False]
    clock.advance(1.1)
    assert [circuit.allows(), circuit.allows()] == [True, False]


def test_reads_go_on_where_writes_fail(clock):
    breaker = Breaker(clock)
    for _ in range(5):
        breaker.succeeded()
        breaker.failed(write=True)
    assert breaker.state == "open"
    assert (breaker.allows(), breaker.allows(write=True)) == (True, False)
    clock.advance(1.1)
    assert breaker.state == "half-open"
    breaker.succeeded(write=True)
    assert breaker.state == "closed"


def test_pauses_that_are_over_are_dropped(clock):
    pauses = Pauses(clock)
    for number in range(10_000):
        pauses.begin(str(number), 1)
        clock.advance(0.01)
    assert len(pauses) < 1100
    assert "9999" in pauses
    assert "9000" not in pauses
    pauses.end("9999")
    assert "9999" not in pauses


# Real failures


def test_what_the_system_refuses_is_a_miss(tmp_path):
    code = f"""
        import framecache, resource
        cache = framecache.Cache("file://{tmp_path}/cache", l1=None)

        @cache
        def f(x):
            return bytes([x]) * 100_000

        def without(limit):
            hard = resource.getrlimit(limit)[1]
            before = cache.stats()
            resource.setrlimit(limit, (0, hard))
            values = [f(x)[:1] for x in (1, 2, 1, 2)]
            stored = cache.set("key", bytes(100_000))
            resource.setrlimit(limit, (hard, hard))
            assert values == [b"\\1", b"\\2"] * 2
            after = cache.stats()
            return stored, {{name: number - before.get(name, 0) for name, number in after.items()}}

        f(1)
        # No file can be opened, so the one that is stored cannot be read and the others not be written.
        stored, stats = without(resource.RLIMIT_NOFILE)
        assert not stored and stats["dropped"] and stats["error"], stats
        # No file can become longer.
        stored, stats = without(resource.RLIMIT_FSIZE)
        assert not stored and stats["dropped"] and stats["error"], stats
        print(len(cache._flights))
    """
    assert run(code) == "0\n"


def test_a_full_disk_is_no_error(tmp_path):
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a mount namespace needs unshare(1) and the right to make user namespaces")
    code = f"""
        import framecache
        cache = framecache.Cache("file://{tmp_path}/cache", l1=None)

        @cache
        def f(x):
            return x.to_bytes(4, "big") * 25_000

        for _ in range(2):
            for x in range(200):
                assert f(x) == x.to_bytes(4, "big") * 25_000
        stats = cache.stats()
        assert stats["error"] and stats["dropped"] and stats["hit"], stats
        print(len(cache._flights))
    """
    child = subprocess.run(
        [
            unshare,
            "-rm",
            "sh",
            "-c",
            f'mount -t tmpfs -o size=8m,mode=700 tmpfs {tmp_path}; exec {sys.executable} -c "$0"',
            textwrap.dedent(code),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (child.returncode, child.stdout) == (0, "0\n"), child.stderr


def test_a_cache_that_is_closed_during_a_computation_lets_it_end(tmp_path):
    for options in ({}, {"url": f"file://{tmp_path}/cache"}, {"url": f"file://{tmp_path}/other", "l1": None}):
        opened = Cache(**options)
        begun, go = threading.Event(), threading.Event()

        f = opened(name="f")(lambda: (begun.set(), go.wait(PATIENCE), [1])[2])  # noqa: B023
        thread = Thread(f)
        assert begun.wait(PATIENCE)
        opened.close()
        go.set()
        assert thread.value == [1]
        assert len(opened._flights) == 0


# Results that cannot be stored


class Odd:
    """What no codec takes."""


@anywhere
@pytest.mark.parametrize("codec", ["auto", "json"])
def test_a_result_without_a_form_raises_at_the_first_call_and_is_counted_then(cache, codec):
    f = cache(name="f", codec=codec)(lambda x: Odd())
    with pytest.raises(TypeError) as caught:
        f(1)
    assert codec == "json" or caught.type is EncodeError
    values = [f(1), f(1)]
    assert [type(value) for value in values] == [Odd, Odd]
    assert values[0] is not values[1]
    assert cache.stats()["unencodable"] == 2


@anywhere
def test_a_coroutines_result_without_a_form_raises_at_the_first_call_and_is_counted_then(cache):
    @cache(name="f")
    async def f(x):
        await asyncio.sleep(0)
        return Odd()

    async def main():
        with pytest.raises(EncodeError):
            await f(1)
        values = await asyncio.gather(*(f(1) for _ in range(5)))
        assert len({id(value) for value in values}) == 5
        assert cache.stats()["unencodable"] == 5

    asyncio.run(main())


@anywhere
def test_who_waits_for_a_result_without_a_form_is_not_given_anothers(cache):
    cache(name="warm")(lambda: 1)()
    begun, go = threading.Event(), threading.Event()

    def body():
        begun.set()
        assert go.wait(PATIENCE)
        return Odd()

    f = cache(name="f")(body)
    go.set()
    with pytest.raises(EncodeError):
        f()
    go.clear()
    begun.clear()
    threads = [Thread(f)]
    assert begun.wait(PATIENCE)
    threads += [Thread(f) for _ in range(4)]
    until(lambda: waiters(cache) == 4)
    go.set()
    values = [thread.value for thread in threads]
    assert len({id(value) for value in values}) == 5


def test_get_or_set_raises_for_every_value_without_a_form(cache):
    for _ in range(3):
        with pytest.raises(EncodeError):
            cache.get_or_set("key", Odd)
    assert cache.get("key") is None


@anywhere
def test_a_result_that_is_not_to_be_kept_needs_no_form(cache):
    f = cache(name="f", cache_if=lambda value: not isinstance(value, Odd))(lambda x: x or Odd())
    assert type(f(0)) is Odd
    assert f(1) == 1
    assert f.get(0) is None
    assert f.get(1) == 1
    assert "unencodable" not in cache.stats()


@pytest.mark.parametrize("url", [None, "store"])
def test_a_result_that_is_too_large_is_returned_and_counted(tmp_path, url):
    with Cache(url and f"file://{tmp_path}/cache", max_value_bytes=1000) as cache:
        f = cache(name="f")(lambda x: [bytes(2000), x])
        assert f(1) == f(1) == [bytes(2000), 1]
        assert f(1) is not f(1)
        assert cache.stats()["too_large"] == 4
        assert f.cache_info().misses == 4
        assert f.get(1) is None


def test_a_miss_returns_what_a_hit_would(cache):
    original = {"a": [1], "b": (2, bytearray(b"x"))}
    for options in ({}, {"cache_if": lambda value: False}):
        f = cache(name=f"f{len(options)}", **options)(lambda: original)
        first = f()
        assert first == original
        assert first["a"] is not original["a"]
        assert first["b"][1] is not original["b"][1]


# Nothing grows


@anywhere
def test_nothing_is_left_of_many_computations(cache):
    f = cache(name="f", ttl=60, stale_if_error=60)(lambda x: 1 // (x % 3))

    async def compute():
        await asyncio.sleep(0)
        return 1

    async def main():
        await asyncio.gather(*(cache.aget_or_set(str(x), compute) for x in range(300)))

    for x in range(300):
        with suppress(ZeroDivisionError):
            f(x)
    asyncio.run(main())
    assert len(cache._flights) == 0
    assert cache._flights._under_way == {}
    assert len(cache._computer.resting) == 0
    assert len(cache._computer.cooling) <= 100
