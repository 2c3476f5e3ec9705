"""Write ``keys.jsonl``: encodings of values, and keys.

Run it in any directory: ``python proto-docs/vectors/make_keys.py``. Equal input gives an equal file, byte for byte. It
encodes from ``../keys.md`` alone, with nothing of framecache, so that the vectors can contradict the code. It needs
``blake3``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

HERE = Path(__file__).parent
LONGEST = 1024


class Described(NamedTuple):
    """What is written for a value of another type."""

    label: str
    state: object


def main() -> None:
    """Write the file."""
    lines = [*values(), *keys()]
    if len({line["name"] for line in lines}) != len(lines):
        raise SystemExit("two vectors of one name")
    text = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in lines)
    (HERE / "keys.jsonl").write_text(text, encoding="ascii")


def encode(value: Any) -> bytes:
    """Return the encoding of a value."""
    if isinstance(value, Described):
        return b"\x0c" + encode(value.label) + encode(value.state)
    match value:
        case None:
            return b"\x00"
        case bool():
            return b"\x02" if value else b"\x01"
        case int() if -(2**63) <= value < 2**63:
            return b"\x03" + struct.pack("<q", value)
        case int():
            return content(0x10, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        case float():
            return b"\x04" + floats(value)
        case complex():
            return b"\x05" + floats(value.real) + floats(value.imag)
        case tuple() | list():
            items = b"".join(map(encode, value))
            return (b"\x06" if isinstance(value, tuple) else b"\x07") + struct.pack("<Q", len(value)) + items
        case dict():
            entries = sorted(encode(key) + encode(item) for key, item in value.items())
            return b"\x08" + struct.pack("<Q", len(value)) + b"".join(entries)
        case set() | frozenset():
            tag = b"\x09" if isinstance(value, set) else b"\x0a"
            return tag + struct.pack("<Q", len(value)) + b"".join(sorted(map(encode, value)))
        case memoryview():
            return b"\x0b" + encode(value.format) + encode(tuple(value.shape)) + content(0x18, value.tobytes())
        case str():
            return content(0x12, value.encode("utf-8", "surrogatepass"))
        case bytes():
            return content(0x14, value)
        case bytearray():
            return content(0x16, bytes(value))
    raise TypeError(f"no form for {value!r}")


def floats(value: float) -> bytes:
    """Return the eight bytes of a float."""
    return bytes.fromhex("000000000000f87f") if math.isnan(value) else struct.pack("<d", value)


def content(tag: int, data: bytes) -> bytes:
    """Return a tag and its content, hashed if that is long."""
    if len(data) <= LONGEST:
        return bytes([tag]) + struct.pack("<H", len(data)) + data
    return bytes([tag + 1]) + struct.pack("<Q", len(data)) + blake3(data).digest()


#: Expressions, of values of the types with tags of their own.
BUILT_IN = """
None False True 0 1 -1 2**63-1 -2**63 2**63 2**64-1 -2**63-1 2**71 -2**71 2**8191 -2**8192
0.0 -0.0 1.0 1e308 float('inf') float('nan') 1j complex(-0.0,1)
'' 'a' 'Zürich' '🦀' '\\ud83e\\udd80' 'a'*1024 'a'*1025 'é'*512 'é'*513 '🦀'*300000
b'' b'a' b'\\x00'*1024 b'\\x00'*1025 b'\\x01'*3000000 bytearray(b'a') bytearray(1025)
memoryview(b'ab') memoryview(b'abcd').cast('H') memoryview(b'abcd').cast('B',(2,2)) memoryview(b'abcd')[::-2]
memoryview(bytes(4100))[::2]
() (1,) (1,(2,)) ((1,2),) [] [1] [[]] {} {1:2} {2:1,1:2} {'b':1,'a':[{}]} {1:0,True:0} {True:0,'1':0,1.5:0,None:0}
set() {1} {'b','a',1,(2,)} frozenset() frozenset({1,frozenset({2})})
""".split()  # noqa: SIM905

#: Name, expression, and what is written for its value.
OTHERS = [
    ("range", "range(1, 5, 2)", Described("range", (1, 5, 2))),
    ("slice", "slice(None, 3)", Described("slice", (None, 3, None))),
    ("ordered", "collections.OrderedDict(b=1, a=2)", Described("collections.OrderedDict", [("b", 1), ("a", 2)])),
    ("deque", "collections.deque([1], 3)", Described("collections.deque", (3, [1]))),
    (
        "defaultdict",
        "collections.defaultdict(int, a=1)",
        Described("collections.defaultdict", (Described("type", "builtins:int"), {"a": 1})),
    ),
    ("date", "datetime.date(2024, 2, 29)", Described("datetime.date", (2024, 2, 29))),
    ("time", "datetime.time(1, 2, 3, 4, fold=1)", Described("datetime.time", (1, 2, 3, 4, 1))),
    (
        "datetime-utc",
        "datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc)",
        Described("datetime.datetime", (2024, 2, 29, 0, 0, 0, 0, 0, None)),
    ),
    (
        "datetime-zone",
        "datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo('Europe/Zurich'))",
        Described("datetime.datetime", (2024, 10, 27, 2, 30, 0, 0, 1, "Europe/Zurich")),
    ),
    (
        "timezone",
        "datetime.timezone(datetime.timedelta(hours=-5, microseconds=1), 'X')",
        Described("datetime.timezone", [-18000, 1, "X"]),
    ),
    ("timedelta", "datetime.timedelta(-1, 2, 3)", Described("datetime.timedelta", (-1, 2, 3))),
    ("decimal", "decimal.Decimal('-1.50')", Described("decimal.Decimal", (1, b"\x01\x05\x00", -2))),
    ("decimal-nan", "decimal.Decimal('NaN')", Described("decimal.Decimal", (0, b"", "n"))),
    ("fraction", "fractions.Fraction(2, 6)", Described("fractions.Fraction", (1, 3))),
    ("ip", "ipaddress.ip_address('::1')", Described("ipaddress.IPv6Address", "::1")),
    ("path", "pathlib.PurePosixPath('/a//b/')", Described("pathlib.PurePosixPath", "/a/b")),
    ("pattern", "re.compile(b'a', re.I)", Described("re.Pattern", (b"a", 2))),
    ("uuid", "uuid.UUID(int=1)", Described("uuid.UUID", bytes(15) + b"\x01")),
    ("class", "uuid.UUID", Described("type", "uuid:UUID")),
    ("enum", "uuid.SafeUUID.safe", Described("enum uuid:SafeUUID", "safe")),
    ("flag", "re.I | re.M", Described("enum re:RegexFlag", 10)),
    ("counter", "collections.Counter('aab')", Described("subclass collections:Counter", {"a": 2, "b": 1})),
    (
        "namedtuple",
        "urllib.parse.DefragResult('a', 'b')",
        Described("namedtuple urllib.parse:DefragResult", {"url": "a", "fragment": "b"}),
    ),
    (
        "array",
        "np.arange(6, dtype='<i2').reshape(2, 3).T",
        Described("numpy.ndarray", ("<i2", (3, 2), memoryview(struct.pack("<6h", 0, 3, 1, 4, 2, 5)))),
    ),
    ("array-empty", "np.zeros((0, 2))", Described("numpy.ndarray", ("<f8", (0, 2), b""))),
    ("array-objects", "np.array([1, 'a'], dtype=object)", Described("numpy.ndarray", ("O", (2,), [1, "a"]))),
    (
        "array-times",
        "np.array(['1970-01-02'], 'M8[D]')",
        Described("numpy.ndarray", ("<M8[D]", (1,), memoryview(struct.pack("<q", 1)))),
    ),
    ("scalar", "np.float32(1.5)", Described("numpy.generic", ("<f4", struct.pack("<f", 1.5)))),
]


def values() -> Iterator[dict[str, Any]]:
    """Vectors of values."""
    for expression in BUILT_IN:
        # The expressions above and nothing else.
        yield {"name": expression, "kind": "value", "python": expression, "hex": encode(eval(expression)).hex()}  # noqa: S307
    for name, expression, described in OTHERS:
        yield {"name": name, "kind": "value", "python": expression, "hex": encode(described).hex()}


def keys() -> Iterator[dict[str, Any]]:
    """Vectors of keys: calls of functions with the signature that is given."""
    calls = [
        ("no-arguments", "()", "()", b""),
        ("positional", "(a, b)", "(1, 'x')", encode(1) + encode("x")),
        ("keywords-and-defaults", "(a, b='x', *, c=None)", "(c=2.5, a=1)", encode(1) + encode("x") + encode(2.5)),
        ("variadic", "(a, *rest, k=0, **more)", "(1, 2, 3, z=4, b=5)",
         encode(1) + encode((2, 3)) + encode(0) + encode({"z": 4, "b": 5})),
    ]  # fmt: skip
    for name, signature, arguments, encoding in calls:
        for identity in (b"", b"identity", bytes(range(200))):
            digest = blake3(encoding, key=blake3(identity).digest()).hexdigest()
            yield {
                "name": f"{name}-{len(identity)}",
                "kind": "key",
                "label": "shop.price",
                "identity": identity.hex(),
                "signature": signature,
                "arguments": arguments,
                "hex": encoding.hex(),
                "key": f"shop.price#{digest}",
            }


if __name__ == "__main__":
    main()
