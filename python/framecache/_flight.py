"""Single flight: one computation of a key, whoever asks for it meanwhile.

The first to ask leads, all others wait for what it finds out. Threads, tasks of one loop and tasks of several loops may
wait for one another; nothing here belongs to a loop until somebody waits in it.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from contextvars import ContextVar

from framecache._framecache import FramecacheError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, Final, Literal

    from framecache._lease import Lease
    from framecache._reading import Found

    Kind = Literal["found", "raised", "lost", "alone"]

#: Seconds between two looks at whether the loop that computes still runs.
_LOOK_EVERY: Final = 0.05
#: Seconds that a waiter sleeps at most, whoever computes: if a leader was interrupted while it woke others, they see.
_SLEEP: Final = 1.0


class RecursiveCall(FramecacheError, RecursionError):
    """A computation that needs its own result: it would wait for itself."""


class Outcome:
    """What a computation came to.

    Attributes:
        kind: ``found``: an entry. ``raised``: an `Exception`, for all who wait. ``lost``: it was interrupted, and
            whoever waits begins anew. ``alone``: a value that no two callers can have; each computes its own.
        found: The entry; of ``alone`` too, for who computed it.
        error: What was raised; of ``lost`` too, for who computed it.
        traceback: Where, without the frame that caught it, which has this outcome.
    """

    __slots__ = ("error", "found", "kind", "traceback")

    def __init__(self, kind: Kind, found: Found | None = None, error: BaseException | None = None) -> None:
        self.kind = kind
        self.found = found
        self.error = error
        self.traceback: TracebackType | None = None
        if error is not None and error.__traceback__ is not None:
            self.traceback = error.__traceback__ = error.__traceback__.tb_next

    def is_answer(self, leads: bool, recent: bool) -> bool:
        """Whether a caller is content with it.

        Args:
            leads: Whether he computed it.
            recent: Whether it began late enough for him.
        """
        if leads:
            return self.kind != "lost" or self.error is not None
        return recent and self.kind in ("found", "raised")


class Flight:
    """A computation that others may wait for.

    Args:
        flights: Where it is kept while it is under way.
        scope: The namespace of its key.
        key: What it computes.
        loop: Where its task runs; `None`: this thread computes.
        alone: Whether nobody may wait for it but who leads it.
        background: Whether it goes on when nobody waits for it.

    Attributes:
        number: Which of all flights it is; later ones have higher numbers.
        began: When its function was called, on the monotonic clock; until then, when it was made.
        fenced: Whether its key was deleted or set since it began: its result is not stored then, and no one joins.
        holds: Tells whether nothing that it may have been computed from was invalidated since.
        lease: That under which it is computed, if there is one.
        task: What computes, in a loop.
        led: Whether the one who began it waits for it.
    """

    __slots__ = (
        "__weakref__",
        "_done",
        "_flights",
        "_sleepers",
        "alone",
        "background",
        "began",
        "fenced",
        "holds",
        "lease",
        "led",
        "loop",
        "needs",
        "number",
        "outcome",
        "place",
        "task",
        "thread",
        "waiters",
    )

    def __init__(
        self,
        flights: Flights,
        scope: int,
        key: str,
        loop: asyncio.AbstractEventLoop | None = None,
        alone: bool = False,
        background: bool = False,
    ) -> None:
        self._flights = flights
        self.place = (scope, key)
        self.loop = loop
        self.alone = alone
        self.background = background
        self.number = next(flights.numbers)
        self.began = time.monotonic()
        self.thread = threading.get_ident()
        self.outcome: Outcome | None = None
        self.fenced = False
        self.holds: Callable[[], bool] = _always
        self.lease: Lease | None = None
        self.task: asyncio.Task[Any] | None = None
        self.led = False
        self.waiters = 0
        #: What those that are part of it wait for.
        self.needs: list[Flight] = []
        self._done = threading.Lock()
        self._done.acquire()
        self._sleepers: dict[asyncio.Future[None], asyncio.AbstractEventLoop] = {}

    def settle(self, outcome: Outcome) -> None:
        """Tell all who wait. Only the first outcome counts."""
        with self._flights.mutex:
            if self.outcome is not None:
                return
            self.outcome = outcome
            self._done.release()
            sleepers, self._sleepers = self._sleepers, {}
        for sleeper, loop in sleepers.items():
            wake(sleeper, loop)

    def is_outdated(self) -> bool:
        """Whether its result may not be what its function would give now."""
        return self.fenced or not self.holds()

    def is_dead(self) -> bool:
        """Whether its loop does not run, so that nothing may come of it."""
        return self.loop is not None and not self.loop.is_running()

    def is_left_behind(self) -> bool:
        """Whether its loop was closed with its task in it, which never ends then."""
        return self.loop is not None and self.loop.is_closed()

    def is_here(self) -> bool:
        """Whether it runs in the loop of this thread, which blocking would stop."""
        if self.loop is None or (asyncio := sys.modules.get("asyncio")) is None:
            return False
        return asyncio._get_running_loop() is self.loop

    def needs_any(self, others: list[Flight]) -> bool:
        """Whether it is one of them or waits, over others perhaps, for one of them."""
        seen: list[Flight] = []
        to_see = [self]
        while to_see:
            one = to_see.pop()
            if one in others:
                return True
            if one not in seen:
                seen.append(one)
                to_see += one.needs
        return False

    def wait(self, seconds: float) -> Outcome | None:
        """Block until there is an outcome, with the GIL released and signals handled; `None` at the limit.

        The limit counts from when the function was called or the caller came, whichever was later.
        """
        came = time.monotonic()
        try:
            if self.is_here():
                return Outcome("alone")
            while self.outcome is None:
                left = max(came, self.began) + seconds - time.monotonic()
                if left <= 0:
                    return None
                # Signals are handled while a lock with a timeout is waited for.
                if self._done.acquire(timeout=min(left, _SLEEP if self.loop is None else _LOOK_EVERY)):
                    self._done.release()
                elif self.is_dead():
                    self.settle(Outcome("lost"))
            return self.outcome
        finally:
            self._part()

    async def wait_in_loop(self, seconds: float | None) -> Outcome | None:
        """As `wait`, in a loop, or without a limit. The last who is cancelled cancels the computation."""
        import asyncio

        loop = asyncio.get_running_loop()
        came = time.monotonic()
        most = _SLEEP if self.loop is None else _LOOK_EVERY
        try:
            while self.outcome is None:
                left = None if seconds is None else max(came, self.began) + seconds - time.monotonic()
                if left is not None and left <= 0:
                    return None
                await self._sleep(loop, left if self.loop is loop else min(most if left is None else left, most))
                if self.outcome is None and self.is_dead():
                    self.settle(Outcome("lost"))
            return self.outcome
        finally:
            self._part()

    async def _sleep(self, loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
        """Wait for the outcome, or for so long."""
        sleeper = loop.create_future()
        with self._flights.mutex:
            if self.outcome is not None:
                return
            self._sleepers[sleeper] = loop
        timer = None if seconds is None else loop.call_later(seconds, _set, sleeper)
        try:
            await sleeper
        finally:
            if timer is not None:
                timer.cancel()
            with self._flights.mutex:
                self._sleepers.pop(sleeper, None)

    def join(self) -> None:
        """Count one who waits, and what cannot end before this does. To be called with the mutex held."""
        self.waiters += 1
        for one in _part_of():
            one.needs.append(self)

    def _part(self) -> None:
        """One waits no more; the last one cancels a computation that is still under way."""
        with self._flights.mutex:
            self.waiters -= 1
            for one in _part_of():
                if self in one.needs:
                    one.needs.remove(self)
            abandoned = self.waiters == 0 and self.outcome is None and not self.background
        if abandoned and self.task is not None and self.loop is not None:
            self.fenced = True
            self.settle(Outcome("lost"))
            try:
                self.loop.call_soon_threadsafe(self.task.cancel)
            except RuntimeError:
                return  # the loop is closed, and the task with it


def _always() -> bool:
    return True


def wake(sleeper: asyncio.Future[None], loop: asyncio.AbstractEventLoop) -> None:
    """End what waits for a future in a loop, from any thread."""
    try:
        loop.call_soon_threadsafe(_set, sleeper)
    except RuntimeError:
        return  # the loop is closed: nobody waits there any more


def _set(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


#: The computations that this context is part of, weakly: a task may outlive what it began in.
_within: ContextVar[tuple[weakref.ref[Flight], ...]] = ContextVar("framecache_within", default=())


def _part_of() -> list[Flight]:
    """The computations under way that this context is part of."""
    return [flight for one in _within.get() if (flight := one()) is not None and flight.outcome is None]


def enter(flight: Flight) -> None:
    """What goes on in this context is a part of this computation."""
    _within.set((*_within.get(), weakref.ref(flight)))


def enter_background() -> None:
    """What goes on in this context is a part of no computation: nobody waits for it."""
    _within.set(())


class Flights:
    """The computations of one cache that are under way.

    Attributes:
        mutex: Held for moments only. The thread that holds it may take it once more: a finalizer or a signal handler
            that runs then may use the cache.
        numbers: Of flights.
    """

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.numbers = itertools.count()
        self._under_way: dict[tuple[int, str], list[Flight]] = {}
        self._sweep_at = 64
        _all[:] = [one for one in _all if one() is not None]
        _all.append(weakref.ref(self))

    def __len__(self) -> int:
        """How many are under way."""
        return sum([len(flights) for flights in list(self._under_way.values())])

    def begin(self, mine: Flight) -> Flight:
        """Begin `mine`, or return the computation of its key that is under way. Who gets another one than `mine` waits
        for it; so does who begins one in a loop; in the background, neither does.

        Raises:
            RecursiveCall: that computation cannot end before the caller does.
        """
        with self.mutex:
            current = None
            if not mine.alone:
                current = self.current(*mine.place)
                if not mine.background:
                    self._check(mine, current)
            if current is None:
                self._sweep()
                self._under_way.setdefault(mine.place, []).append(mine)
            if not mine.background and (current is not None or mine.loop is not None):
                (current or mine).join()
            return current or mine

    def _check(self, mine: Flight, current: Flight | None) -> None:
        """Refuse to wait for what waits for the caller. An outdated computation of the key still has its lease."""
        inside = _part_of()
        if any(flight in inside for flight in self._under_way.get(mine.place, ())) or (
            current is not None
            and (current.needs_any(inside) or (current.loop is None and current.thread == mine.thread))
        ):
            raise RecursiveCall(
                f"{mine.place[1]}: expected a computation that does not need its own result, found one that asks for it"
            )

    def end(self, flight: Flight, outcome: Outcome) -> None:
        """End a computation; nothing happens to one that has ended, or was never begun."""
        with self.mutex:
            flights = self._under_way.get(flight.place, [])
            # What was left behind with a lease gives it to who takes its place.
            flights[:] = [
                one for one in flights if one is not flight and (one.lease is not None or not one.is_left_behind())
            ]
            if not flights:
                self._under_way.pop(flight.place, None)
        flight.settle(outcome)

    def current(self, scope: int, key: str) -> Flight | None:
        """The computation of a key that is under way and that others may wait for."""
        for flight in self._under_way.get((scope, key), ()):
            if not (flight.alone or flight.outcome is not None or flight.is_dead() or flight.is_outdated()):
                return flight
        return None

    def before(self, mine: Flight) -> list[Flight]:
        """The computations of the same key that are under way still, though nobody waits for them any more."""
        return [one for one in tuple(self._under_way.get(mine.place, ())) if one is not mine and not one.alone]

    def fence(self, scope: int, key: str) -> None:
        """Keep the computations of a key that are under way from being stored: it was deleted or set.

        Who asks for the key from now on does not wait for them.
        """
        for flight in tuple(self._under_way.get((scope, key), ())):
            flight.fenced = True

    def of(self, scope: int, prefix: str) -> list[Flight]:
        """The computations of keys that begin with `prefix`."""
        return [
            flight
            for (where, key), flights in list(self._under_way.items())
            if where == scope and key.startswith(prefix)
            for flight in tuple(flights)
        ]

    def fence_all(self, scope: int) -> None:
        """As `fence`, for all keys of a namespace."""
        for flight in self.of(scope, ""):
            flight.fenced = True

    def _sweep(self) -> None:
        """Drop what loops left behind that were closed with tasks in them."""
        if len(self._under_way) < self._sweep_at:
            return
        for place, flights in list(self._under_way.items()):
            flights[:] = [one for one in flights if not one.is_left_behind()]
            if not flights:
                del self._under_way[place]
        self._sweep_at = 2 * len(self._under_way) + 64

    def forget(self) -> None:
        """Drop what belongs to threads that a fork did not copy, and to the parent's loops."""
        self.mutex = threading.RLock()
        for flights in self._under_way.values():
            for flight in flights:
                flight.lease = None
        self._under_way = {}


_all: list[weakref.ref[Flights]] = []


def _forget_in_child() -> None:
    for one in _all:
        if (flights := one()) is not None:
            flights.forget()


os.register_at_fork(after_in_child=_forget_in_child)
