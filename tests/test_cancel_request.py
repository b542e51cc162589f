"""Jobs are cancelled by request, with a reason, wherever they run (R9)."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from datetime import UTC, datetime

import pytest
import structlog
from stopwatch import Stopwatch

import structjob
from structjob.exceptions import InvalidState, JobNotFound
from structjob.spool.session import Session
from structjob.store import cancellations
from structjob.store.contract import Ending
from structjob.store.ingest import JOB_COLUMNS

log = structlog.get_logger("cancelling")


def rows(path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
async def other(db_url, tracker):
    """Another session on the same database, as another process has."""
    async with structjob.Tracker(db_url, spool=False) as opened:
        yield opened


async def until_cancelled(tracker: structjob.Tracker, began: asyncio.Event, **options) -> None:
    async with tracker.job("long", **options) as job, job.step("wait"):
        began.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("by", ["ada", None])
async def test_a_job_of_another_process(db_path, tracker, other, by):
    """It gets a `CancelledError` with the reason in its own task, within two seconds, and is
    recorded as cancelled (R9).
    """
    began = asyncio.Event()
    task = asyncio.create_task(
        until_cancelled(tracker, began, job_id="remote", external_job_id="gui-17")
    )
    await began.wait()
    watch = Stopwatch()
    await other.cancel("gui-17", "the disk is needed", by=by)
    with pytest.raises(asyncio.CancelledError, match="the disk is needed"):
        await task
    assert watch.seconds < 4.0
    await tracker.flush()
    job = await other.jobs.get("remote")
    assert job.status == "cancelled"
    assert job.cancelled_at is not None
    assert job.error is not None
    assert job.error.message == "the disk is needed"
    assert [step.status for step in (await other.jobs.tree("remote")).steps] == ["cancelled"]
    (event,) = [
        event
        for event in await other.logs.list(job_id="remote")
        if event.kind == "cancel_requested"
    ]
    assert event.attrs == {"reason": "the disk is needed", **({"requested_by": by} if by else {})}
    assert event.message == f"cancellation of {event.operation} requested"
    await tracker._engine._maintenance._canceller.look()
    assert rows(db_path, "SELECT count(*) FROM structjob_cancellations") == [(0,)]


async def test_on_every_database(any_tracker, database, tmp_path):
    """Asked for by one session, taken up by the one that runs the job: cancelled with its step, and
    no request is left (R9).
    """
    began = asyncio.Event()
    task = asyncio.create_task(
        until_cancelled(any_tracker, began, job_id="remote", context_id="vm-9")
    )
    await began.wait()
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as other:
        await other.cancel("vm-9", "the disk is needed")
        with pytest.raises(asyncio.CancelledError, match="the disk is needed"):
            await task
    record = await any_tracker.jobs.get("remote")
    assert (record.status, record.error.message) == ("cancelled", "the disk is needed")
    assert [step.status for step in await any_tracker.jobs.steps("remote")] == ["cancelled"]
    await any_tracker._engine._maintenance._canceller.look()
    assert await database.rows("SELECT * FROM structjob_cancellations") == []


async def test_a_job_of_this_process(db_path, tracker):
    """It is cancelled at once, and no request is left (R9)."""
    began = asyncio.Event()
    task = asyncio.create_task(until_cancelled(tracker, began, job_id="here"))
    await began.wait()
    await tracker.cancel("here")
    with pytest.raises(asyncio.CancelledError):
        await task
    job = await tracker.jobs.get("here")
    assert job.status == "cancelled"
    assert job.error is not None
    assert job.error.message == "cancelled by request"
    assert rows(db_path, "SELECT count(*) FROM structjob_cancellations") == [(0,)]


async def test_children_go_with_their_parent(tracker, other):
    """What runs below a job that is cancelled is cancelled too (R9)."""
    began = asyncio.Event()

    async def parent() -> None:
        async with tracker.job("parent", job_id="parent") as job:
            async with asyncio.TaskGroup() as group:
                group.create_task(child(job))

    async def child(job: structjob.Job) -> None:
        async with job.child("child", job_id="child"):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(parent())
    await began.wait()
    await other.cancel("parent", "enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    await tracker.flush()
    assert {job.id: job.status for job in await other.jobs.list()} == {
        "parent": "cancelled",
        "child": "cancelled",
    }


async def test_a_pending_job_never_starts(tracker, other):
    """A pending job is cancelled at once, and a later start of it raises (R9, R13)."""
    job = await tracker.create_job("later", job_id="later")
    await other.cancel("later", "not wanted any more", by="ada")
    await other.flush()
    record = await other.jobs.get("later")
    assert (record.status, record.attempt, record.error.message) == (
        "cancelled",
        0,
        "not wanted any more",
    )
    assert record.cancelled_at is not None
    for starting in (job.start(), other.job("later", job_id="later").__aenter__()):
        with pytest.raises(
            structjob.JobCancelled,
            match=r"job later .* cancelled before it began: not wanted any more",
        ):
            await starting
    await tracker.flush()
    assert (await other.jobs.get("later")).status == "cancelled"
    (event,) = [
        event for event in await other.logs.list(job_id="later") if event.kind == "operation_end"
    ]
    assert event.attrs["reason"] == "not wanted any more"
    assert event.attrs["requested_by"] == "ada"


async def test_a_job_that_has_ended(tracker, other):
    """There is nothing to cancel, and the message says what it is (R9)."""
    async with tracker.job("quick", job_id="quick"):
        pass
    await tracker.flush()
    for one in (tracker, other):
        with pytest.raises(InvalidState, match=r"job quick \(quick\) has already ended: completed"):
            await one.cancel("quick", "too late")
        with pytest.raises(JobNotFound, match="job not found: nobody"):
            await one.cancel("nobody")


async def test_a_job_without_a_task(tracker, other, caplog):
    """A job that is run by hand has no code to stop: here it is an error, for another process it is
    told in this one's log (R9).
    """
    job = await (await tracker.create_job("by hand", job_id="hand")).start()
    with pytest.raises(InvalidState, match="has no running task to cancel"):
        await tracker.cancel("hand")
    await other.cancel("hand", "please")
    async with asyncio.timeout(60):
        while "a request to cancel failed" not in caplog.text:
            await asyncio.sleep(0.02)
    await job.end()
    await tracker.flush()
    assert (await other.jobs.get("hand")).status == "completed"


async def test_a_request_that_comes_too_late_cancels_nothing_else(tracker):
    """A job that ends before the loop hears of another thread's request has completed, and so does
    what comes after it (R9).
    """
    async with tracker.job("quick", job_id="quick") as quick:
        thread = threading.Thread(target=quick.cancel)
        thread.start()
        thread.join()
    async with tracker.job("next", job_id="next"):
        await asyncio.sleep(0)
    assert {job.id: job.status for job in await tracker.jobs.list()} == {
        "quick": "completed",
        "next": "completed",
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("tried", [False, True])
async def test_a_job_cancels_itself(any_tracker, tried, fails):
    """Though its code waits for nothing more, or fails, it ends as cancelled, by a
    `CancelledError`, and nothing after it is (R9).
    """
    went_on = []

    async def work(job: structjob.Job) -> None:
        job.cancel("enough")
        if fails:
            raise ValueError("for that")

    async def plain() -> None:
        async with any_tracker.job("own") as job:
            await work(job)
        went_on.append(job)

    async def retried() -> None:
        async for attempt in any_tracker.retrying("own", max_attempts=3, delay=0):
            async with attempt as job:
                await work(job)
            went_on.append(job)

    with pytest.raises(asyncio.CancelledError, match="enough"):
        await asyncio.create_task(retried() if tried else plain())
    assert not went_on
    (record,) = await any_tracker.jobs.list()
    assert (record.status, record.attempt, record.error.message) == ("cancelled", 1, "enough")


async def test_a_job_that_has_caught_its_cancellation_goes_on(tracker):
    """A job that catches its cancellation completes, and nothing after it is cancelled (R9)."""

    async def work() -> None:
        async with tracker.job("stubborn", job_id="stubborn") as job:
            job.cancel("enough")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            job.result = "went on"
        await asyncio.sleep(0)

    await asyncio.create_task(work())
    record = await tracker.jobs.get("stubborn")
    assert (record.status, record.result) == ("completed", "went on")


async def test_the_newest_of_two_live_attempts_is_cancelled(any_tracker):
    """It is the one that the job shows; the others go on (R2, R9)."""
    release, tasks = asyncio.Event(), []

    async def attempt(began: asyncio.Event) -> None:
        async with any_tracker.job("twice", job_id="twice"):
            began.set()
            await release.wait()

    for _ in range(5):
        began = asyncio.Event()
        tasks.append(asyncio.create_task(attempt(began)))
        await began.wait()
    await any_tracker.cancel("twice", "once is enough")
    with pytest.raises(asyncio.CancelledError, match="once is enough"):
        await tasks.pop()
    release.set()
    await asyncio.gather(*tasks)
    assert [found.status for found in await any_tracker.jobs.history("twice")] == [
        "completed"
    ] * 4 + ["cancelled"]


async def test_what_the_job_does_to_clean_up_is_cancelled_by_no_second_word(tracker, other):
    """Asked twice, it is cancelled once (R9)."""
    began, cleaning, cleaned = asyncio.Event(), asyncio.Event(), []

    async def main() -> None:
        async with tracker.job("careful", job_id="careful"):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await asyncio.sleep(0)
                await tracker._engine._maintenance._canceller.look()
                cleaned.append(True)

    task = asyncio.create_task(main())
    await began.wait()
    await other.cancel("careful", "first")
    await cleaning.wait()
    with pytest.raises(asyncio.CancelledError, match="first"):
        await task
    assert cleaned == [True]


async def test_a_request_to_a_dead_process_is_settled_with_it(db_path, tracker):
    """When the job is found crashed, nothing is left to take up (R9, R11)."""
    store = tracker._store
    session = Session(host="elsewhere", boot_id="another", pid=1)
    await store.begin_session(session)
    await store.claim(
        dict.fromkeys(JOB_COLUMNS)
        | {
            "id": "dead",
            "operation": "dead",
            "status": "running",
            "category": "system",
            "root_job_id": "dead",
            "attempt": 1,
        }
        | {
            "session_id": session.session_id,
            "state_seq": 0,
            "created_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
        }
    )
    await tracker.cancel("dead", "is anybody there")
    assert rows(db_path, "SELECT job_id, reason FROM structjob_cancellations") == [
        ("dead", "is anybody there")
    ]
    await store.end_session(session, Ending(reason="died"))
    assert rows(db_path, "SELECT count(*) FROM structjob_cancellations") == [(0,)]
    assert (await tracker.jobs.get("dead")).status == "crashed"


async def test_nobody_asks_while_no_job_runs(tracker, monkeypatch):
    """An idle program costs the database nothing (R9)."""
    asked = []
    monkeypatch.setattr(cancellations, "requests", lambda session_id: asked.append(session_id))
    await tracker._engine._maintenance._canceller.look()
    assert not asked


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_second_cancellation_is_refused(any_tracker, database, tmp_path, elsewhere):
    """faults 23: the cleanup runs to its end and the first reason stays; the error of the second
    caller says both.
    """
    began, cleaning, go_on, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

    async def main() -> None:
        async with any_tracker.job("careful", job_id="careful"):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await go_on.wait()
                cleaned.append(True)

    task = asyncio.create_task(main())
    await began.wait()
    async with contextlib.AsyncExitStack() as stack:
        asking = any_tracker
        if elsewhere:
            asking = await stack.enter_async_context(
                structjob.Tracker(database.url, spool=tmp_path / "other")
            )
        await asking.cancel("careful", "first", by="ada")
        await cleaning.wait()
        with pytest.raises(
            InvalidState,
            match=r"job careful \(careful\) is being cancelled already.*: first; with force=True",
        ):
            await asking.cancel("careful", "second")
        job = any_tracker.live_job("careful")
        with pytest.raises(InvalidState, match="is being cancelled already: first"):
            job.cancel("third")
        assert job.cancel_requested
        go_on.set()
        with pytest.raises(asyncio.CancelledError, match="first"):
            await task
    assert cleaned == [True]
    record = await any_tracker.jobs.get("careful")
    assert (record.status, record.error.message) == ("cancelled", "first")
    asked = [
        event.attrs["reason"]
        for event in await any_tracker.logs.list(job_id="careful", kind="cancel_requested")
    ]
    assert asked == ["first"]


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_by_force_it_is_cancelled_once_more(any_tracker, database, tmp_path, elsewhere):
    """faults 23: who means it says so; then the cleanup is interrupted, once for each
    such request.
    """
    began, cleaning, interrupted = asyncio.Event(), asyncio.Event(), []

    async def main() -> None:
        async with any_tracker.job("careful", job_id="careful"):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError as exc:
                    interrupted.append(str(exc))
                    await any_tracker._engine._maintenance._canceller.look()
                    raise

    task = asyncio.create_task(main())
    await began.wait()
    async with contextlib.AsyncExitStack() as stack:
        asking = any_tracker
        if elsewhere:
            asking = await stack.enter_async_context(
                structjob.Tracker(database.url, spool=tmp_path / "other")
            )
        await asking.cancel("careful", "first")
        await cleaning.wait()
        await asking.cancel("careful", "now", force=True)
        with pytest.raises(asyncio.CancelledError, match="now"):
            await task
    assert interrupted == ["now"]


async def test_each_attempt_can_be_cancelled(tracker):
    """faults 23: that the first attempt was cancelled says nothing of the second."""
    for reason in ("first", "second"):
        began = asyncio.Event()
        task = asyncio.create_task(until_cancelled(tracker, began, job_id="again"))
        await began.wait()
        await tracker.cancel("again", reason)
        with pytest.raises(asyncio.CancelledError, match=reason):
            await task
    assert [attempt.error.message for attempt in await tracker.jobs.history("again")] == [
        "first",
        "second",
    ]


async def test_a_child_in_a_task_that_is_being_cancelled_is_left_to_its_cleanup(tracker):
    """faults 23: parent and child run in one task, and a second cancellation would hit the cleanup
    of both.
    """
    began, cleaning, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def main() -> None:
        async with tracker.job("parent", job_id="parent"), tracker.job("child", job_id="child"):
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.set()
                await go_on.wait()

    task = asyncio.create_task(main())
    await began.wait()
    await tracker.cancel("parent", "enough")
    await cleaning.wait()
    with pytest.raises(
        InvalidState, match=r"job parent \(parent\) is being cancelled already: enough"
    ):
        await tracker.cancel("child", "too")
    go_on.set()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert {(await tracker.jobs.get(name)).status for name in ("parent", "child")} == {"cancelled"}
