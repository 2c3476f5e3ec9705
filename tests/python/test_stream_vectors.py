"""The vectors of streams are what their script makes from the specification."""

import subprocess
import sys
from pathlib import Path

VECTORS = Path(__file__).parents[2] / "proto-docs" / "vectors"


def test_the_vectors_are_what_make_stream_writes(tmp_path: Path) -> None:
    for script in ("make_encryption.py", "make_stream.py"):
        (tmp_path / script).write_bytes((VECTORS / script).read_bytes())
    subprocess.run([sys.executable, tmp_path / "make_stream.py"], check=True)
    assert (tmp_path / "stream.jsonl").read_bytes() == (VECTORS / "stream.jsonl").read_bytes(), "run make_stream.py"
