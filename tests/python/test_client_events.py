"""What a cache tells: events, and counters that agree with them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

import framecache
from framecache.testing import Clock, Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "directory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[framecache.Cache]:
    with framecache.Cache(None if request.param == "memory" else f"file://{tmp_path}/cache", clock=clock) as cache:
        yield cache


@pytest.fixture
def recorder(cache: framecache.Cache) -> Recorder:
    recorder = Recorder()
    cache.add_hook(recorder)
    return recorder


def drained(recorder: Recorder) -> list[str]:
    kinds = recorder.kinds()
    recorder.events.clear()
    return kinds


def test_each_method_is_one_event(cache: framecache.Cache, recorder: Recorder) -> None:
    cache.get("key")
    cache.set("key", "value")
    cache.get("key")
    cache.get_entry("key")
    cache.get_or_set("key", lambda: "other")
    cache.get_many(["key", "absent"])
    asyncio.run(cache.aget("key"))
    assert recorder.kinds() == ["miss", "set", "hit", "hit", "hit", "hit", "miss", "hit"]
    assert {event.key for event in recorder.events} == {"key", "absent"}
    tiers = {event.tier for event in recorder.events}
    assert tiers == ({"l1"} if cache._path is None else {"l1", "store"})
    assert all(event.nbytes > 0 for event in recorder.events if event.kind == "hit")
    assert all(0 < event.duration < 60 for event in recorder.events)


def test_each_call_of_a_function_is_one_event_and_one_for_what_it_stores(
    cache: framecache.Cache, recorder: Recorder, clock: Clock
) -> None:
    f = cache(ttl=10, jitter=0, name="f")(lambda x: [x])

    @cache(ttl=10, jitter=0, name="af")
    async def af(x: int) -> list[int]:
        return [x]

    for call in (lambda: f(1), lambda: asyncio.run(af(1))):
        assert call() == [1]
        assert drained(recorder) == ["miss", "set"]
        assert call() == [1]
        assert drained(recorder) == ["hit"]
        clock.advance(11)
        assert call() == [1]
        assert drained(recorder) == ["miss", "set"]
    assert f.cache_info() == af.cache_info() == (1, 2, 0, 0)
    stats = cache.stats()
    assert stats["hit"] == 2
    assert sum(stats.get(reason, 0) for reason in ("absent", "expired")) == 4


def test_a_stale_value_is_one_event(cache: framecache.Cache, recorder: Recorder, clock: Clock) -> None:
    results: list[Any] = [[1]]

    @cache(ttl=10, stale_if_error=100, jitter=0, name="f")
    def f() -> list[int]:
        return results.pop()  # type: ignore[no-any-return]

    f()
    clock.advance(11)
    drained(recorder)
    assert f() == [1]
    assert "stale" in recorder.kinds()
    assert "hit" not in recorder.kinds()
    assert cache.stats()["stale"] == 1


def test_each_eviction_is_one_event() -> None:
    recorder = Recorder()
    with framecache.Cache(l1="64KiB") as cache:
        cache.add_hook(recorder)
        for number in range(500):
            cache.set(f"key{number}", b"x" * 1000)
        evicted = [event for event in recorder.events if event.kind == "evict"]
        assert len(evicted) == cache.health()["l1"]["evicted"] > 0
        assert {event[1:] for event in evicted} == {("l1", "", 0, 0.0)}


def test_a_hook_is_not_told_of_what_was_before_it(cache: framecache.Cache) -> None:
    for number in range(10):
        cache.set(f"key{number}", number)
    recorder = Recorder()
    cache.add_hook(recorder)
    assert recorder.events == []


def test_a_hook_that_raises_is_logged_once_and_harms_nobody(
    cache: framecache.Cache, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(event: framecache.Event) -> None:
        raise ValueError(event.kind)

    recorder = Recorder()
    cache.add_hook(fails)
    cache.add_hook(recorder)
    with caplog.at_level(logging.WARNING, "framecache"):
        cache.set("key", 1)
        assert cache.get("key") == 1
    assert recorder.kinds() == ["set", "hit"]
    assert [record.getMessage().partition(" raised ")[2] for record in caplog.records] == ["ValueError('set')"]
    cache.remove_hook(fails)
    cache.remove_hook(recorder)
    assert cache.get("key") == 1
    assert len(recorder.events) == 2


def test_hooks_that_were_not_added_are_refused(cache: framecache.Cache) -> None:
    with pytest.raises(framecache.InvalidArgument, match="hook: expected one that was added"):
        cache.remove_hook(print)
    with pytest.raises(framecache.InvalidArgument, match="hook: expected a callable"):
        cache.add_hook(7)  # type: ignore[arg-type]
    assert cache._slow == 0


def test_hits_through_l1_and_the_long_way_are_counted_once(cache: framecache.Cache) -> None:
    f = cache(name="f")(lambda: "value")
    cache.set("key", "value")
    for _ in range(2):
        for _ in range(5):
            f()
            cache.get("key")
        cache.add_hook(Recorder())
    assert f.cache_info() == (9, 1, 0, 0)
    assert cache.stats()["hit"] == 19
    assert cache.stats()["absent"] == 1


def test_counters_lose_nothing_in_threads(cache: framecache.Cache) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: [cache.get(f"absent{n}") for _ in range(200)], range(8)))
    assert cache.stats()["absent"] == 1600


def test_events_and_infos_are_named_tuples() -> None:
    event = framecache.Event("hit", "l1", "key", 1, 0.5)
    assert event._asdict() == {"kind": "hit", "tier": "l1", "key": "key", "nbytes": 1, "duration": 0.5}
    assert framecache.CacheInfo(1, 2, 3, 4)._fields == ("hits", "misses", "stale", "errors")
