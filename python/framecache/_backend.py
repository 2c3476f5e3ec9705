"""What a tier beyond this machine must be able to do: a few commands on named bytes. `_remote` makes a store of it.

Names are ASCII text of at most 300 characters. Values are buffers: what is written comes as parts, header and payload,
which stand one after the other; what is read is one buffer that nobody changes. Whatever fails is a `StoreError`.

proto-docs/backend.md is for who writes one.
"""

from __future__ import annotations

from abc import abstractmethod
from os import urandom
from typing import NamedTuple, Protocol, runtime_checkable

from framecache._background import in_worker
from framecache._framecache import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from typing_extensions import Buffer

    #: Values in the order of their names.
    Values = Sequence[Buffer | None]

__all__ = ["AsyncBackend", "Backend", "Capabilities", "Invalidations", "NoRoom", "Write"]


class NoRoom(StoreError):
    """The engine has no room for what is to be written. It can still be read."""


class Capabilities(NamedTuple):
    """What a backend does beyond reading and writing. What it does not, it is not asked for.

    Attributes:
        keys: `names` lists its names. No engine that is shared by many is asked to.
        tags: `stamps` makes one stamp for all who ask at once. Without it, some of what they write is a miss.
        lease: `lease`, `renew` and `release` work. Without it, two processes compute the same value at once.
        invalidation: `listen` tells which names were changed by anybody. Without it, L1 keeps entries for `l1_ttl`.
        atomic: `get_many` and `peek` read at one moment, and a `Write` is one step with the check of guards and stamps.
            Without it, only guards whose names have the part in braces of the entry's are, and there are no stamps.
    """

    keys: bool = False
    tags: bool = False
    lease: bool = False
    invalidation: bool = False
    atomic: bool = False


class Write(NamedTuple):
    """A value to write.

    Attributes:
        name: Under which name.
        parts: Its bytes, in order.
        milliseconds: After which it goes; `None`: it stays for as long as there is room.
        guards: Names and the values that they must have for it to be written at all.
        removes: Names that are removed in the same step.
        stamps: Names, the values that they should have, and for how many milliseconds (`None`: for ever) these must
            last at least. Where one has another value, what is written is of no use, and may be written or not.
    """

    name: str
    parts: Sequence[Buffer]
    milliseconds: int | None
    guards: Mapping[str, bytes]
    removes: Sequence[str]
    stamps: Mapping[str, tuple[bytes, int | None]] = {}


class Invalidations(Protocol):
    """Who is told what was changed."""

    def changed(self, names: Sequence[str] | None) -> None:
        """These names have other values, or none; `None`: all of them may."""

    def connected(self, yes: bool) -> None:
        """Whether each change is told from now on."""


def _not_written(method: str, capability: str) -> NotImplementedError:
    return NotImplementedError(f"{method}: expected a backend that writes it, as it has the capability {capability!r}")


@runtime_checkable
class Backend(Protocol):
    """An engine for threads. A class that derives from this one writes the abstract methods, and those that its
    capabilities name.
    """

    #: Which engine it is, for people and for keys that depend on it: a URL without credentials.
    place: str
    #: What it does.
    capabilities: Capabilities = Capabilities()
    #: The largest value, with its header, in bytes.
    max_bytes: int = 64 << 20
    #: Seconds for which L1 keeps what it does not hear of.
    l1_ttl: float = 1.0

    # Reading

    def get(self, name: str) -> Buffer | None:
        """The value of a name."""
        return self.get_many([name])[0]

    @abstractmethod
    def get_many(self, names: Sequence[str]) -> Values:
        """The values of names, in their order."""

    def peek(self, names: Sequence[str], nbytes: int) -> Values:
        """As `get_many`, of the first one's value at most the first bytes."""
        first, *rest = self.get_many(names)
        return [None if first is None else memoryview(first)[:nbytes], *rest]

    def names(self, prefix: str, start: str | None) -> tuple[Sequence[str], str | None]:
        """Some of the names with this prefix, and what to pass to get the next ones; `None` at the end. Each name that
        is there all the while is among them once.
        """
        raise _not_written("names", "keys")

    # Writing

    @abstractmethod
    def set(self, write: Write) -> bool:
        """Write one value; return whether guards and stamps were as they must be.

        Raises:
            NoRoom: there is no room for it.
        """

    def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """Write several values, each of which is written at once."""
        return [self.set(write) for write in writes]

    def delete(self, name: str) -> bool:
        """Remove a name; return whether it had a value."""
        return self.delete_many([name]) > 0

    @abstractmethod
    def delete_many(self, names: Sequence[str]) -> int:
        """Remove names; return how many had values."""

    def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """Remove a name whose value has these bytes there; return whether it was removed, which it need not be."""
        return False

    @abstractmethod
    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """Replace bytes of a value, if it is there; when it goes stays as it is."""

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """The values of names, 8 bytes each; those that have none get one at random. They last for so long at least."""
        found = self.get_many(names)
        # One that is there is never written again: somebody may have removed it meanwhile.
        new = [Write(name, [urandom(8)], None, {}, ()) for name, old in zip(names, found, strict=True) if old is None]
        if new:
            self.set_many(new)
            found = self.get_many(names)
        stamps = [bytes(stamp) for stamp in found if stamp is not None]
        if len(stamps) < len(names):
            raise NoRoom(f"{self.place}: expected to keep stamps, found them gone at once")
        return stamps

    # Leases

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """Take a lease, unless somebody else has it; with the token that has it already, take it once more."""
        raise _not_written("lease", "lease")

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """Have a lease last for so long from now, if this token still has it; return whether it does."""
        raise _not_written("renew", "lease")

    def release(self, name: str, token: int) -> bool:
        """Give a lease back, if this token still has it."""
        raise _not_written("release", "lease")

    # The engine

    def health(self) -> dict[str, Any]:
        """What is known of the engine, without asking it."""
        return {"engine": type(self).__name__}

    def distrust(self) -> None:
        """An answer belonged to another question: use none of the connections any more."""

    def listen(self, prefix: str, to: Invalidations) -> Callable[[], None]:
        """Begin to tell which names with this prefix change; return what ends that. Does not wait."""
        raise _not_written("listen", "invalidation")

    def for_loop(self) -> AsyncBackend | None:
        """The same for the running event loop; `None` where threads are to do all that its coroutines ask for."""
        return None

    def close(self) -> None:
        """Give up what was opened here; a client that was given stays open."""


class AsyncBackend:
    """An engine for event loops: the commands of its `Backend`, as coroutines. A class that derives from this one
    writes those that need no thread; the others the backend does, in one of framecache's own.

    Who is cancelled leaves a command that was sent to end by itself, a write as well as a read. `health`, `distrust`
    and `listen`, which wait for nobody, are the backend's.

    Args:
        backend: The same engine for threads.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    # Reading

    async def get(self, name: str) -> Buffer | None:
        """As `Backend.get`."""
        return await in_worker(self.backend.get, name)

    async def get_many(self, names: Sequence[str]) -> Values:
        """As `Backend.get_many`."""
        return await in_worker(self.backend.get_many, names)

    async def peek(self, names: Sequence[str], nbytes: int) -> Values:
        """As `Backend.peek`."""
        return await in_worker(self.backend.peek, names, nbytes)

    async def names(self, prefix: str, start: str | None) -> tuple[Sequence[str], str | None]:
        """As `Backend.names`."""
        return await in_worker(self.backend.names, prefix, start)

    # Writing

    async def set(self, write: Write) -> bool:
        """As `Backend.set`."""
        return await in_worker(self.backend.set, write)

    async def set_many(self, writes: Sequence[Write]) -> list[bool]:
        """As `Backend.set_many`."""
        return await in_worker(self.backend.set_many, writes)

    async def delete(self, name: str) -> bool:
        """As `Backend.delete`."""
        return await in_worker(self.backend.delete, name)

    async def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        return await in_worker(self.backend.delete_many, names)

    async def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.delete_if`."""
        return await in_worker(self.backend.delete_if, name, offset, part)

    async def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        return await in_worker(self.backend.touch, name, offset, part)

    async def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`."""
        return await in_worker(self.backend.stamps, names, milliseconds)

    # Leases

    async def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        return await in_worker(self.backend.lease, name, token, milliseconds)

    async def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        return await in_worker(self.backend.renew, name, token, milliseconds)

    async def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        return await in_worker(self.backend.release, name, token)

    # The engine

    async def close(self) -> None:
        """Wait for the commands of this loop that nobody waits for any more, and give up its connections. What the
        backend has for threads stays open.
        """
