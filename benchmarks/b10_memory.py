"""B10: the memory needed while events arrive and the database is unavailable."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path

from benchmarks.databases import FILE, MARIADB, NEEDS, POSTGRESQL, SQLITE
from benchmarks.registry import Benchmark, Case, Row

TURN = 1_000
"""Events between two turns of the loop, and between two measurements of the memory."""
WARM_UP = 20_000
NOBODY = {
    POSTGRESQL: "postgresql://nobody@127.0.0.1:1/none",
    MARIADB: "mariadb://nobody@127.0.0.1:1/none",
}
"""URLs with no listening server."""


def resident() -> float:
    """Return the resident memory of this process, in MiB."""
    return (
        int(Path("/proc/self/statm").read_text("ascii").split()[1])
        * os.sysconf("SC_PAGE_SIZE")
        / 2**20
    )


def structjob(*, events: int, name: str) -> dict[str, float]:
    """Log into the spool, which is large enough for all events, while the database is unavailable.

    SQLite is locked by another connection; the servers do not listen.
    """
    from benchmarks import ours

    async def work() -> dict[str, float]:
        url = NOBODY.get(name, f"sqlite:///{FILE}")
        async with ours.tracker(url=url, spool="spool", spool_max_bytes=1 << 40) as (tracker, log):
            holder = sqlite3.connect(FILE, isolation_level=None)
            if name == SQLITE:
                holder.execute("BEGIN IMMEDIATE")
            ours.burst(log, WARM_UP)
            await asyncio.sleep(1.0)
            before = most = resident()
            for _ in range(events // TURN):
                ours.burst(log, TURN)
                await asyncio.sleep(0)
                most = max(most, resident())
            ledger = tracker.ledger()
            assert (
                ledger.stored + ledger.spilled + ledger.in_memory == events // TURN * TURN + WARM_UP
            ), ledger
            assert not ledger.dropped, ledger
            await tracker.aclose(timeout=0.1)
            holder.close()
        return {"rest_mib": before, "growth_mib": most - before}

    return asyncio.run(work())


BENCHMARK = Benchmark(
    name="b10",
    title="resident memory while 2,000,000 events pass with the database stopped, spool on",
    cases=tuple(
        Case(name, structjob, needs=needs, options={"name": name}) for name, needs in NEEDS.items()
    ),
    rows=tuple(
        Row(
            "B10",
            f"growth of memory over 2,000,000 events, {name} stopped",
            "growth_mib",
            "MiB",
            ours=name,
            at_most=32,
        )
        for name in NEEDS
    ),
    size={"events": 2_000_000},
    smoke={"events": 5_000},
    timeout=600,
)
