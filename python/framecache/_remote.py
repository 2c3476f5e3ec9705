"""A store beyond this machine: the interface of `Store` over a backend, whose values are frames behind a head.

What is read is anybody's bytes: it is parsed as such, its payload is foreign to every codec, and nothing of it is
executed or trusted. An entry counts only with the stamps that its namespace and its tags have now, which are random.
"""

from __future__ import annotations

import os
from contextlib import suppress

from framecache._backend import NoRoom, Write
from framecache._framecache import FrameError, InvalidArgument, SerializationWrapper, StoreBusy, ValueTooLarge
from framecache._record import DEADLINE_AT, Layout, deadline_bytes, pack, tag_name
from framecache._remote_read import Link, Reading, Tagged
from framecache._values import SEALED, encode_chosen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Literal, NoReturn

    from typing_extensions import Buffer

    from framecache._backend import Backend
    from framecache._framecache import L1, Frame
    from framecache._values import Encoded

    Status = Literal["written", "exists", "superseded", "dropped"]

#: Milliseconds for which a fence can be used.
_FENCE: Final = 24 * 3600 * 1000
#: Milliseconds that stamps outlast entries by.
_SLACK: Final = 3600 * 1000
#: How many bytes of an entry tell whether it is to be served, unless it has very many tags.
_PEEK: Final = 1024
#: The most tags that a caller may give, and the longest of their texts.
_TAGS: Final = 1000
#: How often a write that must not replace anything is tried again, as what it would replace changes.
_TRIES: Final = 3

#: How often this process is a child of one that had this module.
_forks = 0


class Fence(bytes):
    """Guards of this process, with the stamps that the engine had when they were taken.

    Attributes:
        stamps: By name; all must still be the same for a write.
    """

    stamps: Mapping[str, bytes]

    def __new__(cls, guards: bytes, stamps: Mapping[str, bytes]) -> Fence:
        """Put them together."""
        made = super().__new__(cls, guards)
        made.stamps = stamps
        return made

    def __add__(self, other: Buffer) -> Fence:
        """A fence of both; none, as where there was no room for it, if one of them is."""
        if not self or not memoryview(other).nbytes:
            return Fence(b"", {})
        return Fence(bytes(self) + bytes(other), {**self.stamps, **getattr(other, "stamps", {})})


class RemoteStore:
    """One namespace of a backend.

    Args:
        backend: Keeps the bytes.
        namespace: Keys are apart from those of others.
        max_value_bytes: The largest payload.
        epochs: Keeps the counters that guards refer to: L1, or one for that alone.
        listens: Whether there is an L1 to be told of others' changes.
    """

    def __init__(
        self, backend: Backend, namespace: str, max_value_bytes: int, epochs: L1, listens: bool = False
    ) -> None:
        self.backend = backend
        self.epochs = epochs
        self._max_value_bytes = max_value_bytes
        self._layout = Layout(namespace)
        self._tagged = Tagged()
        self.link = Link(epochs, self._layout.prefix)
        self._listens = listens and backend.capabilities.invalidation
        self._unlisten: Callable[[], None] | None = None
        self._began_in = -1

    # Reading

    def reading(self, key: str) -> Reading:
        """A read of an entry, for who asks the engine himself. The first one in each process begins to listen."""
        if self._listens and self._began_in != _forks:
            self._began_in = _forks
            self._unlisten = self.backend.listen(self._layout.prefix, self.link)
        return Reading(key, self._layout, self.link, self._tagged, self.backend.distrust)

    def look(
        self,
        key: str,
        now: int,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        at_hand: bool = False,
        whole: bool = False,
    ) -> Any:
        """As `Store.look`. Nothing is at hand."""
        if at_hand:
            return "elsewhere"
        reading = self.reading(key)
        names = reading.names
        while names:
            names = reading.feed(self.backend.get_many(names))
        found = reading.result(now, stale)
        if not whole or isinstance(found, str):
            return found
        sealed = found[0][0] if isinstance(found[0], tuple) else found[0]
        return (sealed, *found[1:])

    def holds(self, guards: bytes) -> bool:
        """Whether nothing was changed, as far as this process has heard, since the guards were taken."""
        return self.link.holds(guards)

    def delete_if(self, key: str, guards: bytes, now: int) -> bool:
        """As `Store.delete_if`; here the entry stays: nothing tells whether it still is the one that was read."""
        return False

    def look_many(self, keys: Sequence[str]) -> list[Reading | Exception]:
        """Read several entries, at one moment where the engine has such; `Reading.result` gives what they are."""
        readings = [self.reading(key) for key in keys]
        asks = [(reading, reading.names) for reading in readings]
        wrong: dict[int, Exception] = {}
        while asks:
            names = list(dict.fromkeys(name for _, some in asks for name in some))
            values = dict(zip(names, self.backend.get_many(names), strict=True))
            more = []
            for reading, some in asks:
                try:
                    if rest := reading.feed([values[name] for name in some]):
                        more.append((reading, rest))
                except ValueError as error:
                    wrong[id(reading)] = error
            asks = more
        return [wrong.get(id(reading), reading) for reading in readings]

    def _peek(self, key: str) -> Reading:
        """Read as much of an entry as tells whether it is to be served; what is none has no head."""
        reading = self.reading(key)
        first, *rest = reading.names
        start = self.backend.peek(first, _PEEK)
        if start is not None and (needs := int.from_bytes(memoryview(start)[4:8], "big")) > _PEEK:
            start = self.backend.peek(first, min(needs, 64 * _PEEK))
        stamps = self.backend.get_many(rest)
        with suppress(FrameError):
            names = reading.feed([start, *stamps])
            while names:
                names = reading.feed(self.backend.get_many(names))
        return reading

    def contains(self, key: str, now: int) -> bool:
        """Whether there is an entry to serve; whether it can be read, `get` finds out."""
        return self._peek(key).missed(now) is None

    def entry(self, key: str, now: int) -> tuple[Frame, int, int | None] | None:
        """As `Store.entry`."""
        reading = self.reading(key)
        names = reading.names
        while names:
            names = reading.feed(self.backend.get_many(names))
        if isinstance(reading.result(now, stale=False), str):
            return None
        assert reading.head is not None
        return reading.frame(), reading.head.created, reading.head.deadline

    # Writing

    def fence(self, key: str, tags: Sequence[str]) -> Fence:
        """As `Store.fence`; good for a day. Empty where there is no room for it."""
        layout = self._layout
        names = [layout.generation, *(layout.stamp(tag_name(tag)) for tag in tags)]
        guards = self.link.fence([layout.entry(key), *names])
        names.append(layout.fence(key))
        try:
            stamps = self.backend.stamps(names, [None, *[_FENCE] * (len(names) - 1)])
        except NoRoom:
            return Fence(b"", {})
        return Fence(guards, dict(zip(names, stamps, strict=True)))

    def put_many(
        self,
        values: Sequence[tuple[str, str, Any, dict[str, Any]]],
        created: int,
        until: int | None = None,
        *,
        deadline: int | None = None,
        tags: Sequence[str] = (),
        if_absent: bool = False,
        lease: int | None = None,
        fence: bytes | None = None,
    ) -> list[Status]:
        """As `Store.put_many`; of several values, each is written at once.

        Raises:
            ValueTooLarge: One that is larger than `max_value_bytes`, or with its header than the engine takes.
        """
        if len(tags) > _TAGS + 1:
            raise InvalidArgument(f"tags: expected at most {_TAGS}, got {len(tags)}")
        encoded = [(key, encode_chosen(codec, value, described)) for key, codec, value, described in values]
        known = dict(fence.stamps) if isinstance(fence, Fence) else {}
        if fence is not None and not self.link.holds(fence):
            return ["superseded"] * len(values)
        named = [tag_name(tag) for tag in dict.fromkeys(tags)]
        try:
            stamps = self._stamps(named, known, None if until is None else until - created)
        except NoRoom:
            return ["dropped"] * len(values)
        if any(stamps.get(name, stamp) != stamp for name, stamp in known.items()):
            return ["superseded"] * len(values)
        layout = self._layout
        head = pack(
            created,
            deadline,
            until,
            stamps[layout.generation],
            [(tag, stamps[layout.stamp(tag)]) for tag in named],
        )
        milliseconds = None if until is None else max(1, until - created)
        writes = [self._write(key, one, head, created, until, milliseconds, known, lease) for key, one in encoded]
        try:
            if if_absent:
                return [self._write_if_absent(key, w, created) for (key, _), w in zip(encoded, writes, strict=True)]
            held = [self.backend.set(writes[0])] if len(writes) == 1 else self.backend.set_many(writes)
        except NoRoom:
            return ["dropped"] * len(values)
        finally:
            (self.link.change if fence is None else self.link.changed)([write.name for write in writes])
        return ["written" if one else "superseded" for one in held]

    def put_frames(
        self,
        frames: Sequence[tuple[str, Frame, Sequence[str]]],
        created: int,
        until: int | None = None,
        *,
        deadline: int | None = None,
        tags: Sequence[str] = (),
        if_absent: bool = False,
        lease: int | None = None,
        fence: bytes | None = None,
    ) -> list[Status]:
        """As `Store.put_frames`, for sealed frames; what an entry replaces under other names goes after it is there."""
        if if_absent and any(self.contains(name, created) for _, _, others in frames for name in others):
            return ["exists"] * len(frames)
        stored = self.put_many(
            [(name, SEALED, frame, {}) for name, frame, _ in frames],
            created,
            until,
            deadline=deadline,
            tags=tags,
            if_absent=if_absent,
            lease=lease,
            fence=fence,
        )
        written = (others for (_, _, others), status in zip(frames, stored, strict=True) if status == "written")
        if replaced := [name for others in written for name in others]:
            self.delete_many(replaced, created)
        return stored

    def _stamps(self, tags: Sequence[bytes], known: Mapping[str, bytes], lasts: int | None) -> dict[str, bytes]:
        """The stamps of the namespace and of tags: those that are known, if they last as long as the entry does."""
        names = [self._layout.generation, *(self._layout.stamp(tag) for tag in tags)]
        if all(name in known for name in names) and lasts is not None and 2 * (lasts + _SLACK) <= _FENCE:
            return {name: known[name] for name in names}
        # The engine makes stamps last longer only where they last for less than half of what is asked for.
        needed = [None, *[None if lasts is None else 2 * (lasts + _SLACK)] * len(tags)]
        return dict(zip(names, self.backend.stamps(names, needed), strict=True))

    def _write(
        self,
        key: str,
        encoded: Encoded,
        head: bytes,
        created: int,
        until: int | None,
        milliseconds: int | None,
        guards: Mapping[str, bytes],
        lease: int | None,
    ) -> Write:
        payload, codec, described = encoded
        if (size := payload.nbytes) > self._max_value_bytes:
            raise ValueTooLarge(f"value: expected at most {self._max_value_bytes} bytes, got {size}")
        metadata: dict[str, Any] = {"py": described} if described else {}
        metadata.update(key=key, length=size, created=created)
        if until is not None:
            metadata["until"] = until
        header = head + SerializationWrapper.wrap_prefix(metadata, codec, align=64, offset=len(head))
        if (size := len(header) + size) > self.backend.max_bytes:
            raise ValueTooLarge(f"value: expected at most {self.backend.max_bytes} bytes with header, got {size}")
        removes = [self._layout.fence(key)]
        if lease is not None:
            removes.append(self._layout.lease(key))
        return Write(self._layout.entry(key), (header, payload), milliseconds, guards, removes)

    def _write_if_absent(self, key: str, write: Write, now: int) -> Status:
        """Write, unless there is something to serve: what is looked at must not change before it is replaced."""
        for _ in range(_TRIES):
            fence = self.fence(key, ())
            if self.contains(key, now):
                return "exists"
            if self.backend.set(write._replace(guards=fence.stamps)):
                return "written"
        return "exists"

    def touch(self, key: str, deadline: int | None, now: int) -> bool:
        """As `Store.touch`."""
        reading = self._peek(key)
        if reading.missed(now) is not None or reading.head is None:
            return False
        until = reading.head.until
        if until is not None:
            deadline = until if deadline is None else min(deadline, until)
        try:
            return self.backend.touch(reading.entry, DEADLINE_AT, deadline_bytes(deadline))
        finally:
            self.link.change([reading.entry])

    # Removing

    def delete_many(self, keys: Sequence[str], now: int) -> int:
        """As `Store.delete_many`; entries that could not be served any more count too."""
        names = [self._layout.entry(key) for key in keys]
        try:
            return self._remove(names, [self._layout.fence(key) for key in keys])
        finally:
            self.link.change(names)

    def _remove(self, names: Sequence[str], fences: Sequence[str]) -> int:
        # First the fences: a value that is computed meanwhile finds its own gone, or writes what is removed next.
        self.backend.delete_many(fences)
        return self.backend.delete_many(names)

    def invalidate_tags(self, tags: Sequence[str], now: int) -> None:
        """As `Store.invalidate_tags`: a stamp that is gone is that of no entry.

        The last tag goes first: where it is `ANY_TAG`, whoever finds that one finds the others as they were.
        """
        names = [self._layout.stamp(tag_name(tag)) for tag in reversed(tags)]
        try:
            self.backend.delete_many(names)
        finally:
            self.link.change(names)

    def clear(self) -> None:
        """As `Store.clear`."""
        try:
            self.backend.delete(self._layout.generation)
        finally:
            self.link.change([self._layout.generation])

    # Leases

    def lease(self, key: str, milliseconds: int, now: int) -> int | None:
        """As `Store.lease`; where there is no room for it, nobody can be asked."""
        token = int.from_bytes(os.urandom(8), "big") >> 1
        try:
            return token if self.backend.lease(self._layout.lease(key), token, max(1, milliseconds)) else None
        except NoRoom as error:
            raise StoreBusy(str(error)) from error

    def release(self, key: str, token: int) -> bool:
        """As `Store.release`."""
        return self.backend.release(self._layout.lease(key), token)

    # The engine

    def l1_until(self, now: int) -> int | None:
        """Until when L1 may keep what was read, in milliseconds; `None`: as long as the entry lasts.

        Its guards do not hold if it was not the same when the read began.
        """
        return None if self.link.is_connected else now + int(self.backend.l1_ttl * 1000)

    def close(self) -> None:
        """Listen no more."""
        self._listens = False
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None

    def keys(self, prefix: str, start: bytes | None, now: int) -> NoReturn:
        """Refuse: the engine has names, which do not tell keys, and going through all of them stops it for others."""
        raise InvalidArgument("keys: expected a cache in memory or in a directory; other engines do not list keys")

    def stats(self) -> NoReturn:
        """Refuse: the engine is not this cache's alone."""
        raise InvalidArgument("usage: expected a cache in a directory (file:///path), got one in an engine")

    def verify(self) -> NoReturn:
        """Refuse: see `keys`."""
        raise InvalidArgument("verify: expected a cache in a directory (file:///path), got one in an engine")


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)
