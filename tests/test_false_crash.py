"""A process that was presumed dead, and was not: what was said of its jobs is corrected, in the log
and in the error report.
"""

import pytest
import structlog

import structjob
from structjob.engine.crash import CrashNotices
from structjob.spool.session import Session
from structjob.store import leases, sessions
from structjob.store.contract import Ending
from structjob.store.ingest import JOB_COLUMNS
from structjob.store.leases import Lease

log = structlog.get_logger("app")


@pytest.fixture
async def any_tracker(database, tmp_path):
    """A tracker that hears of its presumed death only when a test lets it look."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(
        database.url, spool=tmp_path / "spool", heartbeat_interval=600
    ) as opened:
        yield opened


@pytest.fixture
async def other(database, tmp_path, any_tracker):
    """A tracker of another process, as far as the database can tell."""
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as opened:
        yield opened


async def presume_dead(other, session_id):
    """Let *other* presume a session dead, as it does when a heartbeat stands still for a lease."""
    (row,) = [
        row for row in await other._store.fetch(leases.OPEN) if row["session_id"] == session_id
    ]
    reaper = other._engine._maintenance._reaper
    reaper._seen.setdefault(session_id, (Lease.of(row), 0.0))
    await reaper._reap(Lease.of(row), sessions.LEASE_EXPIRED)


async def kinds(tracker, job):
    return [
        event.kind
        for event in await tracker.logs.list(job_id=job.id)
        if event.kind.startswith("operation_")
    ]


async def crashes(tracker):
    return {
        group.operation: group.count
        for group in await tracker.errors.list()
        if group.error.type == "Crashed"
    }


async def test_a_process_that_lives_corrects_what_was_said_of_it(any_tracker, other):
    """faults 24: the job runs again, its log says so after the crash, and the error report has no
    crash of it.
    """
    async with any_tracker.job("long", project="apollo") as job, job.step("s"):
        await any_tracker.flush()  # a later record of the job would correct it, too
        await presume_dead(other, any_tracker.session_id)
        assert (await other.jobs.get(job.id)).status == "crashed"
        assert await crashes(other) == {"long": 1}
        await any_tracker._engine._maintenance._reaper.look()
        assert (await any_tracker.jobs.get(job.id)).status == "running"
        assert await crashes(other) == {}
        (event,) = await any_tracker.logs.list(job_id=job.id, kind="operation_crash_withdrawn")
        assert (event.level, event.attempt, event.operation, event.project) == (
            "warning",
            1,
            "long",
            "apollo",
        )
        assert event.attrs == {
            "operation": "long",
            "reason": "its process was presumed dead, and is alive",
        }
    assert await kinds(any_tracker, job) == [
        "operation_start",
        "operation_crashed",
        "operation_crash_withdrawn",
        "operation_end",
    ]
    assert [step.status for step in await any_tracker.jobs.steps(job.id)] == ["completed"]
    await other.flush()
    assert (await any_tracker.verify()).ok


async def test_a_job_that_ends_before_its_process_hears_of_it(any_tracker, other):
    """faults 24: the tracker closes without another heartbeat, and corrects it first."""
    async with any_tracker.job("long") as job:
        await presume_dead(other, any_tracker.session_id)
    await any_tracker.aclose()
    assert (await other.jobs.get(job.id)).status == "completed"
    assert await crashes(other) == {}
    assert sorted(await kinds(other, job)) == [
        "operation_crash_withdrawn",
        "operation_crashed",
        "operation_end",
        "operation_start",
    ]
    assert (await other.verify()).ok


async def test_a_crash_that_was_one_stays(any_tracker, other):
    """faults 24: what another session's jobs are is not touched, and each job is corrected once."""
    stranger = Session(host="elsewhere", boot_id="another", pid=1)
    await other._store.begin_session(stranger)
    for name in ("finished", "left"):
        row = dict.fromkeys(JOB_COLUMNS) | {
            "id": name,
            "root_job_id": name,
            "operation": name,
            "status": "running",
            "category": "system",
        }
        row |= {
            "session_id": stranger.session_id,
            "state_seq": 0,
            "attempt": 1,
            "created_at": stranger.started_at,
        }
        await other._store.claim(row)
    await presume_dead(other, stranger.session_id)
    async with any_tracker.job("long"):
        await presume_dead(other, any_tracker.session_id)
        assert await crashes(other) == {"finished": 1, "left": 1, "long": 1}
        for _ in range(2):
            await any_tracker._engine._maintenance._reaper.look()
        assert await crashes(other) == {"finished": 1, "left": 1}
    # The stranger's spool is found later: one of its jobs had been finished.
    ended = "UPDATE structjob_attempts SET status = 'completed' WHERE job_id = 'finished'"
    await other._store.transact(lambda connection: connection.exec_driver_sql(ended))
    notices = CrashNotices(stranger, any_tracker._recorder.session, withdrawn="it was over")
    for _ in range(2):
        prepared = await notices.prepare(other._engine.link)
        await other._store.end_session(stranger, Ending(reason=sessions.DIED), prepared)
        assert await crashes(other) == {"left": 1}
        told = await any_tracker.logs.list(kind="operation_crash_withdrawn")
        assert [(event.operation, event.attrs["reason"]) for event in told] == [
            ("long", "its process was presumed dead, and is alive"), ("finished", "it was over"),
        ]  # fmt: skip
    assert len({event.session_id for event in told} | {any_tracker.session_id}) == 3
