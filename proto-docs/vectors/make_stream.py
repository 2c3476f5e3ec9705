"""Write ``stream.jsonl``; ``README.md`` says what its fields mean.

Run it in any directory: ``python proto-docs/vectors/make_stream.py``. Equal input gives equal files, byte for byte. It
builds every stream from the specification alone, with nothing of framecache, LZ4 blocks by hand. Beyond the standard
library it needs ``cryptography``, ``blake3`` and ``xxhash``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from make_encryption import MASTER, PREVIOUS, associated, expand, extract, key_id, name_of, sealing

HERE = Path(__file__).parent
KEY = "tables:1"
SIZE = 4096
END = b"CKstream"


def main() -> None:
    """Write the file."""
    vectors = [*opened(), *refused()]
    if len({vector["name"] for vector in vectors}) != len(vectors):
        raise SystemExit("two vectors of one name")
    text = "".join(json.dumps(vector) + "\n" for vector in vectors)
    (HERE / "stream.jsonl").write_text(text, encoding="ascii")


def run(byte: bytes, length: int) -> bytes:
    """Return an LZ4 block of one byte repeated: a literal, a match at distance 1, five literals."""
    more = length - 6 - 4 - 15
    return b"\x1f" + byte + b"\x01\x00" + b"\xff" * (more // 255) + bytes([more % 255]) + b"\x50" + byte * 5


def framed(text: str) -> bytes:
    """Return prefix, header and padding."""
    data = text.encode()
    data += b" " * (-(7 + len(data)) % 64)
    return b"CK\x03" + len(data).to_bytes(4, "big") + data


def index(header: str, payload: int, chunks: list[tuple[bytes, bool]], *, sealed: bool, compression: int) -> bytes:
    """Return the index of these chunks as they stand in the stream."""
    out = bytes([1, compression, 0, 0]) + SIZE.to_bytes(4, "big") + payload.to_bytes(8, "big")
    out += len(chunks).to_bytes(8, "big") + len(header.encode()).to_bytes(4, "big") + header.encode()
    for data, compressed in chunks:
        out += (len(data) | compressed << 31).to_bytes(4, "big")
        out += b"" if sealed else xxhash.xxh3_64_digest(data)
    return out


def ended(data: bytes) -> bytes:
    """Return the index with the end of the stream."""
    return data + len(data).to_bytes(8, "big") + END


def inner(key: str = KEY) -> str:
    """Return the header of the payload."""
    return json.dumps({"s": "raw", "v": "2.0", "m": {"key": key}}, ensure_ascii=False)


class Stream:
    """A sealed stream in its parts; chunks are pairs of what is encrypted and whether that is compressed."""

    def __init__(
        self,
        payload: int,
        chunks: list[tuple[bytes, bool]],
        *,
        master: bytes = MASTER,
        key: str = KEY,
        tenant: str = "default",
        seed: int = 0,
        inside: str | None = None,
        lengths: list[tuple[bytes, bool]] | None = None,
        last: bool = True,
    ) -> None:
        """Seal all parts; `last`: whether the last chunk is sealed as one."""
        salt, stream = bytes(range(seed, seed + 16)), bytes(range(seed + 50, seed + 82))
        name = name_of(master, tenant, key)
        fields = f'"aad": 4, "kid": "{key_id(master).hex()}", "salt": "{salt.hex()}", "stream": "{stream.hex()}", '
        fields += f'"tenant": "{tenant}", "name": "{name.hex()}", "created": 1700000000000, "until": 1700000060000'
        self.head = framed(f'{{"s": "sealed-stream", "v": "2.0", "m": {{{fields}}}}}')
        both = expand(extract(stream, sealing(master, tenant, salt)[0]), b"stream", 48)
        self.check = both[32:]
        data = associated(tenant, name, self.head)

        def seal(number: int, kind: int, plain: bytes) -> bytes:
            nonce = number.to_bytes(8, "big") + kind.to_bytes(4, "big")
            return AESGCM(both[:32]).encrypt(nonce, plain, data)

        kinds = [int(last and number + 1 == len(chunks)) for number in range(len(chunks))]
        self.chunks = [seal(number, kinds[number], plain) for number, (plain, _) in enumerate(chunks)]
        listed = [(plain + bytes(16), compressed) for plain, compressed in lengths or chunks]
        plain = index(inside or inner(key), payload, listed, sealed=True, compression=1)
        self.index = seal(0, 2, plain)

    def joined(self, order: list[int] | None = None) -> bytes:
        """Return all of it, with the chunks in this order."""
        chunks = self.chunks if order is None else [self.chunks[number] for number in order]
        return self.head + self.check + b"".join(chunks) + ended(self.index)


A, B, C = ((run(byte, SIZE), True) for byte in (b"a", b"b", b"c"))
TEXT = b"the end"
PAYLOAD: dict[str, Any] = {"parts": [["61", SIZE], ["62", SIZE], ["63", SIZE], [TEXT.hex(), 1]]}
LENGTH = 3 * SIZE + len(TEXT)
CHUNKS = [A, B, C, (TEXT, False)]


def vector(name: str, kind: str, data: bytes, *, sealed: bool = True, **fields: Any) -> dict[str, Any]:
    """Return a line."""
    ring = [MASTER.hex(), PREVIOUS.hex()] if sealed else None
    return {"name": name, "kind": kind, "masters": ring, "tenant": "default", "key": KEY, "hex": data.hex(), **fields}


def plain(payload: int, chunks: list[tuple[bytes, bool]], compression: int, header: str | None = None) -> bytes:
    """Return a plain stream."""
    times = '"created": 1700000000000, "until": 1700000060000'
    out = framed(f'{{"s": "stream", "v": "2.0", "m": {{"key": "{KEY}", {times}}}}}') + b"".join(c[0] for c in chunks)
    listed = index(header or inner(), payload, chunks, sealed=False, compression=compression)
    return out + ended(listed + xxhash.xxh3_128_digest(listed))


def opened() -> Iterator[dict[str, Any]]:
    """Yield what is read."""
    yield vector("sealed", "opened", Stream(LENGTH, CHUNKS).joined(), payload=PAYLOAD)
    yield vector("sealed-empty", "opened", Stream(0, []).joined(), payload={"parts": []})
    under = Stream(LENGTH, CHUNKS, master=PREVIOUS, seed=7).joined()
    yield vector("sealed-under-previous", "opened", under, payload=PAYLOAD)
    whole = Stream(2 * SIZE, [A, B]).joined()
    yield vector("sealed-whole-chunks", "opened", whole, payload={"parts": [["61", SIZE], ["62", SIZE]]})
    yield vector("plain", "opened", plain(LENGTH, CHUNKS, 1), sealed=False, payload=PAYLOAD)
    yield vector("plain-empty", "opened", plain(0, [], 0), sealed=False, payload={"parts": []})
    short = plain(7, [(TEXT, False)], 0)
    yield vector("plain-not-compressed", "opened", short, sealed=False, payload={"parts": [[TEXT.hex(), 1]]})


def refused() -> Iterator[dict[str, Any]]:
    """Yield what is refused, with the reason; `verify` is the first chunk that is refused where the index is right."""
    good = Stream(LENGTH, CHUNKS)

    def order(name: str, chunks: list[int], reason: str, why: str, **fields: Any) -> dict[str, Any]:
        return vector(f"refused-{name}", "refused", good.joined(chunks), reason=reason, why=why, **fields)

    yield order("dropped-first", [1, 2, 3], "truncated", "the first chunk is missing")
    yield order("dropped", [0, 2, 3], "truncated", "a chunk is missing")
    yield order("dropped-last", [0, 1, 2], "truncated", "the last chunk is missing")
    yield order("twice", [0, 1, 1, 2, 3], "changed", "a chunk stands there twice")
    yield order("reordered", [0, 2, 1, 3], "changed", "two chunks in each other's place", verify=1)
    yield order("repeated", [0, 0, 2, 3], "changed", "a chunk in another one's place", verify=1)
    other = Stream(LENGTH, CHUNKS, seed=100)
    mixed = Stream(LENGTH, CHUNKS)
    mixed.chunks[2] = other.chunks[2]
    why = "a chunk of another stream of the same key"
    yield vector("refused-spliced", "refused", mixed.joined(), reason="changed", why=why, verify=2)
    mixed = Stream(LENGTH, CHUNKS)
    mixed.index = other.index
    yield vector("refused-other-index", "refused", mixed.joined(), reason="changed", why="the index of another stream")
    mixed = Stream(LENGTH, CHUNKS)
    mixed.head = other.head
    yield vector("refused-other-header", "refused", mixed.joined(), reason="wrong_key", why="another stream's header")
    unfinished = Stream(2 * SIZE, [A, B], last=False).joined()
    why = "the last chunk is sealed as one that is followed by others"
    yield vector("refused-not-last", "refused", unfinished, reason="changed", why=why, verify=1)
    data = good.joined()
    for label, cut in [("end", 1), ("end-whole", 16), ("index", 17), ("chunk", len(good.index) + 20)]:
        why = f"the last {cut} bytes are missing"
        yield vector(f"refused-short-{label}", "refused", data[:-cut], reason="truncated", why=why)
    theirs = Stream(LENGTH, CHUNKS, key="tables:2").joined()
    yield vector("refused-name", "refused", theirs, reason="wrong_entry", why="the stream of another key")
    theirs = Stream(LENGTH, CHUNKS, tenant="Default").joined()
    yield vector("refused-tenant", "refused", theirs, reason="wrong_entry", why="the stream of another tenant")
    moved = Stream(LENGTH, CHUNKS, inside=inner("tables:2")).joined()
    yield vector("refused-key-inside", "refused", moved, reason="wrong_entry", why="another key in the index")
    stranger = Stream(LENGTH, CHUNKS, master=bytes(32)).joined()
    yield vector("refused-stranger", "refused", stranger, reason="no_key", why="a key of another keyring")
    early = data.replace(b"1700000060000", b"1700000099999")
    yield vector("refused-until", "refused", early, reason="changed", why="a later end")
    bits = [("check", len(good.head), "wrong_key"), ("padding", len(good.head) - 1, "changed_header")]
    for label, at, reason in [*bits, ("chunk-bit", len(good.head) + 16, "changed")]:
        one = bytearray(data)
        one[at] ^= 1
        verify = {"verify": 0} if label == "chunk-bit" else {}
        yield vector(f"refused-{label}", "refused", bytes(one), reason=reason, why=f"a bit of the {label}", **verify)
    lies = Stream(LENGTH, CHUNKS, lengths=[A, B, C, (TEXT + b"x", False)]).joined()
    yield vector("refused-length", "refused", lies, reason="changed_header", why="an impossible length in the index")
    yield vector("refused-plain", "refused", plain(LENGTH, CHUNKS, 1), reason="not_sealed", why="a plain stream")
    for label, bad, why in [
        ("sealed", data, "a sealed stream"),
        ("chunks", plain(LENGTH, CHUNKS[:3], 1), "fewer chunks than the payload fills"),
        ("compression", plain(LENGTH, CHUNKS, 0), "compressed chunks without an algorithm"),
        ("unknown-compression", plain(LENGTH, CHUNKS, 3), "an unknown algorithm"),
        ("other-key", plain(LENGTH, CHUNKS, 1, inner("tables:2")), "another key in the index"),
        ("cut", plain(LENGTH, CHUNKS, 1)[:-1], "the last byte is missing"),
        ("checksum", plain(LENGTH, CHUNKS, 1).replace(b'"raw"', b'"RAW"'), "the index does not have its checksum"),
    ]:
        yield vector(f"malformed-{label}", "malformed", bad, sealed=False, why=why)


if __name__ == "__main__":
    main()
