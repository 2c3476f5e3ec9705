"""Tables larger than memory: how fast they are written and read, and in how much memory.

Run ``python -m benchmarks.stream [GiB]`` (8 if not given); results stand in ``RESULTS.md``. Each measurement is a
process of its own, which samples its anonymous memory every 5 ms. ``--plot PATH`` writes the samples as an SVG.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS = 1 << 17
GIB = 1 << 30


def anonymous() -> int:
    """Return this process' anonymous resident bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))


class Sampled:
    """Samples anonymous memory over time, as growth over what there was."""

    def __enter__(self) -> Sampled:
        self.samples: list[tuple[float, int]] = []
        self.base, self.began, self.cpu = anonymous(), time.perf_counter(), time.process_time()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._end.wait(0.005):
            self.samples.append((time.perf_counter() - self.began, anonymous() - self.base))

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        self._end.set()
        self._thread.join()

    def result(self) -> dict[str, Any]:
        """What was measured."""
        peak = max((size for _, size in self.samples), default=0)
        return {
            "seconds": self.seconds,
            "cpu": self.cpu,
            "peak": peak,
            "samples": self.samples[:: max(1, len(self.samples) // 400)],
        }


def batches(size: int) -> Iterator[Any]:
    """Generate 16 bytes a row: numbers that compress to a half, and floats that hardly do."""
    import numpy as np
    import pyarrow as pa

    generator = np.random.default_rng(1)
    # Drawn once: generating must not be what is measured.
    floats = [pa.array(generator.random(ROWS)) for _ in range(16)]
    numbers = [pa.array(generator.integers(0, 1 << 20, ROWS)) for _ in range(16)]
    for number in range(size // (ROWS * 16)):
        yield pa.record_batch({"number": numbers[number % 16], "value": floats[number * 7 % 16]})


def opened(directory: str, sealed: bool) -> Any:
    """Open the cache."""
    import framecache
    from framecache.crypto import Keyring

    url = f"file://{directory}/{'sealed' if sealed else 'plain'}?max_bytes=64GiB"
    return framecache.Cache(url, l1=None, keyring=Keyring(bytes(range(32))) if sealed else None)


def write(directory: str, size: int, workers: int) -> dict[str, Any]:
    """Write through LZ4 and AES-256-GCM."""
    cache = opened(directory, True)
    next(batches(1 << 24))
    # As for the file that is written alone: what was there is not removed meanwhile.
    cache.delete("big")
    with Sampled() as sampled:
        assert cache.set_stream("big", batches(size), compression="lz4", workers=workers)
    return sampled.result()


def read(directory: str, size: int, workers: int) -> dict[str, Any]:
    """Read it, a batch at a time."""
    import pyarrow as pa

    cache = opened(directory, True)
    rows = 0
    with Sampled() as sampled:
        for batch in pa.RecordBatchReader.from_stream(cache.scan("big", workers=workers)):
            rows += batch.num_rows
    assert rows == size // 16
    return sampled.result()


def disk(directory: str, size: int, workers: int) -> dict[str, Any]:
    """Write as many bytes as the sealed stream has to a file, and nothing else."""
    part, path = random.Random(1).randbytes(1 << 20), Path(directory) / "disk"
    length = next((Path(directory) / "sealed" / "blobs").iterdir()).stat().st_size
    with Sampled() as sampled, path.open("wb", buffering=0) as file:
        for _ in range(length >> 20):
            file.write(part)
    path.unlink()
    return sampled.result()


def ranges(directory: str, size: int, workers: int) -> dict[str, Any]:
    """Read 1 MiB from anywhere: with the reader opened for it, and with one that is open."""
    cache = opened(directory, True)
    places = random.Random(2)
    cold, warm = [], []
    kept = cache.open_reader("big")
    for _ in range(200):
        at = places.randrange(kept.nbytes - (1 << 20))
        began = time.perf_counter()
        with cache.open_reader("big") as reader:
            reader.seek(at)
            reader.read(1 << 20)
        cold.append(time.perf_counter() - began)
        at = places.randrange(kept.nbytes - (1 << 20))
        began = time.perf_counter()
        kept.seek(at)
        kept.read(1 << 20)
        warm.append(time.perf_counter() - began)
    return {"cold": cold, "warm": warm}


def plain(directory: str, size: int, workers: int) -> dict[str, Any]:
    """Read a plain stream, and the same table as an Arrow file from a memory map, in turns."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cache, path = opened(directory, False), f"{directory}/file.arrow"
    size = min(size, GIB)
    assert cache.set_stream("plain", batches(size))
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, next(batches(1 << 24)).schema) as file:
        for batch in batches(size):
            file.write(batch)

    def stream() -> Any:
        return pa.table(cache.scan("plain"))

    def mapped() -> Any:
        return pa.ipc.open_file(pa.memory_map(path)).read_all()

    times: dict[str, list[float]] = {"stream": [], "mapped": []}
    contenders: list[tuple[str, Callable[[], Any]]] = [("stream", stream), ("mapped", mapped)]
    for turn in range(12):
        for name, contender in contenders if turn % 2 else contenders[::-1]:
            began = time.perf_counter()
            pc.sum(contender()["number"])
            if turn > 1:
                times[name].append(time.perf_counter() - began)
    return times


def measured(name: str, directory: str, size: int, workers: int) -> dict[str, Any]:
    """Run one measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stream", "--one", name, directory, str(size), str(workers)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def plot(path: str, series: dict[str, list[tuple[float, int]]]) -> None:
    """Write growth of memory over time."""
    longest = max(at for samples in series.values() for at, _ in samples)
    most = 288 << 20
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 340" font-family="sans-serif" font-size="12">']
    for limit, text in ((288, "256 + 32 MiB"), (128, "128 MiB"), (0, "0")):
        y = 310 - 290 * (limit << 20) / most
        lines.append(
            f'<path d="M90 {y:.0f}H830" stroke="#bbb"/><text x="85" y="{y + 4:.0f}" text-anchor="end">{text}</text>'
        )
    for (name, samples), color in zip(series.items(), ("#c33", "#36c"), strict=True):
        points = " ".join(
            f"{90 + 740 * at / longest:.1f},{310 - 290 * max(0, size) / most:.1f}" for at, size in samples
        )
        lines.append(f'<polyline points="{points}" fill="none" stroke="{color}"/>')
        lines.append(f'<text x="{100 + 60 * (color == "#36c")}" y="40" fill="{color}">{name}</text>')
    lines.append(f'<text x="830" y="330" text-anchor="end">{longest:.0f} s</text></svg>')
    Path(path).write_text("\n".join(lines) + "\n", encoding="ascii")


def main(size: int, plot_to: str | None) -> None:
    """Print the table."""
    workers = 2
    with tempfile.TemporaryDirectory() as directory:
        rates: dict[tuple[str, int], list[float]] = {}
        costs: dict[tuple[str, int], list[float]] = {}
        peaks: dict[str, int] = {}
        series: dict[str, list[tuple[float, int]]] = {}
        for _ in range(3):
            for threads in (0, workers):
                for name in ("write", "read"):
                    result = measured(name, directory, size, threads)
                    rates.setdefault((name, threads), []).append(size / result["seconds"] / (1 << 20))
                    costs.setdefault((name, threads), []).append(result["cpu"] * GIB / size)
                    if threads:
                        peaks[name] = max(peaks.get(name, 0), result["peak"])
                        series[name] = result["samples"]
            written = measured("disk", directory, size, 0)
            rates.setdefault(("disk", 0), []).append(size / written["seconds"] / (1 << 20))
        for (name, threads), values in rates.items():
            alone = statistics.median(rates[name, 0])
            median = statistics.median(values)
            all_of_them = sorted(round(value) for value in values)
            print(f"{name:6} {threads} workers {median:8.0f} MiB/s {median / alone:6.2f}x  of {all_of_them}")
        for (name, threads), values in costs.items():
            print(f"{name:6} {threads} workers {statistics.median(values):8.2f} s of processor time a GiB")
        for name, peak in peaks.items():
            print(f"{name:6} peak growth of anonymous memory {peak / (1 << 20):6.1f} MiB")
        for name, times in measured("ranges", directory, size, workers).items():
            times.sort()
            median, p90, p99 = (f"{times[at] * 1e3:.2f}" for at in (100, 180, 198))
            print(f"1 MiB range, {name}: median {median} ms, p90 {p90}, p99 {p99}")
        times = measured("plain", directory, size, workers)
        medians = {name: statistics.median(values) for name, values in times.items()}
        print(f"plain stream {medians['stream'] * 1e3:.1f} ms, memory map {medians['mapped'] * 1e3:.1f} ms:", end=" ")
        print(f"{medians['stream'] / medians['mapped']:.2f}x")
        if plot_to is not None:
            plot(plot_to, series)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        name, directory, size, workers = sys.argv[2:]
        work = {"write": write, "read": read, "disk": disk, "ranges": ranges, "plain": plain}[name]
        print(json.dumps(work(directory, int(size), int(workers))))
    else:
        arguments = sys.argv[1:]
        to = arguments.pop(arguments.index("--plot") + 1) if "--plot" in arguments else None
        arguments = [argument for argument in arguments if argument != "--plot"]
        main(int(float(arguments[0] if arguments else 8) * GIB), to)
