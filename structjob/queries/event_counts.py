"""How many events each of many jobs has, with those of its descendants.

Nothing counts them in advance. So each query here reads a limited number of rows, and a number that
would need more is unknown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, select

from structjob.statistics import JobEvents
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, logs, unusual

MOST_JOBS = 100
"""Maximum number of jobs in one call."""

DESCENDANTS = 1_000
"""Maximum number of descendants that are read, for all jobs of a call together."""

ENTRIES = 200_000
"""Maximum number of events that are counted in the index of jobs, for all jobs together."""

ROUNDS = 4
"""Maximum number of times that `ENTRIES` are divided among the jobs that are not counted yet."""

ROWS = 10_000
"""Maximum number of events whose level is read, and of those of one level that are searched."""

ERRORS = ("error", "critical")
"""Levels of the events that count as errors."""

WARNING = "warning"
_LEVELS = (WARNING, *ERRORS)
_NAMES = {"total", *_LEVELS}

_Parents = dict[str, str | None]


async def event_counts(fetch: Fetch, ids: Sequence[str]) -> list[JobEvents]:
    """Return the number of events of those of *ids* that are jobs, in their order."""
    parents, open_ = await _family(fetch, ids)
    totals = await _totals(fetch, parents)
    levels = await _levels(fetch, parents, totals)
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    unknown: dict[str, set[str]] = defaultdict(set)
    for job in parents:
        own = levels[job] | ({"total": totals[job]} if job in totals else {})
        for above in _upwards(job, parents):
            sums[above].update(own)
            unknown[above] |= _NAMES if job in open_ else _NAMES - own.keys()

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
        if job in parents
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
    """Return the parents of those of *ids* that are jobs, and of their descendants.

    Also return the jobs that have children that are left out. A job of *ids* without a parent among
    these jobs has the parent None.
    """
    asked = await fetch(select(jobs.c.id).where(jobs.c.id.in_(ids)))
    parents: _Parents = dict.fromkeys(row["id"] for row in asked)
    open_: set[str] = set()
    level = list(parents)
    while level:
        room = len(asked) + DESCENDANTS - len(parents)
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
    """Return how many events each job has, without those of other jobs.

    Small jobs leave a part of their share to the others. Jobs that are too large are left out.
    """
    totals: dict[str, int] = {}
    counted = select(logs.c.job_id, func.count().label("number")).group_by(logs.c.job_id)
    left = {*ids}
    for _ in range(ROUNDS):
        room = ENTRIES - sum(totals.values())
        if not left or room < 0:
            break
        many = await _beyond(fetch, left, logs.c.job_id, logs.c.ts, room)
        if not (few := left - many):
            break
        totals |= dict.fromkeys(few, 0)
        found = await fetch(counted.where(logs.c.job_id.in_(few)))
        totals |= {row["job_id"]: row["number"] for row in found}
        left = many
    return totals


async def _levels(
    fetch: Fetch, ids: Collection[str], totals: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Return how many events of each job have each of the levels, as far as this is known.

    The rows of small jobs are read. Those of other jobs are found by their level, because most
    events have another one.
    """
    levels: dict[str, dict[str, int]] = {job: {} for job in ids}
    small: list[str] = []
    left = ROWS
    for job in sorted(totals, key=lambda one: totals[one]):
        left -= totals[job]
        if left < 0:
            break
        small.append(job)
        levels[job] = dict.fromkeys(_LEVELS, 0)
    mine = select(logs.c.job_id, logs.c.level, func.count().label("number"))
    mine = mine.group_by(logs.c.job_id, logs.c.level)
    # without a condition for the level, which would be looked for among all jobs
    found = [*await fetch(mine.where(logs.c.job_id.in_(small)))]
    begins = await _begins(fetch, [job for job in ids if not levels[job]])
    for level in _LEVELS if begins else ():
        rare = (unusual("level"), logs.c.level == level)
        newest = select(logs.c.ts).where(*rare, logs.c.ts >= min(begins.values()))
        beyond = await fetch(newest.order_by(logs.c.ts.desc()).offset(ROWS).limit(1))
        later = {
            job: begin for job, begin in begins.items() if not beyond or begin > beyond[0]["ts"]
        }
        if later:
            for job in later:
                levels[job][level] = 0
            # a function of the id, so that no database searches all events of these jobs
            theirs = func.coalesce(logs.c.job_id, "").in_(later)
            found += await fetch(mine.where(*rare, logs.c.ts >= min(later.values()), theirs))
    for row in found:
        if row["level"] in levels[row["job_id"]]:
            levels[row["job_id"]][row["level"]] = row["number"]
    return levels


async def _begins(fetch: Fetch, ids: Collection[str]) -> dict[str, datetime]:
    """Return the time of the first event of each job that has one."""
    one = select(logs.c.ts).where(logs.c.job_id == jobs.c.id).order_by(logs.c.ts).limit(1)
    first = one.scalar_subquery().label("first")
    found = await fetch(select(jobs.c.id, first).where(jobs.c.id.in_(ids)))
    return {row["id"]: row["first"] for row in found if row["first"] is not None}
