"""What stands before a frame in an engine beyond this machine: the head, specified in proto-docs/redis.md."""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from framecache._framecache import FrameError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

_MAGIC: Final = b"fcr1"
#: Magic, length of the head, deadline, until, created, stamp of the namespace, number of tags.
_HEAD: Final = struct.Struct(">4sIQQQ8sI")
#: A tag's name and the stamp it had.
_TAG: Final = struct.Struct("16s8s")
#: Where the deadline stands.
DEADLINE_AT: Final = 8
#: The length of a head without tags.
_PLAIN: Final = 48
#: Stands for no end.
_NEVER: Final = (1 << 64) - 1
#: The most tags of an entry, as in a store: 1000, and those that framecache adds.
_MOST_TAGS: Final = 1002
#: How many keys' names are kept at hand.
_NAMES: Final = 1024
#: Heads are multiples of this, and so are frames' places.
_ALIGN: Final = 16


class Head(NamedTuple):
    """A head.

    Attributes:
        deadline: Until when the entry is fresh, in milliseconds since 1970-01-01 UTC; `None`: for ever.
        until: Until when it may be served at all.
        created: When it was written.
        stamp: The stamp of its namespace when it was written.
        tags: The names of its tags and the stamps they had.
        length: How many bytes it has, up to where the frame begins.
    """

    deadline: int | None
    until: int | None
    created: int
    stamp: bytes
    tags: tuple[tuple[bytes, bytes], ...]
    length: int


class Layout:
    """The names of one namespace.

    Args:
        namespace: The namespace.
    """

    def __init__(self, namespace: str) -> None:
        digest = blake2b(namespace.encode(), digest_size=16, person=b"framecache-ns").hexdigest()
        #: What the names of entries and stamps begin with.
        self.prefix = f"fc:{digest}:"
        self.generation = f"{self.prefix}g"
        self._digest = digest
        # Hot keys are hashed once.
        self.entry = lru_cache(_NAMES)(self._entry)

    def _entry(self, key: str) -> str:
        """Of the entry of a key."""
        return f"{self.prefix}{{{name_of(key)}}}"

    def fence(self, key: str) -> str:
        """Of what is removed when a key is written or removed."""
        return f"fcf:{self._digest}:{{{name_of(key)}}}"

    def lease(self, key: str) -> str:
        """Of the lease of a key."""
        return f"fcl:{self._digest}:{{{name_of(key)}}}"

    def stamp(self, tag: bytes) -> str:
        """Of the stamp of a tag."""
        return f"{self.prefix}t:{{{tag.hex()}}}"


def name_of(key: str) -> str:
    """The name of a key: 40 hexadecimal digits."""
    return blake2b(key.encode(), digest_size=20, person=b"framecache-key").hexdigest()


def tag_name(tag: str) -> bytes:
    """The name of a tag: 16 bytes."""
    return blake2b(tag.encode(), digest_size=16, person=b"framecache-tag").digest()


def pack(
    created: int, deadline: int | None, until: int | None, stamp: bytes, tags: Sequence[tuple[bytes, bytes]]
) -> bytes:
    """A head."""
    body = b"".join([_TAG.pack(*tag) for tag in tags])
    length = -(-(_HEAD.size + len(body)) // _ALIGN) * _ALIGN
    head = _HEAD.pack(_MAGIC, length, pack_end(deadline), pack_end(until), created, stamp, len(tags))
    return (head + body).ljust(length, b"\0")


def pack_end(milliseconds: int | None) -> int:
    """A time as a head has it."""
    return _NEVER if milliseconds is None else milliseconds


def deadline_bytes(deadline: int | None) -> bytes:
    """What stands at `DEADLINE_AT`."""
    return pack_end(deadline).to_bytes(8, "big")


def unpack(data: bytes | memoryview) -> Head:
    """The head that `data` begins with, which is what anybody may have written.

    Raises:
        FrameError: It begins with something else.
    """
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        found = bytes(data[:4])
        raise FrameError(f"not an entry: at offset 0, expected 'fcr1' and 40 bytes more, found {found!r}")
    _, length, deadline, until, created, stamp, count = _HEAD.unpack_from(data)
    if not count and length == _PLAIN and len(data) >= length:
        return Head(_end(deadline), _end(until), created, stamp, (), length)
    if count > _MOST_TAGS or length != -(-(_HEAD.size + count * _TAG.size) // _ALIGN) * _ALIGN:
        raise FrameError(f"not an entry: at offset 4, expected the length of a head with {count} tags, found {length}")
    if len(data) < length:
        raise FrameError(f"not an entry: at offset 4, expected {length} bytes of head, found {len(data)} bytes")
    tags = tuple(_TAG.iter_unpack(data[_HEAD.size : _HEAD.size + count * _TAG.size]))
    return Head(_end(deadline), _end(until), created, stamp, tags, length)


def _end(milliseconds: int) -> int | None:
    return None if milliseconds == _NEVER else milliseconds
