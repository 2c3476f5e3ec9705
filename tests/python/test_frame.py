"""Frame and FrameBuilder: addresses, lifetimes, and what a view prevents."""

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache
from framecache import Frame, FrameBuilder


def address(buffer):
    return np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]


def test_a_frame_of_bytes_stands_on_them_and_one_of_a_bytearray_is_a_copy():
    data, array = b"0123456789", bytearray(b"0123456789")
    frame, copy = Frame(data), Frame(array)
    assert (frame.address, frame.is_zero_copy) == (address(data), True)
    array[0] = 0
    assert bytes(copy) == data
    assert not copy.is_zero_copy
    assert copy.address % 64 == 0
    assert [frame.is_mapped, copy.is_mapped, frame.is_trusted, copy.is_trusted] == [False] * 4


@given(st.binary(max_size=50), st.integers(-60, 60) | st.none(), st.integers(-60, 60) | st.none())
def test_hypothesis_slices_are_those_of_bytes_and_share_the_memory(data, start, stop):
    frame = Frame(data)
    part = frame[start:stop]
    assert bytes(part) == data[start:stop]
    assert len(part) == part.nbytes == len(data[start:stop])
    if part.nbytes:
        assert frame.address <= part.address < frame.address + frame.nbytes
        assert [part[index] for index in range(-len(part), len(part))] == list(data[start:stop]) * 2


def test_what_cannot_be_indexed_says_so():
    frame = Frame(b"abc")
    with pytest.raises(IndexError, match="3 bytes"):
        frame[3]
    with pytest.raises(IndexError):
        frame[-4]
    with pytest.raises(ValueError, match="step 1"):
        frame[::2]
    with pytest.raises(TypeError, match="str"):
        frame["a"]
    with pytest.raises(TypeError):
        memoryview(frame)[0] = 1


def test_slices_and_views_keep_the_memory_after_the_frame_is_gone():
    builder = FrameBuilder()
    builder.write(b"0123456789" * 100_000)
    frame = builder.finish()
    part, view = frame[10:20], memoryview(frame[-10:])
    gone = weakref.ref(frame)
    del frame
    gc.collect()
    assert gone() is None
    framecache.trim_pool()
    assert bytes(part) == bytes(view) == b"0123456789"


def test_a_view_fills_a_builder_of_zeros():
    builder = FrameBuilder(1000)
    with memoryview(builder) as view:
        assert not view.readonly
        assert bytes(view) == bytes(1000)
        assert address(view) % 64 == 0
        view[990:] = b"0123456789"
        start = address(view)
    frame = builder.finish()
    assert bytes(frame) == bytes(990) + b"0123456789"
    assert frame.address == start
    assert frame.is_zero_copy


def test_while_a_view_is_exported_a_builder_neither_grows_nor_finishes():
    builder = FrameBuilder(4)
    view = memoryview(builder)
    for change in (builder.finish, lambda: builder.write(b"12345")):
        with pytest.raises(BufferError, match="1 exported view"):
            change()
    assert builder.write(b"abcd") == 4
    assert bytes(view) == b"abcd"
    with pytest.raises(BufferError):
        builder.write(b"e")
    view.release()
    builder.write(b"e")
    assert bytes(builder.finish()) == b"abcde"


def test_a_finished_builder_is_over():
    builder = FrameBuilder()
    assert bytes(builder.finish()) == b""
    for change in (builder.finish, lambda: builder.write(b""), lambda: memoryview(builder)):
        with pytest.raises((ValueError, BufferError), match="finished"):
            change()


@given(st.integers(0, 5000), st.lists(st.binary(max_size=3000), max_size=6))
def test_hypothesis_writes_are_joined_whatever_the_hint(size_hint, parts):
    builder = FrameBuilder(size_hint)
    for part in parts:
        assert builder.write(bytearray(part)) == len(part)
    frame = builder.finish()
    assert bytes(frame) == (b"".join(parts) if parts else bytes(size_hint))
    assert frame.address % 64 == 0


def test_writing_after_a_view_was_taken_starts_at_zero():
    builder = FrameBuilder(8)
    with memoryview(builder) as view:
        view[:] = b"xxxxxxxx"
    builder.write(b"ab")
    assert len(builder) == 8
    assert bytes(builder.finish()) == b"ab"


def test_a_builder_that_cannot_be_had_is_a_memory_error():
    with pytest.raises(MemoryError):
        FrameBuilder(2**62)
    with pytest.raises(OverflowError):
        FrameBuilder(-1)


def test_a_large_buffer_returns_warm_and_shows_nothing_of_the_last_frame():
    framecache.trim_pool()
    builder = FrameBuilder(1 << 20)
    builder.write(b"\xa5" * (1 << 20))
    frame = builder.finish()
    used = frame.address
    del frame
    assert framecache.pool_nbytes() == 1 << 20
    builder = FrameBuilder(1 << 20)
    with memoryview(builder) as view:
        assert address(view) == used
        assert bytes(view) == bytes(1 << 20)
    del builder
    assert framecache.trim_pool() == 1 << 20
    assert framecache.pool_nbytes() == 0


def test_the_pool_is_bounded():
    for size in (300 << 20, 128 << 20, 100 << 20, 90 << 20):
        FrameBuilder(size)
        assert framecache.pool_nbytes() <= 256 << 20
    framecache.trim_pool()


def test_frames_are_made_and_dropped_by_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    def churn(seed):
        data = bytes([seed]) * (100_000 + seed * 7919)
        for _ in range(50):
            builder = FrameBuilder()
            builder.write(data)
            frame = builder.finish()
            if bytes(frame) != data:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(churn, range(8)))


def test_a_builder_that_one_thread_writes_can_be_asked_for_views_by_another():
    import threading

    data = bytes(range(256)) * 4096
    builder = FrameBuilder(2 * len(data))
    stop = threading.Event()
    refused = []

    def ask():
        while not stop.is_set():
            try:
                with memoryview(builder) as view:
                    assert len(view) >= len(data)
            except (RuntimeError, BufferError) as error:
                refused.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    written = 0
    for _ in range(100):
        try:
            written += builder.write(data)
        except (RuntimeError, BufferError) as error:
            refused.append(error)
    stop.set()
    thread.join()
    frame = builder.finish()  # no view was lost count of
    assert frame.nbytes == written
    assert bytes(frame) == data * (written // len(data))


def test_a_builder_can_write_a_view_of_itself():
    builder = FrameBuilder(8)
    with memoryview(builder) as view:
        view[:] = b"01234567"
        builder.write(b"ab")
        builder.write(view[:6])
        assert bytes(view) == b"abab2345"
    assert bytes(builder.finish()) == b"abab2345"


def test_a_frame_that_names_itself_helps():
    assert repr(Frame(b"abc")) == "<framecache.Frame of 3 bytes, in memory>"
    assert "10 bytes" in repr(FrameBuilder(10))
