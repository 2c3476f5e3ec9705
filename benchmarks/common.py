"""Interleaved timing: each round times every contender, so that noise hits all alike."""

from __future__ import annotations

import gc
import importlib.metadata
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path


def compare(
    title: str,
    contenders: dict[str, Callable[[], object]],
    *,
    rounds: int = 41,
    calls: int = 1,
    nbytes: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, float]:
    """Print, for each contender, time a call (median, p90, p99) and its ratio to the first; return the medians.

    `clock` counts nanoseconds; `time.thread_time_ns` those in which the thread had a processor.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            start = clock()
            for _ in range(calls):
                call()
            elapsed = (clock() - start) / calls
            if turn:  # the first round warms up
                times[name].append(elapsed)
    gc.enable()
    print(f"\n{title}")
    medians = {}
    for name, values in times.items():
        values.sort()
        median, p90, p99 = (values[int((len(values) - 1) * share)] for share in (0.5, 0.9, 0.99))
        medians[name] = median
        speed = f"{nbytes / median:7.2f} GB/s" if nbytes else ""
        ratio = median / next(iter(medians.values()))
        print(f"  {name:44} {_shown(median)}  p90 {_shown(p90)}  p99 {_shown(p99)}  {ratio:8.2f}x {speed}")
    return medians


def _shown(nanoseconds: float) -> str:
    for unit, size in (("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:8.2f} {unit}"
    return f"{nanoseconds:8.1f} ns"


def print_machine(*packages: str) -> None:
    """Print what the figures were measured on."""
    described = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    model = described[1] if described else "unknown machine"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{model}, Linux {platform.release()}, CPython {platform.python_version()}; {versions}")
