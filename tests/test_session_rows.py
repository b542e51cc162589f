"""What the end of a session does to its rows, and to no other session's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec
import pytest
from database_support import create_tables
from sqlalchemy import create_engine, select

from structjob.spool.session import Session
from structjob.store.contract import NO_NOTICES, Ended, Ending, Ingest, Notices, Store
from structjob.store.sessions import (
    CLOSED,
    DIED,
    LEFT_RUNNING,
    VANISHED,
    beat,
    crash,
    end,
    enter,
    leave,
    left_running,
    reach,
)
from structjob.store.tables import (
    attempts,
    cancellations,
    gaps,
    jobs,
    logs,
    sessions,
    steps,
)

THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER, LAST = THEN + timedelta(minutes=1), THEN + timedelta(minutes=2)
MINE, OTHER = (
    Session(number, "h", None, 7, started_at="2026-01-31 12:00:00.000000") for number in (1, 2)
)


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        create_tables(opened)
        for session in (MINE, OTHER):
            enter(opened, session)
        yield opened
    engine.dispose()


def row_of(connection, number):
    return (
        connection.execute(select(sessions).where(sessions.c.session_id == number)).mappings().one()
    )


def job(connection, id_, session, started=THEN, status="running"):
    row = {
        "status": status,
        "attempt": 1,
        "session_id": session,
        "state_seq": 1,
        "started_at": started,
    }
    connection.execute(
        jobs.insert().values(
            id=id_, root_job_id=id_, operation="o", category="system", created_at=THEN, **row
        )
    )
    connection.execute(attempts.insert().values(job_id=id_, **row))
    for seq, (name, state) in enumerate(
        (("load", "completed"), ("copy", "running"), ("check", "running")), 1
    ):
        one = row | {"status": state if status == "running" else status}
        connection.execute(
            steps.insert().values(id=f"{id_}-{name}", job_id=id_, seq=seq, name=name, **one)
        )
    connection.execute(
        cancellations.insert().values(
            job_id=id_, attempt=1, session_id=session, reason="r", requested_at=THEN, forced=False
        )
    )


def event(connection, session, seq, job_id, ts=THEN, kind="log"):
    row = {
        "session_id": session,
        "seq": seq,
        "ts": ts,
        "level": "info",
        "type": "job",
        "job_id": job_id,
        "kind": kind,
    }
    connection.execute(logs.insert().values(message=f"line {seq}", **row))


def test_a_session_reaches_its_own_numbers_only(connection):
    """faults H: the greatest number and the greatest count ever said stay, and another session's
    are not touched.
    """
    enter(connection, MINE)  # once more
    assert beat(connection, 1, 5, 3)
    assert beat(connection, 1, 4)
    assert not beat(connection, 9, 4)
    reach(connection, 1, 7)
    reach(connection, 1, 6)
    assert [
        (row_of(connection, number)["last_seq"], row_of(connection, number)["confirmed"])
        for number in (1, 2)
    ] == [(7, 3), (0, 0)]
    connection.execute(sessions.update().values(last_seq=0, confirmed=0))
    assert beat(connection, 1, 0)
    assert row_of(connection, 1)["confirmed"] == 0


def test_what_a_dead_session_left_running_has_crashed(connection):
    """faults H: its jobs, with the steps that were open and their own last lines; they ended at its
    last sign of life, or as they began.
    """
    job(connection, "a", 1)
    job(connection, "b", 1, started=LAST)
    job(connection, "done", 1, status="completed")
    job(connection, "other", 2)
    for seq in range(1, 8):
        event(connection, 1, seq, "a", LATER)
    event(connection, 1, 8, "b", LATER)
    event(connection, 1, 9, "a", LATER, kind="step_started")
    event(connection, 2, 50, "a", LAST + timedelta(hours=1))
    later = {"id": "a-later", "job_id": "a", "seq": 9, "name": "later", "status": "running"}
    connection.execute(
        steps.insert().values(**later, attempt=2, session_id=1, state_seq=1, started_at=THEN)
    )
    connection.execute(sessions.update().values(heartbeat_at=THEN))

    async def fetch(statement):
        return connection.execute(statement).mappings().all()

    first, second = asyncio.run(left_running(fetch, 1))
    assert [row["id"] for row in crash(connection, cast(Ingest, None), MINE, NO_NOTICES)] == [
        "a",
        "b",
    ]
    assert (first.job["id"], first.steps, first.last_lines) == (
        "a",
        ("copy", "check"),
        tuple(f"line {seq}" for seq in range(3, 8)),
    )
    assert (second.job["id"], second.last_lines) == ("b", ("line 8",))
    rows = {row["id"]: row for row in connection.execute(select(jobs)).mappings()}
    assert {id_: (row["status"], row["completed_at"]) for id_, row in rows.items()} == {
        "a": ("crashed", LATER), "b": ("crashed", LAST), "done": ("completed", None), "other": ("running", None),
    }  # fmt: skip
    assert {row["cancelled_at"] for row in rows.values()} == {None}
    assert (rows["a"]["error_type"], rows["a"]["error_message"]) == (
        "Crashed",
        "process 7 on h ended without finishing it",
    )
    left = (
        connection.execute(
            select(steps.c.id).where(steps.c.status == "running").order_by(steps.c.id)
        )
        .scalars()
        .all()
    )
    assert left == ["other-check", "other-copy"]
    assert connection.scalars(select(cancellations.c.job_id)).all() == ["other"]
    assert crash(connection, cast(Ingest, None), MINE, NO_NOTICES) == []


def test_what_runs_when_a_session_is_closed_is_cancelled(connection):
    """faults H: in an orderly end nothing crashes, and when it was cancelled is when the session
    lived last.
    """
    job(connection, "a", 1)
    job(connection, "other", 2)
    connection.execute(sessions.update().values(heartbeat_at=LATER))
    (found,) = leave(connection, MINE)
    assert found["id"] == "a"
    rows = {row["id"]: row for row in connection.execute(select(jobs)).mappings()}
    assert [rows["a"][name] for name in ("status", "completed_at", "cancelled_at", "error_message")] == [
        "cancelled", LATER, LATER, LEFT_RUNNING,
    ]  # fmt: skip
    assert rows["other"]["status"] == "running"
    assert connection.execute(
        select(attempts.c.status).order_by(attempts.c.job_id)
    ).scalars().all() == ["cancelled", "running"]


def test_a_stack_of_a_dead_process_is_the_traceback_of_its_jobs(connection):
    """faults H: jobs and attempts have it, of other sessions none; a session that never gave a sign
    of life ended now.
    """
    job(connection, "a", 1)
    job(connection, "other", 2)
    connection.execute(sessions.update().values(heartbeat_at=None))
    crash(connection, cast(Ingest, None), MINE, Notices(OTHER, {}, "SIGSEGV", "in main"))
    rows = {row["id"]: row for row in connection.execute(select(jobs)).mappings()}
    assert {id_: row["error_traceback"] for id_, row in rows.items()} == {
        "a": "in main",
        "other": None,
    }
    assert rows["a"]["error_message"].endswith("ended without finishing it: SIGSEGV")
    assert rows["a"]["completed_at"] > THEN
    assert connection.scalars(
        select(attempts.c.error_traceback).order_by(attempts.c.job_id)
    ).all() == ["in main", None]
    assert set(connection.scalars(select(steps.c.error_traceback))) == {None}


class OnConnection:
    """As much of a store as ends a session, on one connection."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self.ingest = self

    async def fetch(self, statement):
        return self._connection.execute(statement).mappings().all()

    async def transact(self, work):
        return work(self._connection)

    def upsert(self, connection, *, table, rows):
        assert table == gaps.name
        connection.execute(gaps.insert(), msgspec.json.decode(rows))


def end_of(connection, session, **known) -> Ended:
    store = cast(Store, OnConnection(connection))
    return asyncio.run(end(store, session, Ending(absent="in_flight", **known), NO_NOTICES))


@pytest.mark.parametrize("last", [0, 3])
def test_a_session_that_the_database_does_not_know_ends(connection, last):
    """faults H: it has lost nothing that was confirmed, and has as many numbers as it says."""
    ended = end_of(connection, Session(9, "h", None, 7), reason=CLOSED, last_seq=last, most=3)
    assert (ended.explained, ended.missing, ended.fewer) == (last, 0, 0)
    row = row_of(connection, 9)
    assert (row["last_seq"], row["confirmed"], row["end_reason"]) == (last, 0, CLOSED)
    assert {row_of(connection, number)["ended_at"] for number in (1, 2)} == {None}


def test_events_that_were_pruned_were_confirmed_once(connection):
    """faults 0.1: they count for what the database has confirmed, once."""
    for seq in (1, 2):
        event(connection, 1, seq, "a")
    connection.execute(gaps.insert().values(session_id=1, first_seq=3, last_seq=4, reason="pruned"))
    ended = end_of(connection, MINE, reason=DIED, last_seq=5, confirmed=4, most=1)
    assert (ended.explained, ended.missing, ended.fewer) == (1, 0, 0)
    ended = end_of(connection, OTHER, reason=DIED, last_seq=2, most=1)
    assert (ended.explained, ended.missing, ended.fewer) == (0, 2, 0)


def test_what_the_heartbeats_said_is_missing_if_the_spool_does_not_know_it(connection):
    """faults 0.1: a spool that lost its end hides no loss, and none is explained away."""
    for seq in (1, 2):
        event(connection, 1, seq, "a")
    beat(connection, 1, 5, 4)
    ended = end_of(connection, MINE, reason=DIED, last_seq=2, most=9)
    assert (ended.explained, ended.missing, ended.fewer) == (0, 3, 2)
    assert not connection.scalars(select(gaps.c.session_id)).all()
    row = row_of(connection, 1)
    assert (row["last_seq"], row["confirmed"]) == (5, 4)


def test_a_session_that_was_closed_has_not_crashed(connection):
    """R31: a job that began while its tracker closed is cancelled."""
    job(connection, "a", 1)
    ended = end_of(connection, MINE, reason=CLOSED, most=0)
    assert [row["id"] for row in ended.left] == ["a"]
    (row,) = connection.execute(select(jobs)).mappings()
    assert (row["status"], row["error_message"]) == ("cancelled", LEFT_RUNNING)


def test_only_a_presumed_death_is_taken_back(connection):
    """faults 24, H: what ends for good corrects the jobs of its own session that had not crashed,
    if that session was presumed dead.
    """
    for id_, session in (("finished", 2), ("crashed", 2), ("mine", 1)):
        job(connection, id_, session, status="crashed")
        event(connection, session, len(id_), id_, kind="operation_crashed")
    connection.execute(logs.update().values(fingerprint="f", attempt=1))
    done = attempts.update().where(attempts.c.job_id.in_(("finished", "mine")))
    connection.execute(done.values(status="completed"))
    presumed = sessions.update().where(sessions.c.session_id == 2)
    connection.execute(presumed.values(end_reason=VANISHED, ended_at=THEN))
    end_of(connection, OTHER, reason=DIED)
    found = select(logs.c.job_id).where(logs.c.fingerprint.is_not(None)).order_by(logs.c.job_id)
    assert connection.scalars(found).all() == ["crashed", "mine"]
    row = row_of(connection, 2)
    assert (row["end_reason"], row["ended_at"]) == (DIED, THEN)
    assert row_of(connection, 1)["ended_at"] is None
    end_of(connection, OTHER, reason=DIED)
    assert connection.scalars(found).all() == ["crashed", "mine"]
