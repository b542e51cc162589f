"""Jobs that are begun by hand, updated and ended by an id of theirs."""

import logging
import os

import pytest

import structjob
from structjob import InvalidArgument, InvalidState, JobNotFound


async def begun(tracker, **options):
    return await (
        await tracker.create_job("by hand", external_job_id="gui-17", context_id="vm-9", **options)
    ).start()


@pytest.mark.parametrize("which", ["id", "external_job_id", "context_id", "handle", "record"])
async def test_a_job_of_this_process_is_updated_and_ended_by_any_id(any_tracker, which):
    """faults 32: `tracker.update(id, …)` and `tracker.end(id, …)` do what the job's own
    methods do.
    """
    job = await begun(any_tracker)
    given = {"handle": job, "record": await any_tracker.jobs.get(job.id)}.get(which) or getattr(
        job, which
    )
    await any_tracker.update(given, percent=30, current_step="copy", metadata={"vm": "pg-01"})
    record = await any_tracker.jobs.get(job.id)
    assert (record.percent_complete, record.current_step, record.metadata) == (
        30,
        "copy",
        {"vm": "pg-01"},
    )
    await any_tracker.end(
        given, error=ValueError("no"), result={"rows": 1}, summary={"source": "a"}
    )
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.error.message, record.result) == ("failed", "no", {"rows": 1})
    assert job.status == "failed"
    (ended,) = await any_tracker.logs.list(job_id=job.id, kind="operation_end")
    assert ended.attrs["source"] == "a"


async def test_a_job_of_another_process_is_named_with_it(any_tracker, database, tmp_path):
    """faults 32: only its own process can end a job; the message says which one that is, and what
    stops it from here.
    """
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as other:
        job = await begun(other)
        for call in (any_tracker.end(job.id), any_tracker.update("gui-17", percent=1)):
            with pytest.raises(
                InvalidState,
                match=rf"runs in process {os.getpid()} on .*: (end|update) it there; tracker.cancel",
            ):
                await call
        await job.end()
    assert (await any_tracker.jobs.get(job.id)).status == "completed"


async def test_what_cannot_be_ended_is_told(tracker, caplog):
    """faults 32: an unknown job, one that has not begun, and one that has ended are refused;
    progress that comes too late does not raise.
    """
    for call in (tracker.end("nobody"), tracker.update("nobody")):
        with pytest.raises(JobNotFound):
            await call
    pending = await tracker.create_job("later")
    for call in (tracker.end(pending.id), tracker.update(pending)):
        with pytest.raises(
            InvalidState, match=r"\(later\) has not begun; cancel it with tracker.cancel"
        ):
            await call
    job = await begun(tracker)
    with pytest.raises(InvalidArgument, match="completed has no error"):
        await tracker.end(job, "completed", error=ValueError())
    await tracker.end(job.id)
    with pytest.raises(InvalidState, match="is completed already: a job can end only once"):
        await tracker.end(job.id)
    with caplog.at_level(logging.WARNING, "structjob"):
        await tracker.update(job.id, percent=7)
    assert "progress is ignored: job" in caplog.text
    assert (await tracker.jobs.get(job.id)).percent_complete == 100
