"""Bytes → rows. Lines of the spool go to the database as one parameter of a statement (on MariaDB,
of a few); nothing is bound per row.

Events are not parsed here at all. Changes of state are: each is a whole row, so the last one of a
batch is enough, and a row is overwritten only by what is newer (`KEEP_NEWER`).
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
"""Columns of an event that stand in its line as they are."""

JOB_COLUMNS = tuple(column.name for column in tables.jobs.columns)
ATTEMPT_COLUMNS = tuple(column.name for column in tables.attempts.columns)
STEP_COLUMNS = tuple(column.name for column in tables.steps.columns)
GAP_COLUMNS = tuple(column.name for column in tables.gaps.columns)
JSON_COLUMNS = frozenset({"metadata", "result", "attrs", "jobs"})

# A row is changed by a later change of the same session only. A later attempt replaces an earlier
# one in the job's row, whoever made it. A job that is pending may be taken over by any session; one
# presumed crashed is revised by its own only.
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
    """Return what an insert does about a row that is there, where the database knows ``ON
    CONFLICT`` (SQLite, PostgreSQL).
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
    # Two copies and not three: in a large program each costs the better part of a millisecond, in
    # memory that is new every time.
    return b"".join((b"[", memoryview(lines.replace(b"\n", b","))[:-1], b"]"))


@dataclass(slots=True)
class Provisional:
    """Changes of state of an attempt whose number is provisional, folded; see
    `structjob.store.settling`.

    Attributes:
        job_id: Its job.
        began: When it began.
        attempt: The provisional number.
        tables: Per table the last of each row.
    """

    job_id: str
    began: str
    attempt: int
    tables: dict[str, list[dict[str, Any]]]


@dataclass(slots=True)
class Rows:
    """Changes of state, folded.

    Attributes:
        tables: Per table the last of each row, as a JSON array.
        unsettled: Those of attempts whose numbers are provisional, in the order of their numbers.
        numbers: The numbers of all changes.
    """

    tables: dict[str, bytes]
    unsettled: list[Provisional]
    numbers: list[int]


_Held = dict[str, dict[Any, dict[str, Any]]]
_Apart = dict[tuple[str, str, int], _Held]


def fold(lines: bytes, session_id: int) -> Rows:
    """Return what the state *lines* of one session come to.

    Raises:
        ValueError: if a line is none.
    """
    held: _Held = {}
    provisional: _Apart = {}
    try:
        numbers = [_add(held, provisional, line, session_id) for line in lines.split(b"\n") if line]
    except (KeyError, TypeError, OverflowError) as exc:
        raise ValueError(f"no change of state: {exc!r}") from exc
    unsettled = [
        Provisional(*key, {table: list(rows[table].values()) for table in COLUMNS if table in rows})
        for key, rows in sorted(provisional.items(), key=lambda item: item[0][2])
    ]
    return Rows(
        {
            table: msgspec.json.encode(list(held[table].values()))
            for table in COLUMNS
            if table in held
        },
        unsettled,
        numbers,
    )


def _add(held: _Held, provisional: _Apart, line: bytes, session_id: int) -> int:
    state = read_state(line)
    row: dict[str, Any] = {**state.row, "session_id": session_id, "state_seq": state.state_seq}
    if "provisional" in row:
        held = _apart(provisional, row)
    if state.kind == "job":
        _keep(held, "structjob_jobs", row)
        if attempt_of(row):
            _keep(held, "structjob_attempts", {**row, "job_id": row["id"]})
    elif state.kind == "step":
        _keep(held, "structjob_steps", row)
    elif state.kind == "gap":
        _keep(held, "structjob_gaps", row)
    return state.state_seq


def _apart(provisional: _Apart, row: dict[str, Any]) -> _Held:
    """Return where to keep a *row* that is marked, and take the mark away."""
    job_id, began = (
        msgspec.json.decode(row[name], type=str)
        for name in ("job_id" if "job_id" in row else "id", "provisional")
    )
    del row["provisional"]
    return provisional.setdefault((job_id, began, attempt_of(row)), {})


def attempt_of(row: Mapping[str, Any]) -> int:
    """Return the attempt that a job's row is about, 0 while it is pending."""
    value = row.get("attempt", 0)
    return int(msgspec.json.decode(value)) if isinstance(value, msgspec.Raw) else int(value)


def _keep(held: _Held, table: str, row: dict[str, Any]) -> None:
    key = tuple(
        bytes(row[name]) if isinstance(row[name], msgspec.Raw) else row[name]
        for name in KEYS[table]
    )
    rows = held.setdefault(table, {})
    # Lines may stand slightly out of order: the number decides, and a job's later attempt. A gap is
    # one, whoever tells of it.
    if key not in rows or (attempt_of(row), row["state_seq"]) > (
        attempt_of(rows[key]),
        rows[key]["state_seq"],
    ):
        rows[key] = row


@dataclass(slots=True)
class Write:
    """What is stored together."""

    session_id: int
    events: bytes = b""
    states: bytes = b""
    last_seq: int = 0


@dataclass(slots=True)
class Written:
    """What became of a `Write`.

    Attributes:
        dead: Events that were put aside.
        torn: Lines that were no record at all, less the records that were found in them: pieces of
            what the disk did not take whole, and whose record was kept elsewhere.
        states: Numbers of the changes of state that are stored (or put aside).
    """

    dead: int = 0
    torn: int = 0
    states: list[int] = field(default_factory=list)

    def add(self, other: Written) -> None:
        """Count *other*, a part of the same, in."""
        self.dead += other.dead
        self.torn += other.torn
        self.states += other.states


@dataclass(frozen=True, slots=True)
class LeftRunning:
    """A job that a process left running, with what the event about its crash says.

    Attributes:
        job: Its row.
        steps: The names of its open steps.
        last_lines: Its last log lines.
    """

    job: dict[str, Any]
    steps: tuple[str, ...]
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Notices:
    """Events about the jobs of a dead session, made before the transaction in which the jobs crash.

    Attributes:
        session_id: The session that the events belong to: that of the process that ends the other.
        lines: Job id → the event's line.
    """

    session_id: int
    lines: Mapping[str, bytes]

    def of(self, jobs: Iterable[RowMapping]) -> bytes:
        """Return the lines of *jobs*."""
        return b"".join(self.lines.get(job["id"], b"") for job in jobs)


NO_NOTICES = Notices(0, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What is known of a session that ends.

    Attributes:
        reason: Its ``end_reason``.
        last_seq: The greatest number it is known to have given out, besides those in the database.
        confirmed: How many of its events the database has confirmed to have stored, or put among
            the dead letters.
        absent: Why numbers can be absent that were never handed to the database.
        most: How many such numbers there can be. If more are absent, or the database holds fewer
            events than it confirmed, nothing is explained: events were lost.
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
        left: The rows, as they were, of the jobs that the session had left running, and that this
            call ended.
        explained: How many absent numbers were explained as `Ending.absent`.
        missing: How many numbers remain unexplained.
        fewer: How many events fewer the database holds than it had confirmed.
        withdrawn: Which of its jobs had been presumed crashed, and had not; see
            `structjob.store.withdrawal`.
    """

    left: Sequence[RowMapping]
    explained: int = 0
    missing: int = 0
    fewer: int = 0
    withdrawn: Sequence[RowMapping] = ()


class Ingest(Protocol):
    """The statements that put lines and rows into the tables, as one database writes them.

    Each takes JSON as one parameter, and a connection in a transaction.
    """

    most: int
    """Bytes of data that one statement takes at most."""

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        """Insert the events in *lines* of the spool; those that are there already stay as
        they are.
        """

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert *rows*, a JSON array, or change those that are there, if `KEEP_NEWER` says so; a
        gap that is there stays as it is.
        """

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert *rows*, a JSON array, none of which is there yet."""


class Store(Protocol):
    """A database, for one tracker. Its methods raise `StoreUnavailable` while it does not
    answer.
    """

    masked_url: str
    writers: int
    reached: bool
    """Whether the database has answered: where `open` takes long, it is at work on the tables."""

    @property
    def ingest(self) -> Ingest:
        """Its statements, for what is stored in a transaction of `transact`."""

    async def open(self) -> None:
        """Connect; create the tables where they are absent. Raises `SchemaMismatch` where they are
        another version's.
        """

    async def attach(self) -> None:
        """Connect for reading; create and change nothing. May be called again, where the database
        that was there before is gone.

        Raises `SchemaMismatch` where the tables are absent or another version's, `StoreUnavailable`
        where there is no such file, and `InvalidURL` for a database in memory.
        """

    async def close(self) -> None:
        """Let go of every connection."""

    async def begin_session(self, session: Session) -> None:
        """Enter *session*; harmless if it is there."""

    async def heartbeat(self, session_id: int, last_seq: int, confirmed: int = 0) -> bool:
        """Record by the database's clock that the session lives, how many numbers it gave out, and
        how many events were confirmed; return whether the session is in the database.
        """

    async def write(self, write: Write) -> Written:
        """Store a batch, in one transaction, or in a few where one would take too long; what the
        database refuses for its content goes to the dead letters.
        """

    async def end_session(
        self, session: Session, ending: Ending, notices: Notices = NO_NOTICES
    ) -> Ended:
        """End a session: explain its holes as far as *ending* allows it; then, in one transaction,
        mark it as ended and what it left running as crashed, and store the *notices* of the jobs
        that crash. What a session that was closed left running is cancelled, without an event.
        """

    async def claim(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """Enter the job of *row* under its id, in its next attempt; see `structjob.lifecycle`.

        Returns the job's former row, if any, and the attempt; the attempt 0 says that nothing was
        entered: the row is another job's that has the same idempotency key, or the job was
        cancelled while it was pending. A *row* that is pending is entered as that, with the attempt
        0, and without a former row.
        """

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        """Run a query."""

    async def transact(self, call: Callable[[Connection], T]) -> T:
        """Return what *call* returns, given a connection in a transaction of its own; it is
        committed unless *call* raises.

        For what is the same on every database and happens now and then. *call* may run in any
        thread, and must not await.
        """

    async def make_durable(self) -> None:
        """Make what is stored safe against a power cut."""
