"""Write ``frame-v3.jsonl``, ``names.jsonl`` and ``msgpack.jsonl``.

``README.md`` says what the fields of the first two mean, ``../msgpack.md`` those of the last.

Run it in any directory: ``python proto-docs/vectors/make.py``. Equal input gives equal files, byte for byte. It builds
every line from the specification alone, with nothing of framecache, so that the vectors can contradict the code. The
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
    """Write the files."""
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
    write("frame-v3.jsonl", distinct(vectors))
    write("names.jsonl", keys())
    write("msgpack.jsonl", distinct([*msgpack_plain(), *msgpack_python(), *msgpack_other(), *msgpack_invalid()]))


def distinct(vectors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `vectors`, whose names must differ."""
    names = [vector["name"] for vector in vectors]
    if len(set(names)) != len(names):
        raise SystemExit(f"two vectors of one name: {sorted({name for name in names if names.count(name) > 1})}")
    return vectors


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


def spelled(data: str | bytes) -> str:
    """Return hexadecimal digits without the spaces that make them readable."""
    return (bytes.fromhex(data) if isinstance(data, str) else data).hex()


def ext(code: int, payload: str | bytes) -> bytes:
    """Return an extension with the head of payloads that are made of values, ext 8 or ext 32."""
    payload = bytes.fromhex(payload) if isinstance(payload, str) else payload
    head = b"\xc7" + bytes([len(payload)]) if len(payload) < 256 else b"\xc9" + len(payload).to_bytes(4, "big")
    return head + bytes([code]) + payload


def text(value: str) -> bytes:
    """Return a short str."""
    return bytes([0xA0 | len(value.encode())]) + value.encode()


def valid(cases: list[tuple[str, str, str | bytes]], **fields: Any) -> list[dict[str, Any]]:
    """Return vectors of (name, expression, bytes)."""
    return [{"name": name, "python": python, "hex": spelled(data), **fields} for name, python, data in cases]


def msgpack_plain() -> list[dict[str, Any]]:
    """Return what both kinds write alike: every form of MessagePack that is written."""
    cases: list[tuple[str, str, str | bytes]] = [
        ("nil", "None", "c0"),
        ("false", "False", "c2"),
        ("true", "True", "c3"),
        ("fixint-0", "0", "00"),
        ("fixint-127", "127", "7f"),
        ("fixint-minus-1", "-1", "ff"),
        ("fixint-minus-32", "-32", "e0"),
        ("uint-8-smallest", "128", "cc 80"),
        ("uint-8-largest", "255", "cc ff"),
        ("uint-16-smallest", "256", "cd 0100"),
        ("uint-16-largest", "65535", "cd ffff"),
        ("uint-32-smallest", "65536", "ce 00010000"),
        ("uint-32-largest", "2**32 - 1", "ce ffffffff"),
        ("uint-64-smallest", "2**32", "cf 0000000100000000"),
        ("uint-64-largest", "2**64 - 1", "cf ffffffffffffffff"),
        ("int-8-largest", "-33", "d0 df"),
        ("int-8-smallest", "-128", "d0 80"),
        ("int-16-largest", "-129", "d1 ff7f"),
        ("int-16-smallest", "-(2**15)", "d1 8000"),
        ("int-32-largest", "-(2**15) - 1", "d2 ffff7fff"),
        ("int-32-smallest", "-(2**31)", "d2 80000000"),
        ("int-64-largest", "-(2**31) - 1", "d3 ffffffff7fffffff"),
        ("int-64-smallest", "-(2**63)", "d3 8000000000000000"),
        ("float-64", "1.5", "cb 3ff8000000000000"),
        ("float-minus-zero", "-0.0", "cb 8000000000000000"),
        ("float-infinity", 'float("-inf")', "cb fff0000000000000"),
        ("float-nan", 'float("nan")', "cb 7ff8000000000000"),
        ("float-nan-with-bits", 'struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]', "cb fff8000000000123"),
        ("float-denormal", "5e-324", "cb 0000000000000001"),
        ("fixstr-empty", '""', "a0"),
        ("fixstr", '"é"', "a2 c3a9"),
        ("fixstr-31", '"a" * 31', b"\xbf" + b"a" * 31),
        ("str-8-smallest", '"a" * 32', b"\xd9\x20" + b"a" * 32),
        ("str-8-largest", '"a" * 255', b"\xd9\xff" + b"a" * 255),
        ("str-16-smallest", '"a" * 256', b"\xda\x01\x00" + b"a" * 256),
        ("str-beyond-the-bmp", '"\\U0001f980\\x00\\uffff"', "a8 f09fa680 00 efbfbf"),
        ("bin-8-empty", 'b""', "c4 00"),
        ("bin-8-largest", "bytes(255)", b"\xc4\xff" + bytes(255)),
        ("bin-16-smallest", "bytes(256)", b"\xc5\x01\x00" + bytes(256)),
        ("fixarray-empty", "[]", "90"),
        ("fixarray-15", "[None] * 15", b"\x9f" + b"\xc0" * 15),
        ("array-16-smallest", "[None] * 16", b"\xdc\x00\x10" + b"\xc0" * 16),
        ("fixmap-empty", "{}", "80"),
        (
            "fixmap-keys",
            '{"b": 1, 3: "a", None: [], b"x": {}, 2.5: False}',
            "85 a16201 03a161 c090 c40178 80 cb4004000000000000 c2",
        ),
        (
            "map-16-smallest",
            "{number: None for number in range(16)}",
            b"\xde\x00\x10" + b"".join(bytes([n, 0xC0]) for n in range(16)),
        ),
        ("a-dict-like-a-marker", '{"__tuple__": [1]}', b"\x81" + b"\xa9__tuple__" + b"\x91\x01"),
        ("depth-1024", "functools.reduce(lambda inner, _: [inner], range(1023), [])", b"\x91" * 1023 + b"\x90"),
    ]
    return valid(cases, plain=True)


def msgpack_python() -> list[dict[str, Any]]:
    """Return what `types="python"` alone writes: every extension type."""
    day, moment = "07e80102", "07e80102 030405000006"
    at = "datetime.datetime(2024, 1, 2, 3, 4, 5, 6, {})".format
    name = "example:{}".format
    record = b"\x84" + text("names") + b"\x92\xa1a\xa1b" + text("formats") + b"\x92" + text("<i4")
    record += b"\x92" + text(">f8") + b"\x91\x02" + text("offsets") + b"\x92\x00\x04" + text("itemsize") + b"\x14"
    large = b"\x93" + text("|u1") + b"\xa1C\x91\xcd\x10\x00"
    # The head of the list and None are 2 bytes, the head of the extension 6.
    aligned = b"\x92\xc0" + ext(23, large + bytes(-(2 + 6 + len(large)) % 64) + bytes(4096))
    cases: list[tuple[str, str, str | bytes]] = [
        ("tuple-empty", "()", ext(1, "90")),
        ("tuple", '(1, "a", [2])', ext(1, "93 01 a161 9102")),
        ("tuple-in-a-tuple", "((1,),)", ext(1, b"\x91" + ext(1, "91 01"))),
        ("tuple-as-a-key", "{(1, 2): 3}", b"\x81" + ext(1, "92 01 02") + b"\x03"),
        ("tuple-ext-32", '("a" * 300,)', ext(1, b"\x91\xda\x01\x2c" + b"a" * 300)),
        ("set-empty", "set()", ext(2, "90")),
        ("set", "{1}", ext(2, "91 01")),
        ("frozenset", "frozenset({(1,)})", ext(3, b"\x91" + ext(1, "91 01"))),
        ("int-beyond-uint-64", "2**64", ext(4, "01 0000000000000000")),
        ("int-beyond-int-64", "-(2**63) - 1", ext(4, "ff 7fffffffffffffff")),
        ("int-16-bytes", "2**127 - 1", "d8 04 7fffffffffffffffffffffffffffffff"),
        ("int-largest", "2**32767 - 1", b"\xc8\x10\x00\x04\x7f" + b"\xff" * 4095),
        ("surrogate", '"\\ud800"', ext(5, "eda080")),
        ("surrogate-pair", '"\\ud83e" + "\\udd80"', ext(5, "eda0be edb680")),
        ("surrogate-in-text", '"a\\udfff"', "d6 05 61 edbfbf"),
        ("bytearray-empty", 'bytearray(b"")', ext(6, "")),
        ("bytearray-1", 'bytearray(b"x")', "d4 06 78"),
        ("bytearray-2", 'bytearray(b"xy")', "d5 06 7879"),
        ("bytearray-4", 'bytearray(b"wxyz")', "d6 06 7778797a"),
        ("bytearray-8", "bytearray(8)", "d7 06 0000000000000000"),
        ("bytearray-16", "bytearray(16)", b"\xd8\x06" + bytes(16)),
        ("bytearray-256", "bytearray(256)", b"\xc8\x01\x00\x06" + bytes(256)),
        ("complex", "1 + 2j", "d8 07 3ff0000000000000 4000000000000000"),
        ("complex-special", 'complex(-0.0, float("inf"))', "d8 07 8000000000000000 7ff0000000000000"),
        *(
            (f"decimal{number}", f'decimal.Decimal("{digits}")', data)
            for number, (digits, data) in enumerate(
                [
                    ("1.20", "d6 08 312e3230"),
                    ("-0", "d5 08 2d30"),
                    ("1E+3", "d6 08 31452b33"),
                    ("-sNaN7", ext(8, b"-sNaN7")),
                    ("Infinity", "d7 08 496e66696e697479"),
                ]
            )
        ),
        ("fraction", "fractions.Fraction(1, 3)", ext(9, "92 01 03")),
        ("fraction-of-zero", "fractions.Fraction(0)", ext(9, "92 00 01")),
        (
            "fraction-negative-and-large",
            "fractions.Fraction(-(2**64), 3)",
            ext(9, b"\x92" + ext(4, "ff 0000000000000000") + b"\x03"),
        ),
        ("datetime", at("fold=0"), ext(10, moment)),
        ("datetime-fold", at("fold=1"), ext(10, "07e80102 830405000006")),
        ("datetime-smallest", "datetime.datetime.min", ext(10, "00010101 000000000000")),
        ("datetime-largest", "datetime.datetime.max", ext(10, "270f0c1f 173b3b0f423f")),
        ("datetime-utc", at("tzinfo=datetime.timezone.utc"), ext(10, moment + "c0")),
        (
            "datetime-offset",
            at("tzinfo=datetime.timezone(datetime.timedelta(hours=2))"),
            ext(10, moment + "92 cd1c20 00"),
        ),
        (
            "datetime-offset-negative",
            at("tzinfo=datetime.timezone(-datetime.timedelta(microseconds=1))"),
            ext(10, moment + "92 ff ce000f423f"),
        ),
        (
            "datetime-named",
            at('tzinfo=datetime.timezone(datetime.timedelta(hours=2), "CEST")'),
            ext(10, bytes.fromhex(moment + "93 cd1c20 00") + text("CEST")),
        ),
        (
            "datetime-zoneinfo",
            at('tzinfo=zoneinfo.ZoneInfo("Europe/Zurich")'),
            ext(10, bytes.fromhex(moment) + text("Europe/Zurich")),
        ),
        ("date", "datetime.date(2024, 1, 2)", "d6 0b" + day),
        ("time", "datetime.time(3, 4, 5, 6)", ext(12, "030405000006")),
        ("time-utc-fold", "datetime.time(3, 4, 5, 6, datetime.timezone.utc, fold=1)", ext(12, "830405000006 c0")),
        ("timedelta", "datetime.timedelta(-1, 2, 3)", ext(13, "ffffffff 00000002 00000003")),
        ("timedelta-smallest", "datetime.timedelta.min", ext(13, "c4653601 00000000 00000000")),
        ("timedelta-largest", "datetime.timedelta.max", ext(13, "3b9ac9ff 0001517f 000f423f")),
        ("uuid", "uuid.UUID(int=1)", b"\xd8\x0e" + bytes(15) + b"\x01"),
        ("uuid-safe", "uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)", ext(14, bytes(15) + b"\x01\x00")),
        ("uuid-unsafe", "uuid.UUID(int=1, is_safe=uuid.SafeUUID.unsafe)", ext(14, bytes(15) + b"\x01\xff")),
        ("path-pure-posix", 'pathlib.PurePosixPath("/a/b")', ext(15, b"\x92\x00" + text("/a/b"))),
        ("path-pure-windows", 'pathlib.PureWindowsPath("c:/a")', ext(15, b"\x92\x01" + text("c:\\a"))),
        ("path-posix", 'pathlib.PosixPath("a")', ext(15, "92 02 a161")),
        *(
            (f"ip-{kind}", f'ipaddress.{cls}("{address}")', ext(16, bytes([0x92, kind]) + text(address)))
            for kind, (cls, address) in enumerate(
                [
                    ("IPv4Address", "10.0.0.1"),
                    ("IPv6Address", "fe80::1%eth0"),
                    ("IPv4Network", "10.0.0.0/8"),
                    ("IPv6Network", "fe80::/10"),
                    ("IPv4Interface", "10.0.0.1/8"),
                    ("IPv6Interface", "fe80::1/10"),
                ]
            )
        ),
        ("range", "range(1, 10, 2)", ext(17, "93 01 0a 02")),
        ("range-beyond-64-bits", "range(0, 2**64, -1)", ext(17, b"\x93\x00" + ext(4, "01 0000000000000000") + b"\xff")),
        ("slice", "slice(1, None)", ext(18, "93 01 c0 c0")),
        ("slice-of-anything", 'slice("a", [1])', ext(18, "93 a161 9101 c0")),
        ("enum", "Color.red", ext(19, b"\x92" + text(name("Color")) + text("red"))),
        ("flag", "Access.read ^ Access.write", ext(19, b"\x92" + text(name("Access")) + b"\x03")),
        ("namedtuple", "Pair(1, 2)", ext(20, b"\x92" + text(name("Pair")) + b"\x92\x01\x02")),
        ("dataclass", "Point(1, 2)", ext(21, b"\x92" + text(name("Point")) + b"\x82\xa1x\x01\xa1y\x02")),
        ("object", "Money(500)", ext(22, b"\x92" + text(name("Money")) + b"\xcd\x01\xf4")),
        ("array", 'np.array([1, 2, 3], "u1")', ext(23, b"\x93" + text("|u1") + b"\xa1C\x91\x03\x01\x02\x03")),
        (
            "array-fortran",
            'np.array([[1, 2], [3, 4]], "u1", order="F")',
            ext(23, b"\x93" + text("|u1") + b"\xa1F\x92\x02\x02\x01\x03\x02\x04"),
        ),
        ("array-0-dimensions", 'np.array(5, ">i2")', ext(23, b"\x93" + text(">i2") + b"\xa1C\x90\x00\x05")),
        ("array-empty", 'np.zeros((2, 0), "<f8")', ext(23, b"\x93" + text("<f8") + b"\xa1C\x92\x02\x00")),
        ("array-text", 'np.array(["a"], "<U2")', ext(23, b"\x93" + text("<U2") + b"\xa1C\x91\x01" + b"a" + bytes(7))),
        ("array-dates", 'np.array([1], "<M8[D]")', ext(23, b"\x93" + text("<M8[D]") + b"\xa1C\x91\x01\x01" + bytes(7))),
        (
            "array-records",
            'np.array([(1, [0.0, 0.0])], dtype=[("a", "<i4"), ("b", ">f8", (2,))])',
            ext(23, b"\x93" + record + b"\xa1C\x91\x01\x01" + bytes(19)),
        ),
        ("array-aligned", '[None, np.zeros(4096, "u1")]', aligned),
        ("scalar", "np.float32(1.5)", ext(24, b"\x92" + text("<f4") + b"\xc4\x04\x00\x00\xc0\x3f")),
        ("scalar-bool", "np.bool_(True)", ext(24, b"\x92" + text("|b1") + b"\xc4\x01\x01")),
        (
            "scalar-nat",
            'np.datetime64("NaT", "s")',
            ext(24, b"\x92" + text("<M8[s]") + b"\xc4\x08" + bytes(7) + b"\x80"),
        ),
        ("scalar-str", 'np.str_("é")', ext(24, "92 a155 a2c3a9")),
        ("scalar-bytes", 'np.bytes_(b"x")', ext(24, "92 a153 c40178")),
    ]
    return valid(cases, plain=False)


def msgpack_other() -> list[dict[str, Any]]:
    """Return what readers take and framecache writes otherwise."""
    one = b"\x93" + text("|u1") + b"\xa1C\x91\x01"
    plain: list[tuple[str, str, str | bytes]] = [
        ("uint-8-not-shortest", "5", "cc 05"),
        ("uint-16-not-shortest", "5", "cd 0005"),
        ("uint-32-not-shortest", "5", "ce 00000005"),
        ("uint-64-not-shortest", "5", "cf 0000000000000005"),
        ("int-8-not-shortest", "5", "d0 05"),
        ("int-16-not-shortest", "-5", "d1 fffb"),
        ("int-32-not-shortest", "-5", "d2 fffffffb"),
        ("int-64-not-shortest", "-5", "d3 fffffffffffffffb"),
        ("float-32", "1.5", "ca 3fc00000"),
        ("float-32-nan", 'float("nan")', "ca 7fc00000"),
        ("str-8-not-shortest", '"a"', "d9 01 61"),
        ("str-16-not-shortest", '"a"', "da 0001 61"),
        ("str-32-not-shortest", '"a"', "db 00000001 61"),
        ("bin-16-not-shortest", 'b"x"', "c5 0001 78"),
        ("bin-32-not-shortest", 'b"x"', "c6 00000001 78"),
        ("array-16-not-shortest", "[1]", "dc 0001 01"),
        ("array-32-not-shortest", "[1]", "dd 00000001 01"),
        ("map-16-not-shortest", "{1: 2}", "de 0001 01 02"),
        ("map-32-not-shortest", '{"a": 2}', "df 00000001 a161 02"),
        ("key-not-shortest", '{"a": 2}', "81 db 00000001 61 02"),
        ("last-value-wins", '{"a": 3, "b": 2}', "83 a161 01 a162 02 a161 03"),
        ("last-value-of-equal-keys-wins", "{1: 3}", "82 01 02 cb3ff0000000000000 03"),
        ("many-equal-str-keys", '{"a": 2}', b"\xde\x00\x41" + b"\xa1a\x02" * 65),
        ("64-equal-keys", "{1: 2}", b"\xde\x00\x40" + b"\x01\x02" * 64),
    ]
    python: list[tuple[str, str, str | bytes]] = [
        ("tuple-fixext", "()", "d4 01 90"),
        ("tuple-ext-16", "()", "c8 0001 01 90"),
        ("tuple-ext-32-not-shortest", "()", "c9 00000001 01 90"),
        ("tuple-array-32", "(1,)", ext(1, "dd 00000001 01")),
        ("set-of-equal-items", "{1}", ext(2, "92 01 01")),
        ("int-of-one-byte", "-5", "d4 04 fb"),
        ("int-not-shortest", "2**64", ext(4, "0000 01 0000000000000000")),
        ("surrogates-without-any", '"a"', "d4 05 61"),
        ("bytearray-ext-8", 'bytearray(b"x")', ext(6, "78")),
        ("array-padded", 'np.array([5], "u1")', ext(23, one + bytes(63) + b"\x05")),
        ("array-native-order", 'np.array([0], "=i2")', ext(23, b"\x93" + text("=i2") + b"\xa1C\x91\x01" + bytes(2))),
        (
            "dataclass-in-another-order",
            "Point(1, 2)",
            ext(21, b"\x92" + text("example:Point") + b"\x82\xa1y\x02\xa1x\x01"),
        ),
    ]
    return valid(plain, plain=True, writer="other") + valid(python, plain=False, writer="other")


def msgpack_invalid() -> list[dict[str, Any]]:
    """Return what both kinds refuse to read."""
    moment = "07e80102 030405000006"
    one = b"\x93" + text("|u1") + b"\xa1C\x91\x01"
    point = b"\x92" + text("example:Point")
    cases: list[tuple[str, str | bytes]] = [
        ("empty", ""),
        ("c1", "c1"),
        ("trailing", "c0 c0"),
        *((f"cut-{marker:02x}", bytes([marker])) for marker in [0x81, 0x91, 0xA1, *range(0xC4, 0xE0)]),
        ("str-huge", "db ffffffff"),
        ("bin-huge", "c6 ffffffff 00"),
        ("array-huge", "dd ffffffff 00"),
        ("map-huge", "df ffffffff 00 00"),
        ("ext-huge", "c9 ffffffff 01 90"),
        ("map-odd", "81 01"),
        ("str-not-utf-8", "a1 ff"),
        ("str-surrogate", "a3 eda080"),
        ("str-overlong", "a2 c080"),
        ("key-not-utf-8", "81 a1 ff c0"),
        ("key-list", "81 90 c0"),
        ("65-equal-keys", b"\xde\x00\x41" + b"\x01\x02" * 65),
        ("depth-1025", b"\x91" * 1024 + b"\x90"),
        ("code-0", "d4 00 00"),
        ("code-25", "d4 19 00"),
        ("code-63", "d4 3f 00"),
        ("code-64-without-hook", "d4 40 00"),
        ("code-minus-1-without-hook", "d6 ff 00000000"),
        ("tuple-empty-payload", ext(1, "")),
        ("tuple-of-a-map", ext(1, "80")),
        ("tuple-too-long", ext(1, "90 00")),
        ("tuple-past-its-end", b"\x92" + ext(1, "92 01") + b"\x02"),
        ("set-of-a-list", ext(2, "91 90")),
        ("set-of-65-equal-items", ext(2, b"\xdc\x00\x41" + b"\x01" * 65)),
        ("frozenset-of-nil", ext(3, "c0")),
        ("int-empty", ext(4, "")),
        ("int-4097-bytes", b"\xc8\x10\x01\x04" + bytes(4097)),
        ("surrogates-not-utf-8", "d4 05 ff"),
        ("complex-short", ext(7, bytes(15))),
        ("complex-long", ext(7, bytes(17))),
        ("decimal-empty", ext(8, "")),
        ("decimal-underscore", ext(8, b"1_0")),
        ("decimal-space", ext(8, b" 1")),
        ("decimal-word", ext(8, b"aN")),
        ("decimal-other-digits", ext(8, "\u0661".encode())),
        ("decimal-4097", b"\xc8\x10\x01\x08" + b"1" * 4097),
        ("fraction-not-lowest", ext(9, "92 02 04")),
        ("fraction-negative-denominator", ext(9, "92 01 fd")),
        ("fraction-zero", ext(9, "92 01 00")),
        ("fraction-bool", ext(9, "92 c3 02")),
        ("fraction-of-three", ext(9, "93 01 02 03")),
        ("datetime-short", ext(10, "07e80102 0304050000")),
        ("datetime-month-13", ext(10, "07e80d02 030405000006")),
        ("datetime-hour-24", ext(10, "07e80102 180405000006")),
        ("datetime-year-0", ext(10, "00000102 030405000006")),
        ("datetime-microsecond", ext(10, "07e80102 0304050f4240")),
        ("datetime-zone-bool", ext(10, moment + "c3")),
        ("datetime-zone-float", ext(10, moment + "92 cb3ff0000000000000 00")),
        ("datetime-zone-24-hours", ext(10, moment + "92 ce00015180 00")),
        ("datetime-zone-unknown", ext(10, bytes.fromhex(moment) + text("No/Where"))),
        ("datetime-zone-a-path", ext(10, bytes.fromhex(moment) + text("../../etc/passwd"))),
        ("datetime-two-zones", ext(10, moment + "c0 c0")),
        ("date-day-0", "d6 0b 07e80100"),
        ("date-30-february", "d6 0b 07e8021e"),
        ("time-minute-60", ext(12, "033c05000006")),
        ("timedelta-short", ext(13, bytes(11))),
        ("timedelta-days", ext(13, "3b9aca00 00000000 00000000")),
        ("timedelta-seconds", ext(13, "00000000 00015180 00000000")),
        ("timedelta-microseconds", ext(13, "00000000 00000000 ffffffff")),
        ("uuid-short", ext(14, bytes(15))),
        ("uuid-safety", ext(14, bytes(16) + b"\x05")),
        ("uuid-long", ext(14, bytes(18))),
        ("path-kind", ext(15, "92 04 a161")),
        ("path-kind-negative", ext(15, "92 ff a161")),
        ("path-bytes", ext(15, "92 00 c40161")),
        ("ip-kind", ext(16, "92 06 a161")),
        ("ip-text", ext(16, "92 00 a161")),
        ("ip-host-bits", ext(16, b"\x92\x02" + text("10.0.0.1/8"))),
        ("range-step-0", ext(17, "93 01 02 00")),
        ("range-float", ext(17, "93 01 cb3ff0000000000000 01")),
        ("range-of-two", ext(17, "92 01 02")),
        ("slice-of-four", ext(18, "94 c0 c0 c0 c0")),
        ("enum-unregistered", ext(19, b"\x92" + text("example:Nobody") + b"\xa1a")),
        ("enum-no-member", ext(19, b"\x92" + text("example:Color") + b"\xa1a")),
        ("enum-name-int", ext(19, "92 01 02")),
        ("enum-of-three", ext(19, b"\x93" + text("example:Color") + text("red") + b"\xc0")),
        ("flag-no-value", ext(19, b"\x92" + text("example:Access") + b"\x08")),
        ("namedtuple-of-three", ext(20, b"\x92" + text("example:Pair") + b"\x93\x01\x02\x03")),
        ("namedtuple-of-another-kind", ext(20, point + b"\x92\x01\x02")),
        ("dataclass-missing", ext(21, point + b"\x81\xa1x\x01")),
        ("dataclass-unknown", ext(21, point + b"\x82\xa1x\x01\xa1z\x02")),
        ("dataclass-twice", ext(21, point + b"\x82\xa1x\x01\xa1x\x02")),
        ("object-unregistered", ext(22, "92 a161 c0")),
        ("array-padding-64", ext(23, one + bytes(64) + b"\x05")),
        ("array-padding-not-zero", ext(23, one + b"\x05\x05")),
        ("array-short", ext(23, one)),
        ("array-order", ext(23, b"\x93" + text("|u1") + b"\xa1A\x91\x01\x05")),
        ("array-negative-shape", ext(23, b"\x93" + text("|u1") + b"\xa1C\x91\xff")),
        ("array-huge-shape", ext(23, b"\x93" + text("|u1") + b"\xa1C\x92" + (b"\xcf\x7f" + b"\xff" * 7) * 2)),
        ("array-objects", ext(23, b"\x93" + text("|O") + b"\xa1C\x90" + bytes(8))),
        ("array-of-two", ext(23, b"\x92" + text("|u1") + b"\xa1C")),
        ("scalar-short", ext(24, b"\x92" + text("<f4") + b"\xc4\x03" + bytes(3))),
        ("scalar-objects", ext(24, b"\x92" + text("|O8") + b"\xc4\x08" + bytes(8))),
        ("scalar-str-of-bytes", ext(24, "92 a155 c40178")),
    ]
    return [{"name": f"invalid-{name}", "hex": spelled(data), "error": True} for name, data in cases]


if __name__ == "__main__":
    main()
