"""`structjob verify`: completeness is proved from the numbers, not promised."""

import os
import socket
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from database_support import inserted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structjob.machine.host import boot_id
from structjob.queries import verify as verifying
from structjob.queries.verify import SessionState, verify
from structjob.store import holes
from structjob.store.sessions import PRESUMED
from structjob.store.tables import attempts, gaps, jobs, logs, sessions, steps

NOW = datetime.now(UTC)


class Store:
    """A database to put sessions, numbers and gaps into."""

    def __init__(self, database):
        self.engine, self.fetch, self.kind = database.engine, database.fetch, database.kind

    async def add(self, table, *rows):
        async with self.engine.begin() as connection:
            if rows:
                if table is logs:
                    await connection.execute(*inserted(connection, *rows))
                else:
                    await connection.execute(table.insert(), list(rows))

    async def session(self, id_, last_seq=0, *, seqs=(), given_up=(), **values):
        now = datetime.now(UTC)  # a slow suite must not make a fresh heartbeat stale
        row = {
            "session_id": id_,
            "host": "h",
            "pid": 1,
            "started_at": now,
            "heartbeat_at": now,
            "ended_at": now,
            "end_reason": "closed",
        }
        await self.add(sessions, row | {"last_seq": last_seq} | values)
        await self.events(id_, *seqs)
        await self.add(
            gaps,
            *(
                {"session_id": id_, "first_seq": a, "last_seq": b, "reason": "dropped"}
                for a, b in given_up
            ),
        )

    async def events(self, id_, *seqs, **values):
        row = {
            "session_id": id_,
            "ts": NOW,
            "level": "info",
            "message": "m",
            "type": "system",
        } | values
        await self.add(logs, *(row | {"seq": seq} for seq in seqs))

    async def one(self):
        (session,) = (await verify(self.fetch)).sessions
        return session


@pytest.fixture
def store(database):
    return Store(database)


async def test_an_empty_database_is_complete(store):
    """Nothing was given out, nothing is missing."""
    result = await verify(store.fetch)
    assert (result.sessions, result.ok, result.missing) == ((), True, 0)


async def test_a_session_with_every_number_is_complete(store):
    """An ended session whose numbers are all stored is complete; one that logged nothing
    is, too.
    """
    await store.session(1, 5, seqs=(1, 2, 3, 4, 5))
    await store.session(2, 0)
    result = await verify(store.fetch)
    assert [(s.session_id, s.status, s.stored, s.explained, s.holes) for s in result.sessions] == [
        (1, SessionState.COMPLETE, 5, 0, ()),
        (2, SessionState.COMPLETE, 0, 0, ()),
    ]
    assert result.ok


async def test_lost_numbers_are_named(store):
    """Numbers that are neither stored nor explained are events that were lost: at the start,
    within, and at the end (R28).
    """
    await store.session(1, 12, seqs=(3, 4, 7, 9, 10))
    session = await store.one()
    assert session.status is SessionState.INCOMPLETE
    assert session.holes == ((1, 2), (5, 6), (8, 8), (11, 12))
    assert (session.stored, session.explained, session.missing, session.last_seq) == (5, 0, 7, 12)
    result = await verify(store.fetch)
    assert (result.missing, result.ok) == (7, False)


async def test_what_was_given_up_on_purpose_is_no_loss(store):
    """Dropped, dead-lettered and pruned numbers stand in structjob_gaps, by one row or by several,
    and count as explained (R28, R41).
    """
    await store.session(
        1, 12, seqs=(3, 4, 7, 9, 10), given_up=((1, 1), (2, 2), (5, 6), (8, 8), (11, 11), (12, 12))
    )
    session = await store.one()
    assert (session.status, session.stored, session.explained, session.holes) == (
        SessionState.COMPLETE,
        5,
        7,
        (),
    )


async def test_a_half_explained_hole_keeps_its_other_half(store):
    """Only the part of a hole that a gap covers is explained; gaps may overlap one another and what
    is stored.
    """
    await store.session(1, 20, seqs=(1, 20), given_up=((4, 6), (5, 9), (12, 12), (19, 25)))
    session = await store.one()
    assert session.holes == ((2, 3), (10, 11), (13, 18))
    assert (session.last_seq, session.stored, session.explained) == (25, 2, 13)


async def test_everything_given_up_is_explained(store):
    """A session of which nothing is stored, all pruned, is complete (R41)."""
    await store.session(1, 100, given_up=((1, 100),))
    session = await store.one()
    assert (session.status, session.stored, session.explained) == (SessionState.COMPLETE, 0, 100)


async def test_a_live_session_is_not_accused(store):
    """While a process runs, numbers beyond those stored are under way; a hole below them is shown
    but not counted as lost.
    """
    await store.session(1, 9, seqs=(1, 2, 4), ended_at=None, end_reason=None)
    result = await verify(store.fetch)
    (session,) = result.sessions
    assert (session.status, session.holes, session.last_seq, session.explained) == (
        SessionState.LIVE,
        ((3, 3),),
        9,
        0,
    )
    assert (result.ok, result.missing) == (True, 0)


@pytest.mark.parametrize(
    "values",
    [
        {"heartbeat_at": NOW - timedelta(hours=1)},
        {"heartbeat_at": None, "started_at": NOW - timedelta(hours=1)},
    ],
)
async def test_a_vanished_process_leaves_an_unknown_tail(store, values, monkeypatch):
    """Without an end and without a heartbeat the last number is unknown, so the session is never
    called complete (R11).
    """
    await store.session(1, 3, seqs=(1, 2, 3), ended_at=None, end_reason=None, **values)
    assert (await store.one()).status is SessionState.UNKNOWN_TAIL
    assert not (await verify(store.fetch)).ok
    monkeypatch.setattr(verifying, "STALE_AFTER", timedelta(days=1))
    assert (await verify(store.fetch)).ok


@pytest.mark.parametrize("reason", PRESUMED)
async def test_a_spool_that_nobody_saw_leaves_an_unknown_tail(store, reason):
    """A session that was ended for a dead process whose spool was not seen is not called complete
    either (R11).
    """
    await store.session(1, 3, seqs=(1, 2, 3), end_reason=reason)
    assert (await store.one()).status is SessionState.UNKNOWN_TAIL


async def test_a_known_hole_weighs_more_than_an_unknown_tail(store):
    """If something is known to be lost, that is what is reported."""
    await store.session(1, 3, seqs=(1, 3), ended_at=None, heartbeat_at=NOW - timedelta(hours=1))
    assert (await store.one()).status is SessionState.INCOMPLETE


async def test_events_of_a_session_that_nobody_knows(store):
    """Events whose session's row is absent are checked as far as they go, and their tail is
    unknown.
    """
    await store.events(5, 1, 2, 4)
    session = await store.one()
    assert (session.session_id, session.status, session.holes) == (
        5,
        SessionState.INCOMPLETE,
        ((3, 3),),
    )
    await store.events(5, 3)
    assert (await store.one()).status is SessionState.UNKNOWN_TAIL
    await store.add(gaps, {"session_id": 6, "first_seq": 2, "last_seq": 3, "reason": "dropped"})
    _, other = (await verify(store.fetch)).sessions
    assert (other.session_id, other.holes, other.fewer, other.explained) == (6, ((1, 1),), 0, 2)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_duplicates_are_counted(store):
    """If the unique index is gone and a number is there twice, that is said, and the count of
    events is not inflated.
    """
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE structjob_logs RENAME TO kept")
        await connection.exec_driver_sql("CREATE TABLE structjob_logs AS SELECT * FROM kept")
    await store.session(1, 3, seqs=(1, 2, 2, 2, 3), given_up=((3, 3),))
    session = await store.one()
    assert (session.duplicates, session.stored, session.explained, session.status) == (
        2,
        3,
        0,
        SessionState.COMPLETE,
    )
    assert not (await verify(store.fetch)).ok


async def test_what_retention_removes_meanwhile_was_not_lost(store):
    """A session whose events were pruned, and which goes itself between two queries, is not told of
    as incomplete (R41).
    """
    await store.session(1, 5)
    await store.add(gaps, {"session_id": 1, "first_seq": 1, "last_seq": 5, "reason": "pruned"})
    await store.session(2, 3, seqs=(1,))
    asked = 0

    async def fetch(statement):
        nonlocal asked
        asked += 1
        if asked == 2:  # the sessions were read
            async with store.engine.begin() as connection:
                for table in (gaps, sessions):
                    await connection.execute(table.delete().where(table.c.session_id == 1))
        return await store.fetch(statement)

    result = await verify(fetch)
    assert [(found.session_id, found.status, found.holes) for found in result.sessions] == [
        (2, SessionState.INCOMPLETE, ((2, 3),))
    ]


async def test_rows_without_their_job_are_counted(store):
    """Attempts, steps and events whose job has no row are counted, and their jobs named."""
    await store.add(jobs, {"id": "j", "operation": "o", "status": "running", "created_at": NOW})
    for job in ("j", "gone-1"):
        await store.add(attempts, {"job_id": job, "attempt": 1, "status": "running"})
        await store.add(
            steps,
            {
                "id": f"s-{job}",
                "job_id": job,
                "attempt": 1,
                "seq": 1,
                "name": "s",
                "status": "running",
            },
        )
    await store.session(1, 4)
    await store.events(1, 1, 2, job_id="gone-2")
    await store.events(1, 3, job_id="j")
    await store.events(1, 4)
    result = await verify(store.fetch)
    orphans = result.orphans
    assert (orphans.attempts, orphans.steps, orphans.logs, orphans.job_ids) == (
        1,
        1,
        2,
        ("gone-1", "gone-2"),
    )
    assert not result.ok


async def test_jobs_left_running_by_ended_sessions_are_named(store):
    """A job is not `running` when the process that ran it has ended (R11)."""
    await store.session(1)
    await store.session(2, ended_at=None)
    job = {"operation": "o", "created_at": NOW}
    await store.add(
        jobs,
        job | {"id": "left", "status": "running", "session_id": 1},
        job | {"id": "done", "status": "completed", "session_id": 1},
        job | {"id": "alive", "status": "running", "session_id": 2},
    )
    result = await verify(store.fetch)
    assert (result.running, result.running_job_ids, result.ok) == (1, ("left",), False)


async def test_a_database_that_holds_fewer_than_it_confirmed(store):
    """faults H: a live session, too, has lost what was confirmed and is gone; what was pruned or
    dead-lettered is not gone, and where no number is absent nothing can have been lost.
    """
    live = {"ended_at": None, "end_reason": None}
    await store.session(1, 6, seqs=(1, 2, 3), confirmed=5)
    await store.session(2, 6, seqs=(1, 2, 3), confirmed=5, **live)
    await store.session(3, 6, seqs=(1, 2, 3), confirmed=3, **live)
    await store.session(4, 6, seqs=(1, 2, 3), confirmed=6)
    for first, reason in ((4, "pruned"), (5, "dead_lettered"), (6, "pruned")):
        await store.add(
            gaps, {"session_id": 4, "first_seq": first, "last_seq": first, "reason": reason}
        )
    await store.session(5, 6, seqs=(1, 2, 3), given_up=((4, 5),), confirmed=6)
    await store.session(6, 3, seqs=(1, 2, 3), confirmed=9)
    await store.session(7, 6, seqs=(1, 2, 5), confirmed=3, **live)
    await store.session(8, 7, seqs=(1, 2, 3), confirmed=5, **live)
    await store.add(gaps, {"session_id": 8, "first_seq": 4, "last_seq": 4, "reason": "pruned"})
    found = {one.session_id: one for one in (await verify(store.fetch)).sessions}
    assert {number: (one.status, one.fewer, one.missing) for number, one in found.items()} == {
        1: (SessionState.INCOMPLETE, 2, 3),
        2: (SessionState.INCOMPLETE, 2, 2),
        3: (SessionState.LIVE, 0, 0),
        4: (SessionState.COMPLETE, 0, 0),
        5: (SessionState.INCOMPLETE, 1, 1),
        6: (SessionState.COMPLETE, 0, 0),
        7: (SessionState.LIVE, 0, 2),
        8: (SessionState.INCOMPLETE, 1, 1),
    }
    assert [number for number, one in found.items() if one.live] == [2, 3, 7, 8]
    assert [found[number].pruned for number in found] == [0, 0, 0, 2, 0, 0, 0, 1]
    assert found[2].holes == ()  # which ones they were cannot be told from those under way


async def test_many_sessions_that_lost_events(store, monkeypatch):
    """faults H: each of them is there once, in order, however many are looked at a second time."""
    monkeypatch.setattr(verifying, "_SESSIONS_AT_ONCE", 2)
    for number in range(1, 6):
        await store.session(number, 3, seqs=(1, 3))
    result = await verify(store.fetch)
    assert [(one.session_id, one.holes) for one in result.sessions] == [
        (number, ((2, 2),)) for number in range(1, 6)
    ]
    assert result.missing == 5


async def test_no_more_ids_than_anybody_reads(store):
    """faults H: of many inconsistent jobs the first twenty are named, and all are counted."""
    await store.session(1)
    names = [f"job-{number:02}" for number in range(25)]
    await store.add(
        jobs,
        *(
            {"id": name, "operation": "o", "created_at": NOW, "status": "running", "session_id": 1}
            for name in names
        ),
    )
    await store.add(
        attempts, *({"job_id": f"gone-{name}", "attempt": 1, "status": "running"} for name in names)
    )
    await store.events(1, *range(1, 26), job_id="gone-job-00")
    result = await verify(store.fetch)
    assert (result.running, result.running_job_ids) == (25, tuple(names[:20]))
    orphans = result.orphans
    assert (orphans.attempts, orphans.steps, orphans.logs) == (25, 0, 25)
    assert orphans.job_ids == tuple(f"gone-{name}" for name in names[:20])


@pytest.mark.parametrize(
    "what",
    [
        {"steps": 1},
        {"logs": 1},
        {"attempts": 1},
        {"running": 1},
        {"duplicates": 1},
        {"status": SessionState.UNKNOWN_TAIL},
    ],
)
def test_each_inconsistency_alone_is_told(what):
    """faults H: one kind of inconsistency is enough for `ok` to be false."""

    def of(**given):
        one = {
            "session_id": 1,
            "status": SessionState.COMPLETE,
            "last_seq": 1,
            "stored": 1,
            "explained": 0,
            "holes": (),
            "duplicates": 0,
        }
        lonely = verifying.Orphans(
            **{"attempts": 0, "steps": 0, "logs": 0}
            | {k: n for k, n in given.items() if k in orphans},
            job_ids=(),
        )
        one = verifying.SessionVerification(
            **one | {name: value for name, value in given.items() if name in one}
        )
        return verifying.VerifyResult(
            sessions=(one,), orphans=lonely, running=given.get("running", 0), running_job_ids=()
        )

    orphans = ("attempts", "steps", "logs")
    assert of().ok
    (session,) = of().sessions
    assert (session.pruned, session.fewer, session.live) == (0, 0, False)
    assert not of(**what).ok


@pytest.mark.parametrize(
    ("explained", "hole"), [((3, 4), (2, 2)), ((2, 3), (4, 4)), ((2, 2), (3, 4)), ((4, 4), (2, 3))]
)
async def test_a_hole_beside_an_explanation_is_found(store, explained, hole):
    """An explanation that begins later, or ends sooner, explains only what it covers (R28)."""
    await store.session(1, 5, seqs=(1, 5), given_up=[explained])
    (session,) = (await verify(store.fetch)).sessions
    assert session.holes == (hole,)


async def test_holes_of_which_one_answer_does_not_tell_all(store, monkeypatch):
    """However many there are, each is found (R28)."""
    monkeypatch.setattr(holes, "ANSWER", 2)
    await store.session(1, 10, seqs=range(2, 11, 2))
    (session,) = (await verify(store.fetch)).sessions
    assert session.holes == tuple((number, number) for number in range(1, 10, 2))


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    stored=st.sets(st.integers(1, 30)),
    given_up=st.dictionaries(st.integers(1, 30), st.integers(0, 8), max_size=6),
    last=st.integers(0, 30),
)
async def test_the_books_always_balance(store, monkeypatch, stored, given_up, last):
    """Every number up to the last is stored, explained or missing, exactly one of the three,
    whatever the pattern (R28); and whatever portions it is read in (faults 0.2). Another session
    with other numbers changes nothing.
    """
    monkeypatch.setattr(holes, "PORTION", 3)
    monkeypatch.setattr(holes, "ANSWER", 2)
    monkeypatch.setattr(holes, "_MANY", 2)
    async with store.engine.begin() as connection:
        for table in (logs, gaps, sessions):
            await connection.execute(sa.delete(table))
    ranges = [(first, first + length) for first, length in given_up.items()]
    await store.session(1, last, seqs=sorted(stored), given_up=ranges)
    await store.session(2, 40, seqs=range(2, 41, 2), given_up=[(n, n) for n in range(1, 41, 4)])
    session, other = (await verify(store.fetch)).sessions
    assert other.holes == tuple((n, n) for n in range(3, 41, 4))
    covered = {n for first, final in ranges for n in range(first, final + 1)}
    end = max([last, *stored, *covered])
    lost = set(range(1, end + 1)) - stored - covered
    assert {n for first, final in session.holes for n in range(first, final + 1)} == lost
    assert session.holes == tuple(sorted(session.holes))
    assert (session.last_seq, session.stored, session.explained) == (
        end,
        len(stored),
        len(covered - stored),
    )
    assert session.last_seq == session.stored + session.explained + session.missing
    assert (session.status is SessionState.COMPLETE) == (not lost)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.slow
async def test_half_a_million_events_are_verified_in_seconds(store):
    """A large log is checked by its indexes, with losses and thousands of explained gaps in
    it.
    """
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) "
            "INSERT INTO structjob_logs (session_id, seq, ts, level, message, job_id) "
            "SELECT i % 4, i / 4 + 1, '2026-01-01 00:00:00.000000', 'info', 'm', 'j' || (i % 50) FROM n WHERE i % 40 > 3"
        )
        await connection.exec_driver_sql(
            "INSERT INTO structjob_gaps (session_id, first_seq, last_seq, reason) "
            "SELECT session_id, seq + 1, seq + 1, 'pruned' FROM structjob_logs WHERE seq % 10 = 0 AND seq < 100000"
        )
    result = await verify(store.fetch)
    assert sum(session.stored for session in result.sessions) == 450_000
    assert all(session.explained == 9_999 for session in result.sessions)
    assert result.missing > 0


@pytest.mark.parametrize(
    ("exists", "status"), [(True, SessionState.LIVE), (False, SessionState.UNKNOWN_TAIL)]
)
@pytest.mark.parametrize("age", [0, 3600])
async def test_on_its_own_host_the_process_decides_and_not_the_heartbeat(
    store, exists, status, age
):
    """faults 0.1: a process that does not exist on this host is not live, however fresh its
    heartbeat; one that exists is.
    """
    seen = datetime.now(UTC) - timedelta(seconds=age)
    here = {
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "pid": os.getpid() if exists else 2**22 + 1,
    }
    await store.session(
        1, 3, seqs=(1, 2, 3), heartbeat_at=seen, ended_at=None, end_reason=None, **here
    )
    assert (await store.one()).status is status
