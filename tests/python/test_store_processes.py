"""Many processes on one store: killed, stopped, evicting one another's entries, and never served anything wrong."""

import fcntl
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from contextlib import contextmanager
from multiprocessing.connection import wait

import pytest

from framecache import Cache, StoreBusy, StoreError
from support import run

#: How long the processes below are at it; minutes in long runs.
SECONDS = float(os.environ.get("FRAMECACHE_SOAK_SECONDS", "20"))
MAX_BYTES = 6 * 2**20
#: Keys that one process alone writes, and keys that all write.
OWN, SHARED = 6, 30


def value_of(key, version, rng):
    """A value that tells its key and version, and whether all of it is there: 50 bytes to 300 KB, small ones most."""
    body = rng.randbytes(int(10 ** rng.uniform(1, 5.47)))
    return b"%s|%d|%08x|" % (key.encode(), version, zlib.crc32(body)) + body


def version_in(key, value):
    """The version in a value of `key`; an AssertionError where it is not one."""
    stored, version, checksum, body = bytes(value).split(b"|", 3)
    assert stored.decode() == key, f"{stored!r} was served for {key!r}"
    assert zlib.crc32(body) == int(checksum, 16), f"{key!r} is damaged"
    return int(version)


class Worker:
    """One process: what it does at random, and what it knows must hold."""

    def __init__(self, url, slot, generation, seed):
        self.cache = Cache(url)
        self.rng = random.Random(seed)
        self.slot, self.version = slot, generation * 1_000_000
        self.known = {}  # of the own keys: the version stored, or None after a delete
        self.seen = {}  # of all keys that one process alone writes: the latest version that was read
        self.views = []
        self.operations = dict.fromkeys(["get", "hit", "set", "dropped", "delete", "busy", "full"], 0)

    def step(self):
        step = self.rng.choices(
            [self.read, self.read_many, self.write_own, self.write_shared, self.delete, self.hold],
            [30, 3, 10, 10, 3, 3],
        )[0]
        try:
            step()
        except StoreError as error:
            # A process that was stopped while it read keeps pages of a preallocated index from being used again.
            if "MDB_MAP_FULL" not in str(error):
                raise
            self.operations["full"] += 1

    def check(self, key, value):
        self.operations["get"] += 1
        if value is None:
            return
        self.operations["hit"] += 1
        version = version_in(key, value)
        if key.startswith("own"):
            assert version >= self.seen.get(key, 0), f"{key!r} went back to version {version} from {self.seen[key]}"
            self.seen[key] = version
        if key in self.known:
            assert version == self.known[key], f"{key!r} is version {version} instead of {self.known[key]}"

    def own_key(self, slot):
        return f"own-{slot}-{self.rng.randrange(OWN)}"

    def any_key(self):
        if self.rng.random() < 0.5:
            return self.own_key(self.rng.choice([self.slot, self.rng.randrange(8)]))
        return f"shared-{self.rng.randrange(SHARED)}"

    def read(self):
        key = self.any_key()
        self.check(key, self.cache.get(key))

    def read_many(self):
        keys = [self.any_key() for _ in range(10)]
        for key, value in self.cache.get_many(keys).items():
            self.check(key, value)

    def write_own(self):
        key = self.own_key(self.slot)
        self.version += 1
        if self.cache.set(key, value_of(key, self.version, self.rng), tags=[f"tag-{self.slot}"]):
            self.known[key] = self.version
            self.operations["set"] += 1
        else:
            self.operations["dropped"] += 1
        self.read()

    def write_shared(self):
        key = f"shared-{self.rng.randrange(SHARED)}"
        self.version += 1
        value = value_of(key, self.version, self.rng)
        ttl = self.rng.choice([None, None, 0.05, 1.0])
        if self.cache.set(key, value, ttl=ttl, tags=["shared"], if_absent=self.rng.random() < 0.2):
            self.operations["set"] += 1

    def delete(self):
        try:
            if self.rng.random() < 0.1:
                self.cache.invalidate_tags(f"tag-{self.slot}")
                self.known = dict.fromkeys(self.known)
            else:
                key = self.own_key(self.slot)
                self.cache.delete_many([key, f"shared-{self.rng.randrange(SHARED)}"])
                if key in self.known:
                    self.known[key] = None
            self.operations["delete"] += 1
        except StoreBusy:
            self.operations["busy"] += 1

    def hold(self):
        key = self.any_key()
        view = self.cache.get(key, views=True)
        if view is not None:
            self.views.append((key, view, version_in(key, view)))
        if len(self.views) > 20:
            for key, view, version in self.views:
                assert version_in(key, view) == version, f"a view of {key!r} changed"
            self.views.clear()


def work(pipe, url, slot, generation, seed):
    """Run a worker until the other end of `pipe` says something; then tell what it did."""
    worker = Worker(url, slot, generation, seed)
    pipe.send("ready")
    while not pipe.poll():
        for _ in range(20):
            worker.step()
    pipe.send(worker.operations)


class Crew:
    """Eight workers, of which some are killed and replaced, and some stopped for a while."""

    def __init__(self, url):
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([__name__])
        self.url, self.rng, self.generation = url, random.Random(0), 0
        self.workers = [self.start(slot) for slot in range(8)]
        self.killed = []
        self.stopped = None

    def start(self, slot):
        self.generation += 1
        pipe, inner = self.context.Pipe()
        args = (inner, self.url, slot, self.generation, self.generation)
        process = self.context.Process(target=work, args=args, daemon=True)
        process.start()
        inner.close()
        assert pipe.poll(60)
        assert pipe.recv() == "ready"
        return process, pipe

    def disturb(self):
        """Kill one of them, let the one that was stopped go on, stop another one."""
        self.resume()
        slot = self.rng.randrange(len(self.workers))
        process, pipe = self.workers[slot]
        process.kill()
        process.join()
        pipe.close()
        assert process.exitcode == -signal.SIGKILL, f"a worker ended with {process.exitcode} of its own"
        self.killed.append(process.pid)
        self.workers[slot] = self.start(slot)
        self.stopped = self.rng.choice(self.workers)[0]
        os.kill(self.stopped.pid, signal.SIGSTOP)

    def resume(self):
        if self.stopped is not None:
            os.kill(self.stopped.pid, signal.SIGCONT)
            self.stopped = None

    def finish(self):
        """Let all end; return what they did together."""
        self.resume()
        for _, pipe in self.workers:
            pipe.send("stop")
        done = [pipe.recv() if pipe.poll(60) else {} for _, pipe in self.workers]
        for process, _ in self.workers:
            process.join(60)
        assert [process.exitcode for process, _ in self.workers] == [0] * len(self.workers)
        return {name: sum(one[name] for one in done) for name in done[0]}

    def kill_all(self):
        for process, _ in self.workers:
            process.kill()


def in_use(usage):
    return usage["index_bytes"] + usage["blob_bytes"] + usage["reserved_bytes"]


def files_of(directory):
    return {file.name: file.stat().st_size for file in (directory / "blobs").iterdir()}


@pytest.mark.parametrize("index", ["pwrite", "writemap"])
def test_nothing_wrong_is_served_while_processes_are_killed(directory, index):
    url = f"file://{directory}?max_bytes={MAX_BYTES}&index={index}&index_bytes=4MiB"
    cache = Cache(url)
    crew = Crew(url)
    try:
        until = time.monotonic() + SECONDS / 2
        while time.monotonic() < until or len(crew.killed) < 5:
            pipes = [pipe for _, pipe in crew.workers]
            # A worker says nothing before it is asked, unless it found something wrong.
            assert not wait(pipes, 0.1), "a worker ended"
            assert in_use(cache.usage()) <= MAX_BYTES
            crew.disturb()
        done = crew.finish()
    finally:
        crew.kill_all()
    for operation in ("hit", "set", "delete"):
        assert done[operation] > 100, done

    # What killed writers had reserved is given back as soon as the room is needed.
    for number in range(200):
        assert cache.set(f"filler {number}", bytes(100_000))
    assert cache.usage()["evicted"] > 0
    usage = cache.usage()
    assert usage["reserved_bytes"] == 0
    assert in_use(usage) <= MAX_BYTES
    assert cache.verify()["damaged"] == 0
    again = cache.verify()
    assert (again["damaged"], again["orphans"]) == (0, 0)
    files = files_of(directory)
    assert not [name for name in files if len(name) != 32]
    assert (len(files), sum(files.values())) == (usage["blobs"], usage["blob_bytes"])
    # Every key that is left is served whole.
    keys = [key for key in cache.keys("") if not key.startswith("filler")]
    for key in keys:
        version_in(key, cache.get(key))
    cache.close()
    slots = reader_slots(directory, crew.killed)
    assert not slots & set(crew.killed)


#: Prints the processes that have a slot in LMDB's table of readers: blocks of 64 bytes with a process id at offset 8.
_SLOTS = """
import struct, sys
from pathlib import Path
from framecache import Cache
path = {path!r}
cache = Cache("file://" + path)
cache.get("key")
import os
blocks = Path("/proc/self/fd/{{}}".format(os.open(path + "/index-lock", os.O_RDONLY))).read_bytes()
print(os.getpid(), *{{struct.unpack_from("<I", blocks, at + 8)[0] for at in range(128, len(blocks) - 63, 64)}})
os._exit(0)  # reading the file gave up the locks of this process
"""


def reader_slots(directory, expected_dead):
    """The processes that still have reader slots, once a process opened the store that looks for dead ones."""
    this, *slots = map(int, run(_SLOTS.format(path=str(directory)) if expected_dead else "").split())
    assert this in slots, "the reader's own slot is where this test looks"
    return set(slots)


def child(code, **kwargs):
    """Start a program that talks through its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def test_slots_of_killed_readers_are_given_back(directory):
    cache = Cache(f"file://{directory}")
    cache.set("key", b"value")
    code = f"""
        from framecache import Cache
        cache = Cache("file://{directory}")
        assert cache.get("key") == b"value"
        print("read", flush=True)
        input()
    """
    readers = [child(code) for _ in range(4)]
    for reader in readers:
        assert reader.stdout.readline() == "read\n"
    alive, *dead = [reader.pid for reader in readers]
    for reader in readers[1:]:
        reader.kill()
        reader.wait()
    slots = reader_slots(directory, dead)
    assert alive in slots
    assert not slots & set(dead)
    readers[0].communicate("\n")


def test_temporary_files_and_reservations_of_the_dead_are_collected_and_those_of_the_living_are_not(directory):
    cache = Cache(f"file://{directory}?max_bytes=1MiB")
    code = f"""
        import os, sys
        from framecache import Cache
        cache = Cache("file://{directory}?max_bytes=1MiB")
        cache.set("own", bytes(1000))
        start = open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]
        open(f"{directory}/blobs/.tmp-{{os.getpid()}}-{{start}}-99", "wb").write(bytes(5))
        print("made", flush=True)
        input()
    """
    maker = child(code)
    assert maker.stdout.readline() == "made\n"
    temporary = [name for name in files_of(directory) if name.startswith(".tmp-")]
    assert len(temporary) == 1
    assert cache.verify()["orphans"] == 0
    assert temporary[0] in files_of(directory)
    maker.kill()
    maker.wait()
    assert cache.verify()["orphans"] == 1
    assert not files_of(directory)


def test_a_writer_killed_while_it_writes_a_blob_leaves_no_reservation(directory):
    url = f"file://{directory}?max_bytes=8MiB"
    cache = Cache(url)
    code = f"""
        import os
        from framecache import Cache
        cache = Cache("{url}")
        print("ready", flush=True)
        while True:
            cache.set("large", bytes(3_000_000))
    """
    left = False
    for _ in range(100):
        writer = child(code)
        assert writer.stdout.readline() == "ready\n"
        while not cache.usage()["reserved_bytes"]:
            pass
        writer.kill()
        writer.wait()
        if cache.usage()["reserved_bytes"]:
            left = True
            break
    assert left, "no writer was caught between reserving and storing"
    assert cache.usage()["reserved_bytes"] >= 3_000_000
    for number in range(100):
        assert cache.set(f"key {number}", bytes(100_000))
    assert cache.usage()["reserved_bytes"] == 0
    cache.verify()
    assert sum(files_of(directory).values()) == cache.usage()["blob_bytes"]


@contextmanager
def stopped_holder(directory):
    """A process that writes, stopped at a moment at which it holds writer.lock."""
    code = f"""
        import sys, threading
        from framecache import Cache
        cache = Cache("file://{directory}")
        value = bytes(3000)
        asked = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), asked.set())).start()
        print("writing", flush=True)
        while not asked.is_set():
            cache.set("theirs", value)
    """
    writer = child(code)
    assert writer.stdout.readline() == "writing\n"
    with (directory / "writer.lock").open() as lock:
        for _ in range(10_000):
            os.kill(writer.pid, signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(writer.pid, os.WUNTRACED)[1])
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                break
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.kill(writer.pid, signal.SIGCONT)
            # It goes on for a random part of a write: stopped at once, it would stay where it is.
            until = time.perf_counter() + random.uniform(0, 0.002)
            while time.perf_counter() < until:
                pass
        else:
            pytest.fail("the writer was never stopped while it held the lock")
    try:
        yield writer
    finally:
        writer.kill()
        writer.wait()


def test_a_stopped_writer_holds_up_nobody_for_longer_than_the_timeout(directory):
    cache = Cache(f"file://{directory}?writer_timeout=0.02")
    large = bytes(range(256)) * 2000
    cache.set("small", b"value", tags=["tag"])
    cache.set("large", large)
    with stopped_holder(directory) as writer:
        assert cache.set("small", b"new") is False
        assert cache.set("large", b"new" * 100_000) is False
        assert cache.set("fresh", b"new", if_absent=True) is False
        assert (cache.stats()["dropped"], cache.usage()["dropped"]) == (3, 3)
        for refused in (
            lambda: cache.delete("small"),
            lambda: cache.delete_many(["small", "large"]),
            lambda: cache.invalidate_tags("tag"),
            cache.clear,
            lambda: cache.touch("small", 10),
        ):
            with pytest.raises(StoreBusy, match="waited") as caught:
                refused()
            assert isinstance(caught.value, TimeoutError)
        assert cache.get("small") == b"value"
        assert cache.get("large") == large
        assert cache.get_many(["small", "large", "fresh"]) == {"small": b"value", "large": large}
        assert "small" in cache
        assert set(cache.keys("s")) == {"small"}
        assert run(f'print(framecache.Cache("file://{directory}").get("small"))'.join(["import framecache;", ""])) == (
            "b'value'\n"
        )
        os.kill(writer.pid, signal.SIGCONT)
        writer.communicate("stop\n")
        assert writer.returncode == 0
    assert cache.set("small", b"new") is True
    assert cache.get("small") == b"new"
    assert cache.delete("large") is True
    assert cache.usage()["reserved_bytes"] == 0


def test_a_writer_killed_while_it_holds_the_lock_leaves_it_to_others(directory):
    cache = Cache(f"file://{directory}")
    cache.set("mine", b"value")
    with stopped_holder(directory) as writer:
        assert cache.set("mine", b"new") is False
        writer.kill()
        writer.wait()
        assert cache.set("mine", b"new") is True
    assert cache.get("mine") == b"new"
    assert cache.get("theirs") in (None, bytes(3000))
    assert cache.verify()["damaged"] == 0


def test_opening_waits_for_nobody_who_has_it_open(directory):
    cache = Cache(f"file://{directory}")
    cache.set("key", b"value")
    with stopped_holder(directory):
        assert run(f'import framecache; print(framecache.Cache("file://{directory}").get("key"))') == "b'value'\n"
