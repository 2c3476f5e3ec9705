"""What several test modules need."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from framecache._framecache import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pyarrow as pa

#: An unprivileged user: "nobody".
NOBODY = 65534

#: Gives up root for good. What is imported later may lie under a home that is closed to others, hence the imports.
_BECOME = """
import framecache, framecache.arrow
import logging, os, traceback, urllib.parse
os.setgroups([])
os.setgid({user})
os.setuid({user})
os.umask(0o022)
"""


def skip_or_fail(reason: str) -> NoReturn:
    """Skip the test for want of something optional; on CI, where nothing may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not skipped on CI: {reason}")
    pytest.skip(reason)


def run(code: str, *, env: Mapping[str, str] | None = None, user: int | None = None) -> str:
    """Run `code` in a new interpreter and return what it prints; fail the test if it does not end with 0.

    Args:
        code: The program, which may be indented.
        env: Variables besides those of this process.
        user: A user that the child becomes before it runs `code`, if this process is root's.
    """
    code = textwrap.dedent(code)
    if user is not None and os.geteuid() == 0:
        code = _BECOME.format(user=user) + code
    child = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        env={**os.environ, **(env or {})},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if child.returncode != 0:
        pytest.fail(f"the child ended with {child.returncode}:\n{child.stdout}{child.stderr}", pytrace=False)
    return child.stdout


@contextmanager
def traced_peak() -> Iterator[Callable[[], int]]:
    """Trace memory, Rust's too; what it gives returns the most bytes above those of the start that there ever were."""
    traced_before = tracemalloc.is_tracing()
    if not traced_before:
        tracemalloc.start()
    tracemalloc.reset_peak()
    start = tracemalloc.get_traced_memory()[0]
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] - start
    finally:
        if not traced_before:
            tracemalloc.stop()


def payload_of(frame: Any) -> memoryview:
    """Return the payload of a frame."""
    import framecache

    return framecache.SerializationWrapper.unwrap(frame)[0]


def addresses(table: pa.Table | pa.RecordBatch) -> list[tuple[str, int, int, int]]:
    """Return column, buffer index, address and size of all buffers that are not empty.

    Children count as their parent's buffers, as in `pyarrow.Array.buffers`, and dictionaries come after them.
    """
    return [
        (name, index, buffer.address, buffer.size)
        for name, column in zip(table.schema.names, table.columns, strict=True)
        for chunk in getattr(column, "chunks", [column])
        for index, buffer in enumerate(_buffers(chunk))
        if buffer is not None and buffer.size > 0
    ]


def _buffers(array: pa.Array) -> list[pa.Buffer | None]:
    return [*array.buffers(), *(buffer for values in _dictionaries(array) for buffer in _buffers(values))]


def _dictionaries(array: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries of an array and its children, without those inside of dictionaries."""
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        yield from _dictionaries(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield array.dictionary
    elif isinstance(array, pa.MapArray):
        yield from _dictionaries(array.keys)
        yield from _dictionaries(array.items)
    elif isinstance(array, pa.StructArray | pa.UnionArray):
        for position in range(array.type.num_fields):
            yield from _dictionaries(array.field(position))
    elif hasattr(array, "values"):  # lists of all kinds, run-end encoded arrays
        yield from _dictionaries(array.values)


def mapped_file(address: int) -> str:
    """Return the file that is mapped at `address`, or an empty string."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *rest = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in span.split("-"))
        if start <= address < end:
            return rest[4] if len(rest) > 4 else ""
    return ""


def frame_in(directory: Path, key: str, namespace: str = "") -> bytes:
    """Return the frame that a store has under `key`."""
    entry = Store(str(directory), namespace=namespace).entry(key, 0)
    assert entry is not None
    return bytes(entry[0])


def put_frame(directory: Path, key: str, frame: bytes, namespace: str = "") -> None:
    """Put any bytes into a store as the frame under `key`."""
    assert Store(str(directory), namespace=namespace).put_frames([(key, frame, [])], 0) == ["written"]


def blobs_of(directory: Path) -> list[Path]:
    """Return the blob files of a store."""
    return list(directory.joinpath("blobs").iterdir())
