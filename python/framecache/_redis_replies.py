"""What a server may answer. Anything else comes from one that is none, or is the answer to another question."""

from __future__ import annotations

from framecache._framecache import Replies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes of a stamp.
_STAMP = 8


def is_value(found: Any) -> bool:
    """Whether it is a value, or says that there is none."""
    return found is None or type(found) is bytes


def are_values(found: Any, count: int) -> bool:
    """Whether it is so many values, in their order."""
    if type(found) is Replies:  # which takes nothing else
        return len(found) == count
    return type(found) is list and len(found) == count and all(map(is_value, found))


def are_stamps(found: Any, count: int) -> bool:
    """Whether it is so many stamps."""
    return are_values(found, count) and all(stamp is not None and len(stamp) == _STAMP for stamp in found)


def is_count(found: Any) -> bool:
    """Whether it is a number of names."""
    return type(found) is int and found >= 0


def is_held(found: Any, count: int) -> bool:
    """Whether it is the answers to so many commands, of which the first one's is a number."""
    return type(found) is list and len(found) == count and is_count(found[0])


def are_counts(found: Any, count: int) -> bool:
    """Whether it is so many numbers of names."""
    return type(found) is list and len(found) == count and all(map(is_count, found))
