"""A process that is gone without a word leaves nothing running; one that lives is never finally
taken for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import database_support
import pytest
import structlog
from faulty_store import FaultyStore, faulty
from sink_support import Looking

import structjob
from structjob.engine import reaper as reapers
from structjob.exceptions import StoreUnavailable
from structjob.queries.verify import verify
from structjob.spool.session import Session
from structjob.store import leases, sessions
from structjob.store.contract import Ending, Notices
from structjob.store.factory import make_store
from structjob.store.ingest import JOB_COLUMNS

__all__ = ["faulty"]

log = structlog.get_logger("reaping")

# A program with a job, on a host of its own as far as anybody can tell. It does as it is told, line
# by line.
PROGRAM = """
import asyncio, functools, sys, time
import structlog, structjob
from structjob.engine import opening as trackers

async def main(url, host, spool):
    if host:
        trackers.Session = functools.partial(trackers.Session, host=host, boot_id="another")
    structjob.configure(console=False)
    async with structjob.Tracker(url, spool=spool == "spool", heartbeat_interval=0.1) as tracker:
        async with tracker.job("remote") as job:
            async with job.step("copy"):
                structlog.get_logger().info("the last line")
                await tracker.flush()
                print(job.id, flush=True)
                for line in iter(sys.stdin.readline, ""):
                    if line == "end\\n":
                        break
                    time.sleep(float(line))  # the loop is blocked
                    print("awake", flush=True)
                    await asyncio.sleep(0)
            job.result = "it lived"
        await tracker.flush()
        print("stored", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Program:
    """One such program."""

    def __init__(self, url: str, *, host: str = "", spool: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, url, host, "spool" if spool else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    async def line(self) -> str:
        return (await asyncio.to_thread(self.process.stdout.readline)).strip()

    def tell(self, line: str) -> None:
        print(line, file=self.process.stdin, flush=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> float:
    """A lease of a second."""
    monkeypatch.setattr(reapers, "LEAST_LEASE", 1.0)
    monkeypatch.setattr(reapers, "BEATS", 1)
    return 1.0


def rows(path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def test_a_killed_process_without_a_spool_is_known_at_once(db_path, db_url):
    """On the same host no lease is waited for: the process does not exist (R11)."""
    program = Program(db_url)
    job_id = await program.line()
    program.kill()
    async with structjob.Tracker(db_url, spool=False, heartbeat_interval=0.1) as tracker:
        async with asyncio.timeout(60):
            while (job := await tracker.jobs.get(job_id)).status != "crashed":
                await asyncio.sleep(0.02)
        assert job.error is not None
        assert job.error.type == "Crashed"
        assert [step.status for step in (await tracker.jobs.tree(job_id)).steps] == ["crashed"]
        assert [attempt.status for attempt in await tracker.jobs.history(job_id)] == ["crashed"]
        (event,) = [
            event
            for event in await tracker.logs.list(job_id=job_id)
            if event.kind == "operation_crashed"
        ]
        assert event.attrs["last_lines"] == ["the last line"]
        assert event.attrs["open_steps"] == ["copy"]
        # what was found is a session of its own
        found = await tracker.sessions.get(event.session_id)
        assert (found.pid, found.end_reason, found.last_seq) == (os.getpid(), "closed", 1)
        # Without its spool, what else it had logged is unknown.
        statuses = {each.session_id: each.status for each in (await tracker.verify()).sessions}
        assert statuses.pop(tracker.session_id) == "live"
        assert statuses.pop(event.session_id) == "complete"
        assert list(statuses.values()) == ["unknown_tail"]
    assert rows(
        db_path, f"SELECT end_reason FROM structjob_sessions WHERE pid = {program.process.pid}"
    ) == [("vanished",)]


@pytest.mark.slow
async def test_a_killed_process_elsewhere_is_presumed_dead_after_its_lease(
    db_path, db_url, short_lease
):
    """Its heartbeat stands still for a lease, and not before (R11)."""
    program = Program(db_url, host="elsewhere")
    job_id = await program.line()
    program.kill()
    began = time.monotonic()
    async with structjob.Tracker(db_url, spool=False, heartbeat_interval=0.1) as tracker:
        async with asyncio.timeout(60):
            while (await tracker.jobs.get(job_id)).status != "crashed":
                await asyncio.sleep(0.02)
        assert time.monotonic() - began >= short_lease
    assert rows(db_path, "SELECT end_reason FROM structjob_sessions WHERE host = 'elsewhere'") == [
        ("lease_expired",)
    ]


@pytest.mark.slow
async def test_a_process_whose_loop_is_blocked_lives(db_path, db_url, short_lease):
    """One callback that takes three leases: the watchdog beats in the loop's place (R11)."""
    program = Program(db_url, host="elsewhere")
    job_id = await program.line()
    async with structjob.Tracker(db_url, spool=False, heartbeat_interval=0.1) as tracker:
        program.tell(str(3 * short_lease))
        assert await program.line() == "awake"
        assert (await tracker.jobs.get(job_id)).status == "running"
        assert rows(
            db_path, "SELECT count(*) FROM structjob_sessions WHERE ended_at IS NOT NULL"
        ) == [(0,)]
        program.tell("end")
        assert await program.line() == "stored"
        assert (await tracker.jobs.get(job_id)).status == "completed"
    program.process.communicate()


@pytest.mark.slow
async def test_a_process_that_was_stopped_past_its_lease_goes_on(db_path, db_url, short_lease):
    """It is presumed dead; once it is continued its job runs again, and its true result stands
    (R11).
    """
    program = Program(db_url, host="elsewhere")
    job_id = await program.line()
    async with structjob.Tracker(db_url, spool=False, heartbeat_interval=0.1) as tracker:

        async def status_is(status: str) -> None:
            async with asyncio.timeout(20):
                while (await tracker.jobs.get(job_id)).status != status:
                    await asyncio.sleep(0.02)

        program.process.send_signal(signal.SIGSTOP)
        await status_is("crashed")
        program.process.send_signal(signal.SIGCONT)
        program.tell("0")
        await program.line()
        program.tell("0")
        for _ in range(200):  # its loop gets its turns between two lines only
            if (await tracker.jobs.get(job_id)).status == "running":
                break
            program.tell("0.01")
            await program.line()
        await status_is("running")
        assert rows(
            db_path, "SELECT ended_at, end_reason FROM structjob_sessions WHERE host = 'elsewhere'"
        ) == [(None, None)]
        program.tell("end")
        await status_is("completed")
        job = await tracker.jobs.get(job_id)
        assert (job.result, job.error) == ("it lived", None)
        assert [step.status for step in (await tracker.jobs.tree(job_id)).steps] == ["completed"]
    program.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("bare_database", database_support.KINDS, indirect=True)
async def test_a_stopped_process_on_this_host_keeps_its_jobs(bare_database, short_lease):
    """faults 0.6: its process number and start time prove that it exists, however long its
    heartbeat stands still; `sessions` says so.
    """
    program = Program(bare_database.url)
    job_id = await program.line()
    async with structjob.Tracker(bare_database.url, spool=False, heartbeat_interval=0.1) as tracker:
        program.process.send_signal(signal.SIGSTOP)
        reaper = tracker._engine._maintenance._reaper
        looks, look = [], reaper.look

        async def counted() -> None:
            await look()
            looks.append(time.monotonic())

        reaper.look = counted
        async with asyncio.timeout(20):
            while not looks or looks[-1] - looks[0] < 2 * short_lease:
                await asyncio.sleep(0.02)
        assert (await tracker.jobs.get(job_id)).status == "running"
        (stopped,) = [
            one for one in await tracker.sessions.list() if one.pid == program.process.pid
        ]
        assert (stopped.ended_at, stopped.process_exists) == (None, True)
        program.process.send_signal(signal.SIGCONT)
        program.tell("end")
        assert await program.line() == "stored"
        assert (await tracker.jobs.get(job_id)).status == "completed"
    program.process.communicate()


async def test_the_watchdog_has_a_connection_of_its_own_where_the_driver_needs_a_loop(
    db_path, tracker, monkeypatch
):
    """As with the servers' drivers: it beats in the loop's place from a loop of its own (R11)."""
    await tracker.flush()
    monkeypatch.delattr("structjob.store.sqlite.SQLiteStore.heartbeat_now")
    query = f"SELECT heartbeat_at FROM structjob_sessions WHERE session_id = {tracker.session_id}"
    before = rows(db_path, query)
    await asyncio.sleep(0.002)  # the database's clock has milliseconds
    await asyncio.to_thread(tracker._engine._maintenance._beat_apart)
    assert rows(db_path, query) > before


# -- with a clock of one's own
# --------------------------------------------------------------------------


class Watcher:
    """A tracker's reaper, and the time it lives in."""

    def __init__(self, tracker: structjob.Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tracker = tracker
        self.reaper = tracker._engine._maintenance._reaper
        self.now = 0.0
        monkeypatch.setattr(reapers, "_now", lambda: self.now)

    async def watch(self, seconds: float, every: float = 5.0) -> None:
        for _ in range(int(seconds / every)):
            self.now += every
            await self.reaper.look()


@pytest.fixture
async def watcher(db_url, faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch):
    """A tracker's reaper, with a lease of a minute; it looks when it is told to."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, spool=False, heartbeat_interval=10.0) as tracker:
        async with asyncio.timeout(20):
            # its first look is in real time, and for itself
            while tracker._engine._maintenance._reaper._looked < 0:
                await asyncio.sleep(0.001)
        yield Watcher(tracker, monkeypatch)


@pytest.fixture
async def stranger(db_url):
    """A session of another host, with a running job; its heart beats when it is told to."""
    store = make_store(db_url, {})
    await store.open()
    session = Session(host="elsewhere", boot_id="another", pid=1)
    await store.begin_session(session)
    await store.claim(
        dict.fromkeys(JOB_COLUMNS)
        | {
            "id": "strange",
            "operation": "strange",
            "status": "running",
            "category": "system",
            "root_job_id": "strange",
        }
        | {
            "session_id": session.session_id,
            "state_seq": 0,
            "attempt": 1,
            "created_at": session.started_at,
        }
    )
    yield store, session
    await store.close()


def status(db_path) -> str:
    return rows(db_path, "SELECT status FROM structjob_jobs WHERE id = 'strange'")[0][0]


async def test_a_lease_is_seen_to_run_out(db_path, watcher, stranger):
    """A heartbeat that stands still is waited for as long as a lease is, and not a moment less
    (R11).
    """
    await watcher.watch(60)
    assert status(db_path) == "running"
    await watcher.watch(5)
    assert status(db_path) == "crashed"


async def test_beside_many_sessions_a_look_reads_few(db_path, watcher, monkeypatch):
    """Sessions of other hosts are watched by some of the others; if many stand still, all of
    them are found by those that are left (R11).
    """
    monkeypatch.setattr(reapers, "NEIGHBORS", 3)
    monkeypatch.setattr(reapers, "BEATING", 2)

    def beat(which: str) -> None:
        with contextlib.closing(sqlite3.connect(db_path)) as connection:
            connection.execute(
                "UPDATE structjob_sessions SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f000', 'now')"
                f" WHERE host LIKE 'host%' AND {which}"
            )
            connection.commit()

    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        connection.executemany(
            "INSERT INTO structjob_sessions (session_id, host, boot_id, pid, started_at) "
            "VALUES (?, ?, 'another', 1, '2026-01-01 10:00:00.000000')",
            [(number, f"host {number}") for number in range(1, 21)],
        )
        connection.commit()
    beat("1")
    await watcher.watch(5)
    assert len(watcher.reaper._seen) == 3
    # the watched ones stand still, and after a lease all others but one are silent
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        connection.execute(
            "UPDATE structjob_sessions SET heartbeat_at = '2026-01-01 10:00:00.000000' WHERE host LIKE 'host%'"
        )
        connection.commit()
    for _ in range(14):
        beat("session_id = 20")
        await watcher.watch(5)
    assert rows(
        db_path,
        "SELECT session_id FROM structjob_sessions WHERE host LIKE 'host%' AND ended_at IS NULL",
    ) == [(20,)]


async def test_a_sink_is_shown_a_presumption_when_it_is_committed(db_path, watcher, stranger):
    """No program waits for the database while a sink is shown what crashed (faults F2.1)."""
    sink = Looking(db_path)
    structjob.configure(console=False, sinks=[sink], strict=True)
    await watcher.watch(70)
    assert sink.shown == [("strange", True, "crashed")]


async def test_a_job_crashed_when_its_process_last_gave_a_sign_of_life(db_path, watcher, stranger):
    """The time of the crash is the last sign of life, not the time when it was found, which may be
    an hour later (R11).
    """
    beat = "2026-01-01 10:00:00.000000"
    with contextlib.closing(sqlite3.connect(db_path)) as connection:
        connection.execute(
            "UPDATE structjob_sessions SET heartbeat_at = ? WHERE host = 'elsewhere'", (beat,)
        )
        connection.commit()
    await watcher.watch(70)
    assert rows(
        db_path, "SELECT status, completed_at FROM structjob_jobs WHERE id = 'strange'"
    ) == [("crashed", beat)]


async def test_what_a_presumption_did_not_know_is_complete_once_the_spool_is_stored(
    db_path, watcher, stranger
):
    """Until then its last number is unknown, though a watcher in another directory has ended the
    session (R11, R28).
    """
    store, session = stranger
    await watcher.watch(70)
    (before,) = [
        one for one in (await verify(store.fetch)).sessions if one.session_id == session.session_id
    ]
    await store.end_session(
        session,
        Ending(reason=sessions.DIED, last_seq=3, absent="in_flight", most=3),
    )
    (after,) = [
        one for one in (await verify(store.fetch)).sessions if one.session_id == session.session_id
    ]
    assert (before.status, after.status) == ("unknown_tail", "complete")
    assert rows(db_path, "SELECT end_reason FROM structjob_sessions WHERE host = 'elsewhere'") == [
        ("died",)
    ]


async def test_a_heart_that_beats_is_left_alone(db_path, watcher, stranger):
    """However rarely: each beat begins a new lease (R11)."""
    store, session = stranger
    for _ in range(5):
        await watcher.watch(55)
        await store.heartbeat(session.session_id, 0)
    await watcher.watch(55)
    assert status(db_path) == "running"


@pytest.mark.parametrize("committed", [True, False])
async def test_what_is_told_of_a_crash_is_stored_and_shown_once_whatever_became_of_it(
    db_path, watcher, stranger, monkeypatch, committed
):
    """Guarantee 2: the connection is lost around the commit of the notice of a crash."""
    store = watcher.tracker._store
    transact, failed, shown = store.transact, [], []

    async def failing(call):
        def work(connection):
            result = call(connection)
            if result and not failed and not committed:
                failed.append(True)
                raise StoreUnavailable("lost before the commit")
            return result

        result = await transact(work)
        if result and not failed:
            failed.append(True)
            raise StoreUnavailable("lost after the commit")
        return result

    def show(scope, level, attrs, *, kind, ns):
        shown.append((scope.job_id, kind))

    await watcher.watch(60)
    monkeypatch.setattr("structjob.engine.crash.show", show)
    monkeypatch.setattr(store, "transact", failing)
    with pytest.raises(StoreUnavailable, match="after" if committed else "before"):
        await watcher.watch(5)
    await watcher.watch(70)
    assert status(db_path) == "crashed"
    told = "SELECT job_id, kind FROM structjob_logs WHERE kind = 'operation_crashed'"
    assert rows(db_path, told) == shown == [("strange", "operation_crashed")]
    assert (await watcher.tracker.verify()).missing == 0


async def test_an_outage_of_ones_own_proves_nothing(db_path, watcher, stranger, faulty):
    """While this process could not reach the database no heartbeat was seen, so the observation
    begins anew (R11).
    """
    await watcher.watch(50)
    faulty.before = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await watcher.watch(5)
    faulty.before = None
    await watcher.watch(60)
    assert status(db_path) == "running"
    await watcher.watch(5)
    assert status(db_path) == "crashed"


async def test_a_pause_of_ones_own_proves_nothing(db_path, watcher, stranger):
    """A process that was stopped for a day does not know whether others could reach the database
    meanwhile (R11).
    """
    await watcher.watch(10)
    watcher.now += 86_400
    await watcher.watch(60)
    assert status(db_path) == "running"


@pytest.mark.parametrize("days", [-1, 1])
async def test_clocks_that_are_wrong_by_a_day_do_no_harm(
    db_path, watcher, stranger, monkeypatch, days
):
    """Wall clocks of different hosts are never compared (R11)."""
    store, session = stranger
    with contextlib.closing(sqlite3.connect(db_path, isolation_level=None)) as connection:
        connection.execute(
            "UPDATE structjob_sessions SET heartbeat_at = strftime('%Y-%m-%d %H:%M:%f000', 'now', ?) WHERE session_id = ?",
            (f"{days} days", session.session_id),
        )
    real = time.time()
    monkeypatch.setattr(time, "time", lambda: real + 86_400 * days)
    await watcher.watch(60)
    assert status(db_path) == "running"
    await store.heartbeat(session.session_id, 0)
    await watcher.watch(60)
    assert status(db_path) == "running"


async def test_ten_that_reap_at_once_reap_once(db_path, db_url, watcher, stranger):
    """The database lets one of them through, and the crash is recorded once (R11)."""
    _, session = stranger
    stores = [make_store(db_url, {}) for _ in range(10)]
    for store in stores:
        await store.open()
    (row,) = [
        row for row in await stores[0].fetch(leases.OPEN) if row["session_id"] == session.session_id
    ]
    lease = leases.Lease.of(row)

    body = {
        "ts": "2026-01-31 12:00:00.000001",
        "level": "error",
        "message": "operation_crashed",
        "job_id": "strange",
    }
    notices = Notices(Session(77), {"strange": json.dumps(body).encode().removesuffix(b"}")})

    async def reap(store) -> bool:
        return (
            await store.transact(
                lambda connection: leases.reap(
                    connection, store.ingest, lease, "lease_expired", notices
                )
            )
            is not None
        )

    assert sum(await asyncio.gather(*map(reap, stores))) == 1
    for store in stores:
        await store.close()
    assert status(db_path) == "crashed"
    assert rows(
        db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'operation_crashed'"
    ) == [(1,)]


async def test_a_beat_in_the_last_moment_saves(db_path, watcher, stranger):
    """Between being seen and being reaped the heart has beaten: nothing happens (R11)."""
    store, session = stranger
    (row,) = [
        row for row in await store.fetch(leases.OPEN) if row["session_id"] == session.session_id
    ]
    await store.heartbeat(session.session_id, 0)
    lease = leases.Lease.of(row)
    assert (
        await store.transact(
            lambda connection: leases.reap(connection, store.ingest, lease, "lease_expired")
        )
        is None
    )
    assert status(db_path) == "running"


async def test_a_session_that_closed_is_not_called_back(db_path, db_url, stranger):
    """A session that was closed stays closed, even if it is believed to be live (R11)."""
    store, session = stranger
    await store.end_session(session, Ending(reason=sessions.CLOSED))
    assert not await store.transact(
        lambda connection: leases.revive(connection, store.ingest, session.session_id)
    )
    assert rows(db_path, "SELECT end_reason FROM structjob_sessions WHERE host = 'elsewhere'") == [
        ("closed",)
    ]
