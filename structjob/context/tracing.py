"""Tracing: a tracing system may give each job and step the ids of a span.

The ids are set before the job or step logs anything. `structjob.set_tracing` is the door to this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from structjob.context.scope import Scope
from structjob.diagnostics import fault_types, faults
from structjob.process import on_reset

# W3C Trace Context: ids of zeros only are invalid.
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
_FLAGS = re.compile(r"[0-9a-f]{2}")
_MAX_TRACESTATE, _MAX_STATES = 512, 32
"""Maximum characters and members of a ``tracestate`` that is passed on.

A larger one is omitted completely.
"""


class Span(NamedTuple):
    """The ids of a span, as W3C Trace Context defines them; all are ``None`` outside a trace.

    Attributes:
        trace_id: 32 lowercase hexadecimal digits.
        span_id: 16 lowercase hexadecimal digits.
        flags: The trace flags, 2 lowercase hexadecimal digits. ``None`` is sent as ``01``, sampled.
        tracestate: Further data that tracing systems pass on.
    """

    trace_id: str | None = None
    span_id: str | None = None
    flags: str | None = None
    tracestate: str | None = None


_NONE = Span()

Begin = Callable[[Any, Span], Span | None]
"""A function that is called with a job or step that begins, and the span around it."""

End = Callable[[Any], object]
"""A function that is called with a job or step that has ended."""

_begin: Begin | None = None
_end: End | None = None


def trace_with(begin: Begin | None, end: End | None = None) -> None:
    """Let a tracing system create a span for each job and step; see `structjob.set_tracing`."""
    global _begin, _end
    _begin, _end = begin, end


def begin_span(handle: object, outer: Scope | None) -> Span | None:
    """Return the ids that a tracing system gives the job or step that begins in *outer*."""
    if _begin is None:
        return None
    try:
        span = _begin(handle, span_of(outer))
        return None if span is None else _checked(span)
    except fault_types() as exc:  # an error in a tracing system must not reach the user's program
        faults.add("beginning a span", exc)
        return None


def _checked(span: Span) -> Span:
    """Return *span*. No database would store the events of ids that are too long."""
    trace_id, span_id, flags, state = span
    if not is_trace_id(trace_id) or not is_span_id(span_id):
        raise ValueError(
            f"a span needs a trace_id and a span_id of W3C Trace Context, not {span!r}"
        )
    if flags is not None and not _FLAGS.fullmatch(flags):
        raise ValueError(f"the flags of a span are 2 hexadecimal digits, not {flags!r}")
    return Span(trace_id, span_id, flags, passed_on(state))


def is_trace_id(text: str | None) -> bool:
    """Return whether *text* is a valid trace id."""
    return text is not None and _TRACE_ID.fullmatch(text) is not None


def is_span_id(text: str | None) -> bool:
    """Return whether *text* is a valid span id."""
    return text is not None and _SPAN_ID.fullmatch(text) is not None


def passed_on(state: str | None) -> str | None:
    """Return a ``tracestate`` unchanged if it may be passed on, otherwise None."""
    text = state.strip() if state else ""
    members = text.count(",") + 1
    return (
        text
        if text
        and len(text) <= _MAX_TRACESTATE
        and members <= _MAX_STATES
        and text.isascii()
        and text.isprintable()
        else None
    )


def end_span(handle: object) -> None:
    """Inform the tracing system that a job or step whose span it began has ended."""
    if _end is None:
        return
    try:
        _end(handle)
    except fault_types() as exc:  # see begin_span
        faults.add("ending a span", exc)


def span_of(scope: Scope | None) -> Span:
    """Return the span that new jobs and steps in *scope* inherit."""
    if scope is None:
        return _NONE
    return Span(scope.trace_id, scope.span_id, scope.trace_flags, scope.tracestate)


def _isolate() -> Callable[[], None]:
    begin, end = _begin, _end
    return lambda: trace_with(begin, end)


on_reset(lambda: trace_with(None), _isolate)
