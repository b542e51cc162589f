"""Programs that only write to their spool, and the deliverer that stores what they record."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cli_support import python
from oracle import Promises, find, judge
from prefork import Forked
from test_docs import program
from trials import Program, start_program

import structjob
from structjob import deliverer as deliverers
from structjob.engine.database import DatabaseLink
from structjob.spool.directory import directories
from structjob.store import leases

log = structlog.get_logger("app")


@dataclass
class Place:
    """A database, and where programs spool for it."""

    directory: Path
    url: str

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    def program(self, name: str):
        return Program.start(self, name, "--sync", "--undelivered")

    def deliverer(self) -> Forked:
        return start_program("deliverer", self.url, self.spool, "alone", stderr=subprocess.PIPE)


@pytest.fixture
def place(database, tmp_path) -> Place:
    structjob.configure(console=False, strict=True)
    return Place(tmp_path, database.url)


sqlite_only = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


async def flushed(place: Place) -> None:
    """Deliver everything, and look for what cannot be."""
    async with structjob.Deliverer(place.url, spool=place.spool) as deliverer:
        await deliverer.flush()
        living = [source.session.session_id for source in deliverer._adopted.living()]
    assert sorted(int(path.name) for path in directories(place.spool)) == sorted(living)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_programs_and_deliverers_that_are_killed_lose_nothing(place):
    """Programs are killed while a deliverer runs, and deliverers while programs run: each event is
    stored once, each crash is reported once; no deliverer has a session (guarantees 1, 2 and 5).
    """
    rng = random.Random(7)
    programs, numbers = [], 4
    deliverer = place.deliverer()
    try:
        for number in range(numbers):
            program = await place.program(f"program{number}")
            programs.append(program)
            await program.has_logged(rng.randint(20, 200))
            if number % 2:
                deliverer.close()
                await program.has_logged(program.logged() + 20)
                deliverer = place.deliverer()
                await asyncio.to_thread(deliverer.stdout.readline)
                await asyncio.sleep(rng.random() * 0.2)
            await program.kill()
        for _ in range(5):  # while it ends the sessions
            deliverer.close()
            deliverer = place.deliverer()
            await asyncio.to_thread(deliverer.stdout.readline)
            await asyncio.sleep(rng.random() * 0.1)
    finally:
        deliverer.close()
    await flushed(place)
    promises = Promises.read(program.notes for program in programs)
    verdict = judge(promises, await find(place.url))
    assert not verdict.faults(), verdict
    assert verdict.returned > 100
    async with structjob.Reader(place.url) as reader:
        assert (await reader.verify()).ok
        sessions = {one.session_id: one for one in await reader.sessions.list()}
        told = await reader.logs.list(kind="operation_crashed")
        # what a deliverer found out about crashes is all that it has said
        found = {event.session_id for event in told}
        assert promises.sessions | found == sessions.keys()
        assert {sessions[number].end_reason for number in promises.sessions} == {"died"}
        assert sum(sessions[number].last_seq for number in found) == len(told) == verdict.crashes


async def test_a_program_needs_no_database(place):
    """A tracker that does not deliver makes no connection; all that it recorded is stored later,
    and its session has ended as it did.
    """
    options = {"spool": place.spool, "deliver": False}
    nowhere = structjob.Tracker(
        "postgresql://nowhere.invalid/jobs", spool=place.directory / "n", deliver=False
    )
    async with nowhere:
        log.info("quick")
    tracker = structjob.Tracker(place.url, service="app", **options)
    async with tracker:
        async with tracker.job("copy") as job, job.step("files", total=9) as step:
            log.info("begun")
            step.advance(3)
        for work in (tracker.jobs.list(), tracker.verify(), tracker.flush()):
            with pytest.raises(structjob.StoreUnavailable, match=r"structjob\.Reader"):
                await work
        with pytest.raises(structjob.StoreUnavailable, match="offline=True"):
            async with tracker.job("copy", job_id="mine"):
                pass
        async with tracker.job("copy", job_id="mine", offline=True):
            pass
        ledger = tracker.ledger()
        assert ledger.spilled == ledger.accepted > 5
        assert tracker._engine.link.opened is False
        assert await tracker.aclose()
    await flushed(place)
    async with structjob.Reader(place.url) as reader:
        (session,) = await reader.sessions.list()
        assert (session.session_id, session.service) == (tracker.session_id, "app")
        assert (session.end_reason, session.last_seq) == ("closed", ledger.accepted)
        found = {each.id: (each.status, each.attempt) for each in await reader.jobs.list()}
        assert found == {job.id: ("completed", 1), "mine": ("completed", 1)}
        assert [each.completed for each in await reader.jobs.steps(job.id)] == [3]
        assert (await reader.verify()).ok


async def test_what_a_program_records_arrives_while_it_runs(place):
    """Events, progress that nothing follows, and heartbeats; the program is not presumed dead."""
    async with (
        structjob.Deliverer(place.url, spool=place.spool),
        structjob.Tracker(place.url, spool=place.spool, deliver=False) as tracker,
        structjob.Reader(place.url) as reader,
        tracker.job("copy") as job,
        asyncio.timeout(60),
    ):
        log.info("line")
        for percent in (10, 20, 30):
            job.update(percent=percent)
        while not await reader.logs.list(text="line"):
            await asyncio.sleep(0.02)
        while (await reader.jobs.get(job.id)).percent_complete != 30:
            await asyncio.sleep(0.02)
        session = await reader.sessions.get(tracker.session_id)
        while (await reader.sessions.get(tracker.session_id)).heartbeat_at == session.heartbeat_at:
            await asyncio.sleep(0.1)
        assert (await reader.verify()).ok
        assert (await reader.sessions.get(tracker.session_id)).status == "live"


@sqlite_only
async def test_a_living_program_is_not_kept_for_dead(place, monkeypatch):
    """While no deliverer sent heartbeats, a tracker elsewhere presumed a program dead: the next
    deliverer withdraws that, and tells it once (R11).
    """
    monkeypatch.setattr(deliverers, "BEAT_EVERY", 0.1)
    async with structjob.Tracker(place.url, spool=place.spool, deliver=False) as tracker:
        async with tracker.job("long") as job:
            await flushed(place)
            async with structjob.Tracker(place.url, spool=False) as other:
                (row,) = await other._store.fetch(
                    leases.OPEN.where(leases.is_session(tracker.session_id))
                )
                reaper = other._engine._maintenance._reaper
                reaper._seen[tracker.session_id] = (leases.Lease.of(row), 0.0)
                await reaper._reap(leases.Lease.of(row), "lease_expired")
                assert (await other.jobs.get(job.id)).status == "crashed"
            async with structjob.Deliverer(place.url, spool=place.spool):
                async with structjob.Reader(place.url) as reader, asyncio.timeout(60):
                    while (await reader.sessions.get(tracker.session_id)).ended_at is not None:
                        await asyncio.sleep(0.05)
                    (event,) = await reader.logs.list(kind="operation_crash_withdrawn")
                    assert (event.job_id, event.session_id != tracker.session_id) == (job.id, True)
    await flushed(place)
    async with structjob.Reader(place.url) as reader:
        assert (await reader.jobs.get(job.id)).status == "completed"
        assert (await reader.verify()).ok


@sqlite_only
async def test_a_living_program_of_another_database_is_left_alone(place, caplog):
    """Programs with the same spool=PATH may log to different databases: what one of them has not
    delivered yet is no other database's.
    """
    elsewhere = f"sqlite:///{place.directory / 'other.db'}"
    async with structjob.Tracker(elsewhere, spool=place.spool, deliver=False) as tracker:
        log.info("theirs")
        await flushed_but(place, tracker.session_id)
        await flushed(Place(place.directory, elsewhere))
    async with structjob.Reader(elsewhere) as reader:
        messages = [event.message for event in await reader.logs.list(kind="log")]
        assert messages.count("theirs") == 1
    assert "was left by a program" not in caplog.text
    # The deliverer delivered nothing, and said nothing about it.
    (said,) = [
        one.getMessage() for one in caplog.records if "is not delivered to" in one.getMessage()
    ]
    assert re.search(r"its program runs and logs to sqlite:\S+/other.db; a deliverer", said)


async def flushed_but(place: Place, session_id: int) -> None:
    async with structjob.Deliverer(place.url, spool=place.spool) as deliverer:
        await deliverer.flush()
        assert [int(path.name) for path in directories(place.spool)] == [session_id]
        assert len(deliverer._adopted) == 0


@sqlite_only
async def test_a_program_that_delivers_nothing_takes_nothing(place):
    """It leaves the spools of others alone, and says nothing of what waits but what it knows."""
    options = {"spool": place.spool, "deliver": False, "queue_size": 3}
    async with structjob.Tracker(place.url, **options) as one:
        for number in range(5):
            log.info("line", number=number)
        async with structjob.Tracker(place.url, **options) as other:
            async with other.job("copy"):
                with pytest.raises(structjob.StoreUnavailable):
                    await other.flush()
            assert len(other._engine._adopted) == 0
            await flushed(place)
        assert (one.queue.waiting, one.queue.full) == (0, False)
        with pytest.raises(structjob.InvalidState, match="another process delivers"):
            one.queue.clear()
    await flushed(place)
    async with structjob.Reader(place.url) as reader:
        assert {each.status for each in await reader.sessions.list()} == {"closed"}
        lines = await reader.logs.list(text="line")
        assert [line.attrs["number"] for line in lines] == [0, 1, 2, 3, 4]
        assert (await reader.verify()).ok


@sqlite_only
async def test_a_full_spool_drops_the_newest(place, caplog):
    """What another process may hold is not dropped; the program is warned in time."""
    options = {"spool": place.spool, "deliver": False, "spool_max_bytes": 65_536}
    async with structjob.Tracker(place.url, **options) as tracker:
        for _ in range(400):
            log.info("x" * 300)
        async with asyncio.timeout(30):
            while "check that a deliverer runs" not in caplog.text:
                await asyncio.sleep(0.05)
        assert "events wait on disk for the process that delivers" in caplog.text
        assert "new ones are dropped" in caplog.text
        dropped = tracker.ledger().dropped["spool_full"]
        assert dropped > 0
    await flushed(place)
    async with structjob.Reader(place.url) as reader:
        (session,) = await reader.sessions.list()
        assert [gap.reason for gap in await reader.sessions.gaps(session.session_id)]
        assert session.last_seq == 400
        assert (await reader.logs.list(limit=1000))[0].seq == 1
        assert (await reader.verify()).ok


@sqlite_only
async def test_a_tracker_delivers_for_others_too(place):
    """Any tracker of the same database is a deliverer, too; after it a deliverer goes on."""
    async with structjob.Tracker(place.url, spool=place.spool, deliver=False) as silent:
        log.info("first")
        async with structjob.Tracker(place.url, spool=place.spool) as tracker:
            await tracker.flush()
            (event,) = await tracker.logs.list(text="first")
            assert event.session_id == silent.session_id
            async with structjob.Deliverer(place.url, spool=place.spool) as deliverer:
                await deliverer.flush()
                assert len(deliverer._adopted) == 0
                await tracker.aclose()
                log.info("second")
                async with structjob.Reader(place.url) as reader, asyncio.timeout(60):
                    while not await reader.logs.list(text="second"):
                        await asyncio.sleep(0.05)


EXITING = """
import asyncio, sys, structlog, structjob
structjob.configure(console=False)
loop = asyncio.new_event_loop()
async def begin():
    tracker = structjob.Tracker(sys.argv[1], spool=sys.argv[2], deliver=False)
    await tracker.open()
    job = tracker.job("copy")
    await job.__aenter__()
    structlog.get_logger("app").info("line")
    return tracker, job
kept = loop.run_until_complete(begin())
loop.close()
"""


@sqlite_only
async def test_a_program_that_ends_without_closing(place):
    """Its job is cancelled, its session is closed, and nothing is lost."""
    result = await asyncio.to_thread(python, "-c", EXITING, place.url, str(place.spool))
    assert result.returncode == 0, result.stderr
    await flushed(place)
    async with structjob.Reader(place.url) as reader:
        (job,) = await reader.jobs.list()
        assert job.status == "cancelled"
        assert [one.end_reason for one in await reader.sessions.list()] == ["closed"]
        assert (await reader.verify()).ok


@sqlite_only
async def test_a_command_does_not_wait_for_a_program_that_runs(place):
    """It delivers what the program has recorded, and leaves the program alone."""
    async with structjob.Tracker(place.url, deliver=False) as tracker:
        log.info("line")
        command = [sys.executable, "-m", "structjob", "logs", "--db", place.url]
        result = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert "line" in result.stdout
    async with structjob.Reader(place.url) as reader:
        assert [one.session_id for one in await reader.sessions.list()] == [tracker.session_id]


async def test_the_programs_of_the_documentation_work(tmp_path):
    """The one that only writes to its spool, and the one that delivers until SIGTERM (R51)."""
    for name in ("quiet.py", "deliver.py"):
        (tmp_path / name).write_text(program("delivery", name), "utf-8")
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    deliverer = subprocess.Popen([sys.executable, "deliver.py"], cwd=tmp_path)
    try:
        command = [sys.executable, "-W", "error", "quiet.py"]
        await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=True)
        async with asyncio.timeout(60):
            while not await ended_in(url):
                await asyncio.sleep(0.1)
        deliverer.terminate()
        assert await asyncio.to_thread(deliverer.wait, 30) == 0
    finally:
        deliverer.kill()
        deliverer.wait()


async def ended_in(url: str) -> bool:
    """Return whether the program's session has ended, and all of it is there."""
    with contextlib.suppress(structjob.StructjobError):
        async with structjob.Reader(url) as reader:
            sessions = await reader.sessions.list()
            return [one.end_reason for one in sessions] == ["closed"] and (await reader.verify()).ok
    return False


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"spool": False}, "deliver=False needs a spool"),
        ({"retention": timedelta(days=1)}, "deletes nothing"),
    ],
)
def test_what_cannot_be_without_delivering(options, why):
    """The message says what to leave out."""
    with pytest.raises(structjob.InvalidArgument, match=why):
        structjob.Tracker("jobs.db", deliver=False, **options)


async def test_a_database_in_memory_has_no_deliverer(tmp_path, monkeypatch):
    """There is no spool that another process could deliver; on a network file system it cannot."""
    with pytest.raises(structjob.InvalidArgument, match="in memory"):
        structjob.Deliverer(":memory:")
    with pytest.raises(structjob.InvalidArgument, match="in memory"):
        await structjob.Tracker(":memory:", deliver=False).open()
    monkeypatch.setattr("structjob.engine.opening.is_network", lambda path: True)
    with pytest.raises(structjob.SpoolError, match="network file system"):
        await structjob.Tracker(tmp_path / "jobs.db", deliver=False).open()
    assert not directories(tmp_path / "jobs.db.spool")


async def test_a_deliverer_is_opened_once(tmp_path, caplog, monkeypatch):
    """It says so if it is open or not open, can be opened again, and warns of nothing."""
    monkeypatch.setattr(deliverers, "OPEN_WAITS", 60.0)
    deliverer = structjob.Deliverer(tmp_path / "jobs.db")
    await deliverer.aclose()
    with pytest.raises(structjob.InvalidState, match="not open"):
        await deliverer.flush()
    for _ in range(2):
        async with deliverer:
            await deliverer.flush()
            with pytest.raises(structjob.InvalidState, match="is open"):
                await deliverer.open()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_deliverer_whose_database_is_away_says_so_at_once(tmp_path, caplog, monkeypatch):
    """Where the spools wait, and why; no flush waits for a connection that takes long."""

    async def away(link, seconds):
        return structjob.StoreUnavailable("the server is gone")

    async def never(link, call):
        await asyncio.Event().wait()

    monkeypatch.setattr(DatabaseLink, "try_open", away)
    monkeypatch.setattr(DatabaseLink, "until_answered", never)
    async with structjob.Deliverer(tmp_path / "jobs.db") as deliverer:
        assert f"the server is gone; events wait in {tmp_path}/jobs.db.spool" in caplog.text
        with pytest.raises(structjob.StoreUnavailable, match="the server is gone"):
            await deliverer.flush()


async def test_a_deliverer_does_not_rest_while_something_waits(tmp_path, monkeypatch):
    """A spool of many batches is delivered without a pause between them."""
    monkeypatch.setattr(deliverers, "BATCH", 1)
    monkeypatch.setattr(deliverers, "READ_EVERY", 3600.0)
    monkeypatch.setattr(deliverers, "OPEN_WAITS", 60.0)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(url, deliver=False):
        for number in range(10):
            log.info("line", n=number)
    async with structjob.Deliverer(url) as deliverer, structjob.Reader(url) as reader:
        async with asyncio.timeout(60):
            await deliverer.flush()
        assert await reader.logs.count(text="line") == 10


async def test_a_deliverer_waits_for_its_database(tmp_path, caplog):
    """While the database is away a flush says so at once; when it is back, delivery goes on."""
    structjob.configure(console=False, strict=True)
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    async with structjob.Tracker(url, deliver=False):
        log.info("line")
    (tmp_path / "jobs.db").mkdir()
    with pytest.raises(structjob.StructjobError):
        await structjob.Deliverer(url).open()
    os.rmdir(tmp_path / "jobs.db")
    async with structjob.Deliverer(url) as deliverer:
        deliverer._link.lost(structjob.StoreUnavailable("away"))
        with contextlib.suppress(structjob.StoreUnavailable):
            await deliverer.flush()
        async with structjob.Reader(url) as reader, asyncio.timeout(60):
            while not await reader.logs.list(text="line"):
                await asyncio.sleep(0.05)
