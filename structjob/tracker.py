"""The tracker: what programs call. `structjob.engine.lifetime` opens and closes its parts."""

from __future__ import annotations

import os
import weakref
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypedDict, TypeVar, Unpack

from structjob.capture.processors import check_level
from structjob.context.errors import Classifier
from structjob.engine.hosting import Host
from structjob.engine.lifetime import CLOSING_WAITS, Lifetime
from structjob.engine.opening import Connected, Options
from structjob.engine.queue import Queue
from structjob.exceptions import InvalidState, NotOpen, StoreUnavailable
from structjob.filters import LogFilter, LogFilterKeywords
from structjob.job_control import JobControl
from structjob.levels import LEVELS, Level, level_name
from structjob.lifecycle.arguments import check_label, check_units
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.models import Ledger
from structjob.retention.policy import Retention, retention_of
from structjob.spool.queue import Overflow
from structjob.spool.recorder import Recorder
from structjob.upkeep import Upkeep

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.engine.engine import Engine
    from structjob.engine.listeners import Callback, Listener
    from structjob.queries.errors import Errors
    from structjob.queries.job_finder import IdResolver
    from structjob.queries.jobs import Jobs
    from structjob.queries.logs import Logs
    from structjob.queries.session_status import Sessions
    from structjob.queries.statistics import Statistics
    from structjob.queries.tail import Tails
    from structjob.reader import Reader
    from structjob.store.contract import Store

T = TypeVar("T")

GIB = 1024**3

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


class Tracker(JobControl, Upkeep):
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
        resolve_id: A function that takes an id that no job has, in which NUL and lone surrogates
            are replaced. It returns the id of the job that
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

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

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

        After SIGTERM, jobs in ``with`` blocks of other threads first get up to half of this time to
        end, and no longer than 5 seconds after the signal.

        Returns:
            Whether everything was stored. Events that were not stored stay in the spool, and the
                next tracker delivers them.
        """
        return await self._lifetime.aclose_by_hand(timeout)

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
        return self._lifetime.close_by_hand(timeout)

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
            waiting=self._engine.waiting(), capacity=self._options.queue_size, _clear=self._clear
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
