"""Which directories are opened, as what, and which are refused."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from framecache import Cache, FramecacheError, InvalidArgument, StoreError
from support import run

BLOB = bytes(range(256)) * 100


def stamp_of(directory):
    lines = (directory / "stamp").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def restamp(directory, **changes):
    """Change lines of the stamp of a store that nobody has open."""
    stamp = stamp_of(directory) | {name: str(value) for name, value in changes.items()}
    (directory / "stamp").write_text("".join(f"{name} {value}\n" for name, value in stamp.items()))


def made(directory, **settings):
    """A closed store with an entry in the index and one in a file."""
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    with Cache(f"file://{directory}?{query}") as cache:
        cache.set("inline", b"value")
        cache.set("blob", BLOB)
    return f"file://{directory}"


def is_kept(url):
    with Cache(url) as cache:
        assert cache.get_many(["inline", "blob"]) in ({"inline": b"value", "blob": BLOB}, {})
        kept = cache.get("inline") is not None
        assert cache.verify()["orphans"] == 0
        assert len([*Path(url.removeprefix("file://"), "blobs").iterdir()]) == (1 if kept else 0)
        assert cache.set("inline", b"again")
        return kept


def test_a_stamp_says_what_a_store_is(directory):
    made(directory)
    stamp = stamp_of(directory)
    assert [*stamp] == ["framecache", "format", "boot", "namespace", "map", "index", "durability", "starts"]
    assert stamp["format"] == "2"
    assert stamp["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert stamp["namespace"] == str(os.stat("/proc/self/ns/pid").st_ino)
    assert (stamp["index"], stamp["durability"], stamp["starts"]) == ("pwrite", "process", "0")
    assert int(stamp["map"]) == 64 << 30


def test_a_store_is_kept_when_all_have_closed_it(directory):
    assert is_kept(made(directory))


def test_after_another_start_of_the_machine_only_what_is_durable_is_kept(tmp_path):
    for durability, kept in [("process", False), ("power", True)]:
        directory = tmp_path / durability
        url = made(directory, durability=durability)
        restamp(directory, boot="00000000-0000-0000-0000-000000000000")
        assert is_kept(url) is kept
        assert stamp_of(directory)["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert stamp_of(directory)["durability"] == durability


def test_a_store_that_was_twice_opened_without_success_is_emptied(directory):
    url = made(directory)
    restamp(directory, starts=1)
    assert is_kept(url)
    url = made(directory)
    restamp(directory, starts=2)
    assert not is_kept(url)
    assert stamp_of(directory)["starts"] == "0"


def test_a_store_of_another_pid_namespace_is_adopted_if_nobody_uses_it(directory):
    url = made(directory)
    restamp(directory, namespace=1)
    assert is_kept(url)
    assert stamp_of(directory)["namespace"] == str(os.stat("/proc/self/ns/pid").st_ino)


@pytest.mark.parametrize("change", [{"namespace": 1}, {"boot": "00000000-0000-0000-0000-000000000000"}])
def test_a_store_in_use_from_another_pid_namespace_is_refused(directory, change):
    url = made(directory)
    restamp(directory, **change)
    code = f"""
import fcntl
stamp = open("{directory}/stamp")
fcntl.flock(stamp, fcntl.LOCK_SH)
print("locked", flush=True)
input()
"""
    user = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert user.stdout.readline() == "locked\n"
        for mode in ("rw", "ro"):
            with pytest.raises(StoreError, match="in use from another"):
                Cache(f"{url}?mode={mode}")
    finally:
        user.communicate("\n")
    assert is_kept(url) is ("namespace" in change)


def test_a_store_of_a_newer_format_is_refused_and_left_alone(directory):
    url = made(directory)
    restamp(directory, format=3)
    before = sorted(directory.rglob("*"))
    for mode in ("rw", "ro"):
        with pytest.raises(StoreError, match="expected a store of format 2, or an older one, found format 3"):
            Cache(f"{url}?mode={mode}")
    assert sorted(directory.rglob("*")) == before
    restamp(directory, format=2)
    assert is_kept(url)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("something else\n", "begins with 'framecache store'"),
        ("framecache store\nformat two\n", "a number in the stamp"),
        ("framecache store\nformat 2\n", "a complete stamp"),
        ("\0" * 100, "begins with 'framecache store'"),
        ("framecache store\n" * 1000, "a complete stamp"),
    ],
)
def test_a_stamp_that_is_none_is_refused(directory, text, reason):
    url = made(directory)
    (directory / "stamp").write_text(text)
    with pytest.raises(StoreError, match=reason):
        Cache(url)
    assert len([*(directory / "blobs").iterdir()]) == 1


def test_an_empty_stamp_is_that_of_a_store_that_was_never_opened(directory):
    url = made(directory)
    (directory / "stamp").write_text("")
    assert not is_kept(url)


@pytest.mark.parametrize(
    "name", ["notes.txt", "index", "blobs/precious", "marks", "0" * 63, ".hidden", "blobs/" + "0" * 32]
)
def test_a_directory_of_something_else_is_refused_and_left_alone(directory, name):
    file = directory / name
    file.parent.mkdir(parents=True)
    directory.chmod(0o700)
    file.write_text("precious")
    with pytest.raises(StoreError, match="with other files"):
        Cache(f"file://{directory}")
    assert file.read_text() == "precious"
    assert [path for path in directory.rglob("*") if path.is_file()] == [file]


def test_the_blobs_of_format_1_make_place(directory):
    directory.mkdir(mode=0o700)
    for number in range(100):
        (directory / f"{number:064x}").write_bytes(b"old")
    (directory / ".tmp-12-0-abc").write_bytes(b"old")
    with Cache(f"file://{directory}") as cache:
        assert cache.set("key", BLOB)
        assert cache.get("key") == BLOB
    assert sorted(path.name for path in directory.iterdir()) == [
        "blobs", "epochs", "index", "index-lock", "marks", "spare", "stamp", "writer.lock",
    ]  # fmt: skip


@pytest.mark.parametrize("settings", ["index=writemap", "durability=power", "index=writemap&durability=power"])
def test_settings_other_than_those_it_was_made_with_are_refused(directory, settings):
    url = made(directory)
    with pytest.raises(StoreError, match="as the store was made with"):
        Cache(f"{url}?{settings}")
    with Cache(url), pytest.raises(StoreError, match="as the store was made with"):
        Cache(f"{url}?{settings}")
    assert is_kept(f"{url}")


@pytest.mark.parametrize("index", ["pwrite", "writemap"])
@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_store_is_opened_as_it_was_made_where_nothing_else_is_asked_for(directory, index, durability):
    url = made(directory, index=index, durability=durability, index_bytes="1MiB")
    assert (stamp_of(directory)["index"], stamp_of(directory)["durability"]) == (index, durability)
    assert is_kept(url)
    if index == "writemap":
        file = (directory / "index").stat()
        assert file.st_size >= 1 << 20
        assert file.st_blocks * 512 >= 1 << 20
        assert int(stamp_of(directory)["map"]) == file.st_size


def test_a_preallocated_index_stays_as_large_as_it_was_made_and_grows_to_what_is_asked_for(directory):
    url = made(directory, index="writemap", index_bytes="1MiB")
    for query, size in [("", 1), ("?index=writemap", 1), ("?index_bytes=256KiB", 1), ("?index_bytes=2MiB", 2), ("", 2)]:
        with Cache(url + query) as cache:
            assert cache.get("inline") == b"value"
            cache.set("other", b"value")
            blocks = (directory / "index").stat().st_blocks * 512
        assert int(stamp_of(directory)["map"]) == size << 20
        assert size << 20 <= blocks < (size << 20) + 65536, query


@pytest.mark.parametrize(
    "query",
    ["max_bytes=262143", "max_bytes=0", "max_bytes=65TiB", "index_bytes=1KiB", "index_bytes=2TiB", "max_bytes=-1",
     "max_bytes=1GiB&max_bytes=1GiB", "writer_timeout=-1", "mode=w", "verify=none", "size=1"],
)  # fmt: skip
def test_settings_out_of_range_are_refused(directory, query):
    with pytest.raises(InvalidArgument):
        Cache(f"file://{directory}?{query}")


def test_a_larger_bound_than_the_index_was_made_for_is_refused_while_it_is_in_use_and_else_taken(directory):
    url = made(directory)
    with Cache(url):
        with pytest.raises(StoreError, match="max_bytes of at most"):
            Cache(f"{url}?max_bytes=100GiB")
        code = f"""
            from framecache import Cache, StoreError
            try:
                Cache("{url}?max_bytes=100GiB")
            except StoreError as error:
                print("refused", "max_bytes of at most" in str(error))
        """
        assert run(code) == "refused True\n"
    with Cache(f"{url}?max_bytes=100GiB") as cache:
        assert cache.get("inline") == b"value"
        assert cache.usage()["max_bytes"] == 100 << 30
    assert int(stamp_of(directory)["map"]) == 200 << 30


def refuses_writing(cache):
    for write in (
        lambda: cache.set("inline", b"new"),
        lambda: cache.set("new", BLOB),
        lambda: cache.delete("inline"),
        lambda: cache.touch("inline", 5),
        lambda: cache.invalidate_tags("tag"),
        cache.clear,
    ):
        with pytest.raises(StoreError, match="read-only"):
            write()


def test_what_is_opened_read_only_is_only_read(directory):
    url = made(directory)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "index-lock"}
    code = f"""
        import pytest, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_store_directory as tests
        from framecache import Cache, StoreError
        with Cache("{url}?mode=ro") as cache:
            assert cache.get("inline") == b"value" and cache.get("blob") == tests.BLOB
            assert sorted(cache.keys()) == ["blob", "inline"] and "blob" in cache
            assert cache.usage()["blobs"] == 1 and cache.verify()["whole"] == 2
            tests.refuses_writing(cache)
            with pytest.raises(StoreError, match="read-only"):
                Cache("{url}")
        with Cache("{url}") as cache:
            assert cache.touch("blob", 5)
    """
    run(code)
    assert is_kept(url)
    assert before.keys() == {path for path in before if path.exists()}


def test_a_read_only_cache_beside_one_that_writes_is_read_only_too(directory):
    url = made(directory)
    with Cache(url) as cache, Cache(f"{url}?mode=ro") as reader:
        refuses_writing(reader)
        cache.set("inline", b"new")
        assert reader.get("inline") == b"new"
        blob = next((directory / "blobs").iterdir())
        os.truncate(blob, 10)
        assert reader.get("blob") is None
        assert reader.verify()["damaged"] == 1
        assert blob.exists()


def test_after_another_start_of_the_machine_only_what_is_durable_is_read(tmp_path):
    for durability in ("power", "process"):
        url = made(tmp_path / durability, durability=durability)
        restamp(tmp_path / durability, boot="another")
        before = (tmp_path / durability / "stamp").read_bytes()
        if durability == "power":
            with Cache(url + "?mode=ro") as cache, Cache(url + "?mode=ro") as other:
                assert cache.get("inline") == other.get("inline") == b"value"
        else:
            with pytest.raises(StoreError, match="nobody knows what reached the disk; open it for writing"):
                Cache(url + "?mode=ro")
        assert (tmp_path / durability / "stamp").read_bytes() == before
        assert is_kept(url) == (durability == "power")


def test_a_store_of_another_pid_namespace_is_not_read_before_it_is_taken_over(directory):
    url = made(directory)
    restamp(directory, namespace=1)
    with pytest.raises(StoreError, match="open it for writing first, which takes it over"):
        Cache(url + "?mode=ro")
    assert is_kept(url)
    with Cache(url + "?mode=ro") as cache:
        assert cache.get("inline") == b"again"


def test_an_error_of_the_index_alone_has_no_number_of_the_system(directory):
    url = made(directory)
    (directory / "index").write_bytes(b"no index" * 2000)
    with pytest.raises(StoreError, match="MDB_INVALID") as caught:
        Cache(url)
    assert caught.value.errno is None
    assert "Errno" not in str(caught.value)


def test_a_read_only_cache_makes_nothing(directory):
    with pytest.raises(FramecacheError):
        Cache(f"file://{directory}?mode=ro")
    assert not directory.exists()
    directory.mkdir(mode=0o700)
    with pytest.raises(StoreError, match="without a stamp"):
        Cache(f"file://{directory}?mode=ro")
    assert not [*directory.iterdir()]


def test_a_directory_removed_under_an_open_store(directory):
    url = f"file://{directory}"
    cache = Cache(url)
    cache.set("inline", b"value")
    cache.set("blob", BLOB * 10)
    view = cache.get("blob", views=True)
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    directory.rmdir()
    assert view == BLOB * 10
    assert cache.get("inline") == b"value"
    with pytest.raises(StoreError) as caught:
        cache.set("other", BLOB)
    assert isinstance(caught.value, OSError)
    del view
    assert cache.get("blob") is None
    # Who opens the path has a new store.
    with Cache(url) as other:
        assert other.get("inline") is None
        assert other.set("blob", BLOB)
        assert other.get("blob") == BLOB
        assert cache.get("blob") is None


def test_two_who_make_a_store_at_once_have_one_store(directory):
    code = f"""
import sys
from framecache import Cache
print("ready", flush=True)
input()
cache = Cache("file://{directory}")
cache.set(sys.argv[1], b"value")
print("set", flush=True)
input()
"""
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(6)
    ]
    for maker in makers:
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        maker.stdin.write("\n")
        maker.stdin.flush()
    for maker in makers:
        assert maker.stdout.readline() == "set\n"
    with Cache(f"file://{directory}") as cache:
        assert sorted(cache.keys()) == [str(number) for number in range(6)]
    for maker in makers:
        maker.communicate("\n")
        assert maker.returncode == 0
    with (directory / "stamp").open() as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it open any more
