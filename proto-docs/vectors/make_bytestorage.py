"""Write ``bytestorage.jsonl``; ``README.md`` says what its fields mean.

Run it in any directory: ``python proto-docs/vectors/make_bytestorage.py``. Equal input gives equal files, byte for
byte. It builds every envelope from the specification alone, the LZ4 blocks too, with nothing of framecache, so that
the vectors can contradict the code. The one package it needs beyond the standard library is ``xxhash``.
``cachekit-entries.jsonl`` holds entries that cachekit wrote; it is read, never made.
"""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import xxhash

HERE = Path(__file__).parent
NAMES = ("compressed_data", "checksum", "original_size", "format")
MIB = 1024 * 1024


def main() -> None:
    """Write the file."""
    vectors = [*written(), *blocks(), *older(), *real(), *malformed()]
    if len({vector["name"] for vector in vectors}) != len(vectors):
        raise SystemExit("two vectors of one name")
    text = "".join(json.dumps(vector) + "\n" for vector in vectors)
    (HERE / "bytestorage.jsonl").write_text(text, encoding="ascii")


def headed(length: int, markers: tuple[int, int, int]) -> bytes:
    """Return the marker for the shortest width that holds `length`, and the length."""
    width = 0 if length < 0x100 else 1 if length < 0x10000 else 2
    return bytes([markers[width]]) + length.to_bytes(1 << width, "big")


def binary(data: bytes) -> bytes:
    """Return a MessagePack binary."""
    return headed(len(data), (0xC4, 0xC5, 0xC6)) + data


def text(value: str) -> bytes:
    """Return a MessagePack string."""
    data = value.encode()
    return (bytes([0xA0 | len(data)]) if len(data) < 32 else headed(len(data), (0xD9, 0xDA, 0xDB))) + data


def uint(number: int) -> bytes:
    """Return an unsigned MessagePack integer of the shortest form."""
    return bytes([number]) if number < 0x80 else headed(number, (0xCC, 0xCD, 0xCE))


def integers(data: bytes) -> bytes:
    """Return a MessagePack array of the bytes as integers."""
    head = bytes([0x90 | len(data)]) if len(data) < 16 else b"\xdc" + len(data).to_bytes(2, "big")
    return head + b"".join(map(uint, data))


def checksum(data: bytes) -> bytes:
    """Return XXH3-64 with seed 0, big-endian."""
    return xxhash.xxh3_64_digest(data)


def sequence(literals: bytes, offset: int = 0, length: int = 0) -> bytes:
    """Return one LZ4 sequence: literals, and `length` bytes from `offset` bytes back; without those, the last one."""
    most = max(length - 4, 0)
    token = bytes([min(len(literals), 15) << 4 | min(most, 15)])
    match = offset.to_bytes(2, "little") + extended(most) if length else b""
    return token + extended(len(literals)) + literals + match


def extended(length: int) -> bytes:
    """Return what of a length of an LZ4 sequence its token does not hold."""
    if length < 15:
        return b""
    return b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def parts_of(data: bytes, block: bytes | None = None, kind: str = "msgpack") -> dict[str, bytes]:
    """Return the fields of an envelope as they are written now."""
    values = (binary(sequence(data) if block is None else block), integers(checksum(data)), uint(len(data)), text(kind))
    return dict(zip(NAMES, values, strict=True))


def envelope(parts: dict[str, bytes]) -> bytes:
    """Return an envelope of four fields."""
    return b"\x94" + b"".join(parts[name] for name in NAMES)


def valid(name: str, data: bytes, made: bytes, kind: str = "msgpack", **more: Any) -> dict[str, Any]:
    """Return a valid vector."""
    return {"name": name, "kind": "valid", "hex": made.hex(), "data_hex": data.hex(), "format": kind, **more}


def written() -> list[dict[str, Any]]:
    """Return envelopes of so few bytes that LZ4 has one way to write them: fewer than 13, all of them literals."""
    cases = [
        ("empty", b"", "msgpack"),
        ("one-byte", b"x", "msgpack"),
        ("small-map", b"\x81\xa1a\x01", "msgpack"),
        ("high-bytes", b"\x80\xff\x00\x7f", "dataframe"),
        ("twelve-bytes", b"aaaaaaaaaaaa", "series"),
        ("empty-format", b"x", ""),
        ("format-of-31", b"x", "f" * 31),
        ("format-of-32", b"x", "f" * 32),
        ("format-of-300", b"x", "f" * 300),
        ("unicode-format", b"x", "žluťoučký 🦀"),
    ]
    return [
        valid(f"written-{name}", data, envelope(parts_of(data, kind=kind)), kind, writer="cachekit")
        for name, data, kind in cases
    ]


def blocks() -> list[dict[str, Any]]:
    """Return envelopes of LZ4 blocks of many shapes."""
    every, tail = bytes(range(256)), b"12345"
    cases = [
        ("long-literals", every, sequence(every)),
        ("literals-of-15", b"0123456789abcde", sequence(b"0123456789abcde")),
        ("literals-of-270", every + every[:14], sequence(every + every[:14])),
        ("a-run", b"a" * 100 + tail, sequence(b"a", 1, 99) + sequence(tail)),
        ("a-run-of-19", b"a" * 20 + tail, sequence(b"a", 1, 19) + sequence(tail)),
        ("a-long-run", b"a" * 5000 + tail, sequence(b"a", 1, 4999) + sequence(tail)),
        ("an-overlap", b"abc" * 20 + tail, sequence(b"abc", 3, 57) + sequence(tail)),
        ("two-matches", b"abcdefgh" * 3 + tail, sequence(b"abcdefgh", 8, 8) + sequence(b"", 16, 8) + sequence(tail)),
        ("far-back", every * 2 + tail, sequence(every, 256, 256) + sequence(tail)),
        ("255-times", b"\0" * 253_824 + tail, sequence(b"\0", 1, 253_823) + sequence(tail)),
        ("no-last-literals", b"a" * 100, sequence(b"a", 1, 99) + sequence(b"")),
    ]
    made = [valid(f"block-{name}", data, envelope(parts_of(data, block))) for name, data, block in cases]
    # The longest one would double the size of the file.
    return [
        {**line, "data_hex": {"repeat": ["00", 253_824], "then": tail.hex()}}
        if line["name"] == "block-255-times"
        else line
        for line in made
    ]


def older() -> list[dict[str, Any]]:
    """Return envelopes in other forms than the one that is written now."""
    data = b"\x00\x7f\x80\xff89abcd"
    parts, block = parts_of(data), sequence(data)
    cases = [
        ("integers", envelope({**parts, "compressed_data": integers(block)})),
        ("binary-checksum", envelope({**parts, "checksum": binary(checksum(data))})),
        ("bytes-after-it", envelope(parts) + b"\x00more"),
        ("bin16", envelope({**parts, "compressed_data": b"\xc5\x00\x0b" + block})),
        ("bin32", envelope({**parts, "compressed_data": b"\xc6\x00\x00\x00\x0b" + block})),
        ("wide-size", envelope({**parts, "original_size": b"\xcf" + len(data).to_bytes(8, "big")})),
        ("signed-size", envelope({**parts, "original_size": b"\xd0\x0a"})),
        ("wide-format", envelope({**parts, "format": b"\xdb\x00\x00\x00\x07msgpack"})),
        ("array16", b"\xdc\x00\x04" + envelope(parts)[1:]),
        ("array32", b"\xdd\x00\x00\x00\x04" + envelope(parts)[1:]),
        ("map16", b"\xde\x00\x04" + b"".join(text(name) + parts[name] for name in NAMES)),
    ]
    for number, order in enumerate(itertools.permutations(NAMES)):
        cases.append((f"map-{number}", b"\x84" + b"".join(text(name) + parts[name] for name in order)))
    return [valid(f"older-{name}", data, made) for name, made in cases]


def real() -> list[dict[str, Any]]:
    """Return the envelopes in `cachekit-entries.jsonl`: in entries that are neither encrypted nor unchecked."""
    made = []
    for line in (HERE / "cachekit-entries.jsonl").read_text(encoding="ascii").splitlines():
        entry = json.loads(line)
        stored = bytes.fromhex(entry["hex"])
        if stored.startswith(b"CK"):
            inner = stored[7 + int.from_bytes(stored[3:7], "big") :]
        else:
            inner = base64.b64decode(json.loads(stored)["data"], validate=True)
        if entry["name"].endswith(("-default", "-auto")) and inner.startswith(b"\x94"):
            data, kind = taken_apart(inner)
            made.append(valid(f"real-{entry['name']}", data, inner, kind))
    return made


def taken_apart(inner: bytes) -> tuple[bytes, str]:
    """Return data and format of an envelope of cachekit: 4 fields, the block an array of integers or a bin8."""
    at = 1

    def number() -> int:
        nonlocal at
        marker, at = inner[at], at + 1
        width = {0xCC: 1, 0xCD: 2}.get(marker, 0)
        found = int.from_bytes(inner[at : at + width], "big") if width else marker
        at += width
        return found

    marker = number()
    if marker == 0xC4:
        count, at = inner[at], at + 1
        block, at = inner[at : at + count], at + count
    else:
        count = marker & 0x0F
        if marker == 0xDC:
            count, at = int.from_bytes(inner[at : at + 2], "big"), at + 2
        block = bytes(number() for _ in range(count))
    digest = bytes(number() for _ in range(number() & 0x0F))
    size, kind = number(), inner[at + 1 :].decode()
    data = unpacked(block)
    if len(data) != size or checksum(data) != digest:
        raise SystemExit("an entry of cachekit's is not as expected")
    return data, kind


def unpacked(block: bytes) -> bytes:
    """Return what an LZ4 block is when decompressed."""
    out, at = bytearray(), 0

    def length(start: int) -> int:
        nonlocal at
        total = start
        while start == 15:
            total, at = total + block[at], at + 1
            if block[at - 1] != 255:
                break
        return total

    while at < len(block):
        token, at = block[at], at + 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at < len(block):
            offset, at = int.from_bytes(block[at : at + 2], "little"), at + 2
            for _ in range(length(token & 0x0F) + 4):
                out.append(out[-offset])
    return bytes(out)


def malformed() -> list[dict[str, Any]]:
    """Return what every reader refuses."""
    data = b"0123456789"
    parts = parts_of(data)
    changed: list[tuple[str, str, bytes, str]] = [
        ("block-string", "compressed_data", text("xxxxxxxxxxx"), "a block that is a string"),
        ("block-nil", "compressed_data", b"\xc0", "a block that is nil"),
        ("block-empty", "compressed_data", binary(b""), "no block: the ratio is beyond 1000"),
        ("block-cut", "compressed_data", binary(b"\xa0012345678"), "literals that go on after the block's end"),
        ("block-offset-0", "compressed_data", binary(b"\x50012340\0\x00\x00\x5056789"), "a match with offset 0"),
        (
            "block-too-far-back",
            "compressed_data",
            binary(b"\x1a\x00\x09\x00\x50" + b"12345"),
            "a match before the start",
        ),
        ("block-longer", "compressed_data", binary(sequence(data + b"a")), "a block that becomes more than the size"),
        ("block-shorter", "compressed_data", binary(sequence(data[:9])), "a block that becomes less than the size"),
        ("block-integer-256", "compressed_data", b"\x91\xcd\x01\x00", "an integer that is not a byte"),
        ("block-integer-negative", "compressed_data", b"\x91\xff", "a negative integer"),
        ("block-many-integers", "compressed_data", b"\xdd\xff\xff\xff\xff", "more integers than there are bytes"),
        ("block-bin32", "compressed_data", b"\xc6\xff\xff\xff\xff", "a binary that goes on after the envelope's end"),
        ("checksum-7", "checksum", integers(bytes(7)), "a checksum of seven bytes"),
        ("checksum-9", "checksum", integers(bytes(9)), "a checksum of nine bytes"),
        ("checksum-wrong", "checksum", integers(bytes(8)), "the checksum of other data"),
        ("checksum-reversed", "checksum", integers(checksum(data)[::-1]), "a little-endian checksum"),
        ("checksum-number", "checksum", b"\xcf" + checksum(data), "a checksum that is one integer"),
        ("size-9", "original_size", uint(9), "a size below that of the data"),
        ("size-11", "original_size", uint(11), "a size above that of the data"),
        ("size-float", "original_size", b"\xcb\x40\x24\0\0\0\0\0\0", "a size that is not an integer"),
        ("size-negative", "original_size", b"\xff", "a negative size"),
        ("size-2-32", "original_size", b"\xcf\0\0\0\x01\0\0\0\0", "a size of more than 32 bits"),
        ("size-above-limit", "original_size", b"\xce" + (512 * MIB + 1).to_bytes(4, "big"), "a size above 512 MiB"),
        ("size-above-ratio", "original_size", uint(11_001), "a size of more than 1000 times the block"),
        ("format-nil", "format", b"\xc0", "no format"),
        ("format-not-utf-8", "format", b"\xa1\xff", "a format that is not UTF-8"),
        ("format-str32", "format", b"\xdb\xff\xff\xff\xff", "a string that goes on after the envelope's end"),
    ]
    good = envelope(parts)
    cases = [(name, envelope({**parts, field: part}), why) for name, field, part, why in changed]
    cases += [
        ("empty", b"", "nothing"),
        ("nil", b"\xc0", "nil"),
        ("head-alone", b"\x94", "an array without fields"),
        ("three-fields", b"\x93" + good[1:-8], "an array of three"),
        ("five-fields", b"\x95" + good[1:] + b"\x00", "an array of five"),
        ("many-fields", b"\xdd\xff\xff\xff\xff" + good[1:], "an array of 2**32 - 1"),
        ("map-unknown-name", b"\x84" + b"".join(text("x") + parts[name] for name in NAMES), "unknown names"),
        ("map-same-name", b"\x84" + (text("format") + parts["format"]) * 4, "one name four times"),
        ("map-three", b"\x83" + b"".join(text(name) + parts[name] for name in NAMES[:3]), "a map of three"),
        ("cut", good[:-1], "an envelope cut short"),
    ]
    return [
        {"name": f"malformed-{name}", "kind": "malformed", "hex": made.hex(), "why": why} for name, made, why in cases
    ]


if __name__ == "__main__":
    main()
