"""A job and its descendants: as a query, and as a tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import CTE, Integer, literal, select

from structjob.models import JobRecord, JobTree, StepRecord
from structjob.queries import rows
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, steps

_LATEST = datetime.max.replace(tzinfo=UTC)


def family(*job_ids: str, depth: int | None = None) -> CTE:
    """Return a query of the ids of jobs and of their descendants, as the column ``id``.

    Args:
        job_ids: The jobs.
        depth: The number of levels of descendants; None: all.
    """
    child = jobs.alias("child")
    if depth is None:
        found = select(jobs.c.id).where(jobs.c.id.in_(job_ids)).cte("family", recursive=True)
        # UNION ends even in a cycle
        return found.union(select(child.c.id).join(found, child.c.parent_job_id == found.c.id))
    found = (
        select(jobs.c.id, literal(0, Integer()).label("level"))
        .where(jobs.c.id.in_(job_ids))
        .cte("family", recursive=True)
    )
    below = select(child.c.id, (found.c.level + 1).label("level")).join(
        found, child.c.parent_job_id == found.c.id
    )
    found = found.union(below.where(found.c.level < depth))
    return select(found.c.id).distinct().cte("members")  # in a cycle a job has several levels


async def members(
    fetch: Fetch, root: str, *, depth: int | None = None, steps_of_root: bool = True
) -> tuple[list[JobRecord], list[StepRecord]]:
    """Return the job *root* and its descendants, with the steps of their latest attempts.

    Args:
        root: The id of the job.
        depth: See `family`.
        steps_of_root: Whether to read the steps of *root*, too.
    """
    ids = family(root, depth=depth)
    found = await fetch(select(jobs).join(ids, ids.c.id == jobs.c.id))
    latest = (jobs.c.id == steps.c.job_id) & (jobs.c.attempt == steps.c.attempt)
    theirs = select(steps).join(jobs, latest).join(ids, ids.c.id == jobs.c.id)
    if not steps_of_root:
        theirs = theirs.where(jobs.c.id != root)
    return [rows.job(row) for row in found], [rows.step(row) for row in await fetch(theirs)]


def in_order(found: Iterable[StepRecord]) -> list[StepRecord]:
    """Return the steps of an attempt in the order in which they started.

    Their numbers tell it exactly. But each process that works on the job counts its own steps, and
    so does each task of a process pool; then the times decide.
    """
    order = sorted(found, key=lambda step: (step.seq, step.id))
    numbers = {step.seq for step in order}
    if len({step.session_id for step in order}) < 2 and len(numbers) == len(order):
        return order
    return sorted(order, key=lambda step: step.started_at or _LATEST)


def grown(root: str, records: Sequence[JobRecord], found: Sequence[StepRecord]) -> JobTree:
    """Return the tree of the job *root* from the records of its family and their steps."""
    # Build it from the leaves up without recursion, because a chain of children may exceed Python's
    # stack.
    steps_of: dict[str, list[StepRecord]] = defaultdict(list)
    for step in found:
        steps_of[step.job_id].append(step)
    children_of: dict[str | None, list[JobRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda job: (job.created_at, job.id)):
        if record.id != root:  # the root's parent is not in this tree, except in a cycle
            children_of[record.parent_job_id].append(record)
    order = [record for record in records if record.id == root]
    for record in order:  # the list grows during the loop: parents before children
        order.extend(children_of[record.id])
    trees: dict[str, JobTree] = {}
    for record in reversed(order):
        trees[record.id] = JobTree(
            job=record,
            steps=tuple(in_order(steps_of[record.id])),
            children=tuple(trees[child.id] for child in children_of[record.id]),
        )
    return trees[root]
