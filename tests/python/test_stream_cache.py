"""Values larger than memory: written as files and streams, read from anywhere, whole or not at all."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pytest

import framecache
from framecache.crypto import Keyring

MIB = 1 << 20
KEY = bytes(range(32))


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes of which a half repeats."""
    import random

    block = random.Random(seed).randbytes(4096) + bytes(4096)
    return (block * (size // len(block) + 1))[:size]


@pytest.fixture(params=["plain", "lz4", "sealed", "sealed lz4"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[framecache.Cache]:
    """A cache of each kind."""
    keyring = Keyring(KEY) if "sealed" in request.param else None
    with framecache.Cache(f"file://{tmp_path}/cache", keyring=keyring) as cache:
        yield cache


@pytest.fixture
def how(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Options of the fixture's kind."""
    return {"compression": "lz4" if "lz4" in request.node.name else None}


def blobs(tmp_path: Path) -> list[str]:
    return os.listdir(tmp_path / "cache" / "blobs")


def test_a_file_is_written_and_read(cache: framecache.Cache, how: dict[str, Any]) -> None:
    value = noise(5 * MIB + 17)
    told: list[tuple[int, int | None]] = []
    with cache.open_writer("k", **how, progress=lambda *now: told.append(now), total=len(value)) as file:
        for start in range(0, len(value), 300_000):
            assert file.write(value[start : start + 300_000]) == len(value[start : start + 300_000])
        assert cache.open_reader("k") is None
    assert file.stored
    assert file.closed
    assert told[-1] == (len(value), len(value))
    with pytest.raises(ValueError, match="closed file"):
        file.write(b"x")
    with cache.open_reader("k", progress=lambda *now: told.append(now)) as file:
        assert (file.nbytes, file.read(10), file.tell()) == (len(value), value[:10], 10)
        assert file.seek(-5, io.SEEK_END) == len(value) - 5
        assert (file.read(), file.read(1)) == (value[-5:], b"")
        file.seek(3 * MIB - 100)
        buffer = bytearray(2 * MIB)
        assert file.readinto(buffer) == len(buffer)
        assert buffer == value[3 * MIB - 100 : 5 * MIB - 100]
        file.seek(0)
        assert file.read() == value
    assert told[-1] == (len(value), len(value))
    assert io.BufferedReader(cache.open_reader("k")).read() == value


def test_an_iterable_of_buffers(cache: framecache.Cache, how: dict[str, Any]) -> None:
    parts = [b"a" * 10, bytearray(b"b" * (3 * MIB)), memoryview(b"c" * 10), b""]
    assert cache.set_stream("k", iter(parts), **how)
    assert cache.open_reader("k").read() == b"".join(parts)
    assert cache.set_stream("k", b"one buffer", **how)
    assert cache.open_reader("k").read() == b"one buffer"
    assert cache.set_stream("k", [], **how)
    assert cache.open_reader("k").read() == b""


def table(rows: int, start: int = 0) -> pa.Table:
    numbers = pa.array(range(start, start + rows))
    texts = pa.array([f"row {number}" for number in range(start, start + rows)])
    return pa.table({"number": numbers, "text": texts, "other": pa.array([1.5] * rows)})


def batches(count: int, rows: int = 20_000) -> list[pa.RecordBatch]:
    return [batch for number in range(count) for batch in table(rows, number * rows).to_batches()]


def test_tables_are_scanned(cache: framecache.Cache, how: dict[str, Any]) -> None:
    whole = pa.Table.from_batches(batches(10))
    for source in (whole, whole.to_reader(), iter(whole.to_batches()), [table(20_000, n * 20_000) for n in range(10)]):
        assert cache.set_stream("t", source, **how)
        scan = cache.scan("t")
        assert scan.num_batches == 10
        assert pa.table(scan).equals(whole)
    told: list[tuple[int, int]] = []
    reader = pa.RecordBatchReader.from_stream(cache.scan("t", progress=lambda *now: told.append(now)))
    assert reader.schema == whole.schema
    first = reader.read_next_batch()
    assert first.equals(whole.to_batches()[0])
    assert len(told) == 1
    assert 0 < told[0][0] < told[0][1]
    reader.read_all()
    assert told[-1][0] == told[-1][1]
    for columns in (["number"], ["text"], ["other", "number"], []):
        chosen = pa.table(cache.scan("t", columns))
        names = [name for name in whole.column_names if name in columns]
        assert chosen.column_names == names
        assert chosen.equals(whole.select(names))
    with pytest.raises(framecache.InvalidArgument, match=r"columns.*number, text, other.*\"nope\""):
        cache.scan("t", ["nope"])
    scan = cache.scan("t")
    pa.table(scan)
    with pytest.raises(framecache.InvalidArgument, match="given to a consumer"):
        pa.table(scan)
    with pa.ipc.open_file(cache.open_reader("t")) as file:
        assert file.read_all().equals(whole)


def test_other_layouts_are_projected_too(cache: framecache.Cache, how: dict[str, Any]) -> None:
    rows = 1000
    columns = {
        "nulls": pa.nulls(rows),
        "flags": pa.array([True, None] * (rows // 2)),
        "lists": pa.array([[1, 2], None] * (rows // 2)),
        "fixed": pa.array([[1, 2]] * rows, pa.list_(pa.int8(), 2)),
        "structs": pa.array([{"a": 1, "b": "x"}, None] * (rows // 2)),
        "codes": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
        "views": pa.array(["a string of more than twelve bytes", "short"] * (rows // 2), pa.string_view()),
        "maps": pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int32())),
        "union": pa.UnionArray.from_sparse(
            pa.array([0, 1] * (rows // 2), pa.int8()), [pa.array([1] * rows), pa.array(["x"] * rows)]
        ),
        "runs": pa.RunEndEncodedArray.from_arrays([rows // 2, rows], pa.array([1, 2])),
        "last": pa.array(range(rows)),
    }
    whole = pa.table(columns)
    assert cache.set_stream("t", whole, **how)
    for name in columns:
        assert pa.table(cache.scan("t", [name])).equals(whole.select([name])), name


def test_an_error_stores_nothing_and_leaves_nothing(
    cache: framecache.Cache, how: dict[str, Any], tmp_path: Path
) -> None:
    assert cache.set_stream("k", b"old", **how)
    before = blobs(tmp_path)

    def failing() -> Iterator[bytes]:
        yield noise(3 * MIB)
        raise KeyError("source")

    with pytest.raises(KeyError):
        cache.set_stream("k", failing(), **how)
    with pytest.raises(framecache.EncodeError, match="one kind"):
        cache.set_stream("k", [noise(3 * MIB), table(1)], **how)
    with pytest.raises(framecache.EncodeError, match="buffers or Arrow data, got int"):
        cache.set_stream("k", [noise(3 * MIB), 1], **how)
    with pytest.raises(framecache.EncodeError):
        cache.set_stream("k", [table(1), pa.table({"x": [1]})], **how)
    file = cache.open_writer("k", **how)

    def writing() -> None:
        with file:
            file.write(noise(3 * MIB))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writing()
    assert file.stored is False
    abandoned = cache.open_writer("k", **how)
    abandoned.write(noise(3 * MIB))
    assert len(blobs(tmp_path)) == 2
    del abandoned
    assert blobs(tmp_path) == before
    assert cache.open_reader("k").read() == b"old"
    cache.set("other", b"x")
    assert cache.usage()["reserved_bytes"] == 0


def test_entries_are_entries(cache: framecache.Cache, how: dict[str, Any]) -> None:
    assert cache.set_stream("k", noise(MIB), tags=["t"], ttl=60, **how)
    assert cache.contains("k")
    reader = cache.open_reader("k")
    cache.invalidate_tags("t")
    assert cache.open_reader("k") is None
    assert cache.scan("k") is None
    assert reader.read() == noise(MIB)
    assert cache.set_stream("k", noise(MIB), **how)
    assert cache.delete("k")
    assert cache.open_reader("k") is None
    assert cache.set_stream("k", b"stream", **how)
    assert cache.get("k") is None
    cache.set("k", b"value")
    assert cache.get("k") == b"value"
    assert cache.open_reader("k") is None
    stats = cache.stats()
    assert stats["absent"] >= 2
    assert stats.get("unreadable", 0) or stats.get("not_sealed", 0)
    assert cache.verify()["damaged"] == 0


def test_reading_while_the_entry_is_replaced(cache: framecache.Cache, how: dict[str, Any]) -> None:
    old, new = noise(6 * MIB), noise(4 * MIB, 2)
    cache.set_stream("k", old, **how)
    with cache.open_reader("k") as reader:
        head = reader.read(2 * MIB)
        cache.set_stream("k", new, **how)
        assert cache.open_reader("k").read() == new
        cache.clear()
        assert head + reader.read() == old


def test_event_loops(cache: framecache.Cache, how: dict[str, Any]) -> None:
    async def items() -> AsyncIterator[bytes]:
        for number in range(5):
            await asyncio.sleep(0)
            yield bytes([number]) * MIB

    async def main() -> None:
        value = b"".join([bytes([number]) * MIB for number in range(5)])
        assert await cache.aset_stream("k", items(), **how)
        async with await cache.aopen_reader("k") as reader:
            assert await reader.aread() == value
        async with await cache.aopen_writer("k", **how) as writer:
            await writer.awrite(b"written")
        assert writer.stored
        assert await cache.aset_stream("t", table(10), **how)
        assert pa.table(await cache.ascan("t", ["number"])).num_rows == 10
        assert cache.open_reader("k").read() == b"written"
        with pytest.raises(ZeroDivisionError):
            async with await cache.aopen_writer("k", **how) as writer:
                raise ZeroDivisionError
        assert cache.open_reader("k").read() == b"written"

    asyncio.run(main())


def test_a_plain_stream_is_mapped_and_not_copied(tmp_path: Path) -> None:
    with framecache.Cache(f"file://{tmp_path}/cache") as cache:
        whole = pa.Table.from_batches(batches(10))
        cache.set_stream("t", whole)
        view = cache.open_reader("t").view()
        assert view is not None
        assert view.readonly
        start = framecache.Frame(view.obj).address
        read = pa.ipc.open_file(pa.py_buffer(view)).read_all()
        assert read.equals(whole)
        for column in pa.table(cache.scan("t")).columns:
            for chunk in column.chunks:
                for buffer in chunk.buffers():
                    assert buffer is None or start <= buffer.address < start + len(view)


def test_sealed_streams_are_their_keys(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/cache"
    old, new = Keyring(KEY), Keyring(bytes(32), [KEY])
    with framecache.Cache(url, keyring=old) as cache:
        cache.set_stream("k", noise(MIB))
    (blob,) = (tmp_path / "cache" / "blobs").iterdir()
    assert noise(MIB)[:16] not in blob.read_bytes()
    with framecache.Cache(url, keyring=new) as cache:
        assert cache.open_reader("k").read() == noise(MIB)
        cache.set_stream("k", b"new")
        assert len(blobs(tmp_path)) == 1
        assert cache.open_reader("k").read() == b"new"
    with framecache.Cache(url, keyring=Keyring(b"x" * 32), on_tamper="raise") as cache:
        assert cache.open_reader("k") is None
    with framecache.Cache(url) as cache:
        assert cache.open_reader("k") is None


@pytest.mark.parametrize("at", ["header", "chunk", "index"])
def test_what_was_changed_is_refused(tmp_path: Path, at: str) -> None:
    url = f"file://{tmp_path}/cache"
    with framecache.Cache(url, keyring=Keyring(KEY), on_tamper="raise") as cache:
        cache.set_stream("k", noise(3 * MIB))
        (blob,) = (tmp_path / "cache" / "blobs").iterdir()
        with blob.open("r+b") as file:
            file.seek({"header": 100, "chunk": 2 * MIB, "index": -40}[at], 2 if at == "index" else 0)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
        if at == "header":
            # The store's own checksum covers the header.
            assert cache.open_reader("k") is None
        elif at == "index":
            with pytest.raises(framecache.EntryRefused) as refused:
                cache.open_reader("k")
            assert refused.value.reason == "changed"
        else:
            reader = cache.open_reader("k")
            assert reader.read(100) == noise(3 * MIB)[:100]
            with pytest.raises(framecache.EntryRefused) as refused:
                reader.read()
            assert refused.value.reason == "changed"


def test_memory_alone_has_no_streams() -> None:
    with framecache.Cache(l1=MIB) as cache:
        for use in (lambda: cache.open_writer("k"), lambda: cache.set_stream("k", b""), lambda: cache.open_reader("k")):
            with pytest.raises(framecache.Unsupported, match="expected a cache in a directory"):
                use()


def test_a_killed_writer_leaves_the_old_value(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/cache"
    with framecache.Cache(url) as cache:
        cache.set_stream("k", b"old")
    code = f"""
        import framecache, sys, time
        file = framecache.Cache({url!r}).open_writer("k")
        while True:
            file.write(bytes(1 << 20))
            print("written", flush=True)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(5):
        assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    with framecache.Cache(url) as cache:
        assert cache.open_reader("k").read() == b"old"
        assert cache.verify()["damaged"] == 0
        assert len(blobs(tmp_path)) == 1


LIMITED = """
    import resource, sys
    import framecache, numpy as np, pyarrow as pa
    from framecache.crypto import Keyring
    url, total, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rows = 1 << 17
    def batches():
        for start in range(0, total // 16, rows):
            numbers = pa.array(np.arange(start, start + rows))
            yield pa.record_batch({"number": numbers, "double": numbers.cast(pa.float64())})
    cache = framecache.Cache(url, l1=None, keyring=Keyring(bytes(range(32))))
    next(batches())
    # What the interpreter and pyarrow have is theirs.
    taken = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (taken + limit, taken + limit))
    assert cache.set_stream("big", batches(), compression="lz4")
    count = total = 0
    for batch in pa.RecordBatchReader.from_stream(cache.scan("big", ["number"])):
        count += batch.num_rows
        total += batch.column(0)[0].as_py()
    print(count, total)
"""


def test_a_table_larger_than_memory_is_cached_and_scanned(tmp_path: Path) -> None:
    size, rows = 1 << 30, 1 << 17
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), f"file://{tmp_path}/cache", str(size), str(128 << 20)],
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [str(size // 16), str(sum(range(0, size // 16, rows)))]
