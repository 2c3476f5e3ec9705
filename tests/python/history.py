"""Histories of a cache that many processes use, and what in them is too old.

Each key has one writer, whose versions go up. All times are those of `time.monotonic`, which all processes of a machine
share. A read is too old if a newer version's write had been *acknowledged* longer before it began than the bound. Three
things are nobody's fault but the server's, and allowed:

- A write that was not acknowledged may come to nothing, or take effect at any later time, even after newer ones. It
  makes no other read too old, and reading it is never too old.
- A server that fails over may lose what it acknowledged before: Redis replicates after it answers. Writes that were
  acknowledged within such a fault make no read too old. Those before and after it do.
- While a fault lasts, and for as long after it as its own bound, that one holds: for a connection whose silence goes
  unnoticed for a while, or an L1 that is told nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Write(NamedTuple):
    """A version that was written, or was to be.

    Attributes:
        key: Of what.
        version: Which.
        ended: When it was acknowledged; infinity: never.
    """

    key: str
    version: int
    ended: float = math.inf


class Read(NamedTuple):
    """A version that was read.

    Attributes:
        key: Of what.
        version: Which.
        began: When the read began.
    """

    key: str
    version: int
    began: float


class Fault(NamedTuple):
    """A time in which something was wrong.

    Attributes:
        began: Its start.
        ended: Its end.
        bound: By how many seconds what is read may be too old meanwhile.
        loses: Whether what was acknowledged meanwhile may have been lost.
    """

    began: float
    ended: float
    bound: float
    loses: bool = False


def too_old(writes: Iterable[Write], reads: Iterable[Read], bound: float, faults: Sequence[Fault] = ()) -> list[str]:
    """What was read although it was too old, or although nobody ever wrote it: a sentence for each.

    Args:
        writes: All that was written.
        reads: What was read.
        bound: Seconds for which an older version may be read where there is no fault.
        faults: When there were which.
    """
    of_key: dict[str, list[Write]] = {}
    for write in writes:
        of_key.setdefault(write.key, []).append(write)
    histories = {key: _History(some, [one for one in faults if one.loses]) for key, some in of_key.items()}
    found = []
    for read in reads:
        history = histories.get(read.key)
        if history is None or read.version not in history.all:
            found.append(f"{read.key}: version {read.version} was read, which nobody wrote")
            continue
        allowed = max([bound, *(one.bound for one in faults if one.began <= read.began <= one.ended + one.bound)])
        newest = history.newest_before(read.began - allowed)
        if read.version in history.acknowledged and newest > read.version:
            late = read.began - history.acknowledged[newest]
            found.append(
                f"{read.key}: version {read.version} was read at {read.began:.3f}, {late:.3f} s after version {newest} "
                f"was written, where at most {allowed:.3f} s are allowed"
            )
    return found


class _History:
    """The writes of one key."""

    def __init__(self, writes: list[Write], losses: list[Fault]) -> None:
        self.all = {write.version for write in writes}
        self.acknowledged = {write.version: write.ended for write in writes if write.ended < math.inf}
        kept = sorted(
            (ended, version)
            for version, ended in self.acknowledged.items()
            if not any(fault.began <= ended <= fault.ended for fault in losses)
        )
        self._ends = [ended for ended, _ in kept]
        self._newest = list(accumulate((version for _, version in kept), max))

    def newest_before(self, time: float) -> int:
        """The newest version whose write was acknowledged before; -1: none."""
        at = bisect_left(self._ends, time)
        return self._newest[at - 1] if at else -1
