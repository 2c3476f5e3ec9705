"""What a backend must do, as checks that run against a real engine. `framecache.testing.backend_suite` gives them.

Each check takes a callable that connects to the engine anew, uses names that nobody else has, and raises an
`AssertionError` that says what was expected. What a backend's capabilities do not promise is not checked. Those of
commands ask in threads and, where a backend has something for event loops, in one of these, too.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import cast

import framecache
from framecache._backend import AsyncBackend, Backend, Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, Final, TypeVar

    from typing_extensions import Buffer

    R = TypeVar("R")

    Connect = Callable[[], Backend]
    Check = Callable[[Connect], None]

#: Seconds for what must happen at some time.
_PATIENCE: Final = 20.0
#: Milliseconds that no check takes.
_LONG: Final = 3_600_000
_THREADS: Final = 4
_TURNS: Final = 25


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r:.200}, found {found!r:.200}")


def _until(condition: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"{what}: expected within {_PATIENCE:.0f} seconds, did not happen")
        time.sleep(0.005)


def _names(count: int = 1) -> list[str]:
    """Names as entries have them; all of one call are in one slot of a cluster."""
    key = os.urandom(20).hex()
    return [f"fc:{number:032x}:{{{key}}}" for number in range(count)]


def _plain(value: Buffer | None) -> bytes | None:
    return None if value is None else bytes(value)


def _all(values: Sequence[Buffer | None]) -> list[bytes | None]:
    return [_plain(value) for value in values]


def _write(name: str, *parts: Buffer, ends: int | None = _LONG, **rest: Any) -> Write:
    return Write(name, parts, ends, rest.get("guards", {}), rest.get("removes", ()), rest.get("stamps", {}))


def _threads(work: Callable[[int], None]) -> None:
    """Run it at once in several threads; raise what one of them raised."""
    wrong: list[BaseException] = []
    barrier = threading.Barrier(_THREADS)

    def run(number: int) -> None:
        try:
            barrier.wait(_PATIENCE)
            work(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


# Values


def says_what_it_is(connect: Connect) -> None:
    """It is a `Backend` whose attributes are of their types, and two connections to one engine name the same place."""
    backend, other = connect(), connect()
    _expect(isinstance(backend, Backend), True, "isinstance(backend, Backend)")
    _expect((type(backend.place), backend.place), (str, other.place), "place")
    _expect(backend.max_bytes > 0, True, "max_bytes above 0")
    _expect(0 < backend.l1_ttl <= 60, True, "l1_ttl above 0 and at most 60")
    _expect(type(backend.health()), dict, "type of health()")


def what_is_set_is_got(connect: Connect) -> None:
    """Values of any size come back as they were written, from any connection; parts of any type stand together."""
    backend, other = connect(), connect()
    (name,) = _names()
    _expect(backend.get(name), None, "get of a name that was never set")
    for parts in (
        (b"",),
        (b"head", b"payload"),
        (b"\r\n\0" * 10, memoryview(bytearray(range(256))), bytearray(b"end")),
        (b"head" * 16, os.urandom(1 << 20)),
    ):
        _expect(backend.set(_write(name, *parts)), True, "set without guards")
        _expect(_plain(other.get(name)), b"".join(parts), f"get of {sum(map(len, parts))} bytes")


def what_was_read_stays(connect: Connect) -> None:
    """A value that was read does not change when another one is written, or when it is removed."""
    backend = connect()
    for size in (100, 100_000):
        (name,) = _names()
        backend.set(_write(name, b"a" * size))
        read, started = backend.get(name), backend.peek([name], 64)[0]
        backend.set(_write(name, b"b" * size))
        backend.delete(name)
        _expect(_plain(read), b"a" * size, "what was read before the name was set again")
        _expect(_plain(started), b"a" * 64, "what was peeked at before the name was set again")


def many_come_in_their_order(connect: Connect) -> None:
    """`get_many` and `set_many` keep the order of names, of which some have no value and some come twice."""
    backend = connect()
    names = [name for _ in range(50) for name in _names()]
    writes = [_write(name, name.encode()) for name in names[::2]]
    _expect(list(backend.set_many(writes)), [True] * len(writes), "set_many without guards")
    asked = [*names, names[0], names[1]]
    expected = [name.encode() if name in names[::2] else None for name in asked]
    _expect(_all(backend.get_many(asked)), expected, "get_many")
    _expect(list(backend.set_many([])), [], "set_many of nothing")


def peek_cuts_the_first(connect: Connect) -> None:
    """`peek` gives the start of the first value, all of a shorter one, and the others whole."""
    backend = connect()
    long, short, absent = _names(3)
    backend.set_many([_write(long, b"0123456789" * 1000), _write(short, b"short")])
    _expect(_all(backend.peek([long, short, absent], 4)), [b"0123", b"short", None], "peek of 4 bytes")
    _expect(_all(backend.peek([short, long], 64)), [b"short", b"0123456789" * 1000], "peek of more than there is")
    _expect(_all(backend.peek([absent], 64)), [None], "peek of no value")


def the_last_write_counts(connect: Connect) -> None:
    """Threads that write one name leave one of their values, whole."""
    backend = connect()
    (name,) = _names()
    values = [bytes([65 + number]) * 50_000 for number in range(_THREADS)]

    def work(number: int) -> None:
        for _ in range(_TURNS):
            backend.set(_write(name, values[number][:10], values[number][10:]))
            _expect(_plain(backend.get(name)) in values, True, "get gives one of the values that are written")

    _threads(work)


# Removing and time


def removed_is_gone(connect: Connect) -> None:
    """`delete` and `delete_many` count what was there."""
    backend = connect()
    names = _names(4)
    backend.set_many([_write(name, b"value") for name in names[:3]])
    _expect(backend.delete(names[0]), True, "delete of a value")
    _expect(backend.delete(names[0]), False, "delete of none")
    _expect(backend.delete_many(names), 2, "delete_many, of which two have values")
    _expect(backend.delete_many([]), 0, "delete_many of nothing")
    _expect(_all(backend.get_many(names)), [None] * 4, "get_many of what was removed")


def values_go_in_time(connect: Connect) -> None:
    """A value goes after its milliseconds; one without them, or with more, stays; writing it again counts anew."""
    backend = connect()
    soon, late, never = _names(3)
    backend.set(_write(soon, b"value", ends=60))
    backend.set(_write(late, b"value", ends=60))
    backend.set(_write(late, b"value", ends=_LONG))
    backend.set(_write(never, b"value", ends=60))
    backend.set(_write(never, b"value", ends=None))
    _until(lambda: backend.get(soon) is None, "a value that lasts 60 ms goes")
    _expect(_all(backend.get_many([late, never])), [b"value"] * 2, "values that last longer")
    _expect(backend.delete(soon), False, "delete of a value that went")


def touched_bytes_change(connect: Connect) -> None:
    """`touch` replaces bytes where they stand, makes no value, and does not change when it goes."""
    backend = connect()
    name, absent, soon = _names(3)
    backend.set(_write(name, b"0123456789" * 100))
    _expect(backend.touch(name, 8, b"ab"), True, "touch of a value")
    _expect(_plain(backend.get(name)), b"01234567ab" + b"0123456789" * 99, "a value that was touched")
    _expect(backend.touch(absent, 8, b"ab"), False, "touch of no value")
    _expect(backend.get(absent), None, "get of no value that was touched")
    backend.set(_write(soon, b"value", ends=60))
    _until(lambda: not backend.touch(soon, 0, b"V"), "a value that is touched goes when it was to go")


# Guards


def guards_must_hold(connect: Connect) -> None:
    """A write whose guards have other values, or none, does not take place; one whose guards hold does."""
    backend = connect()
    name, guard, gone = _names(3)
    backend.set_many([_write(name, b"old"), _write(guard, b"stamp")])
    for guards in ({guard: b"other"}, {gone: b"stamp"}, {guard: b"stamp", gone: b"stamp"}):
        _expect(backend.set(_write(name, b"new", guards=guards)), False, f"set with guards {guards}")
        _expect(_plain(backend.get(name)), b"old", "the value after guards did not hold")
    _expect(backend.set(_write(name, b"new", guards={guard: b"stamp"})), True, "set with a guard that holds")
    _expect(_plain(backend.get(name)), b"new", "the value after its guard held")
    writes = [_write(name, b"one", guards={guard: b"other"}), _write(gone, b"two", guards={guard: b"stamp"})]
    _expect(list(backend.set_many(writes)), [False, True], "set_many of which one has a guard that does not hold")
    _expect(_all(backend.get_many([name, gone])), [b"new", b"two"], "values after that")


def stamps_must_be_the_same(connect: Connect) -> None:
    """With `atomic`, a write whose stamps are others does not take place; those that are the same last longer then."""
    backend = connect()
    if not backend.capabilities.atomic:
        return
    name, stamp, gone, clock = _names(4)
    backend.set(_write(name, b"old"))
    made = bytes(backend.stamps([stamp], [60])[0])
    for stamps in ({stamp: (b"others..", None)}, {gone: (made, None)}):
        for parts in ((b"new",), (b"new", b"!" * 100_000)):
            _expect(backend.set(_write(name, *parts, stamps=stamps)), False, f"set with stamps {stamps}")
    lasting = {stamp: (made, _LONG)}
    _expect(list(backend.set_many([_write(name, b"new", stamps=lasting)])), [True], "set with a stamp that is the same")
    backend.set(_write(clock, b"value", ends=90))
    _until(lambda: backend.get(clock) is None, "a value that lasts 90 ms goes")
    _expect(_all(backend.get_many([name, stamp])), [b"new", made], "a value, and a stamp that is to last longer")


def what_is_the_same_is_removed(connect: Connect) -> None:
    """`delete_if` removes a value that has the bytes, and no other."""
    backend = connect()
    name, absent = _names(2)
    backend.set(_write(name, b"0123456789"))
    _expect(backend.delete_if(absent, 0, b"01"), False, "delete_if of no value")
    _expect(backend.delete_if(name, 2, b"24"), False, "delete_if of other bytes")
    _expect(_plain(backend.get(name)), b"0123456789", "a value with other bytes")
    removed = backend.delete_if(name, 2, b"23")
    _expect(backend.get(name) is None, removed, "whether a value is gone of which delete_if says so")


def a_write_removes(connect: Connect) -> None:
    """A write removes names in its step; one that does not take place removes none."""
    backend = connect()
    name, first, second, guard = _names(4)
    backend.set_many([_write(one, b"value") for one in (first, second, guard)])
    backend.set(_write(name, b"value", guards={guard: b"other"}, removes=[first, second]))
    _expect(_all(backend.get_many([first, second])), [b"value"] * 2, "after a write that did not take place")
    backend.set(_write(name, b"value", guards={guard: b"value"}, removes=[first, second, guard]))
    _expect(_all(backend.get_many([name, first, second, guard])), [b"value", None, None, None], "after one that did")


def guards_are_one_step(connect: Connect) -> None:
    """Of those who write with one guard and remove it, one does."""
    backend = connect()
    for _ in range(_TURNS):
        name, guard = _names(2)
        backend.set(_write(guard, b"stamp"))
        done: list[int] = []

        def work(number: int, name: str = name, guard: str = guard, done: list[int] = done) -> None:
            if backend.set(_write(name, b"%d" % number, guards={guard: b"stamp"}, removes=[guard])):
                done.append(number)

        _threads(work)
        _expect(len(done), 1, "how many of the writes with one guard, which each removes, took place")
        _expect(_plain(backend.get(name)), b"%d" % done[0], "the value of the one that did")


# What capabilities promise


def stamps_are_agreed_on(connect: Connect) -> None:
    """All connections have the same stamps, which are random and stay until they are removed."""
    backend, other = connect(), connect()
    if not backend.capabilities.tags:
        return
    names = _names(3)
    ends = [None, 60_000, _LONG]
    first = _all(backend.stamps(names, ends))
    _expect([len(stamp or b"") for stamp in first], [8] * 3, "lengths of stamps")
    _expect(len(set(first)), 3, "how many different stamps three names have")
    _expect(_all(other.stamps(names[::-1], ends[::-1])), first[::-1], "stamps asked for once more")
    _expect(_all(other.get_many(names)), first, "get_many of stamps")
    backend.delete(names[0])
    again = _plain(backend.stamps(names[:1], [None])[0])
    _expect(again not in (None, first[0]), True, "another stamp after it was removed")


def stamps_last(connect: Connect) -> None:
    """A stamp lasts as long as the longest time that it was asked for."""
    backend = connect()
    if not backend.capabilities.tags:
        return
    longer, ever, clock = _names(3)
    stamps = _all(backend.stamps([longer, ever], [60, 60]))
    _expect(_all(backend.stamps([longer, ever], [_LONG, None])), stamps, "stamps that are to last longer")
    backend.set(_write(clock, b"value", ends=90))
    _until(lambda: backend.get(clock) is None, "a value that lasts 90 ms goes")
    _expect(_all(backend.get_many([longer, ever])), stamps, "stamps that last longer")


def stamps_are_made_once(connect: Connect) -> None:
    """Threads that ask at once have one stamp."""
    backend = connect()
    if not backend.capabilities.tags:
        return
    for _ in range(_TURNS):
        names = _names()
        made: set[bytes | None] = set()
        _threads(lambda _, names=names, made=made: made.update(_all(backend.stamps(names, [None]))))  # type: ignore[misc]
        _expect(len(made), 1, "how many stamps those have who asked at once")


def a_lease_has_one_holder(connect: Connect) -> None:
    """A lease is taken once, renewed and given back with its token, and runs out."""
    backend, other = connect(), connect()
    if not backend.capabilities.lease:
        return
    (name,) = _names()
    _expect(backend.lease(name, 7, _LONG), True, "a lease that nobody has")
    _expect(other.lease(name, 8, _LONG), False, "one that another token has")
    _expect(other.lease(name, 7, _LONG), True, "one that this token has")
    _expect(other.renew(name, 8, _LONG), False, "renewing what another token has")
    _expect(other.release(name, 8), False, "giving back what another token has")
    _expect(backend.release(name, 7), True, "giving it back")
    _expect(backend.release(name, 7), False, "giving it back twice")
    _expect(backend.renew(name, 7, _LONG), False, "renewing one that was given back")
    _expect(other.lease(name, (1 << 63) - 1, 60), True, "one that was given back")
    _until(lambda: backend.lease(name, 9, 60), "a lease of 60 ms runs out")
    _expect(backend.renew(name, 9, _LONG) or not backend.lease(name, 10, _LONG), True, "renewing one that still lasts")
    holders: list[int] = []
    (name,) = _names()
    _threads(lambda number: holders.append(number) if backend.lease(name, number + 1, _LONG) else None)
    _expect(len(holders), 1, "how many of those have a lease who asked at once")


def names_are_listed(connect: Connect) -> None:
    """`names` gives all names with a prefix, each once, in parts."""
    backend = connect()
    if not backend.capabilities.keys:
        return
    prefix = f"fc:{os.urandom(16).hex()}:"
    names = {f"{prefix}{{{number:040x}}}" for number in range(300)}
    backend.set_many([_write(name, b"value") for name in [*names, *_names()]])
    found: list[str] = []
    start: str | None = None
    for _ in range(1000):
        part, start = backend.names(prefix, start)
        found += part
        if start is None:
            break
    _expect((len(found), set(found)), (300, names), "names with a prefix")


class _Heard:
    def __init__(self) -> None:
        self.names: set[str] = set()
        self.is_connected = False

    def changed(self, names: Sequence[str] | None) -> None:
        self.names.update(names or ())

    def connected(self, yes: bool) -> None:
        self.is_connected = yes


def changes_are_told(connect: Connect) -> None:
    """Who listens is told of each change by another connection, of nothing with another prefix, and of its own end."""
    backend, other = connect(), connect()
    if not backend.capabilities.invalidation:
        return
    prefix = f"fc:{os.urandom(16).hex()}:"
    names = [f"{prefix}{{{number:040x}}}" for number in range(4)]
    heard = _Heard()
    end = backend.listen(prefix, heard)
    _until(lambda: heard.is_connected, "a listener is connected")
    changes: list[Callable[[], object]] = [
        lambda: other.set(_write(names[0], b"value")),
        lambda: other.touch(names[0], 0, b"V"),
        lambda: other.delete(names[0]),
        lambda: other.set_many([_write(name, b"value") for name in names]),
    ]
    for change in changes:
        heard.names.clear()
        other.set(_write(_names()[0], b"value"))
        change()
        _until(lambda: names[0] in heard.names, "a change is told")
        _expect(all(name.startswith(prefix) for name in heard.names), True, "only names with the prefix are told")
    _until(lambda: set(names) <= heard.names, "each of several changes is told")
    end()
    _until(lambda: not heard.is_connected, "who ends listening is told so")


def who_is_cancelled_harms_nobody(connect: Connect) -> None:
    """Whoever asks in an event loop and is cancelled, wherever his command is by then, is so at once. The next one has
    the answer to his own question, and what was to be written is written whole or not at all.
    """
    backend = connect()
    here, absent, *names = _names(_TURNS + 2)
    backend.set(_write(here, here.encode()))

    def begin(asynchronous: AsyncBackend, turn: int) -> Coroutine[Any, Any, object]:
        name = names[turn]
        if turn % 5 == 0:
            return asynchronous.get(name)
        if turn % 5 == 1:
            return asynchronous.get_many([absent, absent])
        if turn % 5 == 2:
            return asynchronous.set_many([_write(name, name.encode()), _write(name, name.encode(), b"!" * 100_000)])
        if turn % 5 == 3:
            return asynchronous.delete_many([name])
        return asynchronous.set(_write(name, name.encode()))

    async def ask() -> None:
        asynchronous = backend.for_loop()
        if asynchronous is None:
            return
        try:
            for turn in range(_TURNS):
                task = asyncio.ensure_future(begin(asynchronous, turn))
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait([task], timeout=_PATIENCE)
                _expect(len(done), 1, "how many of those who were cancelled ended")
                found = _all(await asynchronous.get_many([here, absent]))
                _expect(found, [here.encode(), None], "get_many after a command whose caller was cancelled")
                _expect(await asynchronous.delete(absent), False, "delete after a command whose caller was cancelled")
        finally:
            await asynchronous.close()

    asyncio.run(ask())
    for name in names:
        whole = (None, name.encode(), name.encode() + b"!" * 100_000)
        _expect(_plain(backend.get(name)) in whole, True, "what a write whose caller was cancelled left is whole")


def a_cache_works_on_it(connect: Connect) -> None:
    """A `Cache` on it keeps values, forgets them, and computes them once."""
    first, second = connect(), connect()
    namespace = os.urandom(8).hex()
    with (
        framecache.Cache(first, namespace=namespace, on_error="raise") as cache,
        framecache.Cache(second, namespace=namespace, l1=None, on_error="raise") as other,
    ):
        table = {"text": "value", "numbers": list(range(1000)), "bytes": os.urandom(100_000)}
        _expect(cache.set_many({"a": table, "b": b"bytes"}), 2, "Cache.set_many")
        _expect(other.get_many(["a", "b", "c"]), {"a": table, "b": b"bytes"}, "Cache.get_many elsewhere")
        _expect(other.touch("b", ttl=60), True, "Cache.touch")
        _expect((other.delete("b"), "b" in other, "a" in other), (True, False, True), "Cache.delete")
        _expect(cache.set("a", 1, if_absent=True), False, "Cache.set of what is there, if_absent")
        computed: list[int] = []
        compute: Callable[[], int] = lambda: computed.append(1) or len(computed)  # type: ignore[func-returns-value]  # noqa: E731
        _threads(lambda _: _expect(cache.get_or_set("sum", compute), 1, "a value that threads ask for at once"))
        _expect((len(computed), other.get("sum")), (1, 1), "how often threads computed one value")
        if first.capabilities.tags:
            other.set("tagged", 1, tags=["tag"])
            other.invalidate_tags("tag")
            _expect(other.get("tagged"), None, "a value whose tag was invalidated")
            other.clear()
            _expect(other.get("a"), None, "a value of a namespace that was cleared")
        if first.capabilities.keys:
            other.set_many({f"key{number}": number for number in range(300)})
            _expect(sorted(other.keys("key")), sorted(f"key{number}" for number in range(300)), "Cache.keys")


def a_cache_works_on_it_in_a_loop(connect: Connect) -> None:
    """A `Cache` on it does for coroutines what it does for threads."""
    with framecache.Cache(connect(), namespace=os.urandom(8).hex(), l1=None, on_error="raise") as cache:

        async def work() -> None:
            computed: list[int] = []

            async def compute() -> int:
                computed.append(1)
                await asyncio.sleep(0)
                return len(computed)

            _expect(await cache.aset_many({"a": [1, "two"], "b": bytes(100_000)}), 2, "Cache.aset_many")
            _expect(await cache.aget("a"), [1, "two"], "Cache.aget")
            _expect(await cache.aget_many(["b", "c"]), {"b": bytes(100_000)}, "Cache.aget_many")
            _expect(await cache.adelete("b"), True, "Cache.adelete")
            _expect(await cache.aget("b"), None, "Cache.aget of what was deleted")
            asked = await asyncio.gather(*(cache.aget_or_set("sum", compute) for _ in range(_THREADS)))
            _expect((asked, len(computed)), ([1] * _THREADS, 1), "how often coroutines computed one value")

        asyncio.run(work())


class _Loop:
    """An event loop in a thread of its own, for checks that ask as threads do."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._opened: list[AsyncBackend] = []

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """What a coroutine returns."""
        asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return asked.result(_PATIENCE)
        except FutureTimeoutError:
            if asked.done():
                raise
            asked.cancel()
            raise AssertionError(f"expected an answer within {_PATIENCE:.0f} seconds, found none") from None

    def over(self, backend: Backend) -> _InLoop | None:
        """A backend whose commands this loop does, if it has means of its own to."""

        async def ask() -> AsyncBackend | None:
            return backend.for_loop()

        asynchronous = self.run(ask())
        if asynchronous is None:
            return None
        _expect(isinstance(asynchronous, AsyncBackend), True, "isinstance(backend.for_loop(), AsyncBackend)")
        self._opened.append(asynchronous)
        return _InLoop(backend, asynchronous, self)

    def close(self) -> None:
        """End it."""
        for asynchronous in self._opened:
            self.run(asynchronous.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _InLoop:
    """A backend whose commands are those of its `AsyncBackend`."""

    def __init__(self, backend: Backend, asynchronous: AsyncBackend, loop: _Loop) -> None:
        self._backend = backend
        self._asynchronous = asynchronous
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        if not hasattr(AsyncBackend, name):
            return getattr(self._backend, name)
        return lambda *arguments: self._loop.run(getattr(self._asynchronous, name)(*arguments))


def _also_in_a_loop(check: Check) -> Check:
    """The check, with the commands for threads and then, where there are some, with those for event loops."""

    @functools.wraps(check)
    def checked(connect: Connect) -> None:
        check(connect)
        loop = _Loop()
        try:
            if loop.over(connect()) is not None:
                check(lambda: cast("Backend", loop.over(connect())))
        except AssertionError as error:
            raise AssertionError(f"in an event loop: {error}") from error
        finally:
            loop.close()

    return checked


#: Of the commands.
_OF_COMMANDS: Final[tuple[Check, ...]] = (
    what_is_set_is_got,
    what_was_read_stays,
    many_come_in_their_order,
    peek_cuts_the_first,
    the_last_write_counts,
    removed_is_gone,
    values_go_in_time,
    touched_bytes_change,
    guards_must_hold,
    stamps_must_be_the_same,
    what_is_the_same_is_removed,
    a_write_removes,
    guards_are_one_step,
    stamps_are_agreed_on,
    stamps_last,
    stamps_are_made_once,
    a_lease_has_one_holder,
    names_are_listed,
    changes_are_told,
)
#: All of them.
CHECKS: Final[tuple[Check, ...]] = (
    says_what_it_is,
    *map(_also_in_a_loop, _OF_COMMANDS),
    who_is_cancelled_harms_nobody,
    a_cache_works_on_it,
    a_cache_works_on_it_in_a_loop,
)
