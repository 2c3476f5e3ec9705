"""The client's methods, for threads and for event loops alike: each test runs both ways."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import framecache
import framecache.msgpack
from framecache import MISSING
from framecache.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Threads:
    """A cache, called directly."""

    def __init__(self, cache: framecache.Cache) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.cache, name)  # type: ignore[no-any-return]


class Loops(Threads):
    """A cache, called through its methods for event loops, each in a loop of its own."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.cache, f"a{name}")

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **{name: _awaitable(value) for name, value in kwargs.items()})
            return [one async for one in result] if hasattr(result, "__aiter__") else await result

        return lambda *args, **kwargs: asyncio.run(call(*map(_awaitable, args), **kwargs))


def _awaitable(argument: Any) -> Any:
    """What computes, as a coroutine function."""
    if not callable(argument) or argument is MISSING:
        return argument

    async def compute(*args: Any) -> Any:
        return argument(*args)

    return compute


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "directory", "no l1"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[framecache.Cache]:
    url = None if request.param == "memory" else f"file://{tmp_path}/cache"
    options: dict[str, Any] = {"l1": None} if request.param == "no l1" else {}
    with framecache.Cache(url, clock=clock, **options) as cache:
        yield cache


@pytest.fixture(params=[Threads, Loops])
def cache(request: pytest.FixtureRequest, opened: framecache.Cache) -> Any:
    return request.param(opened)


class TestValues:
    def test_a_miss_gives_the_default(self, cache: Any) -> None:
        assert cache.get("key") is None
        assert cache.get("key", 7) == 7
        assert cache.get("key", MISSING) is MISSING

    def test_none_is_a_value(self, cache: Any) -> None:
        assert cache.set("key", None)
        assert cache.get("key", 7) is None
        assert cache.contains("key")
        assert cache.get_many(["key"]) == {"key": None}
        assert cache.get_or_set("key", lambda: 7) is None
        assert cache.get_entry("key").value is None

    def test_missing_is_one_object(self) -> None:
        import copy
        import pickle

        assert copy.copy(MISSING) is copy.deepcopy(MISSING) is pickle.loads(pickle.dumps(MISSING)) is type(MISSING)()
        assert repr(MISSING) == "framecache.MISSING"
        assert not MISSING

    def test_values_are_set_read_and_deleted(self, cache: Any) -> None:
        assert cache.set("key", [1]) is True
        assert cache.get("key") == [1]
        assert cache.set("key", [2], if_absent=True) is False
        assert cache.set("other", [2], if_absent=True) is True
        assert cache.get_many(["other", "key", "absent", "key"]) == {"other": [2], "key": [1]}
        assert list(cache.get_many(["other", "key"])) == ["other", "key"]
        assert cache.delete("key") is True
        assert cache.delete("key") is False
        assert cache.set_many({"a": 1, "b": "2", "c": None}, ttl=5) == 3
        assert cache.get_many(["a", "b", "c"]) == {"a": 1, "b": "2", "c": None}
        assert cache.delete_many(["a", "b", "absent"]) == 2
        assert sorted(cache.keys()) == ["c", "other"]
        assert list(cache.keys("c")) == ["c"]
        cache.clear()
        assert list(cache.keys()) == []
        assert cache.get("c") is None

    def test_keys_are_str_and_of_any_letters(self, cache: Any) -> None:
        for key in ("", "\0", "a\0b", "ключ", "#", "f#1", "x" * 65536):
            assert cache.set(key, key)
            assert cache.get(key) == key
        assert len(list(cache.keys())) == 7
        for key in (b"key", 1, None):
            with pytest.raises(TypeError):
                cache.get(key)
            with pytest.raises(TypeError):
                cache.set(key, 1)
        with pytest.raises(ValueError, match="65536 bytes of UTF-8, got 65537"):
            cache.set("x" * 65537, 1)
        with pytest.raises(ValueError, match="surrogates"):
            cache.set("\ud800", 1)

    def test_one_str_is_not_several(self, cache: Any) -> None:
        for call in (
            lambda: cache.get_many("keys"),
            lambda: cache.delete_many("keys"),
            lambda: cache.set("key", 1, tags="tag"),
        ):
            with pytest.raises(framecache.InvalidArgument, match="expected several of them, got the str"):
                call()
        with pytest.raises(framecache.InvalidArgument, match="tags: expected a str, got int"):
            cache.set("key", 1, tags=[1])

    def test_a_value_that_no_codec_takes_is_an_error(self, cache: Any) -> None:
        for call in (
            lambda: cache.set("key", object()),
            lambda: cache.set_many({"key": object()}),
            lambda: cache.get_or_set("key", object),
            lambda: cache.get_or_set("key", object),
        ):
            with pytest.raises(framecache.EncodeError):
                call()
        assert cache.get("key") is None

    def test_more_keys_are_iterated_over_than_are_fetched_at_once(self, cache: Any) -> None:
        assert cache.set_many({f"key{n}": n for n in range(2500)}) == 2500
        assert sorted(cache.keys()) == sorted(f"key{n}" for n in range(2500))


class TestTimes:
    @pytest.mark.parametrize("ttl", [2, 2.0, timedelta(seconds=2)])
    def test_a_value_is_served_for_its_ttl(self, cache: Any, clock: Clock, ttl: Any) -> None:
        cache.set("key", 1, ttl=ttl)
        clock.advance(1.9)
        assert cache.get("key") == 1
        clock.advance(0.2)
        assert cache.get("key") is None
        assert not cache.contains("key")
        assert cache.get_many(["key"]) == {}

    @pytest.mark.parametrize(
        "ttl", [0, -1, 0.0, -0.5, math.nan, math.inf, -math.inf, 1e300, timedelta(0), timedelta(-1), "1", True, b""]
    )
    def test_a_ttl_is_positive_and_finite(self, cache: Any, ttl: Any) -> None:
        for call in (
            lambda: cache.set("key", 1, ttl=ttl),
            lambda: cache.set_many({"key": 1}, ttl=ttl),
            lambda: cache.get_or_set("key", lambda: 1, ttl=ttl),
            lambda: cache.get_many([], compute=dict, ttl=ttl),
            lambda: cache.touch("key", ttl),
            lambda: cache.set("key", 1, ttl=1, max_age=ttl),
            lambda: framecache.Cache(ttl=ttl),
        ):
            with pytest.raises(framecache.InvalidArgument, match=r"^(ttl|max_age): expected "):
                call()
        assert cache.get("key") is None

    def test_the_ttl_of_the_cache_is_for_who_gives_none(self, clock: Clock) -> None:
        with framecache.Cache(ttl=2, clock=clock) as cache:
            cache.set("its", 1)
            cache.set("longer", 1, ttl=10)
            cache.set("for ever", 1, ttl=None)
            clock.advance(3)
            assert cache.get_many(["its", "longer", "for ever"]) == {"longer": 1, "for ever": 1}

    def test_touch_moves_the_deadline_up_to_max_age(self, cache: Any, clock: Clock) -> None:
        assert cache.touch("key", 1) is False
        cache.set("key", 1, ttl=10, max_age=25)
        for _ in range(2):
            clock.advance(9)
            assert cache.get("key") == 1
            assert cache.touch("key", 10) is True
        entry = cache.get_entry("key")
        assert entry.deadline == entry.until == entry.created + 25
        clock.advance(8)
        assert cache.get("key") is None
        assert cache.touch("key", 10) is False

    def test_touch_without_ttl_is_for_as_long_as_max_age(self, cache: Any, clock: Clock) -> None:
        cache.set("key", 1, ttl=10, max_age=100)
        assert cache.touch("key", None)
        clock.advance(99)
        assert cache.get("key") == 1
        cache.set("ever", 1)
        assert cache.touch("ever", 5)
        clock.advance(6)
        assert cache.get("ever") is None

    def test_max_age_needs_a_ttl_below_it(self, cache: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match="ttl: expected one with max_age"):
            cache.set("key", 1, max_age=5)
        with pytest.raises(framecache.InvalidArgument, match="max_age: expected at least the ttl of 6"):
            cache.set("key", 1, ttl=6, max_age=5)

    def test_a_jump_of_the_wall_clock_ends_nothing_in_memory(self, clock: Clock) -> None:
        with framecache.Cache(clock=clock) as cache:
            cache.set("key", 1, ttl=60)
            clock.set_time(clock.time() + 1e6)
            assert cache.get("key") == 1
            clock.set_time(clock.time() - 1e7)
            clock.advance(61)
            assert cache.get("key") is None

    def test_an_entry_tells_its_times(self, cache: Any, clock: Clock) -> None:
        before = clock.time()
        cache.set("key", [1], ttl=10, max_age=30)
        clock.advance(4)
        entry = cache.get_entry("key")
        assert (entry.key, entry.value) == ("key", [1])
        assert (entry.created, entry.age) == (before, 4)
        assert (entry.deadline, entry.until) == (before + 10, before + 30)
        assert entry.size > 0
        assert entry.is_zero_copy is False
        payload, metadata, codec = framecache.SerializationWrapper.unwrap(entry.frame)
        assert codec == "msgpack"
        assert framecache.msgpack.unpackb(payload) == [1]
        assert metadata["key"] == "key"
        assert cache.get_entry("absent") is None
        cache.set("ever", 1)
        assert cache.get_entry("ever").deadline is cache.get_entry("ever").until is None


class TestTags:
    def test_what_has_an_invalidated_tag_is_a_miss(self, cache: Any) -> None:
        cache.set("a", 1, tags=["x"])
        cache.set("b", 1, tags=["x", "y"])
        cache.set("c", 1, tags=["z"])
        cache.set("d", 1)
        cache.get_or_set("e", lambda: 1, tags=["y"])
        cache.get_many(["f"], compute=lambda keys: {"f": 1}, tags=["y"])
        cache.invalidate_tags("y")
        assert sorted(cache.keys()) == ["a", "c", "d"]
        cache.invalidate_tags("x", "z")
        assert sorted(cache.get_many(list("abcdef"))) == ["d"]
        cache.set("a", 2, tags=["x"])
        assert cache.get("a") == 2
        cache.invalidate_tags()
        assert cache.get("a") == 2

    def test_tags_of_functions_are_not_for_users(self, cache: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match="tags: expected none that begins with NUL"):
            cache.invalidate_tags("\0any")


class TestComputing:
    def test_get_or_set_computes_what_is_missing(self, cache: Any, clock: Clock) -> None:
        results = iter(range(10))
        assert [cache.get_or_set("key", lambda: next(results), ttl=5) for _ in range(3)] == [0, 0, 0]
        clock.advance(6)
        assert cache.get_or_set("key", lambda: next(results), ttl=5) == 1

    def test_get_many_computes_what_is_missing_in_one_call(self, cache: Any) -> None:
        calls: list[list[str]] = []

        def compute(keys: list[str]) -> dict[str, object]:
            calls.append(keys)
            return {key: [key] for key in [*keys, "more"] if key != "none"}

        cache.set("b", 1)
        expected = {"c": ["c"], "b": 1, "a": ["a"]}
        assert cache.get_many(["c", "none", "b", "a", "a"], compute=compute, lock=3) == expected
        assert calls == [["c", "none", "a"]]
        assert list(cache.get_many(["c", "b", "a"], compute=compute)) == ["c", "b", "a"]
        assert cache.get_many(["a", "none"], compute=compute, lock=False) == {"a": ["a"]}
        assert calls == [["c", "none", "a"], ["none"]]
        assert cache.get("more") is None

    def test_an_error_of_compute_is_the_callers_and_nothing_is_stored(self, cache: Any) -> None:
        def fails(*_: object) -> Any:
            raise KeyError("no")

        for _ in range(2):
            with pytest.raises(KeyError, match="no"):
                cache.get_or_set("a", fails)
            with pytest.raises(KeyError, match="no"):
                cache.get_many(["a", "b"], compute=fails)
        with pytest.raises(framecache.InvalidArgument, match="expected it to return a mapping"):
            cache.get_many(["a"], compute=lambda keys: 7)
        assert cache.get_many(["a", "b"], compute=lambda keys: dict.fromkeys(keys, 1)) == {"a": 1, "b": 1}

    def test_a_value_that_no_codec_takes_leaves_nobody_waiting(self, cache: Any) -> None:
        with pytest.raises(framecache.EncodeError):
            cache.get_many(["a", "b", "c"], compute=lambda keys: {"a": 1, "b": object(), "c": 1})
        assert cache.get_or_set("b", lambda: 2) == 2
        assert cache.get_or_set("c", lambda: 3) == 3

    def test_what_is_computed_is_the_callers_own(self, cache: Any) -> None:
        made: list[list[int]] = []

        def compute() -> list[int]:
            made.append([1])
            return made[-1]

        value = cache.get_or_set("key", compute)
        made[0].append(2)
        value.append(3)
        assert cache.get_or_set("key", compute) == [1]
        many = cache.get_many(["many"], compute=lambda keys: {"many": made[0]})
        made[0].append(4)
        many["many"].append(5)
        assert cache.get("many") == [1, 2]


class TestTelling:
    def test_stats_add_up(self, cache: Any, clock: Clock) -> None:
        cache.set("key", 1, ttl=5, tags=["tag"])
        for _ in range(3):
            cache.get("key")
        cache.get_entry("key")
        cache.get_many(["key", "absent"])
        cache.get_or_set("key", lambda: 1)
        cache.get("absent")
        clock.advance(6)
        cache.get("key")
        cache.set("key", 1, tags=["tag"])
        cache.invalidate_tags("tag")
        cache.get("key")
        stats = cache.stats()
        assert stats["hit"] == 6
        assert sum(stats.get(reason, 0) for reason in ("absent", "expired", "invalidated")) == 4
        assert stats.get("l1_hit", 0) + stats.get("store_hit", 0) in (0, 6)

    def test_health_tells_the_state_of_each_tier(self, cache: Any) -> None:
        cache.set("key", 1)
        health = cache.health()
        assert health["enabled"] is True
        assert health["errors"] == 0
        assert health["store"] in ("none", "closed")
        assert health["l1"] is None or health["l1"]["max_bytes"] == 256 << 20

    def test_a_closed_cache_says_so(self, cache: Any, opened: framecache.Cache) -> None:
        opened.close()
        for call in (
            lambda: cache.get("key"),
            lambda: cache.set("key", 1),
            lambda: cache.delete("key"),
            lambda: cache.touch("key", 1),
            lambda: cache.contains("key"),
            lambda: list(cache.keys()),
            cache.clear,
            lambda: cache.invalidate_tags("tag"),
            lambda: cache.get_or_set("key", lambda: 1),
            lambda: cache.get_many(["key"], compute=dict),
            lambda: cache.get_entry("key"),
        ):
            with pytest.raises(framecache.InvalidArgument, match="expected an open cache, got a closed one"):
                call()
        assert isinstance(cache.stats(), dict)
        assert isinstance(cache.health(), dict)
        with pytest.raises(framecache.InvalidArgument, match="closed"), opened:
            pass


def test_memory_alone_has_no_usage_and_nothing_to_verify() -> None:
    with framecache.Cache() as cache:
        for call in (cache.usage, cache.verify):
            with pytest.raises(
                framecache.Unsupported,
                match=rf"^{call.__name__}: expected a cache in a directory \(file:///path\), got one in memory alone$",
            ):
                call()


def test_what_is_too_large_is_refused(tmp_path: Path) -> None:
    for url in (None, f"file://{tmp_path}/cache"):
        with framecache.Cache(url, max_value_bytes=100) as cache:
            with pytest.raises(framecache.ValueTooLarge):
                cache.set("key", b"x" * 101)
            assert cache.set("key", b"x" * 100)


def test_if_absent_lets_one_of_many_threads_through() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with framecache.Cache() as cache, ThreadPoolExecutor(8) as pool:
        for key in map(str, range(100)):
            stored = list(pool.map(lambda n, key=key: cache.set(key, [n], if_absent=True), range(8)))
            assert stored.count(True) == 1
            assert cache.get(key) == [stored.index(True)]
