"""Servers that speak TLS: which certificates are taken, and that all connections are such, the listener's too."""

from __future__ import annotations

import asyncio
import datetime
import urllib.parse

import pytest

from certificates import Authority
from framecache import Cache, StoreError
from redis_topologies import servers  # noqa: F401  # a fixture
from waiting import until


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def server(servers, authority):
    """A server that takes no connection without TLS."""
    return servers(authority=authority)


def secured(server, authority, **settings):
    """The URL of a server whose certificate is one of this authority."""
    settings.setdefault("ssl_ca_certs", authority.file)
    return f"{server.url}?{urllib.parse.urlencode(settings)}"


@pytest.fixture
def on_server(servers, authority, monkeypatch):
    """Two caches on one server that asks for certificates of clients too: the first one with an L1 that is told."""
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")
    server = servers("--tls-auth-clients", "yes", authority=authority)
    certificate, key = authority.of_client
    url = secured(server, authority, ssl_certfile=certificate, ssl_keyfile=key)
    with Cache(url) as cache, Cache(url, l1=None) as other:
        yield cache, other, server


def test_the_listener_is_secured_as_the_client_is(on_server):
    cache, other, server = on_server
    assert cache.set("key", "value", tags=["x"])
    assert cache.get("key") == "value"
    until(lambda: cache.health()["engine"]["listener"] == "on")
    until(lambda: cache.get("key") == "value" and cache.get_entry("key").tier == "l1")
    other.set("key", "newer")
    until(lambda: cache.get("key") == "newer")
    assert cache.get_or_set("computed", lambda: [1], tags=["x"]) == [1]
    assert other.get("computed") == [1]
    other.invalidate_tags("x")
    until(lambda: cache.get("computed") is None)
    assert repr(cache) == f"framecache.Cache('rediss://127.0.0.1:{server.port}/0')"
    assert "error" not in cache.stats()


def test_values_larger_than_a_record_of_tls(server, authority):
    with Cache(secured(server, authority)) as cache:
        for size in (16_384, 16_385, 3_000_000):
            assert cache.set("key", bytes(range(256)) * (size // 256))
            assert cache.get("key") == bytes(range(256)) * (size // 256)


def test_an_asyncio_client(server, authority):
    import redis.asyncio

    client = redis.asyncio.Redis(
        host="127.0.0.1", port=server.port, ssl=True, ssl_ca_certs=authority.file, socket_timeout=5
    )

    async def compute():
        return 1

    async def main(cache):
        assert await cache.aset("key", "value")
        assert await cache.aget("key") == "value"
        assert await cache.aget_or_set("computed", compute) == 1
        await cache.adelete("key")
        assert await cache.aget("key") is None
        await client.aclose()

    with Cache(client) as cache:
        asyncio.run(main(cache))
        # Threads have connections of their own, with the same settings.
        assert cache.get("computed") == 1
        assert "error" not in cache.stats()


def test_a_redis_client(server):
    with Cache(server.client()) as cache:
        assert cache.set("key", 1)
        assert cache.get("key") == 1


def refused(url, why):
    """What a caller sees of a server that is not trusted, or does not trust him: misses, or in strict mode errors."""
    with Cache(url) as cache, Cache(url, on_error="raise") as strict:
        assert cache.get("key", "default") == "default"
        assert not cache.set("key", 1)
        assert cache.health()["errors"] >= 2
        with pytest.raises(StoreError, match=why):
            strict.get("key")
        with pytest.raises(StoreError, match=why):
            cache.delete("key")


def test_an_unknown_authority(server, tmp_path_factory):
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    refused(secured(server, stranger), "CERTIFICATE_VERIFY_FAILED")
    # Nor is one taken where none is named but the system's.
    refused(server.url, "CERTIFICATE_VERIFY_FAILED")


def test_a_certificate_of_another_address(servers, tmp_path):
    authority = Authority(tmp_path, address="127.0.0.2")
    refused(secured(servers(authority=authority), authority, ssl_check_hostname="true"), "IP address mismatch")


def test_a_certificate_that_has_ended(servers, tmp_path):
    authority = Authority(tmp_path, ends=datetime.timedelta(days=-1))
    refused(secured(servers(authority=authority), authority), "certificate has expired")


def test_a_client_without_the_certificate_that_is_asked_for(on_server, authority):
    *_, server = on_server
    refused(secured(server, authority), "found ConnectionError|found OSError|found SSLError")


def test_a_client_without_tls(server):
    refused(f"redis://127.0.0.1:{server.port}/0", "found ConnectionError")


def test_a_server_without_tls(servers, authority):
    # It waits for the end of a command that never ends.
    bounds = "socket_timeout=0.1&socket_connect_timeout=0.1"
    refused(f"rediss://127.0.0.1:{servers().port}/0?ssl_ca_certs={authority.file}&{bounds}", "found TimeoutError")
