"""The processors for a structlog processor chain."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

from structjob.capture.emit import pass_on
from structjob.capture.event import BY_NAME, error_columns, exception_of
from structjob.capture.fanout import FanOut, drop_rendered
from structjob.capture.logger import BoundLogger, override
from structjob.capture.setup import SETUP
from structjob.context.scope import current_scope
from structjob.diagnostics import diagnostics, fault_types, faults, suppress_faults
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.levels import LEVELS, level_name
from structjob.sinks.console import stand_ins
from structjob.sinks.marks import MARKS
from structjob.spool.routing import recorded_in

_PRINTERS = (structlog.PrintLogger, structlog.WriteLogger, structlog.BytesLogger)
_thread = threading.local()


def add_context(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that adds the ids of the current job and step, unless the event already has
    them.
    """
    scope = current_scope()
    if scope is not None:
        for key, value in scope.ids.items():
            event_dict.setdefault(key, value)
    return event_dict


class RequireCorrelation:
    """A processor that finds events without a correlation id, in the scope and in the event itself.

    Args:
        action: ``mark`` (the default) gives such an event ``uncorrelated=True``; ``warn`` also
            counts them, and warns at most once a minute; ``raise`` does the same as ``warn``, and
            raises `structjob.InvalidState` if errors in logging are raised, see ``strict``.

    Raises:
        InvalidArgument: if *action* is invalid.
    """

    def __init__(self, action: Literal["mark", "warn", "raise"] = "mark") -> None:
        if action not in ("mark", "warn", "raise"):
            raise InvalidArgument(f"action must be mark, warn or raise, not {action!r}")
        self._action = action

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        scope = current_scope()
        if event_dict.get("correlation_id") is None and (
            scope is None or scope.correlation_id is None
        ):
            event_dict["uncorrelated"] = True
            if self._action != "mark":
                found = InvalidState(
                    f"{event_dict.get('event')!r} is logged without a correlation id; log it within a job, or pass correlation_id="
                )
                if self._action == "raise":
                    faults.add("correlating an event", found)
                else:
                    faults.warn("correlating an event", found)
        return event_dict


def record_event(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that records the event and adds the ids; inserted by `install`, or by hand.

    Returns:
        The same event dict; nothing is removed from it.
    """
    try:
        level = BY_NAME.get(override.get() or method_name) or BY_NAME["info"]
        # A logger of `logging` may be configured to drop the event later, if structlog's
        # filter_by_level is not in use.
        if isinstance(logger, logging.Logger) and not logger.isEnabledFor(level.number):
            return event_dict
        scope = current_scope()
        given = dict(event_dict)
        message, template = _message(given)
        noted_template, _thread.template = getattr(_thread, "template", None), None
        template = template if noted_template is None else noted_template
        name = getattr(logger, "name", None)
        name = name if isinstance(name, str) else None
        drop_rendered(given, level, name)
        noted, _thread.exception = getattr(_thread, "exception", None), None
        if noted is not None and "exception" in given:
            del given["exception"]
            given["exc_info"] = noted
        columns = error_columns(level, template, given, name)
        pass_on(level, message, given, scope, name, columns, shown=False)
        if MARKS is not None:
            mark_last(structlog.get_config()["processors"])
            _thread.recorded_in = recorded_in(scope, level.number)
        if scope is not None:
            for key, value in (scope.ids | (scope.bound or {})).items():
                event_dict.setdefault(key, value)
        # A logger of structlog keeps the stream that it was created with, and writes past its
        # stand-in.
        if (
            stand_ins
            and (stand_in := stand_ins.get(id(getattr(logger, "_file", None)))) is not None
        ):
            stand_in.make_way()
    except fault_types() as exc:  # an internal error must never reach the user's program
        faults.add("recording an event", exc)
    return event_dict


def _message(given: dict[str, Any]) -> tuple[Any, Any]:
    """Remove the message from the event *given*, also if an ``EventRenamer`` has renamed it.

    Returns:
        The message with its arguments filled in, and the message before that.
    """
    renamer = SETUP.renamer
    if renamer is not None and renamer.to in given:
        message = given.pop(renamer.to)
        if renamer.replace_by is not None and "event" in given:
            given[renamer.replace_by] = given.pop("event")
    else:
        message = given.pop("event", "")
    template = message
    args = given.get("positional_args")
    if args:
        with suppress_faults():  # arguments that do not fit stay unchanged
            message = message % (
                args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            )
            del given["positional_args"]
    return message, template


def note_exception(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that keeps the exception for `record_event`.

    It runs before exceptions are rendered.
    """
    _thread.exception = exception_of(event_dict["exc_info"]) if event_dict.get("exc_info") else None
    return event_dict


def note_template(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that keeps the message template for `record_event`.

    It runs before arguments are filled into the message.
    """
    _thread.template = event_dict.get("event") if event_dict.get("positional_args") else None
    return event_dict


def mark_recorded(logger: WrappedLogger, method_name: str, event: Any) -> Any:
    """The last processor below ``structjob run``: it marks the line of an event that is recorded,
    for structlog's own loggers; see `structjob.sinks.marks`.
    """
    noted, _thread.recorded_in = getattr(_thread, "recorded_in", None), None
    if MARKS is None or noted is None or not isinstance(logger, _PRINTERS):
        return event
    stream = getattr(logger, "_file", None)
    if stream is sys.__stdout__ and isinstance(logger, structlog.PrintLogger):
        stream = sys.stdout  # as it does
    with MARKS.showing(noted):
        # the logger ends the line
        if isinstance(event, str):
            return MARKS.on_text(event + "\n", stream).removesuffix("\n")
        if isinstance(event, bytes):
            return MARKS.on(event + b"\n", stream).removesuffix(b"\n")
    return event


def mark_last(processors: Any) -> None:
    """Insert `mark_recorded` below ``structjob run``, in the list *processors* of an existing
    setup.

    It runs for the event that is in process, too, because structlog iterates over the list.
    """
    if MARKS is None or not isinstance(processors, list) or mark_recorded in processors:
        return
    if is_recording(processors):
        processors.append(mark_recorded)
        SETUP.inserted.append((processors, mark_recorded))


def is_recording(processors: Iterable[Any]) -> bool:
    """Return whether events that pass *processors* are recorded."""
    return any(
        processor is record_event or isinstance(processor, FanOut) for processor in processors
    )


def _is_set_up() -> bool:
    """Return whether structlog passes events on to us, or `structlog.testing.capture_logs`
    temporarily takes them.
    """
    processors = structlog.get_config()["processors"]
    return is_recording(processors) or any(
        isinstance(processor, structlog.testing.LogCapture) for processor in processors
    )


def check_setup() -> None:
    """Warn once if structlog was configured again, so that events of new loggers are not
    recorded.
    """
    if not SETUP.watched:
        return
    if _is_set_up():
        SETUP.warned = False
    elif not SETUP.warned:
        SETUP.warned = True
        diagnostics.warning(
            "structlog was configured again after structjob was set up: events of loggers that are first used from now on are not "
            "recorded; call structjob.install() after that structlog.configure()"
        )


def check_overlooked() -> None:
    """Warn once if a job ends in a program that never called `configure` or `install`.

    Its log lines are not recorded, and nothing else would say so.
    """
    SETUP.overlooked = False
    if not _is_set_up():
        diagnostics.warning(
            "jobs are tracked here, and log lines are not recorded: call structjob.configure() when the program starts, or "
            "structjob.install() after your structlog.configure()"
        )


def check_level(level: int, *, below: bool) -> None:
    """Warn if `configure` drops events that a tracker would get.

    Args:
        level: Number of the lowest level that the tracker records.
        below: Whether it also keeps events below that, until their job fails.
    """
    if SETUP.fan_out is None:
        return
    if below and BoundLogger.least >= level > LEVELS["debug"]:
        diagnostics.warning(
            "debug_on_failure keeps nothing: structjob.configure(level=…) drops the events below %s; let them pass by "
            "level='debug', and keep them off the console by console=structjob.ConsoleSink(level='info')",
            level_name(level),
        )
    elif level < min(BoundLogger.least, LEVELS["info"]):
        diagnostics.warning(
            "Tracker(level=%r) gets no events below %s, because structjob.configure(level=…) drops them: pass level=%r there, and "
            "console=structjob.ConsoleSink(level='info') to keep them off the console",
            level_name(level), level_name(BoundLogger.least), level_name(level),
        )  # fmt: skip
