"""What a cache tells about one entry."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    from framecache._framecache import Frame


class Entry:
    """An entry as it was read.

    Attributes:
        key: What it is stored under.
        value: What `get` returns.
        created: When it was stored, in seconds since 1970-01-01 UTC.
        age: How long ago that was, in seconds.
        deadline: Until when it is served, in seconds since 1970-01-01 UTC; `None`: for as long as there is room.
        until: The last moment at which any tier may serve it, whatever `touch` does; `None`: for ever.
        tier: Where it was found: ``l1`` (in memory) or ``store``.
        size: Bytes: of the frame in a store, of what it takes in memory.
        is_zero_copy: Whether `value` stands on memory that was not copied: a mapped file, or the stored object itself.
    """

    __slots__ = (
        "_frame",
        "age",
        "created",
        "deadline",
        "is_zero_copy",
        "key",
        "size",
        "tier",
        "until",
        "value",
    )

    def __init__(
        self,
        key: str,
        value: Any,
        created: float,
        age: float,
        deadline: float | None,
        until: float | None,
        tier: Literal["l1", "store"],
        size: int,
        is_zero_copy: bool,
        frame: Callable[[], Frame],
    ) -> None:
        self.key = key
        self.value = value
        self.created = created
        self.age = age
        self.deadline = deadline
        self.until = until
        self.tier = tier
        self.size = size
        self.is_zero_copy = is_zero_copy
        self._frame = frame

    @property
    def frame(self) -> Frame:
        """The frame that the entry is in a store, header and payload; made anew for one that only memory has."""
        return self._frame()

    def __repr__(self) -> str:
        """Everything but the value."""
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("key", "tier", "size", "age", "deadline"))
        return f"framecache.Entry({shown})"
