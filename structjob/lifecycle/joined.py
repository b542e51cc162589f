"""A job of another process to which this process belongs.

A program below ``structjob run``, or the worker of a process pool, opens a tracker of its own. If
that records in the database that has the job, its steps are steps of that job. Only the process
that started the job records the job itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from structjob.exceptions import InvalidState, NotOpen
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job, job_of
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.lifecycle.options import JobOptions
from structjob.statuses import JobStatus

if TYPE_CHECKING:
    from structjob.context.scope import Scope


class _JoinedCore(JobCore):
    """A job that another process runs, as the steps of this process see it.

    Args:
        host: The tracker of this process.
        scope: The scope that came from the other process.
    """

    __slots__ = ()
    joined = True

    def __init__(self, host: JobHost[JobCore], scope: Scope) -> None:
        labels = scope.labels
        options = JobOptions(
            job_id=scope.job_id, correlation_id=scope.correlation_id, owner=labels["owner"]
        )
        super().__init__(host, scope.operation or "joined", parent=None, options=options)
        self.project = labels["project"]
        self.root_job_id = scope.root_job_id or self.id
        provisional = scope.column_values.get("provisional")
        self.claim.attempt = scope.attempt or 1
        self.claim.provisional = None if provisional is None else str(provisional)
        self._parent = scope  # its trace
        self.scope = scope
        self.status, self.began = JobStatus.RUNNING, time.monotonic()

    @property
    def runs(self) -> bool:
        """Whether steps can be recorded: whether the tracker of this process is still open."""
        try:
            self.host.require_open()
        except NotOpen:
            return False
        return True

    def require_running(self, what: str) -> None:
        """Raise `NotOpen` if the tracker of this process is closed."""
        self.host.require_open()

    def not_running(self, what: str) -> InvalidState:
        """Return the error of *what*, which only the other process may do."""
        return InvalidState(f"{self.named()} is run by another process; {what} is up to that one")

    def fail(self, exc: BaseException) -> None:
        """Do nothing, because the other process ends the job."""

    def finish(
        self, status: str, exc: BaseException | None, summary: Mapping[str, Any] | None = None
    ) -> None:
        """Raise `InvalidState`, because the other process ends the job."""
        raise self.not_running("end")

    def progressed(self) -> None:
        """Do nothing, because the other process records the job."""

    def event(self, level: str, kind: str, attrs: dict[str, Any]) -> None:
        """Do nothing, because the other process writes the events about the job."""


def joined_job(scope: Scope | None) -> Job | None:
    """Return the job of *scope* if another process runs it.

    A tracker of this process must record in the same database.
    """
    if scope is None or scope.job_id is None or scope.database is None:
        return None
    core = scope.job
    if isinstance(core, _JoinedCore) and core.runs:
        return job_of(core)
    host = OPEN_HOSTS.of_database(scope.database)
    if host is None:
        scope.job = None
        return None
    scope.job = core = _JoinedCore(host, scope)
    return Job(core)
