"""Write ``store-rows.jsonl``: rows of the index of a store.

Run it in any directory: ``python proto-docs/vectors/make_store.py``. Equal input gives an equal file, byte for byte. It
builds every row from ``../store.md`` alone, with nothing of framecache, so that the vectors can contradict the code.
What a store draws at random is fixed here. It needs ``blake3`` and ``xxhash``.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import xxhash
from blake3 import blake3

HERE = Path(__file__).parent
#: 2023-11-14 22:13:20 UTC in milliseconds.
CREATED = 1_700_000_000_000
NEVER = 2**64 - 1
#: What a store draws.
FENCE = 0x0807060504030201
STAMPS = {"daily": 0x1122334455667788, "prices": 0x99AABBCCDDEEFF00}
BLOB = bytes(range(16))
#: Process 4242, which started 123456 clock ticks after the machine.
OWNER = struct.pack(">IQ", 4242, 123_456)


def main() -> None:
    """Write the file."""
    lines = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in rows())
    (HERE / "store-rows.jsonl").write_text(lines, encoding="ascii")


def rows() -> list[dict[str, Any]]:
    """Return one vector a row."""
    large = bytes(range(250)) * 40
    size = 10_128  # of its frame
    users = {"namespace": "users"}
    return [
        entry("inline", "greeting", b"hello", until=CREATED + 60_000),
        entry("no-end", "greeting", b"hello"),
        entry("empty", "", b""),
        entry("unicode-key", "Zürich/東京 🦀", b"x"),
        entry("earlier-deadline", "greeting", b"hello", until=CREATED + 60_000, deadline=CREATED + 1000),
        entry("namespace", "42", b"Ada", **users),
        entry("tags", "42", b"Ada", tags=["daily", "prices"], **users),
        entry("cleared-namespace", "42", b"Ada", namespace_stamp=0x0123456789ABCDEF, **users),
        entry("blob", "large", large, blob=BLOB),
        entry("blob-with-all", "large", large, blob=BLOB, until=CREATED + 60_000, tags=["daily"], **users),
        foreign("given-frame", "greeting", bytes.fromhex("434b030000000c7b2273223a22726177227d20") + b"hello"),
        other("end", "end", struct.pack(">Q", CREATED + 60_000) + name_of("greeting"), b"", key="greeting"),
        other("blob-row", "blob", BLOB, name_of("large") + struct.pack("<Q", size), key="large", size=size),
        other("tag", "tag", tag_of("users", "daily"), struct.pack("<Q", STAMPS["daily"]), tag="daily", **users),
        other("tag-no-namespace", "tag", tag_of("", "daily"), struct.pack("<Q", 1), tag="daily", namespace=""),
        other("namespace-row", "namespace", space_of("users"), struct.pack("<Q", 0x0123456789ABCDEF), **users),
        other("no-namespace-row", "namespace", space_of(""), struct.pack("<Q", 1), namespace=""),
        other(
            "lease",
            "lease",
            name_of("greeting"),
            OWNER + struct.pack("<QQ", CREATED + 5000, 7),
            **{"key": "greeting", "pid": 4242, "started": 123_456, "expires": CREATED + 5000, "token": 7},
        ),
        other(
            "reservation",
            "reservation",
            OWNER + struct.pack(">Q", 3),
            struct.pack("<Q", size),
            **{"pid": 4242, "started": 123_456, "count": 3, "size": size},
        ),
        other("totals", "totals", b"", struct.pack("<QQQ", size, 0, 1), linked=size, reserved=0, blobs=1),
    ]


def entry(
    name: str,
    key: str,
    payload: bytes,
    *,
    namespace: str = "",
    until: int | None = None,
    deadline: int | None = None,
    tags: list[str] | None = None,
    namespace_stamp: int = 0,
    blob: bytes | None = None,
) -> dict[str, Any]:
    """Return the row of an entry that framecache's store made of `payload`."""
    metadata = {"key": key, "length": len(payload), "created": CREATED}
    metadata |= {} if until is None else {"until": until}
    # Everything but `py` has a space after comma and colon.
    rest = json.dumps(metadata, ensure_ascii=False)
    header = f'{{"s": "raw", "v": "2.0", "m": {{"py": {{"type":"bytes"}}, {rest[1:]}}}'.encode()
    header += b" " * (-(7 + len(header)) % 64)
    frame = b"CK\x03" + struct.pack(">I", len(header)) + header + payload
    deadline = until if deadline is None else deadline
    stamps = [(tag, STAMPS[tag]) for tag in tags or []]
    fields = {
        "key": key,
        "namespace": namespace,
        "created": CREATED,
        "deadline": deadline,
        "until": until,
        "namespace_stamp": namespace_stamp,
        "blob": blob and blob.hex(),
        "tags": [list(stamp) for stamp in stamps],
        "own_header": True,
    }
    return entry_row(name, fields, frame)


def foreign(name: str, key: str, frame: bytes) -> dict[str, Any]:
    """Return the row of a frame that was given whole."""
    fields = {"key": key, "namespace": "", "created": CREATED, "deadline": None, "until": None}
    return entry_row(name, fields | {"namespace_stamp": 0, "blob": None, "tags": [], "own_header": False}, frame)


def entry_row(name: str, fields: dict[str, Any], frame: bytes) -> dict[str, Any]:
    """Return the row that says `fields` of `frame`."""
    key, namespace, blob = fields["key"].encode(), fields["namespace"].encode(), fields["blob"]
    fields |= {"size": len(frame), "fence": FENCE, "frame_hex": frame.hex()}
    fields |= {"checksum": xxhash.xxh3_64_intdigest(frame), "checked": len(frame)} if blob else {}
    row = struct.pack("<BBHH2x", 1, bool(blob) | fields["own_header"] << 1, len(fields["tags"]), len(namespace))
    row += struct.pack(
        "<QQQ", CREATED, *(NEVER if fields[end] is None else fields[end] for end in ("deadline", "until"))
    )
    row += struct.pack("<QQQ", len(frame), FENCE, fields["namespace_stamp"])
    row += bytes.fromhex(blob) if blob else bytes(16)
    row += struct.pack("<QQI4x", fields.get("checksum", 0), fields.get("checked", 0), len(key))
    for tag, stamp in fields["tags"]:
        row += tag_of(fields["namespace"], tag) + struct.pack("<Q", stamp)
    row += namespace + key + (b"" if blob else frame)
    row = struct.pack("<Q", xxhash.xxh3_64_intdigest(row)) + row
    return vector(name, "entry", name_of(fields["key"], fields["namespace"]), row, fields)


def other(name: str, kind: str, row_key: bytes, row: bytes, **fields: Any) -> dict[str, Any]:
    """Return a row that is no entry's."""
    return vector(name, kind, row_key, row, fields)


def vector(name: str, kind: str, key: bytes, row: bytes, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the vector of a row; its key begins with a letter for its kind."""
    first = {"end": b"x", "totals": b"m"}.get(kind, kind[:1].encode())
    return {"name": name, "kind": kind, "key_hex": (first + key).hex(), "row_hex": row.hex(), **fields}


def name_of(key: str, namespace: str = "") -> bytes:
    """Return the name of a key."""
    if not namespace:
        return bytes(blake3(key.encode()).digest())
    return derived("framecache 2026 key in a namespace", namespace, key.encode())


def space_of(namespace: str) -> bytes:
    """Return the hash of a namespace."""
    return derived("framecache 2026 tag in a namespace", namespace, b"")[:16]


def tag_of(namespace: str, tag: str) -> bytes:
    """Return the hash of a tag."""
    return derived("framecache 2026 tag in a namespace", namespace, b"\0" + tag.encode())[:16]


def derived(context: str, namespace: str, rest: bytes) -> bytes:
    """Return BLAKE3 in its mode that derives keys, of what is in a namespace."""
    text = namespace.encode()
    return bytes(blake3(struct.pack("<I", len(text)) + text + rest, derive_key_context=context).digest())


if __name__ == "__main__":
    main()
