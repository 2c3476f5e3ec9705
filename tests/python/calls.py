"""Cached functions without a client: `Call` alone."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from framecache import _keys
from framecache._framecache import L1, MISSING, Call

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY = b"tests"


def no_decoder(*_: object) -> object:
    raise AssertionError("nothing here is decoded by the client")


def call_of(
    function: Callable[..., Any],
    *,
    miss: Callable[..., Any] | None = None,
    ignore: tuple[str, ...] = (),
    l1: L1 | None = None,
    scope: int = 1,
    **options: Any,
) -> Any:
    """Return the Call of a function, with its attributes."""
    parameters = [
        (name, int(each.kind), MISSING if each.default is each.empty else each.default, name in ignore)
        for name, each in inspect.signature(function).parameters.items()
    ]
    call = Call(
        l1 if l1 is not None else L1(1 << 20, decode=no_decoder),
        scope,
        IDENTITY,
        f"{function.__module__}.{function.__qualname__}",
        parameters,
        miss,
        describe=_keys.describe,
        **options,
    )
    return functools.update_wrapper(call, function)


def keep(l1: L1, canonical: bytes, value: object) -> None:
    """Put a value that callers may share into L1."""
    assert l1.fill(canonical, value, None, "", None, 0, None, None, b"")


_one = call_of(lambda x: None)


def encoding(value: object) -> bytes:
    """Return the encoding of one value."""
    canonical: bytes = _one.canonical(value)
    return canonical[4:]
