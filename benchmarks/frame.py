"""Wrapping and unwrapping from Python, against cachekit and against copying memory.

Run with `make bench` or `python -m benchmarks.frame`; results stand in RESULTS.md.
"""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
from cachekit.serializers.wrapper import SerializationWrapper as CachekitWrapper

import framecache

from .common import compare, print_machine

METADATA = {"format": "msgpack", "encoding": "utf-8", "compressed": True, "original_type": "msgpack"}
wrap, unwrap = framecache.SerializationWrapper.wrap, framecache.SerializationWrapper.unwrap
LARGE = 100 * 2**20


def small() -> None:
    data = b"x" * 100
    frame = wrap(data, METADATA, "default")
    large = wrap(bytes(LARGE), METADATA, "default")
    view, array = framecache.Frame(frame), bytearray(frame)
    compare(
        "unwrap, header seen before",
        {
            "framecache, 100 B": lambda: unwrap(frame),
            "framecache, 100 MiB": lambda: unwrap(large),
            "framecache, 100 B Frame": lambda: unwrap(view),
            "framecache, 100 B bytearray": lambda: unwrap(array),
            "cachekit, 100 B": lambda: CachekitWrapper.unwrap(frame),
            "an empty call": lambda: None,
        },
        calls=5000,
    )
    fresh = itertools.cycle([wrap(data, {**METADATA, "original_type": number}, "default") for number in range(20_000)])
    compare(
        "unwrap, a header never seen before, 4 metadata keys (includes 25 ns for drawing it)",
        {
            "framecache, 100 B": lambda: unwrap(next(fresh)),
            "cachekit, 100 B": lambda: CachekitWrapper.unwrap(next(fresh)),
        },
        calls=200,
    )
    compare(
        "wrap 100 B",
        {
            "framecache": lambda: wrap(data, METADATA, "default"),
            "framecache, no metadata": lambda: wrap(data, {}, "default"),
            "cachekit": lambda: CachekitWrapper.wrap(data, METADATA, "default"),
        },
        calls=5000,
    )


def build(data: bytes) -> framecache.Frame:
    builder = framecache.FrameBuilder(len(data))
    builder.write(data)
    return builder.finish()


def big() -> None:
    data = np.random.default_rng(1).bytes(LARGE)
    source, warm = np.frombuffer(data, np.uint8), np.ones(LARGE, np.uint8)
    compare(
        "100 MiB",
        {
            "memcpy into warm memory": lambda: np.copyto(warm, source),
            "FrameBuilder": lambda: build(data),
            "wrap": lambda: wrap(data, METADATA, "default"),
            'b"".join': lambda: b"".join((b"header", data)),
            "cachekit wrap": lambda: CachekitWrapper.wrap(data, METADATA, "default"),
        },
        rounds=15,
        nbytes=LARGE,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["big"]:
        big()
    else:
        print_machine("framecache", "cachekit", "numpy")
        small()
        big()
        print("\nThe same in a fresh process:", flush=True)
        subprocess.run([sys.executable, "-m", __spec__.name, "big"], check=True)
