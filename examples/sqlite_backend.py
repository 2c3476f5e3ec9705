"""An engine of one's own: entries in a table of SQLite, as they could be in any database.

>>> import framecache, tempfile
>>> directory = tempfile.TemporaryDirectory()
>>> cache = framecache.Cache(SQLiteBackend(directory.name + "/cache.db"), namespace="shop")
>>> cache.set("greeting", {"hello": "world"}, tags=["words"])
True
>>> cache.get("greeting")
{'hello': 'world'}
>>> cache.invalidate_tags("words")
>>> cache.get("greeting") is None
True
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from framecache import StoreError
from framecache.backend import Backend, Capabilities, NoRoom, Write

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TABLE = "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, value BLOB NOT NULL, ends INTEGER) WITHOUT ROWID"
GET = "SELECT value FROM entries WHERE name = :name AND (ends IS NULL OR ends > :now)"
LIST = """SELECT name FROM entries WHERE name > :start AND name < :end AND (ends IS NULL OR ends > :now)
          ORDER BY name LIMIT 100"""
#: What is over goes with the next writes, some at a time.
SWEEP = "DELETE FROM entries WHERE name IN (SELECT name FROM entries WHERE ends <= :now LIMIT 10)"


class SQLiteBackend(Backend):
    """Entries in one table. Each command is a transaction."""

    capabilities = Capabilities(keys=True, tags=True, lease=True, atomic=True)

    def __init__(self, path: str) -> None:
        """Open the database at a path, or make it."""
        self.place = f"sqlite://{os.path.abspath(path)}"
        self._path = path
        self._threads = threading.local()
        with self._transaction() as database:
            database.execute(TABLE)

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        """Within it, all is one step. Each thread has a connection, and so has a forked child."""
        if getattr(self._threads, "process", None) != os.getpid():
            self._threads.process = os.getpid()
            self._threads.database = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        database: sqlite3.Connection = self._threads.database
        try:
            database.execute(f"BEGIN {kind}")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorname", "") == "SQLITE_FULL"
            raise (NoRoom if full else StoreError)(f"sqlite: expected a transaction, found {error}") from error

    def get_many(self, names: Sequence[str]) -> list[bytes | None]:
        """As `Backend.get_many`."""
        with self._transaction("DEFERRED") as database:
            return [_get(database, name) for name in names]

    def names(self, prefix: str, start: str | None) -> tuple[list[str], str | None]:
        """As `Backend.names`, a hundred at a time."""
        with self._transaction("DEFERRED") as database:
            where = {"start": prefix if start is None else start, "end": prefix + "\x7f", "now": _now()}
            rows = database.execute(LIST, where).fetchall()
        return [name for (name,) in rows], rows[-1][0] if len(rows) == 100 else None

    def set(self, write: Write) -> bool:
        """As `Backend.set`."""
        with self._transaction() as database:
            stamps = {name: stamp for name, (stamp, _) in write.stamps.items()}
            if any(_get(database, name) != value for name, value in {**write.guards, **stamps}.items()):
                return False
            for name, (_, lasts) in write.stamps.items():
                _last(database, name, lasts)
            _set(database, write.name, b"".join(write.parts), write.milliseconds)
            database.executemany("DELETE FROM entries WHERE name = ?", [(name,) for name in write.removes])
            database.execute(SWEEP, {"now": _now()})
            return True

    def delete_many(self, names: Sequence[str]) -> int:
        """As `Backend.delete_many`."""
        with self._transaction() as database:
            found = sum(_get(database, name) is not None for name in set(names))
            database.executemany("DELETE FROM entries WHERE name = ?", [(name,) for name in names])
            return found

    def delete_if(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.delete_if`."""
        with self._transaction() as database:
            value = _get(database, name)
            if is_same := value is not None and value[offset : offset + len(part)] == part:
                database.execute("DELETE FROM entries WHERE name = ?", (name,))
            return is_same

    def touch(self, name: str, offset: int, part: bytes) -> bool:
        """As `Backend.touch`."""
        with self._transaction() as database:
            if (value := _get(database, name)) is None:
                return False
            value = value[:offset] + part + value[offset + len(part) :]
            database.execute("UPDATE entries SET value = ? WHERE name = ?", (value, name))
            return True

    def stamps(self, names: Sequence[str], milliseconds: Sequence[int | None]) -> list[bytes]:
        """As `Backend.stamps`."""
        with self._transaction() as database:
            stamps = []
            for name, lasts in zip(names, milliseconds, strict=True):
                if (stamp := _get(database, name)) is None:
                    stamp = os.urandom(8)
                    _set(database, name, stamp, lasts)
                _last(database, name, lasts)
                stamps.append(stamp)
            return stamps

    def lease(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.lease`."""
        with self._transaction() as database:
            if _get(database, name) not in (None, b"%d" % token):
                return False
            _set(database, name, b"%d" % token, milliseconds)
            return True

    def renew(self, name: str, token: int, milliseconds: int) -> bool:
        """As `Backend.renew`."""
        with self._transaction() as database:
            if is_mine := _get(database, name) == b"%d" % token:
                _set(database, name, b"%d" % token, milliseconds)
            return is_mine

    def release(self, name: str, token: int) -> bool:
        """As `Backend.release`."""
        with self._transaction() as database:
            if _get(database, name) != b"%d" % token:
                return False
            database.execute("DELETE FROM entries WHERE name = ?", (name,))
            return True


def _get(database: sqlite3.Connection, name: str) -> bytes | None:
    row = database.execute(GET, {"name": name, "now": _now()}).fetchone()
    return None if row is None else bytes(row[0])


def _set(database: sqlite3.Connection, name: str, value: bytes, milliseconds: int | None) -> None:
    ends = None if milliseconds is None else _now() + milliseconds
    database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (name, value, ends))


def _last(database: sqlite3.Connection, name: str, milliseconds: int | None) -> None:
    """Have a stamp last for so long at least; `max` of anything and NULL is NULL: for ever."""
    ends = None if milliseconds is None else _now() + milliseconds
    database.execute("UPDATE entries SET ends = max(ends, ?) WHERE name = ?", (ends, name))


def _now() -> int:
    return time.time_ns() // 1_000_000
