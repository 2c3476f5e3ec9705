"""What loads reads: what orjson reads, with its errors; where the two differ, this says how."""

import json
import math
import random
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache.json as framecache_json
from framecache.json import JSONDecodeError, dumps, loads

ESCAPES = [
    '\\"',
    "\\\\",
    "\\/",
    "\\b",
    "\\f",
    "\\n",
    "\\r",
    "\\t",
    "\\u0041",
    "\\u00e9",
    "\\u20AC",
    "\\ud83d\\ude00",
    "\\u0000",
]
GOOD = [
    *("null", "true", "false", '""', "[]", "{}", "[ ]", "{ }", " [1 , 2 ] ", '\t{"a" :\r\n1 }\n', '{"a":{"b":[{}]}}'),
    *(
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "-1",
        "12345678",
        "123456789",
        "0.5",
        "1e5",
        "1E+5",
        "1e-5",
        "-1.25e2",
        "0e99999999",
    ),
    *(
        "9" * 18,
        "9" * 19,
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
    ),
    *("1" * 300, "0." + "1" * 800, "1." + "0" * 50, "123456789012345678901234567890", "0." + "0" * 330 + "123456789"),
    *("1e308", "1.7976931348623157e308", "5e-324", "2.4703282292062327e-324", "1e-400", "9007199254740993.0"),
    *("[" * 1024 + "]" * 1024, '{"a":' * 1024 + "1" + "}" * 1024, '{"a":1,"b":2,"a":3}', '{"é":1,"\\u00e9":2}'),
    *(
        f'"{"x" * count}{escape}{"y" * count}"'
        for count in (0, 1, 13, 14, 15, 16, 17, 31, 47, 48, 49)
        for escape in ESCAPES
    ),
    *(f'["{char * count}"]' for count in (1, 2, 7, 8, 9, 40) for char in "a\x7fé\xffĀ日\uffff😀"),
    *(f'{{"{"k" * count}":1,"{"k" * count}\\n":2}}' for count in (0, 1, 3, 4, 8, 16, 32, 63, 64, 65, 100)),
]
BAD = [
    *(
        "",
        " ",
        "\n\n",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[1, ]",
        "[1 ,\n]",
        "[,",
        "[,1]",
        "[1,,2]",
        "[1 2]",
        "[1}",
        "]",
        "}",
        ",",
        ":",
    ),
    *(
        "{",
        "{}}",
        '{"a"',
        '{"a":',
        '{"a":1',
        '{"a":1,',
        '{"a":1,}',
        '{"a":1 , }',
        "{,}",
        "{1:2}",
        '{"a" 1}',
        '{"a":1 "b"}',
    ),
    *(
        '{"a":1]',
        '{"a"::1}',
        "{null:1}",
        "t",
        "tr",
        "tru",
        "trux",
        "[tru]",
        "nul",
        "nulx",
        "fals",
        "falsy",
        "nulls",
        "truefalse",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "-",
        "-a",
        "[-]",
        "+1",
        ".5",
        "1.",
        "1.e",
        "1.e5",
        "1e",
        "1e+",
        "1e-x",
        "01",
        "-01",
        "00",
    ),
    *(
        "0x1",
        "1a",
        "1.5.5",
        "1e999",
        "-1e999",
        "1" * 400,
        "1 2",
        "[] x",
        "\ufeff1",
        "\x0b1",
        "/",
        "[/",
        '{"a":/',
        "'a'",
        "[é]",
    ),
    *(
        '"',
        '"a',
        '"a\nb"',
        '"\t"',
        '"\x00"',
        '"\\',
        '"\\"',
        '"\\x"',
        '"\\u',
        '"\\u1',
        '"\\u12G4"',
        '"\\u12"',
        '"\\U0041"',
    ),
    *(
        '"\\ud800"',
        '"\\ud800',
        '"\\ud800\\',
        '"\\ud800\\u',
        '"\\ud800\\udc',
        '"\\ud800\\n"',
        '"\\ud800\\u0041"',
        '"\\udc00"',
    ),
    *(
        "[1]\x00",
        "\x00",
        "[\x00]",
        "{\x00}",
        '{"a"\x00}',
        '{"a":\x00}',
        "[1\x00]",
        '"é" x',
        '"日本"  x',
        "1é",
        "\u2028[1]",
    ),
    *(
        "[" * 1025 + "]" * 1025,
        "[" * 100_000,
        '{"a":' * 1025 + "1" + "}" * 1025,
        "[1,\n2,\n é, x]",
        '{"a":\n"\n"}',
    ),
]


def outcome(module, text):
    try:
        return repr(module.loads(text))
    except module.JSONDecodeError as error:
        return str(error), error.msg, error.pos, error.lineno, error.colno, error.doc


@pytest.fixture(autouse=True)
def deep():
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("text", GOOD, ids=lambda text: f"{text[:20]!a}")
def test_good_text_is_read_as_orjson_reads_it(text):
    expected = outcome(orjson, text)
    assert isinstance(expected, str)
    encoded = text.encode()
    for form in (text, encoded, bytearray(encoded), memoryview(encoded), f" {text}\n", b"[" + encoded + b"]"):
        assert outcome(framecache_json, form) == outcome(orjson, form)


@pytest.mark.parametrize("text", BAD, ids=lambda text: f"{text[:20]!a}")
def test_bad_text_is_refused_as_orjson_refuses_it(text):
    assert isinstance(outcome(orjson, text), tuple)
    for form in (text, text.encode(), bytearray(text.encode()), f"\n {text}", f'[1, "é\\u0041", {text}'):
        assert outcome(framecache_json, form) == outcome(orjson, form)


@pytest.mark.parametrize("wrong", [1, None, [], object(), memoryview(b"[1,2]")[::2], b"1".__class__])
def test_other_types_are_refused(wrong):
    assert outcome(framecache_json, wrong) == outcome(orjson, wrong)


@pytest.mark.parametrize("base", [bytes, bytearray, str])
def test_subclasses_are_refused(base):
    value = type("Sub", (base,), {})("1") if base is str else type("Sub", (base,), {})(b"1")
    assert outcome(framecache_json, value) == outcome(orjson, value)


@pytest.mark.parametrize(
    "text", [b"\xff", b'"ab\xff"', b'["\xc3\xa9", "\xed\xa0\x80"]', b'"\xf5\x80\x80\x80"', b'"\xc3']
)
def test_what_is_not_utf8_is_refused_where_it_is(text):
    with pytest.raises(JSONDecodeError) as caught:
        loads(text)
    assert caught.value.msg == "str is not valid UTF-8: surrogates not allowed"
    with pytest.raises(UnicodeDecodeError) as expected:
        text.decode()
    assert caught.value.pos == len(text[: expected.value.start].decode())


def test_surrogates_in_a_str_are_refused():
    for text in ("\ud800", '"é\udfff"', '"\ud83d\ude00"'):
        assert outcome(framecache_json, text) == outcome(orjson, text)


@pytest.mark.parametrize("count", [*range(40), 85, 86, 170, 171, 1000, 30_000])
def test_dicts_and_lists_are_no_larger_than_those_of_the_standard_library(count):
    value = {f"key {index}": [] for index in range(count)}
    text = json.dumps(value)
    for _ in range(2):
        assert sys.getsizeof(loads(text)) == sys.getsizeof(json.loads(text))
    exact = sys.getsizeof([None] * count)
    assert sys.getsizeof(loads(dumps(list(value)))) == exact


def test_a_decoded_dict_is_like_any_other():
    value = loads('{"a":1,"b":[2],"c":{"d":3}}')
    value["e"] = value.pop("a")
    del value["b"]
    assert value == {"c": {"d": 3}, "e": 1}
    assert list(value) == ["c", "e"]
    assert {**value}.keys() == value.keys()


def test_equal_keys_of_records_are_one_object():
    first, second = loads('[{"name": 1, "größe": 2}, {"name": 3, "größe": 4}]')
    for one, other in zip(first, second, strict=True):
        assert one is other


def test_keys_are_told_apart_by_all_of_their_bytes():
    rng = random.Random(1)
    for _ in range(20_000):
        keys = ["".join(rng.choices("ab", k=rng.randrange(1, 70))) for _ in range(2)]
        assert list(loads(dumps({keys[0]: 1, keys[1]: 2}))) == list(dict.fromkeys(keys))


def test_the_utf8_of_a_str_stays_away_from_it():
    for text in ('["' + "日本" * 100 + '"]', '["' + "é" * 300 + '"]', '["' + "😀" * 100 + '"]'):
        fresh = "".join(list(text))
        before = sys.getsizeof(fresh)
        value = loads(fresh)
        assert sys.getsizeof(fresh) == before
        inner = sys.getsizeof(value[0])
        dumps(value)
        assert sys.getsizeof(value[0]) == inner


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_hypothesis_floats_of_every_spelling(value):
    for text in (repr(value), f"{value:.17e}", f"{value:.30e}", f"{value:.3e}", f"{value:f}"):
        if "inf" not in repr(float(text)):
            found = loads(text)
            assert found == float(text)
            assert math.copysign(1, found) == math.copysign(1, float(text))


@given(st.integers(0, 10**25), st.integers(-400, 400))
def test_hypothesis_decimals_are_the_nearest_float(digits, power):
    text = f"{digits}e{power}"
    if math.isfinite(float(text)):
        assert loads(text) == float(text)
    else:
        with pytest.raises(JSONDecodeError, match="infinity"):
            loads(text)


@given(st.text(st.sampled_from('[]{}:,"\\ntrue0123456789.eE+-ud8 \nfalsé日'), max_size=30))
def test_hypothesis_nearly_json_gives_what_orjson_gives(text):
    assert outcome(framecache_json, text) == outcome(orjson, text)


@given(st.text(max_size=100))
def test_hypothesis_texts_come_back_however_they_are_escaped(text):
    for escaped in (json.dumps(text), json.dumps(text, ensure_ascii=False)):
        if any("\ud800" <= char <= "\udfff" for char in text):
            with pytest.raises(JSONDecodeError):
                loads(escaped)
        else:
            assert loads(escaped) == loads(f'{{"{escaped[1:-1]}":0}}').popitem()[0] == text
