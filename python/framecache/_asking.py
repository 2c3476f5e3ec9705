"""Operations that may have to ask an engine: written once, as coroutines, and run by threads and by event loops.

Such a coroutine awaits nothing but `ask`, `at_leisure`, `settled` and others of its kind. A thread that runs one waits
for each answer; an event loop has its own `AsyncBackend` ask, and other tasks go on meanwhile.
"""

from __future__ import annotations

from contextlib import suppress
from types import CoroutineType, coroutine

from framecache._background import in_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from typing import Any, TypeVar

    from framecache._backend import Backend

    T = TypeVar("T")

    #: A backend, its command and the arguments; without a backend, a function in place of the command.
    Question = tuple[Backend | None, Any, tuple[Any, ...]]
    Operation = Coroutine[Question, Any, T]


@coroutine
def ask(backend: Backend, command: str, *arguments: Any) -> Generator[Question, Any, Any]:
    """What a backend answers to a command."""
    return (yield backend, command, arguments)


@coroutine
def at_leisure(work: Callable[..., T], *arguments: Any) -> Generator[Question, Any, T]:
    """What `work` returns, which may take so long that no event loop is to wait for it."""
    return (yield None, work, arguments)  # type: ignore[no-any-return]


async def settled(found: Any) -> Any:
    """What a store returns that may be one of this machine, or else the result of its operation."""
    return await found if type(found) is CoroutineType else found


def run(operation: Operation[T]) -> T:
    """The result of an operation, for whose answers this thread waits."""
    try:
        backend, command, arguments = operation.send(None)
        while True:
            try:
                answer = command(*arguments) if backend is None else getattr(backend, command)(*arguments)
            except BaseException as error:
                backend, command, arguments = operation.throw(error)
            else:
                backend, command, arguments = operation.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def here(found: Any) -> Any:
    """As `settled`, for whose answers this thread waits."""
    return run(found) if type(found) is CoroutineType else found


async def run_in_loop(operation: Operation[T]) -> T:
    """The result of an operation, for whose answers this task waits. Its backend must have one for the running loop."""
    try:
        backend, command, arguments = operation.send(None)
        while True:
            try:
                if backend is None:
                    answer = await in_worker(command, *arguments)
                else:
                    answer = await getattr(backend.for_loop(), command)(*arguments)
            except GeneratorExit as gone:
                _abandon(operation, gone)
                raise
            except BaseException as error:
                backend, command, arguments = operation.throw(error)
            else:
                backend, command, arguments = operation.send(answer)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _abandon(operation: Operation[Any], gone: GeneratorExit) -> None:
    """End an operation whose loop is gone: whatever it still asks on its way out has no answer."""
    with suppress(GeneratorExit, StopIteration):
        while True:
            operation.throw(gone)


async def in_loop(store: Any, work: Callable[..., Operation[T]], *arguments: Any) -> T:
    """The result of the operation that `work` gives, on a store or none, for the running loop, which goes on meanwhile:
    whatever may touch a disk, or asks an engine that has nothing for loops, does so in a thread.
    """
    if store is None:
        return run(work(*arguments))
    if has_loop_backend(store):
        return await run_in_loop(work(*arguments))
    return await in_worker(lambda: run(work(*arguments)))


def backend_of(store: Any) -> Backend | None:
    """The engine beyond this machine that a store asks, if it does."""
    return getattr(getattr(store, "_store", store), "backend", None)


def has_loop_backend(store: Any) -> bool:
    """Whether a store asks an engine that needs no thread to be asked by the running loop."""
    return (backend := backend_of(store)) is not None and backend.for_loop() is not None
