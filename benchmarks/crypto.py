"""Sealing and opening: against AES-256-GCM alone, cachekit, and a thread that wants to run meanwhile.

Run with `make bench` or `python benchmarks/crypto.py`; results stand in RESULTS.md. AES-256-GCM alone is OpenSSL, by
way of `cryptography`; `benches/crypto.rs` compares with AWS-LC itself.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable

from cachekit._rust_serializer import ZeroKnowledgeEncryptor
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import framecache
import framecache.arrow
from framecache.crypto import Keyring

from .common import compare, print_machine

MIB = 2**20
keyring = Keyring(os.urandom(32))
(name,) = keyring.names("users:42")
CREATED, UNTIL = 1_700_000_000_000, 1_700_000_060_000


def bytes_of(size: int, rounds: int, calls: int) -> None:
    plain = os.urandom(size)
    sealed = bytes(keyring.seal(plain, name, created=CREATED, until=UNTIL))
    alone, nonce, out = AESGCM(os.urandom(32)), os.urandom(12), bytearray(size + 16)
    encrypted = alone.encrypt(nonce, plain, sealed[:384])
    theirs, master = ZeroKnowledgeEncryptor(), os.urandom(32)
    theirs_sealed = theirs.encrypt(plain, master, b"aad")
    kept: list[object] = [None]

    def opened_and_kept() -> None:
        """Frees the frame before after the next one is there: two blocks take turns, and wiping is in the time."""
        kept[0] = keyring.open(sealed, name)

    compare(
        f"seal {size} bytes",
        {
            "AES-256-GCM alone, to warm memory": lambda: alone.encrypt_into(nonce, plain, sealed[:384], out),
            "cachekit": lambda: theirs.encrypt(plain, master, b"aad"),
            "Keyring.seal": lambda: keyring.seal(plain, name, created=CREATED, until=UNTIL),
        },
        rounds=rounds,
        calls=calls,
        nbytes=size,
        clock=time.thread_time_ns,
    )
    plain_out = bytearray(size)
    compare(
        f"open {size} bytes",
        {
            "AES-256-GCM alone, to warm memory": lambda: alone.decrypt_into(nonce, encrypted, sealed[:384], plain_out),
            "cachekit": lambda: theirs.decrypt(theirs_sealed, master, b"aad"),
            "Keyring.open, and wiping": opened_and_kept,
        },
        rounds=rounds,
        calls=calls,
        nbytes=size,
        clock=time.thread_time_ns,
    )


def table() -> None:
    import numpy as np
    import pyarrow as pa

    size = 128 * MIB
    arrow = pa.table({f"c{index}": np.random.default_rng(index).random(size // 64) for index in range(8)})
    alone, nonce, out = AESGCM(os.urandom(32)), os.urandom(12), bytearray(size)
    encrypted = alone.encrypt(nonce, bytes(size), None)
    with tempfile.TemporaryDirectory() as directory:
        plain = framecache.Cache(f"file://{directory}/plain", l1=None)
        cache = framecache.Cache(f"file://{directory}/sealed", keyring=keyring, l1=None)
        for each in (plain, cache):
            each.set("t", arrow)
        framecache.trim_pool()
        start = time.thread_time()
        first = cache.get("t")
        print(f"\nget a sealed table of 128 MiB into fresh memory: {(time.thread_time() - start) * 1e3:.1f} ms")
        assert first.equals(arrow)
        del first
        compare(
            "get a table of 128 MiB from a mapped blob",
            {
                "one pass of AES-256-GCM, to warm memory": lambda: alone.decrypt_into(nonce, encrypted, None, out),
                "not sealed": lambda: plain.get("t"),
                "sealed": lambda: cache.get("t"),
            },
            rounds=15,
            nbytes=size,
            clock=time.thread_time_ns,
        )
        compare(
            "set a table of 128 MiB",
            {"not sealed": lambda: plain.set("t", arrow), "sealed": lambda: cache.set("t", arrow)},
            rounds=7,
            nbytes=size,
            clock=time.thread_time_ns,
        )
        framecache.trim_pool()
        floor = anonymous()
        held = cache.get("t")
        print(f"anonymous memory for the table: {(anonymous() - floor) / arrow.nbytes:.3f} of its size")
        del held


def anonymous() -> int:
    """Bytes of anonymous memory of this process."""
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def beside_a_counter() -> None:
    """How fast a Python thread counts while another one seals, and while it hashes, which needs no GIL either."""
    plain = os.urandom(64 * MIB)

    def count_beside(work: Callable[[], object]) -> float:
        stop = threading.Event()

        def again() -> None:
            while not stop.is_set():
                work()

        other = threading.Thread(target=again)
        other.start()
        number, end = 0, time.perf_counter() + 0.3
        while time.perf_counter() < end:
            for _ in range(1000):
                number += 1
        stop.set()
        other.join()
        return number

    turns = [
        count_beside(lambda: keyring.seal(plain, name)) / count_beside(lambda: hashlib.sha256(plain).digest())
        for _ in range(15)
    ]
    turns.sort()
    print(
        f"\na thread counts, beside one that seals 64 MiB, at {turns[7]:.3f} of its speed beside one that hashes them"
    )


if __name__ == "__main__":
    print_machine("framecache", "cachekit", "cryptography")
    bytes_of(100, rounds=41, calls=5000)
    bytes_of(64 * 1024, rounds=41, calls=200)
    bytes_of(64 * MIB, rounds=15, calls=1)
    table()
    beside_a_counter()
    sys.stdout.flush()
