"""Find one job: by any of its ids, or by the beginning or the end of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence

from sqlalchemy import ColumnElement, Select, literal, select

from structjob.exceptions import AmbiguousId, InvalidArgument, JobNotFound
from structjob.models import AnyJob, JobRecord, id_of
from structjob.queries import rows
from structjob.store.contract import Fetch
from structjob.store.expressions import begins, means, together
from structjob.store.tables import jobs
from structjob.values.normalizer import normalize
from structjob.values.redaction import stored_forms

IdResolver = Callable[[str], "Awaitable[JobRecord | str | None] | JobRecord | str | None"]
"""A function that takes an id that structjob does not know. It returns the job as a record,
structjob's id of the job, or None. It may be a coroutine function.
"""

CANDIDATES = 6
"""Number of rows that are read to show which ones an ambiguous text could mean."""


class JobFinder:
    """Finds single jobs in the store. It does not deliver pending events; its callers do.

    Args:
        resolve_id: Called by `find` for an unknown id before it raises.
    """

    def __init__(self, fetch: Fetch, resolve_id: IdResolver | None = None) -> None:
        self._fetch = fetch
        self._resolve_id = resolve_id

    async def get(self, job_id: str) -> JobRecord:
        """Return the job with exactly this id.

        Raises:
            JobNotFound: if there is no such job. The message names the job that `find` would
                return.
        """
        job_id = _clean(job_id)
        found = await self._fetch(select(jobs).where(means(jobs.c.id, job_id)))
        if found:
            return rows.job(found[0])
        other = await self._exact(job_id)
        if other is None:
            raise JobNotFound(job_id)
        by_external_id = other.external_job_id in stored_forms(job_id)
        way = "external id" if by_external_id else "context id"
        raise JobNotFound(
            job_id, f"it is the {way} of {other.id} ({other.operation}): call find({job_id!r})"
        )

    async def find(self, any_id: AnyJob) -> JobRecord:
        """Return the job with this id, external id or context id, in this order; the newest, if
        several match.

        Raises:
            JobNotFound: if there is no such job, and *resolve_id* does not know it.
        """
        given = _clean(id_of(any_id))
        return await self._exact(given) or await self._legacy(given)

    async def exact_id(self, any_id: AnyJob) -> str:
        """Return the id of the job that *any_id* refers to, as for `find`; *any_id* if there is no
        such job.

        Events may be stored before the row of their job, and errors remain after that row is
        deleted.
        """
        try:
            return (await self.find(any_id)).id
        except JobNotFound:
            return id_of(any_id)

    async def by_prefix(self, prefix: str) -> JobRecord:
        """Return the job that *prefix* identifies, as typed by a person.

        This is any id that `find` accepts, or the beginning of exactly one job's id.

        Raises:
            AmbiguousId: if several ids begin with it. The message lists them.
            JobNotFound: if no id begins with it.
        """
        prefix = _clean(prefix)
        exact = await self._exact(prefix)
        if exact is not None:
            return exact
        found = await self._fetch(_some(begins(jobs.c.id, prefix)))
        if len(found) == 1:
            return rows.job(found[0])
        if found:
            raise ambiguous(prefix, "begins several ids", [_named(row) for row in found])
        return await self._legacy(prefix)

    async def by_suffix(self, suffix: str) -> JobRecord | None:
        """Return the job whose id ends with *suffix*, as ids are shown where space is short.

        Return None if there is no such job. All ids are examined.

        Raises:
            AmbiguousId: if several ids end with it. The message lists them.
            JobNotFound: if *suffix* is empty.
        """
        suffix = _clean(suffix)
        found = await self._fetch(_some(jobs.c.id.endswith(suffix, autoescape=True)))
        # some databases ignore letter case
        matching = [row for row in found if row["id"].endswith(suffix)]
        if len(matching) > 1:
            raise ambiguous(suffix, "ends several ids", [_named(row) for row in matching])
        return rows.job(matching[0]) if matching else None

    async def by_external_id(self, external_job_id: str) -> JobRecord:
        """Return the newest job with this external id.

        Raises:
            JobNotFound: if there is no such job.
        """
        external_job_id = _clean(external_job_id)
        found = await self._fetch(_newest(means(jobs.c.external_job_id, external_job_id)).limit(1))
        if not found:
            raise JobNotFound(external_job_id)
        return rows.job(found[0])

    async def by_context_id(self, context_id: str) -> list[JobRecord]:
        """Return the jobs with this context id, the newest first."""
        if context_id == "":
            return []
        found = await self._fetch(_newest(means(jobs.c.context_id, _clean(context_id))))
        return [rows.job(row) for row in found]

    async def _exact(self, any_id: str) -> JobRecord | None:
        """Search three columns in one statement, each with its own index. The first column that
        matches wins.
        """
        ways = (jobs.c.id, jobs.c.external_job_id, jobs.c.context_id)
        # Only the ids go through the subqueries: to give each of them all columns took 7 ms.
        each = (
            _newest(means(column, any_id))
            .with_only_columns(jobs.c.id, literal(rank).label("rank_"))
            .limit(1)
            for rank, column in enumerate(ways)
        )
        ranked = together(each).subquery()
        best = select(ranked.c.id).order_by(ranked.c.rank_).limit(1).scalar_subquery()
        found = await self._fetch(select(jobs).where(jobs.c.id == best))
        return rows.job(found[0]) if found else None

    async def _legacy(self, any_id: str) -> JobRecord:
        if self._resolve_id is not None:
            answer = self._resolve_id(any_id)
            if inspect.isawaitable(answer):
                answer = await answer
            if isinstance(answer, JobRecord):
                return answer
            if answer is not None:
                return await self.get(answer)
        raise JobNotFound(any_id)


def _clean(id_: str) -> str:
    """Return *id_* as it would be stored: like all logged text, without NUL and lone surrogates.

    A file's name, which may contain the latter, is often used as an id.
    """
    if not isinstance(id_, str):
        raise InvalidArgument(f"a job's id is a string, not {type(id_).__name__}")
    if not id_:
        raise JobNotFound(id_)
    return str(normalize(id_))


def _newest(condition: ColumnElement[bool]) -> Select[tuple[object, ...]]:
    return select(jobs).where(condition).order_by(jobs.c.created_at.desc(), jobs.c.id.desc())


def _some(condition: ColumnElement[bool]) -> Select[tuple[object, ...]]:
    return select(jobs).where(condition).order_by(jobs.c.id).limit(CANDIDATES)


def _named(row: rows.Row) -> tuple[str, str]:
    return row["id"], row["operation"]


def ambiguous(given: str, does: str, found: Sequence[tuple[str, str]]) -> AmbiguousId:
    """Return the exception for a text that *does* something to several ids, such as begin them.

    *found* has the ids and their names, `CANDIDATES` at most.
    """
    listed = ", ".join(f"{id_} ({name})" for id_, name in found[: CANDIDATES - 1])
    more = ", …" if len(found) == CANDIDATES else ""
    return AmbiguousId(
        f"{given!r} {does}: {listed}{more}; write more characters of the one you mean"
    )
