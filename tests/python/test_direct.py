"""The one call by which a cache reads a value of its directory: what it returns and counts, and when it leaves that to
others.
"""

from __future__ import annotations

import datetime as dt
import gc
import weakref
from typing import Any

import pytest

from framecache import Cache
from framecache._framecache import Counters, Direct
from framecache._values import decode
from framecache.testing import Clock

VALUES = {
    "bytes": b"value",
    "bytearray": bytearray(b"value"),
    "text": "välue",
    "number": 2**70,
    "none": None,
    "dict": {"a": [1, 2.5, None], "b": {dt.date(2020, 1, 2)}},
    "long text": "x" * 100_000,
    "long list": list(range(50_000)),
}


class Failing(Exception):
    pass


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(directory, clock):
    with Cache(f"file://{directory}", l1=None, clock=clock) as opened:
        yield opened


damaged: list[str] = []


def opened(cache: Cache, clock: Any, decode: Any = decode) -> tuple[Direct, Counters]:
    counts = Counters()
    return Direct(cache._tiers.store, clock, counts, decode, damaged.append), counts  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VALUES)
def test_values_come_decoded_and_are_counted(cache, clock, name):
    value = VALUES[name]
    cache.set("key", value)
    direct, counts = opened(cache, clock)
    for number in (1, 2):
        found = direct.get("key", "default", False)
        assert (type(found), found) == (type(value), value)
        assert counts.numbers() == {"store_hit": number}
    assert cache.get("key") == value
    assert cache.get_many(["key"]) == {"key": value}
    assert cache.stats() == {"hit": 2}


@pytest.mark.parametrize("name", ["bytes", "bytearray"])
def test_views_stand_on_the_frame(cache, clock, name):
    cache.set("key", VALUES[name])
    found = opened(cache, clock)[0].get("key", None, True)
    assert isinstance(found, memoryview)
    assert found.readonly
    assert found == VALUES[name]


def test_short_values_need_no_call_into_python(cache, clock):
    def never(*_):
        raise AssertionError("called")

    direct, _ = opened(cache, clock, never)
    for name in ("bytes", "text", "number", "none", "dict"):
        cache.set(name, VALUES[name])
        assert direct.get(name, "default", False) == VALUES[name]


def test_each_caller_has_an_object_of_its_own(cache, clock):
    cache.set("key", [1])
    direct, _ = opened(cache, clock)
    direct.get("key", None, False).append(2)
    assert direct.get("key", None, False) == [1]


def test_a_miss_is_the_default_and_counted_by_its_reason(cache, clock):
    direct, counts = opened(cache, clock)
    default = object()
    assert direct.get("absent", default, False) is default
    cache.set("short", "value", ttl=10)
    clock.advance(11)
    assert direct.get("short", default, False) is default
    cache.set("tagged", "value", tags=["x"])
    cache.invalidate_tags("x")
    assert direct.get("tagged", default, False) is default
    assert counts.numbers() == {"absent": 1, "expired": 1, "invalidated": 1}
    # A text that is stored is no reason, whatever it says.
    cache.set("key", "absent")
    assert direct.get("key", default, False) == "absent"
    assert direct.get("key", "absent", False) == "absent"
    assert counts.numbers()["store_hit"] == 2


def damage(directory):
    with (directory / "index").open("r+b") as file:
        at = file.read().index(b"<the value that")
        file.seek(at)
        file.write(b"<THE VALUE THAT")


def test_what_is_damaged_is_told_and_a_miss(cache, clock, directory, caplog):
    direct, counts = opened(cache, clock)
    cache.set("key", b"<the value that is changed>")
    damage(directory)
    assert direct.get("key", "default", False) == "default"
    assert counts.numbers() == {"unreadable": 1}
    assert damaged == ["key"]
    caplog.set_level("WARNING", "framecache")
    for get in (cache.get, lambda key, _: cache.get_many([key]).get(key, "default")):
        cache.set("key", b"<the value that is changed>")
        damage(directory)
        assert get("key", "default") == "default"
    assert cache.stats() == {"unreadable": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "unreadable entry of 'key' is a miss: its bytes are not what was written"
    ]


def test_what_is_no_entry_is_left_to_others(cache, clock, caplog):
    cache._tiers.store.put_frames([("key", b"no frame", [])], 0)
    direct, counts = opened(cache, clock)
    assert direct.get("key", "default", False) is NotImplemented
    assert counts.numbers() == {}
    caplog.set_level("WARNING", "framecache")
    assert cache.get("key", "default") == "default"
    assert cache.stats() == {"unreadable": 1}
    assert "expected" in caplog.text


@pytest.mark.parametrize("key", [1, b"key", None, "\ud800", "x" * 70_000])
def test_what_is_no_key_is_left_to_others(cache, clock, key):
    direct, counts = opened(cache, clock)
    assert direct.get(key, "default", False) is NotImplemented
    assert counts.numbers() == {}


def test_what_others_raise_is_raised(cache, clock):
    cache.set("key", VALUES["long text"])

    def fails(*_):
        raise Failing

    with pytest.raises(Failing):
        opened(cache, clock, fails)[0].get("key", None, False)

    class Stopped:
        def time(self):
            raise Failing

    with pytest.raises(Failing):
        opened(cache, Stopped())[0].get("key", None, False)


def test_the_clock_is_asked_each_time(cache, clock):
    cache.set("key", "value", ttl=10)
    direct, _ = opened(cache, clock)
    assert direct.get("key", None, False) == "value"
    clock.advance(9.9)
    assert direct.get("key", None, False) == "value"
    clock.advance(0.2)
    assert direct.get("key", None, False) is None


def test_a_cache_whose_clock_refers_to_it_is_collected(directory):
    class Own:
        def time(self):
            return 0.0

        monotonic = time

    clock = Own()
    cache = Cache(f"file://{directory}", l1=None, clock=clock)
    clock.cache = cache
    gone = weakref.ref(cache)
    del cache, clock
    gc.collect()
    assert gone() is None


def test_several_values_are_decoded_in_one_go(cache):
    """Whatever their codec, and in the order of their keys."""
    for name, value in VALUES.items():
        cache.set(name, value)
    names = ["absent", *VALUES]
    found = cache.get_many(names)
    assert list(found) == list(VALUES)
    assert found == VALUES
    assert cache.stats() == {"hit": len(VALUES), "absent": 1}
