"""What is said to a Redis server for each command of a backend, and which answers there are to it: for threads and for
event loops, who send it and receive.

Each method gives steps: a generator that yields what to ask, is sent the answer, and returns what the backend's method
does. What it asks for is one step of the server's, and may be asked twice.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from framecache._redis_replies import are_stamps, are_values, is_count, is_held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any, Final, TypeAlias, TypeVar

    from typing_extensions import Buffer

    from framecache._backend import Write

    R = TypeVar("R")

    #: The arguments of a command; a tuple of buffers is one of them.
    Arguments: TypeAlias = Sequence[Any]
    Steps: TypeAlias = Generator["Command | Transaction", Any, R]

#: Values of more bytes do not go through a script, which would copy them.
_LARGE: Final = 64 << 10

# Every script names all of its keys. They are sent whole: the longest has 700 bytes, and none is ever unknown.
_LAST: Final = """
local function last(key, ms)
  local left = redis.call('PTTL', key)
  if left >= 0 and ms == 0 then redis.call('PERSIST', key)
  elseif left >= 0 and 2 * left < ms then redis.call('PEXPIRE', key, ms) end
end"""
# ARGV: the numbers of guards and of stamps, the values of both, for how long each stamp is to last.
_CHECK: Final = (
    _LAST
    + """
local guards, stamps = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 1, guards + stamps do
  if redis.call('GET', KEYS[i]) ~= ARGV[i + 2] then return 0 end
end
for i = guards + 1, guards + stamps do last(KEYS[i], tonumber(ARGV[i + stamps + 2])) end"""
)
# Then the entry, and what is removed. ARGV: then the value, and after how long it goes.
WRITE: Final = (
    _CHECK
    + """
local at, arg = guards + stamps + 1, guards + 2 * stamps + 3
if ARGV[arg + 1] == '' then redis.call('SET', KEYS[at], ARGV[arg])
else redis.call('SET', KEYS[at], ARGV[arg], 'PX', ARGV[arg + 1]) end
for i = at + 1, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1"""
)
_HOLD: Final = _CHECK + "\nreturn 1"
_STAMPS: Final = (
    _LAST
    + """
local stamps = {}
for i, key in ipairs(KEYS) do
  local ms = tonumber(ARGV[2 * i])
  stamps[i] = redis.call('GET', key)
  if stamps[i] then last(key, ms)
  else
    stamps[i] = ARGV[2 * i - 1]
    if ms == 0 then redis.call('SET', key, stamps[i]) else redis.call('SET', key, stamps[i], 'PX', ms) end
  end
end
return stamps"""
)
_PEEK: Final = """
local values = {redis.call('GETRANGE', KEYS[1], 0, ARGV[1])}
for i = 2, #KEYS do values[i] = redis.call('GET', KEYS[i]) end
return values"""
DELETE_IF: Final = """
if redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2]) ~= ARGV[3] then return 0 end
return redis.call('UNLINK', KEYS[1])"""
TOUCH: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('SETRANGE', KEYS[1], ARGV[1], ARGV[2])
return 1"""
_LEASE: Final = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1"""
_RENEW: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])"""


class Command(NamedTuple):
    """A command, and what its answer must be.

    Attributes:
        arguments: What is sent.
        holds: Whether something is an answer to it.
        expected: The answer, for people.
        values: The number of values that the answer is; `None`: it is something else.
    """

    arguments: Arguments
    holds: Callable[[Any], bool]
    expected: str
    values: int | None = None


class Transaction(NamedTuple):
    """Commands that are one step, and what the answers must be, as those of `Command`."""

    commands: Sequence[Arguments]
    holds: Callable[[Any], bool]
    expected: str


def values(names: Sequence[str]) -> Command:
    """Read names."""
    count = len(names)
    return Command(("MGET", *names), lambda found: are_values(found, count), f"{count} values", count)


def number(*arguments: Any) -> Command:
    """A command whose answer is how many names it changed."""
    return Command(arguments, is_count, "a number")


def changes(*arguments: Any) -> Steps[bool]:
    """A command whose answer is how many names it changed; whether it changed any."""
    return bool((yield number(*arguments)))


class Commands:
    """Those of a server on which L1 is told of changes by the server, or not at all."""

    def peek(self, names: Sequence[str], nbytes: int) -> Steps[list[Buffer | None]]:
        """The steps of `Backend.peek`."""
        count = len(names)
        arguments = ("EVAL", _PEEK, count, *names, nbytes - 1)
        first, *rest = yield Command(arguments, lambda found: are_values(found, count), f"{count} values")
        return [first or None, *rest]

    def set(self, write: Write) -> Steps[bool]:
        """The steps of `Backend.set`."""
        if not write.guards and sum(memoryview(part).nbytes for part in write.parts) > _LARGE:
            held: bool = (yield from self.set_many([write]))[0]
            return held
        return bool((yield number(*written(WRITE, write))))

    def set_many(self, writes: Sequence[Write]) -> Steps[list[bool]]:
        """The steps of `Backend.set_many`: those without guards in one transaction."""
        plain = [write for write in writes if not write.guards]
        held = True
        if plain:
            held = (yield _in_one(plain))[0] > 0
        done = []
        for write in writes:
            done.append((yield from self.set(write)) if write.guards else held)
        return done

    def delete_many(self, names: Sequence[str]) -> Steps[int]:
        """The steps of `Backend.delete_many`."""
        return (yield number("UNLINK", *names)) if names else 0

    def delete_if(self, name: str, offset: int, part: bytes) -> Steps[bool]:
        """The steps of `Backend.delete_if`."""
        return changes("EVAL", DELETE_IF, 1, name, offset, offset + len(part) - 1, part)

    def touch(self, name: str, offset: int, part: bytes) -> Steps[bool]:
        """The steps of `Backend.touch`."""
        return changes("EVAL", TOUCH, 1, name, offset, part)

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> Steps[list[bytes]]:
        """The steps of `Backend.stamps`."""
        count = len(names)
        wanted = [part for ms in milliseconds for part in (os.urandom(8), ms or 0)]
        arguments = ("EVAL", _STAMPS, count, *names, *wanted)
        found: list[bytes] = yield Command(arguments, lambda found: are_stamps(found, count), f"{count} stamps")
        return found

    def lease(self, name: str, token: int, milliseconds: int) -> Steps[bool]:
        """The steps of `Backend.lease`."""
        return changes("EVAL", _LEASE, 1, name, token, milliseconds)

    def renew(self, name: str, token: int, milliseconds: int) -> Steps[bool]:
        """The steps of `Backend.renew`."""
        return changes("EVAL", _RENEW, 1, name, token, milliseconds)

    def release(self, name: str, token: int) -> Steps[bool]:
        """The steps of `Backend.release`."""
        return changes("EVAL", _RELEASE, 1, name, token)


def written(script: str, write: Write, *more: Any) -> Arguments:
    """The arguments of a script that begins as `WRITE`, and some more."""
    keys = [*write.guards, *write.stamps, write.name, *write.removes]
    milliseconds = "" if write.milliseconds is None else write.milliseconds
    return ("EVAL", script, len(keys), *keys, *_compared(write), tuple(write.parts), milliseconds, *more)


def _in_one(writes: Sequence[Write]) -> Transaction:
    """Writes without guards, whose stamps are compared first: whether these held is the first answer."""
    stamps = {name: stamp for write in writes for name, stamp in write.stamps.items()}
    check = writes[0]._replace(stamps=stamps)
    commands: list[Arguments] = [("EVAL", _HOLD, len(stamps), *stamps, *_compared(check))]
    for write in writes:
        ends = () if write.milliseconds is None else ("PX", write.milliseconds)
        commands.append(("SET", write.name, tuple(write.parts), *ends))
    if removes := {name for write in writes for name in write.removes}:
        commands.append(("UNLINK", *removes))
    return Transaction(commands, lambda found: is_held(found, len(commands)), f"{len(commands)} answers")


def _compared(write: Write) -> list[Any]:
    """What `_CHECK` compares with."""
    stamps = write.stamps.values()
    lasts = (milliseconds or 0 for _, milliseconds in stamps)
    return [len(write.guards), len(stamps), *write.guards.values(), *(stamp for stamp, _ in stamps), *lasts]


def joined(arguments: Arguments) -> list[Any]:
    """The arguments of a command in one piece each, as redis-py takes them."""
    return [b"".join(part) if isinstance(part, tuple) else part for part in arguments]
