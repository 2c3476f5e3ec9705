"""Hears which entries others change: a thread of this process with a connection of its own.

The server sends the names that begin with a prefix as messages (``CLIENT TRACKING ... BCAST``, redirected to the same
connection, which works in RESP2 with every server that tracks at all). What was not heard may have changed: a lost,
slow or silent connection, and a server that says that it forgot everything, make everything that L1 has a miss.
"""

from __future__ import annotations

import os
import random
import threading
import time
from weakref import WeakSet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from framecache._backend import Invalidations

#: Seconds between two questions whether the server is there, and how long an answer may take.
PING_EVERY: Final = 0.5
SILENCE: Final = 1.0
#: Seconds between attempts to connect: at first, and at most; and where the server does not allow it.
_PAUSE: Final = (0.05, 2.0)
_REFUSED: Final = 30.0
_CHANNEL: Final = "__redis__:invalidate"


class Listener:
    """The listener of one server. Its thread starts with the first who wants to be told, and ends with the last.

    Args:
        connect: Makes a connection of redis-py that speaks RESP2 and is not connected.
        errors: What it raises.
    """

    def __init__(self, connect: Callable[[], Any], errors: tuple[type[Exception], ...]) -> None:
        self._connect = connect
        self._errors = errors
        self._start_over()
        _listeners.add(self)

    def _start_over(self) -> None:
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._told: dict[str, WeakSet[Invalidations]] = {}
        self._heard: frozenset[str] = frozenset()
        self._is_running = False
        #: ``on`` while it hears everything; else why not.
        self.state = "off"

    def add(self, prefix: str, to: Invalidations) -> Callable[[], None]:
        """Tell `to` of names with this prefix, as long as somebody has it; return what ends that."""
        with self._mutex:
            self._told.setdefault(prefix, WeakSet()).add(to)
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="framecache-listener", daemon=True).start()
        self._wake.set()
        return lambda: self._end(prefix, to)

    def _end(self, prefix: str, to: Invalidations) -> None:
        with self._mutex:
            if prefix in self._told:
                self._told[prefix].discard(to)
        to.connected(False)
        self._wake.set()

    def close(self) -> None:
        """Tell nobody any more."""
        with self._mutex:
            told = [to for some in self._told.values() for to in some]
            self._told.clear()
        for to in told:
            to.connected(False)
        self._wake.set()

    # The thread

    def _run(self) -> None:
        wake, pause = self._wake, _PAUSE[0]
        while prefixes := self._wanted(end=True):
            wake.clear()
            connection = self._connect()
            try:
                self._subscribe(connection, prefixes)
                pause = _PAUSE[0]
                self._hear(connection, prefixes)
                wake.set()
            except self._errors as error:
                self.state = f"{type(error).__name__}: {error}"
                refused = type(error).__name__ in ("ResponseError", "NoPermissionError", "AuthenticationError")
                pause = _REFUSED if refused else min(2 * pause, _PAUSE[1])
            finally:
                self._tell(lambda to: to.connected(False))
                self._heard = frozenset()
                connection.disconnect()
            wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret

    def _wanted(self, end: bool = False) -> frozenset[str]:
        """The prefixes that somebody wants to be told of; with `end`, this thread is none any more if there is none."""
        with self._mutex:
            prefixes = frozenset(prefix for prefix, told in self._told.items() if told)
            if end and not prefixes:
                self._is_running = False
                self.state = "off"
        return prefixes

    def _subscribe(self, connection: Any, prefixes: frozenset[str]) -> None:
        connection.connect()
        connection.send_command("CLIENT", "ID")
        me = _checked(connection.read_response(), lambda id: type(id) is int)
        wanted = [part for prefix in sorted(prefixes) for part in ("PREFIX", prefix)]
        connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", me, "BCAST", *wanted)
        _checked(connection.read_response(), lambda done: done == b"OK")
        connection.send_command("SUBSCRIBE", _CHANNEL)
        _checked(connection.read_response(), lambda done: isinstance(done, list) and done[:1] == [b"subscribe"])
        self._heard = prefixes
        self._tell(lambda to: to.connected(True))
        self.state = "on"

    def _hear(self, connection: Any, prefixes: frozenset[str]) -> None:
        """Pass on what the server says, until it does not or others want to be told too."""
        asked, is_asked = time.monotonic(), False
        while self._wanted() == prefixes:
            now = time.monotonic()
            if is_asked and now - asked > SILENCE:
                raise TimeoutError(f"no answer for {SILENCE} seconds")
            if not is_asked and now - asked >= PING_EVERY:
                connection.send_command("PING", check_health=False)
                asked, is_asked = now, True
            # While there is something to read, the clock is looked at once for each message.
            if not connection.can_read(timeout=0.1):
                continue
            message = _checked(connection.read_response(), _is_message)
            if message[0] == b"pong":
                is_asked = False
            else:
                names = None if message[2] is None else [name.decode(errors="replace") for name in message[2]]
                self._tell(lambda to, names=names: to.changed(names))  # type: ignore[misc]  # called at once

    def _tell(self, what: Callable[[Invalidations], None]) -> None:
        """Tell all whose prefixes are heard."""
        with self._mutex:
            told = [to for prefix in self._heard for to in self._told.get(prefix, ())]
        for to in told:
            what(to)


def _is_message(said: Any) -> bool:
    """Whether it is the answer to a ping, or tells names or that all were forgotten."""
    if not isinstance(said, list) or said[:1] not in ([b"pong"], [b"message"]):
        return False
    return said[0] == b"pong" or (
        len(said) == 3
        and (said[2] is None or (isinstance(said[2], list) and all(type(name) is bytes for name in said[2])))
    )


def _checked(said: Any, expected: Callable[[Any], bool]) -> Any:
    """What the server said, where that makes sense; else what it meant is not known, and may have been a change.

    Raises:
        ConnectionError: It does not.
    """
    if not expected(said):
        raise ConnectionError(f"expected what a listener is told, found {said!r:.100}")
    return said


_listeners: WeakSet[Listener] = WeakSet()


def _forget_in_child() -> None:
    for listener in list(_listeners):
        listener._start_over()


os.register_at_fork(after_in_child=_forget_in_child)
