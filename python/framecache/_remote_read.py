"""How an entry beyond this machine is read: what to ask for, and what the answers come to. Nothing here waits.

Each read takes its guards before it asks, so that L1 keeps nothing that changed meanwhile.
"""

from __future__ import annotations

import os
from weakref import WeakSet

from framecache._framecache import DecodeError, Frame, FrameError, SerializationWrapper, StoreError
from framecache._record import unpack
from framecache._sleepers import Sleepers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from typing_extensions import Buffer

    from framecache._framecache import L1
    from framecache._record import Head, Layout

    #: As `Store.look` returns it.
    Looked = tuple[tuple[Frame, str, dict[str, Any]], int, int | None, int | None, int, bytes] | str

#: Groups of keys whose tags are remembered, and the most tags of one.
_GROUPS: Final = 1024
_TAGS: Final = 8
#: Before names, those of what this process itself changed.
_OWN: Final = "\0own:"


class Link:
    """What a process knows of others' changes in one namespace, and the guards that tell L1.

    Args:
        epochs: Keeps the counters.
        prefix: What the namespace's names begin with.
    """

    def __init__(self, epochs: L1, prefix: str) -> None:
        self._epochs = epochs
        self._all = f"\0link:{prefix}"
        self.is_connected = False
        #: Who waits for what another process stores.
        self.sleepers = Sleepers()
        _links.add(self)

    def guards(self, names: Sequence[str]) -> bytes:
        """Guards of names, and of all that may be missed."""
        return self._epochs.guards([self._all, *names])

    def fence(self, names: Sequence[str]) -> bytes:
        """Guards of what this process changes on purpose: making a stamp is a change for L1 alone."""
        return self._epochs.guards([_OWN + name for name in names])

    def holds(self, guards: bytes) -> bool:
        """Whether nothing changed since."""
        return self._epochs.holds(guards)

    def change(self, names: Sequence[str]) -> None:
        """Note what this process changes."""
        self._epochs.bump([*names, *(_OWN + name for name in names)])

    def changed(self, names: Sequence[str] | None) -> None:
        """As `Invalidations.changed`."""
        self._epochs.bump([self._all] if names is None else names)
        self.sleepers.tell(names)

    def connected(self, yes: bool) -> None:
        """As `Invalidations.connected`. What was read before or after is not known to be the same."""
        self.is_connected = False
        self._epochs.bump([self._all])
        self.is_connected = yes
        self.sleepers.tell(None)


class Tagged:
    """The tags that entries of one group of keys had last, whose stamps are asked for with the next of them. The group
    of a key is what stands before its last ``#`` or ``:``.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, ...]] = {}

    def of(self, key: str) -> tuple[bytes, ...]:
        """The tags to ask for."""
        return self._known.get(_group(key), ())

    def note(self, key: str, tags: tuple[bytes, ...]) -> None:
        """Remember what an entry has."""
        group = _group(key)
        if len(tags) > _TAGS or self._known.get(group, ()) == tags:
            return
        if len(self._known) >= _GROUPS:
            self._known.clear()
        self._known[group] = tags


def _group(key: str) -> str:
    head, separator, _ = key.rpartition("#")
    return head if separator else key.rpartition(":")[0]


class Reading:
    """A read of one entry.

    Args:
        key: Its key.
        layout: Names.
        link: Gives the guards.
        tagged: Which tags to expect.
        distrust: Called if the answer is to another question.
    """

    def __init__(self, key: str, layout: Layout, link: Link, tagged: Tagged, distrust: Callable[[], None]) -> None:
        self._distrust = distrust
        self.key = key
        self._layout = layout
        self._link = link
        self._tagged = tagged
        expected = tagged.of(key)
        self.entry = layout.entry(key)
        #: What to ask for: the entry, and the stamps that it should have.
        self.names = [self.entry, layout.generation]
        if expected:
            self.names += [layout.stamp(tag) for tag in expected]
        self._guards = link.guards(self.names)
        self._raw: Any = None
        self._generation: Buffer | None = None
        self._stamps: dict[bytes, Buffer | None] = dict.fromkeys(expected)
        self._asked: tuple[bytes, ...] = expected
        self.head: Head | None = None

    @property
    def nbytes(self) -> int:
        """How many bytes were read."""
        return 0 if self._raw is None else len(self._raw)

    def feed(self, values: Sequence[Buffer | None]) -> list[str]:
        """Take the answers; return what else to ask for.

        Raises:
            FrameError: What stands there is no entry.
        """
        if self.head is None:
            self._raw, self._generation = values[:2]
            if self._raw is None:
                return []
            self.head = unpack(self._raw)
            if not self.head.tags and not self._asked:
                return []
            values = values[2:]
        self._stamps.update(zip(self._asked, values, strict=True))
        had = tuple(tag for tag, _ in self.head.tags)
        self._asked = tuple(tag for tag in had if tag not in self._stamps)
        more = [self._layout.stamp(tag) for tag in self._asked]
        if more:
            self._guards += self._link.guards(more)
        self._tagged.note(self.key, had)
        return more

    def missed(self, now: int, stale: bool = False) -> str | None:
        """Why there is nothing to serve, if there is not."""
        head = self.head
        if head is None:
            return "absent"
        if self._generation != head.stamp:
            return "invalidated"
        for tag, stamp in head.tags:
            if self._stamps[tag] != stamp:
                return "invalidated"
        ends = head.until if stale else head.deadline
        if (ends is not None and ends < now) or (head.until is not None and head.until < now):
            return "expired"
        return None

    def frame(self) -> Frame:
        """The frame of the entry."""
        assert self.head is not None
        return (self._raw if isinstance(self._raw, Frame) else Frame(self._raw))[self.head.length :]

    def result(self, now: int, stale: bool) -> Looked:
        """What `Store.look` returns.

        Raises:
            FrameError: The frame is not one, or not all of it is there.
            DecodeError: It is compressed, which entries here are not.
            StoreError: It is that of another key.
        """
        if (missed := self.missed(now, stale)) is not None:
            return missed
        head, frame = self.head, self.frame()
        assert head is not None
        view, metadata, codec = SerializationWrapper.unwrap_metadata(frame)
        payload = view.obj if isinstance(view, memoryview) else None
        if not isinstance(payload, Frame):
            raise FrameError("not a valid frame: at offset 0, expected a v3 frame, found an older envelope")
        if metadata.get("key") != self.key:
            self._distrust()
            raise StoreError(f"the answer for {self.key!r:.100} is the entry of {metadata.get('key')!r:.100}")
        if metadata.get("length") != payload.nbytes:
            raise FrameError(
                f"not a valid frame: expected {metadata.get('length')} bytes of payload, found {payload.nbytes}"
            )
        described = metadata.get("py", {})
        if "compression" in metadata or not isinstance(described, dict):
            raise DecodeError("cannot decode payload: expected one that is not compressed, with an object as m.py")
        until = metadata.get("until")
        if isinstance(until, int) and until < now:
            return "expired"
        return (payload, codec, described), head.created, head.deadline, head.until, frame.nbytes, self._guards


_links: WeakSet[Link] = WeakSet()


def _unlink_child() -> None:
    """Nobody tells a forked child what its parent is told."""
    for link in list(_links):
        link.connected(False)


os.register_at_fork(after_in_child=_unlink_child)
