"""NumPy's arrays and scalars as JSON: what orjson writes; where the two differ, this says how."""

import numpy as np
import orjson
import pytest

import framecache.json as framecache_json
from framecache.json import OPT_INDENT_2, OPT_OMIT_MICROSECONDS, OPT_SERIALIZE_NUMPY, JSONEncodeError, dumps

TYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
UNITS = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"]


def outcome(module, value, option=0, **arguments):
    try:
        return module.dumps(value, option=option | module.OPT_SERIALIZE_NUMPY, **arguments)
    except module.JSONEncodeError as error:
        return str(error)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_is_written_as_orjson_writes_it(name):
    dtype = np.dtype(name)
    edges = [0, 1]
    if dtype.kind in "iu":
        edges += [np.iinfo(dtype).min, np.iinfo(dtype).max]
    if dtype.kind == "f":
        edges += [
            np.finfo(dtype).max,
            np.finfo(dtype).tiny,
            0.1,
            -2.5,
            np.nan,
            np.inf,
            np.finfo(dtype).smallest_subnormal,
        ]
    array = np.array(edges, dtype)
    for option in (0, OPT_INDENT_2, OPT_SERIALIZE_NUMPY):
        for value in (array, list(array), array[:0], {"a": array.reshape(-1, 1)}, np.stack([array, array])):
            assert outcome(framecache_json, value, option) == outcome(orjson, value, option)


def test_all_halves_are_written_as_orjson_writes_them():
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    assert outcome(framecache_json, halves) == outcome(orjson, halves)


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_is_written_as_orjson_writes_it(unit):
    early = np.datetime64("1972-03-01T05:06:07" if unit == "M" else "1900-03-01T05:06:07.123456", unit)
    values = [early, np.datetime64(0, unit), np.datetime64("2024-02-29", unit)]
    for option in (0, OPT_OMIT_MICROSECONDS, framecache_json.OPT_NAIVE_UTC, framecache_json.OPT_UTC_Z | 2, 512):
        for value in (*values, np.array(values)):
            assert outcome(framecache_json, value, option) == outcome(orjson, value, option)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((0, 3)),
        np.zeros((3, 0)),
        np.zeros((2, 0, 2)),
        np.zeros((2, 1, 2), "i4"),
        np.array(1),
        np.arange(6)[::2],
        np.arange(4).reshape(2, 2).T,
        np.array([1, 2], ">i4"),
        np.array([1, "a"], object),
        np.array(["a"]),
        np.zeros(2, "i4,f4"),
        np.zeros(2, "c8"),
        np.zeros(2, "g"),
        np.longdouble(1),
        np.complex64(1),
        np.str_("a"),
        np.bytes_(b"a"),
        np.timedelta64(5, "s"),
        np.datetime64("NaT"),
        np.datetime64(5, "ps"),
        np.datetime64(5, "fs"),
        np.datetime64(5, "as"),
        np.datetime64(2**62, "us"),
        np.datetime64("10000-01-01"),
        np.void(b"ab"),
        np.ma.array([1]),
        np.matrix([[1]]),
        np.zeros((1,) * 40),
        {np.int64(1): 1},
        np.array([2**53]),
    ],
    ids=lambda value: f"{value!r:.30}".replace("\n", " "),
)
def test_the_rest_is_treated_as_orjson_treats_it(value):
    for option in (0, OPT_INDENT_2, framecache_json.OPT_NON_STR_KEYS, framecache_json.OPT_STRICT_INTEGER):
        for arguments in ({}, {"default": lambda value: f"default of {type(value).__name__}"}):
            assert outcome(framecache_json, value, option, **arguments) == outcome(orjson, value, option, **arguments)


@pytest.mark.parametrize("value", [np.array([1]), np.int64(1), np.float64(1.5), np.bool_(True), np.datetime64("2020")])
def test_without_the_option_it_has_no_form(value):
    with pytest.raises(JSONEncodeError) as caught:
        dumps(value)
    with pytest.raises(JSONEncodeError) as expected:
        orjson.dumps(value)
    assert str(caught.value) == str(expected.value)


class TestWhereThisDiffersFromOrjson:
    def test_both_names_of_64_bits_are_written(self):
        assert outcome(framecache_json, [np.longlong(-1), np.ulonglong(2**64 - 1)]) == b"[-1,18446744073709551615]"

    def test_the_last_day_is_written(self):
        assert outcome(framecache_json, np.datetime64("9999-12-31")) == b'"9999-12-31T00:00:00"'

    def test_months_before_1970_are_written(self):
        assert outcome(framecache_json, np.datetime64("1900-03")) == b'"1900-03-01T00:00:00"'

    @pytest.mark.parametrize("unit", UNITS)
    def test_not_a_time_is_an_error_in_every_unit(self, unit):
        message = r"^unrepresentable numpy\.datetime64: -9223372036854775808 "
        for value in (np.datetime64("NaT", unit), np.array(["NaT"], f"M8[{unit}]")):
            with pytest.raises(JSONEncodeError, match=message):
                dumps(value, option=OPT_SERIALIZE_NUMPY)

    def test_units_may_have_a_factor(self):
        value = np.array([5, -1], "M8[3s]")
        assert outcome(framecache_json, value) == b'["1970-01-01T00:00:15","1969-12-31T23:59:57"]'


def test_a_large_array_in_a_list_is_not_copied_first():
    array = np.arange(100_000).reshape(100, 10, 100)
    assert orjson.loads(outcome(framecache_json, [array])) == [array.tolist()]
