"""Commands on the connections of a `redis.asyncio` client, as `_redis_wire` has them for threads.

A command is sent and its answer received in the task of who asks, on a connection that is connected already. If that
task is cancelled, another one receives what is still to come, before the connection is given back. What takes longer,
as connecting and asking again, is done apart from the start.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import NamedTuple

from framecache._framecache import FrameError, Replies, StoreError
from framecache._redis_commands import Command
from framecache._redis_wire import CLOSED, LATE, executed, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any, Final

    from typing_extensions import Buffer

    from framecache._redis_commands import Transaction

#: How many bytes of a stream are taken at once.
_AT_ONCE: Final = 256 << 10
#: Seconds for which a loop looks for an answer before it may sleep: a server on this machine, or next to it, answers in
#: little more time than a processor takes to wake up.
_AWAKE: Final = 0.0001
#: How many commands a loop sleeps for at once after one whose answer took longer.
_ASLEEP: Final = 64


class Deadline(NamedTuple):
    """When a command is no longer waited for.

    Attributes:
        at: By the clock of the loop.
        seconds: After how many seconds that is.
    """

    at: float
    seconds: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(asyncio.get_running_loop().time() + seconds, seconds)

    def error(self) -> StoreError:
        """What is raised then."""
        return StoreError(f"redis: expected an answer within {self.seconds} seconds, found none")


class UnderWay:
    """Commands of a loop that come to their end by themselves, each in a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin what nobody waits for."""
        task = asyncio.get_running_loop().create_task(work)
        # Nobody is to hear of what a loop that is closed leaves undone: those who asked for it have been cancelled.
        with suppress(AttributeError):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def result_of(self, work: Awaitable[Any], deadline: Deadline) -> Any:
        """What it returns, if it does so in time. Who is cancelled, or waits no longer, leaves it to end by itself."""
        loop = asyncio.get_running_loop()
        # Who waits, waits for this: cancelling it does nothing to the task.
        done: asyncio.Future[Any] = loop.create_future()
        self.begin(_tell(work, done))
        timer = loop.call_at(deadline.at, _fail, done, deadline)
        try:
            return await done
        finally:
            timer.cancel()

    async def wait(self) -> None:
        """Wait until they have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _tell(work: Awaitable[Any], done: asyncio.Future[Any]) -> None:
    """Tell who waits what it returns, if he still does."""
    try:
        found = await work
    except Exception as error:
        if not done.done():
            done.set_exception(error)
    except BaseException:
        done.cancel()
        raise
    else:
        if not done.done():
            done.set_result(found)


def _fail(done: asyncio.Future[Any], deadline: Deadline) -> None:
    if not done.done():
        done.set_exception(deadline.error())


class _Library:
    """What of redis-py is used here, beyond its clients' methods."""

    def __init__(self) -> None:
        import redis
        from redis.asyncio import connection, sentinel

        self.closed = redis.ConnectionError
        self.late = redis.TimeoutError
        self.invalid = redis.InvalidResponse
        self.refused = redis.ResponseError
        self.read_only = redis.ReadOnlyError
        self.pools = connection.ConnectionPool, connection.BlockingConnectionPool, sentinel.SentinelConnectionPool
        self._readers = (
            connection.AbstractConnection.read_response,
            sentinel.SentinelManagedConnection.read_response,
        )
        self._parser = getattr(connection, "_AsyncHiredisParser", None)
        #: What hiredis returns for an answer of which more is to come.
        self.more = vars(sys.modules[self._parser.__module__])["NOT_ENOUGH_DATA"] if self._parser else None

    def is_known(self, connection: Any) -> bool:
        """Whether its answers may be received here."""
        return type(connection._parser) is self._parser and type(connection).read_response in self._readers


class _Exchange:
    """A command on a connection. It can be left at any time, and gone on with.

    Args:
        library: The client's.
        connection: One that is connected and `is_known`.
        asked: The command.
        deadline: Until when it may take; the connection's own timeout may end it before.
    """

    __slots__ = (
        *("asked", "connection", "_answers", "_count", "_deadline"),
        *("_ends", "_is_late", "_library", "_pushes", "_replies", "_stream", "_timer", "_writer"),
    )

    def __init__(self, library: _Library, connection: Any, asked: Command | Transaction, deadline: Deadline) -> None:
        self.connection = connection
        self.asked = asked
        self._library = library
        self._deadline = deadline
        self._answers: list[Any] = []
        self._pushes: list[Any] = []
        self._is_late = False
        self._count, self._replies = 1, None
        if not isinstance(asked, Command):
            self._count = len(asked.commands) + 2
        elif asked.values is not None:
            self._replies = Replies(asked.values)

    def send(self, packed: list[Buffer]) -> None:
        """Send it, and have the connection closed if it is not answered in time."""
        loop, timeout = asyncio.get_running_loop(), self.connection.socket_timeout
        self._ends = self._deadline.at if timeout is None else min(self._deadline.at, loop.time() + timeout)
        self._timer = loop.call_at(self._ends, self._expire)
        self._stream, self._writer = self.connection._reader, self.connection._writer
        if self._writer.transport.is_closing():
            raise self._library.closed(CLOSED)
        self._writer.writelines(packed)

    def is_sent(self) -> bool:
        """Whether the system has all of it."""
        return self._writer.transport.get_write_buffer_size() == 0  # type: ignore[no-any-return]

    def is_answered(self) -> bool:
        """Whether something of the answer is here. Where that cannot be told: yes."""
        return bool(getattr(self._stream, "_buffer", True))

    def _expire(self) -> None:
        self._is_late = True
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._timer.cancel()
        with suppress(RuntimeError):  # the loop is closed
            self._writer.transport.abort()

    async def receive(self) -> Any:
        """The answer. Whoever is cancelled here may call this again.

        Raises:
            Exception: Those of redis-py. A `ResponseError` is an answer, all others leave nothing that could be read.
        """
        connection = self.connection
        try:
            while len(self._answers) < self._count:
                data = await self._stream.read(_AT_ONCE)
                if not data:
                    raise self._lost(CLOSED)
                self._take(data)
        except FrameError as error:
            raise self._library.invalid(str(error)) from error
        except OSError as error:
            raise self._lost(f"Error while reading from socket: {error.args}") from error
        self._timer.cancel()
        while self._pushes:
            await connection._parser.handle_push_response(self._pushes.pop(0))
        if connection.health_check_interval:
            connection.next_health_check = asyncio.get_running_loop().time() + connection.health_check_interval
        return self._answer()

    def _lost(self, why: str) -> Exception:
        """The error of a connection that is closed."""
        if not self._is_late:
            return self._library.closed(why)
        return self._deadline.error() if self._ends == self._deadline.at else self._library.late(LATE)

    def _take(self, data: bytes) -> None:
        reader, replies = self.connection._parser._reader, self._replies
        if replies is not None:
            done = replies.take(data)
            if done is False:
                return
            data = replies.rest()
            self._replies = None
            if done:
                self._answers.append(replies)
                if data:
                    reader.feed(data)
                return
        reader.feed(data)
        push = getattr(self.connection._parser, "_hiredis_PushNotificationType", None)
        while len(self._answers) < self._count and (answer := reader.gets()) is not self._library.more:
            is_push = push is not None and isinstance(answer, push)
            (self._pushes if is_push else self._answers).append(answer)

    def _answer(self) -> Any:
        if not isinstance(self.asked, Command):
            return executed(self._answers)
        if isinstance(answer := self._answers[0], Exception):
            raise answer
        return answer


async def _unheard(work: Awaitable[Any]) -> None:
    """Wait for what nobody asks for any more, and not for its errors."""
    with suppress(Exception):
        await work


def _kept(packed: list[Buffer]) -> list[Buffer]:
    """The same, of which nobody can change anything."""
    if all(type(part) is bytes for part in packed):
        return packed
    return [part if type(part) is bytes else bytes(part) for part in packed]


class AsyncWire:
    """The connections of a client for event loops.

    Args:
        client: One of which `is_plain` is true.
        under_way: Has what goes on when nobody waits for it any more.
    """

    def __init__(self, client: Any, under_way: UnderWay) -> None:
        self._client = client
        self._under_way = under_way
        self._library = _Library()
        self._is_watched = False
        self._asleep = 0

    async def answer(self, asked: Command | Transaction, deadline: Deadline) -> Any:
        """The answer to a command; those to commands that are one step, which are sent at once."""
        packed = pack(asked)
        if not self._is_at_hand():
            return await self._under_way.result_of(self._connect(asked, _kept(packed), deadline), deadline)
        connection = await self._client.connection_pool.get_connection()
        exchange = _Exchange(self._library, connection, asked, deadline)
        try:
            exchange.send(packed)
            if not self._is_watched:
                await self._watch(exchange)
            answer = await exchange.receive()
        except asyncio.CancelledError:
            self._under_way.begin(self._left(exchange, packed, deadline))
            raise
        except Exception as error:
            again = self._failed(exchange, _kept(packed), deadline, error)
            return await self._under_way.result_of(again, deadline)
        except BaseException:
            exchange.abort()
            raise
        await self._release(connection)
        return answer

    async def _watch(self, exchange: _Exchange) -> None:
        """Keep the loop from sleeping, for one command and with it all others, where answers come soon."""
        if self._asleep:
            self._asleep -= 1
            return
        now = asyncio.get_running_loop().time
        ends = now() + _AWAKE
        self._is_watched = True
        try:
            while now() < ends:
                await asyncio.sleep(0)
                if exchange.is_answered():
                    return
        finally:
            self._is_watched = False
        self._asleep = _ASLEEP

    def _is_at_hand(self) -> bool:
        """Whether the pool has a connection that can be used without waiting for anything."""
        pool = self._client.connection_pool
        if type(pool) not in self._library.pools or self._is_locked(pool) or not pool._available_connections:
            return False
        connection = pool._available_connections[-1]
        if not connection.is_connected or connection._reader.at_eof() or not self._library.is_known(connection):
            return False
        checks = connection.health_check_interval
        return not checks or asyncio.get_running_loop().time() <= connection.next_health_check

    @staticmethod
    def _is_locked(pool: Any) -> bool:
        return pool._lock.locked() or (hasattr(pool, "_condition") and pool._condition.locked())

    async def _release(self, connection: Any) -> None:
        """Give a connection back: whoever is cancelled meanwhile has done so."""
        pool = self._client.connection_pool
        if self._is_locked(pool) or connection.should_reconnect():
            self._under_way.begin(pool.release(connection))
        else:
            await pool.release(connection)

    def _left(self, exchange: _Exchange, packed: list[Buffer], deadline: Deadline) -> Coroutine[Any, Any, None]:
        """What brings a command to its end whose caller is cancelled. He may change what he passed from now on, so what
        is not sent yet, where it is no copy, is sent once more.
        """
        kept = _kept(packed)
        if kept is packed or exchange.is_sent():
            return self._finish(exchange, kept, deadline)
        exchange.abort()
        return _unheard(self._failed(exchange, kept, deadline))

    # Apart from who asks

    async def _connect(self, asked: Command | Transaction, packed: list[Buffer], deadline: Deadline) -> Any:
        """The answer to a command for which there is no connection at hand."""
        connection = await self._client.connection_pool.get_connection()
        return await self._try(connection, lambda: self._attempt(connection, asked, packed, deadline))

    async def _finish(self, exchange: _Exchange, packed: list[Buffer], deadline: Deadline) -> None:
        """Receive an answer that nobody waits for any more."""
        try:
            await exchange.receive()
        except Exception as error:
            await _unheard(self._failed(exchange, packed, deadline, error))
        except asyncio.CancelledError:
            exchange.abort()
            await exchange.connection.disconnect(nowait=True)
            await self._client.connection_pool.release(exchange.connection)
            raise
        except BaseException:
            exchange.abort()
            raise
        else:
            await self._client.connection_pool.release(exchange.connection)

    async def _failed(self, exchange: _Exchange, packed: list[Buffer], deadline: Deadline, *failed: Exception) -> Any:
        """The answer to a command that was left, or failed once, as often as the client tries."""
        connection = exchange.connection
        errors = [self._meant(connection, error) for error in failed]

        async def attempt() -> Any:
            if errors:
                raise errors.pop()
            return await self._attempt(connection, exchange.asked, packed, deadline)

        if not any(isinstance(error, self._library.refused) for error in errors):
            exchange.abort()
            await connection.disconnect(nowait=True)
        return await self._try(connection, attempt)

    async def _try(self, connection: Any, attempt: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Do it as often as the client does, then give the connection back."""
        try:
            return await connection.retry.call_with_retry(attempt, lambda _error: connection.disconnect())
        finally:
            await self._client.connection_pool.release(connection)

    async def _attempt(self, connection: Any, asked: Command | Transaction, packed: list[Buffer], by: Deadline) -> Any:
        if asyncio.get_running_loop().time() >= by.at:
            raise by.error()
        if not connection.is_connected:
            await connection.connect()
        if not self._library.is_known(connection):
            await connection.send_packed_command(packed)
            return await self._read(connection, asked)
        await connection.check_health()
        exchange = _Exchange(self._library, connection, asked, by)
        try:
            exchange.send(packed)
            return await exchange.receive()
        except self._library.refused as error:
            raise self._meant(connection, error) from None
        except (Exception, asyncio.CancelledError):
            exchange.abort()
            await connection.disconnect(nowait=True)
            raise
        except BaseException:
            exchange.abort()
            raise

    async def _read(self, connection: Any, asked: Command | Transaction) -> Any:
        """The answer to a command, which the connection itself receives."""
        if isinstance(asked, Command):
            return await connection.read_response()
        answers = []
        for _ in range(len(asked.commands) + 2):
            try:
                answers.append(await connection.read_response())
            except self._library.refused as error:
                answers.append(error)
        return executed(answers)

    def _meant(self, connection: Any, error: Exception) -> Exception:
        """That a server which was the Sentinels' master is none any more is a lost connection, which is made anew."""
        if isinstance(error, self._library.read_only):
            pool = getattr(connection, "connection_pool", None)
            if pool is not None and pool.is_master:
                return self._library.closed("The previous master is now a replica")
        return error
