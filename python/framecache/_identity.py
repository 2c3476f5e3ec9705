"""What a function is: the part of its results' keys that its arguments do not decide."""

from __future__ import annotations

import sys
import types

from framecache._framecache import Call, EncodeError, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: The version of all this; a change of what an identity or a key is made of changes it.
_FORMAT: Final = 1
#: What of a code object decides about results, beside its constants; names of files and numbers of lines do not.
_CODE: Final = (
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_flags",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_code",
    "co_exceptiontable",
)
#: Functions within functions' closures that are looked into.
_DEPTH: Final = 16

# Parameter kinds, as in `inspect`.
POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)


def label_of(function: Callable[..., Any], name: str | None) -> str:
    """Return the readable part of the keys of a function's results: `name`, or its module and qualified name."""
    if name is not None:
        if not isinstance(name, str) or not name or "#" in name or "\0" in name:
            raise InvalidArgument(f"name: expected a str without '#', got {name!r:.100}")
        return name
    return f"{_module_of(function)}.{getattr(function, '__qualname__', type(function).__qualname__)}"


def identity_of(
    function: Callable[..., Any], name: str | None, version: object, closure: bool, options: tuple[object, ...]
) -> Any:
    """Return what tells a function from all others, as a value that keys can be made of.

    Args:
        function: The function.
        name: What it is called, instead of its module and qualified name.
        version: What changes when it does, instead of what its code says.
        closure: Whether what it closes over counts, where neither is given.
        options: What else decides what its entries are.

    Raises:
        EncodeError: a closure over something that keys cannot be made of.
    """
    if version is not None:
        return (_FORMAT, label_of(function, name), ("version", version), options)
    return (_FORMAT, label_of(function, name), _code_of(function, 0, closure and name is None), options)


def _module_of(function: Callable[..., Any]) -> str:
    module = getattr(function, "__module__", None) or "?"
    if module != "__main__":
        return str(module)
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None:
        return module
    import os

    return os.path.realpath(path).replace("#", "%23")


def _code_of(function: Any, depth: int, closure: bool) -> object:
    """What a function does, so far as its own code tells: nested code, constants, defaults, and what it closes over."""
    if depth > _DEPTH:
        return "deep"
    if isinstance(function, types.MethodType):
        return ("method", _code_of(function.__func__, depth + 1, closure))
    code = getattr(function, "__code__", None)
    if not isinstance(code, types.CodeType):
        wrapped = getattr(function, "func", None)  # functools.partial
        if wrapped is not None and callable(wrapped):
            return ("partial", _code_of(wrapped, depth + 1, closure), function.args, function.keywords)
        kind = type(function)
        return ("object", kind.__module__, kind.__qualname__)
    defaults = [_or_type(value) for value in function.__defaults__ or ()]
    keywords = {name: _or_type(value) for name, value in (function.__kwdefaults__ or {}).items()}
    cells = _cells_of(function, depth) if closure else ()
    return (_fingerprint(code), defaults, keywords, cells)


def _fingerprint(code: types.CodeType) -> object:
    told = [_fingerprint(one) if isinstance(one, types.CodeType) else _constant(one) for one in code.co_consts]
    return (sys.version_info[:2], [getattr(code, name, None) for name in _CODE], told)


def _constant(value: object) -> object:
    """A constant; `...` stands for itself by name."""
    if value is ...:
        return ("ellipsis",)
    if isinstance(value, tuple):
        return tuple(_constant(one) for one in value)
    return value


def _or_type(value: object) -> object:
    """A default value; of one that keys cannot be made of, its type. It counts with each call that uses it."""
    return value if can_be_key(value) else ("type", type(value).__module__, type(value).__qualname__)


def _cells_of(function: types.FunctionType, depth: int) -> object:
    cells: list[object] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:
            cells.append((name, "unset"))  # the function itself, or what is defined after it
            continue
        cells.append((name, _closed_over(value, name, function, depth)))
    return cells


def _closed_over(value: Any, name: str, function: types.FunctionType, depth: int) -> object:
    if isinstance(value, types.ModuleType):
        return ("module", value.__name__)
    if isinstance(value, type):
        return ("class", value.__module__, value.__qualname__)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        inner = getattr(value, "__wrapped__", None)
        if inner is not None and not isinstance(getattr(value, "__code__", None), types.CodeType):
            value = inner
        return ("function", _module_of(value), value.__qualname__, _code_of(value, depth + 1, closure=True))
    if can_be_key(value):
        return ("value", value)
    raise EncodeError(
        f"cannot make keys for {function.__qualname__}: expected it to close over values that keys can be made of, "
        f"found {name!r}, a {type(value).__module__}.{type(value).__qualname__}; pass name= or key="
    )


def can_be_key(value: object) -> bool:
    """Whether keys can be made of a value."""
    try:
        encoder(value)
    except EncodeError:
        return False
    return True


def encoder(value: object) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        EncodeError: a value that has none.
    """
    return _one_argument().canonical(value)


_encoder: Call | None = None


def _one_argument() -> Call:
    global _encoder
    if _encoder is None:
        from framecache import _keys
        from framecache._framecache import L1, MISSING

        parameters = [("value", POSITIONAL_ONLY, MISSING, False)]
        l1 = L1(1, decode=_never)
        _encoder = Call(l1, 0, b"", "", parameters, None, describe=_keys.describe)
    return _encoder


def _never(*_arguments: object) -> Any:
    raise InvalidArgument("decode: expected no entry, got one")


def parameters_of(function: Callable[..., Any], ignore: frozenset[str]) -> list[tuple[str, int, Any, bool]]:
    """Return name, kind, default or `MISSING`, and whether it is ignored, of each parameter of a function.

    Raises:
        InvalidArgument: an ignored name that it does not have.
    """
    from framecache._framecache import MISSING

    found = _plain_parameters(function)
    if found is None:
        import inspect

        found = [
            (one.name, int(one.kind), MISSING if one.default is one.empty else one.default)
            for one in inspect.signature(function).parameters.values()
        ]
    names = {name for name, _, _ in found}
    if unknown := sorted(ignore - names):
        raise InvalidArgument(f"ignore: expected names of parameters ({', '.join(sorted(names))}), got {unknown[0]!r}")
    return [(name, kind, default, name in ignore) for name, kind, default in found]


def _plain_parameters(function: Any) -> list[tuple[str, int, Any]] | None:
    """Those of a function that nothing wraps, without importing inspect."""
    if (
        type(function) is not types.FunctionType
        or hasattr(function, "__wrapped__")
        or hasattr(function, "__signature__")
    ):
        return None
    from framecache._framecache import MISSING

    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = (MISSING,) * (len(positional) - len(function.__defaults__ or ())) + (function.__defaults__ or ())
    found = [
        (name, POSITIONAL_ONLY if place < code.co_posonlyargcount else POSITIONAL, default)
        for place, (name, default) in enumerate(zip(positional, defaults, strict=True))
    ]
    after = code.co_argcount + code.co_kwonlyargcount
    if code.co_flags & 0x04:
        found.append((code.co_varnames[after], VAR_POSITIONAL, MISSING))
        after += 1
    keywords = function.__kwdefaults__ or {}
    for name in code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]:
        found.append((name, KEYWORD_ONLY, keywords.get(name, MISSING)))
    if code.co_flags & 0x08:
        found.append((code.co_varnames[after], VAR_KEYWORD, MISSING))
    return found
