"""The part of `_backend_suite` that asks in event loops."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import cast

import framecache
from framecache import _backend_helpers as helpers
from framecache._backend import AsyncBackend, Backend
from framecache._backend_helpers import THREADS, TURNS, a_write, expect, new_names, plain, plains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from framecache._backend_helpers import Check, Connect

    R = TypeVar("R")


def who_is_cancelled_harms_nobody(connect: Connect) -> None:
    """Whoever asks in an event loop and is cancelled, wherever his command is by then, ends. The next one has the
    answer to his own question, and what was to be written is written whole or not at all.
    """
    backend = connect()
    here, absent, *names = new_names(TURNS + 2)
    backend.set(a_write(here, here.encode()))

    def begin(asynchronous: AsyncBackend, turn: int) -> Coroutine[Any, Any, object]:
        name = names[turn]
        if turn % 5 == 0:
            return asynchronous.get(name)
        if turn % 5 == 1:
            return asynchronous.get_many([absent, absent])
        if turn % 5 == 2:
            return asynchronous.set_many([a_write(name, name.encode()), a_write(name, name.encode(), b"!" * 100_000)])
        if turn % 5 == 3:
            return asynchronous.delete_many([name])
        return asynchronous.set(a_write(name, name.encode()))

    async def ask() -> None:
        asynchronous = backend.for_loop()
        if asynchronous is None:
            return
        try:
            for turn in range(TURNS):
                task = asyncio.ensure_future(begin(asynchronous, turn))
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=helpers.PATIENCE)
                expect(len(done), 1, "how many of those who were cancelled ended")
                if not task.cancelled():
                    task.result()
                found = plains(await asynchronous.get_many([here, absent]))
                expect(found, [here.encode(), None], "get_many after a command whose caller was cancelled")
                expect(await asynchronous.delete(absent), False, "delete after a command whose caller was cancelled")
        finally:
            await asynchronous.close()

    asyncio.run(ask())
    for name in names:
        whole = (None, name.encode(), name.encode() + b"!" * 100_000)
        expect(plain(backend.get(name)) in whole, True, "what a write whose caller was cancelled left is whole")


class _Loop:
    """An event loop in a thread of its own, for checks that ask as threads do."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[AsyncBackend] = []

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """What a coroutine returns."""
        asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return asked.result(helpers.PATIENCE)
        except FutureTimeoutError:
            if asked.done():
                raise
            asked.cancel()
            raise AssertionError(f"expected an answer within {helpers.PATIENCE:.0f} seconds, found none") from None

    def over(self, backend: Backend) -> _InLoop | None:
        """A backend whose commands this loop does, if it has means of its own to."""

        async def ask() -> AsyncBackend | None:
            return backend.for_loop()

        asynchronous = self.run(ask())
        if asynchronous is None:
            return None
        expect(isinstance(asynchronous, AsyncBackend), True, "isinstance(backend.for_loop(), AsyncBackend)")
        self._opened.append(asynchronous)
        return _InLoop(backend, asynchronous, self)

    def close(self) -> None:
        """End it."""
        for asynchronous in self._opened:
            self.run(asynchronous.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _InLoop:
    """A backend whose commands are those of its `AsyncBackend`."""

    def __init__(self, backend: Backend, asynchronous: AsyncBackend, loop: _Loop) -> None:
        self._backend = backend
        self._asynchronous = asynchronous
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if not hasattr(AsyncBackend, name):
            return getattr(self._backend, name)
        return lambda *arguments: self._loop.run(getattr(self._asynchronous, name)(*arguments))


def also_in_a_loop(check: Check) -> Check:
    """The check, with the commands for threads and then, where there are some, with those for event loops."""

    @functools.wraps(check)
    def checked(connect: Connect) -> None:
        check(connect)
        loop = _Loop()
        try:
            if loop.over(connect()) is not None:
                check(lambda: cast("Backend", loop.over(connect())))
        except AssertionError as error:
            raise AssertionError(f"in an event loop: {error}") from error
        finally:
            loop.close()

    return checked


def a_cache_works_on_it_in_a_loop(connect: Connect) -> None:
    """A `Cache` on it does for coroutines what it does for threads."""
    with framecache.Cache(connect(), namespace=os.urandom(8).hex(), l1=None, on_error="raise") as cache:

        async def work() -> None:
            computed: list[int] = []

            async def compute() -> int:
                computed.append(1)
                await asyncio.sleep(0)
                return len(computed)

            expect(await cache.aset_many({"a": [1, "two"], "b": bytes(100_000)}), 2, "Cache.aset_many")
            expect(await cache.aget("a"), [1, "two"], "Cache.aget")
            expect(await cache.aget_many(["b", "c"]), {"b": bytes(100_000)}, "Cache.aget_many")
            expect(await cache.adelete("b"), True, "Cache.adelete")
            expect(await cache.aget("b"), None, "Cache.aget of what was deleted")
            asked = await asyncio.gather(*(cache.aget_or_set("sum", compute) for _ in range(THREADS)))
            expect((asked, len(computed)), ([1] * THREADS, 1), "how often coroutines computed one value")

        asyncio.run(work())
