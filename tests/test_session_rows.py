"""What the end of a session does to its rows, and to no other session's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from sqlalchemy import create_engine, select

from structjob.spool.session import Session
from structjob.store.ingest import NO_NOTICES, Ingest
from structjob.store.sessions import LEFT_RUNNING, beat, crash, enter, leave, left_running, reach
from structjob.store.tables import attempts, cancellations, jobs, logs, metadata, sessions, steps

THEN = datetime(2026, 1, 31, 12, tzinfo=UTC)
LATER, LAST = THEN + timedelta(minutes=1), THEN + timedelta(minutes=2)
MINE, OTHER = (
    Session(number, "h", None, 7, started_at="2026-01-31 12:00:00.000000") for number in (1, 2)
)


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        metadata.create_all(opened)
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
    event(connection, 2, 1, "a", LAST + timedelta(hours=1))
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
