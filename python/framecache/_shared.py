"""What the tiers of one cache have in common: counters, hooks, the breaker, and what is logged."""

from __future__ import annotations

import os
import time
from _thread import RLock
from itertools import count

from framecache._breaker import Breaker
from framecache._framecache import Counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from framecache._events import Event
    from framecache._framecache import L1, Clock
    from framecache._times import SystemClock

#: Seconds between two log lines about the same kind of failure.
_LOG_EVERY: Final = 60.0

#: Held while a hook or an entry in memory alone changes; never while anything is waited for.
mutex = RLock()


class Counts:
    """What happened, by name; and what is logged about it, at most once a minute of each kind."""

    __slots__ = ("_logged", "add", "counters", "numbers")

    def __init__(self) -> None:
        #: The numbers themselves.
        self.counters = counters = Counters()
        #: Count something, once or several times.
        self.add = counters.add
        #: How often what happened.
        self.numbers = counters.numbers
        self._logged: dict[str, float] = {}

    def log(self, kind: str, message: str, *arguments: object) -> None:
        """Log a warning, if there was none of this kind within a minute."""
        now = time.monotonic()
        if now - self._logged.get(kind, -_LOG_EVERY) >= _LOG_EVERY:
            try:
                import logging
            except OSError:
                return  # there is no file descriptor left to read it with; what happened is counted
            self._logged[kind] = now
            logging.getLogger("framecache").warning(message, *arguments)

    def damaged(self, key: str) -> None:
        """Log that the bytes of an entry are not what was written, which is a miss."""
        self.log("unreadable", "unreadable entry of %.100r is a miss: its bytes are not what was written", key)


class Shared:
    """What the namespaces of one cache have in common.

    Args:
        l1: The tier in memory.
        clock: Tells the time.
        on_error: Whether a tier that fails is a miss (``count``) or an error (``raise``).
        raise_on_tamper: Whether an entry that is refused is an error.
        max_value_bytes: The largest payload.
        read_only: Whether nothing may be written to the store.
    """

    __slots__ = (
        "_of_tenants",
        "_scopes",
        "_told",
        "breaker",
        "clock",
        "counts",
        "hooks",
        "l1",
        "max_value_bytes",
        "raise_on_error",
        "raise_on_tamper",
        "read_only",
    )

    def __init__(
        self,
        l1: L1 | None,
        clock: Clock | type[SystemClock],
        on_error: str,
        raise_on_tamper: bool,
        max_value_bytes: int,
        read_only: bool,
    ) -> None:
        self.read_only = read_only
        self.l1 = l1
        self.clock = clock
        self.raise_on_error = on_error == "raise"
        self.raise_on_tamper = raise_on_tamper
        self.max_value_bytes = max_value_bytes
        self.counts = Counts()
        self.breaker = Breaker(clock)
        self.hooks: tuple[Callable[[Event], object], ...] = ()
        self._scopes = count(1)
        self._of_tenants: dict[tuple[int, str], int] = {}
        self._told = 0

    def new_scope(self) -> int:
        """A number for canonical keys that are apart from all others."""
        return next(self._scopes)

    def scope_of(self, scope: int, tenant: str) -> int:
        """The part of a scope that is one tenant's, always the same."""
        found = self._of_tenants.get((scope, tenant))
        return self._of_tenants.setdefault((scope, tenant), self.new_scope()) if found is None else found

    def started(self) -> float:
        """When what begins now began, if somebody wants to know; else 0."""
        return time.perf_counter() if self.hooks else 0.0

    def emit(self, kind: Any, tier: str, key: str, nbytes: int = 0, started: float = 0.0) -> None:
        """Tell the hooks; one that raises is logged and goes on."""
        if not self.hooks:
            return
        from framecache._events import Event

        event = Event(kind, tier, key, nbytes, time.perf_counter() - started if started else 0.0)
        for hook in self.hooks:
            try:
                hook(event)
            except Exception as error:
                self.counts.log("hook", "hook %r raised %r", hook, error)

    def emit_evictions(self) -> None:
        """Tell the hooks of each entry that L1 has evicted since they were told last."""
        if not self.hooks or self.l1 is None:
            return
        with mutex:
            evicted = self.l1.stats()["evicted"]
            new, self._told = evicted - self._told, evicted
        for _ in range(new):
            self.emit("evict", "l1", "")

    def add_hook(self, hook: Callable[[Event], object]) -> None:
        """Tell one more; of evictions from now on."""
        with mutex:
            if not self.hooks and self.l1 is not None:
                self._told = self.l1.stats()["evicted"]
            self.hooks = (*self.hooks, hook)

    def remove_hook(self, hook: Callable[[Event], object]) -> bool:
        """Tell one less; return whether it was told."""
        with mutex:
            hooks = list(self.hooks)
            if hook not in hooks:
                return False
            hooks.remove(hook)
            self.hooks = tuple(hooks)
            return True


def _forget_in_child() -> None:
    global mutex
    mutex = RLock()


os.register_at_fork(after_in_child=_forget_in_child)
