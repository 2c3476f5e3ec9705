"""polars objects to Arrow and back, without pyarrow."""

from __future__ import annotations

import polars as pl

from framecache import arrow
from framecache._framecache import ArrowTable, DecodeError, EncodeError, Frame, encode_arrow


def to_arrow(value: pl.DataFrame | pl.Series) -> pl.DataFrame:
    """Return `value` as a DataFrame whose columns all come back as they are: tried out on zero rows.

    (A column of Python objects, for one, would be exported as the addresses of its objects.)
    """
    frame = value.to_frame() if isinstance(value, pl.Series) else value
    try:
        back = arrow.decode(encode_arrow(frame.clear(), {"type": "polars.DataFrame"})).schema
    except (DecodeError, pl.exceptions.PolarsError) as error:
        raise EncodeError(f"cannot encode DataFrame: expected columns that Arrow can hold, found {error}") from error
    for name, dtype in frame.schema.items():
        if back[name] != dtype:
            found = f"{dtype} ({back[name]} after)"
            raise EncodeError(f"cannot encode column {name!r}: expected a dtype that Arrow gives back, found {found}")
    return frame


def from_arrow(payload: Frame, *, require_zero_copy: bool) -> pl.DataFrame:
    """Return the Arrow IPC file `payload` as a DataFrame over its memory."""
    try:
        return pl.DataFrame(ArrowTable(payload, require_zero_copy=require_zero_copy))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DecodeError(f"cannot decode arrow payload: expected columns that polars reads, found {error}") from error
