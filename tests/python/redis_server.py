"""A real Redis server for tests: one for each test that asks, on a free port of its own, stopped when the test ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from support import skip_or_fail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A server on a port of the loopback interface, which starts with the first `start`."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            skip_or_fail("redis-server is not installed (Debian: apt-get install redis-server)")
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        if self._options[:1] == ("SENTINEL",):
            arguments = [self._options[1], *settings, "--sentinel"]
        else:
            arguments = [*settings, "--save", "", "--appendonly", "no", *self._options]
        self._process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL)
        ends = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError, EOFError), socket.create_connection(("127.0.0.1", self.port), 1) as asked:
                asked.sendall(b"PING\r\n")
                if asked.recv(100):
                    return
            assert self._process.poll() is None, "redis-server ended"
            assert time.monotonic() < ends, "redis-server does not answer"
            time.sleep(0.01)

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

        return redis.Redis(port=self.port, socket_timeout=5, **settings)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that runs, with the options in the test's parameter."""
    pytest.importorskip("redis", reason="redis-py is not installed")
    made = Server(tmp_path_factory.mktemp("redis"), *getattr(request, "param", ()))
    made.start()
    yield made
    made.kill()


def begin(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A new interpreter that runs `code`; it talks through its pipes."""
    return subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
