"""A cancellation may come at any await: the truth is recorded, nothing stays running, and it comes
out again (R9, guarantee 4).
"""

import asyncio
import logging

import anyio
import pytest
import structlog

import structjob

log = structlog.get_logger("app")


async def program(tracker, state):
    """A job with steps, a child, parallel tasks, and one that needs the database to start."""

    async def part(job, name):
        async with job.step(name) as step:
            async for _ in step.track(range(2)):
                await asyncio.sleep(0)

    async with tracker.job("plain") as job:
        async with job.step("first"):
            await asyncio.sleep(0)
            log.info("working")
        async with asyncio.TaskGroup() as group:
            group.create_task(part(job, "left"))
            group.create_task(part(job, "right"))
        async with job.child("child") as child, child.step("in the child"):
            await asyncio.sleep(0)
    async with tracker.job("named", job_id=f"named-{state['run']}") as job, job.step("only"):
        await asyncio.sleep(0)
    pending = await tracker.create_job("created")
    async with pending:
        await asyncio.sleep(0)
    state["completed"] = True


async def interrupt(tracker, at, times, run):
    """Run the program, cancel it at the loop's turn number *at* and *times* - 1 turns after.

    Returns whether it completed, and what came out.
    """
    state = {"run": run, "completed": False}
    task = asyncio.create_task(program(tracker, state))
    for _ in range(at):
        if task.done():
            break
        await asyncio.sleep(0)
    for _ in range(times):
        if not task.done():
            task.cancel("on purpose")
            await asyncio.sleep(0)
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return state["completed"], outcome


async def sweep(url, turns, times):
    """Cancel at each of *turns*; return what is in the database afterwards, as other processes see
    it, and how often it completed.
    """
    completed = 0
    async with structjob.Tracker(url, flush_interval=0.01) as tracker:
        for run, at in enumerate(turns):
            done, outcome = await interrupt(tracker, at, times, f"{times}-{run}")
            if done:
                completed += 1
                assert outcome is None or isinstance(outcome, asyncio.CancelledError)
            else:
                assert isinstance(outcome, asyncio.CancelledError), (at, outcome)
        assert len(asyncio.all_tasks()) < 10
    async with structjob.Tracker(url) as reader:
        jobs = [job async for job in everything(reader)]
        steps = [step for job in jobs for step in await reader.jobs.steps(job.id)]
        attempts = [attempt for job in jobs for attempt in await reader.jobs.history(job.id)]
        verification = await reader.verify()
    return jobs, steps, attempts, verification, completed


async def everything(tracker):
    cursor = None
    while True:
        page = await tracker.jobs.list(limit=1000, cursor=cursor)
        for job in page:
            yield job
        cursor = page.next_cursor
        if cursor is None:
            return


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(
    "turns",
    [
        range(60),
        pytest.param(
            [*range(0, 400, 1), *range(400, 6000, 50)],
            marks=[pytest.mark.slow, pytest.mark.timeout(300)],
        ),
    ],
    ids=["early", "all"],
)
async def test_cancelled_at_each_await_no_row_stays_running(db_url, caplog, turns, times):
    """Guarantee 4: once or three times in a row, at each turn of the loop: jobs and steps are
    completed or cancelled, truthfully.
    """
    structjob.configure(console=False, strict=True)
    with caplog.at_level(logging.WARNING, "structjob"):
        jobs, steps, attempts, verification, completed = await sweep(db_url, turns, times)
    assert {job.status for job in jobs} <= {"completed", "cancelled"}
    assert {step.status for step in steps} <= {"completed", "cancelled"}
    assert {attempt.status for attempt in attempts} <= {"completed", "cancelled"}
    assert verification.ok
    assert completed or len(turns) < 100  # the long sweep goes on until the program is through
    assert not [record for record in caplog.records if "still running" in record.getMessage()]
    by_job = {job.id: job for job in jobs}
    for step in steps:
        # A step that was cancelled took its job along; a job that completed had only steps that
        # did.
        if step.status == "cancelled":
            assert by_job[step.job_id].status == "cancelled"
    assert (
        sum(job.operation == "created" and job.status == "completed" for job in jobs) >= completed
    )
    for job in jobs:
        if job.status == "cancelled" and job.attempt:
            assert (job.error.type, job.cancelled_at is not None) == ("CancelledError", True)


async def test_the_sweep_reaches_the_end(db_url):
    """The driver above does cancel before, within and after the program: with enough turns it
    completes.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        assert (await interrupt(tracker, 0, 1, "start"))[0] is False
        assert (await interrupt(tracker, 1_000_000, 0, "end"))[0] is True


async def test_a_cancellation_while_the_database_is_asked_for_the_attempt_ends_that_attempt(
    tracker,
):
    """R9: the database goes on with what it was asked for; the attempt that it enters is cancelled,
    not left running.
    """
    entered = asyncio.Event()
    original = tracker._store.claim

    async def slow(row):
        entered.set()
        result = await original(row)
        await asyncio.sleep(0)
        return result

    tracker._store.claim = slow
    task = asyncio.create_task(tracker.job("a", job_id="j", owner="ada").__aenter__())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while tracker._host.claims:
        await asyncio.sleep(0)
    record = await tracker.jobs.get("j")
    assert (record.status, record.owner, record.attempt) == ("cancelled", "ada", 1)
    tracker._store.claim = original
    async with tracker.job("a", job_id="j") as again:
        assert again.attempt == 2


async def test_anyio_cancel_scopes(tracker):
    """R9: a cancelled scope marks what runs in it cancelled, and what is around it goes on."""
    async with tracker.job("outer") as outer:
        with anyio.CancelScope() as scope:
            async with outer.child("inner") as inner, inner.step("s"):
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert structjob.current_job() is outer
        with anyio.move_on_after(0.001):
            async with outer.step("slow"):
                await anyio.sleep_forever()
    assert (await tracker.jobs.get(outer.id)).status == "completed"
    assert (await tracker.jobs.get(inner.id)).status == "cancelled"
    assert [step.status for step in await tracker.jobs.steps(outer.id)] == ["cancelled"]


async def test_asyncio_timeout(tracker):
    """R9: inside the job the timeout is its failure; around it, it is cancelled."""
    with pytest.raises(TimeoutError):
        async with tracker.job("inside") as inside:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            async with tracker.job("around") as around, around.step("s"):
                limit.reschedule(asyncio.get_running_loop().time())
                await asyncio.Event().wait()
    assert (await tracker.jobs.get(inside.id)).status == "failed"
    assert (await tracker.jobs.get(around.id)).status == "cancelled"


async def test_a_failing_sibling_cancels_the_others(tracker):
    """R9: in a task group the one that failed is failed, the others are cancelled, the job around
    them failed.
    """
    waiting = asyncio.Event()

    async def fails(job):
        async with job.step("fails"):
            await waiting.wait()
            raise ValueError("x")

    async def waits(job):
        async with job.step("waits"):
            waiting.set()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup):
        async with tracker.job("a") as job, asyncio.TaskGroup() as group:
            group.create_task(fails(job))
            group.create_task(waits(job))
    assert {step.name: step.status for step in await tracker.jobs.steps(job.id)} == {
        "fails": "failed",
        "waits": "cancelled",
    }
    assert (await tracker.jobs.get(job.id)).status == "failed"


async def test_a_swallowed_cancellation_is_no_cancellation(tracker):
    """R9: the job decides by what leaves its block."""

    async def stubborn():
        async with tracker.job("a") as job:
            entered.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                job.result = "went on"
        return job

    entered = asyncio.Event()
    task = asyncio.create_task(stubborn())
    await entered.wait()
    task.cancel()
    job = await task
    record = await tracker.jobs.get(job.id)
    assert (record.status, record.result) == ("completed", "went on")


async def test_leaving_needs_no_await(tracker):
    """Guarantee 4: the final state is in the spool before anything is awaited: `__aexit__` never
    suspends.
    """
    job = await tracker.job("a").__aenter__()
    step = await job.step("s").__aenter__()
    for leaving in (step.__aexit__(None, None, None), job.__aexit__(None, None, None)):
        with pytest.raises(StopIteration):
            leaving.send(None)
    assert (await tracker.jobs.get(job.id)).status == "completed"


async def test_cancelling_aclose_leaves_nothing_behind(db_url):
    """Guarantee 4: a tracker whose closing is cancelled releases its resources, and waiting events
    stay in the spool for the next tracker.
    """
    structjob.configure(console=False, strict=True)
    for turns in range(1, 30, 3):
        tracker = await structjob.Tracker(db_url).open()
        async with tracker.job("a"):
            pass
        task = asyncio.create_task(tracker.aclose())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with structjob.Tracker(db_url) as reader:
        assert {job.status for job in await reader.jobs.list()} == {"completed"}
        assert (await reader.verify()).ok
