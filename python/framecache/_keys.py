"""What stands for a value in a key, for types whose encoding is not written in Rust.

Nothing is imported for a type that the value may have: if its module is not there, neither is a value of it.
"""

from __future__ import annotations

import os
import sys

from framecache import _registry, _types
from framecache._framecache import EncodeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    #: The label, which names the type, and a value that is encoded in turn.
    Described = tuple[str, object]

#: What `framecache._registry` calls kinds of classes.
_ENUM, _NAMEDTUPLE, _DATACLASS, _OBJECT = 19, 20, 21, 22

_EXPECTED = (
    "None, a bool, number, str or bytes, a container, Enum member, dataclass, date, path, array or table of these, "
    "an instance with cache_key(), or one of a class registered with framecache.register"
)
_EXPECTED_OWNER = (
    "an instance with a cache_key() method, of a frozen dataclass, an Enum or a class registered with "
    "framecache.register"
)


def describe(value: Any, is_owner: bool = False) -> Described:
    """Return what is encoded for `value`: a label that names its type, and a value with all that makes it differ.

    Labels of one word are those of the standard library and NumPy; in others the first word is the kind of the class
    that the rest names.

    Args:
        value: An object of a type that has no encoding in Rust.
        is_owner: Whether it is the instance that a method is called on: what may change does not count then.

    Raises:
        EncodeError: nothing stands for the value; with what was expected and what was found. What `cache_key` and
            `pack` raise.
    """
    cls = type(value)
    known = _KNOWN.get((cls.__module__, cls.__qualname__))
    if known is not None and cls is getattr(sys.modules[cls.__module__], cls.__name__, None):
        return known[0], known[1](value)
    if isinstance(value, type):
        return "type", _name_of(value)
    of_library = _LIBRARIES.get(cls.__module__.partition(".")[0])
    described = of_library(value) if of_library is not None else None
    described = described or _of_class(cls, value, is_owner)
    if described is None and not is_owner:
        described = _subclass(cls, value)
    if described is not None:
        return described
    raise EncodeError(_EXPECTED_OWNER if is_owner else _EXPECTED, f"an instance of {_shown(cls)}")


def _of_class(cls: type, value: Any, is_owner: bool) -> Described | None:
    """What stands for an instance of an application's class that says what its instances are."""
    if (cache_key := getattr(cls, "cache_key", None)) is not None:
        return f"cache_key {_name_of(cls)}", cache_key(value)
    entry = _registry.describe(cls)
    if entry is None:
        return None
    kind, name, _, fields, pack, _ = entry
    is_registered = _registry.BY_NAME.get(name) is entry
    if kind == _OBJECT and pack is not None:
        return f"registered {name}", pack(value)
    if kind == _ENUM:
        return f"enum {_name(cls, name, is_registered)}", value._value_ if fields else value._name_
    if kind == _DATACLASS:
        if is_owner and not is_registered and not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise EncodeError(_EXPECTED_OWNER, f"an instance of {_shown(cls)}, a dataclass that is not frozen")
        return f"dataclass {_name(cls, name, is_registered)}", {field: _field(value, field) for field in fields}
    if is_owner and not is_registered:
        return None
    if len(fields) != tuple.__len__(value) or getattr(value, "__dict__", None):
        raise EncodeError("a namedtuple with its fields alone", f"an instance of {_shown(cls)} with others")
    return f"namedtuple {_name(cls, name, is_registered)}", dict(zip(fields, tuple.__iter__(value), strict=True))


def _field(value: Any, name: str) -> object:
    try:
        return getattr(value, name)
    except AttributeError:
        raise EncodeError("a dataclass instance with all its fields", f"one without {name}") from None


def _name(cls: type, registered: str, is_registered: bool) -> str:
    return registered if is_registered else _name_of(cls)


def _name_of(cls: type) -> str:
    """Return the module and qualified name of a class that can be found there: no other class has them."""
    module, name = cls.__module__, cls.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not cls and not (module == "builtins" and cls is type(None)):
        raise EncodeError(
            "a class that its module has under its qualified name, or one registered with framecache.register",
            f"{_shown(cls)}, which others of that name cannot be told from",
        )
    return f"{_main(module) if module in ('__main__', '__mp_main__') else module}:{name}"


def _main(module: str) -> str:
    """Return what tells this program from others: the name of its module, or the path of its script."""
    main = sys.modules[module]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", "__mp_main__"):
        return str(spec.name)
    return os.path.realpath(file) if (file := getattr(main, "__file__", None)) else "__main__"


def _shown(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _subclass(cls: type, value: Any) -> Described | None:
    """What stands for an instance of a subclass of a built-in type: the built-in value, if there is nothing else."""
    for base in cls.__mro__[1:]:
        if base in _PLAIN:
            break
        if base.__module__ == "collections" and base.__name__ in ("OrderedDict", "defaultdict", "deque"):
            return None
    else:
        return None
    added = list(getattr(value, "__dict__", ()))
    for above in cls.__mro__[: cls.__mro__.index(base)]:
        slots = above.__dict__.get("__slots__", ())
        added += [slots] if isinstance(slots, str) else slots
    # Room for a dict and weak references is all that a class statement without slots adds.
    if added or cls.__basicsize__ > base.__basicsize__ + 16:
        names = ", ".join(map(str, added)) or "state"
        raise EncodeError(
            f"a subclass of {base.__name__} that adds no state, or has cache_key()",
            f"an instance of {_shown(cls)} with {names:.80}",
        )
    return f"subclass {_name_of(cls)}", _PLAIN[base](value)


#: From an instance of a subclass to the built-in value, without methods of the subclass.
_PLAIN: dict[type, Callable[[Any], object]] = {
    int: int.__int__,
    float: float.__float__,
    complex: lambda value: complex(*_parts(value)),
    str: str.__str__,
    bytes: lambda value: bytes.__add__(b"", value),
    bytearray: lambda value: bytearray.__getitem__(value, slice(None)),
    tuple: lambda value: tuple.__getitem__(value, slice(None)),
    list: lambda value: list.__getitem__(value, slice(None)),
    dict: dict.copy,
    set: lambda value: set.__or__(set(), value),
    frozenset: lambda value: frozenset.__or__(frozenset(), value),
}


def _parts(value: Any) -> tuple[float, float]:
    parts: tuple[float, float] = complex.__getnewargs__(value)  # type: ignore[attr-defined]
    return parts


def _decimal(value: Any) -> object:
    sign, digits, exponent = value.as_tuple()
    return sign, bytes(digits), exponent


def _date(value: Any) -> object:
    return value.year, value.month, value.day


def _datetime(value: Any) -> object:
    return (*_date(value), *_time(value))  # type: ignore[misc]


def _time(value: Any) -> tuple[object, ...]:
    fields = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return fields if value.tzinfo is None else (*fields, _zone(value.tzinfo))


def _zone(value: Any) -> object:
    try:
        return _types.describe_zone(value)
    except TypeError:
        expected = "no time zone, datetime.timezone, or zoneinfo.ZoneInfo with a key"
        raise EncodeError(expected, f"the zone {_shown(type(value))}") from None


#: Types of the standard library: by module and name, the label, and from a value to what stands for it.
_KNOWN: dict[tuple[str, str], tuple[str, Callable[[Any], object]]] = {
    ("builtins", "range"): ("range", lambda value: (value.start, value.stop, value.step)),
    ("builtins", "slice"): ("slice", lambda value: (value.start, value.stop, value.step)),
    ("array", "array"): ("array.array", lambda value: (value.typecode, memoryview(value))),
    ("collections", "OrderedDict"): ("collections.OrderedDict", lambda value: list(value.items())),
    ("collections", "defaultdict"): (
        "collections.defaultdict",
        lambda value: (value.default_factory, dict.copy(value)),
    ),
    ("collections", "deque"): ("collections.deque", lambda value: (value.maxlen, list(value))),
    ("datetime", "date"): ("datetime.date", _date),
    ("datetime", "datetime"): ("datetime.datetime", _datetime),
    ("datetime", "time"): ("datetime.time", _time),
    ("datetime", "timedelta"): (
        "datetime.timedelta",
        lambda value: (value.days, value.seconds, value.microseconds),
    ),
    ("datetime", "timezone"): ("datetime.timezone", _zone),
    ("decimal", "Decimal"): ("decimal.Decimal", _decimal),
    ("fractions", "Fraction"): ("fractions.Fraction", lambda value: (value.numerator, value.denominator)),
    ("re", "Pattern"): ("re.Pattern", lambda value: (value.pattern, value.flags)),
    ("uuid", "UUID"): ("uuid.UUID", lambda value: value.bytes),
    ("zoneinfo", "ZoneInfo"): ("zoneinfo.ZoneInfo", _zone),
    ("framecache._framecache", "Frame"): ("framecache.Frame", memoryview),
    **{
        (module, name): (f"pathlib.{name}", os.fspath)
        for module in ("pathlib", "pathlib._local")
        for name in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
    },
    **{
        ("ipaddress", f"IPv{version}{kind}"): (f"ipaddress.IPv{version}{kind}", str)
        for version in (4, 6)
        for kind in ("Address", "Network", "Interface")
    },
}


def _numpy(value: Any) -> Described | None:
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.str_):
        return "numpy.str_", str.__str__(value)
    if isinstance(value, numpy.bytes_):
        return "numpy.bytes_", bytes.__add__(b"", value)
    try:
        if type(value) is numpy.ndarray:
            return "numpy.ndarray", _array(value)
        if isinstance(value, numpy.generic):
            dtype = value.dtype
            described = _types.describe_dtype(dtype)
            if dtype.kind in "biufcmM" and dtype.char not in "gG":
                return "numpy.generic", (described, value.tobytes())
            return "numpy.generic", (described, bytes(_octets(numpy.array([value], dtype))))
        return ("numpy.dtype", _types.describe_dtype(value)) if isinstance(value, numpy.dtype) else None
    except TypeError as error:
        raise EncodeError(str(error), f"an instance of {_shown(type(value))}") from None


def _array(value: Any) -> object:
    """Dtype, shape and items, in the order of C."""
    if value.dtype.char == "O":
        return "O", value.shape, value.ravel().tolist()
    described = _types.describe_dtype(value.dtype)
    return described, value.shape, _octets(sys.modules["numpy"].ascontiguousarray(value).reshape(-1))


def _octets(data: Any) -> memoryview | bytes:
    return memoryview(_types.octets(data)) if data.nbytes else b""  # type: ignore[arg-type]


def _table(value: Any) -> Described | None:
    """What stands for a table: its type and its columns, as the codec writes them."""
    from framecache import arrow
    from framecache._framecache import SerializationWrapper, encode_arrow

    if type(value).__module__ == "pyarrow.lib":
        pyarrow = sys.modules["pyarrow"]
        if isinstance(value, pyarrow.Array | pyarrow.ChunkedArray):
            table = pyarrow.table({"": value}).combine_chunks()
            label, columns = _table(table) or ("", None)
            return f"pyarrow.{type(value).__name__}", (label, columns)
        if isinstance(value, pyarrow.Table) and any(column.num_chunks > 1 for column in value.columns):
            value = value.combine_chunks()
    described = arrow.describe(value)
    if described is None:
        return None
    columns, metadata = described
    payload, _, _ = SerializationWrapper.unwrap(encode_arrow(columns, metadata))
    return str(metadata["type"]), (metadata, payload)


_LIBRARIES: dict[str, Callable[[Any], Described | None]] = {
    "numpy": _numpy,
    "pandas": _table,
    "polars": _table,
    "pyarrow": _table,
}
