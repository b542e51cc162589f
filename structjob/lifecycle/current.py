"""The live job and step of the running code."""

from __future__ import annotations

from typing import cast

from structjob.context.scope import current_scope
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.steps import Step


def current_job() -> Job | None:
    """Return the live job that the running code belongs to, or ``None``."""
    scope = current_scope()
    # Only this package creates scopes with a job or a step.
    return cast("Job | None", scope.job) if scope is not None else None


def current_step() -> Step | None:
    """Return the live step that the running code belongs to, or ``None``."""
    scope = current_scope()
    return cast("Step | None", scope.step) if scope is not None else None
