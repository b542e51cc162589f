"""Rows for structjob's own table, with the standard library's sqlite3.

All peers that store in SQLite use it, and so does the raw limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from pathlib import Path

SCHEMA = Path(__file__).resolve().parents[2] / "schema" / "sqlite.sql"

INSERT = """
INSERT INTO structjob_logs
  (session_id, seq, ts, level, message, attrs, job_id, step_id, operation, step, correlation_id,
   stored_at, kind, attempt, stream, logger, category)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '2026-01-01 00:00:00.000', 'log', 1, 'system', 'bench', 'system')
"""
BATCH = 1_000


class Rows:
    """One WAL connection with ``synchronous=NORMAL``; one transaction and ``executemany`` per
    batch.

    A row is ``(ts, level, message, attrs, job_id, step_id, operation, step, correlation_id)``.
    """

    def __init__(self, path: str, batch: int = BATCH) -> None:
        self.batch = batch
        self.stored = 0
        self._seq = count(1)
        self._connection = connect(path)

    def write(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Commit *rows* and count them."""
        if not rows:
            return
        seq = self._seq
        write_numbered(self._connection, [(next(seq), *row) for row in rows])
        self.stored += len(rows)


def create_tables(path: str) -> None:
    """Create structjob's tables in *path* from its own rendered migration.

    So a peer's process need not import structjob.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA.read_text())
    connection.close()


def connect(path: str) -> sqlite3.Connection:
    """Open *path* with the options for a writer of many small transactions."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def write_numbered(connection: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Commit *rows*, each with its ``seq`` in front, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def count_stored(path: str, message: str) -> int:
    """Return how many events with *message* the table has, as another process would see it."""
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(
            "SELECT count(*) FROM structjob_logs WHERE message = ?", (message,)
        ).fetchone()[0]
