"""The store against diskcache, py-lmdb, cachekit's file backend and joblib, interleaved, on disk and on tmpfs.

`python -m benchmarks.store [directory] [large]`: `directory` is where the disk is (/var/tmp if not given), `large` adds
a million entries. Results stand in RESULTS.md.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import diskcache
import joblib
import lmdb
import numpy as np
from cachekit.backends.file import FileBackend
from cachekit.backends.file.config import FileBackendConfig

import framecache
from framecache._framecache import Counters, Direct, Store
from framecache._times import SystemClock
from framecache._values import decode

from .common import compare, print_machine

ENTRIES = 10_000
KIB = random.Random(1).randbytes(1024)
BLOB = 128 * 2**20
#: Seconds for which each measurement of several processes runs, and how often.
SPELL, SPELLS = 0.4, 5
#: Entries in the stores whose eviction is measured.
SIZES = (100_000, 300_000, 1_000_000)


def key_of(number: int) -> str:
    return f"user:{number}:profile"


def now() -> int:
    return time.time_ns() // 1_000_000


def shuffled(count: int = ENTRIES) -> list[str]:
    keys = [key_of(number) for number in range(count)]
    random.Random(2).shuffle(keys)
    return keys


def direct(store: Store) -> Direct:
    """What reads it for a cache."""
    return Direct(store, SystemClock, Counters(), decode, print)


class Peers:
    """One store of each kind in a directory of its own, with the same 10,000 entries of 1 KiB."""

    def __init__(self, directory: Path) -> None:
        # What the directory costs, not what the tier before it saves.
        self.cache = framecache.Cache(f"file://{directory}/pwrite", l1=None)
        self.mapped = framecache.Cache(f"file://{directory}/writemap?index=writemap&index_bytes=1GiB", l1=None)
        self.native = Store(directory / "pwrite")
        self.direct = direct(self.native)
        self.lmdb = lmdb.open(str(directory / "lmdb"), map_size=1 << 34, sync=False)
        self.lmdb_mapped = lmdb.open(str(directory / "lmdb-map"), map_size=1 << 30, sync=False, writemap=True)
        self.disk = diskcache.Cache(str(directory / "diskcache"), size_limit=1 << 34)
        config = FileBackendConfig(
            cache_dir=directory / "cachekit", max_size_mb=10_000, max_value_mb=1000, max_entry_count=1_000_000
        )
        self.cachekit = FileBackend(config)
        self.joblib = joblib.Memory(directory / "joblib", verbose=0).cache(value_of)
        for number in range(ENTRIES):
            for set_ in self.setters().values():
                set_(key_of(number))

    def setters(self) -> dict[str, Callable[[str], object]]:
        def lmdb_set(env: Any, key: str) -> None:
            with env.begin(write=True) as txn:
                txn.put(key.encode(), KIB)

        return {
            "framecache, index=pwrite": lambda key: self.cache.set(key, KIB),
            "framecache, index=writemap": lambda key: self.mapped.set(key, KIB),
            "py-lmdb, sync=False": lambda key: lmdb_set(self.lmdb, key),
            "py-lmdb, sync=False, writemap": lambda key: lmdb_set(self.lmdb_mapped, key),
            "diskcache": lambda key: self.disk.set(key, KIB),
            "cachekit FileBackend": lambda key: self.cachekit.set(key, KIB),
        }

    def getters(self) -> dict[str, Callable[[str], object]]:
        def lmdb_get(key: str) -> Any:
            with self.lmdb.begin() as txn:
                return txn.get(key.encode())

        return {
            "framecache Cache.get": self.cache.get,
            "framecache Direct.get (native)": lambda key: self.direct.get(key, None, False),
            "framecache Cache.get, index=writemap": self.mapped.get,
            "py-lmdb": lmdb_get,
            "diskcache": self.disk.get,
            "cachekit FileBackend": self.cachekit.get,
        }


def value_of(key: str) -> bytes:
    return KIB


def get(peers: Peers) -> None:
    getters = peers.getters()
    key = key_of(7)
    if any(get_(key) != KIB for get_ in getters.values()):
        raise SystemExit("a store lost its entry")
    same = {name: lambda get_=get_: get_(key) for name, get_ in getters.items()}
    compare("get of 1 KiB, one key", {**same, "joblib.Memory": lambda: peers.joblib(key)}, calls=200)
    compare("get of 1 KiB, random keys of 10,000", drawing(getters, lambda: itertools.cycle(shuffled())), calls=500)


def drawing(
    calls: Mapping[str, Callable[[Any], object]], keys: Callable[[], Iterator[Any]]
) -> dict[str, Callable[[], object]]:
    """Each call with the next key, which takes 30 ns."""
    drawn = [(name, call, keys()) for name, call in calls.items()]
    return {name: lambda call=call, keys=keys: call(next(keys)) for name, call, keys in drawn}


def set_(peers: Peers) -> None:
    """Against LMDB itself, and against the caches, which leave the processor's caches cold for who comes next."""
    setters = peers.setters()
    lmdbs = {name: setter for name, setter in setters.items() if name.startswith(("framecache", "py-lmdb"))}
    caches = {name: setter for name, setter in setters.items() if not name.startswith("py-lmdb")}
    new = [key_of(number) for number in range(ENTRIES, 40 * ENTRIES)]
    for title, keys in {"one key": [key_of(7)], "random keys of 10,000": shuffled(), "new keys": new}.items():
        compare(f"set of 1 KiB, {title}", drawing(lmdbs, lambda keys=keys: itertools.cycle(keys)), calls=50)
        keys.reverse()  # so that new ones stay new
        drawn = drawing(caches, lambda keys=keys: itertools.cycle(keys))
        compare(f"set of 1 KiB, {title}, beside other caches", drawn, calls=20)


def get_many(peers: Peers) -> None:
    moment, drawn = now(), shuffled()
    batches = [drawn[start : start + 100] for start in range(0, ENTRIES, 100)]
    encoded = {keys[0]: [key.encode() for key in keys] for keys in batches}

    def lmdb_many(keys: list[str]) -> dict[bytes, bytes]:
        with peers.lmdb.begin() as txn, txn.cursor() as cursor:
            return dict(cursor.getmulti(encoded[keys[0]]))

    calls: dict[str, Callable[[list[str]], object]] = {
        "framecache Cache.get_many": peers.cache.get_many,
        "framecache Store.get_many (native)": lambda keys: peers.native.get_many(keys, moment),
        "py-lmdb getmulti": lmdb_many,
        "diskcache, 100 gets": lambda keys: {key: peers.disk.get(key) for key in keys},
        "cachekit FileBackend, 100 gets": lambda keys: {key: peers.cachekit.get(key) for key in keys},
    }
    for title, drawn_from in {"100 warm keys of 1 KiB": batches[:1], "100 others of 10,000 each time": batches}.items():
        compare(title, drawing(calls, lambda drawn_from=drawn_from: itertools.cycle(drawn_from)), calls=10)


def blob(peers: Peers, directory: Path) -> None:
    data = np.random.default_rng(1).bytes(BLOB)
    file, dumped, array = directory / "plain", directory / "dumped", np.frombuffer(data, np.uint8)

    def plain(allocate: bool) -> None:
        with open(directory / "new", "wb", buffering=0) as out:
            if allocate:
                os.posix_fallocate(out.fileno(), 0, BLOB)
            out.write(data)
        (directory / "new").rename(file)

    def get_view() -> object:
        return peers.cache.get("blob", views=True)

    def cachekit_view() -> object:
        handle = peers.cachekit.get_buffer("blob")
        handle.close()
        return handle

    compare(
        "set of 128 MiB, replacing",
        {
            "plain write to a new file, renamed": lambda: plain(False),
            "the same, allocated first": lambda: plain(True),
            "framecache Cache.set": lambda: peers.cache.set("blob", data),
            "diskcache": lambda: peers.disk.set("blob", data),
            "cachekit FileBackend": lambda: peers.cachekit.set("blob", data),
            "joblib.dump of an array": lambda: joblib.dump(array, dumped),
        },
        rounds=9,
        nbytes=BLOB,
    )
    compare(
        "get of 128 MiB, nobody has it mapped",
        {
            "framecache Cache.get, views=True": get_view,
            "cachekit FileBackend.get_buffer": cachekit_view,
            "joblib.load, mmap_mode='r'": lambda: joblib.load(dumped, mmap_mode="r"),
        },
        calls=20,
    )
    compare(
        "get of 128 MiB as bytes",
        {
            "framecache Cache.get": lambda: peers.cache.get("blob"),
            "diskcache": lambda: peers.disk.get("blob"),
            "cachekit FileBackend": lambda: peers.cachekit.get("blob"),
        },
        rounds=9,
        nbytes=BLOB,
    )
    view = get_view()
    tracemalloc.start()
    again = get_view()
    copied = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    compare("get of 128 MiB, a view is alive", {"framecache Cache.get, views=True": get_view}, calls=500)
    whole = bytes(view[:4096]) == data[:4096] and bytes(again[-4096:]) == data[-4096:]
    print(f"  allocated by such a get: {copied} bytes; what it returned is what was stored: {whole}")
    del view, again
    tracemalloc.start()
    get_view()
    print(f"  allocated by a get that maps: {tracemalloc.get_traced_memory()[1]} bytes")
    tracemalloc.stop()


def reader(directory: str, commands: Connection) -> None:
    """A process that reads or writes as it is told; it answers how often in a second, of the clock and of CPU."""
    path = Path(directory)
    with (
        framecache.Cache(f"file://{path}/pwrite", l1=None) as cache,
        framecache.Cache(f"file://{path}/other", l1=None) as other,
    ):
        env = lmdb.open(str(path / "lmdb"), map_size=1 << 34, sync=False, create=False)
        disk = diskcache.Cache(path / "diskcache")

        def lmdb_get(key: str) -> Any:
            with env.begin() as txn:
                return txn.get(key.encode())

        work: dict[str, Callable[[str], object]] = {
            "framecache": cache.get,
            "py-lmdb": lmdb_get,
            "diskcache": disk.get,
            "write": lambda key: cache.set(key, KIB),
            "write elsewhere": lambda key: other.set(key, KIB),
        }
        keys = shuffled()
        random.Random(os.getpid()).shuffle(keys)
        endless = itertools.cycle(keys)
        commands.send("ready")
        while (command := commands.recv()) is not None:
            call, start, used, count = work[command], time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - start < SPELL:
                for _ in range(50):
                    call(next(endless))
                count += 50
            commands.send((count / SPELL, count / (time.process_time() - used)))


@contextmanager
def processes(directory: Path, count: int) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(count)]
    started = [context.Process(target=reader, args=(str(directory), theirs)) for _, theirs in pairs]
    ours = [pair[0] for pair in pairs]
    for process in started:
        process.start()
    for connection in ours:
        connection.recv()
    yield ours
    for connection in ours:
        connection.send(None)
    for process in started:
        process.join()


def many_processes(directory: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    counts = (1, 2, 4, 8)
    beside = {"alone": None, "beside a writer of another store": "write elsewhere", "beside a writer of it": "write"}
    readers = max(1, cores - 1)
    answers: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with processes(directory, 8) as workers:
        for _ in range(SPELLS):
            for what, count in itertools.product(("framecache", "py-lmdb", "diskcache"), counts):
                answers.setdefault((what, count), []).append(ask(workers, [what] * count, count))
            for what, writer in beside.items():
                commands = ["framecache"] * readers + ([writer] if writer else [])
                answers.setdefault((what, readers), []).append(ask(workers, commands, readers))
    medians = {
        measured: [statistics.median(column) for column in zip(*of, strict=True)] for measured, of in answers.items()
    }
    for unit, title in enumerate(("together, a second", "each, a second of its own CPU time")):
        print(f"\ngets of random keys by 1, 2, 4 and 8 processes on {cores} cores, {title}")
        for what in ("framecache", "py-lmdb", "diskcache"):
            shown = "  ".join(f"{count}: {medians[what, count][unit] / 1e6:6.3f} M" for count in counts)
            print(f"  {what:44} {shown}")
    print(f"\ngets by {readers} reading process(es), the other core for a writer: a second, and one of CPU time")
    alone = medians["alone", readers]
    for what in beside:
        wall, cpu = medians[what, readers]
        print(f"  {what:44} {wall / 1e6:6.3f} M {wall / alone[0]:5.2f}x  {cpu / 1e6:6.3f} M {cpu / alone[1]:5.2f}x")


def ask(workers: list[Connection], commands: list[str], readers: int) -> tuple[float, float]:
    """Let as many workers do as they are told; the rates of the first `readers`: the sum, and the mean by CPU time."""
    told = workers[: len(commands)]
    for worker, command in zip(told, commands, strict=True):
        worker.send(command)
    rates = [worker.recv() for worker in told][:readers]
    return sum(wall for wall, _ in rates), statistics.mean(cpu for _, cpu in rates)


OPENING = """
import sys, time, framecache
start = time.perf_counter_ns()
cache = framecache.Cache(sys.argv[1], l1=None)
opened = time.perf_counter_ns()
value = cache.get(sys.argv[2])
print(opened - start, time.perf_counter_ns() - opened, value is not None)
"""


def large(directory: Path) -> None:
    url = f"file://{directory}/large"
    env = lmdb.open(str(directory / "large-lmdb"), map_size=1 << 34, sync=False)
    with framecache.Cache(url, l1=None) as cache:
        start = time.perf_counter()
        for number in range(SIZES[-1]):
            cache.set(key_of(number), KIB)
        took = (time.perf_counter() - start) / SIZES[-1]
        print(f"\n1,000,000 entries of 1 KiB: filled at {took * 1e6:.1f} us a set; {usage_of(cache)}")
        with env.begin(write=True) as txn:
            for number in range(SIZES[-1]):
                txn.put(key_of(number).encode(), KIB)
        opened_again(url)
        native, keys = direct(Store(directory / "large")), shuffled(SIZES[-1])

        def lmdb_get(key: str) -> Any:
            with env.begin() as txn:
                return txn.get(key.encode())

        getters = {
            "framecache Cache.get": cache.get,
            "framecache Direct.get (native)": lambda key, get=native.get: get(key, None, False),
            "py-lmdb": lmdb_get,
        }
        compare("get of 1 KiB, random keys of 1,000,000", drawing(getters, lambda: itertools.cycle(keys)), calls=2000)
    del native, getters
    print("  opened by the first process of all:")
    opened_again(url)


def opened_again(url: str) -> None:
    """Print how long a fresh process takes to open it and to get one entry."""
    times = []
    for number in range(11):
        run = [sys.executable, "-c", OPENING, url, key_of(number * 90_001)]
        opened, got, found = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
        if found != "True":
            raise SystemExit("the store lost an entry")
        times.append((int(opened), int(got)))
    opened, got = (statistics.median(column) / 1e3 for column in zip(*times, strict=True))
    print(f"  open in a fresh process: {opened:.0f} us (most {max(times)[0] / 1e3:.0f}); its first get: {got:.0f} us")


def eviction(directory: Path) -> None:
    """What a set costs that must evict, by how much is stored, and what it costs in the same store with room."""
    print("\nset of 1 KiB, new keys, in CPU time: with room, and at the bound, by size of the store")
    for index, size in itertools.product(("pwrite", "writemap"), SIZES):
        limit, path = size * 2048, directory / f"evicting-{index}-{size}"
        # Where the index is written in its mapping, half of it is for copies of changed pages.
        url = f"file://{path}?index={index}&index_bytes={2 * limit}"
        with framecache.Cache(f"{url}&max_bytes={limit}", l1=None) as cache:
            number = itertools.count()
            before = spell = 0.0
            while not cache.usage()["evicted"]:
                before, spell = spell, timed(cache, number, 5000)
            for _ in range(20):
                timed(cache, number, size // 40)  # until it has settled
            costs = sorted(timed(cache, number, 1000) for _ in range(20))
            used, entries = cache.usage(), len(list(cache.keys()))
            print(
                f"  {index:9} {entries:9} entries: with room {before:5.1f} us, evicting {costs[10]:5.1f} us"
                f" (p90 {costs[18]:5.1f}); {used['index_bytes'] / limit:4.0%} of the bound in use"
            )
        shutil.rmtree(path)


def timed(cache: framecache.Cache, numbers: Iterator[int], count: int) -> float:
    """Microseconds of CPU time a set of a new key."""
    start = time.process_time()
    for number in itertools.islice(numbers, count):
        cache.set(key_of(number), KIB)
    return (time.process_time() - start) / count * 1e6


def usage_of(cache: framecache.Cache) -> str:
    used = cache.usage()
    return f"index of {used['index_bytes'] / 2**20:.0f} MiB, evicted {used['evicted']}"


def main(arguments: list[str]) -> None:
    print_machine("framecache", "diskcache", "lmdb", "cachekit", "joblib")
    on_disk = next((argument for argument in arguments if argument != "large"), "/var/tmp")
    for place, parent in (("disk", on_disk), ("tmpfs", "/dev/shm")):
        with tempfile.TemporaryDirectory(prefix="framecache-bench-", dir=parent) as name:
            directory = Path(name)
            print(f"\n=== On {place}")
            peers = Peers(directory)
            get(peers)
            get_many(peers)
            set_(peers)
            blob(peers, directory)
            # Last: readers that the system stops within a transaction leave the index larger, and each commit with more
            # free pages to write down.
            many_processes(directory)
            if "large" in arguments:
                large(directory)
                eviction(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
