"""The interface through which jobs and steps use their tracker."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from structjob.context.errors import Classifier

if TYPE_CHECKING:
    from structjob.spool.recorder import Recorder

T = TypeVar("T")
J = TypeVar("J")
"""A job as the library sees it: a `structjob.lifecycle.job_core.JobCore`."""


class Reporting(Protocol):
    """A job or step that holds back a progress report."""

    def flush_progress(self) -> None:
        """Record the progress that was held back."""


class JobHost(Protocol[J]):
    """An open tracker, as jobs and steps see it.

    Attributes:
        live: The jobs that run in this process.
        claims: Starts that were interrupted before their answer arrived.
        tracked: Whether anything is recorded. False if no tracker is open.
        project: The project of jobs that have no project of their own.
    """

    tracked: bool
    live: set[J]
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
        self, row: dict[str, Any], job: J, *, pending: bool
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

    def flush_later(self, core: Reporting) -> None:
        """Schedule *core* to record its progress in the next iteration of the loop."""
