"""pandas objects to Arrow and back, exactly or not at all.

Arrow has no type for what an `object` column may hold. Those columns are stored if all their values are of one kind
that comes back the same, with one kind of null; others are refused by name. Everything else about the object (dtypes,
labels, index) is tried out on its first zero rows before anything is stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from framecache._framecache import CopyRequired, DecodeError, EncodeError, Frame

#: Kinds of `object` values (as `pandas.api.types.infer_dtype` names them) that Arrow gives back as they were.
_KINDS = frozenset({"string", "bytes", "boolean", "integer", "floating", "decimal", "date", "time", "empty"})
#: The nulls that an `object` column may hold, and how they are named in the header.
_NULLS = {"None": None, "nan": float("nan"), "NA": pd.NA}
#: The one column of a Series' table.
_VALUES = "values"


def to_arrow(value: Any, described: dict[str, Any]) -> tuple[pa.Table | pa.RecordBatch, dict[str, Any]]:
    """Return `value` as a table, and `described` with what the table lacks."""
    if isinstance(value, pd.Series):
        name = value.name
        if not (name is None or type(name) in (str, float, bool) or (type(name) is int and abs(name) < 2**63)):
            raise _refused("name of the Series", "None, a str or a number of at most 64 bits", f"{name!r:.100}")
        described["name"] = value.name
        value = value.to_frame(_VALUES)
    described |= _unsaid(value)
    try:
        table = _with_nans(pa.Table.from_pandas(value), value)
        _try_out(table, value, described)
    except EncodeError:
        raise
    except Exception as error:  # pandas and pyarrow fail in many ways over each other's types
        raise _refused(_culprit(value), "columns and labels that Arrow gives back", str(error)) from error
    # A stream leaves out batches without rows, and with them the categories; one batch alone is not left out.
    return (table if table.num_rows else _without_rows(table)), described


def from_arrow(
    table: pa.Table, payload: Frame, stored: dict[str, Any], *, views: bool, require_zero_copy: bool
) -> pd.DataFrame | pd.Series:
    """Return the pandas object that `to_arrow` was given, as `stored` describes it.

    Columns stand on `payload` where they can, if `views` asks for it; otherwise those that pandas may write in place
    are copied.
    """
    if require_zero_copy and not views:
        first = table.column_names[0] if table.num_columns else ""
        raise CopyRequired(f"reading column {first!r} would copy: pandas may write it; pass views=True for views")
    if table.num_rows > 8 * payload.nbytes and not payload.is_trusted:
        # Columns of nulls or runs have as many rows as they say; pandas would lay out each.
        found = f"{table.num_rows} rows in {payload.nbytes} bytes"
        raise DecodeError(f"cannot decode arrow payload: expected a bit or more for each row, found {found}")
    try:
        frame = _to_pandas(table, stored, views)
        if not views:
            _make_writable(frame, payload)
        values = frame
        if stored.get("type") == "pandas.Series":
            values = frame.iloc[:, 0]
            values.name = stored.get("name")  # rename() copies with pandas 2
    except Exception as error:  # metadata that describes other columns fails in as many ways as pandas has
        raise DecodeError(f"cannot decode arrow payload: expected metadata of its columns, found {error!r}") from error
    if require_zero_copy:
        _check_uncopied(frame, payload)
    return values


def _unsaid(frame: pd.DataFrame) -> dict[str, Any]:
    """What Arrow's schema does not say: object columns and labels, and the frequency of the index."""
    said: dict[str, Any] = {}
    objects = [
        [position, _null_of(frame.iloc[:, position], f"column {label!r}")]
        for position, (label, dtype) in enumerate(zip(frame.columns, frame.dtypes, strict=True))
        if pd.api.types.is_object_dtype(dtype)
    ]
    index = [
        [
            level,
            _null_of(pd.Series(np.asarray(frame.index.get_level_values(level)), dtype=object), f"index level {level}"),
        ]
        for level in range(frame.index.nlevels)
        if frame.index.get_level_values(level).dtype == object
    ]
    if objects:
        said["objects"] = objects
    if index:
        said["index_objects"] = index
    if frame.columns.dtype == object and frame.columns.nlevels == 1:
        said["label_objects"] = True
    for axis, name in ((frame.index, "frequency"), (frame.columns, "label_frequency")):
        frequency = getattr(axis, "freq", None)
        if frequency is not None and not isinstance(axis, pd.PeriodIndex):
            said[name] = _name_of_frequency(frequency)
    if not frame.flags.allows_duplicate_labels:
        said["unique_labels"] = True
    return said


def _name_of_frequency(frequency: Any) -> str:
    """Check that a frequency is all that its name says: no holidays, no calendar offsets."""
    name: str = frequency.freqstr
    try:
        if pd.tseries.frequencies.to_offset(name) == frequency:
            return name
    except ValueError:
        pass
    raise _refused("frequency of the index", "one that its name gives back", repr(frequency))


def _null_of(values: pd.Series, place: str) -> str:
    """Check an object column; return the name of the null it holds."""
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind not in _KINDS:
        raise _refused(
            place, "objects of one kind that Arrow has (str, bytes, int, date, Decimal, …)", f"kind {kind!r}"
        )
    items = values.dropna()
    if kind == "date" and any(isinstance(item, datetime) for item in items):
        raise _refused(place, "objects of one kind", "dates and datetimes")
    if kind == "time" and any(item.tzinfo is not None for item in items):
        raise _refused(place, "times without a zone", "times with one")
    nulls = values[values.isna()]
    for name, null in _NULLS.items():
        if all(item is null or (name == "nan" and type(item) is float) for item in nulls):
            return name
    raise _refused(place, "one kind of null", f"{sorted({repr(item) for item in nulls})}; use fillna()")


def _with_nans(table: pa.Table, frame: pd.DataFrame) -> pa.Table:
    """Keep NaN in float columns as the number it is, not as a null: such a column can be read in place."""
    for position, dtype in enumerate(frame.dtypes):
        if isinstance(dtype, np.dtype) and dtype.kind == "f" and table.column(position).null_count:
            column = pa.array(np.asarray(frame.iloc[:, position]), from_pandas=False)
            table = table.set_column(position, table.field(position), column)
    return table


def _try_out(table: pa.Table, frame: pd.DataFrame, described: dict[str, Any]) -> None:
    """Check that dtypes, labels and index come back, on zero rows."""
    back = _to_pandas(table.slice(0, 0), {**described, "frequency": None}, False)
    index_names = list(back.index.names)
    if isinstance(frame.index, pd.RangeIndex) and isinstance(frame.index.name, str):
        index_names = [frame.index.name]  # a range of no rows is another range; names that are str do come back
    if not (back.columns.equals(frame.columns) and _same(back.columns.dtype, frame.columns.dtype)):
        raise _refused("column labels", "labels that Arrow gives back", f"{frame.columns!r:.200}")
    if list(back.columns.names) != list(frame.columns.names) or index_names != list(frame.index.names):
        raise _refused(
            "names of the axes", "names that Arrow gives back", f"{frame.columns.names}, {frame.index.names}"
        )
    if back.attrs != frame.attrs:
        raise _refused("attrs", "a dict that JSON gives back", f"{frame.attrs!r:.200}")
    for position, (before, after) in enumerate(zip(frame.dtypes, back.dtypes, strict=True)):
        if not _same(before, after):
            raise _refused(
                f"column {frame.columns[position]!r}", "a dtype that Arrow gives back", f"{before} ({after} after)"
            )
    for level in range(frame.index.nlevels):
        before, after = frame.index.get_level_values(level).dtype, back.index.get_level_values(level).dtype
        if not _same(before, after):
            raise _refused(f"index level {level}", "a dtype that Arrow gives back", f"{before} ({after} after)")


def _same(before: Any, after: Any) -> bool:
    # Time zones of one name from two libraries differ; their dtypes read the same.
    return bool(before == after) or (isinstance(before, pd.DatetimeTZDtype) and str(before) == str(after))


def _to_pandas(table: pa.Table, stored: dict[str, Any], views: bool) -> pd.DataFrame:
    frame = table.to_pandas(split_blocks=views, integer_object_nulls=True)
    for position, null in stored.get("objects", ()):
        objects = _as_objects(frame.iloc[:, position], null)
        frame.isetitem(position, pd.Series(objects, index=frame.index, dtype=object))
    if levels := stored.get("index_objects"):
        frame.index = _index_of_objects(frame.index, levels)
    if stored.get("label_objects"):
        frame.columns = frame.columns.astype(object)
    if frequency := stored.get("frequency"):
        frame.index.freq = frequency
    if frequency := stored.get("label_frequency"):
        frame.columns.freq = frequency
    if stored.get("unique_labels"):
        frame.flags.allows_duplicate_labels = False
    return frame


def _without_rows(table: pa.Table) -> pa.RecordBatch:
    chunks = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(chunks, schema=table.schema)


def _culprit(frame: pd.DataFrame) -> str:
    """The first column that fails on its own."""
    for position, label in enumerate(frame.columns):
        try:
            _to_pandas(pa.Table.from_pandas(frame.iloc[:, [position]].reset_index(drop=True)).slice(0, 0), {}, False)
        except Exception:
            return f"column {label!r}"
    return "DataFrame"


def _as_objects(values: pd.Series | pd.Index, null: str) -> np.ndarray[Any, Any]:
    objects = np.array(values.astype(object), dtype=object)
    objects[np.asarray(values.isna())] = _NULLS[null]
    return objects


def _index_of_objects(index: pd.Index, levels: list[list[Any]]) -> pd.Index:
    arrays = [index.get_level_values(level) for level in range(index.nlevels)]
    for level, null in levels:
        arrays[level] = pd.Index(_as_objects(arrays[level], null), dtype=object, name=arrays[level].name)
    return arrays[0] if len(arrays) == 1 else pd.MultiIndex.from_arrays(arrays, names=index.names)


def _make_writable(frame: pd.DataFrame, payload: Frame) -> None:
    """Copy the columns that stand on the frame and that pandas may write in place."""
    for position in range(frame.shape[1]):
        column = frame.iloc[:, position]
        memory = _memory_of(column)
        if memory is not None and _inside(memory, payload):
            frame.isetitem(position, column.copy(deep=True))


def _check_uncopied(frame: pd.DataFrame, payload: Frame) -> None:
    for position, label in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if len(column) == 0 or _is_arrow(column):
            continue
        memory = _memory_of(column)
        if memory is None or not _inside(memory, payload):
            raise CopyRequired(f"reading column {label!r} would copy: {_why_copied(column)}")


def _why_copied(column: pd.Series) -> str:
    dtype = column.dtype
    if pd.api.types.is_object_dtype(dtype):
        return "its values are Python objects, which Arrow does not hold"
    if pd.api.types.is_bool_dtype(dtype):
        return "its booleans are bits in Arrow and bytes in pandas"
    return f"pandas lays out {dtype} with nulls, or in several batches, in its own way"


def _is_arrow(column: pd.Series) -> bool:
    """Whether the column is an Arrow array, which is never written in place."""
    return hasattr(column.array, "__arrow_array__") and hasattr(column.array, "_pa_array")


def _memory_of(column: pd.Series) -> np.ndarray[Any, Any] | None:
    """The NumPy array that holds the column's values, if one does."""
    if _is_arrow(column):
        return None
    array: Any = column.array
    for name in ("_ndarray", "_data"):
        if isinstance(memory := getattr(array, name, None), np.ndarray):
            return memory
    return None


def _inside(memory: np.ndarray[Any, Any], payload: Frame) -> bool:
    start = memory.__array_interface__["data"][0]
    return memory.size > 0 and payload.address <= start < payload.address + payload.nbytes


def _refused(place: str, expected: str, found: str) -> EncodeError:
    return EncodeError(f"cannot encode {place}: expected {expected}, found {found}")
