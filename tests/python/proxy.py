"""Stands between clients and a Redis server, and passes on what they say: late, in part, twice, or not at all."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[["Reply"], bytes]

#: Begins what a server says without having been asked: a message to a subscriber.
_MESSAGE = b"*3\r\n$7\r\nmessage"


class Reply(NamedTuple):
    """What a server says.

    Attributes:
        command: What it was asked, word by word; nothing for what it says unasked.
        data: What it says.
        listens: Whether the connection is one of a listener.
        connection: The number of the connection, from 0.
    """

    command: tuple[bytes, ...]
    data: bytes
    listens: bool
    connection: int

    def is_about(self, name: str | bytes) -> bool:
        """Whether the command has a word that begins like this."""
        name = name.encode() if isinstance(name, str) else name
        return any(word.startswith(name) for word in self.command)


class Cut(Exception):
    """Raised where a connection is to end.

    Args:
        data: What is still passed on.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.data = data


class Proxy:
    """Takes connections on a port of its own for a server's.

    Attributes:
        port: Its own port.
        change: What becomes of each reply of the server.
        replies: What the server said last.
        connections: How many connections were made.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self.change: Change = as_it_is
        self.replies: deque[Reply] = deque(maxlen=2000)
        self.connections = 0
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._is_held: Callable[[Reply], bool] = nothing
        self._mutex = threading.Lock()
        self._open: list[_Connection] = []
        self._taker = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._taker.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        """End all connections, and take none any more."""
        with contextlib.suppress(OSError):
            self._taker.shutdown(socket.SHUT_RDWR)
        self._taker.close()
        self.go_on()
        self.cut()

    def hold(self, which: Callable[[Reply], bool]) -> None:
        """From now on keep back such replies, and what comes after them on their connections."""
        self._goes_on.clear()
        self._is_held = which

    def go_on(self) -> None:
        """Pass on what was held, and hold nothing."""
        self._is_held = nothing
        self._goes_on.set()

    def cut(self, listeners_only: bool = False) -> None:
        """End connections; new ones are taken."""
        with self._mutex:
            ended = [one for one in self._open if one.listens or not listeners_only]
            self._open = [one for one in self._open if one not in ended]
        for connection in ended:
            connection.end()

    def listeners(self) -> int:
        """How many connections of listeners are open."""
        with self._mutex:
            return sum(one.listens for one in self._open)

    def asked(self, name: str | bytes) -> int:
        """How many commands had a word that begins like this, and were answered."""
        return sum(reply.is_about(name) for reply in list(self.replies))

    def _take(self) -> None:
        while True:
            try:
                client, _ = self._taker.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to), 5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._mutex:
                connection = _Connection(self, client, server, self.connections)
                self.connections += 1
                self._open.append(connection)
            connection.start()

    def passed(self, reply: Reply) -> bytes:
        """What is passed on of a reply; waits while it is held."""
        if self._is_held(reply):
            self._goes_on.wait()
        self.replies.append(reply)
        return self.change(reply)

    def forget(self, connection: _Connection) -> None:
        with self._mutex, contextlib.suppress(ValueError):
            self._open.remove(connection)


class _Connection:
    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket, number: int) -> None:
        self.listens = False
        self._number = number
        self._proxy = proxy
        self._client = client
        self._server = server
        self._asked: deque[tuple[bytes, ...]] = deque()

    def start(self) -> None:
        for work in (self._there, self._back):
            threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Cut as cut:
            with contextlib.suppress(OSError):
                self._client.sendall(cut.data)
        except OSError:
            pass
        finally:
            self.end()

    def end(self) -> None:
        self._proxy.forget(self)
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _there(self) -> None:
        for command in _each(self._client):
            words = words_of(command)
            # Noted before it is sent: the reply may come before this thread does anything else.
            self._asked.append(words)
            if words[:2] == (b"CLIENT", b"TRACKING"):
                self.listens = True
            self._server.sendall(command)

    def _back(self) -> None:
        for data in _each(self._server):
            is_asked = not data.startswith((b">", _MESSAGE)) and self._asked
            command = self._asked.popleft() if is_asked else ()
            self._client.sendall(self._proxy.passed(Reply(command, data, self.listens, self._number)))


def _each(one: socket.socket):
    """What somebody says, one value of the protocol after the other."""
    said = b""
    while data := one.recv(1 << 16):
        said += data
        at = 0
        while (end := end_of(said, at)) is not None:
            yield said[at:end]
            at = end
        said = said[at:]


def end_of(data: bytes, at: int) -> int | None:
    """Where the value ends that begins here; `None` where there is not all of it."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, end = data[at : at + 1], line + 2
    if kind in b"$=!":
        end += max(0, int(data[at + 1 : line]) + 2)
        return end if end <= len(data) else None
    if kind in b"*%~>|":
        for _ in range(int(data[at + 1 : line]) * (2 if kind in b"%|" else 1)):
            if (after := end_of(data, end)) is None:
                return None
            end = after
    return end


def words_of(command: bytes) -> tuple[bytes, ...]:
    """The words of a command."""
    count, _, rest = command.partition(b"\r\n")
    words = []
    for _ in range(int(count[1:])):
        size, _, rest = rest.partition(b"\r\n")
        length = int(size[1:])
        words.append(rest[:length])
        rest = rest[length + 2 :]
    return tuple(words)


def as_it_is(reply: Reply) -> bytes:
    """Pass on all of a reply."""
    return reply.data


def nothing(reply: Reply) -> bool:
    """Hold no reply."""
    return False
