"""Compressed entries of a cache: what comes back, what is a miss, and what is refused."""

import json
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import framecache
import framecache.arrow
from framecache import Cache, CopyRequired, DecodeError, InvalidArgument, SerializationWrapper, ValueTooLarge
from support import frame_in, put_frame, traced_peak

MIB = 2**20
ALL = ["lz4", "zstd", "zstd:3", "zstd:12", "auto"]
TEXT = b"INFO request=1234 took=0.123ms\n" * 20_000


@pytest.fixture(params=ALL)
def compressing(request, directory):
    with Cache(f"file://{directory}", compression=request.param) as opened:
        yield opened


@pytest.fixture
def lz4(directory):
    with Cache(f"file://{directory}", compression="lz4") as opened:
        yield opened


def header_of(directory):
    payload, metadata, _ = SerializationWrapper.unwrap(frame_in(directory, "value"))
    return metadata, bytes(payload)


def rewrite(directory, **changed):
    """Give the one entry other fields in `m`; `None` removes one."""
    payload, metadata, codec = SerializationWrapper.unwrap(frame_in(directory, "value"))
    metadata |= changed
    for name in [name for name, value in metadata.items() if value is None]:
        del metadata[name]
    put_frame(directory, "value", SerializationWrapper.wrap(payload, metadata, codec))


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("value", [b"", b"x", b"x" * 50, TEXT], ids=["nothing", "one byte", "short", "text"])
def test_bytes_come_back_as_what_they_were(compressing, directory, kind, value):
    compressing.set("value", kind(value))
    found = compressing.get("value")
    assert type(found) is kind
    assert found == value
    view = compressing.get("value", views=True)
    assert view.readonly
    assert view == value
    assert view.obj.address % 64 == 0
    if value is TEXT:
        assert len(frame_in(directory, "value")) < len(value) // 2
        assert not view.obj.is_mapped
        assert not view.obj.is_zero_copy
        assert view.obj.is_trusted


def test_the_header_says_what_was_done(compressing, directory):
    compressing.set("value", TEXT)
    metadata, payload = header_of(directory)
    assert metadata["compression"] in ("lz4", "zstd")
    assert metadata["size"] == len(TEXT)
    assert metadata["length"] == len(payload) < len(TEXT)
    assert list(metadata) == ["py", "compression", "key", "length", "size", "created"]


def test_every_reader_reads_every_entry(compressing, directory):
    compressing.set("value", TEXT)
    with Cache(f"file://{directory}") as plain:
        assert plain.get("value") == TEXT
        plain.set("value", TEXT)
    assert "compression" not in header_of(directory)[0]
    assert compressing.get("value") == TEXT


def test_what_does_not_get_smaller_is_stored_as_it_is(compressing, directory):
    noise = np.random.default_rng(1).bytes(MIB)
    compressing.set("value", noise)
    metadata, payload = header_of(directory)
    assert not {"compression", "size"} & set(metadata)
    assert payload == noise
    assert compressing.get("value", views=True, require_zero_copy=True).obj.is_mapped


def test_auto_compresses_only_what_gets_smaller_by_a_tenth(directory):
    noise = np.random.default_rng(1).integers(0, 256, (256, 4096), np.uint8)
    with Cache(f"file://{directory}", compression="auto") as auto:
        for zeros, compressed in ((300, False), (700, True)):
            noise[:, :zeros] = 0
            value = noise.tobytes()
            auto.set("value", value)
            assert ("compression" in header_of(directory)[0]) == compressed
            assert auto.get("value") == value


@settings(max_examples=30)
@given(st.lists(st.tuples(st.binary(max_size=50), st.integers(0, 2000)), max_size=5), st.sampled_from(ALL))
def test_hypothesis_any_bytes_come_back(tmp_path_factory, parts, compression):
    value = b"".join(part * times for part, times in parts)
    with Cache(f"file://{tmp_path_factory.getbasetemp()}/hypothesis", compression=compression) as cache:
        cache.set("value", value)
        assert cache.get("value") == value


def test_memoryviews_keep_format_and_shape(lz4):
    array = np.zeros((100, 200), "i4")
    lz4.set("value", memoryview(array))
    found = lz4.get("value")
    assert (found.format, found.shape) == ("i", (100, 200))
    assert not found.obj.is_zero_copy


def tables():
    numbers = pa.table({"n": np.arange(50_000), "s": [f"user {number % 100}" for number in range(50_000)]})
    yield numbers
    yield numbers.to_batches()[0]
    yield numbers.to_pandas()
    polars = pytest.importorskip("polars")
    yield polars.from_arrow(numbers)


@pytest.mark.parametrize("value", list(tables()), ids=lambda value: f"{type(value).__module__}.{type(value).__name__}")
def test_tables_come_back_over_the_decompressed_payload(compressing, directory, value):
    compressing.set("value", value)
    assert "compression" in header_of(directory)[0]
    for views in (False, True):
        found = compressing.get("value", views=views)
        assert type(found) is type(value)
        assert found.equals(value)


def test_arrow_producers_come_back_as_arrow_tables(lz4):
    lz4.set("value", framecache.arrow.decode(framecache.arrow.encode(pa.table({"n": [1] * 1000}))).to_reader())
    table = lz4.get("value")
    assert type(table) is framecache.ArrowTable
    assert table.payload.address % 64 == 0
    assert not table.payload.is_zero_copy
    assert table.payload.is_trusted
    assert pa.table(table)["n"].to_pylist() == [1] * 1000


def test_views_outlive_the_entry_and_the_cache(lz4):
    lz4.set("value", TEXT)
    view = lz4.get("value", views=True)
    table = pa.table({"n": np.arange(100_000)})
    lz4.set("table", table)
    found = lz4.get("table")
    lz4.delete("value")
    lz4.close()
    framecache.trim_pool()
    assert view == TEXT
    assert found.equals(table)


@pytest.mark.parametrize("value", [TEXT, memoryview(TEXT), pa.table({"n": np.zeros(1000)})], ids=type)
def test_require_zero_copy_refuses_a_compressed_payload(lz4, value):
    lz4.set("value", value)
    with pytest.raises(CopyRequired, match=r"reading payload would copy: it is compressed \(lz4\)"):
        lz4.get("value", views=True, require_zero_copy=True)
    assert lz4.get("value") is not None
    assert lz4.stats() == {"hit": 1}


@pytest.mark.parametrize(
    "compression",
    ["", "none", "LZ4", "lz4:1", "gzip", "zstd:", "zstd:23", "zstd:0", "zstd:-1", "zstd:1.0", "zstd: 1", "zstd:+1"],
)
def test_another_compression_is_refused_with_what_is_accepted(tmp_path, compression):
    accepted = r"None, 'lz4', 'zstd', 'zstd:LEVEL' with a level from 1 to 22, or 'auto'"
    with pytest.raises(InvalidArgument, match=f"compression: expected {accepted}, got "):
        Cache(f"file://{tmp_path}/cache", compression=compression)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("compression", [1, True, b"lz4", ["lz4"]])
def test_a_compression_that_is_not_text_is_refused(tmp_path, compression):
    with pytest.raises(InvalidArgument, match="compression: expected None or a str, got "):
        Cache(f"file://{tmp_path}/cache", compression=compression)


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, None, "1", sys.maxsize + 1])
def test_an_impossible_limit_is_refused(tmp_path, limit):
    with pytest.raises(InvalidArgument, match="max_value_bytes: expected an int from 1 to "):
        Cache(f"file://{tmp_path}/cache", max_value_bytes=limit)


@pytest.mark.parametrize("compression", [None, "lz4", "auto"])
def test_a_value_above_the_limit_is_not_stored(directory, compression):
    with Cache(f"file://{directory}", compression=compression, max_value_bytes=1000) as cache:
        cache.set("value", b"x" * 1000)
        for value in (b"x" * 1001, pa.table({"n": np.zeros(1000)})):
            with pytest.raises(ValueTooLarge, match=r"\(max_value_bytes\): expected at most 1000 bytes, found "):
                cache.set("value", value)
        assert cache.get("value") == b"x" * 1000


def test_a_compressed_entry_above_the_limit_is_a_miss_and_a_mapped_one_is_not(lz4, directory):
    lz4.set("compressed", TEXT)
    with Cache(f"file://{directory}") as plain:
        plain.set("mapped", TEXT)
    with Cache(f"file://{directory}", max_value_bytes=len(TEXT) - 1) as small:
        assert small.get("compressed") is None
        assert small.stats() == {"undecodable": 1}
        assert small.get("mapped") == TEXT
    with Cache(f"file://{directory}", max_value_bytes=len(TEXT)) as enough:
        assert enough.get("compressed") == TEXT


DAMAGES = {
    "an unknown algorithm": {"compression": "brotli"},
    "the other algorithm": {"compression": "zstd"},
    "no size": {"size": None},
    "a size one below": {"size": len(TEXT) - 1},
    "a size one above": {"size": len(TEXT) + 1},
    "a size of nothing": {"size": 0},
    "a size that so few bytes cannot have": {"size": 2**30},
    "a size above the limit": {"size": 2**30 + 1},
    "a size of 2**64 - 1": {"size": 2**64 - 1},
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_cannot_be_decompressed_is_a_miss_that_removes_nothing(lz4, directory, name):
    lz4.set("value", TEXT)
    rewrite(directory, **DAMAGES[name])
    with traced_peak() as peak:
        assert lz4.get("value", "missing") == "missing"
        assert peak() < 2 * MIB
    assert lz4.stats() == {"undecodable": 1}
    assert "value" in lz4


@pytest.mark.parametrize(
    "changed", [{"compression": 1}, {"compression": []}, {"size": -1}, {"size": "1"}, {"size": 1.0}]
)
def test_fields_of_another_type_are_unreadable(lz4, directory, changed):
    lz4.set("value", TEXT)
    rewrite(directory, **changed)
    assert lz4.get("value") is None
    assert lz4.stats() == {"unreadable": 1}


def test_a_size_without_compression_is_not_looked_at(cache, directory):
    cache.set("value", b"abc")
    rewrite(directory, size=2**64 - 1)
    assert cache.get("value") == b"abc"


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_damaged_data_is_a_miss_or_has_its_size(directory, compression):
    with Cache(f"file://{directory}", compression=compression) as cache:
        cache.set("value", TEXT[:3000])
        whole = frame_in(directory, "value")
        start = len(whole) - len(header_of(directory)[1])
        for position in range(start, len(whole)):
            damaged = bytearray(whole)
            damaged[position] ^= 0x55
            put_frame(directory, "value", damaged)
            found = cache.get("value")
            assert found is None or len(found) == 3000
        put_frame(directory, "value", whole)
        assert cache.get("value") == TEXT[:3000]
        assert set(cache.stats()) == {"undecodable", "hit"}


def test_a_frame_with_a_compressed_table_is_refused_by_name(lz4, directory):
    lz4.set("value", pa.table({"n": np.zeros(1000)}))
    with pytest.raises(DecodeError, match=r"m\.compression 'lz4'"):
        framecache.arrow.decode(frame_in(directory, "value"))


def test_a_header_of_a_compressed_entry_is_json_that_others_read(lz4, directory):
    lz4.set("value", TEXT)
    raw = frame_in(directory, "value")
    header = json.loads(raw[7 : 7 + int.from_bytes(raw[3:7], "big")])
    assert header["m"]["compression"] == "lz4"
    assert header["s"] == "raw"
