"""Estimates of running jobs: their progress, their time left, and which take longer than usual."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord
    from structjob.queries.session_status import Silence
    from structjob.queries.step_progress import StepProgress
    from structjob.statistics import Expectation

_LEARN_EVERY = 30.0
"""Seconds for which an operation's history is cached: it changes slowly, and a screen is redrawn
every second.
"""

_OPERATIONS = 100
"""Maximum number of operations whose history is looked up; a longer screen cannot be read
anyway.
"""


class Estimates:
    """Estimates of running jobs.

    Args:
        reader: Reads the jobs.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._former: dict[str, tuple[float, list[float]]] = {}
        self.underway: dict[str, StepProgress] = {}
        """The progress by steps, of each examined job that has steps."""
        self.expected: dict[str, Expectation] = {}
        """The duration compared with the last completed jobs of the operation, of each examined
        job.
        """
        self.silent: dict[str, Silence] = {}
        """The examined jobs whose process gives no sign of life."""

    async def look(self, jobs: Sequence[JobRecord], now: datetime) -> None:
        """Examine those of *jobs* that are running, at the time *now*."""
        from structjob.queries import estimates

        running = [job for job in jobs if job.status == "running"]
        self.underway = await self._reader.jobs.step_progress([job.id for job in running])
        silent = await self._reader.sessions.silences(
            {job.session_id for job in running if job.session_id is not None}
        )
        self.silent = {
            job.id: silent[job.session_id] for job in running if job.session_id in silent
        }
        self.expected = {}
        for job in running:
            former = await self._durations(job.operation)
            self.expected[job.id] = estimates.compare(job, former, now)

    async def _durations(self, operation: str) -> list[float]:
        read, former = self._former.get(operation, (0.0, []))
        if (not read and len(self._former) < _OPERATIONS) or (
            read and time.monotonic() - read > _LEARN_EVERY
        ):
            former = await self._reader.jobs.durations(operation)
            self._former[operation] = (time.monotonic(), former)
        return former
