"""Connections to a Redis server that break, stall and mix up answers: what the caller sees, and for how long he waits.

A proxy stands in between. The client of a URL tries twice, so a command is asked at most twice of a server, and waits
for each answer for `socket_timeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time

import pytest

from framecache import Cache, StoreError
from framecache.testing import Clock
from proxy import Cut, Proxy
from redis_record import Layout
from redis_server import server  # noqa: F401  # a fixture
from waiting import Thread, until

LAYOUT = Layout("")
#: A client that is made for a URL tries so often.
ATTEMPTS = 2
TIMEOUT = 0.2
BOUNDS = f"socket_timeout={TIMEOUT}&socket_connect_timeout={TIMEOUT}"


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(proxy, clock):
    """A cache behind the proxy."""
    with Cache(f"{proxy.url}?socket_timeout=5", clock=clock) as opened:
        yield opened


@pytest.fixture
def strict(proxy, clock):
    """A cache behind the proxy, whose reads raise."""
    with Cache(f"{proxy.url}?socket_timeout=5", clock=clock, on_error="raise") as opened:
        yield opened


@pytest.fixture
def direct(server, clock):
    """A cache that goes around the proxy."""
    with Cache(server.url, clock=clock) as opened:
        yield opened


def asynchronous(port, **settings):
    """An asyncio client that tries once."""
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    return redis.asyncio.Redis(
        host="127.0.0.1", port=port, **{"socket_timeout": 5, "retry": Retry(NoBackoff(), 0), **settings}
    )


def read_in_loop(port, main, **settings):
    """Run `main(cache)`, whose cache has an asyncio client, in a loop."""

    async def run():
        client = asynchronous(port, **settings.pop("client", {}))
        with Cache(client, **settings) as cache:
            try:
                return await main(cache)
            finally:
                await client.aclose()

    return asyncio.run(run())


def entry(key):
    """Tells replies to commands with the entry of a key."""
    name = LAYOUT.entry(key)
    return lambda reply: reply.is_about(name)


def is_no_greeting(reply):
    """Whether a reply is not one to what clients say first."""
    return reply.command[:1] not in ((b"HELLO",), (b"CLIENT",), (b"SELECT",), (b"AUTH",))


def at(number, which, change):
    """Change this one of the replies that `which` tells, from 0, or all of them; pass on all others."""
    numbers = itertools.count()

    def changed(reply):
        return change(reply) if which(reply) and number in (None, next(numbers)) else reply.data

    return changed


def at_first(which, change):
    return at(0, which, change)


def always(which, change):
    return at(None, which, change)


def cut_at(length):
    def change(reply):
        raise Cut(reply.data[:length])

    return change


# Cut


def lengths_of(proxy, cache, key):
    """Where to cut the reply with a key's entry: everywhere in its first 40 bytes and its last, and a few more."""
    cache.get(key)
    [size] = {len(reply.data) for reply in proxy.replies if reply.is_about(LAYOUT.entry(key))}
    return sorted({*range(40), *range(40, size, 37), *range(size - 5, size)})


def test_a_reply_that_is_cut_once_is_asked_for_again(proxy, cache, direct):
    direct.set("key", {"a": [1, 2, 3]})
    for length in lengths_of(proxy, cache, "key")[::2]:
        proxy.change = at_first(entry("key"), cut_at(length))
        assert cache.get("key") == {"a": [1, 2, 3]}
    assert "error" not in cache.stats()


def test_a_reply_that_is_always_cut_is_a_miss(proxy, cache, strict, direct, clock):
    direct.set("key", {"a": [1, 2, 3]})
    for length in lengths_of(proxy, cache, "key")[::5]:
        proxy.change = always(entry("key"), cut_at(length))
        clock.advance(120)  # the breaker tries again
        before = proxy.asked(LAYOUT.entry("key"))
        assert cache.get("key", "default") == "default"
        assert proxy.asked(LAYOUT.entry("key")) - before <= ATTEMPTS
        clock.advance(120)
        with pytest.raises(StoreError):
            strict.get("key")
    proxy.change = at_first(entry("nothing"), cut_at(0))
    clock.advance(120)
    assert cache.get("key") == strict.get("key") == {"a": [1, 2, 3]}


def test_a_reply_that_is_cut_in_a_loop_is_a_miss(proxy, direct, clock):
    direct.set("key", {"a": [1, 2, 3]})

    async def main(cache):
        assert await cache.aget("key") == {"a": [1, 2, 3]}
        size = len(next(reply.data for reply in proxy.replies if reply.is_about(LAYOUT.entry("key"))))
        for length in (0, 1, 4, 30, size // 2, size - 1):
            proxy.change = at_first(entry("key"), cut_at(length))
            clock.advance(120)
            assert await cache.aget("key", "default") == "default"
            # The next command has a new connection.
            assert await cache.aget("key") == {"a": [1, 2, 3]}
        return cache.stats()

    assert read_in_loop(proxy.port, main, clock=clock)["error"] == 6


def test_a_large_value_that_is_cut_is_a_miss(proxy, cache, clock, direct):
    value = bytes(range(256)) * 20_000
    direct.set("key", value)
    for length in (1 << 16, 3 << 20, len(value)):
        proxy.change = always(entry("key"), cut_at(length))
        clock.advance(120)
        assert cache.get("key") is None
        assert cache.get_many(["key"]) == {}
    proxy.change = at_first(entry("key"), cut_at(1 << 20))
    clock.advance(120)
    assert cache.get("key") == value


@pytest.mark.parametrize("what", ["set", "get_or_set", "delete", "invalidate", "touch"])
def test_a_write_whose_answer_is_lost_is_repeated(proxy, cache, direct, what):
    direct.set("key", "older", ttl=100, tags=["x"])
    assert cache.get("key") == "older"
    # What is written goes without the caller's knowing it.
    proxy.change = at_first(lambda reply: is_no_greeting(reply) and reply.command[:1] != (b"MGET",), cut_at(0))
    if what == "set":
        assert cache.set("key", "newer")
    elif what == "get_or_set":
        assert cache.get_or_set("other", lambda: "computed") == "computed"
    elif what == "delete":
        cache.delete("key")
    elif what == "invalidate":
        cache.invalidate_tags("x")
    else:
        assert cache.touch("key", 50)
    assert direct.get("key") == {"set": "newer", "get_or_set": "older", "touch": "older"}.get(what)
    assert direct.get("other") in ((None, "computed") if what == "get_or_set" else (None,))


# Late


def is_read(cache):
    with contextlib.suppress(StoreError):
        return cache.get("key") == "value"
    return False


def test_a_server_that_does_not_answer_is_asked_twice(proxy, direct):
    direct.set("key", "value")
    for on_error in ("count", "raise"):
        with Cache(f"{proxy.url}?{BOUNDS}", on_error=on_error) as cache:
            until(lambda cache=cache: is_read(cache))
            proxy.hold(lambda reply: True)
            made = proxy.connections
            if on_error == "count":
                assert cache.get("key", "default") == "default"
            else:
                with pytest.raises(StoreError, match="Timeout"):
                    cache.get("key")
            # Each attempt waits for an answer once; between two there is a pause of at most a tenth of a second.
            assert proxy.connections - made <= ATTEMPTS
            proxy.go_on()
            until(lambda cache=cache: is_read(cache))


def test_a_loop_does_not_wait_for_ever(proxy, direct, monkeypatch):
    """A client whose own timeout is long: no caller waits longer than `DEADLINE`, and what comes later is no answer."""
    from framecache import _redis_async

    monkeypatch.setattr(_redis_async, "DEADLINE", 0.1)
    direct.set_many({"key": "value", "other": "another"})

    async def main(cache):
        assert await cache.aget("key") == "value"
        proxy.hold(lambda reply: True)
        found = await asyncio.gather(*(cache.aget("key", "default") for _ in range(3)))
        with pytest.raises(StoreError, match=r"within 0.1 seconds"):
            await strict.aget("key")
        proxy.go_on()
        monkeypatch.setattr(_redis_async, "DEADLINE", 30)
        for _ in range(10):
            assert await cache.aget("other") == "another"
        return found

    client = asynchronous(proxy.port, socket_timeout=60)
    with Cache(client, on_error="raise") as strict:
        assert read_in_loop(proxy.port, main, client={"socket_timeout": 60}) == ["default"] * 3


def test_latency_is_waited_for(proxy, direct):
    def later(reply):
        time.sleep(0.02)
        return reply.data

    proxy.change = later
    with Cache(f"{proxy.url}?socket_timeout=5") as cache:
        assert cache.set("key", "value", tags=["x"])
        assert cache.get("key") == "value"
        assert cache.get_or_set("computed", lambda: direct.delete("computed")) is False
        assert cache.get("computed") is None
        direct.invalidate_tags("x")
        assert cache.get("key") is None
        assert "error" not in cache.stats()


def test_an_answer_in_many_parts(proxy, cache, direct):
    """Each byte by itself, to a client that then has to put it together."""
    direct.set("key", {"a": "x" * 200})

    def in_parts(reply):
        connection = next(one for one in proxy._open if one._number == reply.connection)
        for at in range(len(reply.data)):
            connection._client.sendall(reply.data[at : at + 1])
        return b""

    proxy.change = always(entry("key"), in_parts)
    assert cache.get("key") == {"a": "x" * 200}
    assert read_in_loop(proxy.port, lambda cache: cache.aget("key")) == {"a": "x" * 200}


# Mixed up


def one_late(which):
    """From the first reply that `which` tells, each reply is the one before it."""
    held = []

    def change(reply):
        if not held and not which(reply):
            return reply.data
        if held and held[0].connection != reply.connection:
            return reply.data
        held.append(reply)
        return (held[-2] if len(held) > 1 else reply).data

    return change


@pytest.fixture
def three(direct):
    """Entries of three keys, which a reader has asked for before: he has a connection."""
    direct.set_many({"a": "value of a", "b": "value of b", "c": "value of c"})
    return direct


def test_an_answer_that_comes_twice_is_an_error_of_another_key(proxy, strict, three):
    strict.get("c")
    proxy.change = one_late(entry("a"))
    assert strict.get("a") == "value of a"
    with pytest.raises(StoreError, match="the answer for 'b' is the entry of 'a'"):
        strict.get("b")
    # That connection is used no more.
    for key in "abcabc":
        assert strict.get(key) == f"value of {key}"


def test_an_answer_that_comes_twice_in_a_loop(proxy, three):
    async def main(cache):
        await cache.aget("c")
        proxy.change = one_late(entry("a"))
        assert await cache.aget("a") == "value of a"
        with pytest.raises(StoreError, match="the answer for 'b' is the entry of 'a'"):
            await cache.aget("b")
        return [await cache.aget(key) for key in "abcabc"]

    found = read_in_loop(proxy.port, main, on_error="raise")
    assert found == [f"value of {key}" for key in "abcabc"]


def test_an_answer_that_comes_twice_at_once(proxy, cache, three):
    proxy.change = always(entry("a"), lambda reply: reply.data * 2)
    for key in "abcab":
        assert cache.get(key) in (f"value of {key}", None)
    proxy.change = lambda reply: reply.data
    for key in "abcabc":
        assert cache.get(key) == f"value of {key}"


def test_answers_of_two_connections_exchanged(proxy, strict, three):
    both, exchanged = threading.Barrier(2, timeout=10), {}

    def exchange(reply):
        exchanged[reply.connection] = reply.data
        both.wait()
        [other] = (data for connection, data in exchanged.items() if connection != reply.connection)
        return other

    strict.get("c")
    proxy.change = always(lambda reply: entry("a")(reply) or entry("b")(reply), exchange)
    readers = [Thread(strict.get, key) for key in "ab"]
    assert {str(reader.error) for reader in readers} == {
        "the answer for 'a' is the entry of 'b'",
        "the answer for 'b' is the entry of 'a'",
    }
    proxy.change = lambda reply: reply.data
    assert [strict.get(key) for key in "abc"] == [f"value of {key}" for key in "abc"]


def test_get_many_with_the_answer_to_another_question(proxy, cache, three, clock):
    cache.get_many(["a", "b", "c"])
    proxy.change = one_late(entry("a"))
    assert cache.get_many(["a", "b"]) == {"a": "value of a", "b": "value of b"}
    for asked in (["b", "a"], ["c", "b"], ["a", "b", "c"], ["c"]):
        clock.advance(120)
        found = cache.get_many(asked)
        assert found.items() <= {key: f"value of {key}" for key in asked}.items()


#: What a server that is none may say. None of it is an answer to any question of ours.
SENSELESS = {
    "an integer": b":1\r\n",
    "a status": b"+OK\r\n",
    "a text": b"$5\r\nhello\r\n",
    "nothing": b"$-1\r\n",
    "no list": b"*-1\r\n",
    "an empty list": b"*0\r\n",
    "a list of one": b"*1\r\n$3\r\nfcr\r\n",
    "integers": b"*2\r\n:1\r\n:2\r\n",
    "lists": b"*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
    "a list of many": b"*9\r\n" + b"$1\r\nx\r\n" * 9,
    "an error": b"-ERR no idea\r\n",
    "no protocol": b"\xff\xfe\r\n",
    "a length that is none": b"$-7\r\n",
    "a large number": b":99999999999999999999999\r\n",
}


@pytest.mark.parametrize("kind", list(SENSELESS))
def test_answers_that_make_no_sense(proxy, direct, clock, kind):
    """They are misses, writes that were dropped, and errors of the store: nothing else reaches a caller, whichever of
    the answers that a method waits for it is.
    """
    with Cache(f"{proxy.url}?socket_timeout=5", clock=clock) as cache:
        writes = (
            lambda: cache.set("key", "newer"),
            lambda: cache.set("key", b"newer" * 20_000),
            lambda: cache.set_many({"key": "newer", "other": 1}),
            lambda: cache.set("key", "newer", if_absent=True),
            lambda: cache.contains("key"),
            lambda: cache.touch("key", 50),
            lambda: cache.delete("key"),
            lambda: cache.delete_many(["key", "other"]),
            lambda: cache.invalidate_tags("x"),
            cache.clear,
        )
        for wrong in (*range(4), None):
            direct.set("key", "value", ttl=100)
            assert cache.get("key") == "value"
            for ask in writes:
                clock.advance(70)  # the breaker tries again
                proxy.change = at(wrong, is_no_greeting, answer(kind))
                with contextlib.suppress(StoreError):
                    ask()
            clock.advance(70)
            proxy.change = at(wrong, is_no_greeting, answer(kind))
            # A lease whose answer was lost is nobody's, and runs out.
            assert cache.get_or_set("key", lambda: "computed", lock=0.01) in (
                "value",
                "newer",
                b"newer" * 20_000,
                "computed",
            )
            proxy.change = lambda reply: reply.data
            clock.advance(70)
            assert cache.get("key") in ("value", "newer", b"newer" * 20_000, "computed", None)
        direct.set("key", "value")
        proxy.change = always(is_no_greeting, answer(kind))
        assert cache.get("key") is None
        clock.advance(70)
        assert cache.get_many(["key", "other"]) == {}


def answer(kind):
    return lambda reply: SENSELESS[kind]


@pytest.mark.parametrize("kind", list(SENSELESS))
def test_answers_that_make_no_sense_in_a_loop(proxy, direct, clock, kind):
    direct.set("key", "value")

    async def main(cache):
        assert await cache.aget("key") == "value"
        proxy.change = always(entry("key"), answer(kind))
        found = await cache.aget("key", "default")
        proxy.change = lambda reply: reply.data
        clock.advance(120)
        return found, await cache.aget("key")

    assert read_in_loop(proxy.port, main, clock=clock) == ("default", "value")
