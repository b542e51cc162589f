"""Store spool lines as rows: a whole batch is one parameter of a statement.

On MariaDB, a batch is a few parameters. No row is bound separately.

Events are not parsed here. Changes of state are parsed: each one is a whole row, so the last one of
a batch is enough. A row is overwritten only by a newer one (`KEEP_NEWER`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from structjob.spool.line import EVENT_COLUMNS, EVENT_DEFAULTS, read_state
from structjob.store import tables
from structjob.store.types import JSONValue

LOG_COLUMNS = tuple(
    name for name in EVENT_COLUMNS if name not in EVENT_DEFAULTS and name not in ("seq", "attrs")
)
"""Columns whose values are copied unchanged from an event's line."""

_WRITTEN = (tables.jobs, tables.attempts, tables.steps, tables.gaps)
COLUMNS = {str(table.name): tuple(table.columns.keys()) for table in _WRITTEN}
"""The tables that rows are written to, and their columns."""

KEYS = {str(table.name): tuple(table.primary_key.columns.keys()) for table in _WRITTEN}
JOB_COLUMNS = COLUMNS["structjob_jobs"]
JSON_COLUMNS = frozenset(
    column.name
    for table in (*_WRITTEN, tables.logs)
    for column in table.columns
    if isinstance(column.type, JSONValue)
)

# A row is changed only by a later change of the same session. A later attempt replaces an earlier
# one in the job's row, whichever session made it. Any session may take a pending job. Only a job's
# own session may revise the status of a job that is presumed crashed.
KEEP_NEWER = {
    "structjob_jobs": (
        "excluded.attempt > structjob_jobs.attempt OR (excluded.attempt = structjob_jobs.attempt AND "
        "((excluded.session_id = structjob_jobs.session_id AND excluded.state_seq > structjob_jobs.state_seq) "
        "OR (excluded.session_id <> structjob_jobs.session_id AND structjob_jobs.status = 'pending')))"
    ),
    "structjob_attempts": "excluded.session_id = structjob_attempts.session_id AND excluded.state_seq > structjob_attempts.state_seq",
    "structjob_steps": "excluded.session_id = structjob_steps.session_id AND excluded.state_seq > structjob_steps.state_seq",
}


def on_conflict(table: str) -> str:
    """Return the ``ON CONFLICT`` clause of an insert into *table* (SQLite, PostgreSQL).

    The clause decides what happens if the row already exists.
    """
    keys = KEYS[table]
    if table not in KEEP_NEWER:
        return f"ON CONFLICT ({', '.join(keys)}) DO NOTHING"
    assignments = ", ".join(f"{name} = excluded.{name}" for name in changes(table))
    return f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {assignments} WHERE {KEEP_NEWER[table]}"


def changes(table: str) -> tuple[str, ...]:
    """Return the columns of *table* that a newer row changes."""
    return tuple(
        name for name in COLUMNS[table] if name not in KEYS[table] and name != "created_at"
    )


def as_array(lines: bytes) -> bytes:
    """Return *lines* as one JSON array."""
    # Two copies, not three: with a large heap each copy costs almost a millisecond, because the
    # memory is newly allocated every time.
    return b"".join((b"[", memoryview(lines.replace(b"\n", b","))[:-1], b"]"))


@dataclass(slots=True)
class Provisional:
    """Folded changes of state of an attempt whose number is provisional.

    See `structjob.store.provisional`.

    Attributes:
        job_id: The job's id.
        began: When the job began.
        attempt: The provisional number.
        tables: Per table, the last version of each row.
    """

    job_id: str
    began: str
    attempt: int
    tables: dict[str, list[dict[str, Any]]]


@dataclass(slots=True)
class Rows:
    """Folded changes of state.

    Attributes:
        tables: Per table, the last version of each row, as a JSON array.
        provisional: The changes of attempts whose numbers are provisional, in the order of the
            numbers.
        numbers: The numbers of all changes.
    """

    tables: dict[str, bytes]
    provisional: list[Provisional]
    numbers: list[int]


_Order = tuple[int, int]
_Held = dict[str, dict[Any, tuple[_Order, dict[str, Any]]]]
_Apart = dict[tuple[str, str, int], _Held]


def fold(lines: bytes, session_id: int) -> Rows:
    """Fold the state *lines* of one session into the last version of each row.

    Raises:
        ValueError: if a line is not a change of state.
    """
    held: _Held = {}
    apart: _Apart = {}
    try:
        numbers = [_add(held, apart, line, session_id) for line in lines.split(b"\n") if line]
    except (KeyError, TypeError, OverflowError) as exc:
        raise ValueError(f"no change of state: {exc!r}") from exc
    provisional = [
        Provisional(*key, {table: _rows(rows, table) for table in COLUMNS if table in rows})
        for key, rows in sorted(apart.items(), key=lambda item: item[0][2])
    ]
    return Rows(
        {table: msgspec.json.encode(_rows(held, table)) for table in COLUMNS if table in held},
        provisional,
        numbers,
    )


def _add(held: _Held, provisional: _Apart, line: bytes, session_id: int) -> int:
    state = read_state(line)
    number = state.state_seq
    row: dict[str, Any] = {**state.row, "session_id": session_id, "state_seq": number}
    if "provisional" in row:
        held = _apart(provisional, row)
    if state.kind == "job":
        order = attempt_of(row), number
        _keep(held, "structjob_jobs", (bytes(row["id"]),), order, row)
        if order[0]:
            _keep(held, "structjob_attempts", (bytes(row["id"]), order[0]), order, row)
    elif state.kind in _TABLES:
        table = _TABLES[state.kind]
        key = tuple(
            bytes(row[name]) if isinstance(row[name], msgspec.Raw) else row[name]
            for name in KEYS[table]
        )
        _keep(held, table, key, (attempt_of(row), number), row)
    return number


_TABLES = {"step": "structjob_steps", "gap": "structjob_gaps"}


def _apart(provisional: _Apart, row: dict[str, Any]) -> _Held:
    """Return the rows that a marked *row* belongs to, and remove its ``provisional`` mark."""
    job_id, began = (
        msgspec.json.decode(row[name], type=str)
        for name in ("job_id" if "job_id" in row else "id", "provisional")
    )
    del row["provisional"]
    return provisional.setdefault((job_id, began, attempt_of(row)), {})


def attempt_of(row: Mapping[str, Any]) -> int:
    """Return the attempt that a job's row is about; 0 while the job is pending."""
    value = row.get("attempt", 0)
    return int(msgspec.json.decode(value)) if isinstance(value, msgspec.Raw) else int(value)


def _keep(held: _Held, table: str, key: Any, order: _Order, row: dict[str, Any]) -> None:
    rows = held.setdefault(table, {})
    # Lines may be slightly out of order: the state number decides, and for a job the later attempt.
    # The same gap is stored once, even if several lines report it.
    if key not in rows or order > rows[key][0]:
        rows[key] = order, row


def _rows(held: _Held, table: str) -> list[dict[str, Any]]:
    """Return the rows of *table* that were kept."""
    rows = [row for _, row in held[table].values()]
    if table != "structjob_attempts":
        return rows
    # made of the job's row, whose other columns would only be parsed again
    return [
        {"job_id": row["id"]} | {name: row[name] for name in COLUMNS[table] if name in row}
        for row in rows
    ]
