"""Leases are renewed while what they are for is computed: by one thread of this process for all that threads compute,
by the event loop for what its tasks do.
"""

from __future__ import annotations

import os
import threading
import time

from framecache import _background
from framecache._asking import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Final

    from framecache._lease import Lease

#: Seconds that the thread sleeps at most.
_IDLE: Final = 60.0


def keep(lease: Lease, loop: asyncio.AbstractEventLoop | None) -> None:
    """Renew a lease until it is over; if a loop computes, until that is closed."""
    if not lease.is_renewed:
        return
    if loop is None:
        _renewals.add(lease)
        return
    try:
        loop.call_soon_threadsafe(_InLoop(lease, loop).wait)
    except RuntimeError:
        return  # the loop is closed: nothing is computed


class _Renewals:
    """The leases of threads. Their thread begins with the first, and stays."""

    def __init__(self) -> None:
        # The thread that has it may take it once more: a finalizer may use a cache.
        self._mutex = threading.RLock()
        self._wake = threading.Event()
        self._due: dict[Lease, float] = {}
        self._looks_at = 0.0
        self._is_running = False

    def add(self, lease: Lease) -> None:
        """Renew it."""
        due = time.monotonic() + lease.renew_every
        with self._mutex:
            self._due[lease] = due
            starts, self._is_running = not self._is_running, True
        if starts:
            self._is_running = _background.begin("framecache-leases", self._run)
        elif due < self._looks_at:
            self._wake.set()

    def _run(self) -> None:
        while True:
            now = time.monotonic()
            with self._mutex:
                self._due = {lease: due for lease, due in self._due.items() if not lease.is_over}
                late = [lease for lease, due in self._due.items() if due <= now]
                self._looks_at = min([due for due in self._due.values() if due > now], default=now + _IDLE)
            for lease in late:
                run(lease.renew())
                with self._mutex:
                    self._due[lease] = time.monotonic() + lease.renew_every
            if late:
                continue
            self._wake.wait(max(0.0, self._looks_at - now))
            self._wake.clear()


class _InLoop:
    """A lease of a computation in a loop.

    Args:
        lease: The lease.
        loop: The loop, which wakes it.
    """

    def __init__(self, lease: Lease, loop: asyncio.AbstractEventLoop) -> None:
        self._lease = lease
        self._loop = loop
        self._task: asyncio.Task[None] | None = None

    def wait(self) -> None:
        """Renew it later."""
        if not self._lease.is_over:
            self._loop.call_later(self._lease.renew_every, self._begin)

    def _begin(self) -> None:
        if not self._lease.is_over:
            self._task = self._loop.create_task(self._renew())

    async def _renew(self) -> None:
        await self._lease.in_loop(self._lease.renew)
        self.wait()


_renewals = _Renewals()


def _forget_in_child() -> None:
    global _renewals
    _renewals = _Renewals()


os.register_at_fork(after_in_child=_forget_in_child)
