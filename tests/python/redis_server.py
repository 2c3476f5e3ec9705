"""Real Redis servers for tests, on free ports of their own, stopped when the test ends: alone, with TLS, with users."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from support import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from certificates import Authority

    Make = Callable[..., "Server"]

PATIENCE = 30.0


#: Not the one that tests seed: others that run at the same time would come by the same ports.
_random = random.SystemRandom()


def free_port() -> int:
    """One that no connection takes for its own end meanwhile, as those that the system chooses may."""
    while True:
        port = _random.randrange(10_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


class Server:
    """A server on a port of the loopback interface, which starts with the first `start`.

    Args:
        directory: Where it may write.
        options: Of its command line; ``SENTINEL`` and a file of settings make it a Sentinel.
        authority: Makes it speak TLS alone, with a certificate of this authority.
    """

    def __init__(self, directory: Path, *options: str, authority: Authority | None = None) -> None:
        self.port = free_port()
        self.authority = authority
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, credentials: str = "") -> str:
        scheme = "redis" if self.authority is None else "rediss"
        return f"{scheme}://{credentials}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            skip_or_fail("redis-server is not installed (Debian: apt-get install redis-server)")
        if self.authority is None:
            settings = ["--port", str(self.port)]
        else:
            settings = ["--port", "0", "--tls-port", str(self.port), *self.authority.of_server()]
        settings += ["--bind", "127.0.0.1", "--dir", str(self._directory)]
        if self._options[:1] == ("SENTINEL",):
            arguments = [self._options[1], *settings, "--sentinel"]
        else:
            # A replica is served at once, without a wait for others.
            settings += ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]
            arguments = [*settings, *self._options]
        log = self._directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen([program, *arguments], stdout=output, stderr=output)
        ends = time.monotonic() + PATIENCE
        while not self.ask("PING"):
            if self._process.poll() is not None:
                said = log.read_text(errors="replace")
                if "tls-port" in said:
                    skip_or_fail(f"redis-server was built without TLS: {said}")
                pytest.fail(f"redis-server ended: {said}")
            assert time.monotonic() < ends, "redis-server does not answer"
            time.sleep(0.01)

    def ask(self, command: str) -> bytes:
        """What it says to a command; nothing where it says nothing, as one that is about to change its role, and closes
        all connections.
        """
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as plain:
            asked: socket.socket = plain
            if self.authority is not None:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.load_cert_chain(*self.authority.of_client)
                asked = context.wrap_socket(plain)
            asked.sendall(f"{command}\r\n".encode())
            return asked.recv(1 << 16)
        return b""

    def kill(self) -> None:
        """Kill it, if it runs, and wait until it is gone."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop it where it is: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, **settings):
        import redis

        if self.authority is not None:
            settings.update(ssl=True, ssl_ca_certs=self.authority.file)
        return redis.Redis("127.0.0.1", self.port, socket_timeout=5, **settings)

    def user(self, *rights: str) -> str:
        """The URL of a new user with these rights, as `ACL SETUSER` takes them; on again with others."""
        self.client().execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights)
        return self.url_of("app:secret@")


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that runs, with the options in the test's parameter."""
    with several(tmp_path_factory) as make:
        yield make(*getattr(request, "param", ()))


@contextlib.contextmanager
def several(directories: pytest.TempPathFactory) -> Iterator[Make]:
    """Makes servers that run, and stops them all."""
    pytest.importorskip("redis", reason="redis-py is not installed")
    made: list[Server] = []

    def make(*options: str, **settings) -> Server:
        server = Server(directories.mktemp("redis"), *options, **settings)
        made.append(server)
        server.start()
        return server

    try:
        yield make
    finally:
        for server in made:
            server.kill()


def begin(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A new interpreter that runs `code`; it talks through its pipes."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
