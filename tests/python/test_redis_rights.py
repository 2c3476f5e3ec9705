"""Users of a server who may not do everything: what the caller sees, and what `health` says."""

from __future__ import annotations

import logging

import pytest

from framecache import Cache, StoreError
from framecache.testing import Clock
from redis_server import server  # noqa: F401  # a fixture
from waiting import until

#: What a user needs for what is asked of him below.
ALL = ("~fc:*", "~fcf:*", "~fcl:*", "&*", "+@all")


@pytest.fixture(autouse=True)
def with_l1(monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")


def listener(cache):
    return cache.health()["engine"]["listener"]


def test_who_may_not_run_scripts_reads_only(server):
    url = server.user(*ALL, "-eval", "-evalsha", "-set", "-multi")
    with Cache(server.url, l1=None) as owner, Cache(url) as cache, Cache(url, on_error="raise") as strict:
        owner.set("key", "value")
        assert cache.get("key") == "value"
        until(lambda: listener(cache) == "on")
        # What he computes is his, and is not kept.
        assert not cache.set("other", 1)
        assert cache.get_or_set("other", lambda: "computed") == "computed"
        assert owner.get("other") is None
        assert cache.health()["errors"] >= 2
        with pytest.raises(StoreError, match="no permissions"):
            strict.set("other", 1)
        assert strict.get("key") == "value"


def test_who_may_not_read_is_given_nothing(server):
    url = server.user(*ALL, "-mget", "-get", "-getrange")
    with Cache(server.url, l1=None) as owner, Cache(url) as cache, Cache(url, on_error="raise") as strict:
        owner.set("key", "value")
        assert cache.get("key", "default") == "default"
        assert cache.get_many(["key"]) == {}
        with pytest.raises(StoreError, match="no permissions"):
            strict.get("key")
        assert cache.get_or_set("key", lambda: "computed") == "computed"
        assert cache.delete("key")
        assert owner.get("key") is None


def test_the_names_of_others_are_closed(server):
    url = server.user("~other:*", "&*", "+@all")
    with Cache(server.url, l1=None) as owner, Cache(url) as cache, Cache(url, on_error="raise") as strict:
        owner.set("key", "value")
        assert cache.get("key") is None
        assert not cache.set("key", 1)
        for ask in (strict.get, strict.delete, lambda key: strict.set(key, 1), cache.delete, cache.touch):
            with pytest.raises(StoreError, match=r"(?i)no permissions"):
                ask("key")
        assert owner.get("key") == "value"


def test_who_may_not_be_told_keeps_entries_for_a_second(server):
    clock = Clock()
    url = server.user(*ALL, "resetchannels", "-subscribe", "-client|tracking")
    with Cache(server.url, l1=None, clock=clock) as owner, Cache(url, clock=clock) as cache:
        owner.set("key", "older")
        assert cache.get("key") == "older"
        until(lambda: "client|tracking" in listener(cache))
        assert cache.get("key") == "older"
        owner.set("key", "newer")
        clock.advance(cache.health()["engine"]["l1_ttl"] + 0.001)
        assert cache.get("key") == "newer"


def test_rights_that_are_taken_away(server):
    url = server.user(*ALL)
    with Cache(server.url, l1=None) as owner, Cache(url) as cache:
        owner.set("key", "older")
        until(lambda: cache.get("key") == "older" and listener(cache) == "on")
        until(lambda: cache.get("key") == "older" and cache.get_entry("key").tier == "l1")
        # The server closes the user's connections.
        server.client().acl_deluser("app")
        owner.set("key", "newer")
        until(lambda: cache.get("key") != "older")
        assert cache.get("key", "default") == "default"
        until(lambda: listener(cache) not in ("on", "off"))


def test_a_wrong_password_is_said_without_it(server, caplog):
    url = server.user(*ALL).replace("secret", "hunter2")
    with caplog.at_level(logging.DEBUG), Cache(url) as cache, Cache(url, on_error="raise") as strict:
        assert cache.get("key", "default") == "default"
        assert not cache.set("key", 1)
        with pytest.raises(StoreError, match="invalid username-password pair") as caught:
            strict.get("key")
        until(lambda: "invalid username-password pair" in listener(cache))
        said = f"{caught.value}{cache.health()}{cache!r}{cache.stats()}"
    assert "hunter2" not in said + caplog.text


def test_a_password_is_asked_for(server):
    server.client().config_set("requirepass", "secret")
    with Cache(server.url) as cache, Cache(server.url_of(":secret@")) as told:
        assert cache.get("key", "default") == "default"
        until(lambda: "uthenticat" in listener(cache))
        assert told.set("key", 1)
        assert told.get("key") == 1
        assert "error" not in told.stats()
