"""Redis and Valkey as a backend, over redis-py. proto-docs/redis.md specifies what stands under which name."""

from __future__ import annotations

import asyncio
import os

from framecache._backend import Backend, Capabilities, NoRoom
from framecache._feed import PING_EVERY, SILENCE
from framecache._framecache import InvalidArgument, StoreError
from framecache._redis_async import RENEW
from framecache._redis_clients import (
    check,
    client_of,
    is_async,
    is_cluster,
    place_of,
    threaded,
    type_of,
)
from framecache._redis_replies import are_stamps, are_values, is_count
from framecache._url import one_of, seconds_of, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from typing_extensions import Buffer

    from framecache._backend import AsyncBackend, Invalidations, Values, Write
    from framecache._listener import Listener
    from framecache._redis_async import AsyncRedis
    from framecache._redis_wire import Wire

_MAX_BYTES: Final = 64 << 20
_LARGE: Final = 64 << 10
#: Seconds for which at most L1 serves what was changed, while the listener is on and whatever then fails.
BOUND: Final = PING_EVERY + SILENCE

# Every script names all of its keys. They are sent whole: the longest has 700 bytes, and none is ever unknown.
_LAST: Final = """
local function last(key, ms)
  local left = redis.call('PTTL', key)
  if left >= 0 and ms == 0 then redis.call('PERSIST', key)
  elseif left >= 0 and 2 * left < ms then redis.call('PEXPIRE', key, ms) end
end"""
# ARGV: the numbers of guards and of stamps, the values of both, for how long each stamp is to last.
_CHECK: Final = (
    _LAST
    + """
local guards, stamps = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 1, guards + stamps do
  if redis.call('GET', KEYS[i]) ~= ARGV[i + 2] then return 0 end
end
for i = guards + 1, guards + stamps do last(KEYS[i], tonumber(ARGV[i + stamps + 2])) end"""
)
# Then the entry, and what is removed. ARGV: then the value, and after how long it goes.
_WRITE: Final = (
    _CHECK
    + """
local at, arg = guards + stamps + 1, guards + 2 * stamps + 3
if ARGV[arg + 1] == '' then redis.call('SET', KEYS[at], ARGV[arg])
else redis.call('SET', KEYS[at], ARGV[arg], 'PX', ARGV[arg + 1]) end
for i = at + 1, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1"""
)
_HOLD: Final = _CHECK + "\nreturn 1"
_STAMPS: Final = (
    _LAST
    + """
local stamps = {}
for i, key in ipairs(KEYS) do
  local ms = tonumber(ARGV[2 * i])
  stamps[i] = redis.call('GET', key)
  if stamps[i] then last(key, ms)
  else
    stamps[i] = ARGV[2 * i - 1]
    if ms == 0 then redis.call('SET', key, stamps[i]) else redis.call('SET', key, stamps[i], 'PX', ms) end
  end
end
return stamps"""
)
_PEEK: Final = """
local values = {redis.call('GETRANGE', KEYS[1], 0, ARGV[1])}
for i = 2, #KEYS do values[i] = redis.call('GET', KEYS[i]) end
return values"""
_DELETE_IF: Final = """
if redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
return redis.call('UNLINK', KEYS[1])"""
_TOUCH: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
return 1"""
_LEASE: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])"""


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
        is_url = isinstance(client, str)
        given: Any = None
        if is_url:
            client = client_of(client)
        elif is_async(client) and not is_cluster(client):
            given, client = client, threaded(client)
        if not isinstance(client, self._kind()):
            raise InvalidArgument(f"client: expected a {self._expects}, got {type_of(client)}")
        check(client, allow_unbounded)
        self.client: Any = client
        self.place = place_of(client)
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError)
        self._wire = self._wire_of(client)
        self._listener: Listener | None = None
        self._owns_client = is_url or given is not None
        self._asynchronous: AsyncRedis | None = None
        if given is not None:
            from framecache._redis_async import AsyncRedis

            self._asynchronous = AsyncRedis(self, given, failed, self._errors)

    _expects = "redis.Redis or a redis.asyncio.Redis"
    #: How others' changes are heard: ``tracking`` or ``publish``.
    _listens_by = "tracking"

    @staticmethod
    def _kind() -> type:
        import redis

        return redis.Redis

    def _wire_of(self, client: Any) -> Wire | None:
        from framecache._redis_wire import Wire, is_plain

        return Wire(client) if is_plain(client) else None

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
        with self._mapped_errors():
            if self._wire is not None:
                return self._checked_values(self._wire.mget(names), len(names))
            return self._checked_values(self.client.execute_command("MGET", *names), len(names))

    def peek(self, names: Sequence[str], nbytes: int) -> list[Buffer | None]:
        """As `Backend.peek`."""
        first, *rest = self._checked_values(self._run("EVAL", _PEEK, len(names), *names, nbytes - 1), len(names))
        return [first or None, *rest]

    # Writing

    def set(self, write: Write) -> bool:
        """As `Backend.set`. Without guards, a large value does not go through a script, which would copy it."""
        if not write.guards and sum(memoryview(part).nbytes for part in write.parts) > _LARGE:
            return self.set_many([write])[0]
        return self._write(write)

    def _write(self, write: Write) -> bool:
        keys = [*write.guards, *write.stamps, write.name, *write.removes]
        milliseconds = "" if write.milliseconds is None else write.milliseconds
        value = tuple(write.parts)
        return self._count("EVAL", _WRITE, len(keys), *keys, *_expected(write), value, milliseconds) > 0

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`; those without guards in one transaction."""
        plain = [write for write in writes if not write.guards]
        held = True
        if plain:
            stamps = {name: stamp for write in plain for name, stamp in write.stamps.items()}
            check = plain[0]._replace(stamps=stamps)
            commands: list[Sequence[Any]] = [("EVAL", _HOLD, len(stamps), *stamps, *_expected(check))]
            for write in plain:
                ends = () if write.milliseconds is None else ("PX", write.milliseconds)
                commands.append(("SET", write.name, tuple(write.parts), *ends))
            if removes := {name for write in plain for name in write.removes}:
                commands.append(("UNLINK", *removes))
            held = bool(self._transact(commands)[0])
        return [self.set(write) if write.guards else held for write in writes]

    def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return self.delete_many([name]) > 0

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        return self._count("UNLINK", *names) if names else 0

    def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.delete_if`."""
        return self._count("EVAL", _DELETE_IF, 1, name, offset, offset + len(part) - 1, part) > 0

    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        return self._count("EVAL", _TOUCH, 1, name, offset, part) > 0

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`."""
        arguments = [part for ms in milliseconds for part in (os.urandom(8), ms or 0)]
        found = self._run("EVAL", _STAMPS, len(names), *names, *arguments)
        self._expect(are_stamps(found, len(names)), f"{len(names)} stamps", found)
        return found  # type: ignore[no-any-return]

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        return self._count("EVAL", _LEASE, 1, name, token, milliseconds) > 0

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        return self._count("EVAL", RENEW, 1, name, token, milliseconds) > 0

    def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        return self._count("EVAL", _RELEASE, 1, name, token) > 0

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
        """As `Backend.for_loop`, where a `redis.asyncio.Redis` was given, for the loop that asks first."""
        if self._asynchronous is None or not self._asynchronous.is_for(asyncio.get_running_loop()):
            return None
        return self._asynchronous

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        self.client.connection_pool.disconnect(inuse_connections=False)
        if self._asynchronous is not None:
            self._asynchronous.distrust()

    def close(self) -> None:
        """As `Backend.close`."""
        if self._listener is not None:
            self._listener.close()
        if self._owns_client:
            self.client.close()

    def _run(self, *command: Any) -> Any:
        try:
            if self._wire is not None:
                return self._wire.run(*command)
            return self.client.execute_command(*_joined(command))
        except self._errors as error:
            raise failed(error) from error

    def _transact(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers to commands that are one step."""
        with self._mapped_errors():
            if self._wire is not None:
                return self._wire.transact(commands)
            with self.client.pipeline(transaction=True) as pipeline:
                for command in commands:
                    pipeline.execute_command(*_joined(command))
                return pipeline.execute()  # type: ignore[no-any-return]

    def _count(self, *command: Any) -> int:
        found = self._run(*command)
        self._expect(is_count(found), "a number", found)
        return found  # type: ignore[no-any-return]

    def _checked_values(self, found: Any, count: int) -> Sequence[Buffer | None]:
        self._expect(are_values(found, count), f"{count} values", found)
        return found  # type: ignore[no-any-return]

    def _expect(self, holds: bool, expected: str, found: Any) -> None:
        if not holds:
            self.distrust()
            raise StoreError(f"redis: expected {expected}, found {found!r:.100}")

    def _mapped_errors(self) -> _Mapped:
        return _Mapped(self._errors)


def _expected(write: Write) -> list[Any]:
    """What `_CHECK` compares with."""
    stamps = write.stamps.values()
    lasts = (milliseconds or 0 for _, milliseconds in stamps)
    return [len(write.guards), len(stamps), *write.guards.values(), *(stamp for stamp, _ in stamps), *lasts]


def _joined(command: Sequence[Any]) -> list[Any]:
    """A command whose arguments are one piece each, as redis-py takes them."""
    return [b"".join(part) if isinstance(part, tuple) else part for part in command]


class _Mapped:
    """Within it, what redis-py raises is an error of framecache."""

    def __init__(self, errors: tuple[type[Exception], ...]) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._errors):
            raise failed(error) from error


def failed(error: Exception) -> StoreError:
    """The error of framecache for one of redis-py."""
    kind = type(error).__name__
    if "OOM" in str(error) or kind == "OutOfMemoryError":
        return NoRoom(f"redis: expected room to write, found {error}")
    return StoreError(f"redis: expected an answer, found {kind}: {error}")
