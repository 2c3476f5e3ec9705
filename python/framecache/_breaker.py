"""What failed is left alone for a while: a tier by its breaker, a key by its pause."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    from framecache._framecache import Clock
    from framecache._times import SystemClock

    State = Literal["closed", "open", "half-open"]

#: Failures in a row that open a circuit.
_FAILURES: Final = 5
#: Seconds for which it stays open at first, and at most.
_OPEN_FOR: Final = (1.0, 60.0)
#: Keys that pause, above which those whose pause is over are dropped.
_SWEEP_AT: Final = 1024


class Circuit:
    """Open after five failures in a row, for a second, and twice as long each time the one trial that follows fails.

    Args:
        clock: Tells the seconds.

    Attributes:
        failures: How often the tier failed since it answered last, up to those that open the circuit.
    """

    __slots__ = ("_clock", "_is_on_trial", "_open_for", "_tries_at", "failures")

    def __init__(self, clock: Clock | type[SystemClock]) -> None:
        self._clock = clock
        self._tries_at = 0.0
        self.succeeded()

    @property
    def state(self) -> State:
        """Whether the tier is used, left alone, or about to be tried."""
        if self.failures < _FAILURES:
            return "closed"
        return "open" if self._clock.monotonic() < self._tries_at else "half-open"

    def allows(self) -> bool:
        """Whether the tier may be used now; where it is half-open, one caller is told so."""
        if self.failures < _FAILURES:
            return True
        now = self._clock.monotonic()
        if now < self._tries_at:
            return False
        self._is_on_trial = True
        self._tries_at = now + self._open_for
        return True

    def succeeded(self) -> None:
        """Note that the tier answered."""
        self.failures = 0
        self._is_on_trial = False
        self._open_for = _OPEN_FOR[0]

    def failed(self) -> None:
        """Note that the tier failed. What began before it opened tells nothing new."""
        if self.failures < _FAILURES:
            self.failures += 1
        elif self._is_on_trial:
            self._is_on_trial = False
            self._open_for = min(2 * self._open_for, _OPEN_FOR[1])
        else:
            return
        self._tries_at = self._clock.monotonic() + self._open_for


class Breaker:
    """Two circuits: a full disk, to which nothing can be written, can still be read.

    Args:
        clock: Tells the seconds.
    """

    __slots__ = ("_reads", "_writes", "is_sound")

    def __init__(self, clock: Clock | type[SystemClock]) -> None:
        #: Whether no read failed since one succeeded: the next one need not be noted if it succeeds, too.
        self.is_sound = True
        self._reads = Circuit(clock)
        self._writes = Circuit(clock)

    @property
    def state(self) -> State:
        """The state of that circuit which is worse off."""
        states = (self._reads.state, self._writes.state)
        return "open" if "open" in states else "half-open" if "half-open" in states else "closed"

    def allows(self, write: bool = False) -> bool:
        """As `Circuit.allows`, for a read or a write."""
        return (self._writes if write else self._reads).allows()

    def succeeded(self, write: bool = False) -> None:
        """As `Circuit.succeeded`, for a read or a write."""
        if write:
            self._writes.succeeded()
        else:
            self._reads.succeeded()
            self.is_sound = True

    def failed(self, write: bool = False) -> None:
        """As `Circuit.failed`, for a read or a write."""
        if write:
            self._writes.failed()
        else:
            self.is_sound = False
            self._reads.failed()


class Pauses:
    """Keys that are left alone for a while.

    Args:
        clock: Tells the seconds.
    """

    __slots__ = ("_clock", "_ends", "_sweep_at")

    def __init__(self, clock: Clock | type[SystemClock]) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        """How many are known of; the pause of some may be over."""
        return len(self._ends)

    def __contains__(self, key: str) -> bool:
        """Whether a key pauses now."""
        ends = self._ends.get(key)
        if ends is None:
            return False
        if ends > self._clock.monotonic():
            return True
        self._ends.pop(key, None)
        return False

    def begin(self, key: str, seconds: float) -> None:
        """Leave a key alone for so long."""
        now = self._clock.monotonic()
        if len(self._ends) >= self._sweep_at:
            self._ends = {one: ends for one, ends in list(self._ends.items()) if ends > now}
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._ends))
        self._ends[key] = now + seconds

    def end(self, key: str) -> None:
        """Leave a key alone no more."""
        self._ends.pop(key, None)
