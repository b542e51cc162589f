"""Wherever a job is named, any of its ids will do, and so will the job itself; a job's log has its
children's lines.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog

from structjob import JobNotFound, LogFilter
from structjob.exceptions import InvalidArgument, InvalidFilter

log = structlog.get_logger()


async def _parent_and_child(tracker):
    """Record a job with an external id, a context id and a child; return both."""
    async with tracker.job("copy", external_job_id="gui-1", context_id="vm-9") as job:
        log.info("begin")
        async with job.step("read"):
            pass
        async with job.child("verify") as child:
            log.error("wrong sum", error_type="Wrong")
    return job, child


def _logged(events):
    return [event.message for event in events if event.kind == "log"]


async def test_every_read_of_a_job_takes_each_of_its_ids(any_tracker):
    """faults 33e: what `find` understands, every other read understands: ids of one's own, a live
    job, a record.
    """
    job, child = await _parent_and_child(any_tracker)
    record = await any_tracker.jobs.get(job.id)
    for given in (job.id, "gui-1", "vm-9", job, record):
        assert (await any_tracker.jobs.find(given)).id == job.id
        assert (await any_tracker.jobs.tree(given)).job.id == job.id
        assert [step.name for step in await any_tracker.jobs.steps(given)] == ["read"]
        assert len(await any_tracker.jobs.history(given)) == 1
        assert (await any_tracker.jobs.progress(given)).job_id == job.id
        assert await any_tracker.jobs.lost_events(given) == {}
        assert (await any_tracker.jobs.estimate(given)).job_id == job.id
        assert _logged(await any_tracker.logs.list(job=given)) == ["begin", "wrong sum"]
    for parent in ("gui-1", job, record):
        assert [one.id for one in await any_tracker.jobs.list(parent_job_id=parent)] == [child.id]
    assert {one.id for one in await any_tracker.jobs.list(root_job_id="gui-1")} == {
        job.id,
        child.id,
    }
    assert [
        (one.job_id, one.total) for one in await any_tracker.stats.errors_by_job(job="gui-1")
    ] == [(job.id, await any_tracker.logs.count(job_id=job.id, children=False))]


async def test_a_log_is_found_by_each_id_and_has_the_lines_of_children(any_tracker):
    """faults 33e: `logs.list(job_id="gui-1")` shows what `structjob logs gui-1` shows, in each way
    of reading.
    """
    await _parent_and_child(any_tracker)
    logs = any_tracker.logs
    assert _logged(await logs.list(job_id="gui-1")) == ["begin", "wrong sum"]
    assert _logged(await logs.list(LogFilter(job_id="vm-9", children=False))) == ["begin"]
    assert _logged([event async for event in logs.iterate(job="gui-1")]) == ["begin", "wrong sum"]
    assert (
        await logs.count(job="gui-1") == await logs.count(job_id="gui-1") == len(await logs.list())
    )
    async with logs.tail(job="gui-1", level="error") as tail:
        assert _logged(await tail.poll(0)) == ["wrong sum"]
    first = await logs.list(job="gui-1", limit=1)
    assert (
        await logs.list(job="gui-1", limit=1, cursor=first.next_cursor)
    ).previous_cursor is not None


async def test_a_job_that_is_not_there(tracker):
    """faults 33e: `job=` names the id that is wrong; `job_id=` may be the id of a job whose row
    comes later, and finds nothing.
    """
    for read in (
        tracker.logs.list,
        tracker.logs.count,
        tracker.jobs.tree,
        tracker.jobs.steps,
        tracker.jobs.history,
    ):
        with pytest.raises(JobNotFound, match="gui-2"):
            await (
                read(job="gui-2")
                if read in (tracker.logs.list, tracker.logs.count)
                else read("gui-2")
            )
    with pytest.raises(JobNotFound, match="gui-2"):
        await tracker.logs.tail(job="gui-2").poll(0)
    assert list(await tracker.logs.list(job_id="gui-2")) == []


async def test_no_errors_are_found_of_a_job_that_does_not_exist(tracker):
    """R39: errors outlive the row of their job, so an id without a row is no mistake."""
    for read in (tracker.errors.list, tracker.stats.errors, tracker.stats.errors_by_job):
        assert await read(job="gui-2") == []
    assert await tracker.errors.count(job="gui-2") == 0


async def test_what_is_no_job_is_refused(tracker):
    """faults 33e: a step, a number or two jobs at once are refused, with what to give instead."""
    async with tracker.job("copy") as job, job.step("read") as step:
        with pytest.raises(InvalidFilter, match="Job or a JobRecord, not as Step"):
            await tracker.logs.list(job=step)
        with pytest.raises(InvalidArgument, match="not as int"):
            await tracker.jobs.tree(7)
        with pytest.raises(InvalidFilter, match="leave one of them out"):
            await tracker.logs.list(job="gui-1", job_id="j")
        with pytest.raises(InvalidFilter, match="does not query the database"):
            tracker.listen(print, job="gui-1")
        tracker.listen(print, job=job).close()


async def test_an_exact_id_comes_before_anothers_external_id(any_tracker):
    """faults 33e: a job whose id is another job's external id is found by it, as `find`
    finds it.
    """
    async with any_tracker.job("first", external_job_id="one"):
        log.info("of the first")
    async with any_tracker.job("second", job_id="one"):
        log.info("of the second")
    assert _logged(await any_tracker.logs.list(job_id="one")) == ["of the second"]


async def test_get_takes_the_id_itself_and_names_what_find_would_return(any_tracker):
    """Ruling 1: `jobs.get` is exact; its error names the job that another id means."""
    job, _ = await _parent_and_child(any_tracker)
    for other, way in (("gui-1", "external id"), ("vm-9", "context id")):
        with pytest.raises(
            JobNotFound,
            match=rf"not found: {other}; it is the {way} of {job.id} \(copy\): call find\('{other}'\)",
        ) as raised:
            await any_tracker.jobs.get(other)
        assert raised.value.any_id == other
    with pytest.raises(JobNotFound, match=r"job not found: gui-2$"):
        await any_tracker.jobs.get("gui-2")


async def test_a_tree_deeper_than_the_limit_of_recursion_can_be_shown(tracker):
    """faults 50: the text of a tree of 1,200 levels is that of its root; an empty id is named."""
    async with tracker.job("root", job_id="r-1"):
        pass
    tree = await tracker.jobs.tree("r-1")
    for _ in range(1_200):
        tree = replace(tree, children=(tree,))
    assert repr(tree) == "<JobTree r-1 root completed steps=0 children=1>"
    with pytest.raises(JobNotFound, match="the id is empty"):
        await tracker.jobs.find("")


@pytest.mark.parametrize("own", ["na\udcefve.csv", "a\x00b", "https://u:hunter2@host/x"])
async def test_an_id_is_found_as_it_was_given(any_tracker, own):
    """An id that is stored in another form, such as the name of a file that is not UTF-8, is found,
    changed and cancelled by what the program gave.
    """
    async with any_tracker.job("copy", external_job_id=own) as job:
        await any_tracker.update(own, percent=40)
        assert (await any_tracker.jobs.find(own)).id == job.id
        assert (await any_tracker.jobs.by_external_id(own)).id == job.id
    await any_tracker.create_job("later", job_id=f"1 {own}")
    await any_tracker.cancel(f"1 {own}")
    assert (await any_tracker.jobs.get(f"1 {own}")).status == "cancelled"
    with pytest.raises(JobNotFound) as missing:
        await any_tracker.jobs.find(f"no {own}")
    str(missing.value).encode()
