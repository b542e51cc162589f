"""Records of `logging` are captured at the point where a logger calls its handlers.

`logging.Logger.callHandlers` is wrapped, as in Sentry's SDK, and no handler is added. Therefore
``logging.basicConfig()``, which does nothing if the root logger has a handler, and code that reads
``root.handlers`` work the same as without structjob. At this point the record has passed the
logger's level and filters, and it is captured in the context of the log call: a
`logging.handlers.QueueListener`, which calls handlers in a thread of its own, changes nothing. The
record is captured after its handlers: a secret that a filter of a handler removes is also removed
for the database.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import structlog

from structjob.capture.emit import pass_on
from structjob.capture.event import BY_NAME, error_columns, exception_of
from structjob.capture.processors import is_recording
from structjob.capture.record_ids import Id
from structjob.capture.setup import SETUP
from structjob.capture.uncaught import is_shown
from structjob.context.errors import correlation_of
from structjob.context.scope import Scope, current_scope
from structjob.diagnostics import fault_types, faults, is_own
from structjob.levels import LEVELS, level_name
from structjob.machine.frames import frame_at
from structjob.process import on_reset
from structjob.sinks.console import ConsoleSink, place_of
from structjob.sinks.marks import MARKS, MarkedStream, Marks
from structjob.sinks.sink import Sink
from structjob.spool.routing import recorded_in
from structjob.values.normalizer import normalize

_REMEMBERED = 10_000
"""Number of records that are recognized when another thread passes them to their logger again; at
most twice as many.
"""

_LOG_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",  # of uvicorn: its message with the codes of colors
}
_STANDARD = frozenset(
    {logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL}
)
_PROXY = structlog.BoundLoggerBase._proxy_to_logger.__code__  # noqa: SLF001 -- only its code shows what came from structlog
_LOG_CALL = logging.Logger._log.__code__  # noqa: SLF001 -- all methods of loggers call it

_here = threading.local()


class _OurLevel(int):
    """A level of the root logger that was set by this library, and not changed since."""


class Stdlib:
    """Captures the records of `logging`; one object per process.

    Attributes:
        least: Lowest level to capture; None means no records.
    """

    def __init__(self) -> None:
        self.least: int | None = None
        self._wrapped: Callable[[logging.Logger, logging.LogRecord], None] | None = None
        self._wrapper: Callable[[logging.Logger, logging.LogRecord], None] | None = None
        self._former = logging.WARNING
        # Two generations: their size is limited, and adding to a set needs no lock.
        self._taken: set[tuple[Any, ...]] = set()
        self._taken_before: set[tuple[Any, ...]] = set()

    def join(self, least: int | None) -> None:
        """Capture records from the level *least*; None: stop capturing.

        If `logging` is not set up yet, the root logger, which passes only warnings, also passes
        that level.
        """
        self.least = least
        root = logging.getLogger()
        if type(root.level) is _OurLevel:
            root.setLevel(self._former)
        if least is None:
            return
        if self._wrapped is None:
            self._wrap()
        if not root.handlers and root.level == logging.WARNING and 0 < least < logging.WARNING:
            self._former = root.level
            root.setLevel(_OurLevel(least))

    def reset(self) -> None:
        """Capture no more records, and restore `logging`."""
        self.join(None)
        self._taken, self._taken_before = set(), set()
        # Otherwise another library has wrapped our function: without a lowest level it only calls
        # the original.
        if logging.Logger.callHandlers is self._wrapper:
            logging.Logger.callHandlers = self._wrapped  # type: ignore[assignment, method-assign]
            self._wrapper = self._wrapped = None

    def isolate(self) -> Callable[[], None]:
        """Return a function that captures again what is captured now."""
        least = self.least

        def restore() -> None:
            if least is None:
                self.reset()
            else:
                self.join(least)

        return restore

    def _wrap(self) -> None:
        self._wrapped = call_handlers = logging.Logger.callHandlers

        @functools.wraps(call_handlers)
        def calling_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            least = self.least
            # a record that `makeLogRecord` made, of a socket say, may have no name
            if least is None or is_own(str(record.name)):
                call_handlers(logger, record)
                return
            alone = not logger.hasHandlers()
            # If no handler takes a record, `logging` prints warnings; the sinks of `configure` show
            # them instead.
            handled = not (alone and SETUP.fan_out is not None) and not self._is_for_us_only(
                logger, record
            )
            try:
                if handled and MARKS is not None and record.levelno >= least:
                    with MARKS.showing(_recorded_in(logger, record, alone)), MARKS.on_stderr():
                        _mark_streams(logger, MARKS)
                        call_handlers(logger, record)
                elif handled:
                    call_handlers(logger, record)
            finally:
                # What a hook has recorded is shown here by asyncio, and not recorded again.
                if record.levelno >= least and not (record.name == "asyncio" and is_shown()):
                    self._take(logger, record, alone, handled)

        self._wrapper = calling_handlers
        logging.Logger.callHandlers = calling_handlers  # type: ignore[assignment, method-assign]

    def _is_for_us_only(self, logger: logging.Logger, record: logging.LogRecord) -> bool:
        """Return whether *record* exists only because we lowered the level of the root logger.

        Handlers that were added later do not expect it.
        """
        if record.levelno >= self._former or type(logging.root.level) is not _OurLevel:
            return False
        each: logging.Logger | None = logger
        while each is not None and not each.level:
            each = each.parent
        return each is logging.root

    def _take(
        self, logger: logging.Logger, record: logging.LogRecord, alone: bool, handled: bool
    ) -> None:
        within = getattr(_here, "within", False)
        _here.within = True
        try:
            made_here, captured = _origin()
            key = (record.created, record.thread, record.process, record.name, record.lineno)
            if not made_here and (key in self._taken or key in self._taken_before):
                return
            if len(self._taken) >= _REMEMBERED:
                self._taken_before, self._taken = self._taken, set()
            self._taken.add(key)
            if captured or not _passes(record):
                return
            propagates = _reaches_root(logger)
            if not propagates and not _is_shown(logger, record, alone):
                return
            # A console that leads back to `logging` (`sys.stdout` may do so) would never end: its
            # output is only recorded. The same holds for records that do not propagate: their own
            # handlers have shown them.
            if within or not (propagates or alone):
                _pass(record, functools.partial(pass_on, shown=False))
            elif (
                handled
                and SETUP.fan_out is not None
                and (shown := _shown_already(logger, record, SETUP.fan_out.sinks))
            ):
                _pass(record, SETUP.fan_out.without(shown).take)
            else:
                _pass(record, pass_on)
        except fault_types() as exc:  # an internal error must never reach the user's program
            faults.add("recording a record of logging", exc)
        finally:
            _here.within = within


STDLIB = Stdlib()
on_reset(STDLIB.reset, STDLIB.isolate)


def _pass(record: logging.LogRecord, take: Callable[..., None]) -> None:
    attrs = {
        key: value
        for key, value in record.__dict__.items()
        if key not in _LOG_RECORD and type(value) is not Id
    }
    # A record from another process has its exception as text only.
    for key, value in (
        ("exc_info", record.exc_info),
        ("stack", record.stack_info),
        ("exception", not record.exc_info and record.exc_text),
    ):
        if value:
            attrs.setdefault(key, value)
    level = level_name(record.levelno)
    # Taken from the number, because a formatter may have colored the name in the record.
    name = str(logging.getLevelName(record.levelno))
    if level == "success" and name.lower() != level:
        level = "info"  # for example a NOTICE of level 25 is not a success
    if record.levelno not in _STANDARD and name.lower() != level:
        attrs.setdefault("level_name", name)
    try:
        message = record.getMessage()
    except fault_types():  # the arguments do not fit or cannot be shown: another form
        message = f"{normalize(record.msg)} {normalize(record.args)}"
    logger = None if record.name is None else str(record.name)  # see _wrap
    columns = error_columns(BY_NAME[level], record.msg, attrs, logger)
    take(
        BY_NAME[level],
        message,
        attrs,
        current_scope() or _scope_of_exception(record),
        logger,
        columns,
        ns=int(record.created * 1e9),
    )


def _scope_of_exception(record: logging.LogRecord) -> Scope | None:
    """Return a scope with the correlation id of the record's exception, if it has one."""
    exc = exception_of(record.exc_info) if record.exc_info else None
    found = None if exc is None else correlation_of(exc)
    return None if found is None else Scope(correlation_id=found)


def _passes(record: logging.LogRecord) -> bool:
    """Return whether the levels of `configure` let this record pass."""
    thresholds = None if SETUP.fan_out is None else SETUP.fan_out.thresholds
    return thresholds is None or thresholds.passes(record.name, record.levelno)


def _recorded_in(logger: logging.Logger, record: logging.LogRecord, alone: bool) -> str | None:
    """Return the identity of the database that *record* is recorded for once its handlers have
    shown it; None if it is not recorded.
    """
    if not _passes(record) or not (_reaches_root(logger) or _is_shown(logger, record, alone)):
        return None
    return recorded_in(current_scope(), LEVELS[level_name(record.levelno)])


def _mark_streams(logger: logging.Logger, marks: Marks) -> None:
    """Let the handlers of *logger* mark the lines that are recorded.

    This happens below ``structjob run`` only.
    """
    for handler in _handlers_of(logger):
        if isinstance(handler, logging.StreamHandler) and marks.reaches(handler.stream):
            with suppress(AttributeError):  # a handler that always writes to `sys.stderr`
                handler.stream = MarkedStream(handler.stream, marks)


def _handlers_of(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Yield the handlers that get the records of *logger*."""
    each: logging.Logger | None = logger
    while each is not None:
        yield from each.handlers
        each = each.parent if each.propagate else None


def _reaches_root(logger: logging.Logger) -> bool:
    each: logging.Logger | None = logger
    while each is not None:
        if each.parent is not None and not each.propagate:
            return False
        each = each.parent
    return True


def _is_shown(logger: logging.Logger, record: logging.LogRecord, alone: bool) -> bool:
    """Return whether a record of *logger*, which does not propagate, is shown by its own handlers.

    With only a `logging.NullHandler` it is not shown.
    """
    if alone:
        return logging.lastResort is not None and record.levelno >= logging.lastResort.level
    return any(
        record.levelno >= handler.level and not isinstance(handler, logging.NullHandler)
        for handler in _handlers_of(logger)
    )


def _shown_already(
    logger: logging.Logger, record: logging.LogRecord, sinks: Sequence[Sink]
) -> list[Sink]:
    """Return the *sinks* that would show *record* on a terminal where a handler has already shown
    it.

    A console with JSON lines is not left out: programs read it, and need every record in that form.
    """
    consoles = [sink for sink in sinks if isinstance(sink, ConsoleSink) and sink.pretty]
    if not consoles:
        return []
    # A handler with a filter may not have shown it: showing it twice is better than not at all.
    places = {
        place_of(handler.stream)
        for handler in _handlers_of(logger)
        if isinstance(handler, logging.StreamHandler)
        and record.levelno >= handler.level
        and not handler.filters
    } - {None}
    return [sink for sink in consoles if sink.place in places]


def _origin() -> tuple[bool, bool]:
    """Return whether the current log call created the record, and whether it is already captured.

    A record that was created before comes through `logging.Logger.handle`, a second time if it was
    put into a queue. What structlog sends through `logging` was captured already. Neither its text
    nor its attributes show this, because it may already be rendered. But the bound logger that sent
    it is on the stack, directly above the frames of `logging`.
    """
    made_here = False
    frame = frame_at(1)
    while (above := frame.f_back) is not None:
        frame = above
        if frame.f_code is _LOG_CALL:
            made_here = True
        elif frame.f_code is _PROXY:
            return made_here, is_recording(frame.f_locals["self"]._processors)  # noqa: SLF001 -- structlog has no public name for them
        else:
            name = frame.f_globals.get("__name__", "")
            if (
                name != __name__
                and not name.startswith("logging")
                and not isinstance(frame.f_locals.get("self"), logging.Logger)
            ):
                break
    return made_here, False
