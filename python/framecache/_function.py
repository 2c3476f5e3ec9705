"""Cached functions: what `@cache` makes of a function."""

from __future__ import annotations

import functools
import types

from framecache._compute import Computer, Plan
from framecache._events import CacheInfo
from framecache._framecache import MISSING, Call, InvalidArgument
from framecache._identity import (
    KEYWORD_ONLY,
    POSITIONAL,
    POSITIONAL_ONLY,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    encoder,
    identity_of,
    label_of,
    parameters_of,
)
from framecache._times import Lifetime
from framecache._values import check_codec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final

    from framecache._acompute import AsyncComputer
    from framecache._framecache import L1
    from framecache._tiers import Tiers
    from framecache._times import Seconds

# Flags of code objects, as in `inspect`.
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ITERABLE_COROUTINE: Final = 0x100
_ASYNC_GENERATOR: Final = 0x200


class Options:
    """What `@cache(...)` was given, checked."""

    __slots__ = (
        "cache_if",
        "codec",
        "ignore",
        "jitter",
        "key",
        "lock",
        "name",
        "share",
        "stale_for",
        "stale_if_error",
        "tags",
        "tags_of",
        "ttl",
        "ttl_of",
        "version",
        "views",
    )

    def __init__(
        self,
        *,
        ttl: Seconds | Callable[[Any], Seconds | None] | None,
        tags: Iterable[str] | Callable[[Any], Iterable[str]],
        key: Callable[..., object] | None,
        name: str | None,
        ignore: Iterable[str],
        version: object,
        codec: str,
        cache_if: Callable[[Any], object] | None,
        jitter: float,
        stale_for: Seconds,
        stale_if_error: Seconds,
        share: bool,
        views: bool,
        lock: bool | Seconds,
    ) -> None:
        for argument, value in (("ignore", ignore), ("tags", tags)):
            if isinstance(value, str):
                raise InvalidArgument(
                    f"{argument}: expected several of them, got the str {value!r:.100}; put it in a tuple"
                )
        for argument, function in (("key", key), ("cache_if", cache_if)):
            if function is not None and not callable(function):
                raise InvalidArgument(f"{argument}: expected a callable, got {type(function).__name__}")
        self.ttl_of = ttl if callable(ttl) else None
        self.ttl = None if callable(ttl) else ttl
        self.tags_of = _listed(tags) if callable(tags) else None
        self.tags: tuple[str, ...] = () if callable(tags) else tuple(tags)
        self.key = key
        self.name = name
        self.ignore = frozenset(ignore)
        self.version = version
        self.codec = check_codec(codec)
        self.cache_if = cache_if
        self.jitter = jitter
        self.stale_for = stale_for
        self.stale_if_error = stale_if_error
        self.share = share
        self.views = views
        self.lock = limit_of(lock)
        self.lifetime()

    def lifetime(self) -> Lifetime:
        """How long results are served; of those whose ttl depends on them, how long at most when stale."""
        if self.ttl_of is None:
            return Lifetime(self.ttl, stale_for=self.stale_for, stale_if_error=self.stale_if_error, jitter=self.jitter)
        return Lifetime(1, stale_for=self.stale_for, stale_if_error=self.stale_if_error, jitter=self.jitter)


def _listed(tags_of: Callable[[Any], Iterable[str]]) -> Callable[[Any], Sequence[str]]:
    def listed(value: Any) -> Sequence[str]:
        tags = tags_of(value)
        if isinstance(tags, str):
            raise InvalidArgument(f"tags: expected several of them, got the str {tags!r:.100}; put it in a tuple")
        return list(tags)

    return listed


def limit_of(lock: bool | Seconds) -> float:
    """For how long a caller waits for another one, in seconds."""
    if lock is True:
        return 60.0
    if lock is False:
        return 0.0
    from framecache._times import milliseconds

    return milliseconds(lock, "lock") / 1000


class Cached:
    """A function whose results are cached.

    Args:
        function: What computes.
        options: What `@cache(...)` was given.
        tiers: Where results go.
        computer: Looks them up, and calls the function.
        bypassed: Whether caching is switched off now.
        l1: What its calls ask first.
        on_miss: What they ask then; `None`: they return `MISSING`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        tiers: Tiers,
        computer: Computer,
        bypassed: Callable[[], bool],
        l1: L1,
        on_miss: Callable[[bytes, tuple[Any, ...], dict[str, Any]], Any] | None = None,
    ) -> None:
        from framecache import _keys

        self.function = function
        self.tiers = tiers
        self.computer = computer
        self.bypassed = bypassed
        self.scope = tiers.shared.new_scope()
        self.label = label_of(function, options.name)
        self.plan = Plan(
            options.lifetime(),
            ttl_of=options.ttl_of,
            tags=options.tags,
            tags_of=options.tags_of,
            cache_if=options.cache_if,
            codec=options.codec,
            share=options.share,
            views=options.views,
            lock=options.lock,
            function=self.scope,
        )
        identity = identity_of(
            function,
            options.name,
            options.version,
            options.key is None,
            (options.codec, options.views, sorted(options.ignore)),
        )
        self.call = Call(
            l1,
            self.scope,
            encoder(identity),
            self.label,
            parameters_of(function, options.ignore),
            on_miss,
            describe=_keys.describe,
            key=options.key,
            views=options.views,
        )
        tiers.calls.setdefault(self.label, []).append((self.scope, self.call))
        self._hits_before = 0

    def cache_info(self) -> CacheInfo:
        """Return how its calls were answered in this process since the last `cache_clear`."""
        plan = self.plan
        return CacheInfo(self.call.hits - self._hits_before + plan.hits, plan.misses, plan.stale, plan.errors)

    def cache_clear(self) -> None:
        """Make all its results misses, those that are being computed too, in every process; count from 0 again."""
        for flight in self.computer.flights.of(self.tiers.scope, f"{self.label}#"):
            flight.fenced = True
        self.tiers.invalidate_function(self.label, self.scope)
        plan = self.plan
        plan.hits = plan.misses = plan.stale = plan.errors = 0
        self._hits_before = self.call.hits


class Function(Cached):
    """What the attributes of a cached function do."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        tiers: Tiers,
        computer: Computer,
        bypassed: Callable[[], bool],
        l1: L1,
    ) -> None:
        super().__init__(function, options, tiers, computer, bypassed, l1, self.miss)

    def miss(self, canonical: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the result of a call that L1 has no fresh one for."""
        function = self.function
        if self.bypassed():
            return function(*args, **kwargs)
        key = self.call.key_of(canonical)
        return self.computer.value(self.plan, canonical, key, lambda: function(*args, **kwargs))

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result of a call, or `None`; never call the function."""
        canonical = self.call.canonical(*args, **kwargs)
        found = self.computer.fresh(self.plan, canonical, self.call.key_of(canonical))
        return None if found is None else found.value

    def set(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        """Store `value` as the result of a call; return whether it was stored."""
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)
        self.computer.flights.fence(self.tiers.scope, key)
        return self.computer.put(self.plan, canonical, key, value, None, None) == "written"

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Remove the result of a call; return whether there was one. One that is being computed is not stored."""
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)
        self.computer.flights.fence(self.tiers.scope, key)
        return self.tiers.delete([(canonical, key)]) > 0

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of a call anew, store and return it."""
        canonical = self.call.canonical(*args, **kwargs)
        function = self.function
        if self.bypassed():
            return function(*args, **kwargs)
        key = self.call.key_of(canonical)

        def call():
            return function(*args, **kwargs)  # a def would say no more

        return self.computer.compute(self.plan, canonical, key, call, force=True)

    def warm(self, *args: Any, **kwargs: Any) -> bool:
        """Compute the result of a call if it is not cached; return whether it had to be."""
        canonical = self.call.canonical(*args, **kwargs)
        if self.computer.fresh(self.plan, canonical, self.call.key_of(canonical)) is not None:
            return False
        self.call(*args, **kwargs)
        return True


class AsyncFunction(Cached):
    """What the attributes of a cached coroutine function do; what waits is a coroutine too."""

    def __init__(
        self,
        function: Callable[..., Any],
        options: Options,
        tiers: Tiers,
        computer: Computer,
        bypassed: Callable[[], bool],
        l1: L1,
    ) -> None:
        super().__init__(function, options, tiers, computer, bypassed, l1)
        self._acomputer: AsyncComputer | None = None

    @property
    def acomputer(self) -> AsyncComputer:
        """The computer of its loop's tasks; made when first needed, as importing asyncio takes long."""
        if self._acomputer is None:
            from framecache._acompute import AsyncComputer

            self._acomputer = AsyncComputer(self.computer)
        return self._acomputer

    async def amiss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `miss`."""
        function = self.function
        if self.bypassed():
            return await function(*args, **kwargs)
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)
        return await self.acomputer.value(self.plan, canonical, key, lambda: function(*args, **kwargs))

    async def get(self, *args: Any, **kwargs: Any) -> Any:
        """As `Function.get`."""
        canonical = self.call.canonical(*args, **kwargs)
        found = await self.acomputer.fresh(self.plan, canonical, self.call.key_of(canonical))
        return None if found is None else found.value

    async def set(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        """As `Function.set`."""
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)
        self.computer.flights.fence(self.tiers.scope, key)
        stored = await self.acomputer.in_thread(self.computer.put, self.plan, canonical, key, value, None, None)
        return bool(stored == "written")

    async def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """As `Function.invalidate`."""
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)
        self.computer.flights.fence(self.tiers.scope, key)
        return bool(await self.acomputer.in_thread(self.tiers.delete, [(canonical, key)]) > 0)

    async def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """As `Function.refresh`."""
        function = self.function
        if self.bypassed():
            return await function(*args, **kwargs)
        canonical = self.call.canonical(*args, **kwargs)
        key = self.call.key_of(canonical)

        def call():
            return function(*args, **kwargs)

        return await self.acomputer.compute(self.plan, canonical, key, call, force=True)

    async def warm(self, *args: Any, **kwargs: Any) -> bool:
        """As `Function.warm`."""
        canonical = self.call.canonical(*args, **kwargs)
        if await self.acomputer.fresh(self.plan, canonical, self.call.key_of(canonical)) is not None:
            return False
        await self.amiss(args, kwargs)
        return True


#: What a cached function has beside what it is called for; `key` comes with `Call`.
_ATTRIBUTES: Final = ("get", "set", "invalidate", "refresh", "warm", "cache_info", "cache_clear")


def wrap(function: Any, make: Callable[[type[Cached], Callable[..., Any]], Any]) -> Any:
    """Return `function` with its results cached; `make` makes what its attributes do.

    Raises:
        InvalidArgument: a generator function, whose results can be used only once, or something that is no function.
    """
    if isinstance(function, classmethod | staticmethod):
        return type(function)(wrap(function.__func__, make))
    if not callable(function) or isinstance(function, type):
        raise InvalidArgument(f"cache: expected a function, got {function!r:.100}")
    flags = _flags_of(function)
    if flags & (_GENERATOR | _ASYNC_GENERATOR) and not flags & _ITERABLE_COROUTINE:
        raise InvalidArgument(
            f"{getattr(function, '__qualname__', function)}: expected a function that returns its result, got a "
            "generator function, whose result can be read only once; return a list"
        )
    if not flags & _COROUTINE:
        cached = make(Function, function)
        call = functools.update_wrapper(cached.call, function)
        for attribute in _ATTRIBUTES:
            setattr(call, attribute, getattr(cached, attribute))
        return call
    cached = make(AsyncFunction, function)
    coroutine_function: Any = functools.update_wrapper(_coroutine_function(cached, function), function)
    for attribute in _ATTRIBUTES:
        setattr(coroutine_function, attribute, getattr(cached, attribute))
    coroutine_function.key = cached.call.key
    return coroutine_function


def _flags_of(function: Any) -> int:
    """The flags of its code, where `functools.partial` is looked through."""
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        function = function.__func__
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    return code.co_flags if isinstance(code, types.CodeType) else 0


def _coroutine_function(cached: AsyncFunction, function: Any) -> Callable[..., Any]:
    """A coroutine function with the parameters of `function`, so that a hit binds them once and makes no tuple."""
    shown, positional, by_name = [], [], []
    parameters = parameters_of(function, frozenset())
    defaults, keyword_defaults = [], {}
    for place, (name, kind, default, _) in enumerate(parameters):
        follows = parameters[place + 1][1] if place + 1 < len(parameters) else None
        text = {VAR_POSITIONAL: f"*{name}", VAR_KEYWORD: f"**{name}"}.get(kind, name)
        if kind == KEYWORD_ONLY and not any(other[1] == VAR_POSITIONAL for other in parameters) and "*" not in shown:
            shown.append("*")
        if default is not MISSING:
            text += "=None"
            if kind == KEYWORD_ONLY:
                keyword_defaults[name] = default
            else:
                defaults.append(default)
        shown.append(text)
        if kind == POSITIONAL_ONLY and follows != POSITIONAL_ONLY:
            shown.append("/")
        if kind in (POSITIONAL_ONLY, POSITIONAL):
            positional.append(name)
        elif kind == VAR_POSITIONAL:
            positional.append(f"*{name}")
        else:
            by_name.append(f"**{name}" if kind == VAR_KEYWORD else f"{name}={name}")
    # Names of parameters are identifiers; nothing else of the function gets into the text.
    arguments = ", ".join([*positional, *by_name])
    ordered = f"({', '.join(positional)}{',' if positional else ''})"
    text = (
        f"async def __framecache_function({', '.join(shown)}):\n"
        f"    __framecache_value = __framecache_call({arguments})\n"
        f"    if __framecache_value is __framecache_missing:\n"
        f"        return await __framecache_miss({ordered}, __framecache_dict({', '.join(by_name)}))\n"
        f"    return __framecache_value\n"
    )
    names = {
        "__framecache_call": cached.call,
        "__framecache_missing": MISSING,
        "__framecache_miss": cached.amiss,
        "__framecache_dict": dict,
    }
    exec(compile(text, "<framecache>", "exec"), names)  # noqa: S102
    made: Any = names["__framecache_function"]
    made.__defaults__ = tuple(defaults) or None
    made.__kwdefaults__ = keyword_defaults or None
    function_made: Callable[..., Any] = made
    return function_made
