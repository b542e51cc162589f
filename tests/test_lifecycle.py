"""Jobs and steps: how they begin and end, what is recorded of it, and what misuse is told (R1, R2,
R3, R7–R10, R13, R14, R18, R25).
"""

import asyncio
import gc
import re
import warnings
import weakref

import pytest
import structlog
from each import each

import structjob
from structjob import InvalidArgument, InvalidState, JobNotFound, LogFilter
from structjob.context.scope import current_scope
from structjob.lifecycle import contexts
from structjob.lifecycle.jobs import JobKeywords
from structjob.lifecycle.options import JobOptions

log = structlog.get_logger("app")


async def kinds(tracker, job):
    """Return the kinds of a job's lifecycle events, in order."""
    return [event.kind for event in await tracker.logs.list(job_id=job.id) if event.kind != "log"]


async def last(tracker, job, kind):
    """Return the last event of this kind."""
    return (await tracker.logs.list(job_id=job.id, kind=kind, order="desc"))[0]


async def test_the_first_example_of_the_documentation_works_as_written(tmp_path, monkeypatch):
    """Design, public API: the block that issues and outside checks rely on, line by line."""
    monkeypatch.chdir(tmp_path)

    async def chunks():
        for n in range(5):
            yield n

    structjob.configure(console="auto", file="app.jsonl", level="info")
    structjob.install()
    log = structlog.get_logger()

    async with structjob.Tracker("sqlite:///jobs.db") as tracker:
        async with tracker.job(
            "vm-migrate",
            job_type="migration",
            owner="ada",
            external_job_id="gui-17",
            context_id="vm-9",
            metadata={"vm": "pg-01"},
        ) as job:
            async with job.step("copy", total=100) as step:
                async for chunk in step.track(chunks()):
                    log.info("chunk copied", n=chunk)
                step.advance(5)
                step.update(completed=50, description="half way")
            job.update(percent=75, current_step="verify")
            job.result = {"bytes": 1}
            async with job.child("verify-checksums") as child:
                assert structjob.current_job() is child
        assert (job.attempt, job.status) == (1, "completed")
        assert job.correlation_id == child.correlation_id

        @tracker.job("nightly")
        async def nightly(a, *, b):
            assert structjob.current_job().operation == "nightly"
            return await load() + a + b

        @structjob.step("load")
        async def load():
            assert structjob.current_step().name == "load"
            return 1

        assert await nightly(1, b=2) == 4
        by_hand = await tracker.create_job("by hand")
        await by_hand.start()
        await by_hand.end("completed")

        for found in (
            await tracker.jobs.get(job.id),
            await tracker.jobs.find("gui-17"),
            await tracker.jobs.find("vm-9"),
            await tracker.jobs.by_external_id("gui-17"),
        ):
            assert found.id == job.id
        assert [found.id for found in await tracker.jobs.by_context_id("vm-9")] == [job.id]
        assert {found.operation for found in await tracker.jobs.list(status="completed")} == {
            "vm-migrate",
            "verify-checksums",
            "nightly",
            "by hand",
        }
        progress = await tracker.jobs.progress("gui-17")
        assert (
            progress.completed_steps,
            progress.total_steps,
            progress.step_completion,
            progress.percent,
        ) == (1, 1, 100.0, 100.0)
        tree = await tracker.jobs.tree(job.id)
        assert [step.name for step in tree.steps] == ["copy"]
        assert [below.job.id for below in tree.children] == [child.id]
        assert [attempt.attempt for attempt in await tracker.jobs.history(job.id)] == [1]
        page = await tracker.logs.list(LogFilter(job_id=job.id, level="error", limit=100))
        assert (len(page), page.next_cursor, page.previous_cursor) == (0, None, None)
        assert [
            e.attrs["n"]
            async for e in tracker.logs.iterate(LogFilter(job_id=job.id, text="chunk copied"))
        ] == list(range(5))
        await tracker.flush()
        ledger = tracker.ledger()
        assert ledger.accepted == ledger.stored
        assert (
            ledger.spilled,
            ledger.in_memory,
            ledger.dropped,
            ledger.dead_lettered,
            ledger.rejected,
        ) == (0, 0, {}, 0, 0)
        headers = structjob.inject({})
        structjob.extract(headers)
        await tracker.aclose(timeout=10)
    record = None
    async with structjob.Tracker("sqlite:///jobs.db") as tracker:
        record = await tracker.jobs.get(job.id)
    assert (record.status, record.result, record.metadata, record.owner, record.error) == (
        "completed",
        {"bytes": 1},
        {"vm": "pg-01"},
        "ada",
        None,
    )
    assert (tmp_path / "app.jsonl").read_text().count("chunk copied") == 5


async def test_every_field_of_a_job_is_stored(any_tracker):
    """R1: the values that are given at the start, and those that are set until the end."""
    async with any_tracker.job(
        "op",
        job_type="t",
        description="d",
        owner="o",
        project="p",
        category="c",
        metadata={"a": {"b": [1, None]}},
        external_job_id="e",
        context_id="x",
        correlation_id="corr",
        job_id="own-id",
        idempotency_key="k",
    ) as job:
        job.update(percent=30, current_step="here", metadata={"more": 1}, description="d2")
        job.result = [1, 2]
    record = await any_tracker.jobs.get("own-id")
    assert (
        record.operation,
        record.job_type,
        record.description,
        record.owner,
        record.project,
        record.category,
    ) == (
        "op",
        "t",
        "d2",
        "o",
        "p",
        "c",
    )
    assert (
        record.external_job_id,
        record.context_id,
        record.correlation_id,
        record.idempotency_key,
    ) == ("e", "x", "corr", "k")
    assert (record.metadata, record.result) == ({"a": {"b": [1, None]}, "more": 1}, [1, 2])
    assert (record.percent_complete, record.current_step, record.attempt, record.session_id) == (
        100.0,
        "here",
        1,
        any_tracker.session_id,
    )
    assert record.created_at <= record.started_at <= record.completed_at
    assert record.cancelled_at is None
    assert record.duration_ms >= 0
    assert record.cpu_ms >= 0
    assert record.max_rss_kb > 1000


async def test_a_job_is_findable_the_moment_its_start_returns(any_tracker):
    """R19: by another reader of the database, which flushes nothing."""
    async with any_tracker.job("a", external_job_id="e-1"):
        rows = await any_tracker._host.fetch(
            __import__("sqlalchemy").text(
                "SELECT status FROM structjob_jobs WHERE external_job_id = 'e-1'"
            )
        )
        assert [row["status"] for row in rows] == ["running"]


# -- events
# --------------------------------------------------------------------------


async def test_every_transition_is_an_event_with_its_standard_fields(any_tracker):
    """R18, R25: what began and ended, its number, how long it took, how many steps there were."""
    async with any_tracker.job(
        "op", job_type="t", owner="ada", external_job_id="e", context_id="x"
    ) as job:
        async with job.step("one", total=3) as step:
            step.advance(3)
        async with job.step("two") as second:
            second.skip("nothing to do")
    assert await kinds(any_tracker, job) == [
        "operation_start",
        "step_start",
        "step_end",
        "step_start",
        "step_end",
        "operation_end",
    ]
    events = list(await any_tracker.logs.list(job_id=job.id))
    told = [
        event.message.removesuffix(f" in {event.attrs.get('duration_str')}") for event in events
    ]
    assert told == ["op started", "one", "one", "two", "two skipped", "op completed"]
    assert events[0].attrs == {
        "operation": "op",
        "job_type": "t",
        "owner": "ada",
        "external_job_id": "e",
        "context_id": "x",
    }
    assert events[1].attrs == {"step": "one", "step_number": 1, "total": 3}
    ended = events[2].attrs
    assert (ended["status"], ended["completed"], ended["step_number"]) == ("completed", 3, 1)
    assert ended["duration_ms"] >= 0
    assert re.fullmatch(r"<?\d+ms", ended["duration_str"])
    assert events[4].attrs["status"] == "skipped"
    summary = events[5].attrs
    assert (summary["status"], summary["total_steps"], summary["total_steps_completed"]) == (
        "completed",
        2,
        1,
    )
    assert summary["total_duration_ms"] >= ended["duration_ms"]
    assert [event.level for event in events] == ["info"] * 6


async def test_the_levels_of_endings(any_tracker):
    """R18: completed is info, failed an error, cancelled a warning."""
    levels = {}
    for status in ("completed", "failed", "cancelled"):
        job = await (await any_tracker.create_job("a")).start()
        await job.end(status)
        levels[status] = (await last(any_tracker, job, "operation_end")).level
    assert levels == {"completed": "info", "failed": "error", "cancelled": "warning"}


async def test_a_summary_is_part_of_the_last_event(tracker):
    """R24: `end(summary=)` adds to it."""
    job = await (await tracker.create_job("a")).start()
    await job.end("completed", summary={"rows": 7})
    assert (await last(tracker, job, "operation_end")).attrs["rows"] == 7


async def test_what_an_event_is_nobody_else_says(db_url):
    """R4, R25: neither a summary's nor a classifier's `kind` takes the end of a step or job away
    from those who look for it.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, classifier=lambda exc: {"kind": "timeout"}) as tracker:
        full = await (await tracker.create_job("full")).start()
        await full.end(summary={"kind": "full", "rows": 7})
        with pytest.raises(TimeoutError):
            async with tracker.job("late") as late, late.step("s"):
                raise TimeoutError
        assert (await last(tracker, full, "operation_end")).attrs["rows"] == 7
        assert await kinds(tracker, late) == [
            "operation_start",
            "step_start",
            "step_error",
            "step_end",
            "operation_end",
        ]


# -- exceptions
# --------------------------------------------------------------------------


async def test_an_exception_fails_step_and_job_and_goes_on(any_tracker):
    """R9, R10, R25: type, message and traceback are stored on both, what errors are counted by is
    on the event, it is raised again, and carries the ids as a note.
    """
    with pytest.raises(ConnectionError) as caught:
        async with any_tracker.job("a") as job:
            async with job.step("fine"):
                pass
            async with job.step("bad") as step:
                try:
                    raise KeyError("cause")
                except KeyError as cause:
                    raise ConnectionError(111, "refused") from cause
    record, (_, bad) = await any_tracker.jobs.get(job.id), await any_tracker.jobs.steps(job.id)
    for row in (record, bad, (await any_tracker.jobs.history(job.id))[0]):
        assert row.status == "failed"
        assert (row.error.type, row.error.message) == ("ConnectionError", "[Errno 111] refused")
        assert "KeyError: 'cause'" in row.error.traceback
        assert row.error.traceback.count("Traceback") == 2
    assert (job.error.type, step.error.type) == ("ConnectionError", "ConnectionError")
    attrs = (await last(any_tracker, job, "step_error")).attrs
    assert (attrs["error_type"], attrs["retry_possible"], attrs["error_code"]) == (
        "ConnectionError",
        True,
        111,
    )
    assert attrs["underlying_error"] == "KeyError: 'cause'"
    assert attrs["exception"]["message"] == "[Errno 111] refused"
    ended = (await last(any_tracker, job, "operation_end")).attrs
    assert (ended["failure_step"], ended["total_steps_completed"], ended["error_type"]) == (
        "bad",
        1,
        "ConnectionError",
    )
    assert caught.value.__notes__ == [f"[job_id={job.id}, step_id={step.id}, operation=a]"]


async def test_an_exception_outside_any_step_is_on_the_jobs_own_event(tracker):
    """R9: nothing else has shown its traceback."""
    with pytest.raises(ValueError, match="x") as caught:
        async with tracker.job("a") as job:
            raise ValueError("x")
    assert (
        (await last(tracker, job, "operation_end"))
        .attrs["exception"]["traceback"]
        .startswith("Traceback")
    )
    assert caught.value.__notes__ == [f"[job_id={job.id}, operation=a]"]


async def test_an_exception_names_the_innermost_step(tracker):
    """R9: what it passes through adds nothing to it, and is not what failed."""
    with pytest.raises(ValueError, match="x") as caught:
        async with tracker.job("a") as job, job.step("around"), job.step("bad") as step:
            raise ValueError("x")
    assert (await last(tracker, job, "operation_end")).attrs["failure_step"] == "bad"
    assert caught.value.__notes__ == [f"[job_id={job.id}, step_id={step.id}, operation=a]"]


async def test_an_exception_group_keeps_all_its_parts(any_tracker):
    """R9: a task group's failure is stored with each of its parts."""

    async def fail(exc):
        raise exc

    with pytest.raises(ExceptionGroup):
        async with any_tracker.job("a") as job, asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("one")))
            group.create_task(fail(KeyError("two")))
    record = await any_tracker.jobs.get(job.id)
    assert record.error.type == "ExceptionGroup"
    assert "ValueError: one" in record.error.traceback
    assert "KeyError: 'two'" in record.error.traceback
    parts = (await last(any_tracker, job, "operation_end")).attrs["exception"]["exceptions"]
    assert [part["type"] for part in parts] == ["ValueError", "KeyError"]


@pytest.mark.parametrize(
    ("exc", "status"),
    [
        (SystemExit(0), "completed"),
        (SystemExit(3), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (structjob.Cancelled("asked to"), "cancelled"),
        (structjob.JobCancelled("asked to"), "cancelled"),
        (structjob.Terminated(), "cancelled"),
    ],
    ids=["exit 0", "exit 3", "Ctrl-C", "Cancelled", "JobCancelled", "Terminated"],
)
async def test_what_ends_a_program_is_recorded_and_goes_on(any_tracker, exc, status):
    """R9: leaving with 0 is no failure, Ctrl-C is a cancellation; both are raised again."""
    job = any_tracker.job("a")
    handle = await job.__aenter__()
    async with handle.step("s") as step:
        pass
    await job.__aexit__(type(exc), exc, None)
    assert (await any_tracker.jobs.get(handle.id)).status == status
    assert step.status == "completed"


async def test_hostile_exceptions_are_survived(any_tracker):
    """Guarantee 7: an exception whose text raises, or whose text is endless, is recorded and
    raised.
    """

    class Bad(Exception):
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __str__

    class Long(Exception):
        def __str__(self):
            return "x\x00\ud800" * 1_000_000

    for kind in (Bad, Long):
        with pytest.raises(kind):
            async with any_tracker.job("a") as job, job.step("s"):
                raise kind
        record = await any_tracker.jobs.get(job.id)
        assert (record.status, record.error.type.rpartition(".")[2]) == ("failed", kind.__name__)
        assert len(record.error.message.encode()) <= 65_536


class Delegating(Exception):
    """Asks for what it has not got, as some wrappers do when they are made without what
    they wrap.
    """

    def __getattr__(self, name):
        return getattr(self.wrapped, name)


class Refusing(Exception):
    @property
    def code(self):
        raise RuntimeError("no code")


class Noted(Exception):
    def __init__(self):
        self.__notes__ = [1, None]


class WithoutNotes(Exception):
    def __init__(self):
        self.__notes__ = None


class Classless(Exception):
    @property
    def __class__(self):
        raise RuntimeError("no class")


class Causeless(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("no cause")


class Traceless(Exception):
    @property
    def __traceback__(self):
        raise RuntimeError("no traceback")


@each("kind", [Delegating, Refusing, Noted, WithoutNotes, Classless, Causeless, Traceless])
async def test_an_exception_that_answers_no_questions_ends_step_and_job(any_tracker, kind):
    """Guarantees 4 and 7: whatever an exception is made of, it comes out as it is, and what it
    passed has failed.
    """
    with pytest.raises(kind):
        async with any_tracker.job("a") as job, job.step("s"):
            raise kind
    assert (await any_tracker.jobs.get(job.id)).status == "failed"
    assert [step.status for step in await any_tracker.jobs.steps(job.id)] == ["failed"]
    assert (await last(any_tracker, job, "operation_end")).attrs["status"] == "failed"
    assert (await any_tracker.verify()).ok


async def test_a_group_that_does_not_show_its_parts_comes_out_as_it_is(any_tracker):
    """R9, guarantee 7: it is recorded without them."""
    hidden = True

    class Partless(ExceptionGroup):
        @property
        def exceptions(self):
            if hidden:
                raise RuntimeError("no parts")
            return super().exceptions

    group = Partless("parts", [ValueError("one")])
    try:
        async with any_tracker.job("a") as job, job.step("s"):
            raise group
    except Exception as exc:
        raised = exc
    hidden = False  # what reports a failure of this test looks at them
    assert raised is group
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.error.message) == ("failed", "parts (1 sub-exception)")


async def test_an_exceptions_name_is_cleaned(any_tracker):
    """Guarantee 7: a name that no database takes is stored as one that it does."""
    job = await (await any_tracker.create_job("a")).start()
    await job.end("failed", error=type("Odd", (Exception,), {"__qualname__": "Odd\ud800\x00"})())
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.error.type) == ("failed", "Odd\\ud800␀")


async def test_a_classifier_has_the_first_word(db_url):
    """R25: what it says goes before what is derived; if it raises, it is ignored."""

    def classify(exc):
        if isinstance(exc, KeyError):
            raise RuntimeError("no")
        return {"error_type": "quota", "retry_possible": True, "recovery_suggestion": "wait"}

    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, classifier=classify) as tracker:
        for exc, expected in (
            (ValueError("x"), ("quota", True, "wait")),
            (KeyError("x"), ("KeyError", False, None)),
        ):
            with pytest.raises(type(exc)):
                async with tracker.job("a") as job:
                    raise exc
            attrs = (await last(tracker, job, "operation_end")).attrs
            assert (
                attrs["error_type"],
                attrs["retry_possible"],
                attrs.get("recovery_suggestion"),
            ) == expected


def test_enrich_adds_fields_by_hand_once():
    """R10: `raise enrich(exc, vm=name)`; nothing in it can forge a line."""
    exc = ValueError("x")
    assert structjob.enrich(exc, vm="pg-01", tries=3, none=None) is exc
    structjob.enrich(exc, vm="pg-01", tries=3)
    structjob.enrich(exc, evil="a\nb")
    assert exc.__notes__ == ["[vm=pg-01, tries=3]", '[evil="a\\nb"]']


# -- attempts, pending, idempotency
# --------------------------------------------------------------------------


async def test_entering_a_known_id_again_is_the_next_attempt(any_tracker):
    """R2, R7: steps and events belong to their attempt; the job shows the latest, the
    history all.
    """
    with pytest.raises(ValueError, match="first"):
        async with (
            any_tracker.job("a", job_id="j", owner="ada", metadata={"n": 1}) as job,
            job.step("s"),
        ):
            raise ValueError("first")
    async with any_tracker.job("a", job_id="j") as again, again.step("s"):
        assert again.attempt == 2
        log.info("second try")
    record = await any_tracker.jobs.get("j")
    assert (record.status, record.attempt, record.owner, record.metadata, record.error) == (
        "completed",
        2,
        "ada",
        {"n": 1},
        None,
    )
    assert [
        (one.attempt, one.status, one.error and one.error.message)
        for one in await any_tracker.jobs.history("j")
    ] == [
        (1, "failed", "first"),
        (2, "completed", None),
    ]
    assert [step.attempt for step in await any_tracker.jobs.steps("j", 1)] == [1]
    (event,) = await any_tracker.logs.list(text="second try")
    assert event.attempt == 2


async def test_the_next_attempt_keeps_what_it_does_not_set(db_url):
    """R7: what a start with a known id sets replaces what the job had; what it does not set stays,
    and precedes what the tracker sets for all of its jobs.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, project="apollo") as tracker:
        async with (
            tracker.job("parent") as parent,
            parent.child(
                "a",
                job_id="j",
                owner="ada",
                project="gemini",
                description="nightly",
                category="network",
            ),
        ):
            pass
        async with tracker.job("a", job_id="j"):
            pass
        kept = await tracker.jobs.get("j")
        async with (
            tracker.job("other", project="moon") as other,
            other.child(
                "a",
                job_id="j",
                owner="bob",
                project="mercury",
                description="daily",
                category="system",
            ),
        ):
            pass
        replaced = await tracker.jobs.get("j")
        async with tracker.job("b", job_id="k"):
            pass
    async with structjob.Tracker(db_url) as tracker, tracker.job("b", job_id="k"):
        pass
    async with structjob.Tracker(db_url, project="mercury") as tracker:
        async with tracker.job("b", job_id="k"):
            pass
        first = await tracker.jobs.get("k")

    def told(record: structjob.JobRecord) -> tuple[object, ...]:
        return record.owner, record.project, record.description, record.category

    assert told(kept) == ("ada", "gemini", "nightly", "network")
    assert (kept.attempt, kept.parent_job_id, kept.root_job_id) == (2, parent.id, parent.id)
    assert told(replaced) == ("bob", "mercury", "daily", "system")
    assert (replaced.parent_job_id, replaced.root_job_id) == (other.id, other.id)
    assert (first.attempt, first.project) == (3, "apollo")


async def test_a_job_without_a_project_gets_that_of_the_tracker_that_goes_on_with_it(db_url):
    """R7: the project of a tracker is for jobs that have none so far, too."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker, tracker.job("a", job_id="j"):
        pass
    async with structjob.Tracker(db_url, project="apollo") as tracker:
        async with tracker.job("a", job_id="j"):
            pass
        assert (await tracker.jobs.get("j")).project == "apollo"


async def test_a_pending_job_is_started_later_even_by_another_tracker(database, tmp_path):
    """R13: a pending job can be started later by any tracker that has its id."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        pending = await tracker.create_job("later", owner="ada", metadata={"n": 1})
        record = await tracker.jobs.get(pending.id)
        assert (record.status, record.attempt, record.started_at, pending.status) == (
            "pending",
            0,
            None,
            "pending",
        )
        (created,) = await tracker.logs.list(job_id=pending.id)
        assert (created.kind, created.level, created.type, created.attempt) == (
            "operation_created",
            "info",
            "job",
            None,
        )
        assert created.attrs == {"operation": "later", "owner": "ada"}
    async with (
        structjob.Tracker(database.url, spool=tmp_path / "spool") as other,
        other.job("later", job_id=pending.id) as job,
    ):
        assert job.attempt == 1
        assert (await other.jobs.get(job.id)).status == "running"
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as reader:
        record = await reader.jobs.get(pending.id)
        told = [(event.kind, event.attempt) for event in await reader.logs.list(job_id=pending.id)]
    assert (record.status, record.owner, record.metadata, record.attempt) == (
        "completed",
        "ada",
        {"n": 1},
        1,
    )
    assert told == [("operation_created", None), ("operation_start", 1), ("operation_end", 1)]


STARTER = """
import asyncio, sys
import structjob

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], spool=sys.argv[2], service="starter") as tracker:
        async with tracker.job("later", job_id=sys.argv[3]) as job:
            job.result = job.metadata

asyncio.run(main())
"""


async def test_a_pending_job_is_started_by_another_process(any_tracker, database, live, tmp_path):
    """R13: on each database: another process starts the job by its id, with the values given at its
    creation; the process that created it sees it completed.
    """
    pending = await any_tracker.create_job("later", metadata={"n": 1})
    await asyncio.to_thread(live.python, STARTER, database.url, str(tmp_path / "other"), pending.id)
    record = await any_tracker.jobs.get(pending.id)
    assert (record.status, record.attempt, record.result) == ("completed", 1, {"n": 1})
    assert record.session_id != any_tracker.session_id


async def test_what_a_job_used_can_be_told(any_tracker):
    """R42: where the work was done in a child process, its figures stand in place of ours; what is
    not known is not made up.
    """
    told = await (await any_tracker.create_job("told")).start()
    with pytest.raises(
        InvalidArgument, match="cpu_ms must be a number that is not negative, not -1"
    ):
        await told.end(cpu_ms=-1)
    with pytest.raises(
        InvalidArgument, match=r"max_rss_kb must be at most 4,611,686,018,427,387,904, not 1e\+19"
    ):
        await told.end(max_rss_kb=1e19)
    await told.end(cpu_ms=12.5, max_rss_kb=2048)
    half = await (await any_tracker.create_job("half")).start()
    await half.end("failed", cpu_ms=0.5)
    given_up = await any_tracker.create_job("given up")
    await given_up.end("cancelled")
    used = [
        (record.cpu_ms, record.max_rss_kb)
        for record in [await any_tracker.jobs.get(job.id) for job in (told, half, given_up)]
    ]
    assert used == [(12.5, 2048), (0.5, None), (None, None)]


async def test_a_pending_job_can_be_given_up(any_tracker, database):
    """R7: pending leads to cancelled, which is the job's own event. What it has not is NULL."""
    job = await any_tracker.create_job("never")
    await job.end("cancelled")
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.cancelled_at is not None) == ("cancelled", True)
    assert (record.started_at, record.duration_ms) == (None, 0)
    assert await database.rows("SELECT metadata, result FROM structjob_jobs") == [(None, None)]
    assert (await last(any_tracker, job, "operation_end")).attrs["status"] == "cancelled"


async def test_the_first_start_with_an_idempotency_key_wins(any_tracker):
    """R14: the second gets a handle to the same job, and changes nothing of it."""
    async with any_tracker.job("a", idempotency_key="k") as first:
        first.result = 1
        async with any_tracker.job("b", idempotency_key="k") as second:
            assert second.existing
            assert (second.id, second.operation, second.status) == (first.id, "a", "running")
            with pytest.raises(InvalidState, match="same idempotency key"):
                second.update(percent=1)
            with pytest.raises(InvalidState, match="same idempotency key"):
                await second.end("failed")
            with pytest.raises(InvalidState, match="same idempotency key"):
                await second.step("s").start()
        assert (await any_tracker.jobs.get(first.id)).status == "running"
    async with any_tracker.job("c", idempotency_key="k") as third:
        assert (third.existing, third.status, third.result) == (True, "completed", 1)
    assert len(await any_tracker.jobs.list()) == 1


async def test_a_job_is_made_once_with_an_idempotency_key(any_tracker, database, tmp_path):
    """R13, R14: a second creation, in any process, returns the first pending job with its own
    values.
    """
    first = await any_tracker.create_job("charge", idempotency_key="k", metadata={"amount": 100})
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as other:
        for tracker in (any_tracker, other):
            again = await tracker.create_job(
                "charge it", idempotency_key="k", metadata={"amount": 200}
            )
            assert (again.existing, again.id, again.operation, again.status) == (
                True,
                first.id,
                "charge",
                "pending",
            )
            with pytest.raises(
                InvalidState,
                match=re.escape(f"tracker.job('charge', job_id={first.id!r}) starts it"),
            ):
                await again.start()
        async with other.job("charge", job_id=first.id) as job:
            assert (job.existing, job.attempt, job.metadata) == (False, 1, {"amount": 100})
    (record,) = await any_tracker.jobs.list()
    assert (record.id, record.status, record.idempotency_key, record.metadata) == (
        first.id,
        "completed",
        "k",
        {"amount": 100},
    )
    assert await database.rows("SELECT reason FROM structjob_dead_letters") == []


async def test_of_jobs_made_at_once_with_an_idempotency_key_one_is_first(
    any_tracker, database, tmp_path
):
    """R14: the others are shown its job, and the one that is first can be started by its own
    handle.
    """
    async with structjob.Tracker(database.url, spool=tmp_path / "other") as other:
        made = await asyncio.gather(
            *(
                tracker.create_job("charge", idempotency_key="k")
                for tracker in (any_tracker, other) * 3
            )
        )
        (first,) = (job for job in made if not job.existing)
        assert {job.id for job in made} == {first.id}
        async with first:
            pass
    await any_tracker.flush()
    assert [(record.id, record.status) for record in await any_tracker.jobs.list()] == [
        (first.id, "completed")
    ]
    assert await database.rows("SELECT reason FROM structjob_dead_letters") == []


async def test_which_correlation_id_the_next_attempt_has(any_tracker):
    """faults H: the next attempt keeps the job's correlation id, unless it is given one, or begins
    in another job.
    """
    seen = []

    async def attempt(**options):
        async with any_tracker.job("nightly", job_id="again", **options) as job:
            log.info("at work")
        seen.append((job.correlation_id, (await any_tracker.jobs.get("again")).correlation_id))

    await attempt(correlation_id="first")
    await attempt()
    await attempt(correlation_id="third")
    await attempt()
    async with any_tracker.job("parent", correlation_id="of the parent"):
        await attempt()
    assert seen == [(name, name) for name in ("first", "first", "third", "third", "of the parent")]
    events = [event async for event in any_tracker.logs.iterate(job_id="again", kind="log")]
    assert [event.correlation_id for event in events] == [name for name, _ in seen]


async def test_when_a_step_ended_is_stored(any_tracker):
    """faults H: a step that has ended has the moment of its end, between its start and its job's
    end; one that still runs has none.
    """
    async with any_tracker.job("nightly") as job, job.step("outer") as outer:
        async with job.step("inner"):
            pass
        await any_tracker.flush()
        running, inner = sorted(
            await any_tracker.jobs.steps(job.id), key=lambda step: step.id != outer.id
        )
        assert running.completed_at is None
    await any_tracker.flush()
    ended, _ = sorted(await any_tracker.jobs.steps(job.id), key=lambda step: step.id != outer.id)
    assert ended.started_at <= inner.started_at <= inner.completed_at <= ended.completed_at
    assert ended.completed_at <= (await any_tracker.jobs.get(job.id)).completed_at


# -- by hand, decorators, nesting
# --------------------------------------------------------------------------


async def test_what_is_logged_by_hand_belongs_to_the_job_and_the_step(any_tracker):
    """R24: an operation and its steps that are begun and ended by hand have the whole vocabulary,
    and so has a child of theirs.
    """
    job = await any_tracker.create_job("failover", correlation_id="gui-7")
    await job.start()
    with job.as_current() as bound:
        assert bound is job is structjob.current_job()
        log.info("rollback prepared", vm="pg-01")
        child = await any_tracker.create_job("snapshot")
        await child.start()
        await child.end("completed", summary={"volumes": 2})
    step = job.step("virtio")
    await step.start()
    with step.as_current():
        assert structjob.current_step() is step
        structjob.success(log, "drivers injected", drivers=3)
        log.warning("slow", duration_ms=900)
        try:
            raise OSError(5, "no device")
        except OSError as exc:
            log.error("injection failed", exc_info=exc, recovery_suggestion="check the device")
        inner = job.step("inner")
        await inner.start()
        await inner.end()
    assert structjob.current_job() is None
    await step.end("failed")
    await job.end("failed", summary={"vm_deleted": False})
    events = {event.message: event for event in await any_tracker.logs.list(job_id=job.id)}
    ended = [event for event in events.values() if event.kind == "operation_end"][-1]
    assert (events["rollback prepared"].type, events["rollback prepared"].correlation_id) == (
        "job",
        "gui-7",
    )
    told = [events[message] for message in ("drivers injected", "slow", "injection failed")]
    assert [(event.level, event.type, event.step) for event in told] == [
        ("success", "task", "virtio"), ("warning", "task", "virtio"), ("error", "task", "virtio"),
    ]  # fmt: skip
    failed = told[-1].attrs
    assert (failed["error_type"], failed["error_code"], failed["retry_possible"]) == (
        "OSError",
        5,
        False,
    )
    assert failed["recovery_suggestion"] == "check the device"
    assert ended.attrs["vm_deleted"] is False
    assert (await any_tracker.jobs.get(child.id)).parent_job_id == job.id
    assert (await any_tracker.jobs.get(child.id)).correlation_id == "gui-7"
    assert [record.parent_step_id for record in await any_tracker.jobs.steps(job.id)] == [
        None,
        step.id,
    ]


async def test_a_function_in_an_executor_binds_the_step(tracker):
    """R22: a bare executor knows no context; who holds the handle says where its events belong,
    whatever else the thread does.
    """

    def work(step):
        with step.as_current():
            log.info("in a thread", of=step.name)

    async with tracker.job("a") as job, job.step("one") as one:
        async with job.step("two") as two:
            for step in (one, two, one):
                await asyncio.get_running_loop().run_in_executor(None, work, step)
    events = await tracker.logs.list(text="in a thread")
    assert (
        [event.step for event in events]
        == ["one", "two", "one"]
        == [event.attrs["of"] for event in events]
    )


async def test_what_has_not_begun_cannot_be_bound(tracker):
    """Misuse: the message says what to do; what raises in the block goes on its way, and the scope
    is what it was.
    """
    async with tracker.job("a") as job:
        step = job.step("s")
        with (
            pytest.raises(
                InvalidState,
                match=r"step 's' of job .* has not begun; begin it with start\(\)",
            ),
            step.as_current(),
        ):
            raise AssertionError
        await step.start()
        with pytest.raises(KeyError), step.as_current():
            raise KeyError
        assert structjob.current_step() is None
        assert step.status == "running"


async def test_steps_by_hand(any_tracker):
    """R8: for code that cannot nest; each status that a step can end with."""
    job = await (await any_tracker.create_job("a")).start()
    for status in ("completed", "failed", "skipped", "cancelled", "retrying"):
        step = await job.step(status).start()
        await step.end(status, error=ValueError("x") if status == "failed" else None)
    await job.end()
    steps = await any_tracker.jobs.steps(job.id)
    assert [(step.name, step.status, step.seq) for step in steps] == [
        (name, name, n)
        for n, name in enumerate(["completed", "failed", "skipped", "cancelled", "retrying"], 1)
    ]
    assert steps[1].error.type == "ValueError"


async def test_nested_steps_know_their_parent(any_tracker):
    """R3: a step within a step; parallel steps in tasks are siblings of the same parent."""

    async def part(name):
        async with structjob.step(name):
            await asyncio.sleep(0)

    async with any_tracker.job("a") as job, job.step("outer") as outer:
        async with structjob.step("inner"):
            pass
        await asyncio.gather(part("left"), part("right"))
    steps = {step.name: step for step in await any_tracker.jobs.steps(job.id)}
    assert {step.parent_step_id for name, step in steps.items() if name != "outer"} == {outer.id}
    assert sorted(step.seq for step in steps.values()) == [1, 2, 3, 4]
    assert {step.status for step in steps.values()} == {"completed"}


async def test_steps_left_open_end_with_their_job(any_tracker):
    """R7: nothing is left running when the job is over."""
    async with any_tracker.job("a") as job:
        step = await job.step("forgotten").start()
    assert step.status == "cancelled"
    assert [record.status for record in await any_tracker.jobs.steps(job.id)] == ["cancelled"]
    assert await kinds(any_tracker, job) == [
        "operation_start",
        "step_start",
        "step_end",
        "operation_end",
    ]


async def test_ending_within_async_with_is_final(any_tracker):
    """R8: `job.end("failed")` inside the block decides; leaving it changes nothing."""
    async with any_tracker.job("a") as job, job.step("s") as step:
        await step.end("skipped")
        await job.end("failed", error=RuntimeError("on purpose"))
    record = await any_tracker.jobs.get(job.id)
    assert (record.status, record.error.message) == ("failed", "on purpose")


async def test_a_decorator_makes_a_job_of_each_call(any_tracker):
    """R8: what the function returns is the result, and returned; calls at the same time are jobs of
    their own; an exception goes on.
    """

    @any_tracker.job("work", job_type="t")
    async def work(n):
        """Its own words."""
        await asyncio.sleep(0)
        if n == 3:
            raise ValueError(n)
        return {"n": n}

    assert work.__doc__ == "Its own words."
    assert await asyncio.gather(work(1), work(2)) == [{"n": 1}, {"n": 2}]
    with pytest.raises(ValueError, match="3"):
        await work(3)
    records = await any_tracker.jobs.list(operation="work", order="asc")
    assert [(record.status, record.result) for record in records] == [
        ("completed", {"n": 1}),
        ("completed", {"n": 2}),
        ("failed", None),
    ]


def test_a_decorator_refuses_generator_functions():
    """R8: their bodies run while they are iterated over. They are refused where the mistake is,
    with the function's name, as is what is no function.
    """
    tracker = structjob.Tracker("sqlite://")

    def rows():
        yield

    async def chunks():
        yield

    for decorate in (tracker.job("a"), structjob.step("s")):
        for function in (rows, chunks):
            with pytest.raises(InvalidArgument, match=f"cannot decorate .*{function.__name__}"):
                decorate(function)
        with pytest.raises(InvalidArgument, match="decorates functions and coroutine functions"):
            decorate(5)


async def test_a_result_that_comes_after_the_end_is_stored(any_tracker):
    """R1: what is assigned to job.result is never lost without a word."""
    async with any_tracker.job("a") as job:
        pass
    job.result = {"rows": 7}
    await any_tracker.flush()
    found = await any_tracker.jobs.get(job.id)
    assert (found.result, found.status) == ({"rows": 7}, "completed")


async def test_another_operation_under_a_known_id_is_told_of(tracker, caplog):
    """R1: an id names one job; one that is used for another operation by mistake is not overwritten
    without a word.
    """
    async with tracker.job("load", job_id="j"):
        pass
    async with tracker.job("load", job_id="j"):
        assert caplog.records == []
    async with tracker.job("report", job_id="j"):
        (record,) = caplog.records
    assert "job j (report) continues a job_id that belonged to 'load'" in record.getMessage()


async def test_a_step_after_the_end_of_its_job_names_the_job(tracker, monkeypatch, caplog):
    """Rules of the surface: what a forgotten task does after its job has ended is not said to run
    outside a job.
    """
    monkeypatch.setattr(contexts, "_warned_untracked", False)
    ended = asyncio.Event()

    async def late():
        await ended.wait()
        async with structjob.step("late"):
            pass

    async with tracker.job("short"):
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    ended.set()
    await task
    assert "the step 'late' runs after its job 'short' has ended" in caplog.text


async def test_a_step_outside_a_job_runs_untracked_and_says_so_once(monkeypatch, caplog):
    """Rules of the surface, faults 33h: tracking never breaks a program, under `-W error` neither;
    the message names the user's line.
    """
    structjob.configure(console=False)
    monkeypatch.setattr(contexts, "_warned_untracked", False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with structjob.step("alone", total=3) as step:
            step.advance()
            step.update(completed=2, percent=10)
            assert [item async for item in step.track([1, 2])] == [1, 2]
            with step.as_current() as bound, step.guard() as guarded:
                assert bound is guarded is step
            step.skip()
            await step.end("completed", rows=3)
        async with structjob.step("alone"):
            pass
    (said,) = [record.getMessage() for record in caplog.records if record.name == "structjob"]
    assert re.match(
        rf"the step 'alone' runs outside a job and is not tracked; .* \({re.escape(__file__)}:\d+; logged once\)$",
        said,
    )

    @structjob.step("decorated")
    async def function():
        return 5

    assert await function() == 5


async def test_an_untracked_step_lets_exceptions_through(monkeypatch):
    """Rules of the surface: the body runs as if there were no step."""
    monkeypatch.setattr(contexts, "_warned_untracked", True)
    with pytest.raises(ValueError, match="x"):
        async with structjob.step("alone"):
            raise ValueError("x")


# -- two trackers, and none
# --------------------------------------------------------------------------


async def test_two_trackers_at_once_each_get_their_own(tmp_path):
    """Rules of the surface: an event goes to the tracker of its job; without a job to the first
    that is still open.
    """
    structjob.configure(console=False, strict=True)
    first, second = (structjob.Tracker(f"sqlite:///{tmp_path}/{name}.db") for name in "ab")
    async with second:
        async with first:
            async with first.job("a"), second.job("b"):
                log.info("in b")
            log.info("system")
            assert [event.message for event in await second.logs.list(kind="log")] == [
                "in b",
                "system",
            ]
            assert len(await first.logs.list(kind="log")) == 0
        log.info("system again")
        assert len(await second.logs.list(text="system again")) == 1


async def test_when_the_first_tracker_closes_the_next_takes_over(tmp_path):
    """Rules of the surface: system events go to the first tracker that is still open."""
    structjob.configure(console=False, strict=True)
    first, second = (structjob.Tracker(f"sqlite:///{tmp_path}/{name}.db") for name in "ab")
    async with first, second:
        await first.aclose()
        log.info("now here")
        assert [event.message for event in await second.logs.list()] == ["now here"]


async def test_what_was_logged_before_any_tracker_is_recorded_by_the_first(tmp_path):
    """Rules of the surface: the last 1,000 events wait for the first tracker that opens, and for
    that one only.
    """
    structjob.configure(console=False, strict=True)
    for n in range(1500):
        log.info("early", n=n)
    async with (
        structjob.Tracker(f"sqlite:///{tmp_path}/a.db") as first,
        structjob.Tracker(f"sqlite:///{tmp_path}/b.db") as second,
    ):
        log.info("late")
        events = await first.logs.list(limit=2000)
        assert [event.attrs.get("n") for event in events] == [*range(500, 1500), None]
        assert len(await second.logs.list()) == 0


async def test_logging_in_a_job_after_its_tracker_closed_is_counted(db_url):
    """Guarantee 2: it is not recorded, and the ledger says so."""
    structjob.configure(console=False, strict=True)
    tracker = structjob.Tracker(db_url)
    async with tracker, tracker.job("a"):
        await tracker.aclose()
        log.info("too late")
    assert tracker.ledger().rejected >= 1
    assert tracker.ledger().accepted == tracker.ledger().stored


# -- misuse
# --------------------------------------------------------------------------

MISUSE = {
    "job twice": (lambda job, step: job.end(), InvalidState, "has ended already (completed)"),
    "job with a wrong status": (
        lambda job, step: job.end("done"),
        InvalidArgument,
        "completed, failed or cancelled, not 'done'",
    ),
    "job crashed by hand": (lambda job, step: job.end("crashed"), InvalidArgument, "not 'crashed'"),
    "step twice": (lambda job, step: step.end(), InvalidState, "step 's' of job"),
    "step with a wrong status": (lambda job, step: step.end("done"), InvalidArgument, "not 'done'"),
    "start twice": (
        lambda job, step: job.start(),
        InvalidState,
        "was started already; make a new one",
    ),
    "step begun twice": (lambda job, step: step.start(), InvalidState, "began already"),
    "step of an ended job": (
        lambda job, step: job.step("late").start(),
        InvalidState,
        "is completed",
    ),
    "skip after the end": (lambda job, step: step.skip(), InvalidState, "has ended already"),
    "advance after the end": (
        lambda job, step: step.advance(),
        InvalidState,
        "advance needs it running",
    ),
    "update after the end": (
        lambda job, step: job.update(percent=1),
        InvalidState,
        "update needs it running",
    ),
    "cancel after the end": (lambda job, step: job.cancel(), InvalidState, "no running task"),
}


@each("name", MISUSE)
async def test_misuse_of_an_ended_handle_is_told(tracker, name):
    """R7, rules of the surface: the message names the job or step, and says what is wrong."""
    async with tracker.job("op") as job, job.step("s") as step:
        pass
    call, kind, says = MISUSE[name]
    with pytest.raises(kind, match=re.escape(says)) as caught:
        result = call(job, step)
        if asyncio.iscoroutine(result):
            await result
    assert "\n" not in str(caught.value)
    assert (await tracker.jobs.get(job.id)).status == "completed"


WRONG = {
    "job_id": ({"job_id": "x" * 65}, "job_id must have at most 64 characters, this one has 65"),
    "job_id type": ({"job_id": 5}, "job_id must be text, not int"),
    "empty": ({"owner": ""}, "owner must not be empty"),
    "external_job_id": ({"external_job_id": "x" * 256}, "external_job_id must have at most 255"),
    "context_id": ({"context_id": "x" * 65}, "context_id must have at most 64"),
    "correlation_id": ({"correlation_id": "x" * 129}, "correlation_id must have at most 128"),
    "after cleaning": ({"job_id": "\ud800" * 60}, "job_id must have at most 64"),
    "metadata": ({"metadata": [1]}, "metadata must be a mapping, not list"),
    "unknown": (
        {"ownr": "ada"},
        "unknown option 'ownr' of a job: use one of job_type, description, owner",
    ),
}


@each("name", WRONG)
async def test_a_wrong_option_is_named_before_anything_begins(tracker, name):
    """Bad input: raised where `tracker.job()` is called; no job is left behind."""
    options, says = WRONG[name]
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        tracker.job("a", **options)
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        await tracker.create_job("a", **options)
    assert len(await tracker.jobs.list()) == 0


async def test_other_wrong_arguments(tracker):
    """Bad input: names, parents, and what a job or step is entered with twice."""
    with pytest.raises(InvalidArgument, match="operation must have at most 255"):
        tracker.job("x" * 256)
    with pytest.raises(InvalidArgument, match="the name of a step must have at most 200"):
        structjob.step("x" * 201)
    with pytest.raises(InvalidArgument, match="parent must be a job"):
        async with tracker.job("a", parent=5):
            pass
    context = tracker.job("a")
    async with context:
        with pytest.raises(InvalidState, match="entered already"):
            async with context:
                pass
    with pytest.raises(JobNotFound, match="job not found: nope"):
        await tracker.jobs.find("nope")
    assert [job.status for job in await tracker.jobs.list()] == ["completed"]


async def test_a_step_that_has_ended_is_freed_without_the_garbage_collector(tracker):
    """Performance, B7: memory that only the collector frees makes each step dearer."""
    async with tracker.job("many") as job:
        gc.disable()
        try:
            async with job.step("one") as step:
                parts = [weakref.ref(step), weakref.ref(current_scope())]
            del step
            assert [part() for part in parts] == [None, None]
        finally:
            gc.enable()


async def test_a_running_job_can_be_cancelled_with_a_reason(any_tracker):
    """R9: from another task or thread; the reason is stored."""
    entered = asyncio.Event()
    handles = []

    async def work():
        async with any_tracker.job("a") as job, job.step("s"):
            handles.append(job)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    await asyncio.to_thread(handles[0].cancel, "not needed any more")
    with pytest.raises(asyncio.CancelledError):
        await task
    record = await any_tracker.jobs.get(handles[0].id)
    assert (record.status, record.error.message) == ("cancelled", "not needed any more")
    assert record.cancelled_at is not None


def test_the_options_of_a_job_are_typed_as_they_are():
    """Rules of the surface: what a type checker accepts as an option is one."""
    assert tuple(JobKeywords.__annotations__) == JobOptions.__struct_fields__


async def test_the_events_of_a_step_say_what_it_is_and_how_it_went(db_url):
    """R9, R20: its number and how many there are, its units if it has some, and a warning if it was
    cancelled; what it refuses, it refuses by its state.
    """
    found = []
    structjob.configure(console=False, sinks=[found.append], strict=True)
    async with structjob.Tracker(db_url) as tracker:
        async with tracker.job("nightly", total_steps=3) as job:
            fresh = job.step("fresh")
            assert not fresh.status
            async with job.step("load", total=4) as load:
                load.advance(2)
            async with job.step("plain"):
                pass
            stopped = await job.step("stopped").start()
            stopped.end("cancelled")
            for step, state in ((fresh, "not begun"), (stopped, "cancelled")):
                with pytest.raises(InvalidState, match=f"is {state}; advance needs it running"):
                    step.advance()
    (starts, ends) = (
        {event.attrs["step"]: event for event in found if event.kind == kind}
        for kind in ("step_start", "step_end")
    )
    numbered = {"step": "load", "step_number": 1, "total_steps": 3}
    assert starts["load"].attrs == {**numbered, "total": 4}
    assert starts["plain"].attrs == {"step": "plain", "step_number": 2, "total_steps": 3}
    told = {**numbered, "status": "completed", "completed": 2}
    assert told.items() <= ends["load"].attrs.items()
    assert "completed" not in ends["plain"].attrs
    assert {name: event.level for name, event in ends.items()} == {
        "load": "info", "plain": "info", "stopped": "warning"
    }  # fmt: skip
