"""Values that are looked up and, where there is none, computed: once, by whoever comes first."""

from __future__ import annotations

import contextvars
import functools
import time

from framecache import _background, _renewal
from framecache._asking import at_leisure, run, settled
from framecache._breaker import Pauses
from framecache._flight import Flight, Outcome, enter, enter_background
from framecache._framecache import DecodeError, EncodeError, ValueTooLarge
from framecache._lease import HELD, Leases
from framecache._reading import Found, is_light
from framecache._tiers import ANY_TAG
from framecache._times import Lifetime, now_by
from framecache._values import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from framecache._flight import Flights
    from framecache._plan import Plan
    from framecache._reading import Ahead
    from framecache._tiers import Status, Tiers
    from framecache._times import Seconds

#: Seconds between two attempts to compute what failed, while a stale value is served.
_COOL_DOWN: Final = 5.0
#: Seconds in which a stale value is served without another look at whether the process that computes it is done.
_REST: Final = 0.25


class Computer:
    """Looks values up in the tiers of one namespace, and computes those that are not there, in the caller's thread.

    Args:
        tiers: Where values are.
        flights: What is being computed, by all namespaces of a cache.
    """

    def __init__(self, tiers: Tiers, flights: Flights) -> None:
        self.tiers = tiers
        self.flights = flights
        self._clock = tiers.shared.clock
        self.counts = tiers.shared.counts
        self.leases = Leases(tiers)
        self._holds: Callable[[bytes], bool] = (tiers.l1 or tiers.guards_alone()).holds
        #: Keys whose computation failed.
        self.cooling = Pauses(self._clock)
        #: Keys that another process was refreshing.
        self.resting = Pauses(self._clock)

    def close(self) -> None:
        """Compute for those who wait, and store nothing, from now on. What it had of the store goes."""
        self.tiers.close()
        self._holds = _never

    # Looking up

    def find(
        self, plan: Plan, canonical: bytes, key: str, at_hand: bool = False, ahead: Ahead | None = None
    ) -> Found | str:
        """Look a value up, stale or not; count nothing."""
        with _background.gate:
            return self.tiers.find(
                canonical,
                key,
                views=plan.views,
                stale=plan.may_be_stale,
                share=plan.share,
                at_hand=at_hand,
                own=plan.function != 0,
                ahead=ahead,
            )

    async def look(self, plan: Plan, canonical: bytes, key: str) -> Found | str:
        """As `find`, in an operation."""
        found = self.find(plan, canonical, key, at_hand=self.tiers.backend is not None)
        if found != "elsewhere":
            return found
        ahead = await self.tiers.look(key, plan.views, stale=plan.may_be_stale)
        find = functools.partial(self.find, plan, canonical, key, ahead=ahead)
        return find() if is_light(ahead) else await at_leisure(find)

    def fresh(self, plan: Plan, canonical: bytes, key: str) -> Found | None:
        """A value that need not be computed, if there is one."""
        found = self.find(plan, canonical, key)
        return found if isinstance(found, Found) and not self.late(found) else None

    def late(self, found: Found) -> int:
        """For how many milliseconds an entry has been stale."""
        return 0 if found.deadline is None else max(0, now_by(self._clock) - found.deadline)

    def value(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Any]) -> Any:
        """Return the value of a key, computed by `call` if there is none.

        Raises:
            RecursiveCall: the caller is computing it.
            EncodeError: no codec takes it, at the first call.
        """
        started = self.tiers.shared.started()
        found = self.find(plan, canonical, key)
        served = self.serve(plan, key, found, started)
        if served is not None:
            if self.is_to_refresh(plan, key, served):
                _background.spawn(lambda: self._refresh(plan, canonical, key, call))
            return served.value
        return self.compute(plan, canonical, key, call, found if isinstance(found, Found) else None)

    def serve(self, plan: Plan, key: str, found: Found | str, started: float) -> Found | None:
        """What was found, if it is to be served at once: fresh, or stale while it is or may not be computed anew. Count
        it, or the reason why there is none.
        """
        if isinstance(found, str):
            self.tiers.note(found, key, started)
            return None
        late = self.late(found)
        if not late:
            plan.hits += 1
            self.tiers.note(found, key, started)
        elif late <= plan.lifetime.stale_for or (late <= plan.lifetime.stale_if_error and key in self.cooling):
            self._count_stale(plan, key, found)
        else:
            self.tiers.note("expired", key, started)
            return None
        return found

    def is_to_refresh(self, plan: Plan, key: str, served: Found) -> bool:
        """Whether a value that is served is to be computed anew meanwhile."""
        return (
            0 < self.late(served) <= plan.lifetime.stale_for
            and key not in self.cooling
            and key not in self.resting
            and self.flights.current(self.tiers.scope, key) is None
        )

    def _count_stale(self, plan: Plan, key: str, found: Found) -> None:
        plan.stale += 1
        self.counts.add("stale")
        self.tiers.shared.emit("stale", found.tier, key, found.size)

    # Computing

    def compute(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Any],
        fallback: Found | None = None,
        force: bool = False,
    ) -> Any:
        """Return the value of a key that was not found: what another thread is computing, or what `call` gives.

        Args:
            plan: What becomes of it.
            canonical: The canonical key.
            key: The key.
            call: Computes it.
            fallback: A stale value that is returned if that fails.
            force: Compute it even if it is there, and do not take what was begun before.
        """
        alone, since = not plan.lock, -1
        while force or self.is_to_compute(plan, key, fallback):
            mine = Flight(self.flights, self.tiers.scope, key, alone=alone)
            since = mine.number if since < 0 else since
            outcome: Outcome | None = Outcome("lost")
            try:
                flight = self.flights.begin(mine)
                if leads := flight is mine:
                    outcome = self.lead(plan, canonical, key, call, mine, fallback, force)
            finally:
                self.flights.end(mine, outcome or Outcome("lost"))
            if not leads:
                outcome = flight.wait(plan.lock)
            try:
                if outcome is None or (outcome.kind == "alone" and not leads):
                    alone = True
                elif outcome.is_answer(leads, not force or flight.number > since):
                    return self.answer(plan, key, flight, fallback, leads)
            finally:
                # The traceback of an error has this frame: without a cycle it goes with the last who has it.
                del flight, mine, outcome
        return self.fall_back(plan, key, fallback)

    def is_to_compute(self, plan: Plan, key: str, fallback: Found | None) -> bool:
        """Whether there is no stale value that may be served, or none that failed to be computed just now."""
        return key not in self.cooling or not self._may_fall_back(plan, fallback)

    def _may_fall_back(self, plan: Plan, fallback: Found | None) -> bool:
        return fallback is not None and self.late(fallback) <= plan.lifetime.stale_if_error

    def fall_back(self, plan: Plan, key: str, fallback: Found | None) -> Any:
        """Serve a stale value, as computing it anew failed."""
        assert fallback is not None
        self._count_stale(plan, key, fallback)
        return fallback.value

    def answer(self, plan: Plan, key: str, flight: Flight, fallback: Found | None, leads: bool) -> Any:
        """What a caller gets out of a computation: its value, a stale one, or its error."""
        outcome = flight.outcome
        assert outcome is not None
        if outcome.found is not None:
            if leads:
                return outcome.found.value
            plan.hits += 1
            self.counts.add("joined")
            return outcome.found.value if plan.share else outcome.found.again(plan.views)
        error, traceback = outcome.error, outcome.traceback
        assert error is not None
        plan.errors += isinstance(error, Exception)
        if outcome.kind == "raised" and self._may_fall_back(plan, fallback) and not flight.is_outdated():
            return self.fall_back(plan, key, fallback)
        try:
            raise error.with_traceback(traceback)
        finally:
            del error, flight, outcome, traceback

    def lead(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Any],
        flight: Flight,
        fallback: Found | None,
        force: bool,
    ) -> Outcome:
        """Compute a value and store it, unless it is there by now. Raises nothing but what is no `Exception`."""
        try:
            found = self.lease(plan, canonical, key, flight, force)
            if found is None and not force and not flight.alone:
                found = self.fresh(plan, canonical, key)
            if (known := self.known(plan, key, fallback, force, found)) is not None:
                return known
            fence = run(self.begin(plan, key, flight))
            context = contextvars.copy_context()
            context.run(enter, flight)
            value = context.run(call)
            return context.run(run, self.keep(plan, canonical, key, value, fence, flight))
        except Exception as error:
            return self.failed(plan, key, error)
        finally:
            run(self.release(flight))
            del flight  # as in `compute`

    def known(
        self, plan: Plan, key: str, fallback: Found | None, force: bool, found: Found | str | None
    ) -> Outcome | None:
        """The outcome, if the value need not be computed after all."""
        if isinstance(found, Found):
            return Outcome("found", found)
        if found == HELD:
            self.resting.begin(key, _REST)
            return Outcome("lost")
        # It may have failed while this caller was on its way here, which then serves what it has.
        return Outcome("lost") if not force and not self.is_to_compute(plan, key, fallback) else None

    async def begin(self, plan: Plan, key: str, flight: Flight) -> bytes:
        """Note that the function is called now; return guards of all that could outdate its result."""
        fence = await self.tiers.fence(key, plan.function, [ANY_TAG] if plan.tags_of is not None else plan.tags)
        if fence:
            flight.holds = functools.partial(self._holds, fence)
        flight.began = time.monotonic()
        return fence

    def failed(self, plan: Plan, key: str, error: Exception) -> Outcome:
        """Note that computing failed; a stale value is served without trying again for a while."""
        if plan.lifetime.stale:
            self.cooling.begin(key, _COOL_DOWN)
            self.counts.log("refresh", "computing %.100r anew failed: %r", key, error)
        return Outcome("raised", error=error)

    def _refresh(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Any]) -> None:
        """Compute a stale value anew, in the background, unless somebody does."""
        enter_background()
        mine = Flight(self.flights, self.tiers.scope, key, background=True)
        outcome = Outcome("lost")
        try:
            if self.flights.begin(mine) is mine and key not in self.cooling:
                outcome = self.lead(plan, canonical, key, call, mine, None, force=False)
        except BaseException:
            self.cooling.begin(key, _COOL_DOWN)
            raise
        finally:
            self.flights.end(mine, outcome)

    # Leases

    def lease(self, plan: Plan, canonical: bytes, key: str, flight: Flight, force: bool) -> Found | str | None:
        """Get the right to compute a value, of all processes of a store.

        Returns:
            `None` if it is to be computed: there is a lease, or nobody to ask, or it takes too long. What another
            process computed meanwhile. ``held`` if that does, and is not waited for.
        """
        if not plan.lock or not self.leases.are_given():
            return None
        ends = time.monotonic() + plan.lock
        if not run(self.ask_for_lease(plan, key, flight)):
            return None
        with self.leases.sleeper(key) as sleeper:
            while not (force or flight.alone or flight.background or time.monotonic() + sleeper.pause >= ends):
                sleeper.sleep()
                if (found := self.fresh(plan, canonical, key)) is not None:
                    return found
                if not run(self.ask_for_lease(plan, key, flight)):
                    return None
        return HELD if flight.background else None

    async def ask_for_lease(self, plan: Plan, key: str, flight: Flight) -> bool:
        """Ask for a lease, which the flight keeps then; return whether somebody else has it.

        What this process computes in vain gives its own to who takes its place.
        """
        if not flight.alone:
            for one in self.flights.before(flight):
                await self.release(one)
        lease = await self.leases.ask(key, plan.lock)
        flight.lease = None if isinstance(lease, str) else lease
        if flight.is_dead():
            await self.release(flight)  # its loop was closed meanwhile
        elif flight.lease is not None:
            _renewal.keep(flight.lease, flight.loop)
        return lease == HELD

    async def release(self, flight: Flight) -> None:
        """Give the lease of a flight back, if it has one still."""
        lease, flight.lease = flight.lease, None
        if lease is not None:
            await lease.release()

    # Storing

    async def keep(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        value: Any,
        fence: bytes,
        flight: Flight,
    ) -> Outcome:
        """Store a computed value, and give it back as it is read."""
        plan.misses += 1
        try:
            if plan.cache_if is not None and not plan.cache_if(value):
                return self._unkept(plan, value)
            first, plan.first = plan.first, False
            status = None
            try:
                status = await self._put_if_current(plan, canonical, key, value, fence, flight)
            except ValueTooLarge as error:
                self._note_unkept("too_large", key, error)
            except TypeError as error:
                # JSON has errors of its own.
                if first or plan.strict or not (isinstance(error, EncodeError) or plan.codec == "json"):
                    raise
                self._note_unkept("unencodable", key, error)
                return Outcome("alone", _only(value))
            if status == "written":
                self._use(flight)
                self.cooling.end(key)
                if isinstance(found := await self.look(plan, canonical, key), Found):
                    return Outcome("found", found)
            return self._unkept(plan, value)
        finally:
            await self.release(flight)

    async def _put_if_current(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        value: Any,
        fence: bytes,
        flight: Flight,
    ) -> Status:
        if self.tiers.shared.read_only:
            self.counts.add("dropped")
            return "dropped"
        if flight.fenced:
            self.counts.add("superseded")
            return "superseded"
        with _background.gate:
            lease = flight.lease
            token = None if lease is None or lease.is_over else lease.token
            return await self.put(plan, canonical, key, value, fence, token)

    def _use(self, flight: Flight) -> None:
        """Note that the lease of a flight went with what was stored."""
        lease, flight.lease = flight.lease, None
        if lease is not None:
            lease.is_over = True

    async def put(
        self, plan: Plan, canonical: bytes, key: str, value: Any, fence: bytes | None, lease: int | None
    ) -> Status:
        """Store a value; return what became of it. Raises as `Tiers.put`."""
        lifetime = plan.lifetime if plan.ttl_of is None else _with_ttl(plan.lifetime, plan.ttl_of(value))
        tags = plan.tags if plan.tags_of is None else [*plan.tags, *plan.tags_of(value)]
        created = now_by(self._clock)
        deadline, until = lifetime.ends(created, key)
        status: Status
        [status] = await settled(
            self.tiers.put(
                [(canonical, key, value)],
                created,
                deadline,
                until,
                codec=plan.codec,
                tags=tags,
                function=plan.function,
                fence=fence,
                lease=lease,
                share=plan.share,
                views=plan.views,
            )
        )
        if status == "superseded":
            self.counts.add(status)
        return status

    def _note_unkept(self, why: str, key: str, error: Exception) -> None:
        self.counts.add(why)
        self.counts.log(why, "%.100r is not stored: %s", key, error)

    def _unkept(self, plan: Plan, value: Any) -> Outcome:
        """The outcome for a value that is not stored: as it would be read, where it has a form."""
        try:
            encoded = encode(value, plan.codec)
            decoded = decode(*encoded, views=plan.views)
        except (TypeError, DecodeError):
            return Outcome("alone", _only(value))
        created = now_by(self._clock)
        return Outcome("found", Found(decoded, encoded, created, None, None, encoded[0].nbytes, "l1"))


def _only(value: Any) -> Found:
    """A value for the one who computed it."""
    return Found(value, None, 0, None, None, 0, "l1")


def _with_ttl(lifetime: Lifetime, ttl: Seconds | None) -> Lifetime:
    """The same with the ttl that a value has."""
    own = Lifetime(ttl, jitter=lifetime.jitter)
    if own.ttl is not None:
        own.stale_for, own.stale_if_error = lifetime.stale_for, lifetime.stale_if_error
    return own


def _never(_guards: bytes) -> bool:
    return False
