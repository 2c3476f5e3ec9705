"""What a process knows of others' changes beyond this machine, and the parts of a read that asked for several keys."""

from __future__ import annotations

import os
from weakref import WeakSet

from framecache._sleepers import Sleepers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from framecache._framecache import L1, Frame, Reading

    #: As `Store.look` returns it.
    Looked = tuple[tuple[Frame, str, dict[str, Any]] | bytes, int, int | None, int | None, int, bytes] | str

#: Before names, those of what this process itself changed.
_OWN: Final = "\0own:"


class Link:
    """What a process knows of others' changes in one namespace, and the guards that tell L1.

    Args:
        epochs: Keeps the counters.
        name: The name whose guard tells that changes may have been missed.
    """

    def __init__(self, epochs: L1, name: str) -> None:
        self._epochs = epochs
        self._all = name
        self.is_connected = False
        #: Who waits for what another process stores.
        self.sleepers = Sleepers()
        _links.add(self)

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


class Part:
    """One of the keys of a read.

    Args:
        reading: The read, with all answers.
        index: Which of its keys.
    """

    __slots__ = ("_index", "_reading")

    def __init__(self, reading: Reading, index: int) -> None:
        self._reading = reading
        self._index = index

    def result(self, now: int, stale: bool, views: bool, require_zero_copy: bool) -> Looked:
        """As `Reading.result`."""
        return self._reading.result(now, stale, views, require_zero_copy, self._index)  # type: ignore[no-any-return]


_links: WeakSet[Link] = WeakSet()


def _unlink_child() -> None:
    """Nobody tells a forked child what its parent is told."""
    for link in list(_links):
        link.connected(False)


os.register_at_fork(after_in_child=_unlink_child)
