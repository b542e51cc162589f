"""Find what is due, page by page.

Each page begins where the previous one ended, whatever was deleted meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, case, func, or_, select

from structjob.exceptions import InvalidState
from structjob.retention.due import Due, Plan, family_of, plan_of, planned
from structjob.statuses import JobStatus
from structjob.store.contract import Fetch
from structjob.store.tables import jobs, logs

PAGE = 1_000
"""Rows per page if only the keys of the rows are read."""

WHOLE = 200
"""Rows per page if whole rows are read, because they are encoded on the event loop."""

_TOPS = 100
"""Families per query."""

_NARROW = 500
"""Jobs per query that checks whether the jobs have a row."""


async def pages(
    fetch: Fetch,
    table: Table,
    condition: ColumnElement[bool],
    *order: Column[Any],
    whole: bool = False,
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows that meet a condition: *whole* rows, or only the columns that order them."""
    size = WHOLE if whole else PAGE
    columns: tuple[Any, ...] = (table,) if whole else order
    query = select(*columns).where(condition).order_by(*order).limit(size)
    page = await fetch(query)
    while page:
        yield page
        if len(page) < size:
            return
        page = await fetch(query.where(_behind(order, [page[-1][column.name] for column in order])))


def _behind(order: Sequence[Column[Any]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Return the condition that a row comes after the one with these *values*.

    There may be one or two ordering columns.
    """
    first, *rest = values
    if not rest:
        return and_(order[0] > first)
    return and_(order[0] >= first, or_(order[0] > first, order[1] > rest[0]))


async def belonging(
    fetch: Fetch, table: Table, job_ids: Sequence[str], *order: Column[Any], whole: bool = False
) -> AsyncIterator[Sequence[Any]]:
    """Yield the rows of *table* that belong to jobs: in one page if they are few, else job by
    job.
    """
    size = WHOLE if whole else PAGE
    columns: tuple[Any, ...] = (table,) if whole else order
    few = await fetch(select(*columns).where(table.c.job_id.in_(job_ids)).limit(size))
    if len(few) < size:
        if few:
            yield sorted(few, key=lambda row: tuple(row[column.name] for column in order))
        return
    for job_id in job_ids:
        async for page in pages(fetch, table, table.c.job_id == job_id, *order, whole=whole):
            yield page


async def families(fetch: Fetch, due: Due) -> AsyncIterator[list[Plan]]:
    """Yield the jobs that are due, in whole families, parents first."""
    for status in due.statuses:
        after: tuple[datetime, str] | None = None
        while tops := await fetch(due.tops(status, after, _TOPS)):
            after = (tops[-1]["created_at"], tops[-1]["id"])
            held = {row["top"] for row in await fetch(due.held([row["id"] for row in tops]))}
            ids = [row["id"] for row in tops if row["id"] not in held]
            found = await _members(fetch, partial(due.family, ids)) if ids else []
            if plans := planned(found):
                yield plans


async def family_to_delete(fetch: Fetch, job_id: str) -> list[Plan]:
    """Return a job and its descendants, parents first; nothing if there is no such job.

    Raises:
        InvalidState: if one of them has not ended.
    """
    columns = (jobs.c.status, jobs.c.operation)
    found = await _members(fetch, lambda below, size: family_of([job_id], below, size, *columns))
    for row in found:
        if not JobStatus(row["status"]).terminal:
            which = "" if row["id"] == job_id else f", a child of job {job_id},"
            raise InvalidState(
                f"job {row['id']} ({row['operation']}){which} is {row['status']}: cancel it, and "
                "delete it when it has ended"
            )
    return list(map(plan_of, found))


async def _members(fetch: Fetch, query: Callable[[tuple[int, str] | None, int], Any]) -> list[Any]:
    """Return all rows of families, read in pages.

    *query* takes depth and id of the last row so far, and the size of a page.
    """
    found: list[Any] = []
    below: tuple[int, str] | None = None
    while page := await fetch(query(below, PAGE)):
        found += page
        if len(page) < PAGE:
            break
        below = (page[-1]["depth"], page[-1]["id"])
    return found


async def strays(fetch: Fetch, due: Due) -> AsyncIterator[list[str]]:
    """Yield the ids of jobs without a row that have due events."""
    if due.before is None:
        return
    after = ""
    old = logs.c.ts < due.before
    while True:
        # A limited number of jobs per query, with or without a row, so that one query does not read
        # the whole of a large log.
        grouped = (
            select(logs.c.job_id)
            .where(logs.c.job_id > after, old)
            .group_by(logs.c.job_id)
            .order_by(logs.c.job_id)
            .limit(_NARROW)
        )
        some = grouped.subquery()
        known = select(jobs.c.id).where(jobs.c.id == some.c.job_id).exists()
        page = await fetch(
            select(some.c.job_id, case((known, 1), else_=0).label("known")).order_by(some.c.job_id)
        )
        if lonely := [row["job_id"] for row in page if not row["known"]]:
            yield lonely
        if len(page) < _NARROW:
            return
        after = page[-1]["job_id"]


async def count(fetch: Fetch, table: Table, condition: ColumnElement[bool]) -> int:
    """Return how many rows meet a condition."""
    (row,) = await fetch(select(func.count().label("n")).select_from(table).where(condition))
    return int(row["n"])
