"""B21: a program that prints many lines, recorded by `job.run_process`.

Rates and turns are of CPU time of the loop's thread, because the program itself, the database's
thread and other programs share the cores.
"""

from __future__ import annotations

import asyncio
import sys
from time import thread_time

import structjob as library
from benchmarks.registry import Benchmark, Case, Row

URL = "sqlite:///bench.db"
NUMBERS = "for n in range({lines}): print(n)"
SENTENCES = (
    "for n in range({lines}): print('2026-01-01 INFO worker: copied file number', n, 'to the disk')"
)


def run_process(*, lines: int, program: str) -> dict[str, float]:
    """Run a program that prints *lines* lines."""
    library.configure(console=False)
    turns: list[float] = []

    async def watch() -> None:
        while True:
            before = thread_time()
            await asyncio.sleep(0)
            turns.append(thread_time() - before)

    async def work() -> float:
        async with library.Tracker(URL) as tracker:
            async with tracker.job("build") as job:
                watching = asyncio.create_task(watch())
                before = thread_time()
                await job.run_process([sys.executable, "-c", program.format(lines=lines)])
                took = thread_time() - before
                watching.cancel()
            return took

    took = asyncio.run(work())
    turns.sort()
    return {"rate": lines / took, "turn_ms": turns[int(len(turns) * 0.99)] * 1_000}


BENCHMARK = Benchmark(
    name="b21",
    title="a program's output, recorded line by line",
    cases=(
        Case("numbers", run_process, options={"program": NUMBERS}),
        Case("sentences", run_process, options={"program": SENTENCES}),
    ),
    rows=(
        Row(
            "B21",
            "lines per second of CPU, numbers",
            "rate",
            "lines/s",
            ours="numbers",
            better="higher",
            at_least=150_000,
        ),
        Row(
            "B21",
            "lines per second of CPU, sentences with a time",
            "rate",
            "lines/s",
            ours="sentences",
            better="higher",
        ),
        Row(
            "B21", "99 % of the loop's turns meanwhile", "turn_ms", "ms", ours="numbers", at_most=5
        ),
    ),
    size={"lines": 200_000},
    smoke={"lines": 100},
    rounds=3,
)
