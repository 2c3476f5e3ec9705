"""Hits of cached functions, against functools.lru_cache and peers, all in one run; see RESULTS.md.

Statements are timed in a loop of their own (about 7 ns a turn), with the collector off, the contenders in turn.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import aiocache
import cachebox
import cachekit
import cachetools
import cashews
import moka_py
import numpy as np

import framecache

from .common import print_machine

ROUNDS = 31
CALLS = 20_000

cache = framecache.Cache(ttl=300)
directory = tempfile.TemporaryDirectory()
on_disk = framecache.Cache(f"file://{directory.name}/cache", ttl=300)


def text(number: int) -> str:
    return f"value {number}"


def three(number: int, name: str, *, kind: str) -> str:
    return f"{number} {name} {kind}"


def record(number: int) -> dict[str, object]:
    return {f"field{index}": index if index % 2 else f"text {index}" for index in range(10)}


def rows(values: Any) -> int:
    return len(values)


async def coroutine(number: int) -> str:
    return f"value {number}"


Wrap = Callable[[Any], Any]

SYNC: dict[str, Wrap] = {
    "functools.lru_cache": functools.lru_cache(maxsize=10_000),
    "@cache, in memory": cache,
    "@cache, over a directory": on_disk,
    "cachebox, TTLCache": cachebox.cached(cachebox.TTLCache(10_000, 300)),
    "moka-py": moka_py.cached(maxsize=10_000, ttl=300),
    "cachetools, TTLCache": cachetools.cached(cachetools.TTLCache(10_000, 300)),
    "cachekit, backend=None": cachekit.cache(backend=None, ttl=300),
}
cashews_cache = cashews.Cache()
cashews_cache.setup("mem://")
ASYNC: dict[str, Wrap] = {
    "a bare coroutine": lambda function: function,
    "@cache, in memory": cache,
    "@cache, over a directory": on_disk,
    "moka-py": moka_py.cached(maxsize=10_000, ttl=300),
    "cachebox, TTLCache": cachebox.cached(cachebox.TTLCache(10_000, 300)),
    "cachekit, backend=None": cachekit.cache(backend=None, ttl=300),
    "cashews, mem://": cashews_cache(ttl="5m"),
    "aiocache, memory": aiocache.cached(ttl=300),
}


def looped(statement: str, **names: Any) -> Callable[[int], float]:
    """Return what runs a statement so many times, and says how many nanoseconds each took."""
    exec(  # of the statements below
        f"def run(times, clock, repeat):\n"
        f"    start = clock()\n"
        f"    for _ in repeat(None, times):\n"
        f"        {statement}\n"
        f"    return (clock() - start) / times",
        names,
    )
    return lambda times: names["run"](times, time.perf_counter_ns, itertools.repeat)


def compare(title: str, contenders: dict[str, Callable[[int], float]], calls: int = CALLS) -> None:
    """Print median, p90 and p99 of each contender, and its ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    for turn in range(ROUNDS + 1):
        for name, run in contenders.items():
            # Those that take microseconds need no more calls to be measured as well.
            elapsed = run(calls if not times[name] or times[name][-1] < 2000 else max(1, calls // 20))
            if turn:
                times[name].append(elapsed)
    gc.enable()
    print(f"\n{title}")
    first = None
    for name, values in times.items():
        values.sort()
        median, p90, p99 = (values[int((len(values) - 1) * share)] for share in (0.5, 0.9, 0.99))
        first = first or median
        print(f"  {name:28} {median:9.1f} ns  p90 {p90:9.1f}  p99 {p99:9.1f}  {median / first:8.2f}x")


def sync_hits() -> None:
    for title, function, statement in (
        ("hit: int argument, small str", text, "f(1)"),
        ("hit: (int, str, kind=str), small str", three, "f(1, 'name', kind='kind')"),
        ("hit: int argument, dict with 10 keys", record, "f(1)"),
    ):
        runs = {}
        for name, wrap in SYNC.items():
            runs[name] = looped(statement, f=wrap(function))
            runs[name](1)
        compare(title, runs)


def keys() -> None:
    cached, array = cache(three), np.random.default_rng(1).random(125_000)
    of_array = cache(rows)
    compare(
        "key of a call",
        {
            "functools._make_key, (int, str, kind=str)": looped(
                "f((1, 'name'), {'kind': 'kind'}, True)", f=functools._make_key
            ),
            "key, (int, str, kind=str)": looped("f(1, 'name', kind='kind')", f=cached.key),
        },
    )
    compare(
        "key of an array of 1 MB",
        {"key": looped("f(a)", f=of_array.key, a=array)},
        calls=100,
    )


async def async_hits() -> None:
    functions = {name: wrap(coroutine) for name, wrap in ASYNC.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    gc.collect()
    gc.disable()
    for turn in range(ROUNDS + 1):
        for name, function in functions.items():
            calls = CALLS if not times[name] or times[name][-1] < 2000 else CALLS // 20
            start = time.perf_counter_ns()
            for _ in itertools.repeat(None, calls):
                await function(1)
            if turn:
                times[name].append((time.perf_counter_ns() - start) / calls)
    gc.enable()
    print("\nhit, awaited: int argument, small str")
    first = None
    for name, values in times.items():
        values.sort()
        median, p90, p99 = (values[int((len(values) - 1) * share)] for share in (0.5, 0.9, 0.99))
        first = first or median
        print(f"  {name:28} {median:9.1f} ns  p90 {p90:9.1f}  p99 {p99:9.1f}  {median / first:8.2f}x")


def threads() -> None:
    cached = cache(text)
    run = looped("f(1)", f=cached)
    run(1)

    def throughput(count: int, each: int) -> float:
        gate = threading.Barrier(count + 1)

        def work() -> None:
            gate.wait()
            run(each)

        workers = [threading.Thread(target=work) for _ in range(count)]
        for worker in workers:
            worker.start()
        gate.wait()
        start = time.perf_counter()
        for worker in workers:
            worker.join()
        return count * each / (time.perf_counter() - start) / 1e6

    ratios = sorted(throughput(4, 500_000) / throughput(1, 2_000_000) for _ in range(9))
    print(f"\n4 threads against 1, hits a second: {ratios[4]:.2f}x (median of 9; {ratios[0]:.2f} to {ratios[-1]:.2f})")


def main() -> None:
    print_machine("cachebox", "moka-py", "cachetools", "cachekit", "cashews", "aiocache")
    sync_hits()
    keys()
    asyncio.run(async_hits())
    threads()


if __name__ == "__main__":
    main()
