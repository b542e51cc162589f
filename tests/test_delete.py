"""One job is deleted with everything that belongs to it (review 1.3)."""

import pytest
import structlog
from cli_support import typed
from retention_support import rows_of, work

import structjob
from structjob.exceptions import InvalidState, JobNotFound, NotOpen

log = structlog.get_logger("tests.delete")
OF_JOBS = ("jobs", "attempts", "steps", "logs")


async def test_a_job_is_deleted_with_its_family(any_tracker, database):
    """By any id; other jobs stay, and no event counts as missing."""
    await work(any_tracker, "other")
    await any_tracker.flush()
    before = await rows_of(database)
    async with any_tracker.job("mail", external_job_id="gui-1") as job:
        async with job.step("send"), job.child("part") as child:
            log.info("sent")
    deleted = await any_tracker.jobs.delete("gui-1")
    assert (deleted.jobs, deleted.attempts, deleted.steps) == (2, 2, 1)
    assert deleted.events > 4
    after = await rows_of(database)
    assert {name: after[name] for name in OF_JOBS} == {name: before[name] for name in OF_JOBS}
    for one in (job, child):
        with pytest.raises(JobNotFound):
            await any_tracker.jobs.get(one.id)
    assert (await any_tracker.verify()).ok
    with pytest.raises(JobNotFound, match="gui-1"):
        await any_tracker.jobs.delete("gui-1")


async def test_only_the_job_itself_and_what_is_below_it(any_tracker):
    """The parent of a deleted job stays, and so do its other children."""
    async with any_tracker.job("parent") as parent:
        async with parent.child("one") as one:
            pass
        async with parent.child("two"):
            pass
    await any_tracker.jobs.delete(one)
    tree = await any_tracker.jobs.tree(parent)
    assert [child.job.operation for child in tree.children] == ["two"]


async def test_a_job_that_has_not_ended_is_refused(any_tracker):
    """Nothing of its family is deleted; the message names the job and says what to do."""
    async with any_tracker.job("parent") as parent:
        with pytest.raises(InvalidState, match=r"\(parent\) is running: cancel it"):
            await any_tracker.jobs.delete(parent)
    pending = await any_tracker.create_job("later", parent=parent)
    with pytest.raises(InvalidState, match=rf"\(later\), a child of job {parent.id}, is pending"):
        await any_tracker.jobs.delete(parent)
    assert (await any_tracker.jobs.get(parent.id)).status == "completed"
    await any_tracker.cancel(pending)
    assert (await any_tracker.jobs.delete(parent)).jobs == 2


async def test_a_family_in_a_circle(any_tracker, database):
    """Older versions imported jobs that are each other's parents; they can be deleted, too."""
    async with any_tracker.job("a", job_id="a") as a, a.child("b", job_id="b") as b:
        pass
    await any_tracker.flush()
    await database.execute("UPDATE structjob_jobs SET parent_job_id = 'b' WHERE id = 'a'")
    assert (await any_tracker.jobs.delete(b)).jobs == 2


async def test_a_reader_deletes_nothing(tracker, tmp_path):
    """Its error names the call of the tracker."""
    async with tracker.job("a") as job:
        pass
    async with tracker.reader() as reader:
        with pytest.raises(NotOpen, match=r"use tracker\.jobs\.delete"):
            await reader.jobs.delete(job)


def test_the_command_asks_first(db_url):
    """``structjob delete`` needs a yes; what has not ended gets the command that cancels it."""
    structjob.configure(console=False, strict=True)
    with structjob.Tracker(db_url) as tracker:
        tracker.run(tracker.create_job("mail", job_id="mail-17"))
    assert "refusing to delete without confirmation" in typed(db_url, "delete", "mail-17", code=2)
    said = typed(db_url, "delete", "mail-17", "--yes", code=1)
    assert "(mail) is pending: cancel it" in said
    assert said.endswith(" cancel mail-17\n")
    typed(db_url, "cancel", "mail-17")
    assert "deleted 1 job" in typed(db_url, "delete", "mail-17", "--yes")
    assert "job not found" in typed(db_url, "show", "mail-17", code=3)
