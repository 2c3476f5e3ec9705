"""L1 over several real servers: which of them it listens to, and that nothing is served that another one changed."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager

import pytest

from framecache import Cache, InvalidArgument
from framecache._acl import rights
from framecache._redis import BOUND
from framecache._topology import Masters, View, view_of
from framecache.redis import Cluster
from hearing import Reads, in_l1, listens
from redis_record import Layout
from redis_server import Server, begin, free_port
from redis_topologies import cluster, cluster_of, is_well, raw, sentinels, servers, taking_over  # noqa: F401  # fixtures
from test_redis_coherence import listening
from waiting import until

KEYS = [f"key:{number}" for number in range(20)]


@pytest.fixture(autouse=True)
def with_l1(monkeypatch):
    monkeypatch.setenv("FRAMECACHE_L1", "16MiB")


@pytest.fixture(scope="module")
def all_nodes(tmp_path_factory):
    """A cluster for those tests that leave it as it was."""
    pytest.importorskip("redis", reason="redis-py is not installed")
    made = []

    def make(*options):
        made.append(Server(tmp_path_factory.mktemp("redis"), *options))
        made[-1].start()
        return made[-1]

    yield cluster_of(make)
    for server in made:
        server.kill()


@pytest.fixture
def nodes(all_nodes):
    until(lambda: is_well(all_nodes))
    yield all_nodes
    for node in masters_of(all_nodes):
        node.client().flushall()


@pytest.fixture
def cache(nodes):
    """A cache that hears of all changes."""
    with hearing(nodes[0]) as opened:
        yield opened


@pytest.fixture
def other(nodes):
    with Cache(url_of(nodes[-1]), l1=None) as opened:
        yield opened


@contextmanager
def hearing(node):
    with Cache(url_of(node)) as opened:
        opened.get("nothing")
        until(lambda: listens(opened))
        yield opened


def url_of(node):
    return f"redis+cluster://127.0.0.1:{node.port}"


def masters_of(nodes):
    return [node for node in nodes if b"role:master" in raw(node, "INFO replication")]


def owner_of(nodes, key):
    """The node that has the slot of a key's entry."""
    name = Layout("").entry(key)
    return next(node for node in masters_of(nodes) if b"MOVED" not in raw(node, f"EXISTS {name}"))


def replica_of(nodes, master):
    [replica] = [node for node in nodes if f"master_port:{master.port}\r".encode() in raw(node, "INFO replication")]
    return replica


def all_in_l1(cache):
    for key in KEYS:
        in_l1(cache, key)


def cli(*arguments):
    done = subprocess.run(
        [shutil.which("redis-cli"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_changes_of_others_arrive_from_every_node(nodes, cache, other):
    values = dict.fromkeys(KEYS, "older")
    assert cache.set_many(values, tags=["x"], ttl=1000) == len(KEYS)
    all_in_l1(cache)
    assert [len(listening(node.client())) for node in masters_of(nodes)] == [1, 1, 1]
    assert {owner_of(nodes, key).port for key in KEYS} == {node.port for node in masters_of(nodes)}
    for node in nodes:
        node.client().config_resetstat()
    for key in KEYS:
        assert cache.get(key) == "older"
    assert all(not {"cmdstat_mget", "cmdstat_get"} & set(node.client().info("commandstats")) for node in nodes)
    for key in KEYS:
        other.set(key, "newer", tags=["x"], ttl=1000)
        until(lambda key=key: cache.get(key) == "newer")
        in_l1(cache, key)
    other.touch(KEYS[0], 0.001)
    other.delete(KEYS[1])
    until(lambda: cache.get(KEYS[0]) is None and cache.get(KEYS[1]) is None)
    other.invalidate_tags("x")
    until(lambda: cache.get_many(KEYS) == {})
    cache.set(KEYS[0], "last")
    in_l1(cache, KEYS[0])
    other.clear()
    until(lambda: cache.get(KEYS[0]) is None)
    # One node that forgets everything is enough.
    cache.set(KEYS[0], "last")
    in_l1(cache, KEYS[0])
    owner_of(nodes, KEYS[0]).client().flushall()
    until(lambda: cache.get(KEYS[0]) is None)


def test_one_master_that_is_not_heard_is_too_many(nodes, cache):
    assert cache.set_many(dict.fromkeys(KEYS, "value")) == len(KEYS)
    all_in_l1(cache)
    client = owner_of(nodes, KEYS[0]).client()
    [one] = listening(client)
    # Nothing can change unheard before the server is asked to forget the listener.
    pipeline = client.pipeline()
    pipeline.client_kill_filter(_id=one["id"])
    pipeline.delete(Layout("").entry(KEYS[0]))
    pipeline.execute()
    until(lambda: cache.get(KEYS[0]) is None)
    until(lambda: listens(cache))
    all_in_l1_but_first(cache)
    silent = owner_of(nodes, KEYS[1])
    silent.pause()
    try:
        until(lambda: not listens(cache))
        assert f"127.0.0.1:{silent.port}" in cache.health()["engine"]["listener"]
        assert cache.health()["engine"]["bound"] == 1.0
    finally:
        silent.go_on()
    until(lambda: listens(cache))


def all_in_l1_but_first(cache):
    for key in KEYS[1:]:
        in_l1(cache, key)


def test_a_replica_that_takes_over_flushes_and_is_heard(nodes, cache, other):
    assert cache.set_many(dict.fromkeys(KEYS, "older")) == len(KEYS)
    all_in_l1(cache)
    old = owner_of(nodes, KEYS[0])
    replica = replica_of(nodes, old)
    basis = cache._backend._listener._on
    before = dict(basis)
    assert raw(replica, "CLUSTER FAILOVER").startswith(b"+OK")
    until(lambda: b"role:slave" in raw(old, "INFO replication"))
    until(lambda: listens(cache) and basis != before)
    assert len(listening(replica.client())) == 1
    until(lambda: other.set(KEYS[0], "newer"))
    until(lambda: cache.get(KEYS[0]) == "newer")
    in_l1(cache, KEYS[0])
    until(lambda: other.set(KEYS[0], "newest"))
    until(lambda: cache.get(KEYS[0]) == "newest")
    until(lambda: b"master_link_status:up" in raw(old, "INFO replication"))
    # The client has learnt of it without a command that went wrong.
    assert f"127.0.0.1:{replica.port}" in {node.name for node in cache._backend.client.get_primaries()}


WRITER = """
    import sys, time, framecache
    cache = framecache.Cache(sys.argv[1], l1=None)
    ends = []
    for number in range(int(sys.argv[2])):
        while not cache.set("counter", number):
            pass
        ends.append(time.monotonic())
        if number == 500:
            print("half", flush=True)
    print(*ends, flush=True)
"""


def test_nothing_is_served_beyond_the_bound_while_a_replica_takes_over(nodes, cache):
    """A history, as for one server; the one that hands over tells its replica all that it acknowledged."""
    old = owner_of(nodes, "counter")
    replica = replica_of(nodes, old)
    writer = begin(WRITER, url_of(nodes[0]), "3000")
    reader = Reads(cache, "counter")
    assert writer.stdout.readline() == "half\n"
    assert raw(replica, "CLUSTER FAILOVER").startswith(b"+OK")
    written = [float(end) for end in writer.stdout.readline().split()]
    writer.communicate()
    until(lambda: cache.get("counter") == 2999)
    history = reader.end()
    assert owner_of(nodes, "counter") is replica
    late = [began - written[number + 1] for number, began in history if -1 < number + 1 < 3000]
    assert len(late) > 10
    assert cache.stats()["l1_hit"] > 100
    assert max(late) < BOUND
    until(lambda: b"master_link_status:up" in raw(old, "INFO replication"))


def test_a_master_that_died_flushes_until_its_replica_is_heard(nodes, cache):
    assert cache.set_many(dict.fromkeys(KEYS, "older")) == len(KEYS)
    all_in_l1(cache)
    dead = owner_of(nodes, KEYS[0])
    with taking_over(nodes):
        dead.kill()
        until(lambda: not listens(cache))
        assert f"127.0.0.1:{dead.port}" in cache.health()["engine"]["listener"]
        until(lambda: listens(cache))
    with Cache(url_of(next(node for node in nodes if node is not dead)), l1=None) as other:
        for key in KEYS:
            until(lambda key=key: other.set(key, "newer"))
            until(lambda key=key: cache.get(key) == "newer")
        all_in_l1(cache)
        for key in KEYS:
            assert other.set(key, "newest")
            until(lambda key=key: cache.get(key) == "newest")
    dead.start()
    until(lambda: b"master_link_status:up" in raw(dead, "INFO replication"))


class Move:
    """A slot on its way from a node to another one, with the key that is in it."""

    def __init__(self, nodes, key, to):
        self.name = Layout("").entry(key)
        self.slot = int(raw(to, f"CLUSTER KEYSLOT {self.name}")[1:])
        self.ends = (to, owner_of(nodes, key))
        self.ids = [raw(node, "CLUSTER MYID").split(b"\r\n")[1].decode() for node in self.ends]

    def begin(self):
        for node, state, there in zip(self.ends, ("IMPORTING", "MIGRATING"), reversed(self.ids), strict=True):
            assert raw(node, f"CLUSTER SETSLOT {self.slot} {state} {there}").startswith(b"+OK")

    def move(self):
        to, source = self.ends
        assert raw(source, f"MIGRATE 127.0.0.1 {to.port} {self.name} 0 5000").startswith(b"+OK")

    def end(self):
        for node in self.ends:
            assert raw(node, f"CLUSTER SETSLOT {self.slot} NODE {self.ids[0]}").startswith(b"+OK")


def test_a_new_node_is_listened_to_before_it_has_slots_and_moved_slots_flush(cluster, servers):
    with hearing(cluster[0]) as cache, Cache(url_of(cluster[1]), l1=None) as other:
        assert cache.set_many(dict.fromkeys(KEYS, "older")) == len(KEYS)
        all_in_l1(cache)
        new = servers("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", str(free_port()))
        cli("--cluster", "add-node", f"127.0.0.1:{new.port}", f"127.0.0.1:{cluster[0].port}")
        until(lambda: listens(cache) and len(listening(new.client())) == 1)
        until(lambda: b"cluster_state:ok" in raw(new, "CLUSTER INFO"))
        all_in_l1(cache)
        for number, key in enumerate(KEYS[:2]):
            moving = Move(cluster, key, new)
            moving.begin()
            until(lambda: "slots are being moved" in cache.health()["engine"]["listener"])
            moving.move()
            # Reads are sent from one node to the other now (ASK). Where the client does not know that one yet, they
            # fail; what others find, L1 keeps for `l1_ttl` only.
            assert cache.get(key) == (None if number == 0 else "older")
            assert not cache._tiers.store.link.is_connected
            if number == 1:
                assert other.delete(key)
                until(lambda key=key: cache.get(key) is None)
            moving.end()
            until(lambda: listens(cache))
            assert owner_of([*cluster, new], key) is new
            until(lambda key=key: other.set(key, "newer"))
            until(lambda key=key: cache.get(key) == "newer")
            all_in_l1(cache)
            assert other.set(key, "newest")
            until(lambda key=key: cache.get(key) == "newest")


def test_a_client_that_reads_from_replicas_is_told_nothing(nodes):
    import redis.cluster

    in_turn = redis.cluster.LoadBalancingStrategy.ROUND_ROBIN
    client = redis.RedisCluster("127.0.0.1", nodes[0].port, socket_timeout=5, load_balancing_strategy=in_turn)
    with Cache(client) as cache:
        cache.set("key", 1)
        until(lambda: cache.get("key") == 1)
        until(lambda: cache.health()["engine"]["listener"] == "the client reads from replicas")
        assert cache.health()["engine"]["bound"] == 1.0


def test_the_rights_that_are_documented_suffice_on_a_cluster(nodes):
    for node in nodes:
        given = rights("tracking", cluster=True).split()
        node.client().execute_command("ACL", "SETUSER", "app", "on", ">secret", *given)
    with Cache(f"redis+cluster://app:secret@127.0.0.1:{nodes[0].port}") as cache:
        assert cache.health()["engine"]["rights"].split() == given
        assert cache.set_many(dict.fromkeys(KEYS, 1), tags=["x"], ttl=100) == len(KEYS)
        cache.get("nothing")
        until(lambda: listens(cache))
        all_in_l1(cache)
        assert cache.get_or_set("computed", lambda: 1, ttl=1000, tags=["x"]) == 1
        cache.invalidate_tags("x")
        cache.clear()
        assert cache.delete("key") is False
        assert cache.health()["errors"] == 0


def test_a_cluster_does_not_publish(nodes):
    with pytest.raises(InvalidArgument, match="listen: expected yes or no, got 'publish'"):
        Cache(url_of(nodes[0]) + "?listen=publish")
    with Cache(url_of(nodes[0]) + "?listen=no") as cache:
        cache.set("key", 1)
        assert cache.get("key") == 1
        assert cache.health()["engine"]["listener"] == "none"


def test_another_master_that_sentinels_name_is_listened_to(sentinels, servers):
    """The old one lives, is a master still, and its connections stay: only the Sentinels know."""
    master, _, url = sentinels
    second = servers()
    with Cache(url) as cache, Cache(second.url, l1=None) as other:
        assert cache.set("key", "value")
        in_l1(cache, "key")
        for part in url.removeprefix("redis+sentinel://").partition("/")[0].split(","):
            port = part.rpartition(":")[2]
            cli("-p", port, "SENTINEL", "REMOVE", "main")
            cli("-p", port, "SENTINEL", "MONITOR", "main", "127.0.0.1", second.port, "2")
        until(lambda: cache.get("key") is None)
        assert other.set("key", "newer")
        until(lambda: cache.get("key") == "newer")
        until(lambda: listens(cache))
        in_l1(cache, "key")
        assert other.set("key", "newest")
        until(lambda: cache.get("key") == "newest")
        assert listening(master.client()) == []


# What nodes say of their cluster

NODES = b"""\
aaa 10.0.0.1:7000@17000,host-a myself,master - 0 0 1 connected 0-99 200 [300->-bbb]
bbb 10.0.0.2:7000@17000 master - 0 1 2 connected 100-199
ccc 10.0.0.3:7000@17000 slave aaa 0 1 1 connected
ddd 10.0.0.4:7000@17000 master - 0 1 3 connected
eee 10.0.0.5:7000@17000 master,fail - 0 1 3 disconnected
fff 10.0.0.6:7000@17000 master,fail - 0 1 3 disconnected 400
ggg 10.0.0.7:7000@17000 handshake - 0 1 0 disconnected
hhh :0@0 master,noaddr - 0 1 0 disconnected
iii ::1:7000@17000 master,fail? - 0 1 4 connected 500-600
"""


def test_masters_are_those_that_may_take_writes():
    view = view_of(NODES)
    assert view.me == "aaa"
    assert view.moves
    assert view.masters == {
        "aaa": ("10.0.0.1", 7000),
        "bbb": ("10.0.0.2", 7000),
        "ddd": ("10.0.0.4", 7000),
        "fff": ("10.0.0.6", 7000),
        "iii": ("::1", 7000),
    }
    assert view.slots == {
        ("aaa", "0-99", "200"),
        ("bbb", "100-199"),
        ("ddd",),
        ("fff", "400"),
        ("iii", "500-600"),
    }
    assert not view_of(NODES.replace(b" [300->-bbb]", b"")).moves


@pytest.mark.parametrize(
    "wrong", [b"", None, b"\xff\n\n \n", b"a b", b"aaa 1:1@1 master - 0 0 1 connected 1", 7, [b"pong"], {}]
)
def test_what_says_nothing_of_its_node_is_no_view(wrong):
    with pytest.raises(ConnectionError, match="expected what CLUSTER NODES says"):
        view_of(wrong)


def test_a_replica_has_no_view():
    with pytest.raises(ConnectionError, match="found a replica"):
        view_of(NODES.replace(b"myself,master", b"myself,slave"))


class Client:
    """A client that reads from masters."""

    read_from_replicas = False
    load_balancing_strategy = None


def test_masters_have_to_agree():
    a, b = ("10.0.0.1", 7000), ("10.0.0.2", 7000)
    slots, others = frozenset({("a", "0"), ("b", "1")}), frozenset({("a", "0", "1"), ("b",)})
    both = {"a": a, "b": b}
    views = {"A": View("a", both, slots, False), "B": View("b", both, slots, False)}
    masters = Masters(Client())
    assert masters.disagreement(views) is None
    assert masters.basis(views) == masters.basis(dict(views))
    moved = {name: view._replace(slots=others) for name, view in views.items()}
    assert masters.disagreement(moved) is None
    assert masters.basis(views) != masters.basis(moved)
    for wrong in (
        {"A": views["A"]},
        {**views, "B": views["B"]._replace(slots=others)},
        {**views, "B": views["B"]._replace(moves=True)},
        {**views, "B": views["B"]._replace(masters={"b": b})},
        {**views, "C": View("c", {**both, "c": a}, slots, False)},
    ):
        assert masters.disagreement(wrong) is not None
    client = Client()
    client.load_balancing_strategy = "round robin"
    assert "replicas" in Masters(client).disagreement(views)


def test_a_cluster_declares_what_it_does(nodes):
    with Cache(url_of(nodes[0])) as cache:
        assert isinstance(cache._backend, Cluster)
        assert cache._backend.capabilities == (False, True, True, True, False)
