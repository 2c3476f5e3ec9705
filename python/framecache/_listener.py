"""Hears which entries others change: a thread of this process for each server that may change them, with a connection
of its own.

What was not heard may have changed. L1 is told that each change is heard only while all servers that take writes are
listened to, say so themselves, and agree on who they are; each of them is asked twice a second. A connection that is
lost, slow or silent, a server that forgot everything, another role and other servers make a miss of all that L1 has.

A change is heard after the time that its message takes. Where servers change, at most `PING_EVERY` + `SILENCE` seconds
pass from the moment that one of those that are listened to knows of it.
"""

from __future__ import annotations

import os
import threading
import time
from weakref import WeakSet

from framecache import _background
from framecache._acl import missing
from framecache._feed import PING_EVERY, SILENCE, Feed, Tracking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from concurrent.futures import Future
    from typing import Any, Final, Protocol

    from framecache._backend import Invalidations
    from framecache._feed import Way

    class Servers(Protocol):
        """Which servers there are to listen to."""

        #: What each is asked again and again, to answer that it still is one of them.
        question: tuple[str, ...]

        def targets(self, answers: Mapping[str, Any]) -> Mapping[str, Callable[[int], Any]]:
            """Those to listen to by now, each with what makes a connection of a version of RESP, not connected."""

        def answer(self, reply: Any) -> Any:
            """What a reply to the question tells.

            Raises:
                OSError: it is not a server to listen to.
            """

        def doubt(self, connection: Any) -> Callable[[], None] | None:
            """What else to ask, which may wait and raises an `OSError` or an error of redis-py."""

        def disagreement(self, answers: Mapping[str, Any]) -> str | None:
            """Why their answers do not tell that all who take writes are listened to, if they do not."""

        def basis(self, answers: Mapping[str, Any]) -> Hashable:
            """What, if it is another one, makes what was heard before worth nothing."""

        def refresh(self) -> Callable[[], None] | None:
            """What has the client look again where its servers are, if it keeps that; it may wait."""


__all__ = ["PING_EVERY", "SILENCE", "Listener"]

#: Seconds between two attempts to have a client look where its servers are.
_REFRESH_EVERY: Final = 1.0


class Listener:
    """The listener of one engine. Its threads start with the first who wants to be told, and end with the last.

    Args:
        servers: Which servers there are.
        way: How they tell.
    """

    def __init__(self, servers: Servers, way: Way | None = None) -> None:
        self.servers = servers
        self.way: Way = way or Tracking(servers.question)
        self._start_over()
        _listeners.add(self)

    def _start_over(self) -> None:
        # The thread that has it may take it once more: a finalizer may end what it began.
        self._mutex = threading.RLock()
        self._told: dict[str, WeakSet[Invalidations]] = {}
        self._feeds: dict[str, Feed] = {}
        self._on: dict[str, Hashable] = {}
        self._refreshed = -_REFRESH_EVERY
        self._refreshing: Future[None] | None = None
        #: ``on`` while it hears everything; else why not.
        self.state = "off"
        #: Rights and commands that servers do not give.
        self.missing: list[str] = []

    def add(self, prefix: str, to: Invalidations) -> Callable[[], None]:
        """Tell `to` of names with this prefix, as long as somebody has it; return what ends that."""
        with self._mutex:
            self._told.setdefault(prefix, WeakSet()).add(to)
            if prefix in self._on:
                to.connected(True)
            else:
                self._judge()
            self._wake()
        return lambda: self._end(prefix, to)

    def _end(self, prefix: str, to: Invalidations) -> None:
        with self._mutex:
            if prefix in self._told:
                self._told[prefix].discard(to)
            to.connected(False)
            self._wake()

    def close(self) -> None:
        """Tell nobody any more."""
        with self._mutex:
            for prefix in self._told:
                self._tell_connected(prefix, False)
            self._told.clear()
            self._wake()

    def _wake(self) -> None:
        for feed in self._feeds.values():
            feed.wake.set()

    # What feeds ask and tell

    def wanted(self, feed: Feed) -> frozenset[str]:
        """The prefixes that somebody wants to be told of; none, if this server is not to be listened to any more."""
        with self._mutex:
            self._forget()
            return frozenset(self._told) if self._feeds.get(feed.name) is feed else frozenset()

    def _forget(self) -> None:
        """Forget who is gone; with the last, the feeds, whose threads end when they ask what is wanted."""
        for prefix in [prefix for prefix, told in self._told.items() if not told]:
            del self._told[prefix]
            self._on.pop(prefix, None)
        if not self._told:
            self._feeds.clear()
            self.state, self.missing = "off", []

    def changed(self, names: list[str] | None) -> None:
        """Pass on which names changed; `None`: all may have."""
        with self._mutex:
            told = [(prefix, tuple(some)) for prefix, some in self._told.items()]
        for prefix, some in told:
            mine = None if names is None else [name for name in names if name.startswith(prefix)]
            if mine is None or mine:
                for to in some:
                    to.changed(mine)

    def judge(self) -> None:
        """Find out whether everything is heard now, and tell those for whom that changed."""
        with self._mutex:
            self._judge()

    def _judge(self) -> None:
        self._forget()
        if not self._told:
            return
        answers = {name: feed.answer for name, feed in self._feeds.items() if feed.answer is not None}
        self._follow(self.servers.targets(answers))
        feeds = self._feeds.values()
        silent = [feed for feed in feeds if feed.answer is None]
        why = silent[0].trouble if silent else self.servers.disagreement(answers)
        if why is not None and (not silent or any(feed.error for feed in silent)):
            self._look_again()
        basis = None if why is not None else (self.servers.basis(answers), frozenset(self._feeds))
        for prefix in self._told:
            if basis is None or not all(prefix in feed.heard for feed in feeds):
                if self._on.pop(prefix, None) is not None:
                    self._tell_connected(prefix, False)
            elif self._on.get(prefix) != basis:
                self._on[prefix] = basis
                self._tell_connected(prefix, True)
        self.state = why or ("on" if len(self._on) == len(self._told) else "connecting")
        self.missing = sorted({right for feed in feeds for right in missing(feed.error)})

    def _follow(self, targets: Mapping[str, Callable[[int], Any]]) -> None:
        """Listen to these, and to no others."""
        for name in [name for name in self._feeds if name not in targets]:
            self._feeds.pop(name).wake.set()
        for name, connect in targets.items():
            if name not in self._feeds:
                self._feeds[name] = Feed(name, connect, self)
                self._feeds[name].start()

    def _tell_connected(self, prefix: str, yes: bool) -> None:
        for to in tuple(self._told.get(prefix, ())):
            to.connected(yes)

    def _look_again(self) -> None:
        now = time.monotonic()
        if now - self._refreshed < _REFRESH_EVERY or not (self._refreshing is None or self._refreshing.done()):
            return
        self._refreshed = now
        if (refresh := self.servers.refresh()) is not None:
            # What goes wrong goes wrong for commands too, which say so; it is tried again.
            self._refreshing = _background.submit(refresh)


_listeners: WeakSet[Listener] = WeakSet()


def _forget_in_child() -> None:
    for listener in list(_listeners):
        listener._start_over()


os.register_at_fork(after_in_child=_forget_in_child)
