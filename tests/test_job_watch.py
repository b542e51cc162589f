"""Watching a job: which of its rows changed since the last look, on each kind of database."""

import pytest
import sqlalchemy as sa

import structjob
from structjob.exceptions import InvalidFilter, JobNotFound
from structjob.queries import job_watch
from structjob.store.tables import jobs, steps


def told(changes):
    return (
        [(job.operation, str(job.status)) for job in changes.jobs],
        [(one.attempt, str(one.status)) for one in changes.attempts],
        [(step.name, str(step.status)) for step in changes.steps],
    )


async def test_a_job_as_it_goes_on(any_tracker):
    """The first look returns everything; each further one the rows that changed since, whole; and
    none while nothing changes (R45).
    """
    async with any_tracker.job("migrate", external_job_id="gui-1") as job:
        watch = any_tracker.jobs.watch("gui-1")
        assert told(await watch.poll()) == ([("migrate", "running")], [(1, "running")], [])
        assert not await watch.poll()
        async with job.step("copy") as step:
            changes = await watch.poll()
            assert told(changes)[2] == [("copy", "running")]
            assert changes.steps[0].id == step.id
        async with job.child("part"):
            changes = await watch.poll()
            assert ("part", "running") in told(changes)[0]
            assert told(changes)[2] == [("copy", "completed")]
    changes = await watch.poll()
    assert told(changes)[0] == [("migrate", "completed"), ("part", "completed")]
    assert changes.jobs[0].duration_ms is not None
    assert not await watch.poll()
    alone = any_tracker.jobs.watch(job, children=False)
    assert told(await alone.poll())[0] == [("migrate", "completed")]


async def test_a_watch_goes_on_from_a_state(any_tracker):
    """Another watch, in another process even, goes on from where one was; it misses nothing, and
    may return some of the last rows once more.
    """
    async with any_tracker.job("migrate") as job:
        first = await any_tracker.jobs.watch(job).poll()
        async with job.step("copy"):
            pass
        again = any_tracker.jobs.watch(job, since=first.state)
        assert told(await again.poll())[2] == [("copy", "completed")]
        assert not await again.poll()


async def test_a_state_that_is_another_jobs(any_tracker):
    """It is refused; so is what no watch gave."""
    async with any_tracker.job("one") as one, any_tracker.job("other") as other:
        state = (await any_tracker.jobs.watch(one).poll()).state
        for job, children in ((other, True), (one, False)):
            watch = any_tracker.jobs.watch(job, since=state, children=children)
            with pytest.raises(InvalidFilter, match="another job"):
                await watch.poll()
        for nonsense in ("", "x", "%", state[:-3], 5):
            with pytest.raises(InvalidFilter, match="does not come from a watch"):
                any_tracker.jobs.watch(one, since=nonsense)


async def test_a_job_that_is_not_there(any_tracker):
    """The first look at an unknown job says so."""
    with pytest.raises(JobNotFound):
        await any_tracker.jobs.watch("nothing").poll()


@pytest.fixture
async def watched(database, tmp_path):
    """A finished job of two steps, and a function that changes a row behind the trackers' backs."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        async with tracker.job("migrate") as job:
            for name in ("a", "b"):
                async with job.step(name):
                    pass

    async def change(table, condition, **values):
        async with database.engine.begin() as connection:
            await connection.execute(sa.update(table).where(condition).values(values))

    async with structjob.Reader(database.url) as reader:
        yield reader, job.id, change


async def test_what_is_committed_late(watched, monkeypatch):
    """Two writers commit in their own order: a change with a lower number than the last one is seen
    at the next look, and one that is very late within a quarter of a minute.
    """
    reader, job_id, change = watched
    clock = [100.0]
    monkeypatch.setattr(job_watch, "_now", lambda: clock[0])
    await change(jobs, jobs.c.id == job_id, state_seq=50_000)
    watch = reader.jobs.watch(job_id)
    await watch.poll()
    await change(steps, steps.c.name == "a", state_seq=49_500, completed=1)
    changes = await watch.poll()
    assert [(step.name, step.completed) for step in changes.steps] == [("a", 1)]
    await change(steps, steps.c.name == "b", state_seq=20, completed=2)
    assert not await watch.poll()
    clock[0] += job_watch.THOROUGH
    assert [step.name for step in (await watch.poll()).steps] == ["b"]


async def test_what_another_process_finds(watched):
    """A row that is marked as crashed keeps its session and number: it is returned all the same,
    once.
    """
    reader, job_id, change = watched
    await change(steps, steps.c.name == "b", status="running", state_seq=3)
    await change(jobs, jobs.c.id == job_id, state_seq=50_000)
    watch = reader.jobs.watch(job_id)
    await watch.poll()
    await change(steps, steps.c.name == "b", status="crashed")
    assert [step.name for step in (await watch.poll()).steps] == ["b"]
    assert not await watch.poll()


async def test_more_than_one_look_returns(watched, monkeypatch):
    """Of very many rows a look returns some and says that there are more; each comes once."""
    reader, job_id, _ = watched
    monkeypatch.setattr(job_watch, "MOST", 3)
    watch = reader.jobs.watch(job_id)
    found = []
    more = True
    while more:
        changes = await watch.poll()
        found += [*changes.jobs, *changes.attempts, *changes.steps]
        more = changes.more
    assert len(found) == 4
    assert len({(type(row), getattr(row, "id", "")) for row in found}) == 4


async def test_a_watched_job_that_is_deleted(watched, monkeypatch, database):
    """The watch of a job that retention deletes ends with `JobNotFound`."""
    reader, job_id, _ = watched
    clock = [100.0]
    monkeypatch.setattr(job_watch, "_now", lambda: clock[0])
    watch = reader.jobs.watch(job_id)
    await watch.poll()
    await database.execute("DELETE FROM structjob_jobs")
    clock[0] += job_watch.THOROUGH
    with pytest.raises(JobNotFound):
        await watch.poll()
