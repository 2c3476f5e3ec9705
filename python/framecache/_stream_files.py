"""Streams as files: what `open_writer` and `open_reader` return."""

from __future__ import annotations

import io

from framecache._stream import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Any, Final

    from typing_extensions import Self

    from framecache._framecache import StreamReader
    from framecache._stream import Progress, _Entry

    InThread = Callable[..., Awaitable[Any]]


#: Bytes up to which the chunks of a read stay in memory until it is complete.
_JOINED_UP_TO: Final = 8 << 20


class Writer:
    """A file to which the value of a key is written, front to back.

    `close` stores the value; a `with` block does that at its end, and stores nothing if it raises. One that is not
    closed, or that `abort` ends, leaves nothing behind.

    Attributes:
        stored: Whether the value was stored; `None` until it is closed.
    """

    def __init__(self, entry: _Entry, progress: Progress | None, total: int | None) -> None:
        self._entry: _Entry | None = entry
        self._progress = progress
        self._total = total
        self._position = 0
        self.stored: bool | None = None
        self.in_thread: InThread | None = None

    def write(self, data: Any) -> int:
        """Append a buffer; return its size in bytes. What was given may be changed afterwards."""
        written = write_all(self._opened().native, data)
        self._position += written
        if self._progress is not None:
            self._progress(self._position, self._total)
        return written

    def writelines(self, lines: Iterable[Any]) -> None:
        """Append several buffers."""
        for line in lines:
            self.write(line)

    def tell(self) -> int:
        """How many bytes were written."""
        return self._position

    def flush(self) -> None:
        """Do nothing: nobody sees the value before it is closed."""

    def close(self) -> None:
        """Store the value. Twice is fine."""
        entry, self._entry = self._entry, None
        if entry is not None:
            try:
                self.stored = entry.commit()
            finally:
                entry.native.close()

    def abort(self) -> None:
        """Store nothing, and leave nothing behind."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self.stored = False
            entry.native.close()

    @property
    def closed(self) -> bool:
        """Whether it is."""
        return self._entry is None

    def readable(self) -> bool:
        """No."""
        return False

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """No."""
        return False

    def __enter__(self) -> Self:
        """Return the file itself."""
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the value, or nothing where the block raised."""
        if kind is None:
            self.close()
        else:
            self.abort()

    async def awrite(self, data: Any) -> int:
        """As `write`, in a thread."""
        return int(await _threads_of(self)(self.write, data))

    async def aclose(self) -> None:
        """As `close`, in a thread."""
        await _threads_of(self)(self.close)

    async def __aenter__(self) -> Self:
        """Return the file itself."""
        self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Store the value, or nothing where the block raised."""
        await _threads_of(self)(self.close if kind is None else self.abort)

    def _opened(self) -> _Entry:
        if self._entry is None:
            raise ValueError("I/O operation on closed file")
        return self._entry


class Reader(io.RawIOBase):
    """A file with the value of a key, to read and seek in. `framecache` keeps what it found for as long as it is open.

    Attributes:
        nbytes: The size of the value.
    """

    def __init__(self, native: StreamReader, progress: Progress | None) -> None:
        super().__init__()
        self._native = native
        self._progress = progress
        self._position = 0
        self.nbytes: int = native.nbytes
        self.in_thread: InThread | None = None

    def view(self) -> memoryview | None:
        """All of the value where it is mapped, without a copy; `None` if it is sealed or compressed."""
        self._check()
        plain = self._native.plain()
        return None if plain is None else memoryview(plain)

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, unless the value ends before; return how many bytes were read."""
        self._check()
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and self._position < self.nbytes:
            part = memoryview(self._native.read(self._position, len(target) - filled))
            target[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        self._tell_progress()
        return filled

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, all that are left without one."""
        self._check()
        left = max(0, self.nbytes - self._position)
        size = left if size is None or size < 0 else min(size, left)
        parts: list[Any] = []
        # Of a large read, what was taken over into Python's memory gives the chunk's back.
        keep = bytes if size > _JOINED_UP_TO else memoryview
        while size:
            part = keep(self._native.read(self._position, size))
            parts.append(part)
            self._position += len(part)
            size -= len(part)
        self._tell_progress()
        return parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts)

    def readall(self) -> bytes:
        """Read all that is left."""
        return self.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere; return where that is."""
        self._check()
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.nbytes}.get(whence)
        if start is None or start + offset < 0:
            raise ValueError(f"expected a position from 0 on, got {offset!r} with whence {whence!r}")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        self._check()
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """End its threads. Views stay valid."""
        if not self.closed:
            self._native.close()
        super().close()

    async def aread(self, size: int | None = -1) -> bytes:
        """As `read`, in a thread."""
        return bytes(await _threads_of(self)(self.read, size))

    async def aclose(self) -> None:
        """As `close`, in a thread."""
        await _threads_of(self)(self.close)

    async def __aenter__(self) -> Self:
        """Return the file itself."""
        self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _tell_progress(self) -> None:
        if self._progress is not None:
            self._progress(min(self._position, self.nbytes), self.nbytes)


def _threads_of(file: Writer | Reader) -> InThread:
    if file.in_thread is None:
        raise ValueError("expected a file that aopen_writer or aopen_reader opened")
    return file.in_thread
