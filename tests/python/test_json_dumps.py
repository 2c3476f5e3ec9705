"""What dumps writes: what orjson writes, for every type and option; where the two differ, this says how."""

import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import itertools
import json
import math
import types
import typing
import uuid
import zoneinfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache.json as framecache_json
from framecache.json import Fragment, JSONEncodeError, dumps, loads

OPTIONS = [1 << bit for bit in range(12)]


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Items(list):
    pass


class Mapping(dict):
    pass


class Sequence(tuple):
    pass


class Moment(datetime.datetime):
    pass


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"
    PAIR = (1, 2)
    DAY = datetime.date(2020, 1, 1)


class Whole(enum.IntEnum):
    ONE = 1


class Word(str, enum.Enum):
    A = "a"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Account:
    name: str
    points: list = dataclasses.field(default_factory=list)
    _private: int = 1
    shared: typing.ClassVar[int] = 2
    given: dataclasses.InitVar[int] = 3


@dataclasses.dataclass
class Special(Account):
    more: int = 4


@dataclasses.dataclass(slots=True)
class Slotted:
    b: int
    a: str = "x"
    _private: int = 3


@dataclasses.dataclass
class Inherited(dict):
    a: int = 1


class Movie(typing.TypedDict):
    name: str
    year: int


Point = collections.namedtuple("Point", "x y")


def offset(**parts):
    return datetime.timezone(datetime.timedelta(**parts))


def with_extra():
    account = Account("x")
    account.extra = [1]
    del account.points
    return account


VALUES = {
    "none": None,
    "true": True,
    "false": False,
    "ints": [0, 1, -1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 99_999, 10**6, -(10**7), 10**8, 10**9, 10**12, 10**15],
    "edges": [2**31, 2**32, 2**53 - 1, 2**53, -(2**53), 2**63 - 1, 2**63, 2**64 - 1, -(2**63)],
    "too large": 2**64,
    "too small": -(2**63) - 1,
    "floats": [0.0, -0.0, 1.0, 1.5, -2.25, 0.1, 1e15, 1e16, 1e21, 1e22, 1e-4, 1e-5, 1e-6, 1e-7, 5e-324, 1.7e308],
    "not finite": [math.nan, math.inf, -math.inf],
    "texts": ["", "a", "ab", "abc", "abcd", "abcdefg", "abcdefgh", "a" * 15, "a" * 16, "a" * 33, "a" * 100, "a" * 5000],
    "escapes": ['"', "\\", "/", "\b\f\n\r\t", "\x00\x1f\x7f", 'a"' * 40, "x" * 17 + "\n", "\u2028<>&"],
    "wide": ["é", "ÿ" * 30, "Ā", "日本語" * 20, "😀" * 9, 'é"\\\n' * 9, '日"\\\n' * 9, '😀"\\\n' * 9, "a" * 40 + "é"],
    "surrogate": ["ok", "\ud800"],
    "surrogate key": {"\udfff": 1},
    "lists": [[], [[]], [[], {}], [1, [2, [3, []]]]],
    "tuples": [(), (1, (2,)), ((),)],
    "dicts": [{}, {"a": {}}, {"a": {"b": [{"c": 1}]}, "d": None}],
    "int key": {1: 2},
    "keys": {"b": 1, "a": 2, "é": 3, "": 4, "aa": 5, "😀": 6, "\uffff": 7, '"': 8},
    "mixed keys": {"1": 0, 1: 1, -5: 2, 1.5: 3, None: 5, math.nan: 6, math.inf: 7, 2**64 - 1: 8},
    "bool keys": {True: 1, False: 0},
    "date keys": {datetime.datetime(2020, 1, 1): 1, datetime.date(2020, 1, 2): 2, datetime.time(3): 3},
    "uuid key": {uuid.UUID(int=5): 1},
    "enum keys": {Color.RED: 1, Color.BLUE: 2, Whole.ONE: 3, Word.A: 4},
    "enum key of tuple": {Color.PAIR: 1},
    "subclass keys": {Text("t"): 1, Number(5): 2},
    "float subclass key": {Real(1.5): 1},
    "tuple key": {(1,): 2},
    "bytes key": {b"a": 2},
    "large key": {2**64: 1},
    "subclasses": [Text('a"é'), Number(5), Items([1, "a"]), Mapping(a=1)],
    "real": Real(1.5),
    "sequence": Sequence((1, 2)),
    "namedtuple": Point(1, 2),
    "ordered": collections.OrderedDict(b=1, a=[2]),
    "default dict": collections.defaultdict(int, a=1),
    "datetime": datetime.datetime(2020, 1, 2, 3, 4, 5),
    "micros": datetime.datetime(1, 12, 31, 23, 59, 59, 1),
    "utc": datetime.datetime(9999, 1, 1, tzinfo=datetime.timezone.utc),
    "zone": datetime.datetime(2020, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "old zone": datetime.datetime(1900, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Amsterdam")),
    "fold": datetime.datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "east": datetime.datetime(2020, 1, 1, tzinfo=offset(hours=5, minutes=30)),
    "west": datetime.datetime(2020, 1, 1, tzinfo=offset(hours=-3, minutes=-30)),
    "seconds": [datetime.datetime(2020, 1, 1, tzinfo=offset(seconds=s)) for s in (29, 30, -29, -30, 3629, -3630)],
    "date": datetime.date(1, 2, 3),
    "time": [datetime.time(1, 2, 3), datetime.time(1, 2, 3, 40)],
    "time with zone": datetime.time(1, tzinfo=datetime.timezone.utc),
    "datetime subclass": Moment(2020, 1, 1),
    "timedelta": datetime.timedelta(1),
    "uuid": uuid.UUID("12345678-9abc-def0-1234-56789abcdef0"),
    "enums": [Color.RED, Color.BLUE, Color.PAIR, Color.DAY, Whole.ONE, Word.A, Access.READ | Access.WRITE],
    "dataclass": Account("a", [1, {"b": None}]),
    "dataclass subclass": Special("a"),
    "dataclass, other attributes": with_extra(),
    "dataclass, slots": Slotted(1),
    "dataclass, dict": Inherited({"k": 1}),
    "dataclass class": Account,
    "empty dataclass": dataclasses.make_dataclass("Nothing", [])(),
    "typed dict": Movie(name="x", year=1),
    "decimal": decimal.Decimal(1),
    "set": {1},
    "bytes": b"a",
    "bytearray": bytearray(),
    "complex": 1j,
    "range": range(3),
    "namespace": types.SimpleNamespace(),
    "ellipsis": ...,
    "type": int,
}


@contextlib.contextmanager
def refused(message):
    """Expect this message; pytest's `match` would look at the note as well."""
    with pytest.raises(JSONEncodeError) as caught:
        yield caught
    assert str(caught.value) == message


def outcome(module, value, option=None, **arguments):
    try:
        return module.dumps(value, option=option, **arguments)
    except module.JSONEncodeError as error:
        return str(error)


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_written_as_orjson_writes_it(name):
    for value in (VALUES[name], [VALUES[name]], {"k": VALUES[name], "l": 1}):
        for option in [None, *OPTIONS, *(one | other for one, other in itertools.combinations(OPTIONS, 2))]:
            assert outcome(framecache_json, value, option) == outcome(orjson, value, option), option


@pytest.mark.parametrize("name", VALUES)
def test_every_value_is_given_to_default_where_orjson_does_so(name):
    for option in OPTIONS:
        given = {framecache_json: [], orjson: []}
        written = [
            outcome(
                module, [VALUES[name], 1], option, default=lambda value, seen=seen: seen.append(value) or repr(value)
            )
            for module, seen in given.items()
        ]
        assert written[0] == written[1]
        assert [id(value) for value in given[framecache_json]] == [id(value) for value in given[orjson]]


def test_fragments_are_copied():
    value = {"a": [Fragment(b'{"b": 1}'), Fragment("é"), Fragment(b"")]}
    assert dumps(value) == '{"a":[{"b": 1},é,]}'.encode()
    assert (
        dumps(value, option=framecache_json.OPT_INDENT_2) == '{\n  "a": [\n    {"b": 1},\n    é,\n    \n  ]\n}'.encode()
    )
    for contents, message in (
        (1, "not of type bytes or str"),
        (bytearray(b"1"), "not of type"),
        ("\ud800", "surrogates"),
    ):
        with pytest.raises(JSONEncodeError, match=message):
            dumps(Fragment(contents))


def test_default_is_called_until_something_can_be_written():
    class Box:
        def __init__(self, depth):
            self.depth = depth

    def unpack(box):
        return Box(box.depth - 1) if box.depth else "end"

    for module in (framecache_json, orjson):
        assert module.dumps(Box(254), unpack) == b'"end"'
        with refused("default serializer exceeds recursion limit"):
            module.dumps(Box(255), unpack)


def test_what_default_raises_is_the_cause():
    def fail(value):
        raise ZeroDivisionError("no")

    with refused("Type is not JSON serializable: set") as caught:
        dumps({1}, fail)
    assert type(caught.value.__cause__) is ZeroDivisionError
    with pytest.raises(JSONEncodeError) as caught:
        dumps({1}, default=5)
    assert str(caught.value.__cause__) == "'int' object is not callable"


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_what_is_not_about_the_value_passes_through(raised):
    def fail(value):
        raise raised

    with pytest.raises(raised):
        dumps([{1}], fail)


def nested(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: {"a": v}, lambda v: (v,), lambda v: Items([v]), lambda v: Mapping(a=v)]
)
@pytest.mark.parametrize("option", [None, framecache_json.OPT_INDENT_2, framecache_json.OPT_SORT_KEYS])
def test_254_levels_are_written_and_no_more(wrap, option):
    assert loads(dumps(nested(254, wrap), option=option)) is not None
    with refused("Recursion limit reached"):
        dumps(nested(255, wrap), option=option)


def test_cycles_are_refused():
    items = []
    items.append(items)
    entries = {}
    entries["a"] = [entries]
    for value in (items, entries):
        with refused("Recursion limit reached"):
            dumps(value)


def test_sorting_keeps_the_order_of_equal_keys():
    value = {str(number): 0 for number in range(100)} | {number: 1 for number in range(100)}
    option = framecache_json.OPT_SORT_KEYS | framecache_json.OPT_NON_STR_KEYS
    assert json.loads(dumps(value, option=option), object_pairs_hook=list) == sorted(
        ((str(key), marker) for key, marker in value.items()), key=lambda pair: pair[0]
    )


class TestWhereThisDiffersFromOrjson:
    def test_a_zone_without_offset_is_none(self):
        class Unknown(datetime.tzinfo):
            def utcoffset(self, moment):
                return None

        moment = datetime.datetime(2020, 1, 1, tzinfo=Unknown())
        assert dumps(moment) == b'"2020-01-01T00:00:00"'
        assert dumps(moment, option=framecache_json.OPT_NAIVE_UTC) == b'"2020-01-01T00:00:00+00:00"'

    @pytest.mark.parametrize("result", [5, ValueError("no"), datetime.timedelta(days=2)])
    def test_a_zone_that_fails_is_the_cause_of_an_encode_error(self, result):
        class Broken(datetime.tzinfo):
            def utcoffset(self, moment):
                if isinstance(result, Exception):
                    raise result
                return result

        with refused("Type is not JSON serializable: datetime.datetime") as caught:
            dumps([datetime.datetime(2020, 1, 1, tzinfo=Broken())])
        assert isinstance(caught.value.__cause__, TypeError | ValueError)

    def test_an_offset_never_has_sixty_minutes(self):
        moment = datetime.datetime(2020, 1, 1, tzinfo=offset(hours=23, minutes=59, seconds=30))
        assert dumps(moment) == b'"2020-01-01T00:00:00+23:59"'
        moment = datetime.datetime(1883, 1, 1, tzinfo=offset(hours=-6, minutes=-59, seconds=-56))
        assert dumps(moment) == b'"1883-01-01T00:00:00-07:00"'

    def test_a_slot_without_value_is_an_error(self):
        value = Slotted(1)
        del value.a
        with pytest.raises(JSONEncodeError) as caught:
            dumps([value])
        assert type(caught.value.__cause__) is AttributeError

    def test_a_value_property_that_fails_is_the_cause(self):
        class Broken(enum.Enum):
            A = 1

            @property
            def value(self):
                raise ValueError("no")

        for value in (Broken.A, {Broken.A: 1}):
            with pytest.raises(JSONEncodeError) as caught:
                dumps(value, option=framecache_json.OPT_NON_STR_KEYS)
            assert str(caught.value.__cause__) == "no"

    def test_tuples_count_as_levels(self):
        with refused("Recursion limit reached"):
            dumps(nested(255, lambda value: (value,)))

    def test_an_enum_that_is_its_own_value_ends(self):
        class Endless(enum.Enum):
            A = 1

            @property
            def value(self):
                return self

        for value in (Endless.A, {Endless.A: 1}):
            with pytest.raises(JSONEncodeError):
                dumps(value, option=framecache_json.OPT_NON_STR_KEYS)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=8)
    ),
    max_leaves=30,
)


@pytest.mark.parametrize("others", ["x", '"\\\n', "\x00\x1f", "é", "п", "日", "😀", 'é"', "п\\é", "日é\n", "😀日п"])
def test_text_of_every_length_is_written_as_orjson_writes_it_and_comes_back(others):
    for length in range(200):
        for place in {0, 1, length // 2, length - 1}:
            text = "".join(
                others[index % len(others)] if index in {place, place + 3} else "a" for index in range(length)
            )
            dense = (others * length)[: length // 2 + 1] + "b" * place
            # orjson attaches UTF-8 to what it writes, which would be read afterwards.
            for ours, theirs in ((text + "z", text + "z"), (dense + "z", dense + "z")):
                written = dumps([ours])
                assert written == orjson.dumps([theirs]) == dumps([theirs])
                assert loads(written) == [theirs] == loads(json.dumps([theirs]))


@given(JSON, st.sampled_from([0, framecache_json.OPT_INDENT_2, framecache_json.OPT_SORT_KEYS]))
def test_hypothesis_values_are_written_as_orjson_writes_them_and_come_back(value, option):
    text = dumps(value, option=option)
    assert text == orjson.dumps(value, option=option)
    assert loads(text) == value == json.loads(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_hypothesis_texts_are_written_as_orjson_writes_them(text):
    # A copy, in which orjson has not left its UTF-8.
    assert dumps("".join(list(text))) == orjson.dumps(text)


@given(st.floats() | st.floats(width=32))
def test_hypothesis_floats_come_back(value):
    if math.isfinite(value):
        assert loads(dumps(value)) == value
        assert math.copysign(1, loads(dumps(value))) == math.copysign(1, value)
    assert dumps(value) == orjson.dumps(value)


@given(st.times())
def test_hypothesis_times_are_written_as_python_writes_them(value):
    # orjson leaves out a zero where there are 10000 to 99999 microseconds.
    assert dumps(value).decode() == f'"{value.isoformat()}"'


@given(st.datetimes() | st.datetimes(timezones=st.timezones()) | st.dates())
def test_hypothesis_dates_are_written_as_orjson_writes_them(value):
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        found = value.utcoffset()
        # orjson writes 60 minutes where seconds are rounded up to them.
        if found is None or abs(found).seconds % 3600 >= 3570:
            return
    for option in (0, framecache_json.OPT_UTC_Z, framecache_json.OPT_NAIVE_UTC, framecache_json.OPT_OMIT_MICROSECONDS):
        assert dumps(value, option=option) == orjson.dumps(value, option=option)
