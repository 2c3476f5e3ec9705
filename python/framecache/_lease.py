"""Leases: the right to compute a value, of all processes that share a store."""

from __future__ import annotations

from framecache import _background
from framecache._framecache import StoreBusy, StoreError
from framecache._times import now_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from framecache._tiers import Tiers

#: Stands for a lease that somebody else has.
HELD: Final = "held"
#: Seconds between two looks at what another process computes: the first, and the longest.
LOOK_EVERY: Final = (0.002, 0.05)


class Leases:
    """The leases of one namespace.

    Args:
        tiers: Whose store gives them.
    """

    __slots__ = ("_tiers",)

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def are_given(self) -> bool:
        """Whether there is a store that gives them."""
        return self._tiers.store is not None and not self._tiers.shared.read_only

    def ask(self, key: str, seconds: float) -> int | str | None:
        """A token, which is worth something for so long; ``held``; or `None` where the store does not answer."""
        store, shared = self._tiers.store, self._tiers.shared
        if store is None or not shared.breaker.allows(write=True):
            return None
        try:
            with _background.gate:
                token = store.lease(key, int(seconds * 1000), now_by(shared.clock))
        except StoreBusy:
            return None
        except StoreError as error:
            self._tiers.failed(error, key, write=True)
            return None
        shared.breaker.succeeded(write=True)
        return HELD if token is None else token

    def release(self, key: str, token: int) -> None:
        """Give a lease back; nothing happens to one that was used or lost."""
        if (store := self._tiers.store) is None:
            return
        try:
            with _background.gate:
                store.release(key, token)
        except StoreError as error:
            self._tiers.shared.counts.log("release", "a lease is not given back and runs out: %s", error)
