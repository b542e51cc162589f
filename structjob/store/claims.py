"""Claim a job for one process at a time.

A claim yields the next attempt of the job's id, or the job that holds its idempotency key.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, update

from structjob.machine.clock import moment
from structjob.store.contract import StateIngest
from structjob.store.ingest import JOB_COLUMNS, JSON_COLUMNS
from structjob.store.tables import attempts, jobs


def claim(
    connection: Connection, ingest: StateIngest, row: dict[str, Any]
) -> tuple[dict[str, Any] | None, int]:
    """Implement `structjob.store.contract.StateStore.claim`; see `enter`."""
    if row.get("idempotency_key") is not None:
        holder = find(connection, "idempotency_key", row["idempotency_key"])
        if holder is not None and holder["id"] != row["id"]:
            return holder, 0
    # Values that are too large for a statement are left out here. They come with the job's own
    # record, which is stored without the values that do not fit.
    row = {
        name: None
        if name in JSON_COLUMNS and value is not None and len(value) > ingest.most
        else value
        for name, value in row.items()
    }
    former = find(connection, "id", row["id"])
    if row["status"] == "pending":
        _reserve(connection, ingest, former, row)
        return None, 0
    if former is not None and former["status"] == "cancelled" and former["attempt"] == 0:
        return former, 0  # cancelled while pending: must not start
    return former, enter(connection, ingest, former, row)


def enter(
    connection: Connection, ingest: StateIngest, former: dict[str, Any] | None, row: dict[str, Any]
) -> int:
    """Insert the next attempt of the job of *row*, and return the attempt's number.

    *former* is the job's existing row (see `find`). If two transactions insert the same new job at
    once, the database refuses the second one's row. The second transaction must then be tried
    again, and finds the first one's row.
    """
    if former is None:
        entered = {**row, "attempt": 1}
        ingest.insert(connection, "structjob_jobs", msgspec.json.encode([entered]))
    else:
        # The job's new values come with the attempt's first record, because this insertion may be
        # undone.
        entered = {name: _as_given(name, former[name]) for name in JOB_COLUMNS}
        entered |= {name: row[name] for name in ("status", "session_id", "state_seq", "started_at")}
        entered |= {
            "attempt": former["attempt"] + 1,
            "idempotency_key": row.get("idempotency_key") or former["idempotency_key"],
        }
        ingest.upsert(connection, "structjob_jobs", msgspec.json.encode([entered]))
    ingest.upsert(
        connection,
        "structjob_attempts",
        msgspec.json.encode([{**entered, "job_id": entered["id"]}]),
    )
    return int(entered["attempt"])


def _reserve(
    connection: Connection, ingest: StateIngest, former: dict[str, Any] | None, row: dict[str, Any]
) -> None:
    """Insert a job that is to be pending, or only its idempotency key if the job exists.

    The job's own record comes later, and must not find the key taken.
    """
    if former is None:
        ingest.insert(connection, "structjob_jobs", msgspec.json.encode([row]))
    elif former["attempt"] == 0:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == row["id"])
            .values(idempotency_key=row["idempotency_key"])
        )


def take_back(connection: Connection, row: dict[str, Any], *, pending: bool) -> bool:
    """Undo what the claim of *row* inserted; do nothing if that is undone already.

    Args:
        connection: A connection in a transaction.
        row: The claimed row. Its session and start time distinguish its insertion from other
            claims.
        pending: Whether the job certainly existed before. If false, the job existed if its creation
            time differs from that of *row*.

    Returns:
        Whether an insertion was undone.
    """
    job = find(connection, "id", row["id"])
    began = moment(row["started_at"])
    mine = (attempts.c.job_id == row["id"]) & (attempts.c.session_id == row["session_id"])
    untouched = (attempts.c.state_seq == 0) & (attempts.c.started_at == began)
    attempt = connection.execute(select(attempts.c.attempt).where(mine & untouched)).scalar()
    if attempt is None:
        return False
    connection.execute(delete(attempts).where(mine & (attempts.c.attempt == attempt)))
    if job is None or (job["attempt"], job["session_id"], job["state_seq"]) != (
        attempt,
        row["session_id"],
        0,
    ):
        return True  # another attempt has followed
    earlier = (
        select(attempts)
        .where(attempts.c.job_id == row["id"])
        .order_by(attempts.c.attempt.desc())
        .limit(1)
    )
    former = connection.execute(earlier).mappings().first()
    if former is not None:
        values = {
            name: former[name]
            for name in ("attempt", "status", "session_id", "state_seq", "started_at")
        }
    elif pending or job["created_at"] != row["created_at"]:
        values = {"attempt": 0, "status": "pending", "started_at": None}
    else:
        connection.execute(delete(jobs).where(jobs.c.id == row["id"]))
        return True
    connection.execute(update(jobs).where(jobs.c.id == row["id"]).values(values))
    return True


def find(connection: Connection, column: str, value: str) -> dict[str, Any] | None:
    """Return the job whose unique *column* has this *value*, and lock its row.

    The values are as in a line of the spool. Return ``None`` if there is no such job.
    """
    found = (
        connection.execute(select(jobs).where(jobs.c[column] == value).with_for_update())
        .mappings()
        .first()
    )
    return None if found is None else {name: _as_text(name, found[name]) for name in found}


def _as_text(name: str, value: Any) -> Any:
    """Return a value as it is in a line of the spool, with JSON as text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    return (
        msgspec.json.encode(value).decode() if name in JSON_COLUMNS and value is not None else value
    )


def _as_given(name: str, value: Any) -> Any:
    return msgspec.Raw(value.encode()) if name in JSON_COLUMNS and value is not None else value
