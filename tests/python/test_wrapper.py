"""SerializationWrapper: the same bytes as the reference, payloads that alias their frame, malformed input."""

import gc
import json
import mmap
import sys
import threading
import weakref

import numpy as np
import pytest
from cachekit.serializers.wrapper import SerializationWrapper as Reference
from hypothesis import given
from hypothesis import strategies as st

import framecache
from framecache import Frame, FrameError, SerializationWrapper

wrap, unwrap = SerializationWrapper.wrap, SerializationWrapper.unwrap
METADATA = {"format": "msgpack", "encoding": "utf-8", "compressed": True, "original_type": None}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
metadata_dicts = st.dictionaries(st.text(), values, max_size=6)


def address(view):
    return np.frombuffer(view, np.uint8).__array_interface__["data"][0]


@given(st.binary(max_size=300), metadata_dicts, st.text(min_size=1), st.text())
def test_hypothesis_wrap_is_the_references_and_unwrap_gives_everything_back(data, metadata, name, version):
    frame = wrap(data, metadata, name, version)
    assert frame == Reference.wrap(data, metadata, name, version)
    payload, found, serializer = unwrap(frame)
    assert (bytes(payload), found, serializer) == (data, metadata, name)
    assert [type(value) for value in found.values()] == [type(value) for value in metadata.values()]
    payload, shared, serializer = SerializationWrapper.unwrap_metadata(frame)
    assert (bytes(payload), dict(shared), serializer) == (data, metadata, name)


@given(metadata_dicts, st.integers(1, 300), st.integers(0, 1000))
def test_hypothesis_a_padded_prefix_is_the_references_and_aligns_the_payload(metadata, align, offset):
    prefix = SerializationWrapper.wrap_prefix(metadata, "arrow", align=align, offset=offset)
    assert prefix == Reference.wrap_prefix(metadata, "arrow", align=align, offset=offset)
    assert (offset + len(prefix)) % align == 0
    payload, found, name = unwrap(prefix + b"payload")
    assert (bytes(payload), found, name) == (b"payload", metadata, "arrow")


@pytest.mark.parametrize(
    "metadata",
    [
        {1: 2, None: 3, False: 4, 1.5: 5},
        {"a": (1, [2, {"b": 3}])},
        {"big": 2**64, "small": -(2**70)},
        {"f": 1e30, "g": -0.0},
    ],
)
def test_metadata_that_json_dumps_converts_is_converted_the_same(metadata):
    assert wrap(b"x", metadata, "default") == Reference.wrap(b"x", metadata, "default")
    assert unwrap(wrap(b"x", metadata, "default"))[1] == json.loads(json.dumps(metadata))


def test_metadata_that_no_reader_takes_is_not_written():
    deep = []
    for _ in range(126):
        deep = [deep]
    for unreadable in ({"x": deep}, {"x": 10**400}):
        with pytest.raises(framecache.EncodeError, match="metadata"):
            wrap(b"x", unreadable, "default")
    assert unwrap(wrap(b"x", {"x": deep[0][0]}, "default"))[1] == {"x": deep[0][0]}


def test_a_negative_zero_keeps_its_type():
    header = b'{"s":"a","m":{"x":-0,"y":-0.0}}'
    found = unwrap(b"CK\x03" + len(header).to_bytes(4, "big") + header)[1]
    assert [(type(value), repr(value)) for value in found.values()] == [(int, "0"), (float, "-0.0")]


@pytest.mark.parametrize(
    "metadata", [{"x": object()}, {"x": float("nan")}, {"x": float("inf")}, {"x": {1, 2}}, {(1,): 2}]
)
def test_metadata_that_json_cannot_hold_is_refused(metadata):
    with pytest.raises(framecache.EncodeError, match="metadata"):
        wrap(b"x", metadata, "default")


def test_every_input_is_aliased_and_read_only(tmp_path):
    frame = wrap(b"payload" * 20, METADATA, "default")
    path = tmp_path / "frame"
    path.write_bytes(frame)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    start = len(frame) - 140
    for source in (frame, bytearray(frame), memoryview(frame), Frame(frame), mapped, np.frombuffer(frame, np.uint8)):
        payload, metadata, name = unwrap(source)
        assert (bytes(payload), metadata, name) == (b"payload" * 20, METADATA, "default")
        assert payload.readonly
        with pytest.raises(TypeError):
            payload[0] = 1
        assert address(payload) == address(source) + start


def test_every_argument_has_its_name():
    frame = wrap(data=b"p", metadata={"a": 1}, serializer_name="default", version="3")
    assert frame == Reference.wrap(b"p", {"a": 1}, "default", "3")
    assert bytes(unwrap(frame=frame)[0]) == b"p"
    assert SerializationWrapper.unwrap_metadata(frame=frame)[2] == "default"


def test_writing_to_an_unwrapped_bytearray_shows_in_the_payload():
    frame = bytearray(wrap(b"payload", METADATA, "default"))
    payload = unwrap(frame)[0]
    frame[-7:] = b"changed"
    assert bytes(payload) == b"changed"
    with pytest.raises(BufferError):
        frame.append(1)
    del payload
    frame.append(1)


def test_a_payload_keeps_its_frame_alive():
    frame = Frame(wrap(b"payload", METADATA, "default"))
    gone = weakref.ref(frame)
    payload = unwrap(frame)[0]
    del frame
    gc.collect()
    assert bytes(payload) == b"payload"
    assert gone() is None  # the payload holds the memory, not the first Frame of it

    source = wrap(b"p" * 1000, METADATA, "default")
    references = sys.getrefcount(source)
    payload = unwrap(source)[0]
    assert sys.getrefcount(source) == references + 1
    del payload
    assert sys.getrefcount(source) == references


def test_the_metadata_dict_is_the_callers_own():
    frame = wrap(b"", {"nested": {"a": [1]}, "flat": 1}, "default")
    for _ in range(4):  # the header is remembered from the second time on
        metadata = unwrap(frame)[1]
        assert metadata == {"nested": {"a": [1]}, "flat": 1}
        metadata["flat"] = 2
        metadata["nested"]["a"].append(2)
    flat = wrap(b"", {"flat": 1}, "default")
    for _ in range(4):
        metadata = unwrap(flat)[1]
        assert metadata == {"flat": 1}
        metadata["flat"] = 2


def test_shared_metadata_cannot_be_changed():
    frame = wrap(b"", {"a": 1}, "default")
    for _ in range(3):
        _, metadata, _ = SerializationWrapper.unwrap_metadata(frame)
        with pytest.raises(TypeError):
            metadata["a"] = 2
        assert dict(metadata) == {"a": 1}


def test_headers_in_one_place_of_the_memo_are_told_apart():
    frames = [wrap(b"", {"n": number}, "default") for number in range(5000)]
    for _ in range(3):
        assert [unwrap(frame)[1]["n"] for frame in frames] == list(range(5000))


MALFORMED = {
    b"": "offset 0",
    b"CK": "2 bytes in all",
    b"CK\x03\0\0\0": "6 bytes in all",
    b"CK\x01\0\0\0\0": "offset 2, expected frame version 3, found version 1",
    b"CK\x04\0\0\0\0": "version 4",
    b"CK\x03\0\0\0\x05{}": "expected a header of at most the 2 bytes left, found a length of 5 bytes",
    b"CK\x03\xff\xff\xff\xff{}": "1 MiB",
    b"CK\x03\0\0\0\0": "EOF",
    b"CK\x03\0\0\0\x02[]": "expected a header object",
    b"CK\x03\0\0\0\x02{}": "no",
    b'CK\x03\0\0\0\x08{"s":""}': "serializer name",
    b'CK\x03\0\0\0\x07{"s":1}': "string",
    b'CK\x03\0\0\0\x10{"s":"a","m":[]}': "metadata object",
    b"CK\x03\0\0\0\x05{x:1}": "offset",
    b"CK\x03\0\0\0\x03\xff{}": "UTF-8",
    b"XK\x03\0\0\0\x02{}": "frame",
    b"{}": "data",
    b'{"data": "****", "serializer": "a"}': "base64",
    b'{"data": "YQ==", "serializer": "", "metadata": {}}': "serializer",
    b'{"data": "YQ==", "serializer": "a", "metadata": []}': "metadata",
    b"not a frame": "legacy",
}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, Frame])
@pytest.mark.parametrize("frame", MALFORMED)
def test_malformed_frames_say_where_and_what(frame, kind):
    for read in (unwrap, SerializationWrapper.unwrap_metadata):
        with pytest.raises(FrameError) as caught:
            read(kind(frame))
        assert isinstance(caught.value, ValueError)
        assert "offset" in str(caught.value)
        assert MALFORMED[frame] in str(caught.value)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_absurd_nesting_is_a_frame_error(opening):
    deep = opening * 100_000
    for header in (deep, b'{"s":"a","x":' + deep, b'{"s":"a","m":{"x":' + deep, b'{"s":"a","m":' + deep):
        with pytest.raises(FrameError):
            unwrap(b"CK\x03" + len(header).to_bytes(4, "big") + header)
    with pytest.raises(FrameError):
        unwrap(b'{"data": "YQ==", "serializer": "a", "metadata": ' + deep)


def test_a_header_of_one_mebibyte_is_read_and_no_longer_one_written():
    room = 2**20 - len('{"s": "default", "m": {"x": ""}, "v": "2.0"}')
    assert unwrap(wrap(b"p", {"x": "y" * room}, "default"))[1] == {"x": "y" * room}
    with pytest.raises(framecache.InvalidArgument, match="1 MiB"):
        wrap(b"p", {"x": "y" * (room + 1)}, "default")


@given(st.binary(max_size=200), st.booleans())
def test_hypothesis_any_bytes_are_a_frame_or_a_frame_error(data, magic):
    data = b"CK\x03\0\0" + data if magic else data
    for source in (data, bytearray(data)):
        try:
            payload, metadata, name = unwrap(source)
        except FrameError:
            continue
        assert name
        assert isinstance(metadata, dict)
        assert data.endswith(bytes(payload)) or data.startswith(b"{")


@given(st.integers(0, 130), st.integers(0, 255))
def test_hypothesis_a_damaged_header_is_read_as_json_reads_it_or_refused(at, byte):
    frame = bytearray(wrap(b"payload", METADATA, "default"))
    header_end = len(frame) - 7
    at = 7 + at % (header_end - 7)
    frame[at] = byte
    try:
        _, metadata, name = unwrap(bytes(frame))
    except FrameError:
        return
    parsed = json.loads(frame[7:header_end])
    assert (metadata, name) == (parsed.get("m", {}), parsed["s"])


def test_legacy_text_and_bytes_give_bytes():
    envelope = (
        '{"data": "AAECAw==", "metadata": {"format": "msgpack", "n": 1.5}, "serializer": "default", "version": "2.0"}'
    )
    for source in (envelope, envelope.encode(), bytearray(envelope.encode()), Frame(envelope.encode())):
        payload, metadata, name = unwrap(source)
        assert type(payload) is bytes
        assert (payload, metadata, name) == (b"\0\1\2\3", {"format": "msgpack", "n": 1.5}, "default")
        assert (payload, metadata, name) == Reference.unwrap(envelope)


@pytest.mark.parametrize("source", [1, None, [1], 1.5])
def test_what_exports_no_buffer_is_a_type_error(source):
    with pytest.raises(TypeError):
        unwrap(source)
    with pytest.raises(TypeError):
        wrap(source, {}, "default")


def test_a_strided_buffer_is_a_buffer_error():
    with pytest.raises(BufferError):
        unwrap(memoryview(bytes(100))[::2])


def test_wrap_copies_every_kind_of_buffer():
    expected = wrap(b"abcd", {}, "default")
    for data in (bytearray(b"abcd"), memoryview(b"abcd"), Frame(b"abcd"), np.frombuffer(b"abcd", np.uint16)):
        assert wrap(data, {}, "default") == expected
    large = bytes(range(256)) * 8192  # 2 MiB: copied without the GIL
    assert wrap(large, {}, "default").endswith(large)


@pytest.mark.parametrize(("align", "offset"), [(0, 0), (-1, 0), (64, -1)])
def test_impossible_alignments_are_refused(align, offset):
    with pytest.raises(ValueError, match=r"align|offset"):
        SerializationWrapper.wrap_prefix({}, "arrow", align=align, offset=offset)


def test_a_bytearray_written_by_another_thread_meanwhile_harms_nothing_but_its_bytes():
    frame = bytearray(wrap(b"\0" * 4096, METADATA, "default"))
    header_end = len(frame) - 4096
    stop = threading.Event()

    def scribble():
        # NumPy releases the GIL for neither, but the interpreter switches threads in between.
        target, noise = np.frombuffer(frame, np.uint8), np.random.default_rng(1)
        while not stop.is_set():
            at = int(noise.integers(0, len(target)))
            target[at] = int(noise.integers(0, 256))

    thread = threading.Thread(target=scribble)
    thread.start()
    read = refused = 0
    try:
        for _ in range(20_000):
            try:
                payload, metadata, name = unwrap(frame)
            except FrameError:
                refused += 1
                np.frombuffer(frame, np.uint8)[:header_end] = np.frombuffer(wrap(b"", METADATA, "default"), np.uint8)
            else:
                assert isinstance(name, str)
                assert isinstance(metadata, dict)
                assert len(bytes(payload)) <= len(frame)
                read += 1
    finally:
        stop.set()
        thread.join()
    assert read
    assert refused
