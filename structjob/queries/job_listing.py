"""Lists of jobs: the SQL of a filter, and pages in another order than the newest first."""

from __future__ import annotations

import itertools
import math
import operator
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, and_, select

from structjob.exceptions import InvalidFilter
from structjob.filter_checks import MAX_VALUES, values_of
from structjob.filters import JobFilter
from structjob.models import JobRecord, Page
from structjob.queries import estimates, rows
from structjob.queries.paging import SCAN_LIMIT, Listing, behind, fingerprint, first, read_page
from structjob.store.contract import Fetch
from structjob.store.expressions import contains, equals, json_equals, stored_values, within
from structjob.store.tables import jobs

_EQUAL = (
    "job_type", "operation", "owner", "category", "project", "context_id", "external_job_id", "correlation_id",
    "parent_job_id", "root_job_id", "session_id",
)  # fmt: skip

SLOWER_LIMIT = 1_000
"""Maximum number of jobs that one page of slower jobs examines, because each job is compared with
100 others.
"""

_AT_ONCE = 100
"""Maximum number of jobs that are read at a time while slower ones are looked for."""


def listing_of(wanted: JobFilter) -> Listing:
    """Return the listing for *wanted*."""
    return Listing(
        table=jobs,
        time=jobs.c.created_at,
        conditions=conditions(wanted),
        branches=_branches(wanted),
        order=wanted.order,
        limit=wanted.limit,
        fingerprint=fingerprint("jobs", wanted),
        searches=tuple(
            json_equals(jobs.c.metadata, path, value)
            for path, value in (wanted.metadata or {}).items()
        ),
    )


async def by_duration(fetch: Fetch, listing: Listing, cursor: str | None) -> Page[JobRecord]:
    """Return a page of the newest `SCAN_LIMIT` jobs of *listing*, sorted by duration.

    No index could serve every filter in this order. Only ids and numbers are sorted.
    """
    # First find the newest jobs with the index alone, which has both columns. Then read their
    # rows.
    newest = first(
        replace(listing, order="desc", limit=SCAN_LIMIT, searches=()),
        (jobs.c.id, jobs.c.created_at),
    ).subquery("newest")
    measured = select(jobs.c.id, jobs.c.duration_ms).select_from(
        newest.join(jobs, jobs.c.id == newest.c.id)
    )
    # otherwise these servers might read all jobs and search for each among the newest
    for server in ("mysql", "mariadb"):
        measured = measured.prefix_with("STRAIGHT_JOIN", dialect=server)
    # The limit leaves no row out. It only prevents these servers from merging both queries into
    # one with another order.
    some = (
        measured.where(jobs.c.duration_ms.is_not(None), *listing.searches)
        .limit(SCAN_LIMIT)
        .subquery("measured")
    )
    sorted_ = replace(
        listing,
        table=some,
        time=some.c.duration_ms,
        primary=(some.c.id,),
        conditions=(),
        branches=(),
        searches=(),
    )
    page = await read_page(fetch, sorted_, cursor, lambda row: str(row["id"]))
    those = await rows.read_many(fetch, select(jobs), jobs.c.id, page.items)
    found = {row["id"]: rows.job(row) for row in those}
    return Page(
        tuple(found[id_] for id_ in page if id_ in found),
        next_cursor=page.next_cursor,
        previous_cursor=page.previous_cursor,
    )


async def slower_ones(
    fetch: Fetch, listing: Listing, cursor: str | None, now: datetime
) -> Page[JobRecord]:
    """Return a page of the jobs of *listing* that are slower than usual.

    It examines `SLOWER_LIMIT` jobs at most.
    """
    found: list[JobRecord] = []
    looked_at = 0
    while True:
        # Read few rows at a time for a short page, because databases read the whole table if
        # many of its rows are requested.
        page = await read_page(
            fetch, replace(listing, limit=min(_AT_ONCE, max(25, listing.limit))), cursor, rows.job
        )
        compared = await estimates.expectations(fetch, page.items, now)
        for job in page:
            looked_at += 1
            if job.id in compared and compared[job.id].slower:
                found.append(job)
            if len(found) == listing.limit or looked_at == SLOWER_LIMIT:
                further = page.next_cursor is not None or job.id != page[-1].id
                cursor = behind(listing, job.created_at, job.id) if further else None
                return Page(
                    tuple(found),
                    next_cursor=cursor,
                    partial=cursor is not None and len(found) < listing.limit,
                )
        cursor = page.next_cursor
        if cursor is None:
            return Page(tuple(found))


def _is_root() -> ColumnElement[bool]:
    """Return the condition that a job has no parent in this database.

    The parent may be in another database, or may have been deleted.
    """
    parent = jobs.alias("parent")
    # Not EXISTS, because MariaDB would first read the ids of all jobs. Other databases may turn it
    # into a join, and sort all jobs for one page.
    return (
        select(parent.c.id).where(parent.c.id == jobs.c.parent_job_id).scalar_subquery().is_(None)
    )


def _branches(wanted: JobFilter) -> tuple[ColumnElement[bool], ...]:
    """Return one condition for each combination of values of the fields with several values.

    Each combination is read with an index.
    """
    several = {
        name: value
        for name in ("status", *_EQUAL)
        if isinstance(value := getattr(wanted, name), tuple)
    }
    if (number := math.prod(map(len, several.values()))) > MAX_VALUES:
        raise InvalidFilter(
            f"{' × '.join(several)} are {number:,} combinations; at most {MAX_VALUES} are allowed: ask for fewer at a time"
        )
    if not several:
        return ()
    columns = [jobs.c[name] for name in several]
    combinations = itertools.product(*map(stored_values, several.values()))
    return tuple(and_(*map(operator.eq, columns, values)) for values in combinations)


def conditions(wanted: JobFilter) -> tuple[ColumnElement[bool], ...]:
    _branches(wanted)
    found: list[ColumnElement[bool]] = []
    for name in _EQUAL:
        value = getattr(wanted, name)
        equal = [equals(name, jobs.c[name], one) for one in values_of(value)]
        if not isinstance(value, tuple):
            found += equal
    for path, value in (wanted.metadata or {}).items():
        json_equals(jobs.c.metadata, path, value)
    if wanted.root_only:
        found.append(_is_root())
    if wanted.text is not None:
        found.append(contains((jobs.c.operation, jobs.c.description), wanted.text))
    time = jobs.c.completed_at if wanted.by == "ended" else jobs.c.created_at
    found += within(time, wanted.since, wanted.until)
    if wanted.by == "ended":
        found.append(time.is_not(None))
    return tuple(found)
