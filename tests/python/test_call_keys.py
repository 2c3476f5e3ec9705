"""Canonical encoding: different values never share bytes, equal values of one type always do."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import fractions
import inspect
import ipaddress
import itertools
import json
import math
import os
import pathlib
import re
import struct
import subprocess
import sys
import textwrap
import threading
import urllib.parse
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache
from calls import call_of, encoding, no_decoder
from framecache import EncodeError, _keys
from framecache._framecache import L1, MISSING, Call
from key_values import DISTINCT, Color, Halves, Noted, Pair, Plain, Point
from support import run

#: Where other interpreters find these modules.
HERE = {"PYTHONPATH": str(pathlib.Path(__file__).parent)}
#: What expressions of the vectors use.
NAMES = {
    module.__name__.partition(".")[0]: module
    for module in (collections, datetime, decimal, fractions, ipaddress, pathlib, re, urllib.parse, uuid, zoneinfo)
} | {"np": np, "urllib": urllib}


def test_no_two_different_values_have_the_same_encoding() -> None:
    seen: dict[bytes, object] = {}
    for value in DISTINCT:
        bytes_of = encoding(value)
        if bytes_of in seen:
            earlier = seen[bytes_of]
            assert type(earlier) is type(value), f"{earlier!r} and {value!r} share their bytes"
            assert repr(earlier) == repr(value), f"{earlier!r} and {value!r} share their bytes"
        seen[bytes_of] = value
    # Three values stand in the list twice.
    assert len(seen) >= len(DISTINCT) - 3


def test_no_encoding_begins_with_another_so_that_neighbours_cannot_be_mistaken() -> None:
    encodings = sorted({encoding(value) for value in DISTINCT})
    for one, other in itertools.pairwise(encodings):
        assert not other.startswith(one)


@pytest.mark.parametrize("index", range(len(DISTINCT)))
def test_a_value_has_the_same_encoding_again(index: int) -> None:
    assert encoding(DISTINCT[index]) == encoding(DISTINCT[index])


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False).filter(lambda value: value != 0),
    st.text(st.characters(codec=None), max_size=5),
    st.text(st.characters(codec=None), min_size=340, max_size=700),
    st.binary(max_size=5),
    st.binary(min_size=1020, max_size=1030),
)
HASHABLE = st.recursive(
    LEAVES,
    lambda part: st.one_of(st.tuples(part), st.tuples(part, part), st.frozensets(part, max_size=3)),
    max_leaves=6,
)
VALUES = st.recursive(
    HASHABLE,
    lambda part: st.one_of(
        st.lists(part, max_size=4),
        st.tuples(part, part),
        st.sets(HASHABLE, max_size=4),
        st.dictionaries(HASHABLE, part, max_size=4),
    ),
    max_leaves=12,
)


def typed(value: object) -> object:
    """A form that is equal exactly for values that are equal in value and type, all the way."""
    if isinstance(value, list | tuple):
        return type(value), tuple(map(typed, value))
    if isinstance(value, set | frozenset):
        return type(value), frozenset(map(typed, value))
    if isinstance(value, dict):
        return dict, frozenset((typed(key), typed(item)) for key, item in value.items())
    return type(value), value


@given(VALUES, VALUES)
def test_hypothesis_encodings_are_equal_exactly_for_equal_values_of_one_type(one: object, other: object) -> None:
    assert (encoding(one) == encoding(other)) is (typed(one) == typed(other))


@given(st.data(), VALUES)
def test_hypothesis_a_copy_built_in_another_order_has_the_same_encoding(data: st.DataObject, value: object) -> None:
    def rebuilt(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(rebuilt(item) for item in value)
        if isinstance(value, set | frozenset):
            return type(value)(rebuilt(item) for item in data.draw(st.permutations(sorted(value, key=repr))))
        if isinstance(value, dict):
            return {rebuilt(key): rebuilt(value[key]) for key in data.draw(st.permutations(list(value)))}
        return value

    assert encoding(rebuilt(value)) == encoding(value)


def test_sets_and_dicts_have_the_same_encoding_whatever_the_seed_of_hashes() -> None:
    code = """
        from calls import encoding
        words = [f"word {number}" for number in range(40)]
        value = (set(words), frozenset(words), {word: {word} for word in set(words)})
        print(encoding(value).hex())
    """
    assert len({run(code, env={**HERE, "PYTHONHASHSEED": seed}) for seed in ("0", "1", "2")}) == 1


def test_nan_is_one_value_whatever_its_bits() -> None:
    other = struct.unpack("<d", bytes.fromhex("010000000000f8ff"))[0]
    assert encoding(other) == encoding(math.nan)


def test_an_alias_is_the_member_it_stands_for() -> None:
    assert encoding(Color.crimson) == encoding(Color.red)


def test_large_arrays_that_differ_in_one_cell_differ() -> None:
    one = np.arange(5000.0)
    other = one.copy()
    assert encoding(one) == encoding(other)
    other[2500] += 1e-9
    assert encoding(one) != encoding(other)


def test_the_layout_of_an_array_does_not_count() -> None:
    base = np.arange(20_000).reshape(100, 200)
    assert encoding(np.asfortranarray(base)) == encoding(base)
    assert encoding(base[::2, ::-3]) == encoding(base[::2, ::-3].copy())
    assert encoding(base.T) == encoding(base.T.copy())
    assert encoding(base[::2]) != encoding(base[1::2])


def test_gaps_between_the_fields_of_records_do_not_count() -> None:
    aligned = np.dtype([("a", "i1"), ("b", "i8")], align=True)
    one = np.frombuffer(b"\x01" + b"\xaa" * 7 + b"\x02" + b"\x00" * 7, aligned)
    other = np.frombuffer(b"\x01" + b"\xbb" * 7 + b"\x02" + b"\x00" * 7, aligned)
    assert encoding(one) == encoding(other)


def test_a_memoryview_that_is_not_contiguous_counts_by_its_items() -> None:
    for size in (40, 40_000):
        data = bytes(itertools.islice(itertools.cycle(range(251)), size))
        assert encoding(memoryview(data)[::3]) == encoding(memoryview(data[::3]))
        assert encoding(memoryview(data)[::3]) != encoding(memoryview(data)[1::3])


def test_long_text_is_hashed_alike_however_it_is_stored() -> None:
    # One more character, which the second value loses again, makes a str of wider characters.
    for text in ("é" * 100_000, "东" * 50_000, "🦀" * 40_000, "a" * 3_000_000):
        wide = ("🦀" + text)[1:]
        assert encoding(text) == encoding(wide)
        assert encoding(text) != encoding(text[:-1] + "x")


def test_reading_text_leaves_no_copy_attached_to_it() -> None:
    text = "é" * 5000
    before = sys.getsizeof(text)
    encoding(text)
    assert sys.getsizeof(text) == before


def test_tables_count_by_their_content_not_by_their_chunks() -> None:
    whole = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert chunked.column("a").num_chunks == 2
    assert encoding(chunked) == encoding(whole.combine_chunks())


def test_metadata_of_a_schema_is_encoded_alike_in_each_process() -> None:
    code = """
        from calls import encoding
        import pyarrow as pa
        metadata = {f"key {number}": "x" for number in range(20)}
        print(encoding(pa.table({"a": [1]}).replace_schema_metadata(metadata)).hex())
    """
    assert len({run(code, env=HERE) for _ in range(3)}) == 1


def refusal(value: object) -> str:
    with pytest.raises(EncodeError) as raised:
        encoding(value)
    return str(raised.value)


def test_what_has_no_form_is_refused_with_its_place_and_the_ways_out() -> None:
    call = call_of(test_what_has_no_form_is_refused_with_its_place_and_the_ways_out)
    assert call.canonical() == b"\x01\x00\x00\x00"

    def price(x: object, *rest: object, **more: object) -> None: ...

    call = call_of(price)
    for arguments, keywords, place in (
        ([Plain()], {}, "argument x of "),
        ([[0, {"owner": Plain()}]], {}, "argument x[1].owner of "),
        ([1, 2, Plain()], {}, "argument rest[1] of "),
        ([1], {"who": (Plain(),)}, "argument more.who[0] of "),
        ([Point(1, Plain())], {}, "argument x.y of "),
        ([Pair(1, Plain())], {}, "argument x.y of "),
        ([np.array([1, Plain()])], {}, "argument x[2][1] of "),
    ):
        with pytest.raises(EncodeError) as raised:
            call(*arguments, **keywords)
        text = str(raised.value)
        name = place.split()[1].partition(".")[0].partition("[")[0]
        assert place + "test_call_keys.test_what_has_no_form" in text
        assert f'or a function key= that makes the key, or ignore=("{name}",)' in text
        assert text.endswith("found an instance of key_values.Plain")
        assert "0x" not in text


def test_values_with_state_that_the_encoding_would_leave_out_are_refused() -> None:
    noted = Noted({1: 2})
    noted.note = "kept where nobody looks"
    assert "with note" in refusal(noted)
    assert "with half" in refusal(Halves())

    class Later(Pair):
        pass

    later = Later(1, 2)
    later.more = 1
    assert "a namedtuple with its fields alone" in refusal(later)
    assert "class" in refusal(Later(1, 2))
    for value in (
        object(), lambda: None, len, sys, iter([]), Plain(), threading.Lock(), np.ma.array([1]), pd.Timestamp(0),
        datetime.datetime(2024, 1, 1, tzinfo=type("Zone", (datetime.tzinfo,), {})()), np.random.default_rng(),
        collections.ChainMap(), type("Ordered", (collections.OrderedDict,), {})(),
    ):  # fmt: skip
        assert refusal(value)


def test_classes_of_one_name_cannot_be_mistaken_for_each_other() -> None:
    def made(scale: int) -> type:
        @dataclasses.dataclass(frozen=True)
        class Local:
            x: int

            def scaled(self) -> int:
                return self.x * scale

        return Local

    assert "made.<locals>.Local, which others of that name cannot be told from" in refusal(made(1)(1))
    assert refusal(made(2))
    named = framecache.register(made(3), name="test-call-keys-third")
    other = framecache.register(made(4), name="test-call-keys-fourth")
    assert encoding(named(1)) == encoding(named(1)) != encoding(other(1))


def test_values_that_contain_themselves_and_very_deep_ones_are_refused() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    deep: object = ()
    for _ in range(100_000):
        deep = (deep,)
    for value in (cycle, {"a": cycle}, deep):
        assert "expected at most 128 levels" in refusal(value)
    wide: object = list(range(1000))
    for _ in range(100):
        wide = [wide] * 1000
    assert "at most 64 MiB" in refusal(wide)


class Endless:
    def cache_key(self) -> object:
        return Endless()


def test_an_identity_that_leads_to_another_for_ever_is_refused() -> None:
    assert "expected at most 128 levels" in refusal(Endless())


class Failing:
    def cache_key(self) -> object:
        raise LookupError("no identity yet")


def test_what_cache_key_raises_reaches_the_caller() -> None:
    with pytest.raises(LookupError, match="no identity yet"):
        encoding([Failing()])


class Changing:
    """An item whose description changes the container it is in."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def cache_key(self) -> object:
        self.change()
        return 1


@pytest.mark.parametrize("size", [1, 50])
def test_containers_that_change_while_they_are_encoded_are_refused(size: int) -> None:
    for container in ([], {}, set()):
        for change in (container.clear, lambda: add("new")):

            def add(item: object, container: Any = container) -> None:
                for number in range(50):
                    if isinstance(container, list):
                        container.append(item)
                    elif isinstance(container, set):
                        container.add((item, number))
                    else:
                        container[item, number] = object()

            container.clear()
            item = Changing(change)
            for number in range(size):
                if isinstance(container, dict):
                    container[number] = item if number == 0 else [number]
                elif isinstance(container, set):
                    container.add(item)
                else:
                    container.append(item if number == 0 else [number])
            with pytest.raises((EncodeError, RuntimeError), match="chang"):
                encoding(container)


def test_a_key_that_is_gone_while_its_value_is_described_is_held() -> None:
    holder: dict[object, object] = {}
    holder[("key",) * 3] = Changing(lambda: holder.clear() or [bytes(100) for _ in range(100)])
    with pytest.raises(EncodeError, match="a dict that stays as it is"):
        encoding(holder)


def test_bytearrays_can_be_resized_by_other_threads_only_before_or_after() -> None:
    data = bytearray(40_000_000)
    stop = threading.Event()
    resized = []

    def resize() -> None:
        while not stop.is_set():
            try:
                data.append(0)
                data.pop()
                resized.append(True)
            except BufferError:
                resized.append(False)

    thread = threading.Thread(target=resize)
    thread.start()
    try:
        for _ in range(5):
            assert encoding(data)
    finally:
        stop.set()
        thread.join()


def test_threads_encode_side_by_side() -> None:
    values = [(number, "x" * number, {number: [number]}, Point(number)) for number in range(200)]
    expected = [encoding(value) for value in values]
    results: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: results.append([encoding(value) for value in values])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


def test_names_in_the_main_module_are_those_of_its_script(tmp_path: pathlib.Path) -> None:
    code = """
        import dataclasses
        from calls import encoding
        @dataclasses.dataclass
        class Point:
            x: int
        print(encoding(Point(1)).hex())
    """
    found = []
    for name in ("one.py", "other.py"):
        script = tmp_path / name
        script.write_text(textwrap.dedent(code))
        output = subprocess.run(
            [sys.executable, script], env={**os.environ, **HERE}, capture_output=True, text=True, check=True, timeout=60
        )
        found.append(bytes.fromhex(output.stdout))
        assert os.fsencode(script.resolve()) in found[-1]
    assert found[0] != found[1]


VECTORS = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parents[2] / "proto-docs/vectors/keys.jsonl").read_text("ascii").splitlines()
]


@pytest.mark.parametrize(
    "vector", [each for each in VECTORS if each["kind"] == "value"], ids=lambda each: each["name"][:40]
)
def test_values_are_encoded_as_the_vectors_say(vector: dict[str, str]) -> None:
    assert encoding(eval(vector["python"], NAMES)).hex() == vector["hex"]


@pytest.mark.parametrize("vector", [each for each in VECTORS if each["kind"] == "key"], ids=lambda each: each["name"])
def test_keys_are_made_as_the_vectors_say(vector: dict[str, str]) -> None:
    function = eval(f"lambda {vector['signature'][1:-1]}: None")
    parameters = [
        (name, int(each.kind), MISSING if each.default is each.empty else each.default, False)
        for name, each in inspect.signature(function).parameters.items()
    ]
    l1 = L1(1 << 20, decode=no_decoder)
    identity = bytes.fromhex(vector["identity"])
    call = Call(l1, 7, identity, vector["label"], parameters, None, describe=_keys.describe)
    keys = eval(f"call.key{vector['arguments']}, call.canonical{vector['arguments']}", {"call": call})
    assert keys == (vector["key"], b"\x07\x00\x00\x00" + bytes.fromhex(vector["hex"]))
