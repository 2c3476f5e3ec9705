"""What a cache takes from the environment."""

from __future__ import annotations

import os
import sys

from framecache._framecache import InvalidArgument
from framecache._times import LONGEST
from framecache._url import directory_of, is_remote, size_of, store_of
from framecache._values import CODECS, check_compression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, TypeVar

    T = TypeVar("T")

_L1: Final[int | None] = 256 << 20
_YES: Final = ("1", "true", "yes", "on")
_NO: Final = ("", "0", "false", "no", "off")


class Settings:
    """The ``FRAMECACHE_*`` variables: what `Cache` takes for arguments that it is not given.

    Args:
        environ: Where to look; the environment of the process if not given.

    Raises:
        InvalidArgument: a variable with another value than it may have, naming both.
    """

    __slots__ = (
        *("codec", "compression", "disable", "l1", "max_value_bytes", "namespace", "on_error", "store", "ttl", "url"),
    )

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ

        def read(name: str, default: T, parse: Callable[[str, str], T]) -> T:
            variable = f"FRAMECACHE_{name}"
            text = environ.get(variable)
            return default if text is None else parse(variable, text)

        self.url: str | None = read("URL", None, _url)
        self.store: str | None = read("STORE", None, _directory)
        self.namespace: str = read("NAMESPACE", "", lambda _, text: text)
        self.ttl: float | None = read("TTL", None, _seconds)
        self.l1: int | None = read("L1", _L1, _size_or_off)
        self.codec: str = read("CODEC", "auto", _codec)
        self.compression: str | None = read("COMPRESSION", None, _compression)
        self.max_value_bytes: int = read("MAX_VALUE_BYTES", 1 << 30, _size)
        self.on_error: str = read("ON_ERROR", "count", _on_error)
        self.disable: bool = read("DISABLE", False, _flag)


def _wrong(variable: str, expected: str, text: str) -> InvalidArgument:
    return InvalidArgument(f"{variable}: expected {expected}, got {text!r:.100}")


def _url(variable: str, text: str) -> str | None:
    try:
        if text and not is_remote(text):
            store_of(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{variable}: {str(error).removeprefix('url: ')}") from None
    return text or None


def _directory(variable: str, text: str) -> str | None:
    if not text:
        return None
    try:
        directory_of(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{variable}: {str(error).partition(': ')[2]}") from None
    return text


def _compression(variable: str, text: str) -> str | None:
    return None if text in ("", "none") else check_compression(text, variable)


def _seconds(variable: str, text: str) -> float | None:
    if text in ("", "none"):
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST:
        raise _wrong(variable, f"seconds above 0 and at most {LONGEST:.0f}, or 'none'", text)
    return seconds


def _size(variable: str, text: str) -> int:
    try:
        size = size_of(variable, text)
    except InvalidArgument:
        size = 0
    if not 0 < size <= sys.maxsize:
        raise _wrong(variable, f"a size such as 256MiB, from 1 to {sys.maxsize} bytes", text)
    return size


def _size_or_off(variable: str, text: str) -> int | None:
    if text in ("off", "none"):
        return None
    try:
        return _size(variable, text)
    except InvalidArgument:
        raise _wrong(variable, "a size such as 256MiB, or 'off'", text) from None


def _codec(variable: str, text: str) -> str:
    if text not in CODECS:
        raise _wrong(variable, "'auto', 'msgpack' or 'json'", text)
    return text


def _on_error(variable: str, text: str) -> str:
    if text not in ("count", "raise"):
        raise _wrong(variable, "'count' or 'raise'", text)
    return text


def _flag(variable: str, text: str) -> bool:
    if text.lower() not in (*_YES, *_NO):
        raise _wrong(variable, "'1' or '0'", text)
    return text.lower() in _YES


def given(argument: Any, missing: Any, setting: T) -> T:
    """Return the argument, or the setting where it was not given."""
    return setting if argument is missing else argument
