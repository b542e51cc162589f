"""The views say of a job what the API says of it, in any SQL client and on every database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from structjob.store.tables import jobs, steps

T0 = datetime.now(UTC) - timedelta(hours=2)


async def test_the_views_say_what_the_api_says(any_tracker, database):
    """faults 27: percent, with steps that run, and how long a job has run: pending, running, ended
    with a duration and without one.
    """
    async with any_tracker.job("by-steps") as by_steps:
        async with by_steps.step("read"):
            pass
        async with by_steps.step("copy", total=4) as step:
            step.advance(1)
            async with any_tracker.job("told") as told:
                told.update(percent=30)
                waiting = await any_tracker.create_job("waits")
                async with any_tracker.job("done") as done:
                    pass
                await _insert(database)
                await any_tracker.flush()
                rows = await database.rows(
                    "SELECT job_id, percent, runtime_seconds FROM structjob_job_progress"
                )
                shown = {job_id: (percent, runtime) for job_id, percent, runtime in rows}
                active = await database.rows("SELECT job_id FROM structjob_active_jobs")
                progress = {name: await any_tracker.jobs.progress(name) for name in shown}
    ids = {by_steps.id, told.id, waiting.id, done.id, "imported", "ahead"}
    assert set(shown) == ids
    assert {job_id for (job_id,) in active} == {by_steps.id, told.id, waiting.id, "ahead"}
    for name in ids:
        percent, runtime = map(float, shown[name])
        assert percent == pytest.approx(progress[name].percent)
        assert runtime == pytest.approx(progress[name].runtime_seconds, abs=5)
    assert shown[by_steps.id][0] == pytest.approx(62.5)
    assert float(shown["imported"][1]) == pytest.approx(60, abs=0.01)
    assert float(shown["ahead"][1]) == float(shown[waiting.id][1]) == 0


async def _insert(database):
    """Store a job that was imported without its duration, and one whose host's clock is an hour
    ahead.
    """
    row = {
        "operation": "o",
        "attempt": 1,
        "created_at": T0,
        "percent_complete": None,
        "completed_at": None,
    }
    async with database.engine.begin() as connection:
        imported = {
            "id": "imported",
            "status": "failed",
            "started_at": T0,
            "completed_at": T0 + timedelta(minutes=1),
        }
        await connection.execute(jobs.insert().values(row | imported))
        ahead = {
            "id": "ahead",
            "status": "running",
            "started_at": datetime.now(UTC) + timedelta(hours=1),
        }
        await connection.execute(jobs.insert().values(row | ahead))
        step = {
            "id": "s",
            "job_id": "imported",
            "attempt": 1,
            "seq": 1,
            "name": "n",
            "status": "completed",
        }
        await connection.execute(steps.insert().values(step))
