"""MessagePack with Python's types: what comes back has the type and the value of what was written."""

import copy
import gc
import json
import pickle
import struct
import sys
import threading
import tracemalloc
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import Enum, Flag, IntEnum, IntFlag
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar, NamedTuple
from uuid import UUID, SafeUUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import framecache
from framecache import DecodeError, EncodeError, Frame, InvalidArgument
from framecache.msgpack import packb, unpackb
from support import run

LEVELS = 1024
MAX_INT_BYTES = 4096


@framecache.register
class Color(Enum):
    RED = "r"
    BLUE = ("b", 1)
    ALIAS = "r"


@framecache.register
class Access(Flag):
    READ = 1
    WRITE = 2


@framecache.register
class Bits(IntFlag):
    ONE = 1
    TWO = 2


@framecache.register
class Level(IntEnum):
    LOW = 1
    HIGH = 2**70


@framecache.register
class Name(str, Enum):
    A = "a"


@framecache.register
class Point(NamedTuple):
    x: Any
    y: Any = None


Empty = framecache.register(namedtuple("Empty", ""))


@framecache.register
@dataclass
class Account:
    name: Any
    points: Any = field(default_factory=list)
    made: Any = field(init=False, default=5)
    kind: ClassVar[str] = "account"

    def __post_init__(self):
        CALLS.append("post_init")


@framecache.register
@dataclass(frozen=True, slots=True)
class Frozen:
    a: Any
    b: Any = field(compare=False, repr=False, default=None)


@framecache.register
@dataclass
class Watched:
    a: Any

    def __init__(self, a):
        CALLS.append("init")
        object.__setattr__(self, "a", a)

    def __setattr__(self, name, value):
        CALLS.append("setattr")
        object.__setattr__(self, name, value)

    def __new__(cls, *arguments):
        CALLS.append("new")
        return object.__new__(cls)


class Box:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Box and self.value == other.value

    __hash__ = None


framecache.register(Box, pack=lambda box: [box.value], unpack=lambda packed: Box(packed[0]))

#: What methods of the classes above were called.
CALLS: list[str] = []


def zone_of(zone):
    if zone is None:
        return None
    if type(zone) is timezone:
        return timezone, zone.utcoffset(None), zone.tzname(None)
    return type(zone), zone.key


def _shown(item):
    """`repr`, of ints of any size."""
    limit = getattr(sys, "get_int_max_str_digits", lambda: 0)()
    if not limit:
        return repr(item)
    sys.set_int_max_str_digits(0)
    try:
        return repr(item)
    finally:
        sys.set_int_max_str_digits(limit)


def exact(value):
    """A value that is equal only for values of the same type, with parts of the same types, and the same bits."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [exact(item) for item in value]
    if kind in (set, frozenset):
        return kind, sorted(
            (exact(item) for item in value),
            key=lambda item: (str(item[0]), hash(item[1]) if type(item[1]) is int else _shown(item)),
        )
    if kind is dict:
        return kind, [(exact(key), exact(item)) for key, item in value.items()]
    if kind is float:
        return kind, struct.pack(">d", value)
    if kind is complex:
        return kind, struct.pack(">dd", value.real, value.imag)
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind in (datetime, time):
        return kind, value.replace(tzinfo=None), value.fold, zone_of(value.tzinfo)
    if kind is timedelta:
        return kind, value.days, value.seconds, value.microseconds
    if kind is UUID:
        return kind, value.int, value.is_safe
    if kind in (range, slice):
        return kind, exact(value.start), exact(value.stop), exact(value.step)
    if kind is np.ndarray:
        order = value.flags.f_contiguous, value.flags.c_contiguous
        return kind, value.dtype, value.dtype.type, value.shape, order, value.tobytes()
    if isinstance(value, np.generic):
        return kind, value.dtype, value.tobytes()
    if isinstance(value, Enum):
        return kind, id(value)
    if isinstance(value, tuple):
        return kind, [exact(item) for item in value]
    if kind in (Account, Frozen, Watched):
        return kind, [exact(getattr(value, name)) for name in kind.__dataclass_fields__ if name != "kind"]
    if kind is Box:
        return kind, exact(value.value)
    return kind, value


def comes_back(value):
    found = unpackb(packb(value))
    assert exact(found) == exact(value)
    return found


BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0])
floats = st.floats() | BITS | st.sampled_from([0.0, -0.0])
#: With surrogates.
texts = st.text(st.characters(), max_size=80)
zones = (
    st.none()
    | st.sampled_from([timezone.utc, ZoneInfo("Europe/Berlin"), ZoneInfo("UTC"), ZoneInfo("America/New_York")])
    | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
    | st.builds(timezone, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)), st.text(max_size=5))
)
folds = st.integers(0, 1)
moments = st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.datetimes(), zones, folds)
times = st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), zones, folds)
hashable = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2 ** (8 * MAX_INT_BYTES - 1)) + 1, 2 ** (8 * MAX_INT_BYTES - 1) - 1),
    st.integers(-(2**70), 2**70),
    floats,
    texts,
    st.binary(max_size=300),
    st.builds(complex, floats, floats),
    st.decimals(),
    st.sampled_from([Decimal("-0E+3"), Decimal("NaN123"), Decimal("-0.00"), Decimal("1E-400"), Decimal("-Infinity")]),
    st.fractions(),
    moments,
    st.dates(),
    times,
    st.timedeltas(),
    st.builds(
        lambda number, safe: UUID(int=number, is_safe=safe), st.integers(0, 2**128 - 1), st.sampled_from(SafeUUID)
    ),
    st.sampled_from(["/a/b", "", "..", "a//b", "\udc80"]).map(PurePosixPath),
    st.sampled_from(["C:/a", "", r"\\host\share\x", "a"]).map(PureWindowsPath),
    st.sampled_from(["/a", "b"]).map(Path),
    st.ip_addresses(),
    st.sampled_from(
        [IPv4Network("10.0.0.0/8"), IPv6Network("::/0"), IPv4Interface("10.1.2.3/8"), IPv6Interface("fe80::1%x/64")]
    ),
    st.sampled_from([IPv6Address("fe80::1%eth0"), IPv4Address(0)]),
    st.builds(range, st.integers(), st.integers(), st.integers(1)),
    st.sampled_from([*Color, *Level, *Name, Access(0), Access.READ | Access.WRITE, Bits(3), Bits(8), Empty()]),
    hnp.scalar_dtypes()
    .flatmap(lambda dtype: hnp.from_dtype(dtype.newbyteorder("=")))
    .filter(lambda value: isinstance(value, np.generic)),
)
# A Decimal that signals cannot be hashed.
keys = st.recursive(
    hashable.filter(lambda value: type(value) is not Decimal or not value.is_snan()),
    lambda inner: (
        st.lists(inner, max_size=4).map(tuple)
        | st.frozensets(inner, max_size=4)
        | st.builds(Point, inner, inner)
        | st.builds(Frozen, inner, inner)
    ),
    max_leaves=5,
)
values = st.recursive(
    hashable | st.binary(max_size=20).map(bytearray) | st.slices(10) | st.just(Decimal("-sNaN5")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(keys, max_size=5),
        st.frozensets(keys, max_size=5),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(texts, inner, max_size=20),
        st.builds(Point, inner, inner),
        st.builds(Account, inner, inner),
        st.builds(Frozen, inner, inner),
        st.builds(Watched, inner),
        st.builds(Box, inner),
        st.builds(slice, inner, inner, inner),
    ),
    max_leaves=20,
)


@settings(max_examples=400)
@given(values)
def test_any_value_comes_back(value):
    comes_back(value)


@settings(max_examples=200)
@given(st.dictionaries(keys, st.integers(0, 100), max_size=30))
def test_any_key_comes_back(value):
    comes_back(value)


@given(
    hnp.arrays(
        hnp.scalar_dtypes() | hnp.array_dtypes(allow_subarrays=True),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.sampled_from("CF"),
    st.booleans(),
)
def test_any_array_comes_back(array, order, views):
    array = np.array(array, order=order)
    found = unpackb(packb([1, array, "x"]), views=views)
    assert exact(found[1]) == exact(array)
    assert found[0::2] == [1, "x"]


ARRAYS = [
    np.arange(24.0).reshape(2, 3, 4)[:, ::2, ::-1],
    np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
    np.broadcast_to(np.int8(3), (4, 5)),
    np.array(7),
    np.zeros((0, 5), "F"),
    np.array(["2020-01-01", "NaT"], "M8[25s]"),
    np.array([1, 2], "m8"),
    np.array(["a", "bcd"]),
    np.array([True, False]),
    np.array([1.5], np.longdouble),
    np.array([(1, (2.0, [3, 4]))], dtype=[("a", ">i2"), ("b", [("c", "f4"), ("d", "u1", 2)])]),
    np.zeros(2, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    np.zeros(2, np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [4], "itemsize": 16, "titles": ["title"]})),
    np.array([b"ab\0c"], "S6"),
    np.zeros(2, "V7"),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: str(array.dtype)[:30])
@pytest.mark.parametrize("views", [False, True])
def test_arrays_of_each_layout_come_back(array, views):
    found = unpackb(packb(array), views=views)
    assert type(found) is np.ndarray
    assert found.dtype == array.dtype
    assert (
        found.dtype.descr == array.dtype.descr
        if array.dtype.names is None
        else found.dtype.fields == array.dtype.fields
    )
    assert found.dtype.isalignedstruct == array.dtype.isalignedstruct
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)
    # What long doubles and records leave unused has no value.
    has_padding = array.dtype == np.longdouble or array.dtype.names is not None
    assert has_padding or found.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "value",
    [
        np.longlong(5),
        np.ulonglong(5),
        np.intc(5),
        np.longdouble("1.1"),
        np.clongdouble(1j),
        np.bool_(True),
        np.float16(-0.0),
        np.timedelta64(5),
        np.datetime64("NaT"),
        np.datetime64("2020", "25s"),
        np.str_("a\0"),
        np.str_("\ud800"),
        np.str_(""),
        np.bytes_(b"a\0"),
        np.void(b"abc"),
        np.void(b""),
        np.array([(1, 2.5)], dtype=[("a", ">i4"), ("b", "f8")])[0],
        np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0],
    ],
    ids=lambda value: f"{type(value).__name__}-{value.dtype}",
)
def test_numpy_scalars_come_back_or_are_refused_when_written(value):
    try:
        packed = packb(value)
    except EncodeError:
        assert type(value) in (np.record, np.longlong, np.ulonglong, np.void)
        return
    found = unpackb(packed)
    assert type(found) is type(value)
    assert found.dtype == value.dtype or type(value) is np.str_
    assert found == value if value.dtype.char in "UgG" else found.tobytes() == value.tobytes()


def test_arrays_of_records_come_back_or_are_refused_when_written():
    array = np.zeros(2, dtype=(np.record, [("a", "i4")]))
    try:
        packed = packb(array)
    except EncodeError:
        return
    assert unpackb(packed).dtype.type is np.record


@pytest.mark.parametrize(
    "value",
    [
        [],
        (),
        {},
        set(),
        frozenset(),
        "",
        b"",
        bytearray(),
        range(0),
        Empty(),
        np.zeros(0),
        PurePosixPath(),
        [[], ()],
        [{}],
    ],
    ids=repr,
)
def test_what_is_empty_comes_back(value):
    comes_back(value)
    comes_back({"a": value})


@pytest.mark.parametrize("sign", [1, -1])
def test_ints_up_to_the_limit_come_back_and_larger_ones_are_refused(sign):
    largest = sign * (2 ** (8 * MAX_INT_BYTES - 1) - 1)
    comes_back([largest, {largest: 1}, (largest,)])
    for value in (sign * 2 ** (8 * MAX_INT_BYTES), sign * 10**20_000):
        with pytest.raises(EncodeError, match=r"\$\.a\[0\].*4096"):
            packb({"a": [value]})
        assert unpackb(packb(value, limits=10_000), limits=10_000) == value
        with pytest.raises(DecodeError, match="4096"):
            unpackb(packb(value, limits=10_000))


@pytest.mark.parametrize("bits", [7, 8, 15, 16, 29, 30, 31, 32, 59, 60, 61, 62, 63, 64, 65, 90, 127, 128, 1000])
def test_ints_around_each_size_come_back(bits):
    comes_back([sign * (2**bits + more) for sign in (1, -1) for more in (-1, 0, 1)])


def test_a_decimal_comes_back_whatever_the_context_is():
    value = [Decimal("1E+30"), Decimal("1.23456789012345678901234567890"), Decimal("NaN5"), Decimal("-sNaN")]
    with localcontext() as context:
        context.capitals = 0
        context.prec = 3
        context.Emax = 5
        packed = packb(value)
        assert exact(unpackb(packed)) == exact(value)
    assert exact(unpackb(packed)) == exact(value)
    assert packed == packb(value)


def test_the_extremes_of_times_come_back():
    comes_back([datetime.min, datetime.max, date.min, date.max, time.min, time.max, timedelta.min, timedelta.max])
    comes_back([timezone.min, timezone.max][0:0])
    comes_back([datetime(1, 1, 1, tzinfo=timezone.max), datetime(9999, 12, 31, tzinfo=timezone.min)])


def test_zones_come_back_as_the_same_object_where_there_is_one():
    found = comes_back([datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), time(tzinfo=timezone.utc)])
    assert found[0].tzinfo is ZoneInfo("Europe/Berlin")
    assert found[1].tzinfo is timezone.utc


class Zone(tzinfo):
    def utcoffset(self, moment):
        return timedelta(0)


SUBCLASSES = [
    type("Mine", (base,), {})(*arguments)
    for base, *arguments in [
        (str, "a"),
        (int, 1),
        (float, 1.0),
        (bytes, b"a"),
        (bytearray, b"a"),
        (list,),
        (tuple,),
        (dict,),
        (set,),
        (frozenset,),
        (complex, 1j),
        (Decimal, 1),
        (Fraction, 1),
        (datetime, 2020, 1, 1),
        (date, 2020, 1, 1),
        (time, 1),
        (timedelta, 1),
        (UUID, "0" * 32),
        (PurePosixPath, "a"),
        (IPv4Address, "10.0.0.1"),
        (Account, "a"),
    ]
]
REFUSED = [
    *SUBCLASSES,
    OrderedDict(a=1),
    defaultdict(list),
    deque(),
    memoryview(b"a"),
    object(),
    object,
    len,
    ...,
    NotImplemented,
    iter([]),
    (item for item in ()),
    Exception("x"),
    datetime(2020, 1, 1, tzinfo=Zone()),
    np.array([object()]),
    np.zeros(1, [("a", "O")]),
    np.ma.zeros(2),
    np.zeros(2).view(np.matrix),
    type("Odd", (), {"__module__": 5})(),
    type("Odd", (), {"__module__": "no.such.module"})(),
    type("datetime", (), {"__module__": "datetime"})(),
    type("Decimal", (), {"__module__": "decimal"})(),
    type("UUID", (), {"__module__": "uuid"})(),
    type("ndarray", (), {"__module__": "numpy"})(),
    type("Fraction", (), {"__module__": "fractions"})(),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__qualname__)
def test_other_types_are_refused_with_their_path(value):
    with pytest.raises(EncodeError, match=r"\$\.users\[1\]\.joined\[0\]") as caught:
        packb({"users": [1, {"joined": (value,)}]})
    assert isinstance(caught.value, TypeError)


def test_dicts_that_look_like_markers_stay_dicts():
    comes_back(
        [{"__type__": "tuple", "items": [1]}, {"__ext__": 1}, {"__class__": "x", "__dict__": {}}, {"$type": "set"}]
    )
    comes_back({"__framecache__": packb((1,)), "code": 1, "data": b"\x90"})


def nest(levels, *wraps):
    value = 1
    for level in range(levels):
        value = wraps[level % len(wraps)](value)
    return value


def depth_of(value):
    depth = 0
    while type(value) in (list, dict, tuple, frozenset, Point, Frozen, Box):
        depth += 1
        value = (
            value["k"] if type(value) is dict
            else value.a if type(value) is Frozen
            else value.value if type(value) is Box
            else next(iter(value))
        )  # fmt: skip
    return depth


WRAPS = {
    "lists": [lambda value: [value]],
    "dicts": [lambda value: {"k": value}],
    "tuples": [lambda value: (value,)],
    "mixed": [lambda value: [value], lambda value: {"k": value}, lambda value: (value,)],
    "frozensets": [lambda value: frozenset([value])],
    "namedtuples": [Point],
    "dataclasses": [Frozen],
}


@pytest.mark.parametrize("wraps", WRAPS.values(), ids=WRAPS)
def test_exactly_1024_levels_come_back_and_one_more_is_refused(wraps):
    assert depth_of(unpackb(packb(nest(LEVELS, *wraps)))) == LEVELS
    with pytest.raises(EncodeError, match="1024 levels"):
        packb(nest(LEVELS + 1, *wraps))


@pytest.mark.parametrize(
    "leaf",
    [1, "a", "\ud800", 2**70, Decimal(1), bytearray(b"a"), 1j, UUID(int=1), datetime(2020, 1, 1), date(2020, 1, 1)]  # noqa: RUF005
    + [datetime(2020, 1, 1, tzinfo=timezone(timedelta(1, -5))), range(1), Color.RED, np.int8(1), np.zeros(1), ()]
    + [Fraction(1, 2), PurePosixPath("a"), IPv4Address(1), timedelta(1), {1: 2}, {"a"}, Box(1), Account(1)],
    ids=lambda leaf: f"{type(leaf).__name__}-{leaf!s:.12}",
)
@pytest.mark.parametrize("levels", range(LEVELS - 4, LEVELS + 2))
def test_what_can_be_written_at_the_deepest_level_can_be_read(leaf, levels):
    value = leaf
    for _ in range(levels):
        value = [value]
    try:
        packed = packb(value)
    except EncodeError as error:
        assert "1024 levels" in str(error)  # noqa: PT017
        assert levels > LEVELS - 4
        return
    found = unpackb(packed)
    for _ in range(levels):
        (found,) = found
    assert exact(found) == exact(leaf)


def test_deep_values_in_a_thread_with_a_small_stack_are_refused_and_end_no_process():
    run(
        """
        import threading
        from dataclasses import dataclass
        import framecache
        from framecache import DecodeError, EncodeError
        from framecache.msgpack import packb, unpackb

        class Box:
            def __init__(self, value): self.value = value
        framecache.register(Box, pack=lambda box: box.value, unpack=Box)
        class Other:
            def __init__(self, value): self.value = value
        @framecache.register
        @dataclass
        class Data:
            value: object

        wraps = [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: {"a": [(v,)]}, lambda v: frozenset([v]),
                 lambda v: {(v if type(v) is tuple else (1,), 1): v}, Box, Other, Data]
        values = []
        for wrap in wraps:
            for levels in (100, 200, 300, 500, 900, 1024, 1025):
                value = ()
                for _ in range(levels):
                    value = wrap(value)
                values.append(value)
        key = ()
        for _ in range(900):
            key = (key,)
        values += [{key: object()}, {key: 1}]
        documents = []
        for value in values:
            try:
                documents.append(packb(value, default=lambda other: other.value))
            except (EncodeError, AttributeError):
                pass
        assert len(documents) > 20
        failures, counts = [], {"written": 0, "read": 0}
        def work():
            for value in values:
                try:
                    packb(value, default=lambda other: other.value)
                    counts["written"] += 1
                except (EncodeError, AttributeError):
                    pass
                except BaseException as error:
                    failures.append(repr(error)[:300])
            for document in documents:
                try:
                    unpackb(document)
                    counts["read"] += 1
                except DecodeError:
                    pass
                except BaseException as error:
                    failures.append(repr(error)[:300])
        for size in (256, 1024):
            threading.stack_size(size * 1024)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        assert counts["written"] and counts["read"], counts
        assert not failures, failures
        """
    )


def test_cycles_are_refused():
    items: list[Any] = [1]
    items.append(items)
    pairs: dict[str, Any] = {"a": [1]}
    pairs["a"].append((pairs,))
    account = Account("a")
    account.points = [account]
    box = Box(None)
    box.value = {"b": box}
    for value in (items, pairs, (pairs,), account, box, [Point(items)]):
        with pytest.raises(EncodeError, match="cycle"):
            packb(value)
    shared = [1]
    comes_back([shared, shared, {"a": shared}])


def test_default_may_return_what_is_again_of_no_form():
    class A:
        pass

    class B:
        pass

    steps = {A: B(), B: (1, 2)}
    assert unpackb(packb([A()], default=lambda value: steps[type(value)])) == [(1, 2)]
    endless = object()
    for default in (lambda value: value, lambda value: [value], lambda value: object(), lambda value: {"a": (value,)}):
        with pytest.raises(EncodeError, match=r"cycle|levels"):
            packb([endless], default=default)
    with pytest.raises(ZeroDivisionError):
        packb([endless], default=lambda value: 1 / 0)
    with pytest.raises(TypeError):
        packb(endless, default=5)


#: Python code that changes what is being written; `refused` runs it.
_MUTATIONS = """
def mutations():
    class Odd:
        pass

    def changed_by(make, *changes):
        for change in changes:
            target = make()
            yield target, lambda odd, target=target, change=change: change(target)

    def items():
        return [Odd(), *("text %d" % n for n in range(50)), Odd()]

    yield from changed_by(
        items,
        lambda target: target.clear(),
        lambda target: target.append(1),
        lambda target: target.extend(range(10_000)),
        lambda target: target.pop(),
        lambda target: target.__setitem__(slice(None), [[n] for n in range(52)]),
        lambda target: target.__setitem__(slice(0, 2), []),
        lambda target: target.insert(0, Odd()),
    )

    def pairs():
        return {"a": Odd(), **{"key %d" % n: "text %d" % n for n in range(50)}, (1, 2): Odd(), "b": 1}

    yield from changed_by(
        pairs,
        lambda target: target.clear(),
        lambda target: target.__setitem__(object(), 1),
        lambda target: target.update({str(n): n for n in range(10_000)}),
        lambda target: target.pop("b", None),
        lambda target: [target.pop(key) for key in list(target)] and target.update(z=1),
        lambda target: target.__setitem__("a", 5),
        lambda target: target.update({key: [1] for key in target}),
        lambda target: [target.clear(), target.update({n: n for n in range(53)})],
    )

    def keyed():
        return {Odd(): [Odd()], **{n: "text %d" % n for n in range(50)}}

    yield from changed_by(keyed, lambda target: target.clear(), lambda target: target.update({"a": 1}))

    def members():
        return {1, 2, Odd(), *("text %d" % n for n in range(50))}

    yield from changed_by(members, lambda target: target.clear(), lambda target: target.update(range(1000)))


class Slot:
    def __init__(self, change):
        self.change = change


def change_and_write():
    written = 0
    for wrap in (lambda target: target, lambda target: [target], lambda target: {"a": (target,)}):
        for target, change in mutations():
            try:
                packed = packb(wrap(target), default=lambda odd: change(odd) and None)
            except EncodeError as error:
                assert "changed" in str(error) or "form" in str(error) or "keeps" in str(error), error
                continue
            try:
                unpackb(packed)
            except DecodeError as error:
                assert "hash" in str(error), error
            written += 1
    for kind in ("pack", "property"):
        for target in ([1], {"a": 1}):
            class Packed:
                @property
                def value(self):
                    target.clear()
                    return 5
            if kind == "pack":
                pack = lambda value: target.clear()
                framecache.register(Packed, pack=pack, unpack=lambda value: value, name="changes")
            else:
                Packed.__annotations__ = {"value": int}
                declared = dataclasses.make_dataclass("Declared", [("value", int)], bases=())
                declared.value = Packed.value
                Packed = declared
            odd = object.__new__(Packed)
            if type(target) is list:
                target += [odd, "text" * 10, [2]]
            else:
                target.update(b=odd, c="text" * 10)
            try:
                packb([target])
            except EncodeError:
                continue
            raise AssertionError("written")
    return written
"""

_MUTATION_IMPORTS = (
    "import dataclasses, framecache\nfrom framecache import DecodeError, EncodeError\n"
    "from framecache.msgpack import packb, unpackb\n"
)


def test_what_is_changed_while_it_is_written_ends_no_process():
    run(_MUTATION_IMPORTS + _MUTATIONS + "\nfor _ in range(20):\n    change_and_write()\n")


def test_enum_members_come_back_as_themselves():
    for member in (*Color, *Level, *Name, *Access, *Bits):
        assert unpackb(packb([member]))[0] is member
        assert next(iter(unpackb(packb({member: 1})))) is member
    assert unpackb(packb(Access.READ | Access.WRITE)) is Access.READ | Access.WRITE
    assert unpackb(packb(Access(0))) is Access(0)
    assert unpackb(packb(Color.ALIAS)) is Color.RED


def test_dataclasses_are_rebuilt_without_their_code():
    value = [Account("a", [1]), Watched((1,)), Frozen(1, {2})]
    value[0].made = "changed"
    packed = packb(value)
    CALLS.clear()
    found = unpackb(packed)
    assert CALLS == []
    assert exact(found) == exact(value)
    assert found[0].__dict__ == {"name": "a", "points": [1], "made": "changed"}


def test_registering_makes_no_instance_that_ends():
    ended = []

    @dataclass
    class Ending:
        a: int = 1

        def __del__(self):
            ended.append(vars(self))

    framecache.register(Ending)
    assert ended == []


def test_a_dataclass_without_one_of_its_values_is_refused():
    account = Account("a")
    del account.points
    with pytest.raises(EncodeError, match=r"\$\.x.*without points"):
        packb({"x": account})


def test_a_namedtuple_of_another_length_is_refused():
    with pytest.raises(EncodeError):
        packb(tuple.__new__(Point, (1, 2, 3)))


def make(kind, name, fields):
    if kind == "dataclass":
        from dataclasses import make_dataclass

        made = make_dataclass(name, fields)
    elif kind == "namedtuple":
        made = namedtuple(name, fields)
    else:
        made = Enum(name, fields)
    made.__module__, made.__qualname__ = "test_made", name
    return made


@pytest.mark.parametrize("kind", ["dataclass", "namedtuple", "enum"])
def test_a_class_that_was_not_registered_can_be_written_and_not_read(kind):
    cls = make(kind, f"Unregistered_{kind}", ["a", "b"])
    packed = packb([cls.a if kind == "enum" else cls(1, 2)])
    with pytest.raises(DecodeError, match=r"register.*Unregistered") as caught:
        unpackb(packed)
    assert "$[0]" in str(caught.value)
    framecache.register(cls)
    assert type(unpackb(packed)[0]) is cls


@pytest.mark.parametrize("kind", ["dataclass", "namedtuple", "enum"])
@pytest.mark.parametrize("fields", [["a"], ["a", "c"], ["a", "b", "c"], []])
def test_a_class_that_has_changed_is_refused(kind, fields):
    name = f"Changing_{kind}"
    cls = framecache.register(make(kind, name, ["a", "b"]))
    packed = packb(cls.b if kind == "enum" else cls(1, 2))
    assert unpackb(packed) == (cls.b if kind == "enum" else cls(1, 2))
    framecache.register(make(kind, name, fields))
    if kind == "namedtuple" and len(fields) == 2:
        assert tuple(unpackb(packed)) == (1, 2)
    elif kind != "enum" or "b" not in fields:
        with pytest.raises(DecodeError, match=r"Changing|member"):
            unpackb(packed)


def test_an_adapter_writes_and_reads_any_class():
    class Money(int):
        pass

    framecache.register(
        Money, pack=lambda money: (int(money), "EUR"), unpack=lambda packed: Money(packed[0]), name="money"
    )
    found = unpackb(packb({"a": [Money(5)], Money(6): 1}))
    assert found == {"a": [5], 6: 1}
    assert type(found["a"][0]) is Money
    assert {type(key) for key in found} == {str, Money}
    for taken in (make("namedtuple", "Taken", "a"), Account):
        with pytest.raises(InvalidArgument, match="money"):
            framecache.register(taken, name="money")
    comes_back(Account("still registered"))


def test_what_an_adapter_raises_comes_out():
    class Failing:
        pass

    framecache.register(Failing, pack=lambda value: 1 / 0, unpack=lambda value: 1 / 0, name="failing")
    with pytest.raises(ZeroDivisionError):
        packb([Failing()])
    framecache.register(Failing, pack=lambda value: 1, unpack=lambda value: 1 / 0, name="failing")
    with pytest.raises(DecodeError, match="ZeroDivisionError") as caught:
        unpackb(packb([Failing()]))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("cls", [int, dict, object, 5, "name", type("Bare", (), {}), None.__class__])
def test_what_cannot_be_registered_is_refused(cls):
    with pytest.raises(InvalidArgument):
        framecache.register(cls)


def test_pack_and_unpack_come_together():
    for arguments in ({"pack": list}, {"unpack": list}):
        with pytest.raises(InvalidArgument, match="both"):
            framecache.register(Box, **arguments)


def fails(data):
    try:
        unpackb(data)
    except DecodeError:
        return
    raise AssertionError("read")


def refuses(value):
    try:
        packb(value)
    except EncodeError:
        return
    raise AssertionError("written")


MANY = [
    {"a": [1000, 2.5, "text", b"bytes"], "b": (10**30, {frozenset([7000])}), 5000: None, "n": {"x": {"y": {}}}},
    [
        Decimal("1.5"),
        Fraction(1, 3),
        datetime(2020, 1, 1, tzinfo=timezone.utc),
        UUID(int=5),
        "\ud800",
        1j,
        bytearray(9),
    ],
    [Color.RED, Point(1, 2), Account("a"), Frozen(1), Box(1), range(10**20), slice(1000, 2000), IPv4Address(5)],
    [np.arange(1000), np.int8(5), np.zeros(2, [("a", "i4")])],
]


def blocks_after(work, rounds):
    """How many blocks of memory stay per round, once caches are filled."""
    for _ in range(50):
        work()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(rounds):
        work()
    gc.collect()
    return (sys.getallocatedblocks() - before) / rounds


@pytest.mark.parametrize("value", MANY, ids=range(len(MANY)))
def test_nothing_stays_of_what_was_written_and_read(value):
    packed = packb(value)

    def work():
        unpackb(packed)
        unpackb(packed, views=True)
        packb(value)
        for end in range(0, len(packed), max(1, len(packed) // 40)):
            fails(packed[:end])
        refuses([value, object()])
        refuses({"a": value, (1,): {"b": object()}})

    assert blocks_after(work, 100) < 0.5


def test_references_to_parts_are_given_back():
    parts = [object() for _ in range(3)]
    value = [Box(parts[0]), {"a": Point(parts[1], parts[2])}]
    counts = [sys.getrefcount(part) for part in parts]
    for _ in range(100):
        refuses(value)
        packb(value, default=lambda part: 1)
        with pytest.raises(ZeroDivisionError):
            packb(value, default=lambda part: 1 / 0)
    assert [sys.getrefcount(part) for part in parts] == counts
    packed = packb([None, True, (), "key", {"key": 1}])
    constants = [Account, Color.RED, packed]
    counts = [sys.getrefcount(constant) for constant in constants]
    for _ in range(100):
        unpackb(packed)
        unpackb(packb([Account(1), Color.RED]))
        fails(packb([Account(1), Color.RED])[:-1])
        fails(packed[:-1])
    assert [sys.getrefcount(constant) for constant in constants] == counts


def test_memory_does_not_grow_with_the_number_of_calls():
    documents = [packb(value) for value in MANY]

    def work():
        for document in documents:
            unpackb(document)
            fails(document[:-1])

    tracemalloc.start()
    try:
        for _ in range(20):
            work()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            work()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_what_was_read_is_collected_when_it_is_part_of_a_cycle():
    class Node:
        pass

    for _ in range(10):
        found = unpackb(packb({"list": [1], "dict": {"a": 1}, "tuple": ([],), "box": Box(1)}))
        node = Node()
        for part in (found["list"], found["tuple"][0]):
            part.append(found)
        found["dict"]["self"] = found
        found["node"] = node
    gc.collect()
    del found, node, part
    assert gc.collect() > 0
    assert not [item for item in gc.get_objects() if type(item) is Node]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    documents = [packb(value) for value in MANY]
    before = gc.isenabled()
    seen = []
    try:
        (gc.enable if enabled else gc.disable)()
        for document in documents:
            unpackb(document)
            assert gc.isenabled() is enabled
            fails(document[:-1])
            assert gc.isenabled() is enabled
        unpackb(b"\x92\x90\xd4\x46x", ext_hook=lambda *parts: seen.append(gc.isenabled()))
        assert seen == [enabled]
        # What Python code chose stays.
        unpackb(b"\x92\xd4\x46x\x90", ext_hook=lambda *parts: (gc.disable if enabled else gc.enable)())
        assert gc.isenabled() is not enabled
    finally:
        (gc.enable if before else gc.disable)()


def key_of(document):
    return next(iter(unpackb(document)))


@pytest.mark.parametrize("key", ["", "a", "key", "k" * 63, "k" * 64, "é" * 32, "語" * 21, "🔑" * 16], ids=len)
def test_equal_short_keys_are_one_object(key):
    document = packb({key: 1})
    assert key_of(document) == key
    assert key_of(document) is key_of(bytes(document))
    first, second = unpackb(packb([{key: 1}, {key: 2}]))
    assert next(iter(first)) is next(iter(second))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 18, 20, 31, 32, 33, 48, 63, 64, 65, 100])
def test_keys_that_differ_in_one_byte_never_mix(size):
    base = "0123456789abcdef" * 7
    found = {base[:size]}
    documents = [(base[:size], packb({base[:size]: 1}))]
    for at in range(size):
        for char in "xyZ\x00é":
            key = (base[:at] + char + base[at + 1 :])[:size]
            documents.append((key, packb({key: at})))
            found.add(key)
    for _ in range(3):
        for key, document in documents:
            (read,) = unpackb(document)
            assert read == key
            assert hash(read) == hash(key)
    both = dict.fromkeys(found, 1)
    assert unpackb(packb(both)) == both


def test_a_hundred_thousand_distinct_keys_come_back():
    value = {f"prefix__{number:08x}__suffix": number for number in range(100_000)}
    assert list(unpackb(packb(value)).items()) == list(value.items())
    rows = [{f"prefix__{number:08x}__suffix": number} for number in range(100_000)]
    assert unpackb(packb(rows)) == rows


def test_threads_that_read_at_once_get_their_own_values():
    values = [[{f"key {number % 50} {n}": (n, number)} for n in range(60)] for number in range(8)]
    documents = [packb(value) for value in values]
    barrier, failures = threading.Barrier(8), []

    def work(number):
        barrier.wait()
        for _ in range(60):
            if unpackb(documents[number]) != values[number] or packb(values[number]) != documents[number]:
                failures.append(number)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []


def test_dicts_have_the_size_that_others_have():
    for count in [*range(700), 1365, 1366, 2000, 2730, 2731, 10922, 10923, 21845, 21846, 43690, 43691]:
        value = {f"k{number}": None for number in range(count)}
        found, model = unpackb(packb(value)), json.loads(json.dumps(value))
        assert sys.getsizeof(found) == sys.getsizeof(model), count
        assert found == model


def test_dicts_can_be_changed_as_any_other():
    for count in [*range(0, 30), 85, 86, 170, 171, 1365, 1366, 21845, 21846]:
        value = {f"k{number}": [number] for number in range(count)}
        found = unpackb(packb(value))
        assert list(found) == list(value)
        assert list(reversed(found.items())) == list(reversed(value.items()))
        assert (lambda **arguments: arguments)(**found) == value
        assert (
            pickle.loads(pickle.dumps(found))
            == copy.deepcopy(found)
            == found.copy()
            == dict(found)
            == found | {}
            == value
        )
        for target in (found, value, duplicate := found.copy()):
            for number in range(count, count + 40):
                target[f"k{number}"] = number
            target[5] = target.pop("k3")
        assert found == value == duplicate
        for target in (found, value):
            for number in (0, 7, *range(10, count + 30)):
                target.pop(f"k{number}", None)
            target.setdefault("again", 1)
        assert list(found.items()) == list(value.items())
        found.clear()
        found["x"] = 1
        assert found == {"x": 1}


def test_attributes_can_be_read_dicts():
    found = unpackb(packb({"a": 1, "b": 2}))
    holder = Box(1)
    holder.__dict__ = found
    holder.c = 3
    del holder.a
    assert vars(holder) == {"b": 2, "c": 3}
    assert found is vars(holder)


@pytest.mark.parametrize("count", [2, 5, 6, 7, 15])
@pytest.mark.parametrize("key", ["a", "k" * 64, "k" * 70, "é", 5, b"x", (1,)], ids=repr)
def test_of_equal_keys_the_last_value_counts(key, count):
    if isinstance(key, str):
        pairs = b"".join(packb(key) + bytes([number]) for number in range(count))
    else:
        pairs = b"".join(packb(key) + bytes([number]) for number in range(count))
    rest = packb({"z": 1})[1:]
    found = unpackb(b"\xde" + struct.pack(">H", count + 1) + pairs + rest)
    assert found == {key: count - 1, "z": 1}
    assert len(found) == len(list(found)) == 2
    assert sys.getsizeof(found) == sys.getsizeof(unpackb(packb({key: 1, "z": 1})))
    found["more"] = 1
    assert list(found) == [key, "z", "more"]


def test_sets_with_equal_items_have_them_once():
    assert unpackb(b"\xc7\x04\x02\x93\x01\x01\x02") == {1, 2}


def address_of(view):
    return np.frombuffer(view, "u1").ctypes.data


@pytest.mark.parametrize("size", [65_536, 100_000])
@pytest.mark.parametrize("wrap", [bytes, Frame])
def test_large_bytes_are_views_of_the_input(wrap, size):
    source = wrap(packb({"a": [b"x" * size], "b": b"y" * 65_535}))
    found = unpackb(source, views=True)
    view = found["a"][0]
    assert type(view) is memoryview
    assert view.readonly
    assert view == b"x" * size
    start = address_of(source)
    assert start <= address_of(view) < address_of(view) + size <= start + len(memoryview(source))
    assert type(found["b"]) is bytes
    assert type(unpackb(source)["a"][0]) is bytes
    del source, found
    gc.collect()
    assert bytes(view) == b"x" * size


@pytest.mark.parametrize("wrap", [bytes, Frame])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("before", [0, 1, 7, 63, 64, 300])
def test_large_arrays_are_aligned_views_of_the_input(wrap, order, before):
    arrays = [np.arange(512.0).reshape(16, 32), np.arange(5000, dtype="i2").reshape(50, 100)]
    arrays = [np.array(array, order=order) for array in arrays]
    value = {"pad": "x" * before, "all": (arrays[0], [b"y" * before, arrays[1]])}
    source = wrap(packb(value))
    found = unpackb(source, views=True)
    views = [found["all"][0], found["all"][1][1]]
    start = address_of(source)
    for view, array in zip(views, arrays, strict=True):
        assert exact(view) == exact(array)
        assert not view.flags.writeable
        assert start <= view.ctypes.data < view.ctypes.data + view.nbytes <= start + len(memoryview(source))
        assert (view.ctypes.data - start) % 64 == 0
        with pytest.raises(ValueError, match="read-only"):
            view[0, 0] = 5
    for copied in (unpackb(source)["all"][0], unpackb(source)["all"][1][1]):
        assert copied.flags.writeable
        assert copied.flags.owndata
        assert not start <= copied.ctypes.data < start + len(memoryview(source))
        copied[0, 0] = 5
    del source, found
    gc.collect()
    assert [exact(view) for view in views] == [exact(array) for array in arrays]


def test_small_arrays_are_writable_copies_with_views_too():
    found = unpackb(packb(np.arange(4095, dtype="u1")), views=True)
    assert found.flags.writeable
    found[0] = 5


def test_a_view_holds_its_input_and_gives_it_back():
    packed = packb([b"x" * 100_000, np.arange(1000)])
    count = sys.getrefcount(packed)
    found = unpackb(packed, views=True)
    assert sys.getrefcount(packed) > count
    del found
    gc.collect()
    assert sys.getrefcount(packed) == count


@pytest.mark.parametrize(
    "dtype",
    [
        "g",
        [("a", "i1"), ("b", [("x", "g"), ("y", "u1")], (2,))],
        {"names": ["a", "b"], "formats": ["<i2", (">f8", (2,))], "offsets": [0, 4], "itemsize": 24},
    ],
    ids=["long double", "long double in a record", "gaps"],
)
def test_bytes_that_belong_to_no_value_are_written_as_zeros(dtype):
    size = 3 * np.dtype(dtype).itemsize
    array = np.frombuffer(b"\xaa" * size, "u1").view(dtype)
    packed = packb(array)
    assert packb(unpackb(packed)) == packed
    unused = packed[-size:].count(0)
    assert 0 < unused < size
    assert packed[-size:].count(0xAA) + unused == size


def test_empty_dicts_are_written_whatever_keys_they_have():
    emptied = {"a": 1}
    del emptied["a"]
    assert [packb(value) for value in ({}, emptied, dict.fromkeys([]))] == [b"\x80"] * 3
