"""Ids short enough to be typed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from structjob.exceptions import InvalidArgument, JobNotFound

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord

LEAST = 8
_AT_ONCE = 100
_LEAST_TYPED = 4
_HEX = re.compile(r"[0-9a-f-]+")


async def operations(reader: Reader, ids: Iterable[str]) -> dict[str, str]:
    """Return what each of these jobs does."""
    from sqlalchemy import select

    from structjob.store.tables import jobs

    wanted = sorted(set(ids))
    found: dict[str, str] = {}
    for first in range(0, len(wanted), _AT_ONCE):
        some = select(jobs.c.id, jobs.c.operation).where(
            jobs.c.id.in_(wanted[first : first + _AT_ONCE])
        )
        found |= {row["id"]: row["operation"] for row in await reader.fetch(some)}
    return found


async def resolve(reader: Reader, given: str, *, names: bool = False) -> JobRecord:
    """Return the job that *given* means: any id, the beginning of one, or its end as it is shown.

    Args:
        reader: Where it is looked up.
        given: What was typed.
        names: The name of an operation stands for its newest job, too.

    Raises:
        JobNotFound: if there is none.
        InvalidArgument: if there are several.
    """
    try:
        return await reader.jobs.resolve(given)
    except JobNotFound:
        found = await _ending(reader, given) if _HEX.fullmatch(given) or not names else None
        found = (
            found
            or (await _newest(reader, given) if names else None)
            or (await _ending(reader, given) if names else None)
        )
        if found is None:
            raise
        return found


async def _ending(reader: Reader, given: str) -> JobRecord | None:
    """Return the job whose id ends like this."""
    if len(given) < _LEAST_TYPED:
        return None
    from sqlalchemy import select

    from structjob.store.tables import jobs

    statement = (
        select(jobs.c.id, jobs.c.operation)
        .where(jobs.c.id.endswith(given, autoescape=True))
        .order_by(jobs.c.id)
        .limit(6)
    )
    found = [row for row in await reader.fetch(statement) if row["id"].endswith(given)]
    if len(found) > 1:
        listed = ", ".join(f"{row['id']} ({row['operation']})" for row in found)
        raise InvalidArgument(
            f"{given!r} ends several ids: {listed}; write more of the one you mean"
        )
    return await reader.jobs.get(found[0]["id"]) if found else None


async def _newest(reader: Reader, operation: str) -> JobRecord | None:
    """Return the newest job of this operation."""
    page = await reader.jobs.list(operation=operation, limit=1)
    return page[0] if page else None
