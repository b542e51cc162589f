"""The archive of a retention: written before anything is deleted, whole, once, and `import` takes
it back (R41, R21).
"""

import asyncio
import gzip
import json
import os
import re
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from cli_support import python
from retention_support import age, log, rows_of, work

import structjob
from structjob import ImportRefused, InvalidArgument, Retention
from structjob.retention import archiver, deleter, finding, prune
from structjob.retention.archive import Archive, ArchiveFile
from structjob.store.tables import logs

TESTS = Path(__file__).parent


@pytest.fixture
def tracker(any_tracker):
    return any_tracker


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "archive"


def records(paths, kind):
    lines = [
        json.loads(line)
        for path in sorted(paths)
        for line in gzip.decompress(Path(path).read_bytes()).splitlines()
    ]
    return [line for line in lines if line["record"] == kind]


def numbers(paths):
    return sorted((event["session_id"], event["seq"]) for event in records(paths, "event"))


async def everything(tracker):
    """Return all there is, but for what tells of who stored it."""

    def plain(record, *leave_out):
        left = set(record.__dataclass_fields__) - {"session_id", "state_seq", *leave_out}
        return {name: getattr(record, name) for name in sorted(left)}

    jobs = {job.id: plain(job) for job in await tracker.jobs.list(limit=1000)}
    attempts = {
        id_: [plain(attempt) for attempt in await tracker.jobs.history(id_)] for id_ in jobs
    }
    steps = {id_: [plain(step) for step in await tracker.jobs.steps(id_)] for id_ in jobs}
    events = [
        plain(event, "id", "seq", "stored_at") async for event in tracker.logs.iterate(limit=1000)
    ]
    errors = [
        (group.fingerprint, group.count, group.first_seen, group.last_seen)
        for group in await tracker.errors.list()
    ]
    return jobs, attempts, steps, sorted(events, key=str), errors


async def fill(tracker, database):
    """Record some of everything, forty days ago."""
    await work(tracker, lines=4, children=2)
    await work(tracker, fail=True)
    for _ in range(2):
        async with tracker.job(
            "twice", job_id="twice", metadata={"vm": {"a": [None, "ü\u2028"]}}
        ) as job:
            job.result = "text"
            log.info("odd", big=2**70, text="\x00")
    log.warning("by itself")
    await tracker.flush()
    await age(database, 40)


async def test_what_was_pruned_comes_back_as_it_was(tracker, database, directory):
    """Archive, prune, import: jobs, attempts, steps, events and the counts of errors are what they
    were (R41).
    """
    await fill(tracker, database)
    before = await everything(tracker)
    pruned = await tracker.prune(Retention(days=30, archive=directory))
    assert (await everything(tracker))[:4] == ({}, {}, {}, [])
    assert sorted(map(str, directory.iterdir())) == sorted(pruned.archived)
    assert sorted(Path(path).name.split("-")[-1] for path in pruned.archived) == [
        "events.jsonl.gz", "jobs.jsonl.gz"
    ]  # fmt: skip
    assert {Path(path).stat().st_mode & 0o777 for path in pruned.archived} == {0o600}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert len(numbers(pruned.archived)) == pruned.events
    for path in pruned.archived:
        await tracker.import_(path)
    assert await everything(tracker) == before
    assert (await tracker.verify()).ok
    # the tracker's own session goes on
    assert await database.rows("SELECT 1 FROM structjob_sessions WHERE end_reason IS NULL")


async def test_it_comes_back_again_and_again(tracker, database, directory):
    """What was imported and pruned once more can be imported once more, from either
    archive (R41).
    """
    await fill(tracker, database)
    before = await everything(tracker)
    first = (await tracker.prune(Retention(days=30, archive=directory / "1"))).archived
    for path in first:
        await tracker.import_(path)
    assert (await tracker.import_(first[0])).known
    await tracker.prune(Retention(days=30, archive=directory / "2"))
    for path in first:
        assert not (await tracker.import_(path)).known
    assert await everything(tracker) == before
    assert (await tracker.verify()).ok


async def test_what_goes_for_two_reasons_is_archived_once(tracker, database, directory):
    """Lines that are due by their level and with their job, too, stand in one file only, and come
    back once (R41).
    """
    await work(tracker, lines=5)
    log.info("by itself")
    await tracker.flush()
    await age(database, 40)
    before = await tracker.logs.count()
    pruned = await tracker.prune(Retention(days=30, levels={"info": 2}, archive=directory))
    archived = numbers(pruned.archived)
    assert len(archived) == len(set(archived)) == pruned.events == before
    for path in pruned.archived:
        await tracker.import_(path)
    assert await tracker.logs.count() == before


async def test_lines_whose_job_stayed_come_back_to_it(tracker, database, directory):
    """Lines that went by their level are taken back where their job is, and refused where it is not
    (R41).
    """
    await work(tracker, lines=5)
    await tracker.flush()
    await age(database, 10)
    before = await everything(tracker)
    (path,) = (await tracker.prune(Retention(levels={"info": 5}, archive=directory))).archived
    await tracker.import_(path)
    assert await everything(tracker) == before
    (again,) = (await tracker.prune(Retention(levels={"info": 5}, archive=directory))).archived
    await tracker.prune(timedelta(days=5))
    with pytest.raises(
        ImportRefused,
        match="neither in the lines before it nor in the database: import the file that holds the job first",
    ):
        await tracker.import_(again)


class Stopped(Exception):
    pass


def stopping(monkeypatch, after, *, committed=True):
    """Let a prune stop at its so many-th transaction: before its commit, or after it."""
    original, calls = deleter.Deleter._chunk, []

    async def chunk(self, call, size):
        calls.append(size)

        def last(connection):
            call(connection)
            raise Stopped

        if len(calls) == after and not committed:
            return await original(self, last, size)
        result = await original(self, call, size)
        if len(calls) == after:
            raise Stopped
        return result

    monkeypatch.setattr(deleter.Deleter, "_chunk", chunk)


@pytest.mark.parametrize(("after", "committed"), [(1, False), (2, True), (4, True)])
async def test_one_that_stops_in_between_is_carried_on(
    tracker, database, directory, monkeypatch, after, committed
):
    """What was archived and not deleted is deleted by the next one, which writes it into no other
    file; nothing is lost (R41).
    """
    monkeypatch.setattr(finding, "_TOPS", 1)
    monkeypatch.setattr(archiver, "FILE", 10)
    await fill(tracker, database)
    before = await rows_of(database)
    with monkeypatch.context() as patch:
        stopping(patch, after, committed=committed)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(days=30, archive=directory))
    (pending,) = directory.glob("*.pending")
    assert numbers([pending])
    assert not list(directory.glob(".*"))
    # of one that was killed while it wrote
    (directory / f".{pending.name.removesuffix('.pending')}.part").touch()
    assert (await tracker.verify()).ok
    rest = await tracker.prune(Retention(days=30, archive=directory))
    assert not list(directory.glob(".*"))
    assert not list(directory.glob("*.pending"))
    files = list(directory.iterdir())
    assert len(files) == 3  # a new one begins after so many lines
    assert len(numbers(files)) == len(set(numbers(files))) == before["logs"] >= rest.events
    assert len(records(files, "job")) == before["jobs"]
    assert (await rows_of(database))["logs"] == 0
    assert (await tracker.verify()).ok


@pytest.mark.parametrize(
    "longer", [{"days": 300}, {"statuses": {"cancelled": 30}}, {"levels": {"debug": 30}}]
)
async def test_what_is_kept_longer_now_is_not_deleted_after_all(
    tracker, database, directory, monkeypatch, longer
):
    """What another prune archived and did not delete stays if it is not due any more (R41)."""
    await fill(tracker, database)
    with monkeypatch.context() as patch:
        stopping(patch, 1, committed=False)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(days=30, archive=directory))
    before = await rows_of(database)
    assert not await tracker.prune(Retention(**longer, archive=directory))
    assert {**before, "locks": 1} == await rows_of(database)


@pytest.mark.parametrize(
    ("first", "then", "stays"),
    [
        ({"days": 30}, {"days": 30}, ["info", "error"]),
        ({"levels": {"info": 30, "error": 30}}, {"levels": {"info": 30}}, ["warning", "error"]),
    ],
)
async def test_lines_that_go_without_their_job_are_carried_on_with(
    tracker, database, directory, monkeypatch, first, then, stays
):
    """What a prune archived and did not delete is deleted by the next one, also lines that are due
    by their level and those whose job is gone. What is kept longer now stays, and so does what is
    in no file yet, until it is in one: also lines with the numbers of another session's (R41).
    """
    statuses = {"completed": None, "failed": None}
    gone, kept = await work(tracker), await work(tracker, fail=True)
    log.warning("by itself")
    await tracker.flush()
    for table, key in (("steps", "job_id"), ("attempts", "job_id"), ("jobs", "id")):
        await database.execute(f"DELETE FROM structjob_{table} WHERE {key} = '{gone}'")
    await age(database, 40)
    with monkeypatch.context() as patch:
        stopping(patch, 1, committed=False)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(**first, statuses=statuses, archive=directory))
    async with structjob.Tracker(database.url) as other:
        others = await work(other)
    await age(database, 40)

    async def stored():
        return [event async for event in tracker.logs.iterate(limit=1000)]

    before = await stored()
    await tracker.prune(Retention(**then, statuses=statuses, archive=directory))
    left = await stored()
    archived = numbers(directory.iterdir())
    assert len(archived) == len(set(archived))
    assert {(one.session_id, one.seq) for one in before} - set(archived) == {
        (one.session_id, one.seq) for one in left if one.level not in first.get("levels", {})
    }
    for one in before:
        due = one.job_id not in (kept, others) if "days" in then else one.level in then["levels"]
        assert (one in left) is not due, one
    assert {one.level for one in left} == set(stays)


async def test_a_job_that_began_again_meanwhile_is_archived_again(
    tracker, database, directory, monkeypatch
):
    """A job that was archived and not deleted, and began again since, is archived again before it
    is deleted: each attempt and step of it is in a file (R41).
    """
    await fill(tracker, database)
    with monkeypatch.context() as patch:
        stopping(patch, 1, committed=False)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(days=30, archive=directory))
    async with tracker.job("twice", job_id="twice") as job, job.step("third"):
        log.info("the third attempt")
    await tracker.flush()
    await age(database, 40)
    await tracker.prune(Retention(days=30, archive=directory))
    files = list(directory.iterdir())
    assert {one["attempt"] for one in records(files, "attempt") if one["job_id"] == "twice"} == {
        1, 2, 3
    }  # fmt: skip
    assert "third" in {one["name"] for one in records(files, "step")}
    assert "the third attempt" in {one["message"] for one in records(files, "event")}
    assert (await rows_of(database))["jobs"] == 0


async def test_a_job_that_begins_again_before_it_is_deleted_keeps_its_lines(
    tracker, database, directory, monkeypatch
):
    """A job that begins again after it was archived, and before the same prune deletes it, keeps
    the lines of each attempt (R41).
    """
    await fill(tracker, database)
    before = {event.id for event in await tracker.logs.list(job="twice")}
    original, begun = deleter.Deleter._chunk, []

    async def chunk(self, call, size):
        if not begun:
            begun.append(True)
            async with tracker.job("twice", job_id="twice"):
                log.info("the third attempt")
            await tracker.flush()
        return await original(self, call, size)

    monkeypatch.setattr(deleter.Deleter, "_chunk", chunk)
    await tracker.prune(Retention(days=30, archive=directory))
    assert before < {event.id for event in await tracker.logs.list(job="twice")}
    assert [one.attempt for one in await tracker.jobs.history("twice")] == [1, 2, 3]
    assert [job.id for job in await tracker.jobs.list()] == ["twice"]
    assert (await tracker.verify()).ok


@pytest.mark.parametrize("after", [1, 2], ids=["with the event", "with the dead letters"])
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_dead_letters_are_archived_once(tracker, database, directory, monkeypatch, after):
    """What could not be stored is in a file before it is deleted, and in one only, also if a prune
    stops between the two; what is kept longer now stays (R41).
    """
    for seq, year in ((1, 2020), (2, 2020), (3, 2999)):
        await database.execute(
            "INSERT INTO structjob_dead_letters (session_id, seq, reason, payload, ts) "
            f"VALUES (1, {seq}, 'refused', 'line {seq}', '{year}-01-01 00:00:00')"
        )
    log.info("by itself")
    await tracker.flush()
    await age(database, 40, table=logs)
    monthly = Retention(days=30, archive=directory)
    with monkeypatch.context() as patch:
        stopping(patch, after, committed=False)
        with pytest.raises(Stopped):
            await tracker.prune(monthly)
    assert (await rows_of(database))["dead_letters"] == 3
    assert len(list(directory.glob("*.pending"))) == 1
    assert (await tracker.prune(monthly)).dead_letters == 2
    assert (await rows_of(database))["dead_letters"] == 1
    assert sorted(path.name.split("-")[-1] for path in directory.iterdir()) == [
        "events.jsonl.gz", "letters.jsonl.gz"
    ]  # fmt: skip
    letters = records(directory.iterdir(), "dead_letter")
    assert [(one["seq"], one["reason"], one["payload"]) for one in letters] == [
        (1, "refused", "line 1"), (2, "refused", "line 2")
    ]  # fmt: skip
    assert not list(directory.glob("*.pending"))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_dead_letters_that_are_kept_now_are_not_deleted(
    tracker, database, directory, monkeypatch
):
    """What another prune archived and did not delete stays if it is kept for ever now (R41)."""
    await database.execute(
        "INSERT INTO structjob_dead_letters (session_id, seq, reason, ts) "
        "VALUES (1, 1, 'refused', '2020-01-01 00:00:00')"
    )
    with monkeypatch.context() as patch:
        stopping(patch, 1, committed=False)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(days=30, archive=directory))
    assert not await tracker.prune(Retention(levels={"debug": 30}, archive=directory))
    assert (await rows_of(database))["dead_letters"] == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_full_disk_deletes_nothing(tracker, database, directory, monkeypatch):
    """What cannot be written is not deleted, and no half file stays (R41)."""
    await fill(tracker, database)
    before = await rows_of(database)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("structjob.retention.archive.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        await tracker.prune(Retention(days=30, archive=directory))
    assert list(directory.iterdir()) == []
    assert {**before, "locks": 1} == await rows_of(database)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_bad_archive_is_refused_first(tracker, database, tmp_path):
    """A path that is no directory is refused before anything happens; a dry run makes
    none (R41).
    """
    await fill(tracker, database)
    (tmp_path / "file").touch()
    for name, why in (("file", "File exists"), ("x" * 300, "File name too long")):
        with pytest.raises(InvalidArgument, match=f"be made: {why}; name another directory"):
            await tracker.prune(Retention(days=30, archive=tmp_path / name))
    assert (
        await tracker.prune(Retention(days=30, archive=tmp_path / "new"), dry_run=True)
    ).jobs == 5
    assert not (tmp_path / "new").exists()
    assert (await rows_of(database))["locks"] == 0


def test_an_archive_finds_what_an_earlier_release_left(tmp_path):
    """A file whose content may not be deleted is found by its name, so the names stay (R41)."""
    left = tmp_path / "structjob-564d02a1-20260131T120000-001-jobs.jsonl.gz.pending"
    left.touch()
    archive = Archive(tmp_path, "db")
    made = archive.new("events").close()
    assert re.fullmatch(r"structjob-564d02a1-\d{8}T\d{6}-001-events\.jsonl\.gz\.pending", made.name)
    assert archive.pending() == [left, made]


def test_an_archive_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    """Before anything is read, and with what to do (R41)."""
    monkeypatch.setattr(
        "structjob.retention.archive.os.access", lambda path, mode: mode != os.W_OK | os.X_OK
    )
    with pytest.raises(InvalidArgument, match="cannot be written to; change its permissions"):
        Archive(tmp_path, "db")


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_two_databases_share_a_directory(tracker, database, directory, tmp_path, monkeypatch):
    """What another database's prune left there is left alone (R41)."""
    await fill(tracker, database)
    with monkeypatch.context() as patch:
        stopping(patch, 1)
        with pytest.raises(Stopped):
            await tracker.prune(Retention(days=30, archive=directory))
    async with structjob.Tracker(f"sqlite:///{tmp_path / 'other.db'}") as other:
        await work(other)
        await other.prune(Retention(days=0, archive=directory))
    assert len(list(directory.glob("*.pending"))) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_prune_with_nothing_due_leaves_the_directory_to_others(
    tracker, directory, tmp_path, monkeypatch
):
    """A prune of another database that began meanwhile writes to it (R41)."""
    due_now, others = prune.due_now, []
    begun, ended = asyncio.Event(), asyncio.Event()

    async def in_turn(fetch, retention):
        if retention.days:
            other_prune = other.prune(Retention(days=0, archive=directory / "of" / "jobs"))
            others.append(asyncio.create_task(other_prune))
            await begun.wait()
        else:
            begun.set()
            await ended.wait()
        return await due_now(fetch, retention)

    async with structjob.Tracker(f"sqlite:///{tmp_path / 'other.db'}") as other:
        await work(other)
        with monkeypatch.context() as patch:
            patch.setattr(prune, "due_now", in_turn)
            assert not await tracker.prune(Retention(days=30, archive=directory / "of" / "jobs"))
            ended.set()
            (archived,) = (await others[0]).archived
    assert len(records([archived], "job")) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_cancelled_prune_does_not_wait_for_its_file(tracker, directory, monkeypatch):
    """Of a disk that hangs, for example (R41)."""
    await work(tracker)
    hangs, goes_on, add = asyncio.Event(), threading.Event(), ArchiveFile.add
    loop = asyncio.get_running_loop()

    def hanging(file, *args):
        loop.call_soon_threadsafe(hangs.set)
        goes_on.wait(60)
        add(file, *args)

    monkeypatch.setattr(ArchiveFile, "add", hanging)
    task = asyncio.create_task(tracker.prune(Retention(days=0, archive=directory)))
    await hangs.wait()
    loop.call_later(30, goes_on.set)  # ends a prune that waits
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not goes_on.is_set()
    goes_on.set()


KILLED = """
import asyncio, os, signal, sys
sys.path.insert(0, sys.argv[4])
import structjob
from structjob.retention import archiver, deleter, finding

finding._TOPS, archiver.FILE = 2, 40
original, left = deleter.Deleter._chunk, [int(sys.argv[3])]

async def chunk(self, call, size):
    def last(connection):
        result = call(connection)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)  # within the transaction
        left[0] -= 1
        return result
    return await original(self, last, size)

deleter.Deleter._chunk = chunk

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1]) as tracker:
        await tracker.prune(structjob.Retention(days=30, archive=sys.argv[2] or None))

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("archived", [False, True])
async def test_kill_nine_in_the_middle(tracker, database, directory, tmp_path, archived):
    """Killed again and again in the middle of a transaction, pruning ends with everything deleted,
    counted and archived once (R41).
    """
    for _ in range(12):
        await work(tracker, fail=True, lines=10, children=1)
    await tracker.flush()
    await age(database, 40)
    before = await rows_of(database)
    for killed_at in (0, 1, 3, 5):
        given = (database.url, str(directory) if archived else "", str(killed_at), str(TESTS))
        done = python("-c", KILLED, *given, cwd=tmp_path)
        assert done.returncode == -9
        assert (await tracker.verify()).missing == 0
    left = await rows_of(database)
    assert 0 < left["logs"] < before["logs"]
    last = await tracker.prune(Retention(days=30, archive=directory if archived else None))
    after = await rows_of(database)
    assert (after["logs"], after["jobs"], after["steps"], after["attempts"]) == (0, 0, 0, 0)
    assert last.events == left["logs"]
    found = await tracker.verify()
    # What else stands in the spools of those that were killed, which are elsewhere, this tracker
    # cannot know.
    assert {session.status for session in found.sessions} <= {"live", "complete", "unknown_tail"}
    assert (found.running, found.orphans.attempts, found.orphans.steps, found.orphans.logs) == (
        0,
        0,
        0,
        0,
    )
    assert await database.rows("SELECT pruned FROM structjob_errors") == [(12,)]
    if archived:
        files = [path for path in directory.iterdir() if path.name.startswith("structjob-")]
        assert not [path for path in files if path.name.endswith(".pending")]
        assert len(numbers(files)) == len(set(numbers(files))) == before["logs"]
        assert len(records(files, "job")) == before["jobs"]
