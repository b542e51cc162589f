"""Deleting what was found to be due, row by row: what has changed since then stays, with all that
needs it.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from database_support import create_tables
from sqlalchemy import create_engine, select, true

from structjob.retention.due import Plan
from structjob.retention.removal import remove_events, remove_jobs, remove_sessions, remove_steps
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


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        create_tables(opened)
        yield opened
    engine.dispose()


def job(connection, id_, parent=None, *, top=None, changed=False, status="completed"):
    """Insert a job with an attempt, a step and a request to cancel it; return it as it was when it
    was found.
    """
    row = {
        "id": id_,
        "root_job_id": id_,
        "parent_job_id": parent,
        "operation": "o",
        "category": "system",
        "status": status,
        "attempt": 1,
    }
    connection.execute(
        jobs.insert().values(
            session_id=1, state_seq=2 if changed else 1, created_at=THEN, started_at=THEN, **row
        )
    )
    connection.execute(attempts.insert().values(job_id=id_, attempt=1, status=status))
    connection.execute(
        cancellations.insert().values(
            job_id=id_, attempt=1, session_id=1, reason="r", requested_at=THEN, forced=False
        )
    )
    return {id_: Plan(id_, 1, 1, 1, top or id_)}


def step(connection, id_, job_id):
    connection.execute(
        steps.insert().values(id=id_, job_id=job_id, attempt=1, seq=1, name="s", status="completed")
    )


def event(connection, seq, job_id=None):
    row = {
        "session_id": 1,
        "seq": seq,
        "ts": THEN,
        "level": "info",
        "type": "job" if job_id else "system",
        "message": "m",
    }
    connection.execute(logs.insert().values(id=seq, job_id=job_id, **row))


def left(connection, column):
    return sorted(connection.scalars(select(column)))


def test_events_and_steps_of_a_job_that_has_changed_stay(connection):
    """faults H: those of the others go, each once, and the numbers of the events are explained."""
    plans = (
        job(connection, "same")
        | job(connection, "changed", changed=True)
        | job(connection, "again", status="running")
    )
    for seq, job_id in enumerate(("same", "changed", "again", "unknown", "same"), 1):
        event(connection, seq, job_id)
        step(connection, f"step {seq}", job_id)
    assert remove_events(connection, [1, 2, 3, 4, 9], plans) == 1
    assert left(connection, logs.c.seq) == [2, 3, 4, 5]
    assert (
        remove_events(connection, [1, 2], plans)
        == remove_events(connection, [9], plans)
        == remove_events(connection, [])
        == 0
    )
    assert remove_steps(connection, ["step 1", "step 2", "step 3", "step 4", "step 9"], plans) == 1
    assert left(connection, steps.c.id) == ["step 2", "step 3", "step 4", "step 5"]
    event(connection, 6)
    assert remove_events(connection, [5, 6]) == 2  # by their own time, whatever became of their job
    assert connection.execute(
        select(gaps.c.first_seq, gaps.c.last_seq).order_by(gaps.c.first_seq)
    ).all() == [(1, 1), (5, 6)]


def test_a_job_above_one_that_stays_stays(connection):
    """faults H: however far above; others of the same chunk go, with their attempts and the
    requests to cancel them.
    """
    plans = job(connection, "far above") | job(connection, "above", "far above", top="far above")
    plans |= job(connection, "changed", "above", top="far above", changed=True)
    plans |= job(connection, "below", "changed", top="far above")
    plans |= (
        job(connection, "has an event")
        | job(connection, "has a step", "goes")
        | job(connection, "goes")
    )
    job(connection, "not found", "alone")
    plans |= (
        job(connection, "alone")
        | job(connection, "free")
        | job(connection, "under it", "free", top="free")
    )
    event(connection, 1, "has an event")
    step(connection, "s", "has a step")
    assert remove_jobs(connection, plans) == (3, 3)
    kept = [
        "above",
        "alone",
        "changed",
        "far above",
        "goes",
        "has a step",
        "has an event",
        "not found",
    ]
    assert (
        left(connection, jobs.c.id)
        == left(connection, attempts.c.job_id)
        == left(connection, cancellations.c.job_id)
        == kept
    )
    assert remove_jobs(connection, plans) == remove_jobs(connection, {}) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "goes"), [("first", ["second"]), ("second", []), (None, ["first", "second"])]
)
def test_a_circle_of_parents(connection, changed, goes):
    """faults H: the job from which a circle was found is below the last of it, and holds none; what
    is below it holds it.
    """
    plans = job(connection, "first", "second", top="first", changed=changed == "first")
    plans |= job(connection, "second", "first", top="first", changed=changed == "second")
    assert remove_jobs(connection, plans) == (len(goes), len(goes))
    assert left(connection, jobs.c.id) == sorted({"first", "second"} - set(goes))


def test_sessions_go_with_what_explains_their_numbers(connection):
    """faults H: those that are still due, and no other session's explanations."""
    for number in (1, 2, 3):
        row = {"session_id": number, "host": "h", "pid": 1, "started_at": THEN, "last_seq": number}
        connection.execute(sessions.insert().values(ended_at=THEN, **row))
        connection.execute(
            gaps.insert().values(session_id=number, first_seq=1, last_seq=number, reason="pruned")
        )
    assert remove_sessions(connection, [1, 2], sessions.c.last_seq == 2) == 1
    assert left(connection, sessions.c.session_id) == left(connection, gaps.c.session_id) == [1, 3]
    assert remove_sessions(connection, [2], true()) == 0
    assert left(connection, gaps.c.session_id) == [1, 3]
