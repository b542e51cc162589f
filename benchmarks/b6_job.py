"""B6: a whole job with its steps and their lines, until it is stored."""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter

from benchmarks import payload
from benchmarks.registry import Benchmark, Case, Row

LINES = 50


def structjob(*, steps: int, jobs: int) -> dict[str, float]:
    """Run one job after another; the time of each ends when `flush` returns.

    Then all of it is committed.
    """
    from benchmarks import ours

    async def work() -> list[float]:
        took = []
        async with ours.tracker() as (tracker, log):
            for _ in range(jobs + 1):
                start = perf_counter()
                async with tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID) as job:
                    for number in range(steps):
                        async with job.step(f"{payload.STEP}-{number}"):
                            ours.burst(log, LINES)
                await tracker.flush()
                took.append(perf_counter() - start)
            assert await tracker.logs.count(kind="log") == (jobs + 1) * steps * LINES
        return took

    return _taken(asyncio.run(work()))


def eliot(*, steps: int, jobs: int) -> dict[str, float]:
    """Log an action for the job and one for each step, to a file in the page cache."""
    from benchmarks.peers import eliot_file

    return _taken(eliot_file.jobs("eliot.log", jobs + 1, steps, LINES))


def prefect(*, steps: int, jobs: int) -> dict[str, float]:
    """Run a flow with a task for each step, on a running server.

    At most two flows count, because each takes seconds.
    """
    from benchmarks.peers import prefect_flow

    return _taken(prefect_flow.flows(min(jobs, 2) + 1, steps, LINES))


def _taken(seconds: list[float]) -> dict[str, float]:
    """Return the median of the durations without the first one.

    The first run warms up: it opens files, and starts Prefect's server.
    """
    return {"job_ms": 1000 * median(seconds[1:])}


BENCHMARK = Benchmark(
    name="b6",
    title="a job of 20 steps with 50 lines each, until it is stored",
    cases=(
        Case("structjob", structjob),
        Case("eliot, to a file", eliot, needs=("eliot",)),
        Case("Prefect, local server", prefect, needs=("prefect",)),
    ),
    rows=(
        Row(
            "B6",
            "a job of 20 steps × 50 lines",
            "job_ms",
            "ms",
            ours="structjob",
            peers=("Prefect, local server",),
            at_most=1 / 150,
        ),
        Row(
            "B6",
            "a job of 20 steps × 50 lines",
            "job_ms",
            "ms",
            ours="structjob",
            peers=("eliot, to a file",),
            at_most=3,
        ),
    ),
    size={"steps": 20, "jobs": 20},
    smoke={"steps": 2, "jobs": 1},
)
