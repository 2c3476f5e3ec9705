"""A store whose entries are sealed: between the client, which has values and keys, and the store, which has neither.

What looks at the store or changes it is an operation of `_asking`, as the store may be one beyond this machine.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import reduce
from operator import add
from types import CoroutineType

from framecache._asking import at_leisure, settled
from framecache._framecache import (
    CopyRequired,
    EntryRefused,
    FrameError,
    InvalidArgument,
    SerializationWrapper,
    StoreError,
)
from framecache._values import SEALED, SMALL, Opener, is_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import Any, Final, Literal

    from framecache._framecache import Frame, Keyring, Store
    from framecache._remote import RemoteStore
    from framecache._values import Encoded

    #: What a look at a store comes to; a seventh item is what L1 keeps in place of the first.
    Looked = (
        tuple[bytes | memoryview | Encoded, int, int | None, int | None, int, bytes]
        | tuple[Encoded, int, int | None, int | None, int, bytes, Encoded]
        | str
    )

#: Reasons for which an entry is refused and stays: it may be another worker's, whose configuration is another one.
_KEPT: Final = ("no_key", "not_sealed")
#: How often all names of an entry are looked at, of which a writer may move it to another one meanwhile.
_LOOKS: Final = 4


class SealedStore:
    """A store with the interface of `Store`, whose entries are sealed frames under names that need the keyring.

    Args:
        store: Keeps the sealed frames.
        keyring: Seals and opens them.
        namespace: The store's: sealed with the key, so that no entry can be moved to another one.
        accept_plaintext_until: Until when entries that are not sealed are served too; `None`: never.
        compression: How payloads are compressed before they are sealed.
        max_value_bytes: The most bytes of a payload before that.
        l1_sealed: Whether `look` says what L1 is to keep in place of plaintext.
    """

    def __init__(
        self,
        store: Store | RemoteStore,
        keyring: Keyring,
        namespace: str = "",
        *,
        accept_plaintext_until: datetime | None = None,
        compression: str | None = None,
        max_value_bytes: int | None = None,
        l1_sealed: bool = False,
    ) -> None:
        if accept_plaintext_until is not None and accept_plaintext_until.tzinfo is None:
            raise InvalidArgument("accept_plaintext_until: expected a datetime with a time zone, got one without")
        self._store = store
        self._keyring = keyring
        self._prefix = f"{len(namespace)}:{namespace}:" if namespace else ""
        self._migrating = accept_plaintext_until is not None
        self._plaintext_until = accept_plaintext_until.timestamp() if accept_plaintext_until else 0.0
        self._compression = compression
        self._max_value_bytes = max_value_bytes
        self._l1_sealed = l1_sealed

    async def put_many(
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
        """Seal and store entries, each in place of those that it has under other names."""
        sealed = []
        for key, codec, value, python in values:
            if is_small(value):
                _, frame = self._seal(key, codec, value, python, created, until)
            else:
                _, frame = await at_leisure(self._seal, key, codec, value, python, created, until)
            name, *others = self._names(key)
            sealed.append((name, frame, others))
        stored: Any = self._store.put_frames(
            sealed,
            created,
            until,
            deadline=deadline,
            tags=[self._keyring.tag_names(self._prefix + tag)[0].hex() for tag in tags],
            if_absent=if_absent,
            lease=lease,
            fence=fence,
        )
        return await stored if type(stored) is CoroutineType else stored  # type: ignore[no-any-return]

    def _seal(
        self, key: str, codec: str, value: Any, python: dict[str, Any], created: int, until: int | None
    ) -> tuple[bytes, Frame]:
        return self._keyring.seal_value(
            self._prefix + key,
            codec,
            value,
            python,
            created=created,
            until=until,
            compression=self._compression,
            max_value_bytes=self._max_value_bytes,
        )

    async def look(
        self,
        key: str,
        now: int,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        at_hand: bool = False,
    ) -> Looked:
        """Look under every name that the entry may have, the current one first. What is found is in memory of its own.

        An entry that was changed is removed, if it is still the one that was read. Where L1 is to keep it sealed, a
        seventh item is what decodes to it there.

        Raises:
            EntryRefused: What stands there is not the entry, as it was sealed.
            CopyRequired: An entry is there, and `require_zero_copy`: opening makes plaintext of ciphertext.
        """
        names = [name.hex() for name in self._keyring.names(self._prefix + key)]
        for _ in range(_LOOKS):
            # An entry under another name may take the place of this one.
            others = b"".join([await settled(self._store.fence(name, [])) for name in names] if len(names) > 1 else ())
            missed = "absent"
            for name in names:
                found: Any = self._store.look(name, now, stale=stale, at_hand=at_hand, whole=True)
                if type(found) is CoroutineType:
                    found = await found
                if isinstance(found, str):
                    if found == "elsewhere":
                        return found
                    missed = found if missed == "absent" else missed
                    continue
                if require_zero_copy:
                    raise CopyRequired("reading payload would copy: it is sealed")
                try:
                    if found[0].nbytes <= SMALL:
                        opened = self._open(key, found[0])
                    else:
                        opened = await at_leisure(self._open, key, found[0])
                except EntryRefused as error:
                    if await self._is_left(error, name, found, now, at_hand):
                        return "elsewhere"
                    raise
                return self._opened(key, found, opened, others, now)
            if self._store.holds(others):
                break
        if time.time() < self._plaintext_until:
            return await settled(  # type: ignore[no-any-return]
                self._store.look(
                    key, now, views=views, require_zero_copy=require_zero_copy, stale=stale, at_hand=at_hand
                )
            )
        return missed

    def _open(self, key: str, sealed: Frame) -> tuple[Frame, str, dict[str, Any], int | None, int | None]:
        return self._keyring.open_value(self._prefix + key, sealed, max_value_bytes=self._max_value_bytes)

    async def _is_left(self, error: EntryRefused, name: str, found: tuple[Any, ...], now: int, at_hand: bool) -> bool:
        """Whether an entry that was refused is to be looked at once more, where it may be removed; if not, it is now.

        Raises:
            FrameError: It is a stream.
        """
        sealed, guards = found[0], found[5]
        if _starts_stream(sealed):
            raise FrameError("not a sealed frame: found a sealed stream, which open_reader reads") from error
        if error.reason not in _KEPT and not at_hand:
            # One that cannot be removed now is refused once more.
            with suppress(StoreError):
                await settled(self._store.delete_if(name, guards, now))
        return error.reason not in _KEPT and at_hand

    def _opened(
        self,
        key: str,
        found: tuple[Frame, int, int | None, int | None, int, bytes],
        opened: tuple[Frame, str, dict[str, Any], int | None, int | None],
        others: bytes,
        now: int,
    ) -> Looked:
        """What `look` returns of an entry that was opened."""
        sealed, created, deadline, _, size, guards = found
        payload, codec, python, sealed_at, until = opened
        # What the store says of its end, the store may have changed.
        if until is not None and until < now:
            return "expired"
        raw, created, guards = (payload, codec, python), sealed_at or created, guards + others
        if not self._l1_sealed:
            return raw, created, deadline, until, size, guards
        kept = (sealed, SEALED, Opener(self._keyring, self._prefix + key, self._max_value_bytes))
        return raw, created, deadline, until, size, guards, kept

    async def fence(self, key: str, tags: Sequence[str]) -> bytes:
        """Guards of all names of a key and its tags."""
        names = [name.hex() for tag in tags for name in self._keyring.tag_names(self._prefix + tag)]
        fences = [await settled(self._store.fence(name, names)) for name in self._names(key)]
        # One of an engine beyond this machine is more than its bytes.
        return reduce(add, fences)  # type: ignore[no-any-return]

    def place(self, key: str) -> tuple[Store | RemoteStore, str]:
        """The store behind, and the current name of a key there: who keeps these needs to be in no tenant's context."""
        return self._store, self._names(key)[0]

    async def entry(self, key: str, now: int) -> tuple[Frame, int, int | None] | None:
        """The sealed frame of an entry, when it was written, and its deadline."""
        for name in self._names(key):
            if (found := await settled(self._store.entry(name, now))) is not None:
                return found  # type: ignore[no-any-return]
        return None

    async def contains(self, key: str, now: int) -> bool:
        """Whether there is an entry under any of its names; whether it can be opened, `get` finds out."""
        for name in self._names(key):
            if await settled(self._store.contains(name, now)):
                return True
        return False

    async def touch(self, key: str, deadline: int | None, now: int) -> bool:
        """Move the deadline of the entry under all of its names."""
        return any([await settled(self._store.touch(name, deadline, now)) for name in self._names(key)])

    async def delete_many(self, keys: Sequence[str], now: int) -> int:
        """Remove the entries under all of their names."""
        return sum([await settled(self._store.delete_many(self._names(key), now)) > 0 for key in keys])

    async def invalidate_tags(self, tags: Sequence[str], now: int) -> None:
        """Invalidate the tags under all of their names."""
        names = [name.hex() for tag in tags for name in self._keyring.tag_names(self._prefix + tag)]
        await settled(self._store.invalidate_tags(names, now))

    async def clear(self) -> None:
        """Make all entries of the namespace misses."""
        await settled(self._store.clear())

    async def keys(self, prefix: str, start: bytes | None, now: int) -> tuple[list[str], bytes | None]:
        """As `Store.keys`. The names do not tell keys: each entry is opened. What this keyring and tenant cannot open
        is left out, and so are streams.
        """
        names, after = await settled(self._store.keys("", start, now))
        opened = [await self._key_of(name, now) for name in names]
        return [key for key in opened if key is not None and key.startswith(prefix)], after

    async def _key_of(self, name: str, now: int) -> str | None:
        """The key of the entry under a name, if it can be opened; one that is not sealed stands under its key."""
        found: Any = await settled(self._store.look(name, now, whole=True))
        if isinstance(found, str):
            return None
        try:
            frame = self._keyring.open(found[0], bytes.fromhex(name))
        except EntryRefused as error:
            return name if error.reason == "not_sealed" and time.time() < self._plaintext_until else None
        except ValueError:  # no name of a sealed entry
            return name if time.time() < self._plaintext_until else None
        key = SerializationWrapper.unwrap_metadata(frame)[1].get("key")
        return key[len(self._prefix) :] if isinstance(key, str) and key.startswith(self._prefix) else None

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


def _starts_stream(frame: Frame) -> bool:
    """Whether a frame says that it is a sealed stream; what does is no sign of tampering with a value."""
    start = b'{"s": "sealed-stream"'
    return bytes(memoryview(frame)[7 : 7 + len(start)]) == start
