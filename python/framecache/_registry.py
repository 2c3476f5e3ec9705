"""Classes of the application: how their instances are written, and which of them may be rebuilt."""

from __future__ import annotations

from framecache._framecache import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")
    #: Extension code, name, class, fields, pack, unpack.
    Entry = tuple[int, str, type, tuple[str, ...], Callable[[Any], object] | None, Callable[[Any], object] | None]

_ENUM, _NAMEDTUPLE, _DATACLASS, _OBJECT = 19, 20, 21, 22

#: What was registered, by the name that entries have it under.
BY_NAME: dict[str, Entry] = {}
_BY_CLASS: dict[type, Entry] = {}


def register(
    cls: type[T] | None = None,
    *,
    pack: Callable[[T], object] | None = None,
    unpack: Callable[[Any], T] | None = None,
    name: str | None = None,
) -> Any:
    """Allow instances of `cls` to be rebuilt from entries; returns `cls`, so that it can decorate a class.

    Enum, dataclass and namedtuple classes need nothing else: a dataclass is rebuilt from its declared fields without
    calling `__init__`. For any other class, `pack` makes a value of an instance, and `unpack` an instance of that
    value; `unpack` is called with whatever an entry holds, and should check it.

    Args:
        cls: The class itself; subclasses are registered on their own.
        pack: From an instance to any value that can be cached.
        unpack: From that value to an instance.
        name: What entries call the class; ``module:qualname`` if it is not given. Registering another class under the
            same name is an error, unless it has the same module and qualified name.

    Raises:
        InvalidArgument: a class without form and without `pack` and `unpack`; a name that is taken.
    """
    if cls is None:
        return lambda decorated: register(decorated, pack=pack, unpack=unpack, name=name)
    if not isinstance(cls, type):
        raise InvalidArgument(f"cls: expected a class, got {cls!r}")
    entry = _entry(cls, pack, unpack, name)
    taken = BY_NAME.get(entry[1])
    if taken is not None and _default_name(taken[2]) != _default_name(cls):
        raise InvalidArgument(f"name: expected one that is free, got {entry[1]!r}, which is {taken[2]!r}")
    if taken is not None:
        _BY_CLASS.pop(taken[2], None)
    if cls in _BY_CLASS:
        del BY_NAME[_BY_CLASS[cls][1]]
    BY_NAME[entry[1]] = _BY_CLASS[cls] = entry
    return cls


def describe(cls: type) -> Entry | None:
    """Return how instances of `cls` are written; `None` if they have no form."""
    if (entry := _BY_CLASS.get(cls)) is not None:
        return entry
    kind = _kind_of(cls)
    return None if kind is None else (kind[0], _default_name(cls), cls, kind[1], None, None)


def _entry(
    cls: type, pack: Callable[[Any], object] | None, unpack: Callable[[Any], object] | None, name: str | None
) -> Entry:
    if (pack is None) != (unpack is None):
        raise InvalidArgument("pack, unpack: expected both or none, got one of them")
    if cls.__module__ == "builtins":
        raise InvalidArgument(f"cls: expected a class of the application, got {cls!r}")
    name = _default_name(cls) if name is None else str(name)
    if pack is not None:
        return (_OBJECT, name, cls, (), pack, unpack)
    kind = _kind_of(cls)
    if kind is None:
        raise InvalidArgument(
            f"cls: expected an Enum, dataclass or namedtuple class, or pack= and unpack=, got {cls!r} alone"
        )
    return (kind[0], name, cls, kind[1], None, None)


def _kind_of(cls: type) -> tuple[int, tuple[str, ...]] | None:
    if "_member_map_" in cls.__dict__:
        from enum import EnumMeta, Flag

        if isinstance(cls, EnumMeta):
            return _ENUM, ("flag",) if issubclass(cls, Flag) else ()
    fields = getattr(cls, "__dataclass_fields__", None)
    if isinstance(fields, dict):
        from dataclasses import fields as declared

        if "__dataclass_fields__" in cls.__dict__ and _is_plain(cls):
            return _DATACLASS, tuple(field.name for field in declared(cls))
    names = getattr(cls, "_fields", None)
    if issubclass(cls, tuple) and isinstance(names, tuple) and all(type(name) is str for name in names):
        return _NAMEDTUPLE, names
    return None


def _is_plain(cls: type) -> bool:
    """Whether `object.__new__` makes instances: no class but `object` has a `__new__` in C."""
    return all(type(base.__dict__.get("__new__")) is not type(object.__new__) for base in cls.__mro__[:-1])


def _default_name(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"
