"""Errors: occurrences with the same fingerprint, and whether they are resolved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar, Unpack

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Join,
    Subquery,
    case,
    func,
    literal,
    or_,
    select,
)

from structjob.exceptions import ErrorGroupNotFound, InvalidArgument, InvalidFilter
from structjob.filter_checks import values_of
from structjob.filters import ErrorFilter, ErrorFilterKeywords
from structjob.models import ErrorInfo
from structjob.queries import outcomes
from structjob.queries.buckets import Buckets
from structjob.queries.job_finder import CANDIDATES, JobFinder, ambiguous
from structjob.queries.paging import merged
from structjob.statistics import ErrorGroup, ErrorInterval, ErrorStatistics
from structjob.statuses import ErrorStatus
from structjob.store.contract import Fetch, Flush, Transact
from structjob.store.expressions import (
    apart,
    ascending,
    attribute,
    begins,
    equals_any,
    storable,
    within,
)
from structjob.store.history import type_of
from structjob.store.tables import errors, logs

T = TypeVar("T")


class Errors:
    """Reads the errors in the store, grouped by fingerprint.

    Each read first delivers pending events, so a program always reads its own writes.

    An occurrence is an event with a fingerprint: the first event that reports an exception or a
    crash, and each event of level ``error`` or above without an exception. The latter are grouped
    by logger, by the message before its arguments are filled in, and by ``error_type``. Occurrences
    are counted from the logs, so a count is exact even if a batch was delivered more than once. A
    table of its own stores the data that is not in the logs: resolved errors, and the counts of
    pruned events.

    Args:
        transact: Runs a call in its own transaction.
        finder: Finds the job of an id.
        now: The clock for the time when an error is resolved.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        transact: Transact,
        finder: JobFinder | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._fetch = fetch
        self._flush = flush
        self._transact = transact
        self._finder = finder or JobFinder(fetch)
        self._now = now

    async def list(
        self, filter: ErrorFilter | None = None, **filters: Unpack[ErrorFilterKeywords]
    ) -> list[ErrorGroup]:
        """Return the errors, the last seen first.

        The filter selects the errors. The numbers of each error include all of its occurrences.

        Args:
            filter: Which errors to list; all by default.
            **filters: Fields of `ErrorFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        conditions, wanted = await self._selected(merged(ErrorFilter, filter, filters))
        return await groups(self._fetch, conditions, values_of(wanted.status), wanted.limit)

    async def count(
        self, filter: ErrorFilter | None = None, **filters: Unpack[ErrorFilterKeywords]
    ) -> int:
        """Return the number of matching errors. ``limit`` has no effect.

        Args:
            filter: Which errors to count; all by default.
            **filters: Fields of `ErrorFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        conditions, wanted = await self._selected(merged(ErrorFilter, filter, filters))
        counted = _counted(conditions)
        found = (
            select(func.count().label("n"))
            .select_from(_with_marks(counted, counted))
            .where(*_in_status(_last_seen(counted), values_of(wanted.status)))
        )
        return int((await self._fetch(found))[0]["n"])

    async def _selected(
        self, wanted: ErrorFilter
    ) -> tuple[tuple[ColumnElement[bool], ...], ErrorFilter]:
        """Return the conditions for all occurrences of the errors that *wanted* selects.

        Its status is no condition. The second value is *wanted* with the id of its job.
        """
        seen = occurrences(wanted)  # refuse invalid values before the flush
        await self._flush()
        if wanted.job is not None:
            wanted = replace(wanted, job=await self._finder.exact_id(wanted.job))
            seen = occurrences(wanted)
        if wanted.outcome is not None:
            such = (
                select(logs.c.fingerprint)
                .select_from(outcomes.with_jobs())
                .where(*seen, outcomes.outcome() == wanted.outcome)
            )
            return (logs.c.fingerprint.in_(such),), wanted
        if len(seen) > 1:
            return (logs.c.fingerprint.in_(select(logs.c.fingerprint).where(*seen)),), wanted
        return (), wanted

    async def get(self, fingerprint: str) -> ErrorGroup:
        """Return the error with this fingerprint, or the only one whose fingerprint begins with it.

        Raises:
            ErrorGroupNotFound: if there is no such error.
            AmbiguousId: if there are several. The message lists them.
        """
        if not isinstance(fingerprint, str):
            raise InvalidArgument(f"a fingerprint is a string, not {type(fingerprint).__name__}")
        try:
            prefix = storable("the fingerprint", fingerprint)
        except InvalidFilter:
            raise ErrorGroupNotFound(fingerprint) from None
        if not prefix:
            raise ErrorGroupNotFound(fingerprint)
        await self._flush()
        found = await groups(self._fetch, begin_with(prefix), (), CANDIDATES)
        exact = [group for group in found if group.fingerprint == fingerprint]
        if not found:
            raise ErrorGroupNotFound(fingerprint)
        if len(found) > 1 and not exact:
            named = [(group.fingerprint, group.error.type) for group in found]
            raise ambiguous(fingerprint, "begins several fingerprints", named)
        return (exact or found)[0]

    async def resolve(self, fingerprint: str, *, by: str | None = None) -> ErrorGroup:
        """Mark an error as resolved. If it occurs after that, its status is ``regressed``.

        Args:
            fingerprint: As for `get`.
            by: The name of the person or service that resolves it, at most 128 characters.

        Returns:
            The error after the change.

        Raises:
            ErrorGroupNotFound: if there is no such error.
            AmbiguousId: if several fingerprints begin with it.
            InvalidArgument: if *by* is not such a text.
        """
        if by is not None and (not isinstance(by, str) or not 0 < len(storable("by", by)) <= 128):
            raise InvalidArgument(f"by must be text of 1 to 128 characters, not {by!r}")
        return await self._mark(await self.get(fingerprint), self._now(), by)

    async def reopen(self, fingerprint: str) -> ErrorGroup:
        """Reopen a resolved error.

        Args:
            fingerprint: As for `get`.

        Returns:
            The error after the change.

        Raises:
            ErrorGroupNotFound: if there is no such error.
            AmbiguousId: if several fingerprints begin with it.
        """
        return await self._mark(await self.get(fingerprint), None, None)

    async def _mark(self, group: ErrorGroup, at: datetime | None, by: str | None) -> ErrorGroup:
        row = {
            "error_type": group.error.type[:200],
            "message": group.error.message,
            "resolved_at": at,
            "resolved_by": by,
        }
        this = errors.c.fingerprint == group.fingerprint

        def mark(connection: Connection) -> None:
            # If two callers resolve a new error at the same time, the database refuses the second
            # row, and its transaction is retried.
            if (
                connection.execute(
                    select(errors.c.fingerprint).where(this).with_for_update()
                ).first()
                is None
            ):
                connection.execute(errors.insert().values(fingerprint=group.fingerprint, **row))
            else:
                connection.execute(errors.update().where(this).values(row))

        await self._transact(mark)
        return await self.get(group.fingerprint)


async def groups(
    fetch: Fetch, conditions: tuple[ColumnElement[bool], ...], statuses: Iterable[str], limit: int
) -> list[ErrorGroup]:
    """Return the errors whose occurrences match *conditions*, the last seen first.

    Args:
        conditions: The conditions for their occurrences.
        statuses: The statuses that they may have; empty: any.
        limit: Maximum number of errors.
    """
    counted = _counted(conditions)
    # Several occurrences may have the same time.
    same = logs.alias("same")
    latest = select(func.max(same.c.id)).where(
        same.c.fingerprint == counted.c.fingerprint, same.c.ts == counted.c.last_seen
    )
    last = _last_seen(counted)
    statement = (
        select(
            *counted.c,
            logs.c.job_id, logs.c.operation, logs.c.step, logs.c.level, logs.c.message, logs.c.attrs,
            errors.c.resolved_at, errors.c.resolved_by, errors.c.pruned,
            errors.c.first_seen.label("pruned_first"), last.label("last"),
        )
        .select_from(
            _with_marks(counted.join(logs, logs.c.id == latest.scalar_subquery()), counted)
        )
        .where(*_in_status(last, statuses))
        .order_by(last.desc(), counted.c.fingerprint)
        .limit(limit)
    )  # fmt: skip
    found = await fetch(statement)
    known = await outcomes.of_errors(fetch, [row["fingerprint"] for row in found])
    return [_group(row, known.get(row["fingerprint"])) for row in found]


def begin_with(prefix: str) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that a fingerprint begins with *prefix*; none if it is empty."""
    return (begins(logs.c.fingerprint, prefix),) if prefix else ()


def _counted(conditions: tuple[ColumnElement[bool], ...]) -> Subquery:
    """Return the stored occurrences by fingerprint."""
    return (
        select(
            logs.c.fingerprint,
            func.count().label("count"),
            func.count(logs.c.job_id.distinct()).label("jobs"),
            func.min(logs.c.ts).label("first_seen"),
            func.max(logs.c.ts).label("last_seen"),
        )
        .where(logs.c.fingerprint.is_not(None), *conditions)
        .group_by(logs.c.fingerprint)
        .subquery("counted")
    )


def _with_marks(source: FromClause, counted: Subquery) -> Join:
    """Return *source*, which contains *counted*, with the data that is not in the logs."""
    return source.outerjoin(errors, errors.c.fingerprint == counted.c.fingerprint)


def _last_seen(counted: Subquery) -> ColumnElement[datetime]:
    """Return when an error was last seen.

    Pruned occurrences may have been later, because failed jobs may have a shorter retention than
    crashed ones.
    """
    return case(
        (errors.c.last_seen > counted.c.last_seen, errors.c.last_seen), else_=counted.c.last_seen
    )


def _in_status(
    last: ColumnElement[datetime], statuses: Iterable[str]
) -> tuple[ColumnElement[bool], ...]:
    """Return the condition that an error has one of *statuses*; none without statuses."""
    is_now: dict[str, ColumnElement[bool]] = {
        ErrorStatus.OPEN: errors.c.resolved_at.is_(None),
        ErrorStatus.RESOLVED: last <= errors.c.resolved_at,
        ErrorStatus.REGRESSED: last > errors.c.resolved_at,
    }
    given = [is_now[status] for status in statuses]
    return (or_(*given),) if given else ()


async def count(fetch: Fetch, wanted: ErrorFilter) -> list[ErrorStatistics]:
    """Count occurrences by type, step and operation, the most frequent first."""
    found = _found(wanted, logs.c.operation, logs.c.step, logs.c.job_id, logs.c.ts)
    keys = (found.c.type, found.c.operation, found.c.step)
    statement = select(
        *keys,
        func.count().label("count"),
        func.count(found.c.job_id.distinct()).label("jobs"),
        func.min(found.c.ts).label("first_seen"),
        func.max(found.c.ts).label("last_seen"),
    )
    statement = (
        statement.group_by(*keys)
        .order_by(func.count().desc(), *ascending(keys))
        .limit(wanted.limit)
    )
    return [ErrorStatistics(**row) for row in await fetch(statement)]


async def count_over_time(
    fetch: Fetch, wanted: ErrorFilter, buckets: Buckets
) -> list[ErrorInterval]:
    """Count occurrences in each interval by type."""
    found = _found(wanted, buckets.start_of(logs.c.ts).label("start"))
    statement = select(found.c.type, found.c.start, func.count().label("count")).group_by(
        found.c.type, found.c.start
    )
    counts: dict[int, dict[str, int]] = {}
    for row in sorted(await fetch(statement), key=lambda row: (-row["count"], row["type"])):
        counts.setdefault(row["start"], {})[row["type"]] = row["count"]
    return [
        ErrorInterval(start=start, end=end, counts=counts.get(number, {}))
        for number, start, end in buckets
    ]


def _found(wanted: ErrorFilter, *columns: ColumnElement[Any]) -> Subquery:
    """Return *columns* of the occurrences that *wanted* selects, and their ``type``."""
    named = func.nullif(attribute(logs.c.attrs, literal("error_type")), "")
    kind = func.coalesce(named, logs.c.level).label("type")
    return select(kind, *columns).where(*occurrences(wanted)).subquery("found")


def occurrences(wanted: ErrorFilter) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the occurrences that *wanted* selects, except status and outcome.

    *job* must be an exact id.
    """
    # Occurrences are few among the events of a time window, so their own index is used.
    then = within(apart(logs.c.ts), wanted.since, wanted.until)
    equal = {"operation": wanted.operation, "step": wanted.step, "job_id": wanted.job, "project": wanted.project}  # fmt: skip
    given = (
        equals_any(name, logs.c[name], value) for name, value in equal.items() if value is not None
    )
    return logs.c.fingerprint.is_not(None), *then, *given


def _group(row: Mapping[Any, Any], outcome: Mapping[Any, Any] | None) -> ErrorGroup:
    shown = row if outcome is None or outcome["sample"] is None else outcome["sample"]
    attrs = shown["attrs"] if isinstance(shown["attrs"], dict) else {}
    resolved, last = row["resolved_at"], row["last"]
    first = (
        row["first_seen"]
        if row["pruned_first"] is None
        else min(row["first_seen"], row["pruned_first"])
    )
    exception = attrs.get("exception")
    traceback = exception.get("traceback") if isinstance(exception, dict) else None
    return ErrorGroup(
        fingerprint=row["fingerprint"],
        status=ErrorStatus.OPEN
        if resolved is None
        else ErrorStatus.RESOLVED
        if last <= resolved
        else ErrorStatus.REGRESSED,
        outcome=None
        if outcome is None
        else "final"
        if outcome["final"]
        else "recovered"
        if outcome["recovered"]
        else None,
        error=ErrorInfo(
            type=type_of(attrs, shown["level"]),
            message=str(attrs.get("error_message") or shown["message"]),
            traceback=traceback,
        ),
        operation=shown["operation"],
        step=shown["step"],
        count=row["count"] + (row["pruned"] or 0),
        jobs=row["jobs"],
        first_seen=first,
        last_seen=last,
        resolved_at=resolved,
        resolved_by=row["resolved_by"],
        job_id=shown["job_id"],
    )
