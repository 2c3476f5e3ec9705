"""Write ``redis-entries.jsonl``: entries in Redis, and what is none.

Run it in any directory: ``python proto-docs/vectors/make_redis.py``. Equal input gives an equal file, byte for byte. It
writes from ``../redis.md``, ``../store.md`` and ``../frame-v3.md`` alone, with nothing of framecache, so that the
vectors can contradict the code. It needs ``blake3``.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from blake3 import blake3

HERE = Path(__file__).parent
NEVER = (1 << 64) - 1
CREATED = 1_790_000_000_000
STAMP = bytes.fromhex("0123456789abcdef")
ID = bytes.fromhex("fedcba9876543210")


def main() -> None:
    """Write the file."""
    lines = [*entries(), *malformed()]
    if len({line["name"] for line in lines}) != len(lines):
        raise SystemExit("two vectors of one name")
    text = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in lines)
    (HERE / "redis-entries.jsonl").write_text(text, encoding="ascii")


def digest(context: str, namespace: str, rest: bytes = b"") -> bytes:
    """Return a hash that is apart for each namespace."""
    start = namespace.encode()
    return blake3(struct.pack("<I", len(start)) + start + rest, derive_key_context=context).digest()


def names(namespace: str, key: str, tags: list[str]) -> dict[str, Any]:
    """Return the names that stand for a key and tags."""
    space = digest("framecache 2026 tag in a namespace", namespace)[:16].hex()
    plain = blake3(key.encode()).digest()
    name = (digest("framecache 2026 key in a namespace", namespace, key.encode()) if namespace else plain)[:20].hex()
    return {
        "entry": f"fc:{space}:{{{name}}}",
        "generation": f"fc:{space}:g",
        "stamps": [f"fc:{space}:t:{{{tag_of(namespace, tag).hex()}}}" for tag in tags],
        "fence": f"fcf:{space}:{{{name}}}",
        "lease": f"fcl:{space}:{{{name}}}",
    }


def tag_of(namespace: str, tag: str) -> bytes:
    """Return the hash of a tag."""
    return digest("framecache 2026 tag in a namespace", namespace, b"\0" + tag.encode())[:16]


def head(deadline: int | None, until: int | None, tags: list[tuple[bytes, bytes]]) -> bytes:
    """Return a head."""
    ends = [NEVER if end is None else end for end in (deadline, until)]
    length = -(-(52 + 24 * len(tags)) // 64) * 64
    fixed = struct.pack(">4sIQQQ8s8sI", b"fcr1", length, *ends, CREATED, STAMP, ID, len(tags))
    return (fixed + b"".join(tag + stamp for tag, stamp in tags)).ljust(length, b"\0")


def frame(codec: str, metadata: dict[str, Any], payload: bytes) -> bytes:
    """Return a frame."""
    # As framecache writes it: spaces after separators, but none in `m.py`.
    fields = (
        f'"{name}": {json.dumps(value, ensure_ascii=False, separators=(",", ":"))}' for name, value in metadata.items()
    )
    header = f'{{"s": "{codec}", "v": "2.0", "m": {{{", ".join(fields)}}}}}'.encode()
    header = header.ljust(-(-(7 + len(header)) // 64) * 64 - 7)
    return b"CK\x03" + struct.pack(">I", len(header)) + header + payload


def entries() -> list[dict[str, Any]]:
    """Return entries that are read, and are written so."""
    kinds = [
        ("plain", "", "greeting", [], None, None, b"hello"),
        ("empty value", "", "", [], None, None, b""),
        ("namespace", "users", "user:42", [], CREATED + 1, CREATED + 2, b"\0\xff"),
        ("tags", "users", "user:42", ["a", "b"], None, CREATED + 2, b"tagged"),
        ("tags to the end of the head", "", "k", ["a", "b", "c", "d"], CREATED, CREATED, b"x" * 64),
        ("escapes", "", 'quote " backslash \\ newline \n é', [], None, None, b"text"),
        ("long key", "", "k" * 1000, [], None, None, b"x" * 1000),
    ]
    lines = []
    for name, namespace, key, tags, deadline, until, payload in kinds:
        stamps = [bytes([number + 1]) * 8 for number in range(len(tags))]
        metadata: dict[str, Any] = {"py": {"type": "bytes"}, "key": key, "length": len(payload), "created": CREATED}
        if until is not None:
            metadata["until"] = until
        found = [(tag_of(namespace, tag), stamp) for tag, stamp in zip(tags, stamps, strict=True)]
        line = {"name": name, "kind": "entry", "namespace": namespace, "key": key, "tags": tags}
        line |= {"names": names(namespace, key, tags), "stamp": STAMP.hex(), "id": ID.hex(), "created": CREATED}
        line |= {"stamps": [stamp.hex() for stamp in stamps], "deadline": deadline, "until": until}
        line |= {"payload_hex": payload.hex()}
        line |= {"hex": (head(deadline, until, found) + frame("raw", metadata, payload)).hex()}
        lines.append(line)
    return lines


def malformed() -> list[dict[str, Any]]:
    """Return what stands under the name of ``key``, and is no entry of it."""
    metadata = {"py": {"type": "bytes"}, "key": "key", "length": 5, "created": CREATED}
    plain, whole = head(None, None, []), frame("raw", metadata, b"hello")
    tagged = head(None, None, [(bytes(16), bytes(8))])

    def changed(data: bytes, at: int, to: bytes) -> bytes:
        return data[:at] + to + data[at + len(to) :]

    other = [
        ("nothing", b"", "no head"),
        ("text", b"hello, world", "no head"),
        ("another magic", changed(plain, 0, b"fcr2") + whole, "another magic"),
        ("cut in the head", plain[:51], "cut in the head"),
        ("cut in the tags", tagged[:100], "cut in the head"),
        ("head alone", plain, "no frame"),
        ("length of 48", changed(plain, 4, struct.pack(">I", 48)) + whole, "not the length of a head without tags"),
        ("length of 128", changed(plain, 4, struct.pack(">I", 128)) + bytes(64) + whole, "64 bytes too many"),
        ("more tags than there is room", changed(plain, 48, struct.pack(">I", 4)) + whole, "no room for 4 tags"),
        ("very many tags", changed(plain, 48, struct.pack(">I", NEVER >> 32)) + whole, "more than 1002 tags"),
        ("cut in the header", plain + whole[:20], "cut in the header"),
        ("cut in the payload", plain + whole[:-1], "4 bytes of payload, where the header says 5"),
        ("more payload", plain + whole + b"!", "6 bytes of payload, where the header says 5"),
        ("version 4", plain + changed(whole, 2, b"\x04"), "another version of frames"),
        ("no key", plain + frame("raw", {"length": 5}, b"hello"), "no m.key"),
        ("another key", plain + frame("raw", metadata | {"key": "kez"}, b"hello"), "another m.key"),
        ("no length", plain + frame("raw", {"key": "key"}, b"hello"), "no m.length"),
        ("compressed", plain + frame("raw", metadata | {"compression": "lz4"}, b"hello"), "compressed"),
        ("key of another type", plain + frame("raw", metadata | {"key": 1}, b"hello"), "m.key is no string"),
        ("JSON", plain + b'{"s": "raw"}', "a legacy envelope"),
    ]
    return [
        {"name": name, "kind": "malformed", "key": "key", "hex": data.hex(), "why": why} for name, data, why in other
    ]


if __name__ == "__main__":
    main()
