"""The connection that tells L1 of changes, through a proxy that cuts it, holds it and says what makes no sense.

L1 gives what it was not told of for as long as a silent connection goes unnoticed, and not after that.
"""

from __future__ import annotations

import time

import pytest

from framecache import Cache
from hearing import in_l1, is_in_l1, listens
from proxy import Cut, Proxy
from redis_server import server  # noqa: F401  # a fixture
from waiting import until

#: Seconds for which a connection on which nothing comes may go unnoticed.
UNNOTICED = 1.5


@pytest.fixture(autouse=True)
def with_l1(monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def cache(proxy):
    """A cache behind the proxy that is told of changes."""
    with Cache(f"{proxy.url}?socket_timeout=5") as opened:
        opened.get("nothing")
        until(lambda: listens(opened))
        yield opened


@pytest.fixture
def other(server):
    """A cache that goes around the proxy."""
    with Cache(server.url, l1=None) as opened:
        yield opened


def told_in_l1(cache, other, key):
    """Have L1 keep an entry, after everything that was written before was told."""
    for mark in range(2):
        other.set("mark", mark)
        until(lambda mark=mark: cache.get("mark") == mark and is_in_l1(cache, "mark"))
    in_l1(cache, key)


def is_message(reply):
    return reply.listens and not reply.command


def test_a_silent_connection_is_given_up(cache, other, proxy):
    other.set("key", "older")
    told_in_l1(cache, other, "key")
    proxy.hold(lambda reply: reply.listens)
    other.set("key", "newer")
    written = time.monotonic()
    served = written
    while (began := time.monotonic()) and cache.get("key") == "older":
        served = began
    # Nothing is said here of how long that takes, only of what is served meanwhile.
    assert served - written < UNNOTICED + 1
    assert not listens(cache)
    proxy.go_on()
    until(lambda: listens(cache))
    told_in_l1(cache, other, "key")
    other.set("key", "newest")
    until(lambda: cache.get("key") == "newest")


def test_messages_behind_an_answer_that_does_not_come(cache, other, proxy):
    """Only messages are held: the answers to pings before them arrive, those behind them do not."""
    other.set("key", "older")
    told_in_l1(cache, other, "key")
    proxy.hold(is_message)
    other.set("key", "newer")
    until(lambda: cache.get("key") == "newer")
    proxy.go_on()


@pytest.mark.parametrize("length", [0, 1, 20, 60])
def test_a_message_that_is_cut(cache, other, proxy, length):
    def change(reply):
        if is_message(reply):
            proxy.change = lambda reply: reply.data
            raise Cut(reply.data[:length])
        return reply.data

    other.set("key", "older")
    told_in_l1(cache, other, "key")
    proxy.change = change
    other.set("key", "newer")
    until(lambda: cache.get("key") == "newer")
    until(lambda: listens(cache))
    told_in_l1(cache, other, "key")
    other.set("key", "newest")
    until(lambda: cache.get("key") == "newest")


def test_messages_that_come_twice_and_late(cache, other, proxy):
    def change(reply):
        if is_message(reply):
            time.sleep(0.05)
            return reply.data * 2
        return reply.data

    proxy.change = change
    for number in range(3):
        other.set("key", number)
        until(lambda number=number: cache.get("key") == number)
        told_in_l1(cache, other, "key")
    assert listens(cache)


SENSELESS = [
    b":1\r\n",
    b"+OK\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*1\r\n$7\r\nmessage\r\n",
    b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n:7\r\n",
    b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n:7\r\n",
    b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n$3\r\nabc\r\n",
    b"\xff\xfe\r\n",
    b"$-7\r\n",
]


@pytest.mark.parametrize("said", SENSELESS, ids=repr)
def test_what_makes_no_sense_flushes(cache, other, proxy, said):
    """It is taken for a message that was lost: the connection is given up, and another one made."""

    def change(reply):
        if is_message(reply):
            proxy.change = lambda reply: reply.data
            return said
        return reply.data

    other.set("key", "older")
    told_in_l1(cache, other, "key")
    proxy.change = change
    other.set("key", "newer")
    until(lambda: cache.get("key") == "newer")
    until(lambda: proxy.listeners() == 1 and listens(cache))
    told_in_l1(cache, other, "key")
    other.set("key", "newest")
    until(lambda: cache.get("key") == "newest")


@pytest.mark.parametrize("said", SENSELESS, ids=repr)
def test_an_answer_to_a_listener_that_makes_no_sense(other, proxy, said):
    """What it says first is answered with something else: it does not count as one that is told of changes."""
    answers = iter(range(100))

    def change(reply):
        return said if reply.listens and next(answers) == 0 else reply.data

    proxy.change = change
    with Cache(proxy.url) as cache:
        other.set("key", "older")
        assert cache.get("key") == "older"
        until(lambda: next(answers) > 1)
        until(lambda: listens(cache))
        told_in_l1(cache, other, "key")
        other.set("key", "newer")
        until(lambda: cache.get("key") == "newer")


def test_no_connection_is_made_for_a_while(cache, other, proxy):
    other.set("key", "older")
    told_in_l1(cache, other, "key")

    def change(reply):
        if reply.listens:
            raise Cut
        return reply.data

    proxy.change = change
    proxy.cut(listeners_only=True)
    until(lambda: not listens(cache))
    # It lives for `l1_ttl` now.
    told_in_l1(cache, other, "key")
    other.set("key", "newer")
    until(lambda: cache.get("key") == "newer")
    proxy.change = lambda reply: reply.data
    until(lambda: listens(cache))
