"""Estimates of the duration of a job, from the history of its operation."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, literal, select

from structjob.models import JobRecord, StepRecord
from structjob.statistics import ENOUGH, Estimate, Expectation, StepEstimate
from structjob.store.contract import Fetch
from structjob.store.expressions import together
from structjob.store.portions import portions
from structjob.store.tables import jobs, steps

HISTORY = 100
"""Number of completed jobs to compare with. Older ones may no longer be typical."""

STEPS = 100_000
"""Approximate number of earlier steps to compare with. For a job with more than 1,000 steps, these
are the steps of fewer jobs than `HISTORY`, but at least `ENOUGH`.
"""

_NAMES = 500
"""Maximum number of step names in one query. If there are more, all steps of the earlier jobs are
read.
"""

_AT_ONCE = 25
"""Number of jobs that one query compares with earlier ones."""


async def look(
    fetch: Fetch,
    job: JobRecord,
    done: Sequence[StepRecord],
    now: datetime,
    *,
    of: int | None = None,
) -> Estimate:
    """Return the estimate for *job* and its steps, compared with the jobs completed before it.

    Args:
        job: The job.
        done: Its steps, or some of them.
        now: The present time, for the duration of running jobs and steps.
        of: The number of steps of the job, if *done* contains only some.

    It raises no exceptions of its own. The steps of each earlier job are found by its id. So the
    cost is that of `HISTORY` jobs and about `STEPS` steps, however many there are.
    """
    latest = _former(job, jobs.c.id, jobs.c.attempt, jobs.c.duration_ms)
    whole = sorted(row["duration_ms"] for row in await fetch(latest.limit(HISTORY)))
    parts: dict[str, list[float]] = {step.name: [] for step in done}
    if parts and whole:
        former = latest.limit(max(ENOUGH, min(HISTORY, STEPS // max(of or 0, len(done))))).subquery(
            "former"
        )
        mine = (steps.c.job_id == former.c.id) & (steps.c.attempt == former.c.attempt)
        statement = select(steps.c.name, steps.c.duration_ms).select_from(former.join(steps, mine))
        statement = statement.where(steps.c.status == "completed", steps.c.duration_ms.is_not(None))
        if len(parts) <= _NAMES:
            statement = statement.where(steps.c.name.in_(sorted(parts)))
        for row in await fetch(statement):
            if (found := parts.get(row["name"])) is not None:
                found.append(row["duration_ms"])
        for found in parts.values():
            found.sort()
    return Estimate(
        **_compared(job, whole, now),
        job_id=job.id,
        operation=job.operation,
        steps=tuple(
            StepEstimate(**_compared(step, parts[step.name], now), step_id=step.id, step=step.name)
            for step in done
        ),
    )


async def expectations(
    fetch: Fetch, some: Sequence[JobRecord], now: datetime
) -> dict[str, Expectation]:
    """Return how long *some* jobs take, or took, compared with the jobs completed before them.

    The keys are ids. Jobs that have not started are left out. See `look`.
    """
    found: dict[str, Expectation] = {}
    begun = [job for job in some if job.started_at is not None]
    for portion in portions(begun, _AT_ONCE):
        several = {job.id: job for job in portion}
        branches = (
            _former(job, jobs.c.duration_ms, literal(job.id).label("of")).limit(HISTORY)
            for job in several.values()
        )
        former: dict[str, list[float]] = {id_: [] for id_ in several}
        for row in await fetch(together(branches)):
            former[row["of"]].append(row["duration_ms"])
        for id_, job in several.items():
            found[id_] = Expectation(**_compared(job, sorted(former[id_]), now))
    return found


def _former(job: JobRecord, *columns: ColumnElement[Any]) -> Select[Any]:
    """Return the query for the completed jobs of the same operation created before *job*.

    The newest come first.
    """
    return (
        select(*columns)
        .where(
            jobs.c.operation == job.operation,
            jobs.c.status == "completed",
            jobs.c.created_at <= job.created_at,
            jobs.c.id != job.id,
        )
        .where(jobs.c.duration_ms.is_not(None))
        .order_by(jobs.c.created_at.desc(), jobs.c.id.desc())
    )


def _compared(
    one: JobRecord | StepRecord, former: Sequence[float], now: datetime
) -> dict[str, Any]:
    """Return the fields of an `Expectation` for a job or step, compared with *former* durations.

    They are in milliseconds, in ascending order. A running job or step has lasted since it began.
    """
    running = one.status == "running"
    lasted = one.duration_ms
    if running or lasted is None:
        until = now if running else one.completed_at
        lasted = (
            max(0.0, (until - one.started_at).total_seconds() * 1000)
            if one.started_at is not None and until is not None
            else 0.0
        )
    p95 = percentile(former, 95)
    still = percentile(former[bisect_right(former, lasted) :], 50) if running else None
    return {
        "elapsed_ms": lasted,
        "samples": len(former),
        "median_ms": percentile(former, 50),
        "p95_ms": p95,
        "remaining_ms": None if still is None else still - lasted,
        "slower": len(former) >= ENOUGH and p95 is not None and lasted > p95,
    }


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the percentile of numbers in ascending order, by nearest rank; None if there are no
    numbers.
    """
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else None
