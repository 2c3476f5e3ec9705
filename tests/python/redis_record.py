"""The head of an entry in Redis, as proto-docs/redis.md has it: written and read here without framecache."""

from __future__ import annotations

import struct
from typing import NamedTuple

import framecache
from framecache._framecache import L1, Entries

_HEAD = struct.Struct(">4sIQQQ8s8sI")
_TAG = struct.Struct("16s8s")
_NEVER = (1 << 64) - 1


class Head(NamedTuple):
    deadline: int | None
    until: int | None
    created: int
    stamp: bytes
    id: bytes
    tags: tuple[tuple[bytes, bytes], ...]
    length: int


class Layout:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        self._entries = Entries(namespace, L1(1, decode=None), None)
        self.prefix = self._entries.prefix
        self.generation = self._entries.generation

    def entry(self, key: str) -> str:
        return self._entries.entries([key])[0]

    def lease(self, key: str) -> str:
        return self._entries.lease(key)


def unpack(data: bytes) -> Head:
    """The head that `data` begins with; `FrameError` for what is none."""
    if len(data) < _HEAD.size or data[:4] != b"fcr1":
        raise framecache.FrameError("no head")
    _, length, deadline, until, created, stamp, name, count = _HEAD.unpack_from(data)
    if count > 1002 or length != -(-(_HEAD.size + count * _TAG.size) // 64) * 64 or len(data) < length:
        raise framecache.FrameError("no head")
    tags = tuple(_TAG.iter_unpack(data[_HEAD.size : _HEAD.size + count * _TAG.size]))
    ends = [None if end == _NEVER else end for end in (deadline, until)]
    return Head(*ends, created, stamp, name, tags, length)
