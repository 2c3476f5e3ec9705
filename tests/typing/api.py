"""What users write, as type checkers see it: checked, never run."""

import mmap
from contextvars import ContextVar
from datetime import datetime, timedelta

import framecache
import framecache.arrow
from framecache import ByteStorage, Cache, EntryRefused, Frame, FrameBuilder, SerializationWrapper
from framecache.crypto import Keyring, MasterKey


def wrapping(data: bytes, mapped: mmap.mmap) -> None:
    frame: bytes = SerializationWrapper.wrap(data, {"format": "msgpack"}, "default")
    prefix: bytes = SerializationWrapper.wrap_prefix({}, "arrow", align=64, offset=22)
    payload, metadata, name = SerializationWrapper.unwrap(frame + prefix)
    metadata["mine"] = name
    view: memoryview | bytes = payload
    SerializationWrapper.unwrap(mapped)
    SerializationWrapper.unwrap("{}")
    _, shared, _ = SerializationWrapper.unwrap_metadata(bytearray(view))
    shared["mine"] = 1  # type: ignore[index]


def frames(data: bytes) -> int:
    builder = FrameBuilder(100)
    memoryview(builder)[:3] = b"abc"
    written: int = builder.write(data)
    frame: Frame = builder.finish()
    part: Frame = frame[1:]
    return written + part[0] + frame.nbytes + frame.address + framecache.trim_pool()


def envelopes(data: bytes, storage: ByteStorage) -> bool:
    envelope: bytes = storage.store(memoryview(data), format="msgpack")
    found, kind = ByteStorage("dataframe").retrieve(bytearray(envelope))
    view: memoryview = found
    limit: int = ByteStorage.MAX_UNCOMPRESSED_SIZE
    storage.store("text")  # type: ignore[arg-type]
    storage.MAX_ENVELOPE_SIZE = 1  # type: ignore[misc]
    return storage.validate(view) and kind == "dataframe" and len(data) < limit


def caching(value: object) -> bool:
    with Cache("file:///tmp/cache") as cache:
        cache.set("key", value, ttl=1.5)
        cache.set("key", value, ttl=timedelta(minutes=1))
        cache.get("key", framecache.MISSING, views=True, require_zero_copy=True)
        Cache("file:///tmp/cache", compression="zstd:9", max_value_bytes=1 << 34).close()
        Cache("file:///tmp/cache", "lz4")  # type: ignore[call-arg]
        counted: dict[str, int] = cache.stats()
        cache.get(1)  # type: ignore[arg-type]
        cache.set("key", value, ttl="1")  # type: ignore[arg-type]
    frame: Frame = framecache.arrow.encode(value)
    framecache.arrow.decode(frame, views=True)
    return cache.delete("key") and "key" in cache and "hit" in counted


def sealing(data: bytes, tenant: ContextVar[str]) -> str:
    key: MasterKey | None = MasterKey.from_env("KEY")
    keyring = Keyring(key or MasterKey.from_file("key"), previous=[data, data.hex()], tenant=tenant)
    Keyring.from_env(tenant=lambda: "default")
    Keyring(7)  # type: ignore[arg-type]
    names: list[bytes] = keyring.names("key")
    sealed: Frame = keyring.seal(memoryview(data), names[0], until=1)
    Cache("file:///tmp/cache", keyring=keyring, on_tamper="raise", accept_plaintext_until=datetime.max).close()
    Cache("file:///tmp/cache", keyring=keyring, on_tamper="ignore")  # type: ignore[arg-type]
    try:
        opened: Frame = keyring.open(sealed, names[0])
    except EntryRefused as error:
        return error.reason
    return opened.tobytes().decode()
