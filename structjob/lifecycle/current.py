"""The live job and step of the running code."""

from __future__ import annotations

from typing import cast

from structjob.context.scope import current_scope
from structjob.lifecycle.job_core import current_core
from structjob.lifecycle.jobs import Job, Step, job_of
from structjob.lifecycle.step_core import StepCore


def current_job() -> Job | None:
    """Return the live job that the running code belongs to, or ``None``."""
    core = current_core()
    return job_of(core) if core is not None and not core.joined else None


def current_step() -> Step | None:
    """Return the live step that the running code belongs to, or ``None``."""
    scope = current_scope()
    core = cast("StepCore | None", scope.step) if scope is not None else None
    return cast(Step, core.handle) if core is not None else None
