"""What a cache tells those who measure it."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NamedTuple

    class Event(NamedTuple):
        """Something that a cache did; see below."""

        kind: Literal["hit", "miss", "set", "evict", "stale", "error", "tamper"]
        tier: str
        key: str
        nbytes: int
        duration: float

    class CacheInfo(NamedTuple):
        """How a function's calls were answered; see below."""

        hits: int
        misses: int
        stale: int
        errors: int

else:
    Event = namedtuple("Event", "kind tier key nbytes duration")
    Event.__doc__ = """Something that a cache did.

    Args:
        kind: ``hit``, ``miss``, ``set``, ``evict``, ``stale`` (a stale value was served), ``error`` (a tier failed),
            ``tamper`` (an entry was refused).
        tier: ``l1`` or ``store``; empty where no tier is meant.
        key: The key; empty for evictions, of which there may be several.
        nbytes: Bytes of payload, or those that were evicted; 0 where they are not known.
        duration: Seconds that it took; 0 where it was not measured.
    """
    CacheInfo = namedtuple("CacheInfo", "hits misses stale errors")
    CacheInfo.__doc__ = """How a function's calls were answered in this process.

    Args:
        hits: from a tier.
        misses: by computing.
        stale: with a value that was past its time to live.
        errors: how often it raised.
    """
