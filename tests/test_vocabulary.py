"""What jobs and steps say in the words of their work (R10, R24, R25, R26)."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from structlog.testing import capture_logs

import structjob
from structjob import InvalidArgument, InvalidState

log = structlog.get_logger("app")


async def lines(tracker, job, **filters):
    return [event async for event in tracker.logs.iterate(job_id=job.id, children=False, **filters)]


# -- the walk-through
# --------------------------------------------------------------------------


class VolumeError(Exception):
    """What a storage says."""

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


async def volume_of(vm_id):
    if vm_id == "vm-bad":
        raise VolumeError("no such volume", "E404")
    return f"volume-of-{vm_id}"


async def snapshot(parent, vm_id):
    async with parent.child("linstor-snapshot-creation") as child:
        try:
            volume = await volume_of(vm_id)
        except VolumeError as exc:
            child.log_error(
                "volume-discovery",
                "Failed to find volume UUID",
                exc,
                recovery_suggestion="restart the daemon",
            )
            raise
        child.log_success("volume-discovery", "Found volume UUID", volume_uuid=volume)
        child.summarize(snapshot_name=f"snap-{volume}")
        return child.summary


async def check(job, vm_id):
    return {"reachable": True}


async def boot(job, vm_id):
    if vm_id == "vm-slow":
        raise TimeoutError("it did not boot")
    return {"booted": vm_id}


STEPS = [
    ("pre-check", "Checks the host", check),
    ("snapshot", "Takes a snapshot", snapshot),
    ("boot", "Boots the machine", boot),
]


async def failover(tracker, vm_id):
    """S1's walk-through."""
    async with tracker.job("enhanced-test-failover", total_steps=len(STEPS)) as job:
        job.log_step("initialization", "Starting enhanced test failover", vm_id=vm_id)
        for name, description, execute in STEPS:
            async with job.step(name, description=description) as step:
                step.log.info(description)
                found = await execute(job, vm_id)
                step.log.success(f"{name} done", **found)
                job.summarize(**found)
        return job.summary


async def test_the_walk_through_that_succeeds(any_tracker):
    """Acceptance test 3. R24, R25: an operation, its steps and child say it all, with the standard
    fields.
    """
    summary = await failover(any_tracker, "vm-1")
    assert summary == {
        "reachable": True,
        "snapshot_name": "snap-volume-of-vm-1",
        "booted": "vm-1",
    }
    (job,) = await any_tracker.jobs.list(operation="enhanced-test-failover")
    (child,) = await any_tracker.jobs.list(parent_job_id=job.id)
    assert child.correlation_id == job.correlation_id
    events = await lines(any_tracker, job)
    said = [(event.level, event.step, event.message) for event in events if "_info" in event.kind]
    assert said == [
        ("info", "initialization", "Starting enhanced test failover"),
        ("info", "pre-check", "Checks the host"),
        ("success", "pre-check", "pre-check done"),
        ("info", "snapshot", "Takes a snapshot"),
        ("success", "snapshot", "snapshot done"),
        ("info", "boot", "Boots the machine"),
        ("success", "boot", "boot done"),
    ]
    numbers = [
        (event.attrs["step_number"], event.attrs["total_steps"])
        for event in events
        if event.step_id is not None
    ]
    assert numbers == [(n, 3) for n in (1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)]
    end = events[-1]
    assert end.kind == "operation_end"
    assert end.attrs["booted"] == "vm-1"
    assert (end.attrs["total_steps"], end.attrs["total_steps_completed"]) == (3, 3)
    (found,) = [one for one in await lines(any_tracker, child) if one.kind == "step_info"]
    assert (found.level, found.step, found.step_id) == ("success", "volume-discovery", None)
    assert found.attrs["volume_uuid"] == "volume-of-vm-1"
    assert found.type == "job"


@pytest.mark.parametrize(
    ("vm_id", "step", "error"),
    [("vm-bad", "snapshot", VolumeError), ("vm-slow", "boot", TimeoutError)],
)
async def test_the_walk_through_that_fails(any_tracker, vm_id, step, error):
    """Acceptance test 3. R24, R25, R10: the step and operation that failed, the exception once,
    with its code.
    """
    with pytest.raises(error) as caught:
        await failover(any_tracker, vm_id)
    assert "operation=" in caught.value.__notes__[0]
    (job,) = await any_tracker.jobs.list(operation="enhanced-test-failover")
    assert job.status == "failed"
    end = (await lines(any_tracker, job))[-1]
    assert (end.attrs["failure_step"], end.attrs["error_type"]) == (step, error.__name__)
    assert end.attrs["duration_ms"] >= 0
    assert end.attrs["retry_possible"] is (error is TimeoutError)
    (group,) = await any_tracker.errors.list()
    assert (group.count, group.error.type) == (1, error.__name__)
    if error is VolumeError:
        (child,) = await any_tracker.jobs.list(operation="linstor-snapshot-creation")
        (said,) = [one for one in await lines(any_tracker, child) if one.kind == "step_error"]
        assert (said.level, said.step, said.message) == (
            "error",
            "volume-discovery",
            "Failed to find volume UUID",
        )
        assert said.attrs["error_code"] == "E404"
        assert said.attrs["recovery_suggestion"] == "restart the daemon"


async def test_another_service_goes_on_with_the_correlation_id(tracker):
    """R24: it knows no more than the id."""
    operations = structjob.OperationLogger("web-42", tracker=tracker)
    async with operations.operation("volume-attach", metadata={"volume_id": 7}) as job:
        job.log_step("cloudstack-api", "Calling CloudStack attach volume")
    begun = operations.start_operation("by-hand")
    assert begun.status == "running"
    begun.end()
    assert [one.correlation_id for one in await tracker.jobs.list()] == ["web-42", "web-42"]
    assert structjob.OperationLogger().correlation_id != structjob.OperationLogger().correlation_id
    with structjob.correlate("outer"):
        assert structjob.OperationLogger().correlation_id == "outer"
    async with structjob.OperationLogger(job_id=begun.id).operation("below") as child:
        assert child.parent_job_id == begun.id


# -- loggers
# --------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["debug", "info", "success", "warning", "error", "critical"])
async def test_a_handle_logs_in_its_own_scope(db_url, level):
    """R24, R26: whatever is current, at each level."""
    structjob.configure(console=False, strict=True, level="debug")
    async with structjob.Tracker(db_url, level="debug") as tracker:
        async with tracker.job("outer") as outer, outer.step("s") as step:
            async with outer.child("inner"):
                getattr(outer.log, level)("of %s", "outer", n=1)
                getattr(step.log, level)("of the step", n=2)
            assert structjob.current_step() is step
        first, second = [one for one in await lines(tracker, outer) if "n" in one.attrs]
        kind = "step_error" if level in ("error", "critical") else "step_info"
        assert (first.message, first.level, first.step, first.kind) == (
            "of outer",
            level,
            None,
            kind,
        )
        assert (second.message, second.step, second.attrs["step_number"]) == (
            "of the step",
            "s",
            1,
        )


async def test_it_logs_after_the_end_and_binds(tracker):
    """R24: a callback that comes late; `bind` of the logger is structlog's."""
    async with tracker.job("a") as job:
        async with job.step("s") as step:
            pass
    job.log.bind(late=True).info("after the job")
    step.log.warning("after the step", step_number=7)
    first, second = (await lines(tracker, job))[-2:]
    assert (first.message, first.attrs) == ("after the job", {"late": True})
    assert (second.step, second.attrs) == ("s", {"step_number": 7})


async def test_an_exception_is_logged_with_its_traceback(tracker):
    """R10: `exception`, and names that are arguments elsewhere are free as fields."""
    async with tracker.job("a") as job:
        try:
            raise ValueError("bad")
        except ValueError:
            job.log.exception("it failed", message=1, exc=2, error=3, kind="mine")
        job.log_step("s", "said", message=1, step=2, start=3, self=4)
    failed, said = [one for one in await lines(tracker, job) if one.kind.startswith("step_")]
    assert failed.attrs["error_type"] == "ValueError"
    assert {key: failed.attrs[key] for key in ("message", "exc", "error")} == {
        "message": 1,
        "exc": 2,
        "error": 3,
    }
    assert said.attrs == {"message": 1, "step": 2, "start": 3, "self": 4}


async def test_an_error_without_an_exception_counts_by_its_words(tracker):
    """R25: with the type and code that it was given."""
    async with tracker.job("a") as job:
        for n in range(2):
            job.log_error("api", "quota exceeded", error_type="Quota", error_code="Q1", n=n)
    (group,) = await tracker.errors.list()
    assert (group.count, group.error.type) == (2, "Quota")


async def test_an_existing_setup_prints_them(tracker, capsys):
    """R26: with `install`, what a handle logs passes the program's own processors."""
    structjob.reset()
    structlog.reset_defaults()
    structjob.install()
    try:
        async with tracker.job("a") as job:
            job.log_step("s", "printed by the program", n=1)
        assert "printed by the program" in capsys.readouterr().out
    finally:
        structjob.reset()
        structlog.reset_defaults()


async def test_values_that_are_hard_to_write_harm_nothing(tracker):
    """R25: an exception whose text raises, a megabyte, a lock, the handle itself."""

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    async with tracker.job("a") as job:
        job.log_error("s", "mute", Mute())
        job.summarize(big="x" * 1_000_000, lock=asyncio.Lock(), job=job)
    assert (await lines(tracker, job))[-1].kind == "operation_end"
    assert (await tracker.jobs.get(job.id)).status == "completed"


# -- durations, steps by hand, summaries
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        lambda: time.monotonic() - 2,
        lambda: time.time() - 2,
        lambda: datetime.now(UTC) - timedelta(seconds=2),
    ],
    ids=["monotonic", "time", "datetime"],
)
async def test_durations(tracker, start):
    """R25: duration_ms and duration_str, from any clock."""
    async with tracker.job("a") as job:
        job.log_duration("copy", start(), files=3)
        step = job.start_step("s", total=5, source="nfs")
        step.log_duration()
        step.summarize(rows=7)
        step.end()
    events = await lines(tracker, job)
    (copied,) = [one for one in events if one.step == "copy"]
    assert 2_000 <= copied.attrs["duration_ms"] < 30_000
    assert copied.message == f"copy took {copied.attrs['duration_str']}"
    assert copied.attrs["files"] == 3
    (taken,) = [one for one in events if one.message.startswith("s took ")]
    assert taken.step == "s"
    (record,) = await tracker.jobs.steps(job.id)
    assert (record.total, record.metadata, record.status) == (5, {"source": "nfs"}, "completed")
    (end,) = [one for one in events if one.kind == "step_end"]
    assert end.attrs["rows"] == 7


@pytest.mark.parametrize(
    "start", [None, "now", True, datetime(2026, 1, 1), -5, float("nan"), float("inf")]
)
async def test_what_is_no_time_is_refused(tracker, start):
    """R25: with what to type instead."""
    async with tracker.job("a") as job:
        with pytest.raises(InvalidArgument, match="aware datetime"):
            job.log_duration("copy", start)


async def test_a_summary_comes_with_the_end(tracker):
    """R24: a field that is called like a standard one wins."""
    async with tracker.job("a") as job:
        job.summarize(rows=1, total_steps=9)
        job.end(summary={"rows": 2})
    assert job.summary == {"rows": 2, "total_steps": 9}
    end = (await lines(tracker, job))[-1]
    assert (end.attrs["rows"], end.attrs["total_steps"]) == (2, 9)


# -- fields of a job, correlation
# --------------------------------------------------------------------------


async def test_bound_fields_are_on_every_event_of_the_job(tracker):
    """R14: in its steps and in other tasks; not on those of its children, nor after ``None``."""

    async def elsewhere():
        log.info("in a task")

    async with tracker.job("a") as job:
        task = asyncio.create_task(elsewhere())
        job.bind(vm="pg-01", tenant=7)
        await task
        async with job.step("s"):
            log.info("in a step", tenant=8)
        async with job.child("c"):
            log.info("in a child")
        job.bind(vm=None)
        log.info("later")
    log.info("outside")
    found = {
        event.message: (event.attrs.get("vm"), event.attrs.get("tenant"))
        for event in await tracker.logs.list(kind="log")
    }
    assert found == {
        "in a task": ("pg-01", 7),
        "in a step": ("pg-01", 8),
        "in a child": (None, None),
        "later": (None, 7),
        "outside": (None, None),
    }
    end = (await lines(tracker, job))[-1]
    assert (end.kind, end.attrs["tenant"]) == ("operation_end", 7)


async def test_correlation_ids(tracker):
    """R22: current, given for a block, new; within a job the events stay the job's."""
    assert structjob.current_correlation_id() is None
    with structjob.correlate("web-42") as id_:
        assert id_ == structjob.current_correlation_id() == "web-42"
        async with tracker.job("a") as job:
            assert job.correlation_id == "web-42"
            with structjob.correlate() as other:
                log.info("within")
                async with structjob.step("s"):
                    pass
            with structjob.detached():
                log.info("apart")
                assert structjob.current_job() is None
            assert structjob.current_job() is job
    assert structjob.current_correlation_id() is None
    within, apart = await tracker.logs.list(kind="log")
    assert (within.job_id, within.correlation_id) == (job.id, other)
    assert (apart.job_id, apart.correlation_id, apart.type) == (None, None, "system")
    with pytest.raises(InvalidArgument, match="at most 128 characters"):
        structjob.correlate("x" * 129)


# -- handles by id, types of exceptions, no tracker
# --------------------------------------------------------------------------


async def test_live_jobs_are_found_by_any_id(tracker):
    """R24: handles of this process; otherwise the message says which process this is."""
    async with tracker.job("a", external_job_id="gui-17", context_id="vm-9") as job:
        for any_id in (job.id, "gui-17", "vm-9", job):
            assert tracker.live_job(any_id) is job
    with pytest.raises(InvalidState, match=r"no job 'gui-17' runs in this process \(session \d+"):
        tracker.live_job("gui-17")


async def test_libraries_say_what_their_exceptions_are(tracker):
    """R25: the nearest class counts, and the tracker's own classifier goes before."""

    class Quota(Exception):
        pass

    class HardQuota(Quota):
        pass

    structjob.classify(Quota, error_type="quota", retry_possible=True)
    structjob.classify(HardQuota, error_type="hard quota", error_code="Q2")
    try:
        async with tracker.job("a") as job:
            job.log_error("s", "one", Quota("x"))
            job.log_error("s", "two", HardQuota("x"))
        one, two = [event.attrs for event in await lines(tracker, job) if event.step == "s"]
        assert (one["error_type"], one["retry_possible"]) == ("quota", True)
        assert (two["error_type"], two["error_code"]) == ("hard quota", "Q2")
    finally:
        structjob.classify(Quota)
        structjob.classify(HardQuota)
    with pytest.raises(InvalidArgument, match="a type of exception"):
        structjob.classify("Quota", error_type="quota")


async def test_without_a_tracker_they_log_through_structlog():
    """R24: a library's code runs anywhere; nothing raises."""
    with capture_logs() as said, structjob.job("a") as job:
        job.log_step("s", "step by name")
        job.log_error("s", "failed", ValueError("x"))
        job.log_duration("s", time.time())
        with job.start_step("by hand").guard() as step:
            step.log.info("of the step")
            step.end()
        job.bind(vm=1)
        job.summarize(rows=1)
    assert [one["event"] for one in said][:2] == ["step by name", "failed"]
    assert said[-1]["event"] == "of the step"


def test_a_library_that_uses_structjob_leaves_no_trace_in_a_program_that_does_not(caplog):
    """R26: neither a warning about steps outside a job, nor attributes of ours in its output."""
    with capture_logs() as said, structjob.step("fetch", total=2) as step:
        step.log.info("fetched", rows=3)
        structjob.current_job().log_step("parse", "parsed", kind="csv")
    assert said == [
        {"event": "fetched", "rows": 3, "log_level": "info"},
        {"event": "parsed", "kind": "csv", "log_level": "info"},
    ]
    assert caplog.records == []
