"""B19: a job in a plain `with` block, compared with the same job in `async with`."""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter_ns

import structlog

import structjob as library
from benchmarks import payload
from benchmarks.registry import Benchmark, Case, Row

URL = "sqlite:///bench.db"


def _medians(accepted: list[int], committed: list[int]) -> dict[str, float]:
    return {
        "accepted_us": median(accepted) / 1_000,
        "committed_us": median(committed) / 1_000,
    }


def without_loop(*, jobs: int) -> dict[str, float]:
    """Run jobs of one step and one line, one after another, in code without an event loop."""
    library.configure(console=False)
    log = structlog.get_logger("app")
    took: dict[bool, list[int]] = {False: [], True: []}
    with library.Tracker(URL) as tracker:
        for wait in (False, True):
            for _ in range(jobs):
                start = perf_counter_ns()
                with tracker.job(payload.JOB, wait=wait) as job, job.step(payload.STEP):
                    log.info("one line")
                took[wait].append(perf_counter_ns() - start)
            tracker.run(tracker.flush())
    return _medians(took[False], took[True])


def with_loop(*, jobs: int) -> dict[str, float]:
    """Run the same jobs with `async with`."""
    library.configure(console=False)
    log = structlog.get_logger("app")
    took: dict[bool, list[int]] = {False: [], True: []}

    async def work() -> None:
        async with library.Tracker(URL) as tracker:
            for wait in (False, True):
                for _ in range(jobs):
                    start = perf_counter_ns()
                    async with (
                        tracker.job(payload.JOB, wait=wait) as job,
                        job.step(payload.STEP),
                    ):
                        log.info("one line")
                    took[wait].append(perf_counter_ns() - start)
                await tracker.flush()

    asyncio.run(work())
    return _medians(took[False], took[True])


BENCHMARK = Benchmark(
    name="b19",
    title="a job of one step and one line: `with` beside `async with`",
    cases=(Case("with", without_loop), Case("async with", with_loop)),
    rows=(
        Row(
            "B19",
            "a job in `with`, its start not waited for (median)",
            "accepted_us",
            "µs",
            ours="with",
            peers=("async with",),
            at_most=1.3,
        ),
        Row(
            "B19",
            "a job in `with`, its start committed (median)",
            "committed_us",
            "µs",
            ours="with",
            peers=("async with",),
            at_most=1.3,
        ),
    ),
    size={"jobs": 300},
    smoke={"jobs": 5},
)
