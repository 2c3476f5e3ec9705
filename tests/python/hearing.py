"""What tests of caches need whose L1 is told of what others change."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from waiting import Thread, until

if TYPE_CHECKING:
    from framecache import Cache


def listens(cache: Cache) -> bool:
    """Whether it is told."""
    return bool(cache.health()["engine"]["listener"] == "on")


def is_in_l1(cache: Cache, key: str) -> bool:
    """Whether L1 has an entry, after one more read."""
    return cache.get(key) is not None and cache.get_entry(key).tier == "l1"  # type: ignore[union-attr]


def in_l1(cache: Cache, key: str) -> None:
    """Have L1 keep an entry; its own writes are told too, and may come after the first read."""
    until(lambda: is_in_l1(cache, key))


class Reads:
    """The numbers that a thread reads, each with when the last read that gave it began.

    Args:
        cache: Where it reads.
        key: What it reads.
    """

    def __init__(self, cache: Cache, key: str) -> None:
        self._history: list[tuple[Any, float]] = []
        self._done = threading.Event()
        self._thread = Thread(self._read, cache, key)

    def _read(self, cache: Cache, key: str) -> None:
        while not self._done.is_set():
            began = time.monotonic()
            number = cache.get(key, -1)
            if self._history and self._history[-1][0] == number:
                self._history.pop()
            self._history.append((number, began))

    def end(self) -> list[tuple[Any, float]]:
        """Read no more; return what was read."""
        self._done.set()
        assert self._thread.value is None
        return self._history
