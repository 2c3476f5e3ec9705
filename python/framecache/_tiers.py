"""The tiers of one namespace: L1, then the store of this machine. What a read finds, and what a write does.

Each entry has two names here: its *key*, a str, which the store keeps it under, and its *canonical* key, the bytes
that L1 compares. Those of a user's key are its UTF-8, those of a call its arguments.
"""

from __future__ import annotations

import time

from framecache._breaker import Breaker
from framecache._events import Event
from framecache._framecache import (
    MISSING,
    CopyRequired,
    DecodeError,
    EncodeError,
    EntryRefused,
    FrameError,
    InvalidArgument,
    StoreBusy,
    StoreError,
    ValueTooLarge,
)
from framecache._times import now_by
from framecache._values import choose, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Final, Literal

    from framecache._framecache import L1, Call, Clock, Frame, Store
    from framecache._sealed import SealedStore
    from framecache._times import SystemClock
    from framecache._values import Encoded

    Status = Literal["written", "exists", "superseded", "dropped"]

#: Seconds between two log lines about the same kind of failure.
_LOG_EVERY: Final = 60.0
#: A tag of no entry, which is invalidated whenever another one is: for the fences of values whose tags are not known
#: yet.
ANY_TAG: Final = "\0any"
#: The longest key, in bytes of UTF-8, as in a store.
_LONGEST_KEY: Final = 64 * 1024
#: bytes of up to this many are kept in L1 over a store, which maps larger ones.
_SMALL: Final = 64 * 1024


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


class Counts:
    """What happened, by name; and what is logged about it, at most once a minute of each kind."""

    __slots__ = ("_logged", "numbers")

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._logged: dict[str, float] = {}

    def add(self, what: str, times: int = 1) -> None:
        """Count it."""
        self.numbers[what] = self.numbers.get(what, 0) + times

    def log(self, kind: str, message: str, *arguments: object) -> None:
        """Log a warning, if there was none of this kind within a minute."""
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_EVERY) >= _LOG_EVERY:
            self._logged[kind] = now
            import logging

            logging.getLogger("framecache").warning(message, *arguments)


class Shared:
    """What the namespaces of one cache have in common.

    Args:
        l1: The tier in memory.
        clock: Tells the time.
        on_error: Whether a tier that fails is a miss (``count``) or an error (``raise``).
        raise_on_tamper: Whether an entry that is refused is an error.
        max_value_bytes: The largest payload.
        read_only: Whether nothing may be written to the store.
    """

    __slots__ = (
        "breaker",
        "clock",
        "counts",
        "hooks",
        "l1",
        "max_value_bytes",
        "raise_on_error",
        "raise_on_tamper",
        "read_only",
        "scopes",
    )

    def __init__(
        self,
        l1: L1 | None,
        clock: Clock | type[SystemClock],
        on_error: str,
        raise_on_tamper: bool,
        max_value_bytes: int,
        read_only: bool,
    ) -> None:
        self.read_only = read_only
        self.l1 = l1
        self.clock = clock
        self.raise_on_error = on_error == "raise"
        self.raise_on_tamper = raise_on_tamper
        self.max_value_bytes = max_value_bytes
        self.counts = Counts()
        self.breaker = Breaker(clock)
        self.hooks: tuple[Callable[[Event], object], ...] = ()
        self.scopes = 0

    def new_scope(self) -> int:
        """A number for canonical keys that are apart from all others."""
        self.scopes += 1
        return self.scopes

    def emit(self, kind: Any, tier: str, key: str, nbytes: int = 0, started: float = 0.0) -> None:
        """Tell the hooks; one that raises is logged and goes on."""
        duration = time.perf_counter() - started if started else 0.0
        for hook in self.hooks:
            try:
                hook(Event(kind, tier, key, nbytes, duration))
            except Exception as error:
                self.counts.log("hook", "hook %r raised %r", hook, error)


class Tiers:
    """The tiers of one namespace.

    Args:
        shared: What all namespaces have in common.
        store: The store of this machine, if there is one.
    """

    def __init__(self, shared: Shared, store: Store | SealedStore | None) -> None:
        self.shared = shared
        self.l1 = shared.l1
        self.store = store
        self.scope = shared.new_scope()
        self.calls: dict[str, list[tuple[int, Call]]] = {}

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
            for _, call in self.calls.get(key.rpartition("#")[0], ()):
                if (found := call.find(key)) is not None:
                    return found
        encoded = key.encode()
        if len(encoded) > _LONGEST_KEY:
            raise InvalidArgument(f"key: expected at most {_LONGEST_KEY} bytes of UTF-8, got {len(encoded)}")
        return self.scope.to_bytes(4, "little") + encoded

    def fence(self, key: str, function: int, tags: Sequence[str]) -> bytes:
        """Guards of all that could make a value that is computed from now on a thing of the past."""
        if self.store is None:
            return self._guards(function, tags)
        try:
            return self.store.fence(key, [*tags, *_of_function(key, function)])
        except (FrameError, StoreError):
            return b""

    def _guards(self, function: int, tags: Sequence[str]) -> bytes:
        """Guards of entries in memory alone."""
        assert self.l1 is not None
        return self.l1.guards(self._names(function, tags))

    def _names(self, function: int, tags: Sequence[str]) -> list[str]:
        own = [f"n{self.scope}", f"f{function}"] if function else [f"n{self.scope}"]
        return [*own, *(f"t{self.scope}:{tag}" for tag in tags)]

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
    ) -> Found | str:
        """Look an entry up; return it, or the reason for a miss.

        Args:
            canonical: Its canonical key.
            key: Its key.
            views: Decode to views of the frame.
            require_zero_copy: Raise `CopyRequired` where decoding would copy.
            stale: Return one past its deadline too.
            share: Keep in L1 the object itself, whatever its type.
            at_hand: Return ``elsewhere`` where a file must be opened.
            own: Whether L1 keeps objects of this canonical key as they are decoded with `views`.
        """
        started = time.perf_counter() if self.shared.hooks else 0.0
        found: Found | str = "absent"
        if self.l1 is not None:
            in_l1 = self._find_in_l1(self.l1, canonical, key, views, require_zero_copy, stale)
            if in_l1 is not None:
                found = in_l1
        if isinstance(found, str) and self.store is not None and self.shared.breaker.allows():
            found = self._find_in_store(
                self.store, canonical, key, views, require_zero_copy, stale, share, at_hand, own
            )
        if started and found != "elsewhere":
            if isinstance(found, Found):
                self.shared.emit("hit", found.tier, key, found.size, started)
            else:
                self.shared.emit("miss", "store" if self.store is not None else "l1", key, 0, started)
        return found

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
        store: Store | SealedStore,
        canonical: bytes,
        key: str,
        views: bool,
        require_zero_copy: bool,
        stale: bool,
        share: bool,
        at_hand: bool,
        own: bool,
    ) -> Found | str:
        shared = self.shared
        try:
            looked = store.look(
                key,
                now_by(shared.clock),
                views=views,
                require_zero_copy=require_zero_copy,
                stale=stale,
                at_hand=at_hand,
            )
        except EntryRefused as error:
            shared.emit("tamper", "store", key)
            if shared.raise_on_tamper and error.reason != "no_key":
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
                return self.miss(looked, key, StoreError("its bytes are not what was written"))
            return looked
        raw, created, deadline, until, size, guards = looked
        if not isinstance(raw, tuple):
            found = Found(raw, None, created, deadline, until, size, "store")
            if self.l1 is not None and (own or not views) and (type(raw) is not bytes or len(raw) <= _SMALL):
                self.l1.fill(canonical, raw, None, "raw", None, created, deadline, until, guards, share)
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
            self.l1.fill(canonical, kept, payload, codec, described, created, deadline, until, guards, share)
        return Found(value, raw, created, deadline, until, size, "store")

    def miss(self, reason: str, key: str, error: Exception | None = None) -> str:
        """Note why something that is there cannot be served; return the reason."""
        if error is not None:
            self.shared.counts.log(reason, "%s entry of %.100r is a miss: %s", reason, key, error)
        return reason

    def failed(self, error: StoreError, key: str = "") -> None:
        """Note that the store failed; raise the error where that is wanted."""
        self.shared.breaker.failed()
        self.shared.counts.add("error")
        if self.shared.hooks:
            self.shared.emit("error", "store", key)
        if self.shared.raise_on_error:
            raise error
        self.shared.counts.log("error", "the store failed, which counts as a miss: %s", error)

    # Writing

    def put(
        self,
        values: Iterable[tuple[bytes, str, object]],
        created: int,
        deadline: int | None,
        until: int | None,
        *,
        codec: str = "auto",
        tags: Sequence[str] = (),
        function: int = 0,
        if_absent: bool = False,
        fence: bytes | None = None,
        lease: int | None = None,
        share: bool = False,
        views: bool = False,
    ) -> list[Status]:
        """Store values, given as canonical key, key and value; return what became of each.

        Args:
            values: What to store.
            created: Now, in milliseconds since 1970-01-01 UTC.
            deadline: Until when they are fresh.
            until: Until when they may be served at all.
            codec: One of `CODECS`.
            tags: What they can be invalidated by.
            function: The scope of the function whose results they are; 0 for a user's keys.
            if_absent: Leave what is stored as it is.
            fence: Guards that were taken before the values were computed: if one does not hold any more, they are
                ``superseded``.
            lease: The token of a lease on the one key that is written.
            share: Keep the decoded objects themselves in L1, whatever their types.
            views: How those are decoded.

        Raises:
            EncodeError: no codec takes a value.
            ValueTooLarge: a payload of more than `max_value_bytes`.
            StoreError: the store failed, and that is to be an error.
        """
        values = list(values)
        started = time.perf_counter() if self.shared.hooks else 0.0
        if self.store is None:
            stored = [
                self._keep(one, created, deadline, until, codec, tags, function, if_absent, fence, share, views)
                for one in values
            ]
        else:
            stored = self._write(
                self.store, values, created, deadline, until, codec, tags, function, if_absent, fence, lease
            )
        if started:
            tier = "l1" if self.store is None else "store"
            for (_, key, _), status in zip(values, stored, strict=True):
                if status == "written":
                    self.shared.emit("set", tier, key, 0, started)
        if dropped := stored.count("dropped"):
            self.shared.counts.add("dropped", dropped)
        return stored

    def _keep(
        self,
        one: tuple[bytes, str, object],
        created: int,
        deadline: int | None,
        until: int | None,
        codec: str,
        tags: Sequence[str],
        function: int,
        if_absent: bool,
        fence: bytes | None,
        share: bool,
        views: bool,
    ) -> Status:
        """Store a value in memory alone."""
        l1 = self.l1
        assert l1 is not None
        canonical, _, value = one
        encoded = encode(value, codec)
        if (size := encoded[0].nbytes) > self.shared.max_value_bytes:
            raise ValueTooLarge(f"value: expected at most {self.shared.max_value_bytes} bytes, got {size}")
        if if_absent and l1.entry(canonical) is not None:
            return "exists"
        # First the guards, then the check: an invalidation in between shows in one of them.
        guards = self._guards(function, tags)
        if fence is not None and not l1.holds(fence):
            return "superseded"
        before = l1.stats()["evicted"] if self.shared.hooks else 0
        # Exact bytes are immutable: the object and the payload are the same memory.
        decoded = value if type(value) is bytes and not views else decode(*encoded, views=views)
        kept = l1.fill(canonical, decoded, *encoded, created, deadline, until, guards, share)
        if self.shared.hooks and (evicted := l1.stats()["evicted"] - before):
            self.shared.emit("evict", "l1", "", evicted)
        return "written" if kept else "dropped"

    def _write(
        self,
        store: Store | SealedStore,
        values: Sequence[tuple[bytes, str, object]],
        created: int,
        deadline: int | None,
        until: int | None,
        codec: str,
        tags: Sequence[str],
        function: int,
        if_absent: bool,
        fence: bytes | None,
        lease: int | None,
    ) -> list[Status]:
        chosen = [(key, *choose(value, codec)) for _, key, value in values]
        if not self.shared.breaker.allows():
            return ["dropped"] * len(values)
        all_tags = [*tags, *_of_function(values[0][1], function)] if values else tags
        try:
            stored = store.put_many(
                chosen,
                created,
                until,
                deadline=deadline,
                tags=all_tags,
                if_absent=if_absent,
                lease=lease,
                fence=fence or None,
            )
        except StoreError as error:
            if self.shared.read_only:
                raise
            self.failed(error, values[0][1] if values else "")
            return ["dropped"] * len(values)
        self.shared.breaker.succeeded()
        return stored

    # Removing

    def touch(self, key: str, deadline: int | None) -> bool:
        """Move the deadline of an entry; return whether there was one to serve."""
        if self.store is None:
            assert self.l1 is not None
            return self.l1.touch(self.canonical(key), deadline)
        return self.store.touch(key, deadline, now_by(self.shared.clock))

    def delete(self, keys: Sequence[tuple[bytes, str]]) -> int:
        """Remove entries, given as canonical key and key; return how many there were."""
        if self.store is None:
            assert self.l1 is not None
            return sum([self.l1.remove(canonical) for canonical, _ in keys])
        return self.store.delete_many([key for _, key in keys], now_by(self.shared.clock))

    def invalidate(self, tags: Sequence[str]) -> None:
        """Make all entries with one of `tags` misses."""
        if self.store is None:
            assert self.l1 is not None
            self.l1.bump([f"t{self.scope}:{tag}" for tag in (*tags, ANY_TAG)])
            self.l1.purge()
        else:
            self.store.invalidate_tags([*tags, ANY_TAG], now_by(self.shared.clock))

    def invalidate_function(self, label: str, function: int) -> None:
        """Make all results of a function misses."""
        if self.store is None:
            assert self.l1 is not None
            self.l1.bump([f"f{function}"])
            self.l1.purge()
        else:
            self.store.invalidate_tags(_of_function(f"{label}#", function), now_by(self.shared.clock))

    def clear(self) -> None:
        """Make all entries of the namespace misses."""
        if self.store is not None:
            self.store.clear()
        elif self.l1 is not None:
            self.l1.bump([f"n{self.scope}"])
            self.l1.purge()

    # Listing

    def contains(self, canonical: bytes, key: str) -> bool:
        """Whether there is an entry to serve."""
        if self.store is None:
            assert self.l1 is not None
            return self.l1.entry(canonical) is not None
        try:
            return self.store.contains(key, now_by(self.shared.clock))
        except (FrameError, StoreBusy):
            return False
        except StoreError as error:
            self.failed(error, key)
            return False

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix`."""
        if self.store is None:
            yield from (key for key in self._kept_keys() if key.startswith(prefix))
            return
        after: bytes | None = None
        while True:
            keys, after = self.store.keys(prefix, after, now_by(self.shared.clock))
            yield from keys
            if after is None:
                return

    def _kept_keys(self) -> Iterator[str]:
        assert self.l1 is not None
        for rest in self.l1.keys(self.scope):
            yield rest.decode()
        for calls in self.calls.values():
            for scope, call in calls:
                for rest in self.l1.keys(scope):
                    yield call.key_of(scope.to_bytes(4, "little") + rest)

    def opened(self, url: str | None) -> Store | SealedStore:
        """The store, for what memory cannot do."""
        if self.store is None:
            raise InvalidArgument(f"url: expected a cache with a directory (file:///path), got {url!r}")
        return self.store


def _of_function(key: str, function: int) -> list[str]:
    """The tag that all results of a function have in a store: what stands before the hash in their keys."""
    return ["\0" + key.rpartition("#")[0]] if function else []


def frame_of(found: Found, key: str) -> Frame:
    """The frame of an entry that only memory has."""
    from framecache._framecache import Frame, SerializationWrapper

    encoded = found.encoded or encode(found.value)
    metadata = {"py": encoded[2], "key": key, "created": found.created, "until": found.until}
    metadata = {name: value for name, value in metadata.items() if value not in (None, {})}
    return Frame(SerializationWrapper.wrap(encoded[0], metadata, encoded[1]))
