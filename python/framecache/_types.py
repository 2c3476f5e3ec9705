"""The rarer types of the msgpack codec: made and read in Python, as `proto-docs/msgpack.md` says.

What is read may be anything: a TypeError or ValueError here becomes a DecodeError.
"""

from __future__ import annotations

import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo
    from typing import Any

    import numpy as np

_FRACTION, _PATH, _IP, _ARRAY, _SCALAR = 9, 15, 16, 23, 24

#: By module and name, since importing them takes longer than most calls.
_PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
_IPS = ("IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network", "IPv4Interface", "IPv6Interface")
#: A dtype of one item: byte order, kind, size, and the unit of times.
_DTYPE = re.compile(
    r"[<>|=](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SUV][0-9]{1,9}|[mM]8(?:\[[0-9]{0,9}[a-zA-Z]{1,2}\])?)"
)
_DEEPEST_DTYPE = 16
#: Arrays of this many bytes and more are aligned in the payload, and can be views of it.
_VIEWS_FROM = 4096
#: NumPy's limit.
_MOST_DIMENSIONS = 64


def is_known(cls: type) -> bool:
    """Whether `pack` takes instances of `cls`."""
    module, name = cls.__module__, cls.__qualname__
    if module == "fractions":
        return name == "Fraction" and cls is sys.modules["fractions"].Fraction
    if module in ("pathlib", "pathlib._local"):
        return name in _PATHS and cls is getattr(sys.modules["pathlib"], name, None)
    if module == "ipaddress":
        return name in _IPS and cls is getattr(sys.modules["ipaddress"], name, None)
    if module == "numpy":
        numpy = sys.modules["numpy"]
        return cls is numpy.ndarray or (issubclass(cls, numpy.generic) and cls.__basicsize__ > 0 and name != "object_")
    return False


def pack(value: Any) -> tuple[int, object, object]:
    """Return the code, the payload's value, and the buffer that follows it (an array's data)."""
    module = type(value).__module__
    if module == "fractions":
        return _FRACTION, [value.numerator, value.denominator], None
    if module == "ipaddress":
        return _IP, [_IPS.index(type(value).__qualname__), str(value)], None
    if module != "numpy":
        return _PATH, [_PATHS.index(type(value).__qualname__), str(value)], None
    import numpy as np

    if isinstance(value, np.ndarray):
        dtype = describe_dtype(value.dtype)
        if not value.dtype.itemsize:
            raise TypeError(f"an array of items that have a size, not {value.dtype}")
        order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
        data = value.reshape(-1, order="F") if order == "F" else np.ascontiguousarray(value).reshape(-1)
        return _ARRAY, [dtype, order, list(value.shape)], octets(data) if data.nbytes else b""
    if isinstance(value, np.str_ | np.bytes_):
        return _SCALAR, [value.dtype.kind, str.__str__(value) if isinstance(value, np.str_) else bytes(value)], None
    described = describe_dtype(value.dtype)
    if _dtype(described).type is not type(value) or not value.dtype.itemsize:
        raise TypeError("a scalar that its dtype gives back")
    return _SCALAR, [described, octets(np.array([value], value.dtype)).tobytes()], None


def octets(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the bytes of one-dimensional `data`; those that belong to no value are zero, in a copy."""
    import numpy as np

    if _is_packed(data.dtype):
        return data.view(np.uint8)
    clean = np.zeros(data.shape, data.dtype)
    _copy_fields(clean, data)
    _clear_long_doubles(clean)
    return clean.view(np.uint8)


def _copy_fields(target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
    """Copy the fields alone: from NumPy 2.5 on, assigning whole records copies what is between them, too."""
    if target.dtype.names is None:
        target[...] = source
    for name in target.dtype.names or ():
        _copy_fields(target[name], source[name])


def _is_packed(dtype: np.dtype[Any]) -> bool:
    """Whether all bytes of an item belong to values: no gaps between fields, no unused bytes of long doubles."""
    if dtype.subdtype is not None:
        return _is_packed(dtype.subdtype[0])
    if dtype.names is None:
        return dtype.char not in "gG"
    fields = [dtype.fields[name][0] for name in dtype.names]  # type: ignore[index]
    return sum(field.itemsize for field in fields) == dtype.itemsize and all(map(_is_packed, fields))


def _clear_long_doubles(array: np.ndarray[Any, Any]) -> None:
    import numpy as np

    for name in array.dtype.names or ():
        _clear_long_doubles(array[name])
    if array.dtype.char in "gG" and np.finfo(np.longdouble).nmant == 63:
        array.view(np.dtype((np.uint8, (array.dtype.itemsize // 16, 16))))[..., 10:] = 0


def unpack(code: int, payload: Any, data: memoryview | None, views: bool, limit: int) -> object:
    """Return the value that `pack` was given; `limit` is the longest int, in bytes."""
    if code == _ARRAY:
        return _array(payload, data, views)
    if type(payload) is not list or len(payload) != 2:
        raise TypeError(f"a payload of {type(payload).__name__}, not of two items")
    first, second = payload
    if code == _SCALAR:
        return _scalar(first, second)
    if code == _FRACTION:
        return _fraction(first, second, limit)
    if type(first) is not int or type(second) is not str:
        raise TypeError(f"items of {type(first).__name__} and {type(second).__name__}")
    names, module = (_PATHS, "pathlib") if code == _PATH else (_IPS, "ipaddress")
    if not 0 <= first < len(names):
        raise ValueError(f"kind {first}")
    import importlib

    return getattr(importlib.import_module(module), names[first])(second)


def _fraction(numerator: Any, denominator: Any, limit: int) -> object:
    from fractions import Fraction

    if type(numerator) is not int or type(denominator) is not int:
        raise TypeError(f"items of {type(numerator).__name__} and {type(denominator).__name__}")
    if max(numerator.bit_length(), denominator.bit_length()) > 8 * limit:
        raise ValueError("an int beyond limits=")
    made = Fraction(numerator, denominator)
    if (made.numerator, made.denominator) != (numerator, denominator):
        raise ValueError("a fraction that is not in lowest terms")
    return made


def describe_zone(zone: tzinfo) -> object:
    """Return the form of a `datetime.timezone` or a `zoneinfo.ZoneInfo` with a key."""
    from datetime import timedelta, timezone

    if zone is timezone.utc:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]
        seconds, rest = divmod(offset, timedelta(seconds=1))
        return [seconds, rest.microseconds, *name]
    if type(zone).__module__ == "zoneinfo" and type(zone) is sys.modules["zoneinfo"].ZoneInfo and zone.key:  # type: ignore[attr-defined]
        return zone.key  # type: ignore[attr-defined]
    raise TypeError("zone")


def zone(described: Any) -> tzinfo:
    """Return the zone of that form."""
    from datetime import timedelta, timezone

    if described is None:
        return timezone.utc
    if type(described) is str:
        from zoneinfo import ZoneInfo

        if len(described) > 255:
            raise ValueError("the key of a zone with more than 255 characters")
        return ZoneInfo(described)
    if type(described) is not list or not 2 <= len(described) <= 3 or {type(part) for part in described[:2]} != {int}:
        raise TypeError(f"a zone of {type(described).__name__}")
    return timezone(timedelta(seconds=described[0], microseconds=described[1]), *described[2:])


def describe_dtype(dtype: np.dtype[Any]) -> object:
    """Return the form of a dtype without objects; a TypeError says what has none."""
    if dtype.subdtype is not None:
        return [describe_dtype(dtype.subdtype[0]), list(dtype.subdtype[1])]
    if dtype.names is None:
        if dtype.hasobject or not _DTYPE.fullmatch(dtype.str):
            raise TypeError(f"an array of numbers, text of fixed width, times or records of these, not {dtype}")
        return dtype.str
    import numpy as np

    if dtype.type is not np.void:
        raise TypeError(f"an array of plain records, not {dtype}")
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    described: dict[str, object] = {
        "names": list(dtype.names),
        "formats": [describe_dtype(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        described["titles"] = [field[2] if len(field) > 2 else None for field in fields]  # type: ignore[misc]
    if dtype.isalignedstruct:
        described["aligned"] = True
    return described


def _dtype(described: Any, depth: int = 0) -> np.dtype[Any]:
    import numpy as np

    if depth > _DEEPEST_DTYPE:
        raise ValueError(f"a dtype nested more than {_DEEPEST_DTYPE} deep")
    if type(described) is str:
        if not _DTYPE.fullmatch(described):
            raise ValueError(f"the dtype {described[:40]!r}")
        return np.dtype(described)
    if type(described) is list:
        base, shape = described
        return np.dtype((_dtype(base, depth + 1), tuple(_sizes(shape))))
    if type(described) is not dict or set(described) - {"names", "formats", "offsets", "itemsize", "titles", "aligned"}:
        raise TypeError("a dtype of another form")
    spec = dict(described)
    aligned = spec.pop("aligned", False) is True
    spec["formats"] = [_dtype(format, depth + 1) for format in spec["formats"]]
    _sizes([*spec["offsets"], spec["itemsize"]])
    made: np.dtype[Any] = np.dtype(spec, align=aligned)  # type: ignore[call-overload]
    if made.hasobject:
        raise ValueError("a dtype with objects")
    return made


def _sizes(sizes: Any) -> list[int]:
    if type(sizes) is not list or not all(type(size) is int and 0 <= size < 2**63 for size in sizes):
        raise TypeError("sizes that are not ints from 0")
    return sizes


def _array(head: Any, data: memoryview | None, views: bool) -> object:
    import numpy as np

    described, order, shape = head
    dtype = _dtype(described)
    count = 1
    if len(_sizes(shape)) > _MOST_DIMENSIONS:
        raise ValueError(f"an array of {len(shape)} dimensions")
    for size in shape:
        count *= size
    nbytes = count * dtype.itemsize
    if not dtype.itemsize:
        raise ValueError(f"an array of items without size, {described!r:.40}")
    if data is None or order not in ("C", "F") or not 0 <= len(data) - nbytes < 64:
        raise ValueError(f"an array of {nbytes} bytes and data of {0 if data is None else len(data)}")
    padding = len(data) - nbytes
    if any(data[:padding]):
        raise ValueError("padding that is not zero")
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data[padding:] if nbytes else b"", order=order)
    return array if views and nbytes >= _VIEWS_FROM and array.flags.aligned else array.copy(order=order)


def _scalar(described: Any, value: Any) -> object:
    import numpy as np

    if described == "U" and type(value) is str:
        return np.str_(value)
    if described == "S" and type(value) is bytes:
        return np.bytes_(value)
    dtype = _dtype(described)
    if type(value) is not bytes or len(value) != dtype.itemsize or dtype.subdtype is not None or not dtype.itemsize:
        raise ValueError(f"a scalar of {dtype.itemsize} bytes and data of another length")
    return np.frombuffer(value, dtype).copy()[0]
