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
        words = _words(scope, level, attrs, kind) if message == kind else None
        pass_on(BY_NAME[level], message, attrs, scope, logger, columns, words=words)
    except Exception as exc:  # noqa: BLE001 -- a fault of ours must never reach the user's program
        faults.add("logging an event", exc)


def _words(scope: Scope | None, level: str, attrs: dict[str, Any], kind: str) -> str | None:
    """Return the message in words that is stored of an event of this *kind*."""
    names = (None, None) if scope is None else (scope.operation, scope.column_values.get("step"))
    return told(kind, level, attrs, *names)[1][:_WORDS] or None  # type: ignore[arg-type]  # the name of a step is a text


def body_of(scope: Scope, level: str, attrs: dict[str, Any], *, kind: str, ns: int) -> bytes:
    """Return the line, up to its number, of an event of our own that is neither recorded nor shown
    here: it is stored in a transaction, and shown by `show` once that is committed.

    Args:
        scope: Where it belongs.
        level: How grave.
        attrs: Its attributes.
        kind: What it tells of; its message are the words for that.
        ns: When, in nanoseconds since the epoch.
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
    """Return what `FanOut.take` records; it makes the same in fewer steps."""
    columns = columns if columns is not None else {}
    if scope is not None and scope.bound:
        given = {**scope.bound, **given}
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
    return stored_line(
        ns or clock.now(), level, message_json, attrs_json, columns_json(scope, columns)
    )
