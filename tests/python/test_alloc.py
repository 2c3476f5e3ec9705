"""The allocator inside a real interpreter: debug hooks, tracemalloc, threads without the GIL, forks."""

from support import run

CHURN = """
import threading, framecache, framecache.arrow, pyarrow as pa
table = pa.table({"n": list(range(50_000)), "s": [str(n) for n in range(50_000)]})
data = bytes(600_000)
def churn():
    for _ in range(10):
        # Encoding, verifying and large copies run without the GIL, and allocate.
        frame = framecache.arrow.encode(table)
        assert framecache.ArrowTable(frame[_payload(frame):]).num_rows == 50_000
        builder = framecache.FrameBuilder()
        builder.write(data); builder.write(data)
        assert builder.finish().nbytes == 1_200_000
        framecache.SerializationWrapper.wrap(data, {"a": 1}, "default")
def _payload(frame):
    return framecache.SerializationWrapper.unwrap(frame)[0].obj.address - frame.address
threads = [threading.Thread(target=churn) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""


def test_threads_that_allocate_without_the_gil_pass_pythons_debug_hooks():
    assert run(CHURN, env={"PYTHONMALLOC": "debug"}) == "done\n"


def test_threads_that_allocate_without_the_gil_do_not_hang_under_tracemalloc():
    assert run(CHURN, env={"PYTHONTRACEMALLOC": "1"}) == "done\n"


def test_tracemalloc_sees_a_rust_buffer_of_64_mib_appear_and_go():
    code = """
    import tracemalloc, framecache
    tracemalloc.start()
    size = 64 << 20
    before = tracemalloc.get_traced_memory()[0]
    builder = framecache.FrameBuilder(size)
    with_builder = tracemalloc.get_traced_memory()[0]
    del builder
    framecache.trim_pool()
    after = tracemalloc.get_traced_memory()[0]
    print(size <= with_builder - before < size + 65536, after - before < 65536)
    """
    assert run(code) == "True True\n"


def test_bytes_let_go_by_a_thread_without_the_gil_are_released_by_the_next_frame():
    code = """
    import sys, threading, framecache, framecache.arrow, pyarrow as pa
    frame = framecache.arrow.encode(pa.table({"n": [1, 2, 3]}))
    payload = bytearray(framecache.SerializationWrapper.unwrap(frame)[0])
    payload[-3:] = b"???"  # its reader fails, and drops it, while it is without the GIL
    copies = [bytes(payload) for _ in range(64)]
    damaged = next(copy for copy in copies if framecache.Frame(copy).address % 64 == 0)  # used where it is
    references = sys.getrefcount(damaged)
    def read():
        for _ in range(200):
            try:
                framecache.ArrowTable(damaged)
            except framecache.DecodeError:
                pass
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    framecache.Frame(b"")
    print(sys.getrefcount(damaged) - references)
    """
    for env in ({}, {"PYTHONTRACEMALLOC": "1"}, {"PYTHONMALLOC": "debug"}):
        assert run(code, env=env) == "0\n"


def test_a_forked_child_uses_the_pool_while_threads_of_the_parent_allocate():
    code = """
    import os, threading, framecache
    stop = threading.Event()
    data = bytes(700_000)
    def churn():
        while not stop.is_set():
            builder = framecache.FrameBuilder(); builder.write(data); builder.finish()
    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads: thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            for _ in range(20):
                builder = framecache.FrameBuilder(); builder.write(data)
                assert bytes(builder.finish()) == data
            framecache.trim_pool()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads: thread.join()
    print("done")
    """
    assert run(code) == "done\n"
