"""One walk through jobs, steps, retries and attempts, in ``async with`` and in plain ``with``: what
is recorded is the same (R8, R9, R12, R14, R15).
"""

import asyncio

import pytest
import structlog

import structjob

log = structlog.get_logger("app")


class Plain:
    """A plain block or loop as an asynchronous one that awaits nothing."""

    def __init__(self, wrapped):
        self._wrapped = wrapped

    async def __aenter__(self):
        return self._wrapped.__enter__()

    async def __aexit__(self, *exc):
        return self._wrapped.__exit__(*exc)

    async def __aiter__(self):
        for one in self._wrapped:
            yield one


async def walk(tracker, block):
    """Do a bit of everything; *block* makes the blocks and loops."""
    async with block(tracker.job("load", job_id="load-1", owner="ada", total_steps=2)) as job:
        assert structjob.current_job() is job
        async with block(job.step("read", total=3)) as step:
            async for number in block(step.track([1, 2, 3])):
                log.info("read", number=number)
        async with block(structjob.step("write")):
            async with block(job.child("index")) as child:
                log.info("indexing")
                child.result = {"rows": 3}
                assert (child.parent_job_id, child.owner) == (job.id, "ada")
            assert structjob.current_job() is job
    assert structjob.current_job() is None
    with pytest.raises(ValueError, match="bad"):
        async with block(tracker.job("load", job_id="load-1")) as job, block(job.step("read")):
            raise ValueError("bad")
    assert job.attempt == 2
    async with block(tracker.job("publish", idempotency_key="k")) as job:
        async for attempt in block(structjob.retrying("upload", delay=0, on=OSError)):
            async with block(attempt):
                if attempt.number < 3:
                    raise OSError("not yet")
    async with block(tracker.job("publish", idempotency_key="k")) as again:
        assert (again.existing, again.id) == (True, job.id)
    async for attempt in block(tracker.retrying("whole", job_id="whole-1", delay=0, on=OSError)):
        async with block(attempt) as job:
            if job.attempt == 1:
                raise OSError("first")
    with pytest.raises(KeyboardInterrupt):
        async with block(tracker.job("interrupted")), block(structjob.step("s")):
            raise KeyboardInterrupt
    async with block(tracker.job("by hand")) as job:
        step = await job.step("skipped").start()
        step.skip("nothing to do")
        job.end("failed")


def without_a_loop(work):
    """Run a coroutine that awaits nothing."""
    with pytest.raises(StopIteration):
        work.send(None)


def walked(url, spool):
    """Walk in plain blocks, in a thread that has no loop."""
    with structjob.Tracker(url, spool=spool) as tracker:
        without_a_loop(walk(tracker, Plain))


async def facts(tracker):
    """Return what is recorded: jobs with their attempts and steps, and the kinds of all events."""
    found = {}
    for job in await tracker.jobs.list(limit=100, order="asc"):
        attempts = [
            (one.attempt, one.status.value, one.error and one.error.type)
            for one in await tracker.jobs.history(job.id)
        ]
        steps = [
            (one.name, one.status.value, one.completed)
            for attempt in attempts
            for one in await tracker.jobs.steps(job.id, attempt=attempt[0])
        ]
        found[job.operation] = (job.result, attempts, steps)
    events = [
        (event.kind, event.level, event.message, event.operation, event.step)
        async for event in tracker.logs.iterate()
        if event.kind == "log" or event.attrs.get("duration_ms") is None
    ]
    assert (await tracker.verify()).ok
    return found, events


@pytest.mark.databases
async def test_both_styles_record_the_same(database, tmp_path):
    """Acceptance test 2. R8, R9, R12, R14, R15: statuses, attempts, steps, results and events."""
    structjob.configure(console=False, strict=True)
    await asyncio.to_thread(walked, database.url, tmp_path / "spool")
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        plain = await facts(tracker)
    async with structjob.Tracker(f"sqlite:///{tmp_path}/other.db") as tracker:
        await walk(tracker, lambda wrapped: wrapped)
        assert await facts(tracker) == plain
    jobs, _ = plain
    assert jobs == {
        "load": (
            None,  # of the latest attempt
            [(1, "completed", None), (2, "failed", "ValueError")],
            [("read", "completed", 3), ("write", "completed", 0), ("read", "failed", 0)],
        ),
        "index": ({"rows": 3}, [(1, "completed", None)], []),
        "publish": (
            None,
            [(1, "completed", None)],
            [
                ("upload", "completed", 0),
                ("attempt-1", "retrying", 0),
                ("attempt-2", "retrying", 0),
                ("attempt-3", "completed", 0),
            ],
        ),
        "whole": (None, [(1, "failed", "OSError"), (2, "completed", None)], []),
        "interrupted": (
            None,
            [(1, "cancelled", "KeyboardInterrupt")],
            [("s", "cancelled", 0)],
        ),
        "by hand": (None, [(1, "failed", None)], [("skipped", "skipped", 0)]),
    }
