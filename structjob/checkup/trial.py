"""A trial of the statements that a tracker needs; it changes nothing in the database."""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError

from structjob.store.database_file import is_unchanging
from structjob.store.expressions import utc_now
from structjob.store.tables import logs, metadata

LONG_LOCK = 2.0
"""Seconds to wait for SQLite's write lock; no transaction of structjob is as long."""

QUICK_CHECK = 10.0
"""Seconds for which SQLite checks a file for damage. It reads about 500 MB a second."""

_ROOM = 64 * 1024
"""Bytes that a trial writes in place of an event; a full disk or quota refuses them."""

_EVENT = {"session_id": -1, "seq": -1, "level": "info"}
"""The row of a trial, without its time and its message; it is rolled back."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A statement that the database refused.

    Args:
        right: ``SELECT``, ``INSERT``, ``UPDATE`` or ``DELETE``; ``USAGE`` of a sequence.
        table: The table or sequence.
        error: The database's own message.
    """

    right: str
    table: str
    error: str


def missing_rights(connection: Connection) -> list[Refusal]:
    """Return the statements on structjob's tables that the user of *connection* may not run.

    No row is read or changed.
    """
    refusals = []
    connection.rollback()  # each statement has its own transaction, because a failure aborts it
    for right, table, statement in _statements():
        try:
            connection.exec_driver_sql(statement)
        except DBAPIError as exc:
            refusals.append(Refusal(right, table, _first_line(exc.orig)))
        connection.rollback()
    if connection.dialect.name == "postgresql":
        refusals += _unusable_sequences(connection)
    return refusals


def _unusable_sequences(connection: Connection) -> Iterator[Refusal]:
    """Yield PostgreSQL's sequences for row numbers that the user may not use."""
    usable = text("SELECT has_sequence_privilege(pg_get_serial_sequence(:name, 'id'), 'USAGE')")
    for table in ("structjob_logs", "structjob_dead_letters"):
        if not connection.execute(usable, {"name": table}).scalar():
            yield Refusal(
                "USAGE", f"{table}_id_seq", f"permission denied for sequence {table}_id_seq"
            )


def write_and_roll_back(connection: Connection) -> str | None:
    """Insert a large event and roll it back; return the fault if that failed."""
    try:
        row = {**_EVENT, "ts": utc_now(), "message": _incompressible(), "type": "system"}
        connection.execute(insert(logs).values(row))
    except DBAPIError as exc:
        return _first_line(exc.orig)
    finally:
        connection.rollback()
    return None


def _incompressible() -> str:
    return secrets.token_hex(_ROOM // 2)


def write_to_directory(directory: Path) -> str | None:
    """Write a temporary file as large as a large event to *directory*; return the fault if that
    failed.
    """
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            data = memoryview(bytes(_ROOM))
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
    except OSError as exc:
        return exc.strerror or str(exc)
    return None


def _statements() -> Iterator[tuple[str, str, str]]:
    for table in metadata.sorted_tables:
        column = table.columns.keys()[-1]
        # No row meets the conditions, but the database still checks the right.
        yield "SELECT", table.name, f"SELECT {column} FROM {table.name} WHERE 1 = 0"  # noqa: S608 -- contains only names of tables and columns
        yield (
            "INSERT",
            table.name,
            f"INSERT INTO {table.name} SELECT * FROM {table.name} WHERE 1 = 0",  # noqa: S608 -- see above
        )
        yield "UPDATE", table.name, f"UPDATE {table.name} SET {column} = {column} WHERE 1 = 0"  # noqa: S608 -- see above
        yield "DELETE", table.name, f"DELETE FROM {table.name} WHERE 1 = 0"  # noqa: S608 -- see above


def _first_line(error: BaseException | None) -> str:
    return (
        str(error).strip().splitlines()[0]
        if error is not None and str(error).strip()
        else type(error).__name__
    )


class Unreadable(Exception):
    """SQLite cannot open the file."""


class Locked(Exception):
    """Another process has held a lock of SQLite for seconds."""


def write_to_file(path: Path) -> str | None:
    """Insert a large event into an SQLite file and roll it back; return the fault if that failed.

    A file without structjob's tables passes if its write lock is available.

    Raises:
        Locked: if another process holds the write lock for `LONG_LOCK` seconds.
    """
    try:
        with closing(
            sqlite3.connect(
                f"{path.as_uri()}?mode=rw", uri=True, timeout=LONG_LOCK, isolation_level=None
            )
        ) as connection:
            # A cache smaller than the event: otherwise SQLite would write it only at the commit,
            # which never comes.
            connection.execute("PRAGMA cache_size = 1")
            connection.execute("BEGIN IMMEDIATE")
            try:
                row = {**_EVENT, "ts": "2000-01-01 00:00:00.000000", "message": _incompressible()}
                connection.execute(
                    f"INSERT INTO structjob_logs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608 -- names of columns
                    tuple(row.values()),
                )
            except sqlite3.OperationalError as exc:
                if "no such table" not in str(exc):
                    raise
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise Locked from exc
        return str(exc)
    except sqlite3.DatabaseError as exc:
        return str(exc)
    return None


def damage(path: Path, seconds: float = QUICK_CHECK) -> tuple[str | None, bool]:
    """Check an SQLite file for damage.

    Args:
        path: The file.
        seconds: Maximum duration of the check.

    Returns:
        The first damage found, and whether the whole file was checked.

    Raises:
        Unreadable: if this user cannot read the file.
        Locked: if another process keeps even readers away.
    """
    deadline = time.monotonic() + seconds
    uri = f"{path.as_uri()}?mode=ro{'&immutable=1' if is_unchanging(path) else ''}"
    try:
        opened = sqlite3.connect(uri, uri=True)
    except sqlite3.OperationalError as exc:
        raise Unreadable(str(exc)) from exc
    with closing(opened) as connection:
        connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
        try:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise Unreadable(str(exc)) from exc
            if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Locked from exc
            return (
                (None, False)
                if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT
                else (str(exc), True)
            )
        except sqlite3.DatabaseError as exc:
            return str(exc), True
    return (None if found == "ok" else str(found).strip().splitlines()[-1]), True
