"""The tracker: options, accounts, bad input, and that it leaves nothing behind (R28, R29,
guarantees 2, 6 and 8).
"""

import asyncio
import contextlib
import os
import re
import sqlite3
import stat
import threading
from contextlib import closing

import pytest
import sqlalchemy
import structlog
from each import each
from stopwatch import Stopwatch

import structjob
from structjob import (
    InvalidArgument,
    InvalidFilter,
    InvalidURL,
    LogFilter,
    NotOpen,
    SchemaMismatch,
    SpoolError,
    StructjobError,
    Tracker,
)

log = structlog.get_logger("app")


@pytest.fixture(autouse=True)
def _configured():
    structjob.configure(console=False, strict=True)


# -- opening
# --------------------------------------------------------------------------


async def test_urls_of_every_form_open(tmp_path, monkeypatch):
    """Design: a text, a `sqlalchemy.URL`, $STRUCTJOB_DATABASE_URL, $DATABASE_URL, and
    ./structjob.db where nothing is told.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STRUCTJOB_DATABASE_URL", raising=False)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    for url, file in (
        (f"sqlite:///{tmp_path}/a.db", "a.db"),
        ("sqlite:///b.db", "b.db"),
        (sqlalchemy.make_url("sqlite:///c.db"), "c.db"),
        (None, "structjob.db"),
    ):
        async with Tracker(url) as tracker, tracker.job("x"):
            pass
        assert (tmp_path / file).is_file()
    monkeypatch.setenv("DATABASE_URL", "sqlite:///d.db")
    async with Tracker():
        pass
    monkeypatch.setenv("STRUCTJOB_DATABASE_URL", "sqlite:///e.db")
    async with Tracker():
        pass
    assert (tmp_path / "d.db").is_file()
    assert (tmp_path / "e.db").is_file()


async def test_the_database_is_private(db_url, db_path):
    """Traps: SQLite would create it readable for all users."""
    async with Tracker(db_url) as tracker:
        log.info("x")
        await tracker.flush()
        for path in (
            db_path,
            *db_path.parent.glob("jobs.db-*"),
            *db_path.with_name("jobs.db.spool").rglob("*"),
        ):
            assert not path.stat().st_mode & 0o077, path
        assert stat.S_IMODE(db_path.with_name("jobs.db.spool").stat().st_mode) == 0o700


async def test_a_database_in_memory_needs_no_file(tmp_path, monkeypatch):
    """R50: for tests; reads and writes as any other."""
    monkeypatch.chdir(tmp_path)
    for url in ("sqlite://", "sqlite:///:memory:"):
        async with Tracker(url) as tracker, tracker.job("a") as job:
            log.info("x")
            assert len(await tracker.logs.list(job_id=job.id, kind="log")) == 1
    assert os.listdir(tmp_path) == []


async def test_an_open_tracker_is_not_opened_again(db_url):
    """R8: a tracker is used between opening and closing; the message says what to do."""
    tracker = Tracker(db_url)
    for call in (
        tracker.flush,
        lambda: tracker.create_job("a"),
        lambda: tracker.job("a").__aenter__(),
    ):
        with pytest.raises(NotOpen, match="not open yet; open it with `async with`"):
            await call()
    for name in ("jobs", "logs", "sessions", "errors", "stats", "session_id"):
        with pytest.raises(NotOpen, match="not open yet; open it with `async with`"):
            getattr(tracker, name)
    with pytest.raises(AttributeError, match="'Tracker' object has no attribute 'job_s'"):
        _ = tracker.job_s
    async with tracker:
        with pytest.raises(NotOpen, match="is open; close it before"):
            await tracker.open()
    for call in (
        tracker.flush,
        lambda: tracker.jobs.list(),
        lambda: tracker.create_job("a"),
        lambda: tracker.job("a").__aenter__(),
    ):
        with pytest.raises(NotOpen, match="closed"):
            await call()
    assert await tracker.aclose() is True


async def test_its_repr_masks_the_password():
    """Style: no message shows a password."""
    assert "hunter2" not in repr(Tracker("postgresql://ada:hunter2@db/x"))


# -- bad input
# --------------------------------------------------------------------------

OPTIONS = {
    "level": (
        {"level": "loud"},
        "unknown level 'loud': use one of debug, info, success, warning, error, critical",
    ),
    "overflow": (
        {"overflow": "explode"},
        "unknown overflow policy 'explode': use one of drop_oldest, drop_newest, block",
    ),
    "queue_size": ({"queue_size": 0}, "queue_size must be a whole number of at least 1, not 0"),
    "queue_size type": ({"queue_size": "many"}, "queue_size must be a whole number"),
    "batch_size": ({"batch_size": 1.5}, "batch_size must be a whole number"),
    "writers": ({"writers": True}, "writers must be a whole number"),
    "spool_max_bytes": (
        {"spool_max_bytes": 1},
        "spool_max_bytes must be a whole number of at least 65,536",
    ),
    "flush_interval": (
        {"flush_interval": 2},
        "flush_interval must be more than 0 and at most 1 second, not 2",
    ),
    "flush_interval nan": ({"flush_interval": float("nan")}, "flush_interval must be"),
    "flush_interval type": ({"flush_interval": "fast"}, "flush_interval must be"),
    "heartbeat_interval": (
        {"heartbeat_interval": 0},
        "heartbeat_interval must be a positive number of seconds, not 0",
    ),
    "service": (
        {"service": "x" * 129},
        "service must have at most 128 characters, this one has 129",
    ),
    "service type": ({"service": 7}, "service must be text, not int: 7"),
    "heartbeat type": (
        {"heartbeat_interval": None},
        "heartbeat_interval must be a positive number",
    ),
}


@each("name", OPTIONS)
def test_a_wrong_option_is_named(name):
    """Bad input: at once, with the values that would do."""
    options, says = OPTIONS[name]
    with pytest.raises(InvalidArgument, match=re.escape(says)):
        Tracker("sqlite://", **options)


def threads():
    return sorted(thread.name for thread in threading.enumerate())


def join_workers():
    """Wait until the workers' threads have ended."""
    for thread in threading.enumerate():
        if thread.name.startswith("structjob"):
            thread.join(10)


def prepare_foreign(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE structjob_jobs (something INTEGER)")
    connection.close()


def prepare_newer(path):
    asyncio.run(open_and_close(f"sqlite:///{path}"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE structjob_alembic_version SET version_num = '9999'")
    connection.close()


async def open_and_close(url):
    async with Tracker(url):
        pass


BAD = {
    "unknown scheme": ("oracle://h/x", InvalidURL, "structjob has no store for 'oracle'", None),
    "no url": ("user:secret@host/db", InvalidURL, "is not a database URL", None),
    "no text": (5, InvalidURL, "a database URL is text or a sqlalchemy.URL, not int", None),
    "missing directory": (
        "sqlite:///{tmp}/missing/jobs.db",
        InvalidURL,
        "its directory does not exist; create it first: mkdir -p",
        None,
    ),
    "a long name": (
        f"sqlite:///{{tmp}}/{'x' * 300}",
        InvalidURL,
        "File name too long; check its permissions",
        None,
    ),
    "a directory": ("sqlite:///{tmp}", InvalidURL, "is a directory: name a file in it", None),
    "not a database": (
        "sqlite:///{tmp}/jobs.db",
        SchemaMismatch,
        "is not an SQLite database, but a text file: name another file",
        lambda path: path.write_bytes(b"hello " * 1000),
    ),
    "foreign tables": (
        "sqlite:///{tmp}/jobs.db",
        SchemaMismatch,
        "structjob_jobs",
        prepare_foreign,
    ),
    "newer": ("sqlite:///{tmp}/jobs.db", SchemaMismatch, "9999", prepare_newer),
    "a host": ("sqlite://host/x", InvalidURL, "names a host", None),
}


async def test_a_name_that_is_too_long_leaves_no_file(tmp_path):
    """SQLite's own files beside the database have longer names; an empty file stayed."""
    with pytest.raises(structjob.InvalidURL, match="File name too long"):
        await structjob.Tracker(f"sqlite:///{tmp_path}/{'a' * 251}").open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BAD)
def test_a_database_that_will_not_do_is_refused_and_nothing_is_left(name, tmp_path, monkeypatch):
    """Bad input: the message names it; no file, descriptor, thread or task stays behind, and what
    was there is untouched.
    """
    monkeypatch.chdir(tmp_path)
    url, kind, says, prepare = BAD[name]
    path = tmp_path / "jobs.db"
    if prepare is not None:
        prepare(path)
        for extra in [*tmp_path.glob("jobs.db-*")]:
            extra.unlink()
    before = {entry: entry.stat().st_size for entry in tmp_path.rglob("*")}

    async def main():
        tracker = Tracker(url.format(tmp=tmp_path) if isinstance(url, str) else url)
        with pytest.raises(kind, match=re.escape(says)) as caught:
            await tracker.open()
        assert isinstance(caught.value, StructjobError)
        assert "\n" not in str(caught.value)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())  # warm: what is imported once may open files
    join_workers()
    descriptors, running = len(os.listdir("/proc/self/fd")), threads()
    asyncio.run(main())
    join_workers()
    assert {entry: entry.stat().st_size for entry in tmp_path.rglob("*")} == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert len(threads()) <= len(running)


async def test_an_unusable_spool_is_refused_and_nothing_is_left(tmp_path):
    """Bad input: a file in the spool's place; the database is closed again."""
    (tmp_path / "spool").write_text("mine")
    tracker = Tracker(f"sqlite:///{tmp_path}/jobs.db", spool=tmp_path / "spool")
    with pytest.raises(
        SpoolError,
        match=r"spool directory .*; choose another with Tracker\(spool=PATH\)|move it away",
    ):
        await tracker.open()
    assert (tmp_path / "spool").read_text() == "mine"
    async with Tracker(f"sqlite:///{tmp_path}/jobs.db", spool=False):
        pass


FILTERS = {
    "unknown filter": (
        {"levle": "error"},
        "unknown filter 'levle': use one of job, job_id, attempt",
    ),
    "unknown level": ({"level": "loud"}, "unknown level 'loud'"),
    "limit": ({"limit": 0}, "limit must be a whole number from 1 to 10,000, not 0"),
    "since": (
        {"since": "yesterday"},
        "since must be a datetime or a timedelta before now, not str",
    ),
    "order": ({"order": "up"}, "order must be 'asc'"),
    "type": ({"type": "x"}, "type must be one of system, job, task, not 'x'"),
}


@each("name", FILTERS)
async def test_a_wrong_filter_is_named(tracker, name):
    """Bad input: reads say which filter, and what would do."""
    filters, says = FILTERS[name]
    with pytest.raises(InvalidFilter, match=re.escape(says)):
        await tracker.logs.list(**filters)
    if name != "unknown filter":
        with pytest.raises(InvalidFilter, match=re.escape(says)):
            LogFilter(**filters)


# -- accounts
# --------------------------------------------------------------------------


def balanced(ledger):
    return (
        ledger.accepted
        == ledger.stored
        + ledger.spilled
        + ledger.in_memory
        + sum(ledger.dropped.values())
        + ledger.dead_lettered
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"spool": False},
        {"spool": False, "queue_size": 100},
        {"spool": False, "queue_size": 100, "overflow": "drop_newest"},
    ],
)
async def test_the_ledger_balances_whenever_it_is_asked(db_url, options):
    """Guarantee 2: accepted = stored + spilled + in memory + dropped + dead-lettered, while events
    pour in and after.
    """
    async with Tracker(db_url, **options) as tracker:
        for n in range(3000):
            log.info("x", n=n)
            if n % 100 == 0:
                assert balanced(tracker.ledger()), tracker.ledger()
                await asyncio.sleep(0)
        await tracker.flush()
        ledger = tracker.ledger()
        assert balanced(ledger)
        assert (ledger.accepted, ledger.spilled, ledger.in_memory) == (3000, 0, 0)
        assert ledger.stored + sum(ledger.dropped.values()) == 3000
        if "queue_size" in options:
            assert ledger.dropped["queue_full"] > 0
        else:
            assert ledger.stored == 3000
        verification = await tracker.verify()
        assert verification.ok, verification


async def test_what_the_policy_drops(db_url):
    """R28: `drop_oldest` keeps the newest, `drop_newest` the oldest; the numbers of the rest stand
    in the gaps.
    """
    kept = {}
    for overflow in ("drop_oldest", "drop_newest"):
        async with Tracker(db_url, spool=False, queue_size=10, overflow=overflow) as tracker:
            for n in range(25):
                log.info(overflow, n=n)
            kept[overflow] = [event.attrs["n"] for event in await tracker.logs.list(text=overflow)]
            assert tracker.ledger().dropped == {"queue_full": 15}
    assert kept == {"drop_oldest": list(range(15, 25)), "drop_newest": list(range(10))}


async def test_the_queue_can_be_looked_at(db_url):
    """R28: size, capacity and fullness."""
    async with Tracker(db_url, queue_size=50) as tracker:
        assert (tracker.queue.size, tracker.queue.capacity, tracker.queue.full) == (0, 50, False)
        for _ in range(60):
            log.info("x")
        assert (tracker.queue.size, tracker.queue.waiting, tracker.queue.full) == (50, 60, True)
        await tracker.flush(durable=True)
        assert tracker.queue.size == 0


@pytest.mark.parametrize("spool", [True, False])
async def test_the_queue_can_be_cleared(db_url, db_path, monkeypatch, spool):
    """R29: exact numbers, in the ledger and in the gaps; changes of state are kept, and so is what
    comes afterwards.
    """
    async with Tracker(db_url, spool=spool) as tracker:
        job = await tracker.create_job("kept", wait=False)
        for n in range(500):
            log.info("unwanted", n=n)
        assert tracker.queue.clear() == 501
        assert tracker.queue.size == 0
        assert not any(
            b"unwanted" in file.read_bytes()
            for file in db_path.with_name("jobs.db.spool").rglob("events-*")
        )
        assert tracker.ledger().dropped == {"cleared": 501}
        log.info("wanted")
        await tracker.flush()
        assert [event.message for event in await tracker.logs.list()] == ["wanted"]
        assert (await tracker.jobs.get(job.id)).status == "pending"
        ledger = tracker.ledger()
        assert (ledger.accepted, ledger.stored, ledger.dropped) == (502, 1, {"cleared": 501})
        assert tracker.queue.clear() == 0
        with monkeypatch.context() as patch, pytest.raises(NotOpen, match="forked process"):
            patch.setattr(tracker._recorder, "forked", True)
            tracker.queue.clear()
        verification = await tracker.verify()
        assert verification.ok, verification
        with closing(sqlite3.connect(db_path)) as connection:
            assert connection.execute(
                "SELECT first_seq, last_seq, reason FROM structjob_gaps"
            ).fetchall() == [(1, 501, "cleared")]
    with pytest.raises(NotOpen):
        tracker.queue.clear()


@pytest.mark.parametrize("spool", [True, False])
async def test_clearing_while_events_pour_in(db_url, spool):
    """R29, guarantee 2: whatever the writers have in hand, each event is stored or counted as
    cleared, and never both.
    """
    cleared = 0
    async with Tracker(db_url, spool=spool, batch_size=50) as tracker:
        for n in range(5000):
            log.info("x", n=n)
            if n % 7 == 0:
                await asyncio.sleep(0)
            if n % 100 == 0:
                cleared += tracker.queue.clear()
                assert balanced(tracker.ledger()), tracker.ledger()
        await tracker.flush()
        ledger = tracker.ledger()
        assert (ledger.accepted, ledger.stored, ledger.dropped) == (
            5000,
            5000 - cleared,
            {"cleared": cleared},
        )
        assert await tracker.logs.count() == 5000 - cleared
        verification = await tracker.verify()
        assert verification.ok, verification


def test_a_tracker_that_is_not_open_has_an_empty_ledger():
    """Guarantee 2: it may be asked at any time."""
    assert structjob.Tracker("sqlite://").ledger() == structjob.Ledger(
        accepted=0, stored=0, spilled=0, in_memory=0
    )


async def test_a_strict_tracker_raises_what_would_be_counted(db_url, monkeypatch):
    """Design: `strict=True` is for tests: faults of logging come out, while it is open."""
    structjob.configure(console=False)
    monkeypatch.setattr("structjob.capture.fanout.encode_plain", lambda *given: 1 / 0)
    async with Tracker(db_url, strict=True):
        with pytest.raises(ZeroDivisionError):
            log.info("x", n=1)
    log.info("x", n=1)


async def test_strict_trackers_may_overlap(tmp_path, monkeypatch):
    """Design: faults of logging come out while one of them is open, whichever closes first, and no
    longer.
    """
    structjob.configure(console=False)
    monkeypatch.setattr("structjob.capture.fanout.encode_plain", lambda *given: 1 / 0)
    async with Tracker(f"sqlite:///{tmp_path}/lenient.db"):
        first, second = [
            await Tracker(f"sqlite:///{tmp_path}/{name}.db", strict=True).open() for name in "ab"
        ]
        await first.aclose()
        with pytest.raises(ZeroDivisionError):
            log.info("x", n=1)
        await second.aclose()
        log.info("x", n=1)


# -- leaving nothing behind
# --------------------------------------------------------------------------


def descriptors():
    return sorted(
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    )


@pytest.mark.slow
async def test_fifty_trackers_leave_nothing_behind(db_url, db_path):
    """Guarantee 6: no task, thread, descriptor, lock or spool stays after the tracker is closed."""

    async def once():
        async with Tracker(db_url) as tracker:
            async with tracker.job("a") as job, job.step("s"):
                log.info("x")
            assert len(await tracker.logs.list(job_id=job.id)) == 5

    await once()
    join_workers()
    before = (descriptors(), threads(), len(asyncio.all_tasks()))
    for _ in range(50):
        await once()
    join_workers()
    assert (descriptors(), threads(), len(asyncio.all_tasks())) == before
    assert list(db_path.with_name("jobs.db.spool").iterdir()) == []
    async with Tracker(db_url) as tracker:
        assert (await tracker.verify()).ok
        assert len(await tracker.jobs.list(status="completed", limit=100)) == 51


@pytest.mark.slow
@pytest.mark.parametrize("stuck", ["locked", "write", "close"])
async def test_closing_ends_in_time(db_url, db_path, monkeypatch, stuck):
    """Guarantee 6: within the timeout, all in all, though nothing answers, not even to a
    cancellation; the next delivers what is left.
    """
    released = asyncio.Event()

    async def never(*args):
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    tracker = await Tracker(db_url).open()
    with closing(sqlite3.connect(db_path, isolation_level=None)) as other:
        if stuck == "locked":
            other.execute("BEGIN EXCLUSIVE")
        else:
            monkeypatch.setattr(tracker._store, stuck, never)
        async with tracker.job("a", wait=False):
            log.info("x")
        tracker._host.claims.add(asyncio.get_running_loop().create_future())
        watch = Stopwatch()
        assert await tracker.aclose(3.0) is (stuck == "close")
        assert watch.seconds < 4.0
    released.set()
    if stuck == "close":
        monkeypatch.undo()
        await tracker._store.close()
    async with Tracker(db_url) as reader:
        await reader.flush()
        assert [job.status for job in await reader.jobs.list()] == ["completed"]
        assert [event.message for event in await reader.logs.list(kind="log")] == ["x"]
        assert (await reader.verify()).ok


async def test_closing_while_every_task_is_cancelled(db_url):
    """Guarantee 6: as `asyncio.run` does after a second Ctrl-C; the delivery's own tasks do not
    know of it yet when closing begins.
    """
    tracker = await Tracker(db_url).open()
    async with tracker.job("a", wait=False):
        log.info("x")
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    assert await tracker.aclose(5.0)
    async with Tracker(db_url) as reader:
        assert [job.status for job in await reader.jobs.list()] == ["completed"]


async def test_the_level_can_be_changed_at_runtime(db_url):
    """Faults 60: what is stored from the next event on; a wrong level is refused, and the former
    one remains.
    """
    structjob.configure(console=False, level="debug")
    tracker = Tracker(db_url, level="error")
    assert tracker.level == "error"
    tracker.level = "warning"
    async with tracker:
        log.info("too low")
        tracker.level = "debug"
        assert tracker.level == "debug"
        log.debug("for a while")
        with pytest.raises(
            structjob.InvalidFilter, match="unknown level 'loud': use one of debug, info"
        ):
            tracker.level = "loud"
        log.debug("still")
        tracker.level = 30
        log.info("too low again")
        log.warning("loud enough")
        assert tracker.level == "warning"
        assert [event.message for event in await tracker.logs.list()] == [
            "for a while",
            "still",
            "loud enough",
        ]
        assert (await tracker.verify()).ok
    tracker.level = "info"  # harmless


async def test_closing_within_a_running_job_ends_truthfully(db_url):
    """Guarantee 4: a job that is still running when its tracker closes is not shown as running for
    ever.
    """
    async with Tracker(db_url) as tracker:
        job = await tracker.job("left").__aenter__()
    async with Tracker(db_url) as reader:
        assert (await reader.jobs.get(job.id)).status == "cancelled"
