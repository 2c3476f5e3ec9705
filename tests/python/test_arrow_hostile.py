"""Frames that nobody trusts, and damaged files of the store: an error or a miss, never a crash.

This module is imported by children too.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import framecache
import framecache.arrow
from support import addresses, frame_in, payload_of, put_frame, run, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")

#: What reading a foreign frame may raise.
EXPECTED = (framecache.DecodeError, framecache.FrameError, framecache.CopyRequired)
#: Offsets of 4 bytes, for patches.
HIGH = struct.pack("<i", 2**30)
NEGATIVE = struct.pack("<i", -4)


class Stream:
    """A producer whose values come back as `ArrowTable`."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)


def framed(ipc_file: bytes, kind: str = "pyarrow.Table", **fields: object) -> bytes:
    """Return a frame around any Arrow IPC file."""
    return framecache.SerializationWrapper.wrap(ipc_file, {"py": {"type": kind}, **fields}, "arrow")


def ipc_file(table: pa.Table, **options: Any) -> bytes:
    """Return what pyarrow writes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def patched(data: bytes, position: int, patch: bytes) -> bytes:
    assert 0 <= position <= len(data) - len(patch)
    return data[:position] + patch + data[position + len(patch) :]


def damaged(
    column: pa.Array, buffer: int, position: int, patch: bytes, *, wrap: Callable[[Any], Any] = lambda table: table
) -> bytes:
    """Return a frame whose column "damaged" has `patch` at byte `position` of a buffer; its neighbours are whole."""
    table = pa.table(
        {"before": range(len(column)), "damaged": column, "after": [str(row) for row in range(len(column))]}
    )
    frame = framecache.arrow.encode(wrap(table))
    found = pa.ipc.open_file(pa.py_buffer(payload_of(frame))).read_all()
    places = {index: address for name, index, address, _ in addresses(found) if name == "damaged"}
    return patched(bytes(frame), places[buffer] - frame.address + position, patch)


def store_damaged(cache: framecache.Cache, directory: Path, frame: bytes) -> None:
    """Store a frame's payload under a header of the store's own."""
    payload, metadata, codec = framecache.SerializationWrapper.unwrap(frame)
    fields = {**metadata, "key": "key", "length": payload.nbytes}
    prefix = framecache.SerializationWrapper.wrap_prefix(fields, codec, align=64)
    put_frame(directory, "key", prefix + payload)


TEXT = [f"text {row}" for row in range(1000)]
MIDDLE = 4 * 500

#: Column, buffer, position in it, bytes to write there, and whether pyarrow's quick check finds it.
DAMAGES: dict[str, tuple[Callable[[], pa.Array], int, int, bytes, bool]] = {
    "two hostile offsets of strings": (lambda: pa.array(TEXT), 1, MIDDLE, HIGH + HIGH, False),
    "a negative offset of strings": (lambda: pa.array(TEXT), 1, MIDDLE, NEGATIVE, False),
    "a negative first offset": (lambda: pa.array(TEXT), 1, 0, NEGATIVE, True),
    "a last offset beyond the data": (lambda: pa.array(TEXT), 1, 4 * 1000, HIGH, True),
    "two hostile offsets of large strings": (
        lambda: pa.array(TEXT, pa.large_string()), 1, 8 * 500, struct.pack("<2q", 2**40, 2**41), False,
    ),
    "two hostile offsets of binary": (lambda: pa.array([b"x"] * 1000), 1, MIDDLE, HIGH + HIGH, False),
    "two hostile offsets of lists": (lambda: pa.array([[row] for row in range(1000)]), 1, MIDDLE, HIGH + HIGH, False),
    "two hostile offsets of strings in lists": (
        lambda: pa.array([[text] for text in TEXT]), 3, MIDDLE, HIGH + HIGH, False,
    ),
    "two hostile offsets of maps": (
        lambda: pa.array([[("k", 1)]] * 1000, pa.map_(pa.string(), pa.int8())), 1, MIDDLE, HIGH + HIGH, False,
    ),
    "two hostile offsets of strings in structs": (
        lambda: pa.array([{"a": text} for text in TEXT]), 2, MIDDLE, HIGH + HIGH, False,
    ),
    "two hostile offsets of a dictionary's strings": (
        lambda: pa.array(TEXT).dictionary_encode(), 3, MIDDLE, HIGH + HIGH, False,
    ),
    "a view beyond its buffer": (
        lambda: pa.array([f"a text of more than twelve bytes {row}" for row in range(1000)], pa.string_view()),
        1, 16 * 500 + 12, HIGH, False,
    ),
    "a view of a buffer that is not there": (
        lambda: pa.array([f"a text of more than twelve bytes {row}" for row in range(1000)], pa.string_view()),
        1, 16 * 500 + 8, HIGH, False,
    ),
    "a list view beyond its values": (
        lambda: pa.array([[row] for row in range(1000)], pa.list_view(pa.int32())), 1, MIDDLE, HIGH, False,
    ),
    "a size of a list view beyond its values": (
        lambda: pa.array([[row] for row in range(1000)], pa.list_view(pa.int32())), 2, MIDDLE, HIGH, False,
    ),
    "an index beyond the dictionary": (lambda: pa.array(["a", "b"] * 500).dictionary_encode(), 1, MIDDLE, HIGH, False),
    "a negative index": (lambda: pa.array(["a", "b"] * 500).dictionary_encode(), 1, MIDDLE, NEGATIVE, False),
    "an index of the dictionary's length": (
        lambda: pa.array(["a", "b"] * 500).dictionary_encode(), 1, MIDDLE, struct.pack("<i", 2), False,
    ),
    "a type id that the union lacks": (
        lambda: pa.UnionArray.from_sparse(pa.array([0, 1] * 500, pa.int8()), [pa.array(range(1000)), pa.array(TEXT)]),
        1, 500, b"\x05", False,
    ),
    "an offset beyond a union's child": (
        lambda: pa.UnionArray.from_dense(
            pa.array([0, 1] * 500, pa.int8()),
            pa.array(range(1000), pa.int32()),
            [pa.array(range(1000)), pa.array(TEXT)],
        ),
        2, MIDDLE, HIGH, False,
    ),
    "a run end that falls": (
        lambda: pa.RunEndEncodedArray.from_arrays(pa.array(range(2, 2002, 2), pa.int32()), pa.array(TEXT))[:1000],
        2, 4 * 250, struct.pack("<i", 1), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_reader_uses_as_an_address_is_checked_in_foreign_frames(damage):
    build, buffer, position, patch, found_quickly = DAMAGES[damage]
    frame = damaged(build(), buffer, position, patch)
    table = pa.ipc.open_file(pa.py_buffer(payload_of(frame))).read_all()
    with pytest.raises(pa.ArrowInvalid) if found_quickly else contextlib.nullcontext():
        table.validate()
    with pytest.raises(framecache.DecodeError, match=r'column "damaged'):
        framecache.arrow.decode(frame)
    with pytest.raises(framecache.DecodeError, match=r'column "damaged'):
        framecache.arrow.decode(framecache.Frame(frame), views=True)
    with pytest.raises(framecache.DecodeError, match=r'column "damaged'):
        framecache.ArrowTable(bytes(payload_of(frame)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_reader_uses_as_an_address_is_checked_in_files_of_the_store(cache, directory, damage):
    build, buffer, position, patch, _ = DAMAGES[damage]
    store_damaged(cache, directory, damaged(build(), buffer, position, patch))
    assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"undecodable": 1}
    store_damaged(cache, directory, damaged(build(), buffer, position, patch, wrap=Stream))
    assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"undecodable": 2}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_here_is_fine_before(cache, directory, damage):
    """Without the patch the same frames are read: it is the patch that is refused."""
    build, buffer, position, _, _ = DAMAGES[damage]
    column = build()
    frame = damaged(column, buffer, position, b"")
    assert framecache.arrow.decode(frame)["damaged"].to_pylist() == column.to_pylist()
    store_damaged(cache, directory, frame)
    assert cache.get("key")["damaged"].to_pylist() == column.to_pylist()


def test_a_large_damaged_file_of_the_store_is_a_miss(cache, directory):
    """Of the size that is mapped."""
    column = pa.array([f"text {row}" for row in range(50_000)])
    store_damaged(cache, directory, damaged(column, 1, 4 * 25_000, HIGH + HIGH))
    assert len(frame_in(directory, "key")) > 100_000
    assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"undecodable": 1}


def test_an_entry_can_be_replaced_after_damage(cache, directory):
    store_damaged(cache, directory, damaged(pa.array(TEXT), 1, MIDDLE, HIGH + HIGH))
    assert cache.get("key") is None
    cache.set("key", pa.table({"x": [1]}))
    assert cache.get("key").to_pydict() == {"x": [1]}


@pytest.mark.parametrize("where", ["row", "null row"])
def test_views_and_indices_of_null_rows_are_not_looked_at(where):
    """What a null row holds is undefined in Arrow; writers leave anything there."""
    column = pa.array(["a", None, "b"] if where == "null row" else ["a", "c", "b"]).dictionary_encode()
    frame = damaged(column, 1, 4, HIGH)
    if where == "null row":
        assert framecache.arrow.decode(frame)["damaged"].to_pylist() == ["a", None, "b"]
    else:
        with pytest.raises(framecache.DecodeError, match='column "damaged"'):
            framecache.arrow.decode(frame)


TEXTS = {
    "string": (lambda: pa.array(TEXT), 2),
    "large_string": (lambda: pa.array(TEXT, pa.large_string()), 2),
    "short string_view": (lambda: pa.array(TEXT, pa.string_view()), 1),
    "long string_view": (lambda: pa.array([text * 5 for text in TEXT], pa.string_view()), 2),
    "dictionary": (lambda: pa.array(TEXT).dictionary_encode(), 4),
    "list": (lambda: pa.array([[text] for text in TEXT]), 4),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"], ids=repr)
def test_invalid_utf8_is_refused_in_foreign_frames_and_always_by_arrow_table(cache, directory, kind, bad):
    build, buffer = TEXTS[kind]
    position = 16 * 500 + 4 if buffer == 1 else 2000
    frame = damaged(build(), buffer, position, bad)
    with pytest.raises(framecache.DecodeError, match=r"(?i)utf-?8"):
        framecache.arrow.decode(frame)
    with pytest.raises(framecache.DecodeError, match=r"(?i)utf-?8|encountered non"):
        framecache.ArrowTable(bytes(payload_of(frame)))
    store_damaged(cache, directory, damaged(build(), buffer, position, bad, wrap=Stream))
    assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"undecodable": 1}


def test_a_character_across_two_strings_is_refused():
    """All bytes together are UTF-8, each string alone is not."""
    frame = damaged(pa.array(["aß", "b"] * 100), 1, 4 * 1, struct.pack("<i", 2))
    with pytest.raises(framecache.DecodeError, match=r"(?i)utf-?8"):
        framecache.arrow.decode(frame)
    with pytest.raises(framecache.DecodeError):
        framecache.ArrowTable(bytes(payload_of(frame)))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_files_are_refused(cache, directory, compression):
    if not pa.Codec.is_available(compression):
        skip_or_fail(f"this pyarrow has no {compression}")
    for table in (pa.table({"x": [0] * 10_000}), pa.table({"x": pa.array(["a"] * 10_000).dictionary_encode()})):
        compressed = ipc_file(table, compression=compression)
        assert len(compressed) < 10_000
        with pytest.raises(framecache.CopyRequired, match="compressed"):
            framecache.ArrowTable(compressed)
        for kind in ("pyarrow.Table", "pyarrow.RecordBatch", "ArrowTable", "polars.DataFrame", "pandas.DataFrame"):
            with pytest.raises(framecache.CopyRequired, match="compressed"):
                framecache.arrow.decode(framed(compressed, kind))
    store_damaged(cache, directory, framed(compressed))
    assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"undecodable": 1}
    with pytest.raises(framecache.CopyRequired, match="compressed"):
        cache.get("key", require_zero_copy=True)


def test_uncompressed_files_of_another_writer_are_read():
    table = pa.table({"x": range(10_000), "s": ["a", None] * 5000})
    assert framecache.arrow.decode(framed(ipc_file(table))).equals(table)
    assert pa.table(framecache.ArrowTable(ipc_file(table))).equals(table)


@pytest.mark.parametrize("kind", ["odd", "even"])
def test_a_misaligned_payload_is_copied_or_refused(kind):
    table = pa.table({"x": range(10_000), "s": ["a", None] * 5000})
    whole = bytes(framecache.arrow.encode(table))
    shift = next(
        shift
        for shift in range(1, 64)
        if shift % 2 == (kind == "odd") and framecache.Frame(b" " * 64 + whole)[shift:].address % 64 not in (0, 32)
    )
    frame = framecache.Frame(b" " * shift + whole)[shift:]
    payload = payload_of(frame).obj
    if payload.address % 64 == 0:
        frame = framecache.Frame(b" " * (shift + 2) + whole)[shift + 2 :]
        payload = payload_of(frame).obj
    assert payload.address % 2 == (kind == "odd")
    assert payload.address % 64 != 0
    for read in (
        framecache.arrow.decode,
        lambda frame, **how: pa.table(framecache.ArrowTable(payload_of(frame).obj, **how)),
    ):
        found = read(frame)
        assert found.equals(table)
        for _, _, address, _ in addresses(found):
            assert address % 64 == 0
            assert not frame.address <= address < frame.address + frame.nbytes
        with pytest.raises(framecache.CopyRequired, match=r"payload would copy: .* multiple of 64"):
            read(frame, require_zero_copy=True)


@pytest.mark.parametrize(
    "mutable", [bytearray, lambda data: memoryview(bytearray(data))], ids=["bytearray", "memoryview"]
)
def test_memory_that_may_change_is_copied_or_refused(mutable):
    table = pa.table({"x": range(1000)})
    frame = framecache.arrow.encode(table)
    data = mutable(bytes(frame))
    found = framecache.arrow.decode(data)
    data[:] = bytes(len(data))
    assert found.equals(table)
    with pytest.raises(framecache.CopyRequired, match="payload"):
        framecache.arrow.decode(mutable(bytes(frame)), require_zero_copy=True)
    with pytest.raises(framecache.CopyRequired, match="payload"):
        framecache.ArrowTable(mutable(bytes(payload_of(frame))), require_zero_copy=True)


def test_a_buffer_that_is_not_aligned_for_its_type_is_copied_or_refused():
    table = pa.table({"before": pa.array([0] * 3, pa.int8()), "number": [1, 2, 3]})
    payload = bytes(payload_of(framecache.arrow.encode(table)))
    # The entry of the numbers' buffer in the batch's message: offset 64, 24 bytes.
    entry = struct.pack("<2q", 64, 24)
    assert payload.count(entry) == 1
    payload = payload.replace(entry, struct.pack("<2q", 68, 24))
    found = pa.table(framecache.ArrowTable(payload))
    assert found["number"].to_pylist() == [2 << 32, 3 << 32, 0]
    with pytest.raises(framecache.DecodeError, match="aligned"):  # pyarrow does not take it
        framecache.arrow.decode(framed(payload))
    builder = framecache.FrameBuilder(len(payload))
    builder.write(payload)
    aligned = builder.finish()
    assert aligned.address % 64 == 0
    with pytest.raises(framecache.CopyRequired, match='column "number" would copy: it is not aligned'):
        framecache.ArrowTable(aligned, require_zero_copy=True)


REFUSED = {
    "nothing": b"",
    "text": b"not an Arrow file at all, by any means",
    "only magic": b"ARROW1\0\0ARROW1",
    "a footer of 0 bytes": b"ARROW1\0\0" + bytes(8) + struct.pack("<i", 0) + b"ARROW1",
    "a footer of negative length": b"ARROW1\0\0" + bytes(8) + struct.pack("<i", -1) + b"ARROW1",
    "a footer longer than the file": b"ARROW1\0\0" + bytes(8) + struct.pack("<i", 2**31 - 1) + b"ARROW1",
    "a footer of zeros": b"ARROW1\0\0" + bytes(64) + struct.pack("<i", 64) + b"ARROW1",
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_arrow_file_is_refused(what):
    with pytest.raises(framecache.DecodeError):
        framecache.ArrowTable(REFUSED[what])
    with pytest.raises(framecache.DecodeError):
        framecache.arrow.decode(framed(REFUSED[what]))


def test_an_arrow_stream_is_no_arrow_file():
    sink = pa.BufferOutputStream()
    table = pa.table({"x": [1]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(framecache.DecodeError, match="magic"):
        framecache.ArrowTable(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(
    "kind", ["", "pyarrow", "pyarrow.Schema", "os.system", "pandas.read_pickle", None, 1, ["pyarrow.Table"]]
)
def test_an_unknown_type_is_refused(kind):
    data = ipc_file(pa.table({"x": [1]}))
    with pytest.raises(framecache.DecodeError):
        framecache.arrow.decode(framecache.SerializationWrapper.wrap(data, {"py": {"type": kind}}, "arrow"))


@pytest.mark.parametrize("python", [None, 1, [], "text", {}])
def test_a_header_without_a_type_is_refused(python):
    data = ipc_file(pa.table({"x": [1]}))
    with pytest.raises(framecache.DecodeError):
        framecache.arrow.decode(framecache.SerializationWrapper.wrap(data, {"py": python}, "arrow"))
    with pytest.raises(framecache.DecodeError):
        framecache.arrow.decode(framecache.SerializationWrapper.wrap(data, {}, "arrow"))


def test_a_frame_of_another_codec_is_refused():
    with pytest.raises(framecache.DecodeError, match="codec"):
        framecache.arrow.decode(framecache.SerializationWrapper.wrap(b"x", {"py": {"type": "bytes"}}, "raw"))


def test_several_batches_are_no_record_batch():
    table = pa.table({"x": pa.chunked_array([[1], [2]])})
    with pytest.raises(framecache.DecodeError, match="one record batch, found 2"):
        framecache.arrow.decode(framed(ipc_file(table), "pyarrow.RecordBatch"))


@pytest.mark.parametrize("what", ["name", "time zone"])
def test_text_with_a_null_byte_is_refused_by_what_must_export_it(what):
    """Names and formats in the C data interface end at their first null byte."""
    data = ipc_file(pa.table({"naMe": pa.array([1], pa.timestamp("us", "UTC"))}))
    data = data.replace(b"naMe", b"na\0e") if what == "name" else data.replace(b"UTC", b"U\0C")
    with pytest.raises(framecache.DecodeError):
        framecache.ArrowTable(data)
    with pytest.raises(framecache.DecodeError):
        framecache.arrow.decode(framed(data, "ArrowTable"))


HEADERS: dict[str, dict[str, Any]] = {
    "a column that is not there": {"objects": [[99, "None"]]},
    "an unknown null": {"objects": [[0, "nothing"]]},
    "objects that are no list": {"objects": 1},
    "objects without nulls": {"objects": [[0]]},
    "a level that is not there": {"index_objects": [[5, "None"]]},
    "a frequency that does not fit": {"frequency": "D"},
    "a frequency that is none": {"frequency": ["x"]},
    "labels that are a dict": {"label_objects": {}},
    "a name that cannot be hashed": {"type": "pandas.Series", "name": ["x"]},
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_does_not_fit_its_pandas_table_is_an_error_or_a_value(cache, directory, what):
    table = pa.Table.from_pandas(pd.DataFrame({"x": ["a", "b"]}))
    header = {"type": "pandas.DataFrame", **HEADERS[what]}
    frame = framecache.SerializationWrapper.wrap(ipc_file(table), {"py": header}, "arrow")
    with contextlib.suppress(framecache.DecodeError):
        assert framecache.arrow.decode(frame).shape == (2, 1)
    store_damaged(cache, directory, frame)
    found = cache.get("key")
    assert cache.stats() == ({"undecodable": 1} if found is None else {"hit": 1})


@pytest.mark.parametrize(
    "metadata", [b"", b"{", b"[]", b"{}", b'{"columns": 1}', b"\xff", b'{"index_columns": ["x"], "columns": []}']
)
@pytest.mark.parametrize("kind", ["pandas.DataFrame", "pandas.Series"])
def test_damaged_metadata_of_pandas_is_an_error_or_a_value(metadata, kind):
    table = pa.Table.from_pandas(pd.DataFrame({"x": ["a", "b"]})).replace_schema_metadata({b"pandas": metadata})
    with contextlib.suppress(framecache.DecodeError):
        assert len(framecache.arrow.decode(framed(ipc_file(table), kind))) == 2


def test_a_series_without_columns_is_an_error():
    for kind in ("pandas.Series", "polars.Series"):
        with pytest.raises(framecache.DecodeError):
            framecache.arrow.decode(framed(ipc_file(pa.table({})), kind))


def values() -> dict[str, Any]:
    """Return values of all kinds whose frames are patched."""
    found: dict[str, Any] = {
        "pyarrow": pa.table(
            {
                "number": pa.array([1, None, 3]),
                "text": ["a", None, "bcd"],
                "list": [[1, 2], None, []],
                "category": pa.array(["x", "y", None]).dictionary_encode(),
                "view": pa.array(["a", "a text of more than twelve bytes", None], pa.string_view()),
                "struct": [{"a": 1}, None, {"a": 3}],
            }
        ),
        "pyarrow, rare types": pa.table(
            {
                "dense": pa.UnionArray.from_dense(
                    pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]
                ),
                "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int8())),
                "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None])),
                "list view": pa.array([[1], [2, 3], None], pa.list_view(pa.int8())),
                "fixed": pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
                "tags": pa.array([["a"], None, ["b", "a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
            }
        ),
        "pandas": pd.DataFrame(
            {
                "n": [1, 2, 3],
                "s": ["a", None, "c"],
                "o": pd.Series(["a", None, "b"], dtype=object),
                "c": pd.Categorical(list("aba")),
            },
            index=pd.date_range("2021", periods=3, name="when"),
        ),
        "pandas series": pd.Series([1.5, None], index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]), name="values"),
    }
    found["batch"] = found["pyarrow"].to_batches()[0]
    found["arrow table"] = Stream(found["pyarrow"])
    with contextlib.suppress(ImportError):
        import polars as pl

        found["polars"] = pl.DataFrame(
            {
                "n": [1, None, 3],
                "s": ["a", None, "a text of more than twelve bytes"],
                "c": pl.Series(["a", "b", None], dtype=pl.Categorical),
                "e": pl.Series(["a", "b", None], dtype=pl.Enum(["a", "b"])),
                "t": pl.Series([1, 2, 3]).cast(pl.Datetime("us", "UTC")),
                "l": [[1], None, []],
            }
        )
    return found


FRAMES = {name: bytes(framecache.arrow.encode(value)) for name, value in values().items()}


def touch(value: Any) -> None:
    """Read all of a value, whatever it says."""
    if isinstance(value, framecache.ArrowTable):
        value = pa.table(value)
    if isinstance(value, pa.Table | pa.RecordBatch):
        value.validate(full=True)
        if value.num_rows < 1000:
            # The numbers may be no dates, the NaNs no decimals; reading them must not crash.
            with contextlib.suppress(ValueError, OverflowError, pa.ArrowException):
                value.to_pylist()
    elif hasattr(value, "hash_rows"):
        # Not its text: polars panics over dates beyond its calendar.
        assert value.equals(value)
        assert len(value.hash_rows()) == len(value)
    elif len(value) < 1000:
        with contextlib.suppress(Exception):
            repr(value)
        value.copy(deep=True)


def read_patched(frame: bytes) -> str:
    """Return what reading a patched frame comes to."""
    try:
        value = framecache.arrow.decode(frame)
    except EXPECTED as error:
        return type(error).__name__
    touch(value)
    return "value"


def truncations(frame: bytes) -> list[bytes]:
    return [frame[:length] for length in range(0, len(frame), 7)]


@pytest.mark.parametrize("name", FRAMES)
def test_a_truncated_frame_is_an_error(name):
    for frame in truncations(FRAMES[name]):
        with pytest.raises((framecache.FrameError, framecache.DecodeError)):
            framecache.arrow.decode(frame)


@pytest.mark.parametrize("name", FRAMES)
def test_a_truncated_payload_is_an_error(name):
    payload = bytes(payload_of(FRAMES[name]))
    for length in range(0, len(payload), 7):
        with pytest.raises(framecache.DecodeError):
            framecache.ArrowTable(payload[:length])


def test_a_truncated_frame_in_the_store_is_a_miss(cache, directory):
    cache.set("key", values()["pyarrow"])
    whole = frame_in(directory, "key")
    cuts = truncations(whole)
    for cut in cuts:
        put_frame(directory, "key", cut)
        assert cache.get("key", "nothing") == "nothing"
    assert cache.stats() == {"unreadable": len(cuts)}
    put_frame(directory, "key", whole)
    assert cache.get("key").equals(values()["pyarrow"])


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_with_one_changed_byte_is_an_error_or_a_value(name):
    """Every byte of the frame in one of four ways; of the slow ones, every third."""
    frame = FRAMES[name]
    for position in range(0, len(frame), 3 if name.startswith("pandas") else 1):
        change = (0x01, 0x80, 0xFF, 0x20)[position % 4]
        read_patched(patched(frame, position, bytes([frame[position] ^ change])))


patches = st.lists(
    st.tuples(
        st.integers(min_value=0, max_value=2**16),
        st.one_of(
            st.binary(min_size=1, max_size=8), st.sampled_from([HIGH, NEGATIVE, b"\xff" * 8, bytes(4), bytes(8)])
        ),
    ),
    min_size=1,
    max_size=4,
)


def apply(frame: bytes, changes: list[tuple[int, bytes]]) -> bytes:
    for position, patch in changes:
        position %= len(frame)
        frame = patched(frame, position, patch[: len(frame) - position])
    return frame


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(FRAMES)), changes=patches)
@example(name="pyarrow", changes=[(0, b"XX")])
@example(name="pyarrow", changes=[(2, b"\x04")])
@example(name="pyarrow", changes=[(3, b"\xff\xff\xff\xff")])
def test_a_frame_with_random_patches_is_an_error_or_a_value(name, changes):
    read_patched(apply(FRAMES[name], changes))


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(FRAMES)), changes=patches)
def test_a_payload_with_random_patches_is_an_error_or_an_arrow_table(name, changes):
    payload = bytes(payload_of(FRAMES[name]))
    try:
        table = framecache.ArrowTable(apply(payload, changes))
    except EXPECTED:
        return
    pa.table(table).validate(full=True)


def survive(seed: int, rounds: int) -> int:
    """Read frames with random patches, and entries of a store with them, whatever comes of it; return how many."""
    import logging
    import tempfile

    logging.disable()
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, framecache.Cache(f"file://{directory}/cache") as cache:
        for name, value in values().items():
            cache.set(name, value)
        store = Path(directory, "cache")
        whole = {name: frame_in(store, name) for name in values()}
        for _, name in zip(range(rounds), itertools.cycle(FRAMES), strict=False):
            changes = [
                (chance.randrange(2**16), chance.randbytes(chance.choice([1, 1, 2, 4])))
                for _ in range(chance.choice([1, 2]))
            ]
            with contextlib.suppress(BaseException):
                read_patched(apply(FRAMES[name], changes))
            put_frame(store, name, apply(whole[name], changes))
            with contextlib.suppress(BaseException):
                if (value := cache.get(name)) is not None:
                    touch(value)
    return rounds


def test_no_patch_crashes_the_process():
    here = {"PYTHONPATH": str(Path(__file__).parent), "RUST_BACKTRACE": "0", "PYTHONFAULTHANDLER": "1"}
    assert run("import test_arrow_hostile; print(test_arrow_hostile.survive(1, 1000))", env=here) == "1000\n"


def test_a_few_foreign_bytes_do_not_become_a_huge_data_frame():
    file = ipc_file(pa.table({"x": pa.nulls(10**9)}))
    assert len(file) < 1000
    assert framecache.arrow.decode(framed(file)).num_rows == 10**9
    with pytest.raises(framecache.DecodeError, match="1000000000 rows"):
        framecache.arrow.decode(framed(file, "pandas.DataFrame"))
    modest = framed(ipc_file(pa.table({"x": pa.nulls(1000)})), "pandas.DataFrame")
    assert framecache.arrow.decode(modest).shape == (1000, 1)
