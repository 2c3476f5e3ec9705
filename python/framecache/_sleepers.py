"""Who waits for what another process stores: a thread or a task sleeps for a while, or until somebody tells."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet

from framecache._flight import wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from typing import Final

#: Seconds between two looks at what another process computes: at first, and at most; and that where somebody tells.
FIRST: Final = 0.002
UNTOLD: Final = 0.05
TOLD: Final = 0.2


class Sleeper:
    """One who waits. In a ``with``, he is told.

    Args:
        name: What he waits for.
        among: Who is told; `None`: nobody ever is.
        longest: Seconds that he sleeps at most.

    Attributes:
        pause: Seconds that he sleeps next, if nobody tells him: each time twice as long.
    """

    __slots__ = ("_among", "_future", "_longest", "_name", "_told", "pause")

    def __init__(self, name: str = "", among: Sleepers | None = None, longest: float = UNTOLD) -> None:
        self._name = name
        self._among = among
        self._longest = longest
        self.pause = FIRST
        self._told = threading.Event()
        self._future: tuple[asyncio.Future[None], asyncio.AbstractEventLoop] | None = None

    def __enter__(self) -> Sleeper:
        if self._among is not None:
            self._among.add(self._name, self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._among is not None:
            self._among.discard(self._name, self)

    def tell(self) -> None:
        """End the sleep, or the next one."""
        self._told.set()
        if (sleeping := self._future) is not None:
            wake(*sleeping)

    def sleep(self) -> None:
        """Block for `pause` at most."""
        self._told.wait(self._next())
        self._told.clear()

    def _next(self) -> float:
        pause, self.pause = self.pause, min(2 * self.pause, self._longest)
        return pause

    async def sleep_in_loop(self) -> None:
        """As `sleep`, in a loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._future = (future, loop)
        seconds = self._next()
        timer = loop.call_later(0 if self._told.is_set() else seconds, wake, future, loop)
        try:
            await future
        finally:
            timer.cancel()
            self._future = None
            self._told.clear()


class Sleepers:
    """All who wait in one namespace of an engine, by the names that they wait for."""

    def __init__(self) -> None:
        self._start_over()
        _all.add(self)

    def _start_over(self) -> None:
        # A finalizer may begin to wait, or end it, while its thread has this.
        self._mutex = threading.RLock()
        self._by_name: dict[str, list[Sleeper]] = {}

    def add(self, name: str, sleeper: Sleeper) -> None:
        """Tell him from now on."""
        with self._mutex:
            self._by_name.setdefault(name, []).append(sleeper)

    def discard(self, name: str, sleeper: Sleeper) -> None:
        """Tell him no more."""
        with self._mutex:
            sleepers = [one for one in self._by_name.pop(name, ()) if one is not sleeper]
            if sleepers:
                self._by_name[name] = sleepers

    def tell(self, names: Sequence[str] | None) -> None:
        """These names changed; `None`: all may have."""
        if not self._by_name:
            return
        with self._mutex:
            told = list(self._by_name) if names is None else names
            sleepers = [one for name in told for one in self._by_name.get(name, ())]
        for one in sleepers:
            one.tell()


_all: WeakSet[Sleepers] = WeakSet()


def _forget_in_child() -> None:
    for sleepers in list(_all):
        sleepers._start_over()


os.register_at_fork(after_in_child=_forget_in_child)
