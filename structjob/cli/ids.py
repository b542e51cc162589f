"""Resolve short ids that a person types."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from structjob.exceptions import AmbiguousId, ErrorGroupNotFound, InvalidArgument, JobNotFound

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord
    from structjob.statuses import JobStatus

LEAST = 8
_LEAST_TYPED = 4
_LISTED = 4
"""Maximum number of jobs that an error message lists."""
_HEX = re.compile(r"[0-9a-f-]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")


async def resolve(
    reader: Reader, given: str, *, only: Sequence[JobStatus] | None = None
) -> JobRecord:
    """Return the job that *given* names: any of its ids, the beginning of one, its end as shown, or
    the name of its operation.

    Args:
        reader: Looks up the job.
        given: The typed text.
        only: A command that changes the job passes the statuses in which it can. The name of an
            operation must then mean one job: the only one in such a status. Otherwise it means the
            newest job.

    Raises:
        JobNotFound: if there is no such job.
        InvalidArgument: if several jobs match.
    """
    try:
        return await reader.lookups.by_prefix(given)
    except JobNotFound:
        if _HEX.fullmatch(given):
            found = await _ending(reader, given) or await _named(reader, given, only)
        else:
            found = await _named(reader, given, only) or await _ending(reader, given)
        if found is None:
            await _refuse_another_id(reader, given)
            raise
        return found


async def resolved(reader: Reader, filters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return fields of a filter, with the whole id of a parent and the whole fingerprint.

    The fields may have the beginning of either.

    Raises:
        JobNotFound: if there is no such parent.
        ErrorGroupNotFound: if no fingerprint begins with it.
        AmbiguousId: if several do.
    """
    if (parent := filters.get("parent_job_id")) is not None:
        filters = {**filters, "parent_job_id": (await resolve(reader, parent)).id}
    given = filters.get("fingerprint")
    if given is None or _FINGERPRINT.fullmatch(given):
        return filters
    return {**filters, "fingerprint": (await reader.errors.get(given)).fingerprint}


async def _refuse_another_id(reader: Reader, given: str) -> None:
    """Raise `JobNotFound` with what to type if *given* is the correlation id of jobs, or the id of
    an error.
    """
    with suppress(InvalidArgument):  # too long for such an id
        if await reader.jobs.list(correlation_id=given, limit=1):
            raise JobNotFound(
                given,
                "it is a correlation id: structjob jobs, or structjob logs, with "
                f"--correlation-id {shlex.quote(given)}",
            )
    if len(given) >= _LEAST_TYPED:
        with suppress(InvalidArgument, ErrorGroupNotFound, AmbiguousId):
            group = await reader.errors.get(given)
            raise JobNotFound(given, f"it is an error: structjob errors show {group.fingerprint}")


async def _ending(reader: Reader, given: str) -> JobRecord | None:
    """Return the job whose id ends with *given*; ``None`` if *given* is too short."""
    return await reader.lookups.by_suffix(given) if len(given) >= _LEAST_TYPED else None


async def _named(
    reader: Reader, operation: str, only: Sequence[JobStatus] | None
) -> JobRecord | None:
    """Return the newest job of this operation; of those in the statuses *only*, if there is one."""
    if only is not None:
        found = await reader.jobs.list(operation=operation, status=only, limit=_LISTED + 1)
        if len(found) > 1:
            listed = ", ".join(f"{job.id} ({job.status})" for job in found[:_LISTED])
            more = ", …" if len(found) > _LISTED else ""
            raise AmbiguousId(
                f"{operation!r} is the operation of several jobs: {listed}{more}; write the id of the one you mean"
            )
        if found:
            return found[0]
    page = await reader.jobs.list(operation=operation, limit=1)
    return page[0] if page else None
