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

from framecache._framecache import Clock

__all__ = ["Clock", "Recorder"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from framecache._events import Event


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
