"""The return values of ``tracker.job(…)`` and ``structjob.step(…)``.

They work with ``with`` and ``async with``, and as decorators of functions and coroutine functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar, Unpack

from structjob.capture.setup import SETUP
from structjob.context.scope import current_scope
from structjob.diagnostics import diagnostics
from structjob.exceptions import InvalidState
from structjob.lifecycle.arguments import (
    check_description,
    check_metadata,
    check_text,
    check_total,
    decorates_coroutines,
)
from structjob.lifecycle.both import WithOrAsyncWith, decorated
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import current_core
from structjob.lifecycle.jobs import Job, JobContext, JobKeywords, Step, job_of
from structjob.lifecycle.joined import joined_job
from structjob.lifecycle.untracked import current_host, untracked_job
from structjob.machine.frames import frame_at
from structjob.process import on_reset
from structjob.spool.routing import tracked_before

P = ParamSpec("P")
T = TypeVar("T")


_warned_untracked = False


def warn_untracked(name: str) -> None:
    """Warn once in the library's log that steps run outside a job, with the place in the user's
    code.

    Steps of a library are no reason to warn a program that does not use structjob.
    """
    global _warned_untracked
    if _warned_untracked or not (SETUP.watched or tracked_before()):
        return
    _warned_untracked = True
    frame = frame_at(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(__package__):
        frame = frame.f_back
    scope, job = current_scope(), current_core()
    why = "runs outside a job and is not tracked; open one with tracker.job()"
    if job is None and scope is not None and scope.job_id is not None:
        why = (
            f"belongs to the job {scope.job_id} of another process and is not tracked: what it logs belongs to that job; "
            "to track steps, open a job here with tracker.job() or structjob.job()"
        )
    elif job is not None and job.status.terminal:
        why = f"runs after its job {job.operation!r} has ended and is not tracked; await what belongs to a job within it"
    # Not `warnings.warn`, because with `-W error` it would raise in the user's code.
    diagnostics.warning(
        "the step %r %s (%s:%d; logged once)", name, why, frame.f_code.co_filename, frame.f_lineno
    )


def _reset() -> None:
    global _warned_untracked
    _warned_untracked = False


on_reset(_reset)


def job_of_steps(name: str) -> Job:
    """Return the job to which the step *name* of the running code belongs.

    Outside a job it is an untracked one, and a warning is logged once.
    """
    core = current_core()
    if core is None or core.joined:
        job = joined_job(current_scope())
    else:
        job = job_of(core) if core.runs and not core.existing else None
    if job is None:
        warn_untracked(name)
        job = untracked_job(name)
    return job


class StepContext(WithOrAsyncWith[Step]):
    """The return value of ``structjob.step(…)``: a step of the current job.

    Use it with ``with`` or ``async with``, or as a decorator of functions and coroutine functions.
    Outside a job the body runs untracked, and a warning is logged once, because tracking must never
    break a program.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self._name: str = check_text("the name of a step", name, 200) or ""
        # Check the arguments now, whether a job is running or not.
        check_total(options.get("total"))
        check_description(options.get("description"))
        check_metadata(options.get("metadata"))
        self._options = dict(options)
        self._step: Step | None = None

    def __enter__(self) -> Step:
        if self._step is not None:
            raise InvalidState(
                f"the step {self._name!r} is entered already; call structjob.step() anew for each"
            )
        self._step = step = job_of_steps(self._name).step(self._name, **self._options)
        return step.__enter__()

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        step, self._step = self._step, None
        try:
            if step is not None:
                step.__exit__(kind, exc, trace)
        except BaseException as interruption:  # of a signal handler, where the call begins
            if step is not None:
                core_of(step).interrupted(interruption)
            raise

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a function or coroutine function, so that each call is a step.

        Raises:
            InvalidArgument: if *function* is a generator function, or not a function.
        """
        coroutines = decorates_coroutines(function, "structjob.step()")
        return decorated(
            function,
            lambda *_, **__: StepContext(self._name, self._options),
            lambda _, returned: returned,
            coroutines=coroutines,
        )


def job(operation: str, **options: Unpack[JobKeywords]) -> JobContext:
    """Return a job of the tracker that is open when the job starts.

    Use it with ``with`` or ``async with``, or as a decorator. It is meant for libraries and for
    functions at module level.

    ::

        @structjob.job("nightly")
        def nightly():
            with structjob.step("load"):
                load()

    Within a job it is a child of that job. Otherwise it belongs to the tracker that was opened
    first. If no tracker is open, the work runs and nothing is recorded.

    For a decorated function, each id may be a function that gets the arguments of the call by name:
    ``@structjob.job("import", external_job_id=lambda call: f"order-{call['order']}")``.

    Args:
        operation: The name of the work, at most 255 characters.
        options: See `structjob.Tracker.job`.

    Raises:
        InvalidArgument: if an argument is invalid.
    """
    return JobContext(current_host, operation, options)


def step(
    name: str,
    *,
    total: float | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StepContext:
    """Return a step of the job that is current at the entry. Nested code needs no handle.

    Use it with ``with`` or ``async with``, or as a decorator.

    Args:
        name: At most 200 characters.
        total: The number of units to process, if it is known.
        description: What the step does.
        metadata: A mapping, stored as JSON.
    """
    options = {"total": total, "description": description, "metadata": metadata}
    return StepContext(name, {key: value for key, value in options.items() if value is not None})
