"""Values that coroutines compute: as `_compute`, in event loops."""

from __future__ import annotations

import asyncio
import time

from framecache._compute import HELD, LOOK_EVERY, Computer
from framecache._flight import Outcome, enter
from framecache._tiers import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from framecache._compute import Plan
    from framecache._flight import Flight


class AsyncComputer:
    """Looks values up, and computes those that are not there in a task of their own, which lives while anybody waits.

    Args:
        computer: The same for threads, with which it shares what it knows.
    """

    def __init__(self, computer: Computer) -> None:
        self._computer = computer
        self._tiers = computer.tiers
        self._flights = computer.flights
        self._tasks: set[asyncio.Task[Any]] = set()

    async def value(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """As `value`, where `call` gives an awaitable."""
        started = self._tiers.shared.started()
        found = await self.find(plan, canonical, key)
        if isinstance(found, Found):
            late = self._computer.late(found)
            if not late:
                return self._computer.hit(plan, found, key, started)
            if late <= plan.lifetime.stale_for:
                if not self._computer.is_cooling(key) and self._flights.current(self._tiers.scope, key) is None:
                    self._start(self._refresh(plan, canonical, key, call))
                return self._computer.serve_stale(plan, found, key)
            if late > plan.lifetime.stale_if_error:
                found = "expired"
            elif self._computer.is_cooling(key):
                return self._computer.serve_stale(plan, found, key)
        if isinstance(found, str):
            self._tiers.note(found, key, started)
        return await self.compute(plan, canonical, key, call, found if isinstance(found, Found) else None)

    async def compute(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Awaitable[Any]],
        fallback: Found | None = None,
        force: bool = False,
    ) -> Any:
        """As `compute`: in a task of its own, which lives while anybody waits for it."""
        while plan.lock:
            flight, leads = self._flights.join(self._tiers.scope, key)
            if leads:
                flight.loop = asyncio.get_running_loop()
                flight.task = self._start(self._lead_and_leave(plan, canonical, key, call, flight, fallback, force))
            outcome = await flight.wait_in_loop(None if leads else plan.lock)
            if outcome is None or (outcome.kind == "alone" and not leads):
                break
            if outcome.kind == "raised" or (leads and outcome.error is not None):
                plan.errors += not leads
                assert outcome.error is not None
                raise outcome.error
            if leads and outcome.found is not None:
                return outcome.found.value
            if outcome.kind == "found":
                return self._computer.joined(plan, outcome)
        return self._computer.result(await self._lead(plan, canonical, key, call, None, fallback, force=True))

    async def fresh(self, plan: Plan, canonical: bytes, key: str) -> Found | None:
        """A value that need not be computed, if there is one."""
        found = await self.find(plan, canonical, key)
        return found if isinstance(found, Found) and not self._computer.late(found) else None

    def _start(self, work: Any) -> asyncio.Task[Any]:
        """Run it in a task that is not lost while it runs."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _lead_and_leave(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Awaitable[Any]],
        flight: Flight,
        fallback: Found | None,
        force: bool,
        wait: bool = True,
    ) -> None:
        outcome = Outcome("lost")
        try:
            enter(flight)
            outcome = await self._lead(plan, canonical, key, call, flight, fallback, force, wait)
        except Exception as error:
            outcome = Outcome("raised", error=error)
        except BaseException as error:
            outcome = Outcome("lost", error=error)
            raise
        finally:
            self._flights.leave(self._tiers.scope, key, flight, outcome)

    async def _lead(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Awaitable[Any]],
        flight: Flight | None,
        fallback: Found | None,
        force: bool,
        wait: bool = True,
    ) -> Outcome:
        lease = await self._lease(plan, canonical, key, force, wait)
        if lease == HELD:
            return Outcome("lost")
        if not force:
            found = lease if isinstance(lease, Found) else await self.find(plan, canonical, key)
            if isinstance(found, Found) and not self._computer.late(found):
                await self.in_thread(self._computer.release, key, lease)
                return Outcome("found", found)
        token = lease if isinstance(lease, int) else None
        fence = self._computer.fence(plan, key)
        try:
            value = await call()
        except BaseException as error:
            self._computer.release(key, token)
            if not isinstance(error, Exception):
                raise
            return self._computer.failed(plan, key, error, fallback)
        kept: Outcome = await self.in_thread(self._computer.keep, plan, canonical, key, value, fence, token, flight)
        return kept

    async def _refresh(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Awaitable[Any]]) -> None:
        flight, leads = self._flights.join(self._tiers.scope, key)
        if not leads:
            return
        flight.loop = asyncio.get_running_loop()
        await self._lead_and_leave(plan, canonical, key, call, flight, None, force=False, wait=False)
        if flight.outcome is not None and flight.outcome.kind == "raised":
            self._computer.cool_down(key)
            self._computer.counts.log("refresh", "computing %.100r anew failed: %r", key, flight.outcome.error)

    async def _lease(self, plan: Plan, canonical: bytes, key: str, force: bool, wait: bool) -> int | Found | str | None:
        if self._tiers.store is None or not plan.lock or self._tiers.shared.read_only:
            return None
        ends, pause = time.monotonic() + plan.lock, LOOK_EVERY[0]
        while True:
            token = await self.in_thread(self._computer.ask_for_lease, plan, key)
            if token != HELD:
                asked: int | None = token
                return asked
            if not wait:
                return HELD
            if force or time.monotonic() + pause >= ends:
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_EVERY[1])
            found = await self.find(plan, canonical, key)
            if isinstance(found, Found) and not self._computer.late(found):
                return found

    async def find(self, plan: Plan, canonical: bytes, key: str) -> Found | str:
        found = self._computer.find(plan, canonical, key, at_hand=True)
        if found == "elsewhere":
            found = await self.in_thread(self._computer.find, plan, canonical, key)
        return found

    async def in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run it in a worker thread, where it may touch a disk; right here where it cannot."""
        if self._tiers.store is None:
            return work(*arguments)
        return await asyncio.to_thread(work, *arguments)
