"""dumps and loads of framecache.json against its peers, interleaved; see RESULTS.md.

Run it as `python -m benchmarks.json`: as a script, it would take the place of the standard library's module.

The documents in FRAMECACHE_BENCH_DATA are optional: the directory that holds twitter.json.xz and its like. With
arguments only the workloads whose names contain one of them run. ``--fresh`` times large documents in one new process
for each module instead.
"""

from __future__ import annotations

import gc
import importlib
import json
import lzma
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .common import print_machine
from .workloads import DATA, everyday

DOCUMENTS = ("twitter", "github", "citm_catalog", "canada")
PACKAGES = {"orjson": "orjson", "rjson": "pyrjson", "ssrjson": "ssrjson", "msgspec": "msgspec"}
ROUNDS = int(os.environ.get("FRAMECACHE_BENCH_ROUNDS", "31"))


def modules() -> dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]]:
    """Return `dumps` and `loads` of every module that is installed, the two that matter first."""
    import framecache.json as framecache_json

    found: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "framecache": (framecache_json.dumps, framecache_json.loads)
    }
    for name in PACKAGES:
        try:
            module = importlib.import_module("msgspec.json" if name == "msgspec" else name)
        except ImportError:
            continue
        if name == "msgspec":
            found[name] = (module.Encoder().encode, module.Decoder().decode)
        else:
            found[name] = (getattr(module, "dumps_to_bytes", module.dumps), module.loads)
    found["json"] = (json.dumps, json.loads)
    return found


def text_of(name: str) -> bytes:
    """Return a document as it is published."""
    return lzma.decompress((Path(DATA) / f"{name}.json.xz").read_bytes())


def workloads() -> dict[str, Any]:
    """Return values by name: those of rjson's benchmark, then what caches see."""
    prose = "Größe, naïve, Ærøskøbing, 日本語のテキスト, Привет мир, 😀. "
    values: dict[str, Any] = {
        **everyday(),
        "API response": {
            "status": "ok",
            "page": {"number": 3, "size": 20, "total": 4711, "next": "/v1/items?page=4", "previous": None},
            "items": [
                {
                    "id": f"{i:032x}",
                    "title": f"Item number {i}",
                    "price": {"amount": i * 99 / 100, "currency": "EUR"},
                    "created_at": "2024-05-01T12:00:00+00:00",
                    "labels": ["new", "sale", f"label-{i}"],
                    "stock": i * 7,
                    "available": i % 2 == 0,
                    "url": f"https://example.org/items/{i}",
                }
                for i in range(20)
            ],
        },
        "Text, not ASCII": [prose * 3 + str(i) for i in range(100)],
        "Text, Latin-1": ["Größe, naïve, Ærøskøbing, Señor " * 3 + str(i) for i in range(100)],
        "Text, escapes": ['C:\\path\\to\\file "quoted"\n\ttab, line\r\n' * 3 + str(i) for i in range(100)],
        "Floats (1000)": [i / 7 for i in range(1000)],
    }
    if DATA:
        values.update((f"{name}.json", json.loads(text_of(name))) for name in DOCUMENTS)
    return values


def times(calls: dict[str, Callable[[], object]], count: int, rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """Return median and minimum of the nanoseconds a call takes; the modules take turns, in another order each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for turn in range(rounds + 1):
        for name, call in shuffled(calls, turn):
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            elapsed = (time.perf_counter_ns() - start) / count
            if turn:  # the first round warms up
                taken[name].append(elapsed)
    gc.enable()
    return {name: (sorted(values)[len(values) // 2], min(values)) for name, values in taken.items()}


def shuffled(items: dict[str, Any], turn: int) -> list[tuple[str, Any]]:
    """Return the items in another order each turn: who runs after a slow one finds cold caches."""
    pairs = list(items.items())
    random.Random(turn).shuffle(pairs)
    return pairs


class Table:
    """Rows of times; the geometric mean of each module's speed against orjson's stands below."""

    def __init__(self, what: str, names: list[str]) -> None:
        self.names = names
        self.ratios: dict[str, list[float]] = {name: [] for name in names}
        self.minima: dict[str, list[float]] = {name: [] for name in names}
        self.least = (math.inf, "")
        print(f"\n| {what}, us: median (minimum) | " + " | ".join(names) + " | framecache to orjson |")
        print("|---|" + "---:|" * (len(names) + 1))

    def row(self, workload: str, found: dict[str, tuple[float, float]]) -> None:
        cells = [f"{median / 1e3:.4g} ({least / 1e3:.4g})" for median, least in found.values()]
        base = found.get("orjson", found["json"])
        for name, (median, least) in found.items():
            self.ratios[name].append(base[0] / median)
            self.minima[name].append(base[1] / least)
        median, least = found["framecache"]
        self.least = min(self.least, (base[1] / least, workload))
        print(
            f"| {workload} | " + " | ".join(cells) + f" | {base[0] / median:.2f}x ({base[1] / least:.2f}x) |",
            flush=True,
        )

    def end(self) -> None:
        cells = [f"{mean(self.ratios[name]):.2f}x ({mean(self.minima[name]):.2f}x)" for name in self.names]
        print("| **geometric mean, speed to orjson** | " + " | ".join(cells) + " | |")
        print(f"\nleast against orjson, of the minima: {self.least[0]:.2f}x, {self.least[1]}")


def mean(ratios: list[float]) -> float:
    """Return the geometric mean; that of nothing is 1."""
    return math.exp(sum(map(math.log, ratios)) / max(1, len(ratios)))


def interleaved(wanted: list[str]) -> None:
    found = modules()
    names = list(found)
    packages = [package for name, package in PACKAGES.items() if name in found]
    print_machine(*packages)
    values = {name: value for name, value in workloads().items() if not wanted or any(part in name for part in wanted)}
    table = Table("dumps", names)
    for name, value in values.items():
        count = max(1, 20_000 // len(json.dumps(value)))
        table.row(name, times({module: lambda d=dumps, v=value: d(v) for module, (dumps, _) in found.items()}, count))
    table.end()
    table = Table("loads, compact", names)
    for name, value in values.items():
        text = found["framecache"][0](value)
        count = max(1, 20_000 // len(text))
        for module, (_, loads) in found.items():
            if loads(text) != value:
                raise SystemExit(f"{module}, {name}: not the same value")
        table.row(name, times({module: lambda r=loads, t=text: r(t) for module, (_, loads) in found.items()}, count))
    if DATA and not wanted:
        for name in DOCUMENTS:
            text = text_of(name)
            loads_of = {module: lambda r=loads, t=text: r(t) for module, (_, loads) in found.items()}
            table.row(f"{name}.json as published", times(loads_of, 1))
    table.end()
    table = Table("dumps, cold: an object that was just built", names)
    for name, value in values.items():
        if len(json.dumps(value)) < 5000:
            continue
        taken: dict[str, list[float]] = {module: [] for module in found}
        gc.disable()
        for turn in range(ROUNDS // 2):
            for module, (dumps, _) in shuffled(found, turn):
                built = json.loads(json.dumps(value))
                start = time.perf_counter_ns()
                dumps(built)
                taken[module].append(time.perf_counter_ns() - start)
        gc.enable()
        table.row(name, {module: (sorted(t)[len(t) // 2], min(t)) for module, t in taken.items()})
    table.end()


def floor() -> None:
    """Time calls whose work is nearly nothing."""
    found = modules()
    value = {"id": 1, "name": "x", "ok": True}
    text = found["framecache"][0](value)
    import timeit

    for what, index, argument in (("dumps", 0, value), ("loads", 1, text)):
        best: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(41):
            for name, functions in found.items():
                timer = timeit.Timer("call(argument)", globals={"call": functions[index], "argument": argument})
                best[name].append(timer.timeit(2000) / 2000 * 1e9)
        shown = ", ".join(f"{name} {sorted(t)[20]:.0f} ({min(t):.0f})" for name, t in best.items())
        print(f"\n{what} of {len(text)} bytes, ns, median (minimum): {shown}")


def key_cache() -> None:
    """Time records whose keys are just short enough to be shared, and just too long for it."""
    dumps, loads = modules()["framecache"]
    calls = {}
    for length in (64, 65):
        record = {f"{name:_<{length}}": index for index, name in enumerate(("id", "name", "email", "score", "active"))}
        text = dumps([record] * 1000)
        calls[f"{length} bytes"] = lambda t=text: loads(t)
    for name, (median, least) in times(calls, 4).items():
        print(f"\nloads of 1000 records with 5 keys of {name}: {median / 1e3:.0f} us ({least / 1e3:.0f})", end="")
    print()


def fresh() -> None:
    """Time large documents in a process of their own for each module: nobody else warms its memory."""
    for module in modules():
        subprocess.run([sys.executable, "-m", __spec__.name, f"--only={module}"], check=True)


def alone(module: str) -> None:
    """Print the medians of `module` for the documents."""
    dumps, loads = modules()[module]
    gc.disable()
    for name in DOCUMENTS:
        text = text_of(name)
        medians = []
        for call, argument in ((dumps, json.loads(text)), (loads, text)):
            taken = []
            for _ in range(15):
                start = time.perf_counter_ns()
                call(argument)
                taken.append(time.perf_counter_ns() - start)
            medians.append(sorted(taken)[7] / 1e3)
        print(f"{module:12} {name:14} dumps {medians[0]:8.0f} us   loads {medians[1]:8.0f} us", flush=True)


def main() -> None:
    arguments = sys.argv[1:]
    if "--fresh" in arguments:
        fresh()
        return
    if arguments and arguments[0].startswith("--only="):
        alone(arguments[0].partition("=")[2])
        return
    interleaved(arguments)
    if not arguments:
        floor()
        key_cache()


main()
