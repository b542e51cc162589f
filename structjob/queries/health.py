"""Whether a database is available, and its state."""

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
    """The state of a database.

    Args:
        ok: Whether it is available, with structjob's tables.
        database: Its URL, without the password.
        kind: ``sqlite``, ``mariadb``, ``mysql`` or ``postgresql``, as in its URL.
        problem: What is wrong, if it is not *ok*.
        version: The version that the database reports.
        revision: The revision of the tables.
        answered_ms: Milliseconds until the answer.
        clock_ahead_ms: Milliseconds by which the database's clock is ahead of this machine's clock;
            negative if it is behind.
        live_sessions: Sessions that have not ended, with a heartbeat within the last minute.
        silent_sessions: Sessions that have not ended, without a heartbeat within the last minute.
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
    """Return the state of the database. Problems of the database do not raise an exception.

    Args:
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
