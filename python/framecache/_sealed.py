"""A store whose entries are sealed: between the client, which has values and keys, and the store, which has neither."""

from __future__ import annotations

import time
from functools import reduce
from operator import add

from framecache._framecache import CopyRequired, FrameError, InvalidArgument, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Any, Literal

    from framecache._framecache import Frame, Keyring, Store
    from framecache._remote import RemoteStore

#: The codec under which the store keeps a sealed frame.
SEALED = "sealed"


class SealedStore:
    """A store with the interface of `Store`, whose entries are sealed frames under names that need the keyring.

    Args:
        store: Keeps the sealed frames.
        keyring: Seals and opens them.
        namespace: The store's: sealed with the key, so that no entry can be moved to another one.
        accept_plaintext_until: Until when entries that are not sealed are served too; `None`: never.
    """

    def __init__(
        self,
        store: Store | RemoteStore,
        keyring: Keyring,
        namespace: str = "",
        accept_plaintext_until: datetime | None = None,
    ) -> None:
        if accept_plaintext_until is not None and accept_plaintext_until.tzinfo is None:
            raise InvalidArgument("accept_plaintext_until: expected a datetime with a time zone, got one without")
        self._store = store
        self._keyring = keyring
        self._prefix = f"{len(namespace)}:{namespace}:" if namespace else ""
        self._migrating = accept_plaintext_until is not None
        self._plaintext_until = accept_plaintext_until.timestamp() if accept_plaintext_until else 0.0

    def put_many(
        self,
        values: Sequence[tuple[str, str, Any, dict[str, Any]]],
        created: int,
        until: int | None = None,
        *,
        deadline: int | None = None,
        tags: Sequence[str] = (),
        if_absent: bool = False,
        lease: int | None = None,
        fence: bytes | None = None,
    ) -> list[Literal["written", "exists", "superseded", "dropped"]]:
        """Seal and store entries, and remove those that stood for them under other names.

        Newer ones stay: they are another worker's, whose keyring is further with a rotation, or less far.
        """
        sealed: list[tuple[str, str, Any, dict[str, Any]]] = []
        for key, codec, value, python in values:
            name, frame = self._keyring.seal_value(
                self._prefix + key, codec, value, python, created=created, until=until
            )
            sealed.append((name.hex(), SEALED, frame, {}))
        names = [self._keyring.tag_names(self._prefix + tag)[0].hex() for tag in tags]
        others = [
            [other for other in self._names(key) if other != entry[0]]
            for (key, *_), entry in zip(values, sealed, strict=True)
        ]
        if if_absent and any(self._store.contains(name, created) for older in others for name in older):
            return ["exists"] * len(values)
        stored = self._store.put_many(
            sealed, created, until, deadline=deadline, tags=names, if_absent=if_absent, lease=lease, fence=fence
        )
        for entry, older in zip(sealed, others, strict=True):
            older = [other for other in older if 0 <= self._created(other, created) <= created]
            removed = self._store.delete_many(older, created) if older else 0
            if removed and not self._store.contains(entry[0], created):
                # Another worker did the same at this moment, and removed this one. Who removes last looks last.
                self._store.put_many([entry], created, until, deadline=deadline, tags=names)
        return stored

    def _created(self, name: str, now: int) -> int:
        """When the sealed entry of this name was written, in milliseconds; -1 if there is none."""
        try:
            found = self._store.entry(name, now)
        except (FrameError, StoreError):
            return -1  # what cannot be read is in nobody's way
        return -1 if found is None else found[1]

    def look(
        self,
        key: str,
        now: int,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        at_hand: bool = False,
    ) -> tuple[bytes | memoryview | tuple[Frame, str, dict[str, Any]], int, int | None, int | None, int, bytes] | str:
        """Look under every name that the entry may have, the current one first. What is found is in memory of its own.

        Raises:
            EntryRefused: What stands there is not the entry, as it was sealed.
            CopyRequired: An entry is there, and `require_zero_copy`: opening makes plaintext of ciphertext.
        """
        missed = "absent"
        names = [name.hex() for name in self._keyring.names(self._prefix + key)]
        # An entry under another name may take the place of this one.
        others = b"".join(self._store.fence(name, []) for name in names) if len(names) > 1 else b""
        # All of them twice: a writer may have moved the entry from a name not looked at yet to one that was.
        for name in names if len(names) == 1 else names * 2:
            found = self._store.look(name, now, views=True, stale=stale, at_hand=at_hand)
            if isinstance(found, str):
                if found == "elsewhere":
                    return found
                missed = found if missed == "absent" else missed
                continue
            if require_zero_copy:
                raise CopyRequired("reading payload would copy: it is sealed")
            sealed, created, deadline, _, size, guards = found
            payload, codec, python, sealed_at, until = self._keyring.open_value(
                self._prefix + key, sealed[0] if isinstance(sealed, tuple) else sealed
            )
            # What the store says of its end, the store may have changed.
            if until is not None and until < now:
                return "expired"
            return (payload, codec, python), sealed_at or created, deadline, until, size, guards + others
        if time.time() < self._plaintext_until:
            return self._store.look(
                key, now, views=views, require_zero_copy=require_zero_copy, stale=stale, at_hand=at_hand
            )
        return missed

    def fence(self, key: str, tags: Sequence[str]) -> bytes:
        """Guards of all names of a key and its tags."""
        names = [name.hex() for tag in tags for name in self._keyring.tag_names(self._prefix + tag)]
        fences = [self._store.fence(name, names) for name in self._names(key)]
        return reduce(add, fences)  # one of an engine beyond this machine is more than its bytes

    def lease(self, key: str, milliseconds: int, now: int) -> int | None:
        """The right to compute a value, under its current name."""
        return self._store.lease(self._names(key)[0], milliseconds, now)

    def release(self, key: str, token: int) -> bool:
        """Give it back."""
        return self._store.release(self._names(key)[0], token)

    def entry(self, key: str, now: int) -> tuple[Frame, int, int | None] | None:
        """The sealed frame of an entry, when it was written, and its deadline."""
        found = (self._store.entry(name, now) for name in self._names(key))
        return next((one for one in found if one is not None), None)

    def contains(self, key: str, now: int) -> bool:
        """Whether there is an entry under any of its names; whether it can be opened, `get` finds out."""
        return any(self._store.contains(name, now) for name in self._names(key))

    def touch(self, key: str, deadline: int | None, now: int) -> bool:
        """Move the deadline of the entry under all of its names."""
        return any([self._store.touch(name, deadline, now) for name in self._names(key)])

    def delete_many(self, keys: Sequence[str], now: int) -> int:
        """Remove the entries under all of their names."""
        return sum(self._store.delete_many(self._names(key), now) > 0 for key in keys)

    def invalidate_tags(self, tags: Sequence[str], now: int) -> None:
        """Invalidate the tags under all of their names."""
        names = [name.hex() for tag in tags for name in self._keyring.tag_names(self._prefix + tag)]
        self._store.invalidate_tags(names, now)

    def clear(self) -> None:
        """Make all entries of the namespace misses."""
        self._store.clear()

    def keys(self, prefix: str, start: bytes | None, now: int) -> tuple[list[str], bytes | None]:
        """Refuse: the store has names, which do not tell the keys."""
        raise InvalidArgument("keys: expected a cache without a keyring; the names of sealed entries do not tell keys")

    def stats(self) -> dict[str, int]:
        """Return sizes and counts of the store."""
        return self._store.stats()

    def verify(self) -> tuple[int, int, int]:
        """Check what the store wrote; whether it can be opened, `get` finds out."""
        return self._store.verify()

    def _names(self, key: str) -> list[str]:
        """Where an entry of `key` may stand; while migrating, under the key itself too."""
        names = [name.hex() for name in self._keyring.names(self._prefix + key)]
        return [*names, key] if self._migrating else names
