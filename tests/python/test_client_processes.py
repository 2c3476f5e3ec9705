"""Processes that share a directory: one computes, the others take its value; forks, and programs that start others."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager

import pytest

import framecache
from framecache import Cache
from support import run
from waiting import PATIENCE, Thread, until, waiters

#: What every process here runs. It is told what to do line by line, and tells what it does.
PROGRAM = """
    import os, sys
    import framecache
    cache = framecache.Cache(sys.argv[1], **eval(sys.argv[2]))

    def say(*words):
        print(*words, flush=True)

    def body(x):
        say("begun")
        return sys.stdin.readline().strip()

    f = cache(name="f", version=1, lock=float(sys.argv[3]), tags=["tag"])(body)

    async def abody(x):
        return body(x)

    def areturn(x):
        import asyncio
        return asyncio.run(cache.aget_or_set("akey", lambda: abody(x), lock=float(sys.argv[3])))

    say("ready")
    for line in sys.stdin:
        say("result", eval(line))
"""


class Process:
    """One of them."""

    def __init__(self, url, lock, options):
        code = textwrap.dedent(PROGRAM)
        self._child = subprocess.Popen(
            [sys.executable, "-c", code, url, repr(options), str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self.pid = self._child.pid
        assert self.heard() == "ready"

    def heard(self):
        return self._child.stdout.readline().strip()

    def tell(self, line):
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def kill(self):
        if self._child.poll() is not None:
            return
        os.kill(self.pid, signal.SIGCONT)
        self._child.kill()
        self._child.wait(PATIENCE)
        self._child.stdin.close()
        self._child.stdout.close()


@pytest.fixture
def start(tmp_path):
    """Starts processes on one directory, which end with the test."""
    started = []

    def start(lock=60, **options):
        started.append(Process(f"file://{tmp_path}/cache", lock, options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("call", ["f(1)", "areturn(1)"])
@pytest.mark.parametrize("options", [{}, {"l1": None}], ids=["with memory", "store alone"])
def test_one_process_computes_and_the_others_take_its_value(start, call, options):
    leader, others = start(**options), [start(**options) for _ in range(2)]
    leader.tell(call)
    assert leader.heard() == "begun"
    for other in others:
        other.tell(call)
    leader.tell("computed")
    assert leader.heard() == "result computed"
    assert [other.heard() for other in others] == ["result computed"] * 2


@pytest.mark.parametrize("call", ["f(1)", "areturn(1)"])
def test_another_process_computes_if_the_one_that_does_is_killed(start, call):
    leader, other = start(), start()
    leader.tell(call)
    assert leader.heard() == "begun"
    other.tell(call)
    leader.kill()
    assert other.heard() == "begun"
    other.tell("from the other")
    assert other.heard() == "result from the other"


@pytest.mark.parametrize("call", ["f(1)", "areturn(1)"])
def test_a_process_that_is_stopped_is_waited_for_until_the_limit(start, call):
    leader, other = start(lock=0.2), start(lock=0.2)
    leader.tell(call)
    assert leader.heard() == "begun"
    os.kill(leader.pid, signal.SIGSTOP)
    other.tell(call)
    assert other.heard() == "begun"
    other.tell("from the other")
    assert other.heard() == "result from the other"
    # Its lease is lost, and its result too late.
    os.kill(leader.pid, signal.SIGCONT)
    leader.tell("too late")
    assert leader.heard() == "result too late"
    other.tell(call)
    assert other.heard() == "result from the other"
    leader.tell(call)
    assert leader.heard() == "result from the other"


@pytest.mark.parametrize(
    "outdate",
    ["f.invalidate(1)", "f.cache_clear()", "cache.clear()", "cache.invalidate_tags('tag')", "f.set('set', 1)"],
)
def test_a_result_that_another_process_outdated_is_not_stored(start, outdate):
    leader, other = start(), start()
    leader.tell("f(1)")
    assert leader.heard() == "begun"
    other.tell(outdate)
    assert other.heard().startswith("result")
    leader.tell("old")
    assert leader.heard() == "result old"
    for process in (other, leader):
        process.tell("f.get(1)")
        assert process.heard() == ("result set" if "set(" in outdate else "result None")
    leader.tell("cache.stats()['superseded']")
    assert leader.heard() == "result 1"


@contextmanager
def computing(cache):
    """A thread of this process computes ``key`` meanwhile."""
    begun, go = threading.Event(), threading.Event()

    def compute():
        begun.set()
        assert go.wait(PATIENCE)
        return "from the parent"

    thread = Thread(cache.get_or_set, "key", compute)
    assert begun.wait(PATIENCE)
    yield
    go.set()
    assert thread.value == "from the parent"


def in_child(work):
    """Run `work` in a fork of this process; return what it returned, a str."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, work().encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as read:
        told = read.read()
    assert os.waitpid(pid, 0)[1] == 0
    return told


def test_a_fork_computes_what_threads_of_its_parent_were_computing():
    cache = Cache()
    with computing(cache):
        assert in_child(lambda: cache.get_or_set("key", lambda: "from the child")) == "from the child"
        waiting = Thread(cache.get_or_set, "key", str)
        until(lambda: waiters(cache) == 1)
    assert waiting.value == "from the parent"


def test_a_fork_takes_what_its_parent_computes_from_the_store(tmp_path):
    with Cache(f"file://{tmp_path}/cache") as cache:
        with computing(cache):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                value = cache.get_or_set("key", lambda: "from the child")
                os.write(writing, value.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            assert told.read() == "from the parent"
        assert os.waitpid(pid, 0)[1] == 0


def test_forks_while_locks_are_held_do_not_wait_for_them():
    cache = Cache()
    f = cache(name="f")(lambda x: x)
    held, go = threading.Event(), threading.Event()

    def hold():
        from framecache import _background, _shared

        with cache._flights.mutex, _background._threads.mutex, _shared.mutex:
            held.set()
            assert go.wait(PATIENCE)

    thread = Thread(hold)
    assert held.wait(PATIENCE)
    try:

        def work():
            with cache.bypass():
                cache.add_hook(lambda event: None)
            return str([f(1), cache.get_or_set("key", int), len(cache._flights)])

        assert in_child(work) == "[1, 0, 0]"
    finally:
        go.set()
    thread.join()


def test_a_function_that_forks_computes_on_in_both(tmp_path):
    code = f"""
        import framecache, os
        for url in (None, "file://{tmp_path}/cache"):
            cache = framecache.Cache(url)

            @cache
            def f(x):
                pid = os.fork()
                return pid

            pid = f(1)
            if pid == 0:
                assert f(2) == 0 or os._exit(0)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            assert f(1) in ((pid,) if url is None else (pid, 0))  # a store has what one of them computed
            assert len(cache._flights) == 0
        print("done")
    """
    assert run(code) == "done\n"


CHILDREN = """
    import asyncio, multiprocessing, os, sys
    import framecache

    cache = framecache.Cache(os.environ["URL"] or None)

    @cache(ttl=60, name="f", version=1)
    def f(x):
        return [x, os.getpid()]

    @cache(ttl=60, name="g", version=1)
    async def g(x):
        return [x, os.getpid()]

    def work(x):
        return f(1), f(x), asyncio.run(g(1)), asyncio.run(g(x))

    def main(method):
        f(1)
        asyncio.run(g(1))
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["program"])
        with context.Pool(3) as pool:
            for x, (f1, fx, g1, gx) in enumerate(pool.map(work, range(2, 12)), 2):
                assert (fx[0], gx[0]) == (x, x)
                if os.environ["URL"] or method == "fork":
                    assert f1 == g1 == [1, os.getpid()], (f1, g1)
                else:
                    assert f1[0] == g1[0] == 1
        assert f(1) == asyncio.run(g(1)) == [1, os.getpid()]
        print("done")

    if __name__ == "__main__":
        main(sys.argv[1])
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("tier", ["memory", "store"])
def test_children_use_a_cache_that_their_parent_made_and_used(tmp_path, method, tier):
    (tmp_path / "program.py").write_text(textwrap.dedent(CHILDREN))
    child = subprocess.run(
        [sys.executable, "-c", f"import program; program.main({method!r})"],
        env={
            **os.environ,
            "URL": f"file://{tmp_path}/cache" if tier == "store" else "",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(framecache.__file__))]),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (child.returncode, child.stdout) == (0, "done\n"), child.stderr


def test_a_server_that_loads_its_program_before_it_forks_workers(tmp_path):
    code = f"""
        import asyncio, framecache, os, threading
        cache = framecache.Cache("file://{tmp_path}/cache")

        @cache
        def f(x):
            return x

        @cache
        async def g(x):
            await asyncio.sleep(0)
            return x

        # The master uses it, with threads and a loop, and has refreshers and workers.
        f(0), asyncio.run(g(0)), asyncio.run(cache.aset("key", "value"))

        def serve():
            async def main():
                values = await asyncio.gather(*(g(x % 5) for x in range(50)))
                assert values == [x % 5 for x in range(50)]
                assert await cache.aget_or_set("key", None) == "value"
            asyncio.run(main())
            threads = [threading.Thread(target=f, args=(x % 5,)) for x in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert [f(x) for x in range(5)] == list(range(5))

        workers = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                try:
                    serve()
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            workers.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in workers] == [0] * 4
        serve()
        print("done")
    """
    assert run(code) == "done\n"
