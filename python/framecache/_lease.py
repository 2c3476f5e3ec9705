"""Leases: the right to compute a value, of all processes that share a store.

A lease of this machine's store lasts for as long as callers wait for it, if its process lives. One of an engine beyond
is short, so that the death of its process is noticed, and is renewed while the computation runs. One that was lost in
spite of that, because the process stood still or the engine evicted it, lets another one compute; what was computed
under it is stored only if nothing was meanwhile.
"""

from __future__ import annotations

from framecache import _background
from framecache._asking import in_loop, settled
from framecache._framecache import StoreBusy, StoreError
from framecache._sleepers import Sleeper
from framecache._times import now_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from framecache._asking import Operation
    from framecache._tiers import Tiers

#: Stands for a lease that somebody else has.
HELD: Final = "held"
#: Seconds for which a lease that is renewed lasts at most, and how often it is in that time.
LASTS: Final = 10.0
RENEWALS: Final = 3


class Lease:
    """A lease of a store, whoever asks for it to be given back.

    Args:
        tiers: Whose counters note what goes wrong.
        store: Gave it; where entries are sealed, the one behind.
        name: Its key there.
        token: What tells it from others' leases.
        seconds: How long it lasts.

    Attributes:
        is_over: Whether it was given back, used or lost.
    """

    __slots__ = ("_name", "_seconds", "_store", "_tiers", "is_over", "token")

    def __init__(self, tiers: Tiers, store: Any, name: str, token: int, seconds: float) -> None:
        self._tiers = tiers
        self._store = store
        self._name = name
        self._seconds = seconds
        self.token = token
        self.is_over = False

    @property
    def is_renewed(self) -> bool:
        """Whether its store renews leases."""
        return hasattr(self._store, "renew")

    @property
    def renew_every(self) -> float:
        """Seconds after which it is to be renewed."""
        return self._seconds / RENEWALS

    async def renew(self) -> None:
        """Have it last longer. One that is lost is over; where the engine does not answer, it may last still."""
        try:
            with _background.gate:
                lasts = await self._store.renew(self._name, self.token, int(self._seconds * 1000))
        except StoreError as error:
            self._tiers.shared.counts.log("renew", "a lease is not renewed: %s", error)
            return
        if not lasts and not self.is_over:
            self.is_over = True
            self._tiers.shared.counts.add("lease_lost")

    async def in_loop(self, work: Callable[[], Operation[None]]) -> None:
        """Have the running loop do one of these."""
        await in_loop(self._store, work)

    async def release(self) -> None:
        """Give it back; nothing happens to one that was used or lost."""
        if self.is_over:
            return
        self.is_over = True
        try:
            with _background.gate:
                await settled(self._store.release(self._name, self.token))
        except StoreError as error:
            self._tiers.shared.counts.log("release", "a lease is not given back and runs out: %s", error)


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

    async def ask(self, key: str, seconds: float) -> Lease | str | None:
        """A lease, for at most so long if it is not renewed; ``held``; or `None` where the store does not answer."""
        shared = self._tiers.shared
        if self._tiers.store is None or not shared.breaker.allows(write=True):
            return None
        store, name = self._place(key)
        if hasattr(store, "renew"):
            seconds = min(seconds, LASTS)
        try:
            with _background.gate:
                token = await settled(store.lease(name, int(seconds * 1000), now_by(shared.clock)))
        except StoreBusy:
            return None
        except StoreError as error:
            self._tiers.failed(error, key, write=True)
            return None
        shared.breaker.succeeded(write=True)
        return HELD if token is None else Lease(self._tiers, store, name, token, seconds)

    def _place(self, key: str) -> tuple[Any, str]:
        """The store that gives the lease, and under which name: that of this moment's tenant, if entries are sealed."""
        store: Any = self._tiers.store
        return store.place(key) if hasattr(store, "place") else (store, key)

    def sleeper(self, key: str) -> Sleeper:
        """Sleeps until another process stores a value of this key, if the store is told."""
        store, name = self._place(key)
        return store.sleeper(name) if hasattr(store, "sleeper") else Sleeper()
