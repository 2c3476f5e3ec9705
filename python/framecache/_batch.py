"""Several keys at once, of which those that are missing are computed together: each by one caller, whoever asks for it.

A caller computes the keys that it is the first to ask for, all in one call, before it waits for those that others
compute: so two callers whose keys overlap never wait for each other.
"""

from __future__ import annotations

import contextvars

from framecache._flight import Flight, Outcome, enter
from framecache._framecache import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from framecache._acompute import AsyncComputer
    from framecache._compute import Computer, Plan


class Batch:
    """The keys of one call, until there is an outcome for each.

    Args:
        computer: Computes and stores.
        plan: What becomes of values.
        keys: Different ones.
        loop: The event loop that computes, if one does.
        alone: Whether nobody may wait for what is computed here.

    Raises:
        RecursiveCall: the caller is computing one of them.
    """

    def __init__(self, computer: Computer, plan: Plan, keys: list[str], loop: Any = None, alone: bool = False) -> None:
        self._computer = computer
        self._plan = plan
        self._fences: dict[str, bytes] = {}
        self._led: dict[str, Flight] = {}
        #: Computations of others.
        self.others: dict[str, Flight] = {}
        try:
            for key in keys:
                mine = Flight(computer.flights, computer.tiers.scope, key, loop, alone=alone or not plan.lock)
                flight = computer.flights.begin(mine)
                (self._led if flight is mine else self.others)[key] = flight
        except BaseException:
            self.end(Outcome("lost"))
            for flight in self.others.values():
                flight.part()
            raise

    def begin(self) -> list[str]:
        """The keys to compute: those that this call leads and that nobody has computed meanwhile."""
        for key, flight in self._led.items():
            found = self._computer.fresh(self._plan, self._computer.tiers.canonical(key), key)
            if found is None:
                self._fences[key] = self._computer.begin(self._plan, key, flight)
            else:
                self._computer.flights.end(flight, Outcome("found", found))
        return list(self._fences)

    def enter(self) -> None:
        """What goes on in this context is a part of their computations."""
        for key in self._fences:
            enter(self._led[key])

    def keep(self, values: Mapping[str, Any]) -> None:
        """Store what was computed; of a key without a value, nothing."""
        if not hasattr(values, "keys"):
            raise InvalidArgument(f"compute: expected it to return a mapping of keys to values, got {values!r:.100}")
        for key, fence in self._fences.items():
            outcome = Outcome("alone")
            if key in values:
                canonical = self._computer.tiers.canonical(key)
                outcome = self._computer.keep(self._plan, canonical, key, values[key], fence, None, self._led[key])
            self._computer.flights.end(self._led[key], outcome)

    def end(self, outcome: Outcome) -> None:
        """Give all that have none this outcome."""
        for flight in self._led.values():
            self._computer.flights.end(flight, outcome)
            if flight.loop is not None:
                flight.part()

    def own(self) -> dict[str, Any]:
        """The values that this call computed, or found."""
        outcomes = ((key, flight.outcome) for key, flight in self._led.items())
        return {key: one.found.value for key, one in outcomes if one is not None and one.found is not None}

    def take(self, waited: Mapping[str, Outcome | None], values: dict[str, Any]) -> list[str]:
        """Put into `values` what others computed; return the keys of which nothing came, or not in time.

        Raises:
            Exception: what one of them raised.
        """
        left = []
        for key, outcome in waited.items():
            if outcome is None or outcome.kind in ("lost", "alone"):
                left.append(key)
            else:
                values[key] = self._computer.answer(self._plan, key, self.others[key], None, leads=False)
        return left


def values_of(
    computer: Computer, plan: Plan, keys: list[str], compute: Callable[[list[str]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the values of keys that were not found.

    Args:
        computer: Computes and stores.
        plan: What becomes of values.
        keys: Different ones.
        compute: Returns the values of those that nobody else computes, by key.
    """
    values: dict[str, Any] = {}
    alone = False
    while keys:
        batch = Batch(computer, plan, keys, alone=alone)
        end = Outcome("lost")
        try:
            if missing := batch.begin():
                context = contextvars.copy_context()
                context.run(batch.enter)
                batch.keep(context.run(compute, missing))
        except Exception as error:
            end = Outcome("raised", error=error)
            raise
        finally:
            batch.end(end)
        values.update(batch.own())
        waited = {key: flight.wait(plan.lock) for key, flight in batch.others.items()}
        keys, alone = batch.take(waited, values), True
    return values


async def avalues_of(
    computer: AsyncComputer,
    plan: Plan,
    keys: list[str],
    compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]],
) -> dict[str, Any]:
    """As `values_of`, where `compute` gives an awaitable, which is awaited in the caller's task: where that is cancelled,
    whoever waits computes.
    """
    import asyncio

    values: dict[str, Any] = {}
    alone = False
    while keys:
        batch = Batch(computer.threads, plan, keys, asyncio.get_running_loop(), alone)
        end = Outcome("lost")
        try:
            if missing := await computer.in_thread(batch.begin):
                work = contextvars.copy_context().run(_inside, batch, compute, missing)
                await computer.in_thread(batch.keep, await work)
        except Exception as error:
            end = Outcome("raised", error=error)
            raise
        finally:
            batch.end(end)
        values.update(batch.own())
        waits = (flight.wait_in_loop(plan.lock) for flight in batch.others.values())
        waited = dict(zip(batch.others, await asyncio.gather(*waits), strict=True))
        keys, alone = batch.take(waited, values), True
    return values


def _inside(batch: Batch, compute: Callable[[list[str]], Awaitable[Any]], keys: list[str]) -> Awaitable[Any]:
    batch.enter()
    return compute(keys)
