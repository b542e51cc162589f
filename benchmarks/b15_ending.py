"""B15: how long it takes to end a long session with many gaps, and how long that blocks the
loop.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from contextlib import closing
from time import perf_counter, thread_time

from benchmarks.databases import FILE, NEEDS, SERVERS, SQLITE, SYSTEM, connected, database
from benchmarks.registry import Benchmark, Case, Row

PROBE = 0.001
"""Seconds between two readings of the clock."""


def _statements(name: str, events: int, gaps: int) -> list[str]:
    """Return the statements that insert the events of one session and delete some of them, evenly
    spread.
    """
    column, value = SYSTEM[name]
    columns = f"session_id, ts, level, message{column}"
    first = f"INSERT INTO structjob_logs (seq, {columns}) VALUES (1, 1, '2026-01-01 00:00:00.000000', 'info', 'chunk copied'{value})"
    filling, there = [first], 1
    while there < events:
        filling.append(
            f"INSERT INTO structjob_logs (seq, {columns}) SELECT seq + {there}, {columns} "
            f"FROM structjob_logs WHERE session_id = 1 AND seq <= {min(there, events - there)}"
        )
        there = min(2 * there, events)
    every = events // gaps
    return [
        *filling,
        f"DELETE FROM structjob_logs WHERE session_id = 1 AND seq % {every} = {every // 2}",
    ]


def _fill(name: str, url: str, statements: list[str]) -> None:
    if name == SQLITE:
        with closing(sqlite3.connect(FILE)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return

    async def work() -> None:
        async with connected(name, url) as execute:
            for statement in [*statements, "COMMIT"]:
                await execute(statement)

    asyncio.run(work())


async def _pauses(done: asyncio.Event) -> dict[str, float]:
    """Measure the maximum delay of a sleeping task, and the maximum CPU time of the loop between
    wake-ups.
    """
    late = computed = 0.0
    while not done.is_set():
        before, used = perf_counter(), thread_time()
        await asyncio.sleep(PROBE)
        late = max(late, perf_counter() - before - PROBE)
        computed = max(computed, thread_time() - used)
    return {"pause_ms": late * 1_000, "computed_ms": computed * 1_000}


def end(*, events: int, gaps: int, name: str) -> dict[str, float]:
    """Measure how long it takes to end a dead process's session and explain all of its gaps.

    Its spool is delivered before.
    """
    from structjob.spool.session import Session
    from structjob.store.contract import Ending, Store
    from structjob.store.factory import make_store

    async def work(store: Store) -> dict[str, float]:
        await store.open()
        try:
            await store.begin_session(Session(session_id=1))
            # collect the imports' garbage now: a full collection takes 60 ms, and would come at a
            # random moment
            gc.collect()
            done = asyncio.Event()
            probe = asyncio.create_task(_pauses(done))
            await asyncio.sleep(0.1)
            ending = Ending(
                reason="died",
                last_seq=events,
                confirmed=events - gaps,
                absent="in_flight",
                most=gaps,
            )
            began = perf_counter()
            ended = await store.end_session(Session(session_id=1), ending)
            seconds = perf_counter() - began
            done.set()
            assert (ended.explained, ended.missing) == (gaps, 0)
            return {"seconds": seconds, **await probe}
        finally:
            await store.close()

    async def make(url: str) -> None:
        store = make_store(url, {})
        await store.open()
        await store.close()

    with database(name) as url:
        asyncio.run(make(url))
        _fill(name, url, _statements(name, events, gaps))
        return asyncio.run(work(make_store(url, {})))


BENCHMARK = Benchmark(
    name="b15",
    title="ending a session of 1,000,000 events with 1,000 gaps",
    cases=tuple(
        Case(name, end, needs=needs, server=SERVERS.get(name), options={"name": name})
        for name, needs in NEEDS.items()
    ),
    rows=tuple(
        row
        for name in NEEDS
        for row in (
            Row(
                "B15",
                f"ending a session of 1,000,000 events with 1,000 gaps, {name}",
                "seconds",
                "s",
                name,
                at_most=5.0,
            ),
            Row(
                "B15",
                f"the loop's longest pause meanwhile, {name}",
                "pause_ms",
                "ms",
                name,
                at_most=5.0,
            ),
            Row(
                "B15",
                f"the most that the loop's thread computed within a pause, {name}",
                "computed_ms",
                "ms",
                name,
            ),
        )
    ),
    size={"events": 1_000_000, "gaps": 1_000},
    smoke={"events": 2_000, "gaps": 20},
    rounds=3,
    timeout=600,
)
