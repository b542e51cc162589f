"""The overview of a job with many steps and children.

It has their number by status, and the failed, the running and the longest ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, Select, Table, func, select

from structjob.models import JobRecord, JobTree, StepRecord
from structjob.queries import rows
from structjob.queries.tree import family, grown, members
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, steps

FAILED = ("failed", "crashed")
_UNDERWAY = ("running",)

SLOWEST = 3
"""Number of steps or jobs that are selected because they took longest."""


@dataclass(frozen=True, slots=True)
class Descendant:
    """A descendant of a job, with its parent."""

    job: JobRecord
    parent: JobRecord | None


@dataclass(frozen=True, slots=True)
class Overview:
    """A job with some or all of its steps and descendants.

    Args:
        tree: The job. It contains all descendants if there are few, otherwise no descendants. Of
            its own steps it contains those to show.
        steps: The number of the job's steps by status.
        jobs: The number of its descendants by status.
        picked: The descendants to show, if *tree* contains no descendants.
    """

    tree: JobTree
    steps: Mapping[str, int]
    jobs: Mapping[str, int]
    picked: Sequence[Descendant]

    @property
    def folded(self) -> bool:
        """Whether some steps or descendants are not shown."""
        whole = self.tree.children or not self.jobs
        return len(self.tree.steps) < sum(self.steps.values()) or not (
            whole or len(self.picked) == sum(self.jobs.values())
        )


async def overview(
    fetch: Fetch,
    job: JobRecord,
    *,
    room: int | None,
    depth: int | None = None,
    failed: bool = False,
) -> Overview:
    """Return the overview of *job*.

    Args:
        job: The job.
        room: Maximum number of steps, and of descendants with their steps, to show in full. If
            there are more, some are selected. None shows all.
        depth: The number of levels of descendants; 0: no descendants; None: all.
        failed: Only failed and crashed ones.
    """
    own = select(steps).where(steps.c.job_id == job.id, steps.c.attempt == job.attempt)
    step_counts = await _counted(fetch, own, steps)
    ids = family(job.id, depth=depth)
    below = select(jobs).join(ids, ids.c.id == jobs.c.id).where(jobs.c.id != job.id)
    job_counts = await _counted(fetch, below, jobs)

    found = await _picked(fetch, own, steps, step_counts, room, failed=failed)
    shown = [rows.step(row) for row in found]
    shown += await _above(fetch, shown)

    if not job_counts:
        return Overview(grown(job.id, [job], shown), step_counts, {}, ())
    if not failed and (room is None or await _fits(fetch, job, ids, room)):
        family_, theirs = await members(fetch, job.id, depth=depth, steps_of_root=False)
        records = [job, *(one for one in family_ if one.id != job.id)]
        return Overview(grown(job.id, records, [*shown, *theirs]), step_counts, job_counts, ())
    picked = [
        rows.job(row) for row in await _picked(fetch, below, jobs, job_counts, room, failed=failed)
    ]
    picked.sort(key=lambda one: (one.created_at, one.id))
    parents = await _parents(fetch, picked)
    relatives = [Descendant(one, parents.get(one.parent_job_id or "")) for one in picked]
    return Overview(grown(job.id, [job], shown), step_counts, job_counts, relatives)


async def _counted(fetch: Fetch, some: Select[Any], table: Table) -> dict[str, int]:
    counted = some.with_only_columns(table.c.status, func.count().label("number")).group_by(
        table.c.status
    )
    return {row["status"]: row["number"] for row in await fetch(counted)}


async def _fits(fetch: Fetch, job: JobRecord, ids: CTE, room: int) -> bool:
    """Return whether the descendants, *ids* without the job itself, and their steps are at most
    *room*.
    """
    left = room
    theirs = select(steps.c.id).join(ids, ids.c.id == steps.c.job_id)
    for some in (
        select(ids.c.id).where(ids.c.id != job.id),
        theirs.where(steps.c.job_id != job.id),
    ):
        left -= await rows.count_upto(fetch, left + 1, some)
        if left < 0:
            return False
    return True


async def _picked(
    fetch: Fetch,
    some: Select[Any],
    table: Table,
    counts: Mapping[str, int],
    room: int | None,
    *,
    failed: bool,
) -> Sequence[rows.Row]:
    """Return the rows of *some* to show.

    These are all wanted rows if there is room. Otherwise they are the first failed ones, the
    running ones, and the longest ones.
    """
    wanted = {status: number for status, number in counts.items() if not failed or status in FAILED}
    number = sum(wanted.values())
    if not number:
        return []
    if room is None or number <= room:
        return await fetch(some.where(table.c.status.in_(tuple(wanted))) if failed else some)
    first = some.order_by(table.c.started_at, table.c.id)
    if failed:
        return await fetch(first.where(table.c.status.in_(FAILED)).limit(room))
    found: dict[str, rows.Row] = {}
    for statuses in (FAILED, _UNDERWAY):
        if any(counts.get(status) for status in statuses):
            such = first.where(table.c.status.in_(statuses)).limit(room // 2)
            found |= {row["id"]: row for row in await fetch(such)}
    slowest = (
        some.where(table.c.duration_ms.is_not(None))
        .order_by(table.c.duration_ms.desc(), table.c.id)
        .limit(SLOWEST)
    )
    found |= {row["id"]: row for row in await fetch(slowest)}
    # Durations may be unknown, for example of imported rows.
    return list(found.values()) or await fetch(first.limit(SLOWEST))


async def _above(fetch: Fetch, shown: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the parent steps of *shown* that are not among them.

    An attempt says little without the step that was attempted.
    """
    ids = {step.parent_step_id for step in shown if step.parent_step_id is not None}
    ids -= {step.id for step in shown}
    return [rows.step(row) for row in await rows.read_many(fetch, select(steps), steps.c.id, ids)]


async def _parents(fetch: Fetch, children: Sequence[JobRecord]) -> dict[str, JobRecord]:
    ids = {job.parent_job_id for job in children if job.parent_job_id is not None}
    found = await rows.read_many(fetch, select(jobs), jobs.c.id, ids)
    return {row["id"]: rows.job(row) for row in found}
