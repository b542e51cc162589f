"""Counts by status and durations of groups of jobs or steps, in one query."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Label, Select, and_, case, func, select

PERCENTILES = (50, 95, 99)


def summarised(
    source: FromClause,
    keys: Mapping[str, ColumnElement[Any]],
    statuses: type[StrEnum],
    conditions: tuple[ColumnElement[bool], ...],
    columns: Mapping[str, ColumnElement[Any]],
    further: Mapping[str, str] | None = None,
) -> Select[Any]:
    """Return the query for one row per group.

    A row has the keys, ``total``, one count per status, ``avg_ms``, ``p50_ms``, ``p95_ms`` and
    ``p99_ms``. Percentiles use the nearest rank: of ``n`` ordered durations, the p-th percentile is
    the first whose rank is at least ``n * p / 100``. The comparison is multiplied out, because each
    database rounds a division differently.

    Args:
        source: The source of the rows.
        keys: A mapping of names to the columns to group by.
        statuses: All statuses; one of their values is ``completed``.
        conditions: The conditions for rows that count.
        columns: The columns ``status`` and ``duration_ms`` of a row, and the columns for *further*.
        further: A mapping of names to an aggregate function (``sum``, ``avg``, ``max``) and a
            column, such as ``max max_rss_kb``.
    """
    # Only these rows are ranked among themselves. All others are in a separate partition.
    measured = and_(columns["status"] == "completed", columns["duration_ms"].is_not(None))
    plain = (
        select(
            *(key.label(name) for name, key in keys.items()),
            *(column.label(f"{name}_") for name, column in columns.items()),
            case((measured, 1), else_=0).label("measured_"),
        )
        .select_from(source)
        .where(*conditions)
        .subquery("plain")
    )
    partition = (*(plain.c[name] for name in keys), plain.c.measured_)
    ranked = select(
        plain,
        func.row_number()
        .over(partition_by=partition, order_by=plain.c.duration_ms_)
        .label("rank_"),
        func.count().over(partition_by=partition).label("of_"),
    ).subquery("ranked")
    c = ranked.c

    def counted(status: str) -> Label[int]:
        return func.count(case((c.status_ == status, 1))).label(status)

    def percentile(percent: int) -> Label[float]:
        return func.min(
            case((and_(c.measured_ == 1, 100 * c.rank_ >= percent * c.of_), c.duration_ms_))
        ).label(f"p{percent}_ms")

    return (
        select(
            *(c[name] for name in keys),
            func.count().label("total"),
            *(counted(status.value) for status in statuses),
            func.avg(case((c.measured_ == 1, c.duration_ms_))).label("avg_ms"),
            *(percentile(percent) for percent in PERCENTILES),
            *(_aggregate(name, what, c) for name, what in (further or {}).items()),
        )
        .select_from(ranked)
        .group_by(*(c[name] for name in keys))
    )


def _aggregate(name: str, what: str, columns: Any) -> Label[Any]:
    function, column = what.split()
    aggregated: Label[Any] = getattr(func, function)(columns[f"{column}_"]).label(name)
    return aggregated
