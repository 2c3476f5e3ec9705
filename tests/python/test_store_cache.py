"""A Cache on its store: it is a dict with deadlines and tags, bounded, and read in place."""

import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from framecache import Cache
from framecache._times import SystemClock, now_by
from support import mapped_file, run

MAPPED_ABOVE = 64 * 1024


class Clock:
    """The time that caches see: it goes on when it is told to."""

    def __init__(self):
        self.now = 1_700_000_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    frozen = Clock()
    monkeypatch.setattr(SystemClock, "time", lambda: frozen() / 1000)
    return frozen


KEYS = st.sampled_from(["", "a", "a/b", "a/c", "b", "ключ", "k" * 3000])
TAGS = st.lists(st.sampled_from(["red", "green", "blue"]), max_size=3, unique=True)
TTLS = st.sampled_from([None, 0.001, 1, 10.5, timedelta(seconds=100)])
#: Inline, read and mapped.
SIZES = st.sampled_from([0, 1, 100, 7000, 9000, 60_000, 70_000])


def milliseconds(ttl):
    return None if ttl is None else round((ttl.total_seconds() if isinstance(ttl, timedelta) else ttl) * 1000)


class Model(RuleBasedStateMachine):
    """Two caches of one directory and namespace, and one of another namespace, against two dicts."""

    views = Bundle("views")

    def __init__(self):
        super().__init__()
        self.outer = tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        url = f"file://{self.outer.name}/cache"
        self.caches = [Cache(url, namespace="one"), Cache(url, namespace="one"), Cache(url, namespace="other")]
        self.models = [{}, {}]
        self.clock, self.real = Clock(), SystemClock.time
        SystemClock.time = lambda: self.clock() / 1000
        self.number = 0

    def teardown(self):
        SystemClock.time = self.real
        for cache in self.caches:
            cache.close()
        self.outer.cleanup()

    def chosen(self, which):
        return self.caches[which], self.models[which // 2]

    def value(self, size):
        self.number += 1
        return bytes([self.number % 256]) * size

    def store(self, model, key, value, ttl, tags):
        until = None if ttl is None else self.clock.now + milliseconds(ttl)
        model[key] = (value, until, until, set(tags))

    @rule(which=st.integers(0, 2), key=KEYS, size=SIZES, ttl=TTLS, tags=TAGS, if_absent=st.booleans())
    def set(self, which, key, size, ttl, tags, if_absent):
        cache, model = self.chosen(which)
        value = self.value(size)
        stored = cache.set(key, value, ttl=ttl, tags=tags, if_absent=if_absent)
        assert stored is not (if_absent and key in model)
        if stored:
            self.store(model, key, value, ttl, tags)

    @rule(which=st.integers(0, 2), keys=st.lists(KEYS, unique=True, max_size=4), size=SIZES, ttl=TTLS, tags=TAGS)
    def set_many(self, which, keys, size, ttl, tags):
        cache, model = self.chosen(which)
        values = {key: self.value(size) for key in keys}
        assert cache.set_many(values, ttl=ttl, tags=tags) == len(keys)
        for key, value in values.items():
            self.store(model, key, value, ttl, tags)

    @rule(which=st.integers(0, 2), key=KEYS)
    def get(self, which, key):
        cache, model = self.chosen(which)
        assert cache.get(key, "none") == model.get(key, ["none"])[0]
        assert (key in cache) == (key in model)

    @rule(which=st.integers(0, 2), keys=st.lists(KEYS, max_size=6))
    def get_many(self, which, keys):
        cache, model = self.chosen(which)
        assert cache.get_many(keys) == {key: model[key][0] for key in keys if key in model}

    @rule(which=st.integers(0, 2), key=KEYS)
    def delete(self, which, key):
        cache, model = self.chosen(which)
        assert cache.delete(key) is (model.pop(key, None) is not None)

    @rule(which=st.integers(0, 2), keys=st.lists(KEYS, max_size=6))
    def delete_many(self, which, keys):
        cache, model = self.chosen(which)
        assert cache.delete_many(keys) == len({*keys} & {*model})
        for key in keys:
            model.pop(key, None)

    @rule(which=st.integers(0, 2), key=KEYS, ttl=TTLS)
    def touch(self, which, key, ttl):
        cache, model = self.chosen(which)
        assert cache.touch(key, ttl) is (key in model)
        if key in model:
            value, _, until, tags = model[key]
            asked = None if ttl is None else self.clock.now + milliseconds(ttl)
            deadline = min((one for one in (asked, until) if one is not None), default=None)
            model[key] = (value, deadline, until, tags)

    @rule(which=st.integers(0, 2), tags=TAGS)
    def invalidate_tags(self, which, tags):
        cache, model = self.chosen(which)
        cache.invalidate_tags(*tags)
        for key in [key for key, entry in model.items() if entry[3] & {*tags}]:
            del model[key]

    @rule(which=st.integers(0, 2))
    def clear(self, which):
        cache, model = self.chosen(which)
        cache.clear()
        model.clear()

    @rule(which=st.integers(0, 2), prefix=st.sampled_from(["", "a", "a/", "k", "x"]))
    def keys(self, which, prefix):
        cache, model = self.chosen(which)
        assert sorted(cache.keys(prefix)) == sorted(key for key in model if key.startswith(prefix))

    @rule(milliseconds=st.sampled_from([1, 2, 999, 1001, 10_000, 100_000]))
    def wait(self, milliseconds):
        self.clock.now += milliseconds
        for model in self.models:
            for key in [key for key, entry in model.items() if entry[1] is not None and entry[1] < self.clock.now]:
                del model[key]

    @rule(which=st.integers(0, 2))
    def reopen(self, which):
        url, namespace = f"file://{self.outer.name}/cache", ["one", "one", "other"][which]
        self.caches[which].close()
        self.caches[which] = Cache(url, namespace=namespace)

    @rule(target=views, which=st.integers(0, 2), key=KEYS)
    def hold(self, which, key):
        cache, model = self.chosen(which)
        view = cache.get(key, views=True)
        return multiple() if view is None else (view, model[key][0])

    @rule(held=consumes(views))
    def look(self, held):
        view, value = held
        assert view == value

    @rule()
    def verify(self):
        assert self.caches[0].verify()["damaged"] == 0

    @invariant()
    def bookkeeping(self):
        usage = self.caches[0].usage()
        files = [file.stat().st_size for file in Path(self.outer.name, "cache/blobs").iterdir()]
        assert (len(files), sum(files)) == (usage["blobs"], usage["blob_bytes"])
        assert usage["reserved_bytes"] == 0


TestHypothesisModel = Model.TestCase
TestHypothesisModel.settings = settings(max_examples=60, stateful_step_count=50)


def in_use(cache):
    usage = cache.usage()
    return usage["index_bytes"] + usage["blob_bytes"] + usage["reserved_bytes"]


def test_what_is_read_often_stays(directory):
    cache = Cache(f"file://{directory}?max_bytes=2MiB")
    often = [f"often {number}" for number in range(20)]
    for key in often:
        cache.set(key, bytes(5000))
    rng, kept = random.Random(0), 0
    for number in range(4000):
        assert cache.set(f"once {number}", bytes(5000))
        assert in_use(cache) <= 2 << 20
        kept += cache.get(rng.choice(often)) is not None
        if number % 50 == 0:
            for key in often:
                if key not in cache:
                    cache.set(key, bytes(5000))
                cache.get(key)
    # Without marks, a key would live for 400 of 4000 writes at most; so nearly all of these reads hit.
    assert kept > 3900
    once = len([*cache.keys("once")])
    assert 50 < once < 420


def test_expired_entries_go_first(directory, clock):
    cache = Cache(f"file://{directory}?max_bytes=1MiB")
    for number in range(30):
        assert cache.set(f"stays {number}", bytes(10_000))
        assert cache.set(f"ends {number}", bytes(10_000), ttl=1)
    clock.now += 2000
    for number in range(35):
        assert cache.set(f"new {number}", bytes(10_000))
    assert cache.usage()["evicted"] == 0
    assert cache.usage()["expired"] >= 10
    assert len([*cache.keys("stays")]) == 30
    assert len([*cache.keys("new")]) == 35
    assert in_use(cache) <= 1 << 20


def test_a_write_removes_what_has_expired_though_there_is_room(directory, clock):
    cache = Cache(f"file://{directory}")
    for number in range(20):
        cache.set(f"key {number}", bytes(10_000), ttl=1)
    clock.now += 1001
    for number in range(3):
        cache.set("new", bytes([number]))
    assert cache.usage()["blobs"] == 0
    assert cache.usage()["expired"] == 20
    assert not [*(directory / "blobs").iterdir()]


@pytest.mark.parametrize("size", [100, 20_000, 200_000])
def test_views_stay_valid_whatever_happens_to_the_entry(directory, size):
    cache = Cache(f"file://{directory}?max_bytes=2MiB")
    values = {key: key.encode() * (size // len(key)) for key in ("deleted", "replaced", "evicted", "cleared")}
    views, addresses = {}, {}
    for key, value in values.items():
        cache.set(key, value)
        views[key] = cache.get(key, views=True)
        addresses[key] = views[key].obj.address
    cache.delete("deleted")
    cache.set("replaced", b"new" * 1000)
    cache.clear()
    for number in range(200):
        cache.set(f"other {number}", bytes([number]) * 30_000)
    assert cache.usage()["evicted"] > 0
    assert not [key for key in values if key in cache]
    cache.close()
    for key, value in values.items():
        assert views[key] == value
        assert views[key].obj.address == addresses[key]
        assert np.frombuffer(views[key], "u1").ctypes.data >= addresses[key]


def test_pinned_bytes_are_those_of_old_blobs_that_are_viewed(directory):
    cache = Cache(f"file://{directory}")
    cache.set("key", bytes(200_000))
    size = cache.usage()["blob_bytes"]
    view = cache.get("key", views=True)
    assert cache.usage()["pinned_bytes"] == 0
    part = view[10:20]
    cache.delete("key")
    assert (cache.usage()["pinned_bytes"], cache.usage()["blob_bytes"]) == (size, 0)
    del view
    assert cache.usage()["pinned_bytes"] == size
    del part
    assert cache.usage()["pinned_bytes"] == 0


def maps_of(name):
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if name in line]


def test_a_thousand_readers_of_a_table_share_one_mapping(directory):
    table = pa.table({"number": np.arange(200_000), "half": np.arange(200_000) / 2})
    cache, other = Cache(f"file://{directory}"), Cache(f"file://{directory}")
    cache.set("table", table)
    (blob,) = (directory / "blobs").iterdir()
    found, barrier = [], threading.Barrier(10)

    def read(mine):
        barrier.wait()
        found.extend(mine.get("table") for _ in range(100))

    threads = [threading.Thread(target=read, args=(mine,)) for mine in [cache, other] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1000
    assert len(maps_of(blob.name)) == 1
    addresses = {each.column("number").chunk(0).buffers()[1].address for each in found}
    assert len(addresses) == 1
    assert mapped_file(addresses.pop()).endswith(blob.name)
    assert all(each.equals(table) for each in found[::100])
    found.clear()
    gc.collect()
    assert not maps_of(blob.name)


def test_a_hundred_thousand_views_of_a_thousand_blobs(directory):
    cache = Cache(f"file://{directory}")
    for number in range(1000):
        assert cache.set(f"key {number}", number.to_bytes(4, "little") * 20_000)
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    before = len(Path("/proc/self/maps").read_text().splitlines())
    views = []
    for turn in range(100):
        for number in range(1000):
            view = cache.get(f"key {number}", views=True)
            views.append(view[turn * 4 : turn * 4 + 4])
    assert len(views) == 100_000
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert len([line for line in lines if "/blobs/" in line]) == 1000
    assert len(lines) - before < min(limit, 1100)
    assert not [path for path in open_files(directory) if "/blobs/" in path]
    for position in range(0, 100_000, 997):
        assert views[position] == (position % 1000).to_bytes(4, "little")
    views.clear()
    del view
    gc.collect()
    assert not maps_of("/blobs/")


def open_files(directory):
    """Files below it that this process has open; what else it has, others may close and open meanwhile."""
    opened = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sorted(path for path in opened if path.startswith(str(directory)))


@pytest.mark.parametrize("size", [20_000, 100_000])
def test_no_descriptor_stays_open(directory, size):
    cache = Cache(f"file://{directory}")
    for number in range(100):
        cache.set(f"key {number}", bytes(size))
    before = open_files(directory)
    held = [cache.get(f"key {number % 100}", views=True) for number in range(1000)]
    assert open_files(directory) == before
    assert len(held) == 1000
    cache.close()
    assert not open_files(directory)


def test_opening_and_closing_a_store_leaves_nothing_open(directory):
    def state():
        gc.collect()
        return open_files(directory), maps_of(str(directory))

    Cache(f"file://{directory}").close()
    for number in range(100):
        with Cache(f"file://{directory}") as cache, Cache(f"file://{directory}", namespace="other") as other:
            assert cache.set("key", number)
            assert other.get("key") is None
    assert state() == ([], [])


# --- leases ----------------------------------------------------------------------------------------------------------


def put(cache, key, value, lease):
    return cache._tiers.store.put_many([(key, "raw", value, {})], now_by(SystemClock), lease=lease)[0]


def lease(cache, key, milliseconds=10_000):
    return cache._tiers.store.lease(key, milliseconds, now_by(SystemClock))


def test_one_of_several_has_the_lease(cache, directory, clock):
    other = Cache(f"file://{directory}")
    token = lease(cache, "key")
    assert token is not None
    assert lease(cache, "key") is None
    assert lease(other, "key") is None
    assert lease(other, "another key") is not None
    assert lease(Cache(f"file://{directory}", namespace="n"), "key") is not None
    assert put(cache, "key", b"value", token) == "written"
    assert bytes(cache._tiers.store.look("key", clock.now)[0][0]) == b"value"
    # It ended with the write.
    assert not cache._tiers.store.release("key", token)
    assert lease(other, "key") is not None


def test_a_lease_can_be_given_back(cache):
    token = lease(cache, "key")
    assert not cache._tiers.store.release("key", token ^ 1)
    assert not cache._tiers.store.release("other", token)
    assert cache._tiers.store.release("key", token)
    assert not cache._tiers.store.release("key", token)
    assert lease(cache, "key") not in (None, token)


def test_an_expired_lease_is_taken_over_and_its_owner_superseded(cache, clock):
    late = lease(cache, "key", 1000)
    clock.now += 1000
    assert lease(cache, "key") is None
    clock.now += 1
    token = lease(cache, "key")
    assert token not in (None, late)
    assert put(cache, "key", b"late", late) == "superseded"
    assert "key" not in cache
    assert put(cache, "key", b"in time", token) == "written"
    assert put(cache, "key", b"late", late) == "superseded"
    assert bytes(cache._tiers.store.look("key", clock.now)[0][0]) == b"in time"


@pytest.mark.parametrize("size", [10, 20_000])
def test_deleting_supersedes_who_computes(cache, size):
    token = lease(cache, "key")
    assert cache.delete("key") is False
    assert put(cache, "key", bytes(size), token) == "superseded"
    assert cache.get("key") is None
    assert cache.usage()["blob_bytes"] == cache.usage()["reserved_bytes"] == 0
    cache.set("other", b"x")
    assert cache.usage()["reserved_bytes"] == 0
    assert lease(cache, "key") is not None


_OWNER = """
import time
from framecache import Cache
cache = Cache("file://{directory}")
print(cache._tiers.store.lease("key", 3_600_000, time.time_ns() // 1_000_000), flush=True)
input()
"""


def owner_of(directory):
    """A process that has a lease of an hour on `key`, and its token."""
    process = subprocess.Popen(
        [sys.executable, "-c", _OWNER.format(directory=directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "ended"])
def test_the_lease_of_a_process_that_is_gone_is_taken_over(cache, directory, end):
    owner, old = owner_of(directory)
    assert lease(cache, "key") is None
    if end is None:
        owner.communicate("\n")
    else:
        owner.send_signal(end)
        # A process that nobody has waited for yet holds nothing any more either.
        os.waitid(os.P_PID, owner.pid, os.WEXITED | os.WNOWAIT)
        assert lease(cache, "key") is not None
        owner.wait()
        cache.delete("key")
    token = lease(cache, "key")
    assert token is not None
    assert put(cache, "key", b"late", old) == "superseded"
    assert put(cache, "key", b"value", token) == "written"


def test_a_stopped_owner_keeps_its_lease_until_it_ends(cache, directory):
    owner, _ = owner_of(directory)
    try:
        owner.send_signal(signal.SIGSTOP)
        os.waitpid(owner.pid, os.WUNTRACED)
        assert lease(cache, "key") is None
        assert cache._tiers.store.lease("key", 1000, now_by(SystemClock) + 3_700_000) is not None
    finally:
        owner.kill()
        owner.wait()


def test_a_child_of_a_fork_is_another_owner(directory):
    code = f"""
        import os, time
        from framecache import Cache
        cache = Cache("file://{directory}")
        now = time.time_ns() // 1_000_000
        token = cache._tiers.store.lease("key", 3_600_000, now)
        pid = os.fork()
        if pid == 0:
            store = cache._tiers.store
            ok = store.lease("key", 1000, now) is None and store.lease("child", 3_600_000, now)
            os._exit(0 if ok else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert cache._tiers.store.lease("child", 1000, now) is not None
        assert cache._tiers.store.put_many([("key", "raw", b"v", {{}})], now, lease=token) == ["written"]
    """
    run(code)


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_who_waits_for_another_writer_can_be_interrupted(directory):
    code = f"""
        import fcntl, signal
        from framecache import Cache, StoreBusy
        cache = Cache("file://{directory}?writer_timeout=3")
        lock = open("{directory}/writer.lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        class Interrupted(Exception): pass
        def interrupt(*_):
            raise Interrupted
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            try:
                cache.delete("key")
            except StoreBusy:
                print("waited to the end")
        except Interrupted as error:
            print("interrupted", error.__context__)
    """
    assert run(code) == "interrupted None\n"


def test_other_threads_go_on_while_one_waits_for_another_writer(directory):
    code = f"""
        import fcntl, threading
        from framecache import Cache, StoreBusy
        cache = Cache("file://{directory}?writer_timeout=30")
        cache.set("key", b"value")
        lock = open("{directory}/writer.lock")
        fcntl.flock(lock, fcntl.LOCK_EX)
        begun, done = threading.Event(), []
        def wait():
            begun.set()
            done.append(cache.set("key", b"new"))
        thread = threading.Thread(target=wait)
        thread.start()
        begun.wait()
        # With the GIL held by the one that waits, none of these would run before it gave up.
        for _ in range(1000):
            assert cache.get("key") == b"value"
        assert not done
        fcntl.flock(lock, fcntl.LOCK_UN)
        thread.join()
        assert done == [True] and cache.get("key") == b"new"
    """
    run(code)
