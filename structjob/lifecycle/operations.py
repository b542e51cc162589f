"""Jobs with one correlation id, for services that know only that id."""

from __future__ import annotations

from typing import Protocol, Unpack

from structjob.context.scope import new_id
from structjob.lifecycle.arguments import check_text
from structjob.lifecycle.contexts import job
from structjob.lifecycle.correlation import current_correlation_id
from structjob.lifecycle.jobs import Job, JobContext, JobKeywords


class Jobs(Protocol):
    """An object that creates jobs: a tracker."""

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job."""


class OperationLogger:
    """Starts jobs that share one correlation id.

    ::

        operations = structjob.OperationLogger(message["correlation_id"])
        with operations.operation("volume-attach", metadata={"volume_id": 7}) as job:
            job.log_step("cloudstack-api", "calling attach volume")

    Args:
        correlation_id: At most 128 characters. By default the correlation id of the running code;
            if it has no id, a new one.
        job_id: The id of the parent job, if there is one.
        tracker: The tracker that records the jobs. By default the tracker of the enclosing job,
            otherwise the one that was opened first. Without a tracker, the work runs untracked.

    Raises:
        InvalidArgument: if an argument is invalid.
    """

    def __init__(
        self,
        correlation_id: str | None = None,
        *,
        job_id: str | None = None,
        tracker: Jobs | None = None,
    ) -> None:
        given = check_text("correlation_id", correlation_id, 128)
        self.correlation_id: str = given or current_correlation_id() or new_id()
        self.job_id = check_text("job_id", job_id, 64)
        self._begin = job if tracker is None else tracker.job

    def operation(self, name: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job, for ``with`` or ``async with``, or as a decorator.

        Args:
            name: The name of the work, at most 255 characters.
            options: See `structjob.Tracker.job`.
        """
        if options.get("correlation_id") is None:
            options["correlation_id"] = self.correlation_id
        if self.job_id is not None and options.get("parent") is None:
            options["parent"] = self.job_id
        return self._begin(name, **options)

    def start_operation(self, name: str, **options: Unpack[JobKeywords]) -> Job:
        """Start a job manually, without waiting for its commit. ``job.end()`` ends it.

        Args:
            name: See `operation`.
            options: See `operation`.
        """
        options["wait"] = False
        return self.operation(name, **options).begin()
