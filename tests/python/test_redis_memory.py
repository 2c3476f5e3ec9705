"""Servers whose memory is full: what is evicted leaves L1 too, and what cannot be written is dropped."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from framecache import Cache
from redis_record import Layout
from redis_server import server  # noqa: F401  # a fixture
from waiting import until

LAYOUT = Layout("")
EVICTS = pytest.mark.parametrize("server", [("--maxmemory", "6mb", "--maxmemory-policy", "allkeys-lru")], indirect=True)
REFUSES = pytest.mark.parametrize("server", [("--maxmemory", "4mb", "--maxmemory-policy", "noeviction")], indirect=True)


def fill(server):
    """Write until there is no room; what that is, is of no namespace."""
    import redis

    client = server.client()
    with contextlib.suppress(redis.OutOfMemoryError):
        for number in range(1000):
            client.set(f"filling:{number}", bytes(50_000))
        pytest.fail("there still is room")


@EVICTS
def test_what_is_evicted_leaves_l1(server, monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")
    with Cache(server.url) as cache:
        cache.set("key", "value")
        assert cache.get("key") == "value"
        until(lambda: cache.health()["engine"]["listener"] == "on")
        until(lambda: cache.get("key") == "value" and cache.get_entry("key").tier == "l1")
        client = server.client()
        for number in range(1000):
            client.set(f"filling:{number}", bytes(50_000))
        assert not client.exists(LAYOUT.entry("key"))
        until(lambda: cache.get("key") is None)
        # With the stamp of the namespace, if that went, nothing is lost but time.
        assert cache.set("key", "again")
        until(lambda: cache.get("key") == "again")


@REFUSES
def test_a_full_server_still_reads_and_removes(server):
    with Cache(server.url) as cache, Cache(server.url, on_error="raise") as strict:
        cache.set_many({"key": "value", "tagged": 1}, tags=["x"])
        fill(server)
        for each in (cache, strict):
            assert each.get("key") == "value"
            # No room is no error: it is counted.
            assert not each.set("other", bytes(100_000))
            assert each.get_or_set("computed", lambda: "computed") == "computed"
            assert each.get("computed") is None
            assert each.stats()["dropped"] >= 1
        assert cache.delete("key")
        assert strict.get("key") is None
        cache.invalidate_tags("x")
        assert strict.get("tagged") is None
        cache.clear()


@REFUSES
def test_a_full_server_in_a_loop(server):
    import redis.asyncio

    async def main():
        client = redis.asyncio.Redis(port=server.port, socket_timeout=5)
        with Cache(client) as cache:

            async def compute():
                return "computed"

            assert await cache.aset("key", "value")
            fill(server)
            assert await cache.aget("key") == "value"
            assert not await cache.aset("other", bytes(100_000))
            found = await asyncio.gather(*(cache.aget_or_set("computed", compute) for _ in range(5)))
            assert found == ["computed"] * 5
            assert await cache.adelete("key")
            assert await cache.aget("key") is None
        await client.aclose()

    asyncio.run(main())
