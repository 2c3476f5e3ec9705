"""What the codecs are timed with."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any

#: The directory that holds twitter.json.xz and its like; empty where there is none.
DATA = os.environ.get("FRAMECACHE_BENCH_DATA", "")


def everyday() -> dict[str, Any]:
    """Return the values of rjson's benchmark and records with equal keys, by name."""
    user = {"name": "user", "tags": [f"tag{i}" for i in range(5)]}
    return {
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


def documents() -> dict[str, Any]:
    """Return the documents in `DATA`, by the names of their files."""
    paths = sorted(Path(DATA).glob("*.json.xz")) if DATA else []
    return {path.name.removesuffix(".xz"): json.loads(lzma.decompress(path.read_bytes())) for path in paths}
