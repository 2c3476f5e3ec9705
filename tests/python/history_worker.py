"""One of several processes that write and read the same keys: `python history_worker.py URL NUMBER COUNT DIRECTORY`.

It works until its input ends, then reads for a while what all have written, and leaves what it did in DIRECTORY.
"""

from __future__ import annotations

import json
import math
import mmap
import random
import sys
import threading
import time
from pathlib import Path

from framecache import Cache, StoreError

#: Keys of each kind of each process: one kind is written, the other computed from a truth that all see.
KEYS = 3
#: Seconds between two writes of a key, in turn: less than computing takes, so that what is computed changes meanwhile;
#: and more than the bound, or the next write would hide that one was not heard of.
PAUSES = ((0.0, 0.02), (0.3, 0.8))
#: Seconds for which all is read when nothing is written any more.
READ_ON = 1.0
#: What a process shows of itself: whether it listens, or cannot, its reads, its acknowledged writes.
SHOWN = 3


def shared(directory: Path, count: int) -> tuple[memoryview, memoryview]:
    """The truth of computed keys, and what processes show of themselves; each number is written by one process."""
    path = directory / "shared"
    size = 8 * count * (KEYS + SHOWN)
    if not path.exists():
        path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        numbers = memoryview(mmap.mmap(file.fileno(), size)).cast("Q")
    return numbers[: count * KEYS], numbers[count * KEYS :]


class Worker:
    def __init__(self, url: str, number: int, count: int, directory: Path) -> None:
        self.cache = Cache(url, l1="16MiB", namespace="history")
        self.random = random.Random(number)
        truth, shown = shared(directory, count)
        self.truth = truth
        self.shown = shown[number * SHOWN : (number + 1) * SHOWN]
        own = range(number * KEYS, (number + 1) * KEYS)
        self.keys = [(kind, at) for kind in ("written", "computed") for at in range(count * KEYS)]
        self.due = {(kind, at): 0.0 for kind in ("written", "computed") for at in own}
        self.versions = dict.fromkeys(self.due, 0)
        #: Computed keys whose version is true already, while those of before are still to be removed.
        self.open: set[tuple[str, int]] = set()
        self.writes: list[tuple[str, int, float]] = []
        self.reads: dict[tuple[str, int, int], float] = {}

    def write_until(self, told: threading.Event) -> None:
        while not told.wait(0.001):
            now = time.monotonic()
            for key, due in self.due.items():
                if due <= now:
                    self.write(key)
                    self.due[key] = time.monotonic() + self.random.uniform(*PAUSES[self.versions[key] % 2])

    def read_until(self, told: threading.Event) -> None:
        while not told.is_set():
            for key in random.choices(self.keys, k=20):
                self.read(key)
            self.shown[0] = self.cache.health()["engine"]["listener"] in ("on", "none")
            self.shown[1] = self.shown[1] + 20

    def write(self, key: tuple[str, int]) -> None:
        kind, at = key
        name = f"{kind}:{at}"
        if key not in self.open:
            self.versions[key] += 1
        version = self.versions[key]
        ended = math.inf
        try:
            if kind == "computed":
                self.open.add(key)
                self.truth[at] = version
                if self.random.random() < 0.7:
                    self.cache.delete(name)
                else:
                    self.cache.invalidate_tags(f"tag:{at}")
                self.open.discard(key)
                ended = time.monotonic()
            elif self.cache.set(name, version):
                ended = time.monotonic()
        except StoreError:
            pass
        self.writes.append((name, version, ended))
        self.shown[2] = self.shown[2] + (ended < math.inf)

    def read(self, key: tuple[str, int]) -> None:
        kind, at = key
        name = f"{kind}:{at}"
        began = time.monotonic()
        if kind == "computed":
            version = self.cache.get_or_set(name, lambda: self.compute(at), tags=[f"tag:{at}"], lock=0.2)
        else:
            version = self.cache.get(name)
        if version is not None:
            # Of those that read the same within a hundredth of a second, the last is the oldest.
            self.reads[name, version, int(began * 100)] = began

    def compute(self, at: int) -> int:
        """What is true, which may be so no more when it is returned."""
        version = self.truth[at]
        time.sleep(self.random.uniform(0, 0.02))
        return version

    def leave(self, path: Path) -> None:
        reads = [(name, version, began) for (name, version, _), began in self.reads.items()]
        told = {"reads": reads, "writes": self.writes, "stats": self.cache.stats()}
        path.write_text(json.dumps(told))


def main() -> None:
    url, number, count, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    worker = Worker(url, number, count, directory)
    no_more, done = threading.Event(), threading.Event()
    threads = [
        threading.Thread(target=worker.write_until, args=(no_more,)),
        threading.Thread(target=worker.read_until, args=(done,)),
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    no_more.set()
    threads[0].join()
    # What nobody writes any more is read for longer than anything may be too old.
    time.sleep(READ_ON)
    done.set()
    threads[1].join()
    worker.leave(directory / f"history{number}.json")


if __name__ == "__main__":
    main()
