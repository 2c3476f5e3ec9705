"""The client's ground: what a cache is made of, what it tells, and how it is switched off."""

from __future__ import annotations

import sys
from contextvars import ContextVar

from framecache import _shared
from framecache._compute import Computer
from framecache._flight import Flights
from framecache._framecache import L1, MISSING, InvalidArgument, Store
from framecache._sealed import SealedStore
from framecache._settings import Settings, given
from framecache._shared import Shared
from framecache._tiers import TenantTiers, Tiers
from framecache._times import Lifetime, SystemClock, default_to
from framecache._url import directory_of, is_remote, size_of, store_of
from framecache._values import check_codec, check_compression, check_text, decode

TYPE_CHECKING = False  # importing typing would cost more than all of framecache
if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType
    from typing import Any, Literal

    from typing_extensions import Self

    from framecache._backend import Backend
    from framecache._events import Event
    from framecache._framecache import Clock, Keyring, Missing
    from framecache._remote import RemoteStore
    from framecache._times import Seconds

#: The caches that are bypassed in this context.
_bypassed: ContextVar[tuple[object, ...]] = ContextVar("framecache_bypassed", default=())


class Base:
    """A cache without its methods: tiers, settings, counters, and switches. `Cache` documents the arguments."""

    def __init__(
        self,
        url: object = None,
        *,
        store: str | Missing | None = MISSING,
        namespace: str | Missing = MISSING,
        ttl: Seconds | Missing | None = MISSING,
        l1: int | str | Missing | None = MISSING,
        codec: str | Missing = MISSING,
        compression: str | Missing | None = MISSING,
        max_value_bytes: int | Missing = MISSING,
        on_error: str | Missing = MISSING,
        keyring: Keyring | None = None,
        accept_plaintext_until: datetime | None = None,
        on_tamper: Literal["miss", "raise"] = "miss",
        l1_sealed: bool = False,
        clock: Clock | None = None,
    ) -> None:
        settings = Settings()
        given_url = settings.url if url is None else url
        self._namespace = check_text("namespace", given(namespace, MISSING, settings.namespace))
        self._ttl: Seconds | None = given(ttl, MISSING, settings.ttl)
        self._codec: str = check_codec(given(codec, MISSING, settings.codec))
        # What is to be sealed is compressed only where that was asked for beside the keyring.
        unsaid = settings.compression if keyring is None else None
        self._compression = check_compression(given(compression, MISSING, unsaid))
        self._max_value_bytes: int = given(max_value_bytes, MISSING, settings.max_value_bytes)
        on_error = given(on_error, MISSING, settings.on_error)
        _check(self._max_value_bytes, on_error, on_tamper, keyring, accept_plaintext_until)
        self._lifetime = Lifetime(self._ttl)
        self._keyring = keyring
        self._accept_plaintext_until = accept_plaintext_until
        self._l1_sealed = l1_sealed
        self._remote = is_remote(given_url)
        #: Where large entries of an engine have copies.
        self._copies_at = _copies_at(store, settings.store, self._remote)
        self._backend: Backend | None = backend_of(given_url) if self._remote else None
        self._owns_backend = self._backend is not given_url
        #: Without credentials, where it is one of an engine.
        self._url: str | None = given_url if self._backend is None else self._backend.place  # type: ignore[assignment]
        where = None if self._url is None or self._remote else store_of(self._url)
        self._path: str | None = None
        self._store_settings: dict[str, Any] = {}
        if where is not None:
            self._path, self._store_settings = where
        l1_bytes = _l1_bytes(given(l1, MISSING, settings.l1))
        self._has_store = self._path is not None or self._remote
        #: Whether what an engine answers is all that a read without L1 needs.
        self._is_plain_remote = self._remote and keyring is None and self._copies_at is None
        if not self._has_store and l1_bytes is None:
            raise InvalidArgument("l1: expected a size, as there is no other tier without a url, got None")
        if l1_sealed and (keyring is None or not self._has_store):
            raise InvalidArgument("l1_sealed: expected a keyring and a url with it, got none")
        if self._remote and self._compression is not None:
            raise InvalidArgument(f"compression: expected None beyond this machine, got {self._compression!r:.100}")
        if _has_tenants(keyring):
            l1_bytes = None
        # Guards of what is beyond this machine are kept here.
        self._epochs = L1(l1_bytes or 1, decode=decode, clock=clock) if self._remote else None
        self._listens = l1_bytes is not None
        opened = self._open(self._namespace, self._compression, keyring)
        memory = None
        if l1_bytes is not None:
            native: Any = opened._store if isinstance(opened, SealedStore) else opened
            memory = self._epochs or L1(l1_bytes, decode=decode, epochs=native, clock=clock)
        self._clock: Clock | type[SystemClock] = SystemClock if clock is None else clock
        self._shared = Shared(
            memory,
            self._clock,
            on_error,
            on_tamper == "raise",
            self._max_value_bytes,
            bool(self._store_settings.get("read_only")),
        )
        self._scope = self._shared.new_scope()
        self._tiers = self._tiers_over(opened, self._scope, keyring)
        self._flights = Flights()
        self._computer = Computer(self._tiers, self._flights)
        self._others: dict[tuple[str, str | None, Keyring | None], Computer] = {}
        self._l1 = memory
        # What functions ask first; without L1 it never has anything.
        self._calls = memory or L1(1, decode=decode)
        self._slow = 0
        self._closed = False
        self._disabled = settings.disable
        if self._disabled:
            self._slow_down(1)

    def _open(
        self, namespace: str, compression: str | None, keyring: Keyring | None
    ) -> Store | SealedStore | RemoteStore | None:
        store: Store | RemoteStore
        if self._backend is not None and self._epochs is not None:
            from framecache._remote import RemoteStore

            copies = None
            if self._copies_at is not None:
                from framecache._copies import Copies

                copies = Copies(*self._copies_at, self._backend.place, namespace, self._max_value_bytes)
            store = RemoteStore(self._backend, namespace, self._max_value_bytes, self._epochs, self._listens, copies)
        elif self._path is None:
            if _has_tenants(keyring):
                raise InvalidArgument("keyring: expected a url with one that has a tenant for each request, got none")
            return None
        else:
            store = Store(
                self._path,
                namespace=namespace,
                compression=compression if keyring is None else None,
                max_value_bytes=self._max_value_bytes,
                **self._store_settings,
            )
        if keyring is None:
            return store
        return SealedStore(
            store,
            keyring,
            namespace,
            accept_plaintext_until=self._accept_plaintext_until,
            compression=compression,
            max_value_bytes=self._max_value_bytes,
            l1_sealed=self._l1_sealed,
        )

    def _tiers_over(
        self, store: Store | SealedStore | RemoteStore | None, scope: int, keyring: Keyring | None
    ) -> Tiers:
        if keyring is None or keyring.has_one_tenant:
            return Tiers(self._shared, store, scope)
        return TenantTiers(self._shared, store, scope, keyring)

    # Telling

    def stats(self) -> dict[str, int]:
        """Return how often a value was found (``hit``) and why it was not.

        With two tiers, ``l1_hit`` and ``store_hit`` say where; ``joined``: by waiting for one who computed it.

        The reasons of misses: ``absent``, ``expired``, ``invalidated`` (a tag or the namespace), ``other_key`` (two
        keys with one hash), ``unreadable`` (not what was written, or the system refused), ``undecodable`` (an unknown
        codec, compression or type, a damaged payload, one that decompressed would be larger than `max_value_bytes`, a
        library that is not installed, a sealed entry without a keyring). With a keyring also why an entry was refused:
        ``not_sealed``, ``no_key`` (its master key is not in the keyring), ``wrong_key``, ``wrong_entry``,
        ``changed_header``, ``truncated``, ``changed``; ``tamper`` is all of these but ``no_key``.

        ``dropped`` counts what was not stored for want of time or room, ``superseded`` what was computed while its key
        or a tag was invalidated, ``unencodable`` and ``too_large`` results of functions that could not be stored,
        ``stale`` values served after their time, ``error`` failures of the store.
        """
        numbers = self._shared.counts.numbers()
        # Those that L1 answered at once, and those that took the long way through it.
        in_l1 = (0 if self._l1 is None else self._l1.stats()["hits"]) + numbers.pop("l1_hit", 0)
        in_store = numbers.pop("store_hit", 0)
        told = {"hit": in_l1 + in_store}
        if self._l1 is not None and self._has_store:
            told.update(l1_hit=in_l1, store_hit=in_store)
        return {name: number for name, number in {**told, **numbers}.items() if number}

    def health(self) -> dict[str, Any]:
        """Return the state of each tier: what L1 holds, and whether the store is used.

        ``store``: ``closed`` where all is well, ``open`` after failures, when it is left alone for a while,
        ``half-open`` when it is about to be tried; ``none`` without one. ``errors`` counts its failures. ``engine``
        says what is known of an engine, ``copies`` how the copies in `store` are used.
        """
        engine = {} if self._backend is None else {"engine": self._backend.health()}
        inner: Any = getattr(self._tiers.store, "_store", self._tiers.store)
        copies = getattr(inner, "copies", None)
        return {
            **engine,
            **({} if copies is None else {"copies": copies.health()}),
            "enabled": not self._disabled,
            "l1": None if self._l1 is None else self._l1.stats(),
            "store": "none" if not self._has_store else self._shared.breaker.state,
            "errors": self._shared.counts.numbers().get("error", 0),
        }

    def usage(self) -> dict[str, int]:
        """Return what the directory uses: bytes of index and blobs, reserved ones, and those pinned by views of old
        blobs.

        With them: how many ``blobs`` there are, ``max_bytes``, and how many entries this cache evicted, found expired
        and found damaged.

        Raises:
            Unsupported: a cache in memory alone, or in an engine.
        """
        return self._opened().opened("usage").stats()

    def verify(self) -> dict[str, int]:
        """Check every entry of the directory; remove those that are damaged, and files that no entry names.

        Returns:
            How many entries are ``whole``, how many were ``damaged``, and how many files were ``orphans``.

        Raises:
            Unsupported: a cache in memory alone, or in an engine.
        """
        whole, damaged, orphans = self._opened().opened("verify").verify()
        return {"whole": whole, "damaged": damaged, "orphans": orphans}

    def add_hook(self, hook: Callable[[Event], object]) -> None:
        """Call `hook` with a `framecache.Event` for everything that happens, in the thread in which it does; hits are
        slower then. What it raises is logged, at most once a minute, and goes no further.
        """
        if not callable(hook):
            raise InvalidArgument(f"hook: expected a callable, got {hook!r:.100}")
        self._shared.add_hook(hook)
        self._slow_down(1)

    def remove_hook(self, hook: Callable[[Event], object]) -> None:
        """Do not call `hook` any more."""
        if not self._shared.remove_hook(hook):
            raise InvalidArgument(f"hook: expected one that was added, got {hook!r:.100}")
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
        with _shared.mutex:
            self._slow += by
            self._calls.slow = self._slow

    def _lifetime_of(self, ttl: Seconds | Missing | None, max_age: Seconds | None) -> Lifetime:
        """How long an entry lasts that these arguments are given for."""
        if ttl is MISSING and max_age is None:
            return self._lifetime
        return Lifetime(default_to(ttl, self._ttl), max_age)

    def _calls_through(self) -> bool:
        """Whether functions are just called now."""
        return self._closed or self._is_bypassed()

    def _computer_for(self, namespace: str, compression: str | None, keyring: Keyring | None) -> Computer:
        """The computer of a namespace, of a way to compress new entries, and of a keyring, which memory has none of."""
        place = (namespace, compression, keyring)
        if not self._has_store and not _has_tenants(keyring):
            place = (namespace, None, None)
            own = namespace == self._namespace
        else:
            own = place == (self._namespace, self._compression, self._keyring)
        if own:
            return self._computer
        if (known := self._others.get(place)) is not None:
            return known
        store = None if self._closed else self._open(*place)
        same = namespace == self._namespace and keyring is self._keyring
        scope = self._scope if same else self._shared.new_scope()
        made = Computer(self._tiers_over(store, scope, keyring), self._flights)
        with _shared.mutex:
            known = self._others.setdefault(place, made)
            if self._closed:
                known.close()
        return known

    def _of_namespace(self) -> list[Tiers]:
        """The tiers of the namespace, under each of the keyrings that its functions have."""
        found = {self._keyring: self._opened()}
        with _shared.mutex:
            for (namespace, _, keyring), computer in self._others.items():
                if namespace == self._namespace:
                    found.setdefault(keyring, computer.tiers)
        return list(found.values())

    def close(self) -> None:
        """Close the cache. Values and views that were read stay valid; functions are just called. Twice is fine."""
        with _shared.mutex:
            if self._closed:
                return
            self._closed = True
            self._slow_down(1)
            for computer in (self._computer, *self._others.values()):
                computer.close()
        if self._backend is not None and self._owns_backend:
            self._backend.close()
        if self._l1 is not None:
            self._l1.clear()

    def __enter__(self) -> Self:
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


class Bypass:
    """Within it, a cache is not used."""

    def __init__(self, cache: Base) -> None:
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


def _has_tenants(keyring: Keyring | None) -> bool:
    """Whether each request has a tenant of its own."""
    return keyring is not None and not keyring.has_one_tenant


def backend_of(url: Any) -> Backend:
    """The engine that a URL or a client of redis-py stands for, or the backend itself."""
    if isinstance(url, str) and "+cluster://" in url:
        from framecache._redis_cluster import Cluster

        return Cluster.from_url(url)
    from framecache._redis_clients import is_client, is_cluster

    if is_client(url) and is_cluster(url):
        from framecache._redis_cluster import Cluster

        return Cluster(url)
    if isinstance(url, str) or is_client(url):
        from framecache._redis import Redis

        return Redis.from_url(url) if isinstance(url, str) else Redis(url)
    from framecache._backend import Backend

    if isinstance(url, Backend):
        return url
    raise InvalidArgument(f"url: expected a str, a client of redis-py or a backend, got {type(url).__name__}")


def _copies_at(store: Any, setting: str | None, remote: bool) -> tuple[str, dict[str, Any]] | None:
    """The directory of a `store` argument; that of the environment counts only for an engine."""
    if store is MISSING:
        store = setting if remote else None
    if store is None:
        return None
    if not remote:
        raise InvalidArgument("store: expected the url of an engine with it; 'file:///path' as url is a store itself")
    return directory_of(store)


def _l1_bytes(l1: int | str | None) -> int | None:
    if l1 is None:
        return None
    size = size_of("l1", l1) if isinstance(l1, str) else l1
    if type(size) is not int or not 0 < size <= sys.maxsize:
        raise InvalidArgument(f"l1: expected None, a size such as '256MiB' or a number of bytes, got {l1!r:.100}")
    return size


def _check(
    max_value_bytes: object,
    on_error: object,
    on_tamper: object,
    keyring: Keyring | None,
    accept_plaintext_until: datetime | None,
) -> None:
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
