"""Reading jobs as a whole: all that match, their number, children, waiting for an end; an event as
text.
"""

from __future__ import annotations

import asyncio
import json

import pytest
import structlog
from cli_support import Shell

import structjob
from structjob import JobFilter, JobNotFound, JobStatus
from structjob.exceptions import InvalidFilter

log = structlog.get_logger("app")


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    yield shell
    shell.close()


async def _some(tracker):
    """Record a parent with three children, of which the last failed."""
    async with tracker.job("parent", external_job_id="gui-1") as parent:
        for number in range(3):
            job = parent.child("part", metadata={"number": number})
            if number < 2:
                async with job:
                    pass
            else:
                with pytest.raises(ValueError, match="no"):
                    async with job:
                        raise ValueError("no")
    return parent


async def test_all_jobs_that_match_and_how_many(any_tracker):
    """Ruling 12: `jobs.iterate` reads beyond a page, `jobs.count` counts what `list` would list."""
    parent = await _some(any_tracker)
    jobs = any_tracker.jobs
    read = [job.operation async for job in jobs.iterate(JobFilter(limit=1), order="asc")]
    assert read == ["parent", "part", "part", "part"]
    for filters in (
        {}, {"operation": "part"}, {"status": ("failed", "completed")}, {"metadata": {"number": 1}},
        {"parent_job_id": "gui-1"}, {"root_only": True}, {"operation": "none"}, {"limit": 1, "operation": "part"},
    ):  # fmt: skip
        listed = [job.id async for job in jobs.iterate(**filters)]
        assert await jobs.count(**filters) == len(listed)
        by_status = await jobs.count_by_status(**filters)
        by_operation = await jobs.count_by_operation(**filters)
        assert list(by_status) == list(JobStatus)
        assert sum(by_status.values()) == len(listed)
        assert sum(sum(one.values()) for one in by_operation.values()) == len(listed)
    assert [await jobs.count(**one) for one in ({}, {"metadata": {"number": 1}}, {"operation": "part"})] == [
        4, 1, 3,
    ]  # fmt: skip
    assert await jobs.count_by_status() == {
        **dict.fromkeys(JobStatus, 0), JobStatus.COMPLETED: 3, JobStatus.FAILED: 1,
    }  # fmt: skip
    counted = await jobs.count_by_operation(metadata={"number": 2})
    assert list(counted) == ["part"]
    assert counted["part"][JobStatus.FAILED] == 1
    for count in (jobs.count, jobs.count_by_status, jobs.count_by_operation):
        with pytest.raises(InvalidFilter, match="slower jobs are not counted"):
            await count(slower=True)
    for given in ("gui-1", parent):
        children = await jobs.children(given)
        assert [job.metadata["number"] for job in children] == [0, 1, 2]
    assert await jobs.children(children[0]) == []
    with pytest.raises(JobNotFound, match="gui-2"):
        await jobs.children("gui-2")


async def test_waiting_for_the_end_of_a_job(any_tracker):
    """Ruling 12: `jobs.wait` returns the record of the ended job, at once if it has ended."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def work():
        async with any_tracker.job("work", external_job_id="gui-1") as job:
            begun.set()
            await go.wait()
            job.result = 7

    working = asyncio.create_task(work())
    await begun.wait()
    with pytest.raises(TimeoutError, match=r"\(work\) is running after 0.01 s"):
        await any_tracker.jobs.wait("gui-1", 0.01)
    waiting = asyncio.create_task(any_tracker.jobs.wait("gui-1"))
    go.set()
    job = await waiting
    assert (job.status, job.result, job.external_job_id) == ("completed", 7, "gui-1")
    assert await any_tracker.jobs.wait(job, 0) == job
    with pytest.raises(JobNotFound, match="gui-2"):
        await any_tracker.jobs.wait("gui-2", 0)
    await working


async def test_an_event_as_text_is_its_console_line(tracker):
    """Ruling 12: `print(event)` shows what the console shows, with the time in UTC."""
    async with tracker.job("copy") as job:
        log.warning("slow", n=1)
        try:
            raise KeyError("k")
        except KeyError:
            log.exception("failed")
    slow, failed = [event async for event in tracker.logs.iterate(job=job, kind="log")]
    assert str(slow) == (
        f"{slow.ts.isoformat(timespec='milliseconds')} warning  {'slow':<30} n=1 · copy {job.id[-8:]}"
    )
    first, *trace = str(failed).splitlines()
    assert "error    failed" in first
    assert trace[-1].strip() == "KeyError: 'k'"
    assert repr(slow).startswith("EventRecord(")


@pytest.mark.parametrize(
    ("ending", "code"), [("completed", 0), ("failed", 1), ("cancelled", 130), (None, 124)]
)
def test_the_outcome_is_the_exit_code(shell, ending, code):
    """Ruling 12: `structjob wait ID`."""
    wanted = None if ending == "completed" else ending

    async def record():
        async with structjob.Tracker(shell.directory / "structjob.db") as tracker:
            job = await tracker.create_job("work", external_job_id="gui-1")
            if ending is not None:
                await job.start()
                await job.end(wanted, error=ValueError("no") if ending == "failed" else None)

    asyncio.run(record())
    shown = json.loads(shell.ok("wait", "gui-1", "--timeout", "1s", "--json", code=code))
    assert (shown["external_job_id"], shown["status"]) == ("gui-1", ending or "pending")


def test_who_cancels_can_be_named(shell):
    """api.md 1.10: `structjob cancel --by`, for scripts that act for a person."""

    async def pending():
        async with structjob.Tracker(shell.directory / "structjob.db") as tracker:
            await tracker.create_job("work", external_job_id="gui-1")

    asyncio.run(pending())
    shell.ok("cancel", "gui-1", "--by", "the scheduler")
    (line,) = shell.ok("logs", "gui-1", "--kind", "operation_end", "--json").splitlines()
    assert json.loads(line)["attrs"]["requested_by"] == "the scheduler"
