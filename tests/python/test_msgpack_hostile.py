"""MessagePack from others, damaged or made to harm: a value or a `DecodeError`, at little cost."""

import array
import contextlib
import random
import struct
import sys
import threading
import tracemalloc
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from enum import Enum, Flag
from fractions import Fraction
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import PurePosixPath, PureWindowsPath
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

import framecache
from framecache import DecodeError, Frame
from framecache.msgpack import packb, unpackb
from support import run


@framecache.register
class Color(Enum):
    RED = "r"
    BLUE = ("b", 1)


@framecache.register
class Access(Flag):
    READ = 1
    WRITE = 2


@framecache.register
class Point(NamedTuple):
    x: int
    y: object


@framecache.register
@dataclass
class Account:
    name: str
    points: list


class Box:
    def __init__(self, value):
        self.value = value


framecache.register(Box, pack=lambda box: [box.value], unpack=lambda packed: Box(packed[0]))

VALUES = {
    "plain": [None, True, 1, -1, 2**40, -(2**40), 1.5, "a", "é" * 20, b"x" * 40, {"a": {"b": [1]}, 5: 6}],
    "tuple": (1, (2, ("a", ()))),
    "sets": [{1, "a", (1, 2)}, frozenset({b"x", 2.5})],
    "int": [2**64, -(2**70), 10**300],
    "surrogates": ["a\ud800", {"\udfff": 1}],
    "bytearray": bytearray(b"abc"),
    "complex": complex(1.5, -0.0),
    "numbers": [Decimal("1.50E+7"), Decimal("NaN12"), Decimal("-Infinity"), Fraction(22, 7), Fraction(-1, 3**50)],
    "moments": [
        datetime(2024, 2, 29, 1, 2, 3, 4, fold=1),
        datetime(2024, 2, 29, tzinfo=timezone.utc),
        datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-5, microseconds=3), "there")),
        datetime(2024, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        date(1, 1, 1),
        time(23, 59, 59, 999999, tzinfo=timezone.utc),
        timedelta(-5, 3, 1),
    ],
    "uuid": UUID(int=2**127 + 5),
    "paths": [PurePosixPath("/a/b"), PureWindowsPath("C:/x")],
    "addresses": [ip_address("10.0.0.1"), ip_network("2001:db8::/32"), ip_interface("10.0.0.1/8")],
    "range": [range(1, 10**30, 7), slice(None, "a", (1,))],
    "application": [Color.RED, Color.BLUE, Access.READ | Access.WRITE, Point(1, "y"), Account("a", [1, 2]), Box(5)],
    "scalars": [np.int16(5), np.float64(1.5), np.datetime64("2020-01-01", "D"), np.str_("a"), np.bytes_(b"b")],
    "arrays": [
        np.arange(6, dtype="<i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([(1, b"a")], dtype=[("n", ">i4"), ("s", "S3")]),
    ],
}
DOCUMENTS = {name: packb(value) for name, value in VALUES.items()}


def ext(code, payload):
    return b"\xc9" + struct.pack(">Ib", len(payload), code) + payload


def refused(document, **arguments):
    with pytest.raises(DecodeError, match=r"offset \d+") as caught:
        unpackb(document, **arguments)
    return caught.value


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_truncation_is_refused(name):
    document = DOCUMENTS[name]
    unpackb(document)
    for end in range(len(document)):
        refused(document[:end])


@pytest.mark.parametrize("name", DOCUMENTS)
@pytest.mark.parametrize("more", [b"\x00", b"\xc0\xc0", b"\xc1", bytes(100)])
def test_trailing_bytes_are_refused(name, more):
    assert "end" in str(refused(DOCUMENTS[name] + more))


@pytest.mark.parametrize("types", ["plain", "python"])
@pytest.mark.parametrize("head", [b"", b"\x91", b"\x81\xa1a", b"\x81", b"\x92\x01"])
def test_the_byte_that_is_never_used_is_refused(types, head):
    error = refused(head + b"\xc1\x00", types=types)
    assert f"offset {len(head)}" in str(error)
    assert "0xc1" in str(error)


def test_an_error_tells_offset_path_expected_and_found():
    error = refused(packb({"users": [1, {"a b": 1}]})[:-1] + b"\xc1")
    assert '$.users[1]["a b"]' in str(error)
    for payload in (b"x", b"1" * 5000):
        assert "$.a[0]" in str(refused(b"\x81\xa1a\x91" + ext(8, payload)))


@pytest.mark.parametrize(
    "inner",
    [
        ext(8, b"1.2.3"),
        ext(9, packb([2, 4])),
        ext(10, bytes(10)),
        ext(15, packb([99, "a"])),
        ext(16, packb([0, "x"])),
        ext(17, packb([1, 2, 0])),
        ext(23, packb([1, 2, 3])),
        ext(22, packb([f"{Box.__module__}:{Box.__qualname__}", 5])),
    ],
)
def test_the_error_of_a_payload_that_python_code_refuses_tells_the_path_too(inner):
    error = refused(b"\x81\xa1a\x91" + inner)
    assert "$.a[0]" in str(error)


#: Damages documents and reads them; what comes of it is a value or a DecodeError.
_DAMAGE = """
def damage(documents, rng, count):
    # What constructors warn of is not what is tested.
    warnings.simplefilter("ignore")
    values = 0
    for number in range(count):
        document = bytearray(rng.choice(documents))
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at, kind = rng.randrange(len(document)), rng.randrange(6)
            if kind < 3:
                document[at] = rng.randrange(256)
            elif kind == 3:
                document[at] ^= 1 << rng.randrange(8)
            elif kind == 4:
                other = rng.choice(documents)
                start = rng.randrange(len(other))
                document[at : at + rng.randrange(9)] = other[start : start + rng.randrange(1, 30)]
            else:
                del document[at : at + rng.randrange(1, 5)]
            if not document:
                document += b"x"
        try:
            unpackb(bytes(document), views=bool(number % 2), ext_hook=Ext if number % 3 else None)
        except DecodeError:
            continue
        except BaseException as error:
            raise AssertionError(f"{bytes(document)!r}: {error!r}") from error
        values += 1
    return values
"""


def damage(documents, rng, count):
    import warnings

    from framecache.msgpack import Ext

    names = {"DecodeError": DecodeError, "unpackb": unpackb, "Ext": Ext, "warnings": warnings}
    exec(_DAMAGE, names)
    with warnings.catch_warnings():
        return names["damage"](documents, rng, count)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_changed_byte_gives_a_value_or_a_decode_error(name):
    document = DOCUMENTS[name]
    rng = random.Random(name)
    for at in range(len(document)):
        for byte in {0x00, 0x7F, 0x80, 0x90, 0xC1, 0xC7, 0xC9, 0xDD, 0xDF, 0xFF, rng.randrange(256)}:
            changed = document[:at] + bytes([byte]) + document[at + 1 :]
            try:
                unpackb(changed)
            except DecodeError:
                pass
            except Exception as error:
                raise AssertionError(f"{changed!r}: {error!r}") from error


def test_spliced_documents_give_a_value_or_a_decode_error():
    values = damage(list(DOCUMENTS.values()), random.Random(3), 5000)
    assert 0 < values < 5000


def test_a_child_survives_many_damaged_documents():
    documents = [document for name, document in DOCUMENTS.items() if name != "application"]
    run(
        "import random, warnings\nfrom framecache import DecodeError\nfrom framecache.msgpack import Ext, unpackb\n"
        + _DAMAGE
        + f"documents = {documents!r}\nassert damage(documents, random.Random(7), 40_000)\n"
    )


def test_random_bytes_give_a_value_or_a_decode_error():
    rng = random.Random(11)
    values = 0
    for _ in range(20_000):
        document = rng.randbytes(rng.randrange(1, 40))
        try:
            unpackb(document)
            values += 1
        except DecodeError:
            pass
    assert values


@pytest.mark.parametrize(
    "head",
    [
        b"\xdc\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdd\x7f\xff\xff\xff",
        b"\xde\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdf\x80\x00\x00\x00",
        b"\xda\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc5\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc8\xff\xff\x01",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xc9\xff\xff\xff\xff\x46",
        ext(1, b"\xdd\xff\xff\xff\xff"),
        ext(2, b"\xdd\xff\xff\xff\xff"),
        ext(3, b"\xdd\xff\xff\xff\xff"),
        ext(17, b"\xdd\xff\xff\xff\xff"),
        ext(20, b"\x92\xa1x\xdd\xff\xff\xff\xff"),
        ext(21, b"\x92\xa1x\xdf\xff\xff\xff\xff"),
        b"\x81\xdb\xff\xff\xff\xff",
        b"\x81\xd9\xff",
    ],
)
@pytest.mark.parametrize("before", [b"", b"\x91", b"\x81\xa1a", b"\x92\x01"])
def test_declared_lengths_are_checked_before_memory_is_taken(before, head):
    document = before + head + b"\x00" * 100
    refused(document)
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before_peak = tracemalloc.get_traced_memory()[0]
        refused(document)
        peak = tracemalloc.get_traced_memory()[1] - before_peak
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024


def test_declared_lengths_take_no_memory_of_the_process():
    run(
        """
        import resource
        from framecache import DecodeError
        from framecache.msgpack import unpackb

        def refused(document):
            try:
                unpackb(document)
            except DecodeError:
                return
            raise AssertionError("accepted")

        refused(b"\\xc1")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (64 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        for head in (b"\\xdd", b"\\xdf", b"\\xdb", b"\\xc6"):
            for length in (b"\\xff\\xff\\xff\\xff", b"\\x7f\\xff\\xff\\xff", b"\\x10\\x00\\x00\\x00"):
                for nested in (1, 2, 500):
                    refused((head + length) * nested + bytes(50))
        # Counts that the bytes left would allow, at each of many levels.
        size = 200_000
        document = b"".join(b"\\xdd" + (size - 5 * level - 5).to_bytes(4, "big") for level in range(1000))
        refused(document + bytes(size - len(document) - 1))
        counts = (size // 2 - 3 * level - 9 for level in range(1000))
        document = b"".join(b"\\xdf" + count.to_bytes(4, "big") + b"\\x00" for count in counts)
        refused(document + bytes(size - len(document)))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert after - before < 32 * 1024, (before, after)
        """
    )


WRONG = {
    1: [b"", b"\x01", b"\x80", b"\xa1a", b"\x92\x01", b"\x91\x01\x02", b"\xdd\x00\x00"],
    2: [b"", b"\x01", b"\x91\x90", b"\x91\x80", b"\x92\x01", b"\x90\x90"],
    3: [b"", b"\x01", b"\x91\x90", b"\x91" + ext(2, b"\x90"), b"\x92\x01"],
    4: [b"", bytes(4097), b"\x01" * 5000],
    5: [b"\xff", b"\xed", b"\xed\xa0", b"\xc0\x80", b"\xf5\x80\x80\x80", b"a\x80"],
    7: [b"", bytes(8), bytes(15), bytes(17)],
    8: [
        b"",
        b" 1",
        b"1_0",
        b"x",
        b"1.2.3",
        b"1" * 5000,
        "\uff11".encode(),
        b"\xff",
        b"sNaNx",
        b"1E+99999999999999999999",
    ],
    9: [
        b"",
        b"\x90",
        b"\x91\x01",
        b"\x92\x01\x00",
        b"\x92\x02\x04",
        b"\x92\x01\xff",
        b"\x92\xa11\x01",
        b"\x92\xc3\x01",
    ],
    10: [b"", bytes(10), bytes(9), b"\x07\xe8\x02\x1e" + bytes(6), b"\x07\xe8\x01\x01\x18" + bytes(5)],
    11: [b"", bytes(4), bytes(3), b"\x07\xe8\x02\x1e", b"\xff\xff\x01\x01", b"\x07\xe8\x01\x01\x00"],
    12: [b"", bytes(5), b"\x18" + bytes(5), bytes(3) + b"\x0f\x42\x40", bytes(6) + b"\xc3", bytes(6) + b"\xc0\xc0"],
    13: [b"", bytes(11), bytes(13), struct.pack(">iii", 0, 86400, 0), struct.pack(">iii", 2**31 - 1, 0, 0)],
    14: [b"", bytes(15), bytes(18), bytes(16) + b"\x01", bytes(16) + b"\x02"],
    15: [b"", b"\x90", b"\x92\x09\xa1a", b"\x92\xff\xa1a", b"\x92\x00\x01", b"\x92\xc3\xa1a", b"\x92\x03\xa1a"],
    16: [b"", b"\x92\x09\xa1a", b"\x92\x00\xa1a", b"\x92\x00\x01", b"\x92\x02\xaa10.0.0.1/8", b"\x93\x00\x00\x00"],
    17: [b"", b"\x93\x01\x02\x00", b"\x92\x01\x02", b"\x93\xa1a\x02\x01", b"\x93\xc0\x02\x01", b"\x94\x01\x02\x03\x04"],
    18: [b"", b"\x92\x01\x02", b"\x94\x01\x02\x03\x04", b"\x80"],
    19: [b"", b"\x90", b"\x92\x01\x02", b"\x92\xa1x\x02", packb(["builtins:int", 1])],
    20: [b"", b"\x90", b"\x92\x01\x90", b"\x92\xa1x\x90", packb(["builtins:tuple", []])],
    21: [b"", b"\x90", b"\x92\x01\x80", b"\x92\xa1x\x80", packb(["builtins:object", {}])],
    22: [b"", b"\x90", b"\x92\x01\x80", b"\x92\xa1x\x80", packb(["os:system", "true"])],
    23: [b"", b"\xc0", b"\x01", b"\x90", b"\x93\x01\x02\x03"],
    24: [b"", b"\xc0", b"\x90", b"\x92\x01\x02", packb(["<i4", b"abc"]), packb(["<i4", b"abcde"]), packb(["U", b"a"])],
}


@pytest.mark.parametrize(("code", "payload"), [(code, payload) for code, wrong in WRONG.items() for payload in wrong])
def test_every_wrong_payload_is_refused(code, payload):
    refused(ext(code, payload))
    refused(b"\x91" + ext(code, payload))
    refused(b"\x81" + ext(code, payload) + b"\x01")


@pytest.mark.parametrize("code", [0, *range(25, 64)])
def test_codes_of_no_type_are_refused_and_never_given_to_a_hook(code):
    called = []
    for document in (ext(code, b""), ext(code, b"\x90"), ext(code, bytes(16))):
        assert str(code) in str(refused(document, ext_hook=lambda *parts: called.append(parts)))
    assert called == []


@pytest.mark.parametrize("code", [-128, -1, 64, 127])
def test_codes_of_others_need_a_hook(code):
    assert f"type {code}" in str(refused(ext(code, b"abc")))
    assert unpackb(ext(code, b"abc"), ext_hook=lambda *parts: parts) == (code, b"abc")


def app_name(cls):
    return f"{cls.__module__}:{cls.__qualname__}"


@pytest.mark.parametrize(
    ("code", "value"),
    [
        (19, [app_name(Color), "GREEN"]),
        (19, [app_name(Color), "r"]),
        (19, [app_name(Color), []]),
        (19, [app_name(Color), "__class__"]),
        (19, [app_name(Access), "READ"]),
        (19, [app_name(Access), 64]),
        (19, [app_name(Point), "x"]),
        (20, [app_name(Point), [1]]),
        (20, [app_name(Point), [1, 2, 3]]),
        (20, [app_name(Point), {"x": 1, "y": 2}]),
        (20, [app_name(Account), ["a", []]]),
        (21, [app_name(Account), {"name": "a"}]),
        (21, [app_name(Account), {"name": "a", "points": [], "more": 1}]),
        (21, [app_name(Account), {"name": "a", "__class__": 1}]),
        (21, [app_name(Account), {"name": "a", "__dict__": {}}]),
        (21, [app_name(Account), {"name": "a", 1: 2}]),
        (21, [app_name(Account), ["a", []]]),
        (21, [app_name(Box), {}]),
        (22, [app_name(Account), {"name": "a", "points": []}]),
        (22, [app_name(Box), 5]),
        (22, [app_name(Box), []]),
        (22, [app_name(Box), None]),
    ],
)
def test_wrong_parts_of_registered_classes_are_refused(code, value):
    refused(ext(code, packb(value)))


def test_a_field_that_comes_twice_is_refused():
    name = packb(app_name(Account))
    refused(ext(21, b"\x92" + name + b"\x82" + packb("name") + b"\x01" + packb("name") + b"\x02"))
    unpackb(ext(21, b"\x92" + name + b"\x82" + packb("name") + b"\x01" + packb("points") + b"\x02"))


def record(**changes):
    return {"names": ["a"], "formats": ["<i4"], "offsets": [0], "itemsize": 4} | changes


@pytest.mark.parametrize(
    "dtype",
    [
        "O",
        "|O",
        "|O8",
        ">O",
        "=O8",
        "object",
        "<i4,O",
        "O,O",
        "i4",
        "int32",
        "",
        "<i3",
        "<f3",
        "|V",
        "|S9999999999",
        "<i4\n",
        "<M8[x\n]",
        "|T16",
        1,
        None,
        True,
        b"<i4",
        [],
        ["<i4"],
        ["<i4", 3],
        ["<i4", [-1]],
        ["<i4", [2**63]],
        ["<i4", [2**40]],
        ["|O", [1]],
        {},
        record(formats=["O"]),
        record(formats=["|O"], itemsize=8),
        record(formats=[["|O", [1]]], itemsize=8),
        record(formats=[record(formats=["|O"], itemsize=8)], itemsize=8),
        record(names=["a", "a"], formats=["<i4", "<i4"], offsets=[0, 4], itemsize=8),
        record(names=["a", "b"]),
        record(names=[1]),
        record(offsets=[-1]),
        record(offsets=[8]),
        record(offsets=[2**62]),
        record(itemsize=2),
        record(itemsize=2**62),
        record(itemsize=-4),
        record(itemsize=4.0),
        record(offsets=[True]),
        record(extra=1),
        {"names": ["a"], "formats": ["<i4"]},
    ],
    ids=repr,
)
def test_arrays_of_objects_or_of_no_dtype_are_refused(dtype):
    for size in (0, 4, 8):
        refused(ext(23, packb([dtype, "C", [1]]) + bytes(size)))
    refused(ext(24, packb([dtype, bytes(8)])))


def test_a_dtype_that_nests_too_deep_is_refused():
    dtype = "<i4"
    for _ in range(500):
        dtype = [dtype, [1]]
    refused(ext(23, packb([dtype, "C", [1]]) + bytes(4)))


@pytest.mark.parametrize(
    "shape",
    [
        [2**32, 2**32],
        [2**62, 4],
        [2**63 - 1],
        [2**63],
        [2**70],
        [-1],
        [-1, -1],
        [True],
        [1.0],
        ["1"],
        [None],
        None,
        4,
        "1",
        {},
        (1,),
        [2, 2],
        [],
        [2],
        [2**62, 0, 2**62],
        [1] * 65,
    ],
    ids=repr,
)
def test_shapes_that_do_not_fit_the_data_are_refused(shape):
    size = 0 if shape == [2**62, 0, 2**62] else 8
    refused(ext(23, packb(["<i8", "C", shape]) + bytes(size if shape not in ([], [1] * 65) else 80)))


@pytest.mark.parametrize("order", ["A", "K", "c", "", None, 1, "CF", b"C"])
def test_other_orders_are_refused(order):
    refused(ext(23, packb(["<i8", order, [1]]) + bytes(8)))


def test_data_of_another_size_or_padding_with_content_is_refused():
    head = packb(["<i8", "C", [2]])
    unpackb(ext(23, head + bytes(16)))
    refused(ext(23, head + bytes(15)))
    refused(ext(23, head + bytes(16 + 64)))
    refused(ext(23, head + b"\x01" + bytes(16)))


@pytest.mark.parametrize(
    "dtype", ["|V0", ["|V0", [3]], {"names": [], "formats": [], "offsets": [], "itemsize": 0}], ids=repr
)
@pytest.mark.parametrize("views", [False, True])
def test_an_array_of_items_without_size_costs_nothing(dtype, views):
    # 2**50 of them, walked one by one, would take days: the child would be ended, not only slow.
    run(
        f"""
        from framecache import DecodeError
        from framecache.msgpack import unpackb
        try:
            array = unpackb({ext(23, packb([dtype, "C", [2**50]]))!r}, views={views})
        except DecodeError:
            pass
        else:
            assert array.nbytes == 0
        """,
    )


def test_a_shape_of_many_dimensions_is_refused_before_they_are_multiplied():
    # The product would have millions of digits, made in 300,000 steps.
    run(
        """
        from framecache import DecodeError
        from framecache.msgpack import packb, unpackb
        payload = b"\\x93" + packb("|u1") + packb("C") + packb([2**62] * 300_000)
        try:
            unpackb(b"\\xc9" + len(payload).to_bytes(4, "big") + b"\\x17" + payload)
        except DecodeError as error:
            assert "digits" not in str(error)
        else:
            raise AssertionError("accepted")
        """
    )


def equal_hashes(count):
    return [number * (2**61 - 1) for number in range(1, count + 1)]


def test_many_keys_with_one_hash_are_refused():
    keys = equal_hashes(300)
    assert len({hash(key) for key in keys}) == 1
    pairs = b"".join(packb(key) + b"\xc0" for key in keys)
    items = b"".join(packb(key) for key in keys)
    for document in (
        b"\xde" + struct.pack(">H", 300) + pairs,
        ext(2, b"\xdc" + struct.pack(">H", 300) + items),
        ext(3, b"\xdc" + struct.pack(">H", 300) + items),
        packb({(key,): 1 for key in keys}),
    ):
        assert "hash" in str(refused(document))
    few = dict.fromkeys(equal_hashes(20), 1)
    assert unpackb(packb(few)) == few


@pytest.mark.parametrize("text", [b"1" * 4097, b"1E+5" + b"0" * 5000, b"0." + b"1" * 5000, b"NaN" + b"1" * 5000])
def test_long_decimals_are_refused(text):
    refused(ext(8, text))
    assert unpackb(ext(8, b"1" * 4096)) == Decimal("1" * 4096)


def test_a_decimal_of_a_huge_exponent_is_read_without_writing_it_out():
    text = "1E+999999999999999999"
    assert str(unpackb(ext(8, text.encode()))) == text
    document = b"\x82" + packb(pow(10, 999999999999, 2**61 - 1)) + b"\x01" + ext(8, b"1E+999999999999") + b"\x02"
    assert len(unpackb(document)) == 2


def test_a_decimal_out_of_range_is_refused_whatever_the_context_says():
    with localcontext() as context:
        for signal in context.traps:
            context.traps[signal] = False
        refused(ext(8, b"1E+9999999999999999999999"))
        refused(ext(8, b"NaNNaN"))


@pytest.mark.parametrize(
    "parts", [[2**32760, 3**30000], [2**40000, 1], [1, 2**40000], [0, 2], [-2, 2], [2, 0], [1.0, 2]]
)
def test_large_and_improper_fractions_are_refused(parts):
    refused(ext(9, packb(parts, limits=10_000)))


@pytest.mark.parametrize(
    "zone",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "Europe/../../../../etc/passwd",
        "Europe",
        "",
        ".",
        "a\0b",
        "Europe/Berlin\n",
        "\ud800",
        "x" * 256,
        "No/Such",
        "zone.tab",
        "leapseconds",
        5,
        True,
        [],
        [1],
        [10**9, 0],
        [10**30, 0],
        [0, 10**30],
        [True, 0],
        [0, 0, 5],
        [0, 0, "a", "b"],
        [86400, 0],
        {},
        b"UTC",
    ],
    ids=repr,
)
def test_names_of_no_zone_are_refused(zone):
    moment = b"\x07\xe8\x01\x01" + bytes(6)
    refused(ext(10, moment + packb(zone)))
    refused(ext(12, moment[4:] + packb(zone)))


@pytest.mark.parametrize("max_depth", [0, -1, 1025, 2**31, 2**40, -(2**40)])
def test_max_depth_has_a_range(max_depth):
    with pytest.raises(ValueError, match="max_depth"):
        unpackb(b"\x01", max_depth=max_depth)


@pytest.mark.parametrize("max_depth", ["1", 1.5, 2**70, b""])
def test_max_depth_is_an_int(max_depth):
    with pytest.raises((TypeError, ValueError, OverflowError)):
        unpackb(b"\x01", max_depth=max_depth)


@pytest.mark.parametrize("max_depth", [1, 2, 31, 32, 33, 1024])
def test_max_depth_counts_levels(max_depth):
    wraps = [lambda inner: b"\x91" + inner, lambda inner: b"\x81\xc0" + inner, lambda inner: ext(1, b"\x91" + inner)]
    for wrap in wraps:
        document = b"\x01"
        for _ in range(max_depth):
            document = wrap(document)
        unpackb(document, max_depth=max_depth)
        assert "levels" in str(refused(wrap(document), max_depth=max_depth))


@pytest.mark.parametrize("wrap", [b"\x91", b"\x81\xc0", b"\x81", b"\xdd\x00\x00\x00\x01", b"\xdc\x00\x01"])
def test_a_million_levels_are_refused(wrap):
    assert "levels" in str(refused(wrap * 1_000_000 + b"\x01"))


_NESTED_EXT = """
def nested_ext(code, levels):
    payload = b"\\x90"
    for _ in range(levels):
        payload = b"\\x91\\xc9" + len(payload).to_bytes(4, "big") + bytes([code]) + payload
    return b"\\xc9" + len(payload).to_bytes(4, "big") + bytes([code]) + payload
"""


def nested_ext(code, levels):
    names = {}
    exec(_NESTED_EXT, names)
    return names["nested_ext"](code, levels)


@pytest.mark.parametrize("code", [1, 3])
@pytest.mark.parametrize("levels", [100, 990, 1020, 1024, 3000])
def test_equal_keys_that_nest_deep_are_a_value_or_a_decode_error(code, levels):
    key = nested_ext(code, levels)
    for document in (b"\x82" + (key + b"\x01") * 2, ext(2, b"\x92" + key * 2), b"\x81" + key + b"\xc1"):
        with contextlib.suppress(DecodeError):
            unpackb(document)


@pytest.mark.parametrize("kibibytes", [256, 512])
def test_deep_documents_in_a_thread_with_a_small_stack_end_no_process(kibibytes):
    run(
        _NESTED_EXT
        + f"""
import sys, threading
from framecache import DecodeError
from framecache.msgpack import unpackb
keys = [nested_ext(code, levels) for code in (1, 3) for levels in (50, 150, 300, 500, 990, 1022)]
documents = [document for key in keys for document in (key, b"\\x82" + (key + b"\\1") * 2, b"\\x81" + key + b"\\xc1")]
documents += [wrap * 5000 for wrap in (b"\\x91", b"\\x81", b"\\x81\\xa1a")]
found = []
def work():
    for document in documents:
        try:
            unpackb(document)
        except BaseException as error:
            found.append(type(error))
threading.stack_size({kibibytes} * 1024)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert set(found) == {{DecodeError}}, set(found)
"""
    )


INPUT = packb({"a": (1, b"x" * 100), "b": [1.5]})


@pytest.mark.parametrize(
    "wrap",
    [
        bytes,
        bytearray,
        memoryview,
        Frame,
        lambda data: array.array("B", data),
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(b"xx" + data)[2:],
        lambda data: np.frombuffer(data, "u1"),
    ],
)
@pytest.mark.parametrize("views", [False, True])
def test_any_contiguous_buffer_is_read(wrap, views):
    source = wrap(INPUT)
    assert unpackb(source, views=views) == {"a": (1, b"x" * 100), "b": [1.5]}
    refused(wrap(INPUT[:-1]), views=views)
    refused(wrap(b""), views=views)


def test_bytes_of_a_subclass_are_read():
    assert unpackb(type("Mine", (bytes,), {})(INPUT)) == unpackb(INPUT)


@pytest.mark.parametrize("wrong", ["text", 5, None, [1], object(), {}])
def test_what_exports_no_buffer_is_a_type_error(wrong):
    with pytest.raises(TypeError):
        unpackb(wrong)


@pytest.mark.parametrize("view", [memoryview(bytes(100))[::2], memoryview(bytes(100))[::-1]])
def test_a_buffer_with_gaps_is_refused(view):
    with pytest.raises((BufferError, TypeError)):
        unpackb(view)


def test_a_released_memoryview_is_refused():
    view = memoryview(INPUT)
    view.release()
    with pytest.raises(ValueError, match="released"):
        unpackb(view)


def test_views_of_what_can_change_are_views_of_a_copy():
    data = bytearray(packb([b"x" * 100_000, np.arange(10_000)]))
    text, numbers = unpackb(data, views=True)
    data[:] = bytes(len(data))
    del data[:]
    assert text == b"x" * 100_000
    assert np.array_equal(numbers, np.arange(10_000))


def test_a_buffer_that_changes_while_it_is_read_ends_no_process():
    run(
        f"""
        import random, sys, threading
        from framecache import DecodeError
        from framecache.msgpack import unpackb
        sys.setswitchinterval(1e-6)
        document = {packb([VALUES["plain"], VALUES["tuple"], VALUES["moments"], list(range(500))] * 3)!r}
        data, stop, rng, changes = bytearray(document), threading.Event(), random.Random(5), [0]
        def change():
            while not stop.is_set():
                for _ in range(50):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                data[:] = document
                changes[0] += 1
        thread = threading.Thread(target=change)
        thread.start()
        values = errors = 0
        while changes[0] < 300 or values + errors < 3000:
            try:
                unpackb(data, views=True)
                values += 1
            except DecodeError:
                errors += 1
        stop.set()
        thread.join()
        assert unpackb(data) == unpackb(document)
        """
    )


def test_a_hook_that_changes_the_input_changes_nothing_that_is_read():
    data = bytearray(b"\x93\xd4\x46x" + packb("after") + packb(["end"]))

    def hook(code, payload):
        data[:] = bytes(len(data))
        return payload

    assert unpackb(data, ext_hook=hook) == [b"x", "after", ["end"]]


def test_errors_show_little_of_long_input():
    key = "k" * 100_000
    for document in (b"\x81" + packb(key) + b"\xc1", b"\x81" + packb((key,)) + b"\xc1", ext(19, packb([key, 1]))):
        assert len(str(refused(document))) < 1000
    assert len(str(refused(b"\x91" * 900 + b"\xc1"))) < 1000
    refused(ext(8, b"x" * 100_000))
    assert len(str(refused(ext(8, b"x" * 100_000)))) < 1000
    assert len(str(refused(ext(15, packb([10**1000, "a"]))))) < 1000
    assert sys.get_int_max_str_digits() > 0


def test_a_set_in_a_thread_is_read_as_in_the_main_one():
    found = []
    thread = threading.Thread(target=lambda: found.append(unpackb(DOCUMENTS["sets"])))
    thread.start()
    thread.join()
    assert found == [VALUES["sets"]]
