"""How far running jobs are by their steps, many jobs at a time: for a screen that is drawn anew
every second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Double, case, func, select, type_coerce

from structjob.models import StepStatus
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, steps


@dataclass(frozen=True, slots=True)
class Underway:
    """A job's steps so far.

    Args:
        percent: How far they are, 0–100, as `structjob.queries.jobs.Jobs.progress` derives it.
        step: The step begun last of those that count units and are running.
        completed: Units it has done.
        total: Units it has to do.
    """

    percent: float
    step: str | None = None
    completed: float | None = None
    total: float | None = None


def share() -> ColumnElement[float]:
    """Return how far the steps of a group are together, as a percentage of those begun: what runs
    counts as far as it has come.
    """
    running = (steps.c.status == StepStatus.RUNNING.value) & steps.c.percent_complete.is_not(None)
    each = case(
        (steps.c.status == StepStatus.COMPLETED.value, 100.0),
        (running, steps.c.percent_complete),
        else_=0.0,
    )
    return type_coerce(func.avg(each), Double())


async def look(fetch: Fetch, ids: Sequence[str]) -> dict[str, Underway]:
    """Return how far the jobs *ids* are, those that have any steps in their latest attempt; by two
    statements, however many there are.
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
    ).order_by(steps.c.seq)
    running = {
        row["job_id"]: (row["name"], row["completed"], row["total"]) for row in await fetch(units)
    }
    return {
        row["job_id"]: Underway(row["share"], *running.get(row["job_id"], ()))
        for row in await fetch(counted)
    }
