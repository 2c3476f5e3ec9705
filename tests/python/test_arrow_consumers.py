"""Reading and writing without pyarrow: polars, DuckDB, nanoarrow, pandas and unknown producers.

This module is imported by children in which pyarrow cannot be imported: it imports no library itself.
"""

from __future__ import annotations

import datetime as dt
import decimal
import gc
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import framecache
import framecache.arrow
from support import addresses, mapped_file, payload_of, run, skip_or_fail

#: What a child runs first.
WITHOUT_PYARROW = 'import sys; sys.modules["pyarrow"] = None\n'
#: Where children find this module.
HERE = {"PYTHONPATH": str(Path(__file__).parent)}
#: More than the 64 KiB from which files are mapped.
ROWS = 20_000

POLARS_DTYPES = [
    *("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64"),
    *("Boolean", "String", "Binary", "Date", "Time", "Decimal", "Null"),
    *(f"{kind}({unit})" for kind in ("Datetime", "Datetime in Oslo", "Duration") for unit in ("ms", "us", "ns")),
    *("Categorical", "Enum", "List(Int64)", "List(String)", "List(Categorical)", "List(List)", "List(Null)"),
    *("Array(Int8, 2)", "Array(Int8, (2, 2))", "Array(String, 1)", "Struct", "Struct of Structs", "Struct of Enums"),
]


def library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        skip_or_fail(str(error))


def polars_series(name: str) -> Any:
    """Return a Series of a dtype, with nulls."""
    import polars as pl

    kind, _, rest = name.partition("(")
    numbers = [0, None, 1, 3, 100]
    if kind.startswith(("Int", "UInt")):
        return pl.Series("x", numbers, dtype=getattr(pl, kind))
    if kind.startswith("Float"):
        return pl.Series("x", [0.5, None, float("nan"), float("-inf"), -0.0], dtype=getattr(pl, kind))
    if kind in ("Datetime", "Datetime in Oslo", "Duration"):
        unit = rest.rstrip(")")
        dtype = (
            pl.Duration(unit) if kind == "Duration" else pl.Datetime(unit, "Europe/Oslo" if "Oslo" in kind else None)
        )
        return pl.Series("x", numbers).cast(dtype)
    enum = pl.Enum(["unused", "b", "a"])
    values: dict[str, tuple[list[Any], Any]] = {
        "Boolean": ([True, None, False, True], pl.Boolean),
        "String": (["a", None, "", "a text of more than twelve bytes", "Zürich"], pl.String),
        "Binary": ([b"a", None, b"", b"\xff" * 20], pl.Binary),
        "Date": ([dt.date(2020, 1, 2), None, dt.date(1900, 1, 1)], pl.Date),
        "Time": ([dt.time(1, 2, 3, 4), None, dt.time(23, 59, 59, 999_999)], pl.Time),
        "Decimal": ([decimal.Decimal("1.25"), None, decimal.Decimal("-99.99")], pl.Decimal(38, 2)),
        "Null": ([None, None, None], pl.Null),
        "Categorical": (["a", None, "b", "a"], pl.Categorical),
        "Enum": (["b", None, "a", "b"], enum),
        "List(Int64)": ([[1, 2], None, [], [None]], pl.List(pl.Int64)),
        "List(String)": ([["a", None], None, [], ["a text of more than twelve bytes"]], pl.List(pl.String)),
        "List(Categorical)": ([["a", "b"], None, [], ["a"]], pl.List(pl.Categorical)),
        "List(List)": ([[[1], []], None, [None, [2, 3]]], pl.List(pl.List(pl.Int64))),
        "List(Null)": ([[None, None], None, []], pl.List(pl.Null)),
        "Array(Int8, 2)": ([[1, 2], None, [3, None]], pl.Array(pl.Int8, 2)),
        "Array(Int8, (2, 2))": ([[[1, 2], [3, 4]], None, [[5, 6], [7, 8]]], pl.Array(pl.Int8, (2, 2))),
        "Array(String, 1)": ([["a"], None, [None]], pl.Array(pl.String, 1)),
        "Struct": ([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}], pl.Struct({"a": pl.Int8, "b": pl.String})),
        "Struct of Structs": ([{"a": {"b": True}}, None], pl.Struct({"a": pl.Struct({"b": pl.Boolean})})),
        "Struct of Enums": ([{"e": "a"}, {"e": None}], pl.Struct({"e": enum})),
    }
    content, dtype = values[name]
    return pl.Series("x", content, dtype=dtype)


def polars_forms(name: str) -> list[Any]:
    """Return Series and DataFrames of a dtype: whole, empty, sliced, filtered and chunked."""
    import polars as pl

    series = polars_series(name)
    chunked = pl.concat([series, series[1:], series[:0]], rechunk=False)
    forms = [series, series[:0], series[1:], series.filter([True, False] + [True] * (len(series) - 2)), chunked]
    return [*forms, *(form.to_frame() for form in forms), chunked.to_frame().with_row_index("row")]


def check_polars_round_trips(cache: framecache.Cache, name: str) -> None:
    for value in polars_forms(name):
        cache.set("value", value)
        assert_same_polars(cache.get("value"), value)


def assert_same_polars(found: Any, expected: Any) -> None:
    assert type(found) is type(expected)
    if hasattr(expected, "schema"):
        assert found.schema == expected.schema
        assert found.equals(expected)
    else:
        assert (found.name, found.dtype) == (expected.name, expected.dtype)
        assert found.equals(expected, check_dtypes=True, check_names=True)


def large_polars() -> Any:
    import polars as pl

    return pl.DataFrame(
        {
            "number": range(ROWS),
            "real": [row / 3 for row in range(ROWS)],
            "text": [f"a text of more than twelve bytes {row}" for row in range(ROWS)],
        }
    )


def arrays_of(series: Any) -> list[Any]:
    """Return the chunks of a polars Series, as nanoarrow sees them."""
    return list(library("nanoarrow").c_array_stream(series))


class Stream:
    """A producer with `__arrow_c_stream__` only."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._source.__arrow_c_stream__(requested_schema)


class Array:
    """A producer with `__arrow_c_array__` only."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        return self._source.__arrow_c_array__(requested_schema)


@pytest.fixture
def stored(cache) -> framecache.ArrowTable:
    """A mapped table that no library's class wrapped, of 64-bit numbers and strings."""
    pa = library("pyarrow")
    table = pa.table(
        {"number": range(ROWS), "text": [f"a text of more than twelve bytes {row}" for row in range(ROWS)]}
    )
    cache.set("table", Stream(table))
    return cache.get("table")


def inside(address: int, table: framecache.ArrowTable) -> bool:
    return table.payload.address <= address < table.payload.address + table.nbytes


@pytest.mark.parametrize("name", POLARS_DTYPES)
def test_every_polars_dtype_comes_back_equal(cache, name):
    library("polars")
    check_polars_round_trips(cache, name)


def test_every_polars_dtype_comes_back_equal_without_pyarrow(directory):
    library("polars")
    code = f"""
import framecache
from test_arrow_consumers import POLARS_DTYPES, check_polars_round_trips
cache = framecache.Cache("file://{directory}")
for name in POLARS_DTYPES:
    check_polars_round_trips(cache, name)
print(cache.stats(), sys.modules["pyarrow"], "pandas" in sys.modules)
"""
    expected = {"hit": sum(len(polars_forms(name)) for name in POLARS_DTYPES)}
    assert run(WITHOUT_PYARROW + code, env=HERE) == f"{expected} None False\n"


def test_categories_of_polars_chunks_stay_what_they_are(cache):
    """Also those that no row uses: they define the order of an Enum."""
    pl = library("polars")
    enum = pl.Enum(["low", "unused", "high"])
    first, second = pl.Series("e", ["high", "low"], dtype=enum), pl.Series("e", ["low", None], dtype=enum)
    first.append(second)
    frame = first.to_frame().with_columns(pl.col("e").cast(pl.String).cast(pl.Categorical).alias("c"))
    cache.set("frame", frame)
    found = cache.get("frame")
    assert_same_polars(found, frame)
    assert found["e"].dtype.categories.to_list() == ["low", "unused", "high"]
    assert found.sort("e", nulls_last=True)["e"].to_list() == ["low", "low", "high", None]


def test_a_polars_frame_of_different_chunks_comes_back_equal(cache):
    pl = library("polars")
    chunks = [pl.DataFrame({"c": pl.Series(letters, dtype=pl.Categorical)}) for letters in (["a", "b"], ["c", "a"], [])]
    frame = pl.concat(chunks, rechunk=False)
    cache.set("frame", frame)
    assert_same_polars(cache.get("frame"), frame)


@pytest.mark.parametrize("name", ["", "a name", "Größe"])
def test_a_polars_series_keeps_its_name(cache, name):
    pl = library("polars")
    cache.set("series", pl.Series(name, [1, 2]))
    assert cache.get("series").name == name
    assert cache.get("series").to_list() == [1, 2]


@pytest.mark.parametrize("height", [0, 3])
def test_a_polars_frame_without_columns_keeps_its_height(cache, height):
    pl = library("polars")
    cache.set("frame", pl.DataFrame(height=height))
    assert cache.get("frame").shape == (height, 0)


def test_a_polars_object_column_is_refused(cache):
    """Arrow would take the addresses of its objects for bytes."""
    pl = library("polars")
    series = pl.Series("things", [object()], dtype=pl.Object)
    for value in (series, series.to_frame(), pl.DataFrame({"x": [1]}).with_columns(series), series[:0]):
        with pytest.raises(framecache.EncodeError, match="things"):
            cache.set("objects", value)
    assert "objects" not in cache


@pytest.mark.parametrize("name", ["Int128", "UInt128"])
def test_a_polars_dtype_that_arrow_lacks_is_refused(cache, name):
    pl = library("polars")
    if not hasattr(pl, name):
        skip_or_fail(f"this polars has no {name}")
    with pytest.raises(framecache.EncodeError, match="not supported"):
        cache.set("value", pl.Series("x", [1], dtype=getattr(pl, name)))
    assert "value" not in cache


def test_what_polars_cannot_read_back_is_a_miss(cache):
    """polars 2 exports arrays of width 0 that it does not import."""
    pl = library("polars")
    series = pl.Series("x", [[], None], dtype=pl.Array(pl.Int8, 0))
    try:
        cache.set("value", series)
    except framecache.EncodeError:
        assert "value" not in cache
        return
    found = cache.get("value")
    if found is None:
        assert cache.stats() == {"undecodable": 1}
    else:
        assert_same_polars(found, series)


def test_a_lazy_polars_frame_is_refused(cache):
    pl = library("polars")
    with pytest.raises(framecache.EncodeError, match="LazyFrame"):
        cache.set("value", pl.LazyFrame({"x": [1]}))


def test_a_subclass_of_a_polars_frame_is_refused(cache):
    pl = library("polars")

    class Named(pl.DataFrame):
        pass

    with pytest.raises(framecache.EncodeError, match=r"the subclass .*Named"):
        cache.set("value", Named({"x": [1]}))


def test_a_polars_frame_stands_on_the_mapped_file(cache, directory):
    library("polars")
    frame = large_polars()
    cache.set("frame", frame)
    found = cache.get("frame", require_zero_copy=True)
    assert_same_polars(found, frame)
    for name in ("number", "real"):
        address = found[name].to_numpy(allow_copy=False).__array_interface__["data"][0]
        assert mapped_file(address).startswith(f"{directory}/")
    for chunk in arrays_of(found["text"]):
        assert chunk.schema.format == "vu"
        _validity, *buffers, _sizes = chunk.buffers
        assert len(buffers) > 1
        assert all(mapped_file(address).startswith(f"{directory}/") for address in buffers)


def test_a_polars_frame_stands_on_the_mapped_file_without_pyarrow(directory):
    library("polars")
    library("nanoarrow")
    code = f"""
import framecache
from support import mapped_file
from test_arrow_consumers import arrays_of, large_polars
cache = framecache.Cache("file://{directory}")
cache.set("frame", large_polars())
found = cache.get("frame")
for name in found.columns:
    for chunk in arrays_of(found[name]):
        buffers = chunk.buffers[1:-1] if name == "text" else chunk.buffers[1:]
        print(name, all(mapped_file(address).startswith("{directory}/") for address in buffers))
"""
    assert run(WITHOUT_PYARROW + code, env=HERE) == "number True\nreal True\ntext True\n"


def test_a_polars_frame_survives_its_entry_and_the_cache(cache):
    library("polars")
    frame = large_polars()
    cache.set("frame", frame)
    found = cache.get("frame")
    cache.set("frame", frame.reverse())
    cache.delete("frame")
    cache.close()
    gc.collect()
    assert_same_polars(found, frame)


def test_writing_to_a_polars_frame_that_was_read_leaves_the_entry_as_it_was(cache):
    library("polars")
    frame = large_polars()
    cache.set("frame", frame)
    found = cache.get("frame")
    found[0, "number"] = -1
    found[1, "text"] = "changed"
    assert found.row(0)[0] == -1
    assert_same_polars(cache.get("frame"), frame)


def test_an_arrow_table_tells_its_size(stored):
    assert (stored.num_rows, len(stored), stored.column_names) == (ROWS, ROWS, ["number", "text"])
    assert stored.payload.nbytes == stored.nbytes > ROWS * (8 + 4 + 33)
    assert bytes(stored.payload[:6]) == b"ARROW1"
    assert stored.payload.is_mapped
    assert repr(stored) == f"<framecache.ArrowTable of {ROWS} rows, 2 columns, {stored.nbytes} bytes>"


def test_an_arrow_table_is_the_same_file_that_pyarrow_reads(stored):
    pa = library("pyarrow")
    assert pa.ipc.open_file(pa.py_buffer(stored.payload)).read_all().equals(pa.table(stored))


def test_an_arrow_table_gives_its_schema(stored):
    pa = library("pyarrow")
    assert pa.schema(stored) == pa.table(stored).schema == pa.schema([("number", pa.int64()), ("text", pa.string())])


def test_an_arrow_table_can_be_consumed_many_times(stored):
    pa = library("pyarrow")
    assert [pa.table(stored)["number"][-1].as_py() for _ in range(3)] == [ROWS - 1] * 3


def test_an_arrow_table_can_be_stored_again(cache, stored):
    pa = library("pyarrow")
    cache.set("again", stored)
    found = cache.get("again")
    assert pa.table(found).equals(pa.table(stored))
    assert found.payload.address != stored.payload.address


def test_pyarrow_reads_an_arrow_table_where_it_lies(cache, stored):
    pa = library("pyarrow")
    before = pa.total_allocated_bytes()
    table = pa.table(stored)
    assert pa.total_allocated_bytes() == before
    buffers = addresses(table)
    assert len(buffers) == 3
    assert all(inside(address, stored) and address % 64 == 0 for _, _, address, _ in buffers)
    cache.delete("table")
    cache.close()
    del stored
    gc.collect()
    assert table["number"].to_pylist() == list(range(ROWS))
    assert table["text"][ROWS - 1].as_py() == f"a text of more than twelve bytes {ROWS - 1}"


def test_polars_reads_an_arrow_table_where_it_lies(stored):
    pl = library("polars")
    frame = pl.DataFrame(stored)
    assert frame["number"].to_list() == list(range(ROWS))
    assert frame["text"][ROWS - 1] == f"a text of more than twelve bytes {ROWS - 1}"
    assert inside(frame["number"].to_numpy(allow_copy=False).__array_interface__["data"][0], stored)
    # The views of the text are polars' own, its bytes are not.
    for chunk in arrays_of(frame["text"]):
        assert inside(chunk.buffers[2], stored)


def test_nanoarrow_reads_an_arrow_table_where_it_lies(stored):
    na, pa = library("nanoarrow"), library("pyarrow")
    (chunk,) = na.c_array_stream(stored)
    found = {address for child in chunk.children for address in child.buffers if address}
    assert found == {address for _, _, address, _ in addresses(pa.table(stored))}
    assert all(inside(address, stored) for address in found)
    assert na.Array(chunk.child(0)).to_pylist() == list(range(ROWS))


def test_duckdb_reads_an_arrow_table(stored):
    duckdb = library("duckdb")
    totals = duckdb.sql("select sum(number), max(length(text)), count(distinct text) from stored").fetchall()
    assert totals == [(sum(range(ROWS)), len(f"a text of more than twelve bytes {ROWS - 1}"), ROWS)]
    assert duckdb.sql("select text from stored where number = 12345").fetchall() == [
        ("a text of more than twelve bytes 12345",)
    ]


def test_pandas_reads_the_text_of_an_arrow_table_where_it_lies(stored):
    pd = library("pandas")
    if not hasattr(pd.DataFrame, "from_arrow"):
        pytest.skip("DataFrame.from_arrow came with pandas 3")
    frame = pd.DataFrame.from_arrow(stored)
    assert frame["number"].tolist() == list(range(ROWS))
    assert frame["text"].tolist()[-1] == f"a text of more than twelve bytes {ROWS - 1}"
    # The offsets are pandas' own, and numbers of several columns go to one block.
    (text,) = frame["text"].array.__arrow_array__().chunks
    assert inside(text.buffers()[2].address, stored)


@pytest.mark.parametrize("rows", [3, ROWS])
def test_a_producer_of_a_stream_comes_back_as_an_arrow_table(cache, rows):
    pa = library("pyarrow")
    table = pa.table(
        {"x": pa.chunked_array([range(rows), [None, 1]]), "s": pa.chunked_array([["a"] * rows, ["b", None]])}
    )
    cache.set("value", Stream(table))
    found = cache.get("value")
    assert type(found) is framecache.ArrowTable
    assert (found.num_rows, found.column_names) == (rows + 2, ["x", "s"])
    assert pa.table(found).equals(table)


def test_a_producer_of_an_array_comes_back_as_an_arrow_table(cache):
    pa = library("pyarrow")
    batch = pa.record_batch({"x": [1, None, 3], "s": ["a", "b", None]})
    cache.set("value", Array(batch))
    found = cache.get("value")
    assert type(found) is framecache.ArrowTable
    assert pa.table(found).to_batches() == [batch]


def test_a_duckdb_relation_comes_back_as_an_arrow_table(cache):
    duckdb, pa = library("duckdb"), library("pyarrow")
    relation = duckdb.sql("select range as n, 'row ' || range as text from range(5)")
    cache.set("value", relation)
    found = cache.get("value")
    assert type(found) is framecache.ArrowTable
    assert pa.table(found).to_pydict() == {"n": list(range(5)), "text": [f"row {row}" for row in range(5)]}


def test_nanoarrow_values_come_back_as_arrow_tables(cache):
    na, pa = library("nanoarrow"), library("pyarrow")
    for value in (
        na.Array([1, None, 3], na.int32()),
        na.c_array([1, None, 3], na.int32()),
        na.c_array_stream(na.c_array([1, None, 3], na.int32())),
    ):
        cache.set("value", value)
        found = cache.get("value")
        assert type(found) is framecache.ArrowTable
        assert pa.table(found).column(0).to_pylist() == [1, None, 3]


def test_nanoarrow_round_trips_without_any_other_library(directory):
    library("nanoarrow")
    code = f"""
for name in ("pandas", "polars", "numpy"):
    sys.modules[name] = None
import framecache, nanoarrow as na
cache = framecache.Cache("file://{directory}")
cache.set("value", na.Array(["a", None, "ccc"], na.string()))
found = cache.get("value")
print(found.num_rows, na.Array(found).child(0).to_pylist())
"""
    assert run(WITHOUT_PYARROW + code) == "3 ['a', None, 'ccc']\n"


def test_a_stream_is_read_once(cache):
    pa = library("pyarrow")

    class Once:
        capsule = pa.table({"x": [1, 2]}).__arrow_c_stream__()

        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return self.capsule

    cache.set("value", Once())
    assert pa.table(cache.get("value")).to_pydict() == {"x": [1, 2]}
    with pytest.raises(framecache.EncodeError, match="released"):
        cache.set("value", Once())
    assert pa.table(cache.get("value")).to_pydict() == {"x": [1, 2]}


def test_the_message_of_a_failing_producer_is_reported(cache, directory):
    pa = library("pyarrow")

    def batches():
        yield pa.record_batch({"x": [1]})
        raise ValueError("the disk fell out")

    cache.set("value", b"before")
    with pytest.raises(framecache.EncodeError, match="the disk fell out"):
        cache.set("value", pa.RecordBatchReader.from_batches(pa.schema([("x", pa.int64())]), batches()))
    assert cache.get("value") == b"before"
    assert cache.verify() == {"whole": 1, "damaged": 0, "orphans": 0}


def test_an_exception_of_a_producer_reaches_the_caller(cache):
    class Failing:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        cache.set("value", Failing())


@pytest.mark.parametrize("returned", [None, 1, "capsule", (), (1, 2)])
def test_what_gives_no_capsules_is_refused(cache, returned):
    class Stray:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return returned

    class StrayArray:
        def __arrow_c_array__(self, requested_schema: object = None) -> object:
            return returned

    for value in (Stray(), StrayArray()):
        with pytest.raises((TypeError, ValueError)):
            cache.set("value", value)
    assert "value" not in cache


def test_a_capsule_of_another_name_is_refused(cache):
    pa = library("pyarrow")

    class Swapped:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.schema([("x", pa.int64())]).__arrow_c_schema__()

    with pytest.raises((framecache.EncodeError, ValueError, TypeError)):
        cache.set("value", Swapped())
    assert "value" not in cache


def imported(code: str, *, first: str = "") -> set[str]:
    """Return which of some modules `code` imports in a new interpreter, not counting what `first` imports."""
    watched = [
        "pyarrow",
        "pandas",
        "polars",
        "numpy",
        "duckdb",
        "nanoarrow",
        "redis",
        "logging",
        "json",
        "asyncio",
        "dataclasses",
    ]
    start, end = "import sys; before = set(sys.modules)", f"print(*(set(sys.modules) - before) & set({watched!r}))"
    return set(run("\n".join((first, start, code, end))).split())


def test_importing_the_package_imports_nothing_else():
    assert imported("import framecache") == set()


def test_raw_values_import_nothing_else(directory):
    code = f"""
import framecache
with framecache.Cache("file://{directory}") as cache:
    for value in (b"x", bytearray(b"x"), memoryview(b"x" * 100_000), framecache.Frame(b"x")):
        cache.set("value", value, ttl=60)
        assert cache.get("value") == value or bytes(cache.get("value")) == b"x"
    assert cache.get("absent") is None and "value" in cache and cache.delete("value")
"""
    assert imported(code) == set()


def test_polars_values_import_neither_pyarrow_nor_pandas(directory):
    library("polars")
    first = 'import polars; value = polars.DataFrame({"x": ["a"]}); assert value.equals(value.clone())'
    code = f"""
import framecache
with framecache.Cache("file://{directory}") as cache:
    cache.set("value", value)
    assert cache.get("value").equals(value)
"""
    assert imported(code, first=first) == set()


def test_pyarrow_tables_import_neither_pandas_nor_polars(directory):
    library("pyarrow")
    first = 'import pyarrow; value = pyarrow.Table.from_batches([pyarrow.record_batch([pyarrow.array([1])], ["x"])])'
    code = f"""
import framecache
with framecache.Cache("file://{directory}") as cache:
    cache.set("value", value)
    assert cache.get("value").equals(value)
"""
    assert imported(code, first=first) == set()


@pytest.mark.parametrize("name", ["pyarrow", "pandas", "polars"])
def test_a_value_of_a_library_that_is_not_installed_is_a_miss(cache, directory, name):
    module = library(name)
    cache.set("value", module.table({"x": [1]}) if name == "pyarrow" else module.DataFrame({"x": [1]}))
    code = f"""
import json, sys
sys.modules["{name}"] = None
import framecache
cache = framecache.Cache("file://{directory}")
print(json.dumps([cache.get("value", "nothing"), cache.stats()]))
"""
    assert json.loads(run(code)) == ["nothing", {"undecodable": 1}]
    assert cache.get("value") is not None


def test_an_arrow_table_of_a_foreign_frame_is_validated_and_read_in_place():
    pa = library("pyarrow")
    table = pa.table({"x": range(1000)})
    payload = payload_of(framecache.arrow.encode(table))
    found = framecache.ArrowTable(payload.obj, require_zero_copy=True)
    assert pa.table(found).equals(table)
    assert found.payload.address == payload.obj.address
