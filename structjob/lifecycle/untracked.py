"""Jobs and steps without a tracker: they accept the same calls, and record nothing.

So decorated code and code with steps runs unchanged if no tracker is open, or outside jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structjob.capture.setup import SETUP
from structjob.context.errors import Classifier
from structjob.context.scope import current_scope
from structjob.exceptions import NotOpen
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore, current_core
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.lifecycle.options import JobOptions

if TYPE_CHECKING:
    from structjob.spool.recorder import Recorder


class _NoTracker(JobHost[JobCore]):
    """The host of jobs if no tracker is open. Nothing is recorded, so no other method is called."""

    tracked = False
    project = None

    def __init__(self) -> None:
        self.live = set()

    @property
    def recorder(self) -> Recorder:
        """Raise `NotOpen`, because there is no recorder."""
        raise NotOpen("no tracker is open; open one with `with structjob.Tracker(…)`")

    @property
    def classifier(self) -> Classifier | None:
        """The classifier of `structjob.configure`."""
        return SETUP.classifier


NO_TRACKER: JobHost[JobCore] = _NoTracker()  # type: ignore[abstract]  # see there


def current_host() -> JobHost[JobCore]:
    """Return the host of a job that starts here without an explicit tracker.

    It is the tracker of the enclosing job, otherwise the tracker that was opened first.
    """
    around = current_core()
    if around is not None and around.host.tracked:
        return around.host
    return OPEN_HOSTS.first or NO_TRACKER


def untracked_job(operation: str) -> Job:
    """Return a running job that is not recorded, for steps outside jobs of this process.

    What is logged in it keeps the ids of the scope around it.
    """
    job = Job(JobCore(NO_TRACKER, operation, parent=current_scope(), options=JobOptions()))
    core_of(job).begin()
    return job
