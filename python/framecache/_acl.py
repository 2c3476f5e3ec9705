"""The rights that a user of the engine needs, and those that it turns out not to have."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: For reading and writing; the last ones for connecting as redis-py does.
_STORE: Final = (
    *("~fc:*", "~fcf:*", "~fcl:*", "+mget", "+get", "+set", "+getrange", "+setrange", "+unlink", "+exists"),
    *("+pttl", "+pexpire", "+persist", "+eval", "+multi", "+exec", "+ping", "+select", "+hello"),
)
#: For listening.
_TRACKING: Final = ("+client|tracking",)
_PUBLISHING: Final = ("&fc:*", "+subscribe", "+publish")
#: For finding the nodes of a cluster, and going where they send a client.
_NODES: Final = ("+cluster|slots", "+cluster|nodes", "+command", "+asking", "+info")


def rights(listen: str, cluster: bool = False) -> str:
    """What to give a user with ``ACL SETUSER``, besides a password and ``on``."""
    listening = {"tracking": _TRACKING, "publish": _PUBLISHING}.get(listen, ())
    return " ".join([*_STORE, *listening, *(_NODES if cluster else ())])


_COMMAND: Final = re.compile(r"permissions? to run the '([^']+)' command", re.IGNORECASE)
_UNKNOWN: Final = re.compile(r"unknown (?:sub)?command.{0,20}?['`]([^'`]+)['`]", re.IGNORECASE)


def missing(error: Exception | None) -> list[str]:
    """The rights that a refusal says are not there, or the command that the engine does not have."""
    text = "" if error is None else str(error)
    if (found := _COMMAND.search(text)) is not None:
        return [f"+{found[1].lower()}"]
    if (found := _UNKNOWN.search(text)) is not None:
        return [f"command {found[1].upper()}"]
    if "access a channel" in text or "channels used as arguments" in text:
        return ["&fc:*"]
    return ["~fc:*"] if "access a key" in text or "keys used as arguments" in text else []
