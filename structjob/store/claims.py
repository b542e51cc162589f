"""Claiming a job: the next attempt of its id, or what holds its idempotency key; for one process at
a time.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select, update

from structjob.machine.clock import moment
from structjob.store.ingest import JOB_COLUMNS, JSON_COLUMNS, Ingest
from structjob.store.tables import attempts, jobs


def claim(
    connection: Connection, ingest: Ingest, row: dict[str, Any]
) -> tuple[dict[str, Any] | None, int]:
    """Do as `structjob.store.ingest.Store.claim` says; see `enter`."""
    if row.get("idempotency_key") is not None:
        holder = find(connection, "idempotency_key", row["idempotency_key"])
        if holder is not None and holder["id"] != row["id"]:
            return holder, 0
    # What no statement takes comes with the job's own record, which is stored without what does not
    # fit.
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
        return former, 0  # somebody cancelled it while it was pending: it is not to start
    return former, enter(connection, ingest, former, row)


def enter(
    connection: Connection, ingest: Ingest, former: dict[str, Any] | None, row: dict[str, Any]
) -> int:
    """Enter the next attempt of the job of *row*, whose *former* row is this (see `find`); return
    its number.

    Where two enter a new job at once, the database refuses the second one's row; its transaction is
    then to be tried again, and finds the first one's.
    """
    if former is None:
        entered = {**row, "attempt": 1}
        ingest.insert(connection, "structjob_jobs", msgspec.json.encode([entered]))
    else:
        # What is told of it anew comes with the attempt's first record: what is entered here can be
        # taken back.
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
    connection: Connection, ingest: Ingest, former: dict[str, Any] | None, row: dict[str, Any]
) -> None:
    """Enter a job that is to be pending, or its key where the job is there: its own record comes
    later, and must not find the key taken.
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
    """Undo what the claim of *row* has entered, and return whether it has; harmless where it has
    not, or is undone already.

    Args:
        connection: In a transaction.
        row: What was to be claimed. Its session and the moment it began tell what it entered from
            what any other claim did.
        pending: Whether the job was there before in any case; else it was if it is older than
            *row*.
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
        return True  # somebody has gone on from it
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
    """Return the row of the job whose unique *column* is this, locked, as it stands in a line of
    the spool; None if there is none.
    """
    found = (
        connection.execute(select(jobs).where(jobs.c[column] == value).with_for_update())
        .mappings()
        .first()
    )
    return None if found is None else {name: _as_text(name, found[name]) for name in found}


def _as_text(name: str, value: Any) -> Any:
    """Return a value as it stands in a line of the spool, and JSON as text."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    return (
        msgspec.json.encode(value).decode() if name in JSON_COLUMNS and value is not None else value
    )


def _as_given(name: str, value: Any) -> Any:
    return msgspec.Raw(value.encode()) if name in JSON_COLUMNS and value is not None else value
