"""The made-up history that the benchmarks of size run on."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from sqlalchemy import func, select

from benchmarks.generate import fill, main
from benchmarks.history import UNTIL, History
from structjob.store.tables import attempts, gaps, jobs, logs, sessions, steps


async def counted(database, table, *conditions):
    (row,) = await database.fetch(
        select(func.count().label("n")).select_from(table).where(*conditions)
    )
    return row["n"]


async def test_a_history_has_the_size_that_was_asked_for(database):
    """So many jobs and events, nothing lost, every session explained, on every database (R5)."""
    assert await fill(database.url, History(200, 3_000)) == 3_000
    assert (await counted(database, jobs), await counted(database, logs)) == (200, 3_000)
    assert await counted(database, attempts) >= 200
    assert await counted(database, gaps) == 0
    (numbers,) = await database.fetch(
        select(
            func.sum(sessions.c.last_seq).label("n"), func.count(sessions.c.ended_at).label("ended")
        )
    )
    assert (int(numbers["n"]), numbers["ended"]) == (3_000, await counted(database, sessions))
    for moment in (logs.c.ts, jobs.c.completed_at):
        (last,) = await database.fetch(select(func.max(moment).label("ts")))
        assert last["ts"] <= UNTIL
    running = [
        table
        for table in (jobs, attempts, steps)
        if await counted(database, table, table.c.status == "running")
    ]
    assert running == []


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_history_is_not_evenly_spread(database):
    """Few operations dominate, a few percent fail in a few dozen ways, sizes are heavy-tailed, the
    nights are quiet.
    """
    await fill(database.url, History(2_000, 30_000))
    by_operation = [
        row[0]
        for row in await database.rows(
            "SELECT count(*) FROM structjob_jobs GROUP BY operation ORDER BY 1 DESC"
        )
    ]
    assert sum(by_operation[:3]) > 0.6 * 2_000
    failed = await counted(database, jobs, jobs.c.status == "failed")
    assert 0.01 < failed / 2_000 < 0.08
    ((kinds, told),) = await database.rows(
        "SELECT count(DISTINCT fingerprint), count(fingerprint) FROM structjob_logs"
    )
    assert 10 < kinds < 60
    assert told >= failed
    sizes = sorted(
        row[0]
        for row in await database.rows(
            "SELECT count(*) FROM structjob_logs WHERE job_id IS NOT NULL GROUP BY job_id"
        )
    )
    assert sum(sizes[-100:]) > 0.4 * sum(sizes)
    assert sizes[0] >= 4
    by_hour = "SELECT count(*) FROM structjob_jobs WHERE substr(created_at, 12, 2)"
    ((night,),), ((day,),) = (
        await database.rows(f"{by_hour} < '06'"),
        await database.rows(f"{by_hour} BETWEEN '09' AND '14'"),
    )
    assert day > 3 * night
    levels = {row[0] for row in await database.rows("SELECT DISTINCT level FROM structjob_logs")}
    assert levels >= {"debug", "info", "success", "warning", "error"}
    assert await counted(database, jobs, jobs.c.parent_job_id.is_not(None)) > 20
    assert await counted(database, attempts, attempts.c.attempt == 2) > 5


def test_the_command_says_how_fast_it_went(db_url, capsys):
    """`python -m benchmarks.generate URL` fills a database; repeated, it changes nothing."""
    for _ in range(2):
        assert main([db_url, "--jobs", "20", "--events", "300"]) == 0
        assert "20 jobs and 300 events until 2026-01-01" in capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(db_url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT count(*) FROM structjob_logs").fetchone() == (300,)


def test_the_same_seed_makes_the_same_history():
    """To the byte, so that what was measured can be measured again."""
    first, second, other = (
        b"".join(
            write.events + write.states
            for batch in History(50, 1_000, seed=seed)
            for write in batch.writes
        )
        for seed in (7, 7, 8)
    )
    assert first == second != other


@pytest.mark.parametrize(("how_many_jobs", "how_many_events"), [(0, 0), (10, 49)])
def test_too_few_events_are_refused(how_many_jobs, how_many_events):
    """An error says what is too few."""
    with pytest.raises(ValueError, match="too few"):
        History(how_many_jobs, how_many_events)
