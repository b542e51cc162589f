"""B7: the cost of a job and of a step without any lines."""

from __future__ import annotations

import asyncio
from time import perf_counter_ns

from benchmarks import payload
from benchmarks.peers.sqlite_rows import connect, create_tables
from benchmarks.registry import Benchmark, Case, Row

DATABASE = "bench.db"


def structjob(*, jobs: int, steps: int) -> dict[str, float]:
    """Run jobs one after another, each committed at start and at end; then the steps of one job."""
    from benchmarks import ours

    async def work() -> dict[str, float]:
        async with ours.tracker() as (tracker, _):
            async with tracker.job("warm-up"):
                pass
            await tracker.flush()

            start = perf_counter_ns()
            for _ in range(jobs):
                async with tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID):
                    pass
                await tracker.flush()
            committed = perf_counter_ns() - start

            start = perf_counter_ns()
            for _ in range(jobs):
                async with tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID):
                    pass
            accepted = perf_counter_ns() - start

            async with tracker.job(payload.JOB) as job:
                await tracker.flush()
                start = perf_counter_ns()
                for _ in range(steps):
                    async with job.step(payload.STEP):
                        pass
                entered = perf_counter_ns() - start
        return {
            "job_us": committed / jobs / 1_000,
            "job_accepted_us": accepted / jobs / 1_000,
            "step_us": entered / steps / 1_000,
        }

    return asyncio.run(work())


INSERT = "INSERT INTO structjob_jobs (id, operation, status, category, created_at, started_at) VALUES (?, ?, 'running', 'system', ?, ?)"
UPDATE = "UPDATE structjob_jobs SET status = 'completed', completed_at = ?, duration_ms = 1.0 WHERE id = ?"
NOW = "2026-01-01 00:00:00.000000"


def sqlite(*, jobs: int, steps: int) -> dict[str, float]:
    """Use the standard library's driver in the calling thread: insert, commit; update, commit."""
    create_tables(DATABASE)
    connection = connect(DATABASE)
    start = perf_counter_ns()
    for number in range(jobs):
        for statement, values in (
            (INSERT, (f"job-{number}", payload.JOB, NOW, NOW)),
            (UPDATE, (NOW, f"job-{number}")),
        ):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(statement, values)
            connection.execute("COMMIT")
    return {"job_us": (perf_counter_ns() - start) / jobs / 1_000}


def aiosqlite(*, jobs: int, steps: int) -> dict[str, float]:
    """Do the same through aiosqlite, as an asyncio program would have to."""
    import aiosqlite as driver

    create_tables(DATABASE)

    async def work() -> float:
        async with driver.connect(DATABASE) as connection:
            await connection.execute("PRAGMA journal_mode=WAL")
            await connection.execute("PRAGMA synchronous=NORMAL")
            start = perf_counter_ns()
            for number in range(jobs):
                await connection.execute(INSERT, (f"job-{number}", payload.JOB, NOW, NOW))
                await connection.commit()
                await connection.execute(UPDATE, (NOW, f"job-{number}"))
                await connection.commit()
            return (perf_counter_ns() - start) / jobs / 1_000

    return {"job_us": asyncio.run(work())}


BENCHMARK = Benchmark(
    name="b7",
    title="a job's start and end, committed, beside two bare commits; a step's enter and exit",
    cases=(Case("structjob", structjob), Case("sqlite3", sqlite), Case("aiosqlite", aiosqlite)),
    rows=(
        Row(
            "B7",
            "job start + end, both committed",
            "job_us",
            "µs",
            ours="structjob",
            peers=("sqlite3",),
            at_most=2,
        ),
        Row(
            "B7",
            "job start + end, both committed",
            "job_us",
            "µs",
            ours="structjob",
            peers=("aiosqlite",),
        ),
        Row(
            "B7",
            "job start committed, end in the spool",
            "job_accepted_us",
            "µs",
            ours="structjob",
            peers=("sqlite3",),
            peer_metric="job_us",
        ),
        Row("B7", "step enter + exit", "step_us", "µs", ours="structjob", at_most=60),
    ),
    size={"jobs": 500, "steps": 2_000},
    smoke={"jobs": 5, "steps": 10},
)
