"""Which conditions find the events of a `LogFilter`: those of the index with the fewest rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sqlalchemy import BinaryExpression, ColumnElement, and_, literal, or_, select, true

from structjob.filter_checks import values_of
from structjob.filters import LOG_EQUALS, LogFilter, matching_levels
from structjob.levels import LEVELS
from structjob.queries import rows
from structjob.queries.paging import Listing, fingerprint
from structjob.queries.tail_reader import Query
from structjob.queries.tree import family
from structjob.store.contract import Fetch
from structjob.store.expressions import (
    apart,
    contains,
    equals_any,
    json_equals,
    leads,
    stored_values,
    within,
)
from structjob.store.tables import USUAL, attempts, found_by_correlation, logs, unusual

_EQUALS = tuple(name for name in LOG_EQUALS if name != "job_id")  # see `_alternatives`
_NARROWEST = ("job", "job_id", "step_id", "session_id", "fingerprint")
"""Fields whose indexes find fewer rows than those of the correlation id and the levels."""

_NARROW = "narrow"
"""Stands for `_NARROWEST` and the correlation id."""

_MAX_BRANCHES = 50
"""Trees with at least this number of jobs are read with one ``IN``.

A statement can merge only a limited number of branches.
"""

_MANY = (20_000, 200_000)
"""Numbers of events of a job or step from which on it is quicker to find its errors among all
errors, if these are fewer.
"""

_BATCH = 1000
"""Rows that a tail reads at a time of what is stored."""


def query_of(fetch: Fetch, wanted: LogFilter, mark: str) -> Query:
    """Return what a tail needs to find the events of *wanted*.

    Args:
        wanted: The filter, with the job's own id.
        mark: Identifies the filter in cursors.
    """

    async def listing(further: ColumnElement[bool]) -> Listing:
        return await listing_of(fetch, wanted, further, mark=mark, limit=_BATCH)

    matching = and_(true(), *conditions(wanted), *searches(wanted))
    mine = values_of(wanted.job_id) if wanted.children else ()
    if mine:
        matching = and_(
            matching, or_(logs.c.job_id.in_(mine), logs.c.job_id.in_(select(family(*mine).c.id)))
        )
    elif wanted.job_id is not None:
        matching = and_(matching, logs.c.job_id.in_(values_of(wanted.job_id)))
    elif several := _several(wanted):
        matching = and_(matching, logs.c[_lead(wanted) or ""].in_(several))
    return Query(matching, listing, mine)


async def listing_of(
    fetch: Fetch,
    wanted: LogFilter,
    *more: ColumnElement[bool],
    mark: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the listing for *wanted*, for `structjob.queries.paging`.

    Args:
        wanted: The filter, with the job's own id.
        *more: Further conditions.
        mark: Identifies the filter in cursors; by default it is computed.
        limit: Rows per page; by default those of the filter.
    """
    branches = await _alternatives(fetch, wanted)
    if await _levels_find_fewer(fetch, wanted, branches):
        fixed = (*conditions(wanted, by_level=True), *_without_index(branches))
        branches = tuple(leads(logs.c.level == level) for level in matching_levels(wanted))
    else:
        fixed = conditions(wanted)
    return Listing(
        table=logs,
        time=logs.c.ts,
        conditions=(*fixed, *more),
        branches=branches,
        order=wanted.order,
        limit=limit or wanted.limit,
        fingerprint=mark or fingerprint("logs", wanted),
        searches=searches(wanted),
    )


def of_unusual_levels(
    wanted: LogFilter, listing: Listing
) -> tuple[ColumnElement[bool], ...] | None:
    """Return the conditions that find the events of unusual levels by the index of the levels.

    Return None if *wanted* selects events by more than a few jobs or a step, and a time. Then no
    index contains all that is needed to count them, and the events have to be read in any case.
    """
    unset = LogFilter(order=wanted.order, limit=wanted.limit)
    rest = replace(wanted, job_id=None, children=None, step_id=None, since=None, until=None)
    if (
        rest != unset
        or (wanted.job_id is not None and wanted.step_id is not None)
        or any(not isinstance(one, BinaryExpression) for one in listing.branches)
    ):
        return None
    return (*_without_index(listing.branches), *conditions(wanted, by_level=True))


async def _levels_find_fewer(
    fetch: Fetch, wanted: LogFilter, branches: tuple[ColumnElement[bool], ...]
) -> bool:
    """Return whether all events of the wanted levels are fewer than those of the wanted job or
    step.
    """
    if (
        not _unusual(wanted, "level")
        or not _has(wanted, "job_id", "step_id")
        or _has(wanted, "correlation_id", "session_id", "fingerprint")
        or len(branches) >= _MAX_BRANCHES
        or any(not isinstance(one, BinaryExpression) for one in branches)
    ):
        return False
    mine = [or_(*branches)] if branches else _equal(wanted, ["step_id"])
    levels = [unusual("level"), logs.c.level.in_(matching_levels(wanted))]
    some = select(literal(1))
    for many in _MANY:  # most jobs have few events, so the levels are seldom counted
        if await rows.count_upto(fetch, many, some.where(*mine)) < many:
            return False
        if await rows.count_upto(fetch, many, some.where(*levels)) < many:
            return True
    return False


async def _alternatives(fetch: Fetch, wanted: LogFilter) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of which one must hold, each with an index.

    They select the jobs of a tree, or the levels, types or categories.
    """
    mine = values_of(wanted.job_id)
    if mine and not wanted.children:
        return tuple(leads(logs.c.job_id == job_id) for job_id in mine)
    if mine:
        ids = family(*mine)
        # A job's own row may arrive late, or be in another database. Its events count in any
        # case.
        found = {row["id"] for row in await fetch(select(ids.c.id).limit(_MAX_BRANCHES))} | set(
            mine
        )
        if len(found) < _MAX_BRANCHES:
            return tuple(leads(logs.c.job_id == job_id) for job_id in sorted(found))
        return (or_(logs.c.job_id.in_(select(family(*mine).c.id)), logs.c.job_id.in_(mine)),)
    if wanted.correlation_id is not None and not _has(wanted, *_NARROWEST):
        return await _of_correlation(fetch, wanted.correlation_id)
    return tuple(leads(logs.c[_lead(wanted) or ""] == value) for value in _several(wanted))


async def _of_correlation(fetch: Fetch, correlation_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that find the events of a correlation id.

    Most are in its index. The others are among the events of jobs whose attempts have the id.
    """
    mine = select(attempts.c.job_id).where(attempts.c.correlation_id == correlation_id)
    found = {row["job_id"] for row in await fetch(mine.distinct().limit(_MAX_BRANCHES))}
    of_jobs: list[ColumnElement[bool]] = [logs.c.job_id == each for each in sorted(found)]
    if len(found) == _MAX_BRANCHES:
        of_jobs = [logs.c.job_id.in_(mine)]
    in_steps = and_(logs.c.step.is_not(None), logs.c.level == USUAL["level"])
    return found_by_correlation(), *(and_(job, in_steps) for job in of_jobs)


def _has(wanted: LogFilter, *fields: str) -> bool:
    """Return whether one of these fields is set."""
    return any(getattr(wanted, field) is not None for field in fields)


def _lead(wanted: LogFilter) -> str | None:
    """Return the field whose index finds the events, or `_NARROW`; None: the index of their times.

    The other fields have no index in that combination, and are searched for.
    """
    if _has(wanted, "correlation_id", *_NARROWEST):
        return _NARROW
    # Events of level warning and above are few. For the other levels, the index of the category or
    # type may find fewer.
    few = all(LEVELS[level] >= LEVELS["warning"] for level in matching_levels(wanted))
    if _unusual(wanted, "level") and (few or not _has(wanted, "category", "type")):
        return "level"
    return next((name for name in ("category", "type") if _unusual(wanted, name)), None)


def _several(wanted: LogFilter) -> tuple[str, ...]:
    """Return the values of the leading field, if each is to be read with the index."""
    lead = _lead(wanted)
    if lead == "level":
        return matching_levels(wanted)
    value = getattr(wanted, lead) if lead in ("category", "type") else None
    return stored_values(value) if isinstance(value, tuple) else ()


def _unusual(wanted: LogFilter, column: str) -> bool:
    """Return whether the index of *column* contains all requested events."""
    values = matching_levels(wanted) if column == "level" else values_of(getattr(wanted, column))
    return bool(values) and USUAL[column] not in values


def conditions(wanted: LogFilter, *, by_level: bool = False) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that have an index.

    Args:
        wanted: The filter.
        by_level: Whether the index of the levels finds the events.

    Raises:
        InvalidFilter: if no row can match because of the form of a value.
    """
    lead = orders = _lead(wanted)
    names: Sequence[str] = () if lead is None or _several(wanted) else (lead,)
    if lead == _NARROW:
        names = _EQUALS
        # the index that orders the events of a page without branches
        by = ("step_id", "fingerprint") if _has(wanted, *_NARROWEST) else ("correlation_id",)
        orders = next((name for name in by if _has(wanted, name)), None)
    found = _equal(
        wanted, names, apart_from="step_id" if by_level else None, lead=None if by_level else orders
    )
    if by_level or lead not in (None, _NARROW):
        found.append(unusual("level" if by_level else str(lead)))
    if wanted.job_id is not None:
        equals_any("job_id", logs.c.job_id, wanted.job_id)
    if lead == _NARROW and not by_level and (levels := matching_levels(wanted)):
        found.append(logs.c.level.in_(levels))
    return (*found, *within(logs.c.ts, wanted.since, wanted.until))


def searches(wanted: LogFilter) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that have no index."""
    lead = _lead(wanted)
    found = [] if lead == _NARROW else _equal(wanted, [name for name in _EQUALS if name != lead])
    if lead not in (_NARROW, "level") and (levels := matching_levels(wanted)):
        found.append(logs.c.level.in_(levels))
    if wanted.correlated is not None:
        column = logs.c.correlation_id
        found.append(column.is_not(None) if wanted.correlated else column.is_(None))
    if wanted.text is not None:
        found.append(contains((logs.c.message,), wanted.text))
    found += [
        json_equals(logs.c.attrs, path, value) for path, value in (wanted.attrs or {}).items()
    ]
    return tuple(found)


def _without_index(branches: tuple[ColumnElement[bool], ...]) -> list[ColumnElement[bool]]:
    """Return the condition that one of *branches* holds, each of which selects a job."""
    ids = [one.right.value for one in branches if isinstance(one, BinaryExpression)]
    return [apart(logs.c.job_id).in_(ids)] if ids else []


def _equal(
    wanted: LogFilter,
    names: Iterable[str],
    *,
    apart_from: str | None = None,
    lead: str | None = None,
) -> list[ColumnElement[bool]]:
    found = []
    for name in names:
        if (value := getattr(wanted, name)) is not None:
            column = apart(logs.c[name]) if name == apart_from else logs.c[name]
            equal = equals_any(name, column, value)
            found.append(leads(equal) if name == lead else equal)
    return found
