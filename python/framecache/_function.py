"""Cached functions: what `@cache` makes of a function."""

from __future__ import annotations

import functools
import types

from framecache._asking import run
from framecache._compute import Computer
from framecache._events import CacheInfo
from framecache._framecache import MISSING, Call, InvalidArgument
from framecache._identity import (
    KEYWORD_ONLY,
    POSITIONAL_ONLY,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    can_be_key,
    encoder,
    identity_of,
    label_of,
    parameters_of,
)
from framecache._plan import Plan
from framecache._times import Lifetime, limit_of
from framecache._values import check_codec, check_text, tags_of, texts_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, Final

    from framecache._acompute import AsyncComputer
    from framecache._framecache import L1
    from framecache._tiers import Tiers
    from framecache._times import Seconds

# Flags of code objects, as in `inspect`.
_GENERATORS: Final = 0x20 | 0x200
_COROUTINE: Final = 0x80


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
        for argument, function in (("key", key), ("cache_if", cache_if)):
            if function is not None and not callable(function):
                raise InvalidArgument(f"{argument}: expected a callable, got {type(function).__name__}")
        self.ttl_of = ttl if callable(ttl) else None
        self.ttl = None if callable(ttl) else ttl
        self.tags_of = (lambda value: tags_of(tags(value))) if callable(tags) else None
        self.tags = [] if callable(tags) else tags_of(tags)
        self.key = key
        self.name = name
        self.ignore = frozenset(check_text("ignore", one) for one in texts_of("ignore", ignore))
        if not can_be_key(version):
            raise InvalidArgument(f"version: expected a value that keys can be made of, got {version!r:.100}")
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
            self.label,
            options.version,
            options.key,
            options.key is None and options.name is None,
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
        tiers.add_call(self.label, self.scope, self.call)
        self._hits_before = 0

    def again(self, canonical: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """The call, to be made when it is computed, which is later if a stale value is served meanwhile."""
        call = functools.partial(self.function, *args, **kwargs)
        return call if not self.plan.lifetime.stale_for else functools.partial(self._unchanged, canonical, call)

    def _unchanged(self, canonical: bytes, call: functools.partial[Any]) -> Any:
        """The call, unless somebody changed an argument since: its result would be that of another one."""
        if self.call.canonical(*call.args, **call.keywords) != canonical:
            raise InvalidArgument(f"{self.label}: expected arguments that do not change, found one that was changed")
        return call()

    def place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, str]:
        """The canonical key and the key of a call."""
        canonical = self.call.canonical(*args, **kwargs)
        return canonical, self.call.key_of(canonical)

    def cache_info(self) -> CacheInfo:
        """Return how its calls were answered in this process since the last `cache_clear`."""
        plan = self.plan
        return CacheInfo(self.call.hits - self._hits_before + plan.hits, plan.misses, plan.stale, plan.errors)

    def cache_clear(self) -> None:
        """Make all its results misses, those that are being computed too, in every process; count from 0 again."""
        for flight in self.computer.flights.of(self.tiers.scope, f"{self.label}#"):
            flight.fenced = True
        run(self.tiers.invalidate_function(self.label, self.scope))
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
        if self.bypassed():
            return self.function(*args, **kwargs)
        key = self.call.key_of(canonical)
        return self.computer.value(self.plan, canonical, key, self.again(canonical, args, kwargs))

    def get(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the cached result of a call, or `None`; never call the function."""
        if self.bypassed():
            return None
        found = self.computer.fresh(self.plan, *self.place(args, kwargs))
        return None if found is None else found.value

    def set(self, value: Any, /, *args: Any, **kwargs: Any) -> bool:
        """Store `value` as the result of a call; return whether it was stored."""
        if self.bypassed():
            return False
        canonical, key = self.place(args, kwargs)
        self.computer.flights.fence(self.tiers.scope, key)
        return run(self.computer.put(self.plan, canonical, key, value, None, None)) == "written"

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Remove the result of a call; return whether there was one. One that is being computed is not stored."""
        canonical, key = self.place(args, kwargs)
        self.computer.flights.fence(self.tiers.scope, key)
        return run(self.tiers.delete([(canonical, key)])) > 0

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Compute the result of a call anew, store and return it."""
        if self.bypassed():
            return self.function(*args, **kwargs)
        canonical, key = self.place(args, kwargs)
        return self.computer.compute(self.plan, canonical, key, self.again(canonical, args, kwargs), force=True)

    def warm(self, /, *args: Any, **kwargs: Any) -> bool:
        """Compute the result of a call if it is not cached; return whether it had to be."""
        if self.bypassed():
            return False
        canonical, key = self.place(args, kwargs)
        if self.computer.fresh(self.plan, canonical, key) is not None:
            return False
        self.miss(canonical, args, kwargs)
        return True


class AsyncFunction(Cached):
    """What the attributes of a cached coroutine function do; what waits is a coroutine too."""

    _acomputer: AsyncComputer | None = None

    @property
    def acomputer(self) -> AsyncComputer:
        """The computer of its loop's tasks; made when first needed, as importing asyncio takes long."""
        if self._acomputer is None:
            from framecache._acompute import AsyncComputer

            self._acomputer = AsyncComputer(self.computer)
        return self._acomputer

    async def amiss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As `miss`."""
        if self.bypassed():
            return await self.function(*args, **kwargs)
        canonical, key = self.place(args, kwargs)
        return await self.acomputer.value(self.plan, canonical, key, self.again(canonical, args, kwargs))

    async def get(self, /, *args: Any, **kwargs: Any) -> Any:
        """As `Function.get`."""
        if self.bypassed():
            return None
        found = await self.acomputer.fresh(self.plan, *self.place(args, kwargs))
        return None if found is None else found.value

    async def set(self, value: Any, /, *args: Any, **kwargs: Any) -> bool:
        """As `Function.set`."""
        if self.bypassed():
            return False
        canonical, key = self.place(args, kwargs)
        self.computer.flights.fence(self.tiers.scope, key)
        stored = await self.tiers.in_loop(self.computer.put, self.plan, canonical, key, value, None, None)
        return stored == "written"

    async def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """As `Function.invalidate`."""
        canonical, key = self.place(args, kwargs)
        self.computer.flights.fence(self.tiers.scope, key)
        return await self.tiers.in_loop(self.tiers.delete, [(canonical, key)]) > 0

    async def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """As `Function.refresh`."""
        if self.bypassed():
            return await self.function(*args, **kwargs)
        canonical, key = self.place(args, kwargs)
        call = self.again(canonical, args, kwargs)
        return await self.acomputer.compute(self.plan, canonical, key, call, force=True)

    async def warm(self, /, *args: Any, **kwargs: Any) -> bool:
        """As `Function.warm`."""
        if self.bypassed():
            return False
        if await self.acomputer.fresh(self.plan, *self.place(args, kwargs)) is not None:
            return False
        await self.amiss(args, kwargs)
        return True


#: What a cached function has beside what it is called for, and what `Call` has of its own: attributes that its function
#: has under these names are not taken over.
_ATTRIBUTES: Final = ("get", "set", "invalidate", "refresh", "warm", "cache_info", "cache_clear")
_OF_CALL: Final = ("canonical", "find", "hits", "key", "key_of")


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
    if flags & _GENERATORS:
        raise InvalidArgument(
            f"{getattr(function, '__qualname__', function)}: expected a function that returns its result, got a "
            "generator function, whose result can be read only once; return a list"
        )
    cached = make(AsyncFunction if flags & _COROUTINE else Function, function)
    call = cached.call
    made: Any = functools.update_wrapper(_coroutine_function(cached) if flags & _COROUTINE else call, function)
    for attribute in _OF_CALL:
        made.__dict__.pop(attribute, None)
    for attribute in _ATTRIBUTES:
        setattr(made, attribute, getattr(cached, attribute))
    if made is not call:
        made.key = call.key
    return made


def _flags_of(function: Any) -> int:
    """The flags of its code, where `functools.partial` and methods are looked through."""
    while isinstance(function, functools.partial):
        function = function.func
    if hasattr(function, "_is_coroutine_marker"):  # of inspect.markcoroutinefunction
        return _COROUTINE
    code = getattr(function, "__code__", None)
    if code is None:
        code = getattr(type(function).__call__, "__code__", None)
    return code.co_flags if isinstance(code, types.CodeType) else 0


def _coroutine_function(cached: AsyncFunction) -> Callable[..., Any]:
    """A coroutine function with the parameters of the cached one, so that a hit binds them once and makes no tuple."""
    parameters = parameters_of(cached.function, frozenset())
    own = "_framecache"
    while any(name.startswith(own) for name, *_ in parameters):
        own += "_"
    shown, by_place, by_name = _text_of(parameters)
    placed = "".join(f"{one}, " for one in by_place)
    # Names of parameters are identifiers; nothing else of the function gets into the text.
    text = (
        f"async def {own}_function({', '.join(shown)}):\n"
        f"    {own}_value = {own}_call({', '.join([*by_place, *by_name])})\n"
        f"    if {own}_value is {own}_missing:\n"
        f"        return await {own}_miss(({placed}), {own}_dict({', '.join(by_name)}))\n"
        f"    return {own}_value\n"
    )
    names: dict[str, Any] = {
        f"{own}_call": cached.call,
        f"{own}_missing": MISSING,
        f"{own}_miss": cached.amiss,
        f"{own}_dict": dict,
    }
    exec(compile(text, "<framecache>", "exec"), names)  # noqa: S102
    made = names[f"{own}_function"]
    given = [(name, kind, default) for name, kind, default, _ in parameters if default is not MISSING]
    made.__defaults__ = tuple(default for _, kind, default in given if kind != KEYWORD_ONLY)
    made.__kwdefaults__ = {name: default for name, kind, default in given if kind == KEYWORD_ONLY}
    return made  # type: ignore[no-any-return]


def _text_of(parameters: Sequence[tuple[str, int, object, bool]]) -> tuple[list[str], list[str], list[str]]:
    """Parameters as they stand in a definition, and as they are passed on by place and by name."""
    shown: list[str] = []
    by_place: list[str] = []
    by_name: list[str] = []
    before = None
    for name, kind, default, _ in parameters:
        if before == POSITIONAL_ONLY != kind:
            shown.append("/")
        if kind == KEYWORD_ONLY and before not in (VAR_POSITIONAL, KEYWORD_ONLY):
            shown.append("*")
        stars = {VAR_POSITIONAL: "*", VAR_KEYWORD: "**"}.get(kind, "")
        shown.append(f"{stars}{name}" + ("" if default is MISSING else "=None"))
        if kind in (KEYWORD_ONLY, VAR_KEYWORD):
            by_name.append(f"**{name}" if kind == VAR_KEYWORD else f"{name}={name}")
        else:
            by_place.append(f"{stars}{name}")
        before = kind
    return ([*shown, "/"] if before == POSITIONAL_ONLY else shown), by_place, by_name
