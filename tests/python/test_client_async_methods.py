"""What only event loops see: which thread does what, who waits for whom, who cancels what."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import framecache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "directory"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[framecache.Cache]:
    with framecache.Cache(None if request.param == "memory" else f"file://{tmp_path}/cache") as cache:
        yield cache


def steps(coroutine: Any) -> int:
    """Run it without a loop, and return how often it was suspended."""
    suspended = 0
    while True:
        try:
            coroutine.send(None)
        except StopIteration:
            return suspended
        suspended += 1


class TestThreads:
    def test_every_method_has_a_form_for_loops(self) -> None:
        names = (
            "get set delete get_or_set get_many set_many delete_many touch contains get_entry clear invalidate_tags "
            "keys stats health"
        )
        for name in names.split():
            assert callable(getattr(framecache.Cache, name))
            assert callable(getattr(framecache.Cache, f"a{name}"))

    def test_hits_never_suspend(self, cache: framecache.Cache) -> None:
        async def f(x: int) -> list[int]:
            return [x]

        cached = cache(name="f")(f)
        asyncio.run(cached(1))
        cache.set("key", "value")
        cache.get("key")
        for coroutine in (cached(1), cache.aget("key"), cache.acontains("key"), cache.astats(), cache.ahealth()):
            assert steps(coroutine) == 0

    def test_small_values_of_the_index_do_not_suspend(self, tmp_path: Path) -> None:
        with framecache.Cache(f"file://{tmp_path}/cache", l1=None) as cache:
            cache.set("key", "value")
            assert steps(cache.aget("key")) == 0
            assert steps(cache.aget("absent")) == 0

    def test_what_touches_a_file_runs_in_another_thread(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with framecache.Cache(f"file://{tmp_path}/cache", l1=None) as cache:
            cache.set("blob", b"x" * 500_000)
            threads: dict[str, set[int]] = {}
            for name in ("put", "delete", "touch", "invalidate", "clear", "_find_in_store"):
                _watch(cache._tiers, name, threads, monkeypatch)

            @cache(name="f")
            async def f() -> bytes:
                threads.setdefault("function", set()).add(threading.get_ident())
                return b"x" * 500_000

            async def main() -> None:
                await cache.aset("key", 1)
                await cache.aset_many({"key": 1})
                await cache.atouch("key", 5)
                await cache.adelete("key")
                await cache.ainvalidate_tags("tag")
                assert len(await f()) == 500_000
                threads["_find_in_store"].clear()
                assert len(await cache.aget("blob")) == 500_000
                await cache.aclear()

            asyncio.run(main())
            here = threading.get_ident()
            assert threads.pop("function") == {here}
            # First it is looked whether it is at hand, then it is fetched.
            assert len(threads.pop("_find_in_store") - {here}) == 1
            assert set(threads) == {"put", "delete", "touch", "invalidate", "clear"}
            assert not any(here in seen for seen in threads.values())


def _watch(tiers: Any, name: str, threads: dict[str, set[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    method = getattr(tiers, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.setdefault(name, set()).add(threading.get_ident())
        return method(*args, **kwargs)

    monkeypatch.setattr(tiers, name, watched)


class Slow:
    """Computes several keys when it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.cancelled: list[list[str]] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, keys: list[str]) -> dict[str, str]:
        self.calls.append(keys)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.append(keys)
            raise
        return {key: key.upper() for key in keys}

    async def one(self) -> str:
        return (await self(["c"]))["c"]


class TestManyAtOnce:
    def test_each_key_is_computed_once(self, cache: framecache.Cache) -> None:
        async def main() -> None:
            slow = Slow()
            first = asyncio.create_task(cache.aget_many(["a", "b"], compute=slow))
            await slow.begun.wait()
            second = asyncio.create_task(cache.aget_many(["b", "c"], compute=slow))
            while len(slow.calls) < 2:
                await asyncio.sleep(0)
            third = asyncio.create_task(cache.aget_or_set("c", slow.one))
            fourth = asyncio.create_task(cache.aget_many(["a", "b", "c"], compute=slow))
            for _ in range(20):
                await asyncio.sleep(0)
            slow.go.set()
            assert await first == {"a": "A", "b": "B"}
            assert await second == {"b": "B", "c": "C"}
            assert await third == "C"
            assert await fourth == {"a": "A", "b": "B", "c": "C"}
            assert slow.calls == [["a", "b"], ["c"]]

        asyncio.run(main())
        assert len(cache._flights) == 0

    def test_who_is_cancelled_harms_nobody(self, cache: framecache.Cache) -> None:
        async def main() -> None:
            slow = Slow()
            first = asyncio.create_task(cache.aget_many(["a", "b"], compute=slow))
            await slow.begun.wait()
            second = asyncio.create_task(cache.aget_many(["b"], compute=slow))
            await _until(lambda: _waiters(cache, "b") == 2)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert not slow.cancelled
            slow.go.set()
            assert await second == {"b": "B"}
            assert slow.calls == [["a", "b"]]

        asyncio.run(main())
        assert len(cache._flights) == 0

    def test_what_nobody_waits_for_is_cancelled(self, cache: framecache.Cache) -> None:
        async def main() -> None:
            slow = Slow()
            first = asyncio.create_task(cache.aget_many(["a", "b"], compute=slow))
            await slow.begun.wait()
            second = asyncio.create_task(cache.aget_many(["b", "c"], compute=slow))
            await _until(lambda: len(slow.calls) == 2)
            for task in (first, second):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await _until(lambda: len(slow.cancelled) == 2)
            slow.go.set()
            assert await cache.aget_many(["a", "b", "c"], compute=slow) == {"a": "A", "b": "B", "c": "C"}

        asyncio.run(main())
        assert len(cache._flights) == 0

    def test_an_error_reaches_all_who_wait(self, cache: framecache.Cache) -> None:
        async def main() -> None:
            begun, go = asyncio.Event(), asyncio.Event()

            async def fails(keys: list[str]) -> dict[str, str]:
                begun.set()
                await go.wait()
                raise KeyError(*keys)

            tasks = [asyncio.create_task(cache.aget_many(["a"], compute=fails))]
            await begun.wait()
            tasks += [asyncio.create_task(cache.aget_many(["a"], compute=fails)) for _ in range(3)]
            await _until(lambda: _waiters(cache, "a") == 4)
            go.set()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [repr(result) for result in results] == ["KeyError('a')"] * 4

        asyncio.run(main())
        assert len(cache._flights) == 0

    def test_a_computation_that_asks_for_its_own_keys_is_an_error(self, cache: framecache.Cache) -> None:
        async def again(keys: list[str]) -> dict[str, Any]:
            return await cache.aget_many(keys, compute=again)

        with pytest.raises(framecache.RecursiveCall):
            asyncio.run(cache.aget_many(["a", "b"], compute=again))
        assert len(cache._flights) == 0

    def test_threads_and_loops_wait_for_each_other(self, cache: framecache.Cache) -> None:
        begun, go = threading.Event(), threading.Event()
        calls: list[list[str]] = []

        def compute(keys: list[str]) -> dict[str, str]:
            calls.append(keys)
            begun.set()
            assert go.wait(30)
            return {key: key.upper() for key in keys}

        results: list[Any] = []
        thread = threading.Thread(target=lambda: results.append(cache.get_many(["a", "b"], compute=compute)))
        thread.start()
        assert begun.wait(30)

        async def main() -> dict[str, Any]:
            task = asyncio.create_task(cache.aget_many(["b", "c"], compute=Slow()))
            await _until(lambda: _waiters(cache, "b") == 1)
            task.cancel()
            task = asyncio.create_task(cache.aget_many(["b"], compute=Slow()))
            await _until(lambda: _waiters(cache, "b") >= 1)
            go.set()
            return await task

        assert asyncio.run(main()) == {"b": "B"}
        thread.join()
        assert results == [{"a": "A", "b": "B"}]
        assert calls == [["a", "b"]]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30) if hasattr(asyncio, "timeout") else _nothing():
        while not condition():
            await asyncio.sleep(0)


class _nothing:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


def _waiters(cache: framecache.Cache, key: str) -> int:
    flight = cache._flights.current(cache._tiers.scope, key)
    return 0 if flight is None else flight.waiters


def test_processes_compute_each_key_once(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import framecache, sys\n"
        f"cache = framecache.Cache('file://{tmp_path}/cache')\n"
        "def compute(keys):\n"
        "    print('computes', *keys, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    return {key: key.upper() for key in keys}\n"
        "print('got', *"
        "cache.get_many(sys.argv[1:], compute=compute).values(), flush=True)\n"
    )

    def start(*keys: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *keys], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    with start("a", "b") as first:
        assert first.stdout
        assert first.stdout.readline() == "computes a b\n"
        with start("b", "c") as second:
            assert second.stdout
            assert second.stdout.readline() == "computes c\n"
            assert first.communicate("\n", timeout=30)[0] == "got A B\n"
            assert second.communicate("\n", timeout=30)[0] == "got B C\n"
