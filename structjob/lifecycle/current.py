"""The live job and step of the running code."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from structjob.context.scope import current_scope

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore
    from structjob.lifecycle.jobs import Job
    from structjob.lifecycle.step_core import StepCore
    from structjob.lifecycle.steps import Step


def current_core() -> JobCore | None:
    """Return the core of the live job that the running code belongs to, or ``None``."""
    scope = current_scope()
    # Only this package creates scopes with a job or a step.
    return cast("JobCore | None", scope.job) if scope is not None else None


def current_job() -> Job | None:
    """Return the live job that the running code belongs to, or ``None``."""
    core = current_core()
    return core.handle if core is not None and not core.joined else None


def current_step() -> Step | None:
    """Return the live step that the running code belongs to, or ``None``."""
    scope = current_scope()
    core = cast("StepCore | None", scope.step) if scope is not None else None
    return core.handle if core is not None else None
