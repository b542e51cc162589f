"""The descendants of many jobs at once: their number by status, and the few most important ones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, String, case, func, literal, select

from structjob.models import JobRecord
from structjob.queries import rows
from structjob.queries.tree import family
from structjob.store.contract import Fetch
from structjob.store.tables import jobs

_SOUGHT = ("failed", "crashed", "running")

EACH = 3
"""Maximum number of descendants returned for each job."""

LOOKED_AT = 100_000
"""Maximum number of descendants that are counted, for all jobs together. A service may be one job
with millions of descendants.
"""


@dataclass(slots=True)
class Family:
    """The descendants of a job.

    Args:
        counts: Their number by status.
        partial: Whether there may be more, because only `LOOKED_AT` were counted.
        picked: All descendants if there are at most `EACH`. Otherwise up to `EACH` of them: the
            latest failed ones first, then running ones.
    """

    counts: Counter[str] = field(default_factory=Counter)
    partial: bool = False
    picked: list[JobRecord] = field(default_factory=list)


async def families(fetch: Fetch, roots: Sequence[JobRecord]) -> dict[str, Family]:
    """Return the descendants of *roots* by the ids of the roots. Roots without descendants are left
    out.

    The roots have no parent in this database.
    """
    found: dict[str, Family] = defaultdict(Family)
    ids = [job.id for job in roots if job.parent_job_id is None]
    if ids:
        theirs = jobs.c.root_job_id.in_(ids) & jobs.c.parent_job_id.is_not(None)
        await _look(fetch, theirs, jobs.c.root_job_id, found)
    for job in roots:
        # its topmost job is in another database, and may have several families here
        if job.parent_job_id is not None:
            members = select(family(job.id).c.id)
            theirs = jobs.c.id.in_(members) & (jobs.c.id != job.id)
            await _look(fetch, theirs, literal(job.id, String()), found)
    return dict(found)


async def _look(
    fetch: Fetch, theirs: ColumnElement[bool], root: ColumnElement[str], found: dict[str, Family]
) -> None:
    """Add to *found*, under the id *root*, the jobs that match *theirs*."""
    some = select(root.label("root"), jobs.c.status).where(theirs).limit(LOOKED_AT).subquery()
    counted = select(*some.c, func.count().label("number")).group_by(*some.c)
    touched: dict[str, Family] = {}
    for row in await fetch(counted):
        one = touched[row["root"]] = found[row["root"]]
        one.counts[row["status"]] += row["number"]
    partial = sum(one.counts.total() for one in touched.values()) >= LOOKED_AT
    for one in touched.values():
        one.partial = partial
    small = [id_ for id_, one in touched.items() if one.counts.total() <= EACH]
    if small:
        every = select(jobs, root.label("root")).where(theirs, root.in_(small))
        for row in await fetch(every.order_by(jobs.c.created_at, jobs.c.id)):
            found[row["root"]].picked.append(rows.job(row))
    large = [
        id_
        for id_, one in touched.items()
        if id_ not in small and any(one.counts[status] for status in _SOUGHT)
    ]
    if large:
        rank = case((jobs.c.status == "running", 1), else_=0)
        within = func.row_number().over(
            partition_by=root, order_by=(rank, jobs.c.created_at.desc(), jobs.c.id)
        )
        ranked = select(jobs, root.label("root"), within.label("rank_"))
        sought = ranked.where(theirs, root.in_(large), jobs.c.status.in_(_SOUGHT)).subquery()
        first = select(sought).where(sought.c.rank_ <= EACH).order_by(sought.c.rank_)
        for row in await fetch(first):
            found[row["root"]].picked.append(rows.job(row))
