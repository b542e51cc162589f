"""The records of `logging` join: one handler on the root logger."""

from __future__ import annotations

import logging
import sys
import threading
import types
from collections.abc import Callable

import structlog

from structjob import pipeline
from structjob.context import current_scope
from structjob.diagnostics import DRIVERS, faults
from structjob.encoding import normalise
from structjob.event import BY_NAME
from structjob.levels import level_name
from structjob.pipeline import FanOut
from structjob.processors import capture


class ForeignHandler(logging.Handler):
    """Lets the records of `logging` join. One for the whole process, on the root logger; what structlog sent there is skipped."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Do as `logging.Handler.handle` does, without its lock: a thread that waits for room in it would hold the loop up, too."""
        # Since Python 3.12 a filter may return another record.
        passed: bool | logging.LogRecord = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        within = getattr(_here, "within", False)
        _here.within = True
        try:
            ours = record.name.split(".", 1)[0] in DRIVERS
            if not ours and not _is_captured(sys._getframe(1)):
                # A console that leads back to `logging` (`sys.stdout` may) would never end: what comes out of it is recorded only.
                self._take(record, pipeline.record if within else pipeline.pass_on)
            # Where nothing else handles a record, logging itself prints it, unless it finds a handler: and now it finds this one.
            last = logging.lastResort
            if (ours or pipeline.configured is None) and last is not None and record.levelno >= last.level and self._is_alone(record):
                last.handle(record)
        except Exception as exc:  # noqa: BLE001 -- a fault of ours must never reach the user's program
            faults.add("recording a record of logging", exc)
        finally:
            _here.within = within

    @staticmethod
    def _take(record: logging.LogRecord, take: Callable[..., None]) -> None:
        attrs = {key: value for key, value in record.__dict__.items() if key not in _LOG_RECORD}
        if record.exc_info:
            attrs["exc_info"] = record.exc_info
        level = BY_NAME[level_name(record.levelno)]
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 -- the arguments do not fit, or cannot be shown; the event is worth more than its form
            message = f"{normalise(record.msg)} {normalise(record.args)}"
        take(level, message, attrs, current_scope(), record.name, ns=int(record.created * 1e9))

    def _is_alone(self, record: logging.LogRecord) -> bool:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return False
            logger = logger.parent if logger.propagate else None
        return True


_PROXY = structlog.BoundLoggerBase._proxy_to_logger.__code__


def _is_captured(frame: types.FrameType | None) -> bool:
    """Return whether the record that is handled below *frame* is an event of structlog on its way through `logging`, captured already.

    Neither its text nor its attributes tell: it may be rendered by now. But the bound logger that sent it stands on the stack, right
    above the frames of `logging`.
    """
    while frame is not None:
        if frame.f_code is _PROXY:
            return any(processor is capture or isinstance(processor, FanOut) for processor in frame.f_locals["self"]._processors)
        name = frame.f_globals.get("__name__", "")
        if name != __name__ and not name.startswith("logging") and not isinstance(frame.f_locals.get("self"), logging.Logger):
            return False
        frame = frame.f_back
    return False


_LOG_RECORD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}

_here = threading.local()

_handler: ForeignHandler | None = None
_root_level: tuple[int, int] | None = None
"""The level that the root logger had before we gave it another, and that one."""


def join_stdlib(least: int | None) -> None:
    """Put our handler on the root logger, or take it away."""
    global _handler, _root_level
    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
        _handler = None
    if _root_level is not None:
        former, ours = _root_level
        _root_level = None
        if root.level == ours:
            root.setLevel(former)
    if least is None:
        return
    _handler = ForeignHandler(least)
    if not root.handlers and root.level == logging.WARNING and least:
        _root_level = root.level, least
        root.setLevel(least)
    root.addHandler(_handler)
