"""The outcome of jobs with errors: an error ended its job, or the job continued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, case, func, literal, null, or_, select

from structjob.queries import rows
from structjob.statuses import JobStatus, StepStatus
from structjob.store.contract import Fetch
from structjob.store.expressions import attribute, leads, ordering, together
from structjob.store.portions import portions
from structjob.store.tables import jobs, logs, steps

LATEST = 1_000
"""Number of an error's latest occurrences that are examined for its outcome."""

_AT_ONCE = 50
"""Number of errors in one query."""

_BROKEN = (JobStatus.FAILED.value, JobStatus.CRASHED.value)
_UNDER_WAY = (JobStatus.PENDING.value, JobStatus.RUNNING.value)
_WENT_ON = (StepStatus.COMPLETED.value, StepStatus.RETRYING.value, StepStatus.SKIPPED.value)
_ENDS = ("operation_end", "operation_crashed")


def with_jobs(source: FromClause = logs) -> FromClause:
    """Return *source*, which contains the events, joined with their jobs and steps.

    Each is found by its key.
    """
    return source.outerjoin(jobs, jobs.c.id == logs.c.job_id).outerjoin(
        steps, steps.c.id == logs.c.step_id
    )


def outcome() -> ColumnElement[Any]:
    """Return the outcome of an occurrence in `with_jobs`: ``final``, ``recovered``, or NULL if
    unknown.

    An error is recovered if its step continued, or if there was a later attempt. Otherwise, in a
    failed or crashed job, an error is final if it left its step, if it is the job's own error, or
    if the job has no error of its own. Other errors of such a job did not end it.
    """
    same_attempt = func.coalesce(logs.c.attempt, jobs.c.attempt) == jobs.c.attempt
    is_the_jobs = or_(
        steps.c.status.in_(_BROKEN),
        logs.c.kind.in_(_ENDS),
        jobs.c.error_message.is_(None),
        jobs.c.error_message == attribute(logs.c.attrs, literal("error_message")),
    )
    return case(
        (jobs.c.id.is_(None), null()),
        (or_(~same_attempt, steps.c.status.in_(_WENT_ON)), literal("recovered")),
        (jobs.c.status.in_((*_UNDER_WAY, JobStatus.CANCELLED.value)), null()),
        (jobs.c.status.not_in(_BROKEN), literal("recovered")),
        (is_the_jobs, literal("final")),
        else_=literal("recovered"),
    )


async def of_errors(fetch: Fetch, fingerprints: Sequence[str]) -> dict[str, Mapping[Any, Any]]:
    """Return the outcomes of each fingerprint's latest occurrences.

    These are the numbers of ``final`` and ``recovered`` occurrences, and as ``sample`` the latest
    final one: a row of `logs`, or None.
    """
    found: dict[str, Mapping[Any, Any]] = {}
    for some in portions(fingerprints, _AT_ONCE):
        branches = (
            select(logs.c.id)
            .where(one)
            .order_by(*ordering((one,), logs.c.ts, ascending=False))
            .limit(LATEST)
            for one in (leads(logs.c.fingerprint == each) for each in some)
        )
        latest = together(branches).subquery("latest")
        kind = outcome()
        statement = (
            select(
                logs.c.fingerprint,
                func.count(case((kind == "final", 1))).label("final"),
                func.count(case((kind == "recovered", 1))).label("recovered"),
                func.max(case((kind == "final", logs.c.id))).label("last"),
            )
            .select_from(with_jobs(latest.join(logs, logs.c.id == latest.c.id)))
            .group_by(logs.c.fingerprint)
        )
        counted = {row["fingerprint"]: row for row in await fetch(statement)}
        wanted = [row["last"] for row in counted.values() if row["last"] is not None]
        final = await rows.read_many(fetch, select(logs), logs.c.id, wanted)
        samples = {row["id"]: row for row in final}
        found |= {
            name: {**row, "sample": samples.get(row["last"])} for name, row in counted.items()
        }
    return found
