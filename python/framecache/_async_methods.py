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
    from framecache._reading import Ahead, Found
    from framecache._times import Seconds

    R = TypeVar("R")


class AsyncMethods(Methods):
    """What coroutines call.

    Reads that memory or the index of the store answers happen at once. Whatever touches a file, takes a lock or writes
    happens in a worker thread, where there is a store; the loop never waits for a disk. An engine that was given as a
    client for event loops is asked by the loop itself; values above 64 KiB, and containers of more than 1000 items, are
    encoded and decoded in a thread.
    """

    _async: AsyncComputer | None = None

    async def aget(self, key: str, default: Any = None, *, views: bool = False, require_zero_copy: bool = False) -> Any:
        """As `get`."""
        if not self._slow and not views and self._l1 is not None and not require_zero_copy:
            value = self._l1.get(self._tiers.scope, key)
            if value is not MISSING:
                return value
        if self._is_plain_remote and self._l1 is None and not self._slow and not require_zero_copy:
            ahead = await self._tiers.ask(key)
            if isinstance(ahead, Reading) and is_light(ahead):
                values, rest = self._tiers.values_of(ahead, views)
                if key in values:
                    return values[key]
                ahead = rest[key]
            found = await self._found(key, views, False, ahead)
        else:
            found = await self._afind(key, views, require_zero_copy)
        return default if isinstance(found, str) else found.value

    async def _afind(self, key: str, views: bool, require_zero_copy: bool = False) -> Found | str:
        """As `_find`."""
        found = self._find(key, views, require_zero_copy, at_hand=self._has_store)
        if found != "elsewhere":
            return found
        return await self._found(key, views, require_zero_copy, await self._tiers.ask(key, views, require_zero_copy))

    async def _found(self, key: str, views: bool, require_zero_copy: bool, ahead: Ahead | None) -> Found | str:
        """What `_find` makes of what the engine answered; without an answer, a thread asks."""
        find = partial(self._find, key, views, require_zero_copy, ahead=ahead)
        return find() if is_light(ahead) else await self._in_thread(find)

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
        plan = None if compute is None else self._plan(ttl, max_age, tags, lock, views)
        values: dict[str, Any] = await self._tiers.in_loop(self._read_many, keys, views)
        missing = [key for key in keys if key not in values]
        if compute is not None and plan is not None and missing:
            if self._is_bypassed():
                computed: Mapping[str, Any] = await compute(missing)
            else:
                from framecache._batch import avalues_of

                computed = await avalues_of(self._async_computer(), plan, missing, compute)
            values.update(computed)
        return {key: values[key] for key in keys if key in values}

    async def aget_entry(self, key: str, *, views: bool = False) -> Entry | None:
        """As `get_entry`."""
        return self._entry_of(key, await self._afind(key, views))

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
        return await self._tiers.in_loop(self._put, {key: value}, ttl, max_age, tags, if_absent, codec) == 1

    async def aset_many(
        self,
        values: Mapping[str, object],
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """As `set_many`."""
        return await self._tiers.in_loop(self._put, values, ttl, max_age, tags)

    async def atouch(self, key: str, ttl: Seconds | Missing | None = MISSING) -> bool:
        """As `touch`."""
        return await self._tiers.in_loop(self._touch, key, ttl)

    async def acontains(self, key: str) -> bool:
        """As `contains`."""
        if self._backend is None or self._is_bypassed() or not isinstance(key, str):
            return self.contains(key)
        tiers = self._opened()
        return await tiers.in_loop(tiers.contains, tiers.canonical(key), key)

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        """As `keys`."""
        tiers = self._opened()
        keys, after = await tiers.in_loop(tiers.keys, prefix)
        while True:
            for key in keys:
                yield key
            if after is None:
                return
            keys, after = await tiers.in_loop(tiers.keys, prefix, after)

    async def adelete(self, key: str) -> bool:
        """As `delete`."""
        return await self.adelete_many([key]) > 0

    async def adelete_many(self, keys: Iterable[str]) -> int:
        """As `delete_many`."""
        return await self._tiers.in_loop(self._delete_many, keys)

    async def ainvalidate_tags(self, *tags: str) -> None:
        """As `invalidate_tags`."""
        await self._tiers.in_loop(self._invalidate_tags, tags)

    async def aclear(self) -> None:
        """As `clear`."""
        await self._tiers.in_loop(self._clear)

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
