"""Whether a database answers, and how it is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import case, column, func, literal_column, select, table

from structjob.exceptions import StructjobError
from structjob.queries.verify import STALE_AFTER
from structjob.store.contract import Fetch
from structjob.store.expressions import utc_now
from structjob.store.migration_sql import VERSION_TABLE
from structjob.store.tables import sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a database is.

    Args:
        ok: Whether it answers, with structjob's tables.
        database: Its URL, without the password.
        kind: ``sqlite``, ``mariadb``, ``mysql`` or ``postgresql``, as its URL says.
        problem: What is wrong, where it is not *ok*.
        version: What the database says of its own version.
        revision: Of the tables.
        answered_ms: Milliseconds that the answer took.
        clock_ahead_ms: Milliseconds that the database's clock is ahead of this machine's; negative
            where it is behind.
        live_sessions: Sessions that have not ended, and gave a sign of life within the last minute.
        silent_sessions: Sessions that have not ended, and gave none for longer.
    """

    ok: bool
    database: str
    kind: str
    problem: str | None = None
    version: str | None = None
    revision: str | None = None
    answered_ms: float | None = None
    clock_ahead_ms: float | None = None
    live_sessions: int | None = None
    silent_sessions: int | None = None


async def look(fetch: Fetch, database: str, kind: str) -> Health:
    """Return how the database is; never raise for what is wrong with it.

    Args:
        fetch: Runs a statement on the store and returns its rows.
        database: Its masked URL.
        kind: Its kind, as in the URL.
    """
    version = literal_column("sqlite_version()") if kind == "sqlite" else func.version()
    revision = select(column("version_num")).select_from(table(VERSION_TABLE)).scalar_subquery()
    seen = func.coalesce(sessions.c.heartbeat_at, sessions.c.started_at)
    began = time.perf_counter()
    asked = datetime.now(UTC)
    try:
        (found,) = await fetch(
            select(utc_now().label("now"), version.label("version"), revision.label("revision"))
        )
        answered = (time.perf_counter() - began) * 1000
        recent = found["now"] - STALE_AFTER
        (counted,) = await fetch(
            select(
                func.count().label("all"), func.count(case((seen >= recent, 1))).label("live")
            ).where(sessions.c.ended_at.is_(None))
        )
    except StructjobError as exc:
        return Health(ok=False, database=database, kind=kind, problem=str(exc))
    middle = asked.timestamp() + answered / 2000
    return Health(
        ok=True,
        database=database,
        kind=kind,
        version=found["version"],
        revision=found["revision"],
        answered_ms=answered,
        clock_ahead_ms=(found["now"].timestamp() - middle) * 1000,
        live_sessions=counted["live"],
        silent_sessions=counted["all"] - counted["live"],
    )
