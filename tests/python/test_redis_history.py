"""Histories of processes that write and read the same keys through L1, over servers that fail: nothing is too old.

`FRAMECACHE_SOAK_SECONDS` makes them longer.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import history_worker
from history import Fault, Read, Write, too_old
from proxy import Proxy
from redis_server import server  # noqa: F401  # fixtures
from redis_topologies import cluster, is_master, masters_told, sentinels, servers, taking_over  # noqa: F401  # fixtures
from waiting import until

SECONDS = float(os.environ.get("FRAMECACHE_SOAK_SECONDS", "2"))
COUNT = 3
#: Seconds for which L1 keeps what nobody tells it the changes of.
L1_TTL = 0.5
#: Seconds for which what is told may be under way: a round trip, on a machine that is busy.
TRACKED = 0.25
#: Seconds for which a connection on which nothing comes may go unnoticed.
UNNOTICED = 1.5
#: Seconds by which a replica may be behind when its master dies.
LAG = 0.5
#: Of a cache's URL.
SETTINGS = f"l1_ttl={L1_TTL}&socket_timeout=0.2&socket_connect_timeout=0.2"
PROGRAM = Path(__file__).with_name("history_worker.py")


# The checker


def test_a_read_within_the_bound_is_fine():
    writes = [Write("k", 1, 10.0), Write("k", 2, 11.0), Write("k", 3, 12.0)]
    reads = [Read("k", 1, 10.5), Read("k", 1, 11.2), Read("k", 2, 11.1), Read("k", 3, 99.0), Read("k", 3, 11.5)]
    assert too_old(writes, reads, 0.25) == []


def test_a_read_beyond_the_bound_is_found():
    writes = [Write("k", 1, 10.0), Write("k", 2, 11.0), Write("other", 9, 10.0)]
    [found] = too_old(writes, [Read("k", 1, 11.3), Read("other", 9, 50.0)], 0.25)
    assert found == (
        "k: version 1 was read at 11.300, 0.300 s after version 2 was written, where at most 0.250 s are allowed"
    )


def test_the_newest_write_counts_whatever_the_order():
    writes = [Write("k", 3, 10.0), Write("k", 1, 10.1), Write("k", 2, 10.2)]
    assert len(too_old(writes, [Read("k", 2, 11.0), Read("k", 1, 11.0), Read("k", 3, 11.0)], 0.25)) == 2


def test_what_nobody_wrote_is_found():
    assert too_old([Write("k", 1, 10.0)], [Read("k", 2, 10.0), Read("j", 1, 10.0)], 1.0) == [
        "k: version 2 was read, which nobody wrote",
        "j: version 1 was read, which nobody wrote",
    ]


def test_a_write_without_acknowledgement_demands_nothing_and_may_come_late():
    writes = [Write("k", 1, 10.0), Write("k", 2), Write("k", 3, 11.0)]
    assert too_old(writes[:2], [Read("k", 1, 99.0)], 0.25) == []
    assert too_old(writes, [Read("k", 2, 99.0)], 0.25) == []
    assert len(too_old(writes, [Read("k", 1, 99.0)], 0.25)) == 1


def test_a_fault_has_its_own_bound_for_as_long_as_it_may_show():
    writes = [Write("k", 1, 10.0), Write("k", 2, 11.0)]
    fault = Fault(10.5, 12.0, 1.0)
    assert too_old(writes, [Read("k", 1, 11.9)], 0.25, [fault]) == []
    assert len(too_old(writes, [Read("k", 1, 12.1)], 0.25, [fault])) == 1
    # After it, and before it.
    assert len(too_old(writes, [Read("k", 1, 13.1)], 0.25, [fault])) == 1
    assert len(too_old(writes, [Read("k", 1, 11.4)], 0.25, [Fault(11.5, 12.0, 1.0)])) == 1


def test_what_a_failover_lost_demands_nothing():
    writes = [Write("k", 1, 10.0), Write("k", 2, 11.0), Write("k", 3, 12.0), Write("k", 4, 13.0)]
    fault = Fault(11.5, 12.5, 0.5, loses=True)
    assert too_old(writes[:3], [Read("k", 2, 50.0), Read("k", 3, 50.0)], 0.25, [fault]) == []
    # Neither what was acknowledged before it nor after it is lost.
    assert len(too_old(writes[:3], [Read("k", 1, 50.0)], 0.25, [fault])) == 1
    assert len(too_old(writes, [Read("k", 2, 50.0), Read("k", 3, 50.0)], 0.25, [fault])) == 2
    # A fault that loses nothing does not.
    assert len(too_old(writes[:3], [Read("k", 2, 50.0)], 0.25, [fault._replace(loses=False)])) == 1


# Real ones


class Processes:
    """Processes at work, and what went wrong meanwhile."""

    def __init__(self, url: str, directory: Path) -> None:
        self.faults: list[Fault] = []
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()
        self._directory = directory
        _, self._shown = history_worker.shared(directory, COUNT)
        arguments = [sys.executable, "-X", "faulthandler", PROGRAM, url]
        self._processes = [
            subprocess.Popen([*arguments, str(number), str(COUNT), directory], stdin=subprocess.PIPE)
            for number in range(COUNT)
        ]
        self.come_back()

    def _watch(self) -> None:
        """Note when the machine stood still, or did something else: whoever listens does not hear then."""
        before = time.monotonic()
        while not self._ended.wait(0.01):
            now = time.monotonic()
            if now - before > TRACKED / 2:
                self.faults.append(Fault(before, now, now - before + TRACKED))
            before = now

    def _every(self, at: int) -> list[int]:
        for process in self._processes:
            assert process.poll() is None, "a process ended"
        return [self._shown[number * history_worker.SHOWN + at] for number in range(COUNT)]

    def come_back(self) -> None:
        """Wait until all listen, read, and write."""
        until(lambda: all(self._every(0)))
        self.go_on_for(0)

    def go_on_for(self, seconds: float) -> None:
        """Let them work for a while, and at least until each has read and written once more."""
        ends = time.monotonic() + seconds
        before = [self._every(1), self._every(2)]
        until(
            lambda: (
                time.monotonic() >= ends
                and all(map(int.__gt__, self._every(1), before[0]))
                and all(map(int.__gt__, self._every(2), before[1]))
            )
        )

    @contextlib.contextmanager
    def fault(self, bound: float, loses: bool = False):
        """Something is wrong until they have come back."""
        began = time.monotonic() - (LAG if loses else 0.0)
        yield
        self.come_back()
        self.faults.append(Fault(began, time.monotonic(), bound, loses))

    def end(self) -> list[dict]:
        """Have them end; return what each did."""
        for process in self._processes:
            process.stdin.close()
        for number, process in enumerate(self._processes):
            assert process.wait(60) == 0, f"process {number} failed"
        self._ended.set()
        return [json.loads((self._directory / f"history{number}.json").read_text()) for number in range(COUNT)]

    def kill(self) -> None:
        self._ended.set()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def run(tmp_path):
    """Makes processes, and ends them."""
    made = []

    def make(url: str) -> Processes:
        made.append(Processes(url, tmp_path))
        return made[-1]

    yield make
    for processes in made:
        processes.kill()


def check(processes: Processes, bound: float = TRACKED) -> None:
    done = processes.end()
    writes = [Write(*write) for one in done for write in one["writes"]]
    reads = [Read(*read) for one in done for read in one["reads"]]
    # Before the first write, what is computed is version 0.
    writes += [Write(f"computed:{at}", 0, -math.inf) for at in range(COUNT * history_worker.KEYS)]
    found = too_old(writes, reads, bound, processes.faults)
    assert not found, "\n".join([f"{len(found)} reads of {len(reads)} are too old", *found[:20]])
    assert sum(one["stats"]["l1_hit"] for one in done) > 1000
    assert len(reads) > 200
    assert sum(write.ended < math.inf for write in writes) > 100


def test_nothing_is_too_old_whatever_happens_to_server_and_connections(server, run):
    with Proxy(server.port) as proxy:
        processes = run(f"{proxy.url}?{SETTINGS}")
        rounds = max(1, round(SECONDS / 20))
        turn = SECONDS / rounds / 6
        for _ in range(rounds):
            processes.go_on_for(turn)
            with processes.fault(L1_TTL + TRACKED):
                proxy.cut(listeners_only=True)
            processes.go_on_for(turn)
            with processes.fault(UNNOTICED + L1_TTL + TRACKED):
                proxy.hold(lambda reply: reply.listens)
                processes.go_on_for(UNNOTICED + L1_TTL + TRACKED + turn)
                proxy.go_on()
            processes.go_on_for(turn)
            with processes.fault(L1_TTL + TRACKED):
                server.pause()
                time.sleep(turn)
                server.go_on()
            with processes.fault(L1_TTL + TRACKED):
                proxy.cut()
            with processes.fault(L1_TTL + TRACKED):
                server.kill()
                server.start()
            processes.go_on_for(turn)
        check(processes)


def test_nothing_is_too_old_where_masters_fail_over(sentinels, run):
    """What a master acknowledged and lost is lost to all: `history` says how that is allowed for."""
    master, replica, url = sentinels
    processes = run(f"{url}?{SETTINGS}")
    processes.go_on_for(SECONDS / 3)
    with processes.fault(UNNOTICED + L1_TTL + TRACKED, loses=True):
        master.pause()
        until(lambda: is_master(replica) and masters_told(url) == {replica.port})
        # It comes back as a master that has missed everything, until a Sentinel tells it.
        master.go_on()
        until(lambda: not is_master(master))
    processes.go_on_for(SECONDS / 3)
    check(processes)


def test_nothing_is_too_old_where_masters_of_a_cluster_die(cluster, run):
    processes = run(f"redis+cluster://127.0.0.1:{cluster[1].port}?{SETTINGS}")
    processes.go_on_for(SECONDS / 3)
    with processes.fault(UNNOTICED + L1_TTL + TRACKED, loses=True), taking_over(cluster):
        cluster[0].kill()
        until(lambda: sum(map(is_master, cluster[1:])) == 3)
        until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER INFO") for node in cluster[1:]))
    processes.go_on_for(SECONDS / 3)
    check(processes, L1_TTL + TRACKED)
