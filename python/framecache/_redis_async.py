"""Redis and Valkey for event loops, over a `redis.asyncio.Redis` that was given."""

from __future__ import annotations

import asyncio
from weakref import ref

from framecache._backend import AsyncBackend
from framecache._framecache import StoreError
from framecache._redis_async_wire import AsyncWire, Deadline, UnderWay
from framecache._redis_commands import Command, joined, values
from framecache._redis_wire import is_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, Final, TypeVar

    from typing_extensions import Buffer

    from framecache._backend import Backend, Values, Write
    from framecache._redis_commands import Commands, Steps, Transaction

    R = TypeVar("R")

#: Seconds after which a command that does not end is no longer waited for.
DEADLINE: Final = 5.0


class AsyncRedis(AsyncBackend):
    """The commands of a client of one loop. Who is cancelled, or waits no longer, leaves a command that was sent to end
    by itself, so that no connection is given back with an answer still to come.

    Args:
        backend: The same server for threads.
        client: The client.
        commands: What is said to the server.
        failed: Makes an error of framecache from one of redis-py.
        errors: Those of redis-py.
        at_once: How many commands may be asked at once, each on a connection; `None`: as the client's pool has it.
    """

    def __init__(
        self,
        backend: Backend,
        client: Any,
        commands: Commands,
        failed: Callable[[Exception], Exception],
        errors: tuple[type[Exception], ...],
        at_once: int | None = None,
    ) -> None:
        super().__init__(backend)
        self._client = client
        self._commands = commands
        self._under_way = UnderWay()
        self._wire = AsyncWire(client, self._under_way) if is_plain(client) else None
        self._failed = failed
        self._errors = errors
        self._room = None if at_once is None else asyncio.Semaphore(at_once)
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._is_distrusted = False

    def is_for(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the client's connections are those of this loop: the first one that asks."""
        if self._loop is None:
            self._loop = ref(loop)
        return self._loop() is loop

    # Reading

    async def get(self, name: str) -> Buffer | None:
        """As `AsyncBackend.get`."""
        return (await self.get_many([name]))[0]

    async def get_many(self, names: Sequence[str]) -> Values:
        """As `AsyncBackend.get_many`."""
        return await self._ask(values(names))  # type: ignore[no-any-return]

    async def peek(self, names: Sequence[str], nbytes: int) -> list[Buffer | None]:
        """As `AsyncBackend.peek`."""
        return await self._do(self._commands.peek(names, nbytes))

    # Writing

    async def set(self, write: Write) -> bool:
        """As `AsyncBackend.set`."""
        return await self._do(self._commands.set(write))

    async def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `AsyncBackend.set_many`; those without guards in one transaction."""
        return await self._do(self._commands.set_many(writes))

    async def delete(self, name: str) -> bool:
        """As `AsyncBackend.delete`."""
        return await self.delete_many([name]) > 0

    async def delete_many(self, names: Sequence[str]) -> int:
        """As `AsyncBackend.delete_many`."""
        return await self._do(self._commands.delete_many(names))

    async def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `AsyncBackend.delete_if`."""
        return await self._do(self._commands.delete_if(name, offset, part))

    async def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `AsyncBackend.touch`."""
        return await self._do(self._commands.touch(name, offset, part))

    async def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `AsyncBackend.stamps`."""
        return await self._do(self._commands.stamps(names, milliseconds))

    async def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `AsyncBackend.lease`."""
        return await self._do(self._commands.lease(name, token, milliseconds))

    async def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `AsyncBackend.renew`."""
        return await self._do(self._commands.renew(name, token, milliseconds))

    async def release(self, name: str, token: int) -> bool:
        """As `AsyncBackend.release`."""
        return await self._do(self._commands.release(name, token))

    # The engine

    def distrust(self) -> None:
        """As `Backend.distrust`: before the next command."""
        self._is_distrusted = True

    async def close(self) -> None:
        """As `AsyncBackend.close`; the client is its owner's."""
        await self._under_way.wait()

    async def _do(self, steps: Steps[R]) -> R:
        """Go through the steps of a command; return what they come to."""
        answer = None
        while True:
            try:
                asked = steps.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answer = await self._ask(asked)

    async def _ask(self, asked: Command | Transaction) -> Any:
        """The answer to a command, or those to a transaction's."""
        deadline = Deadline.after(DEADLINE)
        if self._room is None:
            return await self._answer(asked, deadline)
        if not self._room.locked():
            await self._room.acquire()
        else:
            try:
                await asyncio.wait_for(self._room.acquire(), DEADLINE)
            except (asyncio.TimeoutError, TimeoutError):
                raise deadline.error() from None
        try:
            return await self._answer(asked, deadline)
        finally:
            self._room.release()

    async def _answer(self, asked: Command | Transaction, deadline: Deadline) -> Any:
        try:
            if self._is_distrusted:
                self._is_distrusted = False
                await self._under_way.result_of(self._disconnect(), deadline)
            if self._wire is not None:
                found = await self._wire.answer(asked, deadline)
            else:
                found = await self._under_way.result_of(self._by_client(asked), deadline)
        except StoreError:
            raise
        except self._errors as error:
            raise self._failed(error) from error
        if not asked.holds(found):
            self.distrust()
            raise StoreError(f"redis: expected {asked.expected}, found {found!r:.100}")
        return found

    def _by_client(self, asked: Command | Transaction) -> Coroutine[Any, Any, Any]:
        """The answer, which a client with ways of its own asks for. All that is sent is copied before."""
        if isinstance(asked, Command):
            return self._client.execute_command(*joined(asked.arguments))  # type: ignore[no-any-return]
        return self._transact([joined(arguments) for arguments in asked.commands])

    async def _transact(self, commands: Sequence[Sequence[Any]]) -> Any:
        async with self._client.pipeline(transaction=True) as pipeline:
            for arguments in commands:
                pipeline.execute_command(*arguments)
            return await pipeline.execute()

    async def _disconnect(self) -> None:
        await self._client.connection_pool.disconnect(inuse_connections=False)
