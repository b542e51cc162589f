"""What a plausible guess did silently: it does what was meant, or says by name what to write."""

import asyncio
import copy
import csv
import dataclasses
import gzip
import inspect
import pickle
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from each import each

import structjob
from structjob import InvalidArgument, InvalidFilter, JobRecord, StepRecord, exceptions
from structjob.cli.export import export

log = structlog.get_logger("app")


def mine(exc):
    """A classifier of the user's own."""
    return {"error_type": "mine"}


def theirs(exc):
    return {"error_type": "theirs"}


@pytest.mark.parametrize(
    ("configured", "tracked", "type_"),
    [
        (mine, None, "mine"),
        (None, mine, "mine"),
        (theirs, mine, "mine"),
        (None, None, "ValueError"),
    ],
)
async def test_one_exception_has_one_type(db_url, configured, tracked, type_):
    """faults 33h: log line, step and job say the same, wherever the classifier was given; the
    tracker's own goes first.
    """
    structjob.configure(console=False, classifier=configured)
    async with structjob.Tracker(db_url, classifier=tracked) as tracker:
        with pytest.raises(ValueError, match="no"):
            async with tracker.job("a") as job, job.step("s"):
                try:
                    raise ValueError("no")
                except ValueError:
                    log.exception("seen")
                    raise
        stored = await tracker.logs.list(job_id=job.id)
        events = {
            event.message if event.kind == "log" else event.kind: event.attrs.get("error_type")
            for event in stored
        }
        assert {
            name: events[name] for name in ("seen", "step_error", "operation_end")
        } == dict.fromkeys(("seen", "step_error", "operation_end"), type_)


async def test_retries_ask_the_configured_classifier(db_url):
    """faults 33h: whether a retry may help is asked where the error's type is."""
    structjob.configure(console=False, classifier=lambda exc: {"retry_possible": True})
    tries = []
    async with structjob.Tracker(db_url) as tracker, tracker.job("a"):
        async for attempt in structjob.retrying("s", max_attempts=2, delay=0):
            async with attempt:
                tries.append(attempt.number)
                if attempt.number == 1:
                    raise ValueError("no")
    assert tries == [1, 2]


DOCS = "".join(
    page.read_text("utf-8") for page in (Path(__file__).parent.parent / "docs").glob("*.md")
)

PUBLIC = [
    kind
    for kind in vars(exceptions).values()
    if inspect.isclass(kind) and issubclass(kind, structjob.StructjobError)
]
ARGUMENTS = {
    "JobNotFound": ("gui-1",), "EventNotFound": (7, 8, "pruned"), "ErrorGroupNotFound": ("ab12",), "StoreUnavailable": ("no answer",),
    "QueryTimeout": ("sqlite:///jobs.db", 10.0),
}  # fmt: skip


@each(
    "again",
    [lambda exc: pickle.loads(pickle.dumps(exc)), copy.copy, copy.deepcopy],
)
@each("kind", PUBLIC)
def test_exceptions_survive_pickling(kind, again):
    """faults 33h: out of a process pool comes the same type, text, attributes and notes."""
    keywords = {"permanent": True, "gone": True} if kind is structjob.StoreUnavailable else {}
    exc = kind(*ARGUMENTS.get(kind.__name__, ("what is wrong",)), **keywords)
    exc.add_note("a note")
    other = again(exc)
    assert type(other) is kind
    assert f"{kind.__module__}.{kind.__name__}" == f"structjob.{kind.__name__}"  # in tracebacks
    assert (str(other), other.args, vars(other)) == (str(exc), exc.args, vars(exc))
    assert vars(other)["__notes__"] == ["a note"]


@pytest.mark.parametrize("name", ["x.csv", "x.CSV.gz", "x.txt", "x.log", "x"])
async def test_the_name_of_a_file_says_in_which_format_a_job_is_exported(tracker, tmp_path, name):
    """Review 2, task 12: `.csv` is CSV, `.txt` the lines as the console shows them."""
    async with tracker.job("a") as job:
        structlog.get_logger("app").info("=1+1", n=3)
    form = {"format": "text"} if name == "x" else {}
    number = await tracker.export(job, tmp_path / name, **form)
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "rt", encoding="utf-8") as file:
        written = file.read()
    if "csv" in name.lower():
        rows = [*csv.DictReader(written.splitlines())]
        assert len(rows) == number - 1 == len(await tracker.logs.list(job=job))
        assert [(row["message"], row["attrs"]) for row in rows if row["kind"] == "log"] == [("'=1+1", '{"n":3}')]  # fmt: skip
    else:
        assert written == "".join(f"{event}\n" for event in await tracker.logs.list(job=job))


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        (
            "x.xlsx",
            {},
            r"jsonl, csv or text, but the suffix of x\.xlsx says something else: use \.jsonl",
        ),
        ("x.csv", {"format": "jsonl"}, r"as jsonl, but the suffix of x\.csv says"),
        ("x.jsonl", {"format": "csv"}, r"as csv, but the suffix of x\.jsonl says"),
        ("x", {"format": "pdf"}, "format must be one of jsonl, csv, text, not 'pdf'"),
    ],
)
async def test_an_export_is_not_called_what_it_is_not(tracker, tmp_path, name, given, says):
    """faults 33h: a name that promises another format is refused, and no file is made."""
    async with tracker.job("a") as job:
        pass
    with pytest.raises(InvalidArgument, match=says):
        await tracker.export(job.id, tmp_path / name, **given)
    assert list(tmp_path.glob("x*")) == []


def test_the_command_refuses_such_a_name_too(tmp_path):
    """faults 33h: `structjob export JOB -o x.xlsx`."""
    ran = CliRunner().invoke(export, ["gui-17", "-o", str(tmp_path / "x.xlsx")])
    assert ran.exit_code == 2
    assert "the suffix of x.xlsx says something else" in ran.output


@pytest.mark.parametrize(
    "name", ["x.jsonl", "x.jsonl.gz", "x.ndjson", "x.json", "csv", "no-suffix"]
)
async def test_other_names_are_as_good_as_before(tracker, tmp_path, name):
    """faults 33h: only names that promise another form are refused."""
    async with tracker.job("a") as job:
        pass
    assert await tracker.export(job.id, tmp_path / name) > 2
    opener = gzip.open if name.endswith(".gz") else open
    with opener(tmp_path / name, "rb") as file:
        assert file.readline().startswith(b'{"record":"export"')


class AsyncSink:
    async def emit(self, record):
        pass


class _Call:
    async def __call__(self, record):
        pass


class CallableSink:
    emit = _Call()


@pytest.mark.parametrize("sink", [AsyncSink(), CallableSink()], ids=["method", "callable"])
def test_a_sink_that_would_never_be_awaited_is_refused(sink):
    """faults 33h: where it is added, by each way to add one."""
    for add in (
        lambda: structjob.configure(console=False, sinks=[sink]),
        lambda: structjob.processors.FanOut(sink),
    ):
        with pytest.raises(
            InvalidArgument,
            match="is a coroutine function, and is never awaited: write a plain one",
        ):
            add()


JOB = {
    "percent": "call job.update(percent=…)", "progress": "call job.update(percent=…)", "completed": "a step counts units: step.advance()",
    "done": "a step counts units", "total": "a step counts units", "status": "call job.end()", "error": "call job.end(error=…)",
    "current_step": "call job.update(current_step=…)", "attempt": "counts it", "existing": "idempotency_key",
    "id": "tracker.job(…, job_id=…)", "operation": "given when the job is made", "parent_job_id": "child()", "root_job_id": "child()",
    "description": "call job.update(description=…)",
    **{name: f"tracker.job(…, {name}=…)" for name in ("correlation_id", "job_type", "owner", "project", "category", "external_job_id",
                                                     "context_id", "idempotency_key")},
}  # fmt: skip
STEP = {
    "percent": "call step.update(percent=…)", "progress": "call step.advance()", "completed": "step.update(completed=…)",
    "done": "call step.advance()", "result": "call step.update(metadata=…)", "status": "call step.end()", "error": "call step.end(error=…)",
    "name": "given when the step is made", "total": "call step.update(total=…)", "description": "call step.update(description=…)",
    "seq": "numbered", "id": "given when the step is made", "job": "given when the step is made", "parent_step_id": "within another",
}  # fmt: skip


@each(("which", "name"), [("Job", name) for name in JOB] + [("Step", name) for name in STEP])
async def test_what_cannot_be_set_says_what_to_call(tracker, which, name):
    """faults 33h: `job.percent = 50` changes nothing, and says so; the job goes on."""
    async with tracker.job("a") as job, job.step("s") as step:
        handle, hint = (job, JOB[name]) if which == "Job" else (step, STEP[name])
        before = getattr(handle, name, None)
        with pytest.raises(AttributeError) as raised:
            setattr(handle, name, 50)
        assert str(raised.value).startswith(f"{which}.{name} cannot be set; ")
        assert hint in str(raised.value)
        assert getattr(handle, name, None) == before
    assert (await tracker.jobs.get(job.id)).status == "completed"


@pytest.mark.parametrize("name", ["percentage", "owners", "steps"])
async def test_a_misspelt_attribute_is_none(tracker, name):
    """faults 33h: a name that no handle has cannot be set either."""
    async with tracker.job("a") as job, job.step("s") as step:
        for handle in (job, step):
            with pytest.raises(AttributeError, match=name):
                setattr(handle, name, 1)


async def test_what_a_job_told_can_be_read(tracker):
    """faults 33h: `job.percent` and `job.current_step` are what `update` was told."""
    async with tracker.job("a") as job:
        assert (job.percent, job.current_step, hasattr(job, "progress")) == (None, None, False)
        job.update(percent=40, current_step="copy")
        assert (job.percent, job.current_step) == (40, "copy")
        job.result, job.metadata, job.total_steps = 1, {"a": 1}, 3
    record = await tracker.jobs.get(job.id)
    assert (record.result, record.metadata, job.total_steps, job.percent) == (1, {"a": 1}, 3, 100)


async def test_metadata_of_a_record_is_always_a_dictionary(any_tracker):
    """Review 1.7: code that reads metadata need not ask first whether there is any."""
    async with any_tracker.job("plain") as job:
        async with job.step("copy"):
            pass
    assert (await any_tracker.jobs.find(job)).metadata == {}
    assert [step.metadata for step in await any_tracker.jobs.steps(job)] == [{}]


async def test_a_job_is_started_by_hand_with_await(any_tracker):
    """Review 1.3: `await tracker.job(…)` and `.start()` start a job as `job.step(…).start()` does
    a step.
    """
    for start in (any_tracker.job("a"), any_tracker.job("b").start()):
        job = await start
        assert (job.status, structjob.current_job()) == ("running", None)
        await job.end(result=7)
        assert (await any_tracker.jobs.find(job)).result == 7


async def test_a_child_has_no_other_parent(tracker):
    """Review 1.3: `child(parent=…)` was overwritten silently."""
    async with tracker.job("a") as job:
        with pytest.raises(InvalidArgument, match="leave parent out"):
            job.child("b", parent="other")


async def test_units_are_advanced_by_update_too(any_tracker):
    """Review 2, task 7: `step.update(advance=1)`, as rich has it."""
    async with any_tracker.job("a") as job, job.step("s", total=10) as step:
        step.update(advance=2)
        step.update(completed=3, advance=1, description="half")
        assert step.completed == 4
    (record,) = await any_tracker.jobs.steps(job)
    assert (record.completed, record.description) == (4, "half")


async def test_a_listener_is_a_block(tracker):
    """Review 1.3: the block ends the listener; its events are not stored yet and have no id."""
    heard, called = [], asyncio.Event()

    def hear(event):
        heard.append(event)
        called.set()

    with tracker.listen(hear, kind="log"):
        log.info("one")
    await called.wait()
    async with tracker.listen(kind="log") as listener:
        log.info("two")
    log.info("three")
    assert [event.message async for event in listener] == ["two"]
    assert [(event.message, event.id) for event in heard] == [("one", None)]


async def test_the_last_events(any_tracker):
    """Review 1.6: `logs.list(last=2)` returns the newest two, the oldest of them first."""
    async with any_tracker.job("a") as job:
        for number in range(5):
            log.info(f"line {number}")
    found = await any_tracker.logs.list(last=2, kind="log", job=job)
    assert [event.message for event in found] == ["line 3", "line 4"]
    assert (found.next_cursor, found.previous_cursor) == (None, None)
    around = await any_tracker.logs.around(found[0], before=1, after=1, within="session")
    assert [event.message for event in (*around.before, around.event, *around.after)] == [
        "line 2",
        "line 3",
        "line 4",
    ]
    for wrong in ({"last": 0}, {"last": 2, "limit": 3}, {"last": 2, "order": "desc"}):
        with pytest.raises(InvalidFilter, match="last"):
            await any_tracker.logs.list(**wrong)


async def test_completion_shows_what_programs_call(tracker):
    """Ruling 10: each member of a job or step that a shell completes is in the docs, or a field of
    its record. The library has no members of its own there.
    """
    async with tracker.job("a") as job, job.step("s") as step:
        for handle, kind, known in (
            (job, JobRecord, {"step", "bind", "percent"}),
            (step, StepRecord, {"advance", "job"}),
        ):
            shown = {name for name in dir(handle) if not name.startswith("_")}
            assert known <= shown
            assert not {name for name in shown if not hasattr(handle, name)}
            fields = {field.name for field in dataclasses.fields(kind)}
            assert {
                name for name in shown - fields if f"`{name}" not in DOCS and f".{name}" not in DOCS
            } == set()


@pytest.mark.parametrize(
    ("configured", "tracked", "warned"),
    [("info", "debug", True), ("debug", "debug", False), ("warning", "info", False)],
)
@pytest.mark.parametrize("kept", [0, 500])
async def test_a_level_that_gets_no_events_is_named(
    db_url, caplog, configured, tracked, warned, kept
):
    """Review 1.1: `Tracker(level="debug")` beside `configure(level="info")` stored no debug event,
    and nothing said so; with `debug_on_failure`, which has nothing to keep below debug, neither.
    """
    structjob.configure(console=False, level=configured)
    async with structjob.Tracker(db_url, level=tracked, debug_on_failure=kept):
        pass
    said = [
        one.getMessage() for one in caplog.records if "gets no events below" in one.getMessage()
    ]
    assert len(said) == warned
    assert not warned or "Tracker(level='debug') gets no events below info" in said[0]
