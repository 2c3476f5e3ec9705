"""What users write about cached functions, as type checkers see it: checked, never run.

Each line with an ignore comment is an error that has to be found: a checker that finds none reports the comment.
"""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from typing_extensions import assert_type

import framecache
from framecache import Cache, CacheInfo, Entry, Event
from framecache.testing import Clock, Recorder

cache = Cache(ttl=60, clock=Clock())


@cache
def bare(x: int, *, y: str = "") -> list[str]:
    return [y] * x


@cache(ttl=timedelta(minutes=5), tags=("tag",), ignore=["y"], jitter=0.2, lock=5)
def called(x: int, *, y: str = "") -> list[str]:
    return [y] * x


@cache
async def abare(x: int, *, y: str = "") -> list[str]:
    return [y] * x


@cache(ttl=lambda result: len(result), tags=lambda result: result, stale_for=60, share=True)
async def acalled(x: int, *, y: str = "") -> list[str]:
    return [y] * x


@framecache.cache
def default(x: int) -> str:
    return str(x)


class Service:
    def cache_key(self) -> int:
        return 0

    @cache(ttl=5)
    def method(self, x: int) -> str:
        return str(x)

    @cache
    async def amethod(self, x: int) -> str:
        return str(x)


def sync() -> None:
    assert_type(bare(1, y="a"), list[str])
    assert_type(called(1, y="a"), list[str])
    assert_type(default(1), str)
    assert_type(bare.get(1), list[str] | None)
    assert_type(bare.set(["a"], 1, y="b"), bool)
    assert_type(bare.refresh(1), list[str])
    assert_type(bare.warm(x=1), bool)
    assert_type(called.invalidate(1), bool)
    assert_type(called.key(1, y="a"), str)
    assert_type(called.cache_info(), CacheInfo)
    assert_type(called.cache_info().hits, int)
    bare.cache_clear()
    plain: Callable[..., list[str]] = bare.__wrapped__
    plain(1)
    bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]
    bare(1, "a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # ty: ignore[too-many-positional-arguments]
    called.get()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # ty: ignore[missing-argument]
    called.set(1, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]
    called.other()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # ty: ignore[missing-attribute]


async def loop() -> None:
    coroutine: Coroutine[Any, Any, list[str]] = abare(1)
    assert_type(await coroutine, list[str])
    assert_type(await abare(1, y="a"), list[str])
    assert_type(await acalled(1), list[str])
    assert_type(await abare.get(1), list[str] | None)
    assert_type(await abare.set(["a"], 1), bool)
    assert_type(await abare.refresh(1), list[str])
    assert_type(await abare.warm(1), bool)
    assert_type(await acalled.invalidate(1), bool)
    assert_type(acalled.key(1), str)
    assert_type(acalled.cache_info(), CacheInfo)
    await abare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]
    await acalled.get("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]


async def methods(service: Service) -> None:
    assert_type(service.method(1), str)
    assert_type(service.method(x=1), str)
    assert_type(Service.method(service, 1), str)
    assert_type(Service.method.invalidate(service, 1), bool)
    assert_type(await service.amethod(1), str)
    assert_type(await Service.amethod.get(service, 1), str | None)
    service.method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]
    service.method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # ty: ignore[missing-argument]


def options() -> None:
    cache(ttl="1")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]  # ty: ignore[invalid-argument-type]
    cache(colour=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]  # ty: ignore[no-matching-overload]
    cache.add_hook(Recorder())

    def hook(event: Event) -> None:
        assert_type(event.key, str)
        assert_type(event.duration, float)

    cache.add_hook(hook)
    with cache.bypass():
        pass


def length(key: str) -> int:
    return len(key)


async def alength(keys: list[str]) -> dict[str, int]:
    return {key: len(key) for key in keys}


async def values() -> None:
    assert_type(cache.get_or_set("key", lambda: length("key")), int)
    assert_type(cache.get_many(["key"], compute=lambda keys: {key: len(key) for key in keys}), dict[str, Any])
    assert_type(await cache.aget_many(["key"], compute=alength, ttl=5), dict[str, Any])
    assert_type(cache.get_entry("key"), Entry | None)
    assert_type(await cache.aset("key", 1, ttl=timedelta(1), max_age=None), bool)
    assert_type(cache.set_many({"key": 1}), int)
    assert_type(cache.touch("key", None), bool)
    async for key in cache.akeys():
        assert_type(key, str)
