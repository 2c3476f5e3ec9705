"""The arrow codec: tables and DataFrames as Arrow IPC files, read where they lie.

>>> import framecache.arrow, pyarrow as pa
>>> frame = framecache.arrow.encode(pa.table({"city": ["Oslo", "Rome"], "n": [1, 2]}))
>>> framecache.arrow.decode(frame)["n"].to_pylist()
[1, 2]
"""

from __future__ import annotations

import sys

from framecache._framecache import (
    ArrowTable,
    CopyRequired,
    DecodeError,
    EncodeError,
    Frame,
    SerializationWrapper,
    encode_arrow,
    verify_arrow,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    import pyarrow as pa

__all__ = ["decode", "encode"]

#: Libraries whose own classes come back as themselves, and which of them.
_KNOWN = {
    "pyarrow": ("Table", "RecordBatch"),
    "polars": ("DataFrame", "Series"),
    "pandas": ("DataFrame", "Series"),
}


def encode(value: object) -> Frame:
    """Return a frame that holds `value` as an Arrow IPC file; its column data is copied once, into the frame.

    Args:
        value: A pyarrow Table or RecordBatch, a polars or pandas DataFrame or Series, or anything with
            `__arrow_c_stream__` or `__arrow_c_array__`.

    Raises:
        EncodeError: what Arrow cannot hold, or would not give back as it was.
    """
    arrow = describe(value)
    if arrow is None:
        found = f"{type(value).__module__}.{type(value).__qualname__}"
        raise EncodeError(f"cannot encode value: expected an Arrow producer (__arrow_c_stream__), found {found}")
    return encode_arrow(*arrow)


def decode(frame: Any, *, views: bool = False, require_zero_copy: bool = False) -> Any:
    """Return the value that `encode` was given.

    Args:
        frame: A Frame, or the bytes of one. Unless a store of this user or `encode` made it, it is foreign, and
            everything in it is validated first.
        views: For pandas: return columns that stand on the frame and cannot be written.
        require_zero_copy: Raise `CopyRequired`, naming the column and why, instead of copying.

    Raises:
        FrameError, DecodeError: bytes that are not such a frame, or one whose payload a cache has compressed.
        CopyRequired: see `require_zero_copy`; always for compressed Arrow IPC.
    """
    whole = frame if isinstance(frame, Frame) else Frame(frame)
    if require_zero_copy and not isinstance(frame, Frame) and not whole.is_zero_copy:
        raise CopyRequired("reading payload would copy: its memory may change; pass bytes or a Frame")
    payload, metadata, codec = SerializationWrapper.unwrap(whole)
    file = payload.obj if isinstance(payload, memoryview) else None
    if codec != "arrow" or not isinstance(file, Frame):
        raise DecodeError(f"cannot decode arrow payload: expected codec 'arrow', found {codec!r}")
    if (compression := metadata.get("compression")) is not None:
        raise DecodeError(
            f"cannot decode arrow payload: expected one that is not compressed, found m.compression {compression!r:.40}"
        )
    stored = metadata.get("py")
    described = stored if isinstance(stored, dict) else {}
    return rebuild(file, described, views=views, require_zero_copy=require_zero_copy)


def describe(value: object) -> tuple[object, dict[str, Any]] | None:
    """Return a producer of `value`'s columns, and what `rebuild` needs to know beyond them; `None` if it has none."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    name = kind.__qualname__
    if library in _KNOWN and kind is getattr(sys.modules[library], name, None) and name in _KNOWN[library]:
        described: dict[str, Any] = {"type": f"{library}.{name}"}
        if library == "pandas":
            from framecache import _pandas

            return _pandas.to_arrow(value, described)
        if library == "polars":
            from framecache import _polars

            return _polars.to_arrow(value), described  # type: ignore[arg-type]  # checked above
        return value, described
    for base in kind.__mro__[1:]:
        if base.__qualname__ in _KNOWN.get(base.__module__.partition(".")[0], ()):
            found = f"the subclass {kind.__module__}.{name}, which would come back without what it adds"
            raise EncodeError(
                f"cannot encode value: expected {base.__module__}.{base.__qualname__} itself, found {found}"
            )
    if hasattr(value, "__arrow_c_stream__") or hasattr(value, "__arrow_c_array__"):
        return value, {"type": "ArrowTable"}
    return None


def rebuild(payload: Frame, stored: dict[str, Any], *, views: bool, require_zero_copy: bool) -> Any:
    """Return the value whose Arrow IPC file `payload` is."""
    kind = stored.get("type")
    if kind == "ArrowTable":
        return ArrowTable(payload, require_zero_copy=require_zero_copy)
    if kind in ("polars.DataFrame", "polars.Series"):
        from framecache import _polars

        frame = _polars.from_arrow(payload, require_zero_copy=require_zero_copy)
        if kind == "polars.Series" and frame.width != 1:
            raise DecodeError(f"cannot decode arrow payload: expected the one column of a Series, found {frame.width}")
        return frame if kind == "polars.DataFrame" else frame.to_series()
    if kind in ("pyarrow.Table", "pyarrow.RecordBatch"):
        return _open(verify_arrow(payload, require_zero_copy=require_zero_copy), whole=kind == "pyarrow.Table")
    if kind in ("pandas.DataFrame", "pandas.Series"):
        from framecache import _pandas

        verified = verify_arrow(payload, require_zero_copy=require_zero_copy)
        return _pandas.from_arrow(_open(verified), verified, stored, views=views, require_zero_copy=require_zero_copy)
    raise DecodeError(f"cannot decode arrow payload: expected a type that framecache wrote (m.py.type), found {kind!r}")


def _open(payload: Frame, whole: bool = True) -> pa.Table | pa.RecordBatch:
    """Return a verified payload as a table, or as its one batch; a foreign one is validated in full."""
    import pyarrow as pa

    try:
        reader = pa.ipc.open_file(pa.py_buffer(payload))
        if not whole and reader.num_record_batches != 1:
            found = reader.num_record_batches
            raise DecodeError(f"cannot decode arrow payload: expected one record batch, found {found}")
        opened = reader.read_all() if whole else reader.get_batch(0)
        opened.validate(full=not payload.is_trusted)
    except (pa.ArrowException, OSError) as error:  # OSError: flatbuffers that pyarrow does not accept
        raise DecodeError(f"cannot decode arrow payload: expected valid Arrow data, found {error}") from error
    return opened
