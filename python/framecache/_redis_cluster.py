"""Redis Cluster as a backend: commands go to the nodes that have the names, and each is one step there only.

Entry, fence and lease of a key are in one slot; the stamps of namespace and tags are elsewhere. An entry records the
stamps that it was computed under, so it is a miss where they changed, even if nobody could check them in one step with
the write.
"""

from __future__ import annotations

from framecache._framecache import InvalidArgument
from framecache._redis import Redis
from framecache._redis_commands import WRITE, Command, number, values, written
from framecache._redis_replies import is_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from typing_extensions import Buffer

    from framecache._backend import Write
    from framecache._listener import Listener
    from framecache._redis_commands import Transaction


class Cluster(Redis):
    """A Redis Cluster. L1 is told what others change while all masters are listened to, by a thread with a connection
    of its own for each, and agree on who they are and who has which slots; while they do not, as when slots are moved
    or a replica takes over, it keeps entries for `l1_ttl`, and so it always does where the client reads from replicas.

    Args:
        client: A `redis.RedisCluster`, or a URL: ``redis+cluster://host:port``. Threads do what coroutines ask for, and
            a `redis.asyncio.RedisCluster` is refused.
        settings: As those of `Redis`.

    Raises:
        InvalidArgument: As `Redis`.
    """

    _expects = "redis.RedisCluster, whose commands threads do for event loops"

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(client, **settings)
        self.capabilities = self.capabilities._replace(atomic=False)
        # What redis-py raises where a slot moves (ASK) to a node that had none, which it does not know yet.
        self._errors = (*self._errors, AttributeError)

    @staticmethod
    def _kind() -> type:
        import redis

        return redis.RedisCluster

    def _wire_of(self, client: Any) -> None:
        """None: each command goes to a node that the client finds."""

    def _for_loops(self, url: str) -> None:
        """None: threads ask a cluster."""

    def get_many(self, names: Sequence[str]) -> list[Buffer | None]:
        """As `Backend.get_many`, a slot after the other."""
        if len(names) == 1:
            return [self._ask(Command(("GET", names[0]), is_value, "a value"))]
        return self._ask(values(names))  # type: ignore[no-any-return]

    def _answer(self, asked: Command | Transaction) -> Any:
        """As for a server, where several values are asked for in as many commands as they have slots."""
        if isinstance(asked, Command) and asked.values is not None:
            return self.client.mget_nonatomic(asked.arguments[1:])
        return super()._answer(asked)

    def peek(self, names: Sequence[str], nbytes: int) -> list[Buffer | None]:
        """As `Backend.peek`, a slot after the other."""
        first = self._ask(Command(("GETRANGE", names[0], 0, nbytes - 1), is_value, "a value"))
        return [first or None, *(self.get_many(names[1:]) if len(names) > 1 else ())]

    def set(self, write: Write) -> bool:
        """As `Backend.set`, where only guards in the entry's slot are checked in one step with the write."""
        slot = self.client.keyslot(write.name)
        here = {name: value for name, value in write.guards.items() if self.client.keyslot(name) == slot}
        elsewhere = {name: value for name, value in write.guards.items() if name not in here}
        if elsewhere and not self._holds(elsewhere):
            return False
        return self._ask(number(*written(WRITE, write._replace(guards=here, stamps={})))) > 0  # type: ignore[no-any-return]

    def _holds(self, guards: Mapping[str, bytes]) -> bool:
        return list(self.get_many(list(guards))) == list(guards.values())

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`, one after the other."""
        return [self.set(write) for write in writes]

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`, one after the other."""
        return sum(self._ask(number("UNLINK", name)) for name in names)

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`, one after the other."""
        return [super(Cluster, self).stamps([name], [ms])[0] for name, ms in zip(names, milliseconds, strict=True)]

    def _new_listener(self) -> Listener:
        from framecache._listener import Listener
        from framecache._topology import Masters

        return Listener(Masters(self.client))

    @classmethod
    def _publishing(cls) -> NoReturn:
        raise InvalidArgument(
            "url: listen: expected yes or no, got 'publish', which a cluster does not do: what one node publishes, "
            "others may not be told"
        )

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        self.client.disconnect_connection_pools()
