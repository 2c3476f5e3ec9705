"""Which codec a value takes, and values from payloads."""

from __future__ import annotations

from framecache import _raw
from framecache._framecache import (
    CopyRequired,
    DecodeError,
    Frame,
    InvalidArgument,
    SerializationWrapper,
    encode_arrow,
    json_payload,
    msgpack_payload,
    unpackb,
)

TYPE_CHECKING = False  # importing typing would cost more than all of framecache
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Final

    from framecache._framecache import Keyring

    #: A payload, its codec, and what decoding needs to know beyond them.
    Encoded = tuple[Frame, str, dict[str, Any]]

#: The codec of sealed frames.
SEALED: Final = "sealed"
#: Bytes up to which a value is small, and items of a container.
SMALL: Final = 64 * 1024
_FEW: Final = 1000
_TEXTS: Final = frozenset((str, bytes, bytearray))
_CONTAINERS: Final = frozenset((list, tuple, dict, set, frozenset))
#: Types of which MessagePack takes all values, without a look at anything else.
_MSGPACK: Final = _CONTAINERS | {type(None), bool, int, float, str}
#: What the argument `codec` of a cache, a function and `set` may be.
CODECS: Final = ("auto", "msgpack", "json")


class Opener(dict[str, "Any"]):
    """What decoding a sealed frame needs to know that L1 keeps: who opens it. No header can name one."""

    def __init__(self, keyring: Keyring, key: str, max_value_bytes: int | None) -> None:
        super().__init__()
        self._keyring = keyring
        self._key = key
        self._max_value_bytes = max_value_bytes

    def open(self, sealed: Frame) -> Encoded:
        """Return what it was sealed from."""
        payload, codec, described, *_ = self._keyring.open_value(
            self._key, sealed, max_value_bytes=self._max_value_bytes
        )
        return payload, codec, described


def check_codec(codec: str) -> str:
    """Return `codec`, if it is one of `CODECS`."""
    if codec not in CODECS:
        raise InvalidArgument(f"codec: expected 'auto', 'msgpack' or 'json', got {codec!r:.100}")
    return codec


def check_compression(compression: str | None, argument: str = "compression") -> str | None:
    """Return `compression`, if it is a way to compress entries."""
    if compression is None:
        return None
    if not isinstance(compression, str):
        raise InvalidArgument(f"{argument}: expected None or a str, got {type(compression).__name__}")
    if compression in ("auto", "lz4", "zstd", *(f"zstd:{level}" for level in range(1, 23))):
        return compression
    raise InvalidArgument(
        f"{argument}: expected None, 'lz4', 'zstd', 'zstd:LEVEL' with a level from 1 to 22, or 'auto', got "
        f"{compression!r:.100}"
    )


def check_text(argument: str, text: str) -> str:
    """Return `text`, if it is a str."""
    if not isinstance(text, str):
        raise InvalidArgument(f"{argument}: expected a str, got {type(text).__name__}")
    return text


def texts_of(argument: str, texts: Iterable[str]) -> list[str]:
    """Return several str as a list.

    Raises:
        InvalidArgument: one str, which is easily passed in place of a list of one.
    """
    if isinstance(texts, str):
        raise InvalidArgument(f"{argument}: expected several of them, got the str {texts!r:.100}; put it in a list")
    return list(texts)


def tags_of(tags: Iterable[str]) -> list[str]:
    """As `texts_of`, for tags; those that begin with NUL are functions'."""
    found = texts_of("tags", tags)
    for tag in found:
        if check_text("tags", tag).startswith("\0"):
            raise InvalidArgument(f"tags: expected none that begins with NUL, got {tag!r:.100}")
    return found


def choose(value: object, codec: str = "auto") -> tuple[str, Any, dict[str, Any]]:
    """Return the codec for `value`, what to hand to it, and what decoding needs to know."""
    if codec != "auto":
        return codec, value, {}
    kind = type(value)
    if kind in _MSGPACK:
        return "msgpack", value, {}
    if (raw := _raw.encode(value)) is not None:
        return raw
    if kind.__module__ != "builtins":
        from framecache import arrow

        if (table := arrow.describe(value)) is not None:
            return "arrow", *table
    return "msgpack", value, {}


def is_small(value: Any) -> bool:
    """Whether it is encoded, sealed or opened in less time than another thread takes to begin, as far as a look at it
    tells.
    """
    kind = type(value)
    if kind in _TEXTS:
        return len(value) <= SMALL
    if kind in _CONTAINERS:
        return len(value) <= _FEW
    if type(nbytes := getattr(value, "nbytes", None)) is int:
        return nbytes <= SMALL
    return not hasattr(value, "__len__")


def encode(value: object, codec: str = "auto") -> Encoded:
    """Return the payload of `value`, in memory of its own."""
    return encode_chosen(*choose(value, codec))


def encode_chosen(chosen: str, source: Any, described: dict[str, Any]) -> Encoded:
    """As `encode`, of what `choose` returned."""
    if chosen in ("raw", SEALED):
        return source if type(source) is Frame else Frame(source), chosen, described
    if chosen != "arrow":
        return (msgpack_payload if chosen == "msgpack" else json_payload)(source), chosen, described
    payload = SerializationWrapper.unwrap_metadata(encode_arrow(source, described))[0]
    own = payload.obj if isinstance(payload, memoryview) else payload
    return own if isinstance(own, Frame) else Frame(own), chosen, described


def decode(
    payload: Frame, codec: str, described: dict[str, Any], views: bool = False, require_zero_copy: bool = False
) -> Any:
    """Return the value whose payload this is.

    Raises:
        CopyRequired: with `require_zero_copy`, where reading would copy.
        DecodeError: a payload that its codec cannot read, or a codec that is not known.
        ImportError: a library that the value needs and that is not installed.
    """
    if codec == "msgpack":
        value = unpackb(payload, views=views)
        if require_zero_copy and not _is_view(value):
            raise CopyRequired("reading payload would copy: only bytes and arrays can be views, with views=True")
        return value
    if codec == "raw":
        return _raw.decode(payload, described, views, require_zero_copy)
    if codec == "arrow":
        from framecache import arrow

        return arrow.rebuild(payload, described, views=views, require_zero_copy=require_zero_copy)
    if codec == "json":
        if require_zero_copy:
            raise CopyRequired("reading payload would copy: JSON has no views")
        from framecache import json

        try:
            return json.loads(memoryview(payload))
        except json.JSONDecodeError as error:
            raise DecodeError(f"cannot decode json payload: {error}") from error
    if codec == SEALED:
        if isinstance(described, Opener):
            return decode(*described.open(payload), views, require_zero_copy)
        key_id = SerializationWrapper.unwrap(payload)[1].get("kid")
        raise DecodeError(f"cannot decode sealed payload: expected a keyring with master key {key_id}, found none")
    raise DecodeError(f"cannot decode payload: expected codec 'raw', 'arrow', 'msgpack' or 'json', found {codec!r}")


def _is_view(value: Any) -> bool:
    """Whether it is a memoryview, or an array that stands on other memory."""
    return isinstance(value, memoryview) or getattr(getattr(value, "flags", None), "owndata", True) is False
