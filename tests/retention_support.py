"""Jobs and events of some age, and what is left of them."""

from __future__ import annotations

from datetime import timedelta

import sqlalchemy as sa
import structlog

from structjob.store.tables import attempts, dead_letters, jobs, logs, metadata, sessions, steps

log = structlog.get_logger("tests.retention")

_TIMES = {
    jobs: ("created_at", "started_at", "completed_at", "cancelled_at"),
    attempts: ("started_at", "completed_at"),
    steps: ("started_at", "completed_at"),
    logs: ("ts", "stored_at"),
    dead_letters: ("ts",),
    sessions: ("started_at", "ended_at"),
}


async def age(database, days: float, *conditions, table: sa.Table | None = None) -> None:
    """Make everything in the database, or what meets the *conditions* in one *table*, so much
    older.
    """
    for one in [table] if table is not None else _TIMES:
        names = _TIMES[one]
        keys = [column.name for column in one.primary_key]
        async with database.engine.begin() as connection:
            columns = [one.c[name] for name in (*keys, *names)]
            for row in (
                (await connection.execute(sa.select(*columns).where(*conditions))).mappings().all()
            ):
                older = {name: row[name] and row[name] - timedelta(days=days) for name in names}
                await connection.execute(
                    one.update().where(*(one.c[key] == row[key] for key in keys)).values(older)
                )


async def age_job(database, job_id: str, days: float) -> None:
    """Make a job, with its events, so much older."""
    await age(database, days, jobs.c.id == job_id, table=jobs)
    await age(database, days, logs.c.job_id == job_id, table=logs)


async def rows_of(database) -> dict[str, int]:
    """Return how many rows each table has."""
    found = {}
    for name, table in metadata.tables.items():
        ((number,),) = await database.rows(f"SELECT count(*) FROM {table.name}")
        found[name.removeprefix("structjob_")] = number
    return found


async def work(
    tracker, operation: str = "copy", *, fail: bool = False, lines: int = 3, children: int = 0
) -> str:
    """Run a job with a step, some lines and some children; return its id."""
    try:
        async with tracker.job(operation) as job:
            async with job.step("load"):
                for number in range(lines):
                    log.info("row loaded", number=number)
            for _ in range(children):
                async with job.child("part"):
                    log.warning("of a part")
            if fail:
                raise ValueError("the source is empty")
    except ValueError:
        pass
    return job.id
