"""What jobs and steps ask of the tracker that they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from structjob.context.errors import Classifier
from structjob.process import on_reset

if TYPE_CHECKING:
    from structjob.lifecycle.contexts import JobContext
    from structjob.lifecycle.handle import Handle
    from structjob.lifecycle.jobs import Job
    from structjob.lifecycle.options import JobKeywords
    from structjob.spool.recorder import Recorder

T = TypeVar("T")


class JobHost(Protocol):
    """Where jobs live: an open tracker, seen from below.

    Attributes:
        live: The jobs that run in this process.
        claims: Starts that were interrupted, and whose answer is still to come.
        tracked: Whether anything is recorded; not where no tracker is open.
        project: The project of jobs that have none of their own.
    """

    tracked: bool
    live: set[Job]
    claims: set[asyncio.Future[Any]]
    project: str | None

    @property
    def recorder(self) -> Recorder:
        """Where changes of state and events go. Raises `NotOpen` before the tracker is open."""

    @property
    def classifier(self) -> Classifier | None:
        """What derives the fields of an error."""

    def require_open(self) -> None:
        """Raise `NotOpen` unless the tracker is open."""

    async def claim(
        self, row: dict[str, Any], job: Job, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Ask the database for the next attempt at a job; see `Claiming.claim`."""

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Enter a pending job with its idempotency key; return the job that has it already."""

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that begins while the database does not answer."""

    async def committed(self, state_seq: int, seconds: float) -> None:
        """Wait until a change of state is committed, for *seconds* at most."""

    def wait_committed(self, state_seq: int, seconds: float) -> None:
        """Do the same in code without a loop. Never waits on the tracker's own loop."""

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* on the tracker's loop, from code without a loop."""

    def flush_later(self, handle: Handle) -> None:
        """Let *handle* record its progress at the next turn."""


class Jobs(Protocol):
    """What makes jobs: a tracker."""

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job."""


class OpenHosts:
    """The open trackers of this process, in the order in which they were opened."""

    def __init__(self) -> None:
        self._hosts: tuple[JobHost, ...] = ()

    def add(self, host: JobHost) -> None:
        """Note that a tracker is open."""
        self._hosts = (*self._hosts, host)

    def remove(self, host: JobHost) -> None:
        """Note that it is closed."""
        self._hosts = tuple(one for one in self._hosts if one is not host)

    def clear(self) -> None:
        """Forget all."""
        self._hosts = ()

    @property
    def first(self) -> JobHost | None:
        """The one that was opened first."""
        return next(iter(self._hosts), None)


OPEN_HOSTS = OpenHosts()
on_reset(OPEN_HOSTS.clear)
