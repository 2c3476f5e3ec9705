"""Numbers by name that all threads add to."""

from __future__ import annotations

import threading

import pytest

from framecache._framecache import Counters


def test_each_name_has_a_number():
    counters = Counters()
    assert counters.numbers() == {}
    counters.add("one")
    counters.add("many", 41)
    counters.add("many")
    # Another object with the same text.
    counters.add("".join(["o", "ne"]), 0)
    counters.add("ключ")
    assert counters.numbers() == {"one": 1, "many": 42, "ключ": 1}


def test_nothing_is_lost_between_threads():
    counters, barrier = Counters(), threading.Barrier(4)

    def work(number):
        barrier.wait(60)
        for turn in range(5000):
            counters.add(f"name {(number + turn) % 3}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(counters.numbers().values()) == 20_000


def test_what_is_no_name_is_refused():
    counters = Counters()
    for wrong in (b"name", None, 1):
        with pytest.raises(TypeError):
            counters.add(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        counters.add("name", -1)
    assert counters.numbers() == {}
