"""The contract of a store: what the engine, readers and writers may ask of a database.

It has two parts, because events and everything else may be in different databases one day: a
`LogStore` has the events, a `StateStore` has sessions, jobs, attempts, steps and what explains
missing numbers. A `Store` is both in one SQL database, so that a batch is one transaction. A
function takes the part that it needs; reads, and tails among them, need no more than a `Fetch`. A
tail reads sessions and gaps with it, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Executable
from sqlalchemy.engine import RowMapping

from structjob.spool.session import Session

T = TypeVar("T")

Fetch = Callable[[Executable], Awaitable[Sequence[RowMapping]]]
"""A function that runs a statement on the store and returns its rows."""

Flush = Callable[[], Awaitable[object]]
"""A function that delivers pending events to the store."""


class Transact(Protocol):
    """A function that runs a call in its own transaction.

    See `StateStore.transact`.
    """

    def __call__(self, call: Callable[[Connection], T]) -> Awaitable[T]: ...


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
        refused: Records that went to the dead letters, events and changes of state.
    """

    dead: int = 0
    torn: int = 0
    states: list[int] = field(default_factory=list)
    refused: int = 0

    def add(self, other: Written) -> None:
        """Add the counts of *other*, a part of the same batch."""
        self.dead += other.dead
        self.refused += other.refused
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
        session: The session of the events; see `structjob.store.sessions.report`.
        bodies: Job id → the event's line, up to its number.
        reason: Why the process of the dead session died; empty if it is not known.
        stack: The stack of the thread in which it died.
        correction: Returns the line, up to its number, that withdraws an earlier event about a
            crash, for a row of `structjob.store.withdrawal.withdraw`.
    """

    session: Session
    bodies: Mapping[str, bytes]
    reason: str = ""
    stack: str | None = None
    correction: Callable[[RowMapping], bytes] | None = None

    def of(self, crashed: Iterable[RowMapping], withdrawn: Iterable[RowMapping]) -> list[bytes]:
        """Return the events about these jobs."""
        correct, bodies = self.correction, self.bodies
        corrections = [] if correct is None else [correct(row) for row in withdrawn]
        return corrections + [bodies[job["id"]] for job in crashed if job["id"] in bodies]


NO_NOTICES = Notices(Session(0, "unknown", None, 0), {})


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
    """

    left: Sequence[RowMapping]
    explained: int = 0
    missing: int = 0
    fewer: int = 0


class LogIngest(Protocol):
    """The statement of one database that writes events."""

    def events(self, connection: Connection, session_id: int, lines: bytes) -> None:
        """Insert the events in *lines* of the spool; existing events stay unchanged."""


class StateIngest(Protocol):
    """The statements of one database that write rows of all other tables.

    Each method takes JSON as one parameter, and a connection in a transaction.
    """

    most: int
    """Maximum size of the data in one statement, in bytes."""

    def upsert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert or update *rows*, a JSON array.

        An existing row is changed only if `KEEP_NEWER` allows it. An existing gap stays unchanged.
        """

    def insert(self, connection: Connection, table: str, rows: bytes) -> None:
        """Insert *rows*, a JSON array of rows that do not exist yet."""


class Ingest(LogIngest, StateIngest, Protocol):
    """The statements of one SQL database that write lines and rows into the tables."""


class Database(Protocol):
    """The connection to a database.

    Its methods, and those of the stores below, raise `StoreUnavailable` while it does not answer.
    """

    masked_url: str
    reached: bool
    """Whether the database has answered. If it has and `open` is slow, the tables are being created
    or migrated.
    """

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

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        """Run a query and return its rows."""

    async def make_durable(self) -> None:
        """Make the stored data safe against a power failure."""


class LogStore(Database, Protocol):
    """The part of a store that has the events."""

    async def jobs_of(self, session_id: int) -> set[str]:
        """Return the jobs that the stored events of a session belong to.

        It is asked when the outcome of a transaction is uncertain.
        """


class StateStore(Database, Protocol):
    """The part of a store that has everything besides the events."""

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

    async def claim(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """Insert the job of *row* under its id, as its next attempt; see `structjob.lifecycle`.

        Returns:
            The job's former row, if any, and the attempt. The attempt 0 means that nothing was
            inserted: the returned row is another job's with the same idempotency key, or the job
            was cancelled while it was pending. A *row* that is pending is inserted as pending, with
            the attempt 0 and without a former row.
        """

    async def transact(self, call: Callable[[Connection], T]) -> T:
        """Return the result of *call*, which gets a connection in its own transaction.

        The transaction is committed unless *call* raises. This is for rare statements that are the
        same on every database. *call* may run in any thread, and must not await.
        """


class Store(LogStore, StateStore, Protocol):
    """The SQL database of one tracker, which has the events and everything else."""

    writers: int

    @property
    def ingest(self) -> Ingest:
        """The database's statements, for use in a transaction of `transact`."""

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
