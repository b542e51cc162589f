"""Hooks: functions that are called whenever a job or step begins or ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument
from structjob.models import JobStatus, StepStatus
from structjob.process import on_reset

if TYPE_CHECKING:
    from structjob.lifecycle.jobs import Job
    from structjob.lifecycle.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """The beginning or end of a job or step, as a hook is given it."""

    what: Literal["job", "step"]
    change: Literal["started", "ended"]
    status: JobStatus | StepStatus
    """Its status from now on."""
    job: Job
    """The job, or the job of the step."""
    step: Step | None = None
    error: BaseException | None = None
    """The exception that ended it."""
    duration_ms: float | None = None
    """Milliseconds from its beginning to its end."""
    ns: int
    """When: nanoseconds since 1970, UTC."""
    entered: bool
    """Whether a ``with`` or ``async with`` block runs it. Only then are the beginning and the end
    in one context, so that a hook may set context variables and put them back.
    """


class Hook(Protocol):
    """A function that takes a `Transition`; see `add_hook`. What it returns is ignored."""

    def __call__(self, transition: Transition, /) -> object:
        """Take note that a job or step has begun or ended."""


class Hooks:
    """The hooks of this process."""

    def __init__(self) -> None:
        self._hooks: tuple[Hook, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, hook: Hook) -> Callable[[], None]:
        """See `add_hook`."""
        entry = _Entry(hook)
        self._hooks = (*self._hooks, entry)

        def remove() -> None:
            self._hooks = tuple(one for one in self._hooks if one is not entry)

        return remove

    def clear(self) -> None:
        """Remove all."""
        self._hooks = ()

    def announce(self, transition: Transition) -> None:
        """Call each hook. What one raises is counted, and the next one is called."""
        for hook in self._hooks:
            try:
                hook(transition)
            except Exception as exc:  # noqa: BLE001 -- a hook must not reach the user's work
                faults.add("calling a hook", exc)


class _Entry:
    """A hook that was added; the same function may be added twice, and removed once."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __call__(self, transition: Transition, /) -> None:
        self._hook(transition)


HOOKS = Hooks()
on_reset(HOOKS.clear)


def add_hook(hook: Hook) -> Callable[[], None]:
    """Call *hook* whenever a job or step begins or ends, of any tracker of this process, open now
    or later.

    ::

        def count(transition):
            if transition.what == "job" and transition.change == "ended":
                jobs_total.labels(transition.status).inc()

        remove = structjob.add_hook(count)

    It is called in the thread of the change, once the change is in the spool; so it must not
    block. What it raises is counted, and never reaches the job.

    Args:
        hook: A function that takes a `Transition`.

    Returns:
        A function that removes the hook.

    Raises:
        InvalidArgument: if *hook* cannot be called.
    """
    if not callable(hook):
        raise InvalidArgument(f"a hook is a function that takes a Transition, not {hook!r}")
    return HOOKS.add(hook)
