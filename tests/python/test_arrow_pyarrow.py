"""pyarrow tables and record batches come back as they were, and stand on the frame."""

from __future__ import annotations

import decimal
import gc
import struct
import uuid
from typing import TYPE_CHECKING

import pytest

import framecache
import framecache.arrow
from support import addresses, mapped_file, payload_of

if TYPE_CHECKING:
    from pathlib import Path

pa = pytest.importorskip("pyarrow")

NUMBERS = [1, None, -3, 4, None, 6, 7, 100]
UNSIGNED = [1, None, 3, 4, None, 6, 7, 200]
REALS = [1.5, None, -2.5, float("inf"), None, -float("inf"), 0.0, 2.0**-14]
DECIMALS = [
    decimal.Decimal(text) if text else None for text in ("1.25", "", "-0.01", "99.99", "", "0.00", "7.00", "8.5")
]
TEXT = ["a", None, "", "Zürich", "a text of more than twelve bytes", None, "ß" * 20, "z"]
BYTES = [text if text is None else text.encode() for text in TEXT]
LISTS = [[1, 2], None, [], [3, None, 4], [5], None, [6, 7, 8], [9]]
LETTERS = ["a", "b", None, "a", "c", "b", None, "a"]


def _union_children() -> list[pa.Array]:
    return [pa.array([1, None, 3, 4, 5, 6, 7, 8]), pa.array(["s", "t", None, "v", "w", "x", "y", "z"])]


ARRAYS: dict[str, pa.Array] = {
    **{f"int{bits}": pa.array(NUMBERS, getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": pa.array(UNSIGNED, getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)},
    **{f"float{bits}": pa.array(REALS, getattr(pa, f"float{bits}")()) for bits in (16, 32, 64)},
    **{f"decimal{bits}": pa.array(DECIMALS, getattr(pa, f"decimal{bits}")(8, 2)) for bits in (32, 64, 128, 256)},
    "decimal of many digits": pa.array([None, *[decimal.Decimal("9" * 70)] * 7], pa.decimal256(76, 4)),
    "decimal of negative scale": pa.array([decimal.Decimal("1200"), None] * 4, pa.decimal128(6, -2)),
    "bool": pa.array([True, None, False, False, True, None, True, False]),
    "string": pa.array(TEXT, pa.string()),
    "large_string": pa.array(TEXT, pa.large_string()),
    "string_view": pa.array(TEXT, pa.string_view()),
    "binary": pa.array(BYTES, pa.binary()),
    "large_binary": pa.array(BYTES, pa.large_binary()),
    "binary_view": pa.array(BYTES, pa.binary_view()),
    "fixed_size_binary": pa.array([b"abc", None, b"\0\0\0", b"xyz"] * 2, pa.binary(3)),
    "fixed_size_binary of 0": pa.array([b"", None, b"", b""] * 2, pa.binary(0)),
    "date32": pa.array(NUMBERS, pa.date32()),
    "date64": pa.array([0, None, 86_400_000, -86_400_000] * 2, pa.date64()),
    "time32 s": pa.array(UNSIGNED, pa.time32("s")),
    "time32 ms": pa.array(UNSIGNED, pa.time32("ms")),
    "time64 us": pa.array(UNSIGNED, pa.time64("us")),
    "time64 ns": pa.array(UNSIGNED, pa.time64("ns")),
    **{f"timestamp {unit}": pa.array(NUMBERS, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")},
    **{
        f"timestamp in {zone}": pa.array(NUMBERS, pa.timestamp("us", zone)) for zone in ("UTC", "Europe/Oslo", "-07:30")
    },
    **{f"duration {unit}": pa.array(NUMBERS, pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "month_day_nano_interval": pa.array([pa.MonthDayNano([1, -2, 3]), None] * 4),
    "list": pa.array(LISTS, pa.list_(pa.int16())),
    "large_list": pa.array(LISTS, pa.large_list(pa.int16())),
    "list_view": pa.array(LISTS, pa.list_view(pa.int16())),
    "large_list_view": pa.array(LISTS, pa.large_list_view(pa.int16())),
    "list_view out of order": pa.ListViewArray.from_arrays(
        pa.array([4, 0, 2, 2, 0, 5, 6, 1], pa.int32()),
        pa.array([2, 3, 1, 0, 6, 1, 0, 2], pa.int32()),
        pa.array(range(6)),
    ),
    "list of strings": pa.array([["a", None], None, [], ["bc"], ["d" * 20], [], ["e"], None]),
    "list of lists": pa.array([[[1], []], None, [None], [[2, 3]], [], [[4]], [[5], [6]], [None, [7]]]),
    "fixed_size_list": pa.array([[1, 2], None, [3, None], [5, 6]] * 2, pa.list_(pa.int32(), 2)),
    "fixed_size_list of 0": pa.array([[], None, [], []] * 2, pa.list_(pa.int32(), 0)),
    "map": pa.array([[("a", 1)], None, [], [("b", None), ("c", 3)]] * 2, pa.map_(pa.string(), pa.int32())),
    "sorted map": pa.array([[(1, "a")], None, [], [(2, "b")]] * 2, pa.map_(pa.int8(), pa.string(), keys_sorted=True)),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {"a": 4, "b": None}] * 2),
    "struct without fields": pa.array([{}, None, {}, {}] * 2, pa.struct([])),
    "struct in struct": pa.array([{"a": {"b": True}}, {"a": None}, None, {"a": {"b": None}}] * 2),
    "dictionary": pa.array(LETTERS).dictionary_encode(),
    "dictionary with a null value": pa.DictionaryArray.from_arrays(
        [0, 1, None, 2, 1, 0, 0, 2], pa.array(["a", None, "c"])
    ),
    "ordered dictionary": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 2, 1, 0, 0, 2], pa.int8()), ["low", "mid", "high"], ordered=True
    ),
    **{
        f"dictionary by {kind}": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0] * 2, kind), [1.5, 2.5])
        for kind in (pa.int16(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    },
    "dictionary of lists": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 0] * 2, pa.int8()), pa.array([[1], [2, 3]])
    ),
    "dictionary of structs": pa.DictionaryArray.from_arrays(
        pa.array([1, 0] * 4, pa.int8()), pa.array([{"a": 1}, {"a": 2}])
    ),
    "list of dictionaries": pa.array(
        [["a", "b"], None, ["a"], []] * 2, pa.list_(pa.dictionary(pa.int32(), pa.string()))
    ),
    "sparse_union": pa.UnionArray.from_sparse(pa.array([0, 1, 0, 0, 1, 1, 0, 1], pa.int8()), _union_children()),
    "dense_union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0, 1, 0, 0, 1, 0], pa.int8()), pa.array([0, 0, 1, 2, 3, 3, 4, 7], pa.int32()), _union_children()
    ),
    "dense_union with type codes": pa.UnionArray.from_dense(
        pa.array([5, 9, 5, 9] * 2, pa.int8()),
        pa.array([0, 0, 1, 2, 3, 3, 4, 7], pa.int32()),
        _union_children(),
        ["number", "text"],
        [5, 9],
    ),
    **{
        f"run_end_encoded by {kind}": pa.RunEndEncodedArray.from_arrays(
            pa.array([1, 4, 8], kind), pa.array(["a", None, "b"])
        )
        for kind in (pa.int16(), pa.int32(), pa.int64())
    },
    "null": pa.nulls(8),
    "list of nulls": pa.array([[None], None, [], [None, None]] * 2, pa.list_(pa.null())),
    "uuid": pa.array([uuid.UUID(int=number).bytes if number % 3 else None for number in range(8)], pa.uuid()),
    "json": pa.array(["{}", None, "[1]", "2"] * 2, pa.json_()),
    "fixed_shape_tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.int32(), [2]), pa.array([[1, 2], None, [3, 4], [5, 6]] * 2, pa.list_(pa.int32(), 2))
    ),
}

TABLES = {
    "whole": lambda array: pa.table({"x": array}),
    "empty": lambda array: pa.table({"x": array[:0]}),
    "sliced": lambda array: pa.table({"x": array[3:7]}),
    "chunked": lambda array: pa.table({"x": pa.chunked_array([array[:3], array[3:3], array[3:]])}),
    "without chunks": lambda array: pa.table({"x": pa.chunked_array([], array.type)}),
}
BATCHES = {
    "whole": lambda array: pa.record_batch({"x": array}),
    "empty": lambda array: pa.record_batch({"x": array[:0]}),
    "sliced": lambda array: pa.record_batch({"x": array[3:7]}),
}


class Celsius(pa.ExtensionType):
    """A registered extension type with a parameter."""

    def __init__(self, station: str) -> None:
        self.station = station
        super().__init__(pa.float32(), "framecache.tests.celsius")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.station.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls(serialized.decode())


@pytest.fixture
def celsius():
    kind = Celsius("Blindern")
    pa.register_extension_type(kind)
    yield kind
    pa.unregister_extension_type(kind.extension_name)


def assert_same(found, expected) -> None:
    assert type(found) is type(expected)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.num_rows == expected.num_rows
    assert found.equals(expected)
    found.validate(full=True)


def large_table() -> pa.Table:
    """A table whose frame is mapped, with buffers of all kinds and children."""
    count = 20_000
    return pa.table(
        {
            "number": pa.array(range(count)),
            "real": pa.array([row / 3 if row % 5 else None for row in range(count)]),
            "flag": pa.array([row % 3 == 0 for row in range(count)]),
            "text": pa.array([f"text {row}" for row in range(count)]),
            "view": pa.array([f"a text of more than twelve bytes {row}" for row in range(count)], pa.string_view()),
            "list": pa.array([[row, row + 1] for row in range(count)]),
            "category": pa.array([f"category {row % 7}" for row in range(count)]).dictionary_encode(),
            "struct": pa.array([{"name": str(row), "value": row} for row in range(count)]),
            "tags": pa.array(
                [[f"tag {row % 3}"] for row in range(count)], pa.list_(pa.dictionary(pa.int8(), pa.string()))
            ),
        }
    )


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("form", TABLES)
def test_a_table_of_every_type_comes_back_equal_and_without_an_allocation(cache, name, form):
    table = TABLES[form](ARRAYS[name])
    cache.set("table", table)
    before = pa.total_allocated_bytes()
    found = cache.get("table")
    assert pa.total_allocated_bytes() == before
    assert_same(found, table)
    assert all(address % 64 == 0 for _, _, address, _ in addresses(found))


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("form", BATCHES)
def test_a_record_batch_of_every_type_comes_back_equal(cache, name, form):
    batch = BATCHES[form](ARRAYS[name])
    cache.set("batch", batch)
    assert_same(cache.get("batch"), batch)


@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_stands_on_the_frame_it_was_encoded_into(name):
    table = TABLES["chunked"](ARRAYS[name])
    frame = framecache.arrow.encode(table)
    before = pa.total_allocated_bytes()
    found = framecache.arrow.decode(frame)
    assert pa.total_allocated_bytes() == before
    assert_same(found, table)
    buffers = addresses(found)
    assert bool(buffers) == any(size for *_, size in addresses(table))
    for _, _, address, size in buffers:
        assert frame.address <= address
        assert address + size <= frame.address + frame.nbytes
        assert address % 64 == 0


@pytest.mark.parametrize("name", ARRAYS)
def test_every_type_passes_validation_as_a_foreign_frame(name):
    table = TABLES["chunked"](ARRAYS[name])
    foreign = bytes(framecache.arrow.encode(table))
    assert_same(framecache.arrow.decode(foreign), table)
    assert_same(pa.table(framecache.ArrowTable(payload_of(foreign))), table)


@pytest.mark.parametrize(("kind", "code"), [("float16", "H"), ("float32", "I"), ("float64", "Q")])
def test_floats_keep_every_bit(cache, kind, code):
    """A payload in a NaN and the sign of zero, which comparisons do not see."""
    bits = struct.calcsize(code) * 8
    ones = {16: 0x7C00, 32: 0x7F80_0000, 64: 0x7FF0_0000_0000_0000}[bits]
    patterns = [0, 1 << (bits - 1), ones, ones | 1 << (bits - 1), ones | 1, ones | ones >> 1 | 5, (1 << bits) - 1, 1]
    data = struct.pack(f"<8{code}", *patterns)
    array = pa.Array.from_buffers(getattr(pa, kind)(), 8, [None, pa.py_buffer(data)])
    cache.set("floats", pa.table({"x": array}))
    found = cache.get("floats")["x"]
    assert found.null_count == 0
    assert found.chunk(0).buffers()[1].to_pybytes()[: len(data)] == data


def test_a_large_table_stands_on_the_mapped_file(cache, directory: Path):
    table = large_table()
    cache.set("table", table)
    before = pa.total_allocated_bytes()
    found = cache.get("table")
    assert pa.total_allocated_bytes() == before
    assert_same(found, table)
    buffers = addresses(found)
    assert {column for column, *_ in buffers} == set(table.column_names)
    for _, _, address, size in buffers:
        assert address % 64 == 0
        assert mapped_file(address).startswith(f"{directory}/")
        assert mapped_file(address + size - 1) == mapped_file(address)


def test_two_reads_of_a_large_table_do_not_copy_it_twice(cache):
    table = large_table()
    cache.set("table", table)
    first, second = cache.get("table"), cache.get("table", views=True, require_zero_copy=True)
    assert {mapped_file(address) for *_, address, _ in addresses(first)} == {
        mapped_file(address) for *_, address, _ in addresses(second)
    }
    assert first.equals(second)


@pytest.mark.parametrize("rows", [3, 20_000])
def test_what_was_read_survives_its_entry_and_the_cache(cache, rows):
    table = large_table().slice(5, rows)
    cache.set("table", table)
    before = cache.get("table")
    cache.set("table", pa.table({"another": range(rows)}))
    replaced = cache.get("table")
    assert cache.delete("table")
    cache.close()
    gc.collect()
    assert_same(before, table)
    assert replaced["another"].to_pylist() == list(range(rows))


def test_a_column_outlives_its_table(cache):
    cache.set("table", large_table())
    column = cache.get("table")["text"].slice(19_990)
    cache.delete("table")
    gc.collect()
    assert column.to_pylist() == [f"text {row}" for row in range(19_990, 20_000)]


def test_what_was_stored_does_not_follow_its_source(cache):
    memory = bytearray(struct.pack("<4q", 1, 2, 3, 4))
    table = pa.table({"x": pa.Array.from_buffers(pa.int64(), 4, [None, pa.py_buffer(memory)])})
    cache.set("table", table)
    memory[:8] = b"\xff" * 8
    assert table["x"].to_pylist() == [-1, 2, 3, 4]
    assert cache.get("table")["x"].to_pylist() == [1, 2, 3, 4]


def test_of_a_slice_only_its_rows_are_stored():
    table = large_table()
    whole = framecache.arrow.encode(table.drop_columns(["category", "tags"]))
    part = framecache.arrow.encode(table.drop_columns(["category", "tags"]).slice(10_000, 5))
    assert whole.nbytes > 1_000_000
    assert part.nbytes < 10_000
    assert_same(framecache.arrow.decode(part), table.drop_columns(["category", "tags"]).slice(10_000, 5))


def test_metadata_of_schema_and_fields_comes_back(cache):
    inner = pa.field("item", pa.int32(), nullable=False, metadata={"inner": "field"})
    schema = pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False, metadata={"key": "value", "": "no name"}),
            pa.field("list", pa.list_(inner), metadata={"unit": "µm"}),
        ],
        metadata={"source": "sensor", "empty": "", "json": '{"a": [1, 2]}'},
    )
    table = pa.table([pa.array([1, 2]), pa.array([[1], [2, 3]], schema.field("list").type)], schema=schema)
    for value in (table, table.to_batches()[0]):
        cache.set("table", value)
        found = cache.get("table")
        assert_same(found, value)
        assert found.schema.metadata == schema.metadata
        assert found.schema.field("list").type.value_field.metadata == {b"inner": b"field"}
        assert not found.schema.field("id").nullable


@pytest.mark.parametrize("names", [["same", "same"], ["", "a.b"], ["Größe", "🦀"]])
def test_any_column_names_come_back(cache, names):
    table = pa.table([pa.array([1, 2]), pa.array(["a", "b"])], names=names)
    cache.set("table", table)
    assert_same(cache.get("table"), table)


@pytest.mark.parametrize("rows", [0, 2])
def test_rows_without_columns_are_counted(cache, rows):
    table = pa.table({"x": range(rows)}).select([])
    batch = pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    for value in (table, batch):
        cache.set("rows", value)
        assert_same(cache.get("rows"), value)


def test_a_registered_extension_type_comes_back_with_its_parameter(cache, celsius):
    table = pa.table({"x": pa.ExtensionArray.from_storage(celsius, pa.array([1.5, None], pa.float32()))})
    cache.set("table", table)
    found = cache.get("table")
    assert_same(found, table)
    assert found.schema.field("x").type.station == "Blindern"


def test_an_extension_type_unknown_to_the_reader_comes_back_as_its_storage(cache):
    kind = Celsius("Blindern")
    cache.set("table", pa.table({"x": pa.ExtensionArray.from_storage(kind, pa.array([1.5, None], pa.float32()))}))
    found = cache.get("table")
    assert found["x"].to_pylist() == [1.5, None]
    assert found.schema.field("x").metadata[b"ARROW:extension:name"] == kind.extension_name.encode()
    assert found.schema.field("x").metadata[b"ARROW:extension:metadata"] == b"Blindern"


def test_chunks_with_different_dictionaries_come_back_with_equal_values(cache):
    chunks = [
        pa.array(["a", "b", None]).dictionary_encode(),
        pa.array(["c", "a", "c"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, None, 2], pa.int32()), pa.array(["b", "unused", "d"])),
    ]
    table = pa.table({"x": pa.chunked_array(chunks), "row": pa.chunked_array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])})
    cache.set("table", table)
    found = cache.get("table")
    found.validate(full=True)
    assert found.schema.equals(table.schema, check_metadata=True)
    assert found["x"].to_pylist() == ["a", "b", None, "c", "a", "c", "b", None, "d"]
    assert found["row"].to_pylist() == list(range(1, 10))
    assert found["x"].num_chunks == 1


@pytest.mark.parametrize(
    "chunks",
    [
        [["a", "b"], ["a", "b", "c"]],  # a dictionary that grows
        [["a", "b", "c"], ["a", "b"]],
        [[1.5], [2.5]],
        [[[1], [2]], [[3]]],  # dictionaries of lists
    ],
    ids=str,
)
def test_dictionaries_of_any_values_are_merged(cache, chunks):
    arrays = [pa.DictionaryArray.from_arrays(pa.array(range(len(values))), pa.array(values)) for values in chunks]
    table = pa.table({"x": pa.chunked_array(arrays)})
    cache.set("table", table)
    found = cache.get("table")
    assert found["x"].to_pylist() == table["x"].to_pylist() == [item for chunk in chunks for item in chunk]
    assert found["x"].type.equals(table["x"].type)


@pytest.mark.parametrize(
    "dictionaries",
    [[["low", "mid", "high"], ["low", "mid", "high", "top"]], [["low", "high"], ["low", "mid", "high"]]],
    ids=["longer", "another"],
)
def test_ordered_dictionaries_that_differ_keep_their_order_or_are_refused(cache, dictionaries):
    """The order of an ordered dictionary's values is the order of the rows' values."""
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array([row], pa.int8()), pa.array(values), ordered=True)
        for row, values in zip([1, 0], dictionaries, strict=True)
    ]
    table = pa.table({"x": pa.chunked_array(chunks)})
    try:
        cache.set("table", table)
    except framecache.EncodeError:
        assert "table" not in cache
        return
    found = cache.get("table")["x"]
    assert found.to_pylist() == table["x"].to_pylist()
    values = found.chunk(0).dictionary.to_pylist()
    assert values == [value for value in dictionaries[1] if value in values]


@pytest.mark.parametrize("inside", ["list", "struct"])
def test_different_dictionaries_inside_of_other_types_are_merged(cache, inside):
    category = pa.dictionary(pa.int32(), pa.string())
    kind = pa.list_(category) if inside == "list" else pa.struct([("c", category)])
    wrap = (lambda text: [text]) if inside == "list" else (lambda text: {"c": text})
    chunks = [pa.array([wrap("a"), None, wrap("b")], kind), pa.array([wrap("b"), wrap("a"), wrap(None)], kind)]
    table = pa.table({"x": pa.chunked_array(chunks)})
    cache.set("table", table)
    found = cache.get("table")
    found.validate(full=True)
    assert found["x"].to_pylist() == [wrap("a"), None, wrap("b"), wrap("b"), wrap("a"), wrap(None)]


def _overflowing() -> pa.Table:
    chunk = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), [str(row) for row in range(100)])
    other = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), [str(row) for row in range(100, 200)])
    return pa.table({"x": pa.chunked_array([chunk, other])})


REFUSED = {
    "dictionary of dictionaries": (
        lambda: pa.table({"x": pa.DictionaryArray.from_arrays([0], pa.array(["a"]).dictionary_encode())}),
        "cannot encode direct dictionary-of-dictionary values",
    ),
    "metadata that is not UTF-8": (
        lambda: pa.table([pa.array([1])], schema=pa.schema([("x", pa.int64())], metadata={b"raw": b"\xff"})),
        "invalid utf-8",
    ),
    "dictionaries whose values outgrow the index": (_overflowing, "Dictionary key bigger than the key type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_arrow_rs_cannot_take_is_refused_with_its_reason(cache, case):
    build, reason = REFUSED[case]
    with pytest.raises(framecache.EncodeError, match=reason) as caught:
        cache.set("table", build())
    assert isinstance(caught.value, TypeError)
    assert "table" not in cache


def test_a_refused_table_leaves_the_entry_as_it_was(cache, directory: Path):
    cache.set("table", pa.table({"x": [1]}))
    with pytest.raises(framecache.EncodeError):
        cache.set("table", REFUSED["metadata that is not UTF-8"][0]())
    assert cache.get("table").to_pydict() == {"x": [1]}
    assert cache.verify() == {"whole": 1, "damaged": 0, "orphans": 0}


def test_an_array_alone_comes_back_as_the_column_of_a_table(cache):
    cache.set("array", pa.array([1, None, 3]))
    found = pa.table(cache.get("array"))
    assert found.num_columns == 1
    assert found.column(0).to_pylist() == [1, None, 3]


def test_rows_that_are_null_as_a_whole_are_refused(cache):
    with pytest.raises(framecache.EncodeError, match="1 null rows"):
        cache.set("struct", pa.array([{"a": 1}, None]))
