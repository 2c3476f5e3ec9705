"""The types of cached functions, for type checkers: at run time they are what `_function.wrap` makes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

    from framecache._events import CacheInfo

    P = ParamSpec("P")
    Q = ParamSpec("Q")
    R = TypeVar("R")

    class CachedFunction(Generic[P, R]):
        """A function whose results are cached. Its attributes take a call's arguments, a method's instance first."""

        __wrapped__: Callable[P, R]
        __name__: str
        __qualname__: str
        __module__: str

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """The result of a call."""

        @overload  # type: ignore[no-overload-impl]
        def __get__(self, instance: None, owner: type, /) -> CachedFunction[P, R]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
        ) -> Callable[Q, R]: ...
        def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
            """The key of a call."""

        def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
            """The cached result of a call, or `None`."""

        def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Store `value` as the result of a call; whether it was stored."""

        def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Remove the result of a call; whether there was one."""

        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Compute the result of a call anew, and store it."""

        def warm(self, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Compute the result of a call if it is not cached; whether it had to be."""

        def cache_info(self) -> CacheInfo:
            """How its calls were answered."""

        def cache_clear(self) -> None:
            """Make all its results misses."""

    class AsyncCachedFunction(Generic[P, R]):
        """A coroutine function whose results are cached."""

        __wrapped__: Callable[P, Coroutine[Any, Any, R]]
        __name__: str
        __qualname__: str
        __module__: str

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
            """The result of a call, to be awaited."""

        @overload  # type: ignore[no-overload-impl]
        def __get__(self, instance: None, owner: type, /) -> AsyncCachedFunction[P, R]: ...
        @overload
        def __get__(
            self: Callable[Concatenate[Any, Q], Coroutine[Any, Any, R]], instance: object, owner: type | None = None, /
        ) -> Callable[Q, Coroutine[Any, Any, R]]: ...
        def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
            """The key of a call."""

        async def get(self, *args: P.args, **kwargs: P.kwargs) -> R | None:
            """The cached result of a call, or `None`."""

        async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Store `value` as the result of a call; whether it was stored."""

        async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Remove the result of a call; whether there was one."""

        async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Compute the result of a call anew, and store it."""

        async def warm(self, *args: P.args, **kwargs: P.kwargs) -> bool:
            """Compute the result of a call if it is not cached; whether it had to be."""

        def cache_info(self) -> CacheInfo:
            """How its calls were answered."""

        def cache_clear(self) -> None:
            """Make all its results misses."""

    class Decorator(Protocol):
        """What ``@cache(...)`` returns."""

        @overload
        def __call__(  # type: ignore[overload-overlap]  # the first that fits counts
            self, function: Callable[P, Coroutine[Any, Any, R]], /
        ) -> AsyncCachedFunction[P, R]: ...
        @overload
        def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
