"""The tracker: opens and closes everything; nothing else wires."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import weakref
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack

from structjob.capture.emit import emit
from structjob.capture.processors import check_setup
from structjob.context.errors import Classifier
from structjob.context.propagation import from_environment, remote_scope
from structjob.context.scope import Scope, current_scope, enter_scope
from structjob.diagnostics import faults
from structjob.engine import closing, shutdown
from structjob.engine.hosting import Host
from structjob.engine.opening import Options, connect, is_number, start
from structjob.engine.queue import Queue
from structjob.exceptions import (
    InvalidArgument,
    InvalidState,
    NotOpen,
    StoreUnavailable,
)
from structjob.filters import LogFilter, LogFilterKeywords
from structjob.levels import LEVELS, Level, level_name
from structjob.lifecycle.arguments import check_text
from structjob.lifecycle.contexts import JobContext, parent_scope
from structjob.lifecycle.finding import find_live
from structjob.lifecycle.handle import redacted
from structjob.lifecycle.host import OPEN_HOSTS
from structjob.lifecycle.jobs import UNCHANGED, Job, JobProgress
from structjob.lifecycle.options import JobKeywords, JobOptions, RetryKeywords
from structjob.models import AnyJob, EndStatus, JobStatus, Ledger, id_of
from structjob.retention.policy import PruneResult, Retention
from structjob.spool import routing
from structjob.spool.queue import Overflow
from structjob.spool.recorder import Recorder

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

    from structjob.engine.engine import Engine
    from structjob.engine.listeners import Callback, Listener
    from structjob.engine.loop_thread import LoopThread
    from structjob.lifecycle.bars import Bars
    from structjob.lifecycle.policy import Policy
    from structjob.lifecycle.retries import Retrying
    from structjob.queries.errors import Errors
    from structjob.queries.jobs import IdResolver, Jobs
    from structjob.queries.logs import Logs
    from structjob.queries.session_status import Sessions
    from structjob.queries.statistics import Statistics
    from structjob.queries.verify import VerifyResult
    from structjob.reader import Reader
    from structjob.store.ingest import Store
    from structjob.transfer.imports import ImportResult

T = TypeVar("T")

GIB = 1024**3

_CLOSING_WAITS = 10.0
"""Seconds that closing takes at most, unless told otherwise."""

_CLOSING_MARGIN = 1.0
"""Seconds that the thread of the tracker's loop may take longer than that."""

_MADE_BY_OPENING = frozenset(
    {"jobs", "logs", "sessions", "errors", "stats", "_own_reader", "_recorder", "_engine", "_store"}
)


class Tracker:
    """Tracks jobs, and records every event, in one database.

    Args:
        url: The path of an SQLite file (text or a path object), ``:memory:``, or a URL, as text or
            a ``sqlalchemy.URL``: ``sqlite:///jobs.db`` (three slashes: relative; four: absolute),
            ``postgresql://…``, ``mariadb://…``, ``mysql://…``. Default:
            ``$STRUCTJOB_DATABASE_URL``, ``$DATABASE_URL``, then ``sqlite:///structjob.db``.
        level: Least level that the database gets; `structjob.configure` has one for logging as a
            whole.
        spool: Whether events are safe on disk before the log call returns, or the directory for it.
            Never for a database in memory.
        spool_max_bytes: Bytes of events that may wait on disk.
        queue_size: Events that are held in memory at most.
        overflow: What happens to events beyond that: ``drop_oldest``, ``drop_newest``, or ``block``
            (foreign threads only, never a running loop: there the newest is dropped).
        batch_size: Events of one transaction at most.
        flush_interval: Seconds that an event waits at most before it is on its way; at most 1.
        writers: Tasks that write at once; SQLite has one.
        project: The project of jobs and events that have none of their own, at most 128 characters.
        service: Name of the program, at most 128 characters, for the list of sessions.
        strict: Raise faults of logging itself instead of counting them; for tests.
        heartbeat_interval: Seconds between two signs of life.
        retention: How long jobs and events are kept, a `Retention` or just an age: what is older is
            deleted about once an hour, by one process at a time. By default everything is kept; see
            `prune`.
        classifier: Given an exception, returns ``error_type``, ``retry_possible``, …; by default
            that of `structjob.configure`.
        resolve_id: Given an id that no job has, returns the id of the job it means, or ``None``;
            may be a coroutine function.
        handle_signals: Whether SIGTERM, unless the program handles it, cancels the running jobs and
            closes the tracker before the process ends; see `structjob.engine.shutdown`.
        schema: The schema for the tables, on PostgreSQL only; it is created with them. By default
            the first of the user's search path. The URL can name it as well (``?schema=logs``), for
            commands.
        engine_options: For SQLAlchemy's ``create_async_engine`` (servers only): the pool, TLS in
            ``connect_args``.

    Raises:
        InvalidArgument: if an option is not one of these. Opening raises what `open` says.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        level: Level | int = "info",
        spool: bool | str | os.PathLike[str] = True,
        spool_max_bytes: int = GIB,
        queue_size: int = 10_000,
        overflow: Overflow = "drop_oldest",
        batch_size: int = 2_000,
        flush_interval: float = 0.2,
        writers: int = 2,
        project: str | None = None,
        service: str | None = None,
        strict: bool = False,
        heartbeat_interval: float = 5.0,
        retention: Retention | float | timedelta | None = None,
        classifier: Classifier | None = None,
        resolve_id: IdResolver | None = None,
        handle_signals: bool = True,
        schema: str | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._level = LEVELS[level_name(level)]
        self._options = Options(
            url=url,
            schema=schema,
            engine_options=dict(engine_options or {}),
            spool=spool,
            spool_max_bytes=spool_max_bytes,
            queue_size=queue_size,
            overflow=overflow,
            batch_size=batch_size,
            flush_interval=flush_interval,
            writers=writers,
            heartbeat_interval=heartbeat_interval,
            service=redacted(check_text("service", service, 128)),
            strict=strict,
            retention=Retention.of(retention),
        )
        self._resolve_id = resolve_id
        self._handle_signals = handle_signals
        self._host = Host(classifier, self.aclose, redacted(check_text("project", project, 128)))
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._joined: Scope | None = None
        self._thread: LoopThread | None = None
        self._closing: concurrent.futures.Future[bool] = concurrent.futures.Future()
        self._recorder: Recorder
        self._engine: Engine
        self._store: Store
        self._own_reader: Reader
        self.jobs: Jobs
        """Reads jobs; see `structjob.queries.jobs.Jobs`."""
        self.logs: Logs
        """Reads events; see `structjob.queries.logs.Logs`."""
        self.sessions: Sessions
        """Reads sessions; see `structjob.queries.session_status.Sessions`."""
        self.errors: Errors
        """Errors, grouped by what they have in common; see `structjob.queries.errors.Errors`."""
        self.stats: Statistics
        """Statistics of jobs, steps and events; see `structjob.queries.statistics.Statistics`."""

    if not TYPE_CHECKING:  # else a misspelt name would have a type

        def __getattr__(self, name: str) -> Any:
            # What opening makes: `store` takes its time to import.
            if name in _MADE_BY_OPENING:
                self._host.require_open()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        from structjob.store.url import masked

        return f"<Tracker {masked(self._options.url) if self._options.url is not None else 'default'} {self._host.state}>"

    @property
    def is_open(self) -> bool:
        """Whether it is open in this process; a forked child cannot read by its parent's."""
        return self._host.state == "open" and not self._recorder.forked

    @property
    def level(self) -> str:
        """Least level that the database gets. May be set while the tracker is open; it counts from
        the next event on.

        Events that `structjob.configure` or structlog filters out do not reach the tracker at any
        level.

        Raises:
            InvalidFilter: if it is set to an unknown level. The former one remains.
        """
        return level_name(self._level)

    @level.setter
    def level(self, level: str | int) -> None:
        self._level = LEVELS[level_name(level)]
        if "_recorder" in self.__dict__:
            self._recorder.level = self._level

    # -- opening and closing
    # --------------------------------------------------------------------------

    async def open(self, *, required: bool = True) -> Self:
        """Connect, create the tables where they are absent, take orphaned spools over, begin to
        deliver.

        Args:
            required: Whether to raise where the database cannot be used as it is: its file cannot
                be created, or it is not structjob's. Otherwise the tracker opens without it, as it
                does while a server does not answer. What it records may then wait in another
                directory than the usual one.

        Raises:
            InvalidURL: if the URL cannot be understood, or the file cannot be created and is
                *required*.
            SchemaMismatch: if the database is not structjob's, or another version's, and is
                *required*.
            SpoolError: if the spool directory cannot be used.
            StoreUnavailable: if the database does not answer for a reason that somebody has to mend
                (a wrong password, a missing table), and the tracker is *strict*. Otherwise a
                tracker opens without the database: what is recorded waits in the spool (without
                one, in memory), a warning says so, and delivery begins by itself.
            NotOpen: if the tracker was open before; make a new one.
        """
        if self._host.state != "new":
            raise NotOpen(f"the tracker is {self._host.state}; make a new one to open it again")
        self._host.state = "opening"
        try:
            await self._open(required=required)
        except BaseException:
            self._host.state = "new"
            raise
        self._host.state = "open"
        OPEN_HOSTS.add(self._host)
        return self

    async def _open(self, *, required: bool) -> None:
        connected = await connect(self._options, self._host, self._level, required=required)
        from structjob.reader import Reader

        url, self._store, recorder, self._engine = connected
        recorder.level = self._level  # which may have been set meanwhile
        self._recorder = recorder
        self._host.attach(recorder, self._engine)
        self._own_reader = reader = Reader.over(
            url,
            fetch=self._host.fetch,
            transact=self._host.transact,
            flush=self._host.flush,
            resolve_id=self._resolve_id,
        )
        self.jobs, self.logs, self.sessions = reader.jobs, reader.logs, reader.sessions
        self.errors, self.stats = reader.errors, reader.stats
        self._engine.writers.on_stored = self.logs.stored
        await start(self._host, handle_signals=self._handle_signals)
        if self._options.strict:
            faults.strict_trackers.add(self)
        check_setup()
        self._join_environment()

    def _join_environment(self) -> None:
        """Below ``structjob run``, what belongs to no job belongs to the job of the command."""
        remote = from_environment(os.environ)
        if remote.job_id is not None and current_scope() is None:
            self._joined = remote_scope(remote)
            enter_scope(self._joined)

    async def aclose(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 -- covers several awaits, and what was left is told
        """Store what waits and let go of everything, within *timeout* seconds.

        Returns:
            Whether everything was stored. What was not stays in the spool, and the next tracker
            delivers it.
        """
        if self._host.state == "closed":
            return await self._closed_by_another(timeout)
        if self._host.state != "open":
            return True
        self._host.state = "closed"
        OPEN_HOSTS.remove(self._host)
        # the engine, its loop and the database's connection are the parent's
        if self._recorder.forked:
            return self._close_in_child()
        complete = False
        try:
            complete = await self._aclose(timeout)
        finally:
            self._closing.set_result(complete)
        return complete

    async def _closed_by_another(self, seconds: float) -> bool:
        """Return what became of the closing that somebody else began; False if it takes longer than
        *seconds*.
        """
        closing = asyncio.wrap_future(self._closing)
        done, _ = await asyncio.wait({closing}, timeout=seconds)
        return bool(done) and closing.result()

    async def _aclose(self, timeout: float) -> bool:  # noqa: ASYNC109 -- see `aclose`
        check_setup()
        if self._joined is not None and current_scope() is self._joined:
            enter_scope(None)
        faults.strict_trackers.discard(self)
        return await closing.close(self._host, timeout, self._close_readers)

    def _close_readers(self) -> None:
        self.logs.close()
        for listener in list(self._listeners):
            listener.close()

    def _close_in_child(self) -> bool:
        """Close in a forked child: the engine, its loop and the connections are the parent's."""
        self._engine.end_recording()
        shutdown.leave(self._host)
        self._closing.set_result(True)
        return True

    # -- without a loop
    # --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._open_here()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(shutdown.CLOSING if shutdown.under_way() else _CLOSING_WAITS)
        shutdown.finish()

    def _open_here(self) -> None:
        """Open in code without a loop: the tracker gets one in a thread of its own."""
        from structjob.engine.loop_thread import LoopThread

        thread = LoopThread()
        try:
            thread.run(self.open())
        except BaseException:
            thread.stop(_CLOSING_MARGIN)
            raise
        self._thread, self._host.threaded = thread, True
        # What opening did in that thread, and belongs to this one.
        if self._joined is not None and current_scope() is None:
            enter_scope(self._joined)
        if self._handle_signals:
            shutdown.handle_signals()

    def close(self, timeout: float = _CLOSING_WAITS) -> bool:
        """Do as `aclose` does, in code without a loop.

        Args:
            timeout: Seconds at most.

        Returns:
            Whether everything was stored; see `aclose`.

        Raises:
            InvalidState: on the tracker's own loop: write ``await tracker.aclose()`` there.
        """
        if self._host.state in ("new", "opening"):
            return True
        if self._host.state == "open" and self._recorder.forked:
            self._host.state = "closed"
            OPEN_HOSTS.remove(self._host)
            return self._close_in_child()
        if self._joined is not None and current_scope() is self._joined:
            enter_scope(None)
        thread, self._thread = self._thread, None
        if thread is None and self._host.state == "closed":
            done, _ = concurrent.futures.wait({self._closing}, timeout)
            return bool(done) and self._closing.result()
        try:
            return self._host.run(self.aclose(timeout), timeout + _CLOSING_MARGIN)
        except (TimeoutError, StoreUnavailable):
            return False
        finally:
            if thread is not None:
                thread.stop(_CLOSING_MARGIN)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the tracker's loop, from code without a loop, and wait for it.

        ::

            record = tracker.run(tracker.jobs.find("gui-17"))

        It runs in the caller's context: what it logs belongs to the caller's job.

        Args:
            work: Any coroutine, of this library or not.
            timeout: Seconds to wait at most, then it is cancelled; by default as long as it takes.

        Returns:
            What it returns.

        Raises:
            InvalidState: on the tracker's own loop: await it there; and if that loop does not run.
            NotOpen: if the tracker is not open, and in a forked process.
            TimeoutError: after *timeout* seconds.
        """
        return self._host.run(work, timeout)

    # -- with a loop
    # --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # -- jobs
    # --------------------------------------------------------------------------

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job, for ``async with``, for ``with`` in code without a loop, or as a decorator
        of functions and coroutine functions.

        Args:
            operation: What it does, at most 255 characters: statistics are by operation.
            options: job_type: text of at most 128 characters. owner, project: the same, inherited
                from the job around it, unless given. category: of at most 64, ``system`` by
                default. total_steps: how many steps it has, if that is known. description: text.
                metadata: a mapping, stored as JSON; secrets in it are redacted. external_job_id (≤
                255), context_id (≤ 64): ids of yours by which the job can be found. correlation_id
                (≤ 128): inherited from the job around it, unless given. job_id (≤ 64): an id of
                your own; an id that is known already opens the job's next attempt. idempotency_key
                (≤ 255): the first start wins; a second one gets a handle to it, with
                ``job.existing`` set. parent: a job, a job's id, or what `structjob.extract`
                returned; the job around it by default. wait: wait for the start's commit, a second
                at most (the default). offline: start a job with *job_id* or *idempotency_key*
                though the database is away. ``job.attempt`` is then provisional, one more than the
                last attempt that this process knows of; the true number is given where the attempt
                is stored, after all that others made meanwhile, and stands in whatever is read. A
                key that another job has by then is left out, and both ids stand in the metadata.

        Raises:
            InvalidArgument: if one of these is not so.
        """
        return JobContext(self._host, operation, JobOptions.of(options))

    def retrying(
        self, operation: str, policy: Policy | None = None, **options: Unpack[RetryKeywords]
    ) -> Retrying[Job]:
        """Return attempts at a whole job, for ``async for`` or as a decorator of coroutine
        functions.

        ::

            async for attempt in tracker.retrying("nightly", max_attempts=3, delay=60):
                async with attempt as job:
                    await load()

        It is one job, and each try is its next attempt. One that is tried again ends ``failed``,
        and ``retry_delay`` (seconds) stands in its last event; the last exception goes on its way
        as it is.

        Args:
            operation: See `job`.
            policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that says when to try
                again, or the figures *attempts*, *delay*, *backoff*, *max_delay*, *jitter* and
                *on*; see `structjob.retrying`.
            options: These figures, and what `job` takes.

        Raises:
            InvalidArgument: if one of these is not so.
        """
        from structjob.lifecycle.retries import retrying_job

        return retrying_job(self._host, operation, policy, options)

    async def create_job(self, operation: str, **options: Unpack[JobKeywords]) -> Job:
        """Record a pending job, to be started later (`Job.start`), by another process even:
        ``tracker.job(operation, job_id=job.id)``.

        Args:
            operation: See `job`.
            options: See `job`. A second call with the same *idempotency_key* returns a handle to
                the first one's job, with ``job.existing`` set, whether that has been started or
                not.

        Raises:
            InvalidArgument: if one of these is not so.
            StoreUnavailable: if it has an *idempotency_key* and the database does not answer (see
                *offline*).
        """
        self._host.require_open()
        settings = JobOptions.of(options)
        job = Job(self._host, operation, parent=parent_scope(settings.parent), options=settings)
        await job._create()
        return job

    # -- events
    # --------------------------------------------------------------------------

    def listen(
        self,
        callback: Callback | None = None,
        filter: LogFilter | None = None,  # as the queries of logs have it
        *,
        queue_size: int = 1_000,
        **filters: Unpack[LogFilterKeywords],
    ) -> Listener:
        """Listen to the events of this process as they are logged, before they are stored: at the
        database's level, and with ``id`` 0.

        Whoever logs never waits for a listener, nor for its faults. What *callback* logs itself is
        not listened to. To miss nothing, or for other processes' events, use ``tracker.logs.tail``.

        Args:
            callback: Called on this loop with each event that matches, one after the other; may be
                a coroutine function. Without one, iterate: ``async for event in
                tracker.listen(level="error")``.
            filter: What to listen to. A job is named by its ``job_id``, or given as a `Job`;
                ``children`` is refused.
            queue_size: Events that wait for their turn at most; `Listener.dropped` counts those
                that come when it is full.
            **filters: Fields of `LogFilter`, instead of *filter* or on top of it.

        Returns:
            A handle: ``close()`` ends it, as closing the tracker does.

        Raises:
            InvalidFilter: if a filter is unknown, or its value is refused.
            NotOpen: if the tracker is not open.
        """
        from structjob.engine.listeners import Listener
        from structjob.queries.paging import merged

        self._host.require_open()
        listener = Listener(
            self._recorder, callback, merged(LogFilter, filter, filters), queue_size
        )
        self._listeners.add(listener)
        return listener

    def progress_bars(self, stream: IO[str] | None = None) -> Bars:
        """Show a bar for each step that runs in this process, and for each job that reported a
        percentage, within the ``async with`` block.

        On a terminal they stand below whatever is logged or printed meanwhile, which is collected
        and written ten times a second; they are gone in the end. Elsewhere a line every ten seconds
        says how far each step is, and a last one how it ended.

        Args:
            stream: Where to; by default ``sys.stderr``.
        """
        from structjob.lifecycle.bars import Bars

        return Bars(self._host.live, stream)

    async def cancel(
        self,
        any_id: AnyJob,
        reason: str | None = None,
        *,
        by: str | None = None,
        force: bool = False,
    ) -> None:
        """Ask a job to stop, wherever it runs.

        One that is pending is cancelled at once, and never starts. One that runs under ``async
        with`` gets a `CancelledError` with *reason* in its own task, within about a second where
        another process runs it, and is recorded as cancelled when it ends by it. Its children run
        below it and go with it. An attempt is cancelled once: a second cancellation would interrupt
        what it does to clean up, and replace the reason.

        Args:
            any_id: Its id, external id or context id, a `Job` or a `JobRecord`; see `Jobs.find`.
            reason: Recorded as the job's error message; ``cancelled by request`` by default.
            by: Who asks, at most 128 characters; recorded in the job's log.
            force: Cancel it once more, though it is being cancelled already.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if it has ended, runs in this process without a task to cancel, or is
                being cancelled already and *force* is not set.
            StoreUnavailable: if the database does not answer.
        """
        from structjob.store import cancellations

        reason = redacted(check_text("reason", reason, 2_000)) or "cancelled by request"
        by = redacted(check_text("by", by, 128))
        record = await self.jobs.find(any_id)
        mine = [job for job in list(self._host.live) if job.id == record.id]
        if mine:
            max(mine, key=lambda job: job.attempt).request_cancel(reason, by, force=force)
            return

        def request(connection: Connection) -> JobStatus:
            return cancellations.request(connection, record.id, reason, by, force=force)

        former = await self._host.on_own_loop(
            self._engine.link.once(lambda: self._store.transact(request))
        )
        if former is JobStatus.PENDING:
            scope = Scope(
                recorder=self._recorder, job_id=record.id, operation=record.operation, correlation_id=record.correlation_id,
                parent_job_id=record.parent_job_id, category=record.category, project=record.project,
            )  # fmt: skip
            attrs = {
                "operation": record.operation,
                "status": "cancelled",
                "reason": reason,
                **({"requested_by": by} if by else {}),
            }
            emit(scope, "warning", "operation_end", attrs, kind="operation_end")

    def live_job(self, any_id: AnyJob) -> Job:
        """Return the handle of a job that runs in this process, by an id of it. Asks no database.

        Args:
            any_id: Its id, external id or context id, a `Job` or a `JobRecord`.

        Raises:
            InvalidState: if none runs here; ``tracker.jobs.find`` says where it does.
        """
        wanted = id_of(any_id)
        found = [
            job
            for job in list(self._host.live)
            if wanted in (job.id, job.external_job_id, job.context_id)
        ]
        if not found:
            session = self._recorder.session
            raise InvalidState(
                f"no job {wanted!r} runs in this process (session {session.session_id}, process "
                f"{session.pid} on {session.host}); `await tracker.jobs.find({wanted!r})` says "
                "where it runs, and whether it has ended"
            )
        # by its own id before those of others, and the newest of several
        return max(found, key=lambda job: (job.id == wanted, job.id, job.attempt))

    async def update(self, any_id: AnyJob, **progress: Unpack[JobProgress]) -> None:
        """Report progress of a job that runs in this process, by an id of it; see `Job.update`.

        Args:
            any_id: Its id, external id or context id, a `Job` or a `JobRecord`; see `Jobs.find`.
            progress: *percent*, *current_step*, *metadata*, *description*, as `Job.update` takes
                them. What comes after the end of the job is ignored, with a warning.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if it runs in another process, or has not begun; the message says
                which process.
        """
        job = await find_live(self.jobs, self.sessions, list(self._host.live), any_id, "update")
        if isinstance(job, Job):
            job.update(**progress)
        else:
            late = f"job {job.id} ({job.operation}) is {job.status.value}; update needs it running"
            self._recorder.tell(
                "progress",
                "progress is ignored: %s (further cases are reported at most once a minute)",
                late,
            )

    async def end(
        self,
        any_id: AnyJob,
        status: EndStatus | JobStatus | None = None,
        *,
        error: BaseException | None = None,
        result: Any = UNCHANGED,
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """End a job that was begun by hand in this process, by an id of it; see `Job.end`.

        Args:
            any_id: Its id, external id or context id, a `Job` or a `JobRecord`; see `Jobs.find`.
            status: See `Job.end`.
            error: See `Job.end`.
            result: See `Job.end`.
            summary: See `Job.end`.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if it has ended, has not begun, or runs in another process; the
                message says which one.
            InvalidArgument: what `Job.end` says.
        """
        job = await find_live(self.jobs, self.sessions, list(self._host.live), any_id, "end")
        if not isinstance(job, Job):
            raise InvalidState(
                f"job {job.id} ({job.operation}) is {job.status.value} already: it is ended once only"
            )
        await job.end(status, error=error, result=result, summary=summary)

    async def export(
        self, any_id: AnyJob, path: str | os.PathLike[str], *, children: bool = True
    ) -> int:
        """Write a job with its attempts, steps and events to a file of JSON lines, which `import_`
        takes back.

        Args:
            any_id: Its id, external id or context id, a `Job` or a `JobRecord`; see `Jobs.find`.
            path: The file, called ``.jsonl`` as a rule, compressed if its name ends in ``.gz``;
                replaced if it is there, for its owner's eyes only.
            children: With its descendants.

        Returns:
            How many lines there are.

        Raises:
            JobNotFound: if there is no such job.
            OSError: if the file cannot be written.
            InvalidArgument: if its name promises another form, ``.csv`` say.
        """
        from structjob.transfer.export import check_name, job_lines, write_lines

        check_name(path)
        job = await self.jobs.find(any_id)
        return await write_lines(job_lines(self.jobs, self.logs, job.id, children=children), path)

    async def import_(
        self,
        path: str | os.PathLike[str],
        *,
        ids: Literal["keep", "new"] = "keep",
        dry_run: bool = False,
    ) -> ImportResult:
        """Take the jobs of a file in that `export` wrote, or an older tracker in that form; see
        `structjob.transfer.export`.

        All of it is checked before anything is stored. The same file is stored once, however often
        it is imported; what was running is recorded as crashed.

        Args:
            path: The file; it may be compressed with gzip.
            ids: ``keep`` the jobs' ids, or give them ``new`` ones; the result maps the old ones to
                them.
            dry_run: Check, and store nothing.

        Raises:
            ImportRefused: if a line is wrong, or a job of that id is there already.
            StoreUnavailable: if the database does not answer; importing the same file again goes
                on.
        """
        from structjob.transfer.imports import import_file

        self._host.require_open()
        if ids not in ("keep", "new"):
            raise InvalidArgument(f"ids must be 'keep' or 'new', not {ids!r}")
        return await self._host.on_own_loop(
            import_file(self._store, Path(path), ids=ids, dry_run=dry_run)
        )

    async def prune(
        self,
        retention: Retention | float | timedelta | None = None,
        *,
        dry_run: bool = False,
        patience: float = 30.0,
    ) -> PruneResult:
        """Delete what is older than it is to be kept: jobs with all that belongs to them, and
        events, for good.

        It is done in transactions of a few milliseconds with breaths in between, so that whoever
        writes keeps more than nine tenths of his speed. The numbers of deleted events are put down
        in ``structjob_gaps``, and how often errors occurred in ``structjob_errors``. When it is
        interrupted, what was deleted by then is; the next one goes on.

        Args:
            retention: What is kept, and for how long: a `Retention`, or an age of everything, as
                days or a `timedelta`. By default the tracker's own.
            dry_run: Count what would be deleted, and delete nothing.
            patience: Seconds to wait while another process prunes.

        Returns:
            How much was deleted, and the files of the archive that hold it.

        Raises:
            InvalidArgument: if there is no retention, an age is none, or its archive cannot be
                used; nothing was deleted.
            PruneInProgress: if another process was still at it after *patience*.
            OSError: if the archive cannot be written: what is not in it is not deleted.
            StoreUnavailable: if the database does not answer.
        """
        from structjob.retention.prune import preview

        kept = Retention.of(retention) or self._options.retention
        if kept is None:
            raise InvalidArgument(
                "nothing says what is to be kept: give a Retention, to prune() or to the tracker"
            )
        if not is_number(patience) or not patience >= 0:
            raise InvalidArgument(f"patience must be a number of seconds, not {patience!r}")
        await self._host.flush()
        if dry_run:
            return await preview(self._host.fetch, kept)
        return await self._host.on_own_loop(self._engine.pruner.prune(kept, patience=patience))

    # -- accounts
    # --------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """Return what became of the events of this session; their sum is exact whenever it is
        asked.
        """
        if self._host.state == "new":
            return Ledger(0, 0, 0, 0)
        return self._engine.ledger()

    @property
    def queue(self) -> Queue:
        """How many events wait, and how many memory is meant to hold."""
        ledger = self.ledger()
        return Queue(ledger.spilled + ledger.in_memory, self._options.queue_size, self._clear)

    def _clear(self) -> int:
        self._host.require_open()
        if self._recorder.forked:
            raise NotOpen(
                "this is a forked process, and its parent delivers what it records: clear the queue there"
            )
        cleared = self._recorder.events.clear("cleared") + self._recorder.fallback.clear("cleared")
        self._engine.flush_soon()  # to put it down, and let those go on who wait for a flush
        return cleared

    @property
    def unavailable(self) -> StoreUnavailable | None:
        """Why the database cannot be used at the moment; ``None`` while it can."""
        self._host.require_open()
        return self._engine.link.down

    @property
    def spool_directory(self) -> Path | None:
        """The directory where events wait until they are stored; ``None`` if they wait in
        memory.
        """
        self._host.require_open()
        return self._recorder.root

    @property
    def session_id(self) -> int:
        """This tracker's session; with an event's ``seq`` it identifies the event."""
        return self._recorder.session.session_id

    async def flush(self, *, durable: bool = False) -> None:
        """Wait until everything recorded so far is stored, adopted spools included.

        Args:
            durable: Make it safe against a power cut, too.

        Raises:
            StoreUnavailable: if the database does not answer; everything stays in the spool.
        """
        self._host.require_open()
        if durable:
            for lane in self._recorder.lanes():
                lane.sync()
        await self._host.flush()
        if durable:
            await self._host.on_own_loop(self._store.make_durable())

    def reader(self, *, timeout: float | None = None) -> Reader:
        """Return a `Reader` of this tracker's database, to be opened with ``async with``, which
        sees what this tracker has logged.

        It has connections of its own, so that long queries do not keep the tracker's waiting; but a
        database in memory has only one, and no timeout.

        Args:
            timeout: See `Reader`.

        Raises:
            InvalidArgument: if *timeout* is not a positive number.
            NotOpen: if the tracker is not open.
        """
        from structjob.reader import Reader

        self._host.require_open()
        if getattr(self._store, "path", "") is None:
            return self._own_reader
        return Reader(
            self._options.url,
            timeout=timeout,
            schema=self._options.schema,
            resolve_id=self._resolve_id,
            engine_options=self._options.engine_options,
            flush=self._host.flush,
        )

    async def verify(self) -> VerifyResult:
        """Prove that nothing is lost: each number given out is stored, or explained."""
        from structjob.queries.verify import verify

        await self.flush()
        return await verify(self._host.fetch)

    @property
    def classifier(self) -> Classifier | None:
        """What derives the fields of an error: its own, else that of `structjob.configure` or
        `structjob.install`.
        """
        return self._host.classifier


def host_of(tracker: Tracker | None = None) -> Host | None:
    """Return what jobs ask of *tracker*; by default, of the one that was opened first and is still
    open, if there is one: events without a job are its own.
    """
    if tracker is not None:
        return tracker._host
    recorder = routing.default()
    return next((host for host in shutdown.open_hosts() if host.recorder is recorder), None)
