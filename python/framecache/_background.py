"""Work that the caller does not do: refreshing, in threads that end when it is done, and what would keep an event loop
waiting, in a pool.

All are daemons, so that a slow function does not keep a program from ending. Native code that runs without the GIL must
not be running when the interpreter goes: each thread has a gate that it holds while it works on a tier, and at exit all
gates are shut. What has passed its gate by then is waited for, what has not never does.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
import time
from queue import SimpleQueue

from framecache._flight import wake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from typing import Any, Final, TypeVar

    R = TypeVar("R")

#: Refreshers at once; who asks for more is told that there is none.
_REFRESHERS: Final = 8
#: Threads for what loops are not to wait for: short work on tiers.
_WORKERS: Final = 8
#: Seconds that the end of the interpreter waits for what passed a gate, in all.
_EXIT: Final = 5.0


class _Threads:
    """The threads of this process. Nothing here deadlocks if a finalizer uses it while its thread does."""

    def __init__(self) -> None:
        self.mutex = threading.RLock()
        self.gates: dict[int, threading.RLock] = {}
        self.refreshers = 0
        self.workers = 0
        self.idle = 0
        self.queue: SimpleQueue[Callable[[], object]] = SimpleQueue()


class _Gate:
    """Held by a thread of framecache while it works on a tier; nothing to any other thread."""

    def __enter__(self) -> None:
        if (gates := _threads.gates) and (lock := gates.get(threading.get_ident())) is not None:
            lock.acquire()

    def __exit__(self, *_: object) -> None:
        if (gates := _threads.gates) and (lock := gates.get(threading.get_ident())) is not None:
            lock.release()


_threads = _Threads()
gate: Final = _Gate()


def begin(name: str, body: Callable[[], object]) -> bool:
    """Begin a thread with a gate; return whether there was one to be had."""

    def run() -> None:
        mine.gates[threading.get_ident()] = threading.RLock()
        try:
            body()
        finally:
            del mine.gates[threading.get_ident()]

    mine = _threads
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # the interpreter is about to end, or the system has no thread to give
        return False
    return True


def spawn(work: Callable[[], object]) -> bool:
    """Run `work`, which handles its own errors, in a thread and a copy of this context; return whether there was one to
    be had.
    """
    mine, context = _threads, contextvars.copy_context()

    def body() -> None:
        try:
            context.run(work)
        finally:
            done()

    def done() -> None:
        with mine.mutex:
            mine.refreshers -= 1

    with mine.mutex:
        if mine.refreshers >= _REFRESHERS:
            return False
        mine.refreshers += 1
    if started := begin("framecache-refresh", body):
        return started
    done()
    return False


def submit(work: Callable[..., R], *arguments: Any) -> Future[R]:
    """Run `work` in a thread of the pool, in a copy of this context; right here where there is none to be had.

    The pool is framecache's own: that of a loop may be full of callers that wait for what this work is to find out.
    """
    from concurrent.futures import Future

    future: Future[R] = Future()
    context = contextvars.copy_context()

    def body() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(context.run(work, *arguments))
        except BaseException as error:
            future.set_exception(error)

    if _has_worker():
        _threads.queue.put(body)
    else:
        body()
    return future


async def result_of(future: Future[R]) -> R:
    """What a worker thread returns. If this is cancelled before it begins, it does not."""
    import asyncio

    loop = asyncio.get_running_loop()
    sleeper = loop.create_future()
    future.add_done_callback(lambda _: wake(sleeper, loop))
    try:
        await sleeper
    except BaseException:
        future.cancel()
        raise
    return future.result()


async def in_worker(work: Callable[..., R], *arguments: Any) -> R:
    """What `work` returns in a thread of the pool."""
    return await result_of(submit(work, *arguments))


def later(work: Callable[..., object], *arguments: Any) -> None:
    """Run `work` in a thread of the pool, if it has one; a finalizer may ask for this."""
    if _threads.workers:
        _threads.queue.put(lambda: work(*arguments))


def _has_worker() -> bool:
    """Whether there is somebody to do more work, perhaps after what waits."""
    mine = _threads
    with mine.mutex:
        if mine.idle > mine.queue.qsize() or mine.workers >= _WORKERS:
            return True
        mine.workers += 1
    if begin("framecache-worker", lambda: _work(mine)):
        return True
    with mine.mutex:
        mine.workers -= 1
        return mine.workers > 0


def _work(mine: _Threads) -> None:
    while True:
        with mine.mutex:
            mine.idle += 1
        body = mine.queue.get()
        with mine.mutex:
            mine.idle -= 1
        with gate:
            body()
        del body


def _shut() -> None:
    ends = time.monotonic() + _EXIT
    for lock in tuple(_threads.gates.values()):
        lock.acquire(timeout=max(0.0, ends - time.monotonic()))


def _forget_in_child() -> None:
    global _threads
    _threads = _Threads()


atexit.register(_shut)
os.register_at_fork(after_in_child=_forget_in_child)
