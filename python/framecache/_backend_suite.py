"""What a backend must do, as checks that run against a real engine. `framecache.testing.backend_suite` gives them.

Each check takes a callable that connects to the engine anew, uses names that nobody else has, and raises an
`AssertionError` that says what was expected. What a backend's capabilities do not promise is not checked. Those of
commands ask in threads and, where a backend has something for event loops, in one of these, too.
"""

from __future__ import annotations

import os

import framecache
from framecache._backend import Backend
from framecache._backend_helpers import (
    LONG,
    THREADS,
    TURNS,
    a_write,
    expect,
    in_threads,
    new_names,
    plain,
    plains,
    until,
)
from framecache._backend_suite_loops import a_cache_works_on_it_in_a_loop, also_in_a_loop, who_is_cancelled_harms_nobody

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from framecache._backend_helpers import Check, Connect

# Values


def says_what_it_is(connect: Connect) -> None:
    """It is a `Backend` whose attributes are of their types, and two connections to one engine name the same place."""
    backend, other = connect(), connect()
    expect(isinstance(backend, Backend), True, "isinstance(backend, Backend)")
    expect((type(backend.place), backend.place), (str, other.place), "place")
    expect(backend.max_bytes > 0, True, "max_bytes above 0")
    expect(0 < backend.l1_ttl <= 60, True, "l1_ttl above 0 and at most 60")
    expect(type(backend.health()), dict, "type of health()")


def what_is_set_is_got(connect: Connect) -> None:
    """Values of any size come back as they were written, from any connection; parts of any type stand together."""
    backend, other = connect(), connect()
    (name,) = new_names()
    expect(backend.get(name), None, "get of a name that was never set")
    for parts in (
        (b"",),
        (b"head", b"payload"),
        (b"\r\n\0" * 10, memoryview(bytearray(range(256))), bytearray(b"end")),
        (b"head" * 16, os.urandom(1 << 20)),
    ):
        expect(backend.set(a_write(name, *parts)), True, "set without guards")
        expect(plain(other.get(name)), b"".join(parts), f"get of {sum(map(len, parts))} bytes")


def what_was_read_stays(connect: Connect) -> None:
    """A value that was read does not change when another one is written, or when it is removed."""
    backend = connect()
    for size in (100, 100_000):
        (name,) = new_names()
        backend.set(a_write(name, b"a" * size))
        read, started = backend.get(name), backend.peek([name], 64)[0]
        backend.set(a_write(name, b"b" * size))
        backend.delete(name)
        expect(plain(read), b"a" * size, "what was read before the name was set again")
        expect(plain(started), b"a" * 64, "what was peeked at before the name was set again")


def many_come_in_their_order(connect: Connect) -> None:
    """`get_many` and `set_many` keep the order of names, of which some have no value and some come twice."""
    backend = connect()
    names = [name for _ in range(50) for name in new_names()]
    writes = [a_write(name, name.encode()) for name in names[::2]]
    expect(list(backend.set_many(writes)), [True] * len(writes), "set_many without guards")
    asked = [*names, names[0], names[1]]
    expected = [name.encode() if name in names[::2] else None for name in asked]
    expect(plains(backend.get_many(asked)), expected, "get_many")
    expect(list(backend.set_many([])), [], "set_many of nothing")


def peek_cuts_the_first(connect: Connect) -> None:
    """`peek` gives the start of the first value, all of a shorter one, and the others whole."""
    backend = connect()
    long, short, absent = new_names(3)
    backend.set_many([a_write(long, b"0123456789" * 1000), a_write(short, b"short")])
    expect(plains(backend.peek([long, short, absent], 4)), [b"0123", b"short", None], "peek of 4 bytes")
    expect(plains(backend.peek([short, long], 64)), [b"short", b"0123456789" * 1000], "peek of more than there is")
    expect(plains(backend.peek([absent], 64)), [None], "peek of no value")


def the_last_write_counts(connect: Connect) -> None:
    """Threads that write one name leave one of their values, whole."""
    backend = connect()
    (name,) = new_names()
    values = [bytes([65 + number]) * 50_000 for number in range(THREADS)]

    def work(number: int) -> None:
        for _ in range(TURNS):
            backend.set(a_write(name, values[number][:10], values[number][10:]))
            expect(plain(backend.get(name)) in values, True, "get gives one of the values that are written")

    in_threads(work)


# Removing and time


def removed_is_gone(connect: Connect) -> None:
    """`delete` and `delete_many` count what was there."""
    backend = connect()
    names = new_names(4)
    backend.set_many([a_write(name, b"value") for name in names[:3]])
    expect(backend.delete(names[0]), True, "delete of a value")
    expect(backend.delete(names[0]), False, "delete of none")
    expect(backend.delete_many(names), 2, "delete_many, of which two have values")
    expect(backend.delete_many([]), 0, "delete_many of nothing")
    expect(plains(backend.get_many(names)), [None] * 4, "get_many of what was removed")


def values_go_in_time(connect: Connect) -> None:
    """A value goes after its milliseconds; one without them, or with more, stays; writing it again counts anew."""
    backend = connect()
    soon, late, never = new_names(3)
    backend.set(a_write(late, b"value", ends=60))
    backend.set(a_write(late, b"value", ends=LONG))
    backend.set(a_write(never, b"value", ends=60))
    backend.set(a_write(never, b"value", ends=None))
    # Written last: where it went, so has all that would have gone after as long.
    backend.set(a_write(soon, b"value", ends=60))
    until(lambda: backend.get(soon) is None, "a value that lasts 60 ms goes")
    expect(plains(backend.get_many([late, never])), [b"value"] * 2, "values that last longer")
    expect(backend.delete(soon), False, "delete of a value that went")


def touched_bytes_change(connect: Connect) -> None:
    """`touch` replaces bytes where they stand, makes no value, and does not change when it goes."""
    backend = connect()
    name, absent, soon = new_names(3)
    backend.set(a_write(name, b"0123456789" * 100))
    expect(backend.touch(name, 8, b"ab"), True, "touch of a value")
    expect(plain(backend.get(name)), b"01234567ab" + b"0123456789" * 99, "a value that was touched")
    expect(backend.touch(absent, 8, b"ab"), False, "touch of no value")
    expect(backend.get(absent), None, "get of no value that was touched")
    backend.set(a_write(soon, b"value", ends=60))
    until(lambda: not backend.touch(soon, 0, b"V"), "a value that is touched goes when it was to go")


# Guards


def guards_must_hold(connect: Connect) -> None:
    """A write whose guards have other values, or none, does not take place; one whose guards hold does."""
    backend = connect()
    name, guard, gone = new_names(3)
    backend.set_many([a_write(name, b"old"), a_write(guard, b"stamp")])
    for guards in ({guard: b"other"}, {gone: b"stamp"}, {guard: b"stamp", gone: b"stamp"}):
        expect(backend.set(a_write(name, b"new", guards=guards)), False, f"set with guards {guards}")
        expect(plain(backend.get(name)), b"old", "the value after guards did not hold")
    expect(backend.set(a_write(name, b"new", guards={guard: b"stamp"})), True, "set with a guard that holds")
    expect(plain(backend.get(name)), b"new", "the value after its guard held")
    writes = [a_write(name, b"one", guards={guard: b"other"}), a_write(gone, b"two", guards={guard: b"stamp"})]
    expect(list(backend.set_many(writes)), [False, True], "set_many of which one has a guard that does not hold")
    expect(plains(backend.get_many([name, gone])), [b"new", b"two"], "values after that")


def stamps_must_be_the_same(connect: Connect) -> None:
    """With `atomic`, a write whose stamps are others does not take place; those that are the same last longer then."""
    backend = connect()
    if not backend.capabilities.atomic:
        return
    name, stamp, gone, clock = new_names(4)
    backend.set(a_write(name, b"old"))
    made = bytes(backend.stamps([stamp], [60])[0])
    for stamps in ({stamp: (b"others..", None)}, {gone: (made, None)}):
        for parts in ((b"new",), (b"new", b"!" * 100_000)):
            expect(backend.set(a_write(name, *parts, stamps=stamps)), False, f"set with stamps {stamps}")
    lasting = {stamp: (made, LONG)}
    expect(list(backend.set_many([a_write(name, b"new", stamps=lasting)])), [True], "set with a stamp that is the same")
    backend.set(a_write(clock, b"value", ends=90))
    until(lambda: backend.get(clock) is None, "a value that lasts 90 ms goes")
    expect(plains(backend.get_many([name, stamp])), [b"new", made], "a value, and a stamp that is to last longer")


def what_is_the_same_is_removed(connect: Connect) -> None:
    """`delete_if` removes a value that has the bytes, and no other."""
    backend = connect()
    name, absent = new_names(2)
    backend.set(a_write(name, b"0123456789"))
    expect(backend.delete_if(absent, 0, b"01"), False, "delete_if of no value")
    expect(backend.delete_if(name, 2, b"24"), False, "delete_if of other bytes")
    expect(plain(backend.get(name)), b"0123456789", "a value with other bytes")
    removed = backend.delete_if(name, 2, b"23")
    expect(backend.get(name) is None, removed, "whether a value is gone of which delete_if says so")


def a_write_removes(connect: Connect) -> None:
    """A write removes names in its step; one that does not take place removes none."""
    backend = connect()
    name, first, second, guard = new_names(4)
    backend.set_many([a_write(one, b"value") for one in (first, second, guard)])
    backend.set(a_write(name, b"value", guards={guard: b"other"}, removes=[first, second]))
    expect(plains(backend.get_many([first, second])), [b"value"] * 2, "after a write that did not take place")
    backend.set(a_write(name, b"value", guards={guard: b"value"}, removes=[first, second, guard]))
    expect(plains(backend.get_many([name, first, second, guard])), [b"value", None, None, None], "after one that did")


def guards_are_one_step(connect: Connect) -> None:
    """Of those who write with one guard and remove it, one does."""
    backend = connect()
    for _ in range(TURNS):
        name, guard = new_names(2)
        backend.set(a_write(guard, b"stamp"))
        done: list[int] = []

        def work(number: int, name: str = name, guard: str = guard, done: list[int] = done) -> None:
            if backend.set(a_write(name, b"%d" % number, guards={guard: b"stamp"}, removes=[guard])):
                done.append(number)

        in_threads(work)
        expect(len(done), 1, "how many of the writes with one guard, which each removes, took place")
        expect(plain(backend.get(name)), b"%d" % done[0], "the value of the one that did")


# What capabilities promise


def stamps_are_agreed_on(connect: Connect) -> None:
    """All connections have the same stamps, which are random and stay until they are removed."""
    backend, other = connect(), connect()
    if not backend.capabilities.tags:
        return
    names = new_names(3)
    ends = [None, 60_000, LONG]
    first = plains(backend.stamps(names, ends))
    expect([len(stamp or b"") for stamp in first], [8] * 3, "lengths of stamps")
    expect(len(set(first)), 3, "how many different stamps three names have")
    expect(plains(other.stamps(names[::-1], ends[::-1])), first[::-1], "stamps asked for once more")
    expect(plains(other.get_many(names)), first, "get_many of stamps")
    backend.delete(names[0])
    again = plain(backend.stamps(names[:1], [None])[0])
    expect(again not in (None, first[0]), True, "another stamp after it was removed")


def stamps_last(connect: Connect) -> None:
    """A stamp lasts as long as the longest time that it was asked for."""
    backend = connect()
    if not backend.capabilities.tags:
        return
    longer, ever, clock = new_names(3)
    stamps = plains(backend.stamps([longer, ever], [60, 60]))
    expect(plains(backend.stamps([longer, ever], [LONG, None])), stamps, "stamps that are to last longer")
    backend.set(a_write(clock, b"value", ends=90))
    until(lambda: backend.get(clock) is None, "a value that lasts 90 ms goes")
    expect(plains(backend.get_many([longer, ever])), stamps, "stamps that last longer")


def stamps_are_made_once(connect: Connect) -> None:
    """Threads that ask at once have one stamp."""
    backend = connect()
    if not backend.capabilities.tags:
        return
    for _ in range(TURNS):
        names = new_names()
        made: set[bytes | None] = set()
        in_threads(lambda _, names=names, made=made: made.update(plains(backend.stamps(names, [None]))))  # type: ignore[misc]
        expect(len(made), 1, "how many stamps those have who asked at once")


def a_lease_has_one_holder(connect: Connect) -> None:
    """A lease is taken once, renewed and given back with its token, and runs out."""
    backend, other = connect(), connect()
    if not backend.capabilities.lease:
        return
    (name,) = new_names()
    expect(backend.lease(name, 7, LONG), True, "a lease that nobody has")
    expect(other.lease(name, 8, LONG), False, "one that another token has")
    expect(other.lease(name, 7, LONG), True, "one that this token has")
    expect(other.renew(name, 8, LONG), False, "renewing what another token has")
    expect(other.release(name, 8), False, "giving back what another token has")
    expect(backend.release(name, 7), True, "giving it back")
    expect(backend.release(name, 7), False, "giving it back twice")
    expect(backend.renew(name, 7, LONG), False, "renewing one that was given back")
    expect(other.lease(name, (1 << 63) - 1, 60), True, "one that was given back")
    until(lambda: backend.lease(name, 9, 60), "a lease of 60 ms runs out")
    expect(backend.renew(name, 9, LONG) or not backend.lease(name, 10, LONG), True, "renewing one that still lasts")
    holders: list[int] = []
    (name,) = new_names()
    in_threads(lambda number: holders.append(number) if backend.lease(name, number + 1, LONG) else None)
    expect(len(holders), 1, "how many of those have a lease who asked at once")


def names_are_listed(connect: Connect) -> None:
    """`names` gives all names with a prefix, each once, in parts."""
    backend = connect()
    if not backend.capabilities.keys:
        return
    prefix = f"fc:{os.urandom(16).hex()}:"
    names = {f"{prefix}{{{number:040x}}}" for number in range(300)}
    backend.set_many([a_write(name, b"value") for name in [*names, *new_names()]])
    found: list[str] = []
    start: str | None = None
    for _ in range(1000):
        part, start = backend.names(prefix, start)
        found += part
        if start is None:
            break
    expect((len(found), set(found)), (300, names), "names with a prefix")


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
    until(lambda: heard.is_connected, "a listener is connected")
    changes: list[Callable[[], object]] = [
        lambda: other.set(a_write(names[0], b"value")),
        lambda: other.touch(names[0], 0, b"V"),
        lambda: other.delete(names[0]),
        lambda: other.set_many([a_write(name, b"value") for name in names]),
    ]
    for change in changes:
        heard.names.clear()
        other.set(a_write(new_names()[0], b"value"))
        change()
        until(lambda: names[0] in heard.names, "a change is told")
        expect(all(name.startswith(prefix) for name in heard.names), True, "only names with the prefix are told")
    until(lambda: set(names) <= heard.names, "each of several changes is told")
    end()
    until(lambda: not heard.is_connected, "who ends listening is told so")


def a_cache_works_on_it(connect: Connect) -> None:
    """A `Cache` on it keeps values, forgets them, and computes them once."""
    first, second = connect(), connect()
    namespace = os.urandom(8).hex()
    with (
        framecache.Cache(first, namespace=namespace, on_error="raise") as cache,
        framecache.Cache(second, namespace=namespace, l1=None, on_error="raise") as other,
    ):
        table = {"text": "value", "numbers": list(range(1000)), "bytes": os.urandom(100_000)}
        expect(cache.set_many({"a": table, "b": b"bytes"}), 2, "Cache.set_many")
        expect(other.get_many(["a", "b", "c"]), {"a": table, "b": b"bytes"}, "Cache.get_many elsewhere")
        expect(other.touch("b", ttl=60), True, "Cache.touch")
        expect((other.delete("b"), "b" in other, "a" in other), (True, False, True), "Cache.delete")
        expect(cache.set("a", 1, if_absent=True), False, "Cache.set of what is there, if_absent")
        computed: list[int] = []
        compute: Callable[[], int] = lambda: computed.append(1) or len(computed)  # type: ignore[func-returns-value]  # noqa: E731
        in_threads(lambda _: expect(cache.get_or_set("sum", compute), 1, "a value that threads ask for at once"))
        expect((len(computed), other.get("sum")), (1, 1), "how often threads computed one value")
        if first.capabilities.tags:
            other.set("tagged", 1, tags=["tag"])
            other.invalidate_tags("tag")
            expect(other.get("tagged"), None, "a value whose tag was invalidated")
            other.clear()
            expect(other.get("a"), None, "a value of a namespace that was cleared")
        if first.capabilities.keys:
            other.set_many({f"key{number}": number for number in range(300)})
            expect(sorted(other.keys("key")), sorted(f"key{number}" for number in range(300)), "Cache.keys")


#: Those of commands.
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
    *map(also_in_a_loop, _OF_COMMANDS),
    who_is_cancelled_harms_nobody,
    a_cache_works_on_it,
    a_cache_works_on_it_in_a_loop,
)
