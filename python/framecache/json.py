"""JSON, with the interface of orjson 3.13: ``import framecache.json as orjson``.

>>> import framecache.json
>>> framecache.json.dumps({"id": 1, "tags": ("a", "b")})
b'{"id":1,"tags":["a","b"]}'
>>> framecache.json.loads('[1, 2.5, null]')
[1, 2.5, None]
"""

from __future__ import annotations

import json as _json

from framecache._framecache import (
    OPT_APPEND_NEWLINE,
    OPT_INDENT_2,
    OPT_NAIVE_UTC,
    OPT_NON_STR_KEYS,
    OPT_OMIT_MICROSECONDS,
    OPT_PASSTHROUGH_DATACLASS,
    OPT_PASSTHROUGH_DATETIME,
    OPT_PASSTHROUGH_SUBCLASS,
    OPT_SERIALIZE_DATACLASS,
    OPT_SERIALIZE_NUMPY,
    OPT_SERIALIZE_UUID,
    OPT_SORT_KEYS,
    OPT_STRICT_INTEGER,
    OPT_UTC_Z,
    DecodeError,
    Fragment,
    Frame,
    SerializationWrapper,
    __version__,
    dumps,
    loads,
)
from framecache._framecache import encode_json as encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "OPT_APPEND_NEWLINE",
    "OPT_INDENT_2",
    "OPT_NAIVE_UTC",
    "OPT_NON_STR_KEYS",
    "OPT_OMIT_MICROSECONDS",
    "OPT_PASSTHROUGH_DATACLASS",
    "OPT_PASSTHROUGH_DATETIME",
    "OPT_PASSTHROUGH_SUBCLASS",
    "OPT_SERIALIZE_DATACLASS",
    "OPT_SERIALIZE_NUMPY",
    "OPT_SERIALIZE_UUID",
    "OPT_SORT_KEYS",
    "OPT_STRICT_INTEGER",
    "OPT_UTC_Z",
    "Fragment",
    "JSONDecodeError",
    "JSONEncodeError",
    "__version__",
    "decode",
    "dumps",
    "encode",
    "loads",
]


class JSONDecodeError(_json.JSONDecodeError):
    """A text that is not JSON: `msg`, `doc`, `pos`, `lineno` and `colno` say what is wrong and where."""


#: What `dumps` raises for a value that has no form. Its note says where in the value that is: ``at $.users[3]``.
JSONEncodeError = TypeError


def decode(frame: Any) -> Any:
    """Return the value that `encode` was given, as `loads` returns it.

    Args:
        frame: A Frame, or the bytes of one.

    Raises:
        FrameError, DecodeError: bytes that are not such a frame.
        JSONDecodeError: a payload that is not JSON.
    """
    whole = frame if isinstance(frame, Frame) else Frame(frame)
    payload, _, codec = SerializationWrapper.unwrap(whole)
    if codec != "json" or not isinstance(payload, memoryview):
        raise DecodeError(f"cannot decode json payload: expected codec 'json', found {codec!r}")
    return loads(payload)
