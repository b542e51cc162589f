"""The base of the stores on servers: connection pool, timeouts and translation of errors.

The timeouts hold even when the server is frozen. When a driver is cancelled in the middle of a
statement, it first asks the server to stop the statement, and waits for the answer. When a driver
closes a connection, it also sends a message and waits. With a frozen server, both wait forever. So
each call runs in its own task, and is ended by cutting its connection. The caller continues at
once; the task ends as soon as it finds the connection closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy import URL, Connection, Dialect, Executable, RowMapping, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from structjob.exceptions import InvalidURL, QueryTimeout, StoreUnavailable, StructjobError
from structjob.spool.session import Session
from structjob.store import claims, dead_letters, migrations, provisional, sessions
from structjob.store.batch_sizer import BatchSizer
from structjob.store.contract import NO_NOTICES, Ended, Ending, Ingest, Notices, Write, Written
from structjob.store.faults import Fault, Faults
from structjob.store.ingest import fold
from structjob.store.quiet import NAMES, names, quiet
from structjob.store.worker import in_own_thread
from structjob.urls import driver_options, tls
from structjob.urls.url import masked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

WRITE_TIMEOUT = 10.0
"""Seconds that a connection attempt, and one of our transactions, may take."""
READ_TIMEOUT = 60.0
"""Seconds that a query may take. Some queries read the whole of a large log."""

_GRACE = 1.0
"""Seconds added to a reader's own timeout, in which the server can report that it stopped the
query.
"""

_TRIES = 6
"""Maximum number of tries for a transaction that conflicts with another one."""
_CLOSE_TIMEOUT = 1.0
"""Seconds to wait for the server when connections are closed."""

_unasked: contextvars.ContextVar[bool] = contextvars.ContextVar("structjob_unasked", default=False)
"""Whether to skip the pool's ping at this checkout. On PostgreSQL the ping costs three round trips;
storing a batch costs one.
"""


class _Failed(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class ServerStore:
    """A store on a server; see `structjob.store.contract.Store`.

    Each subclass knows the statements and errors of one kind of server.

    Args:
        url: The URL, with the driver.
        engine_options: Options for SQLAlchemy's ``create_async_engine``, such as ``pool_size`` or
            ``connect_args`` (TLS). They override ours.
        ingest: The statements that store batches on this kind of server.
        read_timeout: Seconds that a query may take. Default: `READ_TIMEOUT`, after which the
            connection is cut.
    """

    writers = 2
    reached = False
    extra: str
    """The extra that installs the driver."""

    def __init__(
        self,
        url: URL,
        engine_options: Mapping[str, Any],
        ingest: Ingest,
        *,
        read_timeout: float | None = None,
    ) -> None:
        self.masked_url = masked(url.set(drivername=url.get_backend_name()))
        self.read_timeout = read_timeout
        self.tls, without = tls.taken(url)
        self.driver_options, self.url = driver_options.taken(without, self.masked_url)
        self.faults = Faults(self.masked_url, self.url, self.tls)
        self._options = engine_options
        self.ingest = ingest
        self._sizer = BatchSizer()
        self._engine: AsyncEngine | None = None
        self._closed = False
        self._prepared = False
        self._connections: dict[int, Any] = {}
        """The driver's connections, by `id`."""
        self.in_use: set[int] = set()
        self._ending: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.masked_url}>"

    # -- differences between servers
    # --------------------------------------------------------------------------

    def options(self) -> dict[str, Any]:
        """Return the options of ``create_async_engine``, without the user's own options."""
        raise NotImplementedError

    def prepare(self, connection: Any) -> None:
        """Set up a new DBAPI *connection*."""

    def cut(self, connection: Any) -> None:
        """Close the driver's *connection* at once, whatever its state, without a message to the
        server.
        """
        raise NotImplementedError

    def fault(self, error: BaseException) -> Fault:
        """Return the meaning of a driver's *error*."""
        raise NotImplementedError

    def too_long(self, error: BaseException) -> bool:
        """Return whether *error* means that a query was stopped after `read_timeout`."""
        raise NotImplementedError

    # -- opening and closing
    # --------------------------------------------------------------------------

    async def open(self) -> None:
        await self.knock()
        self.reached = True
        await self.administer(partial(migrations.prepare, anew=self._prepared))
        self._prepared = True

    async def attach(self) -> None:
        await self.knock()
        self.reached = True
        await self.administer(migrations.check)

    async def knock(self) -> None:
        """Raise `StoreUnavailable` early if the server does not answer.

        The calls that follow may take much longer.
        """
        await self.administer(lambda connection: None, WRITE_TIMEOUT)

    async def administer(
        self,
        call: Callable[[Connection], T],
        seconds: float = migrations.LOCK_TIMEOUT + WRITE_TIMEOUT,
    ) -> T:
        """Return the result of *call*, which gets a connection without an open transaction.

        This is for `structjob.store.migrations`.
        """

        async def work(connection: AsyncConnection) -> T:
            return await connection.run_sync(call)

        return await self._answered(work, seconds)

    def _create_engine(self) -> AsyncEngine:
        given = dict(self._options)
        own = self.options()
        options = {
            "hide_parameters": True, "pool_size": 5, "max_overflow": 5, **own, **given, **names(given),
        }  # fmt: skip
        options["connect_args"] = driver_options.merged(
            own.get("connect_args", {}), given.get("connect_args", {})
        )
        try:
            engine = create_async_engine(self.url, **options)
        except ModuleNotFoundError as exc:
            raise StoreUnavailable(
                f"structjob needs {exc.name} for {self.masked_url}: pip install 'structjob[{self.extra}]'",
                permanent=True,
            ) from None
        except (TypeError, SQLAlchemyError, NoSuchModuleError) as exc:
            raise InvalidURL(
                f"the engine options for {self.masked_url} are refused: {exc}"
            ) from None
        if given.keys().isdisjoint((*NAMES, "echo", "echo_pool")):
            quiet(engine.sync_engine)
        if "pool_pre_ping" not in given:
            event.listen(engine.sync_engine, "checkin", _used)
            event.listen(engine.sync_engine, "checkout", partial(_ask, engine.dialect))
        # This listener must run before SQLAlchemy inspects the first connection. For example,
        # SQLAlchemy decides how to quote names by the sql_mode that it finds.
        event.listen(engine.sync_engine, "connect", self._connected, insert=True)
        event.listen(engine.sync_engine, "close", self._disconnected)
        event.listen(engine.sync_engine, "close_detached", self._disconnected)
        return engine

    def _connected(self, connection: Any, record: Any) -> None:
        driver = connection.driver_connection
        self._connections[id(driver)] = driver
        record.info[migrations.SCHEMA] = self.driver_options.schema
        try:
            self.prepare(connection)
        except BaseException:
            self._connections.pop(id(driver), None)
            self.cut(driver)
            raise

    def _disconnected(self, connection: Any, record: Any = None) -> None:
        self._connections.pop(id(connection.driver_connection), None)

    async def close(self) -> None:
        self._closed = True
        engine, self._engine = self._engine, None
        if engine is None:
            return
        ending = {*self._ending, self._spawn(engine.dispose())}
        try:
            await asyncio.wait(ending, timeout=_CLOSE_TIMEOUT)
        finally:
            for connection in list(self._connections.values()):
                self.cut(connection)
        await asyncio.wait(ending, timeout=_CLOSE_TIMEOUT)

    # -- writing
    # --------------------------------------------------------------------------

    async def write(self, write: Write) -> Written:
        written = Written()
        for part in self._sizer.of(write):
            with self._sizer.watch(part):
                written.add(await self._store(part))
        return written

    async def _store(self, write: Write) -> Written:
        try:
            return await self._put(write)
        except _Failed as exc:
            return await self._divide(write, exc.fault.reason)
        except (msgspec.MsgspecError, ValueError) as exc:
            return await self._divide(write, f"{type(exc).__name__}: {exc}")

    async def _put(self, write: Write) -> Written:
        return await self._transact(
            lambda connection: self._write(connection, write), repeatable=True
        )

    def _write(self, connection: Connection, write: Write) -> Written:
        written = Written()
        if write.states:
            rows = fold(write.states, write.session_id)
            for table, values in rows.tables.items():
                self.ingest.upsert(connection, table, values)
            provisional.store(connection, self.ingest, write.session_id, rows.provisional)
            written.states = rows.numbers
        if write.events:
            self.ingest.events(
                connection,
                write.session_id,
                provisional.renumbered(connection, write.session_id, write.events),
            )
        if write.last_seq:
            sessions.reach(connection, write.session_id, write.last_seq)
        return written

    async def _divide(self, write: Write, reason: str) -> Written:
        """Store as much as possible of a batch that the database refuses.

        The rest goes to the dead letters with the *reason*.
        """
        written = Written()
        parts = dead_letters.divided(write)
        if not parts:
            if (salvaged := dead_letters.salvage(write)) is None:
                aside = await self._store_dead_letter(write, reason)
                for smaller in dead_letters.reduced(write):
                    with contextlib.suppress(_Failed, msgspec.MsgspecError, ValueError):
                        return await self._put(smaller)
                return aside
            written, found = salvaged
            parts = [found] if found.events or found.states else []
        for part in parts:
            written.add(await self._store(part))
        return written

    async def _store_dead_letter(self, write: Write, reason: str) -> Written:
        try:
            return await self._transact(
                lambda connection: dead_letters.store_dead_letter(
                    connection, self.ingest, write, reason
                )
            )
        except _Failed:  # what the database refuses unchanged, it accepts as ASCII
            return await self.transact(
                lambda connection: dead_letters.store_dead_letter(
                    connection, self.ingest, write, reason, ascii_only=True
                )
            )

    async def begin_session(self, session: Session) -> None:
        await self.transact(lambda connection: sessions.enter(connection, session))

    async def heartbeat(self, session_id: int, last_seq: int, confirmed: int = 0) -> bool:
        return await self.transact(
            lambda connection: sessions.beat(connection, session_id, last_seq, confirmed)
        )

    async def end_session(
        self, session: Session, ending: Ending, notices: Notices = NO_NOTICES
    ) -> Ended:
        return await sessions.end(self, session, ending, notices)

    async def claim(self, row: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        return await self.transact(lambda connection: claims.claim(connection, self.ingest, row))

    async def transact(self, call: Callable[[Connection], T]) -> T:
        try:
            return await self._transact(call)
        except _Failed as exc:
            raise StoreUnavailable(exc.fault.message, refused=exc.fault.kind == "data") from None

    async def _transact(self, call: Callable[[Connection], T], *, repeatable: bool = False) -> T:
        """Return the result of *call*, run in a transaction.

        If *repeatable* is true, the first try skips the pool's ping.
        """

        async def work(connection: AsyncConnection) -> T:
            async with connection.begin():
                return await connection.run_sync(call)

        for tried in range(1, _TRIES + 1):
            try:
                return await self._run(work, WRITE_TIMEOUT, unasked=repeatable and tried == 1)
            except _Failed as exc:
                if exc.fault.kind == "data" or (exc.fault.kind == "duplicate" and tried == _TRIES):
                    raise
                fault = exc.fault
            await asyncio.sleep(random.uniform(0.0, 0.01 * tried))
        # The content is not the problem: the caller tries again later.
        raise StoreUnavailable(fault.message)

    # -- reading
    # --------------------------------------------------------------------------

    async def jobs_of(self, session_id: int) -> set[str]:
        return await sessions.jobs_of(self.fetch, session_id)

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        async def work(connection: AsyncConnection) -> Sequence[RowMapping]:
            return (await connection.execute(statement)).mappings().all()

        if self.read_timeout is None:
            return await self._answered(work, READ_TIMEOUT)
        # The server stops the query first and reports it. If the server does not answer, the
        # connection is cut.
        return await self._answered(work, self.read_timeout + _GRACE)

    async def _answered(self, work: Callable[[AsyncConnection], Awaitable[T]], seconds: float) -> T:
        try:
            return await self._run(work, seconds)
        except _Failed as exc:
            raise StoreUnavailable(exc.fault.message) from None

    async def make_durable(self) -> None:
        """Do nothing: committed data is as durable as the server makes it."""

    # -- calls and errors
    # --------------------------------------------------------------------------

    async def _run(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        seconds: float,
        *,
        unasked: bool = False,
    ) -> T:
        """Return the result of *work*, which gets a connection.

        Raises:
            StoreUnavailable: if the database is not available.
            _Failed: if the database refuses the transaction.
        """
        if self._closed:
            raise StoreUnavailable(f"{self.masked_url} is closed")
        if self._engine is None:
            # importing a driver is slow
            self._engine = await in_own_thread(self._create_engine)
        call = _Call(self, self._engine, unasked=unasked)
        task = self._spawn(call.run(work))
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self._abandon(call, task)
            raise
        if not done:
            self._abandon(call, task)
            self._drop_idle()
            raise StoreUnavailable(
                f"the database {self.masked_url} has not answered for {seconds:g} s"
            )
        error = task.exception()
        if error is None:
            return task.result()
        if self.read_timeout is not None and call.connection is not None and self.too_long(error):
            raise QueryTimeout(self.masked_url, self.read_timeout) from None
        if isinstance(error, (StructjobError, msgspec.MsgspecError)) or not isinstance(
            error, Exception
        ):
            raise error
        fault = self.understood(error)
        if fault is None:
            raise error
        if fault.kind != "away":
            raise _Failed(fault) from None
        if unasked and isinstance(error, DBAPIError) and error.connection_invalidated:
            raise _Failed(replace(fault, kind="stale")) from None
        self._drop_idle()
        # The driver's own exception may quote the statement or the data.
        raise StoreUnavailable(fault.message, permanent=fault.permanent, gone=fault.gone) from None

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # An empty context: context variables of the caller must not live as long as the connection.
        task: asyncio.Task[T] = contextvars.Context().run(asyncio.create_task, work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        if not task.cancelled():
            task.exception()  # mark the exception as retrieved, because the caller may be gone

    def _abandon(self, call: _Call, task: asyncio.Task[Any]) -> None:
        if call.connection is not None:
            self.cut(call.connection)
        else:
            task.cancel()

    def _drop_idle(self) -> None:
        """Close all idle connections: the failure of one probably concerns the whole server."""
        for key, connection in list(self._connections.items()):
            if key not in self.in_use:
                self.cut(connection)
        if self._engine is not None:
            self._spawn(self._engine.dispose())

    def understood(self, error: Exception) -> Fault | None:
        """Return the meaning of an *error* of a call; ``None`` if it is not about the database."""
        if isinstance(error, DBAPIError):
            return (
                self.fault(error.orig)
                if error.orig is not None
                else Fault("away", f"the database {self.masked_url} does not work")
            )
        if isinstance(error, ssl.SSLCertVerificationError):
            return self.faults.not_verified(error)
        if isinstance(error, PoolTimeout):
            return Fault(
                "away",
                f"no connection to {self.masked_url} is free; raise pool_size in engine_options",
            )
        if isinstance(error, (OSError, EOFError)):
            return self.faults.unreachable(error)
        if isinstance(error, TypeError) and "connect()" in str(error):
            return Fault(
                "away",
                f"the URL {self.masked_url} has an option that its driver does not know: {error}",
                permanent=True,
            )
        return None


def _used(connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["used"] = True


def _ask(
    dialect: Dialect, connection: DBAPIConnection, record: ConnectionPoolEntry, proxy: Any
) -> None:
    """Ping a connection that was used before, and make the pool reconnect if it does not answer."""
    if "used" in record.info and not _unasked.get():
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as exc:
            raise InvalidatePoolError from exc


class _Call:
    """One use of a connection, in its own task.

    Attributes:
        connection: The driver's connection; ``None`` until it is open.
    """

    def __init__(self, store: ServerStore, engine: AsyncEngine, *, unasked: bool) -> None:
        self._store = store
        self._engine = engine
        self._unasked = unasked
        self.connection: Any = None

    async def run(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        in_use = self._store.in_use
        _unasked.set(self._unasked)
        async with self._engine.connect() as connection:
            self.connection = (await connection.get_raw_connection()).driver_connection
            in_use.add(id(self.connection))
            try:
                return await work(connection)
            finally:
                in_use.discard(id(self.connection))
