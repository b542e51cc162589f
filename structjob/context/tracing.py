"""Tracing: a tracing system may give each job and step the ids of a span.

The ids are set before the job or step logs anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from structjob.context.scope import Scope
from structjob.diagnostics import faults
from structjob.process import on_reset


class Span(NamedTuple):
    """The ids of a span; all are ``None`` outside a trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        flags: The trace flags, 2 hexadecimal digits.
        tracestate: Further data that tracing systems pass on.
    """

    trace_id: str | None = None
    span_id: str | None = None
    flags: str | None = None
    tracestate: str | None = None


_NONE = Span()

Begin = Callable[[object, Scope | None], Span | None]
End = Callable[[object], object]

_begin: Begin | None = None
_end: End | None = None


def set_tracing(begin: Begin | None, end: End | None = None) -> None:
    """Let a tracing system create a span for each job and step.

    Errors that *begin* or *end* raise are counted, and never reach the program.

    Args:
        begin: Called when a job or step begins, before its scope is created, with the job or step
            and the scope around it. Returns the span's ids, or ``None``: then the ids of the scope
            around it are inherited, as without tracing. ``None`` for *begin* stops the tracing of
            new jobs and steps.
        end: Called with the job or step when it has ended: its status, error and duration are
            known. Default: not called.
    """
    global _begin, _end
    _begin, _end = begin, end


def begin_span(handle: object, outer: Scope | None) -> Span | None:
    """Return the ids that a tracing system gives the job or step that begins in *outer*."""
    if _begin is None:
        return None
    try:
        return _begin(handle, outer)
    except Exception as exc:  # noqa: BLE001 -- an error in a tracing system must not reach the user's program
        faults.add("beginning a span", exc)
        return None


def end_span(handle: object) -> None:
    """Inform the tracing system that a job or step has ended."""
    if _end is None:
        return
    try:
        _end(handle)
    except Exception as exc:  # noqa: BLE001 -- see begin_span
        faults.add("ending a span", exc)


def span_of(scope: Scope | None) -> Span:
    """Return the span that new jobs and steps in *scope* inherit."""
    if scope is None:
        return _NONE
    return Span(scope.trace_id, scope.span_id, scope.trace_flags, scope.tracestate)


def _isolate() -> Callable[[], None]:
    begin, end = _begin, _end
    return lambda: set_tracing(begin, end)


on_reset(lambda: set_tracing(None), _isolate)
