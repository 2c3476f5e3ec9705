"""Differential fuzzing of framecache.json against orjson and the standard library.

Runs for as many seconds as the first argument says (600 without it), from a random seed or the second argument.
Ends with an error at the first difference that tests/python/test_json_*.py does not list. Each value that is written,
or text that is read, by framecache and a peer is one execution.
"""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

import orjson

import framecache.json as framecache_json

TOKENS = [
    *'[]{}:,"\\ \n\t0123456789-+.eE',
    *(
        "null",
        "true",
        "false",
        '""',
        '"a"',
        '"\\n"',
        '"\\u00e9"',
        '"\\ud83d\\ude00"',
        "\\ud800",
        "é",
        "日本",
        "😀",
        "1e5",
        "-0",
    ),
    *(
        '{"a":',
        "[[",
        "]]",
        "}}",
        "1.5",
        "123456789012345678",
        "18446744073709551616",
        "1e308",
        "e-320",
        "\x00",
        "\ufeff",
    ),
    *('"' + "x" * 14 + '"', '"' + "y" * 33 + "\\", "\x1f", "\x7f", "null,", "0.1", "00", "tru"),
]
CHARACTERS = ["a", "b" * 9, '"', "\\", "/", "\n", "\x00", "\x1f", "\x7f", "é", "ÿ", "Ā", "日", "\u2028", "😀", " " * 3]
OPTIONS = [0, 0, 1, 32, 1 | 32, 4, 4 | 32, 1024, 64]


def text(rng: random.Random) -> str:
    return "".join(rng.choices(CHARACTERS, k=rng.choice((0, 1, 2, 3, 5, 8, 13, 30))))


def number(rng: random.Random) -> Any:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randrange(-10, 1000)
    if kind == 1:
        return rng.randrange(-(2 ** rng.randrange(1, 64)), 2 ** rng.randrange(1, 65))
    if kind == 2:
        return rng.uniform(-1, 1) * 10.0 ** rng.randrange(-320, 308)
    if kind == 3:
        return rng.randrange(10 ** rng.randrange(1, 18)) / 10 ** rng.randrange(0, 18)
    return float(rng.randrange(2**64))


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(10 if depth < 5 else 6)
    if kind < 2:
        return text(rng)
    if kind < 5:
        return number(rng)
    if kind == 5:
        return rng.choice((None, True, False))
    count = rng.choice((0, 1, 2, 3, 6, 12))
    if kind < 8:
        items = [value(rng, depth + 1) for _ in range(count)]
        return tuple(items) if rng.randrange(4) == 0 else items
    return {text(rng) if rng.randrange(9) else number(rng): value(rng, depth + 1) for _ in range(count)}


def outcome(module: Any, call: str, *arguments: Any) -> Any:
    try:
        found = getattr(module, call)(*arguments)
    except (ValueError, TypeError) as error:
        return type(error).__mro__[1].__name__, str(error)
    return found if isinstance(found, bytes) else repr(found)


def damaged(rng: random.Random, good: bytes) -> bytes:
    kind = rng.randrange(4)
    place = rng.randrange(len(good) + 1)
    if kind == 0:
        return good[:place]
    if kind == 1:
        return good[:place] + rng.choice(TOKENS).encode() + good[place:]
    if kind == 2:
        return good[:place] + bytes([rng.randrange(256)]) + good[place + 1 :]
    return good[:place] + good[place + rng.randrange(1, 4) :]


def is_listed(text: bytes | str, ours: Any, theirs: Any) -> bool:
    """Whether a difference is known: where bytes are not UTF-8; their error where ours is another one."""
    message = "str is not valid UTF-8"
    return (
        isinstance(ours, tuple)
        and isinstance(theirs, tuple)
        and ours[1].startswith(message)
        and theirs[1].startswith(message)
    )


def compare_loads(text: bytes | str) -> None:
    ours, theirs = outcome(framecache_json, "loads", text), outcome(orjson, "loads", text)
    if ours != theirs and not is_listed(text, ours, theirs):
        raise SystemExit(f"loads({text!r})\n  framecache: {ours}\n  orjson:     {theirs}")


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    end, executions = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(50):
            written = value(rng)
            option = rng.choice(OPTIONS)
            ours = outcome(framecache_json, "dumps", written, None, option)
            theirs = outcome(orjson, "dumps", written, None, option)
            if ours != theirs:
                raise SystemExit(f"dumps({written!r}, option={option})\n  framecache: {ours}\n  orjson:     {theirs}")
            executions += 1
            if not isinstance(ours, bytes):
                continue
            if repr(framecache_json.loads(ours)) != repr(json.loads(ours)) and not has_large(ours):
                raise SystemExit(f"loads({ours!r}) is not what the standard library reads")
            for _ in range(30):
                broken = damaged(rng, ours)
                compare_loads(broken)
                executions += 1
            compare_loads(ours.decode())
            compare_loads("".join(rng.choices(TOKENS, k=rng.randrange(12))))
            executions += 3
    print(f"{executions} executions, no difference")


def has_large(text: bytes) -> bool:
    """Whether it has an integer beyond 64 bits, which the standard library keeps."""
    return any(isinstance(found, int) and not -(2**63) <= found < 2**64 for found in numbers(json.loads(text)))


def numbers(value: Any) -> Any:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    else:
        yield value


main()
