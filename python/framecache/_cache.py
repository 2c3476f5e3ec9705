"""The client: methods for threads, methods for event loops, and a decorator."""

from __future__ import annotations

from framecache._framecache import L1, MISSING, InvalidArgument
from framecache._settings import given
from framecache._stream import StreamMethods
from framecache._times import default_to
from framecache._values import check_compression, check_text, decode

TYPE_CHECKING = False  # importing typing would cost more than all of framecache
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, ParamSpec, TypeVar, overload

    from framecache._framecache import Keyring, Missing
    from framecache._times import Seconds
    from framecache._typed import AsyncCachedFunction, CachedFunction, Decorator

    P = ParamSpec("P")
    R = TypeVar("R")


class Cache(StreamMethods):
    """A cache in memory, and in a directory that all processes of this user share, if it is given one.

    Values are bytes-like objects, Arrow tables (anything with `__arrow_c_stream__` or `__arrow_c_array__`), pandas
    objects, and every Python value that `framecache.msgpack` keeps. What comes back is decoded from what was stored and
    never the object that was stored; what may be changed is decoded anew for each caller.

    A cache is also a decorator for functions: ``@cache`` or ``@cache(ttl=300)``.

    What cannot be read is a miss, counted in `stats()` and logged at most once a minute. Arguments that are not given
    are taken from the environment, from ``FRAMECACHE_URL`` for `url` and so on.

    Args:
        url: ``None`` or ``memory://``: this process' memory alone. ``file:///path``: a directory, which is created with
            mode 0700; one that is not owned by the effective user, or open to group or others, is refused with
            `StoreError`. ``file:``: the user's cache directory. Settings of the store follow as a query,
            ``file:///path?max_bytes=2GiB&durability=power``; `proto-docs/store.md` lists them. ``redis://host:port/db``,
            ``rediss://``, ``unix://``: a Redis or Valkey server, for which a `redis.Redis`, `redis.asyncio.Redis` or
            `framecache.redis.Redis` can stand too, and any `framecache.backend.Backend`.
        store: ``file:///path``, with settings as of `url`: a directory of this machine that keeps copies of an engine's
            entries of more than 16 KiB, for all processes of this user. A read then asks the engine for an entry's
            head, and maps the copy if there is one: it is as up to date as without, and the value does not travel.
            `None`: there is no such tier.
        namespace: Keys of one namespace are apart from those of all others in the same directory.
        ttl: Seconds or a timedelta after which what is stored is no longer served, where `set` or a function gives
            none; `None`: never.
        l1: How much memory the first tier may take, a number of bytes or a size such as ``"256MiB"``, which is the
            default; `None`: there is no such tier.
        codec: How values are encoded: ``"auto"`` by their types, ``"msgpack"``, ``"json"``.
        compression: How the payloads of new entries in the directory are compressed: `None`; ``"lz4"``;
            ``"zstd:LEVEL"`` with a level from 1 to 22; ``"zstd"``, which is level 1; ``"auto"``, which is LZ4 where
            that saves a tenth of the bytes. Entries are read however they were written. What is compressed cannot be
            read in
            place: a read decompresses it into memory of its own.
        max_value_bytes: The largest payload that is stored, and the largest that a compressed entry may become.
            Entries that are not compressed are read whatever their size. 1 GiB.
        on_error: What happens where the directory fails: ``"count"``, the default: reads are misses, writes are
            dropped, both are counted. ``"raise"`` the `StoreError`.
        keyring: Seals every entry in the directory, and opens no other: the store sees neither values nor keys, and
            what it changed is refused and removed. Sealed entries are compressed only where `compression` is given
            beside it: their size then tells something of what is in them. With a keyring that has a tenant for each
            request, there is no `l1`.
        accept_plaintext_until: Until when entries that are not sealed are served too, for the time in which a cache
            changes over to a keyring. A datetime with a time zone.
        l1_sealed: Keep ciphertext in `l1` too, and open it for each hit. If not, what this process has read from the
            directory stands in its memory as it is.
        on_tamper: What `get` does about an entry that is refused for any other reason than a key that the keyring does
            not have: ``"miss"``, counted and logged, or ``"raise"`` the `EntryRefused`.
        clock: Tells the time, for tests: a `framecache.testing.Clock`.
    """

    if TYPE_CHECKING:

        @overload
        def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
            self, function: Callable[P, Coroutine[Any, Any, R]], /
        ) -> AsyncCachedFunction[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
        @overload
        def __call__(
            self,
            /,
            *,
            ttl: Seconds | Missing | Callable[[Any], Seconds | None] | None = ...,
            tags: Iterable[str] | Callable[[Any], Iterable[str]] = ...,
            key: Callable[..., object] | None = ...,
            name: str | None = ...,
            ignore: Iterable[str] = ...,
            version: object = ...,
            codec: str | None = ...,
            compression: str | Missing | None = ...,
            cache_if: Callable[[Any], object] | None = ...,
            jitter: float = ...,
            stale_for: Seconds = ...,
            stale_if_error: Seconds = ...,
            share: bool = ...,
            views: bool = ...,
            lock: bool | Seconds = ...,
            namespace: str | None = ...,
            keyring: Keyring | None = ...,
        ) -> Decorator: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        ttl: Seconds | Missing | Callable[[Any], Seconds | None] | None = MISSING,
        tags: Iterable[str] | Callable[[Any], Iterable[str]] = (),
        key: Callable[..., object] | None = None,
        name: str | None = None,
        ignore: Iterable[str] = (),
        version: object = None,
        codec: str | None = None,
        compression: str | Missing | None = MISSING,
        cache_if: Callable[[Any], object] | None = None,
        jitter: float = 0.1,
        stale_for: Seconds = 0,
        stale_if_error: Seconds = 0,
        share: bool = False,
        views: bool = False,
        lock: bool | Seconds = True,
        namespace: str | None = None,
        keyring: Keyring | None = None,
    ) -> Any:
        """Cache the results of a function, of a coroutine function, or of a method: ``@cache`` or ``@cache(ttl=300)``.

        A result is kept under the function's identity (module, qualified name, what its code does or its `version`) and
        its arguments, by value and type: ``1``, ``1.0``, ``True`` and ``"1"`` are different calls, ``f(1)`` and
        ``f(x=1)`` the same. While one caller computes it, all others wait for that. An exception is not kept.

        Args:
            function: What to cache; without it, a decorator is returned.
            ttl: Seconds or a timedelta for which a result is served; `None`: for ever; a callable gives that of a
                result. The cache's, if not given.
            tags: What `invalidate_tags` can make results misses by; a callable gives those of a result.
            key: Called with the arguments of each call; what it returns counts in their place.
            name: What the function is called in keys, instead of its module and qualified name.
            ignore: Parameters that do not count.
            version: Anything that changes when results of older code are not to be used any more; what the function's
                own code does, if not given.
            codec: How results are encoded; as the cache does, if not given.
            compression: As of the cache, if not given; `None` with a `keyring`.
            cache_if: Called with a result; it is kept if this is true.
            jitter: Up to which part of `ttl` is taken off at random, so that what was computed together does not end
                together.
            stale_for: Seconds or a timedelta after `ttl` in which a result is still served, while it is computed anew.
            stale_if_error: Seconds or a timedelta after `ttl` in which a result is still served if computing it anew
                raises; that is tried again after 5 seconds.
            share: Give all callers the same object, whatever its type: who changes it changes it for all.
            views: Decode to read-only views, as `get` does.
            lock: Seconds for which a caller waits for another one, in this process or any that shares the directory,
                and then computes the result itself; True is 60, False 0: everybody computes.
            namespace: Of the results; the cache's, if not given.
            keyring: Seals the results in the directory; the cache's, if not given. The cache's own methods do not find
                them; `clear` removes them, and `invalidate_tags` of a cache that has the function.

        Returns:
            The function with attributes: ``key(*args)``, the key of a call; ``get(*args)``, its cached result or
            `None`; ``set(result, *args)``; ``invalidate(*args)``; ``refresh(*args)``, computed anew; ``warm(*args)``,
            computed if it is not cached; ``cache_info()``; ``cache_clear()``; ``__wrapped__``, the function itself.
            Those of a coroutine function are coroutine functions, except ``key``, ``cache_info`` and ``cache_clear``.
            Those of a method take the instance first.

        Raises:
            InvalidArgument: an option outside its range, a generator function.
            EncodeError: a function that closes over what keys cannot be made of; at a call, arguments of that kind,
                and at the first call a result that no codec takes.
        """
        from framecache._function import Options, wrap

        options = Options(
            ttl=default_to(ttl, self._ttl) if not callable(ttl) else ttl,
            tags=tags,
            key=key,
            name=name,
            ignore=ignore,
            version=version,
            codec=self._codec if codec is None else codec,
            cache_if=cache_if,
            jitter=jitter,
            stale_for=stale_for,
            stale_if_error=stale_if_error,
            share=share,
            views=views,
            lock=lock,
        )
        own = keyring is None or keyring is self._keyring
        computer = self._computer_for(
            self._namespace if namespace is None else check_text("namespace", namespace),
            check_compression(given(compression, MISSING, self._compression if own else None)),
            self._keyring if keyring is None else keyring,
        )
        if share and self._l1_sealed:
            raise InvalidArgument("share: expected False with l1_sealed, which keeps no objects, got True")
        calls = self._calls if computer.tiers.l1 is self._l1 else L1(1, decode=decode)

        def make(kind: Any, function: Callable[..., Any]) -> Any:
            return kind(function, options, computer.tiers, computer, self._calls_through, calls)

        return (lambda function: wrap(function, make)) if function is None else wrap(function, make)
