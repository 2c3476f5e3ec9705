"""The backends of this project, and the example of one, pass the suite; what is not one does not."""

from __future__ import annotations

import asyncio
import doctest
import runpy
import sys
from os import urandom
from pathlib import Path
from threading import Barrier

import pytest
import redis.asyncio

from framecache import Cache, InvalidArgument, StoreError, Unsupported, _backend_helpers
from framecache.backend import AsyncBackend, Backend, Capabilities, Write
from framecache.redis import Cluster, PublishingRedis, Redis
from framecache.testing import DirectoryBackend, backend_suite
from redis_server import server, several  # noqa: F401  # a fixture
from redis_topologies import cluster_of

CHECKS = pytest.mark.parametrize("check", backend_suite(), ids=lambda check: check.__name__)


@pytest.fixture(scope="module")
def running_cluster(tmp_path_factory):
    """One for all checks: starting it takes seconds."""
    with several(tmp_path_factory) as make:
        yield cluster_of(make)


EXAMPLE = Path(__file__).parents[2] / "examples" / "sqlite_backend.py"


@CHECKS
def test_redis(check, server):
    check(lambda: Redis(server.url))


@CHECKS
def test_redis_whose_writers_publish(check, server):
    check(lambda: PublishingRedis(server.url))


@CHECKS
@pytest.mark.parametrize("kind", [Redis, PublishingRedis], ids=["redis", "publishing"])
def test_redis_with_a_client_for_loops(check, kind, server):
    check(lambda: kind(redis.asyncio.Redis(port=server.port, socket_timeout=5)))


@CHECKS
def test_redis_with_a_client_for_loops_that_has_ways_of_its_own(check, server):
    class Own(redis.asyncio.Redis):
        async def execute_command(self, *arguments, **options):
            return await super().execute_command(*arguments, **options)

    check(lambda: Redis(Own(port=server.port, socket_timeout=5)))


@CHECKS
def test_a_cluster(check, running_cluster):
    check(lambda: Cluster(f"redis+cluster://127.0.0.1:{running_cluster[0].port}"))


@CHECKS
def test_a_directory(check, tmp_path):
    check(lambda: DirectoryBackend(tmp_path / "store"))


@CHECKS
def test_the_example(check, tmp_path):
    example = runpy.run_path(str(EXAMPLE))
    check(lambda: example["SQLiteBackend"](str(tmp_path / "cache.db")))


@CHECKS
def test_the_example_with_commands_for_loops(check, tmp_path):
    """Which the threads of the pool do."""

    class InLoops(runpy.run_path(str(EXAMPLE))["SQLiteBackend"]):
        def for_loop(self):
            return AsyncBackend(self)

    check(lambda: InLoops(str(tmp_path / "cache.db")))


class Broken(DirectoryBackend):
    """A backend with one of the defects that people write."""

    defect = ""

    def __init__(self, path):
        super().__init__(path)
        self.all_checked = Barrier(_backend_helpers.THREADS)

    def get_many(self, names):
        found = super().get_many(names)
        return found[::-1] if self.defect == "order" else found

    def peek(self, names, nbytes):
        return self.get_many(names) if self.defect == "peek" else super().peek(names, nbytes)

    def set(self, write):
        if self.defect == "guards":
            write = write._replace(guards={})
        elif self.defect == "stamps differ":
            write = write._replace(stamps={})
        elif self.defect == "absent guards":
            write = write._replace(guards={name: value for name, value in write.guards.items() if self.get(name)})
        elif self.defect == "removes":
            write = write._replace(removes=())
        elif self.defect == "removes anyway":
            self.delete_many(write.removes)
        elif self.defect == "parts":
            write = write._replace(parts=write.parts[:1])
        elif self.defect == "time":
            write = write._replace(milliseconds=None)
        elif self.defect == "never":
            write = write._replace(milliseconds=write.milliseconds or 60)
        elif self.defect == "two steps":
            if any(self.get(name) != value for name, value in write.guards.items()):
                return False
            if write.guards:
                self.all_checked.wait(20)
            write = write._replace(guards={})
        return super().set(write) or self.defect == "held"

    def delete_if(self, name, offset, part):
        return self.delete(name) if self.defect == "delete anyway" else super().delete_if(name, offset, part)

    def delete_many(self, names):
        return super().delete_many(names) + (self.defect == "count")

    def touch(self, name, offset, part):
        if self.defect == "touch makes" and self.get(name) is None:
            return self.set(Write(name, [part], None, {}, ()))
        if self.defect == "touch lasts" and (old := self.get(name)) is not None:
            return self.set(Write(name, [bytes(old)[:offset], part, bytes(old)[offset + len(part) :]], None, {}, ()))
        return super().touch(name, offset, part)

    def stamps(self, names, milliseconds):
        if self.defect == "stamps":
            return [b"\0" * 8 for _ in names]
        if self.defect == "own stamps":
            return [urandom(8) for _ in names]
        return super().stamps(names, milliseconds)

    def lease(self, name, token, milliseconds):
        if self.defect == "no renewal":
            return self._change(name, lambda old: b"%d" % token if old is None else None, milliseconds)
        return super().lease(name, token, 10**9 if self.defect == "for ever" else milliseconds) or (
            self.defect == "everybody"
        )

    def renew(self, name, token, milliseconds):
        return self.defect == "renewed" or super().renew(name, token, milliseconds)

    def release(self, name, token):
        return super().delete(name) if self.defect == "anybody" else super().release(name, token)

    def names(self, prefix, start):
        names, after = super().names("" if self.defect == "prefix" else prefix, start)
        return names[: 10 if self.defect == "first part" else None], after


DEFECTS = {
    "order": "many_come_in_their_order",
    "peek": "peek_cuts_the_first",
    "guards": "guards_must_hold",
    "stamps differ": "stamps_must_be_the_same",
    "delete anyway": "what_is_the_same_is_removed",
    "absent guards": "guards_must_hold",
    "held": "guards_must_hold",
    "two steps": "guards_are_one_step",
    "removes": "a_write_removes",
    "removes anyway": "a_write_removes",
    "parts": "what_is_set_is_got",
    "time": "values_go_in_time",
    "never": "values_go_in_time",
    "count": "removed_is_gone",
    "touch makes": "touched_bytes_change",
    "touch lasts": "touched_bytes_change",
    "stamps": "stamps_are_agreed_on",
    "own stamps": "stamps_are_agreed_on",
    "no renewal": "a_lease_has_one_holder",
    "for ever": "a_lease_has_one_holder",
    "everybody": "a_lease_has_one_holder",
    "renewed": "a_lease_has_one_holder",
    "anybody": "a_lease_has_one_holder",
    "prefix": "names_are_listed",
    "first part": "names_are_listed",
}


@pytest.mark.parametrize(("defect", "finds"), DEFECTS.items())
def test_a_defect_is_found(defect, finds, tmp_path, monkeypatch):
    monkeypatch.setattr(_backend_helpers, "PATIENCE", 0.5)
    (check,) = [check for check in backend_suite() if check.__name__ == finds]
    backend = Broken(tmp_path / "store")
    check(lambda: backend)
    backend.defect = defect
    with pytest.raises(AssertionError, match="expected"):
        check(lambda: backend)


class BrokenInLoops(DirectoryBackend):
    """A backend whose commands for threads are well, while those for event loops have a defect."""

    def __init__(self, path):
        super().__init__(path)
        self.broken = Broken(path)

    def for_loop(self):
        return AsyncBackend(self.broken)


@pytest.mark.parametrize(("defect", "finds"), DEFECTS.items())
def test_a_defect_is_found_in_a_loop(defect, finds, tmp_path, monkeypatch):
    monkeypatch.setattr(_backend_helpers, "PATIENCE", 0.5)
    (check,) = [check for check in backend_suite() if check.__name__ == finds]
    backend = BrokenInLoops(tmp_path / "store")
    check(lambda: backend)
    backend.broken.defect = defect
    with pytest.raises(AssertionError, match=r"in an event loop: .*expected"):
        check(lambda: backend)


class Careless(AsyncBackend):
    """Commands for event loops with one of the defects by which who is cancelled harms others."""

    def __init__(self, backend, defect):
        super().__init__(backend)
        self.defect = defect
        self.answers = []

    async def get(self, name):
        try:
            await turns(10)
        except asyncio.CancelledError:
            if self.defect == "stays":
                await asyncio.sleep(3600)
            if self.defect == "fails":
                raise StoreError("cancelled") from None
            raise
        return await super().get(name)

    async def get_many(self, names):
        self.answers.append(self.backend.get_many(names))
        if self.defect != "mixed up":
            return self.answers.pop()
        await turns(3)
        return self.answers.pop(0)

    async def set(self, write):
        if self.defect == "half":
            self.backend.set(write._replace(parts=[b"half"]))
            await turns(10)
        return await super().set(write)


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("defect", "error", "says"),
    [
        ("mixed up", AssertionError, "get_many after a command whose caller was cancelled: expected"),
        ("half", AssertionError, "is whole: expected True"),
        ("stays", AssertionError, "how many of those who were cancelled ended: expected 1"),
        ("fails", StoreError, "cancelled"),
    ],
)
def test_who_harms_others_when_he_is_cancelled_is_found(defect, error, says, tmp_path, monkeypatch):
    monkeypatch.setattr(_backend_helpers, "PATIENCE", 0.5)
    (check,) = [check for check in backend_suite() if check.__name__ == "who_is_cancelled_harms_nobody"]

    class Engine(DirectoryBackend):
        asynchronous = None

        def for_loop(self):
            return self.asynchronous

    backend = Engine(tmp_path / "store")
    check(lambda: backend)
    backend.asynchronous = Careless(backend, "none")
    check(lambda: backend)
    backend.asynchronous = Careless(backend, defect)
    with pytest.raises(error, match=says):
        check(lambda: backend)


def test_what_for_loop_gives_must_be_one(tmp_path):
    class NoBase(DirectoryBackend):
        def for_loop(self):
            return self

    with pytest.raises(AssertionError, match=r"in an event loop: isinstance.*expected True"):
        backend_suite()[1](lambda: NoBase(tmp_path / "store"))


def test_what_is_abstract_must_be_written():
    class Empty(Backend):
        place = "nowhere"

    with pytest.raises(TypeError, match="abstract"):
        Empty()
    with pytest.raises(InvalidArgument, match="expected a str, a client of redis-py or a backend, got object"):
        Cache(object())


def test_an_engine_that_does_the_least(tmp_path, monkeypatch):
    class Least(Broken):
        capabilities = Capabilities()
        lease = renew = release = names = None
        stamps = Backend.stamps
        delete_if = Backend.delete_if

    backend = Least(tmp_path / "store")
    for check in backend_suite():
        check(lambda: backend)
    monkeypatch.setattr(Least, "for_loop", lambda self: AsyncBackend(self))
    for check in backend_suite():
        check(lambda: backend)
    with Cache(backend, on_error="raise") as cache:
        cache.set("key", 1, tags=["tag"])
        assert cache.get("key") == 1
        cache.invalidate_tags("tag")
        assert cache.get("key") is None
        assert cache.get_or_set("key", lambda: 2) == 2
        with pytest.raises(Unsupported, match="keys: expected"):
            list(cache.keys())


def test_the_example_does_what_it_says():
    example = runpy.run_path(str(EXAMPLE))
    module = type(sys)("sqlite_backend")
    vars(module).update(example)
    assert doctest.testmod(module, raise_on_error=False).failed == 0
    assert doctest.testmod(module).attempted > 5
