"""Opening a tracker: its options, and the database link, spool and engine that they create."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from structjob.context.errors import Classifier
from structjob.diagnostics import diagnostics
from structjob.engine import shutdown
from structjob.exceptions import InvalidArgument, SpoolError, StoreUnavailable, StructjobError
from structjob.machine.host import is_network
from structjob.numeric import is_number, is_whole
from structjob.retention.policy import Retention
from structjob.spool import routing
from structjob.spool.kept import KeptEvents
from structjob.spool.queue import OVERFLOW, Overflow
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session
from structjob.store.worker import in_own_thread

if TYPE_CHECKING:
    from sqlalchemy import URL

    from structjob.engine.engine import Engine
    from structjob.engine.hosting import Host
    from structjob.store.contract import Store

OPEN_WAITS = 2.0
"""Maximum seconds that opening waits for a server before it continues without the database."""

OPEN_WAITS_FILE = 5.0
"""The same for a database file.

Several programs may be creating its tables, one after the other.
"""


UNDELIVERED = (
    "this tracker has no connection to the database (deliver=False); read with structjob.Reader, and start a job with an id or key of "
    "your own, or that was created before, with offline=True"
)
"""Why a tracker whose spool another process delivers refuses what needs the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a tracker; see `structjob.Tracker`."""

    url: str | os.PathLike[str] | URL | None
    schema: str | None
    engine_options: Mapping[str, Any]
    debug_on_failure: int
    spool: bool | str | os.PathLike[str]
    spool_max_bytes: int
    queue_size: int
    overflow: Overflow
    batch_size: int
    flush_interval: float
    writers: int
    heartbeat_interval: float
    project: str | None
    service: str | None
    strict: bool
    retention: Retention | None
    classifier: Classifier | None
    handle_signals: bool
    deliver: bool

    def __post_init__(self) -> None:
        if not self.deliver and self.spool is False:
            raise InvalidArgument(
                "deliver=False needs a spool, because another process delivers from there: leave "
                "spool=False out"
            )
        if not self.deliver and self.retention is not None:
            raise InvalidArgument(
                "deliver=False has no connection to the database, so it deletes nothing: set the "
                "retention in a tracker that delivers, or run structjob prune"
            )
        if self.overflow not in OVERFLOW:
            raise InvalidArgument(
                f"unknown overflow policy {self.overflow!r}: use one of {', '.join(OVERFLOW)}"
            )
        for name, least in (
            ("queue_size", 1),
            ("batch_size", 1),
            ("writers", 1),
            ("spool_max_bytes", 65_536),
        ):
            number = getattr(self, name)
            if not is_whole(number) or number < least:
                raise InvalidArgument(
                    f"{name} must be a whole number of at least {least:,}, not {number!r}"
                )
        if not is_number(self.flush_interval) or not 0 < self.flush_interval <= 1:
            raise InvalidArgument(
                "flush_interval must be more than 0 and at most 1 second, "
                f"not {self.flush_interval!r}"
            )
        if not is_number(self.heartbeat_interval) or not self.heartbeat_interval > 0:
            raise InvalidArgument(
                "heartbeat_interval must be a positive number of seconds, "
                f"not {self.heartbeat_interval!r}"
            )

    def parsed_url(self) -> URL:
        """Return the URL of the database.

        Raises:
            InvalidURL: if the URL is invalid.
        """
        from structjob.urls.url import parse, with_schema

        return parse(self.url) if self.schema is None else with_schema(self.url, self.schema)


class Connected(NamedTuple):
    """The objects that opening has created."""

    url: URL
    store: Store
    recorder: Recorder
    engine: Engine


async def connect(options: Options, host: Host, level: int, *, required: bool) -> Connected:
    """Open the database and the spool; return the objects that `start` needs for the delivery.

    Args:
        options: The tracker's options.
        host: The tracker, as the lower layers see it.
        level: Number of the lowest level to record.
        required: Whether to raise if the database cannot be used in its current state.

    Raises:
        StructjobError: see `structjob.Tracker.open`. In this case nothing is left open.
    """
    # SQLAlchemy takes a third of a second to import; the loop must not be blocked for that time.
    await in_own_thread(import_store)
    from structjob.engine.database import DatabaseLink, permanent
    from structjob.engine.engine import Engine
    from structjob.store.factory import make_store
    from structjob.urls.url import identity, places

    url = options.parsed_url()
    store = make_store(url, options.engine_options)
    session = Session(service=options.service, version=structjob_version(), database=identity(url))
    link = DatabaseLink(store, lambda: make_store(url, options.engine_options))
    spools = places(url, options.spool)
    if spools is None and not options.deliver:
        raise InvalidArgument("deliver=False needs a spool, and a database in memory has none")
    recorder: Recorder | None = None
    is_file = getattr(store, "path", None) is not None
    try:
        patience = OPEN_WAITS_FILE if is_file else OPEN_WAITS
        try:
            fault = await link.try_open(patience) if options.deliver else None
        except Exception as exc:
            if required:
                raise
            said = str(exc) if isinstance(exc, StructjobError) else f"{type(exc).__name__}: {exc}"
            fault = StoreUnavailable(said, permanent=True)
        recorder = Recorder(
            session,
            spools,
            level=level,
            project=host.project,
            queue_size=options.queue_size,
            max_bytes=options.spool_max_bytes,
            overflow=options.overflow,
            fallbacks=not required,
            deliver=options.deliver,
        )
        if options.debug_on_failure:
            recorder.kept = KeptEvents(options.debug_on_failure)
        if not options.deliver:
            _check_that_others_deliver(recorder)
            link.down = StoreUnavailable(UNDELIVERED, permanent=True)
        engine = Engine(
            recorder,
            link,
            # each writer holds a batch in memory
            batch_size=min(options.batch_size, max(1, options.queue_size // options.writers)),
            flush_interval=options.flush_interval,
            writers=options.writers,
            heartbeat=options.heartbeat_interval,
            live=host.live,
            retention=options.retention,
        )
        fault = fault or (await engine.enter(patience) if options.deliver else None)
        if fault is not None:
            if options.strict and permanent(fault):
                raise fault
            link.lost(fault)
    except BaseException:
        if recorder is not None:
            recorder.close()
            if recorder.spool is not None:
                recorder.spool.remove()
        await link.close()
        raise
    if recorder.root is not None and not is_file:
        diagnostics.info(
            "events for %s wait in %s until they are stored", store.masked_url, recorder.root
        )
    return Connected(url, store, recorder, engine)


def _check_that_others_deliver(recorder: Recorder) -> None:
    root = recorder.root
    assert root is not None  # noqa: S101 -- `connect` has checked that there is a spool
    if is_network(root):
        raise SpoolError(
            f"the spool directory {root} is on a network file system, where no other process can deliver what it holds (deliver=False); "
            "choose a local directory with Tracker(spool=PATH)"
        )


async def start(host: Host, *, handle_signals: bool) -> None:
    """Start the delivery; wait one second at most for the first search for spools to adopt."""
    engine = host.engine
    routing.add(engine.recorder)
    shutdown.enter(host, signals=handle_signals)
    engine.start()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await engine.looked()
    except BaseException:
        await engine.close(1.0)
        shutdown.leave(host)
        await engine.link.close()
        raise


def import_store() -> None:
    """Import what takes long; called in a thread."""
    import structjob.engine
    import structjob.queries.jobs
    import structjob.queries.logs
    import structjob.queries.statistics  # noqa: F401 -- imported to load it


@cache
def structjob_version() -> str:
    """Return the version of structjob that is installed."""
    try:
        return version("structjob")
    except PackageNotFoundError:
        return "unknown"
