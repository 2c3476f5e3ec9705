"""The store of this machine as a backend: what an engine beyond it does, without one."""

from __future__ import annotations

import os
import time

from framecache._backend import Backend, Capabilities, NoRoom, Write
from framecache._framecache import SerializationWrapper, Store, StoreBusy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

#: Seconds that a write waits for others.
_PATIENCE: Final = 1.0
#: How often a write is tried again whose guards may have changed between their check and the write.
_TRIES: Final = 64


class DirectoryBackend(Backend):
    """A directory in place of a server: for tests of programs whose cache is in Redis.

    What comes back from it is anybody's bytes to a cache, as what comes from Redis is. ``Cache("file:///path")`` is the
    way to cache in a directory.

    Args:
        path: The directory; created with mode 0700 if need be.
    """

    capabilities = Capabilities(keys=True, tags=True, lease=True, atomic=True)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._store = Store(os.fspath(path), namespace="framecache backend", writer_timeout=_PATIENCE)
        self.place = f"directory://{os.path.abspath(path)}"

    def get_many(self, names: Sequence[str]) -> list[memoryview | None]:
        """As `Backend.get_many`: views of files that are mapped, and of copies of what is smaller."""
        now = _now()
        # Changed between the first and the last of them, they are read once more.
        for _ in range(_TRIES):
            guards = self._guards(names) if len(names) > 1 else b""
            found = [self._get(name, now) for name in names]
            if self._store.holds(guards):
                return found
        raise self._busy()

    def names(self, prefix: str, start: str | None) -> tuple[Sequence[str], str | None]:
        """As `Backend.names`."""
        names, after = self._store.keys(prefix, None if start is None else bytes.fromhex(start), _now())
        return names, None if after is None else after.hex()

    def set(self, write: Write) -> bool:
        """As `Backend.set`."""
        head = SerializationWrapper.wrap_prefix({}, "raw", align=64)
        frame = (write.name, b"".join([head, *write.parts]), list(write.removes))
        needed = {**write.guards, **{name: stamp for name, (stamp, _) in write.stamps.items()}}
        for _ in range(_TRIES):
            fence = self._guards(list(needed)) if needed else None
            if any(self._get(name, _now()) != memoryview(value) for name, value in needed.items()):
                return False
            now = _now()
            until = None if write.milliseconds is None else now + write.milliseconds
            status = self._store.put_frames([frame], now, until, fence=fence)[0]
            if status == "dropped":
                raise NoRoom("directory: expected room, and a writer that is done in time, found neither")
            if status == "written":
                return True
        raise self._busy()

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        return self._store.delete_many(names, _now())

    def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.delete_if`."""
        looked = self._store.look(name, _now(), whole=True)
        if isinstance(looked, str) or _value_of(looked[0])[offset : offset + len(part)] != part:
            return False
        return self._store.delete_if(name, looked[5], _now())

    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        return self._change(name, lambda old: None if old is None else old[:offset] + part + old[offset + len(part) :])

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`: here all of them last for ever."""
        return [self._stamp(name) for name in names]

    def _stamp(self, name: str) -> bytes:
        self._change(name, lambda old: os.urandom(8) if old is None else None)
        found = self._get(name, _now())
        return self._stamp(name) if found is None else bytes(found)

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        mine = b"%d" % token
        return self._change(name, lambda old: mine if old in (None, mine) else None, milliseconds)

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        mine = b"%d" % token
        return self._change(name, lambda old: mine if old == mine else None, milliseconds)

    def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        mine = b"%d" % token
        return self._get(name, _now()) == memoryview(mine) and self.delete_if(name, 0, mine)

    def _change(self, name: str, change: Callable[[bytes | None], bytes | None], lasts: int | None = None) -> bool:
        """Replace a value by what `change` makes of it, which may be nothing; return whether it was replaced."""
        for _ in range(_TRIES):
            fence, now = self._guards([name]), _now()
            looked = self._store.look(name, now, whole=True)
            old, ends = (None, None) if isinstance(looked, str) else (bytes(_value_of(looked[0])), looked[3])
            new = change(old)
            if new is None:
                return False
            until = ends if lasts is None else now + lasts
            frame = (name, SerializationWrapper.wrap_prefix({}, "raw", align=64) + new, ())
            if self._store.put_frames([frame], now, until, fence=fence) == ["written"]:
                return True
        raise self._busy()

    def _get(self, name: str, now: int) -> memoryview | None:
        looked = self._store.look(name, now, whole=True)
        return None if isinstance(looked, str) else _value_of(looked[0])

    def _guards(self, names: Sequence[str]) -> bytes:
        return b"".join([self._store.fence(name, ()) for name in names])

    def _busy(self) -> StoreBusy:
        return StoreBusy(f"{self.place}: expected the entries to stay as they are for a moment; they changed each time")


def _value_of(frame: Any) -> memoryview:
    view, _, _ = SerializationWrapper.unwrap_metadata(frame)
    return memoryview(view)


def _now() -> int:
    return time.time_ns() // 1_000_000
