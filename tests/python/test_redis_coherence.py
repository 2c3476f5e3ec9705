"""L1 over a real Redis server: what it keeps, and that it hears of every change."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from framecache import Cache, InvalidArgument
from framecache._acl import missing, rights
from framecache._listener import PING_EVERY, SILENCE
from framecache.redis import PublishingRedis, Redis
from framecache.testing import Clock
from hearing import Reads, in_l1, listens
from redis_record import Layout
from redis_server import begin, server  # noqa: F401  # a fixture
from waiting import until


@pytest.fixture(autouse=True)
def with_l1(monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")


def listening(client):
    """The connections that a server tells what is changed."""
    return [one for one in client.client_list() if "B" in one["flags"]]


@pytest.fixture
def cache(server):
    """A cache that hears of changes."""
    with Cache(server.url) as opened:
        opened.get("nothing")
        until(lambda: listens(opened))
        yield opened


@pytest.fixture
def other(server):
    with Cache(server.url, l1=None) as opened:
        yield opened


def test_hits_do_not_reach_the_server(cache, server):
    cache.set("key", "value")
    in_l1(cache, "key")
    client = server.client()

    def hits_alone():
        client.config_resetstat()
        for _ in range(100):
            assert cache.get("key") == "value"
        return "cmdstat_mget" not in client.info("commandstats")

    # Its own write may be told in between, which makes one read ask again.
    until(hits_alone)
    assert cache.stats()["l1_hit"] >= 100


@pytest.mark.parametrize("change", ["set", "delete", "clear", "invalidate", "touch"])
def test_changes_of_others_arrive(cache, other, change):
    cache.set("key", "older", ttl=100, tags=["x"])
    cache.set("same", "same", tags=["y"])
    in_l1(cache, "key")
    in_l1(cache, "same")
    if change == "set":
        other.set("key", "newer")
    elif change == "delete":
        other.delete("key")
    elif change == "clear":
        other.clear()
    elif change == "touch":
        other.touch("key", 0.001)
    else:
        other.invalidate_tags("x")
    until(lambda: cache.get("key") == ("newer" if change == "set" else None))
    if change != "clear":
        in_l1(cache, "same")


def test_ones_own_changes_are_seen_at_once(cache):
    for number in range(100):
        cache.set("key", number)
        assert cache.get("key") == number
    assert cache.delete("key")
    assert cache.get("key") is None


def test_a_flushed_server_is_forgotten(cache, server):
    cache.set("key", "value")
    in_l1(cache, "key")
    server.client().flushall()
    until(lambda: cache.get("key") is None)


def test_expiry_arrives(cache, server):
    cache.set("key", "value", ttl=100)
    in_l1(cache, "key")
    server.client().pexpire(Layout("").entry("key"), 1)
    until(lambda: cache.get("key") is None)


@pytest.mark.parametrize("fault", ["killed", "restarted", "paused", "connection"])
def test_what_was_not_heard_is_not_served(cache, server, fault):
    cache.set("key", "value")
    in_l1(cache, "key")
    if fault == "connection":
        other = server.client()
        [one] = listening(other)
        # Nothing can change unheard before the server is asked to forget the listener.
        pipeline = other.pipeline()
        pipeline.client_kill_filter(_id=one["id"])
        pipeline.delete(Layout("").entry("key"))
        pipeline.execute()
        until(lambda: cache.get("key") is None)
    elif fault == "paused":
        server.pause()
        until(lambda: not listens(cache))
        assert cache.get("key") is None
        server.go_on()
    else:
        server.kill()
        until(lambda: cache.get("key") is None)
        if fault == "killed":
            return
        server.start()
    until(lambda: listens(cache))
    until(lambda: cache.set("key", "again"))
    in_l1(cache, "key")


def test_without_a_listener_entries_are_kept_for_a_second(server):
    clock = Clock()
    with Cache(Redis(server.url, listen=False), clock=clock) as cache, Cache(server.url, l1=None, clock=clock) as other:
        cache.set("key", "older")
        assert cache.get("key") == "older"
        other.set("key", "newer")
        clock.advance(0.9)
        assert cache.get("key") == "older"
        clock.advance(0.2)
        assert cache.get("key") == "newer"
        health = cache.health()["engine"]
        assert (health["listener"], health["bound"], health["l1_ttl"], health["missing"]) == ("none", 1.0, 1.0, [])
        assert "tracking" not in health["rights"]


def test_a_server_that_does_not_allow_listening(server):
    server.client().acl_setuser(
        "app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-client|tracking"]
    )
    url = f"redis://app:secret@127.0.0.1:{server.port}/0"
    with Cache(url) as cache:
        assert "secret" not in repr(cache)
        cache.set("key", 1)
        assert cache.get("key") == 1
        until(lambda: "client|tracking" in cache.health()["engine"]["listener"])
        health = cache.health()["engine"]
        assert (health["missing"], health["bound"]) == (["+client|tracking"], 1.0)


def test_the_rights_that_are_documented_suffice(server):
    documented = Path(__file__).parents[2].joinpath("proto-docs", "redis.md").read_text()
    given = rights("tracking").split()
    assert " ".join(given) in " ".join(documented.split())
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">secret", *given)
    with Cache(f"redis://app:secret@127.0.0.1:{server.port}/0") as cache:
        assert cache.set("key", 1, ttl=100, tags=["x"])
        assert cache.set_many({"key": 2, "other": 3}, tags=["x"]) == 2
        until(lambda: cache.get("key") == 2 and listens(cache))
        assert cache.get_or_set("computed", lambda: 1, ttl=1000, tags=["x"]) == 1
        assert cache.touch("key", 5)
        assert cache.contains("key")
        assert cache.delete("key")
        cache.invalidate_tags("x")
        cache.clear()
        assert cache.get_many(["key", "other"]) == {}
        assert cache.health()["errors"] == 0


def test_namespaces_are_heard_by_one_connection(server):
    backend = Redis(server.url)
    with Cache(backend) as cache, Cache(backend, namespace="other") as second, Cache(server.url, l1=None) as writer:
        for each in (cache, second):
            each.set("key", 1)
            each.get("key")
        until(lambda: listens(cache) and listens(second))
        in_l1(cache, "key")
        in_l1(second, "key")
        writer.set("key", 2)
        until(lambda: cache.get("key") == 2)
        assert second.get("key") == 1
        assert len(listening(server.client())) == 1
    backend.close()
    until(lambda: listening(server.client()) == [])


def test_a_namespace_that_is_opened_later_leaves_what_others_have(server):
    backend = Redis(server.url)
    with Cache(backend) as cache:
        cache.set("key", 1)
        in_l1(cache, "key")
        until(lambda: listens(cache))
        in_l1(cache, "key")
        with Cache(backend, namespace="other") as second, Cache(server.url, l1=None, namespace="other") as writer:
            second.set("key", 1)
            second.get("key")
            until(lambda: listens(cache))
            assert cache.get_entry("key").tier == "l1"
            in_l1(second, "key")
            writer.set("key", 2)
            until(lambda: second.get("key") == 2)
        assert cache.get_entry("key").tier == "l1"
    backend.close()


def test_a_server_that_is_no_master_any_more_is_not_listened_to(cache, server):
    cache.set("key", "value")
    in_l1(cache, "key")
    client = server.client()
    client.replicaof("127.0.0.1", 1)
    until(lambda: not listens(cache))
    assert "expected a master, found" in cache.health()["engine"]["listener"]
    assert cache.get_entry("key").tier == "store"
    client.replicaof("NO", "ONE")
    until(lambda: listens(cache))
    in_l1(cache, "key")


def test_the_thread_ends_with_the_cache(server):
    def threads():
        return [one for one in threading.enumerate() if one.name == "framecache-listener"]

    until(lambda: not threads())
    cache = Cache(server.url)
    assert not threads()
    cache.get("key")
    assert len(threads()) == 1
    cache.close()
    until(lambda: not threads())
    forgotten = Cache(server.url)
    forgotten.get("key")
    assert len(threads()) == 1
    del forgotten
    gc.collect()
    until(lambda: not threads())


def test_a_forked_child_listens_for_itself(cache, other, server):
    cache.set("key", "older")
    in_l1(cache, "key")
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # What the parent hears is not told here: nothing of its copy may be served.
            other_names = server.client()
            other_names.delete(Layout("").entry("key"))
            if cache.get("key") is None:
                until(lambda: listens(cache))
                cache.set("key", "child")
                in_l1(cache, "key")
                os.write(writes, b"ready")
                until(lambda: cache.get("key") == "newer")
                status = 0
        finally:
            os._exit(status)
    assert os.read(reads, 5) == b"ready"
    assert listens(cache)
    until(lambda: cache.get("key") == "child")
    other.set("key", "newer")
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: cache.get("key") == "newer")


@pytest.fixture
def without_tracking(server):
    """A server that does not let its clients track, and caches of it that tell one another."""
    given = rights("publish").split()
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">secret", *given)
    url = f"redis://app:secret@127.0.0.1:{server.port}/0?listen=publish"
    with Cache(url) as cache, Cache(url, l1=None) as other:
        cache.get("nothing")
        until(lambda: listens(cache))
        assert cache.health()["engine"]["rights"].split() == given
        yield cache, other


@pytest.mark.parametrize("change", ["set", "set_many", "delete", "clear", "invalidate", "touch", "get_or_set"])
def test_writers_tell_where_the_server_does_not(without_tracking, server, change):
    cache, other = without_tracking
    cache.set("key", "older", ttl=100, tags=["x"])
    cache.set("same", "same", tags=["y"])
    in_l1(cache, "key")
    in_l1(cache, "same")
    assert listening(server.client()) == []
    expected = None
    if change == "set":
        assert other.set("key", "newer", ttl=50)
        expected = "newer"
    elif change == "set_many":
        assert other.set_many({"key": "newer", "another": 1}) == 2
        expected = "newer"
    elif change == "delete":
        assert other.delete_many(["key", "another"]) == 1
    elif change == "clear":
        other.clear()
    elif change == "touch":
        assert other.touch("key", 0.001)
    elif change == "get_or_set":
        until(lambda: other.delete("key"))
        assert other.get_or_set("key", lambda: "newer") == "newer"
        expected = "newer"
    else:
        other.invalidate_tags("x")
    until(lambda: cache.get("key") == expected)
    if change != "clear":
        in_l1(cache, "same")
    assert other.health()["errors"] == cache.health()["errors"] == 0


def test_what_a_lost_subscription_kept_from_being_heard_is_not_served(without_tracking, server):
    cache, other = without_tracking
    cache.set("key", "older")
    in_l1(cache, "key")
    client = server.client()
    [one] = client.client_list(_type="pubsub")
    pipeline = client.pipeline()
    pipeline.client_kill_filter(_id=one["id"])
    pipeline.delete(Layout("").entry("key"))
    pipeline.execute()
    until(lambda: cache.get("key") is None)
    until(lambda: listens(cache))
    until(lambda: cache.set("key", "again"))
    in_l1(cache, "key")
    assert other.set("key", "newest")
    until(lambda: cache.get("key") == "newest")


def test_many_names_are_removed_in_steps_and_told(without_tracking):
    cache, other = without_tracking
    keys = [f"key:{number}" for number in range(2500)]
    assert cache.set_many(dict.fromkeys(keys, 1)) == 2500
    in_l1(cache, keys[0])
    in_l1(cache, keys[-1])
    assert other.delete_many(keys) == 2500
    until(lambda: cache.get(keys[0]) is None and cache.get(keys[-1]) is None)


def test_a_server_that_does_not_allow_subscribing_either(server):
    given = " ".join(rights("publish").split()).replace("&fc:*", "resetchannels")
    server.client().execute_command("ACL", "SETUSER", "app", "on", ">secret", *given.split())
    with Cache(f"redis://app:secret@127.0.0.1:{server.port}/0?listen=publish") as cache:
        assert cache.get("key") is None
        until(lambda: cache.health()["engine"]["missing"] == ["&fc:*"])
        assert cache.health()["engine"]["bound"] == 1.0
        # Nothing is written that others could not be told of.
        assert not cache.set("key", 1)
        assert not server.client().exists(Layout("").entry("key"))


def test_settings_of_listening():
    backend = Redis.from_url("redis://localhost:1/0?listen=publish&l1_ttl=0.5")
    assert (type(backend), backend.l1_ttl, backend.capabilities.invalidation) == (PublishingRedis, 0.5, True)
    assert type(Redis.from_url("redis://localhost:1/0?listen=yes")) is Redis
    with pytest.raises(InvalidArgument, match="listen: expected yes or no or publish, got 'maybe'"):
        Redis.from_url("redis://localhost:1/0?listen=maybe")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("this user has no permissions to run the 'client' command or its subcommand", ["+client"]),
        ("User app has no permissions to run the 'client|tracking' command", ["+client|tracking"]),
        ("unknown command 'HELLO', with args beginning with: '3'", ["command HELLO"]),
        ("unknown command `hello`, with args beginning with:", ["command HELLO"]),
        ("No permissions to access a channel", ["&fc:*"]),
        ("this user has no permissions to access one of the keys used as arguments", ["~fc:*"]),
        ("Connection refused", []),
    ],
)
def test_refusals_name_what_is_missing(said, expected):
    assert missing(Exception(said)) == expected
    assert missing(None) == []


WRITER = """
    import sys, time, framecache
    cache = framecache.Cache(sys.argv[1], l1=None)
    ends = []
    for number in range(int(sys.argv[2])):
        cache.set("counter", number)
        ends.append(time.monotonic())
    print(*ends, flush=True)
"""


def test_nothing_is_served_beyond_the_bound(server):
    """A history: another process counts up, and notes when each number was written; threads note when they began to
    read which. None reads a number whose successor was written longer before than a silent connection may go unnoticed.
    """
    with Cache(server.url) as cache:
        cache.get("counter")
        until(lambda: listens(cache))
        writer = begin(WRITER, server.url, "3000")
        readers = [Reads(cache, "counter") for _ in range(2)]
        written = [float(end) for end in writer.stdout.readline().split()]
        writer.communicate()
        until(lambda: cache.get("counter") == 2999)
        histories = [reader.end() for reader in readers]
        hits = cache.stats()["l1_hit"]
    late = [began - written[number + 1] for history in histories for number, began in history if number + 1 < 3000]
    assert len(late) > 10
    assert hits > 100
    assert max(late) < PING_EVERY + SILENCE
