"""L1: what is shared, what is decoded afresh, and for how long either is served."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import gc
import pickle
import threading
import uuid
import weakref
import zoneinfo
from typing import Any

import pyarrow as pa
import pytest

import framecache
from framecache import arrow, json, msgpack
from framecache._framecache import L1, MISSING, Clock, Frame, InvalidArgument, Missing
from support import run

NOW = 1_000_000_000_000
KEY = (7).to_bytes(4, "little") + b"key"


def decode(payload: Frame, codec: str, python: dict[str, Any], views: bool) -> Any:
    return ("decoded", bytes(payload), codec, python, views)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def l1(clock: Clock) -> L1:
    return L1(1 << 20, decode=decode, clock=clock)


def fill(l1: L1, value: Any, key: bytes = KEY, **given: Any) -> bool:
    """Fill in `value`, whose payload is MessagePack where none is given."""
    payload = given.pop("payload") if "payload" in given else Frame(msgpack.packb(value))
    codec, python, share = given.pop("codec", "msgpack"), given.pop("python", None), given.pop("share", False)
    created, guards = given.pop("created", NOW), given.pop("guards", b"")
    deadline, until = given.pop("deadline", None), given.pop("until", None)
    assert not given
    return l1.fill(key, value, payload, codec, python, created, deadline, until, guards, share)


class Text(str):
    __slots__ = ()


class Zone(dt.tzinfo):
    def utcoffset(self, _: object) -> dt.timedelta:
        return dt.timedelta(0)


IMMUTABLE = [
    None,
    True,
    12345678901234567890123,
    1.5,
    2j,
    "text" * 10,
    "größer" * 10,
    b"bytes" * 10,
    decimal.Decimal("1.25"),
    uuid.UUID(int=5),
    dt.date(2026, 1, 1),
    dt.time(1, 2, 3),
    dt.time(1, 2, 3, tzinfo=dt.timezone.utc),
    dt.datetime(2026, 1, 1),
    dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    dt.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    dt.timedelta(days=3),
    (1000, ("two", (b"three", None))),
    frozenset({1000, ("two",)}),
]


@pytest.mark.parametrize("value", IMMUTABLE, ids=repr)
def test_values_that_cannot_change_are_shared(l1: L1, value: object) -> None:
    assert fill(l1, value)
    assert l1.find(KEY) is l1.get(7, "key") is value
    entry = l1.entry(KEY)
    assert entry is not None
    assert entry[:2] == (value, None)


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": 1},
        {1},
        bytearray(b"x"),
        ([1],),
        (1, (2, {})),
        frozenset({(1, range(3))}),
        range(3),
    ],
    ids=repr,
)
def test_every_caller_has_an_object_of_his_own_of_what_may_change(l1: L1, value: object) -> None:
    assert fill(l1, value)
    first, second = l1.find(KEY), l1.find(KEY)
    assert first == second == value
    assert type(first) is type(second) is type(value)
    assert first is not value
    assert first is not second


@pytest.mark.parametrize("value", [Text("x"), dt.datetime(2026, 1, 1, tzinfo=Zone()), (Text("x"),)], ids=repr)
def test_what_only_looks_like_an_immutable_type_is_not_shared(l1: L1, value: object) -> None:
    assert fill(l1, value, payload=Frame(b"payload"), codec="other", python={"a": 1})
    assert l1.find(KEY) == ("decoded", b"payload", "other", {"a": 1}, False)
    assert l1.find(KEY, True)[-1] is True


def test_tuples_are_looked_into_to_a_bounded_depth(l1: L1) -> None:
    value: tuple[Any, ...] = ()
    for _ in range(60):
        value = (value,)
    assert fill(l1, value)
    assert l1.find(KEY) is value
    deep: tuple[Any, ...] = ()
    for _ in range(100_000):
        deep = (deep,)
    assert fill(l1, deep, payload=Frame(msgpack.packb(1)))
    assert l1.find(KEY) == 1


def test_a_value_that_may_be_shared_needs_no_payload_and_any_other_does(l1: L1) -> None:
    assert fill(l1, "text", payload=None)
    with pytest.raises(InvalidArgument, match="payload: expected a Frame"):
        fill(l1, ["text"], payload=None)


def test_anything_is_shared_where_the_caller_says_so(l1: L1) -> None:
    value = {"a": [1]}
    assert fill(l1, value, share=True)
    assert l1.find(KEY) is value
    assert fill(l1, value, share=True, payload=None)
    assert l1.find(KEY) is value


@pytest.mark.parametrize("count", [3, 3_000])
def test_msgpack_is_decoded_whatever_its_size(l1: L1, count: int) -> None:
    value = {"numbers": list(range(count)), "bytes": [b"x" * 100_000]}
    assert fill(l1, value)
    assert l1.find(KEY) == value
    entry = l1.entry(KEY)
    assert entry is not None
    shown, payload, codec, python, created, deadline, until, size = entry
    assert (shown, codec, python, created, deadline, until) == (MISSING, "msgpack", {}, NOW, None, None)
    assert bytes(payload) == msgpack.packb(value)
    assert size >= len(payload)
    [view] = l1.find(KEY, True)["bytes"]
    assert isinstance(view, memoryview)
    assert view == b"x" * 100_000
    assert view.obj is payload or bytes(view.obj) == bytes(payload)


def test_json_is_decoded_in_place(l1: L1) -> None:
    value = {"a": [1, 2.5, "größer"], "b": None}
    assert fill(l1, value, payload=Frame(json.dumps(value)), codec="json")
    assert l1.find(KEY) == value
    assert l1.find(KEY) is not l1.find(KEY)
    payload = l1.entry(KEY)[1]
    assert bytes(payload) == json.dumps(value)


def test_json_that_is_no_text_is_left_to_the_client(l1: L1) -> None:
    assert fill(l1, [1], payload=Frame(b'["\xff"]'), codec="json")
    assert l1.find(KEY)[:3] == ("decoded", b'["\xff"]', "json")


@pytest.mark.parametrize(("codec", "payload"), [("json", b'{"a":'), ("msgpack", b"\xc1")])
def test_a_payload_that_is_damaged_is_a_decode_error(l1: L1, codec: str, payload: bytes) -> None:
    assert fill(l1, [], payload=Frame(payload), codec=codec)
    with pytest.raises(framecache.DecodeError, match=codec):
        l1.find(KEY)


def test_bytes_are_shared_and_seen_as_views_where_asked_for(l1: L1) -> None:
    value = b"bytes" * 1000
    assert fill(l1, value, codec="raw", payload=Frame(value), python={"type": "bytes"})
    assert l1.find(KEY) is value
    view = l1.find(KEY, True)
    assert isinstance(view, memoryview)
    assert view.readonly
    assert view == value


def test_a_view_is_another_one_for_every_caller(l1: L1) -> None:
    frame = Frame(b"bytes" * 1000)
    value = memoryview(frame)
    assert fill(l1, value, codec="raw", payload=frame, python={"type": "memoryview"})
    value.release()
    l1.find(KEY).release()
    view = l1.find(KEY)
    assert view.obj is frame
    assert view == b"bytes" * 1000
    assert l1.find(KEY, True).obj is frame


def test_bytes_that_were_read_as_a_view_are_bytes_without_views(l1: L1) -> None:
    frame = Frame(b"bytes" * 1000)
    assert fill(l1, memoryview(frame), codec="raw", payload=frame, python={"type": "bytes"})
    assert l1.find(KEY, True).obj is frame
    assert type(l1.find(KEY)) is bytes
    assert l1.find(KEY) == b"bytes" * 1000


def test_a_view_of_what_may_change_is_not_shared(l1: L1) -> None:
    memory = bytearray(b"bytes")
    frame = Frame(b"bytes")
    assert fill(l1, memoryview(memory).toreadonly(), codec="raw", payload=frame)
    memory[:] = b"other"
    assert l1.find(KEY)[:2] == ("decoded", b"bytes")


@pytest.mark.parametrize(
    "make", [lambda t: t, lambda t: t.to_batches()[0], lambda t: t["a"], lambda t: t["a"].chunk(0)]
)
def test_arrow_values_are_shared(l1: L1, make: Any) -> None:
    value = make(pa.table({"a": [1, 2, 3]}))
    payload = arrow.encode(pa.table({"a": [1, 2, 3]}))
    assert fill(l1, value, payload=payload, codec="arrow")
    assert l1.find(KEY) is value
    assert len(payload) < l1.stats()["bytes"] < len(payload) + 1000


def test_a_mapped_payload_weighs_nothing(l1: L1, cache: framecache.Cache, clock: Clock) -> None:
    cache.set("table", pa.table({"a": range(1_000_000)}))
    table = cache.get("table")
    frame, *_ = cache._tiers.store.entry("table", 0)
    assert frame.is_mapped
    assert fill(l1, table, payload=frame, codec="arrow")
    assert l1.stats()["bytes"] < 1000
    copied = Frame(bytearray(frame))
    assert not fill(l1, table, payload=copied, codec="arrow")
    assert l1.stats()["rejected"] == 1


def test_what_a_shared_value_refers_to_is_counted(l1: L1) -> None:
    sizes = []
    for value in ["", "x" * 1000, ("x" * 1000, "y" * 1000), tuple(str(number) * 200 for number in range(10))]:
        assert fill(l1, value)
        sizes.append(l1.stats()["bytes"])
    assert sizes[1] - sizes[0] in range(990, 1020)
    assert sizes[2] - sizes[1] in range(1000, 1150)
    assert sizes[3] - sizes[0] in range(2400, 3000)


def test_a_deadline_passes_by_the_monotonic_clock(l1: L1, clock: Clock) -> None:
    assert fill(l1, "x", deadline=NOW + 1000, until=NOW + 3000)
    clock.set_time(2_000_000_000.0)
    assert l1.find(KEY) == "x"
    assert l1.entry(KEY)[5:7] == (2 * 10**12 + 1000, 2 * 10**12 + 3000)
    clock.set_time(0)
    clock.advance(1.0)
    assert l1.find(KEY) == "x"
    clock.advance(0.001)
    assert l1.find(KEY) is MISSING
    assert l1.entry(KEY) is None
    assert l1.entry(KEY, stale=True)[0] == "x"
    clock.advance(2.0)
    assert l1.entry(KEY, stale=True) is None
    assert (clock.monotonic() > 3.0, clock.time()) == (True, 3.001)


def test_the_clock_of_the_system_is_the_default() -> None:
    import time

    l1, now = L1(1 << 20, decode=decode), int(time.time() * 1000)
    assert fill(l1, "x", deadline=now + 3_600_000, until=now + 3_600_000)
    assert l1.find(KEY) == "x"
    assert l1.entry(KEY)[5] in range(now + 3_599_998, now + 3_600_003)
    assert not fill(l1, "x", deadline=now - 1000, until=now - 1000)


def test_a_touch_never_goes_beyond_until(l1: L1, clock: Clock) -> None:
    assert fill(l1, "x", deadline=NOW + 1000, until=NOW + 3000)
    assert l1.touch(KEY, NOW + 9000)
    assert l1.entry(KEY)[5:7] == (NOW + 3000, NOW + 3000)
    assert l1.touch(KEY, NOW + 500)
    clock.advance(0.501)
    assert l1.find(KEY) is MISSING
    assert not l1.touch(KEY, None)
    assert not l1.touch(b"nothing", None)


def test_an_entry_is_served_while_its_guards_hold(l1: L1) -> None:
    guards = l1.guards(["name", "namespace", "tag"])
    assert len(guards) == 18
    assert l1.holds(guards)
    assert fill(l1, "x", guards=guards, deadline=NOW + 1, until=NOW + 5000)
    l1.bump(["another"])
    assert l1.find(KEY) == "x"
    l1.bump(["tag"])
    assert not l1.holds(guards)
    assert l1.find(KEY) is MISSING
    assert l1.entry(KEY, stale=True) is None
    assert not fill(l1, "late", guards=guards)
    assert l1.find(KEY) is MISSING
    assert l1.stats()["invalidated"] == 1
    assert fill(l1, "new", guards=l1.guards(["tag"]))
    assert l1.find(KEY) == "new"
    with pytest.raises(InvalidArgument, match="guards: expected a multiple of 6 bytes, got 5 bytes"):
        l1.holds(bytes(5))


def test_keys_of_one_scope_are_listed(l1: L1, clock: Clock) -> None:
    scopes = {scope: scope.to_bytes(4, "little") for scope in (1, 2, 2**32 - 1)}
    for scope, prefix in scopes.items():
        for rest in (b"a", b"", b"b" * 100):
            assert fill(l1, scope, prefix + rest)
    assert fill(l1, 0, scopes[2] + b"expires", deadline=NOW, until=NOW + 10)
    clock.advance(0.001)
    assert sorted(l1.keys(2)) == [b"", b"a", b"b" * 100]
    assert l1.keys(3) == []
    assert l1.remove(scopes[2] + b"a")
    assert not l1.remove(scopes[2] + b"a")
    assert not l1.remove(scopes[2] + b"expires")
    assert sorted(l1.keys(2)) == [b"", b"b" * 100]
    assert len(l1.keys(1)) == 3
    with pytest.raises(InvalidArgument, match="key: expected 4 bytes of scope and more, got 3 bytes"):
        fill(l1, 1, b"123")


def test_a_purge_removes_what_may_not_be_served_any_more(l1: L1, clock: Clock) -> None:
    guards = l1.guards(["tag"])
    for number in range(10):
        assert fill(l1, "live", KEY + b"l%d" % number)
        assert fill(l1, "stale", KEY + b"s%d" % number, deadline=NOW, until=NOW + 1000)
        assert fill(l1, "expires", KEY + b"e%d" % number, deadline=NOW, until=NOW)
        assert fill(l1, "tagged", KEY + b"t%d" % number, guards=guards)
    clock.advance(0.5)
    l1.bump(["tag"])
    assert l1.purge() == 20
    assert l1.stats()["entries"] == 20
    assert (l1.stats()["expired"], l1.stats()["invalidated"]) == (10, 10)
    l1.clear()
    assert (l1.stats()["entries"], l1.stats()["bytes"]) == (0, 0)


def test_it_stays_within_its_bytes_and_counts_what_it_drops(l1: L1) -> None:
    kept: weakref.WeakSet[Any] = weakref.WeakSet()

    class Value:
        __slots__ = ("__weakref__",)

    for number in range(20_000):
        value = Value()
        kept.add(value)
        assert fill(l1, value, KEY + number.to_bytes(4, "little"), share=True, payload=Frame(bytes(200)))
        del value
    stats = l1.stats()
    assert stats["max_bytes"] * 0.9 < stats["bytes"] <= stats["max_bytes"] == 1 << 20
    assert len(kept) == stats["entries"] == 20_000 - stats["evicted"]
    assert not fill(l1, b"x" * (1 << 20))
    assert l1.stats()["rejected"] == 1
    l1.clear()
    assert len(kept) == 0


def test_its_bytes_are_what_a_process_gives_for_them() -> None:
    printed = run(
        """
        import gc, os
        from framecache._framecache import L1, Frame
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        gc.disable()
        l1 = L1(64 << 20, decode=None)
        before = resident()
        for number in range(400_000):
            l1.fill(number.to_bytes(8, "little"), "%030d" % number, None, "raw", None, 0, 2**50, 2**50, bytes(12))
        print(resident() - before, l1.stats()["bytes"], l1.stats()["entries"], l1.stats()["evicted"])
        """,
        # Whose records would be counted too.
        env={"PYTHONTRACEMALLOC": "0"},
    )
    taken, counted, entries, evicted = map(int, printed.split())
    assert entries + evicted == 400_000
    assert evicted > 0
    assert 0.95 * (64 << 20) < counted <= 64 << 20
    assert 0.9 * counted < taken < 1.1 * counted


class Returning:
    """Comes back to `l1` when it goes."""

    def __init__(self, l1: L1, gone: list[int]) -> None:
        self.l1, self.gone = l1, gone

    def __del__(self) -> None:
        self.gone.append(1)
        self.l1.find(KEY)
        self.l1.remove(KEY + b"other")
        self.l1.purge()
        self.l1.keys(7)
        fill(self.l1, len(self.gone), KEY + b"gone")
        self.l1.stats()


def test_a_finalizer_may_come_back_to_the_cache(l1: L1, clock: Clock) -> None:
    gone: list[int] = []

    def put(number: int, size: int = 4000, **given: Any) -> bool:
        key = KEY + number.to_bytes(4, "little")
        return fill(l1, Returning(l1, gone), key, payload=Frame(bytes(size)), share=True, **given)

    for number in range(1_000):
        assert put(number)
    evicted = len(gone)
    assert evicted > 500
    assert put(0, 700_000)
    assert len(gone) > evicted + 100, "many at once"
    for _ in range(10):
        assert put(1)
    assert not put(2, 1 << 21)
    assert put(3, deadline=NOW + 1, until=NOW + 1)
    clock.advance(1)
    assert l1.find(KEY + (3).to_bytes(4, "little")) is MISSING
    assert l1.remove(KEY + (1).to_bytes(4, "little"))
    l1.clear()
    assert len(gone) == 1_013
    assert l1.get(7, "keygone") == 1_013


def test_threads_share_it() -> None:
    l1 = L1(1 << 18, decode=decode)
    failed: list[object] = []

    def work(seed: int) -> None:
        for turn in range(5_000):
            number = (turn * 31 + seed) % 1_500
            key = KEY + number.to_bytes(4, "little")
            value = l1.find(key)
            if value is MISSING:
                fill(l1, [number] if number % 2 else str(number), key)
            elif value not in ([number], str(number)):
                failed.append(value)
            if turn % 1_000 == 0:
                l1.purge()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    stats = l1.stats()
    assert stats["hits"] + stats["misses"] == 40_000
    assert stats["bytes"] <= 1 << 18


def test_it_goes_with_a_cycle_through_its_decoder() -> None:
    class Client:
        def __init__(self) -> None:
            self.l1 = L1(1 << 20, decode=self.decode)

        def decode(self, *_: object) -> None: ...

    client = Client()
    fill(client.l1, Returning(L1(1 << 10, decode=None), gone := []), share=True, payload=None)
    client_gone = weakref.ref(client)
    del client
    gc.collect()
    assert client_gone() is None
    assert gone == [1]


def test_a_child_goes_on_with_a_copy() -> None:
    printed = run(
        """
        import os
        from framecache._framecache import L1, MISSING
        l1 = L1(1 << 20, decode=None)
        fill = lambda key, value: l1.fill(key, value, None, "raw", None, 0, None, None, b"")
        fill(b"key1", "parent")
        if os.fork() == 0:
            assert l1.find(b"key1") == "parent"
            fill(b"key2", "child")
            l1.remove(b"key1")
            os._exit(int(l1.find(b"key2") != "child"))
        print(os.waitstatus_to_exitcode(os.wait()[1]), l1.find(b"key1"), l1.find(b"key2") is MISSING)
        """
    )
    assert printed.split() == ["0", "parent", "True"]


def test_missing_is_one_object_and_false() -> None:
    assert repr(MISSING) == "framecache.MISSING"
    assert not MISSING
    assert Missing() is MISSING
    assert copy.copy(MISSING) is copy.deepcopy(MISSING) is pickle.loads(pickle.dumps(MISSING)) is MISSING


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf")])
def test_a_clock_shows_times_from_1970_on(time: float) -> None:
    for call in (Clock, Clock().advance, Clock().set_time):
        with pytest.raises(InvalidArgument, match="expected 0 to 1e12 seconds"):
            call(time)


@pytest.mark.parametrize("length", [0, 123, 124, 125, 10_000])
def test_a_text_of_any_length_is_a_key(l1: L1, length: int) -> None:
    text = "ü" * (length // 2) + "x" * (length % 2)
    assert l1.get(7, text) is MISSING
    assert fill(l1, "x", KEY[:4] + text.encode())
    assert l1.get(7, text) == "x"
    assert l1.get(8, text) is MISSING


def test_slow_is_kept(l1: L1) -> None:
    assert l1.slow == 0
    l1.slow += 2
    assert l1.slow == 2
