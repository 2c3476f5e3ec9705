"""Redis Cluster as a backend: commands go to the nodes that have the names, and each is one step there only.

Entry, fence and lease of a key are in one slot; the stamps of namespace and tags are elsewhere. An entry records the
stamps that it was computed under, so it is a miss where they changed, even if nobody could check them in one step with
the write.
"""

from __future__ import annotations

from framecache._backend import Capabilities, Invalidations, Write
from framecache._redis import Redis
from framecache._redis_replies import are_values, is_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any


class Cluster(Redis):
    """A Redis Cluster. L1 keeps entries for `l1_ttl`: nobody tells it of changes.

    Args:
        client: A `redis.RedisCluster`, or a URL: ``redis+cluster://host:port``.
        settings: As those of `Redis`.

    Raises:
        InvalidArgument: As `Redis`.
    """

    _expects = "redis.RedisCluster"

    def __init__(self, client: Any, **settings: Any) -> None:
        super().__init__(client, **settings)
        self.capabilities = Capabilities(tags=True, lease=True)

    @staticmethod
    def _kind() -> type:
        import redis

        return redis.RedisCluster

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`, a slot after the other."""
        if len(names) == 1:
            value = self._run("GET", names[0])
            self._expect(is_value(value), "a value", value)
            return [value]
        with self._mapped_errors():
            found = self.client.mget_nonatomic(names)
        self._expect(are_values(found, len(names)), f"{len(names)} values", found)
        return found  # type: ignore[no-any-return]

    def set(self, write: Write) -> bool:
        """As `Backend.set`, where only guards in the entry's slot are checked in one step with the write."""
        slot = self.client.keyslot(write.name)
        here = {name: value for name, value in write.guards.items() if self.client.keyslot(name) == slot}
        elsewhere = {name: value for name, value in write.guards.items() if name not in here}
        if elsewhere and not self._holds(elsewhere):
            return False
        return self._write(write._replace(guards=here))

    def _holds(self, guards: Mapping[str, bytes]) -> bool:
        return list(self.get_many(list(guards))) == list(guards.values())

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`, one after the other."""
        return [self.set(write) for write in writes]

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`, one after the other."""
        return sum(self._count("UNLINK", name) for name in names)

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`, one after the other."""
        return [super(Cluster, self).stamps([name], [ms])[0] for name, ms in zip(names, milliseconds, strict=True)]

    def listen(self, prefix: str, to: Invalidations) -> Callable[[], None]:
        """As `Backend.listen`: nothing is told."""
        return lambda: to.connected(False)

    def distrust(self) -> None:
        """As `Backend.distrust`."""
        self.client.disconnect_connection_pools()
