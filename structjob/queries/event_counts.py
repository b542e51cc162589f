"""How many events each of many jobs has, with those of its descendants.

Nothing counts them in advance. So each query here reads a limited number of rows, and a number that
would need more is unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import ColumnElement, func, select

from structjob.queries.rows import count_upto
from structjob.statistics import JobEvents
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, logs, unusual

MOST_JOBS = 100
"""Maximum number of jobs in one call."""

DESCENDANTS = 1_000
"""Maximum number of descendants that are read, for all jobs of a call together."""

ENTRIES = 500_000
"""Maximum number of events that are counted in the index alone."""

ROWS = 20_000
"""Maximum number of events whose level is read."""

ERRORS = ("error", "critical")
"""Levels of the events that count as errors."""

WARNING = "warning"
_COUNTED = (WARNING, *ERRORS)

_Parents = dict[str, str | None]


async def event_counts(fetch: Fetch, ids: Sequence[str]) -> list[JobEvents]:
    """Return the number of events of these jobs, in their order."""
    parents, open_ = await _family(fetch, ids)
    own = await _totals(fetch, parents)
    levels = await _levels(fetch, own)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    unknown: dict[str, set[str]] = defaultdict(set)
    for job in parents:
        lacking = {"total"} if job in open_ or job not in own else set()
        if lacking or job not in levels:
            lacking |= {*_COUNTED}
        for above in _upwards(job, parents):
            sums[above].update({"total": own.get(job, 0), **levels.get(job, {})})
            unknown[above] |= lacking

    def known(job: str, *names: str) -> int | None:
        return None if unknown[job] & {*names} else sum(sums[job][name] for name in names)

    return [
        JobEvents(
            job_id=job,
            total=known(job, "total"),
            warnings=known(job, WARNING),
            errors=known(job, *ERRORS),
        )
        for job in ids
    ]


def _upwards(job: str, parents: _Parents) -> Iterable[str]:
    """Yield a job and those above it, each once even in a cycle."""
    seen: dict[str, None] = {}
    at: str | None = job
    while at is not None and at not in seen:
        seen[at] = None
        at = parents[at]
    return seen


async def _family(fetch: Fetch, ids: Sequence[str]) -> tuple[_Parents, set[str]]:
    """Return the parents of these jobs and of their descendants.

    Also return the jobs that have children that are left out. A job of *ids* without a parent among
    these jobs has the parent None.
    """
    parents: _Parents = dict.fromkeys(ids)
    open_: set[str] = set()
    level = list(parents)
    while level:
        room = len(ids) + DESCENDANTS - len(parents)
        children = select(jobs.c.id, jobs.c.parent_job_id).limit(room + 1)
        found = await fetch(children.where(jobs.c.parent_job_id.in_(level)))
        if len(found) > room:
            child = jobs.alias("child")
            many = await _beyond(fetch, level, child.c.parent_job_id, child.c.created_at, room)
            open_ |= many
            level = [job for job in level if job not in many]
            found = await fetch(children.where(jobs.c.parent_job_id.in_(level)))
            if len(found) > room:  # they came just now
                return parents, open_ | {*level}
        level = [row["id"] for row in found if row["id"] not in parents]
        parents |= {row["id"]: row["parent_job_id"] for row in found}
    return parents, open_


async def _beyond(
    fetch: Fetch,
    ids: Collection[str],
    of: ColumnElement[str],
    time: ColumnElement[object],
    most: int,
) -> set[str]:
    """Return which of these jobs have more rows than an equal share of *most*.

    Args:
        of: The column of the rows that names the job, the first one of an index.
        time: The second column of that index.
    """
    further = select(time).where(of == jobs.c.id).order_by(time).limit(1)
    one = further.offset(most // len(ids)).scalar_subquery()
    found = await fetch(select(jobs.c.id).where(jobs.c.id.in_(ids), one.is_not(None)))
    return {row["id"] for row in found}


async def _totals(fetch: Fetch, ids: Collection[str]) -> dict[str, int]:
    """Return how many events each job has, without those of other jobs."""

    async def count(those: Collection[str]) -> dict[str, int]:
        some = select(logs.c.job_id).where(logs.c.job_id.in_(those)).limit(ENTRIES + 1).subquery()
        counted = select(some.c.job_id, func.count().label("number")).group_by(some.c.job_id)
        found = {row["job_id"]: row["number"] for row in await fetch(counted)}
        return {job: found.get(job, 0) for job in those} if sum(found.values()) <= ENTRIES else {}

    if found := await count(ids):
        return found
    many = await _beyond(fetch, ids, logs.c.job_id, logs.c.ts, ENTRIES)
    return await count([job for job in ids if job not in many])


async def _levels(fetch: Fetch, totals: dict[str, int]) -> dict[str, dict[str, int]]:
    """Return how many events of each job have one of the levels that are counted.

    The rows of small jobs are read. Those of other jobs are found by their level, because most
    events have another one.
    """
    small: list[str] = []
    left = ROWS
    for job in sorted(totals, key=lambda one: totals[one]):
        left -= totals[job]
        if left < 0:
            break
        small.append(job)
    mine = select(logs.c.job_id, logs.c.level, func.count().label("number"))
    mine = mine.group_by(logs.c.job_id, logs.c.level)
    # without a condition for the level, which would be looked for among all jobs
    found = await fetch(mine.where(logs.c.job_id.in_(small)))
    known = {*small}
    if large := [job for job in totals if job not in known]:
        theirs = logs.alias("theirs")
        begin = select(theirs.c.ts).where(theirs.c.job_id == jobs.c.id).order_by(theirs.c.ts)
        first = begin.limit(1).scalar_subquery().label("first")
        begins = [row["first"] for row in await fetch(select(first).where(jobs.c.id.in_(large)))]
        # of jobs without a row the begin is not known
        if len(begins) == len(large):
            since = min(begins)
            rare = (unusual("level"), logs.c.level.in_(_COUNTED), logs.c.ts >= since)
            if await count_upto(fetch, ROWS + 1, select(logs.c.ts).where(*rare)) <= ROWS:
                found = [*found, *await fetch(mine.where(*rare, logs.c.job_id.in_(large)))]
                known |= {*large}
    levels: dict[str, dict[str, int]] = {job: {} for job in known}
    for row in found:
        if row["level"] in _COUNTED:
            levels[row["job_id"]][row["level"]] = row["number"]
    return levels
