"""What tests of callers that wait for one another need."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from framecache import Cache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

#: Seconds after which a test that waits for something has failed.
PATIENCE = 60.0

#: Runs a test in memory alone, and over a store; the test's module has a fixture `cache` of `cache_of`.
anywhere = pytest.mark.parametrize("cache", ["memory", "store", "store alone"], indirect=True)


@contextmanager
def cache_of(request: pytest.FixtureRequest, directory: Path, **options: Any) -> Iterator[Cache]:
    """A cache of the kind that `anywhere` names; in memory alone without it."""
    kind = getattr(request, "param", "memory")
    if kind == "store alone":
        options["l1"] = None
    with Cache(None if kind == "memory" else f"file://{directory}/cache", **options) as opened:
        yield opened
        until(lambda: len(opened._flights) == 0)


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


class Work:
    """A function's body that begins, waits to be told, and ends."""

    def __init__(self, value=None):
        self.value = value
        self.calls = 0
        self.begun = threading.Event()
        self.go = threading.Event()

    def __call__(self, *_):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(PATIENCE)
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value

    def wait_for_begin(self):
        assert self.begun.wait(PATIENCE)


def _loops() -> Iterator[Any]:
    yield pytest.param(asyncio.new_event_loop, id="asyncio")
    try:
        import uvloop
    except ImportError:
        return
    yield pytest.param(uvloop.new_event_loop, id="uvloop")


every_loop = pytest.mark.parametrize("new_loop", list(_loops()))


def run_in(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine as asyncio.run does, in a loop of this kind."""
    loop = new_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(asyncio.wait_for(main, PATIENCE))
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()


async def until_waiting(cache: Cache, number: int) -> None:
    """Wait until so many wait for computations."""
    while waiters(cache) != number:
        await asyncio.sleep(0)


class AsyncWork:
    """A coroutine function's body that begins, waits to be told, and ends."""

    def __init__(self, value=None):
        self.value = value
        self.calls = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, *_):
        self.calls += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def cached(cache: Cache, work: Callable[..., Any], **options: Any) -> Any:
    """A cached coroutine function with this body."""

    @cache(name="f", **options)
    async def f(*arguments):
        return await work(*arguments)

    return f
