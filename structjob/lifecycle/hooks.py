"""Hooks: functions that are called when a job or step starts or ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from structjob.exceptions import InvalidArgument
from structjob.lifecycle.jobs import Job, Step
from structjob.lifecycle.observers import OBSERVERS, Change
from structjob.machine.loops import is_coroutine_function
from structjob.models import JobStatus, StepStatus


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
        hook(
            Transition(
                what="job" if change.step is None else "step",
                change=change.change,
                status=change.status,
                job=cast(Job, change.job),
                step=cast(Step | None, change.step),
                error=change.error,
                duration_ms=change.duration_ms,
                ns=change.ns,
                entered=change.entered,
            )
        )

    return OBSERVERS.add(observe)
