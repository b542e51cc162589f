"""Spans of a tracing system: it may give each job and step the ids of one before anything is logged
there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from structjob.context.scope import Scope
from structjob.diagnostics import faults
from structjob.process import on_reset


class Span(NamedTuple):
    """What identifies a span; all of it is ``None`` outside a trace.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        flags: The trace flags, 2 hexadecimal digits.
        tracestate: What tracing systems pass on beside them.
    """

    trace_id: str | None = None
    span_id: str | None = None
    flags: str | None = None
    tracestate: str | None = None


class Traced(Protocol):
    """A job or a step: `structjob.Job`, `structjob.Step`."""

    @property
    def id(self) -> str: ...


Begin = Callable[[Traced, Scope | None], Span | None]
End = Callable[[Traced], object]

_begin: Begin | None = None
_end: End | None = None


def set_tracing(begin: Begin | None, end: End | None = None) -> None:
    """Let a tracing system make a span of each job and step.

    Args:
        begin: Called when a job or step begins, before its scope is made; given the job or step,
            and the scope around it. It returns the span's ids, or ``None``: then those around it
            are inherited, as without tracing. ``None`` ends the tracing of what begins from now on.
        end: Called with the job or step when it has ended: its status, error and duration are
            known.

    What either raises is counted, and never reaches the program.
    """
    global _begin, _end
    _begin, _end = begin, end


def begin_span(handle: Traced, outer: Scope | None) -> Span | None:
    """Return the ids that a tracing system gives the job or step that begins in *outer*."""
    if _begin is None:
        return None
    try:
        return _begin(handle, outer)
    except Exception as exc:  # noqa: BLE001 -- a fault of a tracing system must not reach the user's program
        faults.add("beginning a span", exc)
        return None


def end_span(handle: Traced) -> None:
    """Tell the tracing system that a job or step has ended."""
    if _end is None:
        return
    try:
        _end(handle)
    except Exception as exc:  # noqa: BLE001 -- see begin_span
        faults.add("ending a span", exc)


def span_of(scope: Scope | None) -> Span:
    """Return the span that what begins in *scope* inherits."""
    if scope is None:
        return Span()
    return Span(
        scope.ids.get("trace_id"), scope.ids.get("span_id"), scope.trace_flags, scope.tracestate
    )


on_reset(lambda: set_tracing(None))
