"""Leases, requests to cancel and whose the missing lines were: the same on SQLite, MariaDB and
PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import pytest
import structlog
from each import each
from sqlalchemy import select

from structjob.exceptions import InvalidState, JobNotFound
from structjob.spool.dropped import Dropped
from structjob.spool.session import Session
from structjob.statuses import JobStatus
from structjob.store import cancellations, leases, sessions, tables
from structjob.store.contract import Ending, Notices
from structjob.store.factory import make_store
from structjob.store.ingest import JOB_COLUMNS
from structjob.store.leases import Lease

log = structlog.get_logger("leases")


@pytest.fixture
async def stores(database):
    """Several connections, as several processes have them."""
    made = [make_store(database.url, {}) for _ in range(4)]
    for store in made:
        await store.open()
    yield made
    for store in made:
        await store.close()


@pytest.fixture
async def stranger(stores) -> Session:
    """A session of another host, with a running job and a pending one."""
    session = Session(host="elsewhere", boot_id="another", pid=1)
    await stores[0].begin_session(session)
    common = dict.fromkeys(JOB_COLUMNS) | {
        "operation": "strange",
        "category": "system",
        "session_id": session.session_id,
        "state_seq": 0,
    }
    for name in ("running", "pending"):
        row = common | {
            "id": name,
            "root_job_id": name,
            "status": name,
            "attempt": 1,
            "created_at": session.started_at,
        }
        await stores[0].claim(row)
    await stores[0].transact(
        lambda connection: connection.execute(
            tables.jobs.update()
            .where(tables.jobs.c.id == "pending")
            .values(status="pending", attempt=0)
        )
    )
    return session


async def rows(store, table, *columns) -> list[tuple]:
    return [
        tuple(row.values())
        for row in await store.fetch(
            select(*(table.c[name] for name in columns)).order_by(table.c[columns[0]])
        )
    ]


async def lease_of(store, session: Session) -> Lease:
    (row,) = [
        row for row in await store.fetch(leases.OPEN) if row["session_id"] == session.session_id
    ]
    return Lease.of(row)


def a_notice() -> Notices:
    body = {
        "ts": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}", "level": "error", "message": "operation_crashed", "kind": "operation_crashed",
        "attrs": {"open_steps": [], "é": "ü"}, "job_id": "running", "attempt": 1,
    }  # fmt: skip
    return Notices(Session(77), {"running": json.dumps(body).encode().removesuffix(b"}")})


async def test_of_many_who_reap_one_does(stores, stranger):
    """The database lets one through; the crash is recorded once, and the job keeps its session, so
    that a later record of that session wins (R11).
    """
    lease = await lease_of(stores[0], stranger)

    async def reap(store) -> bool:
        return (
            await store.transact(
                lambda connection: leases.reap(
                    connection, store.ingest, lease, sessions.LEASE_EXPIRED, a_notice()
                )
            )
            is not None
        )

    assert sum(await asyncio.gather(*map(reap, stores))) == 1
    store = stores[0]
    assert await rows(store, tables.jobs, "id", "status", "session_id") == [
        ("pending", "pending", stranger.session_id), ("running", "crashed", stranger.session_id),
    ]  # fmt: skip
    told = await rows(store, tables.logs, "job_id", "type", "message", "attrs")
    assert told == [("running", "job", "operation_crashed", {"open_steps": [], "é": "ü"})]
    ended = await rows(store, tables.sessions, "session_id", "end_reason", "last_seq", "confirmed")
    assert ended == sorted([(77, "closed", 1, 1), (stranger.session_id, "lease_expired", 0, 0)])


async def test_a_beat_in_the_last_moment_saves(stores, stranger):
    """A session whose heart has beaten since it was seen is not reaped (R11)."""
    store = stores[0]
    lease = await lease_of(store, stranger)
    await asyncio.sleep(0.002)  # the database's clock may have milliseconds only
    await store.heartbeat(stranger.session_id, 0)
    assert (
        await store.transact(
            lambda connection: leases.reap(
                connection, store.ingest, lease, sessions.LEASE_EXPIRED, a_notice()
            )
        )
        is None
    )
    assert ("running", "running") in await rows(store, tables.jobs, "id", "status")


async def test_a_presumption_is_taken_back_once(stores, stranger):
    """A session that was presumed dead is revived once; one that was closed stays closed (R11)."""
    store = stores[0]

    def revive(connection):
        return leases.revive(connection, store.ingest, stranger.session_id)

    assert await store.transact(revive) is None
    lease = await lease_of(store, stranger)
    assert await store.transact(
        lambda connection: leases.reap(
            connection, store.ingest, lease, sessions.LEASE_EXPIRED, a_notice()
        )
    )
    assert await store.transact(revive) is not None
    assert await store.transact(revive) is None
    (row,) = await store.fetch(leases.OPEN)
    assert row["session_id"] == stranger.session_id
    await store.end_session(stranger, Ending(reason=sessions.CLOSED))
    assert await store.transact(revive) is None


async def test_requests_at_once_leave_one(stores, stranger):
    """However many ask, and however often: the job's session finds one request, and none once it is
    carried out (R9).
    """

    def ask(connection) -> JobStatus:
        return cancellations.request(connection, "running", "the disk is needed", "ada")

    answers = await asyncio.gather(
        *(store.transact(ask) for store in stores), return_exceptions=True
    )
    assert answers.count(JobStatus.RUNNING) == 1
    refused = [str(answer) for answer in answers if isinstance(answer, InvalidState)]
    said = "job running (strange) is being cancelled already by ada: the disk is needed; with force=True its cleanup is interrupted, too"
    assert refused == [said] * (len(stores) - 1)
    found = await stores[0].fetch(cancellations.requests(stranger.session_id))
    assert [
        (row["job_id"], row["attempt"], row["reason"], row["requested_by"], row["forced"])
        for row in found
    ] == [("running", 1, "the disk is needed", "ada", False)]
    assert not await stores[0].fetch(cancellations.requests(1))
    await stores[0].transact(
        lambda connection: cancellations.forget(connection, stranger.session_id, "running", 1)
    )
    assert not await stores[0].fetch(cancellations.requests(stranger.session_id))


async def test_a_pending_job_is_cancelled_where_it_is_asked_for(stores, stranger):
    """With the reason; asked again, it has ended, and a start enters nothing (R9, R13)."""
    store = stores[0]

    def ask(connection) -> JobStatus:
        return cancellations.request(connection, "pending", "not wanted", None)

    assert await store.transact(ask) is JobStatus.PENDING
    assert ("pending", "cancelled", "not wanted") in await rows(
        store, tables.jobs, "id", "status", "error_message"
    )
    with pytest.raises(InvalidState, match="has already ended: cancelled"):
        await store.transact(ask)
    with pytest.raises(JobNotFound):
        await store.transact(
            lambda connection: cancellations.request(connection, "nobody", "", None)
        )
    row = dict.fromkeys(JOB_COLUMNS) | {
        "id": "pending", "root_job_id": "pending", "operation": "strange", "status": "running", "category": "system",
        "session_id": 5, "state_seq": 0, "attempt": 1, "created_at": stranger.started_at,
    }  # fmt: skip
    former, attempt = await store.claim(row)
    assert (former["status"], attempt) == ("cancelled", 0)
    assert ("pending", "cancelled") in await rows(store, tables.jobs, "id", "status")


@each("job_id", ["plain", 'quoted " and \\ %_/', "ünïcode-🎉"])
async def test_a_job_shows_how_many_of_its_lines_are_missing(any_tracker, job_id):
    """Lost lines are counted by reason for this job only, whatever characters its id has (R28)."""
    async with any_tracker.job("holes", job_id=job_id):
        pass
    async with any_tracker.job("whole", job_id=f"whole {job_id}"):
        pass
    recorder = any_tracker._recorder
    numbers = [next(recorder.numbers.counter) for _ in range(8)]
    for job, reason, (first, last) in (
        (job_id, "spool_full", (0, 2)), ("another", "spool_full", (3, 3)), (job_id, "spool_full", (4, 4)), (job_id, "queue_full", (5, 6)),
        (None, "queue_full", (7, 7)),
    ):  # fmt: skip
        recorder.lost.append(Dropped(numbers[first], numbers[last], reason, job))
    any_tracker._engine.flush_soon()
    async with asyncio.timeout(20):
        while not await any_tracker.jobs.lost_events(job_id):
            await asyncio.sleep(0.01)
    assert await any_tracker.jobs.lost_events(job_id) == {"spool_full": 4, "queue_full": 2}
    assert await any_tracker.jobs.lost_events(f"whole {job_id}") == {}
    assert (await any_tracker.verify()).missing == 0


async def test_a_session_watches_its_host_and_the_next_ones_elsewhere(stores):
    """Sessions of other hosts are watched by those before them in a ring, so that a look reads as
    many beside a thousand hosts as beside ten (R11).
    """
    for number in range(1, 13):
        host = "here" if number in (2, 10) else "elsewhere"
        await stores[0].begin_session(
            Session(session_id=number, host=host, boot_id="boot", pid=number)
        )
    await stores[0].end_session(
        Session(session_id=12, host="elsewhere", pid=12), Ending(reason="closed")
    )

    async def watched(number: int, size: int, ids: set[int] = frozenset()) -> list[int]:
        own = Session(session_id=number, host="here", boot_id="boot", pid=number)
        found = await stores[0].fetch(leases.neighbors(own, ids, size))
        assert all(row["now"] >= row["heartbeat_at"] for row in found)
        return sorted({row["session_id"] for row in found})

    assert await watched(10, 3) == [1, 2, 3, 10, 11]
    assert await watched(2, 3) == [2, 3, 4, 5, 10]
    assert await watched(2, 3, {7, 12}) == [2, 3, 4, 5, 7, 10]
    assert await watched(2, 50) == list(range(1, 12))
