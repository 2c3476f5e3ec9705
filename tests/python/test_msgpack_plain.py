"""MessagePack as other libraries read and write it: `types="plain"`."""

import math
import struct
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framecache import DecodeError, EncodeError
from framecache.msgpack import Ext, packb, unpackb

other = pytest.importorskip("msgpack")

UINTS = [0, 1, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
NEGATIVES = [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)]
EDGES = [0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from(UINTS + NEGATIVES)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
    | st.binary(max_size=300)
)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=70) | st.integers(-(2**63), 2**64 - 1) | st.binary()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(keys, inner, max_size=20),
    max_leaves=30,
)


def exact(value):
    """The value with the types of all its parts; floats by their bits."""
    if type(value) is list:
        return list, [exact(item) for item in value]
    if type(value) is dict:
        return dict, [(exact(key), exact(item)) for key, item in value.items()]
    return type(value), struct.pack(">d", value) if type(value) is float else value


@given(values)
def test_the_bytes_are_those_of_the_msgpack_library(value):
    packed = packb(value, types="plain")
    assert packed == other.packb(value, use_bin_type=True)
    assert exact(unpackb(packed, types="plain")) == exact(value)
    assert exact(unpackb(packed)) == exact(value)
    assert exact(other.unpackb(packed, raw=False, strict_map_key=False)) == exact(value)


@given(values)
def test_values_without_rarer_types_are_plain_messagepack(value):
    assert packb(value) == packb(value, types="plain")


@given(values)
def test_ormsgpack_agrees(value):
    ormsgpack = pytest.importorskip("ormsgpack")
    option = ormsgpack.OPT_NON_STR_KEYS
    packed = packb(value, types="plain")
    assert ormsgpack.packb(value, option=option) == packed
    assert exact(ormsgpack.unpackb(packed, option=option)) == exact(value)


@given(values)
def test_msgspec_agrees(value):
    msgspec = pytest.importorskip("msgspec")
    packed = packb(value, types="plain")
    assert msgspec.msgpack.encode(value) == packed
    assert exact(unpackb(msgspec.msgpack.encode(value), types="plain")) == exact(value)


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("kind", [str, bytes, list, dict])
def test_each_length_has_its_shortest_head(kind, size):
    value = {str: "é" * (size // 2) + "x" * (size % 2), bytes: bytes(size), list: [None] * size}.get(kind)
    value = dict.fromkeys(range(size)) if value is None else value
    packed = packb(value, types="plain")
    assert packed == other.packb(value)
    assert exact(unpackb(packed, types="plain")) == exact(value)


@pytest.mark.parametrize("value", UINTS + NEGATIVES)
def test_every_width_of_an_int_is_read(value):
    forms = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    documents = []
    for marker, form in forms.items():
        size = struct.calcsize(form)
        low, high = (0, 256**size - 1) if form[1].isupper() else (-(256**size) // 2, 256**size // 2 - 1)
        if low <= value <= high:
            documents.append(bytes([marker]) + struct.pack(form, value))
    assert documents
    for types in ("plain", "python"):
        found = [unpackb(document, types=types) for document in documents]
        assert found == [value] * len(documents)
        assert {type(item) for item in found} == {int}
        # As keys too, where other code reads them.
        assert [unpackb(b"\x81" + document + b"\xc0", types=types) for document in documents] == [
            {value: None} for _ in documents
        ]


def text_forms(data):
    forms = [b"\xdb" + struct.pack(">I", len(data)) + data]
    if len(data) < 65536:
        forms.append(b"\xda" + struct.pack(">H", len(data)) + data)
    if len(data) < 256:
        forms.append(b"\xd9" + bytes([len(data)]) + data)
    if len(data) < 32:
        forms.append(bytes([0xA0 | len(data)]) + data)
    return forms


@pytest.mark.parametrize("size", EDGES)
@pytest.mark.parametrize("char", ["a", "é", "語", "🔑"])
def test_text_is_read_in_each_of_its_forms_as_value_and_as_key(char, size):
    text = char * (size // len(char.encode()))
    for form in text_forms(text.encode()):
        assert unpackb(form, types="plain") == text
        assert unpackb(b"\x81" + form + b"\x01", types="plain") == {text: 1}


@pytest.mark.parametrize("size", [0, 3, 255, 256, 65535, 65536])
def test_bytes_are_read_in_each_of_their_forms(size):
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    forms = [(0xC6, ">I", 2**32), (0xC5, ">H", 65536), (0xC4, ">B", 256)]
    documents = [bytes([marker]) + struct.pack(form, size) + data for marker, form, end in forms if size < end]
    assert {unpackb(document, types="plain") for document in documents} == {data}


@pytest.mark.parametrize("count", [0, 3, 15, 16, 65535, 65536])
def test_arrays_and_maps_are_read_in_each_of_their_forms(count):
    items, pairs = bytes(i & 0x7F for i in range(count)), b"".join(packb(i) + b"\xc2" for i in range(count))
    for array, mapped, form, end in [
        (b"\x90", b"\x80", None, 16),
        (b"\xdc", b"\xde", ">H", 65536),
        (b"\xdd", b"\xdf", ">I", 2**32),
    ]:
        if count >= end:
            continue
        heads = [
            bytes([head[0] | count]) if form is None else head + struct.pack(form, count) for head in (array, mapped)
        ]
        assert unpackb(heads[0] + items, types="plain") == list(items)
        assert unpackb(heads[1] + pairs, types="plain") == dict.fromkeys(range(count), False)


@given(st.floats(width=32))
def test_floats_of_32_bits_are_read(value):
    document = b"\xca" + struct.pack(">f", value)
    found = unpackb(document, types="plain")
    assert type(found) is float
    assert (math.isnan(found) and math.isnan(value)) or struct.pack(">d", found) == struct.pack(">d", value)
    assert struct.pack(">d", unpackb(document)) == struct.pack(">d", found)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 255, 256, 65535, 65536])
@pytest.mark.parametrize("code", [-128, -1, 64, 127, 0, 1, 24, 63])
def test_extensions_are_written_and_read(code, size):
    data = b"\x93" * size
    packed = packb([Ext(code, data)], types="plain")
    if code >= 0:
        assert packed == other.packb([other.ExtType(code, data)])
    else:
        assert packed[1:2] == other.packb(other.ExtType(100, data))[:1]
    assert unpackb(packed, types="plain", ext_hook=Ext) == [Ext(code, data)]
    found = []
    assert unpackb(packed, types="plain", ext_hook=lambda *parts: found.append(parts)) == [None]
    assert found == [(code, data)]
    assert {type(part) for part in found[0]} == {int, bytes}
    with pytest.raises(DecodeError, match=rf"extension type {code}"):
        unpackb(packed, types="plain")
    if 0 <= code < 64:
        with pytest.raises(EncodeError, match=r"\$\[0\]"):
            packb([Ext(code, data)])
    else:
        assert packb([Ext(code, data)]) == packed
        assert unpackb(packed, ext_hook=Ext) == [Ext(code, data)]


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 16, 200])
def test_extensions_are_read_in_each_of_their_forms(size):
    data = bytes(size)
    forms = [b"\xc7" + bytes([size]), b"\xc8" + struct.pack(">H", size), b"\xc9" + struct.pack(">I", size)]
    if size in (1, 2, 4, 8, 16):
        forms.append(bytes([0xD4 + size.bit_length() - 1]))
    for form in forms:
        assert unpackb(form + b"\x46" + data, types="plain", ext_hook=Ext) == Ext(0x46, data)
        assert unpackb(b"\x81" + form + b"\x46" + data + b"\x01", ext_hook=Ext) == {Ext(0x46, data): 1}


@pytest.mark.parametrize(
    "ext", [Ext(128, b""), Ext(-129, b""), Ext("1", b""), Ext(1.5, b""), Ext(70, "text"), Ext(70, bytearray(b"x"))]
)
@pytest.mark.parametrize("types", ["plain", "python"])
def test_an_impossible_extension_is_refused_with_its_place(ext, types):
    with pytest.raises(EncodeError, match=r"\$\.a\[1\]"):
        packb({"a": [None, ext]}, types=types)


def timestamp(code, data):
    if code != -1:
        raise ValueError(f"code {code}")
    return other.Timestamp.from_bytes(data).to_datetime()


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=timezone.utc),
        datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=timezone.utc),
        datetime(2600, 1, 1, 0, 0, 0, 5, tzinfo=timezone.utc),
        datetime(1900, 1, 1, tzinfo=timezone.utc),
    ],
)
def test_timestamps_are_read_by_a_hook_and_written_by_default(moment):
    packed = other.packb([moment], datetime=True)
    assert unpackb(packed, types="plain", ext_hook=timestamp) == [moment]
    assert unpackb(packed, ext_hook=timestamp) == [moment]
    default = lambda value: Ext(-1, other.Timestamp.from_datetime(value).to_bytes())  # noqa: E731
    assert packb([moment], types="plain", default=default) == packed


@pytest.mark.parametrize("error", [ValueError("bad"), KeyError("bad"), TypeError("bad"), OverflowError("bad")])
def test_what_a_hook_raises_is_the_cause_of_a_decode_error(error):
    def hook(code, data):
        raise error

    with pytest.raises(DecodeError, match="bad") as caught:
        unpackb(b"\x91\xd4\x46x", types="plain", ext_hook=hook)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_not_about_the_payload_passes_through_a_hook(error):
    def hook(code, data):
        raise error

    with pytest.raises(error):
        unpackb(b"\x91\xd4\x46x", types="plain", ext_hook=hook)


class Color(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


REFUSED = [
    (1, 2),
    set(),
    frozenset(),
    bytearray(b"x"),
    memoryview(b"x"),
    1j,
    2**64,
    -(2**63) - 1,
    10**400,
    "\ud800",
    "a\udfffb",
    Decimal(1),
    datetime(2020, 1, 1),
    timedelta(1),
    UUID(int=1),
    PurePosixPath("a"),
    Color.RED,
    Level.LOW,
    range(1),
    slice(1),
    np.int64(1),
    np.float64(1),
    np.zeros(1),
    type("Text", (str,), {})("a"),
    type("Data", (bytes,), {})(b"a"),
    type("Int", (int,), {})(1),
    type("Float", (float,), {})(1),
    type("List", (list,), {})(),
    type("Dict", (dict,), {})(),
    object(),
    int,
    len,
    ...,
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: f"{type(value).__name__}-{str(value)[:9]!r}")
def test_plain_refuses_every_other_type_with_its_path(value):
    with pytest.raises(EncodeError, match=r"\$\.users\[3\]\.joined") as caught:
        packb({"users": [1, 2, 3, {"name": "x", "joined": value}]}, types="plain")
    assert isinstance(caught.value, TypeError)
    with pytest.raises(TypeError, match=r"\$: "):
        packb(value, types="plain")


@pytest.mark.parametrize("key", [(1,), frozenset(), 2**64, "\ud800", 1j, Color.RED])
def test_plain_refuses_keys_of_other_types_with_their_path(key):
    with pytest.raises(EncodeError, match=r"\$\.outer"):
        packb({"outer": {key: 1}}, types="plain")


@pytest.mark.parametrize(
    ("key", "shown"), [("a b", r'\["a b"\]'), ("", r'\[""\]'), (5, r"\[5\]"), (b"x", r"\[b'x'\]"), (None, r"\[None\]")]
)
def test_a_path_shows_keys_of_any_form(key, shown):
    with pytest.raises(EncodeError, match=r"\$" + shown + r"\[0\]"):
        packb({key: [1j]}, types="plain")


def test_default_is_asked_for_what_plain_refuses():
    asked = []

    def default(value):
        asked.append(value)
        return list(value)

    value = {"a": (1, (2, frozenset([3])))}
    assert packb(value, types="plain", default=default) == other.packb({"a": [1, [2, [3]]]})
    assert asked == [(1, (2, frozenset([3]))), (2, frozenset([3])), frozenset([3])]


def test_plain_reads_no_type_of_this_codec():
    packed = packb((1, 2))
    assert unpackb(packed, types="plain", ext_hook=Ext) == Ext(1, b"\x92\x01\x02")
    with pytest.raises(DecodeError, match="extension type 1"):
        unpackb(packed, types="plain")


@pytest.mark.parametrize("types", ["", "Plain", "all", "json"])
def test_other_names_of_types_are_refused(types):
    with pytest.raises(ValueError, match="types"):
        packb(1, types=types)
    with pytest.raises(ValueError, match="types"):
        unpackb(b"\x01", types=types)


def test_extensions_compare_by_code_and_data():
    assert Ext(1, b"a") == Ext(1, b"a")
    assert hash(Ext(1, b"a")) == hash(Ext(1, b"a"))
    assert Ext(1, b"a") != Ext(2, b"a")
    assert Ext(1, b"a") != Ext(1, b"b")
    assert Ext(1, b"a") != (1, b"a")
    assert repr(Ext(1, b"a")) == "Ext(1, b'a')"
