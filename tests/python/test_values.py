"""Cache with bytes-like values: what comes back, what a miss is, and what is refused."""

import collections
import logging
import math
import os
import shutil
import stat
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from framecache import MISSING, Cache, CopyRequired, EncodeError, Frame, InvalidArgument, StoreError, register
from support import NOBODY, blobs_of, frame_in, mapped_file, put_frame, run, skip_or_fail

MAPPED_ABOVE = 64 * 1024


@pytest.mark.parametrize("size", [0, 1, 1000, MAPPED_ABOVE - 256, MAPPED_ABOVE - 200, MAPPED_ABOVE, 5_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_come_back_as_what_they_were(cache, kind, size):
    value = kind(np.random.default_rng(size).bytes(size))
    cache.set("value", value)
    found = cache.get("value")
    assert type(found) is kind
    assert found == value
    view = cache.get("value", views=True)
    assert type(view) is memoryview
    assert view.readonly
    assert view == value
    assert view.obj.address % 64 == 0


def test_large_values_are_mapped_and_small_ones_are_not(cache, directory):
    cache.set("small", b"x" * 1000)
    cache.set("large", b"x" * 100_000)
    assert not cache.get("small", views=True).obj.is_mapped
    large = cache.get("large", views=True).obj
    assert large.is_mapped
    assert large.is_zero_copy
    assert large.is_trusted
    assert mapped_file(large.address).startswith(str(directory))


def test_a_returned_bytearray_is_the_callers_own(cache):
    cache.set("value", bytearray(b"abc"))
    found = cache.get("value")
    found[0] = 0
    found.append(1)
    assert cache.get("value") == b"abc"


def test_changing_what_was_stored_changes_no_entry(cache):
    value = bytearray(b"abc")
    cache.set("value", value)
    value[0] = 0
    assert cache.get("value") == b"abc"


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(5, dtype="i2"),
        np.zeros(0, "u4"),
        np.array(7, "i8"),
        np.array([True]),
    ],
)
def test_memoryviews_keep_format_and_shape(cache, array):
    view = memoryview(array)
    cache.set("value", view)
    found = cache.get("value", require_zero_copy=True)
    assert found.readonly
    assert (found.format, found.shape, found.itemsize) == (view.format, view.shape, view.itemsize)
    assert found.tolist() == view.tolist()


def test_a_frame_comes_back_as_a_view(cache):
    cache.set("value", Frame(b"abc"))
    assert cache.get("value") == b"abc"
    assert type(cache.get("value")) is memoryview


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (memoryview(bytes(10))[::2], "strided"),
        (memoryview(np.zeros(2, ">f8")), ">d"),
        (memoryview(np.zeros(2, "c16")), "Zd"),
        (memoryview(np.zeros((2, 0, 3))), "no items"),
        (type("Mine", (bytes,), {})(b"x"), "Mine"),
        (object(), "object"),
        ([{"a": object}], "type"),
        (np.array([None]), "ndarray"),
    ],
)
def test_what_no_codec_takes_is_refused_by_name(cache, value, found):
    with pytest.raises(EncodeError, match=found) as caught:
        cache.set("value", value)
    assert isinstance(caught.value, TypeError)
    assert "value" not in cache


def test_views_outlive_replacing_deleting_and_closing(cache):
    cache.set("value", b"old" * 100_000)
    view = cache.get("value", views=True)
    cache.set("value", b"new" * 100_000)
    replaced = cache.get("value", views=True)
    assert cache.delete("value")
    cache.close()
    assert bytes(view) == b"old" * 100_000
    assert bytes(replaced) == b"new" * 100_000


def test_zero_copy_is_required_and_possible_only_with_views(cache):
    cache.set("value", b"abc")
    with pytest.raises(CopyRequired, match="views=True"):
        cache.get("value", require_zero_copy=True)
    assert cache.get("value", views=True, require_zero_copy=True) == b"abc"


def test_a_miss_gives_the_default(cache):
    assert cache.get("absent") is None
    assert cache.get("absent", 1) == 1
    assert cache.get("absent", MISSING) is MISSING
    assert not MISSING
    assert repr(MISSING) == "framecache.MISSING"
    assert not cache.delete("absent")
    assert "absent" not in cache
    assert 5 not in cache
    assert cache.stats() == {"absent": 3}


def test_an_entry_ends_when_its_time_is_over(cache, monkeypatch):
    now = 1_700_000_000_000
    monkeypatch.setattr("framecache._times.SystemClock.time", lambda: now / 1000)
    cache.set("value", b"x", ttl=1.5)
    cache.set("forever", b"x")
    now += 1500
    assert cache.get("value") == b"x"
    assert "value" in cache
    now += 1
    assert cache.get("value") is None
    assert "value" not in cache
    assert cache.get("forever") == b"x"
    assert cache.stats() == {"hit": 2, "expired": 1}
    cache.set("value", b"again", ttl=timedelta(milliseconds=1))
    assert cache.get("value") == b"again"


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, math.nan, math.inf, -math.inf, True, False, "1", timedelta(0), timedelta(-1), 1e12, b"1", 1j]
)
def test_an_impossible_ttl_is_refused_before_anything_is_stored(cache, ttl):
    with pytest.raises(InvalidArgument, match="ttl"):
        cache.set("value", b"x", ttl=ttl)
    assert "value" not in cache


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:relative",
        "file://host/path",
        "/path",
        "memcached://h",
        "file:///a?b=1",
        "file:///a#b",
        "memory:",
    ],
)
def test_a_url_of_another_form_is_refused(url):
    with pytest.raises(InvalidArgument, match="file:///path"):
        Cache(url)


def test_a_url_is_unquoted(tmp_path):
    with Cache(f"file://{tmp_path}/with%20space/%C3%A4") as cache:
        cache.set("k", b"v")
    assert (tmp_path / "with space" / "ä").is_dir()


@pytest.mark.parametrize("key", ["", " ", "k", "../../etc/passwd", "a\0b", "Schlüssel 🔑", "x" * 65536, "\n"])
def test_any_text_of_up_to_64_kib_is_a_key_and_never_a_file_name(cache, directory, key):
    cache.set(key, b"value")
    assert cache.get(key) == b"value"
    cache.set(key, b"value" * 10_000)
    (blob,) = blobs_of(directory)
    assert len(blob.name) == 32
    assert set(blob.name) <= set("0123456789abcdef")
    assert cache.delete(key)
    assert blobs_of(directory) == []


def test_what_is_not_a_key_is_refused(cache):
    for call in (cache.get, cache.delete, lambda key: cache.set(key, b"")):
        with pytest.raises(InvalidArgument, match="65536 bytes"):
            call("x" * 65537)
        with pytest.raises(ValueError, match="surrogate"):
            call("\ud800")
        with pytest.raises(TypeError):
            call(b"bytes")


def test_a_closed_cache_says_so(cache, directory):
    cache.set("k", b"v")
    cache.close()
    cache.close()
    for call in (lambda: cache.get("k"), lambda: cache.set("k", b""), lambda: cache.delete("k"), cache.__enter__):
        with pytest.raises(InvalidArgument, match="closed"):
            call()
    with Cache(f"file://{directory}") as again:
        assert again.get("k") == b"v"
    assert str(directory) in repr(again)


def test_a_damaged_file_is_a_counted_miss_logged_once_a_minute(cache, directory, monkeypatch, caplog):
    seconds = 1000.0
    monkeypatch.setattr("framecache._shared.time.monotonic", lambda: seconds)
    cache.set("value", b"x" * 100)
    whole = frame_in(directory, "value")
    put_frame(directory, "value", whole[:-1])
    with caplog.at_level(logging.WARNING, "framecache"):
        for _ in range(3):
            assert cache.get("value", MISSING) is MISSING
        assert len(caplog.records) == 1
        assert "unreadable entry of 'value'" in caplog.records[0].getMessage()
        seconds += 60
        assert cache.get("value") is None
        assert len(caplog.records) == 2
    assert cache.stats() == {"unreadable": 4}
    assert frame_in(directory, "value") == whole[:-1]  # an old reader leaves what it does not understand to newer ones
    put_frame(directory, "value", whole)
    assert cache.get("value") == b"x" * 100


def test_an_unknown_codec_or_type_is_a_miss_that_removes_nothing(cache, directory):
    cache.set("value", b"x" * 100)
    whole = frame_in(directory, "value")
    for old, new in ((b'"s": "raw"', b'"s": "new"'), (b'"bytes"', b'"bytez"')):
        put_frame(directory, "value", whole.replace(old, new))
        assert cache.get("value") is None
        assert "value" in cache
    assert cache.stats() == {"undecodable": 2}


def test_files_are_private_and_nothing_is_left_over(cache, directory):
    for number in range(20):
        cache.set(f"key {number % 5}", bytes(number * 10_000))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert len(blobs_of(directory)) == 5
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(directory.joinpath("blobs").stat().st_mode) == 0o700


def test_another_process_reads_what_this_one_wrote_and_the_reverse(cache, directory):
    cache.set("ours", b"from the parent")
    code = f"""
    import framecache
    with framecache.Cache("file://{directory}") as cache:
        print(cache.get("ours").decode())
        cache.set("theirs", b"from the child" * 10_000)
    """
    assert run(code) == "from the parent\n"
    assert cache.get("theirs") == b"from the child" * 10_000


def test_a_forked_child_reads_and_writes(cache):
    cache.set("before", b"fork" * 50_000)
    view = cache.get("before", views=True)
    child = os.fork()
    if child == 0:
        right = bytes(view) == b"fork" * 50_000 and cache.get("before") == b"fork" * 50_000
        cache.set("after", b"child")
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get("after") == b"child"


def test_readers_see_whole_values_while_writers_replace_them(cache, directory):
    code = f"""
    import framecache
    cache = framecache.Cache("file://{directory}")
    for turn in range(300):
        cache.set("value", bytes([turn % 256]) * (1000 + turn * 1000))
    """
    writers = [subprocess.Popen([sys.executable, "-c", code.replace("\n    ", "\n")]) for _ in range(2)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        value = cache.get("value")
        if value is not None:
            assert len(set(value)) == 1
            assert len(value) % 1000 == 0
            seen += 1
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen
    assert set(cache.stats()) <= {"hit", "absent"}


def test_a_file_that_cannot_be_written_is_a_store_error(directory):
    cache = Cache(f"file://{directory}", on_error="raise")
    cache.set("kept", b"old" * 10_000)
    shutil.rmtree(directory)
    with pytest.raises(StoreError) as caught:
        cache.set("value", b"x" * 10_000)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno
    assert str(directory) in str(caught.value)
    assert cache.get("kept") is None


def test_a_full_disk_is_a_store_error_and_keeps_the_old_value(directory):
    code = f"""
    import framecache, resource, signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = framecache.Cache("file://{directory}", on_error="raise")
    cache.set("value", b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    try:
        cache.set("value", bytes(2 << 20))
    except framecache.StoreError as error:
        print(error.errno, cache.get("value"))
    """
    assert run(code) == "27 b'old'\n"
    assert blobs_of(directory) == []


def needs_root():
    if os.geteuid() != 0:
        skip_or_fail("only root can make files of two users")


PERMISSIONS = {
    "another user's directory": ("os.chmod(path, 0o777)", "owned by user"),
    "a directory open to others": ("os.chown(path, user, user); os.chmod(path, 0o755)", "closed to group and others"),
    "a directory open to its group": (
        "os.chown(path, user, user); os.chmod(path, 0o710)",
        "closed to group and others",
    ),
    "a symbolic link": (
        "os.chown(path, user, user); os.rename(path, path + '2'); os.symlink(path + '2', path)",
        "symbolic link",
    ),
    "a file": ("os.rmdir(path); open(path, 'w').close()", "a directory"),
    "nothing wrong": ("os.chown(path, user, user)", "stored"),
}


@pytest.mark.parametrize("case", PERMISSIONS)
def test_an_unprivileged_user_gets_only_a_directory_of_its_own(case):
    needs_root()
    prepare, expected = PERMISSIONS[case]
    code = f"""
    import os, shutil, tempfile
    base = tempfile.mkdtemp(dir="/tmp")
    user, path = {NOBODY}, base + "/cache"
    os.chmod(base, 0o755)
    os.mkdir(path, 0o700)
    {prepare}
    import urllib.parse, framecache, traceback
    if os.fork() == 0:
        os.setgroups([]); os.setgid(user); os.setuid(user)
        try:
            with framecache.Cache("file://" + path) as cache:
                cache.set("k", b"v")
                print("stored" if cache.get("k") == b"v" else "lost", flush=True)
        except framecache.StoreError as error:
            print(error, flush=True)
        os._exit(0)
    os.wait()
    shutil.rmtree(base)
    """
    assert expected in run(code)


def test_an_entry_of_another_user_is_a_miss():
    needs_root()
    code = f"""
    import os, shutil, tempfile, urllib.parse, logging, traceback, framecache
    path = tempfile.mkdtemp(dir="/tmp")
    os.chown(path, {NOBODY}, {NOBODY})
    if os.fork() == 0:
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        with framecache.Cache("file://" + path) as cache:
            cache.set("k", b"v" * 10_000)
        os._exit(0)
    os.wait()
    (entry,) = os.scandir(path + "/blobs")
    os.chown(entry.path, 0, 0)
    os.chmod(entry.path, 0o644)
    if os.fork() == 0:
        os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
        with framecache.Cache("file://" + path) as cache:
            print(cache.get("k"), cache.stats(), flush=True)
        os._exit(0)
    os.wait()
    shutil.rmtree(path)
    """
    assert run(code) == "None {'error': 1, 'unreadable': 1}\n"


def test_other_values_come_back_with_their_types(cache):
    array = np.arange(10_000.0).reshape(100, 100)
    value = {1: (2, {3}), "at": datetime(2024, 1, 2, tzinfo=timezone.utc), "array": array, None: b"x"}
    cache.set("value", value)
    found = cache.get("value")
    assert {key: found[key] for key in found if key != "array"} == {key: value[key] for key in value if key != "array"}
    assert type(found[1]) is tuple
    assert type(found[1][1]) is set
    np.testing.assert_array_equal(found["array"], array)
    assert found["array"].flags.writeable


def test_a_large_array_is_a_view_of_the_mapped_file(cache, tmp_path):
    array = np.arange(1_000_000.0)
    cache.set("array", array)
    view = cache.get("array", views=True, require_zero_copy=True)
    np.testing.assert_array_equal(view, array)
    assert not view.flags.writeable
    assert view.ctypes.data % 64 == 0
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in mapped]
    assert any(start <= view.ctypes.data and view.ctypes.data + view.nbytes <= end for start, end in ranges)
    with pytest.raises(CopyRequired, match="views=True"):
        cache.get("array", require_zero_copy=True)


def test_an_entry_of_a_class_that_is_not_registered_is_a_miss_that_says_how(cache, caplog):
    pair = collections.namedtuple("pair", "x y")
    cache.set("pair", pair(1, 2))
    assert cache.get("pair", "missed") == "missed"
    assert "framecache.register" in caplog.text
    assert cache.stats() == {"undecodable": 1}
    register(pair)
    found = cache.get("pair")
    assert type(found) is pair
    assert found == (1, 2)
