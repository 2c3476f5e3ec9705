"""Sealed entries in both tiers: what memory keeps of them, keyrings of functions, tenants, compression, removal."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from framecache import Cache, DecodeError, InvalidArgument, ValueTooLarge
from framecache._framecache import Store
from framecache.crypto import Keyring
from support import frame_in, put_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MASTER, NEXT = bytes(range(32)), bytes(range(100, 132))
#: A part of values that stands nowhere else.
SECRET = "wertvoll-" * 20


@pytest.fixture
def open_cache(directory: Path) -> Callable[..., Cache]:
    """Opens the one cache of the test: with a keyring of `MASTER` and memory, or with other arguments."""

    def opened(**arguments: Any) -> Cache:
        return Cache(f"file://{directory}", **{"keyring": Keyring(MASTER), "l1": "64MiB", **arguments})

    return opened


def name_of(key: str, master: bytes = MASTER) -> str:
    return Keyring(master).names(key)[0].hex()


def held_by_l1(cache: Cache) -> bytes:
    """All bytes that the entries of L1 refer to."""
    l1, found = cache._l1, []
    assert l1 is not None
    for canonical in [cache._tiers.scope.to_bytes(4, "little") + key for key in l1.keys(cache._tiers.scope)]:
        entry = l1.entry(canonical)
        assert entry is not None
        value, payload, codec, described, *_ = entry
        found += [repr((value, codec, described)).encode(), b"" if payload is None else bytes(payload)]
    return b"".join(found)


# What memory keeps


@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), {"k": [SECRET]}, bytearray(SECRET.encode())])
def test_l1_keeps_ciphertext_where_that_is_asked_for(open_cache: Callable[..., Cache], value: Any) -> None:
    sealed, plain = open_cache(l1_sealed=True), open_cache()
    sealed.set("k", value)
    for cache in (sealed, plain):
        assert [cache.get("k") for _ in range(3)] == [value] * 3
        assert cache.stats() == {"hit": 3, "l1_hit": 2, "store_hit": 1}
    secret = SECRET.encode()
    assert secret not in held_by_l1(sealed)
    assert secret in held_by_l1(plain)
    # Each caller has an object of its own, opened from the frame that stands there.
    assert sealed._keyring is not None
    assert sealed._keyring.stats()["opened"][sealed._keyring.key_ids[0]] == 3


def test_tables_and_blobs_are_opened_from_a_sealed_l1(open_cache: Callable[..., Cache]) -> None:
    pa = pytest.importorskip("pyarrow")
    cache = open_cache(l1_sealed=True)
    values = {"table": pa.table({"n": list(range(50_000))}), "blob": bytes(range(256)) * 4000}
    for key, value in values.items():
        cache.set(key, value)
        for _ in range(2):
            assert cache.get(key) == value
        view = cache.get(key, views=True)
        assert view == value
    assert bytes(range(256)) not in held_by_l1(cache)
    assert cache.delete("blob")
    assert cache.get("blob", "miss") == "miss"


def test_functions_are_answered_from_a_sealed_l1(open_cache: Callable[..., Cache]) -> None:
    cache, calls = open_cache(l1_sealed=True), []

    @cache
    def f(number: int) -> dict[str, Any]:
        calls.append(number)
        return {"secret": SECRET, "number": number}

    results = [f(1) for _ in range(4)]
    assert results == [{"secret": SECRET, "number": 1}] * 4
    assert len({id(result) for result in results}) == 4
    assert calls == [1]
    with pytest.raises(InvalidArgument, match="share"):
        cache(share=True)(lambda: None)


def test_an_event_loop_is_answered_from_a_sealed_l1(open_cache: Callable[..., Cache], directory: Path) -> None:
    cache = open_cache(l1_sealed=True)

    async def main() -> None:
        await cache.aset("k", {"secret": SECRET})
        assert [await cache.aget("k") for _ in range(3)] == [{"secret": SECRET}] * 3
        await cache.aset("changed", SECRET)
        sealed = frame_in(directory, name_of("changed"))
        put_frame(directory, name_of("changed"), sealed[:-1] + bytes([sealed[-1] ^ 1]))
        # It is removed in a worker thread.
        assert await cache.aget("changed", "miss") == "miss"

    asyncio.run(main())
    assert cache.stats() == {"hit": 3, "l1_hit": 2, "store_hit": 1, "changed": 1, "tamper": 1}
    assert Store(str(directory)).entry(name_of("changed"), 0) is None


# One function's results


def test_one_functions_results_are_sealed(open_cache: Callable[..., Cache], directory: Path) -> None:
    cache, keyring = open_cache(keyring=None), Keyring(MASTER)

    @cache(keyring=keyring, version=1, name="private", tags=["t"], codec="json")
    def private(number: int) -> list[Any]:
        return [SECRET, number]

    @cache(version=1, name="public", codec="json")
    def public(number: int) -> list[Any]:
        return [SECRET, number]

    assert private(1) == private(1) == public(1) == [SECRET, 1]
    assert set(cache.keys()) == {public.key(1), name_of(private.key(1))}
    assert SECRET.encode() not in frame_in(directory, name_of(private.key(1)))
    assert SECRET.encode() in frame_in(directory, public.key(1))
    # Another process' function with the keyring finds it; one without does not.
    again = open_cache(keyring=None)
    assert again(keyring=Keyring(MASTER), version=1, name="private", codec="json")(private.__wrapped__).get(1) == [
        SECRET,
        1,
    ]
    assert again(version=1, name="private", codec="json")(private.__wrapped__).get(1) is None
    assert again(keyring=Keyring(NEXT), version=1, name="private", codec="json")(private.__wrapped__).get(1) is None
    cache.invalidate_tags("t")
    assert private.get(1) is None
    assert public.get(1) == [SECRET, 1]
    private(2)
    cache.clear()
    assert private.get(2) is None
    private(3)
    assert private.invalidate(3)
    assert private.get(3) is None
    private(4)
    private.cache_clear()
    assert private.get(4) is None


def test_a_keyring_of_a_function_means_nothing_to_memory_alone() -> None:
    cache = Cache(l1="1MiB")
    calls = []

    @cache(keyring=Keyring(MASTER))
    def f(number: int) -> int:
        calls.append(number)
        return number

    assert (f(1), f(1), calls) == (1, 1, [1])
    with pytest.raises(InvalidArgument, match="tenant"):
        cache(keyring=Keyring(MASTER, tenant=lambda: "t"))(lambda: None)


# A tenant for each request

tenant: ContextVar[str] = ContextVar("tenant")


def test_requests_see_their_own_tenants_entries_only(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache(keyring=Keyring(MASTER, tenant=tenant))

    @cache
    def f(number: int) -> str:
        return f"{tenant.get()} {number}"

    for who in ("one", "other") * 3:
        tenant.set(who)
        assert f(1) == f"{who} 1"
        assert cache.get("k", who) == who
        cache.set("k", who)
        assert cache.get("k") == who
        assert cache.get_or_set("l", tenant.get) == who
        cache.delete("k")
    assert f.cache_info().misses == 2
    assert cache.health()["l1"] is None


def test_no_tenant_waits_for_what_another_one_computes(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache(keyring=Keyring(MASTER, tenant=tenant))
    inside, go, results = threading.Barrier(2), threading.Event(), []

    @cache(name="f")
    def f() -> str:
        if tenant.get() == "one":
            inside.wait(60)
            assert go.wait(60)
        return tenant.get()

    def request() -> None:
        tenant.set("one")
        results.append(f())

    thread = threading.Thread(target=request)
    thread.start()
    inside.wait(60)
    tenant.set("other")
    assert f() == "other"
    go.set()
    thread.join()
    assert results == ["one"]


# Compression


@pytest.mark.parametrize("compression", ["lz4", "zstd:3", "auto"])
def test_values_are_compressed_before_they_are_sealed_where_that_is_asked_for(
    open_cache: Callable[..., Cache], directory: Path, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    values = {
        "text": SECRET * 1000,
        "raw": SECRET.encode() * 1000,
        "json": [SECRET] * 1000,
        "table": pa.table({"n": [1] * 50_000}),
        "short": "x",
        "empty": b"",
    }
    sizes: dict[str, list[int]] = {key: [] for key in values}
    monkeypatch.setenv("FRAMECACHE_COMPRESSION", "lz4")  # which says nothing of what is sealed
    for cache in (open_cache(), open_cache(compression=compression)):
        for key, value in values.items():
            cache.set(key, value, codec="json" if key == "json" else None)
            assert cache.get(key) == value
            sizes[key].append(len(frame_in(directory, name_of(key))))
    for key in ("text", "raw", "json", "table"):
        assert sizes[key][1] < sizes[key][0] / 5, key
    for key in ("short", "empty"):
        assert sizes[key][0] == sizes[key][1], key
    # Reading needs no setting.
    assert open_cache().get("text") == SECRET * 1000


def test_sizes_are_bounded_both_ways(open_cache: Callable[..., Cache]) -> None:
    wide = open_cache(compression="lz4")
    wide.set("k", SECRET * 1000)
    for arguments in ({}, {"compression": "lz4"}):
        narrow = open_cache(max_value_bytes=10_000, **arguments)
        for value in (b"x" * 10_001, "x" * 10_001, ["x" * 10_001]):
            with pytest.raises(ValueTooLarge, match="10000"):
                narrow.set("k", value)
        assert narrow.set("fits", b"x" * 10_000)
        assert narrow.get("fits") == b"x" * 10_000
        assert narrow.get("k", "miss") == "miss"
        assert narrow.stats() == {"hit": 1, "store_hit": 1, "undecodable": 1}
    assert wide.get("k") == SECRET * 1000


def test_a_keyring_packs_and_unpacks() -> None:
    keyring = Keyring(MASTER)
    value = SECRET.encode() * 100
    name, sealed = keyring.seal_value("k", "raw", value, {"type": "bytes"}, compression="lz4")
    assert len(sealed) < len(value) / 5
    payload, codec, python, *_ = keyring.open_value("k", sealed)
    assert (bytes(payload), codec, python) == (value, "raw", {"type": "bytes"})
    with pytest.raises(DecodeError, match="max_value_bytes"):
        keyring.open_value("k", sealed, max_value_bytes=len(value) - 1)
    with pytest.raises(ValueTooLarge):
        keyring.seal_value("k", "raw", value, {}, max_value_bytes=len(value) - 1)
    with pytest.raises(InvalidArgument, match="compression"):
        keyring.seal_value("k", "raw", value, {}, compression="brotli")
    assert keyring.names("k") == [name]


# Removal


def test_only_the_entry_that_was_read_is_removed(open_cache: Callable[..., Cache], directory: Path) -> None:
    cache, store = open_cache(), Store(str(directory))
    cache.set("k", "one")
    name = name_of("k")
    looked = store.look(name, 0, whole=True)
    assert isinstance(looked, tuple)
    cache.set("k", "two")
    assert not store.delete_if(name, looked[-1], 0)
    assert cache.get("k") == "two"
    looked = store.look(name, 0, whole=True)
    assert isinstance(looked, tuple)
    assert not Store(str(directory), read_only=True).delete_if(name, looked[-1], 0)
    assert store.delete_if(name, looked[-1], 0)
    assert not store.delete_if(name, looked[-1], 0)
    # Copies are not served any more either.
    assert cache.get("k", "miss") == "miss"
    with pytest.raises(InvalidArgument, match="guards"):
        store.delete_if(name, b"12345", 0)


def test_one_entry_takes_the_place_of_others(directory: Path) -> None:
    store, frame = Store(str(directory)), b"frame"
    assert store.put_frames([("old", frame, []), ("older", frame, []), ("kept", frame, [])], 1) == ["written"] * 3
    fence = store.fence("old", [])
    assert store.put_frames([("new", frame, ["old", "none"])], 1, if_absent=True) == ["exists"]
    assert store.put_frames([("new", frame, ["new", "old", "older", "none"])], 1, fence=fence) == ["written"]
    assert [store.contains(key, 1) for key in ("new", "old", "older", "kept")] == [True, False, False, True]
    assert not store.holds(fence)
    assert store.put_frames([("late", frame, ["new"])], 1, fence=fence) == ["superseded"]
    assert store.contains("new", 1)


def test_a_rotation_keeps_set_if_absent_exact(open_cache: Callable[..., Cache]) -> None:
    """Of workers before and after the change of the current key, one stores a value."""
    orders = [(NEXT, MASTER), (MASTER, NEXT)]
    caches = [open_cache(keyring=Keyring(current, previous=[other]), l1=None) for current, other in orders]
    barrier, stored = threading.Barrier(2), []

    def work(cache: Cache) -> None:
        for number in range(100):
            barrier.wait(60)
            if cache.set(str(number), id(cache), if_absent=True):
                stored.append(number)

    threads = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored) == list(range(100))


def test_a_sealed_stream_is_no_sign_of_tampering(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache(on_tamper="raise")
    with cache.open_writer("stream") as writer:
        writer.write(SECRET.encode())
    assert cache.get("stream", "miss") == "miss"
    assert cache.stats() == {"unreadable": 1}
    with cache.open_reader("stream") as reader:
        assert reader.read() == SECRET.encode()
