"""`configure`: structlog set up from nothing."""

from __future__ import annotations

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
from structjob.capture.stdlib import join_stdlib
from structjob.capture.thresholds import Thresholds
from structjob.context.errors import Classifier
from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, Level, level_name
from structjob.sinks.console import Console, ConsoleSink
from structjob.sinks.file import FileSink
from structjob.sinks.sink import AnySink, as_sink
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
    """Set structlog up: context, redaction, console, file and database. May be called again;
    loggers already in use follow.

    Args:
        console: ``auto`` (pretty on a terminal, JSON lines otherwise), ``pretty``, ``json``,
            ``False``, a stream, or a `ConsoleSink`.
        file: Path of a file for JSON lines, or a `FileSink` for rotation to one's own taste.
        level: Least level to log at all; the database has its own besides, see `Tracker`.
        levels: Least levels of single loggers and of those below them, of structlog and of
            `logging`: ``{"httpx": "warning", "app.db": "debug"}``. By default all have *level*.
        sinks: Further sinks: functions that take a `SinkEvent`, or objects as `Sink` describes
            them.
        processors: structlog processors of one's own; they run before ours.
        redact: Take secrets out (the default), further secret keys, a `Redactor`, or ``False``.
        stdlib: Let the records of `logging` join, except those of the library and its drivers.
        classifier: Given an exception, returns ``error_type``, ``retry_possible``, …; see
            `structjob.failure.Classifier`.
        strict: Raise faults of logging itself, for tests; otherwise they are counted and reported.
        uncaught: Record exceptions that nothing catches, and warnings; see
            `structjob.capture_uncaught`.

    Raises:
        InvalidArgument: if the file cannot be written to, or an argument is none of the above.
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
    others = [as_sink(sink) for sink in sinks]
    for processor in processors:
        if not callable(processor):
            raise InvalidArgument(
                f"a processor is a callable that takes logger, method name and event dict; {processor!r} is none"
            )
    make_redactor(redact)
    # Last of all, when nothing else can be wrong: it makes a file.
    if file is not None:
        shown.append(file if isinstance(file, FileSink) else FileSink(file))
    faults.strict = strict
    previous = SETUP.fan_out
    fan_out = SETUP.fan_out = FanOut(*shown, *others, redact=redact, classifier=classifier)
    fan_out.thresholds = thresholds
    # Cached loggers hold the list: it must stay the same one.
    SETUP.processors[:] = [merge_contextvars, *processors, fan_out] if processors else [fan_out]
    log_from(least)
    structlog.configure(
        processors=SETUP.processors,
        wrapper_class=BoundLogger,
        context_class=dict,
        logger_factory=SilentLogger,
        cache_logger_on_first_use=True,
    )
    if previous is not None:
        previous.close(but=fan_out.sinks)
    join_stdlib(least if stdlib else None)
    SETUP.watch()
    if uncaught:
        from structjob.capture.uncaught import capture_uncaught

        capture_uncaught()
