"""Values that change while they are written, damaged text, failing memory, threads: an error or the right result."""

import contextlib
import dataclasses
import datetime
import enum
import gc
import json
import os
import random
import sys
import threading
import weakref

import pytest

import framecache.json as framecache_json
from framecache.json import OPT_NON_STR_KEYS, OPT_SORT_KEYS, JSONDecodeError, JSONEncodeError, dumps, loads
from support import run

DOCUMENT = (
    '{"id": 123, "größe": [1.5, -2e10, true, false, null], "tëxt\\n": "a\\u00e9\\ud83d\\ude00b\\"c\\\\",'
    ' "nested": {"a": {"b": [[], {}, ["日本", "😀"]]}}, "long": "' + "x" * 70 + '", "big": 123456789012345678901}'
)


class Odd:
    """An object without form."""


def changes_of(container):
    """What Python code may do to a container that is being written."""
    if isinstance(container, list):
        return [
            container.clear,
            lambda: container.extend(range(1000)),
            lambda: container.pop(0),
            lambda: container.__setitem__(slice(None), [Odd()] * len(container)),
            lambda: container.__setitem__(-1, "new"),
        ]
    return [
        container.clear,
        lambda: container.update((f"k{i}", i) for i in range(1000)),
        lambda: container.pop(next(iter(container)), None),
        lambda: container.update(dict.fromkeys(container, "new")),
        lambda: (container.clear(), container.update((f"other {i}", [i]) for i in range(4))),
    ]


def containers():
    return [
        [1, "a", Odd(), "b" * 50, [2]],
        [Odd(), Odd(), Odd(), {"a": Odd()}],
        {"a": 1, "b": Odd(), "c": "d" * 50, "e": [2]},
        {"a": Odd(), "b": Odd(), "c": Odd(), "d": {"e": Odd()}},
        {1: Odd(), "b": Odd(), "c": 1, "d": "x"},
    ]


@pytest.mark.parametrize(
    "option", [0, framecache_json.OPT_INDENT_2, OPT_SORT_KEYS, OPT_NON_STR_KEYS, OPT_SORT_KEYS | OPT_NON_STR_KEYS]
)
@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("change", range(5))
def test_default_that_changes_what_is_written_gives_json_or_an_error(option, which, change):
    for wrap in (lambda v: v, lambda v: [v], lambda v: {"k": v, "l": [v]}):
        container = containers()[which]
        value = wrap(container)

        def default(odd, container=container):
            changes_of(container)[change]()
            gc.collect(0)
            return "default"

        try:
            written = dumps(value, default, option)
        except JSONEncodeError:
            continue
        json.loads(written)


def test_a_list_that_changes_its_size_is_an_error():
    value = [Odd(), 1, 2]
    with pytest.raises(JSONEncodeError, match="list changed size while it was written"):
        dumps(value, lambda odd: value.append(1))
    value = {"a": Odd(), "b": 1}
    with pytest.raises(JSONEncodeError, match="dict changed size while it was written"):
        dumps(value, lambda odd: value.update(c=1))


def test_the_only_reference_may_go_while_it_is_written():
    inner = [Odd(), "kept" * 10, ["also kept"]]
    outer = [inner, {"d": inner}]
    del inner

    def default(odd):
        outer[0] = outer[1] = None
        gc.collect()
        return "default"

    written = dumps(outer, default)
    assert json.loads(written) == [["default", "kept" * 10, ["also kept"]], None]


def test_a_zone_may_change_what_is_written():
    value = []

    class Zone(datetime.tzinfo):
        def utcoffset(self, moment):
            value.clear()
            return datetime.timedelta(0)

    value += [datetime.datetime(2020, 1, 1, tzinfo=Zone()), "a" * 40, ["b"]]
    with pytest.raises(JSONEncodeError, match="list changed size"):
        dumps(value)
    value = {datetime.datetime(2020, 1, 1, tzinfo=Zone()): "a"}
    assert dumps(value, option=OPT_NON_STR_KEYS) == b'{"2020-01-01T00:00:00+00:00":"a"}'


def test_attributes_may_change_what_is_written():
    value = []

    @dataclasses.dataclass
    class Shifty:
        a: int

        @property
        def __dict__(self):
            value.clear()
            return {"a": 1}

    @dataclasses.dataclass
    class Slots:
        __slots__ = ("a",)
        a: int

        def __getattribute__(self, name):
            if name == "a":
                value.clear()
            return object.__getattribute__(self, name)

    class Member(enum.Enum):
        A = 1

        @property
        def value(self):
            value.clear()
            return [1]

    for odd in (Shifty(1), Slots(1), Member.A):
        value += [odd, "a" * 40, ["b"]]
        with pytest.raises(JSONEncodeError, match="list changed size"):
            dumps(value)


def test_a_dict_that_is_not_one_is_refused():
    @dataclasses.dataclass
    class Liar:
        a: int

        @property
        def __dict__(self):
            return [1]

    with pytest.raises(JSONEncodeError, match="Type is not JSON serializable"):
        dumps(Liar(1))


def test_instance_attributes_may_change_while_they_are_written():
    @dataclasses.dataclass
    class Account:
        a: object
        b: int = 1

    account = Account(Odd())

    def default(odd):
        account.__dict__.clear()
        return 1

    with pytest.raises(JSONEncodeError, match="dict changed size"):
        dumps(account, default)


def test_finalizers_may_run_while_something_is_written():
    events = []
    value = [None, "a" * 40, ["b"]]

    class Final(list):
        def __del__(self):
            value.clear()
            events.append(1)

    value[0] = [Final([Odd()])]

    def default(odd):
        value[0] = None
        return "default"

    with pytest.raises(JSONEncodeError, match="list changed size"):
        dumps(value, default)
    assert events == [1]


@pytest.mark.parametrize("form", [str, str.encode, lambda text: bytearray(text.encode())])
def test_every_truncation_is_an_error(form):
    text = DOCUMENT
    assert loads(form(text)) == json.loads(text) | {"big": float(123456789012345678901)}
    encoded = text.encode()
    for end in range(len(encoded)):
        with pytest.raises(JSONDecodeError):
            loads(encoded[:end])
    for end in range(len(text)):
        with pytest.raises(JSONDecodeError):
            loads(form(text[:end]))


def of_64_bits(text):
    return int(text) if -(2**63) <= int(text) < 2**64 else float(text)


def test_every_changed_byte_gives_what_the_standard_library_gives_or_an_error():
    encoded = DOCUMENT.encode()
    rng = random.Random(1)
    for place in range(len(encoded)):
        for byte in rng.sample(range(256), 12):
            damaged = encoded[:place] + bytes([byte]) + encoded[place + 1 :]
            try:
                found = loads(damaged)
            except JSONDecodeError:
                continue
            assert found == json.loads(damaged, parse_int=of_64_bits)


def test_long_numbers_take_time_in_proportion_to_their_length():
    for text in ("1" * 300 + "." + "1" * 10_000_000, "0." + "0" * 10_000_000 + "1", "1" * 10 + "e-" + "1" * 10_000_000):
        assert loads(text) == float(text)
    for text in ("1" * 10_000_000, "-" + "9" * 10_000_000, "1e" + "9" * 10_000_000):
        with pytest.raises(JSONDecodeError, match="infinity"):
            loads(text)


def test_a_million_levels_are_refused():
    for text in ("[" * 1_000_000, '{"a":' * 1_000_000, "[" * 1_000_000 + "]" * 1_000_000):
        with pytest.raises(JSONDecodeError, match="depth limit exceeded"):
            loads(text)
    value = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(JSONEncodeError, match="Recursion limit reached"):
        dumps(value)
    while value:
        value = value[0]


@pytest.mark.parametrize("kibibytes", [64, 128, 256])
def test_deep_values_in_a_thread_with_a_small_stack_end_no_process(kibibytes):
    assert "done" in run(
        f"""
        import threading
        from framecache.json import dumps, loads
        def work():
            value = 1
            for _ in range(254):
                value = [value]
            try:
                text = dumps(value, option=1)
                assert loads(text) == value
            except TypeError as error:
                assert str(error) == "Recursion limit reached"
            loads("[" * 1024 + "]" * 1024)
            class Odd:
                pass
            try:
                dumps(Odd(), lambda odd: [odd])
            except TypeError:
                pass
            print("done")
        threading.stack_size({kibibytes} * 1024)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """
    )


def count_references(action):
    """How many objects and blocks more there are after many calls of `action` than after a few."""
    for _ in range(20):
        action()
    gc.collect()
    before = sys.getallocatedblocks(), len(gc.get_objects())
    for _ in range(200):
        action()
    gc.collect()
    return sys.getallocatedblocks() - before[0], len(gc.get_objects()) - before[1]


def attempt(call, *arguments):
    def action():
        with contextlib.suppress(ValueError, TypeError):
            call(*arguments)

    return action


def fails(value):
    raise ValueError


@pytest.mark.parametrize(
    "action",
    [
        attempt(loads, DOCUMENT),
        attempt(loads, DOCUMENT.encode()),
        attempt(loads, bytearray(DOCUMENT.encode())),
        attempt(loads, DOCUMENT[:-1]),
        attempt(loads, DOCUMENT[:-30]),
        attempt(loads, '[{"a": [1.5, "xyz", {"b": tru}]}]'),
        attempt(loads, '{"abc": 1234567, "abc": [1], "abc": "\\ud800"}'),
        attempt(loads, b'["\xff"]'),
        attempt(dumps, json.loads(DOCUMENT) | {"big": 1}),
        attempt(dumps, [[{"a": [1, Odd()]}]]),
        attempt(dumps, [[{"a": [1, Odd()]}]], lambda odd: [1.5] * 3),
        attempt(dumps, [[{"a": [1, Odd()]}]], fails),
        attempt(dumps, ["x" * 100_000, "\ud800"]),
        attempt(dumps, {"b" * 70: [1000], "a": Odd()}, None, OPT_SORT_KEYS),
        attempt(dumps, {1000: [1000], "a": (), None: datetime.date(1, 1, 1)}, None, OPT_NON_STR_KEYS),
    ],
)
def test_nothing_is_lost_or_kept(action):
    blocks, objects = count_references(action)
    assert abs(blocks) < 20
    assert abs(objects) < 5


def test_the_values_of_a_call_are_freed_with_their_owner():
    class Tracked:
        pass

    tracked = Tracked()
    seen = weakref.ref(tracked)
    value = [tracked, {"a": tracked}]
    dumps(value, lambda odd: [1])
    with pytest.raises(JSONEncodeError):
        dumps(value, fails)
    counts = sys.getrefcount(tracked), sys.getrefcount(value)
    dumps(value, lambda odd: [1])
    assert (sys.getrefcount(tracked), sys.getrefcount(value)) == counts
    del tracked, value
    assert seen() is None


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        for text in (DOCUMENT, DOCUMENT[:-1], "[", '"\ud800"', "[" * 2000):
            attempt(loads, text)()
            assert gc.isenabled() is enabled
    finally:
        gc.enable()


def test_failing_allocations_are_memory_errors_and_lose_nothing():
    pytest.importorskip("_testcapi")
    run(
        f"""
        import _testcapi, gc, sys
        from framecache.json import dumps, loads
        document = {DOCUMENT!r}
        value = [loads(document)] * 3 + ["日本" * 3000, 'esc"' * 3000, {{str(i): i for i in range(3000)}}]
        long = dumps(value)
        encoded = document.encode()
        calls = [
            lambda: loads(encoded), lambda: loads(document), lambda: loads(bytearray(encoded)), lambda: loads(long),
            lambda: dumps(value), lambda: dumps(value, option=32), lambda: dumps(["x" * 70_000]),
            lambda: dumps({{1: [2.5], "a": None}}, option=4 | 32),
        ]
        failed = 0
        for call in calls:
            expected = call()
            for start in range(0, 400, 1):
                _testcapi.set_nomemory(start, start + 1)
                try:
                    found = call()
                except MemoryError:
                    failed += 1
                else:
                    _testcapi.remove_mem_hooks()
                    assert found == expected
                finally:
                    _testcapi.remove_mem_hooks()
            assert call() == expected
        assert failed > 100, failed
        assert gc.isenabled()
        """
    )


def test_several_threads_read_and_write_at_once():
    value = json.loads(DOCUMENT) | {"big": 0}
    text, failures = dumps(value), []

    def work():
        for _ in range(300):
            if (
                loads(text) != value
                or dumps(value) != text
                or dumps([Odd()], lambda odd: loads(text)) != b"[" + text + b"]"
            ):
                failures.append(1)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not failures


def test_a_call_inside_a_call_is_independent():
    def default(odd):
        assert loads(dumps({"a": ["inner"] * 500})) == {"a": ["inner"] * 500}
        with pytest.raises(JSONEncodeError):
            dumps([Odd()])
        return "x" * 3000

    assert loads(dumps([Odd(), {"k": Odd()}], default)) == ["x" * 3000, {"k": "x" * 3000}]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_reads_works_in_the_child():
    run(
        f"""
        import os, threading
        from framecache.json import dumps, loads
        document = {DOCUMENT!r}
        expected, stop = loads(document), threading.Event()
        def work():
            while not stop.is_set():
                dumps(loads(document))
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0 if loads(document) == expected and loads(dumps(expected)) == expected else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        """
    )


def test_a_buffer_that_other_threads_change_gives_a_value_or_an_error():
    buffer = bytearray(DOCUMENT.encode())
    stop = threading.Event()

    def scribble():
        rng = random.Random(2)
        while not stop.is_set():
            buffer[rng.randrange(len(buffer))] = rng.randrange(256)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(2000):
            attempt(loads, memoryview(buffer))()
    finally:
        stop.set()
        thread.join()
