"""What is due by a retention, row by row: the queries alone, on the edges of the ages and in odd
families.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from database_support import create_tables
from sqlalchemy import create_engine, select

from structjob import Retention
from structjob.retention.due import Due, Plan, planned
from structjob.store.tables import dead_letters, gaps, jobs, logs, sessions

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EDGE = NOW - timedelta(days=30)
TICK = timedelta(microseconds=1)
OLD = EDGE - timedelta(days=10)
DUE = Due(Retention(days=30), NOW)
NEVER = Due(Retention(levels={"warning": 1}), NOW)


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        create_tables(opened)
        yield opened
    engine.dispose()


def events(connection, *rows):
    for seq, row in enumerate(rows, 1):
        values = {
            "session_id": 1,
            "seq": seq,
            "level": "info",
            "type": "system",
            "message": "m",
        } | row
        connection.execute(logs.insert().values(**values))


def job(connection, id_, parent=None, status="completed", created=OLD, ended=None):
    values = {
        "id": id_,
        "operation": "o",
        "category": "system",
        "attempt": 1,
        "session_id": 1,
        "state_seq": 1,
        "status": status,
    }
    ended = {} if status in {"running", "pending"} else {"completed_at": ended or created}
    connection.execute(
        jobs.insert().values(
            parent_job_id=parent,
            root_job_id=id_,
            created_at=created,
            started_at=created,
            **values,
            **ended,
        )
    )


def numbers(connection, condition, column=logs.c.seq):
    return sorted(connection.scalars(select(column).where(condition)))


def test_an_event_is_due_when_it_is_older_than_its_age(connection):
    """faults H: an event of exactly that age is kept; levels with an age of their own go by that
    one, and events of jobs with their job.
    """
    due = Due(Retention(days=30, levels={"warning": 1, "error": None}), NOW)
    warned = NOW - timedelta(days=1)
    events(
        connection,
        {"ts": EDGE}, {"ts": EDGE - TICK}, {"ts": OLD, "level": "error"}, {"ts": OLD, "type": "job", "job_id": "a"},
        {"ts": warned, "level": "warning"}, {"ts": warned - TICK, "level": "warning"},
        {"ts": OLD, "level": "warning", "type": "job", "job_id": "a"},
        {"ts": OLD, "type": "job", "job_id": "a"},
    )  # fmt: skip
    assert [numbers(connection, condition) for condition in due.events()] == [[6, 7], [2]]
    assert numbers(connection, due.not_by_level()) == [1, 2, 3, 4, 5, 8]
    assert [numbers(connection, condition) for condition in NEVER.events()] == [[6, 7]]
    assert numbers(connection, DUE.not_by_level()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_event_of_a_job_that_is_gone_is_due_once_its_row_would_be_there(connection):
    """faults H: the row of a job may come up to an hour later than its events; until then they are
    no strays.
    """
    job(connection, "there")
    row = {"type": "job", "job_id": "gone", "ts": EDGE - TICK}
    hour = NOW - timedelta(hours=1)
    events(
        connection,
        row, row | {"stored_at": hour - TICK}, row | {"stored_at": hour}, row | {"stored_at": NOW}, row | {"ts": EDGE},
        row | {"job_id": "there"}, row | {"job_id": "another"}, row | {"level": "warning"},
    )  # fmt: skip
    assert numbers(connection, DUE.of_strays(["gone", "there"])) == [1, 2, 8]
    assert numbers(
        connection,
        Due(Retention(days=30, levels={"warning": None}), NOW).of_strays(["gone", "there"]),
    ) == [1, 2]
    assert NEVER.of_strays(["gone"]) is None


def test_dead_letters_and_sessions_of_exactly_that_age_are_kept(connection):
    """faults H: what is as old as it shall be kept is kept; without an age for everything, nothing
    of this is ever due.
    """
    for seq, ts in enumerate((EDGE - TICK, EDGE, NOW), 1):
        connection.execute(
            dead_letters.insert().values(session_id=1, seq=seq, reason="refused", ts=ts)
        )
        connection.execute(
            sessions.insert().values(
                session_id=10 + seq, host="h", pid=1, started_at=OLD, ended_at=ts, last_seq=0
            )
        )
    assert numbers(connection, DUE.dead_letters(), dead_letters.c.seq) == [1]
    assert numbers(connection, DUE.sessions(), sessions.c.session_id) == [11]
    assert NEVER.dead_letters() is NEVER.sessions() is NEVER.before is None


@pytest.mark.parametrize(
    ("last_seq", "given_up", "due"),
    [
        (0, [], True),
        (5, [], False),
        (5, [(1, 5, "pruned")], True),
        (5, [(1, 9, "pruned")], True),
        (5, [(1, 4, "pruned")], False),
        (5, [(2, 5, "pruned")], False),
        (5, [(1, 5, "queue_full")], False),
        (5, [(1, 5, "pruned"), (7, 8, "pruned")], False),
        (0, [(1, 1, "queue_full")], False),
    ],
)
def test_a_session_is_due_if_its_own_numbers_were_pruned(connection, last_seq, given_up, due):
    """faults H: all of them, and no other was lost; what another session lost or had pruned decides
    nothing.
    """
    others = {2: (5, [(1, 5, "pruned")]), 3: (5, [(1, 5, "queue_full")]), 4: (5, [])}
    for number, (last, rows) in {**others, 1: (last_seq, given_up)}.items():
        connection.execute(
            sessions.insert().values(
                session_id=number, host="h", pid=1, started_at=OLD, ended_at=OLD, last_seq=last
            )
        )
        for first, final, reason in rows:
            connection.execute(
                gaps.insert().values(
                    session_id=number, first_seq=first, last_seq=final, reason=reason
                )
            )
    assert numbers(connection, DUE.sessions(), sessions.c.session_id) == ([1, 2] if due else [2])


@pytest.mark.parametrize("what", ["event", "job", "dead letter"])
def test_a_session_that_something_belongs_to_is_kept(connection, what):
    """faults H: while it is there; other sessions are due."""
    for number in (1, 2):
        connection.execute(
            sessions.insert().values(
                session_id=number, host="h", pid=1, started_at=OLD, ended_at=OLD, last_seq=0
            )
        )
    if what == "event":
        events(connection, {"ts": NOW})
    elif what == "job":
        job(connection, "a")
    else:
        connection.execute(
            dead_letters.insert().values(session_id=1, seq=1, reason="refused", ts=NOW)
        )
    assert numbers(connection, DUE.sessions(), sessions.c.session_id) == [2]


def test_a_job_is_due_by_itself_unless_something_above_it_has_ended(connection):
    """faults H: what is above it decides only if it has ended and came earlier; page by page the
    same jobs are found, in order.
    """
    job(connection, "held", parent="recent")
    job(connection, "under a running one", parent="running")
    job(connection, "under a later one", parent="later")
    job(connection, "under nothing", parent="gone")
    job(connection, "b at the same moment", created=OLD + TICK)
    job(connection, "a at the same moment", created=OLD + TICK)
    job(connection, "created at the edge", created=EDGE, ended=OLD)
    job(connection, "ended at the edge", ended=EDGE)
    job(connection, "ended before the edge", ended=EDGE - TICK)
    job(connection, "failed", status="failed")
    job(connection, "recent", created=OLD - TICK, ended=NOW)
    job(connection, "running", status="running", created=OLD - TICK)
    job(connection, "later", created=OLD + 2 * TICK, ended=NOW)
    moments = {"a at the same moment": 1, "b at the same moment": 1}
    names = {
        "under a running one",
        "under a later one",
        "under nothing",
        "ended before the edge",
        *moments,
    }
    found, after = [], None
    while row := connection.execute(DUE.tops("completed", after, 1)).one_or_none():
        after = row.created_at, row.id
        found.append(row.id)
        assert len(found) <= len(names)
    assert found == sorted(names, key=lambda name: (moments.get(name, 0), name))
    assert [row.id for row in connection.execute(DUE.tops("completed", None, 100))] == found


@pytest.mark.parametrize("together", [True, False])
def test_what_holds_a_job_from_far_above(connection, together):
    """faults H: something that has ended holds all below it, however far; of a circle the earliest
    holds the others, and nothing else.
    """
    # of two at the same moment the lesser id is the earlier one
    first, second = (OLD, OLD) if together else (OLD, OLD + TICK)
    job(connection, "top", parent="between")
    job(connection, "between", parent="above", status="running")
    job(connection, "above", created=OLD + TICK)  # it ended, and was imported later
    job(connection, "free", parent="between 2")
    job(connection, "between 2", parent="above 2", status="running")
    job(connection, "above 2", status="pending")
    job(connection, "x", parent="y", created=first)
    job(connection, "y", parent="x", created=second)
    job(connection, "its own", parent="its own")
    tops = ["top", "free", "x", "y", "its own", "above"]
    assert sorted(row.top for row in connection.execute(DUE.held(tops))) == ["top", "y"]


def test_a_family_is_found_in_order_and_goes_as_a_whole(connection):
    """faults H: parents first, page by page; one member that is not due keeps its family, and no
    other.
    """
    job(connection, "a")
    job(connection, "a1", parent="a")
    job(connection, "a11", parent="a1")
    job(connection, "a2", parent="a")
    job(connection, "b")
    job(connection, "b1", parent="b", ended=EDGE)
    job(connection, "c", parent="c1")
    job(connection, "c1", parent="c", status="failed")
    job(connection, "d", status="failed")
    job(connection, "other")
    due = Due(Retention(days=30, statuses={"failed": 35}), NOW)
    tops = ["a", "b", "c", "d"]
    rows = [dict(row) for row in connection.execute(due.family(tops, None, 100)).mappings()]
    assert [(row["id"], row["top"], row["depth"], row["due"]) for row in rows] == [
        ("a", "a", 0, 1), ("b", "b", 0, 1), ("c", "c", 0, 1), ("d", "d", 0, 1),
        ("a1", "a", 1, 1), ("a2", "a", 1, 1), ("b1", "b", 1, 0), ("c1", "c", 1, 1),
        ("a11", "a", 2, 1),
    ]  # fmt: skip
    paged, after = [], None
    while page := connection.execute(due.family(tops, after, 2)).mappings().all():
        paged += [dict(row) for row in page]
        after = paged[-1]["depth"], paged[-1]["id"]
        assert len(paged) <= len(rows)
    assert paged == rows
    assert [plan.id for plan in planned(rows)] == ["a", "c", "d", "a1", "a2", "c1", "a11"]
    assert planned(rows)[0] == Plan("a", 1, 1, 1)
    kept = Due(Retention(days=30, statuses={"failed": 45, "completed": None}), NOW)
    assert not [
        row for row in connection.execute(kept.family(tops, None, 100)).mappings() if row["due"]
    ]
