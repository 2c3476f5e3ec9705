"""Forks: a child uses the store as a process of its own, and nothing that it does or leaves touches its parent."""

import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from framecache import Cache
from support import run

SMALL, LOADED, LARGE = b"s" * 100, b"l" * 20_000, b"m" * 300_000
VALUES = {"small": SMALL, "loaded": LOADED, "large": LARGE}

#: What every program below begins with: a store with three entries, and a fork whose child tells how it ended.
_START = """
import os, select, signal, sys, threading, traceback
from framecache import Cache, StoreBusy

URL = "file://{directory}"
VALUES = {{"small": b"s" * 100, "loaded": b"l" * 20_000, "large": b"m" * 300_000}}

def forked(work, normally=False):
    "Run `work` in a child; its exit status, which is that of a signal after 60 seconds."
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        if normally:
            sys.exit(0)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check(cache):
    for key, value in VALUES.items():
        assert cache.get(key) == value, key
    assert cache.get_many(VALUES) == VALUES

cache = Cache(URL)
for key, value in VALUES.items():
    assert cache.set(key, value)
"""


def program(directory, code):
    return run(_START.format(directory=directory) + textwrap.dedent(code))


@pytest.mark.parametrize("normally", [False, True], ids=["_exit", "exit"])
def test_a_child_reads_and_writes_and_its_end_leaves_the_parent_as_it_was(directory, normally):
    code = f"""
        views = {{key: cache.get(key, views=True) for key in VALUES}}
        def work():
            check(cache)
            assert all(views[key] == VALUES[key] for key in VALUES)
            assert cache.set("child", b"c" * 20_000) and cache.get("child") == b"c" * 20_000
            assert cache.delete("small") and cache.set("small", VALUES["small"])
            cache.set("large", b"new")
            Cache(URL).set("large", VALUES["large"])
        for _ in range(20):
            assert forked(work, {normally}) == 0
            check(cache)
            assert cache.get("child") == b"c" * 20_000
            assert cache.delete("child")
            assert all(views[key] == VALUES[key] for key in VALUES)
        usage = cache.usage()
        assert usage["reserved_bytes"] == 0 and usage["pinned_bytes"] > len(VALUES["large"])
        assert cache.verify() == {{"whole": 3, "damaged": 0, "orphans": 0}}
    """
    program(directory, code)


def test_a_child_closes_what_it_inherited_without_harm(directory):
    code = """
        view = cache.get("large", views=True)
        def work():
            global cache, view
            cache.close()
            del cache, view
            import gc
            gc.collect()
            other = Cache(URL)
            check(other)
            other.close()
        for _ in range(10):
            assert forked(work) == 0
            check(cache)
            assert cache.set("again", b"x" * 10_000)
            assert view == VALUES["large"]
    """
    program(directory, code)


def test_forks_while_threads_read_write_and_hold_views(directory):
    code = """
        stop, wrong = threading.Event(), []
        counts = dict.fromkeys(["read", "written", "held"], 0)

        def guarded(name, work):
            def loop():
                own = Cache(URL)
                try:
                    while not stop.is_set():
                        work(own)
                        counts[name] += 1
                except BaseException:
                    wrong.append(traceback.format_exc())
            return threading.Thread(target=loop)

        def write(own):
            for size in (100, 20_000, 200_000):
                own.set("written", b"w" * size)
                own.set_many({"one": b"1" * size, "other": b"2" * size})

        def hold(own):
            views = [own.get(key, views=True) for key in VALUES]
            assert views == list(VALUES.values())

        threads = [guarded("read", check), guarded("written", write), guarded("held", hold)]
        for thread in threads:
            thread.start()

        def work():
            check(cache)
            assert cache.get("written") in (None, *(b"w" * size for size in (100, 20_000, 200_000)))
            # The parent's threads are writing: another attempt where that took too long.
            while not cache.set("child", b"c" * 100_000):
                pass
            assert cache.get("child") == b"c" * 100_000
            check(Cache(URL))

        try:
            while min(counts.values()) == 0:
                assert threads[0].is_alive()
            for number in range(40):
                assert forked(work, normally=number % 4 == 0) == 0, number
                check(cache)
                assert cache.get("child") == b"c" * 100_000
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not wrong, wrong[0]
        check(cache)
        assert cache.set("parent", b"p" * 20_000)
        assert cache.verify()["damaged"] == 0
        assert cache.usage()["reserved_bytes"] == 0
    """
    program(directory, code)


def test_a_snapshot_of_the_parent_outlives_its_children(directory):
    # While children come and go, another process replaces what the parent reads: pages that a reader still needs
    # would be written again if a child had given its slot away.
    code = '''
        import subprocess
        code = """if True:
            import sys
            from framecache import Cache
            cache = Cache(sys.argv[1])
            number = 0
            print("writing", flush=True)
            while True:
                number += 1
                cache.set("replaced", b"%d" % (number % 10) * 5000)
                cache.set(f"other {number % 50}", bytes(number % 8000))
        """
        writer = subprocess.Popen([sys.executable, "-c", code, URL], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"writing\\n"
        stop, wrong, reads = threading.Event(), [], [0]
        def read():
            while not stop.is_set():
                for value in Cache(URL).get_many(["replaced"] * 50).values():
                    if len(set(value)) != 1 or len(value) != 5000:
                        wrong.append(value[:20])
                reads[0] += 1
        cache.set("replaced", b"0" * 5000)
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        def work():
            assert len(set(cache.get("replaced"))) == 1
            cache.close()
        for number in range(20):
            assert forked(work, normally=number % 2 == 0) == 0
        while reads[0] < 50:
            pass
        stop.set()
        for thread in threads:
            thread.join()
        writer.kill()
        writer.wait()
        assert not wrong, wrong
    '''
    program(directory, code)


def test_a_child_of_a_fork_during_a_write_can_write_when_the_parent_is_done(directory):
    code = """
        # A thread that holds the right to write for as long as it deletes this many keys.
        keys = [f"key {number}" for number in range(100_000)]
        begun = threading.Event()
        def hold():
            while not begun.is_set():
                holder.delete_many(keys)
        holder = Cache(URL + "?writer_timeout=30")
        thread = threading.Thread(target=hold)
        thread.start()
        import fcntl
        lock = open(URL.removeprefix("file://") + "/writer.lock")
        def is_held():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            fcntl.flock(lock, fcntl.LOCK_UN)
            return False
        ready, tell = os.pipe()
        def work():
            impatient, patient = Cache(URL + "?writer_timeout=0"), Cache(URL + "?writer_timeout=30")
            check(impatient)
            assert patient.set("child", b"c" * 20_000)
            assert patient.delete("child")
        caught = 0
        for _ in range(20):
            while not is_held():
                pass
            assert forked(work) == 0
            caught += 1
        begun.set()
        thread.join()
        assert not is_held()
        assert holder.set("parent", b"p")
        check(cache)
    """
    program(directory, code)


def child(code, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **kwargs
    )


def test_a_parent_killed_while_it_holds_the_lock_does_not_leave_it_to_its_child(directory):
    cache = Cache(f"file://{directory}?writer_timeout=0.01")
    cache.set("small", SMALL)
    # The parent writes all the time; its child lives on and does nothing.
    code = _START.format(directory=directory) + textwrap.dedent("""
        import threading
        def hold():
            while True:
                cache.delete_many([f"key {n}" for n in range(20_000)])
        go_on = threading.Thread(target=hold)
        go_on.start()
        child = os.fork()
        if child == 0:
            while True:
                signal.pause()
        print(child, flush=True)
        go_on.join()
    """)
    parent = child(code)
    orphan = int(parent.stdout.readline())
    try:
        with (directory / "writer.lock").open() as lock:
            while True:
                os.kill(parent.pid, signal.SIGSTOP)
                assert os.WIFSTOPPED(os.waitpid(parent.pid, os.WUNTRACED)[1])
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    break
                fcntl.flock(lock, fcntl.LOCK_UN)
                os.kill(parent.pid, signal.SIGCONT)
        assert cache.set("small", b"new") is False
        parent.kill()
        parent.wait()
        os.kill(orphan, 0)
        assert cache.set("small", b"new") is True
        assert cache.delete("small") is True
        assert cache.verify()["damaged"] == 0
    finally:
        os.kill(orphan, signal.SIGKILL)


def work_in_pool(number):
    """What a process of a pool does with the store that it inherited, or opens."""
    url = os.environ["FRAMECACHE_TEST_URL"]
    cache = _inherited or Cache(url)
    assert cache.get("large") == LARGE
    assert cache.get("small") == SMALL
    while not cache.set(f"pool {number}", bytes([number]) * (number * 3000)):
        pass
    return cache.get(f"pool {number}") == bytes([number]) * (number * 3000)


_inherited = None


def pool_of(method, url, inherit):
    """Run in an interpreter of its own: a pool of that kind whose processes share the store."""
    global _inherited
    os.environ["FRAMECACHE_TEST_URL"] = url
    cache = Cache(url)
    for key, value in VALUES.items():
        cache.set(key, value)
    if inherit:
        _inherited = cache
    view = cache.get("large", views=True)
    context = multiprocessing.get_context(method)
    with context.Pool(3) as pool:
        assert pool.map(work_in_pool, range(40), chunksize=1) == [True] * 40
    assert view == LARGE
    for number in range(40):
        assert cache.get(f"pool {number}") == bytes([number]) * (number * 3000)
    assert cache.verify() == {"whole": 43, "damaged": 0, "orphans": 0}
    assert cache.usage()["reserved_bytes"] == 0


@pytest.mark.parametrize(
    ("method", "inherit"), [("fork", True), ("fork", False), ("spawn", False), ("forkserver", False)]
)
def test_pools_of_processes_share_a_store(directory, method, inherit):
    # A module of its own name: spawned processes must find the functions.
    here = str(Path(__file__).parent)
    code = f"""
        import sys
        sys.path.insert(0, {here!r})
        import {__name__} as tests
        if __name__ == "__main__":
            tests.pool_of({method!r}, "file://{directory}", {inherit})
    """
    run(code)


def test_a_second_generation_uses_the_store_too(directory):
    code = """
        def grandchild():
            check(cache)
            assert cache.set("grandchild", b"g" * 20_000)
        def work():
            check(cache)
            assert cache.set("child", b"c")
            assert forked(grandchild) == 0
            assert cache.get("grandchild") == b"g" * 20_000
        assert forked(work) == 0
        assert cache.get("grandchild") == b"g" * 20_000
        assert cache.get("child") == b"c"
    """
    program(directory, code)


def test_children_leave_no_descriptors_in_the_parent_and_close_the_lock(directory):
    code = """
        before = len(os.listdir("/proc/self/fd"))
        lock = URL.removeprefix("file://") + "/writer.lock"
        def open_files():
            return [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
        assert open_files().count(lock) == 1
        def work():
            # Closed by the fork, before anything else; its own comes with its own store.
            assert open_files().count(lock) == 0
            check(cache)
            assert open_files().count(lock) == 1
        for _ in range(5):
            assert forked(work) == 0
        assert len(os.listdir("/proc/self/fd")) == before
    """
    program(directory, code)
