"""Redis and Valkey as a backend, over redis-py. proto-docs/redis.md specifies what stands under which name."""

from __future__ import annotations

import asyncio

from framecache._backend import Backend, Capabilities, NoRoom
from framecache._feed import PING_EVERY, SILENCE
from framecache._framecache import InvalidArgument, StoreError
from framecache._redis_clients import (
    check,
    client_of,
    is_async,
    is_cluster,
    loop_client_of,
    place_of,
    threaded,
    type_of,
)
from framecache._redis_commands import Command, Commands, joined, values
from framecache._url import one_of, seconds_of, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, TypeVar

    from typing_extensions import Buffer

    from framecache._backend import AsyncBackend, Invalidations, Values, Write
    from framecache._listener import Listener
    from framecache._redis_async import AsyncRedis
    from framecache._redis_commands import Steps, Transaction
    from framecache._redis_loops import LoopClients
    from framecache._redis_wire import Wire

    R = TypeVar("R")

_MAX_BYTES: Final = 64 << 20
#: Connections of an event loop, where a URL was given.
_AT_ONCE: Final = 32
#: Seconds for which at most L1 serves what was changed, while the listener is on and whatever then fails.
BOUND: Final = PING_EVERY + SILENCE


class Redis(Backend):
    """A Redis or Valkey server.

    Each command may be sent twice, and comes to the same then: redis-py repeats it as its client is configured to. A
    client made for a URL waits 1 second for a connection and for each reply, and repeats once, after a random pause.

    Args:
        client: A `redis.Redis` or `redis.asyncio.Redis`, also a master's that a Sentinel gave, or a URL: ``redis://``,
            ``rediss://``, ``unix://``, ``redis+sentinel://host:port,host:port/service/db``.
        max_remote_bytes: The largest entry, with its header; a larger one is `ValueTooLarge`. 64 MiB.
        l1_ttl: Seconds for which L1 keeps what nobody tells it the changes of.
        listen: Whether L1 is told what others change, by a thread with a connection of its own. What was changed is
            served for the time that a message takes; where the server fails or changes its role, for 1.5 seconds.
        allow_unbounded: Take a client without socket timeout, which may wait for ever.

    Raises:
        InvalidArgument: A client with ``decode_responses=True``; one without socket timeout.
        ImportError: redis-py is not installed.
    """

    def __init__(
        self,
        client: Any,
        *,
        max_remote_bytes: int = _MAX_BYTES,
        l1_ttl: float = 1.0,
        listen: bool = True,
        allow_unbounded: bool = False,
    ) -> None:
        import redis

        if type(max_remote_bytes) is not int or not 0 < max_remote_bytes <= 512 << 20:
            raise InvalidArgument(
                f"max_remote_bytes: expected an int from 1 to 512 MiB, which Redis takes, got {max_remote_bytes!r:.100}"
            )
        if isinstance(l1_ttl, bool) or not isinstance(l1_ttl, int | float) or not 0 < l1_ttl <= 60:
            raise InvalidArgument(f"l1_ttl: expected seconds above 0 and at most 60, got {l1_ttl!r:.100}")
        self.max_bytes = max_remote_bytes
        self.l1_ttl = float(l1_ttl)
        self.capabilities = Capabilities(tags=True, lease=True, invalidation=listen, atomic=True)
        url = client if isinstance(client, str) else None
        given: Any = None
        if url is not None:
            client = client_of(url)
        elif is_async(client) and not is_cluster(client):
            given, client = client, threaded(client)
        if not isinstance(client, self._kind()):
            found = type_of(client if given is None else given)
            raise InvalidArgument(f"client: expected a {self._expects}, got {found}")
        check(client, allow_unbounded)
        self.client: Any = client
        self.place = place_of(client)
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._wire = self._wire_of(client)
        self._listener: Listener | None = None
        self._owns_client = url is not None or given is not None
        self._asynchronous: AsyncRedis | None = None if given is None else self._over(given)
        self._loops = None if url is None else self._for_loops(url)

    _expects = "redis.Redis or a redis.asyncio.Redis"
    #: How others' changes are heard: ``tracking`` or ``publish``.
    _listens_by = "tracking"
    #: What is said to the server.
    _commands = Commands()

    @staticmethod
    def _kind() -> type:
        import redis

        return redis.Redis

    def _wire_of(self, client: Any) -> Wire | None:
        from framecache._redis_wire import Wire, is_plain

        return Wire(client) if is_plain(client) else None

    def _for_loops(self, url: str) -> LoopClients | None:
        from framecache._redis_loops import LoopClients

        return LoopClients(lambda: loop_client_of(url), lambda client: self._over(client, _AT_ONCE))

    def _over(self, client: Any, at_once: int | None = None) -> AsyncRedis:
        from framecache._redis_async import AsyncRedis

        return AsyncRedis(self, client, self._commands, failed, self._errors, at_once)

    @classmethod
    def from_url(cls, url: str) -> Redis:
        """As the class, where the URL's query may have ``max_remote_bytes=16MiB``, ``l1_ttl=0.5`` and ``listen=no``;
        with ``listen=publish``, as `PublishingRedis`.
        """
        from urllib.parse import parse_qsl, urlencode

        place, _, query = url.partition("?")
        settings: dict[str, Any] = {}
        theirs = []
        for name, value in parse_qsl(query, keep_blank_values=True):
            if name == "max_remote_bytes":
                settings[name] = size_of(f"url: {name}", value)
            elif name == "l1_ttl":
                settings[name] = seconds_of(name, value, 60.0)
            elif name == "listen":
                if one_of(name, value, ("yes", "no", "publish")) == "publish":
                    cls = cls._publishing()
                else:
                    settings[name] = value == "yes"
            else:
                theirs.append((name, value))
        return cls(f"{place}?{urlencode(theirs)}" if theirs else place, **settings)

    @classmethod
    def _publishing(cls) -> type[Redis]:
        from framecache._redis_publish import PublishingRedis

        return PublishingRedis

    # Reading

    def get(self, name: str) -> Buffer | None:
        """As `Backend.get`."""
        return self.get_many([name])[0]

    def get_many(self, names: Sequence[str]) -> Values:
        """As `Backend.get_many`."""
        return self._ask(values(names))  # type: ignore[no-any-return]

    def peek(self, names: Sequence[str], nbytes: int) -> list[Buffer | None]:
        """As `Backend.peek`."""
        return self._do(self._commands.peek(names, nbytes))

    # Writing

    def set(self, write: Write) -> bool:
        """As `Backend.set`. Without guards, a large value does not go through a script, which would copy it."""
        return self._do(self._commands.set(write))

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`; those without guards in one transaction."""
        return self._do(self._commands.set_many(writes))

    def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return self.delete_many([name]) > 0

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        return self._do(self._commands.delete_many(names))

    def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.delete_if`."""
        return self._do(self._commands.delete_if(name, offset, part))

    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        return self._do(self._commands.touch(name, offset, part))

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`."""
        return self._do(self._commands.stamps(names, milliseconds))

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        return self._do(self._commands.lease(name, token, milliseconds))

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        return self._do(self._commands.renew(name, token, milliseconds))

    def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        return self._do(self._commands.release(name, token))

    # The engine

    def health(self) -> dict[str, Any]:
        """As `Backend.health`."""
        from framecache._acl import rights

        listener = self._listener
        is_on = listener is not None and listener.state == "on"
        return {
            "engine": "redis",
            "listener": "none" if listener is None else listener.state,
            "l1_ttl": self.l1_ttl,
            "bound": BOUND if is_on else self.l1_ttl,
            "rights": rights(self._listens_by if self.capabilities.invalidation else "no", is_cluster(self.client)),
            "missing": [] if listener is None else listener.missing,
        }

    def listen(self, prefix: str, to: Invalidations) -> Callable[[], None]:
        """As `Backend.listen`."""
        if self._listener is None:
            self._listener = self._new_listener()
        return self._listener.add(prefix, to)

    def _new_listener(self) -> Listener:
        from framecache._listener import Listener
        from framecache._topology import OneServer

        return Listener(OneServer(self.client))

    def for_loop(self) -> AsyncBackend | None:
        """As `Backend.for_loop`: one for each loop, over a client of its own, where a URL was given; where a
        `redis.asyncio.Redis` was, for the loop that asks first.
        """
        loop = asyncio.get_running_loop()
        if self._loops is not None:
            return self._loops.of(loop)
        if self._asynchronous is None or not self._asynchronous.is_for(loop):
            return None
        return self._asynchronous

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        self.client.connection_pool.disconnect(inuse_connections=False)
        for known in (self._asynchronous, self._loops):
            if known is not None:
                known.distrust()

    def close(self) -> None:
        """As `Backend.close`."""
        if self._listener is not None:
            self._listener.close()
        if self._loops is not None:
            self._loops.close()
        if self._owns_client:
            self.client.close()

    def _do(self, steps: Steps[R]) -> R:
        """Go through the steps of a command; return what they come to."""
        answer = None
        while True:
            try:
                asked = steps.send(answer)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            answer = self._ask(asked)

    def _ask(self, asked: Command | Transaction) -> Any:
        """The answer to a command, or those to a transaction's."""
        try:
            found = self._answer(asked)
        except self._errors as error:
            raise failed(error) from error
        if not asked.holds(found):
            self.distrust()
            raise StoreError(f"redis: expected {asked.expected}, found {found!r:.100}")
        return found

    def _answer(self, asked: Command | Transaction) -> Any:
        if self._wire is not None:
            return self._wire.answer(asked)
        if isinstance(asked, Command):
            return self.client.execute_command(*joined(asked.arguments))
        with self.client.pipeline(transaction=True) as pipeline:
            for arguments in asked.commands:
                pipeline.execute_command(*joined(arguments))
            return pipeline.execute()


def failed(error: Exception) -> StoreError:
    """The error of framecache for one of redis-py."""
    kind = type(error).__name__
    if "OOM" in str(error) or kind == "OutOfMemoryError":
        return NoRoom(f"redis: expected room to write, found {error}")
    return StoreError(f"redis: expected an answer, found {kind}: {error}")
