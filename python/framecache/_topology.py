"""Which servers of an engine take writes: the ones to listen to."""

from __future__ import annotations

from typing import NamedTuple

from framecache._redis_clients import TIMEOUT, portable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from typing import Any

_BOUNDS = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "decode_responses": False}


class OneServer:
    """A server, or the master that Sentinels name.

    Args:
        client: The `redis.Redis` whose connections go there.
    """

    #: In RESP3 already, which stays; the reply has the server's role.
    question: tuple[str, ...] = ("HELLO", "3")

    def __init__(self, client: Any) -> None:
        self._pool = client.connection_pool
        self._master_of: Callable[[], tuple[str, int]] | None = getattr(self._pool, "get_master_address", None)

    def targets(self, _answers: Mapping[str, Any]) -> Mapping[str, Callable[[int], Any]]:
        """The one."""
        return {"server": self._connection}

    def _connection(self, protocol: int) -> Any:
        pool = self._pool
        settings = portable(pool.connection_kwargs) | _BOUNDS | {"protocol": protocol}
        if self._master_of is None:
            return pool.connection_class(**settings)
        from redis.connection import Connection, SSLConnection

        kind = SSLConnection if issubclass(pool.connection_class, SSLConnection) else Connection
        host, port = self._master_of()
        return kind(**settings | {"host": host, "port": port})

    def answer(self, reply: Any) -> Any:
        """Its role; where that is not told, it is what clients write to."""
        if not isinstance(reply, dict):
            raise ConnectionError(f"expected what HELLO says of a server, found {reply!r:.100}")
        if (role := reply.get(b"role", b"master")) != b"master":
            raise ConnectionError(f"expected a master, found {role!r:.20}")
        return role

    def doubt(self, connection: Any) -> Callable[[], None] | None:
        """Whether the Sentinels still name this one."""
        if (master_of := self._master_of) is None:
            return None
        host, port = connection.host, connection.port

        def ask() -> None:
            if (found := master_of()) != (host, port):
                raise ConnectionError(f"expected the master at {host}:{port}, the Sentinels name {found}")

        return ask

    def disagreement(self, _answers: Mapping[str, Any]) -> str | None:
        """None: there is only one."""
        return None

    def basis(self, _answers: Mapping[str, Any]) -> Hashable:
        """Always the same."""
        return True

    def refresh(self) -> None:
        """None: where to connect is looked up with each connection."""


class View(NamedTuple):
    """How one master sees its cluster.

    Attributes:
        me: Its id.
        masters: The others' addresses and its own by id, without those that failed and have no slots.
        slots: Which slots each of them has, as the node says it.
        moves: Whether a slot is on its way from it or to it.
    """

    me: str
    masters: Mapping[str, tuple[str, int]]
    slots: frozenset[tuple[str, ...]]
    moves: bool


def view_of(reply: Any) -> View:
    """What ``CLUSTER NODES`` says.

    Raises:
        ConnectionError: It comes from a replica, or is something else.
    """
    me, moves = "", False
    masters: dict[str, tuple[str, int]] = {}
    slots = set()
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else ""
    for line in text.splitlines():
        node, where, flags, *rest = (*line.split(" "), "", "", "")
        states, has = flags.split(","), [slot for slot in rest[5:] if slot]
        if "myself" in states:
            if "master" not in states:
                raise ConnectionError("expected a master, found a replica")
            me, moves = node, any(slot.startswith("[") for slot in has)
        if "master" not in states or "handshake" in states:
            continue
        owned = tuple(slot for slot in has if not slot.startswith("["))
        if not owned and not {"fail", "noaddr"}.isdisjoint(states):
            continue
        host, _, port = where.partition(",")[0].partition("@")[0].rpartition(":")
        masters[node] = (host, int(port) if port.isdecimal() else 0)
        slots.add((node, *owned))
    if not me:
        raise ConnectionError(f"expected what CLUSTER NODES says of a node, found {reply!r:.100}")
    return View(me, masters, frozenset(slots), moves)


class Masters:
    """All masters of a cluster, those without slots too, to which slots may go.

    A client goes to the masters that it knows; each of them is asked for all that it knows of. Only if all of them have
    the same view, and all in it are listened to, no change can go unheard.

    Args:
        client: The `redis.RedisCluster` whose reads L1 keeps.
    """

    question: tuple[str, ...] = ("CLUSTER", "NODES")

    def __init__(self, client: Any) -> None:
        self._client = client

    def targets(self, answers: Mapping[str, View]) -> Mapping[str, Callable[[int], Any]]:
        """The masters that the client knows, and those that these know of."""
        nodes = {node.name: (node.host, node.port) for node in self._client.get_primaries()}
        views = [view for name, view in answers.items() if name in nodes]
        known = {view.me for view in views}
        others = {place for view in views for node, place in view.masters.items() if node not in known and place[0]}
        for place in others:
            host, port = self._client.nodes_manager.remap_host_port(*place)
            nodes.setdefault(f"{host}:{port}", (host, port))
        return {name: self._connection_to(*place) for name, place in nodes.items()}

    def _connection_to(self, host: str, port: int) -> Callable[[int], Any]:
        def connect(protocol: int) -> Any:
            node, *_ = self._client.get_primaries() or self._client.get_nodes()
            pool = self._client.get_redis_connection(node).connection_pool
            settings = portable(pool.connection_kwargs) | _BOUNDS
            return pool.connection_class(**settings | {"host": host, "port": port, "protocol": protocol})

        return connect

    def answer(self, reply: Any) -> View:
        """The view of a master."""
        return view_of(reply)

    def doubt(self, _connection: Any) -> None:
        """None: nodes watch one another."""

    def disagreement(self, answers: Mapping[str, View]) -> str | None:
        """Who is not known to whom."""
        if getattr(self._client, "read_from_replicas", False) or getattr(self._client, "load_balancing_strategy", None):
            return "the client reads from replicas"
        listened = {view.me for view in answers.values()}
        for name, view in answers.items():
            if view.masters.keys() != listened:
                return f"{name}: knows of {len(view.masters)} masters, {len(listened)} are listened to"
            if view.moves:
                return f"{name}: slots are being moved"
        if len({view.slots for view in answers.values()}) != 1:
            return "masters do not agree on who has which slots"
        return None

    def basis(self, answers: Mapping[str, View]) -> Hashable:
        """Who has which slots."""
        return frozenset(view.slots for view in answers.values())

    def refresh(self) -> Callable[[], None]:
        """It asks its nodes where slots are."""
        return self._client.nodes_manager.initialize  # type: ignore[no-any-return]
