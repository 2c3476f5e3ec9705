"""A store whose entries are sealed: between the client, which has values and keys, and the store, which has neither."""

from __future__ import annotations

import time

from framecache._framecache import CopyRequired, FrameError, InvalidArgument, SerializationWrapper, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime
    from typing import Any

    from framecache._framecache import BlobStore, Frame, Keyring

#: The codec under which the store keeps a sealed frame.
SEALED = "sealed"


class SealedStore:
    """A store with the interface of `BlobStore`, whose entries are sealed frames under names that need the keyring.

    Args:
        store: Keeps the sealed frames.
        keyring: Seals and opens them.
        accept_plaintext_until: Until when entries that are not sealed are served too; `None`: never.
    """

    def __init__(self, store: BlobStore, keyring: Keyring, accept_plaintext_until: datetime | None = None) -> None:
        if accept_plaintext_until is not None and accept_plaintext_until.tzinfo is None:
            raise InvalidArgument("accept_plaintext_until: expected a datetime with a time zone, got one without")
        self._store = store
        self._keyring = keyring
        self._migrating = accept_plaintext_until is not None
        self._plaintext_until = accept_plaintext_until.timestamp() if accept_plaintext_until else 0.0

    def put(
        self, key: str, codec: str, value: Any, python: dict[str, Any], created: int, until: int | None = None
    ) -> int:
        """Seal and store an entry, and remove those that stood for it under other names.

        Newer ones stay: they are another worker's, whose keyring is further with a rotation, or less far.
        """
        name, sealed = self._keyring.seal_value(key, codec, value, python, created=created, until=until)
        size = self._store.put(name.hex(), SEALED, sealed, {}, created, until)
        older = [
            other for other in self._names(key) if other != name.hex() and self._created(other, created) <= created
        ]
        removed = [self._store.delete(other) for other in older]
        if any(removed) and not self._store.contains(name.hex(), created):
            # Another worker did the same at this moment, and removed this one. Who removes last looks last.
            self._store.put(name.hex(), SEALED, sealed, {}, created, until)
        return size

    def _created(self, name: str, now: int) -> int:
        """When the sealed entry of this name was written, in milliseconds; -1 if there is none."""
        try:
            found = self._store.get(name, now)
            fields = {} if isinstance(found, str) else SerializationWrapper.unwrap(found[0])[1]
        except (FrameError, StoreError):
            return -1  # what cannot be read is in nobody's way
        created = fields.get("created")
        return created if isinstance(created, int) else -1

    def get(self, key: str, now: int, *, require_zero_copy: bool = False) -> tuple[Frame, str, dict[str, Any]] | str:
        """Look under every name that the entry may have, the current one first.

        Raises:
            EntryRefused: What stands there is not the entry, as it was sealed.
            CopyRequired: An entry is there, and `require_zero_copy`: opening makes plaintext of ciphertext.
        """
        missed = "absent"
        names = self._keyring.names(key)
        # All of them twice: a writer may have moved the entry from a name not looked at yet to one that was.
        for name in names if len(names) == 1 else names * 2:
            found = self._store.get(name.hex(), now)
            if isinstance(found, str):
                missed = found if missed == "absent" else missed
                continue
            if require_zero_copy:
                raise CopyRequired("reading payload would copy: it is sealed")
            payload, codec, python, _, until = self._keyring.open_value(key, found[0])
            # What the store says of its end, the store may have changed.
            return "expired" if until is not None and until < now else (payload, codec, python)
        if time.time() < self._plaintext_until:
            return self._store.get(key, now, require_zero_copy=require_zero_copy)
        return missed

    def contains(self, key: str, now: int) -> bool:
        """Whether there is an entry under any of its names; whether it can be opened, `get` finds out."""
        return any(self._store.contains(name, now) for name in self._names(key))

    def delete(self, key: str) -> bool:
        """Remove the entry under all of its names."""
        return any([self._store.delete(name) for name in self._names(key)])

    def _names(self, key: str) -> list[str]:
        """Where an entry of `key` may stand; while migrating, under the key itself too."""
        names = [name.hex() for name in self._keyring.names(key)]
        return [*names, key] if self._migrating else names
