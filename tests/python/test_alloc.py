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
    import ctypes, sys, threading, framecache, framecache.arrow, pyarrow as pa
    frame = framecache.arrow.encode(pa.table({"n": [1, 2, 3]}))
    payload = bytes(framecache.SerializationWrapper.unwrap(frame)[0])
    # Once at each of the places at which one of them is aligned, and so used where it is.
    stride = -(-len(payload) // 64) * 64 + 16
    data = b"".join(payload.ljust(stride, b"\\0") for _ in range(4))
    start = next(place * stride for place in range(4) if (framecache.Frame(data).address + place * stride) % 64 == 0)
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    def export_and_release():
        table = framecache.ArrowTable(framecache.Frame(data)[start : start + len(payload)])
        stream = table.__arrow_c_stream__()
        del table
        address = pointer_of(stream, b"arrow_array_stream")
        release = ctypes.c_void_p.from_address(address + 3 * ctypes.sizeof(ctypes.c_void_p)).value
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(release)(address)  # ctypes calls it without the GIL
    references = sys.getrefcount(data)
    export_and_release()
    print(sys.getrefcount(data) - references)
    threads = [threading.Thread(target=lambda: [export_and_release() for _ in range(100)]) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    framecache.Frame(b"")
    print(sys.getrefcount(data) - references)
    """
    for env in ({}, {"PYTHONTRACEMALLOC": "1"}, {"PYTHONMALLOC": "debug"}):
        assert run(code, env=env) == "1\n0\n"


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
