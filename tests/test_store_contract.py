"""What every store promises, on SQLite, MariaDB and PostgreSQL alike: the same rows, the same
order, the same errors.
"""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import sqlalchemy as sa
import structlog
from cli_support import python
from database_support import create_tables
from store_support import (
    T0,
    claim_row,
    event,
    events,
    job,
    job_row,
    no_flush,
    opened,
    read,
    state,
    step,
)

from structjob.exceptions import SchemaMismatch, StoreUnavailable
from structjob.models import EventRecord
from structjob.queries.logs import Logs
from structjob.queries.session_status import Sessions
from structjob.queries.verify import SessionState, verify
from structjob.spool.session import Session
from structjob.store import migrations
from structjob.store.contract import Ending, Notices, Write
from structjob.store.factory import make_store
from structjob.store.migration_sql import statements
from structjob.store.sessions import left_running
from structjob.store.tables import (
    attempts,
    dead_letters,
    gaps,
    jobs,
    logs,
    metadata,
    sessions,
    steps,
)

AT_T0 = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def store(database):
    async with opened(database) as store:
        yield store


# -- events
# --------------------------------------------------------------------------


async def test_an_event_comes_back_as_it_was_logged(store):
    """Every field, with microseconds, 4-byte characters, odd keys and all of JSON's types (R4)."""
    attrs = {
        "n": 1,
        "big": 2**62,
        "real": 0.1,
        "whole": 2.0,
        "yes": True,
        "no": False,
        "none": None,
        "text": "😀 “quoted” \\ \n \t % _ ' -- \x7f",
        "clé é 鍵 😀": {"deep": [1, [2, {"a": None}]]},
        "": "empty",
        "a.b": "12",
    }
    fields = {
        "ts": "2026-12-31 23:59:59.999999",
        "level": "warning",
        "attrs": attrs,
        "kind": "step_info",
        "job_id": "Job 😀",
        "attempt": 2,
        "step_id": "s",
        "operation": "copy",
        "step": "first",
        "correlation_id": "co",
        "trace_id": "0" * 32,
        "span_id": "f" * 16,
        "stream": "stdout",
        "logger": "app.db",
        "category": "c",
        "project": "p",
    }
    message = "'); DROP TABLE structjob_logs; -- %s %(x)s ? :y $1 \\' \\\\ 😀"
    await store.write(Write(2**53 - 1, event(9, message, **fields)))
    (found,) = await read(store)
    moment = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    expected = fields | {
        "ts": moment,
        "type": "task",
        "message": message,
        "session_id": 2**53 - 1,
        "seq": 9,
    }
    assert found == EventRecord(id=found.id, stored_at=found.stored_at, **expected)
    assert [type(value) for value in found.attrs.values() if isinstance(value, bool)] == [
        bool,
        bool,
    ]
    assert abs(found.stored_at - datetime.now(UTC)) < timedelta(minutes=5)


async def test_what_an_event_leaves_out_has_its_default(store):
    """A line has only what is set; the type follows from the ids (R4, R35)."""
    await store.write(Write(1, event(1) + event(2, job_id="j") + event(3, job_id="j", step_id="s")))
    found = await read(store)
    assert [(e.type, e.kind, e.stream, e.category, e.attrs, e.logger) for e in found] == [
        (type_, "log", "system", "system", {}, None) for type_ in ("system", "job", "task")
    ]


async def test_an_event_is_stored_once(store, database):
    """The same lines again, lines that overlap, and twins in one batch change nothing (guarantee
    1).
    """
    await store.write(Write(1, events(1, 2, 3)))
    await store.write(Write(1, events(1, 2, 3)))
    await store.write(Write(1, events(3, 4, 4, 5)))
    await store.write(Write(2, events(1)))
    assert await database.rows("SELECT session_id, seq FROM structjob_logs ORDER BY session_id, seq") == [
        (1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (2, 1),
    ]  # fmt: skip


async def test_the_jobs_that_a_session_has_events_of(store):
    """A process without an answer asks which of its events about jobs are stored."""
    assert await store.jobs_of(1) == set()
    await store.write(Write(1, events(1) + event(2, job_id="a") + event(3, job_id="b")))
    await store.write(Write(1, event(4, job_id="a")))
    await store.write(Write(2, event(1, job_id="c")))
    assert await store.jobs_of(1) == {"a", "b"}
    assert await store.jobs_of(2) == {"c"}


async def test_the_largest_events_are_stored_whole(store):
    """Events of 256 KiB, many in a batch: nothing is cut by a column type or the size of
    a packet.
    """
    messages = [f"{n}" + "é" * 120_000 for n in range(12)]
    written = await store.write(
        Write(1, b"".join(event(n, message) for n, message in enumerate(messages, 1)))
    )
    assert written.dead == 0
    assert [e.message for e in await read(store)] == messages


async def test_deep_attributes_are_stored(store):
    """An event as deep as structjob lets it be is no poison, on any database."""
    attrs = {"n": 1}
    for _ in range(22):
        attrs = {"d": attrs}
    await store.write(Write(1, event(1, attrs=attrs)))
    assert (await read(store))[0].attrs == attrs


async def test_ids_differ_by_case_and_trailing_blanks(store, database):
    """`Job`, `job` and `job ` are three jobs, in writing and in finding."""
    await store.write(Write(1, b"", job(1, "Job") + job(2, "job") + job(3, "job ") + job(4, "jób")))
    for id_ in ("Job", "job", "job ", "jób"):
        (found,) = await store.fetch(sa.select(jobs.c.id).where(jobs.c.id == id_))
        assert found["id"] == id_
    await store.write(Write(1, event(1, job_id="Job") + event(2, job_id="job ")))
    assert [e.seq for e in await Logs(store.fetch, no_flush).list(job_id="job ")] == [2]


# -- states
# --------------------------------------------------------------------------


async def test_a_job_comes_back_as_it_was_recorded(store):
    """Every column, JSON of every type, and times with microseconds (R1)."""
    values = {
        "parent_job_id": "p", "root_job_id": "r", "job_type": "t", "description": "d 😀", "status": "failed", "percent_complete": 33.3,
        "current_step": "c", "owner": "ada", "project": "x", "metadata": {"vm": {"name": "pg", "é": [1, None, True, 0.5]}},
        "error_type": "E", "error_message": "m", "error_traceback": "tb", "correlation_id": "co", "external_job_id": "e",
        "context_id": "cx", "idempotency_key": "k", "duration_ms": 0.001, "cpu_ms": 1.5, "max_rss_kb": 2**40,
        "completed_at": "2026-01-01 00:00:00.000001",
    }  # fmt: skip
    await store.write(Write(7, b"", job(3, **values)))
    (row,) = await store.fetch(sa.select(jobs))
    expected = job_row(**values) | {
        "session_id": 7,
        "state_seq": 3,
        "created_at": AT_T0,
        "started_at": AT_T0,
    }
    assert dict(row) == expected | {"completed_at": AT_T0 + timedelta(microseconds=1)}


RESULTS = [
    "12", "null", "true", "", 'a"b\\', 0, 1.5, True, False, [], {}, [None, "x"], {"a": {"b": 1}}, None,
]  # fmt: skip


async def test_a_result_keeps_its_type(store):
    """The text "12" is not the number 12, true is not 1, and null is nothing (R18)."""
    states = [job(number, f"j{number}", result=one) for number, one in enumerate(RESULTS, 1)]
    await store.write(Write(1, b"", b"".join(states)))
    rows = await store.fetch(
        sa.select(jobs.c.result, attempts.c.result.label("of_attempt"))
        .join(attempts, attempts.c.job_id == jobs.c.id)
        .order_by(jobs.c.state_seq)
    )
    expected = [(result, type(result)) for result in RESULTS]
    for column in ("result", "of_attempt"):
        assert [(row[column], type(row[column])) for row in rows] == expected


async def status(store, table=jobs):
    return [row["status"] for row in await store.fetch(sa.select(table.c.status))]


async def test_only_a_newer_state_changes_a_row(store):
    """Late, repeated and reordered records of one session leave the newest state (R7)."""
    await store.write(
        Write(1, b"", job(2, status="completed", result=[2]) + step(3, status="completed"))
    )
    await store.write(
        Write(1, b"", job(1, status="running", result=[1]) + step(1, status="running"))
    )
    assert (await status(store), await status(store, attempts), await status(store, steps)) == (
        ["completed"],
    ) * 3
    await store.write(Write(1, b"", job(4, status="failed") + job(3, status="running")))
    (row,) = await store.fetch(sa.select(jobs))
    assert (row["status"], row["state_seq"], row["result"]) == ("failed", 4, None)


async def test_one_session_does_not_change_anothers_row(store):
    """A job that runs is its own session's; one that is pending may be taken over; a later attempt
    replaces an earlier one (R7, R13).
    """
    await store.write(
        Write(
            1,
            b"",
            job(1, "running") + job(2, "pending", status="pending", attempt=0, started_at=None),
        )
    )
    await store.write(Write(2, b"", job(9, "running", status="failed") + job(10, "pending")))
    found = {
        row["id"]: (row["status"], row["session_id"]) for row in await store.fetch(sa.select(jobs))
    }
    assert found == {"running": ("running", 1), "pending": ("running", 2)}
    await store.write(Write(2, b"", job(11, "running", attempt=2)))
    await store.write(Write(1, b"", job(3, "running", status="completed")))
    (row,) = await store.fetch(sa.select(jobs).where(jobs.c.id == "running"))
    assert (row["session_id"], row["attempt"], row["status"]) == (2, 2, "running")
    history = await store.fetch(
        sa.select(attempts).where(attempts.c.job_id == "running").order_by(attempts.c.attempt)
    )
    assert [(row["attempt"], row["session_id"], row["status"]) for row in history] == [
        (1, 1, "completed"),
        (2, 2, "running"),
    ]


async def test_a_gap_is_recorded_once(store, database):
    """Numbers that were given up on purpose arrive in the queue of states. A second record of them
    changes nothing (guarantee 2).
    """
    for _ in range(2):
        await store.write(Write(1, b"", state("gap", 1, first_seq=2, last_seq=4, reason="dropped")))
    assert await database.rows(
        "SELECT session_id, first_seq, last_seq, reason FROM structjob_gaps"
    ) == [(1, 2, 4, "dropped")]


# -- claims
# --------------------------------------------------------------------------


async def test_a_claim_opens_the_next_attempt(store):
    """Each claim of a known id opens its next attempt, and the job keeps its earlier values (R13,
    R14).
    """
    assert await store.claim(claim_row("j", owner="ada", metadata={"a": 1})) == (None, 1)
    former, attempt = await store.claim(claim_row("j", session=2))
    assert (former["owner"], former["attempt"], attempt) == ("ada", 1, 2)
    assert (former["created_at"], msgspec.json.decode(former["metadata"])) == (T0, {"a": 1})
    (row,) = await store.fetch(sa.select(jobs))
    assert (
        row["owner"],
        row["metadata"],
        row["attempt"],
        row["session_id"],
        row["created_at"],
    ) == ("ada", {"a": 1}, 2, 2, AT_T0)
    assert await status(store, attempts) == ["running", "running"]


async def test_an_idempotency_key_is_held_by_the_first(store):
    """Another job with the key of one that is there is refused, and shown which; the key's own job
    goes on (R14).
    """
    await store.claim(claim_row("first", idempotency_key="k"))
    former, attempt = await store.claim(claim_row("second", idempotency_key="k"))
    assert (former["id"], attempt) == ("first", 0)
    assert (await store.claim(claim_row("first", idempotency_key="k")))[1] == 2
    assert len(await store.fetch(sa.select(jobs))) == 1


async def test_claims_at_the_same_moment(database):
    """Of many processes that start one job at once each gets an attempt of its own; of those with
    one key one wins (R14).
    """
    async with opened(database) as one, opened(database) as other:
        claims = [
            store.claim(claim_row("j", session=n)) for n, store in enumerate([one, other] * 6, 1)
        ]
        assert sorted(attempt for _, attempt in await asyncio.gather(*claims)) == list(range(1, 13))
        claims = [
            store.claim(claim_row(f"k{n}", session=n, idempotency_key="k"))
            for n, store in enumerate([one, other] * 6)
        ]
        found = await asyncio.gather(*claims)
        assert sorted(attempt for _, attempt in found) == [0] * 11 + [1]
        assert len({former["id"] for former, attempt in found if not attempt}) == 1


async def test_a_record_with_anothers_key_changes_no_other_job(store, database):
    """A row whose idempotency key belongs to another job is stored without it (faults 33c); it
    overwrites no job and stops no neighbor.
    """
    await store.write(Write(1, b"", job(1, "first", idempotency_key="k", owner="ada")))
    written = await store.write(
        Write(2, b"", job(1, "second", idempotency_key="k", owner="eve") + job(2, "third"))
    )
    assert sorted(written.states) == [1, 2]
    found = await database.rows(
        "SELECT id, owner, idempotency_key, status FROM structjob_jobs ORDER BY id"
    )
    assert found == [
        ("first", "ada", "k", "running"),
        ("second", None, None, "running"),
        ("third", None, None, "running"),
    ]
    assert await database.rows("SELECT session_id, reason FROM structjob_dead_letters") == [
        (2, "refused")
    ]


# -- sessions
# --------------------------------------------------------------------------


def a_session(number=1):
    session = Session(service="s", version="1")
    object.__setattr__(session, "session_id", number)
    return session


async def test_a_session_lives_by_the_databases_clock(store, database):
    """It is entered once; its heartbeat and its highest number only go forward (R11)."""
    session = a_session()
    await store.begin_session(session)
    await store.begin_session(session)
    (before,) = await store.fetch(sa.select(sessions))
    assert (before["host"], before["pid"], before["service"], before["last_seq"]) == (
        session.host,
        session.pid,
        "s",
        0,
    )
    await store.heartbeat(1, 7)
    await store.heartbeat(1, 5)
    await store.write(Write(1, events(1), last_seq=9))
    await store.write(Write(1, events(2), last_seq=8))
    (after,) = await store.fetch(sa.select(sessions))
    assert after["last_seq"] == 9
    assert after["heartbeat_at"] >= before["heartbeat_at"]
    assert abs(after["heartbeat_at"] - datetime.now(UTC)) < timedelta(minutes=5)


async def test_ending_a_session_explains_its_holes(store):
    """Every number up to the last is stored or explained afterwards, and nothing twice (guarantee
    2).
    """
    session = a_session()
    await store.write(
        Write(1, events(2, 3, 7), state("gap", 1, first_seq=5, last_seq=5, reason="dropped"))
    )
    for _ in range(2):
        ending = Ending(reason="died", last_seq=9, confirmed=3, absent="in_flight", most=5)
        assert not (await store.end_session(session, ending)).left
    found = await store.fetch(sa.select(gaps).order_by(gaps.c.first_seq))
    assert [(g["first_seq"], g["last_seq"], g["reason"]) for g in found] == [
        (1, 1, "in_flight"), (4, 4, "in_flight"), (5, 5, "dropped"), (6, 6, "in_flight"), (8, 9, "in_flight"),
    ]  # fmt: skip
    (checked,) = (await verify(store.fetch)).sessions
    assert (checked.status, checked.stored, checked.explained) == (SessionState.COMPLETE, 3, 6)


async def test_what_a_dead_session_left_running_is_crashed(store):
    """The job, its attempt and its open steps are crashed; the events about it are stored in the
    same transaction, and only once (R11).
    """
    other = job(1, "theirs")
    await store.write(Write(2, b"", other))
    last = b"".join(
        event(n, f"line {n}", job_id="j", ts=f"2026-01-01 00:00:0{n}.000000") for n in range(1, 8)
    )
    await store.write(
        Write(
            1,
            last,
            job(1)
            + step(2)
            + step(3, "done", status="completed", seq=2)
            + job(4, "over", status="failed"),
        )
    )
    found = await left_running(store.fetch, 1)
    assert [(each.job["id"], each.steps, each.last_lines) for each in found] == [
        ("j", ("copy",), tuple(f"line {n}" for n in range(3, 8)))
    ]
    bodies = {
        job_id: event(0, "operation_crashed", level="error", job_id=job_id).partition(b',"seq"')[0]
        for job_id in ("j", "over")
    }
    finder = Session(3, "finder", None, 5)
    notices, ending = Notices(finder, bodies), Ending(reason="died", last_seq=7)
    ended = await store.end_session(a_session(), ending, notices)
    assert [row["id"] for row in ended.left] == ["j"]
    assert not (await store.end_session(a_session(), ending, notices)).left
    found = {row["id"]: row for row in await store.fetch(sa.select(jobs))}
    assert {id_: row["status"] for id_, row in found.items()} == {
        "j": "crashed",
        "over": "failed",
        "theirs": "running",
    }
    assert (found["j"]["error_type"], found["j"]["completed_at"] is not None) == ("Crashed", True)
    assert sorted(await status(store, steps)) == ["completed", "crashed"]
    events_of = Logs(store.fetch, no_flush).list
    assert [(e.seq, e.message, e.job_id) for e in await events_of(session_id=3)] == [
        (1, "operation_crashed", "j")
    ]
    report = await Sessions(store.fetch, no_flush).get(3)
    assert (report.host, report.last_seq, report.end_reason) == ("finder", 1, "closed")
    assert (await verify(store.fetch)).ok
    # Its own later truth wins.
    await store.write(Write(1, b"", job(5, status="completed")))
    (row,) = await store.fetch(sa.select(jobs.c.status, jobs.c.error_type).where(jobs.c.id == "j"))
    assert tuple(row.values()) == ("completed", None)


@pytest.mark.parametrize("reason", ["died", "closed"])
async def test_nothing_that_a_session_left_running_ends_before_it_began(store, reason):
    """Faults 56, 59: the database's clock, by which the end is dated, may be behind that of the
    host.
    """
    ahead = "2126-01-01 00:00:00.000000"
    await store.begin_session(a_session())
    await store.write(Write(1, b"", job(1, started_at=ahead) + step(2, started_at=ahead)))
    await store.end_session(a_session(), Ending(reason=reason))
    for table in (jobs, attempts, steps):
        (row,) = await store.fetch(
            sa.select(table.c.status, table.c.started_at, table.c.completed_at)
        )
        assert row["status"] == {"died": "crashed", "closed": "cancelled"}[reason]
        assert row["completed_at"] == row["started_at"]


# -- poison
# --------------------------------------------------------------------------


async def test_one_bad_event_is_put_aside_and_its_neighbours_are_stored(store, database):
    """The row that the database refuses goes to the dead letters with the reason, its number is
    explained, all others are stored (guarantee 7); the same lines again change nothing.
    """
    lines = b"".join(event(n, message=None if n in (17, 40) else "m") for n in range(1, 65))
    for _ in range(2):
        written = await store.write(Write(1, lines, job(1)))
        assert (written.dead, written.states) == (2, [1])
        assert await database.rows("SELECT count(*) FROM structjob_logs") == [(62,)]
        assert await database.rows("SELECT first_seq, last_seq, reason FROM structjob_gaps ORDER BY 1") == [
            (17, 17, "dead_lettered"), (40, 40, "dead_lettered"),
        ]  # fmt: skip
        found = await store.fetch(sa.select(dead_letters).order_by(dead_letters.c.seq))
        assert [(d["session_id"], d["seq"], d["reason"]) for d in found] == [
            (1, 17, "refused"),
            (1, 40, "refused"),
        ]
        assert all("null" in d["error"].lower() for d in found)
        assert json.loads(found[0]["payload"])["seq"] == 17
    assert await status(store) == ["running"]


async def test_a_bad_change_of_state_is_put_aside(store):
    """It is stored as far as it fits (faults 33c), kept whole among the dead letters, and stops
    nothing else (guarantee 7).
    """
    bad = job(2, "bad", operation=None)
    for _ in range(2):
        written = await store.write(Write(1, events(1), job(1, "good") + bad + job(3, "better")))
        assert sorted(written.states) == [1, 2, 3]
    stored = await store.fetch(
        sa.select(jobs.c.id, jobs.c.operation, jobs.c.status).order_by(jobs.c.id)
    )
    assert [tuple(row.values()) for row in stored] == [
        ("bad", "", "running"),
        ("better", "o", "running"),
        ("good", "o", "running"),
    ]
    (letter,) = await store.fetch(sa.select(dead_letters))
    assert (letter["seq"], msgspec.json.decode(letter["payload"])["row"]["id"]) == (None, "bad")
    assert len(await read(store)) == 1


async def test_a_torn_line_yields_the_records_in_it(store):
    """Half a record, and a whole one behind it in the same line: the whole one is stored (guarantee
    1).
    """
    lines = events(1) + event(2)[:30] + events(3, 4)
    written = await store.write(Write(1, lines))
    assert (written.dead, written.torn) == (0, 0)
    assert [e.seq for e in await read(store)] == [1, 3, 4]


# -- transactions
# --------------------------------------------------------------------------


async def test_a_transaction_is_all_or_nothing(store):
    """What `call` did is committed when it returns, and undone when it raises; the exception is its
    own.
    """

    def add(connection, number):
        connection.execute(
            gaps.insert().values(session_id=1, first_seq=number, last_seq=number, reason="r")
        )
        return connection.execute(sa.select(sa.func.count()).select_from(gaps)).scalar_one()

    assert await store.transact(lambda connection: add(connection, 1)) == 1

    def failing(connection):
        add(connection, 2)
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        await store.transact(failing)
    assert await store.transact(lambda connection: add(connection, 3)) == 2


async def test_many_writers_at_once(database):
    """Trackers of several processes, two writers each, on events and on the same jobs: all is
    stored once, no conflict is felt (R28).
    """
    rounds, size = 12, 100
    async with opened(database) as one, opened(database) as other:

        async def writer(store, session, offset):
            for n in range(offset, rounds, 2):
                numbers = range(1 + n * size, 1 + (n + 1) * size)
                changes = (
                    b"".join(job(n * 10 + k + 1, f"shared-{k}", attempt=n + 1) for k in range(5))
                    if offset == 0
                    else b""
                )
                await store.write(Write(session, events(*numbers), changes, last_seq=numbers[-1]))

        await asyncio.gather(
            *(
                writer(store, number, offset)
                for number, store in enumerate((one, other), 1)
                for offset in (0, 1)
            )
        )
        found = await database.rows(
            "SELECT session_id, count(*), min(seq), max(seq) FROM structjob_logs GROUP BY session_id ORDER BY 1"
        )
        assert found == [(1, rounds * size, 1, rounds * size), (2, rounds * size, 1, rounds * size)]
        assert await database.rows("SELECT DISTINCT attempt FROM structjob_jobs") == [(rounds - 1,)]
        assert await database.rows("SELECT count(*) FROM structjob_dead_letters") == [(0,)]


async def test_a_store_that_is_cancelled_goes_on(store):
    """A cancelled caller is free at once, and the next call works (traps: drivers that hang when
    they are cancelled).
    """
    for _ in range(3):
        task = asyncio.create_task(store.write(Write(1, events(*range(1, 2000)))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.write(Write(1, events(*range(1, 2000))))
    assert len(await store.fetch(sa.select(logs.c.seq))) == 1999


# -- migrations
# --------------------------------------------------------------------------


def described(connection):
    """Everything about the tables and views that a program can rely on."""
    inspector = sa.inspect(connection)
    found = {}
    for table in sorted(metadata.tables):
        columns = [
            (c["name"], str(c["type"]), c["nullable"], c["default"])
            for c in inspector.get_columns(table)
        ]
        indexes = sorted(
            (i["name"] or "", tuple(i["column_names"]), bool(i["unique"]))
            for i in inspector.get_indexes(table)
        )
        found[table] = (columns, indexes, inspector.get_pk_constraint(table)["constrained_columns"])
    return found, sorted(inspector.get_view_names())


async def test_migrations_go_up_and_down_and_up_again(bare_database):
    """Twice each way, on every database; nothing is left below (R6)."""
    async with bare_database.engine.connect() as connection:
        for _ in range(2):
            await connection.run_sync(migrations.upgrade)
            assert await connection.run_sync(migrations.current) == migrations.head()
            await connection.rollback()
            await connection.run_sync(migrations.downgrade, "base")
            assert await connection.run_sync(lambda c: sa.inspect(c).get_table_names()) == []
            await connection.rollback()


async def test_the_printed_sql_makes_the_same_tables(bare_database):
    """What a DBA applies by hand is what structjob would have made, and a tracker takes it as its
    own (R6).
    """
    dialect = bare_database.kind
    async with bare_database.engine.connect() as connection:
        await connection.run_sync(migrations.prepare)
        made = await connection.run_sync(described)
        await connection.rollback()
        await connection.run_sync(migrations.downgrade, "base")
    await bare_database.execute(*statements(dialect, "base", migrations.head()))
    async with bare_database.engine.connect() as connection:
        assert await connection.run_sync(described) == made
    async with opened(bare_database) as store:
        await store.write(Write(1, events(1)))
    await bare_database.execute(*statements(dialect, migrations.head(), "base"))


async def test_the_tables_in_code_are_the_tables_in_the_database(bare_database):
    """What the queries believe about columns, keys and indexes is what the migrations make, on
    every database (R5, R6).
    """
    async with bare_database.engine.connect() as connection:
        await connection.run_sync(migrations.prepare)
        (made, _), _ = await connection.run_sync(described), await connection.rollback()
        await connection.run_sync(migrations.downgrade, "base")
        await connection.run_sync(create_tables)
        await connection.commit()
        assert (await connection.run_sync(described))[0] == made


async def test_ten_stores_open_one_new_database_at_once(bare_database):
    """The second store waits for the first and finds the tables ready (R6)."""
    stores = [make_store(bare_database.url, {}) for _ in range(10)]
    try:
        await asyncio.gather(*(store.open() for store in stores))
        await asyncio.gather(
            *(store.write(Write(n, events(1, 2))) for n, store in enumerate(stores, 1))
        )
        assert await bare_database.rows("SELECT count(*) FROM structjob_logs") == [(20,)]
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_another_versions_tables_are_refused(bare_database):
    """A tracker does not write into tables that it does not know, and says what to do."""
    async with opened(bare_database):
        pass
    await bare_database.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(SchemaMismatch, match="upgrade structjob"):
        async with opened(bare_database):
            pass


# -- from end to end
# --------------------------------------------------------------------------

log = structlog.get_logger()


async def test_a_tracker_on_every_database(any_tracker):
    """Jobs, steps, attempts, events, reads and the proof of completeness are the same everywhere
    (R8, R16, R19, R36).
    """
    tracker = any_tracker
    async with tracker.job(
        "copy", metadata={"vm": "pg"}, external_job_id="gui-1", context_id="cx"
    ) as outer:
        async with outer.step("first", total=2) as first:
            log.info("hello 😀", n=1, key="ä")
            first.advance(2)
        async with outer.child("inner") as inner:
            log.warning("within")
        outer.result = {"bytes": 1}
    with pytest.raises(ValueError, match="no"):
        async with tracker.job("copy", job_id=outer.id):
            raise ValueError("no")
    for any_id in (outer.id, "gui-1", "cx"):
        assert (await tracker.jobs.find(any_id)).id == outer.id
    record = await tracker.jobs.get(outer.id)
    assert (record.status, record.attempt, record.metadata, record.error.type) == (
        "failed",
        2,
        {"vm": "pg"},
        "ValueError",
    )
    history = await tracker.jobs.history(outer.id)
    assert [(a.status, a.result) for a in history] == [
        ("completed", {"bytes": 1}),
        ("failed", None),
    ]
    assert [child.job.id for child in (await tracker.jobs.tree(outer.id)).children] == [inner.id]
    assert [e.message for e in await tracker.logs.list(attrs={"key": "ä"})] == ["hello 😀"]
    assert [
        e.message for e in await tracker.logs.list(job_id=outer.id, children=True, levels="warning")
    ] == ["within"]
    assert [e.message for e in await tracker.logs.list(text="HELLO")] == ["hello 😀"]
    assert (await tracker.verify()).ok
    ledger = tracker.ledger()
    assert (ledger.accepted, ledger.spilled + ledger.in_memory) == (ledger.stored, 0)
    await tracker.flush(durable=True)


async def test_the_command_line_reads_every_database(any_tracker, database, tmp_path):
    """`structjob jobs --db URL` and `structjob migrate --db URL` work where the tracker
    does (R49).
    """
    async with any_tracker.job("copy"):
        log.info("hello")
    await any_tracker.flush()

    async def run(*arguments):
        done = await asyncio.to_thread(
            python, "-m", "structjob", *arguments, "--db", database.url, "--json", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert '"copy"' in await run("jobs")
    assert migrations.head() in await run("migrate")


@pytest.mark.slow
@pytest.mark.parametrize("bare_database", ["mariadb", "postgresql"], indirect=True)
async def test_the_command_line_makes_no_tables_to_read(bare_database, tmp_path):
    """A command that reads leaves an application's own database as it is, and says that nothing is
    there (R49).
    """
    for words in (
        ("jobs", "--json"),
        ("verify",),
        ("show", "x"),
        ("prune", "--older-than", "1d", "--dry-run"),
    ):
        done = await asyncio.to_thread(
            python, "-m", "structjob", *words, "--db", bare_database.url, cwd=tmp_path
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert "holds no jobs or logs of structjob" in done.stderr
    async with bare_database.engine.connect() as connection:
        assert await connection.run_sync(migrations.current) is None


async def test_a_claim_at_a_closed_store_is_refused(database):
    """A store that is not open raises instead of opening automatically."""
    async with opened(database) as store:
        pass
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.claim(claim_row("j"))
