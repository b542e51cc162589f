"""The progress of running jobs by their steps, for many jobs at once.

It is meant for a screen that is refreshed every second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Double, case, func, select, type_coerce

from structjob.statuses import StepStatus
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, steps


@dataclass(frozen=True, slots=True)
class StepProgress:
    """The progress of a job's steps.

    Args:
        percent: The progress, 0–100, derived as in `structjob.queries.jobs.Jobs.progress`.
        step: The latest running step that counts units.
        completed: The number of units it has done.
        total: The number of units it has to process.
    """

    percent: float
    step: str | None = None
    completed: float | None = None
    total: float | None = None


def share() -> ColumnElement[float]:
    """Return the progress of a group of steps, as a percentage of the started steps.

    A running step counts by its own progress.
    """
    running = (steps.c.status == StepStatus.RUNNING.value) & steps.c.percent_complete.is_not(None)
    each = case(
        (steps.c.status == StepStatus.COMPLETED.value, 100.0),
        (running, steps.c.percent_complete),
        else_=0.0,
    )
    return type_coerce(func.avg(each), Double())


async def look(fetch: Fetch, ids: Sequence[str]) -> dict[str, StepProgress]:
    """Return the progress of the jobs *ids* that have steps in their latest attempt.

    This takes two statements for any number of jobs.
    """
    if not ids:
        return {}
    mine = steps.join(jobs, (jobs.c.id == steps.c.job_id) & (jobs.c.attempt == steps.c.attempt))
    asked = steps.c.job_id.in_(ids)
    counted = select(steps.c.job_id, share().label("share")).select_from(mine)
    counted = counted.where(asked, steps.c.status != StepStatus.RETRYING.value).group_by(
        steps.c.job_id
    )
    units = select(steps.c.job_id, steps.c.name, steps.c.completed, steps.c.total).select_from(mine)
    units = units.where(
        asked, steps.c.status == StepStatus.RUNNING.value, steps.c.total.is_not(None)
    ).order_by(steps.c.started_at, steps.c.seq)
    running = {
        row["job_id"]: (row["name"], row["completed"], row["total"]) for row in await fetch(units)
    }
    return {
        row["job_id"]: StepProgress(row["share"], *running.get(row["job_id"], ()))
        for row in await fetch(counted)
    }
