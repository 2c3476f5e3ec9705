"""Single flight: one computation of a key, whoever asks for it meanwhile.

The first to ask leads, all others wait for what it finds out. Threads, tasks of one loop and tasks of several loops may
wait for one another; nothing here belongs to a loop until somebody waits in it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextvars import ContextVar

from framecache._framecache import FramecacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any, Final, Literal

    from framecache._tiers import Found

    Kind = Literal["found", "raised", "lost", "alone"]

#: Seconds between two looks at whether the loop that computes still runs.
_LOOK_EVERY: Final = 0.05


class RecursiveCall(FramecacheError, RecursionError):
    """A computation that needs its own result: it would wait for itself."""


class Outcome:
    """What a computation came to.

    Attributes:
        kind: ``found``: an entry. ``raised``: an `Exception`, for all who wait. ``lost``: it was interrupted, and
            whoever waits begins anew. ``alone``: a value that no two callers can have; each computes its own.
    """

    __slots__ = ("error", "found", "kind")

    def __init__(self, kind: Kind, found: Found | None = None, error: BaseException | None = None) -> None:
        self.kind = kind
        self.found = found
        self.error = error


class Flight:
    """A computation that others may wait for.

    Attributes:
        fenced: Whether its key was deleted or set since it began: its result is not stored then.
    """

    __slots__ = ("_lock", "_mutex", "_wake", "fenced", "loop", "outcome", "task", "thread", "waiters")

    def __init__(self, mutex: threading.Lock) -> None:
        self._mutex = mutex
        self._lock = threading.Lock()
        self._lock.acquire()
        self._wake: list[Callable[[], object]] = []
        self.outcome: Outcome | None = None
        self.fenced = False
        self.waiters = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None
        self.thread = threading.get_ident()

    def settle(self, outcome: Outcome) -> None:
        """Tell all who wait. Only the first outcome counts."""
        with self._mutex:
            if self.outcome is not None:
                return
            self.outcome = outcome
            wake, self._wake = self._wake, []
            self._lock.release()
        for one in wake:
            one()

    def wait(self, seconds: float) -> Outcome | None:
        """Block until there is an outcome, with the GIL released and signals handled; `None` at the limit."""
        ends = time.monotonic() + seconds
        with self._mutex:
            self.waiters += 1
        try:
            while self.outcome is None:
                left = ends - time.monotonic()
                if left <= 0 or self._is_here():
                    return None
                # Signals are handled while a lock with a timeout is waited for.
                if self._lock.acquire(timeout=left if self.loop is None else min(left, _LOOK_EVERY)):
                    self._lock.release()
                elif self.loop is not None and self.loop.is_closed():
                    self.settle(Outcome("lost"))
            return self.outcome
        finally:
            self._leave()

    def _leave(self) -> None:
        """One waits no more; the last one cancels a computation that is still under way."""
        with self._mutex:
            self.waiters -= 1
            abandoned = self.waiters == 0 and self.outcome is None and self.task is not None
        if abandoned:
            self._cancel()

    def _is_here(self) -> bool:
        """Whether it runs in the loop of this thread, which blocking would stop."""
        if self.loop is None or (asyncio := sys.modules.get("asyncio")) is None:
            return False
        return asyncio._get_running_loop() is self.loop

    async def wait_in_loop(self, seconds: float | None) -> Outcome | None:
        """Wait until there is an outcome; `None` at the limit. The last who is cancelled cancels the computation."""
        import asyncio

        loop = asyncio.get_running_loop()
        ends = None if seconds is None else loop.time() + seconds
        with self._mutex:
            self.waiters += 1
        try:
            while self.outcome is None:
                left = None if ends is None else ends - loop.time()
                if left is not None and left <= 0:
                    return None
                foreign = self.loop is not None and self.loop is not loop
                await self._next(loop, min(left or _LOOK_EVERY, _LOOK_EVERY) if foreign else left)
                if foreign and self.outcome is None and self.loop is not None and self.loop.is_closed():
                    self.settle(Outcome("lost"))
            return self.outcome
        finally:
            self._leave()

    async def _next(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        """Wait for the outcome, or for so long."""
        woken = loop.create_future()

        def set_result() -> None:
            if not woken.done():
                woken.set_result(None)

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(set_result)
            except RuntimeError:
                return  # the loop is closed: nobody waits there any more

        with self._mutex:
            if self.outcome is not None:
                return
            self._wake.append(wake)
        timer = None if seconds is None else loop.call_later(seconds, set_result)
        try:
            await woken
        finally:
            if timer is not None:
                timer.cancel()
            with self._mutex:
                if wake in self._wake:
                    self._wake.remove(wake)

    def _cancel(self) -> None:
        """Cancel the computation, which nobody waits for; who comes now begins anew."""
        task, loop = self.task, self.loop
        self.settle(Outcome("lost"))
        if task is not None and loop is not None:
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                return  # the loop is closed, and the task with it


#: The computations that this one is part of.
_within: ContextVar[tuple[Flight, ...]] = ContextVar("framecache_within", default=())


class Flights:
    """The computations of one cache that are under way, by namespace and key."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._flights: dict[tuple[int, str], Flight] = {}
        _all.append(weakref_to(self))

    def join(self, scope: int, key: str) -> tuple[Flight, bool]:
        """Return the computation of a key, and whether the caller is to lead it.

        Raises:
            RecursiveCall: the caller is part of that computation.
        """
        mine = Flight(self._mutex)
        with self._mutex:
            current = self._flights.get((scope, key))
            if current is None or current.outcome is not None:
                self._flights[scope, key] = mine
                return mine, True
        if current in _within.get():
            raise RecursiveCall(
                f"{key}: expected a computation that does not need its own result, found one that asks for it"
            )
        return current, False

    def leave(self, scope: int, key: str, flight: Flight, outcome: Outcome) -> None:
        """End a computation that the caller leads."""
        with self._mutex:
            if self._flights.get((scope, key)) is flight:
                del self._flights[scope, key]
        flight.settle(outcome)

    def current(self, scope: int, key: str) -> Flight | None:
        """The computation of a key that is under way."""
        return self._flights.get((scope, key))

    def fence(self, scope: int, key: str) -> None:
        """Keep the computation of a key that is under way from being stored: its key was deleted or set."""
        if (flight := self._flights.get((scope, key))) is not None:
            flight.fenced = True

    def of(self, scope: int, prefix: str) -> list[Flight]:
        """The computations of keys that begin with `prefix`."""
        return [
            flight for (where, key), flight in list(self._flights.items()) if where == scope and key.startswith(prefix)
        ]

    def fence_all(self, scope: int) -> None:
        """As `fence`, for all keys of a namespace."""
        for flight in self.of(scope, ""):
            flight.fenced = True

    def forget(self) -> None:
        """Drop what belongs to threads that a fork did not copy."""
        self._mutex = threading.Lock()
        self._flights = {}


def inside(flight: Flight, call: Callable[[], Any]) -> Any:
    """Run `call` as a part of this computation. To be called in a context of its own."""
    _within.set((*_within.get(), flight))
    return call()


def enter(flight: Flight) -> None:
    """What goes on in this context is a part of this computation."""
    _within.set((*_within.get(), flight))


_all: list[Callable[[], Flights | None]] = []


def weakref_to(flights: Flights) -> Callable[[], Flights | None]:
    """Return a weak reference to it; those that are dead are dropped on the way."""
    import weakref

    _all[:] = [one for one in _all if one() is not None]
    return weakref.ref(flights)


def _forget_in_child() -> None:
    for one in _all:
        if (flights := one()) is not None:
            flights.forget()


os.register_at_fork(after_in_child=_forget_in_child)
