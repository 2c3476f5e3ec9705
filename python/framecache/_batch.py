"""Several keys at once, of which those that are missing are computed together: each by one caller, whoever asks for it.

A caller computes the keys that it is the first to ask for, all in one call, before it waits for those that others
compute: so two callers whose keys overlap never wait for each other.
"""

from __future__ import annotations

import contextvars
import time

from framecache._compute import HELD
from framecache._flight import Outcome, enter
from framecache._framecache import InvalidArgument
from framecache._reading import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any

    from framecache._acompute import AsyncComputer
    from framecache._compute import Computer, Plan
    from framecache._flight import Flight


class Lead:
    """The keys that a caller is to compute, until there is an outcome for each.

    Args:
        computer: Where they are kept.
        plan: What becomes of them.
        keys: The keys.
        flights: Their computations, where others may wait for them.

    Attributes:
        outcomes: What has come of each so far.
    """

    def __init__(self, computer: Computer, plan: Plan, keys: Iterable[str], flights: Mapping[str, Flight]) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._computer = computer
        self._plan = plan
        self._keys = list(keys)
        self._flights = flights
        self._leases: dict[str, int | None] = {}
        self._fences: dict[str, bytes] = {}

    def canonical(self, key: str) -> bytes:
        """The canonical key of a user's key."""
        return self._computer.tiers.canonical(key)

    def ask(self) -> list[str]:
        """Ask for the right to compute each of the keys, as other processes may; return those that they compute."""
        held = []
        for key in self._keys:
            lease = self._computer.ask_for_lease(self._plan, key) if self._asks() else None
            if lease == HELD:
                held.append(key)
            else:
                self.begin(key, lease)
        return held

    def _asks(self) -> bool:
        tiers = self._computer.tiers
        return tiers.store is not None and self._plan.lock > 0 and not tiers.shared.read_only

    def begin(self, key: str, lease: int | Found | str | None) -> None:
        """Have this key computed, unless somebody did meanwhile.

        Args:
            key: The key.
            lease: The right to do so; or what was computed.
        """
        found = lease if isinstance(lease, Found) else self._computer.fresh(self._plan, self.canonical(key), key)
        if found is not None:
            self._computer.release(key, lease)
            self._leave(key, Outcome("found", found))
            return
        self._leases[key] = lease if isinstance(lease, int) else None
        self._fences[key] = self._computer.fence(self._plan, key)

    def begun(self) -> list[str]:
        """The keys to compute now."""
        return list(self._leases)

    def inside(self, call: Callable[[list[str]], Any]) -> Any:
        """Return what `call` gives for them, as a part of their computations. In a context of its own."""
        for key in self.begun():
            if (flight := self._flights.get(key)) is not None:
                enter(flight)
        return call(self.begun())

    def keep(self, values: Mapping[str, Any]) -> None:
        """Store what was computed; of a key without a value, nothing."""
        if not hasattr(values, "keys"):
            raise InvalidArgument(f"compute: expected it to return a mapping of keys to values, got {values!r:.100}")
        for key in self.begun():
            if key in values:
                outcome = self._computer.keep(
                    self._plan,
                    self.canonical(key),
                    key,
                    values[key],
                    self._fences[key],
                    self._leases.pop(key),
                    self._flights.get(key),
                )
            else:
                self._computer.release(key, self._leases.pop(key))
                outcome = Outcome("alone")
            self._leave(key, outcome)

    def end(self, error: BaseException | None = None) -> None:
        """Tell those who wait for keys without an outcome that there is none: an `Exception`, or nobody computes."""
        for key, lease in self._leases.items():
            self._computer.release(key, lease)
        for key in self._keys:
            if key not in self.outcomes:
                self._leave(key, Outcome("raised" if isinstance(error, Exception) else "lost", error=error))

    def _leave(self, key: str, outcome: Outcome) -> None:
        self.outcomes[key] = outcome
        if (flight := self._flights.get(key)) is not None:
            self._computer.flights.leave(self._computer.tiers.scope, key, flight, outcome)


def _join(computer: Computer, keys: list[str]) -> tuple[dict[str, Flight], dict[str, Flight]]:
    """Join the computation of each key; return those that the caller leads, and the others."""
    led: dict[str, Flight] = {}
    others: dict[str, Flight] = {}
    try:
        for key in keys:
            flight, leads = computer.flights.join(computer.tiers.scope, key)
            (led if leads else others)[key] = flight
    except BaseException:
        for key, flight in led.items():
            computer.flights.leave(computer.tiers.scope, key, flight, Outcome("lost"))
        raise
    return led, others


def _take(
    computer: Computer, plan: Plan, outcomes: Mapping[str, Outcome | None], values: dict[str, Any], own: bool
) -> list[str]:
    """Put into `values` what is there; return the keys that nobody computes any more, or not in time.

    Args:
        computer: Where they are kept.
        plan: What becomes of them.
        outcomes: What came of each key; `None`: nothing in time.
        values: Gets values.
        own: Whether the caller computed them.
    """
    left = []
    for key, outcome in outcomes.items():
        if outcome is None or outcome.kind == "lost":
            left.append(key)
        elif outcome.kind == "raised":
            assert outcome.error is not None
            raise outcome.error
        elif outcome.found is not None:
            values[key] = outcome.found.value if own else computer.joined(plan, outcome)
    return left


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
    ends = time.monotonic() + plan.lock
    while keys and time.monotonic() < ends:
        led, others = _join(computer, keys)
        if led:
            _take(computer, plan, _lead(Lead(computer, plan, led, led), plan, computer, compute), values, own=True)
        waited = {key: flight.wait(max(0.0, ends - time.monotonic())) for key, flight in others.items()}
        keys = _take(computer, plan, waited, values, own=False)
        if None in waited.values():
            break
    if keys:
        _take(computer, plan, _lead(Lead(computer, plan, keys, {}), plan, computer, compute), values, own=True)
    return values


def _lead(
    lead: Lead, plan: Plan, computer: Computer, compute: Callable[[list[str]], Mapping[str, Any]]
) -> dict[str, Outcome]:
    """Compute the keys that the caller leads: first those that no other process computes."""
    try:
        held = lead.ask()
        _compute(lead, compute)
        for key in held:
            lead.begin(key, computer._lease(plan, lead.canonical(key), key, force=False, wait=True))
        _compute(lead, compute)
    except BaseException as error:
        lead.end(error)
        raise
    return lead.outcomes


def _compute(lead: Lead, compute: Callable[[list[str]], Mapping[str, Any]]) -> None:
    if lead.begun():
        lead.keep(contextvars.copy_context().run(lead.inside, compute))


class _Part:
    """A part of a task that computes several keys, which is cancelled when all of its parts are.

    Args:
        task: The task.
        parts: All that are not cancelled.
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
    """As `values_of`, where `compute` gives an awaitable. It runs in a task, which lives while anybody waits for a key
    that it computes.
    """
    import asyncio

    values: dict[str, Any] = {}
    threads = computer._computer
    loop = asyncio.get_running_loop()
    ends = loop.time() + plan.lock
    while keys and loop.time() < ends:
        led, others = _join(threads, keys)
        if led:
            _share(led, computer._start(_alead(computer, plan, Lead(threads, plan, led, led), compute)))
        # What the caller computes may take as long as it likes.
        waits = [
            *(flight.wait_in_loop(None) for flight in led.values()),
            *(flight.wait_in_loop(max(0.0, ends - loop.time())) for flight in others.values()),
        ]
        outcomes = dict(zip([*led, *others], await asyncio.gather(*waits), strict=True))
        own = _take(threads, plan, {key: outcomes[key] for key in led}, values, own=True)
        keys = own + _take(threads, plan, {key: outcomes[key] for key in others}, values, own=False)
        if None in outcomes.values():
            break
    if keys:
        lead = Lead(threads, plan, keys, {})
        await _alead(computer, plan, lead, compute)
        _take(threads, plan, lead.outcomes, values, own=True)
    return values


def _share(flights: dict[str, Flight], task: asyncio.Task[None]) -> None:
    """Have the task cancelled when nobody waits for any of its computations."""
    parts = set(flights)
    for key, flight in flights.items():
        flight.loop = task.get_loop()
        flight.task = _Part(task, parts, key)  # type: ignore[assignment]  # all that is asked of it is `cancel`


async def _alead(
    computer: AsyncComputer,
    plan: Plan,
    lead: Lead,
    compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]],
) -> None:
    """As `_lead`. What `compute` raises is an outcome."""
    try:
        held = await computer.in_thread(lead.ask)
        await _acompute(computer, lead, compute)
        for key in held:
            lease = await computer._lease(plan, lead.canonical(key), key, force=False, wait=True)
            await computer.in_thread(lead.begin, key, lease)
        await _acompute(computer, lead, compute)
    except BaseException as error:
        lead.end(error)
        if not isinstance(error, Exception):
            raise


async def _acompute(
    computer: AsyncComputer, lead: Lead, compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]]
) -> None:
    if lead.begun():
        await computer.in_thread(lead.keep, await lead.inside(compute))
