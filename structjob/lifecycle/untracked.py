"""Jobs and steps without a tracker: they accept the same calls, and record nothing.

So decorated code and code with steps runs unchanged if no tracker is open, or outside jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from structjob.capture.setup import SETUP
from structjob.context.errors import Classifier
from structjob.context.scope import current_scope
from structjob.exceptions import NotOpen
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.host import JobHost, Reporting
from structjob.lifecycle.job_core import JobCore, current_core
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.lifecycle.options import JobOptions

if TYPE_CHECKING:
    from structjob.spool.recorder import Recorder

T = TypeVar("T")


class _NoTracker:
    """The host of jobs if no tracker is open; see `structjob.lifecycle.host.JobHost`."""

    tracked = False
    project: str | None = None

    def __init__(self) -> None:
        self.live: set[JobCore] = set()
        self.claims: set[asyncio.Future[Any]] = set()

    @property
    def recorder(self) -> Recorder:
        """Raise `NotOpen`, because there is no recorder."""
        self._refuse()

    @property
    def classifier(self) -> Classifier | None:
        """The classifier of `structjob.configure`."""
        return SETUP.classifier

    def require_open(self) -> None:
        """Do nothing, because no tracker is necessary."""

    async def claim(
        self, row: dict[str, Any], job: JobCore, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Return the first attempt, because no earlier attempts are known."""
        return None, 1

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return None, because no other job has the key."""
        return None

    def provisional(self, job_id: str, former: int) -> int:
        """Return the next number; see `claim`."""
        return former + 1

    async def committed(self, state_seq: int, seconds: float) -> None:
        """Return at once, because nothing is stored."""

    def wait_committed(self, state_seq: int, seconds: float) -> None:
        """Return at once, because nothing is stored."""

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Raise `NotOpen`, because there is no loop."""
        work.close()
        self._refuse()

    def flush_later(self, core: Reporting) -> None:
        """Do nothing, because nothing is recorded."""

    def _refuse(self) -> NoReturn:
        raise NotOpen("no tracker is open; open one with `with structjob.Tracker(…)`")


NO_TRACKER: JobHost[JobCore] = _NoTracker()


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
    core_of(job).begin_untracked()
    return job
