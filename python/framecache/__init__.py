"""A cache whose values are written once into a frame and read in place.

>>> import framecache, tempfile
>>> with tempfile.TemporaryDirectory() as directory, framecache.Cache(f"file://{directory}/cache") as cache:
...     cache.set("greeting", b"hello", ttl=60)
...     cache.get("greeting")
True
b'hello'
"""

from framecache._cache import MISSING, Cache
from framecache._framecache import (
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
    ValueTooLarge,
    ViewExported,
    __version__,
    pool_nbytes,
    trim_pool,
)
from framecache._registry import register

__all__ = [
    "MISSING",
    "ArrowTable",
    "ByteStorage",
    "Cache",
    "CopyRequired",
    "DecodeError",
    "EncodeError",
    "EntryRefused",
    "Frame",
    "FrameBuilder",
    "FrameError",
    "FramecacheError",
    "InternalError",
    "InvalidArgument",
    "OutOfMemory",
    "SerializationWrapper",
    "StoreBusy",
    "StoreError",
    "ValueTooLarge",
    "ViewExported",
    "__version__",
    "pool_nbytes",
    "register",
    "trim_pool",
]
