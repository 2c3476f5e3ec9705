"""Cached functions: their attributes, and that they behave as the functions that they stand for."""

from __future__ import annotations

import asyncio
import copy
import doctest
import functools
import inspect
import pickle
import sys
import threading
import types
import typing
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import framecache
from framecache.testing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator

CACHE = framecache.Cache()


@CACHE(ttl=60)
def told(x: int, /, y: str = "y", *more: float, z: bytes = b"z", **rest: int) -> list[object]:
    """What it was told.

    >>> told(1)
    [1, 'y', [], b'z', {}]
    """
    return [x, y, list(more), z, rest]


@CACHE(ttl=60)
async def atold(x: int, /, y: str = "y", *more: float, z: bytes = b"z", **rest: int) -> list[object]:
    """As `told`."""
    return [x, y, list(more), z, rest]


def plain(x: int, /, y: str = "y", *more: float, z: bytes = b"z", **rest: int) -> list[object]:
    """As `told`."""
    return [x, y, list(more), z, rest]


async def aplain(x: int, /, y: str = "y", *more: float, z: bytes = b"z", **rest: int) -> list[object]:
    """As `told`."""
    return [x, y, list(more), z, rest]


class Counted:
    """A function that counts its calls, and returns what differs between them."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def __call__(self, *args: object) -> list[object]:
        self.calls.append(args)
        return [len(self.calls), *args]

    def cache_key(self) -> int:
        return 0


@pytest.fixture
def memory() -> Iterator[framecache.Cache]:
    with framecache.Cache() as cache:
        yield cache


@pytest.fixture(params=["memory", "directory"])
def any_cache(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[framecache.Cache]:
    with framecache.Cache(f"file://{tmp_path}/cache" if request.param == "directory" else None) as cache:
        yield cache


class TestAttributes:
    def test_each_does_what_it_says(self, any_cache: framecache.Cache) -> None:
        counted = Counted()

        @any_cache
        def f(x: int) -> list[object]:
            return counted(x)

        assert f.get(1) is None
        assert f.warm(1) is True
        assert f.warm(1) is False
        assert f.get(1) == f(1) == f(x=1) == f.get(x=1) == [1, 1]
        assert f.refresh(1) == [2, 1]
        assert f(1) == [2, 1]
        assert f.set([0], 1) is True
        assert f(1) == [0]
        assert f.invalidate(x=1) is True
        assert f.invalidate(1) is False
        assert f(1) == [3, 1]
        assert f(2) == [4, 2]
        assert any_cache.get(f.key(2)) == [4, 2]
        assert sorted(any_cache.keys()) == sorted([f.key(1), f.key(2)])
        f.cache_clear()
        assert f.cache_info() == (0, 0, 0, 0)
        assert f.get(1) is f.get(2) is None
        assert f(2) == [5, 2]
        assert f.__wrapped__(9) == [6, 9]
        assert len(counted.calls) == 6

    def test_each_does_what_it_says_of_a_coroutine_function(self, any_cache: framecache.Cache) -> None:
        counted = Counted()

        @any_cache
        async def f(x: int) -> list[object]:
            return counted(x)

        async def main() -> None:
            assert await f.get(1) is None
            assert await f.warm(1) is True
            assert await f.warm(1) is False
            assert await f.get(1) == await f(1) == await f(x=1) == await f.get(x=1) == [1, 1]
            assert await f.refresh(1) == [2, 1]
            assert await f(1) == [2, 1]
            assert await f.set([0], 1) is True
            assert await f(1) == [0]
            assert await f.invalidate(x=1) is True
            assert await f.invalidate(1) is False
            assert await f(1) == [3, 1]
            assert await f(2) == [4, 2]
            assert await any_cache.aget(f.key(2)) == [4, 2]
            f.cache_clear()
            assert f.cache_info() == (0, 0, 0, 0)
            assert await f.get(1) is None
            assert await f(2) == [5, 2]
            assert await f.__wrapped__(9) == [6, 9]

        asyncio.run(main())
        assert len(counted.calls) == 6

    def test_those_of_a_method_take_the_instance_first(self, memory: framecache.Cache) -> None:
        class A:
            @memory(ignore=("self",))
            def f(self, x: int) -> int:
                return x

        a = A()
        assert a.f(1) == 1
        assert a.f.get(a, 1) == A.f.get(a, 1) == 1
        assert a.f.key(a, 1) == A.f.key(A(), 1)
        assert a.f.set(2, a, 1)
        assert a.f(1) == A.f(a, 1) == 2
        assert a.f.invalidate(a, x=1) is True
        assert a.f(1) == 1
        assert a.f.cache_info() == (2, 2, 0, 0)

    def test_calls_add_up(self, any_cache: framecache.Cache) -> None:
        @any_cache
        def f(x: int) -> list[int]:
            return [x]

        @any_cache
        async def af(x: int) -> list[int]:
            return [x]

        async def main() -> None:
            for x in [1, 2, 1, 3, 1]:
                await af(x)

        for x in [1, 2, 1, 3, 1]:
            f(x)
        asyncio.run(main())
        assert f.cache_info() == af.cache_info() == (2, 3, 0, 0)
        assert any_cache.stats()["hit"] == 4
        assert any_cache.stats()["absent"] == 6
        with any_cache.bypass():
            f(1)
        assert f.cache_info() == (2, 3, 0, 0)

    def test_clearing_a_function_clears_what_others_set_under_its_keys(self, any_cache: framecache.Cache) -> None:
        f = any_cache(name="f")(Counted())
        f(1)
        any_cache.set(f.key(1), "theirs")
        assert f(1) == "theirs"
        f.cache_clear()
        assert f(1) == [2, 1]

    def test_an_error_is_counted_and_not_kept(self, any_cache: framecache.Cache) -> None:
        counted = Counted()

        @any_cache
        def f(x: int) -> int:
            raise ValueError(counted(x))

        for number in (1, 2):
            with pytest.raises(ValueError, match=rf"\[{number}, 1\]"):
                f(1)
        assert f.cache_info() == (0, 0, 0, 2)

    def test_none_is_a_value(self, any_cache: framecache.Cache) -> None:
        counted = Counted()

        @any_cache
        def f() -> None:
            counted()

        assert f() is f() is None
        assert len(counted.calls) == 1
        assert any_cache.get(f.key(), framecache.MISSING) is None

    def test_what_the_result_says_decides_about_its_ttl_tags_and_whether_it_is_kept(self) -> None:
        clock = Clock()
        cache = framecache.Cache(clock=clock)
        counted = Counted()

        @cache(
            ttl=lambda result: 10 if result[1] else None,
            tags=lambda result: [f"tag{result[1]}"],
            cache_if=lambda result: result[1] != 3,
            jitter=0,
        )
        def f(x: int) -> list[object]:
            return counted(x)

        assert [f(x)[0] for x in (0, 1, 3, 3)] == [1, 2, 3, 4]
        clock.advance(11)
        assert [f(x)[0] for x in (0, 1)] == [1, 5]
        cache.invalidate_tags("tag0")
        assert [f(x)[0] for x in (0, 1)] == [6, 5]

    def test_tags_of_a_function_with_its_own_compression_are_the_caches(self) -> None:
        with framecache.Cache() as cache:
            f = cache(compression="lz4", tags=("tag",))(Counted())
            assert f(1) == [1, 1]
            cache.invalidate_tags("tag")
            assert f(1) == [2, 1]
            assert cache.delete(f.key(1))
            assert f(1) == [3, 1]

    @pytest.mark.parametrize(
        "options",
        [
            {"ttl": 0},
            {"ttl": -1},
            {"ttl": float("nan")},
            {"ttl": float("inf")},
            {"ttl": "1"},
            {"ttl": True},
            {"tags": "tag"},
            {"tags": (1,)},
            {"tags": ("\0tag",)},
            {"codec": "pickle"},
            {"compression": "zip"},
            {"jitter": 1},
            {"stale_for": 1},
            {"stale_for": -1, "ttl": 1},
            {"stale_if_error": float("nan"), "ttl": 1},
            {"lock": -1},
            {"lock": "yes"},
            {"key": 1},
            {"cache_if": 1},
            {"ignore": (1,)},
            {"namespace": 1},
        ],
    )
    def test_wrong_options_are_refused_at_once(self, memory: framecache.Cache, options: dict[str, Any]) -> None:
        with pytest.raises(framecache.InvalidArgument, match=f"^({'|'.join(options)}|ttl): expected "):
            memory(**options)


class TestRefused:
    def test_generators_are(self, memory: framecache.Cache) -> None:
        def generator() -> Iterator[int]:
            yield 1

        async def async_generator() -> Any:
            yield 1

        class Generates:
            def __call__(self) -> Iterator[int]:
                yield 1

        for function in (
            generator,
            async_generator,
            Generates(),
            functools.partial(generator),
            functools.partial(async_generator),
            types.coroutine(generator),
            staticmethod(generator),
        ):
            with pytest.raises(framecache.InvalidArgument, match=r"generator function, .* return a list"):
                memory(function)

    @pytest.mark.parametrize("what", [3, None, int, property(len), "name"])
    def test_what_is_no_function_is(self, memory: framecache.Cache, what: Any) -> None:
        with pytest.raises(framecache.InvalidArgument, match="cache: expected a function"):
            memory(ttl=1)(what)


class TestParameters:
    """Parameters that are called as something in the code that binds them."""

    ALL = (
        "self, function, key, value, args, kwargs, canonical, call, miss, l1, scope, cls, plan, computer, "
        "_framecache_call, _framecache_missing, _framecache__value, __framecache_call, _framecache_function"
    )

    @pytest.mark.parametrize("form", ["{all}", "*, {all}", "{all}, /", "{all}, **others", "*others, {all}"])
    @pytest.mark.parametrize("kind", ["", "async "])
    def test_no_name_is_in_the_way(self, memory: framecache.Cache, form: str, kind: str) -> None:
        names = self.ALL.split(", ")
        scope: dict[str, Any] = {"names": names}
        exec(f"{kind}def f({form.format(all=self.ALL)}):\n    return [{self.ALL}]", scope)
        f = memory(scope["f"])
        values = list(range(len(names)))
        args, kwargs = (values, {}) if "/" in form else ([], dict(zip(names, values, strict=True)))

        async def main() -> None:
            assert await f(*args, **kwargs) == await f(*args, **kwargs) == await f.get(*args, **kwargs) == values
            assert await f.set([1], *args, **kwargs)
            assert await f(*args, **kwargs) == [1]
            assert await f.invalidate(*args, **kwargs)
            assert await f.warm(*args, **kwargs)
            assert await f.refresh(*args, **kwargs) == values

        if kind:
            asyncio.run(main())
            return
        assert f(*args, **kwargs) == f(*args, **kwargs) == f.get(*args, **kwargs) == values
        assert f.set([1], *args, **kwargs)
        assert f(*args, **kwargs) == [1]
        assert f.invalidate(*args, **kwargs)
        assert f.warm(*args, **kwargs)
        assert f.refresh(*args, **kwargs) == values

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            ((1,), {}),
            ((1, "b"), {}),
            ((1,), {"y": "b"}),
            ((1, "b", 1.5, 2.5), {"z": b"zz"}),
            ((1,), {"z": b"zz", "x": 3, "self": 4, "more": 5}),
            ((), {}),
            ((), {"x": 1}),
            ((1,), {"y": "b", "z": b"", "rest": 1}),
            ((1, "b"), {"y": "c"}),
        ],
    )
    def test_calls_bind_as_they_do_without_a_cache(self, args: Any, kwargs: Any) -> None:
        def come_to(function: Any) -> object:
            try:
                result = function(*args, **kwargs)
                return asyncio.run(result) if inspect.iscoroutine(result) else result
            except TypeError as error:
                return str(error).partition("()")[2]

        assert come_to(told) == come_to(plain)
        assert come_to(told) == come_to(plain)
        if isinstance(come_to(aplain), list):
            assert come_to(atold) == come_to(atold) == come_to(aplain)
        else:
            assert isinstance(come_to(atold), str)

    def test_a_default_is_the_object_that_it_was(self, memory: framecache.Cache) -> None:
        default = object()

        @memory(ignore=("x", "y"), name="default")
        async def f(x: object = default, *, y: object = default) -> bool:
            return x is y is default

        assert asyncio.run(f()) is True


class TestStandIn:
    """A cached function passes for the function."""

    @pytest.mark.parametrize(("cached", "bare"), [(told, plain), (atold, aplain)])
    def test_inspect_sees_the_function(self, cached: Any, bare: Any) -> None:
        for question in (
            inspect.signature,
            inspect.isfunction,
            inspect.isroutine,
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
            inspect.ismethod,
            inspect.isclass,
            inspect.isdatadescriptor,
            inspect.ismethoddescriptor,
            asyncio.iscoroutinefunction,
            typing.get_type_hints,
            callable,
            inspect.getmodule,
        ):
            assert question(cached) == question(bare), question
        assert isinstance(cached, types.FunctionType)
        assert inspect.getsource(cached).startswith("@CACHE(ttl=60)")
        assert cached.__name__ in ("told", "atold")
        assert cached.__qualname__ == cached.__name__
        assert cached.__module__ == __name__
        assert cached.__annotations__ == bare.__annotations__
        assert inspect.unwrap(cached) is cached.__wrapped__
        assert inspect.getdoc(cached).startswith(("What it was", "As `told`"))

    @pytest.mark.parametrize("cached", [told, atold])
    def test_it_is_copied_and_pickled_by_reference(self, cached: Any) -> None:
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(cached, protocol)) is cached
        assert copy.copy(cached) is copy.deepcopy(cached) is cached
        assert copy.deepcopy({"f": [cached]})["f"][0] is cached

    def test_one_that_its_module_does_not_have_is_not_pickled(self, memory: framecache.Cache) -> None:
        local = memory(lambda: 1)
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pickle.dumps(local)

    def test_its_doctests_are_found(self) -> None:
        found = doctest.DocTestFinder().find(sys.modules[__name__])
        assert {f"{__name__}.told"} <= {test.name for test in found if test.examples}

    def test_it_can_be_referred_to_weakly_and_goes_when_nobody_has_it(self, memory: framecache.Cache) -> None:
        import gc

        for function in (lambda: 1, _coroutine):
            cached = memory(name="weak")(function)
            reference = weakref.ref(cached)
            asyncio.run(cached()) if inspect.iscoroutinefunction(cached) else cached()
            del cached
            gc.collect()
            assert reference() is None

    def test_what_others_wrap_around_it_works(self, memory: framecache.Cache) -> None:
        @functools.wraps(told)
        def around(*args: Any, **kwargs: Any) -> Any:
            return told(*args, **kwargs)

        assert around(1) == told(1)
        assert inspect.signature(around) == inspect.signature(plain)
        assert around.__name__ == "told"
        outer = memory(told)
        assert outer(1) == told(1)
        assert outer.__wrapped__ is told
        assert functools.lru_cache(told)(1) == told(1)

    def test_what_is_wrapped_by_others_is_cached(self, memory: framecache.Cache) -> None:
        calls = Counted()

        @memory
        @functools.lru_cache
        def f(x: int) -> list[object]:
            return calls(x)

        assert f(1) == f(1) == [1, 1]
        assert f.cache_info().misses == 1

    def test_attributes_of_the_function_are_kept_and_may_be_set(self, memory: framecache.Cache) -> None:
        def f() -> int:
            return 1

        f.mine = "mine"  # type: ignore[attr-defined]
        f.find = f.canonical = f.key = f.get = f.hits = "theirs"  # type: ignore[attr-defined]
        cached: Any = memory(f)
        assert cached.mine == "mine"
        assert cached() == cached() == cached.get() == 1
        assert cached.key().startswith(f"{__name__}.")
        assert cached.cache_info() == (1, 1, 0, 0)
        cached.csrf_exempt = True
        assert cached.csrf_exempt

    def test_partial_functions_and_objects_are_cached_as_what_they_are(self, memory: framecache.Cache) -> None:
        class Async:
            async def __call__(self, x: int) -> int:
                return x

            def cache_key(self) -> int:
                return 0

        with pytest.raises(framecache.EncodeError):
            memory(Async())
        for function in (functools.partial(aplain, 1), memory(name="async")(Async())):
            cached = memory(name="async")(function)
            assert inspect.iscoroutinefunction(cached)
            assert asyncio.run(cached(2))
        assert memory(functools.partial(plain, 1))("b") == [1, "b", [], b"z", {}]
        assert memory(Counted())(1) == [1, 1]
        assert memory("".join)(["a", "b"]) == "ab"

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="functions are marked from 3.12 on")
    def test_a_function_that_is_marked_as_a_coroutine_function_is_one(self, memory: framecache.Cache) -> None:
        marked = inspect.markcoroutinefunction(lambda x: aplain(x))
        assert asyncio.run(memory(name="marked")(marked)(1)) == [1, "y", [], b"z", {}]

    def test_the_repr_names_it(self) -> None:
        assert repr(told) == f"<cached function {__name__}.told>"


async def _coroutine() -> int:
    return 1


class TestSwitchedOff:
    def test_a_bypass_calls_and_stores_nothing(self, any_cache: framecache.Cache) -> None:
        f = any_cache(name="f")(Counted())
        assert f(1) == [1, 1]
        with any_cache.bypass():
            assert f(1) == [2, 1]
            assert f.get(1) is None
            assert f.set([0], 1) is False
            assert f.warm(2) is False
            assert f.refresh(1) == [3, 1]
            assert any_cache.get("key") is any_cache.get_entry("key") is None
            assert any_cache.set("key", 1) is any_cache.touch("key") is any_cache.contains(f.key(1)) is False
            assert any_cache.get_or_set("key", lambda: 2) == 2
            assert any_cache.get_many(["key"], compute=lambda keys: {"key": 3}) == {"key": 3}
            with any_cache.bypass():
                pass
            assert f(1) == [4, 1]
        assert any_cache.get("key") is None
        assert f(1) == [1, 1]
        with any_cache.bypass():
            assert f.invalidate(1)
        assert f(1) == [5, 1]

    def test_a_bypass_is_one_threads_or_tasks_own(self, memory: framecache.Cache) -> None:
        f = memory(name="f")(Counted())
        f(1)
        seen: list[object] = []
        with memory.bypass():
            thread = threading.Thread(target=lambda: seen.append(f(1)))
            thread.start()
            thread.join()
            assert f(1) == [2, 1]
        assert seen == [[1, 1]]

        @memory(name="af")
        async def af() -> int:
            seen.append("called")
            return 1

        async def main() -> None:
            await af()
            inside, outside = asyncio.Event(), asyncio.Event()

            async def bypassing() -> None:
                with memory.bypass():
                    inside.set()
                    await outside.wait()
                    await af()

            task = asyncio.create_task(bypassing())
            await inside.wait()
            await af()
            outside.set()
            await task

        asyncio.run(main())
        assert seen[1:] == ["called", "called"]

    def test_a_bypass_of_one_cache_is_not_anothers(self, memory: framecache.Cache) -> None:
        with framecache.Cache() as other, memory.bypass():
            assert other.set("key", 1)
            assert other.get("key") == 1

    def test_functions_of_a_closed_cache_are_just_called(self, any_cache: framecache.Cache) -> None:
        f = any_cache(name="f")(Counted())
        assert f(1) == [1, 1]
        any_cache.close()
        any_cache.close()
        assert f(1) == [2, 1]
        assert f.get(1) is None
        assert f.set([0], 1) is f.invalidate(1) is f.warm(1) is False
        assert f.refresh(1) == [3, 1]
        f.cache_clear()
        assert any_cache(name="g")(Counted())(1) == [1, 1]
        assert any_cache(name="g", namespace="other")(Counted())(1) == [1, 1]

    @pytest.mark.parametrize("l1", [None, "1MiB"])
    def test_a_cache_that_is_closed_meanwhile_drops_the_result(self, tmp_path: Any, l1: Any) -> None:
        cache = framecache.Cache(f"file://{tmp_path}/cache", l1=l1)

        @cache
        def f() -> list[int]:
            cache.close()
            return [1]

        @cache
        async def af() -> list[int]:
            return [1]

        assert f() == [1]
        assert asyncio.run(af()) == [1]


class TestArgumentsThatChange:
    def test_a_stale_value_is_not_computed_anew_from_changed_arguments(self) -> None:
        clock = Clock()
        cache = framecache.Cache(clock=clock)

        @cache(ttl=1, stale_for=100, jitter=0)
        async def total(numbers: list[int]) -> int:
            return sum(numbers)

        async def main() -> None:
            numbers = [1, 2]
            assert await total(numbers) == 3
            clock.advance(2)
            assert await total(numbers) == 3
            numbers.append(4)
            for _ in range(10):
                await asyncio.sleep(0)
            assert await total([1, 2]) == 3
            assert await total([1, 2, 4]) == 7

        asyncio.run(main())


class TestLateWrites:
    """What was computed before its key was written, deleted or invalidated is not stored."""

    @pytest.mark.parametrize("lock", [True, False])
    @pytest.mark.parametrize(
        "meanwhile",
        [
            lambda cache, f: f.invalidate(1),
            lambda cache, f: cache.delete(f.key(1)),
            lambda cache, f: f.cache_clear(),
            lambda cache, f: cache.clear(),
            lambda cache, f: cache.invalidate_tags("tag"),
            lambda cache, f: cache.invalidate_tags("of the result"),
            lambda cache, f: f.set([0], 1),
            lambda cache, f: cache.set(f.key(1), [0]),
        ],
    )
    def test_they_are_superseded(self, any_cache: framecache.Cache, meanwhile: Any, lock: bool) -> None:
        late: Any = None
        events = [False, True]

        def f(x: int) -> list[int]:
            if events.pop():
                meanwhile(any_cache, late)
            return [x]

        for options in ({"tags": ("tag", "of the result")}, {"tags": lambda result: ["tag", "of the result"]}):
            late = any_cache(name="f", lock=lock, **options)(f)
            assert late(1) in ([1], [0])
            assert late.get(1) in (None, [0])
            assert any_cache.stats()["superseded"] >= 1
            any_cache.clear()
            assert late(1) == late(1) == [1]
            any_cache.clear()
            events[:] = [False, True]
