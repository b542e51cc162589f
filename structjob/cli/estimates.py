"""Estimates of running jobs: their progress, their time left, and which take longer than usual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord
    from structjob.queries.session_status import Silence
    from structjob.queries.step_progress import StepProgress
    from structjob.statistics import Expectation


class Estimates(NamedTuple):
    """What is known of some running jobs, by their ids.

    Attributes:
        underway: The progress by steps, of each job that has steps.
        expected: The duration compared with earlier jobs of the operation.
        silent: The jobs whose process gives no sign of life.
    """

    underway: dict[str, StepProgress]
    expected: dict[str, Expectation]
    silent: dict[str, Silence]


async def estimates_of(reader: Reader, jobs: Sequence[JobRecord]) -> Estimates:
    """Return the estimates of those of *jobs* that are running."""
    running = [job for job in jobs if job.status == "running"]
    underway = await reader.lookups.step_progress([job.id for job in running])
    silent = await reader.lookups.silences(
        {job.session_id for job in running if job.session_id is not None}
    )
    return Estimates(
        underway,
        await reader.jobs.expectations(running),
        {job.id: silent[job.session_id] for job in running if job.session_id in silent},
    )
