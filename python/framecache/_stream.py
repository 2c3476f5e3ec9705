"""The client's methods for values larger than memory, which are written and read a chunk at a time."""

from __future__ import annotations

from framecache._async_methods import AsyncMethods
from framecache._framecache import (
    MISSING,
    DecodeError,
    EncodeError,
    EntryRefused,
    FrameError,
    InvalidArgument,
    Store,
    StoreError,
    StreamReader,
    StreamWriter,
    TableScan,
    Unsupported,
)
from framecache._sealed import SealedStore
from framecache._settings import given
from framecache._times import now_by
from framecache._values import check_compression, tags_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable
    from typing import Any

    from framecache._framecache import Frame, Keyring, Missing
    from framecache._remote import RemoteStore
    from framecache._stream_files import Reader, Writer
    from framecache._times import Seconds

    Progress = Callable[[int, int | None], object]


class StreamMethods(AsyncMethods):
    """Values that are larger than memory: written front to back, read from anywhere.

    They need a directory: a cache in memory alone, or in an engine, raises `Unsupported`. `get` does not see them, as
    they would have to fit into memory; every other method does with them what it does with any entry. With a keyring,
    chunks are sealed, each on its own, and may be compressed first: their sizes then tell how well each of them could
    be.
    """

    def open_writer(
        self,
        key: str,
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        compression: str | Missing | None = MISSING,
        chunk_size: int | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> Writer:
        """Return a file for the value of `key`. Closing it stores the value; until then readers see the old one.

        As a context manager it stores the value at the end, and nothing if the block raises. A file that is not closed
        leaves nothing behind, and neither does one to which a write failed.

        Args:
            key: At most 64 KiB of UTF-8.
            ttl: As for `set`.
            max_age: As for `set`.
            tags: As for `set`.
            compression: As of the cache, if not given; here also with a keyring.
            chunk_size: Bytes of the value that are compressed and sealed as one, 4096 to 64 MiB, a multiple of 64;
                1 MiB.
            workers: The most threads that compress and seal, one for each processor if not given; 0: none but the
                caller's.
            progress: Called with the bytes that were written so far, and `total`, after each write.
            total: How many bytes there will be, if that is known.

        Raises:
            InvalidArgument: an option outside its range.
            Unsupported: a cache in memory alone, or in an engine.
            ValueTooLarge: other streams take all of the 256 MiB that streams have.
        """
        from framecache._stream_files import Writer

        return Writer(self._begin(key, "raw", ttl, max_age, tags, compression, chunk_size, workers), progress, total)

    def set_stream(
        self,
        key: str,
        source: object,
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        compression: str | Missing | None = MISSING,
        chunk_size: int | None = None,
        workers: int | None = None,
        progress: Progress | None = None,
        total: int | None = None,
    ) -> bool:
        """Store what `source` gives under `key`; return whether it was stored, as `set` does.

        Args:
            key: At most 64 KiB of UTF-8.
            source: Anything with `__arrow_c_stream__`, whose batches are taken one at a time; an iterable of buffers,
                or of record batches or tables of one schema; or one buffer.
            ttl: As for `set`.
            max_age: As for `set`.
            tags: As for `set`.
            compression: As for `open_writer`, like all that follow.
            chunk_size: See there.
            workers: See there.
            progress: See there.
            total: See there.

        Raises:
            EncodeError: an item that is neither buffer nor Arrow data, or Arrow data of another schema.
            Exception: what `source` raises; nothing is stored then.
        """
        begin = lambda codec: self._begin(key, codec, ttl, max_age, tags, compression, chunk_size, workers)  # noqa: E731
        filling = _Filling(begin, progress, total)
        try:
            for item in _items(source):
                filling.add(item)
            return filling.commit()
        finally:
            filling.close()

    def open_reader(self, key: str, *, workers: int | None = None, progress: Progress | None = None) -> Reader | None:
        """Return the value of `key` as a file to read and seek in; `None` if none was written as a stream.

        It goes on with what it found, whatever becomes of the entry. What is sealed was verified before it is returned.

        Args:
            key: What the value was stored under.
            workers: The most threads that read ahead, for who reads from one chunk to the next.
            progress: Called with the bytes that were read so far, and those in all, after each read.
        """
        from framecache._stream_files import Reader

        native = self._open_stream(
            key, lambda frame, name, keyring: StreamReader(frame, name, keyring=keyring, workers=workers)
        )
        return None if native is None else Reader(native, progress)

    def scan(
        self,
        key: str,
        columns: Iterable[str] | None = None,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> TableScan | None:
        """Return the record batches of the table stored under `key`, to be read one at a time; `None` if there is none.

        Consumers take it through `__arrow_c_stream__`, once: ``pyarrow.RecordBatchReader.from_stream(scan)``,
        ``polars.DataFrame(scan)``. A table that is neither sealed nor compressed is read where it is mapped.

        Args:
            key: What the table was stored under.
            columns: The columns to read, in the order of the table; all of them if not given. The chunks of a sealed or
                compressed table in which none of them lies are not read.
            workers: As for `open_reader`.
            progress: Called with the bytes that were read or skipped so far, and those in all, after each batch.

        Raises:
            InvalidArgument: a column that the table does not have.
        """
        chosen = None if columns is None else list(columns)
        scan: TableScan | None = self._open_stream(
            key,
            lambda frame, name, keyring: TableScan(
                frame, name, columns=chosen, keyring=keyring, workers=workers, progress=progress
            ),
        )
        return scan

    async def aopen_writer(self, key: str, **options: Any) -> Writer:
        """As `open_writer`; the file has `awrite` and `aclose`, and is an asynchronous context manager too."""
        writer: Writer = await self._in_thread(lambda: self.open_writer(key, **options))
        writer.in_thread = self._in_thread
        return writer

    async def aset_stream(self, key: str, source: object, **options: Any) -> bool:
        """As `set_stream`; `source` may be an asynchronous iterable too."""
        if not hasattr(source, "__aiter__"):
            return bool(await self._in_thread(lambda: self.set_stream(key, source, **options)))
        progress, total = options.pop("progress", None), options.pop("total", None)
        filling = _Filling(lambda codec: self._begin_with(key, codec, **options), progress, total)
        try:
            items: AsyncIterable[object] = source
            async for item in items:
                await self._in_thread(filling.add, item)
            return bool(await self._in_thread(filling.commit))
        finally:
            await self._in_thread(filling.close)

    async def aopen_reader(self, key: str, **options: Any) -> Reader | None:
        """As `open_reader`; the file has `aread` and `aclose`, and is an asynchronous context manager too."""
        reader: Reader | None = await self._in_thread(lambda: self.open_reader(key, **options))
        if reader is not None:
            reader.in_thread = self._in_thread
        return reader

    async def ascan(self, key: str, columns: Iterable[str] | None = None, **options: Any) -> TableScan | None:
        """As `scan`; its consumer is to run in a thread, as each batch is read when it is asked for."""
        scan: TableScan | None = await self._in_thread(lambda: self.scan(key, columns, **options))
        return scan

    def _begin_with(
        self,
        key: str,
        codec: str,
        *,
        ttl: Seconds | Missing | None = MISSING,
        max_age: Seconds | None = None,
        tags: Iterable[str] = (),
        compression: str | Missing | None = MISSING,
        chunk_size: int | None = None,
        workers: int | None = None,
    ) -> _Entry:
        return self._begin(key, codec, ttl, max_age, tags, compression, chunk_size, workers)

    def _begin(
        self,
        key: str,
        codec: str,
        ttl: Seconds | Missing | None,
        max_age: Seconds | None,
        tags: Iterable[str],
        compression: str | Missing | None,
        chunk_size: int | None,
        workers: int | None,
    ) -> _Entry:
        lifetime = self._lifetime_of(ttl, max_age)
        tags = tags_of(tags)
        compression = check_compression(given(compression, MISSING, self._compression))
        tiers = self._opened()
        tiers.canonical(key)
        places = _Places(tiers.opened("open_writer"), key, tags)
        created = now_by(self._clock)
        deadline, until = lifetime.ends(created)
        native = StreamWriter(
            places.store,
            places.names[0],
            places.key,
            codec,
            {},
            created,
            until=until,
            deadline=deadline,
            tags=places.tags,
            compression=compression,
            chunk_size=chunk_size,
            workers=workers,
            keyring=places.keyring,
        )
        return _Entry(self, key, native, places, created)

    def _open_stream(self, key: str, opened: Callable[[Frame, str, Keyring | None], Any]) -> Any:
        """Open the stream of `key`, or count why there is none to be had."""
        if self._is_bypassed():
            return None
        tiers, counts = self._opened(), self._shared.counts
        tiers.canonical(key)
        places, now = _Places(tiers.opened("open_reader"), key, []), now_by(self._clock)
        missed = "absent"
        try:
            for name in places.names:
                if (found := places.store.entry(name, now)) is not None:
                    stream = opened(found[0], places.key, places.keyring)
                    counts.add("hit")
                    return stream
        except EntryRefused as error:
            if self._shared.raise_on_tamper and error.reason != "no_key":
                raise
            missed = error.reason
        except StoreError as error:
            if self._shared.raise_on_error:
                raise
            missed = "error"
            counts.log(missed, "framecache: stream %.100r was not read: %s", key, error)
        except (FrameError, DecodeError) as error:
            missed = "unreadable"
            counts.log(missed, "framecache: stream %.100r was not read: %s", key, error)
        counts.add(missed)
        return None


class _Places:
    """Where a key's entry stands in the store, and what seals it."""

    def __init__(self, store: Store | SealedStore | RemoteStore, key: str, tags: list[str]) -> None:
        native = store._store if isinstance(store, SealedStore) else store
        if not isinstance(native, Store):
            raise Unsupported(
                "url: expected a cache with a directory (file:///path), where what is larger than memory belongs; got "
                "an engine beyond this machine"
            )
        self.store = native
        self.keyring: Keyring | None = None
        if isinstance(store, SealedStore):
            self.keyring = store._keyring
            self.key = store._prefix + key
            self.names = [name.hex() for name in self.keyring.names(self.key)]
            self.tags = [self.keyring.tag_names(store._prefix + tag)[0].hex() for tag in tags]
        else:
            self.key, self.names, self.tags = key, [key], tags


class _Entry:
    """An entry that is being written."""

    def __init__(self, cache: StreamMethods, key: str, native: StreamWriter, places: _Places, created: int) -> None:
        self._cache = cache
        self._key = key
        self._places = places
        self._created = created
        self.native = native

    def commit(self) -> bool:
        """Store it; return whether it was stored."""
        cache, places = self._cache, self._places
        tiers = cache._opened()
        cache._flights.fence(tiers.scope, self._key)
        stored = self.native.commit()[0] == "written"
        if stored and len(places.names) > 1:
            # What stood for it under other master keys.
            places.store.delete_many(places.names[1:], self._created)
        if not stored:
            cache._shared.counts.add("dropped")
        return stored


class _Filling:
    """A stream to which items of one kind are added."""

    def __init__(self, begin: Callable[[str], _Entry], progress: Progress | None, total: int | None) -> None:
        self._begin = begin
        self._progress = progress
        self._total = total
        self._entry: _Entry | None = None
        self._codec = ""

    def add(self, item: object) -> None:
        """Append buffers or batches."""
        codec = "arrow" if _is_arrow(item) else "raw"
        if self._entry is None:
            self._entry, self._codec = self._begin(codec), codec
        if codec != self._codec:
            raise EncodeError(f"source: expected items of one kind ({self._codec}), got {type(item).__name__}")
        native = self._entry.native
        if codec == "arrow":
            native.write_table(item)
        else:
            write_all(native, item)
        if self._progress is not None:
            self._progress(native.tell(), self._total)

    def commit(self) -> bool:
        """Store it; without items, an empty value."""
        if self._entry is None:
            self._entry = self._begin("raw")
        return self._entry.commit()

    def close(self) -> None:
        """Leave nothing behind, if it was not stored."""
        if self._entry is not None:
            self._entry.native.close()


def write_all(native: StreamWriter, data: Any) -> int:
    """Append a buffer; one that may change is copied a part at a time."""
    if type(data) is bytes:
        return native.write(data)
    try:
        view = memoryview(data)
    except TypeError:
        raise EncodeError(f"source: expected buffers or Arrow data, got {type(data).__name__}") from None
    if not view.c_contiguous:
        raise InvalidArgument("source: expected contiguous buffers, got one with gaps")
    view = view.cast("B") if view.nbytes else memoryview(b"")
    step = 1 << 20
    return sum(native.write(view[start : start + step]) for start in range(0, view.nbytes, step))


def _is_arrow(item: object) -> bool:
    return hasattr(item, "__arrow_c_stream__") or hasattr(item, "__arrow_c_array__")


def _items(source: Any) -> Iterable[object]:
    """What is appended, one after the other."""
    if _is_arrow(source):
        return (source,)
    try:
        memoryview(source)
    except TypeError:
        several: Iterable[object] = source
        return several
    return (source,)
