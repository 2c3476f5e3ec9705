"""ByteStorage: what is written and read, against cachekit in both directions, and what is refused."""

import itertools
import json
import runpy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache
from framecache import ByteStorage, DecodeError, Frame, FrameBuilder, SerializationWrapper, ValueTooLarge
from support import run, traced_peak

msgpack = pytest.importorskip("msgpack")  # of cachekit, as is xxhash
xxhash = pytest.importorskip("xxhash")
DOCS = Path(__file__).parents[2] / "proto-docs"
NAMES = ("compressed_data", "checksum", "original_size", "format")
MIB = 2**20

storage = ByteStorage()


@pytest.fixture(scope="module")
def reference():
    return pytest.importorskip("cachekit._rust_serializer").ByteStorage("msgpack")


def address(buffer):
    return np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]


def literals(data):
    """The LZ4 block of up to 14 bytes that does not compress them."""
    return bytes([len(data) << 4]) + data


def envelope_of(data=b"0123456789", **changed):
    """The fields of an envelope, with changes."""
    fields = {
        "compressed_data": literals(data),
        "checksum": list(xxhash.xxh3_64_digest(data)),
        "original_size": len(data),
        "format": "msgpack",
    }
    return fields | changed


def packed(**changed):
    return msgpack.packb([envelope_of(**changed)[name] for name in NAMES])


def data_of(envelope):
    """What an envelope gives, or `None` where it is refused."""
    try:
        data, kind = storage.retrieve(envelope)
    except DecodeError:
        return None
    return bytes(data), kind


PAYLOADS = st.builds(bytes.__mul__, st.binary(max_size=300), st.integers(0, 300))


@given(PAYLOADS, st.text(max_size=300))
def test_hypothesis_what_is_stored_comes_back(data, kind):
    envelope = storage.store(data, kind)
    assert type(envelope) is bytes
    found, found_kind = storage.retrieve(envelope)
    assert (bytes(found), found_kind) == (data, kind)
    assert storage.validate(envelope)


@given(PAYLOADS, st.text(max_size=300))
def test_hypothesis_cachekit_reads_ours_and_we_read_cachekits(reference, data, kind):
    ours, theirs = storage.store(data, kind), reference.store(data, kind)
    assert reference.retrieve(ours) == (data, kind)
    assert data_of(theirs) == (data, kind)
    # Everything around the block, whose bytes LZ4 leaves to the writer.
    assert msgpack.unpackb(ours)[1:] == msgpack.unpackb(theirs)[1:]


@given(PAYLOADS, st.data())
def test_hypothesis_what_we_accept_of_damaged_envelopes_cachekit_accepts_too(reference, data, draw):
    envelope = bytearray(storage.store(data))
    for _ in range(draw.draw(st.integers(1, 3))):
        envelope[draw.draw(st.integers(0, len(envelope) - 1))] = draw.draw(st.integers(0, 255))
    if (found := data_of(bytes(envelope))) is not None:
        assert found[0] == data
        assert reference.retrieve(bytes(envelope)) == found


def forms():
    """Envelopes of one value in the forms that were ever written, and which a MessagePack library might write."""
    fields = envelope_of(b"\x00\x7f\x80\xff89abcd")
    block, checksum, size, kind = (fields[name] for name in NAMES)
    integers, digest = list(block), bytes(checksum)
    yield from (
        ("0.17 to 0.24", msgpack.packb([block, checksum, size, kind])),
        ("0.1 to 0.16", msgpack.packb([integers, checksum, size, kind])),
        ("binary checksum", msgpack.packb([block, digest, size, kind])),
        ("bytes after it", msgpack.packb([block, checksum, size, kind]) + b"\x00more"),
    )
    for order in itertools.permutations(NAMES):
        yield "map " + " ".join(order), msgpack.packb({name: fields[name] for name in order})
    rest = msgpack.packb([checksum, size, kind])[1:]
    yield from (
        ("bin16", b"\x94\xc5" + len(block).to_bytes(2, "big") + block + rest),
        ("bin32", b"\x94\xc6" + len(block).to_bytes(4, "big") + block + rest),
        ("array16", b"\xdc\x00\x04" + msgpack.packb(block) + rest),
        ("array32", b"\xdd\x00\x00\x00\x04" + msgpack.packb(block) + rest),
        ("wide integers", b"\x94" + msgpack.packb(block) + b"\x98" + b"".join(
            b"\xcf" + number.to_bytes(8, "big") for number in checksum) + b"\xd2\x00\x00\x00\x0a\xa7msgpack"),
        ("wide string", b"\x94" + msgpack.packb(block) + msgpack.packb([checksum, size])[1:]
            + b"\xdb\0\0\0\x07msgpack"),
    )  # fmt: skip


@pytest.mark.parametrize("form", [pytest.param(envelope, id=name) for name, envelope in forms()])
def test_all_forms_are_read_as_cachekit_reads_them(reference, form):
    assert data_of(form) == (b"\x00\x7f\x80\xff89abcd", "msgpack") == reference.retrieve(form)


MALFORMED = {
    "nothing": b"",
    "nil": b"\xc0",
    "three fields": msgpack.packb([b"\0", [0] * 8, 0]),
    "five fields": msgpack.packb([*envelope_of().values(), 1]),
    "a field missing": msgpack.packb(dict(list(envelope_of().items())[:3])),
    "a field twice": b"\x84" + (msgpack.packb("format") + msgpack.packb("x")) * 4,
    "a float as size": packed(original_size=10.0),
    "a negative size": packed(original_size=-10),
    "a size of 2**32": packed(original_size=2**32),
    "a size above 512 MiB": packed(original_size=512 * MIB + 1),
    "a size above 1000 times": packed(original_size=11_001),
    "a size of data longer": packed(original_size=11),
    "a size of data shorter": packed(original_size=9),
    "no block": packed(compressed_data=b"", original_size=0),
    "a block that ends early": packed(compressed_data=b"\xf0\xff"),
    "a block that goes back before its start": packed(compressed_data=b"\x10a\x05\x00\x50bcdef"),
    "a block with offset 0": packed(compressed_data=b"\x10a\x00\x00\x50bcdef"),
    "a block of integers above 255": packed(compressed_data=[256]),
    "an array of 2**32 - 1 integers": b"\x94\xdd\xff\xff\xff\xff" + bytes(100),
    "an array of 2**16 - 1 integers": b"\x94\xdc\xff\xff" + bytes(100),
    "a binary of 2**32 - 1 bytes": b"\x94\xc6\xff\xff\xff\xff" + bytes(100),
    "a string of 2**32 - 1 bytes": packed()[:-8] + b"\xdb\xff\xff\xff\xff" + bytes(100),
    "an array of 2**32 - 1 fields": b"\xdd\xff\xff\xff\xff" + bytes(100),
    "a map of 2**32 - 1 fields": b"\xdf\xff\xff\xff\xff" + bytes(100),
    "a checksum of seven": packed(checksum=[0] * 7),
    "a checksum of nine": packed(checksum=[0] * 9),
    "another checksum": packed(checksum=[0] * 8),
    "a checksum of nil": packed(checksum=None),
    "a format that is not UTF-8": packed()[:-1] + b"\xff",
    "no format": packed(format=None),
    "nested envelopes": msgpack.packb([envelope_of()] * 4),
    "a deep nest": b"\x94" * 100_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_by_both(reference, name):
    with pytest.raises(DecodeError, match=r"^cannot decode ByteStorage payload: .+: expected .+, found ") as raised:
        storage.retrieve(MALFORMED[name])
    assert isinstance(raised.value, ValueError)
    assert not storage.validate(MALFORMED[name])
    with pytest.raises(ValueError, match="Retrieval failed"):
        reference.retrieve(MALFORMED[name])


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(msgpack.packb({**envelope_of(), "more": 1}), id="a fifth field"),
        pytest.param(msgpack.packb(dict(enumerate(envelope_of().values()))), id="numbers for names"),
        pytest.param(packed(format=b"msgpack"), id="a binary format"),
        pytest.param(packed(checksum=xxhash.xxh3_64_digest(b"0123456789") + b"x"), id="a binary checksum of nine"),
        pytest.param(b"\x94\xab" + literals(b"0123456789") + packed()[14:], id="a string as block"),
    ],
)  # fmt: skip
def test_forms_that_nobody_wrote_are_refused_though_cachekit_reads_them(reference, envelope):
    assert reference.retrieve(envelope)[0] == b"0123456789"
    assert data_of(envelope) is None


def test_a_failed_checksum_says_both():
    data = b"0123456789"
    right, wrong = xxhash.xxh3_64_hexdigest(data), "00" * 8
    with pytest.raises(DecodeError, match=f"checksum: expected data with the checksum {wrong}, found {right}"):
        storage.retrieve(packed(checksum=[0] * 8))


def test_every_flipped_bit_is_an_error_or_gives_the_same_data_and_every_cut_is_an_error():
    data = bytes(range(100)) * 3
    envelope = storage.store(data)
    for position, bit in itertools.product(range(len(envelope)), range(8)):
        damaged = bytearray(envelope)
        damaged[position] ^= 1 << bit
        found = data_of(bytes(damaged))
        assert found is None or found[0] == data
    assert [data_of(envelope[:end]) for end in range(len(envelope))] == [None] * len(envelope)


def test_a_lying_size_costs_no_memory():
    bombs = [
        packed(original_size=2**32 - 1),
        packed(original_size=512 * MIB),
        b"\x94\xdd\x1f\xff\xff\xff" + bytes(1000),
        # 1000 times the block, which LZ4 cannot reach.
        packed(compressed_data=bytes(500_000), original_size=500_000_000),
        b"\x94\xdd\x00\x07\xa1\x20" + bytes(500_000) + packed(original_size=500_000_000)[14:],
    ]
    with traced_peak() as peak:
        for bomb in bombs:
            with pytest.raises(DecodeError):
                storage.retrieve(bomb)
        assert peak() < 2 * MIB


def test_the_limits_are_cachekits(reference):
    assert reference.max_uncompressed_size == ByteStorage.MAX_UNCOMPRESSED_SIZE
    assert ByteStorage.MAX_COMPRESSED_SIZE == reference.max_compressed_size == ByteStorage.MAX_ENVELOPE_SIZE
    assert reference.max_compression_ratio == ByteStorage.MAX_COMPRESSION_RATIO


def test_too_much_data_is_refused():
    code = """
    import framecache
    storage = framecache.ByteStorage()
    limit = storage.MAX_UNCOMPRESSED_SIZE
    zeros = bytes(limit + 1)
    for attempt in (lambda: storage.store(zeros), lambda: storage.retrieve(zeros)):
        try:
            attempt()
        except framecache.FramecacheError as error:
            print(type(error).__name__, isinstance(error, ValueError), str(limit) in str(error))
    """
    assert run(code) == "ValueTooLarge True True\nDecodeError True True\n"
    assert issubclass(ValueTooLarge, ValueError)


SOURCES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "Frame": Frame,
    "memoryview of bytes": memoryview,
    "memoryview of a bytearray": lambda data: memoryview(bytearray(data)),
    "memoryview of a Frame": lambda data: memoryview(Frame(data)),
    "a part of a memoryview": lambda data: memoryview(b"xx" + data + b"yy")[2:-2],
    "a view of numbers": lambda data: memoryview(np.frombuffer(data, np.uint8)),
    "an unwrapped frame": lambda data: SerializationWrapper.unwrap(SerializationWrapper.wrap(data, {}, "x"))[0],
    "an unwrapped bytearray": lambda data: SerializationWrapper.unwrap(
        bytearray(SerializationWrapper.wrap(data, {}, "x"))
    )[0],
    "a view of a view": lambda data: memoryview(memoryview(data)).toreadonly(),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("size", [0, 1000, 300_000])
def test_any_buffer_is_stored_and_retrieved(source, size):
    data = np.random.default_rng(1).bytes(size // 2) * 2
    envelope = storage.store(SOURCES[source](data))
    assert envelope == storage.store(data)
    found, _ = storage.retrieve(SOURCES[source](envelope))
    assert found == data


def test_what_cannot_change_is_not_copied_and_what_can_is():
    data = np.random.default_rng(1).bytes(8 * MIB)
    envelope = storage.store(data)
    del data
    peaks = {}
    for source in SOURCES:
        given_envelope = SOURCES[source](envelope)
        framecache.trim_pool()
        with traced_peak() as peak:
            assert storage.validate(given_envelope)
            peaks[source] = peak() / MIB
    framecache.trim_pool()
    copied = {source for source, peak in peaks.items() if peak > 12}
    assert copied == {"bytearray", "memoryview of a bytearray", "a view of numbers", "an unwrapped bytearray"}


def test_a_strided_view_and_text_are_refused():
    with pytest.raises(BufferError):
        storage.store(memoryview(b"0123")[::2])
    for call in (storage.store, storage.retrieve, storage.validate):
        for other in ("text", None, 1):
            with pytest.raises(TypeError):
                call(other)


def test_retrieved_data_is_read_only_aligned_memory_of_its_own():
    data = bytes(range(256)) * 1000
    found, _ = storage.retrieve(storage.store(data))
    assert type(found) is memoryview
    assert found.readonly
    assert found.obj.address == address(found)
    assert address(found) % 64 == 0
    assert not found.obj.is_zero_copy
    assert not found.obj.is_trusted
    with pytest.raises(TypeError):
        found[0] = 1


def test_a_checksum_raises_no_trust():
    builder = FrameBuilder()
    builder.write(storage.store(b"x" * 1000))
    assert not storage.retrieve(builder.finish())[0].obj.is_trusted


def test_the_format_is_the_default_one_unless_given():
    assert storage.retrieve(storage.store(b"x"))[1] == "msgpack"
    assert storage.retrieve(storage.store(b"x", format="ž" * 100))[1] == "ž" * 100
    other = ByteStorage("dataframe")
    assert other.retrieve(other.store(b"x"))[1] == "dataframe"
    assert other.retrieve(other.store(b"x", None))[1] == "dataframe"
    assert repr(other) == 'framecache.ByteStorage("dataframe")'
    with pytest.raises(ValueError, match="surrogate"):
        storage.store(b"x", "\ud800")


def test_nothing_of_an_earlier_buffer_is_seen_in_a_failed_or_short_one():
    secret = b"\xa5secret!" * 20_000
    storage.retrieve(storage.store(secret))
    for size in (1000, 150_000):
        with pytest.raises(DecodeError):
            storage.retrieve(packed(compressed_data=literals(b"0123456789") + bytes(700), original_size=size))
    data = b"\x01" * 150_000
    assert storage.retrieve(storage.store(data))[0] == data
    assert b"secret" not in storage.store(np.random.default_rng(1).bytes(150_000))


def test_a_bytearray_that_changes_while_it_is_stored_gives_a_whole_envelope():
    data = bytearray(np.random.default_rng(1).bytes(MIB // 2) * 2)
    stop = threading.Event()

    def change():
        counter = 0
        while not stop.is_set():
            data[counter % len(data)] = counter % 256
            counter += 4097

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(30):
            # The checksum is that of the bytes that were compressed, whichever they were.
            assert len(storage.retrieve(storage.store(data))[0]) == len(data)
            assert storage.validate(storage.store(memoryview(data)))
    finally:
        stop.set()
        thread.join()


def test_an_envelope_that_changes_while_it_is_read_is_read_as_it_was_or_refused():
    good = storage.store(b"0123456789" * 20_000)
    envelope = bytearray(good)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            envelope[len(envelope) // 2] ^= 0xFF

    thread = threading.Thread(target=change)
    thread.start()
    try:
        found = {data_of(envelope) for _ in range(100)}
    finally:
        stop.set()
        thread.join()
    assert found <= {None, (b"0123456789" * 20_000, "msgpack")}


def test_many_threads_share_one_storage():
    def churn(seed):
        data = np.random.default_rng(seed).bytes(50_000 + seed * 7919) * 3
        return all(storage.retrieve(storage.store(data, str(seed))) == (data, str(seed)) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(churn, range(8)))


@pytest.fixture
def ran():
    """Whether a thread that waits for nothing but the GIL gets it during a call; nobody is made to give it away."""
    begin, done = threading.Semaphore(0), threading.Semaphore(0)
    turns = []

    def wait():
        while begin.acquire() and not stop:
            turns.append(None)
            done.release()

    def during(call):
        turns.clear()
        begin.release()
        call()
        got = bool(turns)
        done.acquire()
        return got

    stop = []
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=wait)
    thread.start()
    sys.setswitchinterval(1000)
    yield during
    sys.setswitchinterval(interval)
    stop.append(True)
    begin.release()
    thread.join()


def test_large_envelopes_are_made_and_read_without_the_gil_and_small_ones_with_it(ran):
    data = bytes(range(256)) * (32 * 1024)
    for source in (bytes, bytearray):
        given_data, envelope = source(data), source(storage.store(data))
        for call in (storage.store, storage.retrieve, storage.validate):
            argument = given_data if call == storage.store else envelope
            # Should the machine not have run the other thread in all that time, once more.
            assert any(ran(lambda call=call, argument=argument: call(argument)) for _ in range(20))
    small = bytes(1000)
    assert not ran(lambda: storage.retrieve(storage.store(small)))


def vectors(kind, **fields):
    lines = (DOCS / "vectors/bytestorage.jsonl").read_text(encoding="ascii").splitlines()
    chosen = [
        vector
        for vector in map(json.loads, lines)
        if vector["kind"] == kind and all(vector.get(name) == value for name, value in fields.items())
    ]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["name"])


def stated(vector):
    """The data of a valid vector."""
    data = vector["data_hex"]
    if isinstance(data, dict):
        repeated, times = data["repeat"]
        return bytes.fromhex(repeated) * times + bytes.fromhex(data["then"])
    return bytes.fromhex(data)


@vectors("valid")
def test_valid_vectors_are_read_by_both(reference, vector):
    envelope = bytes.fromhex(vector["hex"])
    assert data_of(envelope) == (stated(vector), vector["format"]) == reference.retrieve(envelope)


@vectors("valid", writer="cachekit")
def test_vectors_are_written_byte_for_byte_by_both(reference, vector):
    data = bytes.fromhex(vector["data_hex"])
    assert storage.store(data, vector["format"]).hex() == vector["hex"]
    assert reference.store(data, vector["format"]).hex() == vector["hex"]


@vectors("malformed")
def test_malformed_vectors_are_refused(vector):
    assert data_of(bytes.fromhex(vector["hex"])) is None


def test_the_vectors_are_what_the_script_makes(tmp_path):
    vectors = DOCS / "vectors"
    for file in ("make_bytestorage.py", "cachekit-entries.jsonl"):
        (tmp_path / file).write_bytes((vectors / file).read_bytes())
    runpy.run_path(str(tmp_path / "make_bytestorage.py"), run_name="__main__")
    made = (tmp_path / "bytestorage.jsonl").read_bytes()
    assert made == (vectors / "bytestorage.jsonl").read_bytes(), "run make_bytestorage.py"
