"""B8: common queries on a database with ten million events, compared with a small one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from time import perf_counter
from typing import Any

from benchmarks.databases import history
from benchmarks.registry import Benchmark, Case, Row

DAY = timedelta(days=1)


def asked(*, jobs: int, events: int, times: int, page: int, share: int = 1) -> dict[str, float]:
    """Run each query up to *times* times, for another job or day each time.

    Returns the 95th percentile of the response times. The history is *share* times smaller: it has
    the same number of jobs per day, but fewer days.
    """
    from benchmarks import ours
    from benchmarks.history import PER_DAY, UNTIL

    chance = random.Random(8)
    length = timedelta(days=jobs / share / PER_DAY)
    file = history(jobs // share, events // share)

    def moment() -> datetime:
        return UNTIL - length * chance.random()

    async def work() -> dict[str, float]:
        async with ours.tracker(url=f"sqlite:///{file}", spool=False) as (tracker, _):
            some = [
                job
                for _ in range(ceil(times / 10))
                for job in await tracker.jobs.list(until=moment(), limit=10)
            ]
            days = [
                {"since": end - DAY, "until": end}
                for end in (UNTIL - max(length - DAY, DAY * 0) * chance.random() for _ in range(20))
            ]
            first = await _ask(
                tracker.logs.list, [{"job_id": job.id, "limit": page} for job in some]
            )
            further = [
                {"job_id": one[0].job_id, "limit": page, "cursor": one.next_cursor}
                for one in first.answers
                if one.next_cursor
            ]
            asked = {
                "first_page": first,
                "next_page": await _ask(tracker.logs.list, further),
                "newest_errors": await _ask(
                    tracker.logs.list, [{"level": "error", "order": "desc", "limit": page}] * times
                ),
                "job_list": await _ask(tracker.jobs.list, [{"limit": page}] * times),
                "failed_jobs": await _ask(
                    tracker.jobs.list, [{"status": ("failed", "crashed"), "limit": page}] * times
                ),
                "find": await _ask(
                    tracker.jobs.find, [{"any_id": job.external_job_id or job.id} for job in some]
                ),
                "operations": await _ask(tracker.stats.operations, days),
                "volume": await _ask(tracker.stats.volume, days),
                "errors": await _ask(tracker.errors.list, days[:5]),
            }
        return {name: 1000 * one.p95 for name, one in asked.items() if one.seconds}

    return asyncio.run(work())


@dataclass(frozen=True, slots=True)
class _Asked:
    answers: list[Any]
    seconds: list[float]

    @property
    def p95(self) -> float:
        return sorted(self.seconds)[ceil(0.95 * len(self.seconds)) - 1]


async def _ask(
    question: Callable[..., Awaitable[Any]], each: Sequence[Mapping[str, Any]]
) -> _Asked:
    answers, seconds = [], []
    for keywords in each:
        start = perf_counter()
        answers.append(await question(**keywords))
        seconds.append(perf_counter() - start)
    return _Asked(answers, seconds)


LARGE, SMALL = "10,000,000 events", "100,000 events"
QUESTIONS = {
    "first_page": ("first page of a job's log", 2),
    "next_page": ("next page of a job's log", 2),
    "newest_errors": ("newest errors", 2),
    "job_list": ("job list", 2),
    "failed_jobs": ("failed jobs", 2),
    "operations": ("operation statistics of a day", 2),
    "find": ("a job by any id", 2),
    "volume": ("events of a day by level, type and category", None),
    "errors": ("error groups of a day", None),
}

BENCHMARK = Benchmark(
    name="b8",
    title="p95 of reading from 10,000,000 events and 100,000 jobs in SQLite; beside the last 100,000 events and 1,000 jobs",
    cases=(Case(LARGE, asked), Case(SMALL, asked, options={"share": 100})),
    rows=tuple(
        Row("B8", work, metric, "ms", LARGE, (SMALL,), at_most=mark)
        for metric, (work, mark) in QUESTIONS.items()
    ),
    size={"jobs": 100_000, "events": 10_000_000, "times": 200, "page": 100},
    smoke={"jobs": 1_000, "events": 20_000, "times": 10, "page": 4},
    timeout=3600,
)
