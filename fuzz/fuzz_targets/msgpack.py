"""What must hold of any bytes: a DecodeError, or a value that is written and read again as it was."""

from framecache import DecodeError
from framecache.msgpack import Ext, packb, unpackb


def check(data: bytes) -> None:
    """Raise where that does not hold of `data`."""
    for types in ("python", "plain"):
        for views in (False, True):
            try:
                value = unpackb(data, types=types, ext_hook=Ext, views=views)
            except DecodeError:
                continue
            if views:
                continue
            packed = packb(value, types=types)
            again = packb(unpackb(packed, types=types, ext_hook=Ext), types=types)
            # Sets of equal hashes may be walked in another order.
            if packed != again and sorted(packed) != sorted(again):
                raise AssertionError(f"{value!r} is {packed!r} first, {again!r} then")
