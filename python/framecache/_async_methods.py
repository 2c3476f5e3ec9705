"""The client's methods for event loops: the same names with an `a` before them."""

from __future__ import annotations

from functools import partial

from framecache._framecache import MISSING, Reading
from framecache._methods import Methods
from framecache._reading import is_light
from framecache._values import texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from typing import Any, TypeVar

    from framecache._acompute import AsyncComputer
    from framecache._entry import Entry
    from framecache._framecache import Missing
    from framecache._reading import Found
    from framecache._times import Seconds

    R = TypeVar("R")


class AsyncMethods(Methods):
    """What coroutines call.

    Reads that memory or the index of the store answers happen at once. Whatever touches a file, takes a lock or writes
    happens in a worker thread, where there is a store; the loop never waits for a disk.
    """

    _async: AsyncComputer | None = None

    async def aget(self, key: str, default: Any = None, *, views: bool = False, require_zero_copy: bool = False) -> Any:
        """As `get`."""
        if not self._slow and not views and self._l1 is not None and not require_zero_copy:
            value = self._l1.get(self._tiers.scope, key)
            if value is not MISSING:
                return value
        found: Found | str = "elsewhere"
        if self._l1 is not None or self._slow or not self._remote:
            found = self._find(key, views, require_zero_copy, at_hand=self._has_store)
        if found == "elsewhere":
            ahead = await self._tiers.ask(key)
            light = is_light(ahead)
            plain = self._is_plain_remote and self._l1 is None and not self._slow and not require_zero_copy
            if light and plain and isinstance(ahead, Reading):
                values, rest = self._tiers.values_of(ahead, views)
                if key in values:
                    return values[key]
                ahead = rest[key]
            find = partial(self._find, key, views, require_zero_copy, ahead=ahead)
            found = find() if light else await self._in_thread(find)
        return default if isinstance(found, str) else found.value

    async def aget_many(
        self,
        keys: Iterable[str],
        *,
        views: bool = False,
        compute: Callable[[list[str]], Awaitable[Mapping[str, Any]]] | None = None,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        lock: bool | Seconds = True,
    ) -> dict[str, Any]:
        """As `get_many`, where `compute` gives an awaitable, which runs as that of `aget_or_set` does."""
        keys = list(dict.fromkeys(texts_of("keys", keys)))
        plan = self._plan(ttl, max_age, tags, lock, views)
        values: dict[str, Any] = await self._in_thread(self._read_many, keys, views)
        missing = [key for key in keys if key not in values]
        if compute is not None and missing:
            if self._is_bypassed():
                computed: Mapping[str, Any] = await compute(missing)
            else:
                from framecache._batch import avalues_of

                computed = await avalues_of(self._async_computer(), plan, missing, compute)
            values.update(computed)
        return {key: values[key] for key in keys if key in values}

    async def aget_entry(self, key: str, *, views: bool = False) -> Entry | None:
        """As `get_entry`."""
        return await self._in_thread(lambda: self.get_entry(key, views=views))  # type: ignore[no-any-return]

    async def aget_or_set(
        self,
        key: str,
        compute: Callable[[], Awaitable[R]],
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        lock: bool | Seconds = True,
    ) -> R:
        """As `get_or_set`, where `compute` gives an awaitable. It runs in a task of its own, in a copy of this
        context: who is cancelled while waiting harms nobody, and when nobody waits any more, it is cancelled too.
        """
        if self._is_bypassed():
            return await compute()
        plan = self._plan(ttl, max_age, tags, lock)
        canonical = self._opened().canonical(key)
        return await self._async_computer().value(plan, canonical, key, compute)  # type: ignore[no-any-return]

    async def aset(
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
        """As `set`."""
        stored = await self._in_thread(self._put, {key: value}, ttl, max_age, tags, if_absent, codec)
        return bool(stored == 1)

    async def aset_many(
        self,
        values: Mapping[str, object],
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """As `set_many`."""
        return int(await self._in_thread(self._put, values, ttl, max_age, tags))

    async def atouch(self, key: str, ttl: Seconds | Missing | None = MISSING) -> bool:
        """As `touch`."""
        return bool(await self._in_thread(self.touch, key, ttl))

    async def acontains(self, key: str) -> bool:
        """As `contains`."""
        return bool(await self._in_thread(self.contains, key)) if self._remote else self.contains(key)

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        """As `keys`."""
        from itertools import islice

        keys = self.keys(prefix)
        while some := await self._in_thread(lambda: list(islice(keys, 1000))):
            for key in some:
                yield key

    async def adelete(self, key: str) -> bool:
        """As `delete`."""
        return bool(await self._in_thread(self.delete, key))

    async def adelete_many(self, keys: Iterable[str]) -> int:
        """As `delete_many`."""
        return int(await self._in_thread(self.delete_many, keys))

    async def ainvalidate_tags(self, *tags: str) -> None:
        """As `invalidate_tags`."""
        await self._in_thread(self.invalidate_tags, *tags)

    async def aclear(self) -> None:
        """As `clear`."""
        await self._in_thread(self.clear)

    async def astats(self) -> dict[str, int]:
        """As `stats`, which waits for nothing."""
        return self.stats()

    async def ahealth(self) -> dict[str, Any]:
        """As `health`, which waits for nothing."""
        return self.health()

    async def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await self._async_computer().in_thread(work, *arguments)

    def _async_computer(self) -> AsyncComputer:
        if self._async is None:
            from framecache._acompute import AsyncComputer

            self._async = AsyncComputer(self._computer)
        return self._async
