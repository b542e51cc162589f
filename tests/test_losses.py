"""`structjob verify` finds every loss, of each kind, on each database, with the right numbers; and
nothing where nothing was lost.
"""

import errno
import json
import subprocess
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
import structlog
from database_support import inserted
from store_support import opened

import structjob
from structjob.engine.maintenance import Maintenance
from structjob.queries import verify as verification
from structjob.queries.verify import SessionState, verify
from structjob.spool.recorder import Recorder
from structjob.spool.session import Session
from structjob.store import holes
from structjob.store.contract import Ending, Write
from structjob.store.sessions import CLOSED, DIED
from structjob.store.tables import gaps, logs, sessions

log = structlog.get_logger("losses")

BODY = b'{"ts":"2026-01-01 00:00:00.000000","level":"info","message":"%s","attrs":{}'
LONG = BODY % (b"x" * 400)
"""Ten of these fill a segment."""


class Program:
    """A program that logs in this process: a recorder, and an engine of a few lines, so that a test
    decides what is delivered when.

    Its spool has segments of 4 KiB, and each is deleted as soon as the next delivery confirms that
    all of it is stored.
    """

    def __init__(self, root, store, **options):
        settings = {
            "level": 10,
            "queue_size": 10_000,
            "max_bytes": None,
            "overflow": "drop_newest",
            "fallbacks": False,
        } | options
        self.recorder = Recorder(Session(), root, **settings)
        queue = self.recorder.events
        queue._segment_bytes, queue._check_bytes = 4096, 1024
        self.store = store
        self.number = self.recorder.session.session_id

    def log(self, count, body=LONG):
        for _ in range(count):
            self.recorder.put(body, 20)

    async def deliver(self):
        await self.store.begin_session(self.recorder.session)
        for queue in (self.recorder.events, self.recorder.fallback):
            while (batch := queue.read(2048, 4)) is not None:
                await self.store.write(Write(self.number, batch.lines))
                queue.ack(batch, batch.count)

    def on_disk(self):
        """Return the numbers in the spool."""
        return {
            structjob.spool.line.number_of(line)
            for path in self.recorder.spool.directory.glob("events-*")
            for line in path.read_bytes().splitlines()
        } - {0}

    def die(self):
        self.recorder.close()
        self.recorder.spool.close()


@pytest.fixture
async def store(database):
    async with opened(database) as given:
        yield given


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def program(root, store, monkeypatch):
    monkeypatch.setattr("structjob.spool.disk.DELETE_AFTER", 0.0)
    given = Program(root, store)
    yield given
    if given.recorder.spool is not None:
        given.die()


async def adopted(database, root):
    """Let a tracker deliver what dead programs left, and return what is found then, without the
    tracker's own session.
    """
    structjob.configure(console=False)
    async with structjob.Tracker(database.url, spool=root) as tracker:
        await tracker.flush()
        own = tracker.session_id
    async with opened(database) as store:
        return {
            found.session_id: found
            for found in (await verify(store.fetch)).sessions
            if found.session_id != own
        }


async def remove(database, *conditions):
    async with database.engine.begin() as connection:
        await connection.execute(sa.delete(logs).where(*conditions))


def numbers(ranges):
    return {number for first, last in ranges for number in range(first, last + 1)}


async def stored(database, session_id):
    return {
        row["seq"]
        for row in await database.fetch(
            sa.select(logs.c.seq).where(logs.c.session_id == session_id)
        )
    }


# -- a dead program
# --------------------------------------------------------------------------


async def test_rows_that_were_deleted_under_a_dead_program_are_missing(database, root, program):
    """faults 0.1: what the database had confirmed, and the spool does not hold any more, is missing
    when the program's session ends; it is not taken for what a thread had in its hands. What the
    spool still holds comes back.
    """
    program.log(100)
    await program.deliver()
    spooled = program.on_disk()
    assert 1 not in spooled
    assert 100 in spooled
    program.die()
    await remove(database, logs.c.session_id == program.number, logs.c.seq.in_((3, 4, 5, 9, 100)))
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.holes, found.fewer) == (
        SessionState.INCOMPLETE,
        ((3, 5), (9, 9)),
        4,
    )
    assert (found.missing, found.stored, found.explained, found.last_seq) == (4, 96, 0, 100)
    assert await database.fetch(sa.select(gaps)) == []


async def test_an_older_copy_of_the_database_under_a_dead_program(database, root, program):
    """faults 0.1: a backup that is restored, or a failover to an older copy, while a program is
    dead: exactly what is neither in the copy nor in the spool is missing, though the session's row
    and its heartbeats are as old as the copy.
    """
    program.log(60)
    await program.deliver()
    await program.store.heartbeat(program.number, 60, 60)
    program.log(200)
    await program.deliver()
    spooled = program.on_disk()
    program.die()
    await remove(database, logs.c.session_id == program.number, logs.c.seq > 60)
    found = (await adopted(database, root))[program.number]
    lost = set(range(61, 261)) - spooled
    assert len(lost) > 100
    assert (found.status, numbers(found.holes), found.fewer) == (
        SessionState.INCOMPLETE,
        lost,
        len(lost),
    )


async def test_an_older_copy_from_before_the_session_began(database, root, program):
    """faults 0.1: the session's row itself is gone; its spool says how many events had been
    confirmed.
    """
    program.log(200)
    await program.deliver()
    spooled = program.on_disk()
    program.die()
    async with database.engine.begin() as connection:
        for table in (logs, sessions):
            await connection.execute(sa.delete(table))
    found = (await adopted(database, root))[program.number]
    assert (found.status, numbers(found.holes)) == (
        SessionState.INCOMPLETE,
        set(range(1, 201)) - spooled,
    )


async def test_an_adoption_that_is_broken_off_forgets_nothing(database, root, program):
    """faults 0.1: a second process that delivers a spool further, and ends, too, leaves to the
    third how many events were confirmed.
    """
    program.log(200)
    await program.deliver()
    program.log(40)
    program.die()
    second = structjob.spool.directory.adopt(root, set())[0]
    batch = second.events.read(8192, 12)
    await program.store.write(Write(program.number, batch.lines))
    second.events.ack(batch, batch.count)
    second.close()
    await remove(database, logs.c.session_id == program.number, logs.c.seq == 2)
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.holes, found.fewer) == (SessionState.INCOMPLETE, ((2, 2),), 1)


async def test_a_segment_whose_deletion_was_broken_off_is_counted_once(
    database, root, program, monkeypatch
):
    """faults 0.1: a process killed between noting that a segment was confirmed and deleting it:
    nothing seems lost.
    """
    program.log(30)
    with monkeypatch.context() as patch:
        patch.setattr(
            "pathlib.Path.unlink",
            lambda *args, **kwargs: (_ for _ in ()).throw(OSError(errno.EIO, "killed here")),
        )
        await program.deliver()
    assert 1 in program.on_disk()
    program.die()
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.stored) == (SessionState.COMPLETE, 30)


async def test_a_spool_that_lost_a_part(database, root, program):
    """faults 0.1: lines that vanish from the spool of a dead program undelivered are missing, where
    the last number is known.
    """
    program.log(104)
    await program.store.begin_session(program.recorder.session)
    await program.store.heartbeat(program.number, 104)
    (path, *_) = sorted(program.recorder.spool.directory.glob("events-*"))
    program.die()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[5:]))
    last = max(path.parent.glob("events-*"))
    kept = last.read_bytes().splitlines(keepends=True)
    last.write_bytes(b"".join(kept[:1]))
    found = (await adopted(database, root))[program.number]
    assert found.status is SessionState.INCOMPLETE
    assert found.holes == ((3, 5), (104 - len(kept) + 2, 104))
    assert found.fewer == 0


async def test_a_spool_without_its_tally_explains_nothing(database, root, program):
    """faults 0.1: where it is not known how many numbers threads can have had in their hands, a
    hole stays a hole.
    """
    program.log(5)
    next(program.recorder.numbers.counter)
    program.log(1)
    (program.recorder.spool.directory / "tally").unlink()
    program.die()
    assert (await adopted(database, root))[program.number].holes == ((6, 6),)


async def test_what_a_full_disk_refused_is_missing_after_kill_9(
    database, root, program, monkeypatch
):
    """faults 0.1: database and spool on one full disk, then kill -9: the events that waited in
    memory are known to be lost, each of them, though no line and no row has their numbers.
    """
    program.log(7)

    def full(line, number):
        raise OSError(errno.ENOSPC, "No space left on device")

    program.recorder._append = full
    program.log(500)
    program.die()
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.holes, found.stored) == (SessionState.INCOMPLETE, ((8, 507),), 7)


async def test_what_a_full_disk_refused_and_the_database_took_is_complete(database, root, program):
    """faults 0.1: what waited in memory while the disk was full, and was stored before the process
    died, is not called lost.
    """
    program.log(7)
    append = program.recorder._append

    def full(line, number):
        raise OSError(errno.ENOSPC, "No space left on device")

    program.recorder._append = full
    program.log(50)
    program.recorder._append = append
    program.log(3)
    assert program.recorder.spool.tally.at_risk == 57
    program.recorder.secure()
    assert program.recorder.spool.tally.at_risk == 57  # they still wait
    await program.deliver()
    program.recorder.secure()
    assert program.recorder.spool.tally.at_risk == 0
    program.die()
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.stored, found.holes) == (SessionState.COMPLETE, 60, ())


async def test_drops_that_were_not_recorded_before_kill_9_are_missing(database, root, store):
    """faults 0.1: what a full spool dropped is explained once it is recorded; killed before, it is
    missing, and no more than that.
    """
    program = Program(root, store, max_bytes=32_768)
    program.log(100)  # it holds about 60 of them
    first = program.recorder.events.dropped[0].first
    assert 40 < first < 90
    program.recorder.account()
    program.recorder.secure()
    program.log(10)
    program.die()
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.holes) == (SessionState.INCOMPLETE, ((101, 110),))
    assert found.explained == 101 - first


# -- controls: nothing was lost
# --------------------------------------------------------------------------


async def test_numbers_in_the_hands_of_threads_are_in_flight(database, root, program):
    """faults 0.1: each thread that has logged may have had one number in its hands, wherever it
    lies; these are explained.
    """

    def work():
        program.log(10)
        next(program.recorder.numbers.counter)  # killed before it is written

    program.log(1)
    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    program.log(1)
    # A thread's identifier may be given to the next: those that lived at once are what counts.
    program.recorder.spool.tally.hold(3)
    program.die()
    found = (await adopted(database, root))[program.number]
    assert (found.status, found.explained) == (SessionState.COMPLETE, 3)
    rows = await database.fetch(
        sa.select(gaps.c.first_seq, gaps.c.reason).order_by(gaps.c.first_seq)
    )
    assert [tuple(row.values()) for row in rows] == [
        (12, "in_flight"),
        (23, "in_flight"),
        (34, "in_flight"),
    ]


async def test_more_numbers_than_threads_are_not_in_flight(database, root, program):
    """faults 0.1: a single thread had one number in its hands at most."""
    program.log(3)
    next(program.recorder.numbers.counter)
    program.log(3)
    next(program.recorder.numbers.counter)
    program.log(3)
    program.die()
    assert (await adopted(database, root))[program.number].holes == ((4, 4), (8, 8))


def test_every_thread_that_logs_is_counted(root):
    """faults 0.1: threads that live at the same time are counted separately, and the count survives
    the process.
    """
    recorder = Recorder(
        Session(),
        root,
        level=10,
        queue_size=10,
        max_bytes=None,
        overflow="drop_oldest",
        fallbacks=False,
    )
    barrier = threading.Barrier(9)

    def work():
        for _ in range(50):
            recorder.put(LONG, 20)
        barrier.wait()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    recorder.put(LONG, 20)
    for thread in threads:
        thread.join()
    recorder.close()
    recorder.spool.close()
    (spool,) = structjob.spool.directory.adopt(root, set())
    assert spool.tally.hands == 9
    spool.close()


KILLED = """
import asyncio, os, signal, sys, threading, time
import structlog, structjob

log = structlog.get_logger()

def work(stop):
    while not stop.is_set():
        log.info("x" * 200)

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1]) as tracker:
        threads = [threading.Thread(target=work, args=(threading.Event(),), daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        log.info("from the loop")
        time.sleep(float(sys.argv[2]))  # nobody else gets the loop
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", ["0.05", pytest.param("0.3", marks=pytest.mark.slow)])
def test_kill_9_while_threads_log_is_no_loss(live, seconds):
    """faults 0.1: what threads had in their hands when the process was killed is explained, one
    number each, and nothing is missing.
    """
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        live.python(KILLED, "sqlite:///structjob.db", seconds)
    verified = live.json("verify")
    assert verified["ok"], verified
    (session,) = [one for one in verified["sessions"] if one["service"] != "structjob-cli"]
    assert session["status"] == "complete"
    assert session["stored"] > 8
    assert session["explained"] <= 9


async def test_a_forked_child_whose_disk_has_room_again_has_nothing_at_risk(
    database, root, program, monkeypatch
):
    """faults 0.1: what a full disk refused a forked child is written with its next event, and the
    child can die then without a loss.
    """
    recorder = program.recorder
    program.log(1)
    recorder.after_fork()
    program.log(1)
    with monkeypatch.context() as patch:
        patch.setattr(
            recorder.events,
            "append",
            lambda *args: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
        )
        program.log(3)
    tally = recorder.spool.tally
    assert (tally.at_risk, tally.hands) == (4, 1)
    program.log(1)
    assert tally.at_risk == 0
    recorder.close()
    found = (await adopted(database, root))[recorder.session.session_id]
    assert (found.status, found.stored, found.explained) == (SessionState.COMPLETE, 5, 0)


# -- a program that goes on
# --------------------------------------------------------------------------


@pytest.fixture
async def tracker(database, root, monkeypatch):
    monkeypatch.setattr("structjob.spool.disk.DELETE_AFTER", 0.0)
    structjob.configure(console=False, strict=False)
    async with structjob.Tracker(database.url, spool=root, heartbeat_interval=3600) as given:
        yield given


async def one(fetch, session_id):
    (found,) = [
        session for session in (await verify(fetch)).sessions if session.session_id == session_id
    ]
    return found


async def test_rows_that_were_deleted_under_a_live_program_are_missing(database, tracker):
    """faults 0.1: at the next heartbeat, with the program running, and still when its tracker has
    closed in good order.
    """
    for n in range(50):
        log.info("line", n=n)
    await tracker.flush()
    maintenance: Maintenance = tracker._engine._maintenance
    await maintenance._beat()
    session_id = tracker.session_id
    before = await one(tracker._host.fetch, session_id)
    assert (before.status, before.fewer, before.missing, before.stored) == (
        SessionState.LIVE,
        0,
        0,
        50,
    )
    await remove(
        database,
        logs.c.session_id == session_id,
        sa.or_(logs.c.seq.between(11, 20), logs.c.seq > 45),
    )
    while_live = await one(tracker._host.fetch, session_id)
    assert (while_live.status, while_live.missing, while_live.stored) == (
        SessionState.INCOMPLETE,
        15,
        35,
    )
    assert not (await verify(tracker._host.fetch)).ok
    log.info("it goes on")
    await tracker.aclose()
    async with opened(database) as store:
        after = await one(store.fetch, session_id)
        assert not (await verify(store.fetch)).ok
    assert (after.status, after.holes, after.fewer) == (
        SessionState.INCOMPLETE,
        ((11, 20), (46, 50)),
        15,
    )
    (row,) = await database.fetch(
        sa.select(sessions.c.end_reason, sessions.c.confirmed).where(
            sessions.c.session_id == session_id
        )
    )
    assert tuple(row.values()) == (CLOSED, 51)
    assert tracker.ledger().accepted == tracker.ledger().stored


async def test_an_older_copy_under_a_live_program(database, tracker):
    """faults 0.1: the database of a running program is replaced by an older copy, its session's row
    with it.
    """
    for n in range(30):
        log.info("before the backup", n=n)
    await tracker.flush()
    for n in range(40):
        log.info("after it", n=n)
    await tracker.flush()
    session_id = tracker.session_id
    await remove(database, logs.c.session_id == session_id, logs.c.seq > 30)
    async with database.engine.begin() as connection:
        await connection.execute(sa.update(sessions).values(last_seq=30, confirmed=0))
    await tracker._engine._maintenance._beat()
    found = await one(tracker._host.fetch, session_id)
    assert (found.status, found.missing) == (SessionState.INCOMPLETE, 40)
    log.info("it goes on")
    await tracker.aclose()
    async with opened(database) as store:
        found = await one(store.fetch, session_id)
    assert (found.status, found.holes, found.stored) == (SessionState.INCOMPLETE, ((31, 70),), 31)


async def test_a_number_that_the_recorder_did_not_note_stays_a_hole(database, tracker):
    """faults 0.1: at the orderly end only what is known to have been interrupted is explained so;
    another absent number is missing.
    """
    log.info("before")
    next(tracker._recorder.numbers.counter)
    log.info("after")
    await tracker.aclose()
    async with opened(database) as store:
        assert (await one(store.fetch, tracker.session_id)).holes == ((2, 2),)
    ledger = tracker.ledger()
    assert (ledger.accepted, ledger.stored, ledger.dropped) == (3, 2, {"missing": 1})


# -- several sessions, several portions
# --------------------------------------------------------------------------


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(holes, "PORTION", 3)
    monkeypatch.setattr(holes, "ANSWER", 2)
    monkeypatch.setattr("structjob.store.sessions.EXPLAINED_AT_ONCE", 2)
    monkeypatch.setattr(verification, "_SESSIONS_AT_ONCE", 1)


async def enter(database, session_id, last_seq=0, *, seqs=(), given_up=(), **values):
    now = datetime.now(UTC)
    session = {
        "session_id": session_id,
        "host": "h",
        "pid": 1,
        "started_at": now,
        "heartbeat_at": now,
        "last_seq": last_seq,
    } | values
    event = {"session_id": session_id, "ts": now, "level": "info", "message": "m", "type": "system"}
    async with database.engine.begin() as connection:
        await connection.execute(sessions.insert(), [session])
        if seqs:
            await connection.execute(*inserted(connection, *(event | {"seq": seq} for seq in seqs)))
        for first, last, reason in given_up:
            await connection.execute(
                gaps.insert(),
                [
                    {
                        "session_id": session_id,
                        "first_seq": first,
                        "last_seq": last,
                        "reason": reason,
                    }
                ],
            )


ENDED = {"ended_at": datetime(2026, 1, 1, tzinfo=UTC), "end_reason": CLOSED}


async def test_the_gaps_of_another_session_explain_nothing(database, store, small_portions):
    """faults 0.1: three sessions with the same holes; only the one whose own gaps explain them is
    complete.
    """
    seqs = [1, 2, 5, 6, 7, 11, 12, 13]
    explained = [(3, 4, "dropped"), (8, 9, "dropped"), (10, 10, "dropped"), (14, 15, "dropped")]
    await enter(database, 1, 15, seqs=seqs, **ENDED)
    await enter(database, 2, 15, seqs=seqs, given_up=explained, **ENDED)
    await enter(database, 3, 15, seqs=seqs, given_up=explained[1:3], **ENDED)
    found = {session.session_id: session for session in (await verify(store.fetch)).sessions}
    assert {number: session.status.value for number, session in found.items()} == {
        1: "incomplete",
        2: "complete",
        3: "incomplete",
    }
    assert found[1].holes == ((3, 4), (8, 10), (14, 15))
    assert found[3].holes == ((3, 4), (14, 15))
    assert [(session.stored, session.explained) for session in found.values()] == [
        (8, 0),
        (8, 7),
        (8, 3),
    ]


async def test_ending_a_session_asks_for_its_own_rows_only(database, store, small_portions):
    """faults 0.1: counts, numbers and gaps of other sessions are not taken for its own when one
    ends.
    """
    await enter(database, 1, 9, seqs=range(1, 21), given_up=[(21, 30, "dropped")])
    await enter(database, 2, 9, seqs=(2, 3, 7), given_up=[(5, 5, "dropped")])
    await enter(database, 3, 9, seqs=range(1, 10), given_up=[(50, 60, "pruned")])
    session = Session(2)
    short = Ending(reason=DIED, confirmed=4, absent="in_flight", most=9)
    ended = await store.end_session(session, short)
    assert (ended.explained, ended.missing, ended.fewer) == (0, 5, 1)
    many = Ending(reason=DIED, confirmed=0, absent="in_flight", most=4)
    ended = await store.end_session(session, many)
    # what was confirmed once is not forgotten
    assert (ended.explained, ended.missing, ended.fewer) == (0, 5, 1)
    (row,) = await database.fetch(
        sa.select(sessions.c.last_seq, sessions.c.confirmed).where(sessions.c.session_id == 2)
    )
    assert tuple(row.values()) == (9, 4)


async def test_an_end_explains_exactly_the_holes_that_it_may(database, store, small_portions):
    """faults 0.1: in several portions, over several pages; a number more than can be in flight, and
    none is explained.
    """
    seqs = [1, 2, 4, 5, 6, 8, 9, 10, 11, 13, 14, 20]
    for number in (1, 2, 3):
        await enter(
            database, number, 22, seqs=seqs, given_up=[(15, 16, "dropped"), (18, 18, "spool_full")]
        )
    absent = {3, 7, 12, 17, 19, 21, 22}
    ending = Ending(reason=DIED, confirmed=12, absent="in_flight", most=7)
    assert (await store.end_session(Session(1), ending)).explained == 7
    rows = await database.fetch(sa.select(gaps).where(gaps.c.reason == "in_flight"))
    assert {row["session_id"] for row in rows} == {1}
    assert numbers((row["first_seq"], row["last_seq"]) for row in rows) == absent
    ending = Ending(reason=DIED, confirmed=12, absent="in_flight", most=6)
    assert (await store.end_session(Session(2), ending)).missing == 7
    found = {session.session_id: session for session in (await verify(store.fetch)).sessions}
    assert (found[1].status, found[1].explained) == (SessionState.COMPLETE, 10)
    assert (found[2].status, numbers(found[2].holes)) == (SessionState.INCOMPLETE, absent)
    assert found[3].status is SessionState.LIVE


async def test_what_was_pruned_or_put_among_the_dead_letters_was_confirmed(database, store):
    """faults 0.1: rows that retention deleted, and events that the database refused, are no sign of
    an older copy.
    """
    await enter(
        database,
        1,
        10,
        seqs=range(5, 10),
        given_up=[(1, 4, "pruned"), (10, 10, "dead_lettered")],
        confirmed=10,
        **ENDED,
    )
    await enter(
        database,
        2,
        10,
        seqs=range(5, 10),
        given_up=[(1, 4, "spool_full"), (10, 10, "dead_lettered")],
        confirmed=7,
        **ENDED,
    )
    await enter(
        database,
        3,
        10,
        seqs=range(6, 10),
        given_up=[(1, 4, "pruned"), (10, 10, "dead_lettered")],
        confirmed=10,
        **ENDED,
    )
    found = [
        (session.status.value, session.fewer, session.holes)
        for session in (await verify(store.fetch)).sessions
    ]
    assert found == [("complete", 0, ()), ("complete", 0, ()), ("incomplete", 1, ((5, 5),))]


async def test_a_heartbeat_raises_what_is_known_and_never_lowers_it(database, store):
    """faults 0.1: the last number and what was confirmed reach the database with the heartbeat
    alone, and of this session only.
    """
    for number in (1, 2):
        await enter(database, number)
    for last, confirmed in ((7, 5), (6, 6), (5, 4)):
        await store.heartbeat(1, last, confirmed)
    rows = await database.fetch(
        sa.select(sessions.c.last_seq, sessions.c.confirmed).order_by(sessions.c.session_id)
    )
    assert [tuple(row.values()) for row in rows] == [(7, 6), (0, 0)]


async def test_a_session_with_a_gap_and_tens_of_thousands_of_events_ends(database, store):
    """faults 0.2: the query for holes took quadratic time on MariaDB: such a session could not be
    ended before the time of a transaction was over, at every attempt, and every later process
    waited behind it.
    """
    await enter(database, 1, seqs=[1])
    derived = "type" if database.kind == "sqlite" else ""
    columns = [column for column in logs.columns if column.name not in ("id", derived)]
    async with database.engine.begin() as connection:
        for doubled in range(15):
            shifted = [
                column + 2**doubled if column is logs.c.seq else column for column in columns
            ]
            await connection.execute(logs.insert().from_select(columns, sa.select(*shifted)))
        await connection.execute(sa.delete(logs).where(logs.c.seq % 5_000 == 77))
    ending = Ending(reason=DIED, last_seq=32_768, confirmed=32_761, absent="in_flight", most=7)
    ended = await store.end_session(Session(1), ending)
    assert (ended.explained, ended.missing) == (7, 0)
    assert (await one(store.fetch, 1)).status is SessionState.COMPLETE


# -- as a user sees it
# --------------------------------------------------------------------------

RESTORED = """
import asyncio, os, signal, sqlite3, sys
import structlog, structjob
import structjob.spool.disk

structjob.spool.disk.DELETE_AFTER = 0.0  # what is stored is deleted at once, as it is after two seconds otherwise
log = structlog.get_logger()

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker("sqlite:///structjob.db", spool_max_bytes=400_000) as tracker:
        for n in range(40):
            log.info("x" * 1000, n=n)
        await tracker.flush()
        with sqlite3.connect("structjob.db") as live, sqlite3.connect("backup.db") as backup:
            live.backup(backup)
        for _ in range(30):
            for n in range(20):
                log.info("x" * 1000, n=n)
            await tracker.flush()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_a_backup_that_was_restored_is_not_called_complete(live):
    """faults 0.1: the SQLite file of a dead program is replaced by its backup: verify exits with 1,
    counts the lost lines, and says what it looks like.
    """
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        live.python(RESTORED)
    for path in live.directory.glob("structjob.db*"):
        if path.is_file():
            path.unlink()
    (live.directory / "backup.db").rename(live.directory / "structjob.db")
    done = live.run("verify")
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 1
    assert "✗ incomplete" in said
    assert (
        "events fewer than it had confirmed: it looks restored from a backup or failed over to an older copy"
        in said
    )
    verified = json.loads(live.run("verify", "--json").stdout)
    session = next(one for one in verified["sessions"] if one["service"] != "structjob-cli")
    assert (verified["ok"], session["last_seq"]) == (False, 640)
    assert verified["missing"] == session["missing"] == session["fewer"] == 640 - session["stored"]
    assert session["stored"] >= 40
    assert session["missing"] > 400


FULL = """
import asyncio, os, resource, signal
import structlog, structjob

log = structlog.get_logger()

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker("sqlite:///structjob.db") as tracker:
        log.info("before")
        await tracker.flush()
        room = os.path.getsize("structjob.db") + 100_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))  # no file becomes longer: neither the spool nor the database
        for n in range(3_000):
            log.info("x" * 1000, n=n)
            if n % 100 == 0:
                await asyncio.sleep(0)
        print(tracker.ledger().accepted, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_full_disk_and_kill_9_is_not_called_complete(live):
    """faults 0.1: database and spool on one full disk, then kill -9: all that neither of them took
    is counted as missing.
    """
    program = live.start_python(FULL)
    accepted = int(program.stdout.readline())
    assert program.wait() == -9
    verified = json.loads(live.run("verify", "--json").stdout)
    session = next(one for one in verified["sessions"] if one["service"] != "structjob-cli")
    assert (verified["ok"], session["status"], session["last_seq"], accepted) == (
        False,
        "incomplete",
        3_001,
        3_001,
    )
    assert session["stored"] + session["missing"] == 3_001
    assert session["missing"] > 1_000
    assert live.run("verify").returncode == 1
