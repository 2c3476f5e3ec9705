"""Clients of redis-py: which are taken, and those that are made for URLs."""

from __future__ import annotations

from typing import NamedTuple

from framecache._framecache import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: Seconds that a client made for a URL waits for a connection and for each reply.
TIMEOUT: Final = 1.0


def client_of(url: str) -> Any:
    """A client for a URL: ``redis://``, ``rediss://``, ``unix://``, or a scheme with ``+sentinel`` or ``+cluster``.

    Sentinels stand with commas between them, and before the database the service: ``redis+sentinel://a:1,b:2/name/0``.
    """
    try:
        return _client_of(url, _Kit.for_threads())
    except ValueError as error:
        if isinstance(error, InvalidArgument):
            raise
        raise InvalidArgument(f"url: expected one that redis-py takes, found {error}") from error


def loop_client_of(url: str) -> Any:
    """As `client_of`, for an event loop; not for a cluster."""
    return _client_of(url, _Kit.for_loops())


class _Kit(NamedTuple):
    """What clients are made of.

    Attributes:
        client: The class of clients of one server.
        connection: The module of its connections.
        sentinel: The class that finds masters.
        retry: The class that tries again.
    """

    client: Any
    connection: Any
    sentinel: Any
    retry: Any

    @classmethod
    def for_threads(cls) -> _Kit:
        from redis import Redis, connection
        from redis.retry import Retry
        from redis.sentinel import Sentinel

        return cls(Redis, connection, Sentinel, Retry)

    @classmethod
    def for_loops(cls) -> _Kit:
        from redis.asyncio import Redis, Sentinel, connection
        from redis.asyncio.retry import Retry

        return cls(Redis, connection, Sentinel, Retry)

    def again(self) -> Any:
        """Once more, after a random pause."""
        from redis.backoff import FullJitterBackoff

        return self.retry(FullJitterBackoff(cap=0.1, base=0.02), 1)


def _client_of(url: str, kit: _Kit) -> Any:
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.partition("+")
    if kind == "cluster":
        from redis import RedisCluster

        return RedisCluster.from_url(f"{plain}://{rest}", **_bounds())  # type: ignore[no-untyped-call,unused-ignore]
    if kind == "sentinel":
        return _of_sentinels(plain, rest, kit)
    return kit.client.from_url(url, **_bounds(), retry=kit.again())


def _of_sentinels(scheme: str, rest: str, kit: _Kit) -> Any:
    place, slash, query = rest.partition("?")
    hosts, _, path = place.partition("/")
    credentials, at, hosts = hosts.rpartition("@")
    service, _, database = path.partition("/")
    sentinels = [host.rpartition(":") for host in hosts.split(",")]
    if not service or not all(host and port.isdigit() for host, _, port in sentinels):
        found = f"{hosts}/{path}"
        raise InvalidArgument(f"url: expected redis+sentinel://host:port,host:port/service/db, got {found!r:.100}")
    first = f"{scheme}://{credentials}{at}{sentinels[0][0]}/{database}{slash}{query}"
    settings: dict[str, Any] = dict(kit.connection.parse_url(first))
    for name in ("host", "port"):
        settings.pop(name, None)
    settings["ssl"] = settings.pop("connection_class", None) is kit.connection.SSLConnection
    bounded = {**_bounds(), **settings}
    watched = kit.sentinel([(host, int(port)) for host, _, port in sentinels], sentinel_kwargs=_bounds())
    return watched.master_for(service, **bounded, retry=kit.again())


def _bounds() -> dict[str, Any]:
    """How long a client waits that is made here, where the URL does not say otherwise."""
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}


def is_client(candidate: object) -> bool:
    """Whether it is a client of redis-py, which need not be imported for that."""
    return any(base.__module__.partition(".")[0] in ("redis", "valkey") for base in type(candidate).__mro__)


def is_async(client: object) -> bool:
    """Whether it is one for event loops."""
    return any(base.__module__.startswith("redis.asyncio") for base in type(client).__mro__)


def type_of(client: object) -> str:
    return f"{type(client).__module__}.{type(client).__qualname__}"


def place_of(client: Any) -> str:
    """A URL of what a client's connections go to, without credentials."""
    if is_cluster(client):
        return "redis+cluster://" + ",".join(sorted(client.nodes_manager.startup_nodes))
    pool = client.connection_pool
    settings = pool.connection_kwargs
    scheme = "rediss" if "SSL" in pool.connection_class.__name__ else "redis"
    if (service := getattr(pool, "service_name", None)) is not None:
        return f"{scheme}+sentinel:///{service}/{settings.get('db') or 0}"
    if (path := settings.get("path")) is not None:
        return f"unix://{path}?db={settings.get('db') or 0}"
    return f"{scheme}://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}/{settings.get('db') or 0}"


def is_cluster(client: object) -> bool:
    """Whether it is one of a cluster."""
    return any(base.__name__ == "RedisCluster" for base in type(client).__mro__)


def threaded(client: Any) -> Any:
    """A client for threads with the connections' settings of one for event loops."""
    from redis import ConnectionPool

    pool, kit = client.connection_pool, _Kit.for_threads()
    settings = _bounds() | {"retry": kit.again()} | portable(pool.connection_kwargs)
    if getattr(pool, "sentinel_manager", None) is not None:
        return _watched(pool, settings, kit)
    for base in pool.connection_class.__mro__:
        if (kind := getattr(kit.connection, base.__name__, None)) is not None:
            return kit.client(connection_pool=ConnectionPool(kind, **settings))
    raise InvalidArgument(f"client: expected connections of redis-py's own kinds, got {pool.connection_class!r}")


def _watched(pool: Any, settings: dict[str, Any], kit: _Kit) -> Any:
    """A client for threads of what a pool's Sentinels watch."""
    manager = pool.sentinel_manager
    watched = kit.sentinel([], manager.min_other_sentinels)
    watched.sentinels = [threaded(one) for one in manager.sentinels]
    client_for = watched.master_for if pool.is_master else watched.slave_for
    return client_for(pool.service_name, ssl="SSL" in pool.connection_class.__name__, **settings)


#: Settings of connections that mean the same for threads and event loops.
_PORTABLE: Final = frozenset(
    [
        *("host", "port", "path", "db", "username", "password", "credential_provider", "client_name", "protocol"),
        *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"),
        *("decode_responses", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data"),
        *("ssl_ca_path", "ssl_check_hostname", "ssl_password", "ssl_min_version", "ssl_ciphers"),
    ]
)


def portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings of connections that mean the same for all kinds of them."""
    return {name: value for name, value in settings.items() if name in _PORTABLE}


def check(client: Any, allow_unbounded: bool) -> None:
    """Refuse a client that would give text, or wait for ever."""
    from redis import Connection

    # Connections of these settings, which connect to nothing.
    if is_cluster(client):
        settings = portable(client.get_connection_kwargs())
        connection: Any = Connection(**settings)  # type: ignore[no-untyped-call]
    else:
        connection = client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    if connection.encoder.decode_responses:
        raise InvalidArgument(
            "client: expected one with decode_responses=False, got True: entries are bytes, and decoding them as text "
            "fails or changes them"
        )
    if connection.socket_timeout is None and not allow_unbounded:
        raise InvalidArgument(
            "client: expected one with a socket_timeout, got none: a server that does not answer would stop all "
            "callers; pass socket_timeout=1, or framecache.redis.Redis(client, allow_unbounded=True)"
        )
