"""The number of events by type, level and category."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, String, func, literal, select, union_all
from sqlalchemy.sql.selectable import CompoundSelect

from structjob.statistics import Volume
from structjob.store.contract import Fetch
from structjob.store.expressions import equals_any, within
from structjob.store.tables import USUAL, logs, unusual

_BY = tuple(USUAL)

_ALL = ""
"""Stands for the name of a column in the count of all events."""

MANY = 50
"""Maximum number of values of one column that are counted separately."""


async def count(
    fetch: Fetch,
    since: datetime | None,
    until: datetime | None,
    project: str | tuple[str, ...] | None,
) -> Volume:
    """Count the events of a window.

    Each unusual value of a column has a range of an index that contains its events of the window.
    The usual values (see `structjob.store.tables.USUAL`) are the remaining events of the window.
    The rows themselves are read only with a *project*, which has no index, or with very many
    categories.
    """
    conditions = within(logs.c.ts, since, until)
    if project is None:
        values = [(name, value) for name in _BY for value in await unusual_values(fetch, name)]
        if max(Counter(name for name, _ in values).values(), default=0) < MANY:
            rows = await fetch(_by_index(values, conditions))
            (total,) = (row["n"] for row in rows if row["name"] == _ALL)
            counted = [(row["name"], row["value"], row["n"]) for row in rows if row["name"] != _ALL]
            for name, value in USUAL.items():
                counted.append(
                    (name, value, total - sum(n for other, _, n in counted if other == name))
                )
            return _volume(counted)
    else:
        conditions += (equals_any("project", logs.c.project, project),)
    columns = [logs.c[name] for name in _BY]
    rows = await fetch(
        select(*columns, func.count().label("n")).where(*conditions).group_by(*columns)
    )
    return _volume([(name, row[name], row["n"]) for row in rows for name in _BY])


async def unusual_values(fetch: Fetch, name: str) -> list[str]:
    """Return the unusual values of a column, `MANY` at most.

    Each value costs one access to the index. No database reads all values this way in one
    query.
    """
    column, found = logs.c[name], list[str]()
    while len(found) < MANY:
        beyond = (column > found[-1],) if found else ()
        (row,) = await fetch(select(func.min(column).label("value")).where(unusual(name), *beyond))
        if row["value"] is None:
            break
        found.append(row["value"])
    return found


def _by_index(
    values: Sequence[tuple[str, str]], conditions: tuple[ColumnElement[bool], ...]
) -> CompoundSelect[Any]:
    # One statement, so that all counts refer to the same moment and their sums are equal.
    return union_all(
        _number(_ALL, "", conditions),
        *(
            _number(name, value, (logs.c[name] == value, unusual(name), *conditions))
            for name, value in values
        ),
    )


def _number(
    name: str, value: str, conditions: Sequence[ColumnElement[bool]]
) -> Select[str, str, int]:
    return (
        select(
            literal(name, String()).label("name"),
            literal(value, String()).label("value"),
            func.count().label("n"),
        )
        .select_from(logs)
        .where(*conditions)
    )


def _volume(counted: Sequence[tuple[str, str, int]]) -> Volume:
    sums: dict[str, Counter[str]] = {name: Counter() for name in _BY}
    for name, value, n in counted:
        if n:
            sums[name][value] += n
    by_type, by_level, by_category = (dict(sums[name].most_common()) for name in _BY)
    return Volume(
        total=sum(by_type.values()), by_type=by_type, by_level=by_level, by_category=by_category
    )
