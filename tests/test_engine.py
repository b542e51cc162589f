"""Delivery: nothing a database, a disk, a busy loop or a careless program does loses an event, and
closing leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
import structlog
from cli_support import python
from database_support import locked
from stopwatch import Stopwatch

import structjob
from structjob.exceptions import StoreUnavailable
from structjob.spool import routing
from structjob.spool.disk import DiskQueue
from structjob.spool.line import seal


def rows(path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as connection, connection:
        return connection.execute(query).fetchall()


async def until(condition, seconds: float = 20.0) -> None:
    """Wait for what another thread or process does; there is nothing to await."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def stored(tracker: structjob.Tracker) -> None:
    """Flush, however long the database takes to be found again."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await tracker.flush()
            await asyncio.sleep(0.01)


log = structlog.get_logger("engine")


# -- poison
# --------------------------------------------------------------------------


POISON = {
    "no JSON": b'{"ts":"2026-01-31 12:00:00","level":"info","message":',
    "not an object": b"[1,2",
    "a column is missing": b'{"ts":"2026-01-31 12:00:00","message":"x","attrs":{}',
    "null where none may be": b'{"ts":null,"level":"info","message":"x","attrs":{}',
    "nested too deep": b'{"ts":"2026-01-31 12:00:00","level":"info","message":"x","attrs":'
    + b"[" * 5000
    + b"]" * 5000,
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_one_bad_event_is_put_aside_and_its_neighbours_are_stored(tracker, db_path, poison):
    """What the database refuses for its content is dead-lettered with the reason and a gap; what is
    around it is stored (guarantee 7).
    """
    for n in range(20):
        log.info("good", n=n)
    number = next(tracker._recorder.numbers.counter)
    tracker._recorder.events.append(seal(poison, b',"seq":%d' % number), number)
    for n in range(20, 40):
        log.info("good", n=n)
    await tracker.flush()
    assert rows(db_path, "SELECT count(*), max(seq) FROM structjob_logs") == [(40, 41)]
    ((session, seq, reason, error, payload),) = rows(
        db_path, "SELECT session_id, seq, reason, error, payload FROM structjob_dead_letters"
    )
    assert (session, seq, reason) == (tracker.session_id, number, "refused")
    assert error
    assert payload.startswith(poison.decode()[:20])
    assert rows(db_path, "SELECT first_seq, last_seq, reason FROM structjob_gaps") == [
        (number, number, "dead_lettered")
    ]
    assert (await tracker.verify()).ok


async def test_a_bad_event_that_is_delivered_twice_is_put_aside_once(tracker, db_path):
    """A recovery that meets the same bad event again goes on (it was put aside already), and stores
    what follows (guarantees 1 and 7).
    """
    for _ in range(2):
        tracker._recorder.events.append(
            seal(b'{"ts":null,"level":"info","message":"x","attrs":{}', b',"seq":1'), 1
        )
        await tracker.flush()
    next(tracker._recorder.numbers.counter)
    log.info("good")
    await tracker.flush()
    assert rows(db_path, "SELECT seq FROM structjob_dead_letters") == [(1,)]
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("good",)]


@pytest.mark.parametrize(
    "poison",
    [
        b'{"kind":"job","row":{}',
        b'{"kind":"job","row":7',
        b'{"kind":"job"',
        b'{"kind":"job","row":{"id":"a","attempt":[]}',
        b'{"kind":"step","row":{"id":"s"}',
    ],
)
async def test_one_bad_change_of_state_is_put_aside_and_its_neighbours_are_stored(
    tracker, db_path, poison
):
    """The same for changes of state: jobs and steps around it are stored, and no caller waits for
    it (guarantee 7).
    """
    async with tracker.job("before"):
        pass
    for _ in range(2):
        number = next(tracker._recorder.state_numbers.counter)
        tracker._recorder.states.append(seal(poison, b',"state_seq":%d' % number), number)
        async with tracker.job("after") as job, job.step("step"):
            pass
    await tracker.flush()
    assert rows(db_path, "SELECT DISTINCT status FROM structjob_jobs") == [("completed",)]
    assert rows(db_path, "SELECT count(*) FROM structjob_jobs") == [(3,)]
    assert len(rows(db_path, "SELECT * FROM structjob_dead_letters WHERE seq IS NULL")) == 2
    assert (await tracker.verify()).ok


async def test_a_piece_of_a_record_costs_no_other_record(tracker, db_path):
    """When the disk accepted only a part of a record, the record was kept elsewhere; the piece, and
    what stands behind it, cost nothing.
    """
    log.info("first")
    (event,) = [
        seal(b'{"ts":"2026-01-31 12:00:00","level":"info","message":"torn","attrs":{}', b',"seq":2')
    ]
    next(tracker._recorder.numbers.counter)
    os.write(tracker._recorder.spool.events._fd, event[:50])  # and no newline
    tracker._recorder.fallback.append(event, 2)
    log.info("behind it")
    os.write(tracker._recorder.spool.events._fd, event[:30] + b"\n")
    log.info("last")
    await tracker.flush()
    ledger = tracker.ledger()
    assert sorted(rows(db_path, "SELECT seq, message FROM structjob_logs")) == [
        (1, "first"),
        (2, "torn"),
        (3, "behind it"),
        (4, "last"),
    ]
    assert (ledger.accepted, ledger.stored, ledger.dead_lettered) == (4, 4, 0)
    assert rows(db_path, "SELECT * FROM structjob_dead_letters") == []


# -- a database that is away
# --------------------------------------------------------------------------


@pytest.mark.slow
async def test_a_database_locked_for_twelve_seconds(db_path, tracker, caplog):
    """Another program holds the database for longer than anybody waits: nothing is lost, one
    message says so, delivery resumes.
    """
    # the first heartbeat would wait in the place of the events
    await until(lambda: tracker._engine._maintenance._reaper._looked > 0)
    with locked(db_path):
        for n in range(1000):
            log.info("meanwhile", n=n)
        async with tracker.job("meanwhile", wait=False):
            pass
        await asyncio.sleep(12)
    await stored(tracker)
    assert rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'meanwhile'") == [
        (1000,)
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert (
        len([message for message in messages if "database is locked; events wait in" in message])
        == 1
    )
    assert len([message for message in messages if "answers again" in message]) == 1


async def test_a_locked_database_is_waited_for(db_path, tracker, caplog, impatient):
    """While another program holds the database, logging and jobs go on; nothing is lost, one
    message says so, delivery resumes.
    """
    with locked(db_path):
        for n in range(1000):
            log.info("meanwhile", n=n)
        with pytest.raises(StoreUnavailable, match="database is locked"):
            await tracker.flush()
        watch = Stopwatch()
        # does not wait for a database that is known to be away
        async with tracker.job("meanwhile"):
            assert watch.seconds < 0.5
    await stored(tracker)
    assert rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'meanwhile'") == [
        (1000,)
    ]
    assert rows(db_path, "SELECT operation, status FROM structjob_jobs") == [
        ("meanwhile", "completed")
    ]
    messages = [record.getMessage() for record in caplog.records]
    assert (
        len([message for message in messages if "database is locked; events wait in" in message])
        == 1
    )
    assert len([message for message in messages if "answers again" in message]) == 1


async def test_a_full_database_is_waited_for(db_path, tracker, caplog):
    """No page is left in the database, then there is: nothing is lost, one message says so,
    delivery resumes.
    """
    store = tracker._store

    async def pragma(setting: str) -> int:
        # In the thread that writes: the error code of a connection is its last call's, whichever
        # thread made it.
        return await store._writer.run(
            lambda: store._connection.execute(f"PRAGMA {setting}").fetchone()[0]
        )

    await pragma(f"max_page_count={await pragma('page_count') + 2}")
    for n in range(3000):
        log.info("meanwhile", n=n)
    with pytest.raises(StoreUnavailable, match="full"):
        await tracker.flush()
    log.info("meanwhile", n=3000)
    await pragma("max_page_count=1000000")
    await stored(tracker)
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(3001,)]
    assert (
        len(
            [
                record
                for record in caplog.records
                if "is full; events wait in" in record.getMessage()
            ]
        )
        == 1
    )
    assert rows(db_path, "PRAGMA integrity_check") == [("ok",)]


async def test_a_commit_that_fails_does_not_block_the_next(db_path, tracker, monkeypatch):
    """When COMMIT itself fails, and leaves its transaction open, the batch is stored with the next
    attempt.
    """
    fails = [3]
    connection = tracker._store._connection

    class Failing:
        """A connection whose commit fails three times."""

        def execute(self, statement: str, *parameters: object) -> object:
            if statement == "COMMIT" and fails[0]:
                fails[0] -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return connection.execute(statement, *parameters)

        def __getattr__(self, name: str) -> object:
            return getattr(connection, name)

    monkeypatch.setattr(tracker._store, "_connection", Failing())
    log.info("once")
    await stored(tracker)
    assert fails == [0]
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("once",)]
    assert tracker.ledger().stored == 1


@pytest.mark.parametrize("spool", [True, False])
async def test_a_fault_of_ours_loses_no_batch(db_path, monkeypatch, caplog, spool):
    """Whatever the store raises, what was read from the queue is stored by a later attempt
    (guarantee 3).
    """
    structjob.configure(console=False)
    async with structjob.Tracker(f"sqlite:///{db_path}", spool=spool) as tracker:

        async def failing(what):
            raise ZeroDivisionError("a fault of ours")

        with monkeypatch.context() as patch:
            patch.setattr(tracker._store, "write", failing)
            for n in range(100):
                log.info("kept", n=n)
            with pytest.raises(StoreUnavailable, match="a fault of ours"):
                await tracker.flush()
        await stored(tracker)
        assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(100,)]
    assert "a fault of ours" in caplog.text


FULL_DISK = """
import asyncio, resource, signal, sys
import structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger()
async def main():
    async with structjob.Tracker(sys.argv[1]) as tracker:
        log.info("before")
        await tracker.flush()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, hard))  # neither the spool nor the database may grow beyond it
        for n in range(500): log.info("meanwhile", n=n)
        await asyncio.sleep(0.3)
        for n in range(500, 1000): log.info("meanwhile", n=n)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        while True:
            try:
                await tracker.flush()
                break
            except structjob.StructjobError: await asyncio.sleep(0.01)
        ledger = tracker.ledger()
        print(ledger.accepted, ledger.stored, ledger.dead_lettered, ledger.dropped)
asyncio.run(main())
"""


async def test_a_full_disk_costs_nothing_while_memory_has_room(db_path):
    """Spool and database cannot grow, in the middle of a record even; when they can again, every
    event is stored, once (R28).
    """
    done = await asyncio.to_thread(python, "-c", FULL_DISK, f"sqlite:///{db_path}")
    assert (done.returncode, done.stdout) == (0, "1001 1001 0 {}\n"), done.stderr
    assert rows(db_path, "SELECT count(*), count(DISTINCT seq), max(seq) FROM structjob_logs") == [
        (1001, 1001, 1001)
    ]
    assert done.stderr.count("cannot write to the spool") == 1
    assert not list(db_path.with_name(db_path.name + ".spool").iterdir())


# -- busy loops and foreign threads
# --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.EMFILE, "too many open files"), MemoryError()],
    ids=["descriptors", "memory"],
)
async def test_a_fault_in_reading_events_costs_no_change_of_state(
    db_path, tracker, fault, monkeypatch
):
    """Guarantee 4: the end of a job that was read already is stored, though its events cannot be
    read at the moment.
    """
    read, faults = DiskQueue.read, [fault]

    def failing(self, limit: int, most: int):
        if self is tracker._recorder.events and tracker._recorder.state_numbers.given and faults:
            raise faults.pop()
        return read(self, limit, most)

    monkeypatch.setattr(DiskQueue, "read", failing)
    async with tracker.job("a", wait=False):
        log.info("x")
    async with asyncio.timeout(30):
        await tracker.flush()
    assert not faults
    assert rows(db_path, "SELECT status FROM structjob_jobs") == [("completed",)]
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(3,)]


async def test_a_file_that_cannot_be_opened_any_more_is_a_database_that_is_away(
    db_path, monkeypatch
):
    """Guarantee 6: SQLite opens files as it goes; when no descriptor is left for them, closing ends
    as with any outage.
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    log.info("x")

    def refused(*args: object, **kwargs: object) -> None:
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patch:
        patch.setattr("structjob.store.sessions.leave", refused)
        assert not await tracker.aclose()
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        assert (await tracker.verify()).ok
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("x",)]


async def test_reading_needs_no_look_for_orphans(tracker, monkeypatch):
    """Guarantee 3: that other spools cannot be looked for, since no descriptor is left, is not felt
    by who reads, or closes.
    """

    def refused(*args: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("structjob.spool.directory.adopt", refused)
    log.info("x")
    assert [event.message for event in await tracker.logs.list()] == ["x"]


@pytest.mark.parametrize("slice_", [0.001, 0.0001])
async def test_a_saturated_loop_stores_continuously(db_path, tracker, slice_):
    """A loop that is never idle still delivers all the time (decisions: the engine is tasks)."""
    deadline = time.monotonic() + 60.0
    n = growth = stored = 0
    while n < 1000 or growth < 3 or stored < 0.4 * n:
        assert time.monotonic() < deadline, f"{stored} of {n} stored, {growth} times"
        end = time.perf_counter() + slice_
        log.info("busy", n=n)
        n += 1
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0)
        before, stored = stored, tracker.ledger().stored
        growth += stored > before


@pytest.mark.slow
async def test_a_thread_wakes_an_idle_engine(db_path, tracker):
    """What a thread logs while the loop is idle is stored promptly, each time (R28)."""
    await tracker.flush()
    for n in range(20):
        before = tracker.ledger().stored
        await asyncio.to_thread(log.info, "from a thread", n=n)
        watch = Stopwatch()
        await until(lambda before=before: tracker.ledger().stored > before, 3.0)
        assert watch.seconds < 0.2 + 0.8


class Held:
    """A store whose transactions wait until the test releases them.

    Attributes:
        entered: Set once one has come.
        go_on: Set to release all of them.
        batches: How many events each had.
    """

    def __init__(self, store, monkeypatch) -> None:
        self.entered, self.go_on, self.batches = asyncio.Event(), asyncio.Event(), []
        self._write = store.write
        monkeypatch.setattr(store, "write", self._slowly)

    async def _slowly(self, batch):
        self.batches.append(batch.events.count(b"\n"))
        self.entered.set()
        await self.go_on.wait()
        return await self._write(batch)


async def test_a_steady_stream_waits_for_company(db_path, tracker, monkeypatch):
    """An event that arrives during a transaction waits for its flush interval like all others, and
    not longer than until a read asks for it (R28).
    """
    engine, held = tracker._engine, Held(tracker._store, monkeypatch)
    engine.writers.flush_interval = 0.001
    log.info("first")
    await held.entered.wait()
    engine.writers.flush_interval = 3600.0
    log.info("meanwhile")
    written = asyncio.Event()
    engine.delivery.on_stored = written.set
    held.go_on.set()
    await written.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    log.info("later")
    assert held.batches == [1]
    await tracker.flush()
    assert held.batches == [1, 2]
    assert rows(db_path, "SELECT message FROM structjob_logs ORDER BY seq") == [
        ("first",),
        ("meanwhile",),
        ("later",),
    ]


async def test_a_flush_during_a_transaction_is_heard(db_path, tracker, monkeypatch):
    """A flush that is called during a transaction does not wait for the flush interval (R28)."""
    engine, held = tracker._engine, Held(tracker._store, monkeypatch)
    engine.writers.flush_interval = 0.001
    log.info("first")
    await held.entered.wait()
    engine.writers.flush_interval = 3600.0
    log.info("meanwhile")
    flush = asyncio.ensure_future(tracker.flush())
    await asyncio.sleep(0)
    log.info("after the flush")
    held.go_on.set()
    await flush
    assert ("meanwhile",) in rows(db_path, "SELECT message FROM structjob_logs")


async def test_who_asks_once_does_not_hurry_all_that_follows(db_path, tracker, monkeypatch):
    """After one read or flush, a steady stream of events is again sent in batches (R28)."""
    engine, store = tracker._engine, tracker._store
    engine.writers.flush_interval = 3600.0
    write, batches = store.write, []

    async def among_others(batch):
        batches.append(batch.events.count(b"\n"))
        if len(batches) < 50:
            log.info("meanwhile")
        return await write(batch)

    monkeypatch.setattr(store, "write", among_others)
    log.info("first")
    await tracker.flush()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert len(batches) < 5
    await tracker.flush()
    assert ("meanwhile",) in rows(db_path, "SELECT message FROM structjob_logs")


@pytest.mark.parametrize("spool", [True, False], ids=["disk", "memory"])
async def test_what_is_too_much_for_a_batch_waits_once(db_path, spool):
    """A batch is bounded in bytes, too: what did not fit has waited its flush interval already
    (R28).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{db_path}", spool=spool) as tracker:
        engine = tracker._engine
        await tracker.flush()
        for _ in range(10):
            await asyncio.sleep(0)  # it has fallen asleep
        engine.writers.flush_interval = 0.05
        batches = []

        def then_an_hour() -> None:
            engine.writers.flush_interval = 3600.0
            batches.append(1)

        engine.delivery.on_stored = then_an_hour
        for n in range(100):
            log.info("large", n=n, text="x" * 60_000)
        await until(
            lambda: (
                rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'large'")
                == [(100,)]
            )
        )
        assert len(batches) > 2


async def test_the_end_of_a_transaction_begins_no_new_interval(db_path, tracker, monkeypatch):
    """What came while a slow database was at work has waited since, and does not wait as long once
    more (R28).
    """
    engine, held = tracker._engine, Held(tracker._store, monkeypatch)
    engine.writers.flush_interval = 0.001
    log.info("first")
    await held.entered.wait()
    log.info("meanwhile")
    engine.writers._looked_at -= 3600.0  # so long ago it was
    engine.writers.flush_interval = 3600.0
    held.go_on.set()
    await until(lambda: ("meanwhile",) in rows(db_path, "SELECT message FROM structjob_logs"))


async def test_a_steady_stream_does_not_keep_a_dead_session_open(
    db_path, db_url, impatient, monkeypatch
):
    """An orphan whose events are stored is ended, though each turn finds something new of one's own
    (R11).
    """
    structjob.configure(console=False, strict=True)
    first = await structjob.Tracker(db_url).open()
    with locked(db_path):
        log.info("orphan")
        assert not await first.aclose(timeout=0.2)
    async with structjob.Tracker(db_url) as second:
        store, engine, batches = second._store, second._engine, []
        write = store.write

        async def among_others(batch):
            batches.append(batch)
            if len(batches) < 300:
                log.info("busy")
            return await write(batch)

        monkeypatch.setattr(store, "write", among_others)
        log.info("busy")
        await until(
            lambda: (
                not len(engine._adopted)
                and ("orphan",) in rows(db_path, "SELECT message FROM structjob_logs")
            )
        )
        assert len(batches) < 50


async def test_no_wake_up_is_lost(db_path):
    """Threads log at any moment of the engine's falling asleep: every event is stored without
    anybody's help (R28).
    """
    structjob.configure(console=False, strict=True)
    interval = sys.getswitchinterval()
    async with structjob.Tracker(f"sqlite:///{db_path}", flush_interval=0.0005) as tracker:
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(20):
                threads = [
                    threading.Thread(target=lambda: [log.info("wake") for _ in range(20)])
                    for _ in range(4)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    while thread.is_alive():
                        await asyncio.sleep(0.0005)
                await until(lambda: tracker.ledger().stored == tracker.ledger().accepted)
        finally:
            sys.setswitchinterval(interval)


async def test_an_event_between_the_last_look_and_falling_asleep_is_stored(db_path, tracker):
    """An event that comes when the writer has just found nothing, and is not marked idle yet, is
    stored without anybody's help (R28).
    """
    await tracker.flush()
    waiters = tracker._engine._waiters
    resolve = waiters.resolve

    def resolve_and_log(states) -> None:
        resolve(states)
        waiters.resolve = resolve
        assert not tracker._recorder.idle
        log.info("in between")

    waiters.resolve = resolve_and_log
    tracker._engine.writers.wake()
    await until(lambda: tracker.ledger().accepted == tracker.ledger().stored == 1)


async def test_a_flush_from_any_thread_sees_what_was_logged_before(db_path, tracker):
    """Each thread that flushes finds its own events in the database afterwards, whatever the others
    do.
    """
    missing = []

    def work(index: int) -> None:
        with closing(sqlite3.connect(db_path)) as connection, connection:
            for n in range(30):
                log.info("mine", thread=index, n=n)
                assert tracker._engine.flush().comes(20)
                query = (
                    "SELECT count(*) FROM structjob_logs WHERE json_extract(attrs, '$.thread') = ?"
                )
                if connection.execute(query, (index,)).fetchone()[0] != n + 1:
                    missing.append((index, n))

    await asyncio.gather(*(asyncio.to_thread(work, index) for index in range(4)))
    assert not missing


async def test_a_started_job_can_be_found_from_elsewhere(db_path, tracker):
    """When ``start`` returns, another connection finds the job, though changes of state stand out
    of order in the file (R19).
    """
    recorder = tracker._recorder
    held = next(
        recorder.state_numbers.counter
    )  # another thread has its number and has not written yet
    promise = tracker._engine.committed(held)
    async with tracker.job("found") as job:
        assert rows(db_path, f"SELECT operation FROM structjob_jobs WHERE id = '{job.id}'") == [
            ("found",)
        ]
        assert not promise.done
    recorder.states.append(
        seal(
            b'{"kind":"gap","row":{"first_seq":900,"last_seq":900,"reason":"test"}',
            b',"state_seq":%d' % held,
        ),
        held,
    )
    await asyncio.wait_for(promise.awaited(), 20)


@pytest.mark.parametrize("spool", [True, False])
async def test_somebody_cancels_every_task(db_path, monkeypatch, spool):
    """A program that cancels all tasks of its loop, ours with a batch in their hands among them,
    still stores everything.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{db_path}", spool=spool) as tracker:
        writing = asyncio.Event()

        async def hang(what):
            writing.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(tracker._store, "write", hang)
            for n in range(50):
                log.info("kept", n=n)
            await writing.wait()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        log.info("kept", n=50)
        await tracker.flush()
        assert tracker.ledger().stored == 51
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(51,)]


async def test_a_busy_program_delivers_its_predecessors_events_too(db_path, db_url, impatient):
    """An orphan's events do not wait until the program that took them over has nothing of its own
    to store (guarantee 1).
    """
    structjob.configure(console=False, strict=True)
    first = await structjob.Tracker(db_url).open()
    with locked(db_path):
        for n in range(300):
            log.info("orphan", n=n)
        assert not await first.aclose(timeout=0.2)
    async with structjob.Tracker(db_url, batch_size=20) as second:
        while rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'orphan'") != [
            (300,)
        ]:
            for n in range(200):
                log.info("busy", n=n)
            await asyncio.sleep(0)
            assert second.ledger().accepted < 500_000


async def test_a_spool_that_somebody_deletes_is_told(db_path, tracker, caplog, monkeypatch):
    """Guarantee 1: what is recorded is delivered all the same; that it no longer survives the
    process is said.
    """
    monkeypatch.setattr("structjob.engine.maintenance.LOOK_EVERY", 0.0)
    shutil.rmtree(db_path.with_name("jobs.db.spool"))
    log.info("x")
    await until(lambda: "was deleted" in caplog.text)
    await tracker.flush()
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("x",)]


async def test_a_directory_change_does_not_lose_the_spool(tmp_path, monkeypatch):
    """A program with a relative database path that changes its directory goes on as before."""
    structjob.configure(console=False, strict=True)
    monkeypatch.chdir(tmp_path)
    async with structjob.Tracker("sqlite:///jobs.db", spool="spool") as tracker:
        log.info("here")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        log.info("there")
        assert len(await tracker.logs.list()) == 2
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not list((tmp_path / "spool").iterdir())


# -- closing
# --------------------------------------------------------------------------


def resources() -> tuple[set[str], set[str], set[str]]:
    """What a process holds: tasks, threads, descriptors."""
    gc.collect()
    tasks = {
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("structjob")
    }
    threads = {
        thread.name for thread in threading.enumerate() if thread.name.startswith("structjob")
    }
    descriptors = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            descriptors.add(os.readlink(f"/proc/self/fd/{fd}"))
    return tasks, threads, descriptors


async def test_closing_leaves_nothing(db_path):
    """After ``aclose`` no task, thread, descriptor, lock file or directory of the tracker
    is left.
    """
    structjob.configure(console=False, strict=True)
    for _ in range(3):
        async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
            async with tracker.job("job"):
                log.info("x")
            await tracker.logs.list()
        await until(lambda: not resources()[1])
        tasks, _, descriptors = resources()
        assert not tasks
        assert not [name for name in descriptors if str(db_path) in name]
    assert sorted(entry.name for entry in db_path.parent.iterdir()) == ["jobs.db", "jobs.db.spool"]
    assert not list(db_path.with_name("jobs.db.spool").iterdir())


async def test_a_closing_that_is_cancelled_twice_lets_the_spool_go(db_path):
    """Guarantees 1 and 6: a closing that is cancelled twice keeps no lock on the spool: another
    tracker delivers it, even in this process.
    """
    structjob.configure(console=False, strict=True)
    asked, over = asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        """Do as a driver that does not let itself be cancelled."""
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                asked.set()

    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    tracker._engine._tasks.append(asyncio.create_task(stubborn()))
    with locked(db_path):
        log.info("left")
        closing = asyncio.create_task(tracker.aclose())
        await asyncio.sleep(0)  # it has begun
        closing.cancel()
        await asked.wait()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    over.set()
    assert not [name for name in resources()[2] if "spool" in name]
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("left",)]


async def test_a_closing_that_is_cancelled_during_a_claim_lets_go_of_everything(
    db_path, monkeypatch
):
    """Guarantees 4 and 6: a closing that is cancelled while a job is being started keeps no task,
    thread, spool or descriptor.
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    asked, claim = asyncio.Event(), tracker._store.claim

    async def slow(row):
        asked.set()
        return await claim(row)

    monkeypatch.setattr(tracker._store, "claim", slow)
    with locked(db_path):
        starting = asyncio.create_task(tracker.job("a", job_id="j").__aenter__())
        await asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        log.info("left")
        closing = asyncio.create_task(tracker.aclose())
        await asyncio.sleep(0)  # it has begun, and waits for the claim
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await tracker.aclose() is False
    await until(lambda: not any(resources()[:2]))
    assert not [name for name in resources()[2] if str(db_path) in name]
    async with structjob.Tracker(f"sqlite:///{db_path}") as again:
        await again.flush()
        assert (await again.verify()).ok
        assert "running" not in [job.status for job in await again.jobs.list()]
    assert rows(db_path, "SELECT message FROM structjob_logs WHERE kind = 'log'") == [("left",)]


@pytest.mark.parametrize("complete", [True, False])
async def test_whoever_closes_second_is_told_what_became_of_it(db_path, complete):
    """Guarantee 6: at the same time it waits for the first, and afterwards the answer is still the
    same.
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    with contextlib.nullcontext() if complete else locked(db_path):
        log.info("x")
        first = asyncio.create_task(tracker.aclose(1.0))
        await asyncio.sleep(0)  # it has begun
        assert await tracker.aclose() is complete
        assert tracker.ledger().stored == complete
        assert await first is complete
        assert await tracker.aclose() is complete


async def test_closing_is_bounded_when_the_database_is_locked_for_ever(db_path):
    """``aclose(timeout)`` ends within its timeout; what is left stays in the spool, and the next
    tracker stores it (guarantee 6). The session is closed, and has not died.
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    with locked(db_path):
        for n in range(500):
            log.info("left", n=n)
        watch = Stopwatch()
        assert not await tracker.aclose(timeout=1.0)
        assert watch.seconds < 1.0 + 0.7
        await until(lambda: not resources()[1])
        assert not [name for name in resources()[2] if str(db_path) in name and "spool" in name]
        log.info("late")
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        assert (await tracker.verify()).ok
        assert [one.status for one in await tracker.sessions.list()] == ["live", "closed"]
    assert rows(
        db_path, "SELECT message, count(*) FROM structjob_logs GROUP BY message ORDER BY 1"
    ) == [("late", 1), ("left", 500)]
    assert not list(db_path.with_name("jobs.db.spool").iterdir())


async def test_threads_that_log_while_the_tracker_closes_lose_nothing(db_path, db_url):
    """Every event is stored by the tracker that closes, or by the next: none falls in between
    (guarantee 1).
    """
    structjob.configure(console=False, strict=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    logged = 0
    accepted = 0
    try:
        for _ in range(10):
            tracker = await structjob.Tracker(db_url).open()
            stop = threading.Event()
            counts = [0] * 4

            def work(index: int, stop: threading.Event = stop, counts: list[int] = counts) -> None:
                while not stop.is_set():
                    # as many as may wait for the next tracker
                    if len(routing._waiting) < routing.WAITING // 2:
                        log.info("thread")
                        counts[index] += 1
                    time.sleep(0.0005)

            threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
            for thread in threads:
                thread.start()
            await asyncio.sleep(0.03)
            assert await tracker.aclose()
            ledger = tracker.ledger()
            assert ledger.stored == ledger.accepted
            assert not ledger.dropped
            stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)
            logged += sum(counts)
            accepted += ledger.accepted
        async with structjob.Tracker(db_url) as tracker:
            await tracker.flush()
            assert (await tracker.verify()).ok
    finally:
        sys.setswitchinterval(interval)
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(logged,)]
    assert accepted > 0


async def test_closing_waits_for_a_thread_in_the_middle_of_an_event(db_path):
    """A thread that has its number and has not written yet when the tracker closes is waited for,
    and its event is stored (guarantee 1).
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(f"sqlite:///{db_path}").open()
    append, inside, go_on = tracker._recorder._append, threading.Event(), threading.Event()

    def slow(line: bytes, number: int) -> None:
        inside.set()
        go_on.wait()
        append(line, number)

    tracker._recorder._append = slow
    thread = threading.Thread(target=log.info, args=("in the middle",))
    thread.start()
    await asyncio.to_thread(inside.wait)
    closing = asyncio.create_task(tracker.aclose())
    done, _ = await asyncio.wait([closing], timeout=0.3)
    assert not done
    go_on.set()
    assert await closing
    thread.join()
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("in the middle",)]


async def test_a_blocked_thread_is_let_go_when_the_tracker_closes(db_path):
    """A thread that waits for room is not held for ever by a tracker that closes; its event stays
    in the spool (guarantees 1 and 6).
    """
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(
        f"sqlite:///{db_path}", overflow="block", spool_max_bytes=65_536
    ).open()
    count = 0

    def work() -> None:
        nonlocal count
        while not tracker._recorder.closed:
            log.info("blocked", text="x" * 500)
            count += 1

    with locked(db_path):
        thread = threading.Thread(target=work)
        thread.start()
        await until(lambda: tracker._recorder.spool.events._full)
        await tracker.aclose(timeout=0.5)
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        assert (await tracker.verify()).ok
    assert rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'blocked'") == [
        (count,)
    ]


async def test_a_cancelled_opening_leaves_nothing(db_path, monkeypatch):
    """A tracker whose opening is cancelled, at whichever step, leaves no task, thread, descriptor
    or directory.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{db_path}"):
        pass  # the modules are imported, the tables made
    reached = asyncio.Event()

    async def hang(*args: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    for step in (
        "structjob.store.sqlite.SQLiteStore.open",
        "structjob.store.sqlite.SQLiteStore.begin_session",
        "structjob.engine.engine.Engine.looked",
    ):
        reached.clear()
        with monkeypatch.context() as patch:
            patch.setattr(step, hang)
            tracker = structjob.Tracker(f"sqlite:///{db_path}")
            opening = asyncio.create_task(tracker.open())
            await reached.wait()
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        await until(lambda: not resources()[1])
        tasks, _, descriptors = resources()
        assert not tasks
        assert not [name for name in descriptors if str(db_path) in name]
        assert not list(db_path.with_name("jobs.db.spool").iterdir())


async def test_a_small_queue_in_memory_is_emptied_in_time(db_path):
    """Without a spool a quick producer that leaves the loop its turns loses nothing, though the
    queue is smaller than what comes within the flush interval (R28).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(
        f"sqlite:///{db_path}", spool=False, queue_size=1000, flush_interval=1.0
    ) as tracker:
        for n in range(6000):
            log.info("steady", n=n)
            if n % 20 == 0:
                await asyncio.sleep(0.002)
    assert tracker.ledger().dropped == {}
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(6000,)]


FORGET = """
import asyncio, sys, time
import structlog, structjob
structjob.configure(console=False)
log = structlog.get_logger()
async def main():
    tracker = await structjob.Tracker(sys.argv[1]).open()
    for n in range(500): log.info("forgotten", n=n)
    if sys.argv[2] == "mid-job":
        await tracker.job("forgotten").__aenter__()
    if sys.argv[2] == "error":
        raise SystemExit(3)
asyncio.run(main())
log.info("after the loop")
"""


WAITING = """
import asyncio, sys
import structlog, structjob
structjob.configure(console=False)
loop = asyncio.new_event_loop()
options = {"spool": False, "queue_size": 50} if sys.argv[2] == "memory" else {"spool_max_bytes": 65_536}
tracker = loop.run_until_complete(structjob.Tracker(sys.argv[1], overflow="block", **options).open())
if sys.argv[3] == "closed":
    loop.close()
for n in range(500): structlog.get_logger().info("in vain", n=n, text="x" * 500)
ledger = tracker.ledger()
assert ledger.accepted == 500 and sum(ledger.dropped.values()) > 0, ledger
print("on")
"""


@pytest.mark.parametrize("loop", ["stopped", "closed"])
@pytest.mark.parametrize("where", ["memory", "disk"])
async def test_nobody_waits_for_room_that_cannot_come(db_path, where, loop):
    """R28: `block` does not hold the thread whose loop would have to make room, nor anybody once
    the loop is closed.
    """
    done = await asyncio.to_thread(python, "-c", WAITING, f"sqlite:///{db_path}", where, loop)
    assert (done.returncode, done.stdout) == (0, "on\n"), done.stderr


STOPPED = """
import asyncio, sys
import structlog, structjob
structjob.configure(console=False)
loop = asyncio.new_event_loop()
tracker = loop.run_until_complete(structjob.Tracker(sys.argv[1], spool=False).open())
loop.run_until_complete(asyncio.sleep(0.1))  # its tasks have fallen asleep
for n in range(5000): structlog.get_logger().info("forgotten", n=n)
loop.close()
"""


@pytest.mark.slow
async def test_a_tracker_whose_loop_was_closed_is_delivered_at_the_end(db_path):
    """A loop that is closed with the tracker's tasks asleep in it leaves much to deliver: the end
    of the interpreter does (guarantee 1).
    """
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", STOPPED, f"sqlite:///{db_path}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(5000,)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "mid-job", "error"])
async def test_a_forgotten_tracker_does_not_hold_the_program_up(db_path, way):
    """A program that does not close its tracker exits promptly, and loses nothing (guarantee 1)."""
    watch = Stopwatch()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", FORGET, f"sqlite:///{db_path}", way],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert watch.seconds < 10
    assert (done.returncode, done.stdout, done.stderr) == (3 if way == "error" else 0, "", "")
    # Most of it got there already; the rest is in the spool.
    assert rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'forgotten'") == [
        (500,)
    ]
    async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
        await tracker.flush()
        assert (await tracker.verify()).ok
        assert [job.status for job in await tracker.jobs.list()] == (
            ["cancelled"] if way == "mid-job" else []
        )
    found = rows(db_path, "SELECT count(*) FROM structjob_logs WHERE message = 'after the loop'")
    assert found == [(0 if way == "error" else 1,)]


@pytest.mark.slow
async def test_a_forgotten_tracker_and_a_locked_database(db_path, db_url):
    """The same while another program holds the database: the exit waits for a moment only, and the
    next tracker stores it all.
    """
    async with structjob.Tracker(db_url):
        pass
    code = FORGET.replace(
        "for n in range(500)", "print(flush=True); sys.stdin.readline()\n    for n in range(500)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, db_url, "plain"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    await asyncio.to_thread(process.stdout.readline)
    with locked(db_path):
        watch = Stopwatch()
        await asyncio.to_thread(process.communicate, "go\n", 30)
        assert watch.seconds < 6
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        assert (await tracker.verify()).ok
    assert rows(db_path, "SELECT count(*) FROM structjob_logs") == [(501,)]


async def test_the_librarys_own_words_do_not_reenter(db_path, tracker, impatient, caplog):
    """What the library says of itself while the database is away is not recorded: it would feed
    itself (guarantee 8).
    """
    logging.getLogger().setLevel(logging.DEBUG)
    with locked(db_path):
        log.info("one")
        with pytest.raises(StoreUnavailable):
            await tracker.flush()
    await stored(tracker)
    assert "events wait in" in caplog.text
    assert rows(db_path, "SELECT message FROM structjob_logs") == [("one",)]
