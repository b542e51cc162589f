"""Rows of the tables as the records that reads return."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.engine import RowMapping

from structjob.models import AttemptRecord, ErrorInfo, EventRecord, Gap, JobRecord, StepRecord
from structjob.statuses import JobStatus, StepStatus
from structjob.store.contract import Fetch
from structjob.store.portions import portions

T = TypeVar("T", int, str)

_AT_ONCE = 500
"""Number of values in one query."""

Row = Mapping[Any, Any]
"""A row of a fetch: a mapping of column name to value, as SQLAlchemy's ``RowMapping``."""


async def read_many(
    fetch: Fetch, statement: Select[Any], column: ColumnElement[T], values: Collection[T]
) -> list[RowMapping]:
    """Return the rows of *statement* whose *column* has one of *values*, however many these are."""
    found: list[RowMapping] = []
    for some in portions(sorted(set(values)), _AT_ONCE):
        found += await fetch(statement.where(column.in_(some)))
    return found


async def count_upto(fetch: Fetch, most: int, statement: Select[Any]) -> int:
    """Return the number of rows of *statement*; *most*, if there are more."""
    some = statement.limit(most).subquery()
    (row,) = await fetch(select(func.count().label("n")).select_from(some))
    return int(row["n"])


def _plain(record: type[Any]) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in fields(record)
        if field.name not in ("error", "status", "attrs", "metadata")
    )


_JOB, _ATTEMPT, _STEP, _EVENT, _GAP = (
    _plain(kind) for kind in (JobRecord, AttemptRecord, StepRecord, EventRecord, Gap)
)
_step_values = itemgetter(*_STEP)
_STATUSES = {status.value: status for status in StepStatus}


def job(row: Row) -> JobRecord:
    """Return a row of ``structjob_jobs`` as a record."""
    return JobRecord(
        **{name: row[name] for name in _JOB},
        status=JobStatus(row["status"]),
        metadata=_object(row["metadata"]),
        error=_error(row),
    )


def attempt(row: Row) -> AttemptRecord:
    """Return a row of ``structjob_attempts`` as a record."""
    return AttemptRecord(
        **{name: row[name] for name in _ATTEMPT}, status=JobStatus(row["status"]), error=_error(row)
    )


def step(row: Row) -> StepRecord:
    """Return a row of ``structjob_steps`` as a record."""
    # A job may have 100,000 steps, so all unchanged values are taken from the row in one access.
    return StepRecord(
        **dict(zip(_STEP, _step_values(row), strict=True)),
        status=_STATUSES[row["status"]],
        metadata=_object(row["metadata"]),
        error=_error(row),
    )


def event(row: Row) -> EventRecord:
    """Return a row of ``structjob_logs`` as a record.

    Attributes that are not a JSON object get the key ``value``.
    """
    return EventRecord(**{name: row[name] for name in _EVENT}, attrs=_object(row["attrs"]))


def gap(row: Row) -> Gap:
    """Return a row of ``structjob_gaps`` as a record."""
    return Gap(**{name: row[name] for name in _GAP})


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {} if value is None else {"value": value}


def _error(row: Row) -> ErrorInfo | None:
    kind, message, traceback = row["error_type"], row["error_message"], row["error_traceback"]
    if kind is None and message is None and traceback is None:
        return None
    return ErrorInfo(type=kind or "", message=message or "", traceback=traceback)
