"""B11: how fast the spool of a killed process is delivered."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from time import perf_counter

from benchmarks import payload
from benchmarks.b2_store import structjob as store
from benchmarks.databases import NEEDS, SERVERS, SQLITE, count_stored, database
from benchmarks.registry import Benchmark, Case, Row

SPOOL = "spool"
KILLED = """
import asyncio, os, signal, sys
from benchmarks import ours, payload

async def main(events):
    # No server listens there: everything stays in the spool.
    async with (
        ours.tracker(url="postgresql://nobody@127.0.0.1:1/none", spool={spool!r}) as (tracker, log),
        tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID) as job,
        job.step(payload.STEP),
    ):
        ours.burst(log, events)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(int(sys.argv[1])))
"""


def recover(*, events: int, name: str) -> dict[str, float]:
    """Deliver the spool of a process that logged and was killed.

    The time is measured from opening a tracker on its spool until `flush` returns.
    """
    from benchmarks import ours

    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(spool=SPOOL), str(events)],
        check=False,
        stderr=subprocess.PIPE,
    )
    assert done.returncode == -9, done.stderr.decode()

    async def work(url: str) -> float:
        start = perf_counter()
        async with ours.tracker(url=url, spool=SPOOL) as (tracker, _):
            await tracker.flush()
            return perf_counter() - start

    with database(name) as url:
        seconds = asyncio.run(work(url))
        assert count_stored(name, url, payload.MESSAGE) == events
    return {"per_second": events / seconds}


def stored(*, events: int) -> dict[str, float]:
    """Do the work of B2."""
    return store(events=events // 5)


BENCHMARK = Benchmark(
    name="b11",
    title="the spool of 1,000,000 events of a killed process, delivered; beside events stored while they are logged (B2)",
    cases=(
        Case("stored while logged, SQLite", stored),
        *(
            Case(
                name,
                recover,
                needs=("asyncpg", *needs),
                server=SERVERS.get(name),
                options={"name": name},
            )
            for name, needs in NEEDS.items()
        ),
    ),
    rows=tuple(
        Row(
            "B11",
            f"recovered into {name}",
            "per_second",
            "/s",
            name,
            ("stored while logged, SQLite",),
            better="higher",
            at_least=mark,
        )
        if name == SQLITE
        else Row("B11", f"recovered into {name}", "per_second", "/s", name)
        for name, mark in ((name, 0.8) for name in NEEDS)
    ),
    size={"events": 1_000_000},
    smoke={"events": 1_000},
    timeout=900,
)
