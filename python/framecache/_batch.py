"""Several keys at once, of which those that are missing are computed together: each by one caller, whoever asks for it.

A caller computes the keys that it is the first to ask for, all in one call, before it waits for those that others
compute: so two callers whose keys overlap never wait for each other.
"""

from __future__ import annotations

import contextvars
import time

from framecache import _background
from framecache._asking import run
from framecache._flight import Flight, Outcome, enter
from framecache._framecache import InvalidArgument
from framecache._reading import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from typing import Any

    from framecache._acompute import AsyncComputer
    from framecache._compute import Computer
    from framecache._plan import Plan


class Lead:
    """The keys that a caller computes, until there is an outcome for each.

    Args:
        computer: Where they are kept.
        plan: What becomes of them.
        flights: Their computations.
    """

    def __init__(self, computer: Computer, plan: Plan, flights: Mapping[str, Flight]) -> None:
        self.flights = flights
        self._computer = computer
        self._plan = plan
        self._fences: dict[str, bytes] = {}
        self._begun: list[str] = []
        self._ended = False

    def canonical(self, key: str) -> bytes:
        """The canonical key of a user's key."""
        return self._computer.tiers.canonical(key)

    async def ask(self) -> list[str]:
        """Have each of the keys computed that no other process computes; return those that one does."""
        computer, plan = self._computer, self._plan
        asks = plan.lock and computer.leases.are_given()
        held = []
        for key, flight in self.flights.items():
            if asks and await computer.ask_for_lease(plan, key, flight) and not flight.alone:
                held.append(key)
            else:
                await self.begin(key)
        return held

    async def begin(self, key: str, found: Found | str | None = None) -> None:
        """Have this key computed, unless somebody did meanwhile; `found` is what he computed."""
        flight, computer = self.flights[key], self._computer
        if not isinstance(found, Found):
            looked = "absent" if flight.alone else await computer.look(self._plan, self.canonical(key), key)
            found = looked if isinstance(looked, Found) and not computer.late(looked) else None
        if found is not None or self._ended:
            await computer.release(flight)
            computer.flights.end(flight, Outcome("lost" if found is None else "found", found))
            return
        self._fences[key] = await computer.begin(self._plan, key, flight)
        self._begun.append(key)

    def begun(self) -> list[str]:
        """The keys to compute now."""
        return list(self._begun)

    def inside(self, compute: Callable[[list[str]], Any]) -> Any:
        """Call it with them, as a part of their computations. In a context of its own."""
        keys = self.begun()
        for key in keys:
            enter(self.flights[key])
        return compute(keys)

    async def keep(self, values: Mapping[str, Any]) -> None:
        """Store what was computed; of a key without a value, nothing."""
        if not hasattr(values, "keys"):
            raise InvalidArgument(f"compute: expected it to return a mapping of keys to values, got {values!r:.100}")
        computer = self._computer
        while self._begun:
            key = self._begun.pop(0)
            flight, outcome = self.flights[key], Outcome("alone")
            if key in values:
                fence = self._fences[key]
                outcome = await computer.keep(self._plan, self.canonical(key), key, values[key], fence, flight)
            else:
                await computer.release(flight)
            computer.flights.end(flight, outcome)

    def end(self, error: BaseException | None = None) -> None:
        """Tell those who wait for keys without an outcome that there is none: an `Exception`, or nobody computes."""
        self._ended = True
        self._begun.clear()
        for flight in self.flights.values():
            outcome = Outcome("raised" if isinstance(error, Exception) else "lost", error=error)
            self._computer.flights.end(flight, outcome)

    async def release(self) -> None:
        """Give back what leases there are; to be done before the end."""
        for flight in self.flights.values():
            await self._computer.release(flight)


class _Round:
    """The computations of several keys that a caller has begun or joined.

    Args:
        computer: Where they are kept.
        plan: What becomes of them.
        keys: The keys.
        alone: Whether nobody else may wait for them, nor this caller for others.
        loop: Where the caller is a task.

    Raises:
        RecursiveCall: the caller is computing one of them.
    """

    def __init__(
        self,
        computer: Computer,
        plan: Plan,
        keys: list[str],
        alone: bool,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._computer = computer
        self._plan = plan
        self.led: dict[str, Flight] = {}
        self.others: dict[str, Flight] = {}
        try:
            for key in keys:
                mine = Flight(computer.flights, computer.tiers.scope, key, loop, alone=alone)
                flight = computer.flights.begin(mine)
                (self.led if flight is mine else self.others)[key] = flight
        except BaseException:
            self.abandon()
            raise
        self.lead = Lead(computer, plan, self.led)

    def abandon(self) -> None:
        """End what the caller leads, and wait for nobody."""
        for flight in self.led.values():
            self._computer.flights.end(flight, Outcome("lost"))
        part(self.others)

    def take(self, outcomes: Mapping[str, Outcome | None], values: dict[str, Any]) -> tuple[list[str], bool]:
        """Put into `values` what there is; return the other keys, and whether they are to be computed alone.

        A key that whoever computed it has no value for is none of them.
        """
        left, alone = [], False
        for key, outcome in outcomes.items():
            leads = key in self.led
            flight = self.led[key] if leads else self.others[key]
            if outcome is None or (outcome.kind == "alone" and outcome is not flight.outcome):
                left.append(key)
                alone = True
            elif outcome.kind != "alone" and outcome.is_answer(leads, recent=True):
                values[key] = self._computer.answer(self._plan, key, flight, None, leads)
            elif outcome.kind != "alone" or outcome.found is not None:
                left.append(key)
        return left, alone


def part(flights: dict[str, Flight]) -> None:
    """Wait no more for them."""
    while flights:
        flights.popitem()[1].wait(0)


def values_of(
    computer: Computer, plan: Plan, keys: list[str], compute: Callable[[list[str]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the values of keys that were not found.

    Args:
        computer: Where they are kept.
        plan: What becomes of them.
        keys: Different ones.
        compute: Returns the values of those that nobody else computes.

    Raises:
        RecursiveCall: the caller is computing one of them.
    """
    values: dict[str, Any] = {}
    alone = not plan.lock
    while keys:
        ends = time.monotonic() + plan.lock
        this = _Round(computer, plan, keys, alone)
        waiting = dict(this.others)
        try:
            _lead(this.lead, plan, computer, compute)
            outcomes = {key: flight.outcome for key, flight in this.led.items()}
            for key in this.others:
                outcomes[key] = waiting.pop(key).wait(max(0.0, ends - time.monotonic()))
        finally:
            part(waiting)
        keys, alone = this.take(outcomes, values)
    return values


def _lead(lead: Lead, plan: Plan, computer: Computer, compute: Callable[[list[str]], Mapping[str, Any]]) -> None:
    """Compute the keys that the caller leads: first those that no other process computes."""
    error: BaseException | None = None
    try:
        held = run(lead.ask())
        _compute(lead, compute)
        for key in held:
            run(lead.begin(key, computer.lease(plan, lead.canonical(key), key, lead.flights[key], force=False)))
        _compute(lead, compute)
    except BaseException as raised:
        error = raised
        raise
    finally:
        run(lead.release())
        lead.end(error)
        del error  # whose traceback has this frame


def _compute(lead: Lead, compute: Callable[[list[str]], Mapping[str, Any]]) -> None:
    if lead.begun():
        run(lead.keep(contextvars.copy_context().run(lead.inside, compute)))


class _Part:
    """A part of a task that computes several keys, which is cancelled when all of its parts are.

    Args:
        task: The task.
        parts: The keys of all that are not cancelled.
        key: The key that this one is about.
    """

    def __init__(self, task: asyncio.Task[None], parts: set[str], key: str) -> None:
        self._task = task
        self._parts = parts
        self._key = key

    def cancel(self) -> None:
        """Note that nobody waits for this key any more."""
        self._parts.discard(self._key)
        if not self._parts:
            self._task.cancel()


async def avalues_of(
    computer: AsyncComputer,
    plan: Plan,
    keys: list[str],
    compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]],
) -> dict[str, Any]:
    """As `values_of`, where `compute` gives an awaitable. It runs in a task, which lives while anybody waits for any of
    its keys.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    values: dict[str, Any] = {}
    alone = not plan.lock
    while keys:
        ends = time.monotonic() + plan.lock
        this = _Round(computer.threads, plan, keys, alone, loop)
        _start(loop, this.lead, _alead(computer, plan, this.lead, compute))
        waiting = {**this.led, **this.others}
        outcomes: dict[str, Outcome | None] = {}
        try:
            for key in keys:
                limit = None if key in this.led else max(0.0, ends - time.monotonic())
                outcomes[key] = await waiting.pop(key).wait_in_loop(limit)
        finally:
            part(waiting)
        keys, alone = this.take(outcomes, values)
    return values


def _start(loop: asyncio.AbstractEventLoop, lead: Lead, work: Coroutine[Any, Any, None]) -> None:
    """Run it in a task, which is cancelled when nobody waits for any of its keys."""
    task = loop.create_task(work)
    # One that is cancelled before it begins never runs.
    task.add_done_callback(lambda _: _abandon(lead))
    parts = set(lead.flights)
    for key, flight in lead.flights.items():
        flight.task = _Part(task, parts, key)  # type: ignore[assignment]  # all that is asked of it is `cancel`


def _abandon(lead: Lead) -> None:
    if any(flight.lease is not None for flight in lead.flights.values()):
        _background.submit(lambda: run(lead.release()))
    lead.end()


async def _alead(
    computer: AsyncComputer,
    plan: Plan,
    lead: Lead,
    compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]],
) -> None:
    """As `_lead`; what `compute` raises is an outcome."""
    try:
        held = await computer.tiers.in_loop(lead.ask)
        await _acompute(computer, lead, compute)
        for key in held:
            lease = await computer.lease(plan, lead.canonical(key), key, lead.flights[key], force=False)
            await computer.tiers.in_loop(lead.begin, key, lease)
        await _acompute(computer, lead, compute)
    except Exception as error:
        await computer.tiers.in_loop(lead.release)
        lead.end(error)


async def _acompute(
    computer: AsyncComputer, lead: Lead, compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]]
) -> None:
    if lead.begun():
        await computer.tiers.in_loop(lead.keep, await lead.inside(compute))
