"""The raw codec: bytes-like values, whose payload is their bytes."""

from __future__ import annotations

from framecache._framecache import CopyRequired, DecodeError, EncodeError, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Formats that `memoryview.cast` can restore.
_FORMATS = frozenset("cbB?hHiIlLqQnNfd")


def encode(value: object) -> tuple[str, Any, dict[str, Any]] | None:
    """Return codec, bytes and description of a bytes-like value; `None` for any other."""
    kind = type(value)
    if kind is bytes or kind is bytearray:
        return "raw", value, {"type": kind.__name__}
    if kind is Frame:
        return "raw", value, {"type": "memoryview"}
    if isinstance(value, memoryview):
        return "raw", value, _describe(value)
    if isinstance(value, bytes | bytearray):
        raise EncodeError(f"cannot encode value: expected bytes or bytearray, found the subclass {kind.__qualname__}")
    return None


def decode(
    payload: Frame, stored: dict[str, Any], views: bool, require_zero_copy: bool
) -> bytes | bytearray | memoryview:
    """Return the value whose bytes `payload` holds."""
    kind = stored.get("type")
    if kind not in ("bytes", "bytearray", "memoryview"):
        raise DecodeError(f"cannot decode raw payload: expected a bytes-like type, found {kind!r}")
    if kind == "memoryview" or views:
        view = memoryview(payload)
        return _restored(view, stored) if "format" in stored else view
    if require_zero_copy:
        raise CopyRequired(f"reading payload would copy: {kind} is a copy of the frame; pass views=True for a view")
    return payload.tobytes() if kind == "bytes" else bytearray(payload)


def _describe(view: memoryview) -> dict[str, Any]:
    if not view.c_contiguous:
        raise EncodeError("cannot encode value: expected a C-contiguous memoryview, found a strided one")
    if view.format == "B" and view.ndim == 1:
        return {"type": "memoryview"}
    if view.format.lstrip("@") not in _FORMATS:
        raise EncodeError(f"cannot encode value: expected a memoryview of native numbers, found format {view.format!r}")
    if view.nbytes == 0 and view.ndim != 1:
        raise EncodeError(f"cannot encode value: expected items or one dimension, found no items in shape {view.shape}")
    return {"type": "memoryview", "format": view.format, "itemsize": view.itemsize, "shape": list(view.shape or ())}


def _restored(view: memoryview, stored: dict[str, Any]) -> memoryview:
    """Return the view in its stored format and shape."""
    try:
        typed = view.cast(stored["format"])
        if typed.itemsize != stored["itemsize"]:
            raise DecodeError(f"cannot decode raw payload: expected items of {typed.itemsize} bytes, found {stored}")
        shape = stored["shape"]
        return typed if shape == list(typed.shape or ()) else view.cast(stored["format"], shape)
    except (KeyError, TypeError, ValueError) as error:
        raise DecodeError(
            f"cannot decode raw payload: expected format and shape of a memoryview, found {stored}"
        ) from error
