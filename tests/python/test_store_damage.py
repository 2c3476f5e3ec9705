"""Damaged files: what is not what was written is a miss or an error, never a wrong value and never a crash."""

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest

from framecache import Cache
from support import run

LOADED, MAPPED, LARGE = 10_000, 66_000, 1_500_000


def pattern(length, seed=0):
    return bytes((at * 7 + seed) % 251 for at in range(length))


def blob_of(directory):
    """The one blob of a store."""
    (blob,) = (directory / "blobs").iterdir()
    return blob


#: A reader of `key` that may not write, and so leaves damaged entries as they are.
_READER = """
import os, sys
from framecache import Cache

cache = Cache("file://{directory}?mode=ro")
expected = cache.get({key!r})
assert expected is not None

def flipped(path, positions, bit=lambda at: 1 << at % 8):
    "Flip one bit of each position in turn; yield the position and what is served meanwhile."
    file = os.open(path, os.O_RDWR)
    for at in positions:
        (byte,) = os.pread(file, 1, at)
        os.pwrite(file, bytes([byte ^ bit(at)]), at)
        yield at, cache.get({key!r})
        os.pwrite(file, bytes([byte]), at)
    os.close(file)
    assert cache.get({key!r}) == expected
"""


def read(directory, code, key="key"):
    return run(_READER.format(directory=directory, key=key) + textwrap.dedent(code))


@pytest.mark.parametrize("size", [LOADED, MAPPED])
@pytest.mark.parametrize("compression", [None, "lz4"])
def test_every_byte_of_a_blob_is_checked(directory, size, compression):
    value = random.Random(size).randbytes(size)
    with Cache(f"file://{directory}", compression=compression) as cache:
        cache.set("key", value)
    code = f"""
        blob = {str(blob_of(directory))!r}
        served = [at for at, value in flipped(blob, range(os.path.getsize(blob))) if value is not None]
        assert not served, served[:10]
        assert cache.stats()["unreadable"] == os.path.getsize(blob)
    """
    read(directory, code)


def test_a_large_blob_is_checked_as_far_as_was_asked_for(directory):
    value = pattern(LARGE)
    for verify, checked in [("header", False), ("full", True)]:
        with Cache(f"file://{directory}?verify={verify}") as cache:
            cache.set("key", value)
        blob = blob_of(directory)
        start = blob.stat().st_size - LARGE
        code = f"""
            header = [*flipped({str(blob)!r}, range({start}))]
            assert not [at for at, value in header if value is not None]
            for at, value in flipped({str(blob)!r}, range({start}, {start + LARGE}, 9973)):
                if {checked}:
                    assert value is None
                else:
                    at -= {start}
                    assert value[:at] == expected[:at] and value[at + 1:] == expected[at + 1:]
        """
        read(directory, code)


def test_a_large_table_whose_bytes_change_is_a_miss_or_another_table(directory):
    texts = [f"{number} grüße" * (number % 9) for number in range(60_000)]
    table = pa.table({"number": pa.array(range(60_000), pa.int64()), "text": pa.array(texts, pa.string())})
    with Cache(f"file://{directory}") as cache:
        cache.set("key", table)
    assert blob_of(directory).stat().st_size > 1 << 20
    code = f"""
        import random
        import pyarrow as pa
        blob = {str(blob_of(directory))!r}
        length, rng = os.path.getsize(blob), random.Random(0)
        # The table's description lies at its end and its beginning, offsets and text between.
        positions = [*range(0, 2048, 2), *range(length - 2048, length, 2), *(rng.randrange(length) for _ in range(500))]
        outcomes = set()
        for at, value in flipped(blob, positions):
            if value is None:
                outcomes.add("miss")
                continue
            assert isinstance(value, pa.Table)
            try:
                # Reads every offset and every character.
                outcomes.add(value.to_pydict() == expected_dict if at % 97 == 0 else value.num_columns)
                value.validate(full=True)
            except (pa.ArrowInvalid, UnicodeDecodeError):
                outcomes.add("refused")
        assert "miss" in outcomes and len(outcomes) > 1, outcomes
    """
    read(directory, "expected_dict = expected.to_pydict()\n" + textwrap.dedent(code))


@pytest.mark.parametrize("size", [200, 1500, 6000])
def test_every_byte_of_an_entry_in_the_index_is_checked(directory, size):
    key, value = "the key of the entry " * 2, random.Random(size).randbytes(size)
    with Cache(f"file://{directory}", namespace="unique") as cache:
        cache.set(key, value, ttl=10_000, tags=["one", "other"])
    row = f"""
        cache = Cache("file://{directory}?mode=ro", namespace="unique")
        expected = cache.get({key!r})
        whole = open("{directory}/index", "rb").read()
        # Checksum and fixed fields (104 bytes), two tags of 24, the namespace, the key, the frame.
        start_of_names = b"unique" + {key!r}.encode()
        starts = [at - 152 for at in range(len(whole)) if whole.startswith(start_of_names, at)]
        end = lambda start: whole.index({value!r}, start) + {size}
        assert starts
        checked = 0
        for start in starts:
            # Pages that are no longer in use hold older rows.
            rows = [value for _, value in flipped("{directory}/index", [start])]
            if rows == [None]:
                for bit in (lambda at: 1 << at % 8, lambda at: 255):
                    served = [at for at, value in flipped("{directory}/index", range(start, end(start)), bit)
                              if value is not None]
                    assert not served, [at - start for at in served]
                checked += 1
        assert checked == 1, checked
    """
    code = _READER.format(directory=directory, key=key).replace("assert expected is not None", "")
    code = code.replace('?mode=ro")', '?mode=ro", namespace="unique")')
    run(code + textwrap.dedent(row))


def test_a_damaged_entry_is_removed_and_can_be_stored_again(directory):
    cache = Cache(f"file://{directory}")
    for size in (LOADED, MAPPED):
        cache.set("key", pattern(size))
        blob = blob_of(directory)
        with blob.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\xff")
        damaged = cache.usage()["damaged"]
        assert cache.get("key") is None
        assert cache.usage()["damaged"] == damaged + 1
        assert (cache.usage()["blobs"], cache.usage()["blob_bytes"]) == (0, 0)
        assert not blob.exists()
        assert "key" not in cache
        assert cache.set("key", pattern(size, 1), if_absent=True)
        assert cache.get("key") == pattern(size, 1)
        cache.delete("key")


@pytest.mark.parametrize("size", [LOADED, MAPPED, LARGE])
def test_a_blob_that_is_missing_shorter_or_longer_is_a_miss(directory, size):
    cache = Cache(f"file://{directory}")
    for length in (None, 0, 1, 100, size - 1, size, 65_536, size * 2):
        cache.set("key", pattern(size))
        blob = blob_of(directory)
        if length is None:
            blob.unlink()
        else:
            os.truncate(blob, length)
        assert cache.get("key") is None, length
        assert cache.get_many(["key"]) == {}
        assert cache.usage()["blobs"] == 0
        assert cache.verify() == {"whole": 0, "damaged": 0, "orphans": 0}
    assert cache.usage()["damaged"] == 8


@pytest.mark.parametrize("change", [os.unlink, lambda blob: os.truncate(blob, 100)])
def test_verify_finds_what_nobody_read(directory, change):
    cache = Cache(f"file://{directory}")
    cache.set("whole", b"value")
    cache.set("damaged", pattern(MAPPED))
    change(blob_of(directory))
    cache.set("fine", pattern(LOADED))
    assert cache.verify() == {"whole": 2, "damaged": 1, "orphans": 0}
    assert sorted(cache.keys()) == ["fine", "whole"]
    assert len([*(directory / "blobs").iterdir()]) == 1
    assert cache.verify() == {"whole": 2, "damaged": 0, "orphans": 0}


def test_verify_removes_files_that_no_entry_names_and_no_others(directory):
    cache = Cache(f"file://{directory}")
    cache.set("key", pattern(LOADED))
    linked = blob_of(directory)
    orphan, theirs = directory / "blobs" / ("0" * 32), directory / "blobs" / "notes.txt"
    dead = directory / "blobs" / ".tmp-4194305-1-0"  # no process has so high an id
    for file in (orphan, theirs, dead):
        file.write_bytes(b"x")
    assert cache.verify() == {"whole": 1, "damaged": 0, "orphans": 2}
    assert {*(directory / "blobs").iterdir()} == {linked, theirs}


def test_something_else_in_place_of_a_blob_is_a_miss(directory, tmp_path):
    cache = Cache(f"file://{directory}")
    for replace in (
        lambda blob: blob.symlink_to("/etc/passwd"),
        lambda blob: blob.symlink_to("/dev/zero"),
        lambda blob: os.mkfifo(blob, 0o600),
        lambda blob: blob.mkdir(),
    ):
        cache.set("key", pattern(LOADED))
        blob = blob_of(directory)
        blob.unlink()
        replace(blob)
        assert cache.get("key") is None
        assert cache.stats()["unreadable"]
        if blob.is_dir():
            blob.rmdir()
        else:
            blob.unlink()
        cache.verify()


def test_a_lost_or_damaged_file_of_marks_changes_nothing_that_is_served(directory):
    url = f"file://{directory}?max_bytes=1MiB"
    for damage in (lambda marks: marks.unlink(), lambda marks: marks.write_bytes(b"\xff" * marks.stat().st_size)):
        with Cache(url) as cache:
            cache.set("key", b"value")
        damage(directory / "marks")
        with Cache(url) as cache:
            assert cache.get("key") == b"value"
            for number in range(500):
                assert cache.set(f"other {number}", bytes(6000))
            assert cache.usage()["evicted"] > 0
            cache.clear()


def test_an_index_that_twice_killed_who_opened_it_is_made_anew(directory):
    url = f"file://{directory}"
    with Cache(url) as cache:
        for number in range(100):
            cache.set(f"key {number}", bytes(3000))
        cache.set("blob", pattern(LOADED))
    # What the first pages refer to is not there any more.
    os.truncate(directory / "index", 8192)
    opener = [sys.executable, "-c", f"from framecache import Cache; Cache({url!r}).get('key 1')"]
    for _ in range(2):
        assert subprocess.run(opener, check=False, capture_output=True).returncode < 0
    with Cache(url) as cache:
        assert cache.get("key 1") is None
        assert not [*(directory / "blobs").iterdir()]
        assert cache.set("key 1", b"new")
    with Cache(url) as cache:
        assert cache.get("key 1") == b"new"
    assert "starts 0" in Path(directory / "stamp").read_text()
