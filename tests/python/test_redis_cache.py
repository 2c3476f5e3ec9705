"""A cache over a real Redis server: what it keeps, under which names, and what invalidates it."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import ClassVar

import pytest

import framecache
import redis_server
from framecache import Cache, InvalidArgument, StoreError, Unsupported, ValueTooLarge
from framecache.crypto import Keyring
from framecache.redis import Redis
from framecache.testing import Clock
from redis_record import Layout, unpack
from redis_server import server  # noqa: F401  # a fixture
from waiting import Thread

redis = pytest.importorskip("redis")


@pytest.fixture
def cache(server):
    with Cache(server.url) as opened:
        yield opened


@pytest.fixture
def other(server):
    """Another cache on the server, as in another process: it shares nothing with the first."""
    with Cache(server.client()) as opened:
        yield opened


def values():
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    return {
        "none": None,
        "bytes": b"\0\xff" * 50_000,
        "bytearray": bytearray(b"abc"),
        "nested": {1: ("a", [2.5, None]), "s": {frozenset([1])}},
        "table": pa.table({"n": list(range(10_000)), "t": ["x", None] * 5_000}),
        "pandas": pd.DataFrame({"n": [1.5, 2.5], "s": ["a", "b"]}),
        "array": np.arange(10_000).reshape(100, 100),
    }


@pytest.mark.parametrize("kind", ["none", "bytes", "bytearray", "nested", "table", "pandas", "array"])
def test_values_come_back_in_another_cache(cache, other, kind):
    value = values()[kind]
    assert cache.set(kind, value)
    found = other.get(kind, "nothing")
    assert type(found) is type(value)
    if kind == "table":
        found.validate(full=True)
        assert found.equals(value)
    elif kind == "pandas":
        assert found.equals(value)
    elif kind == "array":
        assert (found == value).all()
    else:
        assert found == value


def test_what_is_read_is_foreign(cache, other):
    import pyarrow as pa

    cache.set("table", pa.table({"n": [1, 2]}))
    assert other.get_entry("table").frame.is_trusted is False


def test_the_engine_sees_names_and_a_lifetime(cache, server):
    cache.set("user:42", b"hello", ttl=100, tags=["users"])
    client, layout = server.client(), Layout("")
    names = {name.decode() for name in client.keys("*")}
    assert names == {
        layout.entry("user:42"),
        layout.generation,
        *(n for n in names if n.startswith(layout.prefix + "t:")),
    }
    assert not any("user" in name for name in names)
    assert 90_000 < client.pttl(layout.entry("user:42")) <= 100_000
    assert client.pttl(layout.generation) == -1
    raw = client.get(layout.entry("user:42"))
    head = unpack(raw)
    payload, metadata, codec = framecache.SerializationWrapper.unwrap(raw[head.length :])
    assert (bytes(payload), metadata["key"], metadata["length"], codec) == (b"hello", "user:42", 5, "raw")
    assert (len(raw) - 5) % 64 == 0
    [stamp] = (name for name in names if name.startswith(layout.prefix + "t:"))
    assert client.pttl(stamp) > 100_000


def test_namespaces_are_apart(server):
    with Cache(server.url, namespace="a") as a, Cache(server.url, namespace="b") as b:
        a.set("key", 1)
        assert b.get("key") is None
        b.set("key", 2)
        a.clear()
        assert (a.get("key"), b.get("key")) == (None, 2)


def test_times(server):
    clock = Clock()
    with Cache(server.url, clock=clock) as cache:
        cache.set("short", 1, ttl=10)
        cache.set("long", 2, ttl=10, max_age=30)
        clock.advance(9)
        assert cache.touch("long", 10)
        assert cache.touch("short", 10)
        clock.advance(2)
        assert (cache.get("short"), cache.get("long")) == (None, 2)
        assert not cache.touch("short", 10)
        assert cache.touch("long", 100)
        clock.advance(20)
        assert cache.get("long") is None
        assert cache.stats()["expired"] == 2
        assert not cache.touch("never")


def test_a_stale_value_is_served_while_it_is_computed_anew(server):
    clock = Clock()
    with Cache(server.url, clock=clock) as cache:
        calls = []

        @cache(ttl=10, stale_if_error=100, jitter=0)
        def function():
            calls.append(1)
            if len(calls) > 1:
                raise OSError("down")
            return "value"

        assert function() == "value"
        clock.advance(50)
        assert function() == "value"
        assert len(calls) == 2
        clock.advance(70)
        with pytest.raises(OSError, match="down"):
            function()


def test_tags_and_generations(cache, other):
    cache.set_many({"a": 1, "b": 2}, tags=["x", "y"])
    cache.set("c", 3, tags=["y"])
    cache.set("d", 4)
    assert other.get_many(["a", "b", "c", "d"]) == {"a": 1, "b": 2, "c": 3, "d": 4}
    other.invalidate_tags("x")
    assert cache.get_many(["a", "b", "c", "d"]) == {"c": 3, "d": 4}
    assert cache.stats()["invalidated"] == 2
    cache.set("a", 5, tags=["x"])
    assert other.get("a") == 5
    cache.clear()
    assert other.get_many(["a", "b", "c", "d"]) == {}
    other.set("d", 6)
    assert cache.get("d") == 6


def test_a_lost_stamp_is_a_miss(cache, server):
    cache.set("key", 1, tags=["x"])
    layout = Layout("")
    [stamp] = (name for name in server.client().keys("*") if name.startswith(f"{layout.prefix}t:".encode()))
    server.client().delete(stamp)
    assert cache.get("key") is None
    cache.set("key", 2, tags=["x"])
    assert cache.get("key") == 2
    server.client().delete(layout.generation)
    assert cache.get("key") is None


def test_if_absent(cache, other):
    assert cache.set("key", 1, tags=["x"], if_absent=True)
    assert not other.set("key", 2, if_absent=True)
    assert other.get("key") == 1
    cache.invalidate_tags("x")
    assert other.set("key", 3, if_absent=True)
    assert cache.get("key") == 3


def test_deleting(cache, other):
    cache.set_many({"a": 1, "b": 2})
    assert other.delete_many(["a", "b", "c"]) == 2
    assert cache.get_many(["a", "b"]) == {}
    assert not cache.delete("a")
    assert not cache.contains("a")


def test_several_are_read_at_once(cache, server):
    cache.set_many({f"key:{number}": number for number in range(100)}, tags=["x"])
    client = server.client()
    client.config_resetstat()
    assert cache.get_many([f"key:{number}" for number in range(100)]) == {f"key:{n}": n for n in range(100)}
    # The entries, then the stamps of the tag that nobody expected.
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == 2
    assert cache.get_many([f"key:{number}" for number in range(100)])["key:7"] == 7
    assert client.info("commandstats")["cmdstat_mget"]["calls"] == 3


@pytest.mark.parametrize("change", ["delete", "set", "clear", "invalidate"])
def test_a_value_computed_before_a_change_is_not_kept(cache, other, change):
    def compute():
        if change == "delete":
            other.delete("key")
        elif change == "set":
            other.set("key", "newer")
        elif change == "clear":
            other.clear()
        else:
            other.invalidate_tags("x")
        return "older"

    assert cache.get_or_set("key", compute, tags=["x"]) == "older"
    assert other.get("key") == ("newer" if change == "set" else None)
    assert cache.stats()["superseded"] == 1


def test_tags_of_a_result_are_fenced(cache, other):
    @cache(tags=lambda result: [result])
    def function():
        other.invalidate_tags("x")
        return "x"

    assert function() == "x"
    assert function.get() is None
    assert cache.stats()["superseded"] == 1


def test_one_of_two_caches_computes(cache, other):
    begun, go_on = threading.Event(), threading.Event()

    def compute():
        begun.set()
        go_on.wait(30)
        return "computed"

    first = Thread(cache.get_or_set, "key", compute)
    assert begun.wait(30)
    second = Thread(other.get_or_set, "key", lambda: pytest.fail("computed twice"))
    go_on.set()
    assert (first.value, second.value) == ("computed", "computed")


def test_a_lease_is_renewed_by_its_token_alone(server):
    backend = Redis(server.url)
    assert backend.lease("lease", 7, 10_000)
    assert backend.lease("lease", 7, 10_000)
    assert not backend.lease("lease", 8, 10_000)
    assert not backend.release("lease", 8)
    assert backend.release("lease", 7)
    assert backend.lease("lease", 8, 10_000)


def test_in_event_loops(cache, other):
    calls = []

    async def main():
        @cache
        async def function(number):
            calls.append(number)
            return {"number": number}

        assert await asyncio.gather(*(function(1) for _ in range(20))) == [{"number": 1}] * 20
        assert await cache.aset("key", (1, 2))
        assert await cache.aget("key") == (1, 2)
        assert await cache.aget_many(["key", "none"]) == {"key": (1, 2)}
        assert await cache.acontains("key")
        assert await cache.atouch("key", 5)
        await cache.ainvalidate_tags("x")
        assert await cache.adelete("key")
        await cache.aclear()
        return await function(1)

    assert asyncio.run(main()) == {"number": 1}
    assert calls == [1, 1]
    assert other.get("key") is None


def test_sealed(server):
    keys = [bytes([number]) * 32 for number in range(2)]
    with (
        Cache(server.url, keyring=Keyring(keys[0])) as cache,
        Cache(server.url, keyring=Keyring(keys[1], [keys[0]])) as rotated,
    ):
        cache.set("secret key", {"secret": "value"}, tags=["secret tag"])
        stored = b"".join(server.client().dump(name) + name for name in server.client().keys("*"))
        assert b"secret" not in stored
        assert rotated.get("secret key") == {"secret": "value"}
        assert rotated.get_or_set("other", lambda: [1], tags=["secret tag"]) == [1]
        assert rotated.get("other") == [1]
        cache.invalidate_tags("secret tag")
        assert cache.get("secret key") is None
        assert cache.get_or_set("late", lambda: cache.delete("late")) is False
        assert cache.get("late") is None


def test_clients_that_would_not_work_are_refused(server):
    with pytest.raises(InvalidArgument, match="decode_responses=False, got True"):
        Cache(server.client(decode_responses=True))
    unbounded = redis.Redis(port=server.port, socket_timeout=None)
    with pytest.raises(InvalidArgument, match="socket_timeout, got none"):
        Cache(unbounded)
    with Cache(Redis(unbounded, allow_unbounded=True)) as cache:
        assert cache.set("key", 1)
    for wrong in (7, object()):
        with pytest.raises(InvalidArgument, match="url: expected a str, a client"):
            Cache(wrong)


def test_settings_in_a_url(server):
    with Cache(f"{server.url}?max_remote_bytes=10KB&l1_ttl=0.5&listen=no&socket_timeout=2") as cache:
        backend = cache._backend
        assert (backend.max_bytes, backend.l1_ttl) == (10_000, 0.5)
        assert backend.client.connection_pool.connection_kwargs["socket_timeout"] == 2
        with pytest.raises(ValueTooLarge, match="at most 10000 bytes with header"):
            cache.set("key", bytes(10_000))
        assert cache.set("key", bytes(9_000))

        @cache
        def function():
            return bytes(10_000)

        assert (function(), function()) == (bytes(10_000), bytes(10_000))
        assert cache.stats()["too_large"] == 2
    for wrong in ("max_remote_bytes=1GiB", "max_remote_bytes=x", "l1_ttl=-1", "l1_ttl=0", "listen=maybe"):
        with pytest.raises(InvalidArgument):
            Cache(f"{server.url}?{wrong}")


def test_what_engines_cannot_do_is_said(cache, server):
    with pytest.raises(Unsupported, match="keys: expected a cache in memory or in a directory"):
        list(cache.keys())
    for method in (cache.usage, cache.verify):
        with pytest.raises(Unsupported, match="expected a cache in a directory"):
            method()
    for stream in (lambda: cache.open_writer("key"), lambda: cache.set_stream("key", b""), lambda: cache.scan("key")):
        with pytest.raises(Unsupported, match="expected a cache with a directory"):
            stream()
    with pytest.raises(InvalidArgument, match="compression: expected None"):
        Cache(server.url, compression="lz4")


def test_a_given_client_stays_open(server):
    client = server.client()
    with Cache(client) as cache:
        cache.set("key", 1)
    assert client.ping()
    with pytest.raises(InvalidArgument, match="closed"):
        cache.get("key")


def test_bytes_of_an_asyncio_client(server):
    import redis.asyncio

    with Cache(redis.asyncio.Redis(port=server.port, socket_timeout=5)) as cache:
        assert cache.set("key", b"sync")
        assert asyncio.run(cache.aget("key")) == b"sync"


def test_without_a_server_nothing_is_cached_and_nothing_fails(tmp_path):
    server = redis_server.Server(tmp_path)
    with Cache(server.url) as cache:
        calls = []

        @cache
        def function():
            calls.append(1)
            return 1

        assert (function(), function()) == (1, 1)
        assert len(calls) == 2
        assert cache.get("key", "default") == "default"
        assert not cache.set("key", 1)
        assert cache.health()["store"] == "open"
    with (
        Cache(server.url, on_error="raise") as strict,
        pytest.raises(StoreError, match="found ConnectionError"),
    ):
        strict.get("key")


def commands_of(client):
    """How often each command was called, by name, since the last time."""
    stats = client.info("commandstats")
    client.config_resetstat()
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in stats.items()}


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_write_is_one_round_trip(cache, other, server, size):
    client = server.client()
    cache.set("first", b"", ttl=100, tags=["x"])
    commands_of(client)
    assert cache.set("key", bytes(size), ttl=100, tags=["x"])
    called = commands_of(client)
    assert called["eval"] == 1
    assert called.get("exec", 0) == (size > 65536)
    assert other.get("key") == bytes(size)


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("change", ["clear", "invalidate"])
def test_a_write_knows_of_stamps_that_others_changed(cache, other, size, change):
    cache.set("key", b"", ttl=100, tags=["x"])
    if change == "clear":
        other.clear()
    else:
        other.invalidate_tags("x")
    assert cache.set("key", bytes(size), ttl=100, tags=["x"])
    assert cache.set_many({"a": bytes(size), "b": 1}, ttl=100, tags=["x"]) == 2
    assert other.get_many(["key", "a", "b"]) == {"key": bytes(size), "a": bytes(size), "b": 1}


def test_a_stamp_outlasts_what_is_written_under_it(cache, server):
    cache.set("key", 1, ttl=100, tags=["x"])
    [stamp] = (name for name in server.client().keys("*") if name.startswith(f"{Layout('').prefix}t:".encode()))
    for ttl in (1_000_000, 10_000_000):
        cache.set("key", 1, ttl=ttl, tags=["x"])
        assert server.client().pttl(stamp) > 1000 * ttl + 3_600_000
    cache.set("key", 1, ttl=None, tags=["x"])
    assert server.client().pttl(stamp) == -1


def test_header_and_payload_are_not_joined(cache, other, monkeypatch):
    """The connection is given the payload's own memory."""
    sent = []
    connection = cache._backend.client.connection_pool.connection_class
    send = connection.send_packed_command

    def spy(self, command, **settings):
        sent.extend(command)
        return send(self, command, **settings)

    monkeypatch.setattr(connection, "send_packed_command", spy)
    payload = os.urandom(1 << 20)
    cache.set("key", payload)
    [large] = [part for part in sent if len(part) >= len(payload)]
    assert large.address == framecache.Frame(payload).address
    assert other.get("key") == payload


def test_looking_reads_no_payload(cache, server):
    cache.set("key", os.urandom(1 << 20), ttl=100, tags=[str(number) for number in range(200)])
    client = server.client()
    before = client.info("stats")["total_net_output_bytes"]
    assert cache.contains("key")
    assert cache.touch("key", 50)
    assert client.info("stats")["total_net_output_bytes"] - before < 100_000
    assert not cache.contains("none")


def test_touching_keeps_the_id(cache, server):
    client, name = server.client(), Layout("").entry("key")
    cache.set("key", 1, ttl=100)
    first = unpack(client.get(name))
    assert cache.touch("key", 50)
    touched = unpack(client.get(name))
    assert (touched.id, touched.deadline < first.deadline) == (first.id, True)
    cache.set("key", 1, ttl=100)
    assert unpack(client.get(name)).id != first.id


def test_an_entry_that_was_tampered_with_goes_unless_it_was_replaced(server):
    with Cache(server.url, keyring=Keyring(bytes(32))) as cache:
        cache.set("key", {"secret": "value"})
        client = server.client()
        [name] = [name for name in client.keys("fc:*{*") if client.strlen(name) > 100]
        raw = client.get(name)
        client.set(name, raw[:-1] + bytes([raw[-1] ^ 1]))
        assert cache.get("key") is None
        assert not client.exists(name)
        assert cache.stats()["tamper"] == 1
        backend = cache._backend
        client.set(name, raw)
        assert not backend.delete_if(name.decode(), 40, bytes(8))
        assert backend.delete_if(name.decode(), 40, unpack(raw).id)
        assert not backend.delete_if(name.decode(), 40, unpack(raw).id)


class Watched(redis.Redis):
    """A client with ways of its own."""

    commands: ClassVar[list[str]] = []

    def execute_command(self, *args, **options):
        """Note which command it is."""
        self.commands.append(args[0])
        return super().execute_command(*args, **options)


def test_a_client_with_ways_of_its_own_runs_its_commands(server):
    with Cache(Watched(port=server.port, socket_timeout=5)) as cache:
        assert cache.set("key", bytes(100_000), tags=["x"])
        assert cache.get("key") == bytes(100_000)
        assert cache.contains("key")
        assert cache.set_many({"a": 1, "b": 2}) == 2
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        assert {"MGET", "EVAL"} <= set(Watched.commands)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("single", [False, True])
def test_protocols_and_single_connections(server, protocol, single):
    client = server.client(protocol=protocol, single_connection_client=single)
    with Cache(client) as cache:
        values = {f"key:{number}": os.urandom(number * 1000) for number in range(0, 200, 20)}
        assert cache.set_many(values) == len(values)
        assert cache.get_many([*values, "none"]) == values
        assert [cache.get(key) for key in values] == list(values.values())


def test_a_client_without_a_native_parser(server):
    pool = redis.ConnectionPool(
        port=server.port, socket_timeout=5, protocol=2, parser_class=redis._parsers._RESP2Parser
    )
    with Cache(redis.Redis(connection_pool=pool)) as cache:
        assert cache.set("key", b"value")
        assert cache.get("key") == b"value"


def test_which_clients_run_their_commands_themselves(server):
    import redis.asyncio

    def wire_of(client):
        with Cache(client) as cache:
            return cache._backend._wire

    assert wire_of(server.client()) is not None
    assert wire_of(server.client(single_connection_client=True)) is None
    assert wire_of(Watched(port=server.port, socket_timeout=5)) is None
    watched = server.client()
    watched.execute_command = lambda *args, **options: pytest.fail("not called")
    assert wire_of(watched) is None
    with Cache(redis.asyncio.Redis(port=server.port, socket_timeout=5)) as cache:
        assert cache._backend._asynchronous._wire is not None
