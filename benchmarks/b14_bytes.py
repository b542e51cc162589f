"""B14: the bytes per stored event, including its share of the indexes."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

from benchmarks import ours
from benchmarks.databases import (
    FILE,
    MARIADB,
    NEEDS,
    POSTGRESQL,
    SERVERS,
    SQLITE,
    connected,
    database,
)
from benchmarks.registry import Benchmark, Case, Row

BURST = 1_000
"""Events between two turns of the loop."""

_SIZES = {
    POSTGRESQL: "SELECT pg_total_relation_size('structjob_logs')",
    MARIADB: "SELECT file_size FROM information_schema.innodb_sys_tablespaces WHERE name = concat(database(), '/structjob_logs')",
}


async def _size(name: str, url: str) -> int:
    """Return the bytes of the log and its indexes."""
    if name == SQLITE:
        with closing(sqlite3.connect(FILE)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (size,) = connection.execute("PRAGMA page_size").fetchone()
            return int(pages * size)
    async with connected(name, url) as execute:
        return int(await execute(_SIZES[name]))


def bytes_per_event(*, events: int, name: str) -> dict[str, float]:
    """Log *events* of the standard payload in one job and step, and return the growth of the
    log.
    """

    async def work(url: str) -> dict[str, float]:
        async with ours.step(url=url) as (tracker, log):
            ours.burst(log, 1)
            await tracker.flush()
            before = await _size(name, url)
            for start in range(0, events, BURST):
                ours.burst(log, min(BURST, events - start))
                await asyncio.sleep(0)
            await tracker.flush()
            return {"bytes": (await _size(name, url) - before) / events}

    with database(name) as url:
        return asyncio.run(work(url))


BENCHMARK = Benchmark(
    name="b14",
    title="bytes per stored event, its indexes included",
    cases=tuple(
        Case(name, bytes_per_event, needs=needs, server=SERVERS.get(name), options={"name": name})
        for name, needs in NEEDS.items()
    ),
    rows=tuple(
        Row("B14", f"bytes per stored event, {name}", "bytes", "B", name, at_most=most)
        for name, most in ((SQLITE, 640.0), (POSTGRESQL, 620.0), (MARIADB, None))
    ),
    size={"events": 200_000},
    smoke={"events": 2_000},
    rounds=3,
    timeout=600,
)
