"""Resolve short ids that a person types."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING

from structjob.exceptions import InvalidArgument, JobNotFound

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord

LEAST = 8
_LEAST_TYPED = 4
_HEX = re.compile(r"[0-9a-f-]+")


async def resolve(reader: Reader, given: str, *, names: bool = False) -> JobRecord:
    """Return the job that *given* names: any of its ids, the beginning of one, or its end as shown.

    Args:
        reader: Looks up the job.
        given: The typed text.
        names: Also accept the name of an operation; it means its newest job.

    Raises:
        JobNotFound: if there is no such job.
        InvalidArgument: if several jobs match.
    """
    try:
        return await reader.jobs.find_by_prefix(given)
    except JobNotFound:
        found = await _ending(reader, given) if _HEX.fullmatch(given) or not names else None
        found = (
            found
            or (await _newest(reader, given) if names else None)
            or (await _ending(reader, given) if names else None)
        )
        if found is None:
            await _refuse_correlation_id(reader, given)
            raise
        return found


async def _refuse_correlation_id(reader: Reader, given: str) -> None:
    """Raise `JobNotFound` with what to type if *given* is the correlation id of jobs."""
    with suppress(InvalidArgument):  # too long for such an id
        if await reader.jobs.list(correlation_id=given, limit=1):
            raise JobNotFound(
                given,
                "it is a correlation id: structjob jobs, or structjob logs, with "
                f"--correlation-id {shlex.quote(given)}",
            )


async def _ending(reader: Reader, given: str) -> JobRecord | None:
    """Return the job whose id ends with *given*; ``None`` if *given* is too short."""
    return await reader.jobs.find_by_suffix(given) if len(given) >= _LEAST_TYPED else None


async def _newest(reader: Reader, operation: str) -> JobRecord | None:
    """Return the newest job of this operation."""
    page = await reader.jobs.list(operation=operation, limit=1)
    return page[0] if page else None
