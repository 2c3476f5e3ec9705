"""Write ``encryption.jsonl``; ``README.md`` says what its fields mean.

Run it in any directory: ``python proto-docs/vectors/make_encryption.py``. Equal input gives equal files, byte for
byte. It builds every sealed frame from the specification alone, with nothing of framecache, so that the vectors can
contradict the code. Beyond the standard library it needs ``cryptography`` (AES-256-GCM) and ``blake3``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).parent
DOMAIN = b"framecache v4"


def main() -> None:
    """Write the file."""
    vectors = [*keys(), *opened(), *refused()]
    if len({vector["name"] for vector in vectors}) != len(vectors):
        raise SystemExit("two vectors of one name")
    text = "".join(json.dumps(vector) + "\n" for vector in vectors)
    (HERE / "encryption.jsonl").write_text(text, encoding="ascii")


def extract(salt: bytes, key: bytes) -> bytes:
    """Return HKDF-Extract with SHA-256 (RFC 5869)."""
    return hmac.digest(salt, key, "sha256")


def expand(extracted: bytes, info: bytes, length: int) -> bytes:
    """Return HKDF-Expand."""
    block = out = b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([count]), "sha256")
        out += block
    return out[:length]


def key_id(master: bytes) -> bytes:
    """Return which master key it is, 16 bytes."""
    return expand(extract(DOMAIN, master), b"key id", 16)


def sealing(master: bytes, tenant: str, salt: bytes) -> tuple[bytes, bytes]:
    """Return the key that seals, and its check."""
    both = expand(extract(DOMAIN + tenant.encode(), master), b"seal" + salt, 48)
    return both[:32], both[32:]


def name_of(master: bytes, tenant: str, key: str, kind: bytes = b"") -> bytes:
    """Return the name of a key, or of a tag with ``kind=b"\\xff"``."""
    names = expand(extract(DOMAIN + tenant.encode(), master), b"names", 32)
    return blake3(kind + key.encode(), key=names).digest()


def header(
    master: bytes,
    tenant: str,
    name: bytes,
    salt: bytes,
    length: int,
    created: int | None,
    until: int | None,
    spaces: int | None = None,
) -> bytes:
    """Return prefix, header and padding, so that what follows the 28 bytes after it starts at a multiple of 64."""
    fields = f'"aad": 4, "kid": "{key_id(master).hex()}", "salt": "{salt.hex()}", "tenant": "{tenant}", '
    fields += f'"name": "{name.hex()}", "length": {length}'
    fields += "" if created is None else f', "created": {created}'
    fields += "" if until is None else f', "until": {until}'
    text = f'{{"s": "sealed", "v": "2.0", "m": {{{fields}}}}}'.encode()
    text += b" " * (-(7 + len(text) + 28) % 64 if spaces is None else spaces)
    return b"CK\x03" + len(text).to_bytes(4, "big") + text


def associated(tenant: str, name: bytes, head: bytes) -> bytes:
    """Return the associated data, version 4."""
    return b"\x04" + b"".join(len(part).to_bytes(4, "big") + part for part in (tenant.encode(), name, head))


def sealed(
    master: bytes,
    key: str,
    inner: bytes,
    *,
    tenant: str = "default",
    salt: bytes = bytes(range(16)),
    nonce: bytes = bytes(range(100, 112)),
    created: int | None = 1_700_000_000_000,
    until: int | None = 1_700_000_060_000,
    name: bytes | None = None,
    spaces: int | None = None,
) -> bytes:
    """Return a sealed frame."""
    name = name_of(master, tenant, key) if name is None else name
    head = header(master, tenant, name, salt, len(inner) + 44, created, until, spaces)
    secret, check = sealing(master, tenant, salt)
    return head + check + nonce + AESGCM(secret).encrypt(nonce, inner, associated(tenant, name, head))


def frame(key: str, payload: bytes, codec: str = "raw", python: str = '{"type":"bytes"}') -> bytes:
    """Return a frame as framecache writes it: what is sealed."""
    text = f'{{"s": "{codec}", "v": "2.0", "m": {{"py": {python}, "key": {json.dumps(key, ensure_ascii=False)}, '
    text = (text + f'"length": {len(payload)}}}}}').encode()
    text += b" " * (-(7 + len(text)) % 64)
    return b"CK\x03" + len(text).to_bytes(4, "big") + text + payload


MASTER = hashlib.sha256(b"framecache master").digest()
PREVIOUS = hashlib.sha256(b"framecache previous").digest()
LONG = hashlib.shake_256(b"framecache long").digest(1024)


def keys() -> Iterator[dict[str, Any]]:
    """Yield what is derived from master keys."""
    for label, master, tenant in [
        ("default", MASTER, "default"),
        ("other-tenant", MASTER, "acme GmbH & Söhne"),
        ("long-master", LONG, "x" * 256),
    ]:
        salt = hashlib.sha256(label.encode()).digest()[:16]
        secret, check = sealing(master, tenant, salt)
        yield {
            "name": f"keys-{label}",
            "kind": "keys",
            "master": master.hex(),
            "tenant": tenant,
            "salt": salt.hex(),
            "key_id": key_id(master).hex(),
            "sealing_key": secret.hex(),
            "check": check.hex(),
            "names": {key: name_of(master, tenant, key).hex() for key in ("", "users:42", "ключ")},
            "tag_names": {tag: name_of(master, tenant, tag, b"\xff").hex() for tag in ("", "users:42")},
        }


def vector(name: str, kind: str, data: bytes, key: str = "users:42", **fields: Any) -> dict[str, Any]:
    """Return a line."""
    ring = [MASTER.hex(), PREVIOUS.hex()]
    return {"name": name, "kind": kind, "masters": ring, "tenant": "default", "key": key, "hex": data.hex(), **fields}


def opened() -> Iterator[dict[str, Any]]:
    """Yield what is opened."""
    for label, key, payload in [
        ("bytes", "users:42", b"jane@example.org"),
        ("empty", "", b""),
        ("unicode-key", "Zoë \U0001f5dd", b"x" * 64),
        ("1000-bytes", "users:42", bytes(range(250)) * 4),
    ]:
        inner = frame(key, payload)
        data = sealed(MASTER, key, inner)
        times = {"created": 1_700_000_000_000, "until": 1_700_000_060_000}
        yield vector(f"opened-{label}", "opened", data, key, inner_hex=inner.hex(), payload_hex=payload.hex(), **times)
    inner = frame("users:42", b"old")
    plain = {"inner_hex": inner.hex(), "payload_hex": b"old".hex(), "created": None, "until": None}
    data = sealed(PREVIOUS, "users:42", inner, created=None, until=None)
    yield vector("opened-under-previous", "opened", data, **plain)
    data = sealed(MASTER, "users:42", inner, tenant="acme", created=None, until=None)
    yield {**vector("opened-other-tenant", "opened", data, **plain), "tenant": "acme"}
    bare = sealed(MASTER, "users:42", inner, created=None, until=None, spaces=0).index(b"}}") + 2
    data = sealed(MASTER, "users:42", inner, created=None, until=None, spaces=-(bare + 28) % 64 + 64)
    yield vector("opened-more-padding", "opened", data, **plain)
    data = sealed(MASTER, "users:42", inner, created=0, until=2**64 - 1)
    yield vector("opened-longest-time", "opened", data, **{**plain, "created": 0, "until": 2**64 - 1})


def refused() -> Iterator[dict[str, Any]]:
    """Yield what is refused, with the reason."""
    inner = frame("users:42", b"jane@example.org")
    good = sealed(MASTER, "users:42", inner)
    payload = good.index(b"}}") + 2
    payload += len(good[payload:]) - len(good[payload:].lstrip(b" "))
    assert len(good) - payload == len(inner) + 44

    def changed(name: str, at: int, reason: str, why: str) -> dict[str, Any]:
        data = bytearray(good)
        data[at] ^= 1
        return vector(f"refused-{name}", "refused", bytes(data), reason=reason, why=why)

    def swapped(name: str, old: bytes, new: bytes, reason: str, why: str, data: bytes = good) -> dict[str, Any]:
        assert (data.count(old), len(old)) == (1, len(new))
        return vector(f"refused-{name}", "refused", data.replace(old, new), reason=reason, why=why)

    yield changed("check", payload, "wrong_key", "a bit of the check")
    yield changed("nonce", payload + 16, "changed", "a bit of the nonce")
    yield changed("ciphertext", payload + 28, "changed", "a bit of the ciphertext")
    yield changed("tag", len(good) - 1, "changed", "a bit of the tag")
    yield changed("padding", payload - 1, "changed_header", "a byte of padding that is no space")
    yield swapped("until", b"1700000060000", b"1700000099999", "changed", "a later end")
    yield swapped("created", b"1700000000000", b"1700000000001", "changed", "another time")
    yield swapped("salt", bytes(range(16)).hex().encode(), b"0" * 32, "wrong_key", "another salt")
    ids = [key_id(master).hex().encode() for master in (MASTER, PREVIOUS)]
    yield swapped("other-key-id", *ids, "wrong_key", "the id of another key of the keyring")
    yield swapped("unknown-key-id", ids[0], b"0" * 32, "no_key", "the id of no key of the keyring")
    yield swapped("version", b'"aad": 4', b'"aad": 5', "changed_header", "another version of the associated data")
    yield swapped("field", b'"created"', b'"kreated"', "changed_header", "a field that sealing does not write")
    yield swapped("leading-zero", b'"created": 1', b'"created": 0', "changed_header", "a number with a leading zero")
    yield swapped("codec", b'"sealed"', b'"secret"', "not_sealed", "another codec")
    theirs = sealed(MASTER, "users:42", inner, tenant="Default")
    yield vector("refused-tenant", "refused", theirs, reason="wrong_entry", why="the entry of another tenant")
    yield swapped("tenant-renamed", b'"Default"', b'"default"', "wrong_key", "that, renamed", theirs)
    other = sealed(MASTER, "users:43", frame("users:43", b"john@example.org"))
    yield vector("refused-name", "refused", other, reason="wrong_entry", why="the entry of another key")
    names = [name_of(MASTER, "default", key).hex().encode() for key in ("users:43", "users:42")]
    yield swapped("name-renamed", *names, "changed", "that, renamed", other)
    moved = sealed(MASTER, "", frame("users:43", b"x"), name=name_of(MASTER, "default", "users:42"))
    yield vector("refused-key-inside", "refused", moved, reason="wrong_entry", why="another key inside")
    for label, cut in [("tag", 1), ("ciphertext", 17), ("payload", len(good) - payload), ("header", len(good) - 100)]:
        why = f"the last {cut} bytes are missing"
        yield vector(f"refused-short-{label}", "refused", good[:-cut], reason="truncated", why=why)
    yield vector("refused-long", "refused", good + b"\0", reason="changed_header", why="a byte too many")
    stranger = sealed(LONG, "users:42", inner)
    yield vector("refused-stranger", "refused", stranger, reason="no_key", why="a key of another keyring")
    for label, data in [("plaintext", inner), ("empty", b""), ("garbage", b"\0" * 400), ("legacy", b'{"data": ""}')]:
        yield vector(f"refused-{label}", "refused", data, reason="not_sealed", why="no sealed frame")


if __name__ == "__main__":
    main()
