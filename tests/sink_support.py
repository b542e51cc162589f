"""A sink that looks at the database while it is shown an event."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import structjob


class Looking:
    """Notes for each event about a crash whether another program could write at that moment.

    Args:
        path: The SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shown: list[tuple[str, bool, str]] = []
        """Job, whether the database took a write, and the job's status in it."""

    def emit(self, event: structjob.SinkEvent) -> None:
        if event.message != "operation_crashed":
            return
        job_id = event.ids["job_id"]
        with contextlib.closing(sqlite3.connect(self._path, timeout=0)) as connection:
            (status,) = connection.execute(
                "SELECT status FROM structjob_jobs WHERE id = ?", (job_id,)
            ).fetchone()
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # the database is locked
                self.shown.append((job_id, False, status))
            else:
                self.shown.append((job_id, True, status))
