"""The index of a store, read with py-lmdb and by the specification alone: vectors, and what framecache writes."""

import json
import os
import runpy
import struct
from pathlib import Path

import pytest

from framecache import Cache
from framecache._framecache import Store

blake3 = pytest.importorskip("blake3").blake3
lmdb = pytest.importorskip("lmdb")
xxhash = pytest.importorskip("xxhash")

DOCS = Path(__file__).parents[2] / "proto-docs"
VECTORS = [json.loads(line) for line in DOCS.joinpath("vectors/store-rows.jsonl").read_text("ascii").splitlines()]
NEVER = 2**64 - 1
ENTRY = struct.Struct("<Q B B H H 2x Q Q Q Q Q Q 16s Q Q I 4x")


def vectors(*kinds, **fields):
    """Parameters: the vectors of these kinds that have these fields."""
    chosen = [
        vector
        for vector in VECTORS
        if vector["kind"] in kinds and all(vector.get(name) == value for name, value in fields.items())
    ]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["name"])


def index_of(directory):
    """All rows of a store that this process does not have open."""
    options = {"subdir": False, "readonly": True, "lock": False, "max_dbs": 0}
    with lmdb.open(str(directory / "index"), **options) as env, env.begin() as txn:
        return dict(txn.cursor())


def name_of(key, namespace=""):
    if not namespace:
        return blake3(key.encode()).digest()
    text = namespace.encode()
    hashed = blake3(derive_key_context="framecache 2026 key in a namespace")
    return hashed.update(len(text).to_bytes(4, "little")).update(text).update(key.encode()).digest()


def tag_of(tag, namespace):
    text = namespace.encode()
    hashed = blake3(derive_key_context="framecache 2026 tag in a namespace")
    return hashed.update(len(text).to_bytes(4, "little")).update(text).update(b"\0" + tag.encode()).digest()[:16]


def end(moment):
    return None if moment == NEVER else moment


def entry_in(row):
    """What the row of an entry says, in the fields of the vectors but for the tags' names."""
    checksum, version, flags, tag_count, space, *numbers, blob, blob_sum, checked, key = ENTRY.unpack_from(row)
    created, deadline, until, size, fence, namespace_stamp = numbers
    assert checksum == xxhash.xxh3_64_intdigest(row[8:])
    assert version == 1
    assert flags & ~3 == 0
    at = ENTRY.size
    starts = range(at, at + 24 * tag_count, 24)
    tags = [(row[start : start + 16], struct.unpack_from("<Q", row, start + 16)[0]) for start in starts]
    at += 24 * tag_count
    fields = {
        "namespace": row[at : at + space].decode(),
        "key": row[at + space : at + space + key].decode(),
        "created": created,
        "deadline": end(deadline),
        "until": end(until),
        "size": size,
        "fence": fence,
        "namespace_stamp": namespace_stamp,
        "own_header": bool(flags & 2),
    }
    rest = row[at + space + key :]
    if flags & 1:
        assert rest == b""
        return {**fields, "tags": tags, "blob": blob.hex(), "checksum": blob_sum, "checked": checked}
    assert (blob, blob_sum, checked) == (bytes(16), 0, 0)
    return {**fields, "tags": tags, "blob": None, "frame_hex": rest.hex()}


def put(directory, vector):
    """Write the entry of a vector with framecache."""
    store = Store(str(directory), namespace=vector["namespace"])
    frame = bytes.fromhex(vector["frame_hex"])
    if not vector["own_header"]:
        [stored] = store.put_frames([(vector["key"], frame, [])], vector["created"], vector["until"])
        return stored
    payload = frame[7 + int.from_bytes(frame[3:7], "big") :]
    (stored,) = store.put_many(
        [(vector["key"], "raw", payload, {"type": "bytes"})],
        *(vector["created"], vector["until"]),
        deadline=vector["deadline"],
        tags=[tag for tag, _ in vector["tags"]],
    )
    return stored


def with_drawn(row, vector):
    """The row with what was drawn at random replaced by what the vector has."""
    assert len(row) == len(vector["row_hex"]) // 2
    entry = entry_in(row)
    assert len(entry["tags"]) == len(vector["tags"])
    row = bytearray(row)
    struct.pack_into("<Q", row, 48, vector["fence"])
    if entry["namespace_stamp"]:
        struct.pack_into("<Q", row, 56, vector["namespace_stamp"])
    if vector["blob"]:
        row[64:80] = bytes.fromhex(vector["blob"])
    for position, (_, stamp) in enumerate(vector["tags"]):
        struct.pack_into("<Q", row, ENTRY.size + 24 * position + 16, stamp)
    struct.pack_into("<Q", row, 0, xxhash.xxh3_64_intdigest(bytes(row[8:])))
    return bytes(row)


def test_the_vectors_are_what_make_store_writes(tmp_path):
    (tmp_path / "make_store.py").write_bytes((DOCS / "vectors" / "make_store.py").read_bytes())
    runpy.run_path(str(tmp_path / "make_store.py"), run_name="__main__")
    made = (tmp_path / "store-rows.jsonl").read_bytes()
    assert made == (DOCS / "vectors" / "store-rows.jsonl").read_bytes(), "run make_store.py"
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)


@vectors("entry")
def test_a_reader_of_the_specification_reads_the_row_of_an_entry(vector):
    key, found = bytes.fromhex(vector["key_hex"]), entry_in(bytes.fromhex(vector["row_hex"]))
    assert key == b"e" + name_of(vector["key"], vector["namespace"])
    tags = [(tag_of(tag, vector["namespace"]), stamp) for tag, stamp in vector["tags"]]
    assert found.pop("tags") == tags
    assert found == {name: vector[name] for name in found}
    assert len(bytes.fromhex(vector["frame_hex"])) == vector["size"]


@vectors("entry", namespace_stamp=0)
def test_framecache_writes_the_row_of_an_entry(vector, tmp_path):
    directory = tmp_path / "store"
    assert put(directory, vector) == "written"
    rows = index_of(directory)
    row = rows.pop(bytes.fromhex(vector["key_hex"]))
    assert with_drawn(row, vector).hex() == vector["row_hex"]
    entry = entry_in(row)
    assert entry["fence"] != 0
    for tag, stamp in entry["tags"]:
        assert rows.pop(b"t" + tag) == struct.pack("<Q", stamp)
    if (last := vector["until"] or vector["deadline"]) is not None:
        assert rows.pop(b"x" + struct.pack(">Q", last) + name_of(vector["key"], vector["namespace"])) == b""
    if vector["blob"] is not None:
        assert entry["blob"] not in (bytes(16).hex(), vector["blob"])
        assert [path.name for path in directory.joinpath("blobs").iterdir()] == [entry["blob"]]
        assert directory.joinpath("blobs", entry["blob"]).read_bytes().hex() == vector["frame_hex"]
        linked = name_of(vector["key"], vector["namespace"]) + struct.pack("<Q", vector["size"])
        assert rows.pop(b"b" + bytes.fromhex(entry["blob"])) == linked
        assert struct.unpack("<QQQ", rows.pop(b"m")) == (vector["size"], 0, 1)
    assert rows == {}


def test_a_cleared_namespace_has_a_row_and_later_entries_its_stamp(tmp_path):
    (vector,) = [vector for vector in VECTORS if vector["name"] == "cleared-namespace"]
    Store(str(tmp_path / "store"), namespace=vector["namespace"]).clear()
    assert put(tmp_path / "store", vector) == "written"
    rows = index_of(tmp_path / "store")
    (row_key,) = [bytes.fromhex(other["key_hex"]) for other in VECTORS if other["name"] == "namespace-row"]
    (stamp,) = struct.unpack("<Q", rows.pop(row_key))
    row = rows.pop(bytes.fromhex(vector["key_hex"]))
    assert entry_in(row)["namespace_stamp"] == stamp != 0
    assert with_drawn(row, vector).hex() == vector["row_hex"]
    assert rows == {}


@vectors("tag")
def test_framecache_writes_the_row_of_a_tag(vector, tmp_path):
    Store(str(tmp_path / "store"), namespace=vector["namespace"]).invalidate_tags([vector["tag"]], 0)
    ((key, row),) = index_of(tmp_path / "store").items()
    assert (key.hex(), len(row)) == (vector["key_hex"], len(vector["row_hex"]) // 2)


@vectors("namespace")
def test_framecache_writes_the_row_of_a_namespace(vector, tmp_path):
    Store(str(tmp_path / "store"), namespace=vector["namespace"]).clear()
    ((key, row),) = index_of(tmp_path / "store").items()
    assert (key.hex(), len(row)) == (vector["key_hex"], len(vector["row_hex"]) // 2)


@vectors("lease")
def test_framecache_writes_the_row_of_a_lease(vector, tmp_path):
    now = vector["expires"] - 5000
    token = Store(str(tmp_path / "store")).lease(vector["key"], 5000, now)
    ((key, row),) = index_of(tmp_path / "store").items()
    assert key.hex() == vector["key_hex"]
    started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert row == struct.pack(">IQ", os.getpid(), started) + struct.pack("<QQ", vector["expires"], token)
    fixed = struct.pack(">IQ", vector["pid"], vector["started"]) + struct.pack(
        "<QQ", vector["expires"], vector["token"]
    )
    assert fixed.hex() == vector["row_hex"]


def test_a_reader_of_the_specification_reads_a_cache(tmp_path):
    values = {f"key {number}": bytes([number]) * (number * 700) for number in range(30)}
    with Cache(f"file://{tmp_path}/store", namespace="users") as cache:
        for key, value in values.items():
            assert cache.set(key, value, ttl=60, tags=["all"])
        assert cache.delete("key 7")
        del values["key 7"]
    rows, found, linked = index_of(tmp_path / "store"), {}, 0
    for key, value in values.items():
        entry = entry_in(rows[b"e" + name_of(key, "users")])
        assert (entry["key"], entry["namespace"], entry["deadline"]) == (key, "users", entry["created"] + 60_000)
        assert [tag for tag, _ in entry["tags"]] == [tag_of("all", "users")]
        assert rows[b"t" + tag_of("all", "users")] == struct.pack("<Q", entry["tags"][0][1])
        if entry["blob"] is None:
            frame = bytes.fromhex(entry["frame_hex"])
        else:
            frame = (tmp_path / "store" / "blobs" / entry["blob"]).read_bytes()
            assert xxhash.xxh3_64_intdigest(frame[: entry["checked"]]) == entry["checksum"]
            linked += len(frame)
        assert len(frame) == entry["size"]
        found[key] = frame[7 + int.from_bytes(frame[3:7], "big") :]
        assert found[key] == value
    counts = {kind: sum(key[:1] == kind for key in rows) for kind in (b"e", b"x", b"b", b"t", b"m")}
    blobs = len(os.listdir(tmp_path / "store" / "blobs"))
    assert counts == {b"e": 29, b"x": 29, b"b": blobs, b"t": 1, b"m": 1}
    assert struct.unpack("<QQQ", rows[b"m"]) == (linked, 0, blobs)
