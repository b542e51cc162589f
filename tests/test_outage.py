"""The database is unavailable at the start, for an hour, or from time to time: no caller waits,
nothing is lost or stored twice, and few warnings are logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3

import pytest
import structlog
from faulty_store import FaultyStore, faulty
from stopwatch import Stopwatch

import structjob
from structjob.engine import database as links
from structjob.exceptions import InvalidURL, SchemaMismatch, StoreUnavailable

__all__ = ["faulty"]

log = structlog.get_logger("outage")

DOWN = "cannot connect to mysql://127.0.0.1:3306: connection refused"


def rows(path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def until(condition, seconds: float = 20.0) -> None:
    """Wait for what the engine does without being asked; there is nothing to await."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def said(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "structjob"]


class Clock:
    """Time that passes only where the engine waits for a database."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        monkeypatch.setattr(links, "_now", lambda: self.now)
        monkeypatch.setattr(links, "wait_until_set", self._sleep)

    async def _sleep(self, event: asyncio.Event, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.mark.parametrize("spool", [True, False])
async def test_a_tracker_opens_before_its_database(
    db_path, db_url, faulty: FaultyStore, caplog, spool
):
    """Opening goes on without the database and says so once; all is recorded, and delivered when
    the database answers (R29).
    """
    structjob.configure(console=False, strict=True)
    faulty.before = StoreUnavailable(DOWN)
    watch = Stopwatch()
    async with structjob.Tracker(db_url, spool=spool) as tracker:
        assert watch.seconds < 3.0
        watch = Stopwatch()
        async with tracker.job("early", owner="ada") as job, job.step("first"):
            log.info("before the database")
        assert watch.seconds < 1.0
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await tracker.jobs.get(job.id)
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await tracker.logs.list()
        with pytest.raises(StoreUnavailable, match="connection refused"):
            await tracker.job("named", job_id="named").__aenter__()
        assert tracker.ledger().stored == 0
        faulty.before = None
        await until(lambda: tracker.ledger().stored == tracker.ledger().accepted)
        assert (await tracker.jobs.get(job.id)).status == "completed"
        assert (await tracker.verify()).ok
    place = re.escape(f"{db_path}.spool" if spool else "memory")
    first, *others = said(caplog)
    assert re.fullmatch(
        rf"{re.escape(DOWN)}; events wait in {place}, delivery continues automatically", first
    )
    assert len([message for message in others if "answers again" in message]) == len(others) == 1


async def test_nothing_of_a_program_that_never_saw_its_database_is_lost(
    db_path, db_url, faulty: FaultyStore
):
    """It ends at once, and the next tracker delivers what it recorded (R29)."""
    structjob.configure(console=False, strict=True)
    faulty.before = StoreUnavailable(DOWN)
    tracker = await structjob.Tracker(db_url).open()
    async with tracker.job("unseen") as job:
        log.info("for later")
    watch = Stopwatch()
    assert not await tracker.aclose()
    assert watch.seconds < 2.0
    async with structjob.Tracker(db_url) as tracker:
        assert (await tracker.jobs.get(job.id)).status == "completed"
        assert [event.message for event in await tracker.logs.list(job_id=job.id)][1] == "for later"


async def test_a_frozen_database_does_not_hold_the_program_up(
    db_url, faulty: FaultyStore, monkeypatch, caplog
):
    """A server that takes the connection and never answers: opening is bounded, and what it began
    goes on (R29).
    """
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr("structjob.engine.opening.OPEN_WAITS_FILE", 0.1)
    monkeypatch.setattr("structjob.engine.hosting.OPENING_WAITS", 0.1)
    faulty.frozen = True
    async with asyncio.timeout(60):
        tracker = await structjob.Tracker(db_url).open()
    log.info("meanwhile")
    with pytest.raises(StoreUnavailable, match=r"has not answered within 0\.1 s"):
        await tracker.flush()
    faulty.frozen = False
    faulty.thawed.set()
    await until(lambda: tracker.ledger().stored == 1)
    assert faulty.calls["open"] == 1
    assert await tracker.aclose()


async def test_a_read_waits_for_an_opening_that_goes_on(db_url, faulty: FaultyStore, monkeypatch):
    """Making the tables may take long; a program that reads at once need not know (R29)."""
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr("structjob.engine.opening.OPEN_WAITS_FILE", 0.1)
    faulty.frozen = True
    async with structjob.Tracker(db_url) as tracker:
        reading = asyncio.create_task(tracker.jobs.list())
        await asyncio.sleep(0)
        assert not reading.done()
        faulty.frozen = False
        faulty.thawed.set()
        assert list(await reading) == []


async def test_closing_without_a_spool_waits_for_the_database(db_path, db_url, faulty: FaultyStore):
    """What is in memory only would be lost: closing goes on trying for as long as it may (R29)."""
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(db_url, spool=False).open()
    faulty.before = StoreUnavailable(DOWN)
    log.info("in memory")
    await until(lambda: tracker._engine.link.down is not None)
    closing = asyncio.create_task(tracker.aclose())
    await until(lambda: faulty.calls["write"] > 2)
    faulty.before = None
    assert await closing
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("in memory",)]


async def test_closing_lets_an_opening_end(db_path, db_url, faulty: FaultyStore, monkeypatch):
    """A program that is done before its tables are made stores everything nevertheless (R29)."""
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr("structjob.engine.opening.OPEN_WAITS_FILE", 0.1)
    faulty.frozen = True
    tracker = await structjob.Tracker(db_url).open()
    log.info("short")
    closing = asyncio.create_task(tracker.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    faulty.frozen = False
    faulty.thawed.set()
    assert await closing
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("short",)]


async def test_what_somebody_has_to_mend_is_raised_where_strict(
    db_path, db_url, faulty: FaultyStore, caplog
):
    """A wrong password ends a strict program's opening; any other's is told, and tried rarely
    (R29).
    """
    wrong = StoreUnavailable("mysql://root@127.0.0.1 refuses the login", permanent=True)
    faulty.before = wrong
    with pytest.raises(StoreUnavailable, match="refuses the login"):
        await structjob.Tracker(db_url, strict=True).open()
    assert not db_path.with_name("jobs.db.spool").exists() or not list(
        db_path.with_name("jobs.db.spool").iterdir()
    )
    faulty.store = None
    async with structjob.Tracker(db_url):
        assert said(caplog) == [
            f"{wrong}; events wait in {db_path}.spool, delivery continues automatically"
        ]
        faulty.before = None


@pytest.mark.parametrize(
    "fault", [InvalidURL("no such directory"), SchemaMismatch("another version's tables")]
)
async def test_what_cannot_mend_while_the_program_runs_is_raised(
    db_url, faulty: FaultyStore, fault
):
    """A URL that names nothing, or tables of another version, are the program's fault, and it hears
    of it (R29).
    """
    faulty.before = fault
    with pytest.raises(type(fault), match=str(fault)):
        await structjob.Tracker(db_url).open()


@pytest.mark.parametrize(("permanent", "least", "most"), [(False, 700, 1000), (True, 100, 125)])
async def test_an_hour_without_the_database(
    db_path, db_url, faulty: FaultyStore, monkeypatch, caplog, permanent, least, most
):
    """Attempts are few, one message tells that it went and one that it came back; everything is
    stored once (R29).
    """
    structjob.configure(console=False, strict=True)
    clock = Clock(monkeypatch)
    async with structjob.Tracker(db_url, writers=1) as tracker:
        await tracker.flush()
        before = clock.now
        faulty.before = StoreUnavailable(DOWN, permanent=permanent)
        log.info("first")
        logged = 1
        while clock.now - before < 3600:
            log.info("meanwhile", number=logged)
            logged += 1
            await asyncio.sleep(0)
        attempts = faulty.calls["write"]
        assert least <= attempts <= most
        assert tracker.ledger().stored == 0
        faulty.before = None
        await until(lambda: tracker.ledger().stored == logged)
    assert rows(db_path, "SELECT count(*), count(DISTINCT seq) FROM structjob_logs") == [
        (logged, logged)
    ]
    went, came = said(caplog)
    assert went.startswith(DOWN)
    assert re.search(
        rf"answers again after 6\d min; delivering what waited, {logged:,} events", came
    )
    assert max(clock.slept) <= (31 if permanent else 5.2)


async def test_a_database_that_comes_and_goes_does_not_flood_the_log(
    db_url, faulty: FaultyStore, monkeypatch, caplog
):
    """Repeated outages are reported once a minute at most, with one message when it is back; a long
    one is always reported (R29).
    """
    async with structjob.Tracker(db_url) as tracker:
        link = tracker._engine.link
        await tracker.flush()
        clock = Clock(monkeypatch)
        for _ in range(100):
            link.lost(StoreUnavailable(DOWN))
            clock.now += 0.25
            link.found()
            clock.now += 0.25
        assert [message.startswith(DOWN) for message in said(caplog)] == [True, False]
        for _ in range(30):
            link.lost(StoreUnavailable(DOWN))
            clock.now += 5
        link.found()
    assert [message.startswith(DOWN) for message in said(caplog)] == [True, False, True, False]
    assert "answers again after 2 min" in said(caplog)[-1]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_connection_that_is_cut_around_the_commit(
    db_path, db_url, faulty: FaultyStore, when
):
    """Whether the transaction came through or not: the batch is stored once, and counted once
    (guarantee 2).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url) as tracker:
        async with tracker.job("cut") as job:
            setattr(
                faulty, when, StoreUnavailable("lost connection to the server during the query")
            )
            for number in range(100):
                log.info("cut", number=number)
        await until(lambda: tracker._engine.link.down is not None)
        faulty.before = None
        await until(lambda: tracker.ledger().stored == tracker.ledger().accepted)
        await tracker.flush()
        assert tracker.ledger().stored == 102
        assert (await tracker.jobs.get(job.id)).status == "completed"
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(102,)]


async def test_what_one_writer_is_told_holds_for_all(db_url, caplog):
    """A writer that waits long, because a person must fix the fault, continues as soon as another
    writer reaches the database (R29).
    """
    mended = asyncio.Event()

    async def call() -> None:
        if not mended.is_set():
            raise StoreUnavailable("the tables are missing", permanent=True)

    async with structjob.Tracker(db_url) as tracker:
        link = tracker._engine.link
        waits = asyncio.create_task(link.until_answered(call))
        await until(lambda: link.down is not None)
        mended.set()
        await link.until_answered(call)
        async with asyncio.timeout(20.0):  # without it, the link would ask again after 30
            await waits
    assert len(said(caplog)) == 2


@pytest.mark.parametrize("spool", [True, False])
async def test_closing_asks_once_more(db_path, db_url, faulty: FaultyStore, spool):
    """A database that was repaired while the writers paused gets everything when the tracker is
    closed (R29).
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(db_url, spool=spool).open()
    faulty.before = StoreUnavailable("the tables are missing", permanent=True)
    log.info("waits")
    await until(lambda: tracker._engine.link.down is not None)
    faulty.before = None
    watch = Stopwatch()
    assert await tracker.aclose(20.0)
    assert watch.seconds < 2.0
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("waits",)]


async def test_a_database_that_becomes_read_only(db_url, monkeypatch, caplog):
    """What cannot be written waits, with one message, and is stored when it can be (R29)."""
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr(links, "PERMANENT_WAIT", 0.1)
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        connection = tracker._store._connection
        connection.execute("PRAGMA query_only=1")
        log.info("waits")
        await until(lambda: tracker._engine.link.down is not None)
        with pytest.raises(StoreUnavailable, match="readonly"):
            await tracker.flush()
        connection.execute("PRAGMA query_only=0")
        await until(lambda: tracker.ledger().stored == 1)
    assert len([message for message in said(caplog) if "events wait in" in message]) == 1
