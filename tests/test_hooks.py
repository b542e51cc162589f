"""Hooks: functions that are called when jobs and steps begin and end (R10, R28)."""

import asyncio
import threading

import pytest

import structjob
from structjob.diagnostics import faults


@pytest.fixture
def seen():
    """The transitions of a test, in order."""
    found = []
    remove = structjob.add_hook(found.append)
    yield found
    remove()


def short(transitions):
    return [
        (one.what, one.change, one.status.value, one.step and one.step.name) for one in transitions
    ]


async def test_a_hook_hears_of_every_beginning_and_end(tracker, seen):
    """R10, R28: jobs and steps in order, the exception that ended them, how long it took."""
    exc = ValueError("bad")
    with pytest.raises(ValueError, match="bad"):
        async with tracker.job("a") as job:
            async with job.step("good"):
                pass
            async with job.step("bad"):
                raise exc
    assert short(seen) == [
        ("job", "started", "running", None),
        ("step", "started", "running", "good"),
        ("step", "ended", "completed", "good"),
        ("step", "started", "running", "bad"),
        ("step", "ended", "failed", "bad"),
        ("job", "ended", "failed", None),
    ]
    assert [one.error for one in seen] == [None, None, None, None, exc, exc]
    assert all(one.entered and one.job is job for one in seen)
    assert [one.duration_ms is not None for one in seen] == [False, False, True, False, True, True]
    assert sorted(one.ns for one in seen) == [one.ns for one in seen]


async def test_work_that_is_begun_by_hand_is_not_entered(tracker, seen):
    """R28: its end may be in another context than its beginning, and the hook is told. A job that
    never began does not end, either.
    """
    await (await tracker.create_job("given up")).end("cancelled")
    job = await tracker.create_job("by hand")
    assert seen == []
    await job.start()
    job.step("s").start()
    job.end("failed")
    assert short(seen) == [
        ("job", "started", "running", None),
        ("step", "started", "running", "s"),
        ("step", "ended", "cancelled", "s"),
        ("job", "ended", "failed", None),
    ]
    assert not any(one.entered for one in seen)


async def test_the_change_is_recorded_before_the_hook_is_called(tracker):
    """R28: in the thread of the change, with the record on its way."""
    found = []

    def hook(transition):
        ledger = tracker.ledger()
        waiting = ledger.stored + ledger.spilled + ledger.in_memory
        found.append((threading.get_ident(), waiting, structjob.current_job()))

    remove = structjob.add_hook(hook)
    async with tracker.job("a", wait=False):
        pass
    remove()
    async with tracker.job("b", wait=False):
        pass
    assert [(thread, job) for thread, _, job in found] == [(threading.get_ident(), None)] * 2
    assert [waiting for _, waiting, _ in found] == [1, 2]


async def test_a_hook_that_raises_harms_neither_work_nor_other_hooks(db_url, seen):
    """R28: it is counted; the job goes on."""
    structjob.configure(console=False)

    def broken(transition):
        raise RuntimeError("no exporter")

    remove = structjob.add_hook(broken)
    heard = []
    last = structjob.add_hook(heard.append)
    before = faults.counts.get("calling a hook", 0)
    async with structjob.Tracker(db_url) as tracker, tracker.job("a") as job:
        pass
    remove()
    last()
    remove()
    assert job.status == "completed"
    assert len(heard) == len(seen) == 2
    assert faults.counts["calling a hook"] - before == 2


async def test_every_tracker_is_heard(db_url, tmp_path, seen):
    """R28: also those that open later; what a closing tracker ends is no block's end."""
    structjob.configure(console=False)
    for name in ("one", "two"):
        tracker = await structjob.Tracker(f"sqlite:///{tmp_path}/{name}.db").open()
        await tracker.job(name).__aenter__()
        await tracker.aclose()
    assert [(one.job.operation, one.change, one.status.value, one.entered) for one in seen] == [
        ("one", "started", "running", True),
        ("one", "ended", "cancelled", False),
        ("two", "started", "running", True),
        ("two", "ended", "cancelled", False),
    ]


async def test_a_hook_that_begins_jobs_is_not_called_for_them(tracker, seen):
    """A job that reports the end of a job would be reported, too, and so on for ever."""
    tasks = []

    async def report_later():
        async with tracker.job("later"):
            pass

    def report(transition):
        if transition.what == "job" and transition.change == "ended":
            tasks.append(asyncio.create_task(report_later()))

    structjob.add_hook(report)
    async with tracker.job("work"):
        pass
    await asyncio.gather(*tasks)
    assert len(tasks) == 1
    assert [one.job.operation for one in seen if one.what == "job"] == ["work"] * 2 + ["later"] * 2
    async with tracker.job("more work"):
        pass
    assert len(tasks) == 2
    await asyncio.gather(*tasks)


def test_what_cannot_be_called_is_refused():
    """R28: where the mistake is made."""
    with pytest.raises(structjob.InvalidArgument, match="a hook is a function"):
        structjob.add_hook("no function")

    async def awaited(transition): ...

    with pytest.raises(structjob.InvalidArgument, match="is a coroutine function"):
        structjob.add_hook(awaited)


def test_reset_removes_them():
    """Everything process-wide goes back to the state of import."""
    heard = []
    structjob.add_hook(heard.append)
    structjob.reset()
    structjob.configure(console=False)
    with structjob.Tracker("sqlite://") as tracker, tracker.job("a"):
        pass
    assert heard == []
