"""What tests of callers that wait for one another need."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from framecache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds after which a test that waits for something has failed.
PATIENCE = 60.0

#: Runs a test in memory alone, and over a store.
anywhere = pytest.mark.parametrize("cache", ["memory", "store", "store alone"], indirect=True)


@pytest.fixture
def cache(request, tmp_path):
    """A cache of the kind that `anywhere` names; in memory alone without it."""
    kind = getattr(request, "param", "memory")
    url = None if kind == "memory" else f"file://{tmp_path}/cache"
    with Cache(url, **({"l1": None} if kind == "store alone" else {})) as opened:
        yield opened
        assert len(opened._flights) == 0, "a computation that has ended is still known of"


def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {condition}"
        time.sleep(0.001)


def waiters(cache: Cache) -> int:
    """How many wait for computations of this cache; who leads one in a loop is one of them."""
    return sum(flight.waiters for flight in cache._flights.of(cache._tiers.scope, ""))


class Thread(threading.Thread):
    """A thread that began, with what it returned or raised."""

    def __init__(self, work: Callable[..., Any], *arguments: Any) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._arguments = arguments
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._work(*self._arguments)
        except BaseException as error:
            self._error = error

    @property
    def value(self) -> Any:
        """What it returned; raises what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread did not end"
        if self._error is not None:
            raise self._error
        return self._value

    @property
    def error(self) -> BaseException | None:
        """What it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "a thread did not end"
        return self._error
