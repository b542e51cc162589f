"""Store spool lines as rows: a whole batch is one parameter of a statement.

On MariaDB, a batch is a few parameters. No row is bound separately.

Events are not parsed here. Changes of state are parsed: each one is a whole row, so the last one of
a batch is enough. A row is overwritten only by a newer one (`KEEP_NEWER`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Executable, RowMapping

from structjob.spool.line import EVENT_COLUMNS, EVENT_DEFAULTS, read_state
from structjob.spool.session import Session
from structjob.store import tables

T = TypeVar("T")

LOG_COLUMNS = tuple(
    name for name in EVENT_COLUMNS if name not in EVENT_DEFAULTS and name not in ("seq", "attrs")
)
"""Columns whose values are copied unchanged from an event's line."""

JOB_COLUMNS = tuple(column.name for column in tables.jobs.columns)
ATTEMPT_COLUMNS = tuple(column.name for column in tables.attempts.columns)
STEP_COLUMNS = tuple(column.name for column in tables.steps.columns)
GAP_COLUMNS = tuple(column.name for column in tables.gaps.columns)
JSON_COLUMNS = frozenset({"metadata", "result", "attrs", "jobs"})

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

KEYS = {
    "structjob_jobs": ("id",),
    "structjob_attempts": ("job_id", "attempt"),
    "structjob_steps": ("id",),
    "structjob_gaps": ("session_id", "first_seq"),
}
COLUMNS = {
    "structjob_jobs": JOB_COLUMNS,
    "structjob_attempts": ATTEMPT_COLUMNS,
    "structjob_steps": STEP_COLUMNS,
    "structjob_gaps": GAP_COLUMNS,
}
"""The tables that rows are written to, and their columns."""


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
        {"job_id": row["id"]} | {name: row[name] for name in ATTEMPT_COLUMNS if name in row}
        for row in rows
    ]


@dataclass(slots=True)
class Write:
    """A batch that is stored together."""

    session_id: int
    events: bytes = b""
    states: bytes = b""
    last_seq: int = 0


@dataclass(slots=True)
class Written:
    """The result of a `Write`.

    Attributes:
        dead: Events that went to the dead letters.
        torn: Lines that were not valid records, minus the records that were found in them. Such
            lines are fragments that the disk did not take whole; their records were kept elsewhere.
        states: Numbers of the changes of state that are stored or in the dead letters.
    """

    dead: int = 0
    torn: int = 0
    states: list[int] = field(default_factory=list)

    def add(self, other: Written) -> None:
        """Add the counts of *other*, a part of the same batch."""
        self.dead += other.dead
        self.torn += other.torn
        self.states += other.states


@dataclass(frozen=True, slots=True)
class LeftRunning:
    """A job that a dead process left running, and the content of the event about its crash.

    Attributes:
        job: The job's row.
        steps: The names of its open steps.
        last_lines: Its last log lines.
    """

    job: dict[str, Any]
    steps: tuple[str, ...]
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notices:
    """Events about the jobs of a dead session, made before the transaction that marks them as
    crashed.

    Attributes:
        session_id: The session that the events belong to: the one that ends the dead session.
        lines: Job id → the event's line.
        reason: Why the process of the dead session died; empty if it is not known.
        stack: The stack of the thread in which it died.
    """

    session_id: int
    lines: Mapping[str, bytes]
    reason: str = ""
    stack: str | None = None

    def of(self, jobs: Iterable[RowMapping]) -> bytes:
        """Return the lines of *jobs*."""
        return b"".join(self.lines.get(job["id"], b"") for job in jobs)


NO_NOTICES = Notices(0, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known about a session that ends.

    Attributes:
        reason: Its ``end_reason``.
        last_seq: The greatest number that the session is known to have assigned, besides the
            numbers in the database.
        confirmed: How many of its events the database has confirmed as stored or in the dead
            letters.
        absent: Why numbers can be absent although they were never sent to the database.
        most: How many such numbers there can be. If more are absent, or the database holds fewer
            events than it confirmed, no number is explained: events were lost.
    """

    reason: str
    last_seq: int = 0
    confirmed: int = 0
    absent: str = ""
    most: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What was found when a session was ended.

    Attributes:
        left: The jobs that the session had left running and that this call ended; the rows as they
            were before.
        explained: How many absent numbers were explained as `Ending.absent`.
        missing: How many numbers remain unexplained.
        fewer: How many events the database lacks compared with what it had confirmed.
        withdrawn: The jobs of the session that had been presumed crashed by mistake; see
            `structjob.store.withdrawal`.
    """

    left: Sequence[RowMapping]
    explained: int = 0
    missing: int = 0
    fewer: int = 0
    withdrawn: Sequence[RowMapping] = ()


class Ingest(Protocol):
    """The statements of one database that write lines and rows into the tables.

    Each method takes JSON as one parameter, and a connection in a transaction.
    """

    most: int
    """Maximum size of the data in one statement, in bytes."""

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        """Insert the events in *lines* of the spool; existing events stay unchanged."""

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert or update *rows*, a JSON array.

        An existing row is changed only if `KEEP_NEWER` allows it. An existing gap stays unchanged.
        """

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert *rows*, a JSON array of rows that do not exist yet."""


class Store(Protocol):
    """The database of one tracker.

    The methods raise `StoreUnavailable` while the database does not answer.
    """

    masked_url: str
    writers: int
    reached: bool
    """Whether the database has answered. If it has and `open` is slow, the tables are being created
    or migrated.
    """

    @property
    def ingest(self) -> Ingest:
        """The database's statements, for use in a transaction of `transact`."""

    async def open(self) -> None:
        """Connect, and create the tables if they do not exist.

        Raises:
            SchemaMismatch: if the tables belong to another version.
        """

    async def attach(self) -> None:
        """Connect for reading, without creating or changing anything.

        It may be called again after the previous database has disappeared.

        Raises:
            SchemaMismatch: if the tables are absent or belong to another version.
            StoreUnavailable: if there is no such file.
            InvalidURL: for a database in memory.
        """

    async def close(self) -> None:
        """Close every connection."""

    async def begin_session(self, session: Session) -> None:
        """Insert *session* into the database; do nothing if it is there already."""

    async def heartbeat(self, session_id: int, last_seq: int, confirmed: int = 0) -> bool:
        """Record that the session is alive, by the database's clock.

        Args:
            session_id: The session.
            last_seq: The greatest number that the session has assigned.
            confirmed: How many of its events the database has confirmed.

        Returns:
            Whether the session is in the database.
        """

    async def write(self, write: Write) -> Written:
        """Store a batch in one transaction, or in a few if one would take too long.

        What the database refuses because of its content goes to the dead letters.
        """

    async def end_session(
        self, session: Session, ending: Ending, notices: Notices = NO_NOTICES
    ) -> Ended:
        """End a session.

        First explain its holes as far as *ending* allows it. Then, in one transaction, mark the
        session as ended and its running jobs as crashed, and store the *notices* of those jobs. If
        the session was closed normally, its running jobs are cancelled instead, without an event.
        """

    async def claim(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """Insert the job of *row* under its id, as its next attempt; see `structjob.lifecycle`.

        Returns:
            The job's former row, if any, and the attempt. The attempt 0 means that nothing was
            inserted: the returned row is another job's with the same idempotency key, or the job
            was cancelled while it was pending. A *row* that is pending is inserted as pending, with
            the attempt 0 and without a former row.
        """

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        """Run a query and return its rows."""

    async def transact(self, call: Callable[[Connection], T]) -> T:
        """Return the result of *call*, which gets a connection in its own transaction.

        The transaction is committed unless *call* raises. This is for rare statements that are the
        same on every database. *call* may run in any thread, and must not await.
        """

    async def make_durable(self) -> None:
        """Make the stored data safe against a power failure."""
