"""Clients of its own that an engine has for each event loop that asks it. They end with their loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from typing import Any

    from framecache._redis_async import AsyncRedis


class LoopClients:
    """The clients of all loops.

    Args:
        client: Makes a `redis.asyncio` client.
        backend: Makes a backend over one.
    """

    def __init__(self, client: Callable[[], Any], backend: Callable[[Any], AsyncRedis]) -> None:
        self._client = client
        self._backend = backend
        self._by_loop: dict[asyncio.AbstractEventLoop, _LoopClient] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> AsyncRedis:
        """The backend of the running loop."""
        if (found := self._by_loop.get(loop)) is None:
            for other in [other for other in list(self._by_loop) if other.is_closed()]:
                self._by_loop.pop(other, None)
            client = self._client()
            found = self._by_loop[loop] = _LoopClient(self._by_loop, loop, client, self._backend(client))
        return found.backend

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        for one in list(self._by_loop.values()):
            one.backend.distrust()

    def close(self) -> None:
        """Have each loop that runs close its client; the others do when they end."""
        for loop, one in list(self._by_loop.items()):
            if loop.is_running():
                with suppress(RuntimeError):  # it was closed meanwhile
                    loop.call_soon_threadsafe(one.begin_to_close)


class _LoopClient:
    """The client of the running loop.

    Args:
        known: Those of all loops, which this one leaves when it is closed.
        loop: The loop.
        client: The client.
        backend: The backend over it.
    """

    def __init__(
        self,
        known: dict[asyncio.AbstractEventLoop, _LoopClient],
        loop: asyncio.AbstractEventLoop,
        client: Any,
        backend: AsyncRedis,
    ) -> None:
        self.backend = backend
        self._known = known
        self._loop = loop
        self._client = client
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False
        # Loops close the generators that began in them, when they end and before their connections are gone.
        self._lasts = self._until_the_loop_ends()
        with suppress(StopIteration):
            self._lasts.__anext__().send(None)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            if self._closing is not None:
                # A task that is cancelled before it begins closes nothing.
                await asyncio.wait([self._closing])
            await self._close()

    def begin_to_close(self) -> None:
        """Close it in a task of its own."""
        if self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._known.pop(self._loop, None)
        try:
            await self.backend.close()
        finally:
            await self._client.aclose()
            # The Sentinels that were asked for the master.
            watched = getattr(self._client.connection_pool, "sentinel_manager", None)
            for sentinel in () if watched is None else watched.sentinels:
                await sentinel.aclose()
