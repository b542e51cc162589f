"""Events that do not come through structlog: our own, and the records of `logging`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from structjob.capture.event import (
    BY_NAME,
    Level,
    columns_json,
    error_columns,
    logger_name,
    stored_line,
    with_parent,
)
from structjob.capture.setup import SETUP
from structjob.context.scope import Scope
from structjob.diagnostics import faults
from structjob.levels import LEVELS
from structjob.machine import clock
from structjob.spool.routing import dispatch, records
from structjob.text.rendering import told

_ERROR = LEVELS["error"]
_WORDS = 2_000
"""Characters of the words that are stored of an event of our own: its error is in the attributes,
too.
"""


def emit(
    scope: Scope | None,
    level: str,
    message: str,
    attrs: dict[str, Any],
    *,
    kind: str = "log",
    stream: str | None = None,
    logger: str | None = None,
) -> None:
    """Record and show an event of our own: the beginning and end of jobs and steps, captured
    output. Never raises.

    What says something of a job or step is stored with a message in words, as screens show it, so
    that a search finds it; *message*, its kind, is what files have. Only what `configure` has set
    up shows it; an existing setup prints what it printed before.
    """
    try:
        columns: dict[str, Any] = {"kind": kind} if kind != "log" else {}
        if stream is not None:
            columns["stream"] = stream
        names = (
            (None, None) if scope is None else (scope.operation, scope.column_values.get("step"))
        )
        words = told(kind, level, attrs, *names)[1] if message == kind else ""  # type: ignore[arg-type]  # the name of a step is a text
        pass_on(
            BY_NAME[level], message, attrs, scope, logger, columns, words=words[:_WORDS] or None
        )
    except Exception as exc:  # noqa: BLE001 -- a fault of ours must never reach the user's program
        faults.add("logging an event", exc)


def pass_on(
    level: Level,
    message: Any,
    given: MutableMapping[str, Any],
    scope: Scope | None,
    logger: str | None = None,
    columns: dict[str, Any] | None = None,
    ns: int = 0,
    words: str | None = None,
) -> None:
    """Record an event, and show it if `structjob.configure` has set up where; the arguments are
    those of `FanOut.take`.
    """
    if (fan_out := SETUP.fan_out) is not None:
        fan_out.take(level, message, given, scope, logger, columns, ns, words)
    else:
        record(level, message, given, scope, logger, columns, ns, words)


def record(
    level: Level,
    message: Any,
    given: MutableMapping[str, Any],
    scope: Scope | None,
    logger: str | None = None,
    columns: dict[str, Any] | None = None,
    ns: int = 0,
    words: str | None = None,
) -> None:
    """Record an event without showing it; the arguments are those of `FanOut.take`."""
    columns = columns if columns is not None else {}
    if level.number >= _ERROR:
        columns = error_columns(level, message, given, logger, columns) or columns
    passed = SETUP.encoder
    attrs = passed.attrs(
        given, columns, scope, recorded="exc_info" not in given or records(scope, level.number)
    )
    if logger is not None:
        columns.setdefault("logger", logger_name(logger, passed.redactor))
    message_json, attrs_json = passed.encode(message, attrs)
    if words is not None:
        message_json = passed.once(words)
    attrs_json = attrs_json if scope is None else with_parent(attrs_json, scope)
    dispatch(
        scope,
        stored_line(
            ns or clock.now(), level, message_json, attrs_json, columns_json(scope, columns)
        ),
        level.number,
    )
