"""`configure`: sets up structlog from scratch."""

from __future__ import annotations

import copyreg
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import Processor

from structjob.capture.event import make_redactor
from structjob.capture.fanout import FanOut, SilentLogger
from structjob.capture.logger import BoundLogger, log_from
from structjob.capture.setup import SETUP
from structjob.capture.stdlib import STDLIB
from structjob.capture.thresholds import Thresholds
from structjob.context.errors import Classifier
from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, Level, level_name
from structjob.sinks.console import Console, ConsoleSink
from structjob.sinks.file import FileSink
from structjob.sinks.sink import AnySink, as_sink
from structjob.values.lists import items
from structjob.values.redaction import Redactor


def configure(
    *,
    console: Console | bool | IO[Any] | ConsoleSink = "auto",
    file: str | os.PathLike[str] | FileSink | None = None,
    level: Level | int = "info",
    levels: Mapping[str, Level | int] | None = None,
    sinks: Sequence[AnySink] = (),
    processors: Sequence[Processor] = (),
    redact: bool | Iterable[str] | Redactor = True,
    stdlib: bool = True,
    classifier: Classifier | None = None,
    strict: bool = False,
    uncaught: bool = False,
) -> None:
    """Set up structlog: context, redaction, console, file and database.

    May be called again; loggers already in use then follow the new setup.

    Args:
        console: ``auto`` (the default: pretty on a terminal, JSON lines otherwise), ``pretty``,
            ``json``, ``False``, a stream, or a `ConsoleSink`.
        file: Path of a file for JSON lines, or a `FileSink` with its own rotation. Default: no
            file.
        level: Lowest level to log at all, default ``info``. The database has its own level in
            addition, see `Tracker`.
        levels: Lowest levels of single loggers and of their child loggers, for structlog and
            `logging`: ``{"httpx": "warning", "app.db": "debug"}``. Default: *level* for all.
        sinks: Further sinks: functions that take a `SinkEvent`, or objects as described by `Sink`.
        processors: Your own structlog processors; they run before ours.
        redact: ``True`` (the default) removes secrets. Also possible: a list of further secret
            keys, a `Redactor`, or ``False``.
        stdlib: Whether to include the records of `logging`, except those of this library and its
            drivers. Default: True.
        classifier: Takes an exception and returns ``error_type``, ``retry_possible``, …; see
            `structjob.context.errors.Classifier`.
        strict: Raise errors in logging itself, for tests. By default they are counted and reported.
        uncaught: Record uncaught exceptions and warnings; see `structjob.capture_uncaught`.
            Default: False.

    Raises:
        InvalidArgument: if the file cannot be written to, or an argument is invalid.
    """
    least = LEVELS[level_name(level)]
    thresholds = Thresholds(least, levels) if levels else None
    if thresholds is not None:
        least = thresholds.least
    shown: list[AnySink] = []
    if isinstance(console, ConsoleSink):
        shown.append(console)
    elif isinstance(console, str):
        shown.append(ConsoleSink(format=console))
    elif console is True:
        shown.append(ConsoleSink())
    elif console is not False and console is not None:
        if not callable(getattr(console, "write", None)):
            raise InvalidArgument(
                f"console must be auto, pretty, json, True, False, a stream or a ConsoleSink, not {console!r}"
            )
        shown.append(ConsoleSink(console))
    others = [as_sink(sink) for sink in items("sinks", sinks)]
    processors = items("processors", processors)
    for processor in processors:
        if not callable(processor):
            raise InvalidArgument(
                f"a processor is a callable that takes logger, method name and event dict; {processor!r} is not"
            )
    make_redactor(redact)
    # The file is created last, when no other argument can be invalid.
    if file is not None:
        shown.append(file if isinstance(file, FileSink) else FileSink(file))
    faults.strict = strict
    previous = SETUP.fan_out
    fan_out = SETUP.fan_out = FanOut(*shown, *others, redact=redact, classifier=classifier)
    fan_out.thresholds = thresholds
    # Cached loggers hold this list, so it must remain the same object.
    SETUP.processors[:] = [merge_contextvars, *processors, fan_out] if processors else [fan_out]
    log_from(least)
    structlog.configure(
        processors=SETUP.processors,
        wrapper_class=BoundLogger,
        context_class=dict,
        logger_factory=SilentLogger,
        cache_logger_on_first_use=True,
    )
    copyreg.pickle(type(structlog.get_logger()), _reduced)
    if previous is not None:
        SETUP.close(previous, but=fan_out.sinks)
    STDLIB.join(least if stdlib else None)
    SETUP.watch()
    if uncaught:
        from structjob.capture.uncaught import capture_uncaught

        capture_uncaught()


def _reduced(logger: Any) -> tuple[Any, ...]:
    """Return how `pickle` makes a logger of `structlog.get_logger` again.

    A logger that was used has a function that keeps what it was set up with, because it is cached.
    A function cannot be pickled, and an object that holds such a logger could not be passed to a
    process pool. Where it arrives, the logger follows the setup there.
    """
    state = {name: value for name, value in vars(logger).items() if name != "bind"}
    return copyreg.__newobj__, (type(logger),), state  # type: ignore[attr-defined]
