"""The client's methods: what is read, written and removed."""

from __future__ import annotations

from functools import partial
from types import CoroutineType

from framecache._asking import at_leisure, here, run
from framecache._base import Base
from framecache._entry import Entry
from framecache._framecache import MISSING, FramecacheError, Store, StoreError
from framecache._plan import Plan
from framecache._reading import Found, is_light
from framecache._tiers import frame_of
from framecache._times import default_to, limit_of, milliseconds, now_by
from framecache._values import check_codec, decode, tags_of, texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, TypeVar

    from framecache._framecache import Frame, Missing
    from framecache._reading import Ahead
    from framecache._tiers import Tiers
    from framecache._times import Seconds

    R = TypeVar("R")


class Methods(Base):
    """What threads call."""

    # Reading

    def get(self, key: str, default: Any = None, *, views: bool = False, require_zero_copy: bool = False) -> Any:
        """Return the value stored under `key`, or `default`.

        Values of immutable types (str, int, tuples and the like), Arrow tables and read-only views are shared by all
        callers. bytearray, lists, dicts and other values are rebuilt for each. pandas columns that may be written are
        copied, all others stand on the frame. The payload of a compressed entry is decompressed first; all the same
        goes for that.

        Args:
            key: What the value was stored under.
            default: What to return on a miss.
            views: Return read-only views of the frame where they can be: memoryviews for bytes and bytearray, pandas
                columns that cannot be written; inside other values arrays of 4 KiB and bytes of 64 KiB and more.
            require_zero_copy: Raise `CopyRequired`, naming the column and why, instead of copying or decompressing.
        """
        if not self._slow and not require_zero_copy:
            if self._l1 is not None:
                value = MISSING if views else self._l1.get(self._tiers.scope, key)
                if value is not MISSING:
                    return value
            elif (direct := self._tiers.direct) is not None and self._shared.breaker.is_sound:
                value = direct.get(key, default, views)
                if value is not NotImplemented:
                    return value
                # What is wrong shows once more when it is read the long way, which counts and logs it.
            elif self._is_plain_remote and type(key) is str and self._tiers.store is not None:
                return run(self._read_ahead([key], views)).get(key, default)
        found = self._find(key, views, require_zero_copy)
        return found.value if isinstance(found, Found) else default

    def _find(
        self,
        key: str,
        views: bool = False,
        require_zero_copy: bool = False,
        at_hand: bool = False,
        ahead: Ahead | None = None,
    ) -> Found | str:
        """Look a value up; return it, or the reason for a miss. Count which."""
        if self._is_bypassed():
            return "bypassed"
        tiers, started = self._opened(), self._shared.started()
        found = tiers.find(
            tiers.canonical(key),
            key,
            views=views,
            require_zero_copy=require_zero_copy,
            at_hand=at_hand,
            own=False,
            ahead=ahead,
        )
        tiers.note(found, key, started)
        return found

    def get_many(
        self,
        keys: Iterable[str],
        *,
        views: bool = False,
        compute: Callable[[list[str]], Mapping[str, Any]] | None = None,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        lock: bool | Seconds = True,
    ) -> dict[str, Any]:
        """Return the values that are stored under `keys`, in their order. Keys without one are left out.

        Without `l1` they are all read at one moment.

        Args:
            keys: What values were stored under.
            views: As for `get`.
            compute: Called with the keys that have no value, except those that somebody else computes meanwhile;
                returns a mapping with their values, which are stored. Each key is computed once, however many threads
                and processes ask for it. Keys that the mapping leaves out are left out; others are not looked at.
            ttl: As for `set`.
            max_age: As for `set`.
            tags: As for `set`.
            lock: As for `get_or_set`.

        Raises:
            RecursiveCall: `compute` asks for the same keys (a `RecursionError`).
            Exception: what `compute` raises, for all who waited for one of its keys; nothing is stored.
            EncodeError: no codec takes a value that it returned.
        """
        keys = list(dict.fromkeys(texts_of("keys", keys)))
        plan = None if compute is None else self._plan(ttl, max_age, tags, lock, views)
        values = run(self._read_many(keys, views))
        if list(values) == keys:
            return values
        missing = [key for key in keys if key not in values]
        if compute is not None and plan is not None and missing:
            if self._is_bypassed():
                computed: Mapping[str, Any] = compute(missing)
            else:
                from framecache._batch import values_of

                computed = values_of(self._computer, plan, missing, compute)
            values.update(computed)
        return {key: values[key] for key in keys if key in values}

    async def _read_many(self, keys: list[str], views: bool) -> dict[str, Any]:
        """Read several keys, in an operation."""
        store = self._tiers.store
        if self._l1 is None and isinstance(store, Store) and not self._slow and self._shared.breaker.is_sound:
            return self._read_at_once(store, keys, views)
        if self._remote and not self._is_bypassed():
            return await self._read_ahead(keys, views)
        found = ((key, self.get(key, MISSING, views=views)) for key in keys)
        return {key: value for key, value in found if value is not MISSING}

    async def _read_ahead(self, keys: list[str], views: bool) -> dict[str, Any]:
        """What L1 has, and what an engine beyond this machine answers when it is asked for all the rest."""
        values: dict[str, Any] = {}
        if self._l1 is not None and not self._slow and not views:
            in_l1 = ((key, self._l1.get(self._tiers.scope, key)) for key in keys)
            values = {key: value for key, value in in_l1 if value is not MISSING}
        rest: dict[str, Ahead]
        if self._l1 is None and not self._slow and hasattr(self._tiers.store, "look_many"):
            values, rest = await self._tiers.read_at_once(keys, views)
        else:
            rest = await self._tiers.read_ahead([key for key in keys if key not in values], views)
        for key, ahead in rest.items():
            find = partial(self._find, key, views, ahead=ahead)
            if isinstance(found := find() if is_light(ahead) else await at_leisure(find), Found):
                values[key] = found.value
        return values

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
                if encoded == "unreadable":
                    counts.damaged(key)
                continue
            try:
                values[key] = decode(*encoded, views)
                counts.add("store_hit")
            except (FramecacheError, ImportError):
                # It is looked at the long way, which counts and logs why; it may be another one by then.
                if isinstance(one := self._find(key, views), Found):
                    values[key] = one.value
        return values

    def get_entry(self, key: str, *, views: bool = False) -> Entry | None:
        """Return the value stored under `key` with what is known about it, or `None`."""
        return self._entry_of(key, self._find(key, views))

    def _entry_of(self, key: str, found: Found | str) -> Entry | None:
        if not isinstance(found, Found):
            return None
        tiers, now = self._opened(), now_by(self._clock)

        def frame() -> Frame:
            stored: tuple[Frame, int, int | None] | None = None
            if tiers.store is not None:
                stored = here(tiers.store.entry(key, now))
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
        return run(tiers.contains(tiers.canonical(key), key))

    def __contains__(self, key: object) -> bool:
        """As `contains`."""
        return isinstance(key, str) and self.contains(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order; what changes meanwhile may be in it or not.

        Those of functions' results are among them.
        """
        return self._keys(self._opened(), prefix)

    def _keys(self, tiers: Tiers, prefix: str) -> Iterator[str]:
        keys, after = run(tiers.keys(prefix))
        yield from keys
        while after is not None:
            keys, after = run(tiers.keys(prefix, after))
            yield from keys

    # Writing

    def set(
        self,
        key: str,
        value: object,
        *,
        ttl: Seconds | Missing | None = MISSING,
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
            Whether it was stored. It is not where `if_absent` found a value, where another process wrote for longer
            than the store waits, where there was no room, and where the store failed; the last three are counted in
            `stats()`.

        Raises:
            EncodeError: no codec takes the value (a `TypeError`). With ``codec="json"`` any `TypeError` of
                `framecache.json.dumps`.
            InvalidArgument: a key that is too long; a time that is not above 0 and finite (a `ValueError`).
            StoreError: with ``on_error="raise"``, the file cannot be written, as when the disk is full (an `OSError`).
            ValueTooLarge: a payload of more than `max_value_bytes` (a `ValueError`).
        """
        return run(self._put({key: value}, ttl, max_age, tags, if_absent, codec)) == 1

    async def _put(
        self,
        values: Mapping[str, object],
        ttl: Seconds | Missing | None,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        if_absent: bool = False,
        codec: str | None = None,
    ) -> int:
        lifetime = self._lifetime_of(ttl, max_age)
        tags = tags_of(tags)
        codec = self._codec if codec is None else check_codec(codec)
        tiers = self._opened()
        if self._is_bypassed():
            return 0
        for key in values:
            self._flights.fence(tiers.scope, key)
        created = now_by(self._clock)
        deadline, until = lifetime.ends(created)
        stored: Any = tiers.put(
            [(tiers.canonical(key), key, value) for key, value in values.items()],
            created,
            deadline,
            until,
            codec=codec,
            tags=tags,
            if_absent=if_absent,
        )
        if type(stored) is CoroutineType:
            stored = await stored
        return int(stored.count("written"))

    def set_many(
        self,
        values: Mapping[str, object],
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """Store each value under its key, as `set` does but all at once; return how many were stored.

        In a directory, an error of one value is raised before anything is stored.
        """
        return run(self._put(values, ttl, max_age, tags))

    def get_or_set(
        self,
        key: str,
        compute: Callable[[], R],
        *,
        ttl: Seconds | Missing | None = MISSING,
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
        self,
        ttl: Seconds | Missing | None,
        max_age: Seconds | None,
        tags: Iterable[str],
        lock: bool | Seconds,
        views: bool = False,
    ) -> Plan:
        lifetime = self._lifetime_of(ttl, max_age)
        return Plan(lifetime, tags=tags_of(tags), codec=self._codec, views=views, lock=limit_of(lock), strict=True)

    def touch(self, key: str, ttl: Seconds | Missing | None = MISSING) -> bool:
        """Let what is stored under `key` be served for `ttl` from now on; return whether there was something.

        It is never served for longer than its `max_age`; `None` is for as long as that.

        Raises:
            StoreBusy: another process wrote for longer than the store waits (a `TimeoutError`).
        """
        return run(self._touch(key, ttl))

    async def _touch(self, key: str, ttl: Seconds | Missing | None) -> bool:
        ttl = default_to(ttl, self._ttl)
        if self._is_bypassed():
            return False
        return await self._opened().touch(key, None if ttl is None else now_by(self._clock) + milliseconds(ttl))

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
        return run(self._delete_many(keys))

    async def _delete_many(self, keys: Iterable[str]) -> int:
        tiers, keys = self._opened(), texts_of("keys", keys)
        for key in keys:
            self._flights.fence(tiers.scope, key)
        return await tiers.delete([(tiers.canonical(key), key) for key in keys])

    def invalidate_tags(self, *tags: str) -> None:
        """Make all values that were stored with one of `tags` misses, at once. Raises as `delete`."""
        run(self._invalidate_tags(tags))

    async def _invalidate_tags(self, tags: Iterable[str]) -> None:
        tags_ = tags_of(tags)
        for tiers in self._of_namespace():
            await tiers.invalidate(tags_)

    def clear(self) -> None:
        """Make all values of this namespace misses, at once. Raises as `delete`."""
        run(self._clear())

    async def _clear(self) -> None:
        self._flights.fence_all(self._opened().scope)
        await self._tiers.clear()


def _in_place(found: Found) -> bool:
    """Whether a value that was read from the store stands on memory that was not copied."""
    if found.encoded is None:
        return isinstance(found.value, memoryview)
    payload, codec, _ = found.encoded
    return codec == "arrow" and payload.is_zero_copy
