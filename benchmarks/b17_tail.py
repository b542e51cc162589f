"""B17: how fast a tail returns stored events, as records and as JSON."""

from __future__ import annotations

import asyncio
from time import perf_counter

from benchmarks.registry import Benchmark, Case, Row


def read(*, events: int, batch: int, encoded: bool) -> dict[str, float]:
    """Store *events* events and read them with a tail, in polls of *batch*; return the best of
    three runs.
    """
    from benchmarks import ours

    async def work() -> dict[str, float]:
        async with ours.step(queue_size=2 * events) as (tracker, log):
            for _ in range(0, events, 1_000):
                ours.burst(log, 1_000)
                await tracker.flush()
            return {"per_second": max([await once(tracker) for _ in range(3)])}

    async def once(tracker: ours.structjob.Tracker) -> float:
        tail = (
            tracker.logs.tail(batch=batch, encoded=True)
            if encoded
            else tracker.logs.tail(batch=batch)
        )
        found = 0
        started = perf_counter()
        while found < events:
            found += len(await tail.poll(0))
        return found / (perf_counter() - started)

    return asyncio.run(work())


BENCHMARK = Benchmark(
    name="b17",
    title="a tail of 100,000 stored events, SQLite",
    cases=(
        Case("records", read, options={"encoded": False}),
        Case("json", read, options={"encoded": True}),
    ),
    rows=(
        Row(
            "B17",
            "events/s of a tail, in polls of 1,000, SQLite",
            "per_second",
            "1/s",
            "records",
            better="higher",
            at_least=80_000,
        ),
        Row(
            "B17",
            "the same as JSON (`encoded=True`), beside records",
            "per_second",
            "1/s",
            "json",
            peers=("records",),
            better="higher",
            at_least=1.3,
        ),
    ),
    size={"events": 100_000, "batch": 1_000},
    smoke={"events": 3_000, "batch": 1_000},
    rounds=3,
    timeout=300,
)
