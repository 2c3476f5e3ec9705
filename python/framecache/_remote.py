"""A store beyond this machine: the interface of `Store` over a backend, whose values are frames behind a head.

What asks the backend is an operation of `_asking`.

What is read is anybody's bytes: it is parsed as such, its payload is foreign to every codec, and nothing of it is
executed or trusted. An entry counts only with the stamps that its namespace and its tags have now, which are random.
"""

from __future__ import annotations

import os

from framecache._asking import ask, at_leisure
from framecache._backend import NoRoom
from framecache._copies import SMALL
from framecache._framecache import (
    Entries,
    FrameError,
    InvalidArgument,
    SerializationWrapper,
    StoreBusy,
    StoreError,
    Unsupported,
    ValueTooLarge,
)
from framecache._remote_read import Link, Part
from framecache._remote_write import FENCE, Draft
from framecache._sleepers import TOLD, UNTOLD, Sleeper
from framecache._values import SEALED, encode_chosen, is_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final, Literal, NoReturn

    from typing_extensions import Buffer

    from framecache._backend import Backend, Write
    from framecache._copies import Copies
    from framecache._framecache import L1, Frame, Reading
    from framecache._values import Encoded

    Status = Literal["written", "exists", "superseded", "dropped"]

#: How many bytes of an entry tell whether it is to be served, unless it has very many tags.
_PEEK: Final = 1024
#: The most tags that a caller may give.
_TAGS: Final = 1000
#: How many stamps are remembered.
_STAMPS: Final = 1024
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


class Seen(bytes):
    """Guards of an entry that was read.

    Attributes:
        id: Of the entry: whether it still is the same.
    """

    id: bytes


class RemoteStore:
    """One namespace of a backend.

    Args:
        backend: Keeps the bytes.
        namespace: Keys are apart from those of others.
        max_value_bytes: The largest payload.
        epochs: Keeps the counters that guards refer to: L1, or one for that alone.
        listens: Whether there is an L1 to be told of others' changes.
        copies: What a directory of this machine has of large entries.
    """

    def __init__(
        self,
        backend: Backend,
        namespace: str,
        max_value_bytes: int,
        epochs: L1,
        listens: bool = False,
        copies: Copies | None = None,
    ) -> None:
        self.backend = backend
        self.copies = copies
        self.epochs = epochs
        self._max_value_bytes = max_value_bytes
        self.entries = Entries(namespace, epochs, _distrust(backend))
        self.link = Link(epochs, self.entries.all)
        # What the engine was last known to have; a write is checked against what it has then.
        self._stamps: dict[str, bytes] = {}
        self._listens = listens and backend.capabilities.invalidation
        self._unlisten: Callable[[], None] | None = None
        self._began_in = -1

    # Reading

    def reading(self, keys: Sequence[str]) -> Reading:
        """A read of entries, for who asks the engine himself. The first one in each process begins to listen."""
        if self._listens and self._began_in != _forks:
            self._began_in = _forks
            self._unlisten = self.backend.listen(self.entries.prefix, self.link)
        return self.entries.read(keys)

    async def read(self, keys: Sequence[str]) -> Reading:
        """Read entries, at one moment where the engine has such."""
        reading = self.reading(keys)
        return await self._answer(reading, await ask(self.backend, "get_many", reading.names))

    async def _answer(self, reading: Reading, values: Sequence[Buffer | None]) -> Reading:
        """Give a read what it asked for first, and then what else it asks for."""
        names = reading.feed(values)
        while names:
            names = reading.feed(await ask(self.backend, "get_many", names))
        return reading

    async def _read_with(self, copies: Copies, key: str, now: int, stale: bool) -> Reading:
        """Read an entry, of a large one only its start, if there is a copy; if there is none, make one."""
        reading = self.reading([key])
        [name, *_] = reading.names
        values = await ask(self.backend, "peek", reading.names, SMALL)
        start = values[0]
        if start is None or memoryview(start).nbytes < SMALL:
            return await self._answer(reading, values)
        if Entries.head_length(start) <= SMALL:
            terms = (await self._answer(reading, values)).terms(now, stale)
            if isinstance(terms, str):
                return reading
            if (copy := copies.find(name, terms[3], now)) is not None:
                reading.stand(copy)
                return reading
        reading = await self.read([key])
        terms, frame = reading.terms(now, stale), reading.frame()
        if not isinstance(terms, str) and frame is not None:
            await at_leisure(copies.keep_foreign, name, terms[3], frame, terms[0], terms[2])
        return reading

    async def look(
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
        reading = await (self.read([key]) if self.copies is None else self._read_with(self.copies, key, now, stale))
        found = reading.result(now, stale, views, require_zero_copy or whole)
        if not whole or isinstance(found, str):
            return found
        sealed = found[0][0] if isinstance(found[0], tuple) else found[0]
        seen = Seen(found[5])
        if not isinstance(terms := reading.terms(0), str):
            seen.id = terms[3]
        return (sealed, *found[1:5], seen)

    def holds(self, guards: bytes) -> bool:
        """Whether nothing was changed, as far as this process has heard, since the guards were taken."""
        return self.link.holds(guards)

    async def delete_if(self, key: str, guards: bytes, now: int) -> bool:
        """As `Store.delete_if`, where `look` read it whole: if it still is the one that was read."""
        if not isinstance(guards, Seen):
            return False
        [name] = self.entries.entries([key])
        try:
            return bool(await ask(self.backend, "delete_if", name, Entries.ID_AT, guards.id))
        finally:
            self.link.change([name])

    async def look_many(self, keys: Sequence[str]) -> list[Part]:
        """As `read`; `Part.result` gives what each of them is."""
        reading = await self.read(keys)
        return [Part(reading, index) for index in range(len(keys))]

    async def _peek(self, key: str, now: int) -> tuple[str, tuple[int, int | None, int | None, bytes] | str]:
        """The name of an entry, and as `Reading.terms` what is known of it."""
        reading = self.reading([key])
        [name, *_] = reading.names
        values = await ask(self.backend, "peek", reading.names, _PEEK)
        if values[0] is not None and (needs := Entries.head_length(values[0])) > _PEEK:
            # All at one moment, as before.
            values = await ask(self.backend, "peek", reading.names, needs)
        try:
            return name, (await self._answer(reading, values)).terms(now)
        except FrameError:
            return name, "unreadable"

    async def contains(self, key: str, now: int) -> bool:
        """Whether there is an entry to serve; whether it can be read, `get` finds out."""
        return not isinstance((await self._peek(key, now))[1], str)

    async def entry(self, key: str, now: int) -> tuple[Frame, int, int | None] | None:
        """As `Store.entry`."""
        reading = await self.read([key])
        found, frame = reading.result(now), reading.frame()
        return None if isinstance(found, str) or frame is None else (frame, found[1], found[2])

    # Writing

    async def fence(self, key: str, tags: Sequence[str]) -> Fence:
        """As `Store.fence`; good for a day. Empty where there is no room for it."""
        entries = self.entries
        names = [entries.generation, *(entries.stamp(tag) for tag in tags)]
        guards = self.link.fence([*entries.entries([key]), *names])
        names.append(entries.fence(key))
        try:
            stamps = await ask(self.backend, "stamps", names, [None, *[FENCE] * (len(names) - 1)])
        except NoRoom:
            return Fence(b"", {})
        return Fence(guards, dict(zip(names, stamps, strict=True)))

    async def put_many(
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
        encoded = [(key, await _encoded(*chosen)) for key, *chosen in values]
        for _, (payload, _, _) in encoded:
            if (size := payload.nbytes) > self._max_value_bytes:
                raise ValueTooLarge(f"value: expected at most {self._max_value_bytes} bytes, got {size}")
        superseded: list[Status] = ["superseded"] * len(values)
        if fence is not None and not self.link.holds(fence):
            return superseded
        guards = fence.stamps if isinstance(fence, Fence) else {}
        draft = Draft(self, encoded, list(dict.fromkeys(tags)), created, deadline, until, guards, lease)
        try:
            if if_absent:
                made = await draft.made()
                stored = [await self._write_if_absent(key, write, created) for key, write in made] or superseded
            else:
                stored = await draft.write()
        except NoRoom:
            return ["dropped"] * len(values)
        finally:
            names = self.entries.entries([key for key, _ in encoded])
            (self.link.change if fence is None else self.link.changed)(names)
        if self.copies is not None:
            await at_leisure(draft.copy_to, self.copies, stored)
        return stored

    async def put_frames(
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
        if if_absent:
            for name in [name for _, _, others in frames for name in others]:
                if await self.contains(name, created):
                    return ["exists"] * len(frames)
        stored = await self.put_many(
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
            await self.delete_many(replaced, created)
        return stored

    def known(self, names: Sequence[str]) -> dict[str, bytes] | None:
        """The stamps that the engine was last known to have, if all of them are."""
        known = self._stamps
        return {name: known[name] for name in names} if all(name in known for name in names) else None

    async def ask_for_stamps(self, names: Sequence[str], lasts: int | None) -> dict[str, bytes]:
        """The stamps of the namespace, then of tags, which last for so long from now on."""
        stamps = await ask(self.backend, "stamps", names, [None, *[lasts] * (len(names) - 1)])
        if len(self._stamps) + len(names) > _STAMPS:
            self._stamps.clear()
        found = dict(zip(names, stamps, strict=True))
        self._stamps.update(found)
        return found

    async def _write_if_absent(self, key: str, write: Write, now: int) -> Status:
        """Write, unless there is something to serve: what is looked at must not change before it is replaced."""
        for _ in range(_TRIES):
            fence = await self.fence(key, ())
            if await self.contains(key, now):
                return "exists"
            if await ask(self.backend, "set", write._replace(guards=fence.stamps)):
                return "written"
        return "exists"

    async def touch(self, key: str, deadline: int | None, now: int) -> bool:
        """As `Store.touch`."""
        name, terms = await self._peek(key, now)
        if isinstance(terms, str):
            return False
        if (until := terms[2]) is not None:
            deadline = until if deadline is None else min(deadline, until)
        try:
            return bool(await ask(self.backend, "touch", name, *Entries.deadline_at(deadline)))
        finally:
            self.link.change([name])

    # Removing

    async def delete_many(self, keys: Sequence[str], now: int) -> int:
        """As `Store.delete_many`; entries that could not be served any more count too."""
        names = self.entries.entries(keys)
        try:
            # First the fences: a value that is computed meanwhile finds its own gone, or writes what is removed next.
            await ask(self.backend, "delete_many", [self.entries.fence(key) for key in keys])
            return int(await ask(self.backend, "delete_many", names))
        finally:
            self.link.change(names)

    async def invalidate_tags(self, tags: Sequence[str], now: int) -> None:
        """As `Store.invalidate_tags`: a stamp that is gone is that of no entry.

        The last tag goes first: where it is `ANY_TAG`, whoever finds that one finds the others as they were.
        """
        names = [self.entries.stamp(tag) for tag in reversed(tags)]
        for name in names:
            self._stamps.pop(name, None)
        try:
            await ask(self.backend, "delete_many", names)
        finally:
            self.link.change(names)

    async def clear(self) -> None:
        """As `Store.clear`."""
        self._stamps.clear()
        try:
            await ask(self.backend, "delete", self.entries.generation)
        finally:
            self.link.change([self.entries.generation])
        if self.copies is not None:
            await at_leisure(self.copies.clear)

    # Leases

    async def lease(self, key: str, milliseconds: int, now: int) -> int | None:
        """As `Store.lease`; where the engine has none, everybody gets one, and so where there is no room for it."""
        token = int.from_bytes(os.urandom(8), "big") >> 1
        if not self.backend.capabilities.lease:
            return token
        try:
            name = self.entries.lease(key)
            return token if await ask(self.backend, "lease", name, token, max(1, milliseconds)) else None
        except NoRoom as error:
            raise StoreBusy(str(error)) from error

    async def renew(self, key: str, token: int, milliseconds: int) -> bool:
        """Have a lease last for so long from now; return whether this token still has it."""
        if not self.backend.capabilities.lease:
            return True
        return bool(await ask(self.backend, "renew", self.entries.lease(key), token, max(1, milliseconds)))

    def sleeper(self, key: str) -> Sleeper:
        """Who sleeps until the entry of a key changes, if this process is told."""
        [name] = self.entries.entries([key])
        return Sleeper(name, self.link.sleepers, TOLD if self.link.is_connected else UNTOLD)

    async def release(self, key: str, token: int) -> bool:
        """As `Store.release`."""
        if not self.backend.capabilities.lease:
            return False
        return bool(await ask(self.backend, "release", self.entries.lease(key), token))

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

    async def keys(self, prefix: str, start: bytes | None, now: int) -> tuple[list[str], bytes | None]:
        """As `Store.keys`, where the engine lists names: entries tell their keys.

        Raises:
            Unsupported: It does not, as one that would have to stop for others meanwhile.
        """
        if not self.backend.capabilities.keys:
            raise Unsupported("keys: expected a cache in memory or in a directory; other engines do not list keys")
        first = None if start is None else start.decode()
        names, after = await ask(self.backend, "names", self.entries.prefix + "{", first)
        keys = [await self._key_of(name) for name in names]
        found = [key for key in keys if key is not None and key.startswith(prefix) and await self.contains(key, now)]
        return found, None if after is None else after.encode()

    async def _key_of(self, name: str) -> str | None:
        """What the entry under a name says that its key is."""
        entry = await ask(self.backend, "get", name)
        if entry is None or not (head := Entries.head_length(entry)):
            return None
        try:
            key = SerializationWrapper.unwrap_metadata(memoryview(entry)[head:])[1].get("key")
        except FrameError:
            return None
        return key if isinstance(key, str) else None

    def stats(self) -> NoReturn:
        """Refuse: the engine is not this cache's alone."""
        raise Unsupported("usage: expected a cache in a directory (file:///path), got one in an engine")

    def verify(self) -> NoReturn:
        """Refuse: see `keys`."""
        raise Unsupported("verify: expected a cache in a directory (file:///path), got one in an engine")


async def _encoded(codec: str, value: Any, described: dict[str, Any]) -> Encoded:
    if is_small(value):
        return encode_chosen(codec, value, described)
    return await at_leisure(encode_chosen, codec, value, described)


def _distrust(backend: Backend) -> Callable[[str, str | None], NoReturn]:
    """What is done where the answer is to another question."""

    def distrust(key: str, found: str | None) -> NoReturn:
        backend.distrust()
        raise StoreError(f"the answer for {key!r:.100} is the entry of {found!r:.100}")

    return distrust


def _note_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)
