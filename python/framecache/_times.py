"""Times as people give them, and as tiers keep them: milliseconds since 1970-01-01 UTC."""

from __future__ import annotations

import time as system

from framecache._framecache import InvalidArgument, Missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Final

    from framecache._framecache import Clock

    Seconds = float | timedelta

#: The longest time, in seconds: 1000 years.
LONGEST: Final = 1000 * 366 * 86400.0
_NUMBERS: Final = frozenset((int, float))


class SystemClock:
    """The clocks of this machine, with the interface of `framecache.testing.Clock`."""

    time = staticmethod(system.time)
    monotonic = staticmethod(system.monotonic)


def now_by(clock: Clock | type[SystemClock]) -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return round(clock.time() * 1000)


def milliseconds(seconds: Seconds, argument: str = "ttl", zero: bool = False) -> int:
    """Return a positive time in milliseconds, at least 1; with `zero`, 0 too is a time.

    Raises:
        InvalidArgument: what is not above 0 and finite.
    """
    number: float | None = seconds if type(seconds) in _NUMBERS else _number_of(seconds)  # type: ignore[assignment]
    if number is None:
        raise InvalidArgument(f"{argument}: expected seconds or a timedelta, got {type(seconds).__name__}")
    if zero and number == 0:
        return 0
    if not 0 < number <= LONGEST:
        least = "0 or more" if zero else "more than 0"
        raise InvalidArgument(f"{argument}: expected {least} seconds and at most {LONGEST:.0f}, got {seconds!r}")
    return max(1, round(number * 1000))


def _number_of(seconds: object) -> float | None:
    """The seconds of a timedelta, or of a number of a class of its own; `None` for anything else."""
    number = seconds.total_seconds() if hasattr(seconds, "total_seconds") else seconds
    return number if isinstance(number, int | float) and not isinstance(number, bool) else None


class Lifetime:
    """How long an entry is served: fresh, and after that stale.

    Args:
        ttl: Seconds for which it is fresh; `None`: for ever.
        max_age: Seconds beyond which `touch` cannot keep it fresh; `None`: the `ttl`.
        stale_for: Seconds after `ttl` in which it is served while somebody computes it anew.
        stale_if_error: Seconds after `ttl` in which it is served if computing it anew fails.
        jitter: Up to which part of `ttl` is taken off, at random, so that entries made together end apart.
    """

    __slots__ = ("jitter", "max_age", "stale_for", "stale_if_error", "ttl")

    def __init__(
        self,
        ttl: Seconds | None = None,
        max_age: Seconds | None = None,
        stale_for: Seconds = 0,
        stale_if_error: Seconds = 0,
        jitter: float = 0.0,
    ) -> None:
        self.ttl = None if ttl is None else milliseconds(ttl)
        self.max_age = None if max_age is None else milliseconds(max_age, "max_age")
        self.stale_for = milliseconds(stale_for, "stale_for", zero=True)
        self.stale_if_error = milliseconds(stale_if_error, "stale_if_error", zero=True)
        if isinstance(jitter, bool) or not isinstance(jitter, (int, float)) or not 0 <= jitter < 1:
            raise InvalidArgument(f"jitter: expected a number from 0 to below 1, got {jitter!r:.100}")
        self.jitter = float(jitter)
        if self.ttl is None and (self.max_age is not None or self.stale):
            raise InvalidArgument("ttl: expected one with max_age, stale_for or stale_if_error, got none")
        if self.max_age is not None and self.ttl is not None and self.max_age < self.ttl:
            raise InvalidArgument(f"max_age: expected at least the ttl of {ttl!r}, got {max_age!r}")

    @property
    def stale(self) -> int:
        """For how long after its deadline an entry may be served at all."""
        return max(self.stale_for, self.stale_if_error)

    def ends(self, created: int, seed: object = None) -> tuple[int | None, int | None]:
        """Return deadline and last moment of an entry that is created now. `seed` decides about the jitter."""
        if self.ttl is None:
            return None, None
        ttl = self.ttl
        if self.jitter:
            ttl = max(1, round(ttl * (1 - self.jitter * ((hash((seed, created)) & 0xFFFF) / 0x10000))))
        return created + ttl, created + (self.max_age or ttl) + self.stale


def default_to(ttl: Seconds | Missing | None, otherwise: Seconds | None) -> Seconds | None:
    """Return `ttl`, or what goes for who gave none."""
    return otherwise if isinstance(ttl, Missing) else ttl


def limit_of(lock: bool | Seconds) -> float:
    """For how many seconds a caller waits for another one who computes: the argument `lock`."""
    if isinstance(lock, bool):
        return 60.0 if lock else 0.0
    return milliseconds(lock, "lock") / 1000
