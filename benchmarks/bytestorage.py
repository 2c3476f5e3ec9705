"""ByteStorage envelopes against cachekit's.

Run with `make bench` or `python -m benchmarks.bytestorage`; results stand in RESULTS.md.
"""

from __future__ import annotations

import random
import subprocess
import sys

from cachekit._rust_serializer import ByteStorage as CachekitStorage

import framecache

from .common import compare, print_machine

MIB = 2**20
ours, theirs = framecache.ByteStorage(), CachekitStorage("msgpack")


def log_text(size: int) -> bytes:
    """Return lines as services log them; LZ4 makes half of them."""
    rng = random.Random(1)
    second, lines, length = 1_700_000_000.0, [], 0
    while length < size:
        second += rng.expovariate(50)
        lines.append(
            f"{second:.6f} {rng.choice(['INFO', 'INFO', 'WARN', 'ERROR'])} service-{rng.randrange(20)} "
            f"request={rng.getrandbits(64):016x} user={rng.randrange(10**6)} "
            f"path=/api/v1/{rng.choice(['users', 'orders', 'items'])}/{rng.randrange(10**5)} "
            f"status={rng.choice([200, 200, 404, 500])} took={rng.random() * 100:.3f}ms\n"
        )
        length += len(lines[-1])
    return "".join(lines).encode()[:size]


def measure(name: str, data: bytes, rounds: int, calls: int = 1) -> None:
    envelope = ours.store(data)
    compare(
        f"store {name}, {len(data) / len(envelope):.2f} times smaller",
        {"cachekit": lambda: theirs.store(data, None), "framecache": lambda: ours.store(data)},
        rounds=rounds,
        calls=calls,
        nbytes=len(data),
    )
    payload = framecache.SerializationWrapper.unwrap(
        framecache.SerializationWrapper.wrap(envelope, {"format": "msgpack"}, "default")
    )[0]
    compare(
        f"retrieve {name}",
        {
            "cachekit": lambda: theirs.retrieve(envelope),
            "framecache": lambda: ours.retrieve(envelope),
            "framecache, from an unwrapped frame": lambda: ours.retrieve(payload),
            "framecache, validate": lambda: ours.validate(envelope),
        },
        rounds=rounds,
        calls=calls,
        nbytes=len(data),
    )


def big() -> None:
    text = log_text(64 * MIB)
    measure("1 MiB of log text", text[:MIB], rounds=41, calls=4)
    measure("64 MiB of log text", text, rounds=11)
    measure("16 MiB of noise", random.Random(1).randbytes(16 * MIB), rounds=15)


if __name__ == "__main__":
    if sys.argv[1:] == ["big"]:
        big()
    else:
        print_machine("framecache", "cachekit")
        measure("100 B of log text", log_text(100), rounds=41, calls=5000)
        big()
        print("\nThe same in a fresh process:", flush=True)
        subprocess.run([sys.executable, "-m", __spec__.name, "big"], check=True)
