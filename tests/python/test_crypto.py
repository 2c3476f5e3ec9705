"""Keyrings: what Python sees of sealing and opening, and what of keys and plaintext is left in memory."""

from __future__ import annotations

import contextvars
import copy
import hashlib
import hmac
import json
import os
import pickle
import re
import runpy
import subprocess
import sys
import textwrap
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import framecache
from framecache import msgpack
from framecache.crypto import EntryRefused, Keyring, MasterKey, derive_domain_key, key_fingerprint
from support import payload_of, run, skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

MASTER = bytes(range(32))
OTHER = bytes(range(1, 33))


def refusal(function: Any, *arguments: Any) -> str:
    with pytest.raises(EntryRefused) as caught:
        function(*arguments)
    return caught.value.reason


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, framecache.Frame])
@pytest.mark.parametrize("size", [0, 1, 100, 20_000, 300_000])
def test_any_bytes_are_sealed_and_opened(kind: Any, size: int) -> None:
    keyring = Keyring(MASTER)
    plain = os.urandom(size)
    (name,) = keyring.names("k")
    sealed = keyring.seal(kind(plain), name, created=1, until=2)
    opened = keyring.open(kind(bytes(sealed)), name)
    assert bytes(opened) == plain
    assert opened.address % 64 == 0
    assert opened.is_trusted
    _, metadata, codec = framecache.SerializationWrapper.unwrap(sealed)
    assert (codec, metadata["created"], metadata["until"], metadata["kid"]) == ("sealed", 1, 2, keyring.key_ids[0])


def test_what_is_opened_may_be_larger_than_any_block_of_the_pool() -> None:
    keyring = Keyring(MASTER)
    (name,) = keyring.names("k")
    plain = bytes(300 << 20)
    assert bytes(keyring.open(keyring.seal(plain, name), name)) == plain


def test_a_refusal_has_a_reason() -> None:
    keyring = Keyring(MASTER, previous=[OTHER])
    name, old_name = keyring.names("k")
    sealed = bytes(keyring.seal(b"plain", name))
    assert refusal(keyring.open, sealed, old_name) == "wrong_entry"
    assert refusal(keyring.open, sealed[:-1], name) == "truncated"
    assert refusal(keyring.open, sealed[:-1] + b"x", name) == "changed"
    assert refusal(keyring.open, sealed + b"x", name) == "changed_header"
    assert refusal(keyring.open, msgpack.encode(1), name) == "not_sealed"
    assert refusal(Keyring(OTHER).open, sealed, name) == "no_key"
    renamed = sealed.replace(keyring.key_ids[0].encode(), keyring.key_ids[1].encode())
    assert refusal(keyring.open, renamed, name) == "wrong_key"
    assert {reason for reason, count in keyring.stats()["refused"].items() if count == 1} == {
        *("wrong_entry", "truncated", "changed", "changed_header", "not_sealed", "wrong_key")
    }
    assert issubclass(EntryRefused, framecache.FramecacheError)
    assert issubclass(EntryRefused, ValueError)


def test_arguments_are_read_as_those_of_any_method() -> None:
    keyring, plain = Keyring(MASTER), b"plain"
    (name,) = keyring.names("k")
    sealed = keyring.seal(name=name, frame=plain, until=2**63, created=0)
    assert bytes(keyring.open(name=name, sealed=sealed)) == plain
    assert bytes(keyring.open(sealed, **{"".join(["na", "me"]): name})) == plain
    assert b'"created": 0, "until": 9223372036854775808}}' in bytes(sealed)
    for moment in [1, 2**30 - 1, 2**30, 2**60 - 1, 2**60, 2**64 - 1, True]:
        assert f'"until": {int(moment)}}}}}'.encode() in bytes(keyring.seal(plain, name, until=moment))
    seal: Any = keyring.seal
    wrong: Any = object()
    for arguments, keywords in [
        ((), {}),
        ((plain,), {}),
        ((plain, name, 1), {}),
        ((plain, name), {"name": name}),
        ((plain, name), {"other": 1}),
        ((plain,), {"created": 1}),
        ((plain, "name"), {}),
        ((plain, name), {"until": "1"}),
        ((1, name), {}),
    ]:
        with pytest.raises(TypeError):
            seal(*arguments, **keywords)
    for moment in [-1, 2**64]:
        with pytest.raises(OverflowError):
            keyring.seal(plain, name, until=moment)
    with pytest.raises(framecache.InvalidArgument):
        keyring.seal(plain, name[:31])
    with pytest.raises(TypeError):
        Keyring.seal(wrong, plain, name)


@pytest.mark.parametrize(
    ("codec", "value"),
    [("raw", b"bytes" * 1000), ("msgpack", {"a": [1, 2, {3}]}), ("msgpack", list(range(100_000)))],
)
def test_a_value_is_sealed_in_place(codec: str, value: Any) -> None:
    keyring = Keyring(MASTER)
    name, sealed = keyring.seal_value("k", codec, value, {"type": "bytes"}, created=7)
    assert name == keyring.names("k")[0]
    payload, found, described, created, until = keyring.open_value("k", sealed)
    assert (found, described, created, until) == (codec, {"type": "bytes"}, 7, None)
    assert (bytes(payload) if codec == "raw" else msgpack.unpackb(payload)) == value
    assert payload.address % 64 == 0
    assert refusal(keyring.open_value, "l", sealed) == "wrong_entry"


def test_an_arrow_table_is_opened_into_views() -> None:
    pa = pytest.importorskip("pyarrow")
    keyring = Keyring(MASTER)
    table = pa.table({"n": list(range(50_000)), "text": [str(n) for n in range(50_000)]})
    _, sealed = keyring.seal_value("k", "arrow", table, {})
    payload, codec, *_ = keyring.open_value("k", sealed)
    opened = pa.table(framecache.ArrowTable(payload, require_zero_copy=True))
    assert codec == "arrow"
    assert opened.equals(table)
    start, end = payload.address, payload.address + payload.nbytes
    buffers = [buffer for column in opened.columns for chunk in column.chunks for buffer in chunk.buffers() if buffer]
    assert all(start <= buffer.address < end for buffer in buffers if buffer.size)


def test_keys_come_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(MASTER.hex() + "\n")
    path.chmod(0o600)
    read, write = os.pipe()
    os.write(write, MASTER)
    os.close(write)
    monkeypatch.setenv("MY_KEY", MASTER.hex())
    keys = [MasterKey(MASTER), MasterKey(MASTER.hex()), MasterKey.from_file(path), MasterKey.from_descriptor(read)]
    keys += [key for key in [MasterKey.from_env("MY_KEY")] if key]
    os.close(read)
    assert {key.id for key in keys} == {Keyring(MASTER).key_ids[0]}
    assert len(keys) == 5
    assert MasterKey.from_env("NO_SUCH_VARIABLE") is None
    with pytest.raises(framecache.InvalidArgument, match="open one"):
        MasterKey.from_descriptor(-1)
    with pytest.raises(framecache.StoreError):
        MasterKey.from_descriptor(read)
    path.chmod(0o644)
    with pytest.raises(framecache.InvalidArgument, match=r"mode 644.*|chmod 600"):
        MasterKey.from_file(path)


def test_a_keyring_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMECACHE_MASTER_KEY", MASTER.hex())
    monkeypatch.setenv("FRAMECACHE_PREVIOUS_MASTER_KEYS", f"{OTHER.hex()}, {bytes(32).hex()}")
    keyring = Keyring.from_env(tenant="acme")
    assert keyring.key_ids == [MasterKey(key).id for key in (MASTER, OTHER, bytes(32))]
    assert keyring.names("k")[0] == Keyring(MASTER, tenant="acme").names("k")[0]
    monkeypatch.delenv("FRAMECACHE_MASTER_KEY")
    with pytest.raises(framecache.InvalidArgument, match="FRAMECACHE_MASTER_KEY"):
        Keyring.from_env()


def test_what_is_no_key_is_refused_without_showing_it() -> None:
    for key in [b"0123456789abcdef", "0123456789abcdef" * 3, "xyzw" * 16]:
        with pytest.raises(framecache.InvalidArgument) as caught:
            MasterKey(key)
        assert str(key[:8]) not in "".join(traceback.format_exception_only(caught.value))
    with pytest.raises(TypeError, match="got int"):
        Keyring(7)  # type: ignore[arg-type]
    with pytest.raises(framecache.InvalidArgument, match="twice"):
        Keyring(MASTER, previous=[MASTER])


def test_a_key_is_never_shown_copied_or_pickled() -> None:
    for thing in [MasterKey(MASTER), Keyring(MASTER, previous=[OTHER])]:
        for shown in [repr(thing), str(thing), str(vars(type(thing)))]:
            for key in [MASTER, OTHER]:
                assert key.hex() not in shown
                assert repr(key)[2:-1] not in shown
        for way in [pickle.dumps, copy.copy, copy.deepcopy]:
            with pytest.raises(TypeError, match="pickle"):
                way(thing)


def test_the_tenant_may_differ_in_every_call() -> None:
    current = contextvars.ContextVar[str]("current")
    keyring = Keyring(MASTER, tenant=current)
    with pytest.raises(LookupError):
        keyring.names("k")
    current.set("acme")
    (name,) = keyring.names("k")
    sealed = keyring.seal(b"plain", name)
    assert bytes(Keyring(MASTER, tenant="acme").open(sealed, name)) == b"plain"
    current.set("other")
    assert refusal(keyring.open, sealed, name) == "wrong_entry"
    asked = Keyring(MASTER, tenant=lambda: "acme")
    assert asked.names("k") == [name]
    for tenant in ["", 'a"b', "x" * 257]:
        with pytest.raises(framecache.InvalidArgument, match="tenant"):
            Keyring(MASTER, tenant=tenant)
    with pytest.raises(TypeError, match="tenant"):
        Keyring(MASTER, tenant=7)  # type: ignore[arg-type]


def test_names_of_keys_and_tags_need_the_keyring() -> None:
    keyring = Keyring(MASTER, previous=[OTHER])
    names = [*keyring.names("k"), *keyring.tag_names("k"), *Keyring(MASTER, tenant="t").names("k")]
    assert len({*names}) == 5
    assert {len(name) for name in names} == {32}
    with pytest.raises(framecache.InvalidArgument, match="32 bytes"):
        keyring.open(b"", b"short")


def test_a_rotation_counts_the_reads_under_old_keys() -> None:
    old, new = Keyring(OTHER), Keyring(MASTER, previous=[OTHER])
    _, sealed = old.seal_value("k", "raw", b"plain", {})
    for _ in range(3):
        new.open_value("k", sealed)
    assert new.stats()["opened"] == {new.key_ids[0]: 0, new.key_ids[1]: 3}
    assert (old.stats()["sealed"], new.stats()["sealed"]) == (1, 0)


def test_cachekits_keys_are_derived_as_it_does() -> None:
    key = derive_domain_key(bytes(31) + b"\1", "encryption", b"default")
    assert key.hex() == "222dd8cf7c63750f49fd6fc541552f8cdbe0f2d204cd10b082a9d0806a3ddc90"
    assert key_fingerprint(key).hex() == "7b57d59ef3334761ab2174cddc46dfe4"
    reference = pytest.importorskip("cachekit._rust_serializer")
    for domain, tenant in [("encryption", b"a"), ("cache_keys", "ü".encode() * 512), ("authentication", b"default")]:
        master = os.urandom(32)
        derived = derive_domain_key(master, domain, tenant)
        assert derived == reference.derive_domain_key(master, domain, tenant)
        assert key_fingerprint(derived) == reference.key_fingerprint(derived)


@pytest.mark.parametrize("size", [64 << 20, 100])
def test_other_threads_run_while_much_is_sealed_or_opened(size: int) -> None:
    keyring = Keyring(MASTER)
    (name,) = keyring.names("k")
    plain = bytes(size)
    sealed = keyring.seal(plain, name)
    doing, seen, finished = "nothing", set(), threading.Event()

    def work() -> None:
        nonlocal doing
        for _ in range(5):
            doing = "sealing"
            keyring.seal(plain, name)
            doing = "opening"
            keyring.open(sealed, name)
        doing = "nothing"
        finished.set()

    switch = sys.getswitchinterval()
    # So long that a thread runs only while the other one has let go of the GIL.
    sys.setswitchinterval(1000)
    try:
        worker = threading.Thread(target=work)
        worker.start()
        while not finished.wait(0.001):
            seen.add(doing)
        worker.join()
    finally:
        sys.setswitchinterval(switch)
    assert seen >= {"sealing", "opening"} if size > 100 else not seen


def salt_of(sealed: Any) -> str:
    return framecache.SerializationWrapper.unwrap(sealed)[1]["salt"]


ENTRIES = """
    import os, sys, framecache
    def entries(keyring, count=10_000):
        "Salt and nonce of so many new entries."
        (name,) = keyring.names("k")
        for _ in range(count):
            sealed = keyring.seal(b"plain", name)
            payload, metadata, _ = framecache.SerializationWrapper.unwrap(sealed)
            yield metadata["salt"] + bytes(payload[16:28]).hex()
"""


def test_forked_children_never_use_a_nonce_twice_under_a_key() -> None:
    found = run(
        ENTRIES
        + """
    from framecache.crypto import Keyring
    keyring = Keyring(bytes(32))
    seen = list(entries(keyring))
    def child(depth):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            lines = list(entries(keyring))
            if depth:
                lines += child(depth - 1)
            with os.fdopen(write, "w") as out:
                out.write("\\n".join(lines))
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            found = lines.read().split()
        assert os.waitpid(pid, 0)[1] == 0
        return found
    for depth in (0, 0, 1):
        seen += child(depth)
    seen += entries(keyring)
    print(len(seen), len(set(seen)), len({line[:32] for line in seen}))
    """
    )
    assert found.split() == ["60000", "60000", "5"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_never_use_a_nonce_twice(method: str, tmp_path: Path) -> None:
    module = tmp_path / "sealing.py"
    module.write_text(
        textwrap.dedent(ENTRIES)
        + textwrap.dedent("""
    from framecache.crypto import Keyring
    keyring = Keyring(bytes(32))
    warm = list(entries(keyring, 3))
    def work(_):
        return list(entries(keyring))
    """)
    )
    found = run(
        f"""
    import multiprocessing, sys
    sys.path.insert(0, {str(tmp_path)!r})
    import sealing
    context = multiprocessing.get_context({method!r})
    if {method!r} == "forkserver":
        context.set_forkserver_preload(["sealing"])
    with context.Pool(4, maxtasksperchild=1) as pool:
        seen = [line for lines in pool.map(sealing.work, range(4), chunksize=1) for line in lines] + sealing.warm
    print(len(seen), len(set(seen)))
    """,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert found.split() == ["40003", "40003"]


def test_a_child_opens_what_its_parent_sealed_while_another_thread_held_the_locks() -> None:
    run("""
    import os, threading
    from framecache.crypto import Keyring
    keyring = Keyring(bytes(32))
    (name,) = keyring.names("k")
    sealed = keyring.seal(b"plain" * 10_000, name)
    stop = threading.Event()
    def busy():
        while not stop.is_set():
            keyring.open(keyring.seal(bytes(50_000), name), name)
    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                os._exit(keyring.open(sealed, name).nbytes != 50_000)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    """)


def hkdf(key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, on its own."""
    extracted = hmac.digest(salt, key, "sha256")
    block = out = b""
    for count in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([count]), "sha256")
        out += block
    return out[:length]


class Victim:
    """A child that does what it is told, and whose memory is searched from here."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def said(self) -> str:
        return self._pipe(self.process.stdout).readline().strip()

    def go(self) -> None:
        pipe = self._pipe(self.process.stdin)
        pipe.write("\n")
        pipe.flush()

    def has(self, *patterns: bytes) -> list[int]:
        """How often each pattern stands in memory that the child can write."""
        counts = [0] * len(patterns)
        try:
            with Path(f"/proc/{self.process.pid}/mem").open("rb") as memory:
                for start, end in self._writable():
                    memory.seek(start)
                    content = memory.read(end - start)
                    counts = [count + content.count(pattern) for count, pattern in zip(counts, patterns, strict=True)]
        except PermissionError:
            skip_or_fail("the memory of a child cannot be read here")
        return counts

    def _writable(self) -> Iterator[tuple[int, int]]:
        for line in Path(f"/proc/{self.process.pid}/maps").read_text().splitlines():
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if found and "[v" not in line:
                yield int(found[1], 16), int(found[2], 16)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe

    def end(self) -> None:
        self.process.communicate("\n" * 10, timeout=60)
        assert self.process.returncode == 0


def test_keys_and_plaintext_are_wiped(tmp_path: Path) -> None:
    master, marker = os.urandom(32), os.urandom(32)
    (tmp_path / "key").write_text(master.hex())
    (tmp_path / "key").chmod(0o600)
    keyring = Keyring(master)
    (name,) = keyring.names("k")
    large, small = (keyring.seal(marker * count, name) for count in (100_000, 10))
    (tmp_path / "large").write_bytes(large)
    (tmp_path / "small").write_bytes(small)
    victim = Victim(f"""
        import framecache
        from framecache.crypto import Keyring, MasterKey
        large, small = (open({str(tmp_path)!r} + "/" + which, "rb").read() for which in ("large", "small"))
        keyring = Keyring(MasterKey.from_file({str(tmp_path / "key")!r}))
        (name,) = keyring.names("k")
        opened = [keyring.open(large, name), keyring.open(small, name)]
        print(framecache.SerializationWrapper.unwrap(keyring.seal(b"x", name))[1]["salt"], flush=True)
        input()
        del opened
        print(framecache.pool_nbytes(), flush=True)
        input()
        del keyring
        print("without keys", flush=True)
        input()
        """)
    salts = [bytes.fromhex(victim.said()), bytes.fromhex(salt_of(large))]
    salt = b"framecache v4default"
    sealing = [hkdf(master, salt, b"seal" + one, 32) for one in salts]
    derived = [hmac.digest(salt, master, "sha256"), hkdf(master, salt, b"names", 32), *sealing]
    # While they are in use, they are there: so the search finds what there is.
    counts = victim.has(marker, master, *derived[:2])
    assert counts[0] >= 100_010
    assert all(count == 1 for count in counts[1:])
    victim.go()
    assert int(victim.said()) >= 100_000 * 32
    assert victim.has(marker) == [0]
    victim.go()
    victim.said()
    assert victim.has(marker, master, master.hex().encode(), *derived) == [0] * 7
    victim.end()


def test_keys_and_plaintext_are_left_out_of_core_dumps(tmp_path: Path) -> None:
    run("""
    import re, framecache
    from framecache.crypto import Keyring
    keyring = Keyring(bytes(32))
    (name,) = keyring.names("k")
    opened = keyring.open(keyring.seal(bytes(8 << 20), name), name)
    inside, undumped = None, 0
    for line in open("/proc/self/smaps"):
        if found := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= opened.address + (4 << 20) < int(found[2], 16)
        elif line.startswith("VmFlags:"):
            undumped += " dd" in line
            assert not inside or " dd" in line
    assert undumped >= 3  # the plaintext, the master key, the tenant's keys
    """)


def test_drafts_are_wiped_as_they_grow_and_when_they_fail() -> None:
    marker, control = os.urandom(24), os.urandom(24)
    victim = Victim(f"""
        import framecache, framecache.msgpack
        from framecache.crypto import Keyring
        keyring = Keyring(bytes(32))
        marker, control = bytes.fromhex({marker.hex()!r}), bytes.fromhex({control.hex()!r})
        framecache.msgpack.encode([control] * 20_000)
        keyring.seal_value("k", "msgpack", [marker] * 20_000, {{}})
        try:
            keyring.seal_value("k", "msgpack", [[marker] * 20_000, object()], {{}})
        except framecache.EncodeError:
            print("done", flush=True)
        input()
        """)
    assert victim.said() == "done"
    # As MessagePack writes them; what is not sealed is not wiped.
    of_sealed, of_others = victim.has(*((b"\xc4\x18" + value) * 2 for value in (marker, control)))
    assert of_sealed == 0 < of_others
    victim.end()


def test_nothing_of_an_entry_can_be_read_in_its_frame() -> None:
    pa = pytest.importorskip("pyarrow")
    keyring = Keyring(MASTER)
    table = pa.table({"maiden_name": ["Curie", "Lovelace"]})
    _, sealed = keyring.seal_value("users:jane", "arrow", table, {"name": "series_name"})
    frame = bytes(sealed)
    plain_name = hashlib.sha256(b"users:jane").digest()
    for secret in [b"maiden_name", b"Curie", b"users:jane", b"series_name", b"ARROW1", b"arrow", plain_name]:
        assert secret not in frame
    assert payload_of(sealed).nbytes > 64


DOCS = Path(__file__).parents[2] / "proto-docs"
VECTORS = [json.loads(line) for line in (DOCS / "vectors/encryption.jsonl").read_text(encoding="ascii").splitlines()]


def vectors(kind: str) -> Any:
    chosen = [vector for vector in VECTORS if vector["kind"] == kind]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector["name"])


def ring_of(vector: dict[str, Any]) -> Keyring:
    current, *previous = vector["masters"]
    return Keyring(current, previous, tenant=vector["tenant"])


@vectors("keys")
def test_keys_and_names_are_derived_as_specified(vector: dict[str, Any]) -> None:
    keyring = Keyring(vector["master"], tenant=vector["tenant"])
    assert keyring.key_ids == [vector["key_id"]]
    assert {key: keyring.names(key)[0].hex() for key in vector["names"]} == vector["names"]
    assert {tag: keyring.tag_names(tag)[0].hex() for tag in vector["tag_names"]} == vector["tag_names"]


@vectors("opened")
def test_a_sealed_frame_is_opened_as_specified(vector: dict[str, Any]) -> None:
    sealed, inner = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["inner_hex"])
    keyring = ring_of(vector)
    payload, _, _, created, until = keyring.open_value(vector["key"], sealed)
    assert bytes(payload) == bytes.fromhex(vector["payload_hex"])
    assert (created, until) == (vector["created"], vector["until"])
    name = bytes.fromhex(framecache.SerializationWrapper.unwrap(sealed)[1]["name"])
    assert name in keyring.names(vector["key"])
    assert bytes(keyring.open(sealed, name)) == inner


@vectors("refused")
def test_a_sealed_frame_is_refused_as_specified(vector: dict[str, Any]) -> None:
    assert refusal(ring_of(vector).open_value, vector["key"], bytes.fromhex(vector["hex"])) == vector["reason"]


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("times", [{}, {"created": 0}, {"until": 2**64 - 1}, {"created": 10**18, "until": 10**19}])
def test_what_is_sealed_is_what_the_specification_makes_of_its_salt_and_nonce(
    in_place: bool, times: dict[str, int]
) -> None:
    make = runpy.run_path(str(DOCS / "vectors/make_encryption.py"))
    keyring = Keyring(MASTER, tenant="acme & söhne")
    if in_place:
        name, frame = keyring.seal_value("k", "msgpack", list(range(1000)), {}, **times)
        plain = bytes(keyring.open(frame, name))
    else:
        plain, (name,) = os.urandom(777), keyring.names("k")
        frame = keyring.seal(plain, name, **times)
    sealed = bytes(frame)
    payload, fields, _ = framecache.SerializationWrapper.unwrap(sealed)
    head = sealed[: -len(payload)]
    expected = make["sealed"](
        *(MASTER, "k", plain),
        tenant="acme & söhne",
        salt=bytes.fromhex(fields["salt"]),
        nonce=bytes(payload[16:28]),
        created=times.get("created"),
        until=times.get("until"),
        spaces=len(head) - len(head.rstrip(b" ")),
    )
    assert sealed == expected


def test_the_vectors_are_what_their_script_makes(tmp_path: Path) -> None:
    copied = tmp_path / "make_encryption.py"
    copied.write_bytes((DOCS / "vectors/make_encryption.py").read_bytes())
    runpy.run_path(str(copied), run_name="__main__")
    assert (tmp_path / "encryption.jsonl").read_bytes() == (DOCS / "vectors/encryption.jsonl").read_bytes()
