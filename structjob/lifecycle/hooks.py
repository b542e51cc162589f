"""Hooks: functions that are called when a job or step starts or ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from structjob.context.tracing import Span, trace_with
from structjob.exceptions import InvalidArgument
from structjob.lifecycle.jobs import Job, Step
from structjob.lifecycle.observers import OBSERVERS, Change
from structjob.machine.loops import is_coroutine_function
from structjob.statuses import JobStatus, StepStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The start or end of a job or step, as passed to a hook."""

    what: Literal["job", "step"]
    change: Literal["started", "ended"]
    status: JobStatus | StepStatus
    """The status after the change."""
    job: Job
    """The job, or the job of the step."""
    step: Step | None = None
    error: BaseException | None = None
    """The exception that ended it."""
    duration_ms: float | None = None
    """Milliseconds from the start to the end."""
    ns: int
    """The time of the change, in nanoseconds since 1970, UTC."""
    entered: bool
    """Whether a ``with`` or ``async with`` block runs it. Only then are the start and the end in
    one context, so that a hook can set context variables and reset them.
    """


class Hook(Protocol):
    """A function that takes a `Transition`; see `add_hook`. Its return value is ignored."""

    def __call__(self, transition: Transition, /) -> object:
        """Handle the start or end of a job or step."""


def add_hook(hook: Hook) -> Callable[[], None]:
    """Call *hook* whenever a job or step starts or ends.

    It applies to all trackers of this process, including trackers opened later.

    ::

        def count(transition):
            if transition.what == "job" and transition.change == "ended":
                jobs_total.labels(transition.status).inc()

        remove = structjob.add_hook(count)

    The hook is called in the thread of the change, after the change is in the spool. It must
    therefore not block. Its exceptions are counted, and never reach the job. It may begin jobs and
    steps itself, also in tasks that it creates: it is not called for these, other hooks are.

    Args:
        hook: A function that takes a `Transition`; not a coroutine function.

    Returns:
        A function that removes the hook.

    Raises:
        InvalidArgument: if *hook* cannot be called, or is a coroutine function.
    """
    if not callable(hook):
        raise InvalidArgument(f"a hook is a function that takes a Transition, not {hook!r}")
    if is_coroutine_function(hook):
        raise InvalidArgument(
            f"the hook {hook!r} is a coroutine function, and is never awaited: write a plain one, which creates a task if something is to be awaited"
        )

    def observe(change: Change) -> None:
        what: Literal["job", "step"] = "job" if change.step is None else "step"
        hook(Transition(what=what, **change._asdict()))

    return OBSERVERS.add(observe)


BeginSpan = Callable[[Job | Step, Span], Span | None]
EndSpan = Callable[[Job | Step], object]


def set_tracing(begin: BeginSpan | None, end: EndSpan | None = None) -> None:
    """Let a tracing system give each job and step the ids of a span, before it logs anything.

    All of its events then have these ids, and `inject` passes them on. Without tracing, jobs and
    steps have the ids of the trace that came in from outside, if one did.

    ::

        def begin(handle, parent):
            span = spans[handle] = tracer.begin(handle.id, below=parent.span_id)
            return structjob.Span(span.trace_id, span.id)

        structjob.set_tracing(begin, lambda handle: spans.pop(handle).end())

    Both functions are called in the thread of the job or step, so they must not block. What they
    raise is counted, and never reaches the program.

    Args:
        begin: Called when a job or step begins, before anything is recorded, with the `Job` or
            `Step` and the `Span` around it. It returns the span's ids, or ``None`` to inherit those
            around it. Ids that are not valid are not used, and counted as an error. It is not
            called for work that is not tracked. ``None`` stops the tracing of what begins from now
            on.
        end: Called with each `Job` and `Step` that got a span when it has ended: its status, error
            and duration are known. By default nothing is called.

    Raises:
        InvalidArgument: if *begin* or *end* cannot be called, or is a coroutine function.
    """
    for function in (begin, end):
        if function is not None and not callable(function):
            raise InvalidArgument(f"set_tracing() takes two functions, not {function!r}")
        if is_coroutine_function(function):
            raise InvalidArgument(
                f"{function!r} is a coroutine function, and is never awaited: write a plain one"
            )
    trace_with(begin, end)
