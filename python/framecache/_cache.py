"""The client: which codec a value takes, and what a miss is."""

from __future__ import annotations

import sys
import time

from framecache import _raw
from framecache._framecache import (
    CopyRequired,
    DecodeError,
    EntryRefused,
    FrameError,
    InvalidArgument,
    SerializationWrapper,
    Store,
    StoreError,
    unpackb,
)
from framecache._sealed import SEALED, SealedStore
from framecache._url import store_of

TYPE_CHECKING = False  # importing typing would cost more than all of framecache
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Any, Final, Literal

    from framecache._framecache import Frame, Keyring

#: The longest time to live, in seconds: 1000 years.
_LONGEST: Final = 1000 * 366 * 86400.0
#: The limit to values where none is given: 1 GiB.
_MAX_VALUE_BYTES: Final = 1 << 30
#: What the store gives that needs no decoding.
_READY: Final = (bytes, memoryview)
#: Seconds between two log lines about the same kind of unreadable entry.
_LOG_EVERY: Final = 60.0


class _Missing:
    """The type of `MISSING`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "framecache.MISSING"

    def __reduce__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


#: Pass it as `default` to tell a miss from a cached `None`.
MISSING: Final = _Missing()


class Cache:
    """A cache in a directory that all processes of this user share.

    Values are bytes-like objects, Arrow tables (anything with `__arrow_c_stream__` or `__arrow_c_array__`), pandas
    objects, and every Python value that `framecache.msgpack` keeps. What comes back is decoded from the stored frame
    and never the object that was stored.

    What cannot be read is a miss, counted in `stats()` and logged at most once a minute; what cannot be written is an
    error.

    Args:
        url: ``file:///path`` of the directory. It is created with mode 0700; one that is not owned by the effective
            user, or open to group or others, is refused with `StoreError`. Settings of the store follow as a query,
            ``file:///path?max_bytes=2GiB&durability=power``; `proto-docs/store.md` lists them.
        namespace: Keys of one namespace are apart from those of all others in the same directory.
        compression: How the payloads of new entries are compressed: `None`; ``"lz4"``; ``"zstd:LEVEL"`` with a level
            from 1 to 22; ``"zstd"``, which is level 1; ``"auto"``, which is LZ4 where that saves a tenth of the bytes.
            Entries are read however they were written. What is compressed cannot be read in place: a read
            decompresses it into memory of its own.
        max_value_bytes: The largest payload that is stored, and the largest that a compressed entry may become.
            Entries that are not compressed are read whatever their size.
        keyring: Seals every entry, and opens no other: the store sees neither values nor keys, and what it changed is
            refused. Sealed entries are not compressed, which would let their size tell what is in them.
        accept_plaintext_until: Until when entries that are not sealed are served too, for the time in which a cache
            changes over to a keyring. A datetime with a time zone.
        on_tamper: What `get` does about an entry that is refused for any other reason than a key that the keyring does
            not have: ``"miss"``, counted and logged, or ``"raise"`` the `EntryRefused`.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "",
        compression: str | None = None,
        max_value_bytes: int = _MAX_VALUE_BYTES,
        keyring: Keyring | None = None,
        accept_plaintext_until: datetime | None = None,
        on_tamper: Literal["miss", "raise"] = "miss",
    ) -> None:
        if not isinstance(compression, str | None):
            raise InvalidArgument(f"compression: expected None or a str, got {type(compression).__name__}")
        if type(max_value_bytes) is not int or not 0 < max_value_bytes <= sys.maxsize:
            raise InvalidArgument(
                f"max_value_bytes: expected an int from 1 to {sys.maxsize}, got {max_value_bytes!r:.100}"
            )
        if on_tamper not in ("miss", "raise"):
            raise InvalidArgument(f"on_tamper: expected 'miss' or 'raise', got {on_tamper!r:.100}")
        if keyring is None and accept_plaintext_until is not None:
            raise InvalidArgument("accept_plaintext_until: expected a keyring with it, got none")
        if keyring is not None and compression is not None:
            raise InvalidArgument(f"compression: expected None with a keyring, got {compression!r:.100}")
        path, settings = store_of(url)
        store = Store(path, namespace=namespace, compression=compression, max_value_bytes=max_value_bytes, **settings)
        self._store: Store | SealedStore | None = (
            store if keyring is None else SealedStore(store, keyring, namespace, accept_plaintext_until)
        )
        self._raise_on_tamper = on_tamper == "raise"
        self._url = url
        self._hits = 0
        self._counts: dict[str, int] = {}
        self._logged: dict[str, float] = {}

    def get(self, key: str, default: Any = None, *, views: bool = False, require_zero_copy: bool = False) -> Any:
        """Return the value stored under `key`, or `default`.

        bytes and bytearray are copied out of the frame, a stored memoryview or Frame comes back as a read-only
        memoryview of it. pyarrow and polars objects stand on the frame's memory. pandas columns that may be written
        are copied, all others stand on it too. Other values are rebuilt. The payload of a compressed entry is
        decompressed first; all the same goes for that.

        Args:
            key: What the value was stored under.
            default: What to return on a miss.
            views: Return read-only views of the frame where they can be: memoryviews for bytes and bytearray, pandas
                columns that cannot be written; inside other values arrays of 4 KiB and bytes of 64 KiB and more.
            require_zero_copy: Raise `CopyRequired`, naming the column and why, instead of copying or decompressing.
        """
        store = self._store or self._opened()
        try:
            found = store.get(key, _now(), views, require_zero_copy)
        except EntryRefused as error:
            if self._raise_on_tamper and error.reason != "no_key":
                raise
            return self._miss(error.reason, default, key, error)
        except (FrameError, StoreError) as error:
            return self._miss("unreadable", default, key, error)
        except CopyRequired as error:
            if require_zero_copy:
                raise
            return self._miss("undecodable", default, key, error)
        except DecodeError as error:
            return self._miss("undecodable", default, key, error)
        if isinstance(found, _READY):
            self._hits += 1
            return found
        return self._value(key, found, default, views, require_zero_copy)

    def _value(
        self,
        key: str,
        found: tuple[Frame, str, dict[str, Any]] | str,
        default: Any,
        views: bool,
        require_zero_copy: bool,
    ) -> Any:
        if isinstance(found, str):
            damaged = StoreError("its bytes are not what was written") if found == "unreadable" else None
            return self._miss(found, default, key, damaged)
        payload, codec, stored = found
        try:
            value = _decode(payload, codec, stored, views, require_zero_copy)
        except CopyRequired as error:
            if require_zero_copy:
                raise
            return self._miss("undecodable", default, key, error)
        except (DecodeError, ImportError) as error:
            return self._miss("undecodable", default, key, error)
        self._hits += 1
        return value

    def set(
        self,
        key: str,
        value: object,
        *,
        ttl: float | timedelta | None = None,
        tags: Iterable[str] = (),
        if_absent: bool = False,
        codec: Literal["json"] | None = None,
    ) -> bool:
        """Store `value` under `key`, replacing what was there. Other readers see the old value or the new one.

        Args:
            key: At most 64 KiB of UTF-8.
            value: See the class.
            ttl: Seconds after which it is no longer served; `None`: never. Fractions are kept to the millisecond.
            tags: What `invalidate_tags` can make it a miss by; at most 1000.
            if_absent: Leave what is stored as it is, if there is something.
            codec: ``"json"`` for an entry that others read: see `framecache.json`. It does not keep every type: tuples
                come back as lists, dates and UUIDs as str.

        Returns:
            Whether it was stored. It is not where `if_absent` found a value, or where another process wrote for longer
            than the store waits, or there was no room; the last two are counted as ``dropped`` in `stats()`.

        Raises:
            EncodeError: no codec takes the value (a `TypeError`). With ``codec="json"`` any `TypeError` of
                `framecache.json.dumps`.
            InvalidArgument: a key that is too long; a `ttl` that is not above 0 and finite (a `ValueError`).
            StoreError: the file cannot be written, as when the disk is full (an `OSError`).
            ValueTooLarge: a payload of more than `max_value_bytes` (a `ValueError`).
        """
        if codec is not None and codec != "json":
            raise InvalidArgument(f"codec: expected None or 'json', got {codec!r:.100}")
        return self._put({key: value}, ttl, tags, if_absent, codec) == 1

    def _put(
        self,
        values: Mapping[str, object],
        ttl: float | timedelta | None,
        tags: Iterable[str],
        if_absent: bool = False,
        codec: str | None = None,
    ) -> int:
        store = self._opened()
        created = _now()
        until = None if ttl is None else created + _milliseconds(ttl)
        if codec is None:
            encoded = [(key, *_encode(value)) for key, value in values.items()]
        else:
            encoded = [(key, codec, value, {}) for key, value in values.items()]
        stored = store.put_many(encoded, created, until, tags=_texts("tags", tags), if_absent=if_absent)
        if dropped := stored.count("dropped"):
            self._count("dropped", dropped)
        return stored.count("written")

    def get_many(self, keys: Iterable[str], *, views: bool = False) -> dict[str, Any]:
        """Return the values that are stored under `keys`, read at one moment. Keys without one are left out."""
        keys = _texts("keys", keys)
        values: dict[str, Any]
        try:
            values, rest = self._opened().get_many(keys, _now(), views)
        except (CopyRequired, DecodeError, FrameError, StoreError):
            # Which of them it is shows when they are read one by one.
            found_alone = ((key, self.get(key, MISSING, views=views)) for key in keys)
            return {key: value for key, value in found_alone if value is not MISSING}
        self._hits += len(values)
        if not rest:
            return values
        for key, found in rest.items():
            value = self._value(key, found, MISSING, views, require_zero_copy=False)
            if value is not MISSING:
                values[key] = value
        return {key: values[key] for key in keys if key in values}

    def set_many(
        self, values: Mapping[str, object], *, ttl: float | timedelta | None = None, tags: Iterable[str] = ()
    ) -> int:
        """Store each value under its key, as `set` does but all at once; return how many were stored.

        An error of one value is raised before anything is stored.
        """
        return self._put(values, ttl, tags)

    def touch(self, key: str, ttl: float | timedelta | None = None) -> bool:
        """Let what is stored under `key` be served for `ttl` from now on; return whether there was something.

        It is never served for longer than the `ttl` with which it was stored; `None` is for as long as that.

        Raises:
            StoreBusy: another process wrote for longer than the store waits (a `TimeoutError`).
        """
        now = _now()
        return self._opened().touch(key, None if ttl is None else now + _milliseconds(ttl), now)

    def delete(self, key: str) -> bool:
        """Remove the value stored under `key`; return whether there was one. Views of it stay valid.

        Raises:
            StoreBusy: another process wrote for longer than the store waits (a `TimeoutError`).
        """
        return self.delete_many([key]) > 0

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove the values stored under `keys`, all at once; return how many there were. Raises as `delete`."""
        return self._opened().delete_many(_texts("keys", keys), _now())

    def invalidate_tags(self, *tags: str) -> None:
        """Make all values that were stored with one of `tags` misses, at once. Raises as `delete`."""
        self._opened().invalidate_tags(_texts("tags", tags), _now())

    def clear(self) -> None:
        """Make all values of this namespace misses, at once. Raises as `delete`."""
        self._opened().clear()

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Iterate over the keys that begin with `prefix`, in no order; what changes meanwhile may be in it or not."""
        store, after = self._opened(), None
        while True:
            keys, after = store.keys(prefix, after, _now())
            yield from keys
            if after is None:
                return

    def __contains__(self, key: object) -> bool:
        """Whether `get` would find a value; it may be gone by the time `get` is called."""
        if not isinstance(key, str):
            return False
        try:
            return self._opened().contains(key, _now())
        except (FrameError, StoreError):
            return False

    def stats(self) -> dict[str, int]:
        """Return how often `get` found a value (``hit``) and why it did not.

        The reasons: ``absent``, ``expired``, ``invalidated`` (a tag or the namespace), ``other_key`` (two keys with one
        hash), ``unreadable`` (not what was written, or the system refused), ``undecodable`` (an unknown codec,
        compression or type, a damaged payload, one that decompressed would be larger than `max_value_bytes`, a library
        that is not installed, a sealed entry without a keyring). ``dropped`` counts what `set` did not store. With a
        keyring also why an entry was refused: ``not_sealed``, ``no_key`` (its master key is not in the keyring),
        ``wrong_key``, ``wrong_entry``, ``changed_header``, ``truncated``, ``changed``.
        """
        return {"hit": self._hits, **self._counts} if self._hits else dict(self._counts)

    def usage(self) -> dict[str, int]:
        """Return what the store uses: bytes of index and blobs, reserved ones, and those pinned by views of old blobs.

        With them: how many ``blobs`` there are, ``max_bytes``, and how many entries this cache evicted, found expired
        and found damaged.
        """
        return self._opened().stats()

    def verify(self) -> dict[str, int]:
        """Check every entry of the directory; remove those that are damaged, and files that no entry names.

        Returns:
            How many entries are ``whole``, how many were ``damaged``, and how many files were ``orphans``.
        """
        whole, damaged, orphans = self._opened().verify()
        return {"whole": whole, "damaged": damaged, "orphans": orphans}

    def close(self) -> None:
        """Close the directory. Values and views that were read stay valid. Closing twice is fine."""
        self._store = None

    def __enter__(self) -> Cache:
        """Return the cache itself."""
        self._opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Its URL."""
        return f"framecache.Cache({self._url!r})"

    def _opened(self) -> Store | SealedStore:
        if self._store is None:
            raise InvalidArgument(f"Cache({self._url!r}): expected an open cache, got a closed one")
        return self._store

    def _count(self, what: str, times: int = 1) -> None:
        self._counts[what] = self._counts.get(what, 0) + times

    def _miss(self, reason: str, default: Any, key: str = "", error: Exception | None = None) -> Any:
        self._count(reason)
        if error is not None:
            now = time.monotonic()
            if now - self._logged.get(reason, -_LOG_EVERY) >= _LOG_EVERY:
                self._logged[reason] = now
                import logging

                logging.getLogger("framecache").warning("%s entry of %.100r is a miss: %s", reason, key, error)
        return default


def _encode(value: object) -> tuple[str, Any, dict[str, Any]]:
    """Return the codec for `value`, what to hand to it, and what decoding needs to know."""
    if (raw := _raw.encode(value)) is not None:
        return raw
    kind = type(value)
    if kind.__module__ != "builtins":
        from framecache import arrow

        if (table := arrow.describe(value)) is not None:
            return "arrow", *table
    return "msgpack", value, {}


def _decode(payload: Frame, codec: str, stored: dict[str, Any], views: bool, require_zero_copy: bool) -> Any:
    if codec == "raw":
        return _raw.decode(payload, stored, views, require_zero_copy)
    if codec == "arrow":
        from framecache import arrow

        return arrow.rebuild(payload, stored, views=views, require_zero_copy=require_zero_copy)
    if codec == "msgpack":
        value = unpackb(payload, views=views)
        if require_zero_copy and not _is_view(value):
            raise CopyRequired("reading payload would copy: only bytes and arrays can be views, with views=True")
        return value
    if codec == "json":
        if require_zero_copy:
            raise CopyRequired("reading payload would copy: JSON has no views")
        from framecache import json

        try:
            return json.loads(memoryview(payload))
        except json.JSONDecodeError as error:
            raise DecodeError(f"cannot decode json payload: {error}") from error
    if codec == SEALED:
        key_id = SerializationWrapper.unwrap(payload)[1].get("kid")
        raise DecodeError(f"cannot decode sealed payload: expected a keyring with master key {key_id}, found none")
    raise DecodeError(f"cannot decode payload: expected codec 'raw', 'arrow', 'msgpack' or 'json', found {codec!r}")


def _is_view(value: Any) -> bool:
    """Whether it is a memoryview, or an array that stands on other memory."""
    return isinstance(value, memoryview) or getattr(getattr(value, "flags", None), "owndata", True) is False


def _now() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return int(time.time() * 1000)


def _milliseconds(ttl: float | timedelta) -> int:
    seconds = ttl.total_seconds() if hasattr(ttl, "total_seconds") else ttl
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise InvalidArgument(f"ttl: expected seconds or a timedelta, got {type(ttl).__name__}")
    if not 0 < seconds <= _LONGEST:
        raise InvalidArgument(f"ttl: expected more than 0 seconds and at most {_LONGEST:.0f}, got {ttl!r}")
    return max(1, round(seconds * 1000))


def _texts(argument: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise InvalidArgument(f"{argument}: expected several of them, got the str {texts!r:.100}; put it in a list")
    return list(texts)
