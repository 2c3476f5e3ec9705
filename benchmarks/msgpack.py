"""packb and unpackb against ormsgpack and msgspec.msgpack, interleaved; see RESULTS.md.

The documents are optional: FRAMECACHE_BENCH_DATA is the directory that holds twitter.json.xz and its like.
"""

from __future__ import annotations

import math
import tempfile
import tracemalloc

import msgspec
import numpy as np
import ormsgpack

import framecache
from framecache.msgpack import packb, unpackb

from .common import compare, print_machine
from .workloads import documents, everyday


def main() -> None:
    print_machine("ormsgpack", "msgspec")
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()
    ratios: dict[str, list[float]] = {"packb": [], "unpackb": []}
    lowest: dict[str, tuple[float, str]] = {"packb": (math.inf, ""), "unpackb": (math.inf, "")}
    for name, value in {**everyday(), **documents()}.items():
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
