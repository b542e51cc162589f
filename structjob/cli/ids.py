"""Ids short enough to be typed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from structjob.exceptions import InvalidArgument, JobNotFound

if TYPE_CHECKING:
    from structjob.cli.database import Reader
    from structjob.models import JobRecord

LEAST = 8
_AT_ONCE = 100
_UUID = 36
_TAIL = 6


def tail(id_: str) -> str:
    """Return the end of an id of ours, which tells jobs apart on a screen: UUIDv7 begin alike. Other ids are left as they are."""
    return id_[-_TAIL:] if len(id_) == _UUID else id_


async def prefixes(reader: Reader, ids: Iterable[str]) -> dict[str, str]:
    """Return for each id its shortest beginning that no other job's id in the database has."""
    from sqlalchemy import func, literal, select, union_all

    from structjob.store.tables import jobs

    wanted = sorted(set(ids))
    short: dict[str, str] = {}
    for first in range(0, len(wanted), _AT_ONCE):
        # In the order of the ids, only an id's neighbours can begin like it, and the index knows them.
        statements = [
            select(
                literal(id_).label("id"),
                select(func.max(jobs.c.id)).where(jobs.c.id < id_).scalar_subquery().label("before"),
                select(func.min(jobs.c.id)).where(jobs.c.id > id_).scalar_subquery().label("after"),
            )
            for id_ in wanted[first : first + _AT_ONCE]
        ]
        for row in await reader.fetch(union_all(*statements)):
            short[row["id"]] = _unlike(row["id"], (row["before"], row["after"]))
    return short


async def operations(reader: Reader, ids: Iterable[str]) -> dict[str, str]:
    """Return what each of these jobs does."""
    from sqlalchemy import select

    from structjob.store.tables import jobs

    wanted = sorted(set(ids))
    found: dict[str, str] = {}
    for first in range(0, len(wanted), _AT_ONCE):
        some = select(jobs.c.id, jobs.c.operation).where(jobs.c.id.in_(wanted[first : first + _AT_ONCE]))
        found |= {row["id"]: row["operation"] for row in await reader.fetch(some)}
    return found


def _unlike(id_: str, neighbours: Iterable[str | None]) -> str:
    if len(id_) != _UUID:
        return id_
    length = LEAST
    for other in neighbours:
        same = 0
        while other is not None and same < min(len(id_), len(other)) and id_[same] == other[same]:
            same += 1
        length = max(length, same + 1)
    return id_[: length + 1] if id_[:length].endswith("-") else id_[:length]


async def resolve(reader: Reader, given: str) -> JobRecord:
    """Return the job that *given* means: any id, the beginning of one, or its end as logs show it.

    Raises:
        JobNotFound: if there is none.
        InvalidArgument: if there are several.
    """
    try:
        return await reader.jobs.resolve(given)
    except JobNotFound:
        if len(given) < 4:
            raise
    from sqlalchemy import select

    from structjob.store.tables import jobs

    statement = select(jobs.c.id, jobs.c.operation).where(jobs.c.id.endswith(given, autoescape=True)).order_by(jobs.c.id).limit(6)
    found = [row for row in await reader.fetch(statement) if row["id"].endswith(given)]
    if not found:
        raise JobNotFound(given)
    if len(found) > 1:
        listed = ", ".join(f"{row['id']} ({row['operation']})" for row in found)
        raise InvalidArgument(f"{given!r} ends several ids: {listed}; write more of the one you mean")
    return await reader.jobs.get(found[0]["id"])
