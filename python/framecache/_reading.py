"""What the tiers of one namespace have under a key: L1 is asked first, then the store.

Each entry has two names here: its *key*, a str, which the store keeps it under, and its *canonical* key, the bytes
that L1 compares. Those of a user's key are its UTF-8, those of a call its arguments.
"""

from __future__ import annotations

from types import CoroutineType

from framecache._asking import backend_of, has_loop_backend, here, in_loop, run_in_loop, settled
from framecache._framecache import (
    L1,
    MISSING,
    CopyRequired,
    DecodeError,
    Direct,
    EncodeError,
    EntryRefused,
    FrameError,
    InvalidArgument,
    Store,
    StoreBusy,
    StoreError,
)
from framecache._times import now_by
from framecache._values import SMALL, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Final, Literal, TypeVar
    from weakref import ReferenceType

    from framecache._asking import Operation
    from framecache._backend import Backend
    from framecache._framecache import Call, Frame, Reading
    from framecache._remote import RemoteStore
    from framecache._remote_read import Looked, Part
    from framecache._sealed import SealedStore
    from framecache._shared import Shared
    from framecache._values import Encoded

    T = TypeVar("T")
    #: What was asked for ahead: an entry, why it is none, or the reason for a miss.
    Ahead = Reading | Part | Looked | Exception

#: The longest key, in bytes of UTF-8, as in a store.
_LONGEST_KEY: Final = 64 * 1024


def is_light(ahead: Ahead | None) -> bool:
    """Whether what was asked for ahead is decoded in less time than another thread takes to begin."""
    if isinstance(ahead, tuple):
        return ahead[4] <= SMALL
    return ahead is not None and getattr(ahead, "nbytes", 0) <= SMALL


class Found:
    """An entry that was read.

    Attributes:
        value: Decoded.
        encoded: What it can be decoded from once more; `None` where the value is immutable.
        created: When it was written, in milliseconds since 1970-01-01 UTC.
        deadline: Until when it is fresh; `None`: for ever.
        until: Until when it may be served at all; `None`: for ever.
        size: Bytes of its payload, or of its frame in a store.
        tier: ``l1`` or ``store``.
    """

    __slots__ = ("created", "deadline", "encoded", "size", "tier", "until", "value")

    def __init__(
        self,
        value: Any,
        encoded: Encoded | None,
        created: int,
        deadline: int | None,
        until: int | None,
        size: int,
        tier: Literal["l1", "store"],
    ) -> None:
        self.value = value
        self.encoded = encoded
        self.created = created
        self.deadline = deadline
        self.until = until
        self.size = size
        self.tier = tier

    def again(self, views: bool = False) -> Any:
        """The value for one more caller, who may change it."""
        return self.value if self.encoded is None else decode(*self.encoded, views=views)


class Reader:
    """The tiers of one namespace, for reading.

    Args:
        shared: What all namespaces have in common.
        store: The store of this machine, if there is one.
        scope: The scope of its users' keys.
    """

    def __init__(self, shared: Shared, store: Store | SealedStore | RemoteStore | None, scope: int) -> None:
        self.shared = shared
        self.l1 = shared.l1
        self.store = store
        #: Reads the store where nothing is kept in memory.
        self.direct = (
            Direct(store, shared.clock, shared.counts.counters, decode, shared.counts.damaged)
            if self.l1 is None and isinstance(store, Store)
            else None
        )
        self.scope = scope
        self._calls: dict[str, list[tuple[int, ReferenceType[Call]]]] = {}

    def guards_alone(self) -> L1:
        """One for its guards, where there is no L1."""
        inner: Any = getattr(self.store, "_store", self.store)
        return getattr(inner, "epochs", None) or L1(1, decode=decode, epochs=inner)

    @property
    def backend(self) -> Backend | None:
        """The engine beyond this machine, if there is one."""
        return backend_of(self.store)

    async def in_loop(self, work: Callable[..., Operation[T]], *arguments: Any) -> T:
        """As `_asking.in_loop`, of these tiers."""
        return await in_loop(self.store, work, *arguments)

    def has_loop_backend(self) -> bool:
        """As `_asking.has_loop_backend`, of these tiers."""
        return has_loop_backend(self.store)

    # Names

    def canonical(self, key: str) -> bytes:
        """The canonical key of a user's key. In memory alone, that of a call whose key it is, if that has an entry.

        Raises:
            EncodeError: not a str.
            InvalidArgument: one that is too long.
            UnicodeEncodeError: one with lone surrogates.
        """
        if not isinstance(key, str):
            raise EncodeError(f"key: expected a str, got {type(key).__name__}")
        if self.store is None and "#" in key:
            for _, call in self._calls_of(key.rpartition("#")[0]):
                if (found := call.find(key)) is not None:
                    return found
        encoded = key.encode()
        if len(encoded) > _LONGEST_KEY:
            raise InvalidArgument(f"key: expected at most {_LONGEST_KEY} bytes of UTF-8, got {len(encoded)}")
        return self.scope.to_bytes(4, "little") + encoded

    def add_call(self, label: str, scope: int, call: Call) -> None:
        """Note which function has keys that begin with `label`, as long as there is that function."""
        from weakref import ref

        calls = [one for one in self._calls.get(label, ()) if one[1]() is not None]
        self._calls[label] = [*calls, (scope, ref(call))]

    def _calls_of(self, label: str) -> Iterator[tuple[int, Call]]:
        for scope, reference in self._calls.get(label, ()):
            if (call := reference()) is not None:
                yield scope, call

    # Reading

    def find(
        self,
        canonical: bytes,
        key: str,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        share: bool = False,
        at_hand: bool = False,
        own: bool = True,
        ahead: Ahead | None = None,
    ) -> Found | str:
        """Look an entry up; return it, or the reason for a miss.

        Args:
            canonical: Its canonical key.
            key: Its key.
            views: Decode to views of the frame.
            require_zero_copy: Raise `CopyRequired` where decoding would copy.
            stale: Return one past its deadline too.
            share: Keep in L1 the object itself, whatever its type.
            at_hand: Return ``elsewhere`` where a file must be opened, or an engine asked.
            own: Whether L1 keeps objects of this canonical key as they are decoded with `views`.
            ahead: What an engine beyond this machine was asked for already, and answered or not.
        """
        found: Found | str = "absent"
        if self.l1 is not None and ahead is None:
            in_l1 = self._find_in_l1(self.l1, canonical, key, views, require_zero_copy, stale)
            if in_l1 is not None:
                return in_l1
        if at_hand and self.backend is not None:
            return "elsewhere"
        if (store := self.store) is not None and (ahead is not None or self.shared.breaker.allows()):
            found = self._find_in_store(
                store, canonical, key, views, require_zero_copy, stale, share, at_hand, own, ahead
            )
        return found

    def note(self, found: Found | str, key: str, started: float = 0.0) -> None:
        """Count what a read came to, and tell the hooks.

        Args:
            found: What `find` returned; if that is ``elsewhere``, the read goes on.
            key: What was read.
            started: As of `Shared.started`.
        """
        if isinstance(found, Found):
            self.shared.counts.add(f"{found.tier}_hit")
            self.shared.emit("hit", found.tier, key, found.size, started)
        elif found != "elsewhere":
            self.shared.counts.add(found)
            self.shared.emit("miss", "l1" if self.store is None else "store", key, 0, started)

    def _find_in_l1(
        self, l1: L1, canonical: bytes, key: str, views: bool, require_zero_copy: bool, stale: bool
    ) -> Found | None:
        entry = l1.entry(canonical, stale)
        if entry is None:
            return None
        value, payload, codec, described, created, deadline, until, size = entry
        encoded = None if payload is None else (payload, codec, described)
        try:
            if value is MISSING:
                assert payload is not None
                value = decode(payload, codec, described, views, require_zero_copy)
            elif type(value) is bytes and views:
                value = memoryview(value)
            elif require_zero_copy and isinstance(value, bytes | str | int | float | tuple | frozenset | None):
                raise CopyRequired("reading payload would copy: the value was rebuilt when it was stored")
        except CopyRequired:
            if require_zero_copy:
                raise
            return None
        except (DecodeError, ImportError) as error:
            self.miss("undecodable", key, error)
            return None
        return Found(value, encoded, created, deadline, until, size, "l1")

    def _find_in_store(
        self,
        store: Store | SealedStore | RemoteStore,
        canonical: bytes,
        key: str,
        views: bool,
        require_zero_copy: bool,
        stale: bool,
        share: bool,
        at_hand: bool,
        own: bool,
        ahead: Ahead | None,
    ) -> Found | str:
        shared = self.shared
        try:
            if isinstance(ahead, str):
                return ahead
            if isinstance(ahead, Exception):
                raise ahead
            now = now_by(shared.clock)
            if isinstance(ahead, tuple):
                looked: Any = ahead
            elif ahead is not None:
                looked = ahead.result(now, stale, views, require_zero_copy)
            else:
                looked = here(
                    store.look(key, now, views=views, require_zero_copy=require_zero_copy, stale=stale, at_hand=at_hand)
                )
                if looked == "elsewhere":
                    return looked  # type: ignore[no-any-return]
        except EntryRefused as error:
            if error.reason != "no_key":
                shared.counts.add("tamper")
                shared.emit("tamper", "store", key)
                if shared.raise_on_tamper:
                    raise
            return self.miss(error.reason, key, error)
        except CopyRequired as error:
            if require_zero_copy:
                raise
            return self.miss("undecodable", key, error)
        except DecodeError as error:
            return self.miss("undecodable", key, error)
        except FrameError as error:
            return self.miss("unreadable", key, error)
        except StoreError as error:
            self.failed(error, key)
            return self.miss("unreadable", key, error)
        shared.breaker.succeeded()
        if isinstance(looked, str):
            if looked == "unreadable":
                shared.counts.damaged(key)
            return looked
        raw, created, deadline, until, size, guards = looked[:6]
        rest: Any = looked[6:]
        sealed = rest[0] if rest else None
        if not isinstance(raw, tuple):
            found = Found(raw, None, created, deadline, until, size, "store")
            if self.l1 is not None and (own or not views) and (type(raw) is not bytes or len(raw) <= SMALL):
                # A view is one of the payload's frame.
                payload: Any = raw.obj if isinstance(raw, memoryview) else None
                self._keep_copy(canonical, raw, payload, "raw", None, created, deadline, until, guards, share)
            return found
        payload, codec, described = raw
        try:
            value = decode(payload, codec, described, views, require_zero_copy)
        except CopyRequired as error:
            if require_zero_copy:
                raise
            return self.miss("undecodable", key, error)
        except (DecodeError, ImportError) as error:
            return self.miss("undecodable", key, error)
        if self.l1 is not None:
            kept = value if own or not views else MISSING
            if sealed is not None:
                kept, (payload, codec, described), share = MISSING, sealed, False
            self._keep_copy(canonical, kept, payload, codec, described, created, deadline, until, guards, share)
        return Found(value, raw, created, deadline, until, size, "store")

    async def look(self, key: str, views: bool = False, require_zero_copy: bool = False, stale: bool = False) -> Ahead:
        """Ask the store, in an operation, for what is then given to `find`."""
        store = self.store
        if store is None or not self.shared.breaker.allows():
            return "absent"
        now = now_by(self.shared.clock)
        try:
            looked = store.look(key, now, views=views, require_zero_copy=require_zero_copy, stale=stale)
            return await settled(looked)  # type: ignore[no-any-return]
        except (CopyRequired, DecodeError, EntryRefused, FrameError, StoreError) as error:
            return error

    async def ask(
        self, key: str, views: bool = False, require_zero_copy: bool = False, stale: bool = False
    ) -> Ahead | None:
        """As `look`, in the running loop; `None` where a thread is to do that."""
        store: Any = self.store
        if (backend := self.backend) is None or (asynchronous := backend.for_loop()) is None:
            return None
        if backend is not getattr(store, "backend", None) or store.copies is not None:
            return await run_in_loop(self.look(key, views, require_zero_copy, stale))
        if not self.shared.breaker.allows():
            return "absent"
        reading: Reading = store.reading([key])
        names = reading.names
        try:
            while names:
                names = reading.feed(await asynchronous.get_many(names))
        except (FrameError, StoreError) as error:
            return error
        return reading

    async def read_ahead(self, keys: Sequence[str], views: bool) -> dict[str, Ahead]:
        """Ask an engine beyond this machine for several keys at once; what it answers is for `find`."""
        store: Any = self.store
        if not hasattr(store, "look_many"):
            for key in keys:
                self.canonical(key)  # raises what is wrong with it
            return {key: await self.look(key, views) for key in keys}
        if not keys:
            return {}
        if not self.shared.breaker.allows():
            return dict.fromkeys(keys, "absent")
        try:
            return dict(zip(keys, await store.look_many(keys), strict=True))
        except StoreError as error:
            self.failed(error, keys[0])
            return dict.fromkeys(keys, "unreadable")

    async def read_at_once(self, keys: Sequence[str], views: bool) -> tuple[dict[str, Any], dict[str, Ahead]]:
        """As `read_ahead`, where no L1 keeps anything and nothing is sealed: the values that were found, and what is
        for `find`.
        """
        store: Any = self.store
        if not keys or not self.shared.breaker.allows():
            return {}, await self.read_ahead(keys, views)
        try:
            reading: Reading = await store.read(keys)
        except StoreError as error:
            self.failed(error, keys[0])
            return {}, dict.fromkeys(keys, "unreadable")
        return self.values_of(reading, views)

    def values_of(self, reading: Reading, views: bool) -> tuple[dict[str, Any], dict[str, Ahead]]:
        """As `read_at_once`, of a read with all answers."""
        values, rest = reading.values(now_by(self.shared.clock), views)
        self.shared.breaker.succeeded()
        self.shared.counts.add("store_hit", len(values))
        return values, rest

    def _keep_copy(
        self,
        canonical: bytes,
        value: Any,
        payload: Frame | None,
        codec: str,
        described: dict[str, Any] | None,
        created: int,
        deadline: int | None,
        until: int | None,
        guards: bytes,
        share: bool,
    ) -> None:
        """Have L1 keep what was read, for as long as it may."""
        assert self.l1 is not None
        limit_of = getattr(getattr(self.store, "_store", self.store), "l1_until", None)
        if limit_of is not None and (limit := limit_of(now_by(self.shared.clock))) is not None:
            deadline = limit if deadline is None else min(deadline, limit)
            until = limit if until is None else min(until, limit)
        self.l1.fill(canonical, value, payload, codec, described, created, deadline, until, guards, share)
        self.shared.emit_evictions()

    def miss(self, reason: str, key: str, error: Exception | None = None) -> str:
        """Note why something that is there cannot be served; return the reason."""
        if error is not None:
            self.shared.counts.log(reason, "%s entry of %.100r is a miss: %s", reason, key, error)
        return reason

    def failed(self, error: StoreError, key: str = "", write: bool = False) -> None:
        """Note that the store failed to read or to write; raise the error where that is wanted."""
        self.shared.breaker.failed(write)
        self.shared.counts.add("error")
        self.shared.emit("error", "store", key)
        if self.shared.raise_on_error:
            raise error
        self.shared.counts.log("error", "the store failed, which counts as a miss: %s", error)

    # Listing

    async def contains(self, canonical: bytes, key: str) -> bool:
        """Whether there is an entry to serve."""
        if (store := self.store) is None:
            return self.l1 is not None and self.l1.entry(canonical) is not None
        if not self.shared.breaker.allows():
            return False
        try:
            found: Any = store.contains(key, now_by(self.shared.clock))
            if type(found) is CoroutineType:
                found = await found
        except (FrameError, StoreBusy):
            return False
        except StoreError as error:
            self.failed(error, key)
            return False
        self.shared.breaker.succeeded()
        return bool(found)

    async def keys(self, prefix: str, start: bytes | None = None) -> tuple[list[str], bytes | None]:
        """Some of the keys that begin with `prefix`, and what to pass to get the next ones; `None` at the end."""
        if (store := self.store) is None:
            return [key for key in self._kept_keys() if key.startswith(prefix)], None
        return await settled(store.keys(prefix, start, now_by(self.shared.clock)))  # type: ignore[no-any-return]

    def _kept_keys(self) -> Iterator[str]:
        """The keys of what memory has, which is a copy of them all."""
        if (l1 := self.l1) is None:
            return
        for rest in l1.keys(self.scope):
            yield rest.decode()
        for label in list(self._calls):
            for scope, call in self._calls_of(label):
                for rest in l1.keys(scope):
                    yield call.key_of(scope.to_bytes(4, "little") + rest)
