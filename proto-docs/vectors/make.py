"""Write ``frame-v3.jsonl`` and ``names.jsonl``; ``README.md`` says what their fields mean.

Run it in any directory: ``python proto-docs/vectors/make.py``. Equal input gives equal files, byte for byte. It builds
every frame from the specification alone, with nothing of framecache, so that the vectors can contradict the code. The
one package it needs beyond the standard library is ``blake3``. ``cachekit-entries.jsonl`` holds entries that cachekit
wrote; it is read, never made.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from blake3 import blake3

HERE = Path(__file__).parent
MIB = 1024 * 1024
#: Metadata as cachekit's serializers write it.
PLAIN = {"format": "msgpack", "encoding": "utf-8", "compressed": False, "original_type": "msgpack"}
ARROW = {"format": "arrow", "encoding": "utf-8", "compressed": False, "original_type": "arrow"}
ENCRYPTED = {
    **PLAIN,
    "encrypted": True,
    "tenant_id": "default",
    "encryption_algorithm": "AES-256-GCM",
    "key_fingerprint": "000102030405060708090a0b0c0d0e0f",
}
#: 2023-11-14 22:13:20 UTC in milliseconds.
CREATED = 1_700_000_000_000


def main() -> None:
    """Write both files."""
    vectors = [
        *cachekit(),
        *padded(),
        *framecache(),
        *compressed(),
        *other_writers(),
        *legacy(),
        *malformed(),
        *malformed_entries(),
    ]
    names = [vector["name"] for vector in vectors]
    if len(set(names)) != len(names):
        raise SystemExit(f"two vectors of one name: {sorted({name for name in names if names.count(name) > 1})}")
    write("frame-v3.jsonl", vectors)
    write("names.jsonl", keys())


def write(file: str, lines: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, ASCII only."""
    (HERE / file).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="ascii")


def dumps(value: object) -> str:
    """Return JSON as the writers of frames have it: `, ` and `: `, and non-ASCII as it is."""
    return json.dumps(value, ensure_ascii=False)


def framed(header: str | bytes, payload: bytes = b"payload") -> bytes:
    """Return a frame of any header."""
    header = encoded(header)
    return b"CK\x03" + len(header).to_bytes(4, "big") + header + payload


def encoded(text: str | bytes) -> bytes:
    """Return text as UTF-8."""
    return text.encode() if isinstance(text, str) else text


def vector(
    kind: str, name: str, data: bytes, serializer: str, metadata: dict[str, Any], payload: bytes
) -> dict[str, Any]:
    """Return a valid vector."""
    fields = {"serializer": serializer, "metadata": metadata, "payload_hex": payload.hex()}
    return {"name": name, "kind": kind, "hex": data.hex(), **fields}


def cachekit() -> list[dict[str, Any]]:
    """Return unpadded frames as `SerializationWrapper.wrap` writes them, and entries from real caches."""
    controls = "".join(map(chr, range(0x20)))
    cases: list[tuple[str, str, dict[str, Any], bytes]] = [
        ("empty-metadata", "default", {}, b"payload"),
        ("empty-payload", "default", PLAIN, b""),
        ("every-byte", "default", PLAIN, bytes(range(256))),
        ("a-frame-as-payload", "default", PLAIN, framed('{"s": "inner", "m": {}, "v": "2.0"}')),
        ("a-legacy-envelope-as-payload", "default", PLAIN, b'{"data": "YWJj", "serializer": "inner"}'),
        ("compressed", "default", {**PLAIN, "compressed": True}, b"payload"),
        ("orjson", "orjson", {**PLAIN, "format": "orjson", "original_type": "orjson"}, b'{"a":1}'),
        ("class-name", "ArrowSerializer", ARROW, b"payload"),
        ("encrypted", "default", ENCRYPTED, bytes(range(28))),
        ("no-original-type", "default", {**PLAIN, "original_type": None}, b"payload"),
        ("unicode", "sérialiseur", {"tenant_id": "Zürich 東京 🦀", "ключ": "значение"}, b"payload"),
        ("unicode-noncharacters", "default", {"x": "\ufeff\ufffe\uffff\U0010ffff\u2028\u2029"}, b"payload"),
        ("escapes", 'a"b\\c/d', {'"': "\\", "path": "C:\\temp\\new/x", "quoted": 'say "hi"'}, b"payload"),
        ("control-characters", "default", {"x": controls, controls: "x", "delete": "\x7f\x80\x9f"}, b"payload"),
        ("nested", "default", {"a": [1, [2, {"b": [None, True, False, {}]}], []], "c": {"d": {"e": "f"}}}, b"payload"),
        ("integers", "default", {"x": [0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1]}, b"payload"),
        ("integers-beyond-64-bits", "default", {"x": 2**64, "y": -(2**63) - 1, "z": [10**30, 7]}, b"payload"),
        ("floats", "default", {"x": [0.5, -0.0, 1e22, 1e16, 5e-324, 1.7976931348623157e308, 1e-7]}, b"payload"),
        ("literals", "default", {"x": True, "y": False, "z": None}, b"payload"),
        ("empty-names", "default", {"": ""}, b"payload"),
        ("header-names-in-metadata", "default", {"s": "x", "m": {"s": "y"}, "v": 3}, b"payload"),
        ("long-metadata", "default", {**PLAIN, "tenant_id": "t" * 600}, b"payload"),
        ("many-fields", "default", {f"field-{number}": number for number in range(40)}, b"payload"),
    ]
    made = [
        vector(
            "frame",
            f"cachekit-{name}",
            framed(cachekit_header(serializer, metadata), payload),
            serializer,
            metadata,
            payload,
        )
        for name, serializer, metadata, payload in cases
    ]
    metadata, other = {"x": 1}, cachekit_header("default", {"x": 1}, "3.1")
    made.append(
        {**vector("frame", "cachekit-version", framed(other), "default", metadata, b"payload"), "version": "3.1"}
    )
    return [{**line, "writer": "cachekit"} for line in made + real(b"CK")]


def cachekit_header(serializer: str, metadata: dict[str, Any], version: str = "2.0") -> str:
    """Return a header in cachekit's order: s, m, v."""
    return dumps({"s": serializer, "m": metadata, "v": version})


def real(start: bytes) -> list[dict[str, Any]]:
    """Return the entries of `cachekit-entries.jsonl` that begin with `start`."""
    made = []
    for line in (HERE / "cachekit-entries.jsonl").read_text(encoding="ascii").splitlines():
        entry = json.loads(line)
        data = bytes.fromhex(entry["hex"])
        if not data.startswith(start):
            continue
        if start == b"CK":
            end = 7 + int.from_bytes(data[3:7], "big")
            header = json.loads(data[7:end])
            made.append(vector("frame", entry["name"], data, header["s"], header["m"], data[end:]))
        else:
            envelope = json.loads(data)
            payload = base64.b64decode(envelope["data"], validate=True)
            made.append(vector("legacy", entry["name"], data, envelope["serializer"], envelope["metadata"], payload))
    return made


def padded() -> list[dict[str, Any]]:
    """Return frames whose header `SerializationWrapper.wrap_prefix` padded."""
    made = []
    for name, metadata, align, offset in [
        ("arrow", ARROW, 64, 22),
        ("empty-metadata", {}, 64, 22),
        ("whole-frame", ARROW, 64, 0),
        ("offset-above-align", ARROW, 64, 1000),
        ("page", PLAIN, 4096, 0),
        ("align-of-two", PLAIN, 2, 1),
        ("align-not-a-power-of-two", PLAIN, 100, 7),
        # With 22 bytes of metadata value, prefix and header have 64 bytes as they are.
        ("nothing-to-pad", {"x": "y" * 22}, 64, 0),
    ]:
        header = cachekit_header("arrow", metadata)
        header += " " * (-(offset + 7 + len(header)) % align)
        line = vector("frame", f"padded-{name}", framed(header), "arrow", metadata, b"payload")
        made.append({**line, "writer": "cachekit", "align": align, "offset": offset})
    return made


def framecache() -> list[dict[str, Any]]:
    """Return entries as framecache's store writes them."""
    view = {"format": "d", "itemsize": 8, "shape": [1, 2], "type": "memoryview"}
    cases: list[tuple[str, dict[str, Any], str, int | None, bytes]] = [
        ("bytes", {"type": "bytes"}, "greeting", CREATED + 60_000, b"hello"),
        ("no-end", {"type": "bytes"}, "greeting", None, b"hello"),
        ("empty", {"type": "bytes"}, "", None, b""),
        ("bytearray", {"type": "bytearray"}, "users:42", None, bytes(range(256))),
        ("memoryview", {"type": "memoryview"}, "view", CREATED + 1, b"\x00"),
        ("shaped-memoryview", view, "pair", None, bytes(16)),
        ("unicode-key", {"type": "bytes"}, "Zürich/東京 🦀", None, b"x"),
        ("escaped-key", {"type": "bytes"}, 'a"b\\c\n\t\x00\x1f\x7f', None, b"x"),
        ("long-key", {"type": "bytes"}, "k" * 300, None, b"x" * 70),
    ]
    made = []
    for name, python, key, until, payload in cases:
        metadata = {"py": python, "key": key, "length": len(payload), "created": CREATED}
        metadata |= {} if until is None else {"until": until}
        # Everything but `py` has a space after comma and colon.
        rest = dumps({name: value for name, value in metadata.items() if name != "py"})
        described = json.dumps(python, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        header = f'{{"s": "raw", "v": "2.0", "m": {{"py": {described}, {rest[1:]}}}'
        header += " " * (-(7 + len(header.encode())) % 64)
        line = vector("frame", f"framecache-{name}", framed(header, payload), "raw", metadata, payload)
        made.append({**line, "writer": "framecache"})
    return made


def compressed() -> list[dict[str, Any]]:
    """Return entries whose payload is compressed, or says so; `value_hex` is null where that cannot be undone."""
    value, size = b"a" * 95 + b"12345", {"size": 100}
    # One literal, 94 bytes more of it, five literals.
    lz4 = b"\x1fa\x01\x00\x4b\x5012345"
    # Of a single segment with its size in one byte: a block of 95 times one byte, and a raw one, the last.
    frame = b"\x28\xb5\x2f\xfd\x20\x64"
    zstd = frame + (95 << 3 | 1 << 1).to_bytes(3, "little") + b"a" + (5 << 3 | 1).to_bytes(3, "little") + b"12345"
    # The same in two frames.
    first = b"\x28\xb5\x2f\xfd\x20\x5f" + (95 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"a"
    second = b"\x28\xb5\x2f\xfd\x20\x05" + (5 << 3 | 1).to_bytes(3, "little") + b"12345"
    cases: list[tuple[str, dict[str, Any], bytes, bytes | None]] = [
        ("lz4", {"compression": "lz4", **size}, lz4, value),
        ("lz4-literals", {"compression": "lz4", "size": 5}, b"\x5012345", b"12345"),
        ("zstd", {"compression": "zstd", **size}, zstd, value),
        ("zstd-two-frames", {"compression": "zstd", **size}, first + second, value),
        ("size-alone", {"size": 7}, b"12345", b"12345"),
        ("unknown-algorithm", {"compression": "brotli", **size}, lz4, None),
        ("empty-algorithm", {"compression": "", **size}, lz4, None),
        ("upper-case-algorithm", {"compression": "LZ4", **size}, lz4, None),
        ("other-algorithm", {"compression": "zstd", **size}, lz4, None),
        ("no-size", {"compression": "lz4"}, lz4, None),
        ("size-too-small", {"compression": "lz4", "size": 99}, lz4, None),
        ("size-too-large", {"compression": "zstd", "size": 101}, zstd, None),
        ("size-impossible", {"compression": "lz4", "size": 12 * 255}, lz4, None),
        ("size-beyond-memory", {"compression": "lz4", "size": 2**64 - 1}, lz4, None),
        ("lz4-cut", {"compression": "lz4", **size}, lz4[:-1], None),
        ("zstd-cut", {"compression": "zstd", **size}, zstd[:-1], None),
        ("lz4-size-before-it", {"compression": "lz4", **size}, (100).to_bytes(4, "little") + lz4, None),
        ("empty", {"compression": "lz4", "size": 0}, b"", None),
    ]
    made = []
    for name, fields, payload, found in cases:
        metadata = {"py": {"type": "bytes"}, "key": "k", "length": len(payload), **fields, "created": CREATED}
        header = dumps({"s": "raw", "v": "2.0", "m": metadata})
        line = vector("frame", f"compressed-{name}", framed(header, payload), "raw", metadata, payload)
        made.append({**line, "writer": "other", "value_hex": None if found is None else found.hex()})
    return made


def other_writers() -> list[dict[str, Any]]:
    """Return frames that no writer of today makes and every reader takes."""
    arrays = "[" * 125 + "]" * 125
    nested: Any = []
    for _ in range(124):
        nested = [nested]
    cases: list[tuple[str, str, str, dict[str, Any]]] = [
        ("no-metadata", '{"s": "a"}', "a", {}),
        ("no-version", '{"s": "a", "m": {"x": 1}}', "a", {"x": 1}),
        ("order-v-m-s", '{"v": "2.0", "m": {"x": 1}, "s": "a"}', "a", {"x": 1}),
        ("no-spaces", '{"s":"a","m":{"x":[1,2]},"v":"2.0"}', "a", {"x": [1, 2]}),
        ("spaces-everywhere", ' \t\r\n{ "s"\n:\t"a" , "m" : { "x" : [ 1 , 2 ] } } ', "a", {"x": [1, 2]}),
        ("unknown-fields", '{"z": [1, {"y": null}], "s": "a", "m": {"x": 1}, "q": "w"}', "a", {"x": 1}),
        ("last-serializer-wins", '{"s": "a", "s": "b"}', "b", {}),
        ("last-metadata-wins", '{"s": "a", "m": {"x": 1}, "m": {"y": 2}}', "a", {"y": 2}),
        ("last-field-wins", '{"s": "a", "m": {"x": 1, "y": 2, "x": 3}}', "a", {"x": 3, "y": 2}),
        ("last-nested-field-wins", '{"s": "a", "m": {"x": {"y": 1, "y": 2}}}', "a", {"x": {"y": 2}}),
        ("escaped-names", r'{"\u0073": "\u0061", "\u006d": {"\u0078": 1}}', "a", {"x": 1}),
        ("escapes", r'{"s": "a", "m": {"x": "\u00e9\ud83e\udd80\"\\\/\b\f\n\r\t"}}', "a", {"x": 'é🦀"\\/\b\f\n\r\t'}),
        ("escaped-zero", r'{"s": "\u0000"}', "\x00", {}),
        ("numbers", '{"s": "a", "m": {"x": [1E2, 1.50, 2e-1, 0, -7]}}', "a", {"x": [100.0, 1.5, 0.2, 0, -7]}),
        ("nesting-127", '{"s": "a", "m": {"x": ' + arrays + "}}", "a", {"x": nested}),
        ("nesting-127-ignored", '{"s": "a", "q": {"x": ' + arrays + "}}", "a", {}),
    ]
    for name, padding in [
        ("space", " "),
        ("tab", "\t"),
        ("line-feed", "\n"),
        ("carriage-return", "\r"),
        ("mixed", " \r\n\t " * 20),
        ("kilobyte", " " * 1024),
    ]:
        cases.append((f"padding-{name}", '{"s": "a", "m": {"x": 1}}' + padding, "a", {"x": 1}))
    made = [vector("frame", f"other-{name}", framed(header), *said, b"payload") for name, header, *said in cases]
    return [{**line, "writer": "other"} for line in made]


def legacy() -> list[dict[str, Any]]:
    """Return envelopes from before the frame."""
    cases: list[tuple[str, str, str, dict[str, Any], bytes]] = [
        ("no-metadata", '{"data": "YWJj", "serializer": "default"}', "default", {}, b"abc"),
        ("empty-payload", '{"data": "", "metadata": {}, "serializer": "a", "version": "2.0"}', "a", {}, b""),
        ("one-byte", '{"data": "YQ==", "metadata": {}, "serializer": "a", "version": "2.0"}', "a", {}, b"a"),
        ("two-bytes", '{"data": "YWI=", "metadata": {}, "serializer": "a", "version": "2.0"}', "a", {}, b"ab"),
        ("slash-and-plus", '{"data": "+/+/", "serializer": "a"}', "a", {}, b"\xfb\xff\xbf"),
        ("escaped-base64", r'{"data": "\u0059WJj+\/+\/", "serializer": "a"}', "a", {}, b"abc\xfb\xff\xbf"),
        ("order", '{"version": "2.0", "serializer": "a", "data": "YWJj", "metadata": {"x": 1}}', "a", {"x": 1}, b"abc"),
        ("whitespace", '\n {"data":"YWJj",\t"serializer":"a"}\r\n', "a", {}, b"abc"),
        ("unknown-field", '{"x": [1, {}], "data": "YWJj", "serializer": "a"}', "a", {}, b"abc"),
        ("unicode", '{"data": "YWJj", "metadata": {"x": "東京 🦀"}, "serializer": "é"}', "é", {"x": "東京 🦀"}, b"abc"),
        ("big-integer", f'{{"data": "", "metadata": {{"x": {2**70}}}, "serializer": "a"}}', "a", {"x": 2**70}, b""),
    ]
    made = [vector("legacy", f"legacy-{name}", text.encode(), *said) for name, text, *said in cases]
    return made + real(b"{")


def malformed() -> list[dict[str, Any]]:
    """Return what every reader refuses."""
    open_m = '{"s": "a", "m": {"x": '
    base64_of = '{{"data": "{}", "serializer": "a"}}'.format
    prefixes: list[tuple[str, bytes, int, str]] = [
        ("nothing", b"", 0, "neither a frame nor a JSON object"),
        ("half-a-magic", b"C", 0, "neither a frame nor a JSON object"),
        ("magic-alone", b"CK", 0, "shorter than the prefix of 7 bytes"),
        ("six-bytes", b"CK\x03\x00\x00\x00", 0, "shorter than the prefix of 7 bytes"),
        ("other-magic", b"XK\x03\x00\x00\x00\x0a" + b'{"s": "a"}', 0, "neither a frame nor a JSON object"),
        ("lower-case-magic", b"ck\x03\x00\x00\x00\x0a" + b'{"s": "a"}', 0, "neither a frame nor a JSON object"),
        ("version-0", b"CK\x00\x00\x00\x00\x0a" + b'{"s": "a"}', 2, "a version other than 3"),
        ("version-1", b"CK\x01\x00\x00\x00\x0a" + b'{"s": "a"}', 2, "a version other than 3"),
        ("version-4", b"CK\x04\x00\x00\x00\x0a" + b'{"s": "a"}', 2, "a version other than 3"),
        ("length-past-the-end", b"CK\x03\x00\x00\x00\x0b" + b'{"s": "a"}', 3, "a header longer than what is left"),
        ("length-little-endian", b"CK\x03\x0a\x00\x00\x00" + b'{"s": "a"}', 3, "a header longer than 1 MiB"),
        ("length-above-1-mib", b"CK\x03" + (MIB + 1).to_bytes(4, "big"), 3, "a header longer than 1 MiB"),
        ("length-largest", b"CK\x03\xff\xff\xff\xff", 3, "a header longer than 1 MiB"),
        ("length-1-mib-missing", b"CK\x03" + MIB.to_bytes(4, "big"), 3, "a header longer than what is left"),
    ]
    headers: list[tuple[str, str | bytes, int, str]] = [
        ("empty", "", 7, "a header that is not JSON"),
        ("spaces-alone", "   ", 9, "a header that is not JSON"),
        ("cut-short", '{"s": "a", "m": {"x": 1}', 30, "a header that ends inside the object"),
        ("string-cut-short", '{"s": "a', 14, "a header that ends inside a string"),
        ("not-utf-8", b'{"s": "a\xff"}', 15, "a byte that is not UTF-8"),
        ("utf-8-surrogate", b'{"s": "a\xed\xa0\x80"}', 15, "a surrogate in UTF-8"),
        ("utf-8-overlong", b'{"s": "a\xc0\x80"}', 15, "an overlong UTF-8 sequence"),
        ("utf-8-in-ignored-field", b'{"q": "\xff", "s": "a"}', 14, "a byte that is not UTF-8"),
        ("byte-order-mark", '\ufeff{"s": "a"}', 7, "a byte order mark"),
        ("array", "[]", 7, "a header that is not an object"),
        ("string", '"a"', 9, "a header that is not an object"),
        ("null", "null", 10, "a header that is not an object"),
        ("trailing-text", '{"s": "a"} x', 18, "bytes after the object that are not JSON whitespace"),
        ("trailing-object", '{"s": "a"}{}', 17, "bytes after the object that are not JSON whitespace"),
        ("padding-zero", '{"s": "a"}\x00', 17, "bytes after the object that are not JSON whitespace"),
        ("padding-vertical-tab", '{"s": "a"}\x0b', 17, "bytes after the object that are not JSON whitespace"),
        ("padding-no-break-space", '{"s": "a"}\u00a0', 17, "bytes after the object that are not JSON whitespace"),
        ("no-serializer", "{}", 7, "no serializer"),
        ("metadata-alone", '{"m": {"x": 1}, "v": "2.0"}', 7, "no serializer"),
        ("empty-serializer", '{"s": ""}', 7, "an empty serializer"),
        ("serializer-number", '{"s": 1}', 13, "a serializer that is not a string"),
        ("serializer-null", '{"s": null}', 16, "a serializer that is not a string"),
        ("metadata-null", '{"s": "a", "m": null}', 26, "metadata that is not an object"),
        ("metadata-array", '{"s": "a", "m": []}', 22, "metadata that is not an object"),
        ("metadata-string", '{"s": "a", "m": "x"}', 25, "metadata that is not an object"),
        ("nan", open_m + "NaN}}", 29, "NaN, which JSON does not have"),
        ("infinity", open_m + "Infinity}}", 29, "Infinity, which JSON does not have"),
        ("leading-zero", open_m + "01}}", 30, "a number with a leading zero"),
        ("bare-point", open_m + "1.}}", 31, "a number without digits after its point"),
        ("plus-sign", open_m + "+1}}", 29, "a number with a plus sign"),
        ("number-beyond-double", open_m + "1e400}}", 33, "a number outside the range of a double"),
        ("trailing-comma", '{"s": "a",}', 17, "a comma before the end of the object"),
        ("single-quotes", "{'s': 'a'}", 8, "single quotes"),
        ("comment", '{"s": "a" /* x */}', 17, "a comment"),
        ("name-not-a-string", '{"s": "a", 1: 2}', 18, "a field name that is not a string"),
        ("control-character", '{"s": "a\x01"}', 15, "a control character in a string"),
        ("line-feed-in-string", '{"s": "a\n"}', 16, "a control character in a string"),
        ("unknown-escape", r'{"s": "\x61"}', 15, "an unknown escape"),
        ("lone-surrogate", r'{"s": "\udc00"}', 19, "half a surrogate pair"),
        ("nesting-128", open_m + "[" * 126 + "]" * 126 + "}}", 29 + 125, "nesting deeper than 127"),
        ("nesting-128-objects", open_m + '{"y": ' * 126 + "1" + "}" * 128, 29 + 6 * 125, "nesting deeper than 127"),
        (
            "nesting-128-ignored",
            '{"s": "a", "q": {"x": ' + "[" * 126 + "]" * 126 + "}}",
            29 + 125,
            "nesting deeper than 127",
        ),
    ]
    envelopes: list[tuple[str, str | bytes, int, str]] = [
        ("text", "not json", 1, "neither a frame nor a JSON object"),
        ("number", "7", 0, "not an object"),
        ("cut-short", '{"data": "YWJj", "serializer": "a"', 33, "ends inside the object"),
        ("not-utf-8", b'{"data": "YWJj", "serializer": "\xff"}', 32, "a byte that is not UTF-8"),
        ("byte-order-mark", '\ufeff{"data": "YWJj", "serializer": "a"}', 0, "a byte order mark"),
        ("trailing-text", '{"data": "YWJj", "serializer": "a"} x', 36, "bytes after the object"),
        ("no-data", '{"metadata": {}, "serializer": "a"}', 34, "no payload"),
        ("no-serializer", '{"data": "YWJj", "metadata": {}}', 31, "no serializer"),
        ("empty-serializer", '{"data": "YWJj", "serializer": ""}', 0, "an empty serializer"),
        ("serializer-number", '{"data": "YWJj", "serializer": 1}', 31, "a serializer that is not a string"),
        ("data-number", '{"data": 1, "serializer": "a"}', 9, "a payload that is not a string"),
        ("metadata-array", '{"data": "YWJj", "metadata": [], "serializer": "a"}', 0, "metadata that is not an object"),
        ("second-data", '{"data": "YWJj", "data": "YWJj", "serializer": "a"}', 22, "two payloads"),
        ("base64-unpadded", base64_of("YQ"), 0, "base64 without padding"),
        ("base64-short-padding", base64_of("YQ="), 0, "base64 with too little padding"),
        ("base64-three-pads", base64_of("Y==="), 0, "base64 with too much padding"),
        ("base64-pads-alone", base64_of("===="), 0, "base64 with too much padding"),
        ("base64-inner-padding", base64_of("YQ==YQ=="), 0, "base64 with padding inside"),
        ("base64-stray-bits", base64_of("YR=="), 0, "base64 whose unused bits are not zero"),
        ("base64-url-alphabet", base64_of("-_-_"), 0, "base64 in another alphabet"),
        ("base64-line-feed", base64_of(r"YWJj\nYWJ"), 0, "base64 with a line feed"),
    ]
    cases = prefixes
    cases += [(f"header-{name}", framed(header), *rest) for name, header, *rest in headers]
    cases += [(f"legacy-{name}", encoded(text), *rest) for name, text, *rest in envelopes]
    return [refused(*case) for case in cases]


def malformed_entries() -> list[dict[str, Any]]:
    """Return frames that a store refuses to serve under `key`."""
    entry = '{{"s": "raw", "m": {{"key": "k", "length": 7, {}}}}}'.format
    cases: list[tuple[str, bytes, int, str]] = [
        ("no-length", framed('{"s": "raw", "m": {"key": "k"}}'), 38, "no length of the payload"),
        ("cut-short", framed('{"s": "raw", "m": {"key": "k", "length": 7}}', b"payloa"), 51, "a payload cut short"),
        ("too-long", framed('{"s": "raw", "m": {"key": "k", "length": 7}}', b"payload!"), 51, "a payload too long"),
        ("legacy", b'{"data": "YWJj", "metadata": {"key": "k"}, "serializer": "raw"}', 0, "a legacy envelope"),
        ("version-number", framed('{"s": "raw", "v": 2, "m": {"key": "k", "length": 7}}'), 25, "v is not a string"),
        ("key-number", framed('{"s": "raw", "m": {"key": 7, "length": 7}}'), 33, "key is not a string"),
        ("length-negative", framed('{"s": "raw", "m": {"key": "k", "length": -7}}'), 49, "length is negative"),
        ("length-float", framed('{"s": "raw", "m": {"key": "k", "length": 7.0}}'), 50, "length is not an integer"),
        ("until-string", framed(entry('"until": "x"')), 62, "until is not an integer"),
        ("until-null", framed(entry('"until": null')), 63, "until is not an integer"),
        ("until-beyond-64-bits", framed(entry('"until": 18446744073709551616')), 79, "until has more than 64 bits"),
        ("created-boolean", framed(entry('"created": true')), 65, "created is not an integer"),
        ("py-array", framed(entry('"py": []')), 56, "py is not an object"),
        ("compression-null", framed(entry('"compression": null')), 69, "compression is not a string"),
        ("compression-number", framed(entry('"compression": 1')), 66, "compression is not a string"),
        ("size-negative", framed(entry('"size": -1')), 60, "size is negative"),
        ("size-float", framed(entry('"size": 1.0')), 61, "size is not an integer"),
    ]
    return [{**refused(f"entry-{name}", *rest), "key": "k"} for name, *rest in cases]


def refused(name: str, data: bytes, error_offset: int, why: str) -> dict[str, Any]:
    """Return a malformed vector."""
    return {
        "name": f"malformed-{name}",
        "kind": "malformed",
        "hex": data.hex(),
        "error_offset": error_offset,
        "why": why,
    }


def keys() -> list[dict[str, Any]]:
    """Return keys and their names."""
    plain = [
        "",
        "a",
        "greeting",
        "users:42",
        " ",
        "A",
        "a/b",
        "..",
        "\x00",
        "\n",
        'quote"',
        "é",
        "e\u0301",
        "東京",
        "🦀",
        "\x7f\u2028",
    ]
    # BLAKE3 has a chunk of 1024 bytes and blocks of 64.
    repeated = [
        (63, "k"),
        (64, "k"),
        (65, "k"),
        (1023, "k"),
        (1024, "k"),
        (1025, "k"),
        (2049, "k"),
        (65536, "x"),
        (32768, "é"),
    ]
    made = [{"key": key, "name": blake3(key.encode()).hexdigest()} for key in plain]
    for count, text in repeated:
        made.append({"key": {"repeat": [text, count]}, "name": blake3((text * count).encode()).hexdigest()})
    return made


if __name__ == "__main__":
    main()
