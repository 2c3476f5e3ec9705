"""Reading cached Arrow tables, against `pyarrow.memory_map`; memory of a reader; cost of importing framecache.

Run with `make bench` or `python -m benchmarks.arrow`; results stand in RESULTS.md. The directory is on disk unless
FRAMECACHE_BENCH_DIRECTORY names another.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

import framecache

from .common import compare, print_machine

MIB = 2**20


def numbers(nbytes: int, columns: int = 16) -> pa.Table:
    values = np.random.default_rng(1).random((columns, nbytes // columns // 8))
    return pa.table({f"n{index}": column for index, column in enumerate(values)})


def strings(nbytes: int) -> pa.Table:
    """Half ASCII, half with letters beyond it; about 24 bytes each."""
    count = nbytes // 28 // 2
    ascii_words = pa.array([f"customer-{number:015d}" for number in range(count)])
    words = pa.array([f"kundinnengröße-{number:08d}" for number in range(count)])
    return pa.table({"ascii": ascii_words, "wide": words})


def read_by_memory_map(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def reading(directory: Path) -> None:
    cache = framecache.Cache(f"file://{directory}/cache")
    for name, table in {"fixed-width": numbers(128 * MIB), "strings": strings(128 * MIB)}.items():
        path = directory / f"{name}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        cache.set(name, table)
        frame = framecache.arrow.encode(table)
        foreign = framecache.Frame(bytes(frame))  # bytes lie 32 past a multiple of 64: copied to be aligned
        aligned = framecache.FrameBuilder()
        aligned.write(frame)
        aligned = aligned.finish()
        allocated = pa.total_allocated_bytes()
        cache.get(name)
        allocated = pa.total_allocated_bytes() - allocated
        compare(
            f"read {table.nbytes / MIB:.0f} MiB, {name} ({allocated} bytes allocated by get)",
            {
                "pa.memory_map, open_file, read_all": lambda path=path: read_by_memory_map(path),
                "cache.get (trusted)": lambda name=name: cache.get(name),
                "the same data from elsewhere (foreign)": lambda frame=aligned: framecache.arrow.decode(frame),
                "the same in misaligned bytes (copied)": lambda frame=foreign: framecache.arrow.decode(frame),
            },
            rounds=15,
            calls=3,
        )
        compare(
            f"write {table.nbytes / MIB:.0f} MiB, {name}",
            {
                "pa.OSFile, new_file, write_table": lambda path=path, table=table: write(path, table),
                "cache.set": lambda name=name, table=table: cache.set(name, table),
                "framecache.arrow.encode": lambda table=table: framecache.arrow.encode(table),
            },
            rounds=9,
            nbytes=table.nbytes,
        )


def write(path: Path, table: pa.Table) -> None:
    path.unlink()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def anonymous_kib() -> int:
    return int(re.search(r"^Anonymous:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)[1])


def read_one_column(url: str) -> None:
    import pyarrow.compute as pc

    pc.sum(pa.array([1.0]))
    cache = framecache.Cache(url)
    cache.get("nothing")
    before, total = anonymous_kib(), 0.0
    table = cache.get("large")
    total += pc.sum(table["n0"]).as_py()
    grown = anonymous_kib() - before
    print(f"  a reader of one column of {table.nbytes / MIB:.0f} MiB: anonymous memory grew by {grown} KiB")


def memory(directory: Path) -> None:
    url = f"file://{directory}/cache"
    framecache.Cache(url).set("large", numbers(1024 * MIB))
    print("\nmemory", flush=True)
    subprocess.run([sys.executable, "-m", __spec__.name, "column", url], check=True)


def importing() -> None:
    def start(code: str) -> object:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    compare(
        "start Python",
        {
            "bare": start("pass"),
            "import framecache": start("import framecache"),
            "import cachekit": start("import cachekit"),
        },
        rounds=11,
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["column"]:
        read_one_column(sys.argv[2])
    else:
        import framecache.arrow

        print_machine("framecache", "cachekit", "pyarrow", "numpy")
        with tempfile.TemporaryDirectory(dir=os.environ.get("FRAMECACHE_BENCH_DIRECTORY")) as directory:
            reading(Path(directory))
            memory(Path(directory))
        importing()
