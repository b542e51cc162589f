"""Events that do not come through structlog: our own events and the records of `logging`."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from structjob.capture.event import (
    BY_NAME,
    Level,
    columns_json,
    error_columns,
    logger_name,
    note_logged,
    with_parent,
)
from structjob.capture.setup import SETUP
from structjob.context.scope import Scope
from structjob.diagnostics import fault_types, faults
from structjob.levels import LEVELS
from structjob.machine import clock
from structjob.sinks.console import ConsoleSink
from structjob.sinks.marks import MARKS
from structjob.spool.line import event_bodies, event_body
from structjob.spool.routing import dispatch, dispatch_all, recorded_in, records
from structjob.text.rendering import words_of

_ERROR = LEVELS["error"]


def emit(
    scope: Scope | None,
    level: str,
    message: str,
    attrs: dict[str, Any],
    *,
    kind: str = "log",
    logger: str | None = None,
) -> None:
    """Record and show one of our own events, such as the start or end of a job or step.

    Never raises. An event about a job or step is stored with a readable message, as it is shown on
    screens, so that a search finds it. Files contain *message*, the event's kind. The event is
    shown only if `configure` set up the sinks; the output of any other structlog setup does not
    change.
    """
    try:
        columns: dict[str, Any] = {"kind": kind} if kind != "log" else {}
        words = _words(scope, level, attrs, kind) if message == kind else None
        pass_on(BY_NAME[level], message, attrs, scope, logger, columns, words=words)
    except fault_types() as exc:  # an internal error must never reach the user's program
        faults.add("logging an event", exc)


def emit_lines(
    scope: Scope | None,
    level: str,
    lines: list[str],
    attrs: dict[str, Any],
    *,
    stream: str,
    printed: bool = False,
) -> None:
    """Record and show lines of output, each as an event with *attrs*.

    They were read together, so they have the same time. Recording them together takes a fraction of
    the time that `emit` takes for each. If they are *printed* here, too, no console shows them
    again. Never raises.
    """
    try:
        passed, fan_out, ns = SETUP.encoder, SETUP.fan_out, clock.now()
        columns: dict[str, Any] = {"kind": "output", "stream": stream}
        if scope is not None and scope.bound:
            attrs = {**scope.bound, **attrs}
        attrs = passed.attrs(attrs, columns, scope)
        messages = passed.lines(lines)
        attrs_json = passed.attributes(attrs, max(messages, key=len))
        _, second, _, micros = clock.stamp(ns)
        bodies = event_bodies(
            second,
            micros,
            BY_NAME[level].stored,
            messages,
            attrs_json if scope is None else with_parent(attrs_json, scope),
            columns_json(scope, columns),
        )
        dispatch_all(scope, bodies, BY_NAME[level].number)
        if fan_out is not None:
            if printed:
                consoles = [sink for sink in fan_out.sinks if isinstance(sink, ConsoleSink)]
                fan_out = fan_out.without(consoles)
            fan_out.show_lines(ns, BY_NAME[level], messages, attrs, attrs_json, scope, columns)
    except fault_types() as exc:  # see `emit`
        faults.add("logging an event", exc)


def showing(scope: Scope | None, level: str) -> AbstractContextManager[None]:
    """Return a block in which this thread shows what is already recorded as an event of *scope*.

    See `structjob.sinks.marks`.
    """
    return nullcontext() if MARKS is None else MARKS.showing(recorded_in(scope, LEVELS[level]))


def without_secrets(text: str) -> str:
    """Return *text* as `emit_lines` records it: without secrets, unless redaction is off."""
    redactor = SETUP.redactor
    return text if redactor is None else redactor.text(text)


def _words(scope: Scope | None, level: str, attrs: dict[str, Any], kind: str) -> str | None:
    """Return the readable message that is stored for an event of this *kind*."""
    names = (None, None) if scope is None else (scope.operation, scope.column_values.get("step"))
    return words_of(kind, level, attrs, *names)[1] or None  # type: ignore[arg-type]  # the name of a step is a text


def body_of(scope: Scope, level: str, attrs: dict[str, Any], *, kind: str, ns: int) -> bytes:
    """Return the line, up to its number, of one of our own events, without recording or showing it.

    The event is stored in a transaction, and `show` shows it after the commit.

    Args:
        scope: The scope that the event belongs to.
        level: The level.
        attrs: The attributes.
        kind: The kind of event; its readable message is derived from it.
        ns: The time, in nanoseconds since the epoch.
    """
    words = _words(scope, level, attrs, kind)
    return _body(BY_NAME[level], kind, attrs, scope, None, {"kind": kind}, ns, words)


def show(scope: Scope, level: str, attrs: dict[str, Any], *, kind: str, ns: int) -> None:
    """Show an event that is stored; the arguments are those of `body_of`. Never raises."""
    if (fan_out := SETUP.fan_out) is not None:
        fan_out.take(
            BY_NAME[level], kind, attrs, scope, columns={"kind": kind}, ns=ns, stored_before=True
        )


def pass_on(
    level: Level,
    message: Any,
    given: MutableMapping[str, Any],
    scope: Scope | None,
    logger: str | None = None,
    columns: dict[str, Any] | None = None,
    ns: int = 0,
    words: str | None = None,
    shown: bool = True,
) -> None:
    """Record an event. It is also *shown* if `structjob.configure` has set up sinks.

    The other arguments are those of `FanOut.take`.
    """
    if shown and (fan_out := SETUP.fan_out) is not None:
        fan_out.take(level, message, given, scope, logger, columns, ns, words)
    else:
        body = _body(level, message, given, scope, logger, columns, ns, words)
        dispatch(scope, body, level.number)


def _body(
    level: Level,
    message: Any,
    given: MutableMapping[str, Any],
    scope: Scope | None,
    logger: str | None,
    columns: dict[str, Any] | None,
    ns: int,
    words: str | None,
) -> bytes:
    """Return the body that `FanOut.take` would record; this function needs fewer steps."""
    columns = columns if columns is not None else {}
    if scope is not None and scope.bound:
        given = {**scope.bound, **given}
    if level.number >= _ERROR:
        columns = error_columns(level, message, given, logger, columns) or columns
        note_logged(scope, given)
    passed = SETUP.encoder
    attrs = passed.attrs(
        given, columns, scope, recorded="exc_info" not in given or records(scope, level.number)
    )
    if logger is not None:
        columns.setdefault("logger", logger_name(logger, passed.redactor))
    message_json, attrs_json = passed.encode(message, attrs)
    if words is not None:
        message_json = passed.words(words)
    attrs_json = attrs_json if scope is None else with_parent(attrs_json, scope)
    _, second, _, micros = clock.stamp(ns)
    return event_body(
        second, micros, level.stored, message_json, attrs_json, columns_json(scope, columns)
    )
