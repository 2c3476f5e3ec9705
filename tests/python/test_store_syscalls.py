"""Killed before each of its system calls, or answered by an error, a write is done or not, and leaves nothing."""

import ctypes
import errno
import fcntl
import os
import platform
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from pathlib import Path

import pytest

from framecache import Cache, StoreBusy, StoreError
from framecache._times import SystemClock, now_by
from support import run, skip_or_fail

INLINE, LOADED, MAPPED = 500, 20_000, 100_000


@pytest.fixture
def directory(tmp_path):
    """On a file system in memory where there is one: what is durable is written hundreds of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path / "cache"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as outer:
        yield Path(outer, "cache")


def url_of(directory, **settings):
    query = "&".join(f"{name}={value}" for name, value in settings.items())
    return f"file://{directory}" + ("?" + query if query else "")


def pattern(length, seed=0):
    return bytes((at * 7 + seed) % 251 for at in range(length))


def files_of(directory):
    return {file.name: file.stat().st_size for file in (directory / "blobs").iterdir()}


def check_nothing_leaks(cache, directory):
    """After a verify there is one file per linked blob and no other, and nothing is damaged."""
    assert cache.verify()["damaged"] == 0
    files, usage = files_of(directory), cache.usage()
    assert (len(files), sum(files.values())) == (usage["blobs"], usage["blob_bytes"])
    assert usage["index_bytes"] + usage["blob_bytes"] + usage["reserved_bytes"] <= usage["max_bytes"]


_TRACEME, _CONT, _KILL, _SYSCALL, _DETACH, _PEEKUSER, _POKEUSER = 0, 7, 8, 24, 17, 3, 6
_OPTIONS, _GOOD, _EXITKILL = 0x4200, 1, 0x100000
_ORIG_RAX, _RAX, _RSI = 15 * 8, 10 * 8, 13 * 8
#: Operations of `flock`, not to wait.
_SHARED, _UNLOCK = fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_UN
#: Calls on files that a write makes, as x86-64 numbers them.
_CALLS = {
    **{0: "read", 1: "write", 5: "fstat", 17: "pread", 18: "pwrite", 20: "writev", 72: "fcntl", 73: "flock"},
    **{74: "fsync", 75: "fdatasync", 77: "ftruncate", 217: "getdents", 257: "openat", 258: "mkdirat", 262: "fstatat"},
    **{263: "unlinkat", 264: "renameat", 285: "fallocate", 296: "pwritev", 316: "renameat2", 318: "getrandom"},
    **{26: "msync", 110: "the end"},
}
#: A call that no store makes: what comes after it is left alone.
end = os.getppid


class Traced:
    """A forked child that runs `work`, stopped at each of its system calls; x86-64 only."""

    ptrace_of_libc = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace_of_libc.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ptrace_of_libc.restype = ctypes.c_long

    def __init__(self, work):
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.ptrace(_TRACEME)
                os.kill(os.getpid(), signal.SIGSTOP)
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.waitpid(self.pid, 0)
        self.begun = False  # whether it is at the beginning of a call
        self.ptrace(_OPTIONS, 0, _GOOD | _EXITKILL)

    def ptrace(self, request, address=0, data=0):
        found = Traced.ptrace_of_libc(request, getattr(self, "pid", 0), address, data)
        assert found != -1 or request == _PEEKUSER, os.strerror(ctypes.get_errno())
        return found

    def next_stop(self):
        """Go on to where a system call begins or ends; false at the end of the process."""
        signalled = 0
        while True:
            self.ptrace(_SYSCALL, 0, signalled)
            _, status = os.waitpid(self.pid, 0)
            if not os.WIFSTOPPED(status):
                self.status = os.waitstatus_to_exitcode(status)
                return False
            if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80:
                return True
            signalled = os.WSTOPSIG(status)

    def next_call(self):
        """Go on to the beginning of the next system call on files; its name, or `None` at its end."""
        while (not self.begun or self.next_stop()) and self.next_stop():
            self.begun = True
            name = _CALLS.get(self.ptrace(_PEEKUSER, _ORIG_RAX))
            if name == "the end":
                self.detach()
                return None
            if name is not None:
                return name
        return None

    def go_to_call(self, number):
        """Go on to the beginning of the call with that number, from 0; the names of all up to it, `None` at its end."""
        names = []
        for _ in range(number + 1):
            names.append(self.next_call())
            if names[-1] is None:
                assert self.status == 0
                return None
        return names

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        while os.WIFSTOPPED(os.waitpid(self.pid, 0)[1]):
            pass

    def fail_call(self, number):
        """Let the call that begins do nothing and answer with an error."""
        self.ptrace(_POKEUSER, _ORIG_RAX, 2**64 - 1)
        assert self.next_stop()
        self.ptrace(_POKEUSER, _RAX, 2**64 - number)

    def detach(self):
        """Let it run to its end."""
        self.ptrace(_DETACH)
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def alone(function, *arguments):
    """Run a function of this module in an interpreter that has no other threads, since it forks."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        skip_or_fail("system calls are told apart by their numbers on x86-64")
    here = str(Path(__file__).parent)
    start = f"import sys; sys.path.insert(0, {here!r}); import {__name__} as tests\n"
    return run(f"{start}tests.{function}(*{arguments!r})")


OPERATIONS = {
    "replace inline": lambda cache: cache.set("inline", pattern(INLINE, 1)),
    "replace a blob": lambda cache: cache.set("loaded", pattern(LOADED, 1), ttl=1000, tags=["a", "b"]),
    "replace a blob by inline": lambda cache: cache.set("mapped", pattern(INLINE, 1)),
    "a new one": lambda cache: cache.set("new", pattern(LOADED, 1)),
    "touch": lambda cache: cache.touch("loaded", 10),
    "delete": lambda cache: cache.delete_many(["inline", "mapped"]),
    "invalidate": lambda cache: cache.invalidate_tags("tag"),
    "clear": lambda cache: cache.clear(),
}
OLD = {"inline": pattern(INLINE), "loaded": pattern(LOADED), "mapped": pattern(MAPPED)}
KEYS = [*OLD, "new"]


def fill(cache):
    cache.set("inline", OLD["inline"], tags=["tag"])
    cache.set("loaded", OLD["loaded"], ttl=100_000, tags=["tag"])
    cache.set("mapped", OLD["mapped"], tags=["tag"])
    cache.delete("new")


def contents(cache):
    """What is served, and for how long: not at all, for ever, or for less than a day or not."""
    found = {}
    for key in KEYS:
        now = now_by(SystemClock)
        deadline = (cache._tiers.store.entry(key, now) or [None] * 3)[2]
        found[key] = cache.get(key), deadline and deadline - now < 86_400_000
    return found


def fences(cache):
    """Guards of what each key had, as numbers: place and count of its name, the namespace and its tags."""
    tags = {"inline": ["tag"], "loaded": ["tag", "a", "b"], "mapped": ["tag"], "new": []}
    return {
        key: struct.unpack("<" + "HI" * (2 + len(tags[key])), cache._tiers.store.fence(key, tags[key])) for key in KEYS
    }


def check_guards(cache, taken, before, after):
    """What changed has no guards that hold, and none is left odd, which would never hold."""
    now = fences(cache)
    assert all(count % 2 == 0 for fence in now.values() for count in fence[1::2])
    for key in KEYS:
        if before[key] != after[key]:
            assert now[key] != taken[key], f"a copy of {key!r} would be served on"


def shown(found):
    """Which of the known values `found` are."""
    return {key: (value and (len(value), value[0]), soon) for key, (value, soon) in found.items()}


def results_of(operation, url):
    """What is served before and after `operation`."""
    cache = Cache(url)
    fill(cache)
    old = contents(cache)
    OPERATIONS[operation](cache)
    return old, contents(cache)


def killed_at_every_call(operation, path, settings):
    url = url_of(path, **settings)
    old, new = results_of(operation, url)
    cache = Cache(url)

    def work():
        OPERATIONS[operation](Cache(url))
        end()

    count, outcomes = 0, []
    while True:
        fill(cache)
        taken = fences(cache)
        child = Traced(work)
        calls = child.go_to_call(count)
        if calls is None:
            break
        count += 1
        child.kill()
        found = contents(cache)
        assert found in (old, new), f"killed before {calls[-1]}, call {count} of {calls}: {shown(found)}"
        check_guards(cache, taken, old, found)
        outcomes.append(found == new)
        check_nothing_leaks(cache, Path(path))
    assert contents(cache) == new
    # Most calls come before the one that makes it visible.
    assert outcomes.count(False) > count / 2
    assert cache.usage()["damaged"] == 0
    print(count)


@pytest.mark.parametrize(
    ("operation", "settings"),
    [
        *((operation, {}) for operation in OPERATIONS),
        ("replace a blob", {"durability": "power"}),
        ("delete", {"durability": "power"}),
        ("replace a blob", {"index": "writemap"}),
        ("delete", {"index": "writemap"}),
    ],
    ids=str,
)
def test_killed_at_any_system_call_all_is_as_before_or_after(directory, operation, settings):
    calls = int(alone("killed_at_every_call", operation, str(directory), settings))
    assert calls > 4


def failed_at_every_call(operation, path, settings):
    url = url_of(path, **settings)
    old, new = results_of(operation, url)
    cache = Cache(url)

    def work():
        inner = None
        try:
            inner = Cache(url)
            OPERATIONS[operation](inner)
            expected = [new]
            if inner.stats().get("dropped"):
                expected.append(old)
        except StoreBusy:
            expected = [old]
        except StoreError as error:
            expected = [old]
            if "MDB_PANIC" in str(error):
                raise
            if inner is not None:
                # Who has it open goes on with it, whatever failed.
                assert inner._tiers.store.contains("key", 0) is False
        end()
        inner = inner or Cache(url)
        found = contents(inner)
        assert found in expected, f"{shown(found)} instead of {shown(expected[0])}"
        assert inner.set("again", pattern(LOADED, 2))
        assert inner.usage()["reserved_bytes"] == 0

    count = 0
    while True:
        fill(cache)
        taken = fences(cache)
        child = Traced(work)
        calls = child.go_to_call(count)
        if calls is None:
            break
        count += 1
        child.fail_call((errno.ENOSPC, errno.EIO)[count % 2])
        child.detach()
        assert child.status == 0, f"an error of {calls[-1]}, call {count} of {calls}"
        check_guards(cache, taken, old, contents(cache))
        check_nothing_leaks(cache, Path(path))
    print(count)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_error_of_any_system_call_changes_nothing_or_nobody_sees_it(directory, operation):
    calls = int(alone("failed_at_every_call", operation, str(directory), {}))
    assert calls > 10


def killed_while_it_is_made(path, settings):
    directory, count = Path(path), 0
    while True:
        shutil.rmtree(directory, ignore_errors=True)
        child = Traced(lambda: Cache(url_of(path, **settings)))
        calls = child.go_to_call(count)
        if calls is None:
            break
        count += 1
        child.kill()
        with Cache(url_of(path, **settings)) as cache:
            assert cache.get("key") is None
            assert cache.set("key", pattern(MAPPED)), calls
            assert cache.get("key") == pattern(MAPPED)
        with Cache(url_of(path, **settings)) as cache:
            assert cache.get("key") == pattern(MAPPED)
            check_nothing_leaks(cache, directory)
    print(count)


@pytest.mark.parametrize("settings", [{}, {"index": "writemap", "index_bytes": "256KiB"}], ids=str)
def test_killed_at_any_system_call_of_its_making_a_store_can_be_opened(directory, settings):
    assert int(alone("killed_while_it_is_made", str(directory), settings)) > 10


def opened_between_two_locks(path):
    """While one process turns its exclusive lock on the stamp into a shared one, it has none: another comes in."""
    directory = Path(path)
    url = url_of(path)

    def size_of_map():
        lines = (line.split() for line in Path("/proc/self/maps").read_text().splitlines())
        spans = [line[0].split("-") for line in lines if line[-1] == f"{path}/index"]
        return sum(int(end, 16) - int(start, 16) for start, end in spans)

    def work():
        cache = Cache(url)
        # What the stamp says now, and what others were refused for if they had a larger one.
        mapped = int(directory.joinpath("stamp").read_text().splitlines()[4].split()[1])
        assert size_of_map() == mapped == 200 << 30, size_of_map()
        assert cache.get("key") == b"value"
        end()

    child = Traced(work)
    while child.next_call() != "flock" or child.ptrace(_PEEKUSER, _RSI) != _SHARED:
        pass
    child.ptrace(_POKEUSER, _RSI, _UNLOCK)
    while child.next_call() != "pread":
        pass
    other = Cache(f"{url}?max_bytes=100GiB")
    assert other.set("key", b"value")
    child.detach()
    assert child.status == 0
    with pytest.raises(BlockingIOError), directory.joinpath("stamp").open("rb") as stamp:
        fcntl.flock(stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_who_is_not_alone_any_more_when_it_lets_others_in_begins_anew(directory):
    alone("opened_between_two_locks", str(directory))
