"""Values that coroutines compute: as `_compute`, in event loops."""

from __future__ import annotations

import asyncio
import functools
import time

from framecache import _background
from framecache._asking import run, run_in_loop
from framecache._flight import Flight, Outcome, enter, enter_background
from framecache._lease import HELD
from framecache._reading import Found, is_light

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from concurrent.futures import Future
    from typing import Any

    from framecache._compute import Computer
    from framecache._plan import Plan


class AsyncComputer:
    """Looks values up, and computes those that are not there in a task of their own, which lives while anybody waits.

    Args:
        computer: The same for threads, with which it shares what it knows.
    """

    def __init__(self, computer: Computer) -> None:
        self.threads = computer
        self.tiers = computer.tiers
        self._flights = computer.flights

    # Looking up

    async def find(self, plan: Plan, canonical: bytes, key: str) -> Found | str:
        """As `Computer.find`."""
        found = self.threads.find(plan, canonical, key, at_hand=True)
        if found == "elsewhere":
            ahead = await self.tiers.ask(key, plan.views, stale=plan.may_be_stale)
            find = functools.partial(self.threads.find, plan, canonical, key, ahead=ahead)
            found = find() if is_light(ahead) else await self.in_thread(find)
        return found

    async def fresh(self, plan: Plan, canonical: bytes, key: str) -> Found | None:
        """As `Computer.fresh`."""
        found = await self.find(plan, canonical, key)
        return found if isinstance(found, Found) and not self.threads.late(found) else None

    async def value(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """As `Computer.value`, where `call` gives an awaitable."""
        started = self.tiers.shared.started()
        found = await self.find(plan, canonical, key)
        served = self.threads.serve(plan, key, found, started)
        if served is not None:
            if self.threads.is_to_refresh(plan, key, served):
                self._refresh(plan, canonical, key, call)
            return served.value
        return await self.compute(plan, canonical, key, call, found if isinstance(found, Found) else None)

    # Computing

    async def compute(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Awaitable[Any]],
        fallback: Found | None = None,
        force: bool = False,
    ) -> Any:
        """As `Computer.compute`: in a task of its own, which lives while anybody waits for it."""
        computer, loop = self.threads, asyncio.get_running_loop()
        alone, since = not plan.lock, -1
        while force or computer.is_to_compute(plan, key, fallback):
            mine = Flight(self._flights, self.tiers.scope, key, loop, alone=alone)
            since = mine.number if since < 0 else since
            flight, outcome = self._flights.begin(mine), None
            if leads := flight is mine:
                mine.led = True
                self._start(mine, functools.partial(self._lead, plan, canonical, key, call, mine, fallback, force))
            try:
                outcome = await flight.wait_in_loop(None if leads else plan.lock)
                if outcome is None or (outcome.kind == "alone" and not leads):
                    alone = True
                elif outcome.is_answer(leads, not force or flight.number > since):
                    return computer.answer(plan, key, flight, fallback, leads)
            finally:
                mine.led = False
                # The traceback of an error has this frame: without a cycle it goes with the last who has it.
                del flight, mine, outcome
        return computer.fall_back(plan, key, fallback)

    def _refresh(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Awaitable[Any]]) -> None:
        """As `Computer._refresh`, in a task."""
        mine = Flight(self._flights, self.tiers.scope, key, asyncio.get_running_loop(), background=True)
        if self._flights.begin(mine) is mine:
            self._start(mine, functools.partial(self._lead, plan, canonical, key, call, mine, None, False))

    def _start(self, flight: Flight, work: Callable[[], Coroutine[Any, Any, Outcome]]) -> None:
        """Run it in a task, which the flight keeps while it is under way."""
        flight.task = asyncio.get_running_loop().create_task(self._run(flight, work))
        # One that is cancelled before it begins never runs.
        flight.task.add_done_callback(lambda _: self._flights.end(flight, Outcome("lost")))

    async def _run(self, flight: Flight, work: Callable[[], Coroutine[Any, Any, Outcome]]) -> None:
        outcome = Outcome("lost")
        try:
            if flight.background:
                enter_background()
            enter(flight)
            outcome = await work()
        except (KeyboardInterrupt, SystemExit) as error:
            outcome = Outcome("lost", error=error)
            if not flight.led:
                raise
        except BaseException as error:
            outcome = Outcome("lost", error=error)
            raise
        finally:
            self._flights.end(flight, outcome)
            del flight, outcome, work

    async def _lead(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Awaitable[Any]],
        flight: Flight,
        fallback: Found | None,
        force: bool,
    ) -> Outcome:
        """As `Computer.lead`."""
        computer = self.threads
        try:
            found = await self.lease(plan, canonical, key, flight, force)
            if found is None and not force and not flight.alone:
                found = await self.fresh(plan, canonical, key)
            if (known := computer.known(plan, key, fallback, force, found)) is not None:
                return known
            if flight.background and key in computer.cooling:
                return Outcome("lost")
            fence = await self.tiers.in_loop(computer.begin, plan, key, flight)
            value = await call()
            return await self.tiers.in_loop(computer.keep, plan, canonical, key, value, fence, flight)
        except Exception as error:
            if flight.lease is not None:
                await self.tiers.in_loop(computer.release, flight)
            return computer.failed(plan, key, error)
        except asyncio.CancelledError:
            if flight.lease is not None:
                _background.submit(self._release, flight)
            raise
        finally:
            if flight.lease is not None:  # its loop was closed: a finalizer ends this
                _background.later(self._release, flight)
            del flight  # as in `compute`

    # Leases

    async def lease(self, plan: Plan, canonical: bytes, key: str, flight: Flight, force: bool) -> Found | str | None:
        """As `Computer.lease`."""
        if not plan.lock or not self.threads.leases.are_given():
            return None
        ends = time.monotonic() + plan.lock
        if not await self._ask_for_lease(plan, key, flight):
            return None
        with self.threads.leases.sleeper(key) as sleeper:
            while not (force or flight.alone or flight.background or time.monotonic() + sleeper.pause >= ends):
                await sleeper.sleep_in_loop()
                if (found := await self.fresh(plan, canonical, key)) is not None:
                    return found
                if not await self._ask_for_lease(plan, key, flight):
                    return None
        return HELD if flight.background else None

    async def _ask_for_lease(self, plan: Plan, key: str, flight: Flight) -> bool:
        ask = functools.partial(self.threads.ask_for_lease, plan, key, flight)
        asked: asyncio.Task[bool] | Future[bool]
        if self.tiers.has_loop_backend():
            asked = asyncio.get_running_loop().create_task(run_in_loop(ask()))
            answer: Awaitable[bool] = asyncio.shield(asked)
        else:
            asked = _background.submit(lambda: run(ask()))
            answer = _background.result_of(asked)
        try:
            return await answer
        except asyncio.CancelledError:
            asked.add_done_callback(lambda _: _background.submit(self._release, flight))
            raise

    def _release(self, flight: Flight) -> None:
        run(self.threads.release(flight))

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run it in a worker thread, where it may touch a disk; right here where it cannot."""
        if self.tiers.store is None:
            return work(*arguments)
        return await _background.in_worker(work, *arguments)
