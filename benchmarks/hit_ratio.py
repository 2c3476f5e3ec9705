"""Hit ratios of L1 and its peers on Zipf-distributed reads, with a cache of 1% of the keys; see RESULTS.md."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import cachebox
import cachetools
import moka_py
import numpy as np

from framecache._framecache import L1, MISSING

from .common import print_machine

KEYS = 1_000_000
ROOM = KEYS // 100
READS = 1_000_000
#: Reads before hits are counted, in which caches fill.
WARM_UP = 500_000
SCOPE = bytes(4)


def main() -> None:
    print_machine("cachebox", "moka-py", "cachetools")
    for exponent in (0.9, 1.0):
        for scans in (False, True):
            reads = _reads(exponent, scans)
            title = f"Zipf {exponent}" + (", one read in ten of a key that is read once" if scans else "")
            print(f"\n{title}: {READS:,} reads of {KEYS:,} keys, room for {ROOM:,}")
            ratios = {name: _ratio(make(), reads) for name, make in CONTENDERS.items()}
            for name, ratio in ratios.items():
                print(f"  {name:36} {ratio:6.2%}  {100 * (ratio - ratios['LRU (OrderedDict)']):+6.2f} points to LRU")


def _reads(exponent: float, scans: bool) -> list[int]:
    """Keys in the order in which they are read: each as often as its rank says, each scanned one once."""
    random = np.random.default_rng(20260101)
    shares = 1 / np.arange(1, KEYS + 1) ** exponent
    bounds = np.cumsum(shares)
    reads = np.searchsorted(bounds, random.random(READS) * bounds[-1]).astype(np.int64)
    if scans:
        places = random.random(READS) < 0.1
        reads[places] = KEYS + np.arange(places.sum())
    return reads.tolist()


#: Looks a key up and stores it where it is missing; whether it was there.
Read = Callable[[int], bool]


def _ratio(read: Read, reads: list[int]) -> float:
    for key in reads[:WARM_UP]:
        read(key)
    return sum(map(read, reads[WARM_UP:])) / (READS - WARM_UP)


def _framecache() -> Read:
    # Room for as many entries, in bytes: what one takes is measured.
    cache = L1(1 << 40, decode=None)
    cache.fill(_key(0), 0, None, "raw", None, 0, None, None, b"")
    cache = L1(ROOM * cache.stats()["bytes"], decode=None)
    find, fill = cache.find, cache.fill

    def read(number: int) -> bool:
        key = _key(number)
        if find(key) is not MISSING:
            return True
        fill(key, 0, None, "raw", None, 0, None, None, b"")
        return False

    return read


def _key(number: int) -> bytes:
    return SCOPE + number.to_bytes(8, "little")


def _lru() -> Read:
    cache: OrderedDict[int, int] = OrderedDict()

    def read(key: int) -> bool:
        if key in cache:
            cache.move_to_end(key)
            return True
        cache[key] = 0
        if len(cache) > ROOM:
            cache.popitem(last=False)
        return False

    return read


def _mapping(cache: object) -> Read:
    get, put = cache.get, cache.__setitem__  # type: ignore[attr-defined]

    def read(key: int) -> bool:
        if get(key) is not None:
            return True
        put(key, 0)
        return False

    return read


def _moka(policy: str) -> Read:
    cache = moka_py.Moka(ROOM, policy=policy)
    get, put = cache.get, cache.set

    def read(key: int) -> bool:
        if get(key) is not None:
            return True
        put(key, 0)
        return False

    return read


CONTENDERS: dict[str, Callable[[], Read]] = {
    "framecache L1": _framecache,
    "LRU (OrderedDict)": _lru,
    "cachetools.LRUCache": lambda: _mapping(cachetools.LRUCache(ROOM)),
    "cachetools.LFUCache": lambda: _mapping(cachetools.LFUCache(ROOM)),
    "cachebox.LRUCache": lambda: _mapping(cachebox.LRUCache(ROOM)),
    "cachebox.LFUCache": lambda: _mapping(cachebox.LFUCache(ROOM)),
    "moka-py, TinyLFU": lambda: _moka("tiny_lfu"),
}


if __name__ == "__main__":
    main()
