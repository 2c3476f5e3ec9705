"""A cache whose values are written once into a frame and read in place.

>>> import framecache, tempfile
>>> with tempfile.TemporaryDirectory() as directory, framecache.Cache(f"file://{directory}/cache") as cache:
...     cache.set("greeting", b"hello", ttl=60)
...     cache.get("greeting")
True
b'hello'

`framecache.cache` is a cache that is made when it is first used, as the environment says.
"""

from framecache._cache import Cache
from framecache._entry import Entry
from framecache._flight import RecursiveCall
from framecache._framecache import (
    MISSING,
    ArrowTable,
    ByteStorage,
    CopyRequired,
    DecodeError,
    EncodeError,
    EntryRefused,
    Frame,
    FrameBuilder,
    FramecacheError,
    FrameError,
    InternalError,
    InvalidArgument,
    OutOfMemory,
    SerializationWrapper,
    StoreBusy,
    StoreError,
    Unsupported,
    ValueTooLarge,
    ViewExported,
    __version__,
    pool_nbytes,
    trim_pool,
)
from framecache._registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from framecache._events import CacheInfo, Event

    cache: Cache

__all__ = [
    "MISSING",
    "ArrowTable",
    "ByteStorage",
    "Cache",
    "CacheInfo",
    "CopyRequired",
    "DecodeError",
    "EncodeError",
    "Entry",
    "EntryRefused",
    "Event",
    "Frame",
    "FrameBuilder",
    "FrameError",
    "FramecacheError",
    "InternalError",
    "InvalidArgument",
    "OutOfMemory",
    "RecursiveCall",
    "SerializationWrapper",
    "StoreBusy",
    "StoreError",
    "Unsupported",
    "ValueTooLarge",
    "ViewExported",
    "__version__",
    "cache",
    "pool_nbytes",
    "register",
    "trim_pool",
]


def __getattr__(name: str) -> object:
    """Make `cache`, `CacheInfo` and `Event` when they are first asked for."""
    if name == "cache":
        # Of two threads that make one at the same time, both get the first.
        return globals().setdefault(name, Cache())
    if name in ("CacheInfo", "Event"):
        from framecache import _events

        return globals().setdefault(name, getattr(_events, name))
    raise AttributeError(f"module 'framecache' has no attribute {name!r}")
