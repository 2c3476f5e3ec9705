"""Redis and Valkey for event loops, over a `redis.asyncio.Redis` that was given."""

from __future__ import annotations

import asyncio
from weakref import ref

from framecache._backend import AsyncBackend
from framecache._framecache import StoreError
from framecache._redis_replies import are_values
from framecache._redis_wire import AsyncWire, is_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, Final

    from framecache._backend import Backend, Values

#: Seconds after which a command that does not end is no longer waited for.
DEADLINE: Final = 5.0


class AsyncRedis(AsyncBackend):
    """The commands of a client of one loop, each in a task of its own: who is cancelled, or waits no longer, leaves it
    to end by itself, so that no connection is given back with an answer still to come.

    Args:
        backend: The same server for threads.
        client: The client.
        failed: Makes an error of framecache from one of redis-py.
        errors: Those of redis-py.
    """

    def __init__(
        self,
        backend: Backend,
        client: Any,
        failed: Callable[[Exception], Exception],
        errors: tuple[type[Exception], ...],
    ) -> None:
        super().__init__(backend)
        self._client = client
        self._wire = AsyncWire(client) if is_plain(client) else None
        self._failed = failed
        self._errors = errors
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._is_distrusted = False

    def is_for(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the client's connections are those of this loop: the first one that asks."""
        if self._loop is None:
            self._loop = ref(loop)
        return self._loop() is loop

    async def get_many(self, names: Sequence[str]) -> Values:
        """As `AsyncBackend.get_many`."""
        found = await self._run(self._ask(names))
        if not are_values(found, len(names)):
            self.distrust()
            raise StoreError(f"redis: expected {len(names)} values, found {found!r:.100}")
        return found  # type: ignore[no-any-return]

    async def _ask(self, names: Sequence[str]) -> Any:
        if self._is_distrusted:
            self._is_distrusted = False
            await self._client.connection_pool.disconnect(inuse_connections=False)
        if self._wire is None:
            return await self._client.execute_command("MGET", *names)
        return await self._wire.mget(names)

    async def _run(self, command: Coroutine[Any, Any, Any]) -> Any:
        loop = asyncio.get_running_loop()
        # Who waits, waits for this: cancelling it does nothing to the command.
        done: asyncio.Future[Any] = loop.create_future()
        task = loop.create_task(self._answer(command, done))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        ends = loop.call_later(DEADLINE, _late, done)
        try:
            return await done
        finally:
            ends.cancel()

    async def _answer(self, command: Coroutine[Any, Any, Any], done: asyncio.Future[Any]) -> None:
        """Ask, and tell who waits, if he still does."""
        try:
            found = await command
        except Exception as error:
            failed = self._failed(error) if isinstance(error, self._errors) else error
            if failed is not error:
                failed.__cause__ = error
            if not done.done():
                done.set_exception(failed)
        except BaseException:
            done.cancel()
            raise
        else:
            if not done.done():
                done.set_result(found)

    def distrust(self) -> None:
        """As `Backend.distrust`: before the next command."""
        self._is_distrusted = True

    async def close(self) -> None:
        """As `AsyncBackend.close`; the client is its owner's."""
        await asyncio.gather(*self._under_way, return_exceptions=True)


def _late(done: asyncio.Future[Values]) -> None:
    if not done.done():
        done.set_exception(StoreError(f"redis: expected an answer within {DEADLINE} seconds, found none"))
