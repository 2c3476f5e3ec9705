"""Operations that ask an engine, run by threads and by event loops."""

from __future__ import annotations

import asyncio
import threading

import pytest

from framecache._asking import ask, at_leisure, in_loop, run, run_in_loop, settled
from framecache.backend import AsyncBackend, Backend


class Engine(Backend):
    """Answers what it is asked, and says who asked."""

    place = "test://"

    def __init__(self, for_loops=True):
        self.asked = []
        self._loop = Loop(self) if for_loops else None

    def get_many(self, names):
        self.asked.append((list(names), threading.get_ident()))
        if "wrong" in names:
            raise LookupError("wrong")
        return [name.encode() for name in names]

    def set(self, write):
        raise NotImplementedError

    def delete_many(self, names):
        raise NotImplementedError

    def touch(self, name, offset, part):
        raise NotImplementedError

    def for_loop(self):
        return self._loop


class Loop(AsyncBackend):
    goes_on = None

    async def get_many(self, names):
        if self.goes_on is not None:
            await self.goes_on.wait()
        await asyncio.sleep(0)
        return self.backend.get_many(names)


class Store:
    """What a store looks like to whoever runs operations."""

    def __init__(self, backend):
        self.backend = backend


async def two(engine):
    first = await ask(engine, "get_many", ["a"])
    try:
        await ask(engine, "get_many", ["wrong"])
    except LookupError:
        first += await settled(ask_once(engine, "b"))
    return first + await settled([b"c"]) + [await at_leisure(threading.get_ident)]


async def ask_once(engine, name):
    return await ask(engine, "get_many", [name])


def test_a_thread_waits_for_each_answer():
    engine, here = Engine(), threading.get_ident()
    assert run(two(engine)) == [b"a", b"b", b"c", here]
    assert engine.asked == [(["a"], here), (["wrong"], here), (["b"], here)]


def test_a_loop_asks_its_own_backend_and_leaves_what_takes_long_to_a_thread():
    engine, here = Engine(), threading.get_ident()
    *found, thread = asyncio.run(run_in_loop(two(engine)))
    assert found == [b"a", b"b", b"c"]
    assert {who for _, who in engine.asked} == {here}
    assert thread != here


def test_a_thread_asks_where_there_is_none_for_loops():
    engine = Engine(for_loops=False)
    *found, thread = asyncio.run(in_loop(Store(engine), two, engine))
    assert found == [b"a", b"b", b"c"]
    assert {who for _, who in engine.asked} == {thread}
    assert thread != threading.get_ident()


@pytest.mark.parametrize("runs", [run, lambda operation: asyncio.run(run_in_loop(operation))])
def test_errors_are_those_of_the_answer(runs):
    with pytest.raises(LookupError, match="wrong") as caught:
        runs(ask_once(Engine(), "wrong"))
    assert caught.value.__cause__ is None


def test_who_is_cancelled_ends_the_operation():
    ended = []

    async def operation(engine):
        try:
            await ask(engine, "get_many", ["a"])
        finally:
            ended.append(await ask(engine, "get_many", ["last"]))

    async def main():
        engine = Engine()
        engine._loop.goes_on = asyncio.Event()
        task = asyncio.create_task(run_in_loop(operation(engine)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        engine._loop.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == [[b"last"]]


def test_an_operation_whose_loop_is_gone_gets_no_more_answers():
    left = []

    async def operation(engine):
        try:
            await ask(engine, "get_many", ["a"])
        finally:
            try:
                await ask(engine, "get_many", ["last"])
            finally:
                left.append("all")

    engine = Engine()
    running = run_in_loop(operation(engine))
    engine._loop.goes_on = Never()
    running.send(None)
    running.close()
    assert left == ["all"]
    assert engine.asked == []


class Never:
    """What a task waits for that no loop ever wakes."""

    def wait(self):
        return self

    def __await__(self):
        yield
