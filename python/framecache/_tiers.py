"""The tiers of one namespace: what a write does to L1 and to the store. See `_reading` for the rest.

What may have to ask an engine is an operation of `_asking`.
"""

from __future__ import annotations

from types import CoroutineType

from framecache import _shared
from framecache._asking import at_leisure, settled
from framecache._framecache import FrameError, StoreError, Unsupported, ValueTooLarge
from framecache._reading import Found, Reader
from framecache._times import now_by
from framecache._values import choose, decode, encode, is_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, Final, Literal

    from framecache._asking import Operation
    from framecache._framecache import L1, Frame, Keyring, Store
    from framecache._remote import RemoteStore
    from framecache._sealed import SealedStore
    from framecache._shared import Shared

    Status = Literal["written", "exists", "superseded", "dropped"]

__all__ = ["ANY_TAG", "Found", "Status", "Tiers", "frame_of"]

#: A tag of no entry, which is invalidated whenever another one is: for the fences of values whose tags are not known
#: yet.
ANY_TAG: Final = "\0any"


class Tiers(Reader):
    """The tiers of one namespace. Closed, they have neither: nothing is found, and what is put is dropped."""

    def close(self) -> None:
        """Have no tiers from now on."""
        self.l1 = self.store = self.direct = None

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
    ) -> list[Status] | Operation[list[Status]]:
        """Store values, given as canonical key, key and value; return what became of each, or the operation that does
        it where there is a store.

        Args:
            values: What to store.
            created: Now, in milliseconds since 1970-01-01 UTC.
            deadline: Until when they are fresh.
            until: Until when they may be served at all.
            codec: One of `CODECS`.
            tags: What they can be invalidated by.
            function: The scope of the function whose results they are; 0 for a user's keys.
            if_absent: Leave what is stored as it is.
            fence: What `fence` returned before the one value was computed: if that is a thing of the past by now, it
                is ``superseded``.
            lease: The token of a lease on the one key that is written.
            share: Keep the decoded objects themselves in L1, whatever their types.
            views: How those are decoded.

        Raises:
            EncodeError: no codec takes a value.
            ValueTooLarge: a payload of more than `max_value_bytes`.
            StoreError: the store failed, and that is to be an error.
        """
        values = list(values)
        started = self.shared.started()
        if (store := self.store) is not None:
            return self._write(store, values, created, deadline, until, codec, tags, if_absent, fence, lease, started)
        if (l1 := self.l1) is None:
            return ["dropped"] * len(values)
        stored = [
            self._keep(
                l1,
                *one,
                created,
                deadline,
                until,
                codec,
                [*tags, *self._of_function(one[1], function)],
                if_absent,
                fence,
                share,
                views,
            )
            for one in values
        ]
        self.shared.emit_evictions()
        return self._note_put(stored, values, "l1", started)

    def _note_put(
        self, stored: list[Status], values: Sequence[tuple[bytes, str, object]], tier: str, started: float
    ) -> list[Status]:
        if started:
            for (_, key, _), status in zip(values, stored, strict=True):
                if status == "written":
                    self.shared.emit("set", tier, key, 0, started)
        if dropped := stored.count("dropped"):
            self.shared.counts.add("dropped", dropped)
        return stored

    def _keep(
        self,
        l1: L1,
        canonical: bytes,
        key: str,
        value: object,
        created: int,
        deadline: int | None,
        until: int | None,
        codec: str,
        tags: Sequence[str],
        if_absent: bool,
        fence: bytes | None,
        share: bool,
        views: bool,
    ) -> Status:
        """Store a value in memory alone."""
        encoded = encode(value, codec)
        if (size := encoded[0].nbytes) > self.shared.max_value_bytes:
            raise ValueTooLarge(f"value: expected at most {self.shared.max_value_bytes} bytes, got {size}")
        # Exact bytes are immutable: the object and the payload are the same memory.
        decoded = value if type(value) is bytes and not views else decode(*encoded, views=views)
        with _shared.mutex:
            if if_absent and l1.entry(canonical) is not None:
                return "exists"
            # First the guards, then the check: an invalidation in between shows in one of them.
            guards = l1.guards(self._names(tags))
            if fence is None:
                l1.bump([self._name(key)])
            elif not l1.holds(fence):
                return "superseded"
            kept = l1.fill(canonical, decoded, *encoded, created, deadline, until, guards, share)
        return "written" if kept else "dropped"

    async def _write(
        self,
        store: Store | SealedStore | RemoteStore,
        values: Sequence[tuple[bytes, str, object]],
        created: int,
        deadline: int | None,
        until: int | None,
        codec: str,
        tags: Sequence[str],
        if_absent: bool,
        fence: bytes | None,
        lease: int | None,
        started: float,
    ) -> list[Status]:
        chosen = [
            (key, *(choose(value, codec) if is_small(value) else await at_leisure(choose, value, codec)))
            for _, key, value in values
        ]
        # Without a fence, as the store failed when it was to be taken, nobody knows what happened since.
        stored: Any = ["dropped"] * len(values)
        if fence != b"" and self.shared.breaker.allows(write=True):
            try:
                stored = store.put_many(
                    chosen,
                    created,
                    until,
                    deadline=deadline,
                    tags=[*tags, *_in_store(values[0][1])] if len(values) == 1 else tags,
                    if_absent=if_absent,
                    lease=lease,
                    fence=fence,
                )
                if type(stored) is CoroutineType:
                    stored = await stored
            except StoreError as error:
                if self.shared.read_only:
                    raise
                self.failed(error, values[0][1] if values else "", write=True)
                stored = ["dropped"] * len(values)
            else:
                self.shared.breaker.succeeded(write=True)
        return self._note_put(stored, values, "store", started)

    async def fence(self, key: str, function: int, tags: Sequence[str]) -> bytes:
        """Guards of all that could make a value that is computed from now on a thing of the past."""
        if (store := self.store) is not None:
            if not self.shared.breaker.allows():
                return b""
            try:
                fence: bytes = await settled(store.fence(key, [*tags, *_in_store(key)]))
            except (FrameError, StoreError):
                self.shared.breaker.failed()
                return b""
            self.shared.breaker.succeeded()
            return fence
        if (l1 := self.l1) is None:
            return b""
        names = self._names([*tags, *self._of_function(key, function)])
        return l1.guards([*names, self._name(key)])

    def _of_function(self, key: str, function: int) -> list[str]:
        """The tags that all results of a function have in memory; of a user's key, those that it is the key of."""
        if function:
            return [_of_scope(function)]
        return [_of_scope(scope) for scope, _ in self._calls_of(key.rpartition("#")[0])] if "#" in key else []

    def _name(self, key: str) -> str:
        """What is bumped in memory when a key is set or deleted."""
        return f"k{self.scope}:{key}"

    def _names(self, tags: Sequence[str]) -> list[str]:
        """What is bumped in memory to make entries misses."""
        return [f"n{self.scope}", *[f"t{self.scope}:{tag}" for tag in tags]]

    async def touch(self, key: str, deadline: int | None) -> bool:
        """Move the deadline of an entry; return whether there was one to serve."""
        if (store := self.store) is not None:
            return bool(await settled(store.touch(key, deadline, now_by(self.shared.clock))))
        return self.l1 is not None and self.l1.touch(self.canonical(key), deadline)

    # Removing

    async def delete(self, keys: Sequence[tuple[bytes, str]]) -> int:
        """Remove entries, given as canonical key and key; return how many there were."""
        if (store := self.store) is not None:
            return int(await settled(store.delete_many([key for _, key in keys], now_by(self.shared.clock))))
        if (l1 := self.l1) is None:
            return 0
        with _shared.mutex:
            l1.bump([self._name(key) for _, key in keys])
            return sum([l1.remove(canonical) for canonical, _ in keys])

    async def invalidate(self, tags: Sequence[str]) -> None:
        """Make all entries with one of `tags` misses."""
        if (store := self.store) is not None:
            await settled(store.invalidate_tags([*tags, ANY_TAG], now_by(self.shared.clock)))
        elif (l1 := self.l1) is not None:
            l1.bump([f"t{self.scope}:{tag}" for tag in (*tags, ANY_TAG)])

    async def invalidate_function(self, label: str, function: int) -> None:
        """Make all results of a function misses."""
        if (store := self.store) is not None:
            await settled(store.invalidate_tags(_in_store(f"{label}#"), now_by(self.shared.clock)))
        elif (l1 := self.l1) is not None:
            l1.bump([f"t{self.scope}:{_of_scope(function)}"])
            l1.purge()

    async def clear(self) -> None:
        """Make all entries of the namespace misses."""
        if (store := self.store) is not None:
            await settled(store.clear())
        elif (l1 := self.l1) is not None:
            l1.bump([f"n{self.scope}"])
            l1.purge()

    def opened(self, method: str) -> Store | SealedStore | RemoteStore:
        """The store, for what memory cannot do."""
        if (store := self.store) is None:
            raise Unsupported(f"{method}: expected a cache in a directory (file:///path), got one in memory alone")
        return store


class TenantTiers(Tiers):
    """Tiers whose keyring has a tenant for each request: what is computed for one is given to no other, and memory,
    whose keys do not tell tenants apart, keeps nothing.
    """

    def __init__(
        self, shared: Shared, store: Store | SealedStore | RemoteStore | None, scope: int, keyring: Keyring
    ) -> None:
        self._all = scope
        self._keyring = keyring
        super().__init__(shared, store, scope)
        self.l1 = None

    @property
    def scope(self) -> int:
        """The scope of this request's tenant."""
        return self.shared.scope_of(self._all, self._keyring.tenant)

    @scope.setter
    def scope(self, scope: int) -> None:
        pass


def _of_scope(scope: int) -> str:
    """The tag of a function in memory."""
    return f"\0{scope}"


def _in_store(key: str) -> list[str]:
    """The tag that all results of a function have in a store whose key this is: what stands before its hash."""
    return ["\0" + key.rpartition("#")[0]] if "#" in key else []


def frame_of(found: Found, key: str) -> Frame:
    """The frame of an entry that only memory has."""
    from framecache._framecache import Frame, SerializationWrapper

    encoded = found.encoded or encode(found.value)
    metadata = {"py": encoded[2], "key": key, "created": found.created, "until": found.until}
    metadata = {name: value for name, value in metadata.items() if value not in (None, {})}
    return Frame(SerializationWrapper.wrap(encoded[0], metadata, encoded[1]))
