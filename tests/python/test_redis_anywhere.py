"""The example program says the same on every tier."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from redis_server import server  # noqa: F401  # a fixture

PROGRAM = Path(__file__).parents[2] / "examples" / "anywhere.py"


def said(url: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, url],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_one_program_on_every_tier(server, tmp_path):
    in_memory = said("memory://", FRAMECACHE_L1="16MiB")
    assert in_memory.count("\n") == 10
    for url in ("file://" + str(tmp_path / "cache"), server.url):
        for l1 in ("16MiB", "off"):
            assert said(url, FRAMECACHE_L1=l1) == in_memory
    assert server.client().dbsize() > 0
