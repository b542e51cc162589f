"""B5: how much later the event loop's timers fire while 5,000 events per second are logged and
stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from benchmarks import payload
from benchmarks.databases import NEEDS, SERVERS, SQLITE, database
from benchmarks.peers.sqlite_rows import create_tables
from benchmarks.registry import Benchmark, Case, Row

DATABASE = "bench.db"
PROBE = 0.001
"""Seconds between two readings of the clock."""


async def lag(seconds: float, rate: int, log: Callable[[int], object]) -> dict[str, float]:
    """Log *rate* events per second in intervals of 1 ms, and measure how late a sleeping task
    wakes.
    """
    late: list[float] = []
    end = perf_counter() + seconds

    async def pace() -> None:
        start, logged = perf_counter(), 0
        while (now := perf_counter()) < end:
            due = int((now - start) * rate) - logged
            log(due)
            logged += due
            await asyncio.sleep(0.001)

    async def probe() -> None:
        while (before := perf_counter()) < end:
            await asyncio.sleep(PROBE)
            late.append(perf_counter() - before - PROBE)

    async with asyncio.TaskGroup() as group:
        group.create_task(pace())
        group.create_task(probe())
    late.sort()
    return {
        "p50_ms": _quantile(late, 0.5),
        "p99_ms": _quantile(late, 0.99),
        "max_ms": late[-1] * 1_000,
    }


def _quantile(values: list[float], share: float) -> float:
    return values[min(int(len(values) * share), len(values) - 1)] * 1_000


def structjob(*, seconds: float, rate: int, name: str) -> dict[str, float]:
    """Log through structjob with its default options."""
    from benchmarks import ours

    async def work(url: str) -> dict[str, float]:
        async with ours.step(url=url) as (tracker, log):
            ours.burst(log, 100)
            await tracker.flush()
            return await lag(seconds, rate, lambda count: ours.burst(log, count))

    with database(name) as url:
        return asyncio.run(work(url))


def no_logging(*, seconds: float, rate: int) -> dict[str, float]:
    """Run the same loop without logging."""
    return asyncio.run(lag(seconds, rate, lambda _: None))


def stdlib(*, seconds: float, rate: int) -> dict[str, float]:
    """Log through the standard library's QueueListener, which stores in a thread."""
    from benchmarks.peers import stdlib_queue

    create_tables(DATABASE)
    peer = stdlib_queue.to_sqlite(DATABASE)

    async def work() -> dict[str, float]:
        peer.bind(payload.CONTEXT)
        peer.burst(100)
        peer.settle()
        return await lag(seconds, rate, peer.burst)

    measured = asyncio.run(work())
    peer.settle()
    return measured


def _rows() -> list[Row]:
    rows = []
    for name in NEEDS:
        work = f"p99 loop lag at 5,000 events/s, {name}"
        rows.append(
            Row(
                "B5",
                work,
                "p99_ms",
                "ms",
                ours=name,
                peers=("no logging",),
                compare="difference",
                at_most=1,
            )
        )
        if name == SQLITE:
            rows.append(
                Row(
                    "B5",
                    work,
                    "p99_ms",
                    "ms",
                    ours=name,
                    peers=("stdlib QueueListener",),
                    compare="difference",
                )
            )
        rows.append(
            Row(
                "B5",
                f"longest {work[4:]}",
                "max_ms",
                "ms",
                ours=name,
                peers=("no logging",),
                compare="difference",
            )
        )
    return rows


BENCHMARK = Benchmark(
    name="b5",
    title="event-loop lag at a paced 5,000 events/s, beside the same loop without logging",
    cases=(
        Case("no logging", no_logging),
        Case("stdlib QueueListener", stdlib, needs=("orjson",)),
        *(
            Case(name, structjob, needs=needs, server=SERVERS.get(name), options={"name": name})
            for name, needs in NEEDS.items()
        ),
    ),
    rows=tuple(_rows()),
    size={"seconds": 8.0, "rate": 5_000},
    smoke={"seconds": 0.3, "rate": 1_000},
)
