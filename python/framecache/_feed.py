"""One connection that a server sends its changes over, and the two ways in which servers do that."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections import deque

from framecache import _background

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from typing import Any, Final, Protocol

    from framecache._listener import Listener

    class Way(Protocol):
        """How a server tells what was changed."""

        #: The version of RESP.
        protocol: int

        def prepare(self, connection: Any) -> None:
            """Have a connection, which is connected, give what the server says unasked."""

        def want(self, connection: Any, prefixes: Iterable[str]) -> int:
            """Ask to be told of names with these prefixes; return how many replies come."""

        def ask(self, connection: Any) -> None:
            """Ask the server who it is; one reply comes."""

        def changes(self, message: Any) -> tuple[list[str] | None] | None:
            """What a message says was changed, all names where that is `None`; `None` if it is a reply.

            Raises:
                ConnectionError: It makes no sense, and may have been about a change.
            """

        def is_confirmation(self, reply: Any) -> bool:
            """Whether it is one of the replies to `want`."""

        def answer(self, reply: Any) -> Any:
            """What a reply to `ask` says.

            Raises:
                ConnectionError: It is none.
            """


#: Seconds between two questions whether the server is there, and how long an answer may take.
PING_EVERY: Final = 0.5
SILENCE: Final = 1.0
#: Seconds between attempts to connect: at first, and at most; and where the server does not allow it.
_PAUSE: Final = (0.05, 2.0)
_REFUSED: Final = 30.0
#: Seconds between two looks at what is wanted.
_LOOK_EVERY: Final = 0.1


class Tracking:
    """The server tells the names of what anybody changes, expires, evicts: ``CLIENT TRACKING ON BCAST`` in RESP3.

    Args:
        question: The command that a server is asked who it is with.
    """

    protocol = 3

    def __init__(self, question: tuple[str, ...]) -> None:
        self._question = question

    def prepare(self, connection: Any) -> None:
        """Have it give invalidations instead of dropping them, as redis-py does by default from some version on."""
        set_handler = getattr(connection._parser, "set_invalidation_push_handler", None)
        if set_handler is not None:
            set_handler(lambda message: message)

    def want(self, connection: Any, prefixes: Iterable[str]) -> int:
        """Each prefix once: those that are tracked already stay so."""
        named = [part for prefix in prefixes for part in ("PREFIX", prefix)]
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *named)
        return 1

    def ask(self, connection: Any) -> None:
        """With the command given."""
        connection.send_command(*self._question)

    def changes(self, message: Any) -> tuple[list[str] | None] | None:
        """An invalidation's names; of one without any, the server forgot everything."""
        if not isinstance(message, list):
            return None
        if len(message) != 2 or message[0] != b"invalidate":
            raise _nonsense(message)
        names = message[1]
        if names is not None and not (isinstance(names, list) and all(type(name) is bytes for name in names)):
            raise _nonsense(message)
        return (None,) if names is None else ([name.decode(errors="replace") for name in names],)

    def is_confirmation(self, reply: Any) -> bool:
        """One ``OK``."""
        return bool(reply == b"OK")

    def answer(self, reply: Any) -> Any:
        """As it is."""
        return reply


class Published:
    """Writers tell the names of what they change, on a channel named as the names' prefix: `PublishingRedis`."""

    protocol = 2

    def prepare(self, connection: Any) -> None:
        """Nothing: in RESP2, messages are replies."""

    def want(self, connection: Any, prefixes: Iterable[str]) -> int:
        """Subscribe to the prefixes' channels."""
        channels = list(prefixes)
        connection.send_command("SUBSCRIBE", *channels)
        return len(channels)

    def ask(self, connection: Any) -> None:
        """Only whether it is there: who is subscribed in RESP2 may ask nothing else."""
        connection.send_command("PING")

    def changes(self, message: Any) -> tuple[list[str] | None] | None:
        """The names in a message, with spaces between them."""
        if not isinstance(message, list) or message[:1] != [b"message"]:
            return None
        if len(message) != 3 or type(message[2]) is not bytes:
            raise _nonsense(message)
        return (message[2].decode(errors="replace").split(" "),)

    def is_confirmation(self, reply: Any) -> bool:
        """A reply for each channel."""
        return isinstance(reply, list) and reply[:1] == [b"subscribe"]

    def answer(self, reply: Any) -> Any:
        """Nothing is known of the server but that it is there."""
        if not isinstance(reply, list) or reply[:1] != [b"pong"]:
            raise _nonsense(reply)
        return {}


class Feed:
    """What one server says, heard by a thread.

    Args:
        name: Of the server, for people.
        connect: Makes a connection of redis-py that speaks a version of RESP, and is not connected.
        listener: Is told.

    Attributes:
        answer: What the server answered last; `None` while it is not listened to.
        heard: The prefixes that it confirmed.
        error: Why it is not listened to.
    """

    def __init__(self, name: str, connect: Callable[[int], Any], listener: Listener) -> None:
        self.name = name
        self._connect = connect
        self._listener = listener
        self.wake = threading.Event()
        self.answer: Any = None
        self.heard: frozenset[str] = frozenset()
        self.error: Exception | None = None

    @property
    def trouble(self) -> str:
        """Why it is not listened to, in words."""
        return "connecting" if self.error is None else f"{self.name}: {type(self.error).__name__}: {self.error}"

    def start(self) -> None:
        """Begin, in a thread of its own."""
        threading.Thread(target=self._run, name="framecache-listener", daemon=True).start()

    def _run(self) -> None:
        listener, pause = self._listener, _PAUSE[0]
        while listener.wanted(self):
            self.wake.clear()
            connection = None
            try:
                connection = self._connect(listener.way.protocol)
                connection.connect()
                listener.way.prepare(connection)
                self._hear(connection)
                continue
            except Exception as error:
                self.error = error.with_traceback(None)  # which has this frame
                refused = type(error).__name__ in ("ResponseError", "NoPermissionError", "AuthenticationError")
                pause = _REFUSED if refused else _PAUSE[0] if self.answer else min(2 * pause, _PAUSE[1])
            finally:
                self.answer, self.heard = None, frozenset()
                listener.judge()
                if connection is not None:
                    connection.disconnect()
            self.wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311  # not a secret

    def _hear(self, connection: Any) -> None:
        """Pass on what the server says, until nobody wants it any more.

        Raises:
            TimeoutError: It did not answer in time.
        """
        listener, way = self._listener, self._listener.way
        awaited: deque[tuple[float, Callable[[Any], None]]] = deque()
        wanted: frozenset[str] = frozenset()
        doubt: Future[None] | None = None
        asked = looked = -PING_EVERY
        while True:
            now = time.monotonic()
            since = awaited[0][0] if awaited else now
            if now - (since if doubt is None else min(since, asked)) > SILENCE:
                raise TimeoutError(f"no answer for {SILENCE} seconds")
            if now - looked >= _LOOK_EVERY or self.wake.is_set():
                self.wake.clear()
                looked = now
                if not (prefixes := listener.wanted(self)):
                    return
                if new := prefixes - wanted:
                    wanted |= new
                    replies = way.want(connection, sorted(new))
                    awaited.extend([(now, functools.partial(self._confirmed, frozenset()))] * (replies - 1))
                    awaited.append((now, functools.partial(self._confirmed, new)))
            if doubt is not None and doubt.done():
                doubt = doubt.result()
            if now - asked >= PING_EVERY and doubt is None:
                asked = now
                way.ask(connection)
                awaited.append((now, self._answered))
                if (question := listener.servers.doubt(connection)) is not None:
                    doubt = _background.submit(question)
            # While there is something to read, the clock is looked at once for each message.
            if not connection.can_read(timeout=_LOOK_EVERY):
                continue
            message = connection.read_response(push_request=True)
            if (changes := way.changes(message)) is not None:
                listener.changed(changes[0])
            elif awaited:
                awaited.popleft()[1](message)
            else:
                raise _nonsense(message)

    def _confirmed(self, prefixes: frozenset[str], reply: Any) -> None:
        if not self._listener.way.is_confirmation(reply):
            raise _nonsense(reply)
        self.heard |= prefixes
        if self.answer is not None:
            self._listener.judge()

    def _answered(self, reply: Any) -> None:
        self.answer = self._listener.servers.answer(self._listener.way.answer(reply))
        self.error = None
        self._listener.judge()


def _nonsense(said: Any) -> ConnectionError:
    """What was meant is not known: it may have been a change."""
    return ConnectionError(f"expected what a listener is told, found {said!r:.100}")
