"""What the checks of `_backend_suite` have in common: expecting, waiting, names and values."""

from __future__ import annotations

import os
import threading
import time

from framecache._backend import Write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from typing_extensions import Buffer

    from framecache._backend import Backend

    Connect = Callable[[], Backend]
    Check = Callable[[Connect], None]

#: Seconds for what must happen at some time.
PATIENCE: Final = 20.0
#: Milliseconds that no check takes.
LONG: Final = 3_600_000
THREADS: Final = 4
TURNS: Final = 25


def expect(found: object, expected: object, what: str) -> None:
    """Raise where it is something else."""
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r:.200}, found {found!r:.200}")


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until `condition` holds."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"{what}: expected within {PATIENCE:.0f} seconds, did not happen")
        time.sleep(0.005)


def new_names(count: int = 1) -> list[str]:
    """Names as entries have them; all of one call are in one slot of a cluster."""
    key = os.urandom(20).hex()
    return [f"fc:{number:032x}:{{{key}}}" for number in range(count)]


def plain(value: Buffer | None) -> bytes | None:
    """The bytes of a value."""
    return None if value is None else bytes(value)


def plains(values: Sequence[Buffer | None]) -> list[bytes | None]:
    """The bytes of several values."""
    return [plain(value) for value in values]


def a_write(name: str, *parts: Buffer, ends: int | None = LONG, **rest: Any) -> Write:
    """One that goes after `ends` milliseconds."""
    return Write(name, parts, ends, rest.get("guards", {}), rest.get("removes", ()), rest.get("stamps", {}))


def in_threads(work: Callable[[int], None]) -> None:
    """Run it at once in several threads; raise what one of them raised."""
    wrong: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            barrier.wait(PATIENCE)
            work(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]
