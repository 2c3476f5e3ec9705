"""Caches with a keyring: what their store sees, what it can do, and what the cache makes of it."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

import framecache
from framecache import Cache, CopyRequired, EntryRefused, InvalidArgument, msgpack
from framecache._framecache import Store
from framecache.crypto import Keyring
from support import frame_in, put_frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MASTER, NEXT = bytes(range(32)), bytes(range(100, 132))


@pytest.fixture
def open_cache(directory: Path) -> Callable[..., Cache]:
    """Opens the one cache of the test: with a keyring of `MASTER`, or with other arguments."""

    def opened(**arguments: Any) -> Cache:
        return Cache(f"file://{directory}", **{"keyring": Keyring(MASTER), **arguments})

    return opened


def name_of(key: str) -> str:
    """What the store has instead of a key."""
    return Keyring(MASTER).names(key)[0].hex()


def soon(seconds: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


@pytest.mark.parametrize("value", [b"bytes" * 50_000, bytearray(b"x"), {"a": [1, {2}, None]}, "text", 7])
def test_values_come_back(open_cache: Callable[..., Cache], value: Any) -> None:
    cache = open_cache()
    cache.set("k", value)
    assert cache.get("k") == value
    assert "k" in cache
    assert cache.delete("k")
    assert (cache.get("k", 0), "k" in cache, cache.delete("k")) == (0, False, False)


def test_tables_come_back_as_views(open_cache: Callable[..., Cache]) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"n": list(range(100_000))})
    cache = open_cache()
    cache.set("k", table)
    assert cache.get("k").equals(table)
    with pytest.raises(CopyRequired, match="sealed"):
        cache.get("k", require_zero_copy=True)


def test_nothing_can_be_read_in_the_store(open_cache: Callable[..., Cache], directory: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    open_cache().set("users:jane", pa.table({"maiden_name": ["Curie"], "birthday": [1867]}), ttl=60)
    seen = b"".join(path.read_bytes() + path.name.encode() for path in directory.rglob("*") if path.is_file())
    with Cache(f"file://{directory}") as plain:
        assert "users:jane" not in plain
        assert list(plain.keys()) == [name_of("users:jane")]
    for secret in [b"maiden", b"Curie", b"birthday", b"jane", b"arrow", b"ARROW", b"type", b"pyarrow"]:
        assert secret not in seen


def test_an_entry_cannot_be_moved_to_another_key(open_cache: Callable[..., Cache], directory: Path) -> None:
    cache = open_cache()
    cache.set("a", b"of a")
    cache.set("b", b"of b")
    # The store puts the entry of `a` where that of `b` is.
    put_frame(directory, name_of("b"), frame_in(directory, name_of("a")))
    assert cache.get("b", "miss") == "miss"
    assert cache.stats() == {"wrong_entry": 1, "tamper": 1}
    assert (cache.get("a"), cache.get("b", "miss")) == (b"of a", "miss")
    assert cache.stats()["absent"] == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sealed: sealed[:-1] + bytes([sealed[-1] ^ 1]), "changed"),
        (lambda sealed: sealed[:-1], "truncated"),
        (lambda sealed: sealed.replace(b'"aad": 4', b'"aad": 3'), "changed_header"),
        (lambda sealed: sealed.replace(name_of("k").encode(), name_of("l").encode()), "wrong_entry"),
        (lambda sealed: sealed[:-50] + bytes(22) + sealed[-28:], "changed"),
        (lambda sealed: bytes(msgpack.encode(b"planted")), "not_sealed"),
    ],
)
def test_what_a_store_changed_is_refused(
    open_cache: Callable[..., Cache], directory: Path, change: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache, strict = open_cache(), open_cache(on_tamper="raise")
    cache.set("k", b"value")
    changed = change(frame_in(directory, name_of("k")))
    put_frame(directory, name_of("k"), changed)
    with caplog.at_level(logging.WARNING):
        assert cache.get("k", "miss") == "miss"
    assert cache.stats() == {reason: 1, "tamper": 1}
    assert f"({reason})" in caplog.text
    # It is gone, unless somebody else may be able to read it.
    left = Store(str(directory)).entry(name_of("k"), 0)
    assert (left is not None) == (reason == "not_sealed")
    put_frame(directory, name_of("k"), changed)
    with pytest.raises(EntryRefused) as caught:
        strict.get("k")
    assert caught.value.reason == reason


def test_the_end_that_counts_is_the_sealed_one(
    open_cache: Callable[..., Cache], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    cache.set("k", b"value", ttl=60)
    sealed = frame_in(directory, name_of("k"))
    fields = framecache.SerializationWrapper.unwrap(sealed)[1]
    put_frame(directory, name_of("k"), sealed)  # without an end of the store's own
    assert cache.get("k") == b"value"
    later = fields["created"] + 61_000
    monkeypatch.setattr("framecache._times.SystemClock.time", lambda: later / 1000)
    assert cache.get("k", "miss") == "miss"
    assert cache.stats() == {"hit": 1, "expired": 1}


def test_an_older_entry_put_back_is_served(open_cache: Callable[..., Cache], directory: Path) -> None:
    """What sealing does not prevent, as the threat model says: until its end, an old entry is an entry."""
    cache = open_cache()
    cache.set("k", b"old")
    old = frame_in(directory, name_of("k"))
    cache.set("k", b"new")
    put_frame(directory, name_of("k"), old)
    assert cache.get("k") == b"old"


def test_a_rotation_loses_nothing(open_cache: Callable[..., Cache], directory: Path) -> None:
    cache = open_cache()
    for key in "abc":
        cache.set(key, key)
    both = Keyring(NEXT, previous=[MASTER])
    rotated = open_cache(keyring=both)
    assert [rotated.get(key) for key in "abc"] == ["a", "b", "c"]
    assert both.stats()["opened"] == {both.key_ids[0]: 0, both.key_ids[1]: 3}
    # Written again, an entry stands under the new key only.
    rotated.set("a", "A")
    with Cache(f"file://{directory}") as plain:
        assert len(list(plain.keys())) == 3
    assert (rotated.get("a"), cache.get("a", "miss")) == ("A", "miss")
    assert rotated.delete("b")
    assert cache.get("b", "miss") == "miss"
    # A worker that was not told yet misses what it cannot open, and removes nothing.
    assert open_cache(keyring=Keyring(NEXT)).get("c", "miss") == "miss"
    assert rotated.get("c") == "c"


@pytest.mark.parametrize("writers", [1, 2])
def test_a_rotation_under_load_loses_nothing(open_cache: Callable[..., Cache], writers: int) -> None:
    """Workers before and after the change of the current key read the same keys, and one or both write them."""
    orders = [(NEXT, MASTER), (MASTER, NEXT)]
    caches = [open_cache(keyring=Keyring(current, previous=[other])) for current, other in orders]
    keys = [str(number) for number in range(200)]
    for key in keys:
        caches[1].set(key, "start")
    barrier, read = threading.Barrier(writers + 2), []

    def every_key(work: Callable[[str], None]) -> None:
        for key in keys:
            barrier.wait(60)
            work(key)

    works = [*(lambda key, cache=cache: cache.set(key, "new") for cache in caches[:writers])]
    works += [lambda key, cache=cache: read.append(cache.get(key)) for cache in caches]
    threads = [threading.Thread(target=every_key, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read) == 400
    assert {*read} <= {"start", "new"}
    assert [cache.get(key) for cache in caches for key in keys] == ["new"] * 400
    assert all(caches[0].delete(key) for key in keys)
    assert not any(key in cache for key in keys for cache in caches)


def test_a_key_that_is_missing_is_a_miss_that_names_it(open_cache: Callable[..., Cache], directory: Path) -> None:
    keyring = Keyring(MASTER)
    open_cache(keyring=keyring, on_tamper="raise").set("k", b"value")
    # As if names did not depend on the master key: the entry stands where the other keyring looks.
    put_frame(directory, Keyring(NEXT).names("k")[0].hex(), frame_in(directory, name_of("k")))
    other = open_cache(keyring=Keyring(NEXT), on_tamper="raise")
    assert other.get("k", "miss") == "miss"
    assert other.stats() == {"no_key": 1}


def test_a_sealed_entry_without_a_keyring_is_a_miss_that_names_the_key(
    open_cache: Callable[..., Cache], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = Keyring(MASTER)
    open_cache(keyring=keyring).set("k", b"value")
    with Cache(f"file://{directory}") as plain, caplog.at_level(logging.WARNING):
        assert plain.get(keyring.names("k")[0].hex(), "miss") == "miss"
        assert plain.stats() == {"undecodable": 1}
    assert keyring.key_ids[0] in caplog.text


def test_plaintext_is_served_only_while_migrating(open_cache: Callable[..., Cache]) -> None:
    with open_cache(keyring=None) as plain:
        plain.set("a", b"plain a")
        plain.set("b", b"plain b")
    assert open_cache().get("a", "miss") == "miss"
    assert open_cache(accept_plaintext_until=soon(-1)).get("a", "miss") == "miss"
    migrating = open_cache(accept_plaintext_until=soon(3600))
    assert (migrating.get("a"), "a" in migrating) == (b"plain a", True)
    # Replaced or deleted, the plaintext is gone.
    migrating.set("a", b"sealed a")
    assert migrating.get("a") == b"sealed a"
    assert migrating.delete("b")
    with open_cache(keyring=None) as plain:
        assert (plain.get("a", "miss"), plain.get("b", "miss")) == ("miss", "miss")


def test_tenants_do_not_share_entries(open_cache: Callable[..., Cache]) -> None:
    one, other = (open_cache(keyring=Keyring(MASTER, tenant=tenant)) for tenant in ("one", "other"))
    one.set("k", 1)
    other.set("k", 2)
    assert (one.get("k"), other.get("k")) == (1, 2)


def test_arguments_that_make_no_sense_are_errors(open_cache: Callable[..., Cache]) -> None:
    with pytest.raises(InvalidArgument, match="on_tamper"):
        open_cache(on_tamper="ignore")
    with pytest.raises(InvalidArgument, match="time zone"):
        open_cache(accept_plaintext_until=datetime(2030, 1, 1))
    with pytest.raises(InvalidArgument, match="keyring"):
        open_cache(keyring=None, accept_plaintext_until=soon(1))
    with pytest.raises(InvalidArgument, match="l1_sealed"):
        open_cache(keyring=None, l1_sealed=True)
    with pytest.raises(InvalidArgument, match="l1_sealed"):
        Cache(keyring=Keyring(MASTER), l1="1MiB", l1_sealed=True)
    with pytest.raises(InvalidArgument, match="tenant"):
        Cache(keyring=Keyring(MASTER, tenant=str), l1="1MiB")


def test_namespaces_do_not_share_entries_even_if_the_store_moves_them(
    open_cache: Callable[..., Cache], directory: Path
) -> None:
    one, other = (open_cache(namespace=namespace) for namespace in ("one", "other"))
    one.set("k", b"of one", tags=["t"])
    assert (one.get("k"), other.get("k", "miss")) == (b"of one", "miss")
    with Cache(f"file://{directory}", namespace="one") as plain:
        (name,) = plain.keys()
        assert frame_in(directory, name, namespace="one").find(b"of one") == -1
    put_frame(
        directory, Keyring(MASTER).names("5:other:k")[0].hex(), frame_in(directory, name, namespace="one"), "other"
    )
    assert other.get("k", "miss") == "miss"
    assert other.stats() == {"absent": 1, "wrong_entry": 1, "tamper": 1}
    one.invalidate_tags("t")
    assert one.get("k", "miss") == "miss"


def test_what_a_cache_can_do_it_can_do_with_sealed_entries(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache()
    assert cache.set_many({"a": b"1", "b": [2], "c": {"x": (3,)}}, ttl=60, tags=["t"]) == 3
    assert cache.get_many(["a", "b", "c", "d"]) == {"a": b"1", "b": [2], "c": {"x": (3,)}}
    assert not cache.set("a", b"other", if_absent=True)
    assert cache.set("e", [1, "json"], codec="json")
    assert cache.get("e") == [1, "json"]
    assert cache.touch("a", 30)
    assert cache.delete_many(["a", "d"]) == 1
    assert sorted(cache.keys()) == ["b", "c", "e"]
    assert cache.verify() == {"whole": 3, "damaged": 0, "orphans": 0}
    cache.invalidate_tags("t")
    assert ("b" in cache, "e" in cache) == (False, True)
    cache.clear()
    assert "e" not in cache


def test_keys_are_listed_by_who_can_open_their_entries(open_cache: Callable[..., Cache]) -> None:
    cache = open_cache(namespace="n")
    cache.set_many({"a/1": 1, "a/2": b"x" * 100_000, "b": None})
    other = open_cache(namespace="n", keyring=Keyring(b"other".ljust(32)))
    other.set("c", 1)
    assert (sorted(cache.keys()), sorted(cache.keys("a/")), list(other.keys())) == (
        ["a/1", "a/2", "b"],
        ["a/1", "a/2"],
        ["c"],
    )
    rotated = open_cache(namespace="n", keyring=Keyring(b"new".ljust(32), previous=[MASTER]))
    rotated.set("d", 1)
    assert sorted(rotated.keys()) == ["a/1", "a/2", "b", "d"]
    assert list(open_cache(namespace="n", keyring=Keyring(MASTER, tenant="another")).keys()) == []


def test_keys_of_entries_that_are_not_sealed_are_listed_while_migrating(
    open_cache: Callable[..., Cache], directory: Path
) -> None:
    with Cache(f"file://{directory}") as plain:
        plain.set_many({"plain": 1, "ab" * 32: 2})
    migrating = open_cache(accept_plaintext_until=datetime.now(timezone.utc) + timedelta(hours=1))
    migrating.set("sealed", 1)
    assert sorted(migrating.keys()) == ["ab" * 32, "plain", "sealed"]
    assert list(open_cache().keys()) == ["sealed"]
