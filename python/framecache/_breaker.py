"""A breaker: a tier that fails again and again is left alone for a while."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    from framecache._framecache import Clock
    from framecache._times import SystemClock

#: Failures in a row that open it.
_FAILURES: Final = 5
#: Seconds for which it stays open at first, and at most.
_OPEN_FOR: Final = (1.0, 60.0)


class Breaker:
    """Open after five failures in a row, for a second, and twice as long each time the one trial that follows fails.

    Args:
        clock: Tells the seconds.
    """

    __slots__ = ("_clock", "_failures", "_open_for", "_tries_at")

    def __init__(self, clock: Clock | type[SystemClock]) -> None:
        self._clock = clock
        self._failures = 0
        self._open_for = _OPEN_FOR[0]
        self._tries_at = 0.0

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        """Whether the tier is used, left alone, or about to be tried."""
        if self._failures < _FAILURES:
            return "closed"
        return "open" if self._clock.monotonic() < self._tries_at else "half-open"

    def allows(self) -> bool:
        """Whether the tier may be used now; where it is half-open, one caller is told so."""
        if self._failures < _FAILURES:
            return True
        now = self._clock.monotonic()
        if now < self._tries_at:
            return False
        self._tries_at = now + self._open_for
        return True

    def succeeded(self) -> None:
        """Note that the tier answered."""
        if self._failures:
            self._failures = 0
            self._open_for = _OPEN_FOR[0]

    def failed(self) -> None:
        """Note that the tier failed."""
        self._failures += 1
        if self._failures >= _FAILURES:
            self._tries_at = self._clock.monotonic() + self._open_for
            if self._failures > _FAILURES:
                self._open_for = min(2 * self._open_for, _OPEN_FOR[1])
