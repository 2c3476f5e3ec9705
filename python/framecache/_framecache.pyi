"""The native part of framecache; see the classes' docstrings. Buffers are any C-contiguous exporters."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from os import PathLike
from types import CellType, CodeType
from typing import Any, Final, Literal, NoReturn, SupportsIndex, final, overload

from typing_extensions import Buffer

__version__: str

class FramecacheError(Exception):
    """Base of all errors of framecache."""

class FrameError(FramecacheError, ValueError):
    """Bytes that are not a valid frame."""

class DecodeError(FramecacheError, ValueError):
    """A payload that its codec cannot read."""

class EncodeError(FramecacheError, TypeError):
    """A value that cannot be written."""

class CopyRequired(FramecacheError, ValueError):
    """A read without copying was required and is not possible."""

class InvalidArgument(FramecacheError, ValueError):
    """An argument outside its range."""

class Unsupported(FramecacheError, NotImplementedError):
    """An operation that a cache of this kind does not have."""

class ValueTooLarge(FramecacheError, ValueError):
    """A value that is larger than was allowed."""

class ViewExported(FramecacheError, BufferError):
    """A change that an exported view prevents."""

class OutOfMemory(FramecacheError, MemoryError):
    """Memory that could not be had."""

class EntryRefused(FramecacheError, ValueError):
    """A sealed entry that is not the one that was asked for, as it was sealed; `reason` says why."""

    reason: Literal["not_sealed", "no_key", "wrong_key", "wrong_entry", "changed_header", "truncated", "changed"]

class StoreError(FramecacheError, OSError):
    """A store that cannot be used, or a failed file operation."""

class StoreBusy(StoreError, TimeoutError):
    """A store that another process writes to for too long."""

class InternalError(FramecacheError):
    """A defect of framecache."""

@final
class Frame:
    """Immutable bytes, read in place through the buffer protocol.

    A slice with step 1 is a `Frame` of the same memory; so is every `memoryview` of it. The memory lives until the
    last of them goes.

    Args:
        data: an exact `bytes` object is used where it is; any other contiguous buffer is copied.
    """

    def __new__(cls, data: Buffer, /) -> Frame: ...
    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
    @property
    def is_mapped(self) -> bool:
        """Whether its memory is a mapped file."""
    @property
    def is_zero_copy(self) -> bool:
        """Whether it was made without copying: a mapped file, a finished `FrameBuilder`, a `bytes` object's memory."""
    @property
    def is_trusted(self) -> bool:
        """Whether it was written by this process or read from a store that only this user can write."""
    @property
    def address(self) -> int:
        """The address of its first byte."""
    def tobytes(self) -> bytes:
        """A copy of its bytes."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, index: slice, /) -> Frame: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class FrameBuilder:
    """A frame under construction: writable memory until `finish()`.

    Fill it through a writable `memoryview` of it, which has `size_hint` bytes (zeros at first), or with `write()`,
    which starts at 0 and grows it as needed. Its memory starts at a multiple of 64.

    Args:
        size_hint: how many bytes to start with.
    """

    def __new__(cls, size_hint: int = 0) -> FrameBuilder: ...
    def write(self, data: Buffer) -> int:
        """Copies `data` to where the last `write` ended, growing the builder where it does not fit.

        Returns the number of bytes, all of which were written. Raises `BufferError` where it would grow while a view
        is exported.
        """
    def finish(self) -> Frame:
        """Ends writing: the frame has the bytes up to the last `write`, or all that a view showed if there was none.

        Raises `BufferError` while a view is exported, `ValueError` if it is finished already.
        """
    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class SerializationWrapper:
    """Frames and unframes serialized bytes: the v3 frame and, to read, the JSON envelope before it."""

    @staticmethod
    def wrap(data: Buffer, metadata: dict[str, Any], serializer_name: str, version: str = "2.0") -> bytes:
        """A v3 frame: header without padding, then a copy of `data`.

        Byte-identical to cachekit 0.24.1. `data` is copied once.
        """
    @staticmethod
    def wrap_prefix(
        metadata: dict[str, Any], serializer_name: str, version: str = "2.0", *, align: int = 1, offset: int = 0
    ) -> bytes:
        """What stands before the payload: prefix and header, padded with spaces until `offset` plus its length is a
        multiple of `align`.
        """
    @staticmethod
    def unwrap(frame: Buffer | str) -> tuple[memoryview | bytes, dict[str, Any], str]:
        """The payload, its metadata and the serializer's name.

        For a v3 frame the payload is a read-only `memoryview` of `frame`'s own bytes; a legacy envelope's is `bytes`.
        The metadata dict is the caller's own. Raises `FrameError`, a `ValueError`.
        """
    @staticmethod
    def unwrap_metadata(frame: Buffer | str) -> tuple[memoryview | bytes, Mapping[str, Any], str]:
        """As `unwrap`, but the metadata is a read-only mapping that reads of equal headers share: nothing is copied."""

@final
class ByteStorage:
    """Puts bytes into cachekit's envelopes and takes them out: LZ4 with a checksum, under limits that no envelope can
    exceed whatever it says.

    Args:
        default_format: what `store` says that its data is, unless it is told.
    """

    MAX_UNCOMPRESSED_SIZE: Final[int]
    """The most bytes that `store` takes and `retrieve` gives: 512 MiB."""
    MAX_COMPRESSED_SIZE: Final[int]
    """The longest compressed data in an envelope: 512 MiB."""
    MAX_ENVELOPE_SIZE: Final[int]
    """The longest envelope: 512 MiB."""
    MAX_COMPRESSION_RATIO: Final[int]
    """How many bytes a byte of compressed data may become: 1000."""

    def __new__(cls, default_format: str = "msgpack") -> ByteStorage: ...
    def store(self, data: Buffer, format: str | None = None) -> bytes:
        """An envelope of `data`, which cachekit 0.17 to 0.24 read.

        Data that may change while it is read (anything but `bytes`, a `Frame`, and views of these) is copied first.
        Raises `ValueTooLarge` for more than 512 MiB.
        """
    def retrieve(self, envelope: Buffer) -> tuple[memoryview, str]:
        """The data of an envelope, as a read-only `memoryview` of the memory it was decompressed into, and its format.

        Envelopes of all versions of cachekit are read. Those that may change while they are read are copied first.
        Raises `DecodeError`, a `ValueError`, for one that is damaged, beyond the limits, or of another form.
        """
    def validate(self, envelope: Buffer) -> bool:
        """Whether `retrieve` would give the data."""

@final
class ArrowTable:
    """A table over the memory of an Arrow IPC file. Nothing is copied; every value was validated, text for UTF-8 too.

    Consumers take it through `__arrow_c_stream__`: `polars.DataFrame(t)`, `pyarrow.table(t)`, `duckdb`, `nanoarrow`.

    Args:
        payload: a `Frame` or any bytes-like object that holds an Arrow IPC file.
        require_zero_copy: raise `CopyRequired` instead of copying a payload that is not aligned or may change.
    """

    def __new__(cls, payload: Buffer, /, *, require_zero_copy: bool = False) -> ArrowTable: ...
    @property
    def num_rows(self) -> int:
        """How many rows it has."""
    @property
    def column_names(self) -> list[str]:
        """The names of its columns."""
    @property
    def nbytes(self) -> int:
        """Bytes of the Arrow IPC file it stands on."""
    @property
    def payload(self) -> Frame:
        """The Arrow IPC file it stands on."""
    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object:
        """Its schema as a capsule of the Arrow C data interface."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The table as a capsule of the Arrow C stream interface; `requested_schema` is not looked at."""

@final
class MasterKey:
    """A master key: 32 to 1024 bytes, of which 32 random ones are enough. Only its id can be seen.

    The key is copied to memory that is left out of core dumps and wiped at the end; `bytes` and `str` that it was made
    from stay in Python's memory. A file or a descriptor leaves no such copy.

    Args:
        key: `bytes`, or a `str` of hexadecimal digits.
    """

    def __new__(cls, key: bytes | str, /) -> MasterKey: ...
    @staticmethod
    def from_file(path: str | PathLike[str]) -> MasterKey:
        """The key in a file: hexadecimal digits with white space around them, or else the file's bytes.

        Raises `InvalidArgument` for a file that is not the effective user's and closed to others (or root's, and
        readable by a group at most), `StoreError` for one that cannot be read.
        """
    @staticmethod
    def from_descriptor(descriptor: int) -> MasterKey:
        """The key that an open file descriptor gives until its end, such as a pipe's, in the forms of `from_file`. It
        stays open.
        """
    @staticmethod
    def from_env(variable: str) -> MasterKey | None:
        """The key that an environment variable has, in hexadecimal digits; `None` if it is not set or empty."""
    @property
    def id(self) -> str:
        """Its id: 32 hexadecimal digits, which say nothing about the key."""

@final
class Keyring:
    """Master keys: the current one, which seals, and previous ones, which still open.

    Args:
        master: the current key: a `MasterKey`, `bytes`, or a `str` of hexadecimal digits.
        previous: keys that are not used for new entries any more.
        tenant: who the entries belong to: a `str`, or a `ContextVar` or callable that gives one each time.
    """

    def __new__(
        cls,
        master: MasterKey | bytes | str,
        previous: Iterable[MasterKey | bytes | str] | None = None,
        tenant: str | ContextVar[str] | Callable[[], str] | None = None,
    ) -> Keyring: ...
    @staticmethod
    def from_env(tenant: str | ContextVar[str] | Callable[[], str] | None = None) -> Keyring:
        """The keyring of the environment: `FRAMECACHE_MASTER_KEY` has the current key in hexadecimal digits,
        `FRAMECACHE_PREVIOUS_MASTER_KEYS` any number of previous ones with commas between them.
        """
    @property
    def key_ids(self) -> list[str]:
        """The ids of its master keys, the current one first."""
    @property
    def has_one_tenant(self) -> bool:
        """Whether all entries have one tenant; else it is asked for each time."""
    @property
    def tenant(self) -> str:
        """Who entries belong to now."""
    def names(self, key: str) -> list[bytes]:
        """The names that the entry of `key` may have, 32 bytes each, the one under the current master key first."""
    def tag_names(self, tag: str) -> list[bytes]:
        """As `names`, of a tag: no key has the name of a tag."""
    def seal(self, frame: Buffer, name: bytes, *, created: int | None = None, until: int | None = None) -> Frame:
        """A sealed frame of `frame`'s bytes, for the entry under `name`. They are read once.

        Times are in milliseconds since 1970, and every tier sees them. Bytes that may change (anything but `bytes`, a
        `Frame` and views of these) are copied first.
        """
    def open(self, sealed: Buffer, name: bytes) -> Frame:
        """The frame inside `sealed`, if that is the entry under `name`, as it was sealed. It stands in aligned memory
        of its own, which is wiped when the last view of it goes.

        Raises `EntryRefused`, whose `reason` says why.
        """
    def seal_value(
        self,
        key: str,
        codec: str,
        value: Any,
        python: dict[str, Any],
        *,
        created: int | None = None,
        until: int | None = None,
        compression: str | None = None,
        max_value_bytes: int | None = None,
    ) -> tuple[bytes, Frame]:
        """Encodes `value` into a frame, as `Store.put_many` does, and seals it in place for `key`. Returns the entry's
        name and its sealed frame.

        With `compression` (as of a `Cache`) it is compressed before, and the size tells how well that went. Raises
        `ValueTooLarge` for a payload of more than `max_value_bytes`, 1 GiB if not given.
        """
    def open_value(
        self, key: str, sealed: Buffer, *, max_value_bytes: int | None = None
    ) -> tuple[Frame, str, dict[str, Any], int | None, int | None]:
        """The value of `key` in `sealed`: its payload, its codec, what `seal_value` got as `python`, and when it was
        created and may be served last.

        Raises `EntryRefused`, whose `reason` says why, and `DecodeError` for a payload that decompressed would be
        larger than `max_value_bytes`, 1 GiB if not given.
        """
    def stats(self) -> dict[str, Any]:
        """How many entries it sealed (``sealed``), opened under each key id (``opened``) and refused by reason
        (``refused``).

        When the count of a previous key stays where it is, that key can go.
        """

@final
class Store:
    """A directory of entries, shared by all processes of one user."""

    def __new__(
        cls,
        path: str,
        *,
        namespace: str = "",
        max_bytes: int | None = None,
        verify: str = "header",
        durability: str | None = None,
        index: str | None = None,
        index_bytes: int | None = None,
        read_only: bool = False,
        compression: str | None = None,
        max_value_bytes: int | None = None,
        writer_timeout: float | None = None,
    ) -> Store:
        """Opens the directory at `path`, creating it with mode 0700. `framecache.Cache` says what each argument is."""
    def put_many(
        self,
        values: Sequence[tuple[str, str, Any, dict[str, Any]]],
        created: int,
        until: int | None = None,
        *,
        deadline: int | None = None,
        tags: Sequence[str] = ...,
        if_absent: bool = False,
        lease: int | None = None,
        fence: bytes | None = None,
    ) -> list[Literal["written", "exists", "superseded", "dropped"]]:
        """Stores values, each given as key, codec, value and what `get` is to return as `python`, in one transaction.

        `codec` is `"raw"` for a bytes-like value, `"arrow"` for one with `__arrow_c_stream__` or `__arrow_c_array__`,
        and `"msgpack"` for any other. Times are in milliseconds since 1970. Where a guard of `fence` does not hold any
        more, nothing is written: `"superseded"`.
        """
    def put_frames(
        self,
        frames: Sequence[tuple[str, Buffer, Sequence[str]]],
        created: int,
        until: int | None = None,
        *,
        deadline: int | None = None,
        tags: Sequence[str] = ...,
        if_absent: bool = False,
        lease: int | None = None,
        fence: bytes | None = None,
    ) -> list[Literal["written", "exists", "superseded", "dropped"]]:
        """Stores frames as they are, each given as key, bytes-like frame and other keys whose entries it takes the
        place of, all in one transaction; returns as `put_many`.

        With `if_absent` an entry under one of the other keys counts too.
        """
    @overload
    def look(
        self,
        key: str,
        now: int,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        at_hand: bool = False,
        whole: Literal[False] = False,
    ) -> tuple[bytes | memoryview | tuple[Frame, str, dict[str, Any]], int, int | None, int | None, int, bytes] | str:
        """What `key` has, for who keeps a copy.

        A compressed payload is decompressed, or is a `CopyRequired` with `require_zero_copy`. The GIL is released where
        a file must be opened.

        Args:
            stale: Find an entry past its deadline too, as long as its `until` has not passed.
            at_hand: Return ``"elsewhere"`` where a file would have to be opened; the GIL is not released then.
            whole: The frame as it stands, whatever is in it, in place of the value.

        Returns:
            Exact `bytes` (with `views` a memoryview) and plain memoryviews as they are, of any other value the payload,
            its codec and what `put_many` got as `python`, a dict that is shared and must not be changed; when the entry
            was written, until when this store serves it, and until when
            any tier may (milliseconds since 1970; `None`: no end); the bytes of its frame; and guards of its name, its
            namespace and its tags, 6 bytes each, taken before it was read: while all of them hold, it is still the
            entry that the store has, unless it was evicted. Or the reason for a miss, a str.
        """
    @overload
    def look(
        self,
        key: str,
        now: int,
        *,
        views: bool = False,
        require_zero_copy: bool = False,
        stale: bool = False,
        at_hand: bool = False,
        whole: Literal[True],
    ) -> tuple[Frame, int, int | None, int | None, int, bytes] | str: ...
    def fence(self, key: str, tags: Sequence[str]) -> bytes:
        """Guards of `key`'s name, the namespace and `tags`, as they stand now, 6 bytes each: for `put_many`, of a value
        that is computed afterwards.
        """
    def holds(self, guards: bytes) -> bool:
        """Whether all of `guards` still hold."""
    def get_many(
        self, keys: Sequence[str], now: int, views: bool = False
    ) -> tuple[dict[str, bytes | memoryview], dict[str, tuple[Frame, str, dict[str, Any]] | str]]:
        """What several keys have, read at one moment: the values that are decoded at once, and of all others what
        `look` shows of them or the reason for a miss, by key.
        """
    def contains(self, key: str, now: int) -> bool:
        """Whether `look` would find an entry."""
    def entry(self, key: str, now: int) -> tuple[Frame, int, int | None] | None:
        """The frame of `key`'s entry, when it was written, and its deadline; `None` for a miss."""
    def touch(self, key: str, deadline: int | None, now: int) -> bool:
        """Moves the deadline of `key`'s entry; whether there was one to serve."""
    def delete_many(self, keys: Sequence[str], now: int) -> int:
        """Removes the entries of `keys`; how many there were."""
    def delete_if(self, key: str, guards: bytes, now: int) -> bool:
        """Removes the entry of `key` if `look` gave these guards with it and they still hold; whether it was removed. A
        store that is only read keeps it.
        """
    def invalidate_tags(self, tags: Sequence[str], now: int) -> None:
        """Makes all entries with one of `tags` misses."""
    def clear(self) -> None:
        """Makes all entries of the namespace misses."""
    def keys(self, prefix: str, start: bytes | None, now: int) -> tuple[list[str], bytes | None]:
        """A part of the keys that begin with `prefix`, and where the next part begins; `None` at the end."""
    def lease(self, key: str, milliseconds: int, now: int) -> int | None:
        """A token, if nobody else computes the value of `key`."""
    def release(self, key: str, token: int) -> bool:
        """Gives a lease back; whether it was still held."""
    def stats(self) -> dict[str, int]:
        """Sizes and counts, by name."""
    def verify(self) -> tuple[int, int, int]:
        """Checks every entry; how many are whole, how many were damaged, and how many files no entry named."""

def encode_arrow(value: Any, python: dict[str, Any]) -> Frame:
    """A frame whose payload is `value` as an Arrow IPC file; `python` is kept in the header."""

def verify_arrow(payload: Buffer, /, *, require_zero_copy: bool = False) -> Frame:
    """Checks everything in an Arrow IPC file that a reader uses as an address. Returns `payload` as a `Frame`, aligned:
    the same memory, or a copy where it was not aligned or may change.

    Raises `DecodeError`; `CopyRequired` for compressed buffers and, with `require_zero_copy`, for a payload that would
    have to be copied.
    """

def pool_nbytes() -> int:
    """Bytes that the pool of warm buffers holds for the next frames; at most 256 MiB."""

def trim_pool() -> int:
    """Frees the pool's buffers; returns how many bytes they had."""

def derive_domain_key(master_key: bytes, domain: str, tenant_salt: bytes) -> bytes:
    """cachekit's key of a domain (``"encryption"`` for entries) and a tenant, to read what it wrote: 32 bytes.

    Raises `InvalidArgument` for a master key of less than 16 bytes and a tenant of 0 or more than 1024.
    """

def key_fingerprint(key: bytes) -> bytes:
    """What cachekit's headers call a derived key, of which they have the hexadecimal digits: 16 bytes."""

def packb(
    obj: Any,
    /,
    *,
    default: Callable[[Any], Any] | None = None,
    types: Literal["python", "plain"] | None = None,
    limits: int | None = None,
) -> bytes:
    """Return `obj` as MessagePack.

    Args:
        obj: With ``types="python"`` a value of the types that proto-docs/msgpack.md lists; with ``types="plain"`` None,
            bool, int of 64 bits, float, str, bytes, and lists and dicts of these. At most 1024 levels deep.
        default: Called with each object that has no form; what it returns is written in its place.
        types: ``"python"`` if it is not given.
        limits: The longest int beyond 64 bits, in bytes, and the longest Decimal, in characters; 4096 if not given.

    Raises:
        EncodeError: What has no form, with its path in `obj`; a cycle (a `TypeError`).
    """

def unpackb(
    data: Buffer,
    /,
    *,
    types: Literal["python", "plain"] | None = None,
    max_depth: int | None = None,
    ext_hook: Callable[[int, bytes], Any] | None = None,
    limits: int | None = None,
    views: bool = False,
) -> Any:
    """Return the value that `data` is as MessagePack.

    Args:
        data: Exact bytes and Frames are read in place, memoryviews of them too without `views`; any other buffer is
            copied first, and views stand on that copy.
        types: As `packb` was given; ``"python"`` if it is not given.
        max_depth: How many levels there may be, 1 to 1024, which is the default.
        ext_hook: Called with code and payload of extensions that are not framecache's; without it they are an error.
        limits: As for `packb`.
        views: Return bytes of 64 KiB and more, and the data of aligned arrays of 4 KiB and more, as read-only views of
            `data` instead of copies.

    Raises:
        DecodeError: Anything that `packb` does not write, with offset and path (a `ValueError`).
        InvalidArgument: `types` or `max_depth` outside their range.
    """

def encode_msgpack(value: Any) -> Frame:
    """Return a frame whose payload is `value` as MessagePack, written where it stays."""

def msgpack_payload(value: Any) -> Frame:
    """Return `value` as MessagePack, without a frame's header."""

OPT_APPEND_NEWLINE: Final[int]
OPT_INDENT_2: Final[int]
OPT_NAIVE_UTC: Final[int]
OPT_NON_STR_KEYS: Final[int]
OPT_OMIT_MICROSECONDS: Final[int]
OPT_PASSTHROUGH_DATACLASS: Final[int]
OPT_PASSTHROUGH_DATETIME: Final[int]
OPT_PASSTHROUGH_SUBCLASS: Final[int]
OPT_SERIALIZE_DATACLASS: Final[int]
OPT_SERIALIZE_NUMPY: Final[int]
OPT_SERIALIZE_UUID: Final[int]
OPT_SORT_KEYS: Final[int]
OPT_STRICT_INTEGER: Final[int]
OPT_UTC_Z: Final[int]

@final
class Fragment:
    """JSON that is written already: exact bytes or str, which `dumps` copies into its result unchecked."""

    def __new__(cls, contents: bytes | str, /) -> Fragment: ...

def dumps(obj: Any, /, default: Callable[[Any], Any] | None = None, option: int | None = None) -> bytes:
    """Return `obj` as JSON in UTF-8.

    Args:
        obj: A str, int of 64 bits, float, bool, None, list, tuple or dict with str keys; an instance of a subclass of
            str, int, list or dict; a dataclass instance, datetime, date, time, UUID, Enum member or Fragment. At most
            254 levels deep. Floats that are not finite become null.
        default: Called with each object that has no form; what it returns is written in its place. At most 254 of its
            results may lead on to another call.
        option: The ``OPT_*`` constants, combined with ``|``.

    Raises:
        JSONEncodeError: What has no form (a `TypeError`, with the exception of `default` or of a hook as its cause). A
            note says where in `obj` it is.
    """

def loads(obj: bytes | bytearray | memoryview | str, /) -> Any:
    """Return the value that `obj` is as JSON.

    Exact bytes and ASCII str are read in place; any other str is encoded, any other buffer copied first. Integers
    beyond 64 bits become floats; of equal keys the last value counts. At most 1024 levels deep.

    Raises:
        JSONDecodeError: What RFC 8259 does not allow, NaN and infinity among it, with `msg`, `doc`, `pos`, `lineno` and
            `colno` (a `json.JSONDecodeError`, hence a `ValueError`).
    """

def encode_json(value: Any) -> Frame:
    """Return a frame whose payload is `value` as JSON, written where it stays."""

def json_payload(value: Any) -> Frame:
    """Return `value` as JSON, without a frame's header."""

@final
class Missing:
    """The type of `MISSING`, its only instance: false, and itself when copied or unpickled."""

    def __new__(cls) -> Missing: ...
    def __bool__(self) -> Literal[False]: ...
    def __reduce__(self) -> str: ...

MISSING: Final[Missing]

@final
class Clock:
    """A clock that tests move: the wall clock, and a monotonic one.

    Args:
        time: Where the wall clock stands, in seconds since 1970, from 0 to 1e12. Kept to the microsecond.
    """

    def __new__(cls, time: float = 1_000_000_000.0) -> Clock: ...
    def advance(self, seconds: float) -> None:
        """Move both on."""

    def set_time(self, time: float) -> None:
        """Set the wall clock alone."""

    def time(self) -> float:
        """Return the wall clock: seconds since 1970."""

    def monotonic(self) -> float:
        """Return the monotonic clock, in seconds."""

@final
class Counters:
    """Numbers by name, for all threads."""

    def __new__(cls) -> Counters: ...
    def add(self, what: str, times: int = 1) -> None:
        """Add `times` to the number of `what`."""

    def numbers(self) -> dict[str, int]:
        """Return the numbers, by name."""

@final
class Direct:
    """Reads a store for who wants values and no more, in one call.

    Args:
        store: Where it reads.
        clock: ``clock.time()`` gives the seconds since 1970-01-01 UTC.
        counts: Counts hits and misses.
        decode: Called with payload, codec, description and `views` for a value that is not decoded here.
        damaged: Called with the key of an entry whose bytes are not what was written, which is a miss and gone.
    """

    def __new__(
        cls,
        store: Store,
        clock: Any,
        counts: Counters,
        decode: Callable[..., Any],
        damaged: Callable[[str], object],
    ) -> Direct: ...
    def get(self, key: str, default: Any, views: bool) -> Any:
        """Return the value of `key`, or `default`, which is counted; `NotImplemented`, and nothing is counted, where
        something is wrong that is to be logged or raised.
        """

@final
class Entries:
    """The entries of one namespace in an engine beyond this machine: their names, heads and frames.

    Args:
        namespace: The namespace.
        epochs: Keeps the counters that guards refer to.
        distrust: Called with a key, and the key (or `None`) of the entry that was found in its place; raises an error.
    """

    #: Where the id of an entry stands.
    ID_AT: Final[int]

    def __new__(cls, namespace: str, epochs: L1, distrust: Callable[[str, str | None], NoReturn] | None) -> Entries: ...
    @property
    def prefix(self) -> str:
        """What the names of entries and stamps begin with."""
    @property
    def generation(self) -> str:
        """The name of the stamp of the namespace."""
    @property
    def all(self) -> str:
        """The name whose guard tells that changes may have been missed."""
    def read(self, keys: Sequence[str]) -> Reading:
        """Begin to read the entries of `keys`. Guards are taken now.

        Raises:
            InvalidArgument: A key that is too long.
        """
    def entries(self, keys: Sequence[str]) -> list[str]:
        """The names of the entries of `keys`."""
    def fence(self, key: str) -> str:
        """The name of what is removed when a key is written or removed."""
    def lease(self, key: str) -> str:
        """The name of the lease of a key."""
    def stamp(self, tag: str) -> str:
        """The name of the stamp of a tag."""
    def pack(
        self,
        key: str,
        codec: str,
        python: dict[str, Any],
        length: int,
        created: int,
        deadline: int | None,
        until: int | None,
        stamp: bytes,
        tags: Sequence[tuple[str, bytes]],
    ) -> bytes:
        """What stands before a payload of `length` bytes: a head with a new id, and the frame's header.

        Times are milliseconds since 1970; the stamps of the namespace and of each tag have 8 bytes. The length is a
        multiple of 64.
        """
    @staticmethod
    def deadline_at(deadline: int | None) -> tuple[int, bytes]:
        """Where the deadline of an entry stands, and how it is written."""
    @staticmethod
    def head_length(start: Buffer) -> int:
        """How long the head of an entry is that begins with `start`; 0 if that is none."""

@final
class Reading:
    """A read of the entries of several keys: made by `Entries.read`, fed with answers until nothing is left to ask."""

    @property
    def names(self) -> list[str]:
        """What to ask for: at first the entries of the keys, in their order, then stamps; empty when all is known."""
    @property
    def nbytes(self) -> int:
        """How many bytes the entries have."""
    def feed(self, values: Iterable[Buffer | None] | Replies) -> list[str]:
        """Take the answers to `names`; return what else to ask for. Values that could change are copied.

        Raises:
            InvalidArgument: There are more or fewer than names.
        """
    def stand(self, frame: Buffer) -> None:
        """Take the frame of the one entry that is read, of which only the start was answered."""
    def terms(self, now: int, stale: bool = False, index: int = 0) -> tuple[int, int | None, int | None, bytes] | str:
        """When the entry of a key was written, its deadline, its `until` and its id, or why it is not to be served.

        Raises:
            FrameError: What stands there is no entry.
        """
    def result(
        self, now: int, stale: bool = False, views: bool = False, require_zero_copy: bool = False, index: int = 0
    ) -> Any:
        """As `Store.look` returns it: `bytes` of at most 64 KiB as they are, all else as payload, codec and the rest.

        Raises:
            FrameError: What stands there is no entry, or not all of one.
            DecodeError: It is compressed.
            Exception: What `distrust` raises, for the entry of another key.
        """
    def frame(self, index: int = 0) -> Frame | None:
        """The frame of an entry; `None` where there is none."""
    def values(self, now: int, views: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values by key: `bytes`, and what msgpack decodes, of at most 64 KiB; of all others what `result` returns or
        raises.
        """

@final
class Replies:
    """The answer of Redis to a command that reads `count` values: a sequence of frames and `None` once it is complete.

    A socket receives into it, as into a writable buffer; one buffer at a time. Values of more than 64 KiB are received
    into aligned memory of their own.
    """

    def __new__(cls, count: int) -> Replies: ...
    def received(self, count: int) -> bool | None:
        """Go on after `count` bytes were received into it; return whether that is all, or `None` for another answer.

        Raises:
            FrameError: It is not as the protocol has it.
            OutOfMemory: A value for which there is no memory.
        """
    def take(self, data: bytes) -> bool | None:
        """As `received`, of bytes that were received elsewhere, which are copied."""
    def rest(self) -> bytes:
        """What was received after the answer, or instead of it. Nothing more can be received then."""
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Frame | None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def pack_command(*arguments: str | int | Buffer | tuple[Buffer, ...]) -> list[Buffer]:
    """A command as Redis takes it: buffers to send one after the other.

    A tuple of buffers is one argument, whose parts are not joined. Buffers of more than 4 KiB, and those that could
    change, are among the result as they are; all others are copied.
    """

@final
class L1:
    """Values in this process's memory, bounded in bytes.

    A key is bytes: 4 of its scope, a number of 32 bits (little-endian), then what names it there. Times are
    milliseconds since 1970; deadlines are kept on the monotonic clock, so that no change of the wall clock moves them.
    A forked child goes on with a copy.

    Args:
        max_bytes: What entries may take, with their keys and their places in the table. The largest takes 97% of it.
        decode: Called as ``decode(payload, codec, python, views)`` for the value of an entry that is decoded for each
            caller, and whose codec is neither msgpack nor json.
        epochs: The store whose table guards refer to; `None`: one of its own.
        clock: `None`: the system's.
    """

    #: While not 0, every `Call` goes to its function for a miss.
    slow: int

    def __new__(
        cls,
        max_bytes: int,
        *,
        decode: Callable[[Frame, str, dict[str, Any], bool], Any] | None,
        epochs: Store | None = None,
        clock: Clock | None = None,
    ) -> L1: ...
    def get(self, scope: int, key: str, views: bool = False) -> Any:
        """Return the value of `key` in a scope; `MISSING` where there is none whose deadline and guards allow it.

        With `views`, bytes come as read-only memoryviews, as they do from a store.
        """

    def find(self, key: bytes, views: bool = False) -> Any:
        """As `get`, by all bytes of the key."""

    def entry(
        self, key: bytes, stale: bool = False
    ) -> tuple[Any, Frame | None, str, dict[str, Any], int, int | None, int | None, int] | None:
        """Return value, payload, codec, what the client keeps of it, created, deadline, until and size of an entry.

        The value is `MISSING` where each caller gets one of his own; payload and codec are those it is decoded from,
        `None` and ``""`` where the value itself is shared. Deadline and until are as the wall clock stands now. The
        size is what the entry takes of `max_bytes`. Neither a hit nor a miss.

        Args:
            key: All bytes of it.
            stale: Also one past its deadline, as long as its `until` has not passed.
        """

    def fill(
        self,
        key: bytes,
        value: Any,
        payload: Frame | None,
        codec: str,
        python: dict[str, Any] | None,
        created: int,
        deadline: int | None,
        until: int | None,
        guards: bytes,
        share: bool = False,
    ) -> bool:
        """Keep a value in place of what was there; return whether it fits and is not out of date already.

        Every caller gets `value` itself if it cannot be changed: None, bool, int, float, complex, str, bytes, Decimal,
        UUID, date, timedelta, time and datetime (without tzinfo, or with a `timezone` or `ZoneInfo`), tuples and
        frozensets of these, all of exactly these types; Arrow values of pyarrow. A read-only memoryview over a frame
        becomes another one for each caller. Anything else is decoded from the payload for each.

        Args:
            key: All bytes of it.
            value: What was decoded from the payload. Not copied.
            payload: What it was decoded from; `None` is allowed where `value` itself is shared. One of a mapped file
                counts as nothing; short ones are copied.
            codec: The payload's.
            python: What `decode` gets besides.
            created: When the entry was written.
            deadline: Its last moment as a fresh one.
            until: The last moment at which it may be served, stale; `None`: it is never served stale.
            guards: Guards of 6 bytes each, all of which must hold whenever it is served.
            share: Every caller gets `value` itself, whatever it is.

        Raises:
            InvalidArgument: A key of less than 4 bytes; guards of another length; no payload where one is needed.
        """

    def touch(self, key: bytes, deadline: int | None) -> bool:
        """Move the deadline of an entry, never beyond its `until`; return whether there was one to serve."""

    def remove(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one to serve."""

    def keys(self, scope: int) -> list[bytes]:
        """Return what follows the scope in the keys of its entries that may be served. Goes past all entries."""

    def purge(self) -> int:
        """Remove the entries that may not be served any more, not even stale; return how many. Goes past all."""

    def clear(self) -> None:
        """Remove all entries."""

    def guards(self, names: Sequence[str]) -> bytes:
        """Return guards of `names`, taken now, 6 bytes each."""

    def bump(self, names: Sequence[str]) -> None:
        """Make all guards of `names` that were taken before not hold."""

    def holds(self, guards: bytes) -> bool:
        """Return whether all of `guards` hold.

        Raises:
            InvalidArgument: A length that is not a multiple of 6.
        """

    def stats(self) -> dict[str, int]:
        """Return entries, bytes and max_bytes; counts of hits, misses, evicted, expired, invalidated and rejected."""

@final
class Call:
    """A cached function: binds a call to the signature, encodes its arguments, and looks them up in L1, in one step.

    It stands for the function: it binds to instances, `inspect` and `typing` take it for one, and it is pickled by
    name. `functools.update_wrapper` gives it the rest. proto-docs/keys.md specifies encoding and keys.
    """

    def __new__(
        cls,
        l1: L1,
        scope: int,
        identity: bytes,
        label: str,
        parameters: Sequence[tuple[str, int, Any, bool]],
        miss: Callable[[bytes, tuple[Any, ...], dict[str, Any]], Any] | None,
        *,
        describe: Callable[..., tuple[str, object]],
        key: Callable[..., object] | None = None,
        views: bool = False,
    ) -> Call:
        """Make one.

        Args:
            l1: Where entries are looked up; while its `slow` is not 0, none are.
            scope: The function's number in L1, of 32 bits; canonical bytes begin with it.
            identity: What tells the function apart in all processes; keys depend on it. It differs for functions whose
                parameters differ in name or order.
            label: What keys begin with.
            parameters: Name, kind (as in `inspect.Parameter`, 0 to 4), default or `MISSING`, and whether it is ignored,
                in the order of the signature. Defaults are encoded as they are at each call.
            miss: Called where there is nothing to serve, with the canonical bytes and the arguments of the call; what
                it returns is the call's result. Without it the result is `MISSING`.
            describe: Called with an object of a type that is not encoded in Rust: returns its label and what stands for
                it, or raises `EncodeError(expected, found)`. For the instance that a method is called on (the first
                parameter, if it is called ``self``) it is called with True as well.
            key: Called with the arguments of the call; its result is encoded instead of them.
            views: Whether hits may be views of the frame.
        """

    @property
    def hits(self) -> int:
        """How many calls L1 answered."""

    @property
    def __code__(self) -> CodeType:
        """As the other four, that of the function in `__wrapped__`."""

    @property
    def __defaults__(self) -> tuple[Any, ...] | None: ...
    @property
    def __kwdefaults__(self) -> dict[str, Any] | None: ...
    @property
    def __globals__(self) -> dict[str, Any]: ...
    @property
    def __closure__(self) -> tuple[CellType, ...] | None: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the value in L1, or what `miss` returns.

        Raises:
            TypeError: A call that the function does not accept, in CPython's words.
            EncodeError: An argument without a form; the message names it and the place in it.
        """

    def canonical(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the canonical bytes of a call: the scope, then the encoding of its arguments."""

    def key(self, *args: Any, **kwargs: Any) -> str:
        """Return the key of a call: the label, ``#``, and 64 hexadecimal digits."""

    def key_of(self, canonical: bytes, /) -> str:
        """Return the key that canonical bytes are; `InvalidArgument` for those of another scope."""

    def find(self, key: str, /) -> bytes | None:
        """Return the canonical bytes of this function's entry in L1 with that key; goes past all entries of L1."""

    def __get__(self, instance: object, owner: type | None = None, /) -> Any: ...

@final
class StreamWriter:
    """An entry of a store that is written front to back: bytes, or record batches. Nobody sees it before `commit`.

    Args:
        store: Where it will stand.
        name: Under which key there.
        key: The key that it is sealed with, or that its header has.
        codec: ``"raw"`` or ``"arrow"``.
        python: What a reader needs to rebuild the value.
        created: Now, in milliseconds since 1970.
        until: The last moment at which it may be served.
        deadline: Until when it is fresh.
        tags: What it can be invalidated by.
        compression: Of each chunk.
        chunk_size: Bytes of payload in a chunk, 4096 to 64 MiB, a multiple of 64; 1 MiB.
        workers: The most threads that work on chunks.
        keyring: Seals each chunk.
    """

    def __new__(
        cls,
        store: Store,
        name: str,
        key: str,
        codec: str,
        python: dict[str, Any],
        created: int,
        *,
        until: int | None = None,
        deadline: int | None = None,
        tags: Sequence[str] = ...,
        compression: str | None = None,
        chunk_size: int | None = None,
        workers: int | None = None,
        keyring: Keyring | None = None,
    ) -> StreamWriter: ...
    def write(self, data: Buffer) -> int:
        """Append bytes; a buffer that may change is copied first. After an error nothing more can be written."""

    def write_table(self, value: object) -> None:
        """Append what `value`'s ``__arrow_c_stream__`` or ``__arrow_c_array__`` gives, a batch at a time."""

    def tell(self) -> int:
        """Bytes of payload that were taken so far."""

    def commit(self) -> tuple[Literal["written", "exists", "superseded", "dropped"], int, int]:
        """Make it the key's entry; what became of it, the bytes of the stream, and the most its chunks took at once."""

    def close(self) -> None:
        """Leave nothing behind of what was not committed."""

@final
class StreamReader:
    """The payload of a stream, read from anywhere.

    Args:
        frame: The stream.
        key: Whose stream it is to be.
        keyring: With one, a sealed stream is read and no other; without one, one that is not sealed.
        workers: The most threads that read ahead.
    """

    def __new__(
        cls, frame: Frame, key: str, *, keyring: Keyring | None = None, workers: int | None = None
    ) -> StreamReader: ...
    @property
    def nbytes(self) -> int:
        """Bytes of payload."""

    @property
    def created(self) -> int | None:
        """When it was written, in milliseconds since 1970."""

    @property
    def until(self) -> int | None:
        """Until when it may be served."""

    @property
    def codec(self) -> str:
        """The codec of the payload."""

    def plain(self) -> Frame | None:
        """All of the payload where it stands, if it is neither sealed nor compressed."""

    def read(self, position: int, size: int) -> Frame:
        """Up to `size` bytes, those of one chunk; none at the end. Who goes on where it ended is read ahead."""

    def slice(self, position: int, size: int) -> Frame:
        """`size` bytes: where they stand, a part of a chunk in memory, or a copy."""

    def verify(self) -> None:
        """Read every chunk, and compare tags and checksums."""

    def close(self) -> None:
        """End its threads; nothing is read any more."""

@final
class TableScan:
    """The record batches of a table in a stream, read as a consumer of ``__arrow_c_stream__`` asks for them: once.

    Args:
        frame: The stream.
        key: Whose stream it is to be.
        columns: Which columns, in the order of the table.
        keyring: As of `StreamReader`.
        workers: The most threads that read ahead.
        progress: Called with the bytes that are done, and those in all, after each batch.
    """

    def __new__(
        cls,
        frame: Frame,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        keyring: Keyring | None = None,
        workers: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> TableScan: ...
    @property
    def num_batches(self) -> int:
        """How many batches there are."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> Any:
        """The batches as a capsule of the Arrow C stream interface; `requested_schema` is not looked at."""

    def __arrow_c_schema__(self) -> Any:
        """The schema of what is read."""
