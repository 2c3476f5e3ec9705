"""Redis where its server does not tell what is changed: who writes does, on a channel of the namespace."""

from __future__ import annotations

from framecache._redis import Redis
from framecache._redis_commands import DELETE_IF, TOUCH, WRITE, Commands, Transaction, changes, number, written
from framecache._redis_replies import are_counts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from framecache._backend import Write
    from framecache._listener import Listener
    from framecache._redis_commands import Arguments, Steps

#: Names that one script removes.
_AT_ONCE: Final = 1000


def _told(script: str) -> str:
    """A script that first publishes its last argument on the channel before it: nothing changes where that is not
    allowed, and nobody reads in between.
    """
    return f"redis.call('PUBLISH', ARGV[#ARGV - 1], ARGV[#ARGV])\n{script}"


_WRITE_TOLD: Final = _told(WRITE)
_DELETE_IF_TOLD: Final = _told(DELETE_IF)
_TOUCH_TOLD: Final = _told(TOUCH)
_UNLINK_TOLD: Final = _told("return redis.call('UNLINK', unpack(KEYS))")


class PublishingCommands(Commands):
    """Those that tell what they change."""

    def set(self, write: Write) -> Steps[bool]:
        """The steps of `Backend.set`."""
        return changes(*_set_and_tell(write))

    def set_many(self, writes: Sequence[Write]) -> Steps[list[bool]]:
        """The steps of `Backend.set_many`."""
        if not writes:
            return []
        commands = [_set_and_tell(write) for write in writes]
        held = yield Transaction(commands, lambda found: are_counts(found, len(commands)), f"{len(commands)} numbers")
        return [number > 0 for number in held]

    def delete_many(self, names: Sequence[str]) -> Steps[int]:
        """The steps of `Backend.delete_many`."""
        if not names or not names[0].startswith("fc:"):  # nobody has copies of fences
            return (yield from super().delete_many(names))
        removed = 0
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            removed += yield number("EVAL", _UNLINK_TOLD, len(some), *some, *_message(some))
        return removed

    def delete_if(self, name: str, offset: int, part: bytes) -> Steps[bool]:
        """The steps of `Backend.delete_if`."""
        where = (offset, offset + len(part) - 1, part)
        return changes("EVAL", _DELETE_IF_TOLD, 1, name, *where, *_message([name]))

    def touch(self, name: str, offset: int, part: bytes) -> Steps[bool]:
        """The steps of `Backend.touch`."""
        return changes("EVAL", _TOUCH_TOLD, 1, name, offset, part, *_message([name]))


def _set_and_tell(write: Write) -> Arguments:
    return written(_WRITE_TOLD, write, *_message([write.name]))


def _message(names: Sequence[str]) -> tuple[str, str]:
    """The channel, which is the prefix of the namespace's names, and the names."""
    return names[0][: names[0].index(":", len("fc:")) + 1], " ".join(names)


class PublishingRedis(Redis):
    """A server that cannot track what clients read, such as one behind a proxy, or may not be asked to: each write
    publishes the names that it changes in one step with it, and L1 is told by a subscription.

    All who write to a namespace have to do so, or those who listen serve what the others change for as long as it
    lasts. The same goes for what the server itself removes (``FLUSHALL``, eviction), and for other tools. What a lost
    connection may have kept from being heard is flushed, as with tracking.

    Args:
        client: As that of `Redis`. Not a cluster: what one node publishes, others may not be told.
        settings: As those of `Redis`; with ``listen=False``, what is written is published all the same.
    """

    _listens_by = "publish"

    def _new_listener(self) -> Listener:
        from framecache._feed import Published
        from framecache._listener import Listener
        from framecache._topology import OneServer

        return Listener(OneServer(self.client), Published())

    _commands = PublishingCommands()
