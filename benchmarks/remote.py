"""An engine beyond this machine, against redis-py alone: `python -m benchmarks.remote`.

A server is started on a free port of the loopback interface. Each round measures the bare call of redis-py, then the
same read through the SDK; the table has medians, 90th and 99th percentiles, and the ratio of medians.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

import framecache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ROUNDS = 12
INVALIDATIONS = 2000
#: Of one key, in another process, that was started with the port: reads lines, sets, tells when.
WRITER = """
import sys, time, framecache
cache = framecache.Cache(sys.argv[1], l1=None)
for number in range(int(sys.argv[2])):
    cache.set("counter", number)
    print(time.monotonic(), flush=True)
    time.sleep(0.001)
"""


def server(directory: str) -> tuple[subprocess.Popen[bytes], int]:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = shutil.which("redis-server") or sys.exit("redis-server is not installed")
    process = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", directory, "--bind", "127.0.0.1"],
        stdout=subprocess.DEVNULL,
    )
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            time.sleep(0.01)


def times(call: Callable[[], Any], repeat: int) -> list[float]:
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


async def atimes(call: Callable[[], Awaitable[Any]], repeat: int) -> list[float]:
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - start)
    return taken


def row(name: str, bare: list[float], ours: list[float]) -> None:
    def shown(taken: list[float]) -> str:
        cuts = statistics.quantiles(taken, n=100)
        return " ".join(f"{cut * 1e6:9.1f}" for cut in (statistics.median(taken), cuts[89], cuts[98]))

    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"{name:26}{shown(bare)}  |{shown(ours)}  |{ratio:6.2f}")


def reads(url: str, port: int) -> None:
    client = redis.Redis(port=port, socket_timeout=5)
    cache = framecache.Cache(client, l1=None)
    for name, nbytes, repeat in (("get 100 B", 100, 500), ("get 10 KB", 10_000, 500), ("get 16 MiB", 16 << 20, 4)):
        value = os.urandom(nbytes)
        client.set("bare", value)
        cache.set("ours", value)
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare += times(lambda: client.get("bare"), repeat)
            ours += times(lambda: cache.get("ours"), repeat)
        row(name, bare, ours)
    names = [f"key:{number}" for number in range(100)]
    for name in names:
        client.set(name, os.urandom(100))
        cache.set(name, os.urandom(100))
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare += times(lambda: client.mget(names), 50)
        ours += times(lambda: cache.get_many(names), 50)
    row("get_many of 100, 100 B", bare, ours)
    store: Any = cache._tiers.store
    entries = [*store.entries.entries(names), store.entries.generation]
    bare, ours = [], []
    for _ in range(ROUNDS):
        bare += times(lambda: client.mget(entries), 50)
        ours += times(lambda: cache.get_many(names), 50)
    row("  MGET of the same names", bare, ours)
    bare, ours = [], []
    value = os.urandom(100)
    for _ in range(ROUNDS):
        bare += times(lambda: client.set("bare", value, px=100_000), 200)
        ours += times(lambda: cache.set("ours", value, ttl=100), 200)
    row("set 100 B", bare, ours)


def copies(url: str, port: int, directory: str) -> None:
    """Large values of which this machine has copies."""
    import pyarrow as pa

    client = redis.Redis(port=port, socket_timeout=5)
    with framecache.Cache(url, l1=None, store=f"file://{directory}/copies?max_bytes=1GiB") as cache:
        value = os.urandom(16 << 20)
        client.set("bare", value)
        cache.set("bytes", value)
        cache.set("table", pa.table({"text": ["some text"] * 1_000_000}))
        calls: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("16 MiB, bytes copied", lambda: cache.get("bytes")),
            ("16 MiB, view of a copy", lambda: cache.get("bytes", views=True)),
            ("table of 1,000,000 texts", lambda: cache.get("table")),
        )
        for name, call in calls:
            bare, ours = [], []
            for _ in range(ROUNDS):
                bare += times(lambda: client.get("bare"), 4)
                ours += times(call, 50)
            row(name, bare, ours)
        assert cache.health()["copies"]["misses"] == 0


async def async_reads(port: int) -> None:
    client = redis.asyncio.Redis(port=port, socket_timeout=5)
    cache = framecache.Cache(client, l1=None)
    for name, nbytes, repeat in (("aget 100 B", 100, 300), ("aget 10 KB", 10_000, 300), ("aget 16 MiB", 16 << 20, 4)):
        value = os.urandom(nbytes)
        await client.set("bare", value)
        await cache.aset("ours", value)
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare += await atimes(lambda: client.get("bare"), repeat)
            ours += await atimes(lambda: cache.aget("ours"), repeat)
        row(name, bare, ours)
    names = [f"key:{number}" for number in range(100)]
    value = os.urandom(100)
    for name in names:
        await client.set(name, value)
        await cache.aset(name, value)
    calls: tuple[tuple[str, Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]], ...] = (
        ("aget_many of 100, 100 B", lambda: client.mget(names), lambda: cache.aget_many(names)),
        (
            "10 agets of 100 B at once",
            lambda: asyncio.gather(*map(client.get, names[:10])),
            lambda: asyncio.gather(*map(cache.aget, names[:10])),
        ),
        (
            "aset 100 B",
            lambda: client.set("bare", value, px=100_000),
            lambda: cache.aset("ours", value, ttl=100),
        ),
    )
    for name, bare_call, call in calls:
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare += await atimes(bare_call, 50)
            ours += await atimes(call, 50)
        row(name, bare, ours)
    await client.aclose()


def coherence(url: str) -> None:
    with framecache.Cache(url) as cache, framecache.Cache() as memory:
        memory.set("hit", "value")
        cache.set("hit", "value")
        while cache.health()["engine"]["listener"] != "on" or cache.get_entry("hit").tier != "l1":
            cache.get("hit")
        bare, ours = [], []
        for _ in range(ROUNDS):
            bare += times(lambda: [memory.get("hit") for _ in range(1000)], 20)
            ours += times(lambda: [cache.get("hit") for _ in range(1000)], 20)
        row("1000 hits of L1 (bare: memory)", bare, ours)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(INVALIDATIONS)], stdout=subprocess.PIPE, text=True
        )
        seen: dict[int, float] = {}
        while len(seen) == 0 or max(seen) < INVALIDATIONS - 1:
            number = cache.get("counter", -1)
            if number >= 0:
                seen.setdefault(number, time.monotonic())
            time.sleep(0.0001)
        written = [float(line) for line in writer.communicate()[0].split()]
    late = sorted(1000 * max(0.0, at - written[number]) for number, at in seen.items())
    cuts = statistics.quantiles(late, n=100)
    print(f"a change is read elsewhere within {cuts[49]:.2f} ms (median), {cuts[89]:.2f} (p90), {cuts[98]:.2f} (p99)")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        process, port = server(directory)
        try:
            url = f"redis://127.0.0.1:{port}/0"
            print(f"{'us':26}{'redis-py: median, p90, p99':>29}  |{'framecache':>29}  | ratio")
            reads(url, port)
            copies(url, port, directory)
            asyncio.run(async_reads(port))
            coherence(url)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
