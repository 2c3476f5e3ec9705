"""What several processes tell each other about copies: guards fall when another one changes an entry, or dies at it."""

import multiprocessing
import os
import random
import signal
import struct
import textwrap
import time

import pytest

from framecache._framecache import Frame, InvalidArgument, Store
from support import run

PYTHON = {"type": "bytes"}
LARGE = bytes(100_000)


def put(store, key, value=b"value", created=0, **settings):
    (stored,) = store.put_many([(key, "raw", value, PYTHON)], created, **settings)
    return stored


def holds(store, guards, key, tags=()):
    """Whether guards that were taken of that key and these tags hold."""
    counts = [count for _, count in struct.iter_unpack("<HI", guards)]
    return all(count % 2 == 0 for count in counts) and guards == store.fence(key, list(tags))


def look(store, key, **settings):
    found = store.look(key, 0, **settings)
    assert isinstance(found, tuple), found
    return found


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def test_look_returns_what_get_returns_and_its_terms(store):
    put(store, "bytes", created=1, until=100, deadline=50)
    found, created, deadline, until, size, guards = look(store, "bytes")
    assert (found, created, deadline, until) == (b"value", 1, 50, 100)
    assert size == len(memoryview(store.entry("bytes", 0)[0]))
    assert len(guards) == 12
    assert isinstance(look(store, "bytes", views=True)[0], memoryview)
    store.put_many([("object", "msgpack", [1, 2], {})], 0, tags=["a", "b"])
    (payload, codec, python), created, deadline, until, _, guards = look(store, "object")
    assert (type(payload), codec, python, created, deadline, until) == (Frame, "msgpack", {}, 0, None, None)
    assert len(guards) == 24
    assert store.look("absent", 0) == "absent"
    assert store.look("bytes", 51) == "expired"
    assert store.look("bytes", 51, stale=True)[0] == b"value"
    assert store.look("bytes", 101, stale=True) == "expired"


def test_a_file_is_elsewhere_until_it_is_mapped(store):
    put(store, "large", LARGE)
    assert store.look("large", 0, at_hand=True) == "elsewhere"
    view = look(store, "large", views=True)[0]
    assert look(store, "large", at_hand=True)[0] == LARGE == view
    del view
    assert store.look("large", 0, at_hand=True) == "elsewhere"


def test_a_fence_is_what_fence_returned(store):
    with pytest.raises(InvalidArgument, match="fence: expected the guards that"):
        put(store, "key", fence=b"seven b")
    assert put(store, "key", fence=store.fence("key", ["a"])) == "written"


CHANGES = {
    "put": lambda store: put(store, "key"),
    "put a blob": lambda store: put(store, "key", LARGE),
    "touch": lambda store: store.touch("key", 10, 0),
    "delete": lambda store: store.delete_many(["key"], 0),
    "invalidate": lambda store: store.invalidate_tags(["b"], 0),
    "clear": lambda store: store.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_guards_fall_once_another_process_has_made_its_change(store, tmp_path, change):
    put(store, "key", tags=["a", "b"])
    guards, fence = look(store, "key")[-1], store.fence("key", ["a", "b"])
    assert guards == fence
    child = f"""
        from framecache._framecache import Store
        store = Store({str(tmp_path / "store")!r})
        def put(store, key, value=b"value"):
            store.put_many([(key, "raw", value, {{}})], 0)
        LARGE = bytes(100_000)
    """
    actions = {
        "put": 'put(store, "key")',
        "put a blob": 'put(store, "key", LARGE)',
        "touch": 'store.touch("key", 10, 0)',
        "delete": 'store.delete_many(["key"], 0)',
        "invalidate": 'store.invalidate_tags(["b"], 0)',
        "clear": "store.clear()",
    }
    run(textwrap.dedent(child) + 'put(store, "another key")')
    assert holds(store, guards, "key", ["a", "b"])
    run(textwrap.dedent(child) + actions[change])
    assert not holds(store, guards, "key", ["a", "b"])
    gone = {"delete": "absent", "invalidate": "invalidated", "clear": "invalidated"}
    found = store.look("key", 0)
    assert found == gone.get(change, found)
    assert isinstance(found, str) == (change in gone)
    assert put(store, "key", fence=fence) == "superseded"


@pytest.mark.parametrize("change", CHANGES)
def test_who_may_only_read_sees_another_process_change_things(tmp_path, change):
    path = str(tmp_path / "store")
    writer = Store(path)
    put(writer, "key", tags=["a", "b"])
    reader = f"""
        from framecache._framecache import Store
        store = Store({path!r}, read_only=True)
        guards = store.look("key", 0)[-1]
        assert guards == store.fence("key", ["a", "b"])
        print(flush=True)
        input()
        assert guards != store.fence("key", ["a", "b"])
    """
    with talking(reader) as child:
        child.stdout.readline()
        CHANGES[change](writer)
        child.communicate("\n", timeout=60)
    assert child.returncode == 0


def talking(code):
    import subprocess
    import sys

    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_forked_child_sees_its_parent_change_things_and_the_parent_its_child(tmp_path):
    run(f"""
        import os
        from framecache._framecache import Store
        store = Store({str(tmp_path / "store")!r})
        store.put_many([("key", "raw", b"", {{}})], 0)
        guards = store.look("key", 0)[-1]
        (ready, tell), (told, go) = os.pipe(), os.pipe()
        if (pid := os.fork()) == 0:
            same = store.fence("key", []) == guards
            store.delete_many(["key"], 0)
            between = store.fence("key", [])
            os.write(tell, b"1")
            os.read(told, 1)
            os._exit(0 if same and store.fence("key", []) != between else 1)
        os.read(ready, 1)
        assert store.fence("key", []) != guards
        store.delete_many(["key"], 0)
        os.write(go, b"1")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    """)


def versions(path, announced, seed):
    """Writes versions of one key for ever, each with tags, and announces those that are surely there or surely gone."""
    store, rng = Store(path), random.Random(seed)
    while True:
        version = announced.value + 1
        if put(store, "key", b"%d" % version + rng.choice([b"", b" " * 20_000]), tags=["a", "b"]) != "written":
            continue
        announced.value = version
        if rng.random() < 0.5:
            rng.choice(
                [
                    lambda: store.invalidate_tags(["b"], 0),
                    lambda: store.delete_many(["key"], 0),
                    store.clear,
                ]
            )()
            announced.value = version + 1


def test_no_copy_outlives_a_change_though_writers_are_killed_at_random(tmp_path):
    """The announced version is the least that may be served: a copy whose guards hold is never older."""
    path, rng = str(tmp_path / "store"), random.Random(0)
    store, context = Store(path, writer_timeout=10), multiprocessing.get_context("spawn")
    announced = context.Value("q", 0, lock=False)
    held = 0
    for seed in range(8):
        writer = context.Process(target=versions, args=(path, announced, seed), daemon=True)
        writer.start()
        least = announced.value
        while announced.value < least + 20:
            time.sleep(0.001)
        ends, kept = time.monotonic() + rng.uniform(0.05, 0.2), []
        while time.monotonic() < ends:
            if isinstance(found := store.look("key", 0), tuple):
                kept.append((int(found[0]), found[-1]))
            for version, guards in kept[-4:]:
                least = announced.value
                if holds(store, guards, "key", ["a", "b"]):
                    held += 1
                    assert version >= least
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        # Whatever it was at, the next copy can be kept, and the next change be seen.
        assert put(store, "key", b"%d" % (announced.value + 1), tags=["a", "b"]) == "written"
        guards = look(store, "key")[-1]
        assert holds(store, guards, "key", ["a", "b"])
        announced.value += 1
    assert held > 0
