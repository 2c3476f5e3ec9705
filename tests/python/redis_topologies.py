"""Redis servers that stand together, for tests: Sentinels that watch a master and its replica, and a cluster."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from redis_server import Server, free_port, several
from waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis_server import Make

#: What Sentinels do every second, or every ten, they do some times in one; and where the clock of the machine jumps,
#: they mistrust it for less than half a minute.
_IN_HASTE = "info-period 250 publish-period 100 ping-period 100 ask-period 100 tilt-period 500"
_SLOTS = 16384


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes servers, and stops them all."""
    with several(tmp_path_factory) as make:
        yield make


@pytest.fixture
def sentinels(servers: Make, tmp_path: Path) -> tuple[Server, Server, str]:
    """A master, its replica, and the URL of three Sentinels that watch them."""
    master = servers()
    replica = servers("--replicaof", "127.0.0.1", str(master.port))
    until(lambda: replica.client().info("replication")["master_link_status"] == "up")
    watching = []
    for number in range(3):
        settings = tmp_path / f"sentinel{number}.conf"
        settings.write_text(
            f"sentinel monitor main 127.0.0.1 {master.port} 2\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 2000\n"
        )
        watching.append(servers("SENTINEL", str(settings)))
        watching[-1].ask(f"SENTINEL DEBUG {_IN_HASTE}")
    for sentinel in watching:
        until(lambda sentinel=sentinel: _sees_all(sentinel))
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in watching)
    return master, replica, f"redis+sentinel://{hosts}/main/0"


def masters_told(url: str) -> set[int]:
    """The ports that the Sentinels of a URL say the master has."""
    import redis

    hosts = url.partition("://")[2].partition("/")[0].split(",")
    asked = [redis.Redis.from_url(f"redis://{host}", socket_timeout=5) for host in hosts]
    return {int(one.sentinel_get_master_addr_by_name("main")[1]) for one in asked}


def _sees_all(sentinel: Server) -> bool:
    state = sentinel.ask("SENTINEL MASTERS")
    return b"num-slaves\r\n$1\r\n1\r\n" in state and b"num-other-sentinels\r\n$1\r\n2\r\n" in state


@pytest.fixture
def cluster(servers: Make) -> list[Server]:
    """Three masters, then a replica of each."""
    return cluster_of(servers)


def cluster_of(make: Make) -> list[Server]:
    """Six nodes: three masters, then a replica of each, which takes over only where it is told to: a machine that
    stalls for a second would have it lose what was written.
    """
    settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"]
    settings += ["--cluster-replica-no-failover", "yes"]
    ports = {}
    nodes = []
    for _ in range(6):
        port = free_port()
        nodes.append(make(*settings, "--cluster-port", str(port)))
        ports[nodes[-1]] = port
    masters, replicas = nodes[:3], nodes[3:]
    for number, master in enumerate(masters):
        first, after = (_SLOTS * at // 3 for at in (number, number + 1))
        master.ask(f"CLUSTER ADDSLOTSRANGE {first} {after - 1}")
        master.ask(f"CLUSTER SET-CONFIG-EPOCH {number + 1}")
    for node in nodes[1:]:
        nodes[0].ask(f"CLUSTER MEET 127.0.0.1 {node.port} {ports[node]}")
    until(lambda: all(b"cluster_known_nodes:6" in node.ask("CLUSTER INFO") for node in nodes))
    for master, replica in zip(masters, replicas, strict=True):
        until(lambda master=master, replica=replica: b"+OK" in replica.ask(f"CLUSTER REPLICATE {id_of(master)}"))
    for node in nodes:
        until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER INFO"))
        until(lambda node=node: node.ask("CLUSTER NODES").count(b"slave") == 3)
    until(lambda: all(b"master_link_status:up" in replica.ask("INFO replication") for replica in replicas))
    return nodes


@contextmanager
def taking_over(nodes: list[Server]) -> Iterator[None]:
    """Have replicas take over from masters that are silent for a second."""
    for node in nodes:
        assert node.ask("CONFIG SET cluster-replica-no-failover no") == b"+OK\r\n"
    yield
    for node in nodes:
        node.ask("CONFIG SET cluster-replica-no-failover yes")


def is_well(nodes: list[Server]) -> bool:
    """Whether each of them says that all slots are served, and misses no other one."""
    return all(b"cluster_state:ok" in node.ask("CLUSTER INFO") for node in nodes) and not any(
        b",fail" in node.ask("CLUSTER NODES") for node in nodes
    )


def raw(node: Server, command: str) -> bytes:
    """What a node says; nothing, where it is about to change its role and closes all connections."""
    with suppress(OSError):
        return node.ask(command)
    return b""


def id_of(node: Server) -> str:
    """The name of a node of a cluster."""
    return node.ask("CLUSTER MYID").split()[1].decode()


def is_master(node: Server) -> bool:
    """Whether it says that it is one."""
    return b"role:master" in node.ask("INFO replication")
