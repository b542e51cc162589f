"""Reads of one database without a tracker: no session, no spool, and nothing is created.

The tracker, the command line and the web pages all read through this module.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from sqlalchemy import URL, Connection, Executable, RowMapping

from structjob.exceptions import InvalidArgument, InvalidState, NotOpen, StoreUnavailable
from structjob.numeric import is_number
from structjob.queries import health
from structjob.queries.errors import Errors
from structjob.queries.health import Health
from structjob.queries.job_finder import IdResolver, JobFinder
from structjob.queries.jobs import Delete, Jobs
from structjob.queries.logs import Logs
from structjob.queries.session_status import Sessions
from structjob.queries.statistics import Statistics
from structjob.queries.tail import Tails
from structjob.queries.verify import VerifyResult, verify
from structjob.store.database_file import stamp
from structjob.store.factory import make_store
from structjob.urls.url import masked, parse, sqlite_path, with_schema

if TYPE_CHECKING:
    from structjob.models import PruneResult
    from structjob.retention.policy import Retention
    from structjob.store.contract import Fetch, Flush, Store, Transact

T = TypeVar("T")


class Reader:
    """Reads the data that trackers stored, while they are running or after they ended.

    ::

        async with structjob.Reader("sqlite:///jobs.db") as reader:
            for job in await reader.jobs.list(status="failed"):
                print(job.operation, job.error)

    It creates and changes nothing. Only ``errors.resolve`` and ``errors.reopen`` write. Use it
    within one event loop; any number of tasks can share it. If a database file is replaced, the
    reader opens the new file.

    Args:
        url: As for `Tracker`.
        timeout: Maximum seconds for one query. Then the query is stopped and `QueryTimeout` is
            raised. On SQLite the query is interrupted; the time it waits for other queries counts,
            because one query runs at a time. On a server the limit applies in the driver or the
            server: PostgreSQL uses the driver's ``command_timeout``, MariaDB
            ``max_statement_time``, and MySQL ``max_execution_time``, which applies to ``SELECT``
            statements only. By default there is no limit on SQLite, and a server that does not
            answer for 60 seconds counts as unavailable (`StoreUnavailable`).
        schema: The schema of the tables, on PostgreSQL only; see `Tracker`.
        resolve_id: As for `Tracker`.
        engine_options: As for `Tracker`.
        flush: Awaited before each read, to deliver pending events; see `Tracker.reader`.

    Raises:
        InvalidArgument: if *timeout* is not a positive number, or an option is invalid.
        InvalidURL: if the URL is invalid.

    A query raises `StoreUnavailable` while the database is unavailable.
    """

    jobs: Jobs
    """Reads jobs; see `structjob.queries.jobs.Jobs`."""
    logs: Logs
    """Reads events; see `structjob.queries.logs.Logs`."""
    sessions: Sessions
    """Reads sessions; see `structjob.queries.session_status.Sessions`."""
    errors: Errors
    """Reads errors, in groups of the same error; see `structjob.queries.errors.Errors`."""
    stats: Statistics
    """Computes statistics of jobs, steps and events; see
    `structjob.queries.statistics.Statistics`.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        timeout: float | None = None,
        schema: str | None = None,
        resolve_id: IdResolver | None = None,
        engine_options: Mapping[str, Any] | None = None,
        flush: Flush | None = None,
    ) -> None:
        if timeout is not None and not (is_number(timeout) and timeout > 0):
            raise InvalidArgument(f"timeout must be a positive number of seconds, not {timeout!r}")
        parsed = parse(url) if schema is None else with_schema(url, schema)
        self._store: Store | None = make_store(parsed, engine_options or {}, read_timeout=timeout)
        self._attached = False
        self._closed = False
        self._attaching = asyncio.Lock()
        self._wire(parsed, self._fetch, self._transact, flush, resolve_id)

    def _wire(
        self,
        url: URL,
        fetch: Fetch,
        transact: Transact,
        flush: Flush | None,
        resolve_id: IdResolver | None,
        delete: Delete | None = None,
        tails: Tails | None = None,
    ) -> None:
        self._ask, self._flush = fetch, flush or _nothing_pending
        self._tails = tails or Tails()
        self._masked_url = masked(url.set(drivername=url.get_backend_name()))
        self._kind = url.get_backend_name()
        finder = JobFinder(fetch, resolve_id)
        self.jobs = Jobs(fetch, self._flush, finder=finder, delete=delete)
        look = functools.partial(stamp, sqlite_path(url))
        self.logs = Logs(fetch, self._flush, finder, look, self._tails)
        self.sessions = Sessions(fetch, self._flush)
        self.errors = Errors(fetch, self._flush, transact, finder)
        self.stats = Statistics(fetch, self._flush, finder)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._attached else "new"
        return f"<Reader {self._masked_url} {state}>"

    # -- opening and closing
    # --------------------------------------------------------------------------

    async def open(self) -> Self:
        """Connect to the database. Does nothing if the reader is open; can be repeated after a
        failure.

        Raises:
            StoreUnavailable: if there is no such database, or it does not answer.
            SchemaMismatch: if it does not contain structjob's tables, or those of another version.
            InvalidURL: if the database is in memory. Only the tracker that created it can read it;
                see `Tracker.reader`.
            NotOpen: if the reader was closed.
        """
        if self._closed:
            raise NotOpen("the reader is closed; make a new one")
        if self._attached:
            return self
        async with self._attaching:
            if not self._attached and self._store is not None:
                await self._store.attach()
                self._attached = True
        return self

    async def aclose(self) -> None:
        """End the tails and close the connections. Does nothing if the reader is closed."""
        if self._store is None or self._closed:  # without a store of its own, the caller closes it
            return
        self._closed = True
        self._tails.end()
        await self._store.close()

    async def __aenter__(self) -> Self:
        try:
            return await self.open()
        except BaseException:
            await self.aclose()
            raise

    def __enter__(self) -> NoReturn:
        raise InvalidState(
            "a Reader reads within an event loop: write `async with` in a coroutine function, and call it with asyncio.run(); in code without "
            "a loop, `with structjob.Tracker(url) as tracker` reads, too: tracker.run(tracker.jobs.list())"
        )

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        """Do nothing: `__enter__` has raised the error that says what to write instead."""

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        await self.aclose()

    # -- reading
    # --------------------------------------------------------------------------

    async def verify(self) -> VerifyResult:
        """Prove that no event is lost: each assigned number is stored or explained.

        This does not deliver events that wait in a spool. A tracker or the command line does that.

        Raises:
            StoreUnavailable: if the database is unavailable.
        """
        await self._flush()
        return await verify(self._ask)

    async def preview_prune(self, retention: Retention) -> PruneResult:
        """Count what `Tracker.prune` would delete, and delete nothing.

        Args:
            retention: What is kept, and for how long.

        Raises:
            StoreUnavailable: if the database is unavailable.
        """
        from structjob.retention.prune import preview

        await self._flush()
        return await preview(self._ask, retention)

    async def health(self) -> Health:
        """Return whether the database is available, and its state. Problems do not raise an
        exception.
        """
        return await health.look(self._ask, self._masked_url, self._kind)

    async def _fetch(self, statement: Executable) -> Sequence[RowMapping]:
        return await self._on_present(lambda store: store.fetch(statement))

    async def _transact(self, call: Callable[[Connection], T]) -> T:
        return await self._on_present(lambda store: store.transact(call))

    async def _on_present(self, call: Callable[[Store], Awaitable[T]]) -> T:
        """Return the result of *call*; if the database is gone, of the one that replaced it."""
        if not self._attached or self._closed:
            await self.open()
        assert self._store is not None  # noqa: S101 -- not called for a reader over another's store
        try:
            return await call(self._store)
        except StoreUnavailable as exc:
            if not exc.gone:
                raise
        self._attached = False
        await self.open()
        return await call(self._store)


class StoreReader(Reader):
    """A reader of a store that its caller opens and closes.

    Args:
        url: The URL of the database.
        fetch: Runs a statement and returns its rows.
        transact: Runs a call in a transaction.
        flush: See `Reader`.
        resolve_id: See `Reader`.
        delete: Deletes a job by its id.
        tails: Gets the tails, so that the caller can wake and end them.
    """

    def __init__(
        self,
        url: URL,
        *,
        fetch: Fetch,
        transact: Transact,
        flush: Flush,
        resolve_id: IdResolver | None,
        delete: Delete,
        tails: Tails,
    ) -> None:
        self._store, self._attached, self._closed = None, True, False
        self._wire(url, fetch, transact, flush, resolve_id, delete, tails)


async def _nothing_pending() -> None:
    """Do nothing: a reader writes nothing, so none of its own events can be pending."""
