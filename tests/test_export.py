"""A job as a file, and back: with its attempts, steps, events and children, once, and nothing half
done.
"""

import bz2
import dataclasses
import gzip
import json
import lzma
import os
import tempfile
import threading
import uuid
from datetime import UTC, datetime

import pytest
import structlog
from each import each
from retention_support import age

import structjob
from structjob.capture.emit import emit_lines
from structjob.context.scope import current_scope
from structjob.exceptions import ImportRefused, InvalidArgument, JobNotFound
from structjob.queries.jobs import lookups_of
from structjob.transfer import imports
from structjob.transfer.records import row_of

log = structlog.get_logger("tests.export")

JOB = {
    "record": "job",
    "id": "old-1",
    "operation": "copy",
    "created_at": "2020-01-02T03:04:05+01:00",
}


@pytest.fixture
def tracker(any_tracker):
    return any_tracker


@pytest.fixture
async def plain(tmp_path):
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{tmp_path / 'plain.db'}") as opened:
        yield opened


async def history(tracker):
    """Record a job with two attempts, steps, a child, an error and odd values."""
    for attempt in (1, 2):
        metadata = {"vm": {"a": [None, "ü\u2028"]}}
        try:
            async with tracker.job(
                "copy", job_id="mine", metadata=metadata, external_job_id="gui-17", owner="ada"
            ) as job:
                async with job.step("first", total=2) as step:
                    step.advance(1)
                    log.info("in a step", n=attempt, big=2**70)
                job.result = "text"
                if attempt == 1:
                    raise ValueError("not yet")
                async with job.child("verify", context_id="vm-9") as child:
                    log.warning("in the child", of=child.id)
        except ValueError:
            pass


async def everything(tracker, job_id):
    """Return all of a job, but for what tells of who stored it."""

    def plain(record, *leave_out):
        names = [
            name
            for name in record.__dataclass_fields__
            if name not in ("session_id", "state_seq", *leave_out)
        ]
        return {name: getattr(record, name) for name in names}

    def tree(found):
        return (
            plain(found.job),
            [plain(step) for step in found.steps],
            [tree(child) for child in found.children],
        )

    events = [
        plain(event, "id", "seq", "stored_at")
        async for event in tracker.logs.iterate(job_id=job_id, children=True)
    ]
    attempts = [plain(attempt) for attempt in await tracker.jobs.history(job_id)]
    steps = [plain(step) for step in await tracker.jobs.steps(job_id, 1)]
    return tree(await tracker.jobs.tree(job_id)), attempts, steps, events


def write(path, *records):
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    return path


async def test_a_job_comes_back_as_it_was(tracker, plain, tmp_path):
    """What was exported and imported is equal in every field, and complete by its own proof; on
    each database (R21, R36).
    """
    await history(tracker)
    path = tmp_path / "job.jsonl.gz"
    number = await tracker.export("gui-17", path)
    assert path.stat().st_mode & 0o777 == 0o600
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert len(lines) == number
    assert lines[0]["record"] == "export"
    there = await everything(tracker, "mine")
    found = await plain.import_(path)
    assert await everything(plain, "mine") == there
    assert (found.jobs, found.attempts, found.steps, found.events) == (2, 3, 2, len(there[3]))
    assert found.job_ids["mine"] == "mine"
    assert (await plain.verify()).ok
    again = tmp_path / "again.jsonl"
    await plain.export("mine", again)
    with pytest.raises(ImportRefused, match="in the database already"):
        await tracker.import_(again)


async def test_new_ids(tracker, tmp_path):
    """A job can be taken in beside its original: all ids are new, the map tells which, and parents,
    steps and events follow (R21).
    """
    await history(tracker)
    path = tmp_path / "job.jsonl"
    await tracker.export("mine", path)
    before = await tracker.logs.count()
    tried = await tracker.import_(path, ids="new", dry_run=True)
    assert await tracker.logs.count() == before
    found = await tracker.import_(path, ids="new")
    assert found == tried
    new = found.job_ids["mine"]
    assert {str(uuid.UUID(one)) for one in found.job_ids.values()} == set(found.job_ids.values())
    tree = await tracker.jobs.tree(new)
    assert tree.job.root_job_id == new != "mine"
    assert [child.job.root_job_id for child in tree.children] == [new]
    assert [step.id for step in tree.steps] == [
        found.step_ids[(await tracker.jobs.tree("mine")).steps[0].id]
    ]
    events = await tracker.logs.list(job_id=new, children=True)
    assert {event.job_id for event in events} == set(found.job_ids.values())
    assert {event.attrs.get("parent_job_id") for event in events} == {None, new}
    assert (await tracker.verify()).ok


async def test_the_same_file_is_stored_once(tracker, tmp_path, monkeypatch):
    """Importing a file again stores nothing; one whose import was cut off goes on and ends complete
    (R21).
    """
    monkeypatch.setattr(imports, "_BATCH", 3)
    path = write(
        tmp_path / "old.jsonl",
        JOB | {"idempotency_key": "nightly"},
        *(
            {"record": "event", "ts": 1_600_000_000 + n, "message": f"line {n}", "job_id": "old-1"}
            for n in range(20)
        ),
    )
    original, calls = tracker._store.write, 0

    async def cut(work):
        nonlocal calls
        calls += work.session_id != tracker.session_id
        if calls == 3:
            calls += 1
            raise structjob.StoreUnavailable("cut")
        return await original(work)

    monkeypatch.setattr(tracker._store, "write", cut, raising=False)
    with pytest.raises(structjob.StoreUnavailable):
        await tracker.import_(path)
    assert 0 < await tracker.logs.count(job_id="old-1") < 20
    for known in (False, True, True):
        assert (await tracker.import_(path)).known is known
        assert [event.message for event in await tracker.logs.list(job_id="old-1")] == [
            f"line {n}" for n in range(20)
        ]
    record = await tracker.jobs.get("old-1")
    assert record.idempotency_key == "nightly"
    assert record.session_id < 1 << 53  # JavaScript knows no greater one
    assert (await tracker.verify()).ok


async def test_what_the_database_refuses_is_no_imported_event(plain, tmp_path, monkeypatch):
    """R21: the result says how many events are stored, and how many became dead letters."""
    event = {"record": "event", "ts": 1_600_000_000, "message": "m", "job_id": "old-1"}
    path = write(tmp_path / "old.jsonl", JOB, event, event, event)
    original = plain._store.write

    async def refuse_one(work):
        return dataclasses.replace(await original(work), dead=1)

    monkeypatch.setattr(plain._store, "write", refuse_one, raising=False)
    found = await plain.import_(path)
    assert (found.events, found.refused) == (2, 1)


async def test_an_error_of_another_program_is_counted(plain, tmp_path):
    """R21, R39: lines of another program have no fingerprint of ours; its errors are found with
    the others, and its own fingerprint stays an attribute.
    """
    event = {"record": "event", "ts": 1_600_000_000, "message": "no such row", "job_id": "old-1"}
    error = event | {"level": "error", "fingerprint": "theirs"}
    await plain.import_(write(tmp_path / "old.jsonl", JOB, error))
    (group,) = await plain.errors.list()
    assert (group.count, group.fingerprint == "theirs") == (1, False)
    (found,) = await plain.logs.list(job_id="old-1")
    assert found.attrs["fingerprint"] == "theirs"


async def test_the_same_text_in_two_operations_is_two_errors(plain, tmp_path):
    """R39: `no space left` of a backup and of a migration were one imported error."""
    event = {"record": "event", "ts": 1_600_000_000, "level": "error", "message": "disk is full"}
    other = JOB | {"id": "old-2", "operation": "another"}
    lines = (event | {"job_id": "old-1"}, event | {"job_id": "old-2"})
    await plain.import_(write(tmp_path / "old.jsonl", JOB, other, *lines))
    assert len(await plain.errors.list()) == 2


async def test_the_error_of_an_event_is_shown_as_an_exception(plain, tmp_path):
    """R21, R39: an event's error, written like that of a job, was an attribute full of JSON, and
    all errors with the same message were one.
    """
    event = {"record": "event", "ts": 1_600_000_000, "level": "error", "message": "copy failed"}
    trace = 'Traceback (most recent call last):\n  File "/srv/a.py", line 7, in run\nOSError: full'
    full = event | {"error": {"type": "OSError", "message": "full", "traceback": trace}}
    refused = event | {"error": {"type": "ConnectionError", "message": "refused"}}
    await plain.import_(write(tmp_path / "old.jsonl", full, refused, event | {"error": "none"}))
    first, second, third = await plain.logs.list()
    assert str(first).splitlines()[1:] == [f"    {line}" for line in trace.splitlines()]
    assert "error_type=ConnectionError error_message=refused" in str(second)
    assert third.attrs == {"error": "none"}
    errors = {group.error.type: group.error for group in await plain.errors.list()}
    assert errors["OSError"].traceback == trace
    assert errors["ConnectionError"].message == "refused"


async def test_a_child_whose_family_is_not_in_the_file_keeps_its_root(plain, tmp_path):
    """R21: a job can be imported without its parents; it still says where it belongs."""
    child = JOB | {"parent_job_id": "above", "root_job_id": "top"}
    await plain.import_(write(tmp_path / "child.jsonl", child))
    record = await plain.jobs.get("old-1")
    assert (record.parent_job_id, record.root_job_id) == ("above", "top")


async def test_a_job_whose_last_attempt_has_no_line_of_its_own(plain, tmp_path):
    """R21: the job's line is its latest attempt; the lines of earlier ones do not replace it."""
    job = JOB | {"status": "completed", "attempt": 2}
    first = {"record": "attempt", "job_id": "old-1", "attempt": 1, "status": "failed"}
    await plain.import_(write(tmp_path / "job.jsonl", job, first))
    record = await plain.jobs.get("old-1")
    assert (record.status, record.attempt) == ("completed", 2)
    attempts = [(one.attempt, one.status) for one in await plain.jobs.history("old-1")]
    assert attempts == [(1, "failed"), (2, "completed")]


async def test_what_was_running_ends_with_its_last_line(tracker, tmp_path):
    """Nothing runs in a file: what was running crashed when it was last heard of; durations follow
    from the times (R11, R21).
    """
    begun, at = "2020-01-02T03:04:05Z", "2020-01-02T03:04:0{}Z".format
    records = (
        {"record": "job", "id": 18, "operation": "left", "status": "running", "started_at": begun},
        {
            "record": "step",
            "id": 1,
            "job_id": 18,
            "name": "heard of",
            "status": "running",
            "started_at": begun,
        },
        {
            "record": "step",
            "id": 2,
            "job_id": 18,
            "name": "silent",
            "status": "running",
            "started_at": begun,
        },
        {
            "record": "step",
            "id": 3,
            "job_id": 18,
            "name": "done",
            "started_at": begun,
            "completed_at": at(6),
        },
        {"record": "event", "ts": at(8), "message": "b", "job_id": 18},
        {"record": "event", "ts": at(7), "message": "a", "job_id": 18, "step_id": 1},
        {
            "record": "job",
            "id": 19,
            "operation": "unheard",
            "status": "running",
            "started_at": begun,
        },
    )
    await tracker.import_(write(tmp_path / "old.jsonl", *records))
    job, unheard = await tracker.jobs.get("18"), await tracker.jobs.get("19")
    assert (job.status, job.duration_ms, job.completed_at.second) == ("crashed", 3000, 8)
    assert (unheard.status, unheard.duration_ms, unheard.completed_at) == ("crashed", None, None)
    steps = {step.name: (step.status, step.duration_ms) for step in await tracker.jobs.steps("18")}
    assert steps == {
        "heard of": ("crashed", 2000),
        "silent": ("crashed", 3000),
        "done": ("completed", 1000),
    }


async def test_what_ended_without_a_time_ends_with_its_own_last_line(tracker, tmp_path):
    """A job of another tracker without an end is listed and counted where its last line was; a step
    without lines has no end, and ids of steps are not those of jobs (R21).
    """
    job = {"record": "job", "operation": "copy", "started_at": "2020-01-02T03:04:05Z"}
    step = {"record": "step", "job_id": 3, "started_at": "2020-01-02T03:04:05Z"}
    records = (
        job | {"id": 3, "status": "failed"},
        step | {"id": 4, "name": "load"},
        step | {"id": 5, "name": "check"},
        {"record": "event", "ts": "2020-01-02T03:04:09Z", "message": "b", "job_id": 3},
        {
            "record": "event",
            "ts": "2020-01-02T03:04:07Z",
            "message": "a",
            "job_id": 3,
            "step_id": 4,
        },
        job | {"id": 4, "status": "failed", "ended_at": "2020-01-02T03:04:06Z"},
        job | {"id": 5, "status": "cancelled"},
        {"record": "event", "ts": "2020-01-02T03:04:06Z", "message": "c", "job_id": 5},
        job | {"id": 6, "status": "completed"},  # its clock was set back
        {"record": "event", "ts": "2020-01-02T03:04:04Z", "message": "d", "job_id": 6},
    )
    await tracker.import_(write(tmp_path / "old.jsonl", *records))
    took = {job.id: job.duration_ms for job in await tracker.jobs.list()}
    assert took == {"3": 4000, "4": 1000, "5": None, "6": None}
    steps = {step.name: step.duration_ms for step in await tracker.jobs.steps("3")}
    assert steps == {"load": 2000, "check": None}
    since = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)
    (copy,) = await tracker.stats.operations(since=since, by="ended")
    assert (copy.failed, copy.total) == (2, 2)


async def test_a_stream_that_there_is_not(plain, tmp_path):
    """What an event came by is stdout, stderr or system; whatever else is an attribute, as in
    logging (R4, R21).
    """
    event = {"record": "event", "ts": 1, "message": "m", "job_id": "old-1"}
    records = (event | {"stream": stream} for stream in ("stderr", "\x1b[2J", 7, None))
    await plain.import_(write(tmp_path / "old.jsonl", JOB, *records))
    found = [(event.stream, event.attrs) for event in await plain.logs.list(job_id="old-1")]
    assert found == [
        ("stderr", {}),
        ("system", {"stream": "\x1b[2J"}),
        ("system", {"stream": 7}),
        ("system", {}),
    ]


async def test_an_older_trackers_lines(tracker, tmp_path):
    """A few fields are enough; other words for statuses and fields are understood, unknown ones are
    kept, numbers become ids (R21).
    """
    records = (
        {
            "record": "job",
            "job_id": 17,
            "name": "copy",
            "status": "SUCCESS",
            "start_time": "2020-01-02 03:04:05",
            "vm": "pg-01",
        },
        {
            "record": "step",
            "id": 3,
            "job_id": 17,
            "name": "load",
            "status": "error",
            "error": "disk full",
        },
        {
            "record": "event",
            "timestamp": "2020-01-02T03:04:06Z",
            "event": "copied",
            "level": "WARN",
            "job_id": 17,
            "step_id": 3,
            "n": 1,
        },
        {
            "record": "job",
            "id": 18,
            "operation": "left",
            "status": "running",
            "created_at": 1_600_000_000.5,
        },
    )
    await tracker.import_(write(tmp_path / "old.jsonl", *records))
    job = await tracker.jobs.get("17")
    assert (job.operation, job.status, job.metadata, job.attempt) == (
        "copy",
        "completed",
        {"vm": "pg-01"},
        1,
    )
    assert job.created_at.isoformat() == "2020-01-02T03:04:05+00:00"
    (step,) = await tracker.jobs.steps("17")
    assert (step.id, step.status, step.error.message) == ("3", "failed", "disk full")
    (event,) = await tracker.logs.list(job_id="17")
    assert (event.message, event.level, event.type, event.attrs, event.step_id) == (
        "copied",
        "warning",
        "task",
        {"n": 1},
        "3",
    )
    assert (event.operation, event.step) == ("copy", "load")  # its line has only the ids
    assert (await tracker.jobs.get("18")).status == "crashed"  # nothing runs in a file
    assert (await tracker.verify()).ok


async def test_blank_lines_come_back(tracker, plain, database, tmp_path):
    """What a program printed is restored with its blank lines, from an export and from the archive
    of a prune alike (R21, R31, R41).
    """
    async with tracker.job("print", job_id="mine") as job:
        for line in ("one", "", "two"):
            emit_lines(current_scope(), "info", [line], {}, stream="stdout")
    there = await everything(tracker, "mine")
    assert [event["message"] for event in there[3] if event["kind"] == "output"] == [
        "one",
        "",
        "two",
    ]
    await tracker.export(job.id, tmp_path / "job.jsonl")
    await plain.import_(tmp_path / "job.jsonl")
    assert await everything(plain, "mine") == there
    await age(database, 2)
    there = await everything(tracker, "mine")
    for path in (
        await tracker.prune(structjob.Retention(days=1, archive=tmp_path / "archive"))
    ).archived:
        await tracker.import_(path)
    assert await everything(tracker, "mine") == there


async def test_what_can_be_read_once_only(tracker, tmp_path, monkeypatch):
    """A pipe is imported as a file of the same content is, which is known then; no copy is left
    (R21, R36).
    """
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = write(
        tmp_path / "old.jsonl", JOB, {"record": "event", "ts": 1, "message": "m", "job_id": "old-1"}
    )
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe:
        pipe.write(path.read_bytes())
    with open(reading, "rb"):
        found = await tracker.import_(f"/dev/fd/{reading}")
    assert (found.jobs, found.events, found.known) == (1, 1, False)
    assert [event.message for event in await tracker.logs.list(job_id="old-1")] == ["m"]
    assert (await tracker.import_(path)).known
    assert not list(tmp_path.glob("structjob-import-*"))


async def test_a_file_that_changes_while_it_is_read(tracker, tmp_path, monkeypatch):
    """An import that did not store what was checked says so and does not count as done: once more,
    and all is there (R21).
    """
    path = write(
        tmp_path / "old.jsonl", JOB, {"record": "event", "ts": 1, "message": "m", "job_id": "old-1"}
    )
    with monkeypatch.context() as patched:
        read, times = imports.read_records, []

        def emptied(path):
            times.append(path)
            return read(path) if len(times) == 1 else iter(())

        patched.setattr(imports, "read_records", emptied)
        with pytest.raises(ImportRefused, match="was changed while it was read"):
            await tracker.import_(path)
    assert not (await tracker.import_(path)).known
    assert await tracker.logs.count(job_id="old-1") == 1


@each(
    ("line", "what"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not a record"),
        ('{"record": "row"}', "is not a record"),
        ('{"record": ["job"]}', "is not a record"),
        ('{"record": "job", "id": "x"}', "operation is missing"),
        (json.dumps(JOB), "there twice"),
        (json.dumps({**JOB, "id": "x" * 65}), "at most 64 are allowed"),
        (json.dumps({**JOB, "id": "x", "created_at": "yesterday"}), "created_at is not a time"),
        (json.dumps({**JOB, "id": "x", "status": "odd"}), "unknown status 'odd'"),
        (json.dumps({**JOB, "id": "x", "attempt": 1.5}), "attempt must be a number"),
        (json.dumps({**JOB, "id": "x", "operation": ["a"]}), "operation must be text"),
        (
            json.dumps({**JOB, "id": "x", "idempotency_key": "once"}),
            "has the idempotency key 'once', too",
        ),
        (
            '{"record": "step", "id": "s", "job_id": "old-1", "name": "n", "seq": 2147483648}',
            "seq is out of range",
        ),
        (
            '{"record": "event", "ts": 1, "message": "m", "job_id": "other"}',
            "'other' is not in the lines before it",
        ),
        ('{"record": "event", "ts": 1, "message": "m", "level": "loud"}', "unknown level"),
        ('{"record": "event", "message": "m"}', "ts is missing"),
    ],
)
async def test_a_faulty_line_stores_nothing(plain, tmp_path, line, what):
    """The message names the line and what is wrong; nothing of the file is stored, whatever stands
    before (R21).
    """
    first = {**JOB, "idempotency_key": "once"}
    path = write(
        tmp_path / "old.jsonl",
        first,
        {"record": "event", "ts": 1, "message": "fine", "job_id": "old-1"},
    )
    path.write_bytes(path.read_bytes() + b"\n" + line.encode() + b"\n")
    with pytest.raises(ImportRefused, match=r"line 4") as caught:
        await plain.import_(path)
    assert what in str(caught.value)
    assert await plain.logs.count() == 0
    with pytest.raises(JobNotFound):
        await plain.jobs.get("old-1")


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
async def test_a_file_from_windows_is_read(plain, tmp_path, packed):
    """R21: it may begin with a byte order mark, and its lines end with a carriage return too."""
    path = tmp_path / "old.jsonl"
    path.write_bytes(packed(b"\xef\xbb\xbf" + json.dumps(JOB).encode() + b"\r\n"))
    assert (await plain.import_(path)).jobs == 1
    assert (await plain.jobs.get(JOB["id"])).operation == JOB["operation"]


async def test_files_that_cannot_be_read(plain, tmp_path):
    """A missing file, a cut-off archive and a wrong option have their messages (R21)."""
    with pytest.raises(ImportRefused, match="cannot read"):
        await plain.import_(tmp_path / "none")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(json.dumps(JOB).encode() * 1000)[:40])
    with pytest.raises(ImportRefused, match="cannot be read"):
        await plain.import_(tmp_path / "cut.gz")
    whole = gzip.compress(json.dumps(JOB).encode() * 1000)
    (tmp_path / "damaged.gz").write_bytes(whole[:10] + b"\xff" * 20 + whole[30:])
    with pytest.raises(ImportRefused, match="cannot be read"):
        await plain.import_(tmp_path / "damaged.gz")
    with pytest.raises(InvalidArgument, match="keep"):
        await plain.import_(tmp_path / "none", ids="other")
    with pytest.raises(JobNotFound):
        await plain.export("none", tmp_path / "x")
    await history(plain)
    with pytest.raises(FileNotFoundError):
        await plain.export("mine", tmp_path / "no" / "x")


async def test_any_number_of_units_comes_back(tracker, plain, tmp_path):
    """What a step may count, a file may hold; on each database (R15, R21)."""
    async with tracker.job("count", job_id="mine") as job, job.step("atoms", total=1e300) as step:
        step.update(completed=2**60)
    await tracker.export("mine", tmp_path / "job.jsonl")
    await plain.import_(tmp_path / "job.jsonl")
    (step,) = await plain.jobs.steps("mine")
    assert (step.completed, step.total) == (2.0**60, 1e300)


async def test_the_loop_goes_on_while_a_file_is_read(plain, tmp_path, monkeypatch):
    """Neither checking a file nor making rows of it holds up the program that imports it (R21)."""
    path = write(
        tmp_path / "old.jsonl",
        JOB,
        *({"record": "event", "ts": 1, "message": "m", "job_id": "old-1"} for _ in range(20)),
    )
    read, readers = imports.read_records, []

    def noted(path):
        readers.append(threading.get_ident())
        return read(path)

    monkeypatch.setattr(imports, "read_records", noted)
    await plain.import_(path)
    assert readers
    assert threading.get_ident() not in readers


async def test_an_export_takes_the_place_of_a_file_only(plain, tmp_path):
    """A pipe, as a device, is written to and is there afterwards; behind a link it is the file that
    it leads to that is replaced (R36).
    """
    await history(plain)
    pipe, link, path = tmp_path / "pipe", tmp_path / "link", tmp_path / "there" / "job.jsonl"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        number = await plain.export("mine", pipe)
        assert (reader.read().count(b"\n"), pipe.is_fifo()) == (number, True)
    path.parent.mkdir()
    link.symlink_to(path)
    for _ in range(2):
        await plain.export("mine", link)
        assert (link.is_symlink(), path.read_bytes().count(b"\n"), path.stat().st_mode & 0o777) == (
            True,
            number,
            0o600,
        )
    assert list(path.parent.iterdir()) == [path]


async def test_an_export_that_fails_leaves_no_file(plain, tmp_path, monkeypatch):
    """The file is there when it is whole, and not before (R36)."""
    await history(plain)
    path = tmp_path / "out" / "job.jsonl"
    path.parent.mkdir()
    await plain.export("mine", path)
    whole = path.read_bytes()

    async def fail(ids):
        raise structjob.StoreUnavailable("away")

    monkeypatch.setattr(lookups_of(plain.jobs), "attempts_and_steps", fail)
    with pytest.raises(structjob.StoreUnavailable):
        await plain.export("mine", path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


async def test_a_large_family_is_exported_with_a_few_queries(tracker, tmp_path, monkeypatch):
    """Two for 100 jobs, whose attempts and steps stand behind their own job."""
    async with tracker.job("parent") as parent:
        for number in range(30):
            async with parent.child(f"child-{number}") as child, child.step(f"step-{number}"):
                pass
    queries = []
    fetch = tracker.jobs._fetch
    monkeypatch.setattr(tracker.jobs, "_fetch", lambda query: queries.append(query) or fetch(query))
    await tracker.export(parent, tmp_path / "family.jsonl")
    assert len(queries) < 10
    lines = list(map(json.loads, (tmp_path / "family.jsonl").read_text().splitlines()))
    assert [line["record"] for line in lines if line["record"] not in ("export", "event")] == [
        "job",
        "attempt",
        *["job", "attempt", "step"] * 30,
    ]
    named = [line for line in lines if line["record"] in ("job", "step")][1:]
    for job, step in zip(named[::2], named[1::2], strict=True):
        assert step["job_id"] == job["id"]
        assert step["name"] == job["operation"].replace("child", "step")


def test_the_least_and_the_greatest_values_of_a_file_are_taken():
    """R40: a job that took no time, an id as long as its column; one more is refused."""
    job = {"id": "x" * 64, "operation": "o", "created_at": "2026-01-31T12:00:00Z"}
    row = row_of("job", {**job, "duration_ms": 0, "attempt": 0, "max_rss_kb": 2**53})
    assert (row["id"], row["duration_ms"], row["attempt"]) == (job["id"], 0.0, 0)
    assert row["max_rss_kb"] == 2**53
    for wrong in (
        {"id": "x" * 65},
        {"duration_ms": -1},
        {"max_rss_kb": 2**53 + 1},
        {"attempt": 2**31},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            row_of("job", {**job, **wrong})


def test_a_job_without_a_creation_was_created_when_it_started():
    """R40: other records have no such time."""
    times = {"started_at": "2026-01-31T12:00:00Z"}
    made = row_of("job", {"id": "a", "operation": "o", **times})
    assert made["created_at"] == made["started_at"] == "2026-01-31 12:00:00.000000"
    assert "created_at" not in row_of("step", {"id": "s", "job_id": "a", "name": "n", **times})


def test_a_completed_job_is_done():
    """R21: as each completed job of our own is; a share that the file gives is kept."""
    job = {"id": "a", "operation": "scan", "started_at": "2026-05-04T13:30:00Z"}
    assert row_of("job", {**job, "status": "success"})["percent_complete"] == 100
    assert row_of("job", {**job, "percent_complete": 40})["percent_complete"] == 40
    assert "percent_complete" not in row_of("job", {**job, "status": "failed"})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x28\xb5\x2f\xfd\x24\x0d", "compressed by zstd"),
        (lzma.compress(b"{}"), "compressed by xz"),
        (bz2.compress(b"{}"), "compressed by bzip2"),
        (json.dumps(JOB).encode("utf-16"), "UTF-16"),
        (json.dumps(JOB).encode("utf-32"), "UTF-32"),
    ],
)
async def test_a_file_that_must_be_converted_first(plain, tmp_path, content, what):
    """R21: the message says so; that the line is not JSON does not help."""
    (tmp_path / "jobs").write_bytes(content)
    with pytest.raises(ImportRefused, match=what):
        await plain.import_(tmp_path / "jobs")
