"""Values of every type that keys are made of, and classes of an application."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import math
import pathlib
import re
import uuid
import zoneinfo
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import framecache


class Color(enum.Enum):
    red = 1
    blue = 2
    crimson = 1


class Level(enum.IntEnum):
    low = 1


class Access(enum.Flag):
    read = 1
    write = 2


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True)
class Fixed:
    x: object


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: object


class Pair(NamedTuple):
    x: object
    y: object


class Other(NamedTuple):
    x: object
    y: object


class Text(str):
    pass


class Number(int):
    pass


class Items(list):
    def __iter__(self) -> Any:
        raise AssertionError("nobody iterates")


class Noted(dict):
    note: str


class Halves(list):
    __slots__ = ("half",)


class Row:
    def __init__(self, table: str, id: int) -> None:
        self.table, self.id = table, id

    def cache_key(self) -> object:
        return self.table, self.id


class Account(Row):
    pass


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


framecache.register(Money, pack=lambda money: money.cents, unpack=Money, name="test-call-keys-money")


class Plain:
    pass


NAIVE = datetime.datetime(2024, 10, 27, 2, 30)
ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")

#: Values that all differ, in type or in value.
DISTINCT: list[object] = [
    None, False, True, 0, 1, -1, 255, 256, 2**30 - 1, 2**30, -(2**30), 2**31, 2**63 - 1, -(2**63), 2**63,
    2**64 - 1, 2**64,
    -(2**63) - 1, -(2**64), 2**200, -(2**200), 2**8191, 2**8192, 3 * 2**8192,
    0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 5e-324, 0j, 1j, complex(0, -0.0), complex(-0.0, 0), 1 + 0j,
    "", "0", "1", "1.0", "True", "None", "a", "b", "ab", "é", "e\u0301", "東京", "🦀", "\ud83e\udd80", "\ud800",
    "\x00", "\x00\x00",
    "a" * 1024, "a" * 1025, "a" * 1026, "é" * 512, "é" * 513, "東" * 400, "🦀" * 300, "\ud800" * 400,
    b"", b"0", b"1", b"a", b"\x00", b"\x00\x00", b"a" * 1024, b"a" * 1025, "é".encode(),
    bytearray(), bytearray(b"a"), bytearray(b"a" * 1025), memoryview(b""), memoryview(b"a"), memoryview(b"a" * 1025),
    memoryview(b"aabb"), memoryview(b"aabb").cast("H"), memoryview(b"aabb").cast("b"),
    memoryview(b"aabb").cast("B", (2, 2)),
    memoryview(b"aabb").cast("B", (4, 1)), memoryview(b"aaaaaaaa").cast("Q"), memoryview(b"aaaaaaaa").cast("d"),
    (), (None,), (1,), (1, 2), (2, 1), ((1,), 2), (1, (2,)), ((1, 2),), ("1", "2"), ("12",), ("1,2",), ("", ""), ("",),
    [], [None], [1], [1, 2], [[1], 2], [1, [2]], [[1, 2]], [()], [[]], ([],), [(1, 2)], ([1, 2],),
    {}, {1: 2}, {2: 1}, {1: 2, 2: 1}, {True: 2}, {1.0: 2}, {"1": 2}, {1: {2: 3}}, {1: (2, 3)}, {(1, 2): 3}, {"a": None},
    [(1, 2)], [1, 2, 2, 1], set(), {1}, {1.0}, {True}, {"1"}, {1, 2}, {(1, 2)}, frozenset(), frozenset({1}),
    frozenset({1, 2}), {frozenset({1})}, {frozenset({1}), 1},
    Color.red, Color.blue, "red", Level.low, Access.read, Access.write, Access.read | Access.write, Access(0),
    Point(1), Point(1, 1), Point(1.0), Point([1]), Fixed(1), Slotted(1), {"x": 1, "y": 0}, Fixed(Fixed(1)),
    Fixed(Point(1)),
    Pair(1, 2), Other(1, 2), {"x": 1, "y": 2}, Text(""), Text("a"), Number(1), Number(2**70), Items([1]), Items(),
    Noted(),
    Noted({1: 2}), collections.Counter("aab"), collections.Counter(), Row("a", 1), Row("a", 2), Account("a", 1),
    ("a", 1),
    Money(1), Money(2), Plain, Row, Account, Color, int, str, type(None), type,
    collections.OrderedDict([(1, 1), (2, 2)]), collections.OrderedDict([(2, 2), (1, 1)]), collections.defaultdict(int),
    collections.defaultdict(list), collections.defaultdict(int, {1: 2}), collections.deque(), collections.deque([1], 3),
    collections.deque([1]), array.array("i", [1]), array.array("h", [1]), array.array("i", [1, 0]),
    uuid.UUID(int=0), uuid.UUID(int=1), decimal.Decimal("1"), decimal.Decimal("1.0"), decimal.Decimal("-0"),
    decimal.Decimal("0"), decimal.Decimal("NaN"), decimal.Decimal("sNaN"), decimal.Decimal("Infinity"),
    decimal.Decimal("1e5"), decimal.Decimal("100000"), fractions.Fraction(1), fractions.Fraction(1, 3),
    NAIVE, NAIVE.replace(fold=1), NAIVE.replace(tzinfo=datetime.timezone.utc), NAIVE.replace(tzinfo=ZURICH),
    NAIVE.replace(tzinfo=ZURICH, fold=1), NAIVE.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
    NAIVE.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=1), "X")), NAIVE.replace(microsecond=1),
    NAIVE.date(), NAIVE.time(), NAIVE.time().replace(fold=1), NAIVE.time().replace(tzinfo=ZURICH),
    datetime.timedelta(1), datetime.timedelta(0, 1), datetime.timedelta(-1, 1), datetime.timezone.utc, ZURICH,
    pathlib.Path("a/b"), pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("a/b"), pathlib.Path("a"), "a/b",
    ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("10.0.0.1/32"), ipaddress.ip_interface("10.0.0.1/32"),
    ipaddress.ip_address("::1"), range(3), range(0, 3, 2), range(1, 3), slice(3), slice(0, 3), slice(None, 3, 1),
    re.compile("a"), re.compile(b"a"), re.compile("a", re.I), re.compile("b"),
    np.arange(4), np.arange(4.0), np.arange(4, dtype="i4"), np.arange(4, dtype=">i8"), np.arange(4).reshape(2, 2),
    np.arange(4).reshape(2, 2).T, np.arange(4).reshape(4, 1), np.arange(5), np.zeros(0), np.zeros((0, 2)),
    np.zeros((2, 0)),
    np.zeros(()), np.zeros(1), np.array(["a"]), np.array([b"a"]), np.array(["ab"]), np.array([None]),
    np.array([1], dtype=object),
    np.array([[1]], dtype=object), np.array(["2024-01-01"], "M8[D]"), np.array(["2024-01-01"], "M8[s]"),
    np.array([1], "m8[D]"), np.array([True]), np.array([1j]), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    np.array([(1, 2.0)], dtype=[("a", "i4"), ("c", "f8")]), np.float64(1), np.float32(1), np.int64(1), np.bool_(True),
    np.datetime64("NaT"), np.datetime64("2024-01-01"), np.timedelta64(5, "s"), np.str_("a"), np.bytes_(b"a"),
    np.dtype("f8"),
    np.dtype("f4"), np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")])[0],
    pa.table({"a": [1, 2]}), pa.table({"a": [1, 3]}), pa.table({"b": [1, 2]}), pa.table({"a": [1.0, 2.0]}),
    pa.table({"a": [1, None]}), pa.record_batch({"a": [1, 2]}), pa.array([1, 2]), pa.chunked_array([[1, 2]]),
    pl.DataFrame({"a": [1, 2]}), pl.DataFrame({"a": [1, 3]}), pl.Series("a", [1, 2]), pl.Series("b", [1, 2]),
    pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [1, 3]}), pd.DataFrame({"a": [1, 2]}, index=[1, 2]),
    pd.Series([1, 2]),
    pd.Series([1, 2], name="a"),
]  # fmt: skip
