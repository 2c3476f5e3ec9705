"""Clients of its own that an engine has for each event loop that asks it. They end with their loop."""

from __future__ import annotations

from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, Callable
    from typing import Any

    from framecache._redis_async import AsyncRedis

#: What is being closed.
_closing: set[asyncio.Task[None]] = set()


class LoopClients:
    """The clients of all loops.

    Args:
        client: Makes a `redis.asyncio` client.
        backend: Makes a backend over one.
    """

    def __init__(self, client: Callable[[], Any], backend: Callable[[Any], AsyncRedis]) -> None:
        self._client = client
        self._backend = backend
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[AsyncRedis, AsyncGenerator[None, None]]] = {}

    def of(self, loop: asyncio.AbstractEventLoop) -> AsyncRedis:
        """The backend of the running loop."""
        if (found := self._by_loop.get(loop)) is None:
            for other in [other for other in list(self._by_loop) if other.is_closed()]:
                self._by_loop.pop(other, None)
            found = self._by_loop[loop] = self._begin(loop)
        return found[0]

    def _begin(self, loop: asyncio.AbstractEventLoop) -> tuple[AsyncRedis, AsyncGenerator[None, None]]:
        client = self._client()
        backend = self._backend(client)
        # Loops close the generators that began in them, when they end and before their connections are gone.
        lasts = self._until_closed(loop, backend, client)
        with suppress(StopIteration):
            lasts.__anext__().send(None)
        return backend, lasts

    async def _until_closed(
        self, loop: asyncio.AbstractEventLoop, backend: AsyncRedis, client: Any
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._by_loop.pop(loop, None)
            try:
                await backend.close()
            finally:
                await client.aclose()
                # The Sentinels that were asked for the master.
                watched = getattr(client.connection_pool, "sentinel_manager", None)
                for sentinel in () if watched is None else watched.sentinels:
                    await sentinel.aclose()

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        for backend, _ in list(self._by_loop.values()):
            backend.distrust()

    def close(self) -> None:
        """Have each loop that runs close its client; the others do when they end."""
        for loop, (_, lasts) in list(self._by_loop.items()):
            if loop.is_running():
                with suppress(RuntimeError):  # it was closed meanwhile
                    loop.call_soon_threadsafe(_close, loop, lasts)


def _close(loop: asyncio.AbstractEventLoop, lasts: AsyncGenerator[None, None]) -> None:
    async def close() -> None:
        with suppress(RuntimeError):  # the loop ends and closes it, too
            await lasts.aclose()

    task = loop.create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)
