"""B16: how fast old events are pruned, alone and with a writer, and the writer's speed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from datetime import timedelta
from time import perf_counter
from typing import Any

from benchmarks import ours
from benchmarks.databases import FILE, NEEDS, SERVERS, SQLITE, SYSTEM, connected, database
from benchmarks.registry import Benchmark, Case, Row
from structjob import Tracker

BESIDE = 4
"""Factor for the number of events to prune with a writer, because the pruning must last long
enough.
"""

BURST = 200
"""Events between two turns of the loop."""

_ATTRS = '{"vm":"5f0c6a5e-7b1d-4a53-9c1e-2f7f3a0f9d11","transferred":482913077215,"ratio":0.7316}'


async def _fill(name: str, url: str, events: int) -> None:
    """Store *events* of a dead process, which are years old and belong to no job."""
    column, value = SYSTEM[name]
    columns = f"session_id, ts, level, message, attrs{column}"
    first = f"INSERT INTO structjob_logs (seq, {columns}) VALUES (1, 1, '2020-01-01 00:00:00.000000', 'info', 'chunk copied', '{_ATTRS}'{value})"
    statements, there = [first], 1
    while there < events:
        statements.append(
            f"INSERT INTO structjob_logs (seq, {columns}) SELECT seq + {there}, {columns} "
            f"FROM structjob_logs WHERE session_id = 1 AND seq <= {min(there, events - there)}"
        )
        there = min(2 * there, events)
    if name == SQLITE:
        with closing(sqlite3.connect(FILE, timeout=10)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        return
    async with connected(name, url) as execute:
        for statement in [*statements, "COMMIT"]:
            await execute(statement)


async def _written(tracker: Any, log: Any, seconds: float) -> float:
    """Log for *seconds* seconds, as fast as it is stored; return the events per second."""
    count, began = 0, perf_counter()
    while perf_counter() - began < seconds:
        ours.burst(log, BURST)
        count += BURST
        await tracker.flush()
    return count / (perf_counter() - began)


async def _prune_on(tracker: Tracker) -> None:
    """Prune until cancelled: a fast machine is done before the writer has been measured."""
    while True:
        await tracker.prune(timedelta(days=30))


def prune(*, events: int, seconds: float, name: str) -> dict[str, float]:
    """Prune *events* alone; then prune while logging, and log for as long without pruning."""

    async def work(url: str) -> dict[str, float]:
        async with ours.tracker(url=url, service="bench") as (tracker, log):
            log.info("ready")
            await tracker.flush()
            await _fill(name, url, events)
            began = perf_counter()
            pruned = await tracker.prune(timedelta(days=30))
            rate = events / (perf_counter() - began)
            assert pruned.events == events

            await _fill(name, url, BESIDE * events)
            alone = await _written(tracker, log, seconds)
            pruning = asyncio.create_task(_prune_on(tracker))
            await asyncio.sleep(0.2)
            beside = await _written(tracker, log, seconds)
            assert not pruning.done(), pruning.exception()
            pruning.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pruning
            again = await _written(tracker, log, seconds)
            return {"rows": rate, "keeps": 2 * beside / (alone + again)}

    with database(name) as url:
        return asyncio.run(work(url))


BENCHMARK = Benchmark(
    name="b16",
    title="pruning at rest, and beside a writer",
    cases=tuple(
        Case(name, prune, needs=needs, server=SERVERS.get(name), options={"name": name})
        for name, needs in NEEDS.items()
    ),
    rows=tuple(
        row
        for name in NEEDS
        for row in (
            Row(
                "B16",
                f"events pruned a second at rest, {name}",
                "rows",
                "/s",
                name,
                better="higher",
                at_least=10_000.0,
            ),
            Row(
                "B16",
                f"the speed that a writer keeps beside it, {name}",
                "keeps",
                "×",
                name,
                better="higher",
                at_least=0.9,
            ),
        )
    ),
    size={"events": 50_000, "seconds": 5.0},
    smoke={"events": 500, "seconds": 0.2},
    rounds=3,
    timeout=600,
)
