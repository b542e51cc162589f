"""The tracker: what programs call. `structjob.engine.lifetime` opens and closes its parts."""

from __future__ import annotations

import os
import weakref
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NoReturn, Self, TypedDict, TypeVar, Unpack

from structjob.capture.processors import check_level
from structjob.context.errors import Classifier
from structjob.engine.finding import find_live, find_running
from structjob.engine.hosting import Host
from structjob.engine.lifetime import CLOSING_WAITS, Lifetime
from structjob.engine.opening import Connected, Options, is_number
from structjob.engine.queue import Queue
from structjob.exceptions import InvalidArgument, InvalidState, NotOpen, StoreUnavailable
from structjob.filters import LogFilter, LogFilterKeywords
from structjob.levels import LEVELS, Level, level_name
from structjob.lifecycle.arguments import check_label, check_units
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import (
    UNCHANGED,
    Job,
    JobContext,
    JobKeywords,
    JobUpdate,
    RetryKeywords,
    job_of,
    parent_scope,
)
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.lifecycle.options import JobOptions
from structjob.models import AnyJob, Ledger, PruneResult
from structjob.retention.policy import Retention, retention_of
from structjob.spool.queue import Overflow
from structjob.spool.recorder import Recorder
from structjob.statuses import EndStatus, JobStatus

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.engine.engine import Engine
    from structjob.engine.listeners import Callback, Listener
    from structjob.lifecycle.bars import Bars
    from structjob.lifecycle.policy import Policy
    from structjob.lifecycle.retries import Retrying
    from structjob.queries.errors import Errors
    from structjob.queries.job_finder import IdResolver
    from structjob.queries.jobs import Jobs
    from structjob.queries.logs import Logs
    from structjob.queries.session_status import Sessions
    from structjob.queries.statistics import Statistics
    from structjob.queries.tail import Tails
    from structjob.queries.verify import VerifyResult
    from structjob.reader import Reader
    from structjob.store.contract import Store
    from structjob.transfer.export import ExportFormat
    from structjob.transfer.imports import ImportResult

T = TypeVar("T")

GIB = 1024**3

_PRUNE_TIMEOUT = 30.0
"""Default maximum of seconds to wait while another process prunes."""

_MADE_BY_OPENING = frozenset(
    {"jobs", "logs", "sessions", "errors", "stats", "_own_reader", "_recorder", "_engine", "_store"}
)


class TrackerKeywords(TypedDict, total=False):
    """The options of `Tracker` as keywords, for type checkers."""

    level: Level | int
    debug_on_failure: int
    spool: bool | str | os.PathLike[str]
    spool_max_bytes: int
    queue_size: int
    overflow: Overflow
    deliver: bool
    batch_size: int
    flush_interval: float
    writers: int
    project: str | None
    service: str | None
    strict: bool
    heartbeat_interval: float
    retention: Retention | timedelta | None
    classifier: Classifier | None
    resolve_id: IdResolver | None
    handle_signals: bool
    schema: str | None
    engine_options: Mapping[str, Any] | None


class Tracker:
    """Tracks jobs, and records every event, in one database.

    Args:
        url: The path of an SQLite file (text or a path object), ``:memory:``, or a URL, as text or
            a ``sqlalchemy.URL``: ``sqlite:///jobs.db`` (three slashes: relative; four: absolute),
            ``postgresql://…``, ``mariadb://…``, ``mysql://…``. Default:
            ``$STRUCTJOB_DATABASE_URL``, ``$DATABASE_URL``, then ``sqlite:///structjob.db``.
        level: Minimum level of the events that the database gets, ``info`` by default. The level of
            `structjob.configure` applies to logging as a whole.
        debug_on_failure: How many events below *level* are kept in memory for each job that runs, 0
            by default, 10,000 at most. If the job fails, they are recorded, with ``late=True``.
            Otherwise they are discarded.
        spool: Whether events are safe on disk before the log call returns (the default), or the
            directory for them. A database in memory has no spool.
        spool_max_bytes: Maximum bytes of events that may wait on disk, 1 GiB by default.
        queue_size: Maximum number of events held in memory, 10,000 by default.
        overflow: What is dropped when the queue is full: ``drop_oldest`` (the default) or
            ``drop_newest``. ``block`` makes the caller wait. It applies to other threads only,
            never to a running loop: there the newest event is dropped.
        deliver: Whether this process stores what it records; True by default. If False, it only
            writes to its spool and makes no connection to the database. Another process on the same
            host delivers the spool: a `structjob.Deliverer`, or any tracker of the same database.
            What needs the database raises `StoreUnavailable`; see the guide.
        batch_size: Maximum number of events in one transaction, 2,000 by default.
        flush_interval: Maximum seconds before a waiting event is sent, 0.2 by default; 1 at most.
        writers: Number of tasks that write concurrently, 2 by default. SQLite always has one.
        project: The project of jobs and events that have no project of their own, at most 128
            characters.
        service: Name of the program, at most 128 characters. The list of sessions shows it.
        strict: Raise internal errors of logging instead of counting them. Meant for tests.
        heartbeat_interval: Seconds between two heartbeats, 5 by default.
        retention: How long jobs and events are kept: a `Retention`, or only an age. Older ones are
            deleted about once an hour, by one process at a time. By default everything is kept. See
            `prune`.
        classifier: A function that takes an exception and returns ``error_type``,
            ``retry_possible``, …. Default: the classifier of `structjob.configure`.
        resolve_id: A function that takes an id that no job has. It returns the id of the job that
            is meant, or ``None``. It may be a coroutine function.
        handle_signals: Whether SIGTERM cancels the running jobs and closes the tracker before the
            process ends. A signal handler of the program takes precedence. See
            `structjob.engine.shutdown`.
        schema: The schema for the tables, on PostgreSQL only. It is created together with the
            tables. Default: the first schema in the user's search path. The URL can also name it
            (``?schema=logs``), which the commands use.
        engine_options: Options for SQLAlchemy's ``create_async_engine`` (servers only): the pool,
            and TLS in ``connect_args``.

    Raises:
        InvalidArgument: if an option is invalid. For the exceptions of opening, see `open`.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] | URL | None = None,
        *,
        level: Level | int = "info",
        debug_on_failure: int = 0,
        spool: bool | str | os.PathLike[str] = True,
        spool_max_bytes: int = GIB,
        queue_size: int = 10_000,
        overflow: Overflow = "drop_oldest",
        deliver: bool = True,
        batch_size: int = 2_000,
        flush_interval: float = 0.2,
        writers: int = 2,
        project: str | None = None,
        service: str | None = None,
        strict: bool = False,
        heartbeat_interval: float = 5.0,
        retention: Retention | timedelta | None = None,
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
            debug_on_failure=int(check_units("debug_on_failure", debug_on_failure, most=10_000)),
            spool=spool,
            spool_max_bytes=spool_max_bytes,
            queue_size=queue_size,
            overflow=overflow,
            deliver=deliver,
            batch_size=batch_size,
            flush_interval=flush_interval,
            writers=writers,
            heartbeat_interval=heartbeat_interval,
            project=check_label("project", project, 128),
            service=check_label("service", service, 128),
            strict=strict,
            retention=retention_of(retention),
            classifier=classifier,
            handle_signals=handle_signals,
        )
        self._resolve_id = resolve_id
        self._host, self._lifetime = self._new_lifetime()
        self._listeners: weakref.WeakSet[Listener] = weakref.WeakSet()
        self._recorder: Recorder
        self._engine: Engine
        self._store: Store
        self._own_reader: Reader
        self._tails: Tails
        self.jobs: Jobs
        """Reads jobs; see `structjob.queries.jobs.Jobs`."""
        self.logs: Logs
        """Reads events; see `structjob.queries.logs.Logs`."""
        self.sessions: Sessions
        """Reads sessions; see `structjob.queries.session_status.Sessions`."""
        self.errors: Errors
        """Reads errors, in groups of the same error; see `structjob.queries.errors.Errors`."""
        self.stats: Statistics
        """Computes statistics of jobs, steps and events; see
        `structjob.queries.statistics.Statistics`.
        """

    if not TYPE_CHECKING:  # otherwise a type checker would accept a misspelled name

        def __getattr__(self, name: str) -> Any:
            # These attributes exist after opening only, because importing `store` is slow.
            if name in _MADE_BY_OPENING:
                self._host.require_open()
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        from structjob.urls.url import masked

        return f"<Tracker {masked(self._options.url) if self._options.url is not None else 'default'} {self._host.state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Tracker belongs to its process and cannot be pickled: open one in the other process, in workers of a pool "
            "by initializer=structjob.worker_initializer(url)"
        )

    @property
    def is_open(self) -> bool:
        """Whether the tracker is open in this process. A forked child cannot read through its
        parent's tracker.
        """
        return self._host.state == "open" and not self._recorder.forked

    @property
    def level(self) -> str:
        """Minimum level of the events that the database gets.

        It can be set while the tracker is open, and applies from the next event on. Events that
        `structjob.configure` or structlog filters out never reach the tracker, whatever this level
        is.

        Raises:
            InvalidFilter: if it is set to an unknown level. The previous level remains.
        """
        return level_name(self._level)

    @level.setter
    def level(self, level: str | int) -> None:
        self._level = LEVELS[level_name(level)]
        if "_recorder" in self.__dict__:
            self._recorder.level = self._level

    # -- opening and closing
    # --------------------------------------------------------------------------

    def _new_lifetime(self) -> tuple[Host, Lifetime]:
        """Return what one opening needs.

        A tracker that is opened again gets new ones. So the handles of its earlier jobs keep the
        host under which they ran, which stays closed.
        """
        host = Host(self._options.classifier, self.aclose, self._options.project)
        lifetime = Lifetime(host, self._options, opened=self._opened, closed=self._close_readers)
        return host, lifetime

    def _for_opening(self) -> Lifetime:
        if self._lifetime.over:
            self._host, self._lifetime = self._new_lifetime()
        return self._lifetime

    def _current_host(self) -> Host:
        return self._host

    async def open(self, *, required: bool = True) -> Self:
        """Connect to the database, create missing tables, adopt orphaned spools, and start
        delivery.

        A tracker that was closed can be opened again, also on another event loop. This begins a new
        session.

        Args:
            required: Whether to raise if the database cannot be used as it is: its file cannot be
                created, or it is not structjob's. If False, the tracker opens without the database,
                as it does while a server does not answer. Events recorded then may wait in a
                directory other than the usual one.

        Raises:
            InvalidURL: if the URL is invalid, or the file cannot be created and is *required*.
            SchemaMismatch: if the database is not structjob's or belongs to another version, and is
                *required*.
            SpoolError: if the spool directory cannot be used.
            StoreUnavailable: if the tracker is *strict* and the database is unavailable for a
                reason that someone has to fix (a wrong password, a missing table). A tracker that
                is not strict opens without the database: events wait in the spool (without a spool,
                in memory), a warning is logged, and delivery starts automatically once the database
                is available.
            NotOpen: if this tracker is open, or is being closed.
        """
        await self._for_opening().open(self._level, required=required)
        return self

    def _opened(self, connected: Connected) -> None:
        """Keep what opening has created, before the delivery starts."""
        from structjob.queries.tail import Tails
        from structjob.reader import StoreReader

        url, self._store, recorder, self._engine = connected
        recorder.level = self._level  # the level may have been set during the connect
        check_level(self._level, below=recorder.kept is not None)
        self._recorder = recorder
        self._tails = Tails()
        self._own_reader = reader = StoreReader(
            url,
            fetch=self._host.fetch,
            transact=self._host.transact,
            flush=self._host.flush,
            resolve_id=self._resolve_id,
            delete=self._delete,
            tails=self._tails,
        )
        self.jobs, self.logs, self.sessions = reader.jobs, reader.logs, reader.sessions
        self.errors, self.stats = reader.errors, reader.stats
        self._engine.delivery.on_stored = self._tails.wake

    async def aclose(self, timeout: float = 10.0) -> bool:  # noqa: ASYNC109 -- covers several awaits, and the result reports what was left
        """Store the waiting events and release all resources within *timeout* seconds (10 by
        default).

        Returns:
            Whether everything was stored. Events that were not stored stay in the spool, and the
                next tracker delivers them.
        """
        return await self._lifetime.close(timeout)

    def _close_readers(self) -> None:
        self._tails.end()
        for listener in list(self._listeners):
            listener.close()

    # -- without an event loop
    # --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._for_opening().open_here(self._level)
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        self._lifetime.leave_here()

    def close(self, timeout: float = CLOSING_WAITS) -> bool:
        """Close as `aclose` does, in code without an event loop.

        Args:
            timeout: Maximum seconds to take, 10 by default.

        Returns:
            Whether everything was stored; see `aclose`.

        Raises:
            InvalidState: on the tracker's own loop. Write ``await tracker.aclose()`` there.
        """
        return self._lifetime.close_here(timeout)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the tracker's loop from code without a loop, and wait for it.

        ::

            record = tracker.run(tracker.jobs.find("gui-17"))

        The coroutine runs in the caller's context: the events it logs belong to the caller's job.

        Args:
            work: Any coroutine, also one that is not structjob's.
            timeout: Maximum seconds to wait; then the coroutine is cancelled. No limit by default.

        Returns:
            The coroutine's result.

        Raises:
            InvalidState: on the tracker's own loop (await the coroutine there), or if that loop is
                not running.
            NotOpen: if the tracker is not open, and in a forked process.
            TimeoutError: after *timeout* seconds.
        """
        return self._host.run(work, timeout)

    # -- with an event loop
    # --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        await self.aclose()

    # -- jobs
    # --------------------------------------------------------------------------

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job, to be used as a context manager or as a decorator.

        Use it with ``async with``, with ``with`` in code without a loop, or as a decorator of
        functions and coroutine functions.

        Args:
            operation: The name of the work, at most 255 characters. Statistics are grouped by it.
            options: The job's options:

                - ``job_type``: text of at most 128 characters.
                - ``owner``, ``project``: text of at most 128 characters. By default inherited from
                  the enclosing job.
                - ``category``: text of at most 64 characters, ``system`` by default.
                - ``total_steps``: the number of steps, if it is known.
                - ``description``: text.
                - ``metadata``: a mapping, stored as JSON. Secrets in it are redacted.
                - ``external_job_id`` (at most 255 characters), ``context_id`` (at most 64): your
                  own ids, by which the job can be found.
                - ``correlation_id``: at most 128 characters. By default inherited from the
                  enclosing job.
                - ``job_id``: an id of your own, at most 64 characters. If a job with this id
                  exists, its next attempt is started.
                - ``idempotency_key``: at most 255 characters. The first start wins. A second start
                  gets a handle to that job, with ``job.existing`` set. For a decorated function,
                  each of these five ids may be a function that gets the arguments of the call by
                  name: ``job_id=lambda call: f"order-{call['order']}"``.
                - ``parent``: a job, a job's id, or the return value of `structjob.extract`. By
                  default the enclosing job.
                - ``wait``: whether to wait until the start is committed, for 1 second at most. True
                  by default.
                - ``offline``: whether to start a job with *job_id* or *idempotency_key* although
                  the database is unavailable. False by default. ``job.attempt`` is then
                  provisional: one more than the last attempt that this process knows. The final
                  number is assigned when the attempt is stored, after all attempts that other
                  processes made in the meantime. Reads return the final number. If another job has
                  taken the key by then, this job is stored without the key, and its metadata
                  contains both ids.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        return JobContext(self._current_host, operation, options)

    def retrying(
        self, operation: str, policy: Policy | None = None, **options: Unpack[RetryKeywords]
    ) -> Retrying[Job]:
        """Return attempts at a whole job.

        Use it with ``async for``, with ``for`` in code without a loop, or as a decorator of
        functions and coroutine functions.

        ::

            async for attempt in tracker.retrying("nightly", max_attempts=3, delay=60):
                async with attempt as job:
                    await load()

        All attempts belong to one job. An attempt that is followed by a retry ends ``failed``, and
        its last event contains ``retry_delay`` (seconds). The exception of the last attempt is
        re-raised unchanged.

        Args:
            operation: See `job`.
            policy: A ``tenacity.AsyncRetrying`` or ``tenacity.Retrying`` that decides when to
                retry. Without it, the retry options *max_attempts*, *delay*, *backoff*,
                *max_delay*, *jitter* and *on* decide; see `structjob.retrying`.
            options: The retry options, and the options of `job`.

        Raises:
            InvalidArgument: if an argument is invalid.
        """
        from structjob.lifecycle.retrying import retrying_job

        return retrying_job(self._current_host, operation, policy, options)

    async def create_job(self, operation: str, **options: Unpack[JobKeywords]) -> Job:
        """Record a pending job that is started later with `Job.start`.

        Another process can start it, too: ``tracker.job(operation, job_id=job.id)``.

        Args:
            operation: See `job`.
            options: See `job`. A second call with the same *idempotency_key* returns a handle to
                the first call's job, with ``job.existing`` set, whether that job has started or
                not.

        Raises:
            InvalidArgument: if an argument is invalid.
            StoreUnavailable: if there is an *idempotency_key* and the database is unavailable (see
                *offline*).
        """
        self._host.require_open()
        settings = JobOptions.of(options)
        parent = parent_scope(settings.parent)
        job = Job(JobCore(self._host, operation, parent=parent, options=settings))
        await core_of(job).create()
        return job

    # -- events
    # --------------------------------------------------------------------------

    def listen(
        self,
        callback: Callback | None = None,
        filter: LogFilter | None = None,  # the same name as in `Logs`
        *,
        queue_size: int = 1_000,
        **filters: Unpack[LogFilterKeywords],
    ) -> Listener:
        """Listen to the events of this process as they are logged, before they are stored.

        The listener gets events at the database's level or above. Their ``id`` is None.

        Logging never waits for a listener and never fails because of one. Events that *callback*
        itself logs do not reach the listener. Use ``tracker.logs.tail`` to miss no event, or to see
        the events of other processes.

        Args:
            callback: A function or coroutine function. It is called on this loop with each matching
                event, one after the other. Without it, iterate: ``async for event in
                tracker.listen(level="error")``.
            filter: Which events to listen to. Select a job by its ``job_id``, or pass a `Job`;
                ``children`` is refused.
            queue_size: Maximum number of waiting events, 1,000 by default. Events that arrive while
                the queue is full are dropped, and `Listener.dropped` counts them.
            **filters: Fields of `LogFilter`, instead of *filter* or in addition to it.

        Returns:
            A handle. Its ``close()`` ends it, as closing the tracker does.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
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
        """Show progress bars within the ``async with`` or ``with`` block.

        There is one bar for each step that runs in this process, and one for each job that reported
        a percentage. On a terminal the bars stay below all logged or printed output, which is
        collected and written ten times a second. They disappear at the end. Elsewhere, a line every
        10 seconds reports the progress of each step, and a last line reports its outcome.

        Args:
            stream: Where to write, ``sys.stderr`` by default.
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
        """Ask a job to stop, in whichever process it runs.

        A pending job is cancelled at once, and never starts. A job that runs under ``async with``
        gets a `CancelledError` with *reason* in its own task; if another process runs it, within
        about 1 second. It is recorded as cancelled when it ends because of that error. Its child
        jobs run inside it and are cancelled with it. An attempt is cancelled only once, because a
        second cancellation would interrupt its cleanup and replace the reason.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            reason: Recorded as the job's error message; ``cancelled by request`` by default.
            by: The person or service that asks, at most 128 characters. It is recorded in the job's
                log.
            force: Cancel the job again although it is already being cancelled.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job has ended, runs in this process without a task to cancel, or is
                already being cancelled and *force* is not set.
            StoreUnavailable: if the database is unavailable.
        """
        from structjob.engine.cancel_request import cancel

        reason = check_label("reason", reason, 2_000) or "cancelled by request"
        by = check_label("by", by, 128)
        await cancel(self._host, await self.jobs.find(any_id), reason, by, force=force)

    def live_job(self, any_id: AnyJob) -> Job:
        """Return the handle of a job that runs in this process. This does not query the database.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`.

        Raises:
            InvalidState: if no such job runs here. ``tracker.jobs.find`` returns where it runs.
        """
        return job_of(find_running(list(self._host.live), any_id, self._recorder.session))

    async def update(self, any_id: AnyJob, **progress: Unpack[JobUpdate]) -> None:
        """Report progress of a job that runs in this process, by any of its ids; see `Job.update`.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            progress: *percent*, *current_step*, *metadata* and *description*, as in `Job.update`.
                Progress after the end of the job is ignored with a warning.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job runs in another process or has not started. The message names
                the process.
        """
        job = await find_live(self.jobs, self.sessions, list(self._host.live), any_id, "update")
        if isinstance(job, JobCore):
            job_of(job).update(**progress)
        else:
            late = f"job {job.id} ({job.operation}) is {job.status.value}; update needs it running"
            self._recorder.warn(
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
        """End a job that was started manually in this process, by any of its ids; see `Job.end`.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            status: See `Job.end`.
            error: See `Job.end`.
            result: See `Job.end`.
            summary: See `Job.end`.

        Raises:
            JobNotFound: if there is no such job.
            InvalidState: if the job has ended, has not started, or runs in another process. The
                message names the process.
            InvalidArgument: see `Job.end`.
        """
        job = await find_live(self.jobs, self.sessions, list(self._host.live), any_id, "end")
        if not isinstance(job, JobCore):
            raise InvalidState(
                f"job {job.id} ({job.operation}) is {job.status.value} already: a job can end only once"
            )
        await job_of(job).end(status, error=error, result=result, summary=summary)

    async def export(
        self,
        any_id: AnyJob,
        path: str | os.PathLike[str],
        *,
        format: ExportFormat | None = None,
        children: bool = True,
    ) -> int:
        """Write a job with its attempts, steps and events to a JSON Lines file for `import_`; or
        only its events, as CSV or as text.

        Args:
            any_id: The job's id, external id or context id, a `Job` or a `JobRecord`; see
                `Jobs.find`.
            path: The file. It is compressed if its name ends in ``.gz``. An existing file is
                replaced. Only its owner can read it.
            format: ``jsonl``, ``csv`` or ``text``. By default the extension decides: ``.csv``:
                ``csv``; ``.txt``, ``.log``: ``text``; anything else: ``jsonl``.
            children: Whether to include the job's descendants, True by default.

        Returns:
            The number of lines. For CSV it includes the headings; for text it is the number of
            events.

        Raises:
            JobNotFound: if there is no such job.
            OSError: if the file cannot be written.
            InvalidArgument: if there is no such format, or the file name has the extension of
                another one.
        """
        from structjob.transfer.event_lines import event_lines
        from structjob.transfer.export import format_of, job_lines, write_lines

        form = format_of(path, format)
        job = await self.jobs.find(any_id)
        if form == "jsonl":
            lines = job_lines(self.jobs, self.logs, job.id, children=children)
        else:
            lines = event_lines(self.logs, form, {"job_id": job.id, "children": children})
        return await write_lines(lines, path)

    async def import_(
        self,
        path: str | os.PathLike[str],
        *,
        ids: Literal["keep", "new"] = "keep",
        dry_run: bool = False,
    ) -> ImportResult:
        """Import the jobs of a file that `export` wrote, or of an older tracker's file in that
        format.

        For the format see `structjob.transfer.export`. The whole file is checked before anything is
        stored. The same file is stored only once, however often it is imported. Jobs that were
        running are recorded as crashed.

        Args:
            path: The file; it may be compressed with gzip.
            ids: ``keep`` the job ids (the default), or assign ``new`` ones. The result maps the old
                ids to the new ones.
            dry_run: Check the file and store nothing.

        Raises:
            ImportRefused: if a line is invalid, or a job with that id exists already.
            StoreUnavailable: if the database is unavailable. Import the same file again to
                continue.
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
        retention: Retention | timedelta | None = None,
        *,
        dry_run: bool = False,
        patience: float = _PRUNE_TIMEOUT,
    ) -> PruneResult:
        """Permanently delete jobs and events that are past their retention.

        A job is deleted with everything that belongs to it. The deletion uses transactions of a few
        milliseconds with pauses in between, so that concurrent writers keep more than nine tenths
        of their speed. The numbers of deleted events are recorded in ``structjob_gaps``, and the
        counts of errors in ``structjob_errors``. If it is interrupted, everything deleted so far
        stays deleted, and the next call continues.

        Args:
            retention: What is kept, and for how long: a `Retention`, or one age for everything as a
                `timedelta`. Default: the tracker's own retention.
            dry_run: Count what would be deleted, and delete nothing.
            patience: Seconds to wait while another process prunes, 30 by default.

        Returns:
            How much was deleted, and the archive files that contain it.

        Raises:
            InvalidArgument: if there is no retention, an age is invalid, or the archive cannot be
                used. Nothing was deleted.
            PruneInProgress: if another process is still pruning after *patience* seconds.
            OSError: if the archive cannot be written. Only archived rows are deleted.
            StoreUnavailable: if the database is unavailable.
        """
        from structjob.retention.prune import preview

        kept = retention_of(retention) or self._options.retention
        if kept is None:
            raise InvalidArgument(
                "no retention is set: give a Retention to prune() or to the tracker"
            )
        if not is_number(patience) or not patience >= 0:
            raise InvalidArgument(f"patience must be a number of seconds, not {patience!r}")
        await self._host.flush()
        if dry_run:
            return await preview(self._host.fetch, kept)
        return await self._host.on_own_loop(self._engine.pruner.prune(kept, patience=patience))

    async def _delete(self, job_id: str) -> PruneResult:
        pruner = self._engine.pruner
        return await self._host.on_own_loop(pruner.delete(job_id, patience=_PRUNE_TIMEOUT))

    # -- state
    # --------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """Return the counts of this session's events by outcome. The sum is exact at any time."""
        if self._host.state == "new":
            return Ledger(accepted=0, stored=0, spilled=0, in_memory=0)
        return self._engine.ledger()

    @property
    def queue(self) -> Queue:
        """The number of waiting events, and the number that memory is meant to hold."""
        self._host.require_open()
        return Queue(
            waiting=self._engine.waiting(),
            capacity=self._options.queue_size,
            _clear=self._clear,
        )

    def _clear(self) -> int:
        self._host.require_open()
        if self._recorder.forked:
            raise NotOpen(
                "this is a forked process, and its parent delivers what it records: clear the queue there"
            )
        if not self._recorder.delivers:
            raise InvalidState(
                "another process delivers what waits (deliver=False), and may hold it already"
            )
        cleared = self._recorder.events.clear("cleared") + self._recorder.fallback.clear("cleared")
        self._engine.flush_soon()  # to record the gap, and to wake callers that wait for a flush
        return cleared

    @property
    def unavailable(self) -> StoreUnavailable | None:
        """The reason why the database is unavailable now; ``None`` while it is available."""
        self._host.require_open()
        return self._engine.link.down

    @property
    def spool_directory(self) -> Path | None:
        """The directory where events wait to be stored; ``None`` if they wait in memory."""
        self._host.require_open()
        return self._recorder.root

    @property
    def session_id(self) -> int:
        """This tracker's session id; together with an event's ``seq`` it identifies the event."""
        return self._recorder.session.session_id

    async def flush(self, *, durable: bool = False) -> None:
        """Wait until everything recorded so far is stored, including adopted spools.

        Args:
            durable: Also make the data safe against a power failure. False by default.

        Raises:
            StoreUnavailable: if the database is unavailable. Everything stays in the spool.
        """
        self._host.require_open()
        if durable:
            for queue in self._recorder.queues():
                queue.sync()
        await self._host.flush()
        if durable:
            await self._host.on_own_loop(self._store.make_durable())

    def reader(self, *, timeout: float | None = None) -> Reader:
        """Return a `Reader` of this tracker's database, to be opened with ``async with``.

        It sees everything that this tracker has logged. It has its own connections, so that long
        queries do not delay the tracker's connections. A database in memory has only one
        connection, and no timeout.

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
        """Prove that no event is lost: each assigned number is stored or explained."""
        from structjob.queries.verify import verify

        await self.flush()
        return await verify(self._host.fetch)

    @property
    def classifier(self) -> Classifier | None:
        """The function that derives the fields of an error: the tracker's own classifier, or the
        one from `structjob.configure` or `structjob.install`.
        """
        return self._host.classifier


def host_of(tracker: Tracker | None = None) -> JobHost[JobCore] | None:
    """Return the host that jobs use, of *tracker* or of the default tracker.

    The default tracker is the one that was opened first and is still open, in a forked child also
    that of its parent. Events without a job go to it. Return None if no tracker is open.
    """
    return OPEN_HOSTS.first if tracker is None else tracker._host  # noqa: SLF001 -- its users need no host


async def reach(tracker: Tracker, seconds: float) -> None:
    """Try now to reach the unavailable database of *tracker*; return after *seconds* at most."""
    await tracker._host.try_again(seconds)  # noqa: SLF001 -- its users need no host
