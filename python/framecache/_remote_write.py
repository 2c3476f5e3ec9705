"""How entries beyond this machine are written: under which stamps, checked against what, in how many steps."""

from __future__ import annotations

from framecache._asking import ask
from framecache._backend import Write
from framecache._copies import SMALL
from framecache._framecache import Entries, ValueTooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from framecache._copies import Copies
    from framecache._remote import RemoteStore, Status
    from framecache._values import Encoded

#: Milliseconds for which a fence can be used.
FENCE: Final = 24 * 3600 * 1000
#: Milliseconds that stamps outlast entries by.
_SLACK: Final = 3600 * 1000


class Draft:
    """What is to be written of several values, once it is known under which stamps.

    Args:
        store: Where to.
        encoded: Keys and values.
        tags: Their tags.
        created: When.
        deadline: Until when they are fresh.
        until: Until when they may be served at all.
        guards: What must still be as it was when they were computed.
        lease: Whether a lease goes with each.
    """

    def __init__(
        self,
        store: RemoteStore,
        encoded: Sequence[tuple[str, Encoded]],
        tags: Sequence[str],
        created: int,
        deadline: int | None,
        until: int | None,
        guards: Mapping[str, bytes],
        lease: int | None,
    ) -> None:
        self._store = store
        self._encoded = encoded
        self._tags = tags
        self._times = created, deadline, until
        self._guards = guards
        self._has_lease = lease is not None
        self._names = [store.entries.generation, *(store.entries.stamp(tag) for tag in tags)]
        lasts = None if until is None else until - created
        self._milliseconds = None if lasts is None else max(1, lasts)
        self._sent: list[Write] = []
        # The engine makes stamps last longer only where they last for less than half of what is asked for.
        self._lasts = None if lasts is None else 2 * (lasts + _SLACK)

    async def write(self) -> list[Status]:
        """Write them all, in one step with the check of the stamps that are known, where the engine can do that."""
        store = self._store
        if not self._are_guarded() and store.backend.capabilities.atomic:
            known = store.known(self._names)
            if known is not None:
                lasts = [None, *[self._lasts] * len(self._tags)]
                stamps = {name: (known[name], ms) for name, ms in zip(self._names, lasts, strict=True)}
                held = await self._send([write for _, write in self._under(known, stamps)])
                if all(held):
                    return ["written"] * len(held)
        made = await self.made()
        held = await self._send([write for _, write in made]) if made else [False] * len(self._encoded)
        return ["written" if one else "superseded" for one in held]

    async def made(self) -> list[tuple[str, Write]]:
        """What to write, under the stamps that the engine has now; nothing where these are not those of the guards."""
        if self._are_guarded():
            return self._under(self._guards, {})
        stamps = await self._store.ask_for_stamps(self._names, self._lasts)
        if any(stamps.get(name, stamp) != stamp for name, stamp in self._guards.items()):
            return []
        return self._under(stamps, {})

    def _are_guarded(self) -> bool:
        """Whether the guards have all stamps, and these last for as long as the values do."""
        return all(name in self._guards for name in self._names) and self._lasts is not None and self._lasts <= FENCE

    async def _send(self, writes: Sequence[Write]) -> list[bool]:
        backend = self._store.backend
        if len(writes) == 1:
            return [await ask(backend, "set", writes[0])]
        return list(await ask(backend, "set_many", writes))

    def _under(
        self, known: Mapping[str, bytes], stamps: Mapping[str, tuple[bytes, int | None]]
    ) -> list[tuple[str, Write]]:
        generation, *rest = self._names
        tags = [(tag, known[name]) for tag, name in zip(self._tags, rest, strict=True)]
        self._sent = [self._one(key, encoded, known[generation], tags, stamps) for key, encoded in self._encoded]
        return [(key, write) for (key, _), write in zip(self._encoded, self._sent, strict=True)]

    def copy_to(self, copies: Copies, stored: Sequence[Status]) -> None:
        """Have a directory of this machine keep those that were written, if they are large."""
        created, _, until = self._times
        written = (write for write, status in zip(self._sent, stored, strict=False) if status == "written")
        for name, (header, payload), *_ in written:
            start = memoryview(header)
            if start.nbytes + memoryview(payload).nbytes >= SMALL:
                entry_id = bytes(start[Entries.ID_AT : Entries.ID_AT + 8])
                copies.keep(name, entry_id, [start[Entries.head_length(header) :], payload], created, until)

    def _one(
        self,
        key: str,
        encoded: Encoded,
        stamp: bytes,
        tags: Sequence[tuple[str, bytes]],
        stamps: Mapping[str, tuple[bytes, int | None]],
    ) -> Write:
        payload, codec, described = encoded
        entries, backend = self._store.entries, self._store.backend
        header = entries.pack(key, codec, described, payload.nbytes, *self._times, stamp, tags)
        if (size := len(header) + payload.nbytes) > backend.max_bytes:
            raise ValueTooLarge(f"value: expected at most {backend.max_bytes} bytes with header, got {size}")
        removes = [entries.fence(key)]
        if self._has_lease:
            removes.append(entries.lease(key))
        [name] = entries.entries([key])
        return Write(name, (header, payload), self._milliseconds, self._guards, removes, stamps)
