"""A Galera cluster: every node takes writes, and locks are local to a node. Nothing may depend on
them.
"""

import asyncio
import contextlib
import functools
import os
import threading
import time

import galera
import pytest
from breakable_servers import ServerMissing
from clusters import kill_a_node, open_at_once
from servers import absent
from sqlalchemy import select, update
from store_support import T0, claim_row, event, events, job, no_flush, opened

from structjob.queries.logs import Logs
from structjob.spool.session import Session
from structjob.store import leases, migrations, tables
from structjob.store.contract import Ending, Write
from structjob.store.locks import Lock, LockLost

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("galera"), pytest.mark.timeout(300)]

ROUNDS = int(os.environ.get("STRUCTJOB_TEST_GALERA_ROUNDS", "5"))


@pytest.fixture(scope="module")
def cluster():
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(galera.running())
        except ServerMissing as exc:
            absent("mariadb", str(exc))
        yield running


def test_six_programs_open_an_empty_database_at_once(cluster, tmp_path):
    """Two programs on each node begin at the same moment: the tables are made once, no program
    fails, all is stored (faults 0.7).
    """
    outcome = open_at_once(cluster, tmp_path, ROUNDS)
    assert not outcome.problems, outcome
    assert outcome.offered == ROUNDS * 1_200


def test_a_node_that_is_killed_under_load(cluster, tmp_path):
    """A node dies by kill -9 while programs log to all three: nothing is lost, others' events are
    late for a moment (faults 0.7).
    """
    outcome = kill_a_node(cluster, tmp_path)
    assert not outcome.problems, outcome
    assert outcome.offered == 1_800


async def test_what_another_program_begins_is_never_dropped(cluster):
    """While one creates the tables on one node, another on another node waits, and drops nothing
    (faults 0.7).
    """
    urls = cluster.create("begun")
    statements = migrations.statements("mariadb", "base", migrations.head())
    cluster.nodes[0].sql(f"{statements[0]}; {statements[1]}", database="begun")
    rest = ";\n".join(statements[2:])

    def finish():
        time.sleep(1)
        cluster.nodes[0].sql(rest, database="begun")

    other = threading.Thread(target=finish)
    other.start()
    async with opened(None, urls[1]) as store:
        other.join()
        await store.write(Write(1, events(1, 2)))
    found = cluster.nodes[2].sql(
        "SET wsrep_sync_wait = 1; SELECT count(*) FROM structjob_logs", database="begun"
    )
    assert found.split() == ["2"]


async def test_a_creation_that_nobody_goes_on_with_is_finished(cluster, monkeypatch):
    """A program died while it created the tables: the next one waits until that is plain, and
    creates the rest (faults 0.7).
    """
    monkeypatch.setattr(migrations, "STALLED", 0.3)
    urls = cluster.create("stalled")
    statements = migrations.statements("mariadb", "base", migrations.head())
    cluster.nodes[0].sql(";\n".join(statements[:4]), database="stalled")
    async with opened(None, urls[1]) as store:
        await store.write(Write(1, events(1, 2)))
    found = cluster.nodes[2].sql(
        "SET wsrep_sync_wait = 1; SELECT count(*) FROM structjob_logs", database="stalled"
    )
    assert found.split() == ["2"]


@pytest.fixture
async def apart(cluster, request):
    """Stores of one database on two nodes."""
    urls = cluster.create(request.node.name[:60])
    async with opened(None, urls[0]) as one, opened(None, urls[1]) as two:
        yield one, two


async def both(one, two):
    return await asyncio.gather(one, two)


async def test_two_nodes_start_the_same_jobs(apart):
    """Starts of one job on two nodes at once are attempts one after the other, and an idempotency
    key is one job's (faults 0.7).
    """
    one, two = apart
    for number in range(20):
        rows = [claim_row("same", session=session) for session in (1, 2)]
        found = await both(one.claim(rows[0]), two.claim(rows[1]))
        assert sorted(attempt for _, attempt in found) == [2 * number + 1, 2 * number + 2]
        keyed = [
            claim_row(f"{number}-{session}", session=session, idempotency_key=f"key{number}")
            for session in (1, 2)
        ]
        found = await both(one.claim(keyed[0]), two.claim(keyed[1]))
        assert sorted(attempt for _, attempt in found) == [0, 1]


async def test_two_nodes_end_the_same_session(apart):
    """Two who find a process dead, on two nodes, mark its job once, and explain each hole once
    (faults 0.7).
    """
    one, two = apart
    for number in range(1, 11):
        dead = Session(number, "h", "b", 1, started_at=T0)
        await one.begin_session(dead)
        await one.write(Write(number, events(1, 3), job(1, f"job{number}"), last_seq=5))
        ending = Ending(reason="died", last_seq=5, confirmed=2, absent="in_flight", most=3)
        told = await both(*(store.end_session(dead, ending) for store in apart))
        assert sorted(len(ended.left) for ended in told) == [0, 1]
        gaps = select(tables.gaps.c.first_seq, tables.gaps.c.last_seq).where(
            tables.gaps.c.session_id == number
        )
        assert sorted(map(tuple, (row.values() for row in await two.fetch(gaps)))) == [
            (2, 2),
            (4, 5),
        ]


async def test_two_nodes_reap_the_same_session(apart):
    """Of two who take a silent process for dead, on two nodes, one succeeds (faults 0.7)."""
    one, two = apart
    for number in range(1, 11):
        await one.begin_session(Session(number, "h", "b", 1, started_at=T0))
        (row,) = await two.fetch(leases.OPEN)
        lease = leases.Lease.of(row)
        reap = functools.partial(
            leases.reap, ingest=one.ingest, lease=lease, reason="lease_expired"
        )
        found = await both(one.transact(reap), two.transact(reap))
        assert sorted(crashed is None for crashed in found) == [False, True]


def take_away(connection):
    return connection.execute(
        update(tables.locks).where(tables.locks.c.name == "prune").values(holder=7)
    ).rowcount


async def test_a_lock_is_one_program_s_though_locks_are_local(apart):
    """Of two who take a lock on two nodes one has it; who lost it is stopped where it proves it
    (faults 0.7).
    """
    one, two = apart
    for number in (1, 2):
        await one.begin_session(Session(number, "h", "b", 1, started_at=T0))
    for _ in range(20):
        mine, theirs = Lock("prune", 1), Lock("prune", 2)
        assert sorted(await both(one.transact(mine.take), two.transact(theirs.take))) == [
            False,
            True,
        ]
        for lock in (mine, theirs):
            await one.transact(functools.partial(lock.release, done=True))
    for _ in range(20):
        mine = Lock("prune", 1)
        assert await one.transact(mine.take)
        with contextlib.suppress(LockLost):
            await both(one.transact(mine.prove), two.transact(take_away))
        await two.transact(take_away)
        with pytest.raises(LockLost):
            await one.transact(mine.prove)
        await two.transact(functools.partial(Lock("prune", 1, 7).release, done=True))


async def test_an_attempt_is_settled_on_one_node_and_its_events_come_by_another(apart):
    """What began while the database was away gets its true number, and its events do, whichever
    node stores them (faults 0.7).
    """
    one, two = apart
    await one.claim(claim_row("again", session=1))
    await one.begin_session(Session(2, "h", "b", 1, started_at=T0))
    for number in range(1, 11):
        began = f"2026-01-01 00:00:{number:02}.000000"
        states = job(number, "again", attempt=1, started_at=began, provisional=began)
        lines = b"".join(
            event(10 * number + n, ts=began, job_id="again", attempt=1, provisional=began)
            for n in range(5)
        )
        await both(one.write(Write(2, b"", states)), two.write(Write(2, lines)))
        found = (
            select(tables.logs.c.attempt)
            .distinct()
            .where(tables.logs.c.seq.between(10 * number, 10 * number + 9))
        )
        assert [row["attempt"] for row in await two.fetch(found)] == [number + 1], number


async def test_ids_are_not_the_order_of_the_numbers(apart):
    """Two nodes give ids in steps of their own: a tail and a page hold every event, once (faults
    0.7).
    """
    one, two = apart
    await one.begin_session(Session(1, "h", "b", 1, started_at=T0))
    logs = Logs(two.fetch, no_flush)
    tail = logs.tail(last=0)
    assert await tail.poll(0) == []
    for number in range(1, 51):
        logged = f"2026-01-01 00:00:00.{number:06}"
        await (one, two)[number % 2].write(Write(1, events(number, ts=logged)))
    found = []
    while some := await tail.poll(0):
        found += [event.seq for event in some]
    assert found == list(range(1, 51))
    assert [event.seq for event in await logs.list(limit=1_000)] == list(range(1, 51))
