"""proto-docs/msgpack.md: its table of Python types, its vectors, and a reader that was written from the page alone."""

import datetime
import decimal
import fractions
import importlib
import ipaddress
import json
import pathlib
import re
import runpy
import struct
import sys
import uuid
import zoneinfo

import numpy as np
import pytest

import framecache
from framecache import DecodeError, EncodeError, _registry
from framecache.msgpack import Ext, packb, unpackb

DOCS = pathlib.Path(__file__).parents[2] / "proto-docs"
DOCUMENT = (DOCS / "msgpack.md").read_text(encoding="utf-8")
VECTORS = [json.loads(line) for line in (DOCS / "vectors/msgpack.jsonl").read_text(encoding="ascii").splitlines()]
VALID = [vector for vector in VECTORS if "python" in vector]
KINDS = ["python", "plain"]


def section(title):
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows():
    """The table: type, what is said of both kinds, example."""
    lines = [line for line in section("Python types").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == ["type", *KINDS, "example"]
    return cells[1:]


class Names(dict):
    """What examples may name: the modules of the standard library, `np`, `framecache` and the classes of the page."""

    def __missing__(self, name):
        return importlib.import_module(name)


@pytest.fixture(scope="module", autouse=True)
def names():
    """The classes of the page, registered for this module alone."""
    before = dict(_registry.BY_NAME), dict(_registry._BY_CLASS)
    made = {"__name__": "example"}
    [code] = re.findall(r"^```python\n(.+?)^```$", section("Registered classes"), re.DOTALL | re.MULTILINE)
    exec(compile(code, "msgpack.md", "exec", dont_inherit=True), made)
    yield Names(made, np=np)
    for registered, kept in zip((_registry.BY_NAME, _registry._BY_CLASS), before, strict=True):
        registered.clear()
        registered.update(kept)


def evaluated(expression, names):
    if "StringDType" in expression and not hasattr(getattr(np, "dtypes", None), "StringDType"):
        pytest.skip("NumPy 2 has it")
    # Comprehensions and lambdas see globals alone, which do not ask `__missing__`.
    words = set(re.findall(r"[A-Za-z_]\w*", expression))
    return eval(
        expression,
        {"__name__": "example"} | {word: names[word] for word in words & (set(names) | sys.stdlib_module_names)},
    )


def same(left, right):
    """Equal in type and value: order, zeros, NaNs, zones and folds too."""
    while type(left) is type(right) is list and len(left) == len(right) == 1:  # they may be deep
        [left], [right] = left, right
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, complex):
        return same([left.real, left.imag], [right.real, right.imag])
    if type(left) in (list, tuple) or hasattr(left, "_fields"):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, set | frozenset):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, np.ndarray):
        if (left.dtype, left.shape, left.tobytes()) != (right.dtype, right.shape, right.tobytes()):
            return False
        orders = [(array.flags.c_contiguous, array.flags.f_contiguous) for array in (left, right)]
        return orders[0] == orders[1] or (False, False) in orders
    if isinstance(left, np.generic):
        return (left.dtype, left.tobytes()) == (right.dtype, right.tobytes())
    if isinstance(left, datetime.datetime | datetime.time):
        return repr(left) == repr(right) and same(left.tzinfo, right.tzinfo)
    if isinstance(left, decimal.Decimal):
        return left.as_tuple() == right.as_tuple()
    if isinstance(left, uuid.UUID):
        return left == right and left.is_safe is right.is_safe
    return left == right


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_the_table_says_what_comes_back(row, kind, names, monkeypatch):
    said, _, note = row[1 + KINDS.index(kind)].partition("; ")
    value = evaluated(row[3].strip("`"), names)
    if said == "`EncodeError`":
        with pytest.raises(EncodeError, match=r"^cannot encode value at \$"):
            packb(value, types=kind)
        if note == "`default=list` converts":
            assert packb(value, types=kind, default=list) == packb(lists(value), types=kind)
        return
    data = packb(value, types=kind)
    if said == "reading: `DecodeError`":
        with pytest.raises(DecodeError):
            unpackb(data, types=kind)
        assert same(unpackb(data, types=kind, ext_hook=Ext), value)
        return
    if said == "registered":
        module, name = type(value).__module__, type(value).__qualname__
        monkeypatch.delitem(_registry.BY_NAME, f"{module}:{name}", raising=False)
        with pytest.raises(DecodeError, match=r"framecache\.register"):
            unpackb(data, types=kind)
        monkeypatch.undo()
        if module != "example":
            framecache.register(type(value))
    else:
        assert said in ("kept", "view")
    assert same(unpackb(data, types=kind), value)
    assert same(unpackb(bytearray(data), types=kind), value)
    if said == "view":
        view = unpackb(framecache.Frame(data), types=kind, views=True)
        assert (type(view) is memoryview) == (note == "as `memoryview`")
        assert view.readonly if isinstance(view, memoryview) else not view.flags.writeable
        assert bytes(view) == bytes(value)


def lists(value):
    return [lists(item) for item in value] if isinstance(value, tuple | set | frozenset) else value


def test_the_notes_of_the_table():
    shared = [1]
    first, second = unpackb(packb([shared, shared]))
    assert first == second == shared
    assert first is not second
    point = framecache._registry.BY_NAME["example:Point"][2](1, 2)
    point.extra = 3
    found = unpackb(packb(point))
    assert vars(found) == {"x": 1, "y": 2}
    still = np.arange(4)
    still.flags.writeable = False
    assert unpackb(packb(still)).flags.writeable
    with pytest.raises(EncodeError, match=r"\$\.users\[3\]\.joined: expected .*, found tuple"):
        packb({"users": [0, 1, 2, {"joined": ()}]}, types="plain")


def parameters(vectors):
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


@parameters(VALID)
def test_a_vector_is_read_and_written(vector, names):
    data, value = bytes.fromhex(vector["hex"]), evaluated(vector["python"], names)
    for kind in KINDS if vector["plain"] else ["python"]:
        assert same(unpackb(data, types=kind), value)
        assert same(unpackb(framecache.Frame(data), types=kind, views=True), value)
        if "writer" not in vector:
            assert packb(value, types=kind).hex() == vector["hex"]
    if not vector["plain"]:
        if "writer" not in vector:
            with pytest.raises(EncodeError):
                packb(value, types="plain")
        with pytest.raises(DecodeError):
            unpackb(data, types="plain")


@parameters([vector for vector in VECTORS if "error" in vector])
@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_vector_is_refused(vector, kind):
    with pytest.raises(DecodeError, match=r"^cannot decode msgpack payload: offset \d+"):
        unpackb(bytes.fromhex(vector["hex"]), types=kind)


def test_the_vectors_cover_every_form_and_every_code(names):
    for vector in VECTORS:
        assert set(vector) - {"writer"} in ({"name", "python", "hex", "plain"}, {"name", "hex", "error"})
    first = {int(vector["hex"][:2], 16) for vector in VALID}
    assert set(range(0xC0, 0xE0)) - {0xC1} <= first
    assert {0x00, 0x7F, 0x80, 0x90, 0x9F, 0xA0, 0xBF, 0xE0, 0xFF} <= first
    codes = {int(code) for code in re.findall(r"^\| (\d+) \| \S.* \| .+ \|$", section("Extension types"), re.MULTILINE)}
    documented = {code for code in codes if f"\n| {code} | | reserved |" not in DOCUMENT}
    assert documented == set(range(1, 25))
    heads = {0xD4: 1, 0xD5: 1, 0xD6: 1, 0xD7: 1, 0xD8: 1, 0xC7: 2, 0xC8: 3, 0xC9: 5}
    seen = {bytes.fromhex(v["hex"])[heads[int(v["hex"][:2], 16)]] for v in VALID if int(v["hex"][:2], 16) in heads}
    assert documented <= seen


def test_the_file_is_what_the_script_makes(tmp_path):
    pytest.importorskip("blake3")
    for file in ("make.py", "cachekit-entries.jsonl"):
        (tmp_path / file).write_bytes((DOCS / "vectors" / file).read_bytes())
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    assert (tmp_path / "msgpack.jsonl").read_bytes() == (DOCS / "vectors/msgpack.jsonl").read_bytes(), "run make.py"


def test_the_examples_of_the_page_are_read(names):
    modules = (datetime, decimal, fractions, ipaddress, pathlib, uuid)
    made = {name: value for module in modules for name, value in vars(module).items() if name[0].isupper()}
    made |= {name: getattr(datetime, name) for name in ("date", "time", "datetime", "timedelta")}
    found = 0
    for digits, expression in re.findall(r"^((?:[0-9a-f]{2} +)+) +(?![0-9a-f]{2} |\.)(\S.*)$", DOCUMENT, re.MULTILINE):
        value = unpackb(bytes.fromhex(digits))
        if "…" not in expression and ":" not in expression:
            assert same(value, evaluated(expression, names | made)), expression
            found += 1
    assert found >= 20


class Reader:
    """The extension types 1 to 14, 17 and 18 as the page says; the outer layer is the library `msgpack`."""

    def __init__(self):
        self.library = pytest.importorskip("msgpack")

    def read(self, data):
        unpacker = self.library.Unpacker(
            ext_hook=self.extension, strict_map_key=False, raw=False, max_buffer_size=2**24
        )
        unpacker.feed(data)
        value = unpacker.unpack()
        assert unpacker.tell() == len(data)
        return value

    def extension(self, code, payload):
        return getattr(self, f"code_{code}")(payload)

    def code_1(self, payload):
        return tuple(self.read(payload))

    def code_2(self, payload):
        return set(self.read(payload))

    def code_3(self, payload):
        return frozenset(self.read(payload))

    def code_4(self, payload):
        assert 1 <= len(payload) <= 4096
        return int.from_bytes(payload, "big", signed=True)

    def code_5(self, payload):
        return payload.decode("utf-8", "surrogatepass")

    def code_6(self, payload):
        return bytearray(payload)

    def code_7(self, payload):
        return complex(*struct.unpack(">dd", payload))

    def code_8(self, payload):
        return decimal.Decimal(payload.decode("ascii"))

    def code_9(self, payload):
        numerator, denominator = self.read(payload)
        return fractions.Fraction(numerator, denominator)

    def date(self, payload):
        return struct.unpack(">HBB", payload)

    def time(self, payload):
        hour, minute, second = payload[:3]
        zone = self.zone(payload[6:]) if payload[6:] else None
        micro = int.from_bytes(payload[3:6], "big")
        return (hour & 0x7F, minute, second, micro, zone), hour >> 7

    def zone(self, payload):
        described = self.read(payload)
        if described is None:
            return datetime.timezone.utc
        if isinstance(described, str):
            return zoneinfo.ZoneInfo(described)
        seconds, micros, *name = described
        return datetime.timezone(datetime.timedelta(seconds=seconds, microseconds=micros), *name)

    def code_10(self, payload):
        time, fold = self.time(payload[4:])
        return datetime.datetime(*self.date(payload[:4]), *time, fold=fold)

    def code_11(self, payload):
        return datetime.date(*self.date(payload))

    def code_12(self, payload):
        time, fold = self.time(payload)
        return datetime.time(*time, fold=fold)

    def code_13(self, payload):
        return datetime.timedelta(*struct.unpack(">iii", payload))

    def code_14(self, payload):
        safe = {b"": uuid.SafeUUID.unknown, b"\x00": uuid.SafeUUID.safe, b"\xff": uuid.SafeUUID.unsafe}[payload[16:]]
        return uuid.UUID(bytes=bytes(payload[:16]), is_safe=safe)

    def code_17(self, payload):
        start, stop, step = self.read(payload)
        return range(start, stop, step)

    def code_18(self, payload):
        start, stop, step = self.read(payload)
        return slice(start, stop, step)


#: What the reader above has no form for, and what the library it stands on cannot nest.
BEYOND = re.compile(r"np\.|ipaddress|pathlib|Color|Access|Pair|Point|Money|reduce")


@parameters([vector for vector in VALID if not BEYOND.search(vector["python"])])
def test_a_reader_written_from_the_page_reads_the_same(vector, names):
    assert same(Reader().read(bytes.fromhex(vector["hex"])), evaluated(vector["python"], names))
