"""How jobs and steps that are begun by hand end, and what children, events and exceptions have of
them.
"""

import asyncio
import contextlib
import sys
import textwrap

import pytest
import structlog
from cli_support import python

import structjob
from structjob import InvalidArgument, InvalidState
from structjob.context import propagation, scope
from structjob.lifecycle.outcome import duration_fields

log = structlog.get_logger("app")


async def begun(tracker, **options):
    """Return a job and a step of it, both begun by hand."""
    job = await (await tracker.create_job("by hand", **options)).start()
    return job, await job.step("s").start()


async def last(tracker, job, kind):
    """Return the attributes of the last event of this kind."""
    return (await tracker.logs.list(job_id=job.id, kind=kind, order="desc"))[0].attrs


async def test_an_error_means_failed(any_tracker):
    """faults 33b: `end(error=exc)` is a failure everywhere: status, success rate, error report,
    events.
    """
    job, step = await begun(any_tracker)
    exc = ValueError("no such row")
    await step.end(error=exc, rows=7)
    await job.end(error=exc, result={"rows": 7}, summary={"source": "a.csv"})
    record, (row,) = await any_tracker.jobs.get(job.id), await any_tracker.jobs.steps(job.id)
    assert (record.status, record.error.message, record.result) == (
        "failed",
        "no such row",
        {"rows": 7},
    )
    assert (row.status, row.error.message) == ("failed", "no such row")
    assert [(one.failed, one.success_rate) for one in await any_tracker.stats.operations()] == [
        (1, 0.0)
    ]
    assert [(group.error.type, group.count) for group in await any_tracker.errors.list()] == [
        ("ValueError", 1)
    ]
    assert (await last(any_tracker, job, "step_end"))["rows"] == 7
    ended = await last(any_tracker, job, "operation_end")
    assert (ended["status"], ended["source"], ended["error_type"], ended["failure_step"]) == (
        "failed",
        "a.csv",
        "ValueError",
        "s",
    )


async def test_the_last_event_says_how_it_ended_and_repeats_nothing(tracker):
    """R18, S1: one event of a failure has the stack and counts as its occurrence, the end of the
    job names the step; a job that recovered or was cancelled has neither.
    """
    with pytest.raises(ValueError, match="within"):
        async with tracker.job("in a step") as in_step, in_step.step("s"):
            raise ValueError("within")
    with pytest.raises(ValueError, match="directly"):
        async with tracker.job("in no step") as directly:
            raise ValueError("directly")
    async with tracker.job("recovers") as recovered:
        with contextlib.suppress(ValueError):
            async with recovered.step("s"):
                raise ValueError("passing")
    with pytest.raises(asyncio.CancelledError):
        async with tracker.job("cancelled") as cancelled:
            raise asyncio.CancelledError
    wordless = await (await tracker.create_job("by hand")).start()
    await wordless.end("failed")
    await tracker.flush()
    ends = [
        (await tracker.logs.list(job_id=job.id, kind="operation_end"))[0]
        for job in (in_step, directly, recovered, cancelled, wordless)
    ]
    assert [end.level for end in ends] == ["error", "error", "info", "warning", "error"]
    assert [end.attrs.get("failure_step") for end in ends] == ["s", None, None, None, None]
    assert ["failure_step" in end.attrs for end in ends] == [True, False, False, False, False]
    assert ["exception" in end.attrs for end in ends] == [False, True, False, False, False]
    assert [end.attrs.get("error_type") for end in ends] == [
        "ValueError", "ValueError", None, "CancelledError", "Failed",
    ]  # fmt: skip
    occurrences = {group.operation: group.count for group in await tracker.errors.list()}
    assert occurrences == {"in a step": 1, "in no step": 1, "recovers": 1, "by hand": 1}


def test_a_duration_is_in_milliseconds_to_the_microsecond():
    """R25: the number and the text of a duration are one duration."""
    assert duration_fields(1.23456789) == {"duration_ms": 1234.568, "duration_str": "1.23s"}


async def test_without_an_error_it_is_completed(any_tracker):
    """faults 33b: what `end()` says by default has not changed; a cancellation that is handed over
    is one.
    """
    job, step = await begun(any_tracker)
    await step.end()
    await job.end()
    assert (job.status, step.status) == ("completed", "completed")
    job, step = await begun(any_tracker)
    await step.end(error=asyncio.CancelledError("enough"))
    await job.end(error=asyncio.CancelledError("enough"))
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, step.status, record.error.message) == (
        "cancelled",
        "cancelled",
        "enough",
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [("completed", ValueError("x")), (None, "text"), ("failed", ValueError), ("done", None)],
)
async def test_what_contradicts_itself_is_refused(tracker, status, error):
    """faults 33b: completed with an error, or an error that is no exception; nothing has changed,
    and it can be ended rightly.
    """
    job, step = await begun(tracker)
    for handle in (step, job):
        with pytest.raises(
            InvalidArgument, match=r"completed has no error|must be an exception, not|not 'done'"
        ):
            await handle.end(status, error=error)
        assert handle.status == "running"
        await handle.end("failed")


@pytest.mark.parametrize("code", [0, None, False, 3, "a text"], ids=repr)
async def test_a_job_left_by_exit(any_tracker, code):
    """faults 33: `sys.exit(0)` completes the job and its step, without an error; any other code is
    a failure with one.
    """
    handles = []
    with pytest.raises(SystemExit):
        async with any_tracker.job("a") as job, job.step("s") as step:
            handles.extend((job, step))
            sys.exit(code)
    job, step = handles
    record, (row,) = await any_tracker.jobs.get(job.id), await any_tracker.jobs.steps(job.id)
    ended = await last(any_tracker, job, "operation_end")
    if code in (0, None):
        assert [(one.status, one.error) for one in (record, row)] == [("completed", None)] * 2
        assert "error_type" not in ended
        assert await any_tracker.errors.list() == []
    else:
        assert [(one.status, one.error.type, one.error.message) for one in (record, row)] == [
            ("failed", "SystemExit", str(code))
        ] * 2
        assert ended["error_type"] == "SystemExit"


def test_a_program_that_exits_in_a_job_has_a_completed_job(tmp_path):
    """faults 33: of a whole program, its exit code unchanged."""
    program = textwrap.dedent("""
        import asyncio, sys, structjob
        async def main():
            async with structjob.Tracker("sqlite:///jobs.db") as tracker, tracker.job("a") as job, job.step("s"):
                sys.exit(0)
        asyncio.run(main())
    """)
    assert python("-c", program, cwd=tmp_path).returncode == 0

    async def read():
        async with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
            return await tracker.jobs.list()

    (job,) = asyncio.run(read())
    assert (job.status, job.error) == ("completed", None)


async def test_a_guard_ends_what_was_begun_by_hand(any_tracker):
    """faults 32: an exception in the block is recorded and raised again; without one, or after the
    end, nothing happens.
    """
    job, step = await begun(any_tracker)
    with job.guard() as same, step.guard():
        assert same is job
    assert (job.status, step.status) == ("running", "running")
    exc = ValueError("no")
    with pytest.raises(ValueError, match="no") as raised, job.guard(), step.guard():
        raise exc
    assert raised.value is exc
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.error.message, step.status) == ("failed", "no", "failed")
    with pytest.raises(KeyError), job.guard():
        raise KeyError
    assert (await any_tracker.jobs.get(job.id)).error.message == "no"
    with pytest.raises(InvalidState):
        await job.end()


@pytest.mark.parametrize(
    ("exc", "status"),
    [(SystemExit(0), "completed"), (KeyboardInterrupt(), "cancelled"), (SystemExit(1), "failed")],
)
async def test_a_guard_judges_as_a_block_does(tracker, exc, status):
    """faults 32: an exit with 0 completes, Ctrl-C cancels; open steps end with their job."""
    job, step = await begun(tracker)
    with pytest.raises(type(exc)), job.guard():
        raise exc
    assert (job.status, step.status) == (status, "cancelled")


async def test_children_inherit_project_and_owner(any_tracker):
    """faults 33f: children and their events belong to the project and owner of the job around them,
    however they are begun.
    """
    async with any_tracker.job("parent", project="apollo", owner="ada") as parent:
        async with parent.child("child") as child, child.child("grandchild"):
            log.info("deep")
        async with parent.child("other", project="gemini", owner="bob"), any_tracker.job("within"):
            log.info("elsewhere")
    async with any_tracker.job("by hand", parent=parent):
        pass
    found = {job.operation: (job.project, job.owner) for job in await any_tracker.jobs.list()}
    apollo, gemini = ("apollo", "ada"), ("gemini", "bob")
    assert found == {
        "parent": apollo, "child": apollo, "grandchild": apollo, "other": gemini, "within": gemini, "by hand": apollo,
    }  # fmt: skip
    assert [
        event.message for event in await any_tracker.logs.list(project="apollo", kind="log")
    ] == ["deep"]
    assert [
        event.message for event in await any_tracker.logs.list(project="gemini", kind="log")
    ] == ["elsewhere"]


async def test_a_child_in_another_process_inherits_them_too(any_tracker):
    """faults 33f: headers carry the project; the environment of a program carries the owner, too.
    Events have the project as well.
    """
    async with any_tracker.job("parent", project="Größe, 1", owner="lovelace") as parent:
        headers = structjob.inject()
        environment = propagation.to_environment(scope.current_scope())
    assert "lovelace" not in str(headers)
    for name, remote in (
        ("headers", structjob.extract(headers)),
        ("environment", propagation.from_environment(environment)),
    ):
        with remote.as_current():
            log.info(name)
            async with any_tracker.job(name) as job:
                pass
        record = await any_tracker.jobs.get(job.id)
        assert (record.parent_job_id, record.project) == (parent.id, "Größe, 1")
        assert record.owner == (None if name == "headers" else "lovelace")
        assert [
            event.message
            for event in await any_tracker.logs.list(project="Größe, 1", kind="log", text=name)
        ] == [name]


@pytest.mark.parametrize("project", ["", "%", "%00%0a", "x" * 1_000, "%ff%fe"])
async def test_a_hostile_project_harms_nothing(tracker, project):
    """faults 33f: what headers say is cleaned and cut; the job is stored."""
    headers = {"X-Job-ID": "elsewhere", "baggage": f"structjob.project={project}"}
    with structjob.extract(headers).as_current():
        log.info("line")
        async with tracker.job("child") as job:
            pass
    record = await tracker.jobs.get(job.id)
    assert len(record.project or "") <= 128
    assert [event.project for event in await tracker.logs.list(kind="log", text="line")] == [
        record.project
    ]
    assert tracker.ledger().dead_lettered == 0


async def test_what_a_job_was_created_with_goes_before_what_it_inherits(any_tracker):
    """faults 33f: a pending job of another project stays in it when it is started within a job."""
    pending = await any_tracker.create_job("a", project="gemini")
    async with any_tracker.job("parent", project="apollo", owner="ada") as parent:
        async with parent.child("a", job_id=pending.id) as job:
            assert (job.project, job.owner) == ("gemini", "ada")
    record = await any_tracker.jobs.get(pending.id)
    assert (record.project, record.owner) == ("gemini", "ada")


async def test_a_tracker_has_a_project_for_what_has_none(db_url):
    """Ruling 7: `Tracker(project=…)` labels jobs, their events and events outside jobs; what says
    its own project keeps it.
    """
    structjob.configure(console=False, strict=True)
    log.info("before", n=1)
    async with structjob.Tracker(db_url, project="apollo") as tracker:
        log.info("outside", record={"project": "no column"})
        log.info("own", project="gemini")
        async with tracker.job("a") as mine, mine.child("below"):
            log.info("inside")
        async with tracker.job("b", project="gemini") as other, other.child("below"):
            pass
        assert {event.project for event in await tracker.logs.list(job=mine)} == {"apollo"}
        assert {event.project for event in await tracker.logs.list(job=other)} == {"gemini"}
        assert [event.message for event in await tracker.logs.list(kind="log", project="apollo")] == [
            "before", "outside", "inside",
        ]  # fmt: skip
        assert [
            event.message for event in await tracker.logs.list(kind="log", project="gemini")
        ] == ["own"]
        assert len(await tracker.jobs.list(project="apollo")) == 2
        with pytest.raises(structjob.InvalidArgument, match="project"):
            structjob.Tracker(db_url, project="x" * 129)


async def test_events_of_steps_tell_how_many_there_are(any_tracker):
    """faults 32: `total_steps` stands beside `step_number`, and in the job's last event, where it
    was told.
    """
    async with any_tracker.job("a", total_steps=3) as job:
        async with job.step("one"):
            pass
        job.total_steps = 2
        with pytest.raises(ValueError, match="no"):
            async with job.step("two"):
                raise ValueError("no")
    events = await any_tracker.logs.list(job_id=job.id, type="task")
    assert [(event.kind, event.attrs["step_number"], event.attrs["total_steps"]) for event in events] == [
        ("step_start", 1, 3), ("step_end", 1, 3), ("step_start", 2, 2), ("step_error", 2, 2), ("step_end", 2, 2),
    ]  # fmt: skip
    assert (await last(any_tracker, job, "operation_end"))["total_steps"] == 2
    async with any_tracker.job("b") as job, job.step("one"):
        pass
    assert "total_steps" not in await last(any_tracker, job, "step_end")
    assert (await last(any_tracker, job, "operation_end"))["total_steps"] == 1


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True])
async def test_total_steps_is_a_whole_number(tracker, wrong):
    """faults 32: what is none is refused where the job is made."""
    with pytest.raises(InvalidArgument, match="total_steps must be"):
        tracker.job("a", total_steps=wrong)


async def test_enrich_adds_the_ids(tracker):
    """faults 32: the ids of the running job and step come first, once; a block that the exception
    leaves does not repeat them.
    """
    exc = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        async with tracker.job("a") as job, job.step("s") as step:
            raise structjob.enrich(structjob.enrich(exc, vm="pg-01"), tries=3)
    assert exc.__notes__ == [
        f"[job_id={job.id}, step_id={step.id}, operation=a, vm=pg-01]",
        "[tries=3]",
    ]
    assert structjob.enrich(ValueError("no"), vm="pg-01").__notes__ == ["[vm=pg-01]"]
