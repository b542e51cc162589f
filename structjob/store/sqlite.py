"""The store for SQLite: one connection and thread for writing, and one for reading.

Each batch needs one switch to the writing thread.

This uses the standard library's driver, not aiosqlite, for three reasons. A transaction is one call
in the worker instead of several thread switches. A connection that is not closed does not keep the
process alive. A query can be interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Executable, RowMapping
from sqlalchemy.exc import DBAPIError

from structjob.exceptions import InvalidURL, QueryTimeout, SchemaMismatch, StoreUnavailable
from structjob.spool.session import Session
from structjob.store import claims, dead_letters, migrations, provisional, sessions
from structjob.store.contract import NO_NOTICES, Ended, Ending, Notices, Write, Written
from structjob.store.database_file import (
    DatabaseFile,
    ensure_private,
    existing,
    has_temporary_directory,
    is_unchanging,
    not_a_database,
    stamp,
)
from structjob.store.forking import within_sqlite
from structjob.store.ingest import as_array, fold
from structjob.store.sqlite_connection import Query, close_connection, connection_over
from structjob.store.sqlite_ingest import INSERT_EVENTS, UPSERTS, SQLiteIngest
from structjob.store.worker import Worker
from structjob.urls.url import masked, sqlite_path

P = ParamSpec("P")
T = TypeVar("T")

BUSY = 10.0
"""Seconds to wait for another process's transaction."""

_BUSY_SLICE = 0.25
"""Seconds of one wait inside SQLite. The total wait is divided because the waiting thread cannot be
interrupted there.
"""

_CLOSE_TIMEOUT = 1.0
"""Seconds that the writing connection waits, on closing, for the reading connection."""


class SQLiteStore:
    """A store in an SQLite file, or in memory. See `structjob.store.contract.Store`.

    Args:
        url: ``sqlite:///path`` or ``sqlite://`` (in memory).
        read_timeout: Seconds that a query may take, including the wait for the reading thread.
            Default: no limit.
    """

    writers = 2
    """One thread writes, on one connection. A second batch may already wait for the thread while
    the first is stored.
    """
    reached = False
    """Always false: there is no server that could answer; see
    `structjob.engine.opening.OPEN_WAITS_FILE`.
    """

    def __init__(self, url: URL, *, read_timeout: float | None = None) -> None:
        self.masked_url = masked(url.set(drivername="sqlite"))
        self._read_timeout = read_timeout
        self.path = sqlite_path(url)
        self.ingest = SQLiteIngest()
        self._writer = Worker("structjob-writer")
        # A database in memory is visible to one connection only, which one thread at a time may
        # use.
        self._reader = self._writer if self.path is None else Worker("structjob-reader")
        self._connection: sqlite3.Connection | None = None
        self._writing: Connection | None = None
        self._reading: Connection | None = None
        self._file: DatabaseFile | None = None
        self._reading_file: DatabaseFile | None = None
        self._read_as: object = None
        """The stamp of the file when it was opened as one that does not change; otherwise None."""
        self._busy = threading.Lock()
        self._read = threading.Event()
        """Set when the reading connection is closed."""
        self._closing = False
        self._last: int | None = None
        """The id of the thread that stores the remaining data when the interpreter ends. The other
        threads stop waiting then.
        """

    # -- opening and closing
    # --------------------------------------------------------------------------

    async def open(self) -> None:
        await self._run(self._writer, self._open)

    def _open(self) -> None:
        with self._busy:
            former = self._file
            if former is not None:
                self._leave(former)
            file: DatabaseFile | None = None
            if self.path is not None:
                file = DatabaseFile.at(self.path, ensure_private(self.path))
            self._connection = self._connect()
            try:
                self._writing = connection_over(self._connection)
                migrations.prepare(self._writing, anew=former is not None)
                self._connection.execute(f"PRAGMA busy_timeout={_BUSY_SLICE * 1000:.0f}")
                if file is not None:
                    self._file = file.with_logs()
                self._check_file()
            except BaseException:
                self._connection.close()
                self._connection = self._writing = None
                raise

    async def attach(self) -> None:
        await self._run(self._reader, self._attach)

    def _attach(self) -> None:
        if self.path is None:
            raise InvalidURL(
                f"{self.masked_url} is in memory, which only the program that made it can read: use its tracker's reader()"
            )
        with self._busy:
            if self._writing is not None:
                close_connection(self._writing)
                self._connection = self._writing = None
        if self._reading is not None:
            close_connection(self._reading)
            self._reading = self._file = None
        file = DatabaseFile.at(self.path, existing(self.path))
        reading = connection_over(self._connect(for_reading=True), "PRAGMA query_only=1")
        try:
            migrations.check(reading)
            self._file = self._reading_file = file.with_logs()
            self._check_file()
        except BaseException:
            close_connection(reading)
            self._file = None
            raise
        self._reading = reading

    def _leave(self, file: DatabaseFile) -> None:
        """Close the connection to a *file* that is gone, so that its replacement can be opened."""
        file.remove_empty()
        if self._writing is not None:
            # The data stored so far must be in the file, wherever the file was moved to.
            with contextlib.suppress(sqlite3.Error, DBAPIError):
                self._writing.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")
            close_connection(self._writing)
            self._connection = self._writing = None
        if file.replaced():
            file.remove_logs()
            file.check_place()

    def _check_file(self) -> None:
        """Raise `StoreUnavailable` if the open file is no longer the one at its path.

        What is written to such a file is lost.
        """
        if (gone := self._gone()) is not None:
            raise gone

    def _gone(self) -> StoreUnavailable | None:
        if self._file is None or not self._file.replaced():
            return None
        return StoreUnavailable(
            f"the database file {self.path} was deleted, moved or replaced while this program had it open",
            gone=True,
        )

    def _connect(self, *, for_reading: bool = False) -> sqlite3.Connection:
        # SQLite must not create the file, because it would make it readable by everyone. A file
        # that was deleted under a connection is not created again by the next connection.
        path = ":memory:" if self.path is None else f"{self.path.as_uri()}?mode=rw"
        if for_reading:
            self._read_as = None
            if self.path is not None and is_unchanging(self.path):
                self._read_as = stamp(self.path)
                path += "&immutable=1"
        # Transactions are begun explicitly with `BEGIN IMMEDIATE`: a read that becomes a write
        # fails at once when another process writes.
        connection = sqlite3.connect(
            path,
            uri=True,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        try:
            # SQLite does not wait for a lock here, and other processes may be opening the same new
            # file.
            if not for_reading:
                self._patiently(lambda: connection.execute("PRAGMA journal_mode=WAL"), BUSY)
            if not for_reading or not has_temporary_directory():
                # Batches are bounded, so they fit into memory. A query may sort more data than
                # should be in memory.
                connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA synchronous=NORMAL")
            # The operating system keeps the rest of the file in memory. A larger cache makes a
            # process larger, and neither writing nor reading faster.
            connection.execute("PRAGMA cache_size=-8192")
            # Pages that change often are copied back once, and the disk is synchronized less often.
            connection.execute("PRAGMA wal_autocheckpoint=4000")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _patiently(self, call: Callable[[], T], seconds: float) -> T:
        """Repeat *call* until the database is not locked, for at most *seconds*.

        The waiting stops when the store closes or the interpreter ends.
        """
        deadline = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            try:
                return call()
            except sqlite3.OperationalError as exc:
                if (
                    not _is_locked(exc)
                    or self._closing
                    or began >= deadline
                    or self._last not in (None, threading.get_ident())
                ):
                    raise
                if time.monotonic() - began < _BUSY_SLICE / 2:  # it did not wait
                    time.sleep(0.005)

    async def close(self) -> None:
        self._closing = True
        # Both close calls run even if this coroutine is cancelled.
        closing = [self._reader.submit(self._close_reading), self._writer.submit(self._close)]
        self._reader.close()
        self._writer.close()
        await asyncio.wait(closing)
        for closed in closing:
            closed.result()

    def _close_reading(self) -> None:
        try:
            if self._reading is not None and self.path is not None:
                close_connection(self._reading)
            self._reading = None
        finally:
            self._read.set()

    def _close(self) -> None:
        # If two connections close at the same moment, the write-ahead log may remain on disk.
        self._read.wait(_CLOSE_TIMEOUT)
        with self._busy:
            if self._writing is not None:
                close_connection(self._writing)
                self._connection = self._writing = None

    # -- writing
    # --------------------------------------------------------------------------

    async def write(self, write: Write) -> Written:
        return await self._run(self._writer, self.write_now, write)

    def write_now(self, write: Write, patience: float | None = None) -> Written:
        """Store a batch in the calling thread, for the end of the interpreter, when no loop runs.

        Args:
            write: What to store.
            patience: Seconds to wait for another process's transaction. Default: `BUSY`.
        """
        if patience is not None:
            self._last = threading.get_ident()
        try:
            with self._transaction(patience) as connection:
                assert self._writing is not None  # noqa: S101 -- opened together with the connection
                return self._write(connection, self._writing, write)
        except (sqlite3.IntegrityError, sqlite3.DataError, msgspec.MsgspecError, ValueError) as exc:
            return self._divide(write, exc)
        except sqlite3.OperationalError as exc:
            if "malformed JSON" not in str(exc):
                raise
            return self._divide(write, exc)

    def _write(self, connection: sqlite3.Connection, core: Connection, write: Write) -> Written:
        written = Written()
        events = write.events
        if write.states:
            rows = fold(write.states, write.session_id)
            for table, values in rows.tables.items():
                connection.execute(UPSERTS[table], {"batch": values})
            with _undisguised():
                provisional.store(core, self.ingest, write.session_id, rows.provisional)
            written.states = rows.numbers
        if events:
            with _undisguised():
                events = provisional.renumbered(core, write.session_id, events)
            connection.execute(
                INSERT_EVENTS, {"session": write.session_id, "batch": as_array(events)}
            )
        if write.last_seq:
            connection.execute(
                "UPDATE structjob_sessions SET last_seq = ? WHERE session_id = ? AND last_seq < ?",
                (write.last_seq, write.session_id, write.last_seq),
            )
        return written

    def _divide(self, write: Write, exc: Exception) -> Written:
        """Store as much as possible of a batch that the database refuses.

        The rest goes to the dead letters with the reason.
        """
        written = Written()
        parts = dead_letters.divided(write)
        if not parts:
            if (salvaged := dead_letters.salvage(write)) is None:
                aside = self._transact(
                    dead_letters.store_dead_letter,
                    self.ingest,
                    write,
                    f"{type(exc).__name__}: {exc}",
                )
                for smaller in dead_letters.reduced(write):
                    refused = contextlib.suppress(
                        sqlite3.IntegrityError, sqlite3.DataError, msgspec.MsgspecError, ValueError
                    )
                    with refused, self._transaction() as connection:
                        assert self._writing is not None  # noqa: S101 -- opened together with the connection
                        return self._write(connection, self._writing, smaller)
                return aside
            written, found = salvaged
            parts = [found] if found.events or found.states else []
        for part in parts:
            written.add(self.write_now(part))
        return written

    # -- sessions
    # --------------------------------------------------------------------------

    async def begin_session(self, session: Session) -> None:
        await self.transact(lambda connection: sessions.enter(connection, session))

    async def heartbeat(self, session_id: int, last_seq: int, confirmed: int = 0) -> bool:
        return await self.transact(
            lambda connection: sessions.beat(connection, session_id, last_seq, confirmed)
        )

    def heartbeat_now(self, session_id: int, last_seq: int, confirmed: int = 0) -> None:
        """Run `heartbeat` in the calling thread, while the loop is blocked."""
        self._guard(self._transact, sessions.beat, session_id, last_seq, confirmed)

    async def end_session(
        self, session: Session, ending: Ending, notices: Notices = NO_NOTICES
    ) -> Ended:
        return await sessions.end(self, session, ending, notices)

    # -- claiming and reading
    # --------------------------------------------------------------------------

    async def claim(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        return await self.transact(lambda connection: claims.claim(connection, self.ingest, row))

    async def jobs_of(self, session_id: int) -> set[str]:
        return await sessions.jobs_of(self.fetch, session_id)

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        if self.path is None:
            return await self._run(self._reader, self._fetch, statement)
        query = Query()
        try:
            async with asyncio.timeout(self._read_timeout):
                return await self._run(self._reader, self._fetch_within, query, statement)
        except TimeoutError:
            assert self._read_timeout is not None  # noqa: S101 -- otherwise there is no timeout
            raise QueryTimeout(self.masked_url, self._read_timeout) from None
        finally:
            query.stop(asyncio.get_running_loop())

    def _fetch_within(self, query: Query, statement: Executable) -> Sequence[RowMapping]:
        try:
            return self._fetch(statement, query)
        finally:
            query.end()

    def _fetch(self, statement: Executable, query: Query | None = None) -> Sequence[RowMapping]:
        self._check_file()
        if self._reading is not None and (
            self._has_changed() or self._reading_file is not self._file
        ):
            if self.path is not None:
                close_connection(self._reading)
            self._reading = None
        if self._reading is None:
            self._reading, self._reading_file = self._connect_to_read(), self._file
        if query is not None:
            query.begin(self._reading)
        found = self._reading.execute(statement).mappings().all()
        return self._fetch(statement, query) if self._has_changed() else found

    def _has_changed(self) -> bool:
        """Return whether a file that was opened as one that does not change has changed."""
        if self._read_as is None or self.path is None:
            return False
        return not is_unchanging(self.path) or stamp(self.path) != self._read_as

    def _connect_to_read(self) -> Connection:
        if self.path is None and self._writing is not None:
            return self._writing
        if self._file is None:
            raise StoreUnavailable(f"{self.masked_url} is closed")
        return connection_over(self._connect(for_reading=True), "PRAGMA query_only=1")

    async def transact(self, call: Callable[[Connection], T]) -> T:
        return await self._run(self._writer, self._transact, call)

    def _transact(
        self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with self._transaction():
            assert self._writing is not None  # noqa: S101 -- opened together with the connection
            return call(self._writing, *args, **kwargs)

    async def make_durable(self) -> None:
        await self._run(self._writer, self._checkpoint)

    def _checkpoint(self) -> None:
        if self._connection is not None:
            self._connection.execute("PRAGMA wal_checkpoint(FULL)")

    # -- transactions and errors
    # --------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        with self._busy:
            connection = self._connection
            if connection is None and self._file is not None and not self._closing:
                # The store is only attached, and this is its first write.
                connection = self._connection = self._connect()
                self._writing = connection_over(connection)
            if connection is None:
                raise StoreUnavailable(f"{self.masked_url} is closed")
            self._patiently(
                lambda: connection.execute("BEGIN IMMEDIATE"),
                BUSY if patience is None else patience,
            )
            try:
                yield connection
                # A full disk may show only here, and leaves the transaction open.
                connection.execute("COMMIT")
                # Check the file before the batch is confirmed: data written to a deleted or
                # replaced file must be written again.
                self._check_file()
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                        connection.execute("ROLLBACK")
                raise

    async def _run(self, worker: Worker, call: Callable[..., T], *args: Any) -> T:
        if self._closing:
            raise StoreUnavailable(f"{self.masked_url} is closed")
        return await worker.run(self._guard, call, *args)

    def _guard(self, call: Callable[..., T], *args: Any) -> T:
        """Run *call*, and translate SQLite's errors to our messages.

        The messages never contain the statement or its parameters.
        """
        try:
            with within_sqlite:
                return call(*args)
        except (SchemaMismatch, StoreUnavailable):
            raise
        except sqlite3.Error as exc:
            raise self._unavailable(exc) from exc
        except Exception as exc:
            original = getattr(exc, "orig", None)
            if isinstance(original, sqlite3.Error):
                raise self._unavailable(original) from original
            raise

    def _unavailable(self, exc: sqlite3.Error) -> Exception:
        text = str(exc)
        if self._connection is not None and (replaced := self._gone()) is not None:
            return replaced  # a damaged file may have been replaced by a good one
        # A file that was open before was a database: it has been overwritten since.
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _DAMAGED and (
            self._file is not None or "not a database" not in text
        ):
            found = str(self.path)
            return StoreUnavailable(
                f"the database file {found} is damaged: {text}. It may have been overwritten while it was open, as by `cp backup.db "
                f"{found}`. End the programs that use it, delete {found}-wal and {found}-shm, and put a good copy in its place with mv; "
                f"or save what can be read: sqlite3 {found} .recover | sqlite3 new.db",
                permanent=True,
            )
        if "not a database" in text:
            return SchemaMismatch(str(exc) if self.path is None else not_a_database(self.path))
        # Once a connection is open, the cause may be that the process has no free descriptor.
        if "unable to open" in text and self._connection is None:
            return InvalidURL(
                f"cannot open the database file {self.path}; check that its directory exists and can be written to: SQLite makes files there even "
                "to read"
            )
        if getattr(exc, "sqlite_errorname", None) == "SQLITE_IOERR_GETTEMPPATH":
            text += (
                ": no directory for temporary files can be written to; name one with SQLITE_TMPDIR"
            )
        if (
            isinstance(exc, (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError))
            or "malformed JSON" in text
        ):
            return StoreUnavailable(
                f"the database {self.masked_url} refuses what it was given: {text}", refused=True
            )
        if getattr(exc, "sqlite_errorname", "").startswith("SQLITE_READONLY"):
            text += (
                f". This user may not write to {self.path}, or not make files beside it, which SQLite does even to read: run this as a user "
                "who may, or change the owner"
            )
        gone = "no such table" in text and self.path is not None
        permanent = "no such table" in text or "readonly" in text
        return StoreUnavailable(
            f"the database {self.masked_url} does not work: {text}", permanent=permanent, gone=gone
        )


_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def _undisguised() -> Iterator[None]:
    """Unwrap SQLite's own exceptions from SQLAlchemy's.

    SQLite's exceptions show whether the batch is refused.
    """
    try:
        yield
    except DBAPIError as exc:
        raise (exc.orig or exc) from None


def _is_locked(exc: sqlite3.OperationalError) -> bool:
    return exc.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
