"""packb and unpackb against ormsgpack and msgspec.msgpack, interleaved; see RESULTS.md.

The documents in `DATA` are optional: the directory that holds twitter.json.xz and its like, from FRAMECACHE_BENCH_DATA.
"""

from __future__ import annotations

import json
import lzma
import math
import os
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ormsgpack

import framecache
from framecache.msgpack import packb, unpackb

from .common import compare, print_machine

DATA = os.environ.get("FRAMECACHE_BENCH_DATA", "")


def workloads() -> dict[str, Any]:
    user = {"name": "user", "tags": [f"tag{i}" for i in range(5)]}
    values: dict[str, Any] = {
        "Tiny dict": {"id": 1, "name": "x", "ok": True},
        "Dict small (100)": {f"k{i}": i for i in range(100)},
        "Dict large (1000)": {f"key_{i}": i for i in range(1000)},
        "Dict nested": {f"k{i}": {"nested": i, "value": 2 * i} for i in range(100)},
        "List ints (1000)": list(range(1000)),
        "List mixed (1000)": [i if i % 2 == 0 else f"str_{i}" for i in range(1000)],
        "List nested": [[i, i + 1, i + 2] for i in range(100)],
        "Strings short (1000)": [f"s{i}" for i in range(1000)],
        "Strings medium (1000)": [f"string_value_{i}" for i in range(1000)],
        "Strings long (100)": ["x" * 100 for _ in range(100)],
        "Complex nested": {"users": [{"id": i, **user} for i in range(50)], "metadata": {"version": 1, "count": 50}},
        "Records (1000)": [
            {"id": i, "name": f"name {i}", "email": f"user{i}@example.org", "score": i / 7, "active": i % 3 == 0}
            for i in range(1000)
        ],
    }
    for path in sorted(Path(DATA).glob("*.json.xz")) if DATA else ():
        values[path.name.removesuffix(".xz")] = json.loads(lzma.decompress(path.read_bytes()))
    return values


def main() -> None:
    print_machine("ormsgpack", "msgspec")
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()
    ratios: dict[str, list[float]] = {"packb": [], "unpackb": []}
    lowest: dict[str, tuple[float, str]] = {"packb": (math.inf, ""), "unpackb": (math.inf, "")}
    for name, value in workloads().items():
        packed = packb(value)
        if unpackb(packed) != value or decoder.decode(packed) != value:
            raise SystemExit(f"{name}: not the same value")
        calls = max(1, 40_000 // len(packed))
        for what, contenders in {
            "packb": {
                "framecache": lambda v=value: packb(v),
                "ormsgpack": lambda v=value: ormsgpack.packb(v),
                "msgspec": lambda v=value: encoder.encode(v),
            },
            "unpackb": {
                "framecache": lambda p=packed: unpackb(p),
                "ormsgpack": lambda p=packed: ormsgpack.unpackb(p),
                "msgspec": lambda p=packed: decoder.decode(p),
            },
        }.items():
            medians = compare(f"{what} {name}: {len(packed)} bytes", contenders, calls=calls, rounds=31)
            ratios[what].append(min(medians["ormsgpack"], medians["msgspec"]) / medians["framecache"])
            lowest[what] = min(lowest[what], (medians["ormsgpack"] / medians["framecache"], name))
    for what, values in ratios.items():
        mean = math.exp(sum(map(math.log, values)) / len(values))
        ratio, name = lowest[what]
        print(
            f"\n{what}: {mean:.2f}x the speed of the better peer (geometric mean);"
            f" least over ormsgpack {ratio:.2f}x, {name}"
        )
    array_in_place()


def array_in_place() -> None:
    """What an array of 100 MB costs above reading its frame, when it may be a view."""
    with tempfile.TemporaryDirectory() as directory, framecache.Cache(f"file://{directory}/cache") as cache:
        array = np.arange(12_500_000, dtype="f8")
        cache.set("array", array)
        cache.set("bytes", array.tobytes())
        compare(
            "get of 100 MB, views=True",
            {
                "bytes: a frame is mapped": lambda: cache.get("bytes", views=True),
                "float64 array": lambda: cache.get("array", views=True),
            },
            calls=50,
        )
        view = cache.get("array", views=True)
        tracemalloc.start()
        again = cache.get("array", views=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"  allocated by a get: {peak / 1024:.1f} KiB, same values: {bool((view == again).all())}")


if __name__ == "__main__":
    main()
