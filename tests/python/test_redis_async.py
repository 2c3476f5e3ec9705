"""Commands of a Redis backend in event loops whose callers are cancelled, or wait in vain: real servers, with a proxy
in between that keeps answers back.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
import warnings
from contextlib import asynccontextmanager

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from framecache import StoreError, _redis_async
from framecache.backend import Write
from framecache.redis import PublishingRedis, Redis
from proxy import Proxy
from redis_server import server  # noqa: F401  # a fixture
from waiting import PATIENCE, every_loop, run_in

NAMES = [f"fc:{'0' * 32}:{{{number:040x}}}" for number in range(3)]
NAME, OTHER, ABSENT = NAMES
LARGE = bytes(range(256)) * (64 << 10)


def write(name, *parts, guards=()):
    return Write(name, parts, 3_600_000, dict(guards), (), {})


@pytest.fixture
def proxy(server):
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def direct(server):
    return server.client()


def client_of(port, *, tries=1, **settings):
    """An asyncio client that tries so often."""
    settings = {"socket_timeout": PATIENCE, "retry": Retry(NoBackoff(), tries - 1), **settings}
    return redis.asyncio.Redis(host="127.0.0.1", port=port, **settings)


@asynccontextmanager
async def opened(client, kind=Redis):
    """What the running loop asks through a client. After that, none of its connections is in use."""
    asynchronous = kind(client).for_loop()
    try:
        yield asynchronous
        await asynchronous.close()
        assert in_use(client) == (client.connection is not None)
    finally:
        await client.aclose()


async def values(asynchronous, names):
    return [None if found is None else bytes(found) for found in await asynchronous.get_many(names)]


async def value(asynchronous, name):
    return (await values(asynchronous, [name]))[0]


def in_use(client):
    return len(client.connection_pool._in_use_connections)


async def until(condition):
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, f"waited in vain for {condition}"
        await asyncio.sleep(0.001)


async def cancelled(task):
    """Cancel a task; it ends at once."""
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE)
    assert done == {task}
    assert task.cancelled()


class Held:
    """Keeps answers to commands with a name back, and knows how many there are."""

    def __init__(self, proxy, name=NAME):
        self.count = 0
        self.connections = set()
        self._name = name
        self._proxy = proxy
        proxy.hold(self._is_held)

    def _is_held(self, reply):
        if not reply.is_about(self._name):
            return False
        self.connections.add(reply.connection)
        self.count += 1
        return True


#: Commands, and what is seen on the server when they have been done.
COMMANDS = {
    "get": (lambda one: one.get(NAME), lambda direct: direct.get(NAME) == b"old value"),
    "get_many": (lambda one: one.get_many([NAME, OTHER]), lambda direct: direct.get(NAME) == b"old value"),
    "peek": (lambda one: one.peek([NAME, OTHER], 2), lambda direct: direct.get(NAME) == b"old value"),
    "set": (lambda one: one.set(write(NAME, b"new")), lambda direct: direct.get(NAME) == b"new"),
    "set of much": (lambda one: one.set(write(NAME, LARGE)), lambda direct: direct.get(NAME) == LARGE),
    "set_many": (
        lambda one: one.set_many([write(NAME, b"new"), write(OTHER, b"newer")]),
        lambda direct: direct.mget(NAME, OTHER) == [b"new", b"newer"],
    ),
    "guarded": (
        lambda one: one.set(write(NAME, b"new", guards={OTHER: b"other value"})),
        lambda direct: direct.get(NAME) == b"new",
    ),
    "delete": (lambda one: one.delete(NAME), lambda direct: not direct.exists(NAME)),
    "delete_many": (lambda one: one.delete_many([NAME, OTHER]), lambda direct: not direct.exists(NAME, OTHER)),
    "delete_if": (lambda one: one.delete_if(NAME, 0, b"old"), lambda direct: not direct.exists(NAME)),
    "touch": (lambda one: one.touch(NAME, 0, b"OLD"), lambda direct: direct.get(NAME) == b"OLD value"),
    "stamps": (lambda one: one.stamps([ABSENT, NAME], [None, None]), lambda direct: direct.exists(ABSENT)),
    "lease": (lambda one: one.lease(ABSENT, 7, 60_000), lambda direct: direct.get(ABSENT) == b"7"),
    "renew": (lambda one: one.renew(NAME, 7, 60_000), lambda direct: direct.get(NAME) == b"old value"),
    "release": (lambda one: one.release(NAME, 7), lambda direct: direct.get(NAME) == b"old value"),
}


@pytest.fixture
def filled(direct):
    direct.mset({NAME: b"old value", OTHER: b"other value"})
    return direct


@pytest.mark.parametrize("kind", [Redis, PublishingRedis])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_whose_caller_is_cancelled_is_done_and_answered(proxy, filled, command, kind):
    """Its answer is held back. The caller is gone at once; the connection is used again, once it has come."""
    ask, is_done = COMMANDS[command]

    async def main():
        async with opened(client_of(proxy.port), kind) as one:
            await one.get("fc:something:else")
            held = Held(proxy, ABSENT if command in ("lease", "stamps") else NAME)
            asking = asyncio.ensure_future(ask(one))
            await until(lambda: held.count)
            await cancelled(asking)
            assert in_use(one._client) == 1
            proxy.go_on()
            await one.close()
            assert is_done(filled)
            filled.set(OTHER, b"its own")
            assert await value(one, OTHER) == b"its own"
            assert proxy.connections == 1

    asyncio.run(main())


@every_loop
@pytest.mark.parametrize("protocol", [2, 3])
def test_callers_that_are_cancelled_anywhere(server, filled, new_loop, protocol):
    async def main():
        client = client_of(server.port, protocol=protocol)
        async with opened(client) as one:
            for turns in range(12):
                for command, (ask, _) in COMMANDS.items():
                    filled.mset({NAME: b"old value", OTHER: b"other value"})
                    filled.delete(ABSENT)
                    asking = asyncio.ensure_future(ask(one))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    asking.cancel()
                    await asyncio.gather(asking, return_exceptions=True)
                    assert await values(one, [f"fc:{command}", f"fc:{turns}"]) == [None, None]
            await one.close()
            # Who comes while a cancelled command is under way takes another connection, and all are used again.
            assert 1 <= len(client.connection_pool._available_connections) <= 3

    run_in(new_loop, main())


def test_many_who_are_cancelled_share_the_connections_that_there_are(server, filled):
    async def main():
        client = client_of(server.port)
        async with opened(client) as one:
            for _ in range(20):
                asking = [asyncio.ensure_future(one.get_many([NAME])) for _ in range(10)]
                await asyncio.sleep(0)
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                await one.close()
                assert await value(one, OTHER) == b"other value"
            assert len(client.connection_pool._available_connections) <= 11
            assert len(filled.client_list()) <= 13

    asyncio.run(main())


def test_a_large_answer_is_received_though_nobody_waits(proxy, direct):
    """Its caller is cancelled in the middle of it."""
    half_sent, goes_on = threading.Event(), threading.Event()
    direct.mset({NAME: LARGE, OTHER: b"other"})

    def in_halves(reply):
        if not reply.is_about(NAME):
            return reply.data
        connection = next(one for one in proxy._open if one._number == reply.connection)
        connection._client.sendall(reply.data[: len(LARGE) // 2])
        half_sent.set()
        assert goes_on.wait(PATIENCE)
        return reply.data[len(LARGE) // 2 :]

    async def main():
        async with opened(client_of(proxy.port)) as one:
            await one.get(OTHER)
            proxy.change = in_halves
            asking = asyncio.ensure_future(one.get(NAME))
            await until(half_sent.is_set)
            await cancelled(asking)
            goes_on.set()
            await one.close()
            assert await value(one, OTHER) == b"other"
            assert proxy.connections == 1
            assert await value(one, NAME) == LARGE

    asyncio.run(main())


def test_a_large_value_is_sent_though_nobody_waits(server, direct):
    """Its caller is cancelled while the server takes none of it."""

    async def main():
        async with opened(client_of(server.port)) as one:
            await one.get(OTHER)
            [connection] = one._client.connection_pool._available_connections
            server.pause()
            asking = asyncio.ensure_future(one.set(write(NAME, LARGE)))
            await until(lambda: connection._writer.transport.get_write_buffer_size())
            await cancelled(asking)
            server.go_on()
            await one.close()
            assert direct.get(NAME) == LARGE
            assert one._client.connection_pool._available_connections == [connection]
            assert await value(one, NAME) == LARGE

    asyncio.run(main())


@every_loop
@pytest.mark.parametrize("is_connected", [True, False])
def test_what_who_is_cancelled_changes_is_not_sent(server, direct, new_loop, is_connected):
    async def main():
        async with opened(client_of(server.port)) as one:
            if is_connected:
                await one.get(OTHER)
            mine = bytearray(LARGE)
            server.pause()
            asking = asyncio.ensure_future(one.set(write(NAME, mine)))
            for _ in range(10):
                await asyncio.sleep(0)
            await cancelled(asking)
            mine[:] = bytes(len(mine))
            server.go_on()
            await one.close()
            assert direct.get(NAME) == LARGE

    run_in(new_loop, main())


# Time


def test_who_waits_too_long_has_an_error_and_the_connection_is_closed(proxy, filled, monkeypatch):
    async def main():
        async with opened(client_of(proxy.port)) as one:
            await one.get(OTHER)
            monkeypatch.setattr(_redis_async, "DEADLINE", 0.1)
            held = Held(proxy)
            for ask in (lambda: one.get(NAME), lambda: one.set(write(NAME, LARGE))):
                with pytest.raises(StoreError, match=r"expected an answer within 0\.1 seconds"):
                    await ask()
            await one.close()
            assert held.count >= 1
            monkeypatch.setattr(_redis_async, "DEADLINE", PATIENCE)
            assert await value(one, OTHER) == b"other value"
            assert not held.connections & {reply.connection for reply in proxy.replies if reply.is_about(NAME)}
            proxy.go_on()
            assert await value(one, OTHER) == b"other value"
            await until(lambda: len(proxy._open) == 1)

    asyncio.run(main())


def test_a_cancelled_command_that_is_never_answered_ends(proxy, filled, monkeypatch):
    async def main():
        async with opened(client_of(proxy.port)) as one:
            await one.get(OTHER)
            monkeypatch.setattr(_redis_async, "DEADLINE", 0.1)
            held = Held(proxy)
            asking = asyncio.ensure_future(one.get(NAME))
            await until(lambda: held.count)
            await cancelled(asking)
            await one.close()
            assert in_use(one._client) == 0
            monkeypatch.setattr(_redis_async, "DEADLINE", PATIENCE)
            assert await value(one, OTHER) == b"other value"
            assert proxy.connections == 2
            proxy.go_on()

    asyncio.run(main())


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_is_not_answered_in_time_is_asked_again_as_often_as_the_client_does(proxy, filled, is_cancelled):
    async def main():
        async with opened(client_of(proxy.port, tries=2, socket_timeout=0.2)) as one:
            await one.get(OTHER)
            held = Held(proxy)
            proxy._is_held = lambda reply: reply.connection == 0 and Held._is_held(held, reply)
            asking = asyncio.ensure_future(one.touch(NAME, 0, b"NEW"))
            await until(lambda: held.count)
            if is_cancelled:
                await cancelled(asking)
                await one.close()
            else:
                assert await asking
            assert proxy.connections == 2
            assert proxy.asked(NAME) == 1
            assert filled.get(NAME) == b"NEW value"
            proxy.go_on()

    asyncio.run(main())


def test_a_timeout_of_the_client_is_an_error_of_the_store(proxy, filled):
    async def main():
        async with opened(client_of(proxy.port, socket_timeout=0.1)) as one:
            await one.get(OTHER)
            Held(proxy)
            with pytest.raises(StoreError, match="TimeoutError: Timeout reading from socket"):
                await one.get(NAME)
            proxy.go_on()
            assert await value(one, NAME) == b"old value"

    asyncio.run(main())


# The end of a loop


@every_loop
@pytest.mark.parametrize("cancels", [True, False])
def test_a_loop_that_ends_with_commands_under_way(proxy, filled, caplog, new_loop, cancels):
    """Nobody is told of it; the connections are closed with what has them."""

    async def main():
        one = Redis(client_of(proxy.port)).for_loop()
        await one.get(OTHER)
        held = Held(proxy)
        asking = [asyncio.ensure_future(one.get(NAME)) for _ in range(3)]
        await until(lambda: held.count == 3)
        for task in asking[: 3 if cancels else 0]:
            await cancelled(task)

    def run():
        if not cancels:
            return run_in(new_loop, main())
        loop = new_loop()
        loop.run_until_complete(main())
        loop.close()

    with caplog.at_level(logging.WARNING, "asyncio"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        run()
        gc.collect()
    assert not caplog.records
    proxy.go_on()


def test_asyncio_run_ends_while_a_cancelled_command_is_under_way(proxy, filled, caplog):
    async def main():
        client = client_of(proxy.port)
        one = Redis(client).for_loop()
        await one.get(OTHER)
        held = Held(proxy)
        asking = asyncio.ensure_future(one.get(NAME))
        await until(lambda: held.count)
        await cancelled(asking)
        await client.aclose()

    with caplog.at_level(logging.WARNING, "asyncio"):
        asyncio.run(main())
        gc.collect()
    assert not caplog.records
    proxy.go_on()


# Errors


def test_an_error_as_the_answer_leaves_the_connection(proxy, direct):
    direct.hset(NAME, "field", "value")
    direct.set(OTHER, b"other value")

    async def main():
        async with opened(client_of(proxy.port)) as one:
            assert await one.get(NAME) is None
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await one.touch(NAME, 0, b"x")
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await one.delete_if(NAME, 0, b"x")
            assert await value(one, OTHER) == b"other value"
            assert proxy.connections == 1

    asyncio.run(main())


@pytest.mark.parametrize("server", [("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")], indirect=True)
def test_a_full_server_says_so_in_a_loop(server):
    from framecache.backend import NoRoom

    async def main():
        async with opened(client_of(server.port)) as one:
            with pytest.raises(NoRoom):
                await one.set(write(NAME, LARGE))
            with pytest.raises(NoRoom):
                await asyncio.gather(*(one.set(write(f"fc:{number}", bytes(50_000))) for number in range(100)))
            assert await one.get(ABSENT) is None

    asyncio.run(main())


def test_a_server_that_loads_is_asked_again(proxy, filled):
    """It refuses; the connection is closed, and the client tries once more."""
    refused = []

    def loading(reply):
        if not reply.is_about(NAME) or refused:
            return reply.data
        refused.append(reply)
        return b"-LOADING Redis is loading the dataset in memory\r\n"

    async def main():
        async with opened(client_of(proxy.port, tries=2)) as one:
            await one.get(OTHER)
            proxy.change = loading
            assert await value(one, NAME) == b"old value"
            assert proxy.connections == 2

    asyncio.run(main())


def test_a_connection_that_the_server_closed_is_made_anew(proxy, filled):
    async def main():
        async with opened(client_of(proxy.port, tries=2)) as one:
            for _ in range(3):
                assert await value(one, OTHER) == b"other value"
                proxy.cut()

    asyncio.run(main())


# Clients


@pytest.mark.parametrize("parser", ["_AsyncRESP2Parser", "_AsyncRESP3Parser"])
@pytest.mark.parametrize("pool", ["ConnectionPool", "BlockingConnectionPool"])
def test_clients_of_other_parsers_and_pools(server, filled, parser, pool):
    async def main(**settings):
        pooled = getattr(redis.asyncio, pool)(host="127.0.0.1", port=server.port, socket_timeout=PATIENCE, **settings)
        async with opened(redis.asyncio.Redis(connection_pool=pooled)) as one:
            assert one._wire is not None
            assert await one.set_many([write(NAME, b"a", b"b"), write(OTHER, LARGE)]) == [True, True]
            found = await asyncio.gather(*(values(one, [NAME, OTHER, ABSENT]) for _ in range(10)))
            assert found == [[b"ab", LARGE, None]] * 10
            direct = {NAME: b"ab", OTHER: LARGE}
            for name in [*direct, ABSENT] * 5:
                asking = asyncio.ensure_future(one.get(name))
                await asyncio.sleep(0)
                await cancelled(asking)
                assert await value(one, name) == direct.get(name)
            await one.close()

    asyncio.run(main(parser_class=getattr(redis._parsers, parser), protocol=int(parser[-7])))
    asyncio.run(main(max_connections=20))


@every_loop
def test_a_pool_that_has_one_connection_for_all(server, filled, new_loop):
    """Those who wait for it are served, whoever else is cancelled."""

    async def main():
        pool = redis.asyncio.BlockingConnectionPool(
            host="127.0.0.1", port=server.port, max_connections=1, timeout=PATIENCE, socket_timeout=PATIENCE
        )
        async with opened(redis.asyncio.Redis(connection_pool=pool)) as one:
            for turns in range(20):
                asking = [asyncio.ensure_future(value(one, (NAME, OTHER)[n % 2])) for n in range(10)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in asking[::3]:
                    task.cancel()
                found = await asyncio.gather(*asking, return_exceptions=True)
                kept = [number for number in range(10) if number % 3]
                assert [found[n] for n in kept] == [(b"old value", b"other value")[n % 2] for n in kept]
            await one.close()
            assert len(pool._available_connections) == 1

    run_in(new_loop, main())


@pytest.mark.parametrize("settings", [{"single_connection_client": True}, {"health_check_interval": 0.001}])
def test_clients_with_other_settings(server, filled, settings):
    async def main():
        async with opened(client_of(server.port, **settings)) as one:
            for _ in range(10):
                assert await values(one, [NAME, ABSENT]) == [b"old value", None]
                assert await one.touch(NAME, 0, b"old")
                assert await one.set_many([write(OTHER, b"other")]) == [True]
                await asyncio.sleep(0.002)

    asyncio.run(main())


def test_what_a_server_pushes_is_no_answer(server, filled):
    async def main():
        async with opened(client_of(server.port, protocol=3, max_connections=1)) as one:
            await one._client.execute_command("CLIENT", "TRACKING", "ON", "BCAST")
            for number in range(20):
                assert await one.set(write(NAME, b"%d" % number))
                assert await values(one, [NAME, ABSENT]) == [b"%d" % number, None]
                if number % 3 == 0:
                    filled.set(OTHER, b"%d" % number)

    asyncio.run(main())


def test_a_pool_that_is_held_by_somebody(proxy, filled):
    """As redis-py holds it while it renews credentials: nobody takes a connection, or waits for giving one back."""

    async def main():
        async with opened(client_of(proxy.port)) as one:
            await one.get(OTHER)
            pool, held = one._client.connection_pool, Held(proxy)
            asking = asyncio.ensure_future(value(one, NAME))
            await until(lambda: held.count)
            async with pool._lock:
                proxy.go_on()
                assert await asyncio.wait_for(asking, PATIENCE) == b"old value"
                asking = asyncio.ensure_future(one.get(NAME))
                await asyncio.sleep(0)
                await cancelled(asking)
                assert in_use(one._client) == 1
            await one.close()
            assert await value(one, NAME) == b"old value"
            assert proxy.connections == 1

    asyncio.run(main())
