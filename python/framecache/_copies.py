"""Copies that the store of this machine has of an engine's large entries.

A copy stands under the name of its entry and the entry's id, which every write draws anew. Whoever has read the head of
an entry from the engine knows by that which copy is the entry's: copies need not be told of changes, and are never
wrong, only not wanted any more. The store evicts those.

A payload that the store serves is trusted, as nobody else can write it; so what came from an engine is validated before
it becomes a copy.
"""

from __future__ import annotations

from framecache._framecache import (
    ArrowTable,
    DecodeError,
    FrameError,
    SerializationWrapper,
    Store,
    StoreError,
    ValueTooLarge,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from typing_extensions import Buffer

    from framecache._framecache import Frame

#: Bytes of an entry above which it has a copy: below, it comes with its head.
SMALL: Final = 16 * 1024


class Copies:
    """The copies of one namespace of an engine. What the store fails to do is counted, and as if it had no copy.

    Args:
        path: The directory.
        settings: As of `Store`.
        place: Which engine it is.
        namespace: The namespace.
        max_value_bytes: The largest payload.
    """

    def __init__(self, path: str, settings: dict[str, Any], place: str, namespace: str, max_value_bytes: int) -> None:
        self._store = Store(
            path, namespace=f"\0copies {place} {namespace}", max_value_bytes=max_value_bytes, **settings
        )
        self._counts = dict.fromkeys(("hits", "misses", "kept", "errors"), 0)
        self._error = ""

    def find(self, name: str, entry_id: bytes, now: int) -> Frame | None:
        """The frame of an entry, mapped, if there is a copy."""
        try:
            found = self._store.look(_name(name, entry_id), now, whole=True)
        except (FrameError, StoreError) as error:
            self._failed(error)
            return None
        self._counts["misses" if isinstance(found, str) else "hits"] += 1
        return None if isinstance(found, str) else found[0]

    def keep(self, name: str, entry_id: bytes, frame: Sequence[Buffer], created: int, until: int | None) -> None:
        """Keep a frame that this process made, or opens with a key of its own."""
        joined = frame[0] if len(frame) == 1 else b"".join(frame)
        try:
            written = self._store.put_frames([(_name(name, entry_id), joined, ())], created, until)
        except (FrameError, StoreError, ValueTooLarge) as error:
            self._failed(error)
        else:
            self._counts["kept"] += written == ["written"]

    def keep_foreign(self, name: str, entry_id: bytes, frame: Frame, created: int, until: int | None) -> None:
        """Keep a frame that came from the engine, if all of it is valid."""
        try:
            payload, _, codec = SerializationWrapper.unwrap_metadata(frame)
            if codec == "arrow":
                ArrowTable(payload)
        except (DecodeError, FrameError) as error:
            self._failed(error)
        else:
            self.keep(name, entry_id, [frame], created, until)

    def clear(self) -> None:
        """Keep none of the namespace."""
        try:
            self._store.clear()
        except StoreError as error:
            self._failed(error)

    def health(self) -> dict[str, Any]:
        """How often a copy was found (``hits``) and not (``misses``), how many were made (``kept``), how often the
        store failed (``errors``), and why it did last (``error``).
        """
        return {**self._counts, "error": self._error}

    def _failed(self, error: Exception) -> None:
        self._counts["errors"] += 1
        self._error = str(error)


def _name(name: str, entry_id: bytes) -> str:
    return f"{name}:{entry_id.hex()}"
