"""Disks that are full, too small or not writable, and an index that has no page left."""

import shutil
import subprocess
import sys
import textwrap

import pytest

from framecache import Cache, ValueTooLarge
from support import run


def pattern(length, seed=0):
    return bytes((at * 7 + seed) % 251 for at in range(length))


def in_use(cache):
    usage = cache.usage()
    return usage["index_bytes"] + usage["blob_bytes"] + usage["reserved_bytes"]


def mounted(setup, code):
    """Run `code` where `setup`, shell commands, mounted what only this child sees; what it prints."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode != 0:
        # A container may forbid it, on CI too.
        pytest.skip("a mount namespace needs unshare(1) and the right to make user namespaces")
    script = f'set -e; {setup}; exec {sys.executable} -X faulthandler -c "$0"'
    code = "from framecache import Cache, StoreError\nimport framecache, os, signal\n" + textwrap.dedent(code)
    child = subprocess.run(
        [unshare, "-rm", "sh", "-c", script, code], capture_output=True, text=True, timeout=120, check=False
    )
    if child.returncode != 0:
        pytest.fail(f"the child ended with {child.returncode}:\n{child.stdout}{child.stderr}", pytrace=False)
    return child.stdout


def test_a_full_disk_is_an_error_and_what_is_stored_stays(tmp_path):
    code = f"""
        directory = "{tmp_path}/cache"
        cache = Cache("file://" + directory)
        cache.set("first", bytes(1000)); cache.set("blob", b"x" * 300_000)
        stored, refused = 0, None
        for number in range(10_000):
            try:
                assert cache.set(f"key {{number}}", b"%d" % number + bytes(number % 7 * 10_000))
            except StoreError as error:
                refused = error
                break
            stored += 1
        assert refused is not None and refused.errno == 28, refused
        assert stored > 20, stored
        # Small ones find room longer than large ones.
        small = 0
        while True:
            try:
                assert cache.set(f"small {{small}}", b"x" * 3000)
            except StoreError as error:
                assert error.errno == 28
                break
            small += 1
        assert cache.get("first") == bytes(1000) and cache.get("blob") == b"x" * 300_000
        for number in range(stored):
            assert cache.get(f"key {{number}}") == b"%d" % number + bytes(number % 7 * 10_000), number
        assert cache.get(f"key {{stored}}") is None
        try:
            cache.set("first", b"y" * 300_000)
            raise SystemExit("stored on a full disk")
        except StoreError:
            assert cache.get("first") == bytes(1000)
        assert cache.usage()["reserved_bytes"] <= 600_000
        # What must not fail finds room, even if that costs entries.
        assert cache.touch("blob", 60)
        cache.invalidate_tags("tag", "another")
        assert cache.delete("first") and cache.get("first") is None
        cache.delete_many([f"key {{number}}" for number in range(stored)])
        assert not [key for key in cache.keys("key")]
        assert cache.set("first", b"y" * 300_000)
        assert cache.get("first") == b"y" * 300_000
        assert cache.verify()["damaged"] == 0
        usage = cache.usage()
        files = [os.path.getsize(f"{{directory}}/blobs/{{name}}") for name in os.listdir(directory + "/blobs")]
        assert (len(files), sum(files)) == (usage["blobs"], usage["blob_bytes"])
        assert usage["reserved_bytes"] == 0, usage
    """
    mounted(f"mount -t tmpfs -o size=8m,mode=700 tmpfs {tmp_path}; head -c 200000 /dev/zero > {tmp_path}/filler", code)


@pytest.mark.parametrize(
    "change",
    [
        'cache.delete_many([f"key {number}" for number in range(0, stored, 2)])',
        'cache.invalidate_tags("even")',
        "cache.clear()",
        'cache.touch("key 0", 1000)',
    ],
)
def test_on_a_disk_filled_by_others_what_is_stale_can_be_removed(tmp_path, change):
    code = f"""
        cache, stored = Cache("file://{tmp_path}/cache"), 0
        while stored < 2000:
            cache.set(f"key {{stored}}", b"x" * 500, ttl=1000 + stored, tags=["odd" if stored % 2 else "even"])
            stored += 1
        with open("{tmp_path}/filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError as error:
                assert error.errno == 28
        def fill():
            for number in range(10_000):
                cache.set(f"more {{number}}", b"x" * 500, ttl=number + 1)
        for attempt in range(2):
            # The second time the spare room is given up already, and sets evict rather than take the last free pages.
            try:
                fill()
                assert attempt > 0, "the disk is not full"
            except StoreError as error:
                assert error.errno == 28
            {change}
            if attempt == 0:
                print(sum(cache.get(f"key {{number}}") is not None for number in range(1, stored, 2)))
        left = sum(cache.get(f"key {{number}}") is not None for number in range(0, stored, 2))
        assert left == 0 or "touch" in {change!r}
        os.unlink("{tmp_path}/filler")
        assert cache.set("new", b"value") and cache.get("new") == b"value"
        assert os.stat("{tmp_path}/cache/spare").st_blocks == 512
        assert cache.verify()["damaged"] == 0
    """
    kept = int(mounted(f"mount -t tmpfs -o size=8m,mode=700 tmpfs {tmp_path}", code))
    # Little is evicted for a little change.
    assert kept == (0 if "clear" in change else 1000) or ("delete_many" in change and kept > 200), kept


def test_readers_of_a_full_disk_are_not_killed(tmp_path):
    # Each process takes a slot in the table of readers, a file that grows where it is touched.
    code = f"""
        cache = Cache("file://{tmp_path}/cache")
        cache.set("key", b"value")
        filler = os.open("{tmp_path}/filler", os.O_CREAT | os.O_WRONLY, 0o600)
        size = 65536
        while size:
            try:
                written = os.write(filler, bytes(size))
                size = size if written == size else size // 2
            except OSError:
                size //= 2
        readers, start = [], os.pipe()
        ready, tell = os.pipe()
        for _ in range(150):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    os.close(start[1])
                    mine = Cache("file://{tmp_path}/cache?mode=ro")
                    status = 0 if mine.get("key") == b"value" else 2
                    os.write(tell, b"x")
                    os.close(tell)
                    os.read(start[0], 1)
                finally:
                    os._exit(status)
            readers.append(pid)
        os.close(tell)
        read = b""
        while len(read) < 150 and (more := os.read(ready, 150)):
            read += more
        os.close(start[1])
        print({{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in readers}})
    """
    assert mounted(f"mount -t tmpfs -o size=4m,mode=700 tmpfs {tmp_path}", code) == "{0}\n"


def test_a_preallocated_index_that_has_no_room_is_refused_before_it_is_used(tmp_path):
    code = f"""
        try:
            Cache("file://{tmp_path}/cache?index=writemap&index_bytes=64MiB")
        except StoreError as error:
            print(error.errno, "allocate" in str(error))
        try:
            cache = Cache("file://{tmp_path}/cache?index=writemap&index_bytes=1MiB")
            print(cache.set("key", b"value"))
        except StoreError as error:
            print(error)
    """
    assert mounted(f"mount -t tmpfs -o size=8m,mode=700 tmpfs {tmp_path}", code) == "28 True\nTrue\n"


def test_on_a_file_system_that_cannot_be_written_a_store_can_be_read(tmp_path):
    directory = tmp_path / "mount" / "cache"
    directory.parent.mkdir(mode=0o700)
    with Cache(f"file://{directory}") as cache:
        cache.set("key", b"value")
        cache.set("blob", b"x" * 100_000)
    code = f"""
        try:
            Cache("file://{directory}")
            raise SystemExit("opened to write")
        except StoreError as error:
            assert error.errno == 30, error
        cache = Cache("file://{directory}?mode=ro")
        assert cache.get("key") == b"value" and cache.get("blob") == b"x" * 100_000
        assert cache.get("none") is None and sorted(cache.keys()) == ["blob", "key"]
        assert cache.verify() == {{"whole": 2, "damaged": 0, "orphans": 0}}
        try:
            cache.set("key", b"new")
        except StoreError as error:
            print("read-only" in str(error))
    """
    mount = directory.parent
    assert mounted(f"mount --bind {mount} {mount}; mount -o remount,bind,ro {mount}", code) == "True\n"


@pytest.mark.parametrize("index", ["pwrite", "writemap"])
def test_files_that_may_not_grow_are_an_error_and_what_is_stored_stays(directory, index):
    code = f"""
        import os, resource
        from framecache import Cache, StoreError
        url = "file://{directory}?index={index}&index_bytes=1MiB"
        cache = Cache(url)
        cache.set("inline", b"old"); cache.set("blob", b"old" * 10_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))
        for key in ("inline", "blob", "new"):
            try:
                cache.set(key, bytes(2_000_000))
                raise SystemExit("stored")
            except StoreError as error:
                assert error.errno == 27, error
        assert cache.get("inline") == b"old" and cache.get("blob") == b"old" * 10_000 and cache.get("new") is None
        assert len(os.listdir("{directory}/blobs")) == 1
        stored, failed = 0, False
        for number in range(1000):
            try:
                stored += cache.set(f"key {{number}}", bytes(4000))
            except StoreError:
                failed = True
                break
        assert failed == ("{index}" == "pwrite"), stored
        assert stored > 100
        assert cache.get("inline") in (b"old", None if "{index}" == "writemap" else b"old")
        if failed:
            assert all(cache.get(f"key {{number}}") == bytes(4000) for number in range(stored))
        assert cache.usage()["reserved_bytes"] == 0 and cache.verify()["damaged"] == 0
    """
    run(code)


def test_a_small_preallocated_index_evicts_and_never_overflows(directory):
    cache = Cache(f"file://{directory}?index=writemap&index_bytes=256KiB&max_bytes=64MiB")
    length = (directory / "index").stat().st_size
    for number in range(1500):
        assert cache.set(f"key {number}", pattern(number % 8000, number), tags=["tag"] if number % 3 else []), number
        assert cache.get(f"key {number}") == pattern(number % 8000, number)
        assert cache.usage()["index_bytes"] <= length
    assert cache.usage()["evicted"] > 500
    assert cache.set("blob", bytes(5_000_000))
    assert (directory / "index").stat().st_size == length
    kept = {key: cache.get(key) for key in cache.keys("key")}
    assert len(kept) > 5
    for key, value in kept.items():
        number = int(key.split()[1])
        assert value == pattern(number % 8000, number)


def test_a_value_that_can_never_fit_is_refused_and_evicts_nothing(directory):
    cache = Cache(f"file://{directory}?max_bytes=1MiB")
    for number in range(10):
        cache.set(f"key {number}", bytes(20_000))
    with pytest.raises(ValueTooLarge):
        cache.set("key 0", bytes(1_100_000))
    assert len([*cache.keys("key")]) == 10
    assert cache.usage()["evicted"] == 0
    assert cache.set("key 0", bytes(900_000))
    assert in_use(cache) <= 1 << 20


@pytest.mark.parametrize("sizes", [(0, 100), (1000, 8000), (7900, 8300), (9000, 60_000), (10, 120_000)])
def test_the_bound_holds_after_every_write(directory, sizes):
    cache = Cache(f"file://{directory}?max_bytes=512KiB")
    start, end = sizes
    stored = 0
    for number in range(800):
        size = start + number * 7919 % (end - start)
        key = f"{number} " + "k" * (number % 50 * 20)
        stored += cache.set(key, bytes(size), ttl=[None, 100][number % 2], tags=[f"tag {number % 5}"])
        assert in_use(cache) <= 512 * 1024, number
        if number % 50 == 0:
            files = sum(file.stat().st_size for file in (directory / "blobs").iterdir())
            assert files == cache.usage()["blob_bytes"]
        assert cache.get(key) == bytes(size)
    assert stored == 800
    assert cache.usage()["evicted"] > 0


@pytest.mark.parametrize(
    "write",
    [
        lambda cache, number: cache.set(f"key {number % 10}", b"value", tags=[f"user {number}"]),
        lambda cache, number: cache.invalidate_tags(f"user {number}"),
        lambda cache, number: cache._tiers.store.lease(f"key {number}", 1, 1),
        lambda cache, number: cache.set(f"{number}", b"") if number < 3000 else cache.touch(f"{number - 3000}", 1000),
    ],
    ids=["tags", "invalidated tags", "leases", "touched"],
)
def test_what_belongs_to_entries_does_not_fill_the_store(directory, write):
    cache = Cache(f"file://{directory}?max_bytes=256KiB")
    for number in range(6000):
        write(cache, number)
    assert in_use(cache) <= 256 * 1024
    assert cache.set("key", b"value")
    assert cache.get("key") == b"value"
