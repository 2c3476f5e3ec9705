"""The vectors of proto-docs: every line against framecache, and against cachekit where it is installed."""

import json
import math
import re
import runpy
from pathlib import Path

import pytest

from framecache import Cache, Frame, FrameError, SerializationWrapper
from framecache._framecache import Store
from support import frame_in, put_frame

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "proto-docs"
MIB = 1024 * 1024
WRITERS = {"cachekit", "framecache", "other"}
#: What `unwrap` takes; legacy envelopes may be text too.
SOURCES = [bytes, bytearray, memoryview, Frame, lambda data: memoryview(bytearray(data))]


def lines(file):
    return [json.loads(line) for line in (DOCS / "vectors" / file).read_text(encoding="ascii").splitlines()]


VECTORS = lines("frame-v3.jsonl")


def vectors(*kinds, **fields):
    """Parameters: the vectors of these kinds that have these fields."""
    chosen = [
        vector
        for vector in VECTORS
        if vector["kind"] in kinds and all(vector.get(name) == value for name, value in fields.items())
    ]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["name"])


def same(left, right):
    """Equal in type, order and the sign of zero too."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right and (not isinstance(left, float) or math.copysign(1, left) == math.copysign(1, right))


def agrees(unwrapped, vector):
    payload, metadata, serializer = unwrapped
    assert bytes(payload) == bytes.fromhex(vector["payload_hex"])
    assert same(dict(metadata), vector["metadata"])
    assert serializer == vector["serializer"]


def written(wrapper, vector):
    """What `wrapper` writes for a vector of cachekit's."""
    payload = bytes.fromhex(vector["payload_hex"])
    arguments = (vector["metadata"], vector["serializer"], vector.get("version", "2.0"))
    if "align" not in vector:
        return wrapper.wrap(payload, *arguments)
    return wrapper.wrap_prefix(*arguments, align=vector["align"], offset=vector["offset"]) + payload


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("cachekit.serializers.wrapper").SerializationWrapper


def test_every_vector_has_the_fields_that_the_readme_names():
    assert len({vector["name"] for vector in VECTORS}) == len(VECTORS)
    for vector in VECTORS:
        fields = set(vector) - {"name", "kind", "hex"}
        if vector["kind"] == "malformed":
            assert fields - {"key"} == {"error_offset", "why"}
        else:
            optional = {"writer", "version", "align", "offset", "value_hex"} if vector["kind"] == "frame" else set()
            assert fields - optional == {"serializer", "metadata", "payload_hex"}
            assert vector.get("writer") in (WRITERS if vector["kind"] == "frame" else {None})


def test_the_files_are_what_the_script_makes(tmp_path):
    pytest.importorskip("blake3")
    made = tmp_path / "make.py"
    for file in ("make.py", "cachekit-entries.jsonl"):
        (tmp_path / file).write_bytes((DOCS / "vectors" / file).read_bytes())
    runpy.run_path(str(made), run_name="__main__")
    for file in ("frame-v3.jsonl", "names.jsonl"):
        assert (tmp_path / file).read_bytes() == (DOCS / "vectors" / file).read_bytes(), f"run make.py for {file}"


@vectors("frame", "legacy")
def test_every_source_of_a_valid_vector_is_read(vector):
    data = bytes.fromhex(vector["hex"])
    for source in SOURCES:
        agrees(SerializationWrapper.unwrap(source(data)), vector)
        # The second and third time it may come from the memo of headers.
        for _ in range(3):
            agrees(SerializationWrapper.unwrap_metadata(source(data)), vector)
    if vector["kind"] == "legacy":
        agrees(SerializationWrapper.unwrap(data.decode()), vector)


@vectors("frame", writer="cachekit")
def test_frames_of_cachekit_are_written_byte_for_byte(vector):
    assert written(SerializationWrapper, vector).hex() == vector["hex"]


@vectors("frame", writer="framecache")
def test_entries_of_framecache_are_written_byte_for_byte(vector, tmp_path, monkeypatch):
    metadata, payload = vector["metadata"], bytes.fromhex(vector["payload_hex"])
    python, key, created = metadata["py"], metadata["key"], metadata["created"]
    value = {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}[python["type"]](payload)
    if "format" in python:
        value = value.cast(python["format"], python["shape"])
        assert value.itemsize == python["itemsize"]
    monkeypatch.setattr("framecache._times.SystemClock.time", lambda: created / 1000)
    with Cache(f"file://{tmp_path}/cache") as cache:
        cache.set(key, value, ttl=(metadata["until"] - created) / 1000 if "until" in metadata else None)
        assert frame_in(tmp_path / "cache", key).hex() == vector["hex"]
        found = cache.get(key)
        assert type(found) is type(value)
        assert found == value


@pytest.mark.parametrize("vector", [v for v in VECTORS if "value_hex" in v], ids=lambda vector: vector["name"])
def test_a_compressed_entry_gives_its_value_or_is_undecodable(vector, tmp_path):
    key = vector["metadata"]["key"]
    with Cache(f"file://{tmp_path}/cache") as cache:
        put_frame(tmp_path / "cache", key, bytes.fromhex(vector["hex"]))
        if vector["value_hex"] is None:
            assert cache.get(key, "missing") == "missing"
            assert cache.stats() == {"undecodable": 1}
        else:
            assert cache.get(key) == bytes.fromhex(vector["value_hex"])


@vectors("malformed", key=None)
def test_every_source_of_a_malformed_vector_is_refused(vector):
    data = bytes.fromhex(vector["hex"])
    for source in SOURCES:
        for unwrap in (SerializationWrapper.unwrap, SerializationWrapper.unwrap_metadata):
            with pytest.raises(FrameError, match=rf"at offset {vector['error_offset']}, expected ") as raised:
                unwrap(source(data))
            assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("vector", [v for v in VECTORS if "key" in v], ids=lambda vector: vector["name"])
def test_a_store_refuses_a_malformed_entry(vector, tmp_path):
    store = Store(str(tmp_path / "cache"))
    store.put_frames([(vector["key"], bytes.fromhex(vector["hex"]), [])], 0)
    with pytest.raises(FrameError, match=rf"at offset {vector['error_offset']}, expected "):
        store.look(vector["key"], 0)
    with Cache(f"file://{tmp_path}/cache") as cache:
        assert cache.get(vector["key"], "missing") == "missing"
        assert cache.stats() == {"unreadable": 1}


@vectors("frame", "legacy")
def test_cachekit_reads_the_same(vector, reference):
    agrees(reference.unwrap(bytes.fromhex(vector["hex"])), vector)


@vectors("frame", writer="cachekit")
def test_cachekit_writes_the_same_and_each_reads_the_other(vector, reference):
    theirs, ours = written(reference, vector), written(SerializationWrapper, vector)
    assert theirs.hex() == vector["hex"]
    agrees(SerializationWrapper.unwrap(theirs), vector)
    agrees(reference.unwrap(ours), vector)


def test_a_header_of_1_mib_is_read_and_a_longer_one_is_not_written():
    prefix = SerializationWrapper.wrap_prefix({}, "a", align=MIB + 7)
    assert len(prefix) == MIB + 7
    for source in SOURCES:
        payload, metadata, serializer = SerializationWrapper.unwrap(source(prefix + b"payload"))
        assert (bytes(payload), metadata, serializer) == (b"payload", {}, "a")
    with pytest.raises(ValueError, match="at most 1 MiB"):
        SerializationWrapper.wrap_prefix({}, "a", align=MIB + 8)
    longer = prefix[:3] + (MIB + 1).to_bytes(4, "big") + prefix[7:] + b" payload"
    with pytest.raises(FrameError, match="at offset 3, expected a header of at most 1 MiB"):
        SerializationWrapper.unwrap(longer)


@pytest.mark.parametrize("line", lines("names.jsonl"), ids=lambda line: line["name"][:8])
def test_a_row_has_the_name_of_its_key(line, tmp_path):
    key = line["key"]
    if isinstance(key, dict):
        text, count = key["repeat"]
        key = text * count
    store = Store(str(tmp_path / "cache"))
    store.put_many([(key, "raw", b"value", {"type": "bytes"})], 0)
    assert b"e" + bytes.fromhex(line["name"]) in (tmp_path / "cache" / "index").read_bytes()
    assert store.look(key, 0)[0] == b"value"


def registered():
    """The first cells of frame-v3.md's registry."""
    text = (DOCS / "frame-v3.md").read_text(encoding="utf-8")
    section = text.split("\n## Registry of header fields\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE)


def test_the_registry_names_every_field_that_the_core_reads():
    source = (ROOT / "src/frame/header.rs").read_text(encoding="utf-8").split("#[cfg(test)]")[0]
    header, metadata = source.split("struct HeaderVisitor")[1].split("struct Fields")
    arm = re.compile(r'^\s*"(\w+)"(?: if .+)? => ', re.MULTILINE)
    fields = arm.findall(header) + [f"m.{name}" for name in arm.findall(metadata)]
    assert {"s", "v", "m", "m.key", "m.length"} <= set(fields)
    assert len(registered()) == len(set(registered()))
    assert set(fields) <= set(registered())


def test_the_registry_names_every_field_that_python_reads_and_no_other():
    read = re.compile(r'\bstored(?:\.get\(|\[)"(\w+)"')
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "python/framecache").glob("*.py")]
    fields = {f"m.py.{name}" for source in sources for name in read.findall(source)}
    assert fields == {name for name in registered() if name.startswith("m.py.")}


def test_links_between_the_documents_lead_somewhere():
    for document in [*DOCS.glob("*.md"), *DOCS.glob("vectors/*.md")]:
        for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", document.read_text(encoding="utf-8")):
            file = document.parent / target if target else document
            assert file.is_file(), f"{document.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles]
                assert anchor in slugs, f"{document.name}: {target}#{anchor}"
