"""Commands on the connections of a redis-py client for threads, packed and received here; `_redis_async_wire` does it
for event loops.

The pool, its connections and how they retry are the client's, as it was configured. Left out is what redis-py does
around a command for all cases, and its copies: arguments are sent from where they stand, and large values are received
where they stay. A client that is not redis-py's own (a subclass with other ways, one that somebody watches) runs its
commands itself.
"""

from __future__ import annotations

import time

from framecache._framecache import FrameError, Replies, pack_command
from framecache._redis_commands import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    from typing_extensions import Buffer

    from framecache._redis_commands import Transaction

    R = TypeVar("R")

CLOSED: Final = "Connection closed by server."
LATE: Final = "Timeout reading from socket"


class Wire:
    """The connections of a client for threads.

    Args:
        client: One of which `is_plain` is true.
    """

    def __init__(self, client: Any) -> None:
        import redis
        from redis import connection, sentinel

        self._client = client
        self._raises = redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, redis.ResponseError
        self._parser = getattr(connection, "_HiredisParser", None)
        self._readers = (
            connection.AbstractConnection.read_response,
            sentinel.SentinelManagedConnection.read_response,
        )

    def answer(self, asked: Command | Transaction) -> Any:
        """The answer to a command; those to commands that are one step, which are sent at once."""
        if isinstance(asked, Command):
            return self._run(pack(asked), asked.values)
        return self._transact(pack(asked), len(asked.commands) + 2)

    def _run(self, packed: list[Buffer], values: int | None) -> Any:
        def exchange(connection: Any) -> Any:
            connection.send_packed_command(packed)
            return connection.read_response() if values is None else self._receive(connection, values)

        return self._on_connection(exchange)

    def _transact(self, packed: list[Buffer], count: int) -> Any:
        def exchange(connection: Any) -> Any:
            connection.send_packed_command(packed)
            return executed([self._one_of(connection) for _ in range(count)])

        return self._on_connection(exchange)

    def _one_of(self, connection: Any) -> Any:
        """An answer to one of several commands, which may be that it is refused."""
        try:
            return connection.read_response()
        except self._raises[3] as error:
            return error

    def _on_connection(self, work: Callable[[Any], R]) -> R:
        pool = self._client.connection_pool
        connection = pool.get_connection()
        try:
            return connection.retry.call_with_retry(  # type: ignore[no-any-return]
                lambda: work(connection), lambda _error: connection.disconnect()
            )
        finally:
            try:
                if connection.should_reconnect():
                    connection.disconnect()
                    connection.connect()
            finally:
                pool.release(connection)

    def _receive(self, connection: Any, count: int) -> Any:
        """The values that were asked for last. All else that comes, such as an error, is the client's to read."""
        parser = connection._parser
        if type(parser) is not self._parser or type(connection).read_response not in self._readers:
            return connection.read_response()
        reader, socket, replies = parser._reader, connection._sock, Replies(count)
        if reader is None or socket is None or reader.has_data():
            return connection.read_response()
        closed, late, invalid, _ = self._raises
        try:
            done: bool | None = False
            while done is False:
                received = socket.recv_into(replies)
                if not received:
                    raise closed(CLOSED)
                done = replies.received(received)
        except TimeoutError:
            connection.disconnect()
            raise late(LATE) from None
        except OSError as error:
            connection.disconnect()
            raise closed(f"Error while reading from socket: {error.args}") from error
        except FrameError as error:
            connection.disconnect()
            raise invalid(str(error)) from error
        except BaseException:
            connection.disconnect()
            raise
        if rest := replies.rest():
            reader.feed(rest)
        if not done:
            return connection.read_response()
        if connection.health_check_interval:
            connection.next_health_check = time.monotonic() + connection.health_check_interval
        return replies


def pack(asked: Command | Transaction) -> list[Buffer]:
    """What is sent: buffers, one after the other."""
    if isinstance(asked, Command):
        return pack_command(*asked.arguments)
    return [part for arguments in (("MULTI",), *asked.commands, ("EXEC",)) for part in pack_command(*arguments)]


def executed(answers: list[Any]) -> Any:
    """The answers to the commands of a transaction, from those to all that was sent; raises the first that is an error.

    That of a command which was not queued says more than that of the transaction.
    """
    *queued, answer = answers
    if isinstance(answer, Exception):
        raise next((one for one in queued if isinstance(one, Exception)), answer)
    for one in answer if isinstance(answer, list) else ():
        if isinstance(one, Exception):
            raise one
    return answer


def is_plain(client: Any) -> bool:
    """Whether commands may go past a client's own `execute_command`, to the connections of its pool.

    Not with redis-py before it had all that is used here, not where a subclass, or somebody who watches commands, has
    put another method in its place, not on the one connection that a client keeps for itself, nor where a client caches
    by itself.
    """
    import redis.asyncio.client
    import redis.client
    from redis import connection
    from redis.asyncio import connection as asynchronous

    known = hasattr(connection.AbstractConnection, "should_reconnect") and hasattr(asynchronous, "async_timeout")
    if not known or getattr(client, "connection", 1) is not None:
        return False
    if getattr(client.connection_pool, "cache", None) is not None:
        return False
    if getattr(client, "single_connection_client", False) or getattr(client, "_single_connection_client", False):
        return False
    methods = ("execute_command", "parse_response")
    if any(name in vars(client) for name in methods):
        return False
    own = {getattr(getattr(getattr(type(client), name, None), "__code__", None), "co_filename", "") for name in methods}
    return own in ({redis.client.__file__}, {redis.asyncio.client.__file__})
