"""The descendants of many jobs at once: how many there are of each status, and a few that one looks
for first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, case, func, select, true

from structjob.models import JobRecord
from structjob.queries import rows
from structjob.queries.tree import family
from structjob.store.contract import Fetch
from structjob.store.tables import jobs

_SOUGHT = ("failed", "crashed", "running")

EACH = 3
"""Descendants of a job that are returned."""

LOOKED_AT = 100_000
"""Descendants that are counted at most, of all jobs together: a service may be one job with
millions.
"""


@dataclass(slots=True)
class Family:
    """The descendants of a job.

    Args:
        counts: How many there are, by status.
        partial: Whether there may be more: only `LOOKED_AT` were counted.
        picked: All of them if they are no more than `EACH`; else as many of those that failed last,
            then of those that run.
    """

    counts: Counter[str] = field(default_factory=Counter)
    partial: bool = False
    picked: list[JobRecord] = field(default_factory=list)


async def families(fetch: Fetch, roots: Sequence[JobRecord]) -> dict[str, Family]:
    """Return the descendants of *roots*, each without a parent in this database, by the roots' ids;
    those that have any.
    """
    found: dict[str, Family] = defaultdict(Family)
    ids = [job.id for job in roots if job.parent_job_id is None]
    if ids:
        await _look(
            fetch, jobs.c.root_job_id.in_(ids) & jobs.c.parent_job_id.is_not(None), found, None
        )
    for job in roots:
        # the job at the top is in another database, and may have several families here
        if job.parent_job_id is not None:
            members = family(job.id)
            await _look(
                fetch, jobs.c.id.in_(select(members.c.id)) & (jobs.c.id != job.id), found, job.id
            )
    return dict(found)


async def _look(
    fetch: Fetch, theirs: ColumnElement[bool], found: dict[str, Family], root: str | None
) -> None:
    """Add to *found* the jobs for which *theirs* holds, by the job at their top, or as those of
    *root*.
    """
    some = select(jobs.c.root_job_id, jobs.c.status).where(theirs).limit(LOOKED_AT).subquery()
    counted = select(some.c.root_job_id, some.c.status, func.count().label("number")).group_by(
        some.c.root_job_id, some.c.status
    )
    touched: dict[str, Family] = {}
    for row in await fetch(counted):
        one = touched[root or row["root_job_id"]] = found[root or row["root_job_id"]]
        one.counts[row["status"]] += row["number"]
    partial = sum(one.counts.total() for one in touched.values()) >= LOOKED_AT
    for one in touched.values():
        one.partial = partial
    small = [id_ for id_, one in touched.items() if one.counts.total() <= EACH]
    if small:
        of = jobs.c.root_job_id.in_(small) if root is None else true()
        for row in await fetch(
            select(jobs).where(theirs, of).order_by(jobs.c.created_at, jobs.c.id)
        ):
            found[root or row["root_job_id"]].picked.append(rows.job(row))
    large = [
        id_
        for id_, one in touched.items()
        if id_ not in small and any(one.counts[status] for status in _SOUGHT)
    ]
    if large:
        rank = case((jobs.c.status == "running", 1), else_=0)
        within = func.row_number().over(
            partition_by=jobs.c.root_job_id, order_by=(rank, jobs.c.created_at.desc(), jobs.c.id)
        )
        of = jobs.c.root_job_id.in_(large) if root is None else true()
        sought = (
            select(jobs, within.label("rank_"))
            .where(theirs, of, jobs.c.status.in_(_SOUGHT))
            .subquery()
        )
        for row in await fetch(
            select(sought).where(sought.c.rank_ <= EACH).order_by(sought.c.rank_)
        ):
            found[root or row["root_job_id"]].picked.append(rows.job(row))
