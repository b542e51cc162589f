"""What is to be said of running jobs: how far they are, how much is left, which take longer than
usual.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord
    from structjob.queries.session_status import Silence
    from structjob.queries.step_progress import Underway
    from structjob.statistics import Expectation

_LEARN_EVERY = 30.0
"""Seconds for which an operation's history is kept: it changes slowly, and a screen is drawn every
second.
"""

_OPERATIONS = 100
"""Operations whose history is looked up at most; where more run at once, nobody reads it."""


class Estimates:
    """Tells of running jobs.

    Args:
        reader: Where they are read.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._former: dict[str, tuple[float, list[float]]] = {}
        self.underway: dict[str, Underway] = {}
        """Of each job looked at that has steps, how far it is by them."""
        self.expected: dict[str, Expectation] = {}
        """Of each job looked at, its duration beside those of its operation's last completed jobs.
        """
        self.silent: dict[str, Silence] = {}
        """Those of the jobs looked at whose process gives no sign of life."""

    async def look(self, jobs: Sequence[JobRecord], now: datetime) -> None:
        """Look at those of *jobs* that are running, at the moment *now*."""
        from structjob.queries import estimates
        from structjob.statistics import Expectation

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
            about = estimates.expected(None, job.started_at, None, now, former, running=True)
            self.expected[job.id] = Expectation(**about)

    async def _durations(self, operation: str) -> list[float]:
        read, former = self._former.get(operation, (0.0, []))
        if (not read and len(self._former) < _OPERATIONS) or (
            read and time.monotonic() - read > _LEARN_EVERY
        ):
            former = await self._reader.jobs.durations(operation)
            self._former[operation] = (time.monotonic(), former)
        return former
