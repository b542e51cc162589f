"""Assign the true numbers to attempts that began while the database was unavailable.

Such an attempt has a provisional number, which is replaced when the attempt is stored.

The job's changes of state and its events carry a mark that is not a column, ``provisional``: the
time when the attempt began. Together with the session, it distinguishes the attempt from all
others, whatever their numbers are.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, select, update

from structjob.diagnostics import diagnostics
from structjob.machine.clock import moment
from structjob.models import KEPT
from structjob.spool.line import is_provisional, read_event, with_attempt
from structjob.store import claims
from structjob.store.contract import StateIngest
from structjob.store.ingest import JOB_COLUMNS, JSON_COLUMNS, Provisional
from structjob.store.locks import in_turn
from structjob.store.tables import attempts, logs


def store(
    connection: Connection, ingest: StateIngest, session_id: int, found: list[Provisional]
) -> None:
    """Store a session's attempts that have provisional numbers, under their true numbers.

    If two transactions insert the same new job at once, the database refuses the second one's row.
    The second transaction must then be tried again, and finds the first one's row.
    """
    if found:
        _lock(connection, session_id)
    for each in found:
        _store(connection, ingest, session_id, each)


def _store(connection: Connection, ingest: StateIngest, session_id: int, each: Provisional) -> None:
    job = claims.find(connection, "id", each.job_id)
    own = next(
        (
            row
            for row in _begun(connection, each.job_id, each.began)
            if row["session_id"] == session_id
        ),
        None,
    )
    for row in each.tables.get("structjob_jobs", ()):
        whole: dict[str, Any] = dict.fromkeys(JOB_COLUMNS)
        whole |= row
        row |= {
            name: msgspec.json.decode(value) if _is_plain(name, value) else value
            for name, value in whole.items()
        }
        holder = _without_taken_key(connection, row)
        _inherit(row, job)
        if own is None:
            number = claims.enter(
                connection,
                ingest,
                job,
                {**row, "status": "running", "state_seq": 0, "started_at": each.began},
            )
            if holder is not None:
                diagnostics.warning(
                    "job %s began while the database was unavailable, with the idempotency key of job %s; it is stored without the key, see its "
                    "metadata",
                    each.job_id,
                    holder,
                )
    if own is not None:
        number = own["attempt"]
    elif "structjob_jobs" not in each.tables:  # steps of a job that the database refused
        number = (job["attempt"] if job is not None else 0) + 1
    if number != each.attempt and (own is None or own["state_seq"] == 0):
        # Events that were stored before this get the true number now. Later events find the
        # attempt.
        early = (
            (logs.c.job_id == each.job_id)
            & (logs.c.ts >= moment(each.began))
            & (logs.c.session_id == session_id)
        )
        connection.execute(
            update(logs).where(early, logs.c.attempt == each.attempt).values(attempt=number)
        )
    for table, rows in each.tables.items():
        ingest.upsert(
            connection, table, msgspec.json.encode([{**row, "attempt": number} for row in rows])
        )


def _is_plain(name: str, value: Any) -> bool:
    return isinstance(value, msgspec.Raw) and name not in JSON_COLUMNS


def _without_taken_key(connection: Connection, row: dict[str, Any]) -> str | None:
    """Remove the idempotency key from a job's *row* if another job has it.

    Both jobs ran, and both must be visible. Return the other job's id, or ``None`` if the key is
    free.
    """
    key = row["idempotency_key"]
    holder = claims.find(connection, "idempotency_key", key) if key is not None else None
    if holder is None or holder["id"] == row["id"]:
        return None
    row["idempotency_key"] = None
    row["metadata"] = _merged(
        row["metadata"], {"idempotency_key": key, "idempotency_key_held_by": holder["id"]}
    )
    return str(holder["id"])


def _inherit(row: dict[str, Any], former: dict[str, Any] | None) -> None:
    """Copy values of the *former* row that *row* does not set.

    The correlation id is not copied, because the attempt's events have the new one.
    """
    if former is None:
        return
    for name in KEPT:
        if row[name] is None:
            row[name] = former[name]
    if row["category"] == "system":
        row["category"] = former["category"]
    if row["parent_job_id"] is None and former["parent_job_id"] is not None:
        row |= {name: former[name] for name in ("parent_job_id", "root_job_id")}
    row["metadata"] = _merged(former["metadata"], row["metadata"])


def _merged(*objects: Any) -> dict[str, Any] | None:
    """Merge JSON objects; later ones take precedence. Return ``None`` if all are empty."""
    merged: dict[str, Any] = {}
    for each in objects:
        value = msgspec.json.decode(each) if isinstance(each, (msgspec.Raw, str)) else each
        if isinstance(value, dict):
            merged |= value
    return merged or None


def renumbered(connection: Connection, session_id: int, lines: bytes) -> bytes:
    """Return the *lines* of a session's events with the true numbers of their attempts.

    Attempts whose true numbers are not known yet keep the provisional ones.
    """
    if not is_provisional(lines):
        return lines
    # A transaction that assigns the attempt's true number at this moment waits for these events, or
    # they wait for it. So it cannot miss them.
    _lock(connection, session_id)
    numbers: dict[tuple[str, str], int | None] = {}
    return b"".join(
        _renumbered(connection, session_id, line, numbers) + b"\n"
        for line in lines.split(b"\n")
        if line
    )


def _renumbered(
    connection: Connection, session_id: int, line: bytes, numbers: dict[tuple[str, str], int | None]
) -> bytes:
    event = read_event(line) if is_provisional(line) else None
    if event is None or event.provisional is None or event.job_id is None:
        return line
    key = (event.job_id, event.provisional)
    if key not in numbers:
        # The events of a forked child have another session, but belong to the same attempt.
        begun = sorted(
            _begun(connection, *key), key=lambda row: bool(row["session_id"] != session_id)
        )
        numbers[key] = begun[0]["attempt"] if begun else None
    number = numbers[key]
    return line if number is None else with_attempt(line, number)


def _begun(connection: Connection, job_id: str, began: str) -> list[RowMapping]:
    found = select(attempts.c.attempt, attempts.c.session_id, attempts.c.state_seq)
    return list(
        connection.execute(
            found.where(attempts.c.job_id == job_id, attempts.c.started_at == moment(began))
        ).mappings()
    )


def _lock(connection: Connection, session_id: int) -> None:
    """Make the transactions that store such attempts of one session run one after the other."""
    in_turn(connection, f"provisional {session_id}")
