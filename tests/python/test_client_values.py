"""Whose objects are whose: nobody who changes an argument or a result changes what is cached, in no process."""

from __future__ import annotations

import asyncio
import datetime as dt
import decimal
import subprocess
import sys
import uuid
import zoneinfo
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import framecache
from framecache.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Order:
    items: list[str]
    prices: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    items: list[str]


framecache.register(Order)
framecache.register(Frozen)


def _write(array: Any) -> None:
    array[0] = 99


#: What makes a value, what changes it, and what tells the state of one.
MUTABLE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1], lambda v: v.append(2), repr),
    "list in list": (lambda: [[1]], lambda v: v[0].append(2), repr),
    "list in tuple": (lambda: ([1],), lambda v: v[0].append(2), repr),
    "dict": (lambda: {"a": 1}, lambda v: v.update(b=2), repr),
    "dict in dict": (lambda: {"a": {"b": [1]}}, lambda v: v["a"]["b"].clear(), repr),
    "set": (lambda: {1}, lambda v: v.add(2), repr),
    "set in a deep tuple": (lambda: ((({1},),),), lambda v: v[0][0][0].add(2), repr),
    "bytearray": (lambda: bytearray(b"abc"), lambda v: v.extend(b"d"), repr),
    "large bytearray": (lambda: bytearray(200_000), lambda v: v.extend(b"d"), len),
    "bytearray in tuple": (lambda: (bytearray(b"abc"),), lambda v: v[0].extend(b"d"), repr),
    "dataclass": (lambda: Order(["a"]), lambda v: v.items.append("b"), repr),
    "attribute of a dataclass": (lambda: Order(["a"]), lambda v: setattr(v, "items", []), repr),
    "frozen dataclass": (lambda: Frozen(["a"]), lambda v: v.items.append("b"), repr),
    "numpy": (lambda: np.arange(3), _write, lambda v: v.tolist()),
    "large numpy": (lambda: np.arange(100_000), _write, lambda v: v.sum()),
    "numpy in list": (lambda: [np.arange(3)], lambda v: _write(v[0]), lambda v: v[0].tolist()),
    "pandas": (lambda: pd.DataFrame({"a": [1, 2]}), lambda v: v.__setitem__("b", 1), lambda v: v.to_dict()),
    "cell of pandas": (lambda: pd.DataFrame({"a": [1, 2]}), lambda v: v.loc.__setitem__((0, "a"), 9), dict),
    "series": (lambda: pd.Series([1, 2]), lambda v: v.iloc.__setitem__(0, 9), lambda v: v.tolist()),
    "polars": (
        lambda: pl.DataFrame({"a": [1]}),
        lambda v: v.insert_column(0, pl.Series(str(v.width), [1])),
        lambda v: v.columns,
    ),
}


def _told(tell: Callable[[Any], Any], value: Any) -> str:
    return str({name: list(column) for name, column in value.items()}) if tell is dict else str(tell(value))


@pytest.fixture(params=["memory", "directory", "no l1"])
def any_cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[framecache.Cache]:
    url = None if request.param == "memory" else f"file://{tmp_path}/cache"
    with framecache.Cache(url, **({"l1": None} if request.param == "no l1" else {})) as cache:
        yield cache


@pytest.mark.parametrize("kind", MUTABLE)
class TestNobodyChangesWhatIsCached:
    def test_by_what_was_set_or_got(self, any_cache: framecache.Cache, kind: str) -> None:
        make, change, tell = MUTABLE[kind]
        value, expected = make(), _told(tell, make())
        any_cache.set("key", value)
        change(value)
        for _ in range(3):
            for got in (any_cache.get("key"), any_cache.get_many(["key"])["key"], any_cache.get_entry("key").value):
                assert type(got) is type(value)
                assert _told(tell, got) == expected
                change(got)
                assert _told(tell, got) != expected

    def test_by_what_a_function_returned(self, any_cache: framecache.Cache, kind: str) -> None:
        make, change, tell = MUTABLE[kind]
        made: list[Any] = []
        expected = _told(tell, make())

        @any_cache(name=kind)
        def f() -> Any:
            made.append(make())
            return made[-1]

        @any_cache(name=f"async {kind}")
        async def af() -> Any:
            made.append(make())
            return made[-1]

        async def both() -> list[Any]:
            return [f(), await af(), f.get(), await af.get()]

        for _ in range(3):
            for got in asyncio.run(both()):
                assert _told(tell, got) == expected
                change(got)
            for own in made:
                change(own)
        assert len(made) == 2

    def test_by_what_another_waiter_got(self, any_cache: framecache.Cache, kind: str) -> None:
        make, change, tell = MUTABLE[kind]
        expected = _told(tell, make())
        entered = asyncio.Event()

        @any_cache(name=kind)
        async def f() -> Any:
            await entered.wait()
            return make()

        async def main() -> None:
            tasks = [asyncio.create_task(f()) for _ in range(3)]
            await asyncio.sleep(0)
            entered.set()
            for task in tasks:
                got = await task
                assert _told(tell, got) == expected
                change(got)

        asyncio.run(main())
        assert f.cache_info().misses == 1


IMMUTABLE: list[Any] = [
    "a long enough str",
    b"bytes",
    b"x" * 50_000,
    10**30,
    1.5,
    1j,
    decimal.Decimal("1.5"),
    uuid.UUID(int=7),
    dt.date(2020, 1, 2),
    dt.time(1, 2, tzinfo=dt.timezone.utc),
    dt.datetime(2020, 1, 2),
    dt.datetime(2020, 1, 2, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    dt.timedelta(5),
    (1, ("a", b"b"), frozenset((1, (2,)))),
    pa.table({"a": [1, 2]}),
]


class TestShared:
    @pytest.mark.parametrize("value", IMMUTABLE, ids=lambda value: type(value).__name__)
    def test_what_cannot_change_is_one_object_for_all_callers(self, any_cache: framecache.Cache, value: Any) -> None:
        f = any_cache(name="f", key=lambda: 0)(lambda: value)
        any_cache.set("key", value)
        assert f() == any_cache.get("key") == value
        shared = any_cache._l1 is not None
        assert (any_cache.get("key") is any_cache.get("key")) is shared or isinstance(value, int | float)
        assert (f() is f()) is shared or isinstance(value, int | float)

    def test_what_is_shared_is_not_the_callers_object(self, any_cache: framecache.Cache) -> None:
        for value in IMMUTABLE:
            any_cache.set("key", value)
            if type(value) not in (bytes, int, float):
                assert any_cache.get("key") is not value

    def test_subclasses_of_immutable_types_are_not_shared(self, any_cache: framecache.Cache) -> None:
        from typing import NamedTuple

        class Pair(NamedTuple):
            a: list[int]

        Pair.__qualname__ = "Pair"
        globals()["Pair"] = Pair
        framecache.register(Pair)
        any_cache.set("pair", Pair([1]))
        any_cache.get("pair").a.append(2)
        assert any_cache.get("pair") == ([1],)

    def test_share_gives_all_callers_one_object(self, any_cache: framecache.Cache) -> None:
        @any_cache(share=True)
        def f(x: int) -> list[int]:
            return [x]

        assert (f(1) is f(1)) is (any_cache._l1 is not None)
        f(1).append(2)
        assert f(1) == ([1, 2] if any_cache._l1 is not None else [1])
        assert any_cache.get(f.key(1)) == ([1, 2] if any_cache._path is None else [1])

    def test_share_is_of_one_function(self, any_cache: framecache.Cache) -> None:
        plain = any_cache(lambda x: [x])
        shared = any_cache(share=True)(lambda x: [x, x])
        assert shared(1) == [1, 1]
        plain(1).append(2)
        assert plain(1) == [1]

    def test_views_stand_on_the_frame_and_cannot_be_written(self, any_cache: framecache.Cache) -> None:
        data = bytes(range(256)) * 1000
        f = any_cache(name="f", views=True)(lambda: data)
        array = any_cache(name="array", views=True)(lambda: np.arange(100_000))
        for _ in range(3):
            view = f()
            assert type(view) is memoryview
            assert view.readonly
            assert bytes(view) == data
            got = array()
            assert not got.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                got[0] = 1
        if any_cache._l1 is not None:
            assert np.shares_memory(array(), array())
        any_cache.set("key", data)
        assert type(any_cache.get("key", views=True)) is memoryview
        assert type(any_cache.get("key")) is bytes

    def test_a_view_outlives_its_entry_and_the_cache(self, any_cache: framecache.Cache) -> None:
        any_cache.set("key", b"x" * 300_000)
        view = any_cache.get("key", views=True)
        any_cache.delete("key")
        any_cache.close()
        assert bytes(view) == b"x" * 300_000

    def test_hit_and_miss_give_the_same(self, any_cache: framecache.Cache) -> None:
        f = any_cache(codec="json", name="f")(lambda: (1, {"2": "x"}))
        assert f() == f() == [1, {"2": "x"}]
        with any_cache.bypass():
            assert f() == (1, {"2": "x"})


class TestCoherence:
    """L1 over the store: what one cache does, the next read of another one sees."""

    @pytest.fixture(params=["one process", "two processes"])
    def other(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
        """Run a statement with another cache of the same directory."""
        url = f"file://{tmp_path}/cache"
        if request.param == "one process":
            with framecache.Cache(url) as cache:

                def here(code: str) -> str:
                    return repr(eval(code, {"cache": cache}))

                yield here
            return
        program = (
            "import framecache, sys\n"
            f"cache = framecache.Cache({url!r})\n"
            "for line in sys.stdin: print(repr(eval(line)), flush=True)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin
            assert child.stdout

            def there(code: str) -> str:
                child.stdin.write(code + "\n")
                child.stdin.flush()
                return child.stdout.readline().strip()

            yield there
            child.stdin.close()

    @pytest.fixture
    def cache(self, tmp_path: Path) -> Iterator[framecache.Cache]:
        with framecache.Cache(f"file://{tmp_path}/cache") as cache:
            yield cache

    def test_set_delete_tags_and_clear(self, cache: framecache.Cache, other: Callable[[str], str]) -> None:
        for value in ("'text'", "[1, 2]", "b'bytes'", "None"):
            assert other(f"cache.set('key', {value})") == "True"
            for _ in range(3):
                assert cache.get("key", 0) == eval(value)
        assert other("cache.delete('key')") == "True"
        assert cache.get("key") is None
        assert other("cache.set('key', 1, tags=['tag'])") == "True"
        assert cache.get("key") == cache.get("key") == 1
        assert other("cache.invalidate_tags('tag')") == "None"
        assert cache.get("key") is None
        assert other("cache.set_many({'key': 1, 'more': 2})") == "2"
        assert cache.get("key") == cache.get("key") == 1
        assert other("cache.clear()") == "None"
        assert cache.get("key") is None
        cache.set("key", 3)
        assert other("cache.get('key')") == "3"
        cache.set("key", 4)
        assert other("cache.get('key')") == "4"
        cache.delete("key")
        assert other("cache.get('key')") == "None"

    def test_touch(self, cache: framecache.Cache, other: Callable[[str], str]) -> None:
        cache.set("key", 1, ttl=1000, max_age=10_000)
        assert cache.get("key") == cache.get("key") == 1
        first = cache.get_entry("key")
        assert first is not None
        assert other("cache.touch('key', 5000)") == "True"
        entry = cache.get_entry("key")
        assert entry is not None
        assert entry.deadline > first.deadline + 3000  # type: ignore[operator]

    def test_results_of_functions(self, cache: framecache.Cache, other: Callable[[str], str]) -> None:
        calls = []

        @cache(tags=("tag",))
        def f(x: int) -> int:
            return len(calls)

        assert [f(1), f(1)] == [0, 0]
        calls.append(1)
        assert other(f"cache.get({f.key(1)!r})") == "0"
        assert other(f"cache.delete({f.key(1)!r})") == "True"
        assert [f(1), f(1)] == [1, 1]
        calls.append(1)
        assert other("cache.invalidate_tags('tag')") == "None"
        assert [f(1), f(1)] == [2, 2]
        assert other(f"cache.set({f.key(1)!r}, 'theirs')") == "True"
        assert [f(1), f(1)] == ["theirs", "theirs"]
        f.cache_clear()
        assert other(f"cache.get({f.key(1)!r})") == "None"

    def test_a_value_that_changed_its_type(self, cache: framecache.Cache, other: Callable[[str], str]) -> None:
        cache.set("key", "text")
        assert other("cache.get('key')") == "'text'"
        cache.set("key", [1])
        assert other("cache.get('key')") == "[1]"
        assert other("cache.get('key').append(2)") == "None"
        assert other("cache.get('key')") == "[1]"


class TestUnknown:
    """What another version wrote is a miss, and stays for those who can read it."""

    @pytest.fixture
    def directory(self, tmp_path: Path) -> Path:
        return tmp_path / "cache"

    def frame(self, codec: str, payload: bytes, metadata: dict[str, Any] | None = None) -> bytes:
        return framecache.SerializationWrapper.wrap(payload, {"key": "key", "created": 1, **(metadata or {})}, codec)

    @pytest.mark.parametrize(
        ("codec", "payload", "metadata"),
        [
            ("another codec", b"payload", {}),
            ("msgpack", b"\xc1", {}),
            ("msgpack", b"\x92\x01", {}),
            ("json", b"{", {}),
            ("arrow", b"not arrow", {}),
            ("raw", b"", {"py": {"type": "unheard of"}}),
            ("msgpack", b"\x01", {"comp": "brotli"}),
        ],
    )
    def test_an_entry_that_cannot_be_read(
        self, directory: Path, codec: str, payload: bytes, metadata: dict[str, Any]
    ) -> None:
        from support import put_frame

        with framecache.Cache(f"file://{directory}") as cache:
            cache.set("key", 1)
            put_frame(directory, "key", self.frame(codec, payload, metadata))
            assert cache.get("key", 7) == 7
            assert cache.get_many(["key"]) == {}
            assert cache.get_entry("key") is None
            assert sum(cache.stats().get(reason, 0) for reason in ("undecodable", "unreadable")) == 3
            assert cache.get_or_set("key", lambda: 2) == 2
            assert cache.get("key") == 2

    def test_a_frame_of_a_newer_format_is_left_to_newer_programs(self, directory: Path) -> None:
        from support import put_frame

        frame = bytearray(self.frame("msgpack", b"\x01"))
        frame[4] = 0xF0
        with framecache.Cache(f"file://{directory}") as cache:
            cache.set("key", 1)
            try:
                put_frame(directory, "key", bytes(frame))
            except framecache.FramecacheError:
                pytest.skip("a store does not take such frames")
            assert cache.get("key", 7) == 7
            assert cache.stats().get("hit", 0) == 0

    def test_a_class_that_is_not_registered_any_more(self, directory: Path) -> None:
        program = (
            "import framecache, dataclasses\n"
            f"cache = framecache.Cache('file://{directory}')\n"
            "@dataclasses.dataclass\n"
            "class Local:\n    x: int\n"
            "framecache.register(Local, name='local')\n"
            "print(cache.set('key', Local(1)), cache.get('key'))"
        )
        assert subprocess.check_output([sys.executable, "-c", program], text=True).split()[0] == "True"
        with framecache.Cache(f"file://{directory}") as cache:
            assert cache.get("key", 7) == 7
            assert cache.stats() == {"undecodable": 1}
            f = cache(name="f", key=lambda: 0)(lambda: 1)
            assert f() == 1

    def test_results_that_cannot_be_read_are_computed_anew(self, directory: Path) -> None:
        from support import put_frame

        with framecache.Cache(f"file://{directory}", clock=Clock()) as cache:
            f = cache(name="f")(lambda x: [x])
            frame = framecache.SerializationWrapper.wrap(b"\xc1", {"key": f.key(1), "created": 1}, "msgpack")
            put_frame(directory, f.key(1), frame)
            assert [f(1), f(1)] == [[1], [1]]
            assert f.cache_info() == (1, 1, 0, 0)
