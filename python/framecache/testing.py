"""What tests of programs that cache need.

>>> import framecache, framecache.testing
>>> clock = framecache.testing.Clock()
>>> cache = framecache.Cache(clock=clock)
>>> cache.set("greeting", "hello", ttl=60)
True
>>> clock.advance(61)
>>> cache.get("greeting") is None
True

A cache in memory, ``framecache.Cache()``, stands for one in a directory. Tests begin without entries if a fixture
clears what the program caches, and see what it computes if one bypasses it:

>>> import pytest
>>> @pytest.fixture(autouse=True)
... def nothing_cached():
...     cache.clear()
>>> @pytest.fixture
... def uncached():
...     with cache.bypass():
...         yield
>>> recorder = framecache.testing.Recorder()
>>> cache.add_hook(recorder)
>>> cache.get("greeting", "nothing")
'nothing'
>>> recorder.kinds()
['miss']
"""

from __future__ import annotations

from framecache._directory import DirectoryBackend
from framecache._framecache import Clock

__all__ = ["Clock", "DirectoryBackend", "Recorder", "backend_suite"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from framecache._backend import Backend
    from framecache._events import Event


def backend_suite() -> tuple[Callable[[Callable[[], Backend]], None], ...]:
    """The checks that a `framecache.backend.Backend` must pass.

    Each takes a callable that connects to a real engine anew each time, and raises `AssertionError`, which says what
    was expected. Names are random, so that the engine need not be empty. What its capabilities do not promise is not
    checked.

    >>> import pytest
    >>> @pytest.mark.parametrize("check", backend_suite(), ids=lambda check: check.__name__)
    ... def test_my_backend(check):
    ...     check(MyBackend)
    """
    from framecache._backend_suite import CHECKS

    return CHECKS


class Recorder:
    """A hook that keeps what a cache did: ``cache.add_hook(Recorder())``.

    Attributes:
        events: The events, the first one first.
    """

    def __init__(self) -> None:
        """Begin without events."""
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        self.events.append(event)

    def kinds(self) -> list[str]:
        """The kinds of the events, in their order."""
        return [event.kind for event in self.events]
