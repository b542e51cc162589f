"""The interface through which jobs and steps use their tracker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from structjob.context.errors import Classifier
from structjob.process import on_reset

if TYPE_CHECKING:
    from structjob.lifecycle.contexts import JobContext
    from structjob.lifecycle.core import Core
    from structjob.lifecycle.job_core import JobCore
    from structjob.lifecycle.options import JobKeywords
    from structjob.spool.recorder import Recorder

T = TypeVar("T")


class JobHost(Protocol):
    """An open tracker, as jobs and steps see it.

    Attributes:
        live: The jobs that run in this process.
        claims: Starts that were interrupted before their answer arrived.
        tracked: Whether anything is recorded. False if no tracker is open.
        project: The project of jobs that have no project of their own.
    """

    tracked: bool
    live: set[JobCore]
    claims: set[asyncio.Future[Any]]
    project: str | None

    @property
    def recorder(self) -> Recorder:
        """The recorder for changes of state and events. Raises `NotOpen` before the tracker is
        open.
        """

    @property
    def classifier(self) -> Classifier | None:
        """The function that derives the fields of an error."""

    def require_open(self) -> None:
        """Raise `NotOpen` unless the tracker is open."""

    async def claim(
        self, row: dict[str, Any], job: JobCore, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Ask the database for the next attempt at a job; see `Claiming.claim`."""

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Store a pending job with its idempotency key, or return the job that already has the
        key.
        """

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that starts while the database is unavailable."""

    async def committed(self, state_seq: int, seconds: float) -> None:
        """Wait until a change of state is committed, for *seconds* at most."""

    def wait_committed(self, state_seq: int, seconds: float) -> None:
        """Wait as `committed` does, in code without an event loop. Never waits on the tracker's own
        loop.
        """

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* on the tracker's loop, from code without an event loop."""

    def flush_later(self, core: Core) -> None:
        """Schedule *core* to record its progress in the next iteration of the loop."""


class Jobs(Protocol):
    """An object that creates jobs: a tracker."""

    def job(self, operation: str, **options: Unpack[JobKeywords]) -> JobContext:
        """Return a job."""


class OpenHosts:
    """The open trackers of this process, in the order in which they were opened."""

    def __init__(self) -> None:
        self._hosts: tuple[JobHost, ...] = ()

    def add(self, host: JobHost) -> None:
        """Add an open tracker."""
        self._hosts = (*self._hosts, host)

    def remove(self, host: JobHost) -> None:
        """Remove a closed tracker."""
        self._hosts = tuple(one for one in self._hosts if one is not host)

    def clear(self) -> None:
        """Remove all trackers."""
        self._hosts = ()

    def isolate(self) -> Callable[[], None]:
        """Remove all trackers; return a function that adds them again."""
        hosts, self._hosts = self._hosts, ()

        def restore() -> None:
            self._hosts = hosts

        return restore

    def of_database(self, database: str) -> JobHost | None:
        """Return an open tracker that records in *database*; None if there is no such tracker."""
        found = [host for host in self._hosts if host.recorder.session.database == database]
        return next((host for host in found if not host.recorder.forked), None) or next(
            iter(found), None
        )

    @property
    def first(self) -> JobHost | None:
        """The tracker that was opened first; None if no tracker is open.

        In a forked child, its own trackers precede those that it inherited.
        """
        for host in self._hosts:
            if not host.recorder.forked:
                return host
        return self._hosts[0] if self._hosts else None


OPEN_HOSTS = OpenHosts()
on_reset(OPEN_HOSTS.clear, OPEN_HOSTS.isolate)
