"""MessagePack that gives back what was written: Python's own types, exactly.

>>> from framecache import msgpack
>>> msgpack.unpackb(msgpack.packb({1: (2, {3}), "at": b"x"}))
{1: (2, {3}), 'at': b'x'}
>>> msgpack.packb([1, "a"], types="plain")
b'\\x92\\x01\\xa1a'
"""

from __future__ import annotations

from framecache._framecache import DecodeError, Frame, SerializationWrapper, packb, unpackb
from framecache._framecache import encode_msgpack as encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Ext", "decode", "encode", "packb", "unpackb"]


def decode(frame: Any, *, views: bool = False) -> Any:
    """Return the value that `encode` was given.

    Args:
        frame: A Frame, or the bytes of one.
        views: As for `unpackb`; the views stand on `frame`.

    Raises:
        FrameError, DecodeError: bytes that are not such a frame.
    """
    whole = frame if isinstance(frame, Frame) else Frame(frame)
    payload, _, codec = SerializationWrapper.unwrap(whole)
    if codec != "msgpack" or not isinstance(payload, memoryview):
        raise DecodeError(f"cannot decode msgpack payload: expected codec 'msgpack', found {codec!r}")
    return unpackb(payload.obj, views=views)


class Ext:
    """An extension of MessagePack: a code from -128 to 127 and the bytes of its payload.

    `packb` writes it; `unpackb(…, ext_hook=Ext)` gives it back. With ``types="python"`` the codes 0 to 63 are taken.
    """

    __slots__ = ("code", "data")

    def __init__(self, code: int, data: bytes) -> None:
        """Keep both; `packb` checks them."""
        self.code = code
        self.data = data

    def __eq__(self, other: object) -> bool:
        """Whether code and payload are the same."""
        return isinstance(other, Ext) and (self.code, self.data) == (other.code, other.data)

    def __hash__(self) -> int:
        """Of both."""
        return hash((self.code, self.data))

    def __repr__(self) -> str:
        """How it was made."""
        return f"Ext({self.code}, {self.data!r})"
