"""The processors that go into a chain of structlog's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

from structjob.capture import emit
from structjob.capture.event import BY_NAME, error_columns, exception_of
from structjob.capture.fanout import FanOut, drop_rendered
from structjob.capture.logger import override
from structjob.capture.setup import SETUP
from structjob.context.scope import current_scope
from structjob.diagnostics import diagnostics, faults
from structjob.exceptions import InvalidArgument, InvalidState
from structjob.levels import LEVELS
from structjob.sinks.console import stand_ins
from structjob.values.encoding import encode_text

_thread = threading.local()


def add_context(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that adds the ids of the current job and step, unless the event has
    them already.
    """
    scope = current_scope()
    if scope is not None:
        for key, value in scope.ids.items():
            event_dict.setdefault(key, value)
    return event_dict


class Sampler:
    """A processor that lets the first of equal events through, and then each *every*-th; warnings
    and above always.

    Args:
        every: How many make one, at least 1.
        events: Only these messages; by default all of them.

    The one that comes through carries ``sampled=every``. What is left out is never numbered, shown
    or stored.
    """

    def __init__(self, every: int, events: Iterable[str] | None = None) -> None:
        if every < 1:
            raise InvalidArgument(f"every must be at least 1, not {every}")
        self._every = every
        self._events = None if events is None else frozenset(events)
        self._seen: dict[Any, int] = {}

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        message = event_dict.get("event")
        if not isinstance(message, str):
            message = encode_text(message)  # anything can be logged, and not all of it be looked up
        level = BY_NAME.get(method_name)
        if (level is not None and level.number >= LEVELS["warning"]) or (
            self._events is not None and message not in self._events
        ):
            return event_dict
        if len(self._seen) > 10_000:
            self._seen.clear()
        seen = self._seen.get(message, 0)
        self._seen[message] = seen + 1
        if seen % self._every:
            raise structlog.DropEvent
        event_dict["sampled"] = self._every
        return event_dict


class RequireCorrelation:
    """A processor that finds events without a correlation id: neither has the running code one, nor
    the event itself.

    Args:
        action: ``mark`` gives such an event ``uncorrelated=True``; ``warn`` counts them, too, and
            warns at most once a minute; ``raise`` does as ``warn``, and raises
            `structjob.InvalidState` where faults of logging are raised, see ``strict``.

    Raises:
        InvalidArgument: if *action* is none of these.
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
    """A processor that records the event and adds the ids; put in place by `install`.

    Returns:
        The same event dict; nothing is taken from it.
    """
    try:
        level = BY_NAME.get(override.get() or method_name) or BY_NAME["info"]
        # A logger of `logging` may be set to drop the event later on, where structlog's
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
        emit.record(level, message, given, scope, name, error_columns(level, template, given, name))
        if scope is not None:
            for key, value in (scope.ids | (scope.bound or {})).items():
                event_dict.setdefault(key, value)
        # A logger of structlog's own keeps the stream that it was made with, and writes past what
        # stands for it.
        if (
            stand_ins
            and (stand_in := stand_ins.get(id(getattr(logger, "_file", None)))) is not None
        ):
            stand_in.make_way()
    except Exception as exc:  # noqa: BLE001 -- a fault of ours must never reach the user's program
        faults.add("recording an event", exc)
    return event_dict


def _message(given: dict[str, Any]) -> tuple[Any, Any]:
    """Take the message out of the event *given*, wherever an ``EventRenamer`` has put it: with its
    arguments filled in, and before.
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
        with suppress(Exception):  # arguments that do not fit stay as they are
            message = message % (
                args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args
            )
            del given["positional_args"]
    return message, template


def note_exception(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor before one that renders exceptions: keeps the exception itself for
    `record_event`, which comes later.
    """
    _thread.exception = exception_of(event_dict["exc_info"]) if event_dict.get("exc_info") else None
    return event_dict


def note_template(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor before one that fills arguments into messages: keeps the message itself for
    `record_event`, which comes later.
    """
    _thread.template = event_dict.get("event") if event_dict.get("positional_args") else None
    return event_dict


def is_recording(processors: Iterable[Any]) -> bool:
    """Return whether events that pass *processors* are recorded."""
    return any(
        processor is record_event or isinstance(processor, FanOut) for processor in processors
    )


def check_setup() -> None:
    """Warn, once, if other code has configured structlog anew, so that the events of new loggers
    are not recorded any more.
    """
    if not SETUP.watched:
        return
    processors = structlog.get_config()["processors"]
    # `structlog.testing.capture_logs` takes all others out for a while.
    if is_recording(processors) or any(
        isinstance(processor, structlog.testing.LogCapture) for processor in processors
    ):
        SETUP.warned = False
    elif not SETUP.warned:
        SETUP.warned = True
        diagnostics.warning(
            "structlog was configured again after structjob was set up: events of loggers that are first used from now on are not "
            "recorded; call structjob.install() after that structlog.configure()"
        )
