"""Values that are looked up and, where there is none, computed: once, by whoever comes first."""

from __future__ import annotations

import contextvars
import time

from framecache import _background
from framecache._flight import Outcome, inside
from framecache._framecache import EncodeError, StoreBusy, StoreError, ValueTooLarge
from framecache._tiers import ANY_TAG, Found
from framecache._times import Lifetime, now_by
from framecache._values import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from framecache._flight import Flight, Flights
    from framecache._tiers import Status, Tiers
    from framecache._times import Seconds

#: Seconds between two attempts to compute what failed, while a stale value is served.
_COOL_DOWN: Final = 5.0
#: Stands for a lease that another process has.
HELD: Final = "held"
#: Seconds between two looks at what another process computes: the first, and the longest.
LOOK_EVERY: Final = (0.002, 0.05)


class Plan:
    """What becomes of computed values.

    Args:
        lifetime: How long they are served; its ttl may be replaced by `ttl_of`.
        ttl_of: Gives the ttl of a value.
        tags: What they can be invalidated by.
        tags_of: Gives the tags of a value.
        cache_if: Whether a value is stored at all.
        codec: One of `CODECS`.
        share: Whether L1 keeps the decoded objects, whatever their types.
        views: Whether they are decoded to views.
        lock: Seconds to wait for somebody else who computes; 0: nobody waits for anybody.
        function: The scope of the function that computes them; 0 for a user's keys.
        strict: Whether a value that no codec takes is always an error, instead of at the first call only.
    """

    __slots__ = (
        "cache_if",
        "codec",
        "errors",
        "first",
        "function",
        "hits",
        "lifetime",
        "lock",
        "misses",
        "share",
        "stale",
        "strict",
        "tags",
        "tags_of",
        "ttl_of",
        "views",
    )

    def __init__(
        self,
        lifetime: Lifetime,
        *,
        ttl_of: Callable[[Any], Seconds | None] | None = None,
        tags: Sequence[str] = (),
        tags_of: Callable[[Any], Sequence[str]] | None = None,
        cache_if: Callable[[Any], object] | None = None,
        codec: str = "auto",
        share: bool = False,
        views: bool = False,
        lock: float = 0.0,
        function: int = 0,
        strict: bool = False,
    ) -> None:
        self.lifetime = lifetime
        self.ttl_of = ttl_of
        self.tags = tags
        self.tags_of = tags_of
        self.cache_if = cache_if
        self.codec = codec
        self.share = share
        self.views = views
        self.lock = lock
        self.function = function
        self.strict = strict
        self.first = True
        self.hits = self.misses = self.stale = self.errors = 0


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
        self._cooling: dict[str, float] = {}

    # Looking up

    def find(self, plan: Plan, canonical: bytes, key: str, at_hand: bool = False) -> Found | str:
        """Look a value up, stale or not; count nothing."""
        return self.tiers.find(
            canonical,
            key,
            views=plan.views,
            stale=plan.lifetime.stale > 0 or plan.ttl_of is not None,
            share=plan.share,
            at_hand=at_hand,
            own=plan.function != 0,
        )

    def fresh(self, plan: Plan, canonical: bytes, key: str) -> Found | None:
        """A value that need not be computed, if there is one."""
        found = self.find(plan, canonical, key)
        return found if isinstance(found, Found) and not self.late(found) else None

    def late(self, found: Found) -> int:
        """For how many milliseconds an entry has been stale."""
        return 0 if found.deadline is None else max(0, now_by(self._clock) - found.deadline)

    def hit(self, plan: Plan, found: Found, key: str, started: float) -> Any:
        plan.hits += 1
        self.tiers.note(found, key, started)
        return found.value

    def serve_stale(self, plan: Plan, found: Found, key: str) -> Any:
        plan.stale += 1
        self.counts.add("stale")
        if self.tiers.shared.hooks:
            self.tiers.shared.emit("stale", found.tier, key, found.size)
        return found.value

    def is_cooling(self, key: str) -> bool:
        return bool(self._cooling) and self._cooling.get(key, 0.0) > self._clock.monotonic()

    def cool_down(self, key: str) -> None:
        now = self._clock.monotonic()
        if len(self._cooling) >= 1024:
            self._cooling = {one: ends for one, ends in self._cooling.items() if ends > now}
        self._cooling[key] = now + _COOL_DOWN

    def value(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Any]) -> Any:
        """Return the value of a key, computed by `call` if there is none.

        Raises:
            RecursiveCall: the caller is computing it.
            EncodeError: no codec takes it, at the first call.
        """
        started = self.tiers.shared.started()
        found = self.find(plan, canonical, key)
        if isinstance(found, Found):
            late = self.late(found)
            if not late:
                return self.hit(plan, found, key, started)
            if late <= plan.lifetime.stale_for:
                if not self.is_cooling(key) and self.flights.current(self.tiers.scope, key) is None:
                    _background.spawn(lambda: self._refresh(plan, canonical, key, call))
                return self.serve_stale(plan, found, key)
            if late > plan.lifetime.stale_if_error:
                found = "expired"
            elif self.is_cooling(key):
                return self.serve_stale(plan, found, key)
        if isinstance(found, str):
            self.tiers.note(found, key, started)
        return self.compute(plan, canonical, key, call, found if isinstance(found, Found) else None)

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
            force: Compute it even if it is there.
        """
        while plan.lock:
            flight, leads = self.flights.join(self.tiers.scope, key)
            if leads:
                return self.result(self._lead_and_leave(plan, canonical, key, call, flight, fallback, force))
            outcome = flight.wait(plan.lock)
            if outcome is None or outcome.kind == "alone":
                break
            if outcome.kind == "raised":
                plan.errors += 1
                assert outcome.error is not None
                raise outcome.error
            if outcome.kind == "found":
                return self.joined(plan, outcome)
        return self.result(self._lead(plan, canonical, key, call, None, fallback, force=True))

    def joined(self, plan: Plan, outcome: Outcome) -> Any:
        assert outcome.found is not None
        plan.hits += 1
        self.counts.add("joined")
        return outcome.found.value if plan.share else outcome.found.again(plan.views)

    def result(self, outcome: Outcome) -> Any:
        assert outcome.found is not None
        return outcome.found.value

    def _lead_and_leave(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Any],
        flight: Flight,
        fallback: Found | None,
        force: bool,
        wait: bool = True,
    ) -> Outcome:
        outcome = Outcome("lost")
        try:
            outcome = self._lead(plan, canonical, key, call, flight, fallback, force, wait)
        except Exception as error:
            outcome = Outcome("raised", error=error)
            raise
        finally:
            self.flights.leave(self.tiers.scope, key, flight, outcome)
        return outcome

    def _lead(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        call: Callable[[], Any],
        flight: Flight | None,
        fallback: Found | None,
        force: bool,
        wait: bool = True,
    ) -> Outcome:
        lease = self._lease(plan, canonical, key, force, wait)
        if lease == HELD:
            return Outcome("lost")
        if not force:
            found = lease if isinstance(lease, Found) else self.find(plan, canonical, key)
            if isinstance(found, Found) and not self.late(found):
                self.release(key, lease)
                return Outcome("found", found)
        token = lease if isinstance(lease, int) else None
        fence = self.fence(plan, key)
        try:
            context = contextvars.copy_context()
            value = context.run(call) if flight is None else context.run(inside, flight, call)
        except BaseException as error:
            self.release(key, token)
            if not isinstance(error, Exception):
                raise
            return self.failed(plan, key, error, fallback)
        return self.keep(plan, canonical, key, value, fence, token, flight)

    def failed(self, plan: Plan, key: str, error: Exception, fallback: Found | None) -> Outcome:
        """Note that computing failed; return what is served instead, or raise the error."""
        plan.errors += 1
        if fallback is None:
            raise error
        self.cool_down(key)
        self.counts.log("refresh", "computing %.100r failed, a stale value is served: %r", key, error)
        self.serve_stale(plan, fallback, key)
        return Outcome("found", fallback)

    def _refresh(self, plan: Plan, canonical: bytes, key: str, call: Callable[[], Any]) -> None:
        """Compute a stale value anew, in the background, unless somebody does."""
        flight, leads = self.flights.join(self.tiers.scope, key)
        if not leads:
            return
        try:
            self._lead_and_leave(plan, canonical, key, call, flight, None, force=False, wait=False)
        except Exception as error:
            self.cool_down(key)
            self.counts.log("refresh", "computing %.100r anew failed: %r", key, error)

    def _lease(self, plan: Plan, canonical: bytes, key: str, force: bool, wait: bool) -> int | Found | str | None:
        """The right to compute a value, of all processes of a store: a token; what another process computed meanwhile;
        ``held`` if that does and is not waited for; `None` if there is nobody to ask, or it takes too long.
        """
        store = self.tiers.store
        if store is None or not plan.lock or self.tiers.shared.read_only:
            return None
        ends, pause = time.monotonic() + plan.lock, LOOK_EVERY[0]
        while True:
            token = self.ask_for_lease(plan, key)
            if token != HELD:
                return token
            if not wait:
                return HELD
            if force or time.monotonic() + pause >= ends:
                return None
            time.sleep(pause)
            pause = min(2 * pause, LOOK_EVERY[1])
            found = self.find(plan, canonical, key)
            if isinstance(found, Found) and not self.late(found):
                return found

    def ask_for_lease(self, plan: Plan, key: str) -> int | str | None:
        store = self.tiers.store
        assert store is not None
        if not self.tiers.shared.breaker.allows():
            return None
        try:
            with _background.gate:
                token = store.lease(key, int(plan.lock * 1000), now_by(self._clock))
        except StoreBusy:
            return None
        except StoreError as error:
            self.tiers.failed(error, key)
            return None
        return HELD if token is None else token

    def release(self, key: str, lease: int | Found | str | None) -> None:
        if not isinstance(lease, int) or self.tiers.store is None:
            return
        try:
            with _background.gate:
                self.tiers.store.release(key, lease)
        except StoreError as error:
            self.counts.log("release", "a lease is not given back and runs out: %s", error)

    def fence(self, plan: Plan, key: str) -> bytes:
        return self.tiers.fence(key, plan.function, [ANY_TAG] if plan.tags_of is not None else plan.tags)

    def keep(
        self,
        plan: Plan,
        canonical: bytes,
        key: str,
        value: Any,
        fence: bytes,
        lease: int | None,
        flight: Flight | None,
    ) -> Outcome:
        """Store a computed value, and give it back as it is read."""
        plan.misses += 1
        first, plan.first = plan.first, False
        try:
            if plan.cache_if is not None and not plan.cache_if(value):
                self.release(key, lease)
            elif self.tiers.shared.read_only:
                self.counts.add("dropped")
            elif flight is not None and flight.fenced:
                self.counts.add("superseded")
                self.release(key, lease)
            else:
                with _background.gate:
                    self.put(plan, canonical, key, value, fence, lease)
                found = self.find(plan, canonical, key)
                if isinstance(found, Found) and (found.tier == "l1" or found.created):
                    return Outcome("found", found)
            return Outcome("found", self._round_trip(plan, value))
        except ValueTooLarge as error:
            self.counts.add("too_large")
            self.counts.log("too_large", "%.100r is not stored: %s", key, error)
            self.release(key, lease)
            return Outcome("found", self._round_trip(plan, value))
        except EncodeError as error:
            self.release(key, lease)
            if first or plan.strict:
                raise
            self.counts.add("unencodable")
            self.counts.log("unencodable", "%.100r is not stored: %s", key, error)
            return Outcome("alone", Found(value, None, 0, None, None, 0, "l1"))

    def put(self, plan: Plan, canonical: bytes, key: str, value: Any, fence: bytes | None, lease: int | None) -> Status:
        """Store a value; return what became of it. Raises as `Tiers.put`."""
        lifetime = plan.lifetime if plan.ttl_of is None else _with_ttl(plan.lifetime, plan.ttl_of(value))
        tags = plan.tags if plan.tags_of is None else [*plan.tags, *plan.tags_of(value)]
        created = now_by(self._clock)
        deadline, until = lifetime.ends(created, key)
        [status] = self.tiers.put(
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
        if status == "superseded":
            self.counts.add(status)
        return status

    def _round_trip(self, plan: Plan, value: Any) -> Found:
        """A value that is not stored, as it would be read."""
        encoded = encode(value, plan.codec)
        created = now_by(self._clock)
        return Found(decode(*encoded, views=plan.views), encoded, created, None, None, encoded[0].nbytes, "l1")


def _with_ttl(lifetime: Lifetime, ttl: Seconds | None) -> Lifetime:
    """The same with the ttl that a value has."""
    own = Lifetime(ttl, jitter=lifetime.jitter)
    if own.ttl is not None:
        own.stale_for, own.stale_if_error = lifetime.stale_for, lifetime.stale_if_error
    return own
