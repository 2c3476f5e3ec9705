"""The client: what users call."""

from __future__ import annotations

import sys
import threading
from contextvars import ContextVar

from framecache._acache import AsyncMethods
from framecache._compute import Computer, Plan
from framecache._entry import Entry
from framecache._flight import Flights
from framecache._framecache import L1, MISSING, FrameError, InvalidArgument, Store, StoreError
from framecache._sealed import SealedStore
from framecache._settings import Settings, given
from framecache._tiers import Found, Shared, Tiers, frame_of
from framecache._times import Lifetime, SystemClock, default_to, milliseconds, now_by
from framecache._url import size_of, store_of
from framecache._values import check_codec, decode

TYPE_CHECKING = False  # importing typing would cost more than all of framecache
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Final, Literal, ParamSpec, TypeVar, overload

    from framecache._events import Event
    from framecache._framecache import Clock, Frame, Keyring, Missing
    from framecache._times import Seconds
    from framecache._typed import AsyncCachedFunction, CachedFunction, Decorator

    P = ParamSpec("P")
    R = TypeVar("R")

#: The caches that are bypassed in this context.
_bypassed: ContextVar[tuple[object, ...]] = ContextVar("framecache_bypassed", default=())
#: What the environment says, read once, at the first cache.
_settings: Settings | None = None


def _from_environment() -> Settings:
    global _settings
    if _settings is None:
        _settings = Settings()
    return _settings


class Cache(AsyncMethods):
    """A cache in memory, and in a directory that all processes of this user share, if it is given one.

    Values are bytes-like objects, Arrow tables (anything with `__arrow_c_stream__` or `__arrow_c_array__`), pandas
    objects, and every Python value that `framecache.msgpack` keeps. What comes back is decoded from what was stored and
    never the object that was stored; what may be changed is decoded anew for each caller.

    A cache is also a decorator for functions: ``@cache`` or ``@cache(ttl=300)``.

    What cannot be read is a miss, counted in `stats()` and logged at most once a minute. Arguments that are not given are
    taken from the environment, from ``FRAMECACHE_URL`` for `url` and so on.

    Args:
        url: ``None`` or ``memory://``: this process' memory alone. ``file:///path``: a directory, which is created with
            mode 0700; one that is not owned by the effective user, or open to group or others, is refused with
            `StoreError`. ``file:``: the user's cache directory. Settings of the store follow as a query,
            ``file:///path?max_bytes=2GiB&durability=power``; `proto-docs/store.md` lists them.
        namespace: Keys of one namespace are apart from those of all others in the same directory.
        ttl: Seconds or a timedelta after which what is stored is no longer served, where `set` or a function gives none;
            `None`: never.
        l1: How much memory the first tier may take, a number of bytes or a size such as ``"256MiB"``, which is the
            default; `None`: there is no such tier.
        codec: How values are encoded: ``"auto"`` by their types, ``"msgpack"``, ``"json"``.
        compression: How the payloads of new entries in the directory are compressed: `None`; ``"lz4"``;
            ``"zstd:LEVEL"`` with a level from 1 to 22; ``"zstd"``, which is level 1; ``"auto"``, which is LZ4 where that
            saves a tenth of the bytes. Entries are read however they were written. What is compressed cannot be read in
            place: a read decompresses it into memory of its own.
        max_value_bytes: The largest payload that is stored, and the largest that a compressed entry may become.
            Entries that are not compressed are read whatever their size. 1 GiB.
        on_error: What happens where the directory fails: ``"count"``, the default: reads are misses, writes are dropped,
            both are counted. ``"raise"`` the `StoreError`.
        keyring: Seals every entry in the directory, and opens no other: the store sees neither values nor keys, and what
            it changed is refused. Sealed entries are not compressed, which would let their size tell what is in them.
            What this process has read stands in its memory as it is.
        accept_plaintext_until: Until when entries that are not sealed are served too, for the time in which a cache
            changes over to a keyring. A datetime with a time zone.
        on_tamper: What `get` does about an entry that is refused for any other reason than a key that the keyring does
            not have: ``"miss"``, counted and logged, or ``"raise"`` the `EntryRefused`.
        clock: Tells the time, for tests: a `framecache.testing.Clock`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | Missing = MISSING,
        ttl: Seconds | None | Missing = MISSING,
        l1: int | str | None | Missing = MISSING,
        codec: str | Missing = MISSING,
        compression: str | None | Missing = MISSING,
        max_value_bytes: int | Missing = MISSING,
        on_error: str | Missing = MISSING,
        keyring: Keyring | None = None,
        accept_plaintext_until: datetime | None = None,
        on_tamper: Literal["miss", "raise"] = "miss",
        clock: Clock | None = None,
    ) -> None:
        settings = _from_environment()
        self._url = settings.url if url is None else url
        self._namespace: str = given(namespace, MISSING, settings.namespace)
        self._ttl: Seconds | None = given(ttl, MISSING, settings.ttl)
        self._codec: str = check_codec(given(codec, MISSING, settings.codec))
        self._compression: str | None = given(compression, MISSING, settings.compression)
        self._max_value_bytes: int = given(max_value_bytes, MISSING, settings.max_value_bytes)
        on_error = given(on_error, MISSING, settings.on_error)
        _check(self._compression, self._max_value_bytes, on_error, on_tamper, keyring, accept_plaintext_until)
        if self._ttl is not None:
            milliseconds(self._ttl)
        self._keyring = keyring
        self._accept_plaintext_until = accept_plaintext_until
        where = None if self._url is None else store_of(self._url)
        self._path, self._store_settings = (None, {}) if where is None else where
        l1_bytes = _l1_bytes(given(l1, MISSING, settings.l1))
        if self._path is None and l1_bytes is None:
            raise InvalidArgument("l1: expected a size, as there is no other tier without a url, got None")
        store = self._open(self._namespace, self._compression)
        native = store._store if isinstance(store, SealedStore) else store
        memory = None if l1_bytes is None else L1(l1_bytes, decode=decode, epochs=native, clock=clock)
        self._clock: Clock | SystemClock = SystemClock() if clock is None else clock
        self._shared = Shared(memory, self._clock, on_error, on_tamper == "raise", self._max_value_bytes)
        self._tiers = Tiers(self._shared, store)
        self._flights = Flights()
        self._computer = Computer(self._tiers, self._flights)
        self._others: dict[tuple[str, str | None], Computer] = {}
        self._l1 = memory
        # What functions ask first; without L1 it never has anything.
        self._calls = memory or L1(1, decode=decode)
        self._mutex = threading.Lock()
        self._slow = 0
        self._closed = False
        self._disabled = settings.disable
        if self._disabled:
            self._slow_down(1)

    def _open(self, namespace: str, compression: str | None) -> Store | SealedStore | None:
        if self._path is None:
            return None
        store = Store(
            self._path,
            namespace=namespace,
            compression=compression,
            max_value_bytes=self._max_value_bytes,
            **self._store_settings,
        )
        if self._keyring is None:
            return store
        return SealedStore(store, self._keyring, namespace, self._accept_plaintext_until)

    # Reading

    def get(self, key: str, default: Any = None, *, views: bool = False, require_zero_copy: bool = False) -> Any:
        """Return the value stored under `key`, or `default`.

        Values of immutable types (str, int, tuples and the like), Arrow tables and read-only views are shared by all
        callers. bytearray, lists, dicts and other values are rebuilt for each. pandas columns that may be written are
        copied, all others stand on the frame. The payload of a compressed entry is decompressed first; all the same goes
        for that.

        Args:
            key: What the value was stored under.
            default: What to return on a miss.
            views: Return read-only views of the frame where they can be: memoryviews for bytes and bytearray, pandas
                columns that cannot be written; inside other values arrays of 4 KiB and bytes of 64 KiB and more.
            require_zero_copy: Raise `CopyRequired`, naming the column and why, instead of copying or decompressing.
        """
        if not self._slow and not views and self._l1 is not None and not require_zero_copy:
            value = self._l1.get(self._tiers.scope, key)
            if value is not MISSING:
                return value
        found = self._find(key, views, require_zero_copy)
        return found.value if isinstance(found, Found) else default

    def _find(
        self, key: str, views: bool = False, require_zero_copy: bool = False, at_hand: bool = False
    ) -> Found | str:
        """Look a value up; return it, or the reason for a miss. Count which."""
        if self._is_bypassed():
            return "bypassed"
        tiers = self._opened()
        if not isinstance(key, str):
            raise InvalidArgument(f"key: expected a str, got {type(key).__name__}")
        found = tiers.find(
            tiers.canonical(key), key, views=views, require_zero_copy=require_zero_copy, at_hand=at_hand, own=False
        )
        if found != "elsewhere":
            self._shared.counts.add(f"{found.tier}_hit" if isinstance(found, Found) else found)
        return found

    def get_many(self, keys: Iterable[str], *, views: bool = False) -> dict[str, Any]:
        """Return the values that are stored under `keys`. Keys without one are left out.

        Without `l1` they are all read at one moment.
        """
        keys = _texts("keys", keys)
        if self._l1 is None and isinstance(self._tiers.store, Store) and not self._slow:
            return self._read_at_once(self._tiers.store, keys, views)
        found = ((key, self.get(key, MISSING, views=views)) for key in keys)
        return {key: value for key, value in found if value is not MISSING}

    def _read_at_once(self, store: Store, keys: list[str], views: bool) -> dict[str, Any]:
        counts = self._shared.counts
        values: dict[str, Any]
        try:
            values, rest = store.get_many(keys, now_by(self._clock), views)
        except (ValueError, StoreError):
            # Which of them it is shows when they are read one by one.
            found = ((key, self._find(key, views)) for key in keys)
            return {key: one.value for key, one in found if isinstance(one, Found)}
        counts.add("store_hit", len(values))
        for key, encoded in rest.items():
            if isinstance(encoded, str):
                counts.add(encoded)
            elif isinstance(one := self._find(key, views), Found):
                values[key] = one.value
        return {key: values[key] for key in keys if key in values}

    def get_entry(self, key: str, *, views: bool = False) -> Entry | None:
        """Return the value stored under `key` with what is known about it, or `None`."""
        found = self._find(key, views)
        if not isinstance(found, Found):
            return None
        tiers, now = self._opened(), now_by(self._clock)

        def frame() -> Frame:
            stored = None if tiers.store is None else tiers.store.entry(key, now)
            return frame_of(found, key) if stored is None else stored[0]

        in_place = found.encoded is None if found.tier == "l1" else _in_place(found)
        return Entry(
            key,
            found.value,
            found.created / 1000,
            max(0, now - found.created) / 1000,
            None if found.deadline is None else found.deadline / 1000,
            None if found.until is None else found.until / 1000,
            found.tier,
            found.size,
            in_place,
            frame,
        )

    def contains(self, key: str) -> bool:
        """Whether `get` would find a value; it may be gone by the time `get` is called."""
        if self._is_bypassed() or not isinstance(key, str):
            return False
        tiers = self._opened()
        return tiers.contains(tiers.canonical(key), key)

    def __contains__(self, key: object) -> bool:
        """As `contains`."""
        return isinstance(key, str) and self.contains(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order; what changes meanwhile may be in it or not.

        Those of functions' results are among them.
        """
        return self._opened().keys(prefix)

    # Writing

    def set(
        self,
        key: str,
        value: object,
        *,
        ttl: Seconds | None | Missing = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        if_absent: bool = False,
        codec: str | None = None,
    ) -> bool:
        """Store `value` under `key`, replacing what was there. Other readers see the old value or the new one.

        Args:
            key: At most 64 KiB of UTF-8.
            value: See the class.
            ttl: Seconds or a timedelta after which it is no longer served; `None`: never; the cache's if not given.
                Fractions are kept to the millisecond.
            max_age: Seconds or a timedelta beyond which `touch` cannot keep it; the `ttl` if not given.
            tags: What `invalidate_tags` can make it a miss by; at most 1000.
            if_absent: Leave what is stored as it is, if there is something.
            codec: How it is encoded; as the cache does if not given. ``"json"`` is for entries that others read: see
                `framecache.json`. It does not keep every type: tuples come back as lists, dates and UUIDs as str.

        Returns:
            Whether it was stored. It is not where `if_absent` found a value, where another process wrote for longer than
            the store waits, where there was no room, and where the store failed; the last three are counted in `stats()`.

        Raises:
            EncodeError: no codec takes the value (a `TypeError`). With ``codec="json"`` any `TypeError` of
                `framecache.json.dumps`.
            InvalidArgument: a key that is too long; a time that is not above 0 and finite (a `ValueError`).
            StoreError: with ``on_error="raise"``, the file cannot be written, as when the disk is full (an `OSError`).
            ValueTooLarge: a payload of more than `max_value_bytes` (a `ValueError`).
        """
        return self._put({key: value}, ttl, max_age, tags, if_absent, codec) == 1

    def _put(
        self,
        values: Mapping[str, object],
        ttl: Seconds | None | Missing,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        if_absent: bool = False,
        codec: str | None = None,
    ) -> int:
        lifetime = Lifetime(default_to(ttl, self._ttl), max_age)
        tags = _texts("tags", tags)
        codec = self._codec if codec is None else check_codec(codec)
        tiers = self._opened()
        for key in values:
            if not isinstance(key, str):
                raise InvalidArgument(f"key: expected a str, got {type(key).__name__}")
        if self._is_bypassed():
            return 0
        for key in values:
            self._flights.fence(tiers.scope, key)
        created = now_by(self._clock)
        deadline, until = lifetime.ends(created)
        stored = tiers.put(
            [(tiers.canonical(key), key, value) for key, value in values.items()],
            created,
            deadline,
            until,
            codec=codec,
            tags=tags,
            if_absent=if_absent,
        )
        return stored.count("written")

    def set_many(
        self,
        values: Mapping[str, object],
        *,
        ttl: Seconds | None | Missing = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """Store each value under its key, as `set` does but all at once; return how many were stored.

        In a directory, an error of one value is raised before anything is stored.
        """
        return self._put(values, ttl, max_age, tags)

    def get_or_set(
        self,
        key: str,
        compute: Callable[[], R],
        *,
        ttl: Seconds | None | Missing = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        lock: bool | Seconds = True,
    ) -> R:
        """Return the value stored under `key`; if there is none, what `compute` returns, which is stored.

        Args:
            key: At most 64 KiB of UTF-8.
            compute: Called without arguments, once, however many threads and processes ask for the key meanwhile.
            ttl: As for `set`.
            max_age: As for `set`.
            tags: As for `set`.
            lock: Seconds to wait for somebody else who computes it, after which the caller does; True is 60, False 0.

        Raises:
            RecursiveCall: `compute` asks for the same key (a `RecursionError`).
            Exception: what `compute` raises, for all who waited for it; nothing is stored.
            EncodeError: no codec takes what it returned.
        """
        if self._is_bypassed():
            return compute()
        plan = self._plan(ttl, max_age, tags, lock)
        return self._computer.value(plan, self._opened().canonical(key), key, compute)  # type: ignore[no-any-return]

    def _plan(
        self, ttl: Seconds | None | Missing, max_age: Seconds | None, tags: Iterable[str], lock: bool | Seconds
    ) -> Plan:
        from framecache._function import limit_of

        lifetime = Lifetime(default_to(ttl, self._ttl), max_age)
        return Plan(lifetime, tags=_texts("tags", tags), codec=self._codec, lock=limit_of(lock), strict=True)

    def touch(self, key: str, ttl: Seconds | None | Missing = MISSING) -> bool:
        """Let what is stored under `key` be served for `ttl` from now on; return whether there was something.

        It is never served for longer than its `max_age`; `None` is for as long as that.

        Raises:
            StoreBusy: another process wrote for longer than the store waits (a `TimeoutError`).
        """
        ttl = default_to(ttl, self._ttl)
        return self._opened().touch(key, None if ttl is None else now_by(self._clock) + milliseconds(ttl))

    # Removing

    def delete(self, key: str) -> bool:
        """Remove the value stored under `key`; return whether there was one. Views of it stay valid.

        One that is being computed is not stored.

        Raises:
            StoreBusy: another process wrote for longer than the store waits (a `TimeoutError`).
        """
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove the values stored under `keys`, all at once; return how many there were. Raises as `delete`."""
        tiers, keys = self._opened(), _texts("keys", keys)
        for key in keys:
            self._flights.fence(tiers.scope, key)
        return tiers.delete([(tiers.canonical(key), key) for key in keys])

    def invalidate_tags(self, *tags: str) -> None:
        """Make all values that were stored with one of `tags` misses, at once. Raises as `delete`."""
        self._opened().invalidate(_texts("tags", tags))

    def clear(self) -> None:
        """Make all values of this namespace misses, at once. Raises as `delete`."""
        self._flights.fence_all(self._opened().scope)
        self._tiers.clear()

    # Telling

    def stats(self) -> dict[str, int]:
        """Return how often a value was found (``hit``) and why it was not.

        With two tiers, ``l1_hit`` and ``store_hit`` say where; ``joined``: by waiting for one who computed it.

        The reasons of misses: ``absent``, ``expired``, ``invalidated`` (a tag or the namespace), ``other_key`` (two keys
        with one hash), ``unreadable`` (not what was written, or the system refused), ``undecodable`` (an unknown codec,
        compression or type, a damaged payload, one that decompressed would be larger than `max_value_bytes`, a library
        that is not installed, a sealed entry without a keyring). With a keyring also why an entry was refused:
        ``not_sealed``, ``no_key`` (its master key is not in the keyring), ``wrong_key``, ``wrong_entry``,
        ``changed_header``, ``truncated``, ``changed``.

        ``dropped`` counts what was not stored for want of time or room, ``superseded`` what was computed while its key or
        a tag was invalidated, ``unencodable`` and ``too_large`` results of functions that could not be stored, ``stale``
        values served after their time, ``error`` failures of the store.
        """
        numbers = dict(self._shared.counts.numbers)
        in_l1 = numbers.pop("l1_hit", 0) + (0 if self._l1 is None else self._l1.stats()["hits"])
        in_store = numbers.pop("store_hit", 0)
        told = {"hit": in_l1 + in_store}
        if self._l1 is not None and self._path is not None:
            told.update(l1_hit=in_l1, store_hit=in_store)
        return {name: number for name, number in {**told, **numbers}.items() if number}

    def health(self) -> dict[str, Any]:
        """Return the state of each tier: what L1 holds, and whether the store is used.

        ``store``: ``closed`` where all is well, ``open`` after failures, when it is left alone for a while, ``half-open``
        when it is about to be tried; ``none`` without one. ``errors`` counts its failures.
        """
        return {
            "enabled": not self._disabled,
            "l1": None if self._l1 is None else self._l1.stats(),
            "store": "none" if self._path is None else self._shared.breaker.state,
            "errors": self._shared.counts.numbers.get("error", 0),
        }

    def usage(self) -> dict[str, int]:
        """Return what the directory uses: bytes of index and blobs, reserved ones, and those pinned by views of old blobs.

        With them: how many ``blobs`` there are, ``max_bytes``, and how many entries this cache evicted, found expired
        and found damaged.
        """
        return self._opened().opened(self._url).stats()

    def verify(self) -> dict[str, int]:
        """Check every entry of the directory; remove those that are damaged, and files that no entry names.

        Returns:
            How many entries are ``whole``, how many were ``damaged``, and how many files were ``orphans``.
        """
        whole, damaged, orphans = self._opened().opened(self._url).verify()
        return {"whole": whole, "damaged": damaged, "orphans": orphans}

    def add_hook(self, hook: Callable[[Event], object]) -> None:
        """Call `hook` with a `framecache.Event` for everything that happens; hits are slower then."""
        with self._mutex:
            self._shared.hooks = (*self._shared.hooks, hook)
        self._slow_down(1)

    def remove_hook(self, hook: Callable[[Event], object]) -> None:
        """Do not call `hook` any more."""
        with self._mutex:
            if hook not in self._shared.hooks:
                raise InvalidArgument(f"hook: expected one that was added, got {hook!r:.100}")
            hooks = list(self._shared.hooks)
            hooks.remove(hook)
            self._shared.hooks = tuple(hooks)
        self._slow_down(-1)

    # Switching off

    def bypass(self) -> Bypass:
        """A context manager within which nothing is read or stored, in this thread or task: functions are just called.

        Deleting and invalidating go on.
        """
        return Bypass(self)

    def _is_bypassed(self) -> bool:
        return bool(self._slow) and (self._disabled or self in _bypassed.get())

    def _slow_down(self, by: int) -> None:
        """Send all hits the long way, which knows about hooks and bypasses; or end that."""
        with self._mutex:
            self._slow += by
            self._calls.slow = self._slow

    def close(self) -> None:
        """Close the cache. Values and views that were read stay valid; functions are just called. Twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._slow_down(1)
        self._tiers.store = None
        for computer in self._others.values():
            computer.tiers.store = None
        if self._l1 is not None:
            self._l1.clear()

    def __enter__(self) -> Cache:
        """Return the cache itself."""
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Its URL."""
        return f"framecache.Cache({self._url!r})" if self._url is not None else "framecache.Cache()"

    def _opened(self) -> Tiers:
        if self._closed:
            raise InvalidArgument(f"{self!r}: expected an open cache, got a closed one")
        return self._tiers

    # Functions

    if TYPE_CHECKING:

        @overload
        def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncCachedFunction[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
        @overload
        def __call__(
            self,
            /,
            *,
            ttl: Seconds | None | Missing | Callable[[Any], Seconds | None] = ...,
            tags: Iterable[str] | Callable[[Any], Iterable[str]] = ...,
            key: Callable[..., object] | None = ...,
            name: str | None = ...,
            ignore: Iterable[str] = ...,
            version: object = ...,
            codec: str | None = ...,
            compression: str | None | Missing = ...,
            cache_if: Callable[[Any], object] | None = ...,
            jitter: float = ...,
            stale_for: Seconds = ...,
            stale_if_error: Seconds = ...,
            share: bool = ...,
            views: bool = ...,
            lock: bool | Seconds = ...,
            namespace: str | None = ...,
        ) -> Decorator: ...

    def __call__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        ttl: Seconds | None | Missing | Callable[[Any], Seconds | None] = MISSING,
        tags: Iterable[str] | Callable[[Any], Iterable[str]] = (),
        key: Callable[..., object] | None = None,
        name: str | None = None,
        ignore: Iterable[str] = (),
        version: object = None,
        codec: str | None = None,
        compression: str | None | Missing = MISSING,
        cache_if: Callable[[Any], object] | None = None,
        jitter: float = 0.1,
        stale_for: Seconds = 0,
        stale_if_error: Seconds = 0,
        share: bool = False,
        views: bool = False,
        lock: bool | Seconds = True,
        namespace: str | None = None,
    ) -> Any:
        """Cache the results of a function, of a coroutine function, or of a method: ``@cache`` or ``@cache(ttl=300)``.

        A result is kept under the function's identity (module, qualified name, what its code does or its `version`) and
        its arguments, by value and type: ``1``, ``1.0``, ``True`` and ``"1"`` are different calls, ``f(1)`` and ``f(x=1)``
        the same. While one caller computes it, all others wait for that. An exception is not kept.

        Args:
            function: What to cache; without it, a decorator is returned.
            ttl: Seconds or a timedelta for which a result is served; `None`: for ever; a callable gives that of a result.
                The cache's, if not given.
            tags: What `invalidate_tags` can make results misses by; a callable gives those of a result.
            key: Called with the arguments of each call; what it returns counts in their place.
            name: What the function is called in keys, instead of its module and qualified name.
            ignore: Parameters that do not count.
            version: Anything that changes when results of older code are not to be used any more; what the function's own
                code does, if not given.
            codec: How results are encoded; as the cache does, if not given.
            compression: As of the cache.
            cache_if: Called with a result; it is kept if this is true.
            jitter: Up to which part of `ttl` is taken off at random, so that what was computed together does not end
                together.
            stale_for: Seconds or a timedelta after `ttl` in which a result is still served, while it is computed anew.
            stale_if_error: Seconds or a timedelta after `ttl` in which a result is still served if computing it anew
                raises; that is tried again after 5 seconds.
            share: Give all callers the same object, whatever its type: who changes it changes it for all.
            views: Decode to read-only views, as `get` does.
            lock: Seconds for which a caller waits for another one, in this process or any that shares the directory, and
                then computes the result itself; True is 60, False 0: everybody computes.
            namespace: Of the results; the cache's, if not given.

        Returns:
            The function with attributes: ``key(*args)``, the key of a call; ``get(*args)``, its cached result or `None`;
            ``set(result, *args)``; ``invalidate(*args)``; ``refresh(*args)``, computed anew; ``warm(*args)``, computed if
            it is not cached; ``cache_info()``; ``cache_clear()``; ``__wrapped__``, the function itself. Those of a
            coroutine function are coroutine functions, except ``key``, ``cache_info`` and ``cache_clear``. Those of a
            method take the instance first.

        Raises:
            InvalidArgument: an option outside its range, a generator function.
            EncodeError: a function that closes over what keys cannot be made of; at a call, arguments of that kind, and at
                the first call a result that no codec takes.
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
        computer = self._computer_for(
            self._namespace if namespace is None else namespace, given(compression, MISSING, self._compression)
        )

        def make(kind: Any, function: Callable[..., Any]) -> Any:
            return kind(function, options, computer.tiers, computer, self._calls_through, self._calls)

        return (lambda function: wrap(function, make)) if function is None else wrap(function, make)

    def _calls_through(self) -> bool:
        """Whether functions are just called now."""
        return self._closed or self._is_bypassed()

    def _computer_for(self, namespace: str, compression: str | None) -> Computer:
        """The computer of a namespace, and of a way to compress new entries."""
        if (namespace, compression) == (self._namespace, self._compression):
            return self._computer
        with self._mutex:
            if (known := self._others.get((namespace, compression))) is None:
                tiers = Tiers(self._shared, self._open(namespace, compression))
                known = self._others[namespace, compression] = Computer(tiers, self._flights)
            return known


class Bypass:
    """Within it, a cache is not used."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._tokens: list[Any] = []

    def __enter__(self) -> None:
        """Switch the cache off in this context."""
        self._tokens.append(_bypassed.set((*_bypassed.get(), self._cache)))
        self._cache._slow_down(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Switch it on again."""
        _bypassed.reset(self._tokens.pop())
        self._cache._slow_down(-1)


def _in_place(found: Found) -> bool:
    """Whether a value that was read from the store stands on memory that was not copied."""
    if found.encoded is None:
        return isinstance(found.value, memoryview)
    payload, codec, _ = found.encoded
    return codec == "arrow" and payload.is_zero_copy


def _l1_bytes(l1: int | str | None) -> int | None:
    if l1 is None:
        return None
    size = size_of("l1", l1) if isinstance(l1, str) else l1
    if type(size) is not int or not 0 < size <= sys.maxsize:
        raise InvalidArgument(f"l1: expected None, a size such as '256MiB' or a number of bytes, got {l1!r:.100}")
    return size


def _check(
    compression: object,
    max_value_bytes: object,
    on_error: object,
    on_tamper: object,
    keyring: Keyring | None,
    accept_plaintext_until: datetime | None,
) -> None:
    if not isinstance(compression, str | None):
        raise InvalidArgument(f"compression: expected None or a str, got {type(compression).__name__}")
    if type(max_value_bytes) is not int or not 0 < max_value_bytes <= sys.maxsize:
        raise InvalidArgument(f"max_value_bytes: expected an int from 1 to {sys.maxsize}, got {max_value_bytes!r:.100}")
    for argument, value, expected in (
        ("on_error", on_error, ("count", "raise")),
        ("on_tamper", on_tamper, ("miss", "raise")),
    ):
        if value not in expected:
            raise InvalidArgument(f"{argument}: expected {expected[0]!r} or {expected[1]!r}, got {value!r:.100}")
    if keyring is None and accept_plaintext_until is not None:
        raise InvalidArgument("accept_plaintext_until: expected a keyring with it, got none")
    if keyring is not None and compression is not None:
        raise InvalidArgument(f"compression: expected None with a keyring, got {compression!r:.100}")


def _texts(argument: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidArgument(f"{argument}: expected several of them, got the str {texts!r:.100}; put it in a list")
    return list(texts)
