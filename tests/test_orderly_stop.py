"""An orderly stop records the truth: what a tracker leaves running when it closes is cancelled, not
crashed (guarantees 4 and 6).
"""

import asyncio
import contextlib
import signal
import threading
from pathlib import Path

import pytest
import structlog
from cli_support import environment
from faulty_store import FaultyStore, faulty
from prefork import Preforked

import structjob
from structjob import Tracker
from structjob.lifecycle.handle import core_of

__all__ = ["faulty"]
log = structlog.get_logger()

REASON = "its tracker was closed while it ran"


@pytest.fixture(autouse=True)
def _configured():
    structjob.configure(console=False, strict=True)


@pytest.fixture
def url(database, tmp_path):
    """A database on each server, with a spool of its own."""
    return {"url": database.url, "spool": tmp_path / "spool"}


async def told(reader, job_id):
    """Return what a database tells of a job: its status and error, those of its steps, and its
    events, without those of progress: a job that takes over a second has some.
    """
    job = await reader.jobs.get(job_id)
    steps = [
        (step.name, step.status.value, step.error and step.error.message)
        for step in await reader.jobs.steps(job_id)
    ]
    events = [
        event.message if event.kind == "log" else event.kind
        async for event in reader.logs.iterate(job_id=job_id)
        if event.kind != "progress"
    ]
    return job, steps, events


async def background(tracker, begun, go_on, after):
    """A task of a server's: it runs a job that goes on until it is told to end."""
    try:
        async with (
            tracker.job("background", wait=False) as job,
            job.step("outer"),
            structjob.step("inner") as inner,
        ):
            inner.advance(3)
            log.info("at work")
            begun.set_result(job)
            await go_on.wait()
            inner.advance(1)
            structjob.current_step().advance(1)
            job.update(percent=99)
            job.result = {"ended": True}
    except BaseException as exc:
        after.append(exc)
        raise


async def start_background(tracker):
    begun, go_on, after = asyncio.get_running_loop().create_future(), asyncio.Event(), []
    task = asyncio.create_task(background(tracker, begun, go_on, after))
    return await begun, go_on, after, task


async def test_a_job_that_runs_when_its_tracker_closes_is_cancelled(url, caplog):
    """Faults 56: with its steps, its reason, its progress and its log lines, in order; and a
    warning names it.
    """
    tracker = await Tracker(**url).open()
    job, go_on, after, task = await start_background(tracker)
    assert await tracker.aclose()
    go_on.set()
    await task
    assert after == []
    async with Tracker(**url) as reader:
        found, steps, events = await told(reader, job.id)
        assert (found.status, found.error.type, found.error.message) == (
            "cancelled",
            "CancelledError",
            REASON,
        )
        assert found.cancelled_at == found.completed_at >= found.started_at
        assert found.duration_ms is not None
        assert steps == [("outer", "cancelled", REASON), ("inner", "cancelled", REASON)]
        assert [step.completed for step in await reader.jobs.steps(job.id)] == [0, 3]
        assert events == [
            "operation_start",
            "step_start",
            "step_start",
            "at work",
            "step_end",
            "step_end",
            "operation_end",
        ]
        (attempt,) = await reader.jobs.history(job.id)
        assert attempt.status == "cancelled"
        (last,) = await reader.logs.list(job_id=job.id, kind="operation_end")
        assert (last.level, last.attrs["status"], last.attrs["error_message"]) == (
            "warning",
            "cancelled",
            REASON,
        )
        assert await reader.errors.list() == []
        (session,) = [
            one for one in await reader.sessions.list() if one.session_id == tracker.session_id
        ]
        assert session.end_reason == "closed"
        assert (await reader.verify()).ok
    assert (
        f"job {job.id} (background) was still running when its tracker closed; it is recorded as cancelled"
        in caplog.text
    )


async def test_the_end_of_a_job_wins_while_its_tracker_flushes(url):
    """Faults 56: what a job does until the last moment is recorded as it was."""
    tracker = await Tracker(**url).open()
    job, go_on, _, task = await start_background(tracker)
    flush = tracker._engine._deliver_most

    async def end_meanwhile():
        await flush()
        go_on.set()
        await task

    tracker._engine._deliver_most = end_meanwhile
    assert await tracker.aclose()
    async with Tracker(**url) as reader:
        found, steps, _ = await told(reader, job.id)
        assert (found.status, found.error, found.result) == ("completed", None, {"ended": True})
        assert [status for _, status, _ in steps] == ["completed", "completed"]


BY_HAND = {
    "job.end": lambda job, step: job.end("failed", error=RuntimeError("late")),
    "step.end": lambda job, step: step.end(),
    "step.skip": lambda job, step: asyncio.to_thread(step.skip, "late"),
    "progress": lambda job, step: asyncio.to_thread(
        lambda: (step.advance(), step.update(completed=5), job.update(percent=5))
    ),
    "new step": lambda job, step: asyncio.ensure_future(a_step(job)),
    "result": lambda job, step: asyncio.to_thread(setattr, job, "result", 5),
}


async def a_step(job):
    async with job.step("late") as step:
        step.advance()
    with job.as_current():
        async with structjob.step("late, too"):
            pass


@pytest.mark.parametrize("what", BY_HAND)
@pytest.mark.filterwarnings("error")
async def test_what_a_job_does_after_its_tracker_closed_raises_nothing(db_url, what):
    """Faults 56: code that goes on is not harmed, and what was recorded does not change."""
    async with Tracker(db_url) as tracker:
        job = await tracker.create_job("by-hand")
        await job.start()
        step = await job.step("open").start()
    assert (job.status, step.status) == ("cancelled", "cancelled")
    await BY_HAND[what](job, step)
    async with Tracker(db_url) as reader:
        found, steps, events = await told(reader, job.id)
        assert (found.status, found.error.message, found.result) == ("cancelled", REASON, None)
        assert steps == [("open", "cancelled", REASON)]
        assert events.count("operation_end") == 1


async def test_a_job_can_still_be_cancelled_after_its_tracker_closed(db_url):
    """Faults 56: a program that ends its tasks by ``job.cancel()`` may close its tracker first."""
    tracker = await Tracker(db_url).open()
    job, _, after, task = await start_background(tracker)
    await tracker.aclose()
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(exc) for exc in after] == [asyncio.CancelledError]


async def test_the_jobs_of_another_tracker_go_on(db_url, tmp_path):
    """Faults 56: each tracker ends only its own jobs."""
    async with Tracker(f"sqlite:///{tmp_path}/other.db") as other, other.job("other") as job:
        async with Tracker(db_url) as tracker:
            left = await tracker.job("left").__aenter__()
        assert (left.status, job.status) == ("cancelled", "running")
    assert job.status == "completed"


async def test_it_is_in_the_spool_though_the_database_is_frozen(
    database, tmp_path, faulty: FaultyStore
):
    """Faults 56, guarantees 4 and 6: closing ends in time, and the final state is delivered by the
    next tracker.
    """
    options = {"url": database.url, "spool": tmp_path / "spool"}
    tracker = await Tracker(**options).open()
    job, go_on, after, task = await start_background(tracker)
    await tracker.flush()
    faulty.frozen = True
    assert not await tracker.aclose(0.5)
    faulty.frozen = False
    faulty.thawed.set()
    go_on.set()
    await task
    assert after == []
    async with Tracker(**options) as reader:
        await reader.flush()
        found, steps, events = await told(reader, job.id)
        assert (found.status, found.error.message) == ("cancelled", REASON)
        assert [status for _, status, _ in steps] == ["cancelled", "cancelled"]
        assert events[-1] == "operation_end"


async def test_it_is_in_the_spool_though_closing_is_cancelled(
    database, tmp_path, faulty: FaultyStore
):
    """Faults 56, guarantee 4: as `asyncio.run` does after Ctrl-C while the tracker waits for its
    database.
    """
    options = {"url": database.url, "spool": tmp_path / "spool"}
    tracker = await Tracker(**options).open()
    job, go_on, _, task = await start_background(tracker)
    await tracker.flush()
    log.info("keeps the tracker waiting")
    faulty.frozen = True
    closing = asyncio.create_task(tracker.aclose())
    while tracker._engine.recorder.closed is False and not closing.done():
        await asyncio.sleep(0)
        closing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await closing
    faulty.frozen = False
    faulty.thawed.set()
    go_on.set()
    await task
    async with Tracker(**options) as reader:
        await reader.flush()
        assert (await reader.jobs.get(job.id)).status == "cancelled"


def test_it_is_recorded_where_the_loop_is_closed(db_url):
    """Faults 56: the loop in which the tracker was opened has ended, and the tracker is closed in
    the next one.
    """
    tracker = Tracker(db_url)

    async def begin():
        await tracker.open()
        return await tracker.job("left").__aenter__()

    async def look(job):
        async with Tracker(db_url) as reader:
            await reader.flush()
            return await reader.jobs.get(job.id)

    job = asyncio.run(begin())
    asyncio.run(tracker.aclose())
    found = asyncio.run(look(job))
    assert (found.status, found.error.message) == ("cancelled", REASON)
    for thread in threading.enumerate():
        if thread.name == "structjob-watchdog":  # it would say for ever that the session lives
            thread.join(10)
            assert not thread.is_alive()


async def test_a_job_that_begins_while_its_tracker_closes_is_cancelled(url):
    """Faults 56: its start is in the database, and its tracker takes no more records."""
    tracker = await Tracker(**url).open()
    job = await tracker.job("late", job_id="late").__aenter__()
    await tracker.flush()
    tracker._host.live.discard(core_of(job))
    await tracker.aclose()
    async with Tracker(**url) as reader:
        found, _, events = await told(reader, "late")
        assert (found.status, found.error.type, found.error.message) == (
            "cancelled",
            "CancelledError",
            REASON,
        )
        assert found.cancelled_at == found.completed_at >= found.started_at
        assert "operation_crashed" not in events


async def test_a_thread_that_works_on(db_url):
    """Faults 56: a job in a thread's own loop goes on beside the tracker that closes, and neither
    harms the other.
    """
    tracker = await Tracker(db_url).open()
    begun, over, outcome = threading.Event(), threading.Event(), []

    async def work():
        async with tracker.job("thread") as job, job.step("s") as step:
            begun.set()
            while not over.is_set():
                step.advance()
        outcome.append(job.status.value)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    await asyncio.to_thread(begun.wait)
    await tracker.aclose()
    over.set()
    await asyncio.to_thread(thread.join)
    assert outcome == ["cancelled"]
    async with Tracker(db_url) as reader:
        (job,) = await reader.jobs.list()
        assert job.status == "cancelled"
        assert (await reader.verify()).ok


PROGRAM = """
import asyncio, os, signal, sys
import structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger()

async def main():
    tracker = await structjob.Tracker(sys.argv[1], spool=sys.argv[2], handle_signals=False).open()
    job = await tracker.create_job("left")
    await job.start()
    await job.step("open").start()
    log.info("at work")
    if "fork" in sys.argv:
        pid = os.fork()
        if pid == 0:
            await tracker.aclose()
            os._exit(0 if job.status == "running" else 1)
        assert os.waitpid(pid, 0)[1] == 0
        await job.end()
        await tracker.aclose()
    if "kill" in sys.argv:
        await tracker.flush()
        os.kill(os.getpid(), signal.SIGKILL)

async def begin():
    tracker = await structjob.Tracker(sys.argv[1], spool=sys.argv[2], handle_signals=False).open()
    job = await tracker.create_job("left")
    await job.start()
    await job.step("open").start()
    return tracker

if "stopped" in sys.argv:
    # Another loop closes the tracker, whose own does not run any more.
    tracker = asyncio.new_event_loop().run_until_complete(begin())
    assert not asyncio.run(tracker.aclose(0.2))
    os._exit(0)
asyncio.run(main())
"""


# An interpreter that ends does all that it does at its end: that is what is tried.
_programs = Preforked(environment())


def run(*arguments, expect=0):
    done = _programs.run(PROGRAM, arguments, Path.cwd())
    assert done.returncode == expect, done.stderr.decode()
    return done.stderr.decode()


@pytest.mark.parametrize(
    ("way", "code", "status", "message"),
    [
        ("end", 0, "cancelled", "its process ended while it ran, and its tracker was not closed"),
        ("stopped", 0, "cancelled", REASON),
        ("kill", -signal.SIGKILL, "crashed", "ended without finishing it"),
        ("fork", 0, "completed", None),
    ],
)
async def test_how_a_process_ends(url, way, code, status, message):
    """Faults 56: an interpreter that ends cancels what it left; kill -9 stays a crash; a forked
    child leaves its parent's jobs alone.
    """
    said = await asyncio.to_thread(run, url["url"], str(url["spool"]), way, expect=code)
    assert "Traceback" not in said
    async with Tracker(**url) as reader:
        await reader.flush()
        (job,) = await reader.jobs.list()
        found, steps, events = await told(reader, job.id)
        assert found.status == status
        assert message is None or message in found.error.message
        assert [one for _, one, _ in steps] == ["cancelled" if status == "completed" else status]
        assert ("operation_crashed" in events) == (status == "crashed")
        (session,) = [
            one for one in await reader.sessions.list() if one.session_id == found.session_id
        ]
        assert session.status == ("died" if way == "kill" else "closed")
        assert (await reader.verify()).ok
