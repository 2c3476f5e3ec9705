"""Work that nobody waits for, in threads that end with the interpreter.

The threads are daemons, so that a slow function does not keep a program from ending. At exit the gate is shut: what a
thread does to a tier is done by then, and what it has not begun never begins, because native code that runs without the
GIL must not be running when the interpreter goes.
"""

from __future__ import annotations

import atexit
import os
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

#: Threads at once; who asks for more is told that there is none.
_MOST: Final = 8

_mutex = threading.Lock()
_running = 0
#: Held while a thread works on a tier; kept for good at exit.
gate = threading.RLock()


def spawn(work: Callable[[], object]) -> bool:
    """Run `work`, which handles its own errors, in a thread; return whether there was one to be had."""
    global _running
    with _mutex:
        if _running >= _MOST:
            return False
        _running += 1
    try:
        threading.Thread(target=_run, args=(work,), name="framecache-refresh", daemon=True).start()
    except RuntimeError:  # the interpreter is about to end, or the system has no thread to give
        _done()
        return False
    return True


def _run(work: Callable[[], object]) -> None:
    try:
        work()
    finally:
        _done()


def _done() -> None:
    global _running
    with _mutex:
        _running -= 1


def _shut() -> None:
    gate.acquire()


def _forget_in_child() -> None:
    global _mutex, _running, gate
    _mutex, _running, gate = threading.Lock(), 0, threading.RLock()


atexit.register(_shut)
os.register_at_fork(after_in_child=_forget_in_child)
