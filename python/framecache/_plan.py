"""What a function, or a caller, wants of values that are computed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from framecache._times import Lifetime, Seconds


class Plan:
    """What becomes of computed values.

    Args:
        lifetime: How long they are served; its ttl may be replaced by `ttl_of`.
        ttl_of: Gives the ttl of a value.
        tags: What they can be invalidated by.
        tags_of: Gives the tags of a value.
        cache_if: Whether a value is stored at all.
        codec: One of `CODECS`.
        share: Whether L1 keeps the decoded objects, whatever their types.
        views: Whether they are decoded to views.
        lock: Seconds to wait for somebody else who computes; 0: nobody waits for anybody.
        function: The scope of the function that computes them; 0 for a user's keys.
        strict: Whether a value that no codec takes is always an error, instead of at the first call only.
    """

    __slots__ = (
        "cache_if",
        "codec",
        "errors",
        "first",
        "function",
        "hits",
        "lifetime",
        "lock",
        "misses",
        "share",
        "stale",
        "strict",
        "tags",
        "tags_of",
        "ttl_of",
        "views",
    )

    def __init__(
        self,
        lifetime: Lifetime,
        *,
        ttl_of: Callable[[Any], Seconds | None] | None = None,
        tags: Sequence[str] = (),
        tags_of: Callable[[Any], Sequence[str]] | None = None,
        cache_if: Callable[[Any], object] | None = None,
        codec: str = "auto",
        share: bool = False,
        views: bool = False,
        lock: float = 0.0,
        function: int = 0,
        strict: bool = False,
    ) -> None:
        self.lifetime = lifetime
        self.ttl_of = ttl_of
        self.tags = tags
        self.tags_of = tags_of
        self.cache_if = cache_if
        self.codec = codec
        self.share = share
        self.views = views
        self.lock = lock
        self.function = function
        self.strict = strict
        self.first = True
        self.hits = self.misses = self.stale = self.errors = 0

    @property
    def may_be_stale(self) -> bool:
        """Whether what is past its deadline may be of use."""
        return self.lifetime.stale > 0 or self.ttl_of is not None
