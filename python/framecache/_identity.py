"""What a function is: the part of its results' keys that its arguments do not decide."""

from __future__ import annotations

import functools
import os
import sys
import types

from framecache._base import Base
from framecache._framecache import MISSING, Call, EncodeError, InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

#: The version of all this; a change of what an identity or a key is made of changes it.
_FORMAT: Final = 2
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
#: What modules are called that are run as scripts; the second one by processes that `multiprocessing` spawns.
_SCRIPTS: Final = ("__main__", "__mp_main__")

# Parameter kinds, as in `inspect`.
POSITIONAL_ONLY, POSITIONAL, VAR_POSITIONAL, KEYWORD_ONLY, VAR_KEYWORD = range(5)


def label_of(function: Callable[..., Any], name: str | None) -> str:
    """Return the readable part of the keys of a function's results: `name`, or its module and qualified name.

    That of a script is the path of its file. Objects that can be called have those of their class, `functools.partial`
    those of its function.
    """
    if name is not None:
        if not isinstance(name, str) or not name or "#" in name or "\0" in name:
            raise InvalidArgument(f"name: expected a str without '#', got {name!r:.100}")
        return name
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    return _name_of(inner if hasattr(inner, "__qualname__") else type(inner))


def identity_of(
    function: Callable[..., Any],
    label: str,
    version: object,
    key: Callable[..., object] | None,
    strict: bool,
    options: tuple[object, ...],
) -> Any:
    """Return what tells a function from all others, as a value that keys can be made of.

    Args:
        function: The function.
        label: What it is called.
        version: What changes when it does, instead of what its code says.
        key: What makes keys of its arguments.
        strict: Whether it is an error if something counts that keys cannot be made of; else its type counts.
        options: What else decides what its entries are.

    Raises:
        EncodeError: a function that closes over, or is bound to, what keys cannot be made of.
    """
    functions = _Functions(label, version is None, strict)
    functions.place(function)
    if key is not None:
        functions.place(key)
    return (_FORMAT, label, ("version", version), functions.described(), options)


class _Functions:
    """A function, and the functions that it closes over or calls in its turn, each described once.

    Args:
        label: What the first one is called in errors.
        code: Whether what their code does counts.
        strict: As of `identity_of`.
    """

    def __init__(self, label: str, code: bool, strict: bool) -> None:
        self._label = label
        self._code = code
        self._strict = strict
        self._all: list[Any] = []
        self._places: dict[int, int] = {}

    def place(self, function: Any) -> int:
        """The number of a function, which is described later."""
        if id(function) not in self._places:
            self._places[id(function)] = len(self._all)
            self._all.append(function)
        return self._places[id(function)]

    def described(self) -> list[object]:
        """All of them; describing one may add others."""
        return [self._described(function) for function in self._all]

    def _described(self, function: Any) -> object:
        if isinstance(function, functools.partial):
            arguments = [self._value(value, "an argument") for value in function.args]
            keywords = {name: self._value(value, name) for name, value in function.keywords.items()}
            return ("partial", self.place(function.func), arguments, keywords)
        if isinstance(function, types.MethodType):
            return ("method", self.place(function.__func__), self._value(function.__self__, "self"))
        if isinstance(getattr(function, "__code__", None), types.CodeType):
            return self._python_function(function)
        if (inner := getattr(function, "__wrapped__", None)) is not None:
            return ("wrapper", _name_of(type(function)), self.place(inner))
        if hasattr(function, "__qualname__"):
            owner = getattr(function, "__self__", None)
            return ("builtin", _name_of(function), None if owner is None else self._value(owner, "self"))
        kind = type(function)
        return ("object", _name_of(kind), self.place(kind.__call__), self._value(function, "self"))

    def _python_function(self, function: Any) -> object:
        inner = getattr(function, "__wrapped__", None)
        told = (
            "function",
            _name_of(function),
            [self._cell(*cell) for cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)],
            self.place(inner) if callable(inner) else None,
        )
        if not self._code:
            return told
        defaults = [_or_type(value) for value in function.__defaults__ or ()]
        keywords = {name: _or_type(value) for name, value in (function.__kwdefaults__ or {}).items()}
        return (*told, _fingerprint(function.__code__), defaults, keywords)

    def _cell(self, name: str, cell: types.CellType) -> object:
        try:
            value = cell.cell_contents
        except ValueError:
            return (name, "unset")  # the function itself, or what is defined after it
        return (name, self._value(value, name))

    def _value(self, value: Any, name: str) -> object:
        """What a function closes over, or is bound to: that is called `self`, and what may change does not count."""
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__)
        if isinstance(value, _FUNCTIONS):
            return ("function", self.place(value))
        if isinstance(value, Base):
            return ("cache", value._url, value._namespace)
        if can_be_key(value, name):
            return ("value", value)
        if not self._strict:
            return ("type", _name_of(type(value)))
        raise EncodeError(
            f"cannot make keys for {self._label}: expected it to close over, and to be bound to, values that keys can "
            f"be made of, found {name}, a {_name_of(type(value))}; pass name= or key="
        )


#: What is described by what it does, not by its value.
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)


def _name_of(named: Any) -> str:
    """Module and qualified name of a function or class."""
    module = getattr(named, "__module__", None) or "?"
    return f"{_script_of(module) if module in _SCRIPTS else module}.{named.__qualname__}"


def _script_of(module: str) -> str:
    """What tells a script from others: its module, if it was run by that name, or its path."""
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in _SCRIPTS:
        return str(spec.name)
    path: str | None = getattr(main, "__file__", None)
    if path is None:
        return "__main__"
    return os.path.realpath(path).replace("%", "%25").replace("#", "%23")


def _fingerprint(code: types.CodeType) -> object:
    """What a code object does, with the code objects in it."""
    told = [_fingerprint(one) if isinstance(one, types.CodeType) else _constant(one) for one in code.co_consts]
    return (sys.version_info[:2], [getattr(code, name, None) for name in _CODE], told)


def _constant(value: object) -> object:
    """A constant; `...` stands for itself by name."""
    if value is ...:
        return ("ellipsis",)
    if isinstance(value, tuple | frozenset):
        return type(value)(_constant(one) for one in value)
    return value


def _or_type(value: object) -> object:
    """A default value; of one that keys cannot be made of, its type. It counts with each call that uses it."""
    return value if can_be_key(value) else ("type", _name_of(type(value)))


def can_be_key(value: object, name: str = "value") -> bool:
    """Whether keys can be made of a value; of one called `self`, as the instance that a method is called on."""
    try:
        _call_of(name == "self").canonical(value)
    except EncodeError:
        return False
    return True


def encoder(value: object) -> bytes:
    """Return the canonical encoding of a value.

    Raises:
        EncodeError: a value that has none.
    """
    encoded: bytes = _call_of(False).canonical(value)
    return encoded


@functools.cache
def _call_of(is_owner: bool) -> Call:
    from framecache import _keys
    from framecache._framecache import L1

    parameters = [("self" if is_owner else "value", POSITIONAL_ONLY, MISSING, False)]
    return Call(L1(1, decode=_never), 0, b"", "", parameters, None, describe=_keys.describe)


def _never(*_arguments: object) -> Any:
    raise InvalidArgument("decode: expected no entry, got one")


def parameters_of(function: Callable[..., Any], ignore: frozenset[str]) -> list[tuple[str, int, Any, bool]]:
    """Return name, kind, default or `MISSING`, and whether it is ignored, of each parameter of a function.

    Raises:
        InvalidArgument: an ignored name that it does not have; a function without a signature.
    """
    found = _plain_parameters(function)
    if found is None:
        import inspect

        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(f"cache: expected a function with a signature, got {function!r:.100}") from error
        found = [
            (one.name, int(one.kind), MISSING if one.default is one.empty else one.default)
            for one in signature.parameters.values()
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
