"""Work that the caller does not do: refreshing, in threads that end with the interpreter, and what would keep an event
loop waiting, in a pool.

Refreshers are daemons, so that a slow function does not keep a program from ending. Native code that runs without the
GIL must not be running when the interpreter goes: at exit the gate is shut, which what a refresher does to a tier has
passed by then, or never passes.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor
    from typing import Any, Final

#: Refreshers at once; who asks for more is told that there is none.
_MOST: Final = 8
#: Threads for what loops are not to wait for: short work on tiers.
_WORKERS: Final = 8
#: Seconds that the end of the interpreter waits for what a refresher does to a tier.
_EXIT: Final = 5.0

_mutex = threading.RLock()
_running = 0
_pool: ThreadPoolExecutor | None = None
_this = threading.local()


class _Gate:
    """Held by a refresher while it works on a tier; nothing to any other thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()

    def __enter__(self) -> None:
        if getattr(_this, "refreshes", False):
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        if getattr(_this, "refreshes", False):
            self.lock.release()


gate: Final = _Gate()


def spawn(work: Callable[[], object]) -> bool:
    """Run `work`, which handles its own errors, in a thread and a copy of this context; return whether there was one to
    be had.
    """
    global _running
    with _mutex:
        if _running >= _MOST:
            return False
        _running += 1
    try:
        run = contextvars.copy_context().run
        threading.Thread(target=_run, args=(run, work), name="framecache-refresh", daemon=True).start()
    except RuntimeError:  # the interpreter is about to end, or the system has no thread to give
        _done()
        return False
    return True


def _run(run: Callable[[Callable[[], object]], object], work: Callable[[], object]) -> None:
    _this.refreshes = True
    try:
        run(work)
    finally:
        _done()


def _done() -> None:
    global _running
    with _mutex:
        _running -= 1


def submit(work: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run `work` in a thread of the pool, in a copy of this context; right here where there is none to be had.

    The pool is framecache's own: that of a loop may be full of callers that wait for what this work is to find out.
    """
    global _pool
    from concurrent.futures import Future, ThreadPoolExecutor

    with _mutex:
        if _pool is None:
            _pool = ThreadPoolExecutor(_WORKERS, "framecache-worker")
    try:
        return _pool.submit(contextvars.copy_context().run, work, *arguments)
    except RuntimeError:  # the interpreter is about to end, or the system has no thread to give
        done: Future[Any] = Future()
        try:
            done.set_result(work(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done


def _shut() -> None:
    gate.lock.acquire(timeout=_EXIT)


def _forget_in_child() -> None:
    global _mutex, _running, _pool
    _mutex, _running, _pool = threading.RLock(), 0, None
    gate.lock = threading.RLock()


atexit.register(_shut)
os.register_at_fork(after_in_child=_forget_in_child)
