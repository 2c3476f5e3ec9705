"""Entries of an engine as bytes: the vectors, hostile ones, and answers of Redis."""

from __future__ import annotations

import json
import os
import pathlib
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

import framecache
from framecache import DecodeError, FrameError, StoreError
from framecache._framecache import L1, Entries, Frame, Replies, pack_command, packb
from redis_record import unpack

VECTORS = [
    json.loads(line)
    for line in (pathlib.Path(__file__).parents[2] / "proto-docs/vectors/redis-entries.jsonl").read_text().splitlines()
]
NOW = 1_790_000_000_000
STAMP = b"a stamp!"


def refuse(key, found):
    raise StoreError(f"{key!r} is {found!r}")


def entries_of(namespace=""):
    return Entries(namespace, L1(1, decode=None), refuse)


def result_of(raw, key="key", stamp=STAMP, entries=None, **how):
    reading = (entries or entries_of()).read([key])
    assert reading.feed([raw, stamp]) == []
    return reading.result(NOW, **how)


def of_kind(kind):
    lines = [line for line in VECTORS if line["kind"] == kind]
    assert lines
    return pytest.mark.parametrize("line", lines, ids=[line["name"] for line in lines])


@of_kind("entry")
def test_vectors_are_read_and_written(line):
    entries, raw, key = entries_of(line["namespace"]), bytes.fromhex(line["hex"]), line["key"]
    names = line["names"]
    assert entries.entries([key]) == [names["entry"]]
    assert (entries.generation, entries.fence(key), entries.lease(key)) == (
        names["generation"],
        names["fence"],
        names["lease"],
    )
    assert [entries.stamp(tag) for tag in line["tags"]] == names["stamps"]
    reading = entries.read([key])
    assert reading.names == [names["entry"], names["generation"]]
    stamps = [bytes.fromhex(stamp) for stamp in line["stamps"]]
    more = reading.feed([raw, bytes.fromhex(line["stamp"])])
    assert more == names["stamps"]
    if more:
        assert reading.feed(stamps) == []
    payload = bytes.fromhex(line["payload_hex"])
    value, created, deadline, until, size, guards = reading.result(NOW)
    assert (value, created, deadline, until) == (payload, line["created"], line["deadline"], line["until"])
    assert len(guards) == 6 * (3 + len(stamps))
    head = unpack(raw)
    assert (size, head.id.hex(), head.length % 64) == (len(raw) - head.length, line["id"], 0)
    assert reading.terms(NOW) == (created, deadline, until, head.id)
    made = entries.pack(
        key,
        "raw",
        {"type": "bytes"},
        len(payload),
        created,
        deadline,
        until,
        bytes.fromhex(line["stamp"]),
        list(zip(line["tags"], stamps, strict=True)),
    )
    assert len(made) % 64 == 0
    # All but the id, which is drawn anew.
    assert made[:40] + head.id + made[48:] + payload == raw


@of_kind("malformed")
def test_malformed_vectors_are_refused(line):
    raw = bytes.fromhex(line["hex"])
    stamp = bytes.fromhex("0123456789abcdef")
    with pytest.raises((FrameError, DecodeError, StoreError)) as refused:
        result_of(raw, line["key"], stamp)
    assert isinstance(refused.value, StoreError) == (line["why"] in ("another m.key", "no m.key"))


def made(key="key", payload=b"hello", codec="raw", python=None):
    described = {"type": "bytes"} if python is None else python
    return entries_of().pack(key, codec, described, len(payload), NOW, NOW, NOW, STAMP, []) + payload


def test_an_id_is_that_of_one_write():
    assert len({unpack(made()).id for _ in range(1000)}) == 1000


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_an_entry_or_an_error(data, headed):
    raw = made()[:64] + data if headed else data
    try:
        found = result_of(raw)
    except (FrameError, StoreError, DecodeError):
        return
    assert found in ("absent", "invalidated", "expired") or unpack(raw).stamp == STAMP


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3), st.booleans())
def test_a_changed_entry_is_what_the_full_parser_says(at, change, known):
    entries, raw = entries_of(), made()
    if known:  # so that the header's kind is remembered
        assert result_of(raw, entries=entries)[0] == b"hello"
    at %= len(raw)
    changed = raw[:at] + change + raw[at + len(change) :]

    def found(entries, raw):
        try:
            looked = result_of(raw, entries=entries)
        except (FrameError, DecodeError, StoreError) as error:
            return type(error), str(error)
        if isinstance(looked, tuple) and isinstance(looked[0], tuple):
            return bytes(looked[0][0]), *looked[0][1:], *looked[1:5]
        return looked if isinstance(looked, str) else looked[:5]

    first = found(entries_of(), changed)
    assert first == found(entries, changed)
    try:
        unpack(changed)
    except FrameError:
        assert first[0] is FrameError


def test_values_of_several_keys():
    entries = entries_of()
    large = os.urandom(100_000)
    values = {"a": made("a"), "b": None, "c": made("x"), "d": b"junk", "e": made("e", large)}
    values["f"] = made("f", packb([1, (2,)]), "msgpack", {})
    reading = entries.read(list(values))
    assert reading.feed([*values.values(), STAMP]) == []
    found, rest = reading.values(NOW)
    assert found == {"a": b"hello", "f": [1, (2,)]}
    assert rest["b"] == "absent"
    assert isinstance(rest["c"], StoreError)
    assert isinstance(rest["d"], FrameError)
    payload, codec, described = rest["e"][0]
    assert (bytes(payload), codec, described) == (large, "raw", {"type": "bytes"})


def test_memory_that_may_change_is_copied():
    raw = bytearray(made(payload=b"x" * 100_000))
    reading = entries_of().read(["key"])
    reading.feed([raw, STAMP])
    raw[64:] = bytes(len(raw) - 64)
    assert bytes(reading.result(NOW)[0][0]) == b"x" * 100_000


def test_a_read_takes_as_many_answers_as_it_has_names():
    with pytest.raises(framecache.InvalidArgument, match="answers to 2 names, got 1"):
        entries_of().read(["key"]).feed([None])


def receive(answer, count, step):
    """What comes of an answer that a socket receives in steps, and what it has of it in memory."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        replies, done, at = Replies(count), False, 0
        while done is False:
            theirs.sendall(answer[at : at + step])
            at += step
            done = replies.received(ours.recv_into(replies))
        return done, replies


@pytest.mark.parametrize("step", [1, 7, 1000, 65536, 150_000])
def test_a_socket_receives_values_where_they_stay(step):
    large = os.urandom(66_000 if step < 1000 else 140_000)
    answer = b"*4\r\n$3\r\nabc\r\n$-1\r\n$%d\r\n%s\r\n$0\r\n\r\n" % (len(large), large)
    done, replies = receive(answer, 4, step)
    assert (done, len(replies), replies.rest()) == (True, 4, b"")
    found = [replies[number] for number in range(4)]
    assert [None if one is None else bytes(one) for one in found] == [b"abc", None, large, b""]
    if step < len(large):
        assert found[2].address % 64 == 0


def test_other_answers_are_left_to_the_client():
    done, replies = receive(b"-MOVED 1 a:1\r\n", 2, 100)
    assert (done, replies.rest(), len(replies)) == (None, b"-MOVED 1 a:1\r\n", 2)
    done, replies = receive(b"*1\r\n$1\r\na\r\n>1\r\n", 1, 100)
    assert (done, replies.rest(), bytes(replies[0])) == (True, b">1\r\n", b"a")


def test_what_is_received_is_what_was_written():
    replies = Replies(1)
    with pytest.raises(ValueError, match="received"):
        replies.received(1)
    view = memoryview(replies)
    with pytest.raises(ValueError, match="received"):
        replies.received(1)
    with pytest.raises(BufferError):
        memoryview(replies)
    with pytest.raises(ValueError, match="exported"):
        replies.take(b"*1\r\n")
    view.release()
    with pytest.raises(ValueError, match="received"):
        replies.received(1 << 40)
    with pytest.raises(FrameError):
        replies.take(b"*2\r\n")


def test_commands_are_sent_from_where_their_parts_stand():
    large = Frame(os.urandom(100_000))
    packed = pack_command("SET", "é", (b"head", large, b"tail"), 17, b"")
    assert any(part is large for part in packed)
    assert b"".join(packed) == (
        b"*5\r\n$3\r\nSET\r\n$2\r\n\xc3\xa9\r\n$100008\r\nhead" + bytes(large) + b"tail\r\n$2\r\n17\r\n$0\r\n\r\n"
    )
    with pytest.raises(TypeError):
        pack_command(1.5)
