"""Hooks: functions that are called when a job or step starts or ends."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from structjob.diagnostics import faults
from structjob.exceptions import InvalidArgument
from structjob.machine.loops import is_coroutine_function
from structjob.models import JobStatus, StepStatus
from structjob.process import on_reset

if TYPE_CHECKING:
    from structjob.lifecycle.jobs import Job
    from structjob.lifecycle.steps import Step


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


class Hooks:
    """The hooks of this process."""

    def __init__(self) -> None:
        self._hooks: tuple[Hook, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, hook: Hook) -> Callable[[], None]:
        """Add a hook; see `add_hook`."""
        entry = _Entry(hook)
        self._hooks = (*self._hooks, entry)

        def remove() -> None:
            self._hooks = tuple(one for one in self._hooks if one is not entry)

        return remove

    def clear(self) -> None:
        """Remove all hooks."""
        self._hooks = ()

    def isolate(self) -> Callable[[], None]:
        """Return a function that puts back the present hooks."""
        hooks = self._hooks

        def restore() -> None:
            self._hooks = hooks

        return restore

    def announce(self, transition: Transition) -> None:
        """Call each hook, except those whose work this is. An exception in one is counted, and the
        next hook is called.
        """
        running = _running.get()
        for hook in self._hooks:
            if hook in running:
                continue
            token = _running.set(running | {hook})
            try:
                hook(transition)
            except Exception as exc:  # noqa: BLE001 -- an exception in a hook must not reach the user's work
                faults.add("calling a hook", exc)
            finally:
                _running.reset(token)


class _Entry:
    """An added hook. The same function can be added twice, and each entry is removed separately."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def __call__(self, transition: Transition, /) -> None:
        self._hook(transition)


_running: ContextVar[frozenset[Hook]] = ContextVar("structjob_hooks", default=frozenset())
"""The hooks whose work the running code is: a hook that begins a job would otherwise be called for
it, and so on.
"""

HOOKS = Hooks()
on_reset(HOOKS.clear, HOOKS.isolate)


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
    return HOOKS.add(hook)
