"""B9: the cost of storing in a full database, compared with a nearly empty one."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.databases import FILE, history
from benchmarks.registry import Benchmark, Case, Row


def stored(*, jobs: int, events: int, more: int, share: int = 1) -> dict[str, float]:
    """Store *more* events of the day after the last stored one, including the changes of state.

    The events are generated before the time starts. The large history grows a little with each
    round; the small one is copied before each round.
    """
    from benchmarks.generate import deliver
    from benchmarks.history import PER_DAY, History
    from structjob.queries.logs import Logs
    from structjob.store.factory import make_store

    file = history(jobs // share, events // share)
    if share > 1:
        file = Path(FILE).absolute()
        file.write_bytes(history(jobs // share, events // share).read_bytes())
    count = max(1, more * jobs // events)

    async def work() -> dict[str, float]:
        store = make_store(f"sqlite:///{file}", {})
        await store.open()
        try:
            (newest,) = await Logs(store.fetch, _nothing_pending).list(order="desc", limit=1)
            until = newest.ts + timedelta(days=1 + count / PER_DAY)
            batches = list(History(count, more, seed=secrets.randbits(32), until=until))
            start, cpu = perf_counter(), process_time()
            for batch in batches:
                await deliver(store, batch)
            seconds, cpu_seconds = perf_counter() - start, process_time() - cpu
        finally:
            await store.close()
        return {"event_us": 1_000_000 * seconds / more, "cpu_us": 1_000_000 * cpu_seconds / more}

    return asyncio.run(work())


async def _nothing_pending() -> None:
    """Do nothing, because there is no tracker."""


LARGE, SMALL = "10,000,000 stored", "10,000 stored"

BENCHMARK = Benchmark(
    name="b9",
    title="cost of storing an event where 10,000,000 are stored, beside 10,000",
    cases=(Case(LARGE, stored), Case(SMALL, stored, options={"share": 1_000})),
    rows=(
        Row(
            "B9",
            "storing an event, its share of jobs and steps included",
            "event_us",
            "µs",
            LARGE,
            (SMALL,),
            at_most=1.3,
        ),
        Row("B9", "the same, in CPU time", "cpu_us", "µs", LARGE, (SMALL,)),
    ),
    size={"jobs": 100_000, "events": 10_000_000, "more": 100_000},
    smoke={"jobs": 1_000, "events": 20_000, "more": 1_000},
    timeout=3600,
)
