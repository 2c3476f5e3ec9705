"""Redis and Valkey as a backend, over redis-py. proto-docs/redis.md specifies what stands under which name."""

from __future__ import annotations

import asyncio
import os

from framecache._backend import Capabilities, NoRoom
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
from framecache._url import one_of, seconds_of, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from framecache._backend import AsyncBackend, Invalidations, Write
    from framecache._listener import Listener
    from framecache._redis_async import AsyncRedis

_MAX_BYTES: Final = 64 << 20
_LARGE: Final = 64 << 10
#: Seconds for which at most L1 serves what was changed, while the listener is on and whatever then fails.
BOUND: Final = PING_EVERY + SILENCE

# Every script names all of its keys. They are sent whole: the longest has 300 bytes, and none is ever unknown.
_WRITE: Final = """
local guards = tonumber(ARGV[1])
for i = 2, guards + 1 do
  if redis.call('GET', KEYS[i]) ~= ARGV[i] then return 0 end
end
if ARGV[guards + 3] == '' then redis.call('SET', KEYS[1], ARGV[guards + 2])
else redis.call('SET', KEYS[1], ARGV[guards + 2], 'PX', ARGV[guards + 3]) end
for i = guards + 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1"""
_STAMPS: Final = """
local stamps = {}
for i, key in ipairs(KEYS) do
  local ms = tonumber(ARGV[2 * i])
  stamps[i] = redis.call('GET', key)
  if not stamps[i] then
    stamps[i] = ARGV[2 * i - 1]
    if ms == 0 then redis.call('SET', key, stamps[i]) else redis.call('SET', key, stamps[i], 'PX', ms) end
  else
    local left = redis.call('PTTL', key)
    if left >= 0 and ms == 0 then redis.call('PERSIST', key)
    elseif left >= 0 and 2 * left < ms then redis.call('PEXPIRE', key, ms) end
  end
end
return stamps"""
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


class Redis:
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
        self._listener: Listener | None = None
        self._owns_client = is_url or given is not None
        self._asynchronous: AsyncRedis | None = None
        if given is not None:
            from framecache._redis_async import AsyncRedis

            self._asynchronous = AsyncRedis(given, failed, self._errors)

    _expects = "redis.Redis or a redis.asyncio.Redis"
    #: How others' changes are heard: ``tracking`` or ``publish``.
    _listens_by = "tracking"

    @staticmethod
    def _kind() -> type:
        import redis

        return redis.Redis

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

    def get(self, name: str) -> bytes | None:
        """As `Backend.get`."""
        return self.get_many([name])[0]

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""
        return self._run("MGET", *names)  # type: ignore[no-any-return]

    def peek(self, name: str, nbytes: int) -> bytes | None:
        """As `Backend.peek`."""
        return self._run("GETRANGE", name, 0, nbytes - 1) or None

    # Writing

    def set(self, write: Write) -> bool:
        """As `Backend.set`. Without guards, a large value does not go through a script, which would copy it."""
        if not write.guards and sum(memoryview(part).nbytes for part in write.parts) > _LARGE:
            return self.set_many([write])[0]
        return self._write(write)

    def _write(self, write: Write) -> bool:
        guards, value = write.guards, b"".join(write.parts)
        milliseconds = "" if write.milliseconds is None else write.milliseconds
        keys = [write.name, *guards, *write.removes]
        return bool(self._run("EVAL", _WRITE, len(keys), *keys, len(guards), *guards.values(), value, milliseconds))

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`; those without guards in one transaction."""
        plain = [write for write in writes if not write.guards]
        if plain:
            with self._mapped_errors(), self.client.pipeline(transaction=True) as pipeline:
                for write in plain:
                    pipeline.set(write.name, b"".join(write.parts), px=write.milliseconds)
                if removes := {name for write in plain for name in write.removes}:
                    pipeline.unlink(*removes)
                pipeline.execute()
        return [not write.guards or self.set(write) for write in writes]

    def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return self.delete_many([name]) > 0

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        return int(self._run("UNLINK", *names)) if names else 0

    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        return bool(self._run("EVAL", _TOUCH, 1, name, offset, part))

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`."""
        arguments = [part for ms in milliseconds for part in (os.urandom(8), ms or 0)]
        return self._run("EVAL", _STAMPS, len(names), *names, *arguments)  # type: ignore[no-any-return]

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        return bool(self._run("EVAL", _LEASE, 1, name, token, milliseconds))

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        return bool(self._run("EVAL", RENEW, 1, name, token, milliseconds))

    def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        return bool(self._run("EVAL", _RELEASE, 1, name, token))

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

    def close(self) -> None:
        """As `Backend.close`."""
        if self._listener is not None:
            self._listener.close()
        if self._owns_client:
            self.client.close()

    def _run(self, *command: Any) -> Any:
        try:
            return self.client.execute_command(*command)
        except self._errors as error:
            raise failed(error) from error

    def _mapped_errors(self) -> _Mapped:
        return _Mapped(self._errors)


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
