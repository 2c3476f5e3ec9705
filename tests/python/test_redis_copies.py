"""Copies of a server's large entries in a directory of this machine: when they are used, and that none is wrong."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from framecache import Cache, InvalidArgument
from framecache.crypto import Keyring
from framecache.testing import Clock
from redis_server import server  # noqa: F401  # a fixture

BIG = 1 << 20


@pytest.fixture
def directory(tmp_path):
    return f"file://{tmp_path}/copies"


@pytest.fixture
def cache(server, directory):
    with Cache(server.url, store=directory, l1=None) as opened:
        yield opened


@pytest.fixture
def far(server):
    """A cache of another machine."""
    with Cache(server.url, l1=None) as opened:
        yield opened


def copies(cache, *names):
    health = cache.health()["copies"]
    return tuple(health[name] for name in names or ("hits", "kept", "errors"))


def sent(server):
    return server.client().info("stats")["total_net_output_bytes"]


def test_a_value_travels_once(cache, far, server):
    value = os.urandom(BIG)
    far.set("big", value)
    assert cache.get("big") == value
    assert copies(cache) == (0, 1, 0)
    before = sent(server)
    for _ in range(5):
        view = cache.get("big", views=True)
        assert view == value
    assert sent(server) - before < BIG
    assert view.obj.is_mapped
    assert copies(cache) == (5, 1, 0)


def test_what_is_set_has_its_copy_at_once(cache, server, directory):
    value = os.urandom(BIG)
    cache.set("big", value, ttl=100, tags=["tag"])
    before = sent(server)
    with Cache(server.url, store=directory, l1=None) as second:
        assert second.get("big") == value
        assert copies(second) == (1, 0, 0)
    assert sent(server) - before < BIG


def test_a_table_is_read_where_the_copy_lies(cache, far):
    import pyarrow as pa

    table = pa.table({"n": range(100_000), "t": ["text", None] * 50_000})
    far.set("table", table)
    assert cache.get("table").equals(table)
    assert not far.get_entry("table").frame.is_trusted
    found = cache.get("table")
    assert found.equals(table)
    lines = Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
    areas = [tuple(int(part, 16) for part in line.split()[0].split("-")) for line in lines if "/copies/blobs/" in line]
    buffers = [buffer for column in found.columns for buffer in column.chunk(0).buffers() if buffer is not None]
    assert all(any(start <= buffer.address < end for start, end in areas) for buffer in buffers)


def test_small_values_have_none(cache):
    cache.set_many({"small": os.urandom(10_000), "int": 1})
    assert cache.get_many(["small", "int"])["int"] == 1
    assert len(cache.get("small")) == 10_000
    assert copies(cache, "hits", "misses", "kept") == (0, 0, 0)


@pytest.mark.parametrize("change", ["set", "delete", "clear", "tag", "expire", "flush"])
def test_a_change_elsewhere_is_seen_at_once(cache, server, change):
    clock = Clock()
    with Cache(server.url, l1=None, clock=clock) as far:
        cache.set("big", b"a" * BIG, tags=["tag"], ttl=3600)
        assert cache.get("big") == b"a" * BIG
        if change == "set":
            far.set("big", b"b" * BIG)
        elif change == "delete":
            far.delete("big")
        elif change == "clear":
            far.clear()
        elif change == "tag":
            far.invalidate_tags("tag")
        elif change == "expire":
            far.touch("big", ttl=0.001)
            until = cache.get_entry("big")
            while until is not None:
                until = cache.get_entry("big")
        else:
            server.client().flushall()
    assert cache.get("big") == (b"b" * BIG if change == "set" else None)


def test_a_value_that_is_set_again_has_another_copy(cache, far):
    for value in (b"a" * BIG, b"b" * BIG, b"a" * BIG):
        far.set("big", value)
        assert cache.get("big") == value
        assert cache.get("big") == value
    assert copies(cache) == (3, 3, 0)


def test_touch_leaves_the_copy(cache, far):
    cache.set("big", b"a" * BIG, ttl=100)
    assert far.touch("big", ttl=50)
    assert cache.get("big") == b"a" * BIG
    assert copies(cache) == (1, 1, 0)


def test_text_that_is_none_does_not_become_a_copy(cache, far, server):
    import pyarrow as pa

    table = pa.table({"t": ["needle" + "x" * 100] * 1000})
    far.set("table", table)
    (name,) = (name for name in server.client().scan_iter("fc:*{*") if server.client().strlen(name) > 50_000)
    entry = server.client().get(name)
    server.client().set(name, entry.replace(b"needle", b"n\xff\xfedle"))
    for _ in range(2):
        assert cache.get("table") is None
    assert copies(cache, "hits", "kept", "errors") == (0, 0, 2)
    assert cache.stats()["undecodable"] == 2


def test_a_damaged_copy_is_read_anew(cache, far, tmp_path):
    value = os.urandom(BIG // 2)
    cache.set("big", value)
    (blob,) = (tmp_path / "copies" / "blobs").iterdir()
    damaged = bytearray(blob.read_bytes())
    damaged[-100] ^= 1
    blob.write_bytes(damaged)
    assert cache.get("big") == value
    assert cache.get("big") == value
    assert copies(cache, "hits", "kept") == (1, 2)


def test_sealed_values_have_sealed_copies(server, directory, tmp_path):
    keyring = Keyring(bytes(range(32)))
    with Cache(server.url, store=directory, l1=None, keyring=keyring) as cache:
        cache.set("secret", b"needle" * BIG)
        before = sent(server)
        assert cache.get("secret") == b"needle" * BIG
        assert sent(server) - before < BIG
        assert copies(cache) == (1, 1, 0)
    for path in (tmp_path / "copies").rglob("*"):
        assert not path.is_file() or b"needle" not in path.read_bytes()
    with Cache(server.url, store=directory, l1=None, keyring=Keyring(bytes(range(32)), tenant="other")) as other:
        assert other.get("secret") is None


def test_all_three_tiers(server, directory, far):
    with Cache(server.url, store=directory, l1="16MiB") as cache:
        value = {"numbers": list(range(50_000))}
        far.set("big", value)
        assert cache.get("big") == value
        while cache.get_entry("big").tier != "l1":
            cache.get("big")
        far.set("big", [value])
        while cache.get("big") == value:
            pass
        assert cache.get("big") == [value]


def test_a_store_that_fails_is_as_if_it_had_none(server, directory, far, tmp_path):
    with Cache(server.url, store=f"{directory}?max_bytes=1MiB", l1=None, on_error="raise") as cache:
        value = os.urandom(4 * BIG)
        assert cache.set("big", value)
        assert cache.get("big") == value
        assert copies(cache, "hits", "kept") == (0, 0)
        for path in (tmp_path / "copies").rglob("*.lock"):
            path.unlink()
        assert cache.get("big") == value


def test_coroutines_and_batches(cache, far):
    value = os.urandom(BIG)
    far.set("big", value)

    async def read():
        assert await cache.aget("big") == value
        assert await cache.aget("big") == value
        return await cache.aget_many(["big", "none"])

    assert asyncio.run(read()) == {"big": value}
    assert cache.get_many(["big", "none"]) == {"big": value}
    assert copies(cache, "hits")[0] >= 1


def test_loops_with_a_client_of_their_own(server, directory, far):
    import redis.asyncio

    value = os.urandom(BIG)
    far.set("big", value)

    async def read():
        client = redis.asyncio.Redis(port=server.port, socket_timeout=5)
        with Cache(client, store=directory, l1=None) as cache:
            assert [await cache.aget("big") for _ in range(3)] == [value] * 3
            assert copies(cache) == (2, 1, 0)
        await client.aclose()

    asyncio.run(read())


def test_processes_share_them(cache, server, directory):
    cache.set("big", b"a" * BIG)
    program = (
        "import sys, framecache\n"
        "cache = framecache.Cache(sys.argv[1], store=sys.argv[2], l1=None)\n"
        "print(len(cache.get('big')), cache.health()['copies']['hits'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, server.url, directory], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [str(BIG), "1"]


def test_the_environment_says_where(server, directory, monkeypatch, tmp_path):
    monkeypatch.setenv("FRAMECACHE_STORE", directory)
    with Cache(server.url) as cache:
        cache.set("big", b"a" * BIG)
        assert copies(cache, "kept") == (1,)
    with Cache(server.url, store=None) as cache:
        assert "copies" not in cache.health()
    with Cache(l1="1MiB") as memory, Cache(f"file://{tmp_path}/other") as own:
        assert "copies" not in {**memory.health(), **own.health()}
    monkeypatch.setenv("FRAMECACHE_STORE", "redis://somewhere")
    with pytest.raises(InvalidArgument, match="FRAMECACHE_STORE: expected 'file:///path'"):
        Cache(l1="1MiB")


@pytest.mark.parametrize("store", ["redis://localhost", "memory://", "/tmp", "file:///tmp/x?mode=ro", b"file:", 1])
def test_a_store_is_a_directory_that_can_be_written(store, server):
    with pytest.raises(InvalidArgument, match="expected"):
        Cache(server.url, store=store)


def test_a_directory_needs_no_copies(tmp_path, directory):
    for url in (None, "memory://", f"file://{tmp_path}/cache"):
        with pytest.raises(InvalidArgument, match="expected the url of an engine"):
            Cache(url, store=directory, l1="1MiB")
