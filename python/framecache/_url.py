"""URLs of stores, and sizes as people write them."""

from __future__ import annotations

from framecache._framecache import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_UNITS: Final = {
    **{"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12},
    **{"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40},
}
#: Schemes of engines beyond this machine.
_REMOTE: Final = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
_CHOICES: Final = {"verify": ("header", "full"), "durability": ("process", "power"), "index": ("pwrite", "writemap")}


def size_of(argument: str, text: str) -> int:
    """Return how many bytes `text` is: digits, and one of B, KB, MB, GB, TB, KiB, MiB, GiB, TiB or nothing."""
    digits = text.rstrip("BKMGTi")
    unit = text[len(digits) :]
    if not digits.isascii() or not digits.isdigit() or unit not in _UNITS or len(digits) > 18:
        raise InvalidArgument(f"{argument}: expected a size such as 2GiB or 500MB, got {text!r:.100}")
    return int(digits) * _UNITS[unit]


def store_of(url: str) -> tuple[str, dict[str, Any]] | None:
    """Return the path and the settings in ``file:///path?name=value&name=value``; `None` for ``memory://``.

    ``file:`` is the directory `framecache` in the user's cache directory. Settings: max_bytes, index_bytes (sizes),
    verify (header, full), durability (process, power), index (pwrite, writemap), mode (rw, ro), writer_timeout
    (seconds).
    """
    if not isinstance(url, str):
        raise InvalidArgument(f"url: expected a str, got {type(url).__name__}")
    if url == "memory://":
        return None
    scheme, separator, rest = url.partition(":")
    path, _, query = rest.partition("?")
    if path.startswith("//"):
        path = path[2:]
        known = path.startswith("/")
    else:
        known = not path
        path = path or _user_directory()
    if scheme != "file" or not separator or not known or "#" in rest:
        raise InvalidArgument(
            f"url: expected 'file:///path' or 'file:///path?setting=value', 'file:' for your cache directory, "
            f"'redis://host:port/db', 'rediss://', 'unix://' or 'memory://', got {url!r}"
        )
    settings: dict[str, Any] = {}
    if not query and "%" not in path:  # importing urllib.parse takes longer than opening a store
        return path, settings
    from urllib.parse import parse_qsl, unquote

    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in settings or (name == "mode" and "read_only" in settings):
            raise InvalidArgument(f"url: expected each setting once, got {name!r} again")
        if name in ("max_bytes", "index_bytes"):
            settings[name] = size_of(f"url: {name}", value)
        elif name == "writer_timeout":
            settings[name] = seconds_of(name, value, 3600.0)
        elif name == "mode":
            settings["read_only"] = one_of(name, value, ("rw", "ro")) == "ro"
        elif name in _CHOICES:
            settings[name] = one_of(name, value, _CHOICES[name])
        else:
            known_settings = ", ".join(["max_bytes", "index_bytes", *_CHOICES, "mode", "writer_timeout"])
            raise InvalidArgument(f"url: expected 'file:///path' with settings of {known_settings}, got {name!r}")
    return unquote(path) if rest.startswith("//") else path, settings


def directory_of(url: str) -> tuple[str, dict[str, Any]]:
    """Return the path and the settings of a store that is one and can be written, as that of ``Cache(store=...)``."""
    where = None if is_remote(url) else store_of(url)
    if where is None or "read_only" in where[1]:
        raise InvalidArgument(f"store: expected 'file:///path' or 'file:', which is written too, got {url!r:.100}")
    return where


def is_remote(url: object) -> bool:
    """Whether it stands for an engine beyond this machine: a URL of one, or what is no URL at all."""
    return url.partition("://")[0] in _REMOTE if isinstance(url, str) else url is not None


def _user_directory() -> str:
    """`framecache` in the user's cache directory, as the XDG Base Directory Specification has it."""
    import os

    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):
        root = os.path.join(os.path.expanduser("~"), ".cache")
    os.makedirs(root, mode=0o700, exist_ok=True)
    return os.path.join(root, "framecache")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    """Return a setting's value, if it is one of `choices`."""
    if value not in choices:
        raise InvalidArgument(f"url: {name}: expected {' or '.join(choices)}, got {value!r:.100}")
    return value


def seconds_of(name: str, text: str, most: float) -> float:
    """Return a setting's value in seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:
        raise InvalidArgument(f"url: {name}: expected 0 to {most:.0f} seconds, got {text!r:.100}")
    return seconds
