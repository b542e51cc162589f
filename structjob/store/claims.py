"""Claiming a job: the next attempt of its id, or what holds its idempotency key; for one process at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from structjob.store.ingest import JOB_COLUMNS, JSON_COLUMNS, Ingest
from structjob.store.tables import jobs


def claim(connection: Connection, ingest: Ingest, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
    """Do as `structjob.store.ingest.Store.claim` says.

    Where two claim a new job at once, the database refuses the second one's row; its transaction is then to be tried again, and finds
    the first one's.
    """
    if row.get("idempotency_key") is not None:
        holder = _job(connection, "idempotency_key", row["idempotency_key"])
        if holder is not None and holder["id"] != row["id"]:
            return holder, 0
    former = _job(connection, "id", row["id"])
    if former is not None and former["status"] == "cancelled" and former["attempt"] == 0:
        return former, 0  # somebody cancelled it while it was pending: it is not to start
    if former is None:
        entered = {**row, "attempt": 1}
        ingest.insert(connection, "structjob_jobs", msgspec.json.encode([entered]))
    else:
        entered = {name: _as_given(name, former[name]) if row.get(name) is None else row[name] for name in JOB_COLUMNS}
        entered |= {"created_at": former["created_at"], "attempt": former["attempt"] + 1}
        ingest.upsert(connection, "structjob_jobs", msgspec.json.encode([entered]))
    ingest.upsert(connection, "structjob_attempts", msgspec.json.encode([{**entered, "job_id": entered["id"]}]))
    return former, entered["attempt"]


def _job(connection: Connection, column: str, value: str) -> dict[str, Any] | None:
    found = connection.execute(select(jobs).where(jobs.c[column] == value).with_for_update()).mappings().first()
    return None if found is None else {name: _as_text(name, found[name]) for name in found}


def _as_text(name: str, value: Any) -> Any:
    """Return a value as it stands in a line of the spool, and JSON as text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    return msgspec.json.encode(value).decode() if name in JSON_COLUMNS and value is not None else value


def _as_given(name: str, value: Any) -> Any:
    return msgspec.Raw(value.encode()) if name in JSON_COLUMNS and value is not None else value
