"""Histories made up at random, and what statistics of them are, counted in plain Python; and a
store to ask.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from database_support import inserted

from structjob.queries import event_counts
from structjob.store.tables import jobs, logs, steps

T0 = datetime(2026, 3, 1, tzinfo=UTC)
JOB_STATUSES = ("pending", "running", "completed", "failed", "cancelled", "crashed")
STEP_STATUSES = ("running", "completed", "failed", "skipped", "cancelled", "crashed", "retrying")
LEVELS = ("debug", "info", "success", "warning", "error", "critical")


class History:
    """Rows of three tables.

    Args:
        seed: Of what chance makes of them.
        jobs: How many jobs there are.
    """

    def __init__(self, seed: int, jobs: int = 120) -> None:
        self._random = random.Random(seed)
        self.jobs = [self._job(n) for n in range(jobs)]
        self.steps = [
            self._step(job, seq)
            for job in self.jobs
            for seq in range(1, self._random.randint(1, 5))
        ]
        self.logs = [self._log(seq) for seq in range(1, 6 * jobs)]

    def _moment(self) -> datetime:
        # On the borders of seconds and hours, too.
        return T0 + timedelta(
            hours=self._random.randint(0, 30),
            seconds=self._random.randint(0, 3599),
            microseconds=self._random.choice((0, 1, 500_000, 999_999)),
        )

    def _duration(self, status: str) -> float | None:
        if status in ("pending", "running") or self._random.random() < 0.05:
            return None
        # exact in every database; some are equal
        return self._random.choice((0.0, 10.0, 10.0, 12.5, self._random.randint(1, 10**6) / 8))

    def _job(self, n: int) -> dict[str, object]:
        status = self._random.choices(JOB_STATUSES, (1, 1, 12, 4, 1, 1))[0]
        return {
            "id": f"job-{n:04}", "operation": self._random.choice(("copy", "Copy", "verify", "it's; DROP")), "status": status,
            "project": self._random.choice((None, "moon", "mars")), "owner": self._random.choice((None, "ada")),
            "job_type": self._random.choice((None, "migration")), "category": self._random.choice(("system", "batch")),
            "attempt": self._random.randint(0, 3), "created_at": self._moment(), "duration_ms": self._duration(status),
            "cpu_ms": self._random.choice((None, 2.0, 4.5)), "max_rss_kb": self._random.choice((None, 1000, 20_000)),
        }  # fmt: skip

    def _step(self, job: dict[str, object], seq: int) -> dict[str, object]:
        status = self._random.choices(STEP_STATUSES, (1, 12, 4, 1, 1, 1, 2))[0]
        return {
            "id": f"{job['id']}-{seq}", "job_id": job["id"], "attempt": max(1, int(str(job["attempt"]))), "seq": seq, "status": status,
            "name": self._random.choice(("load", "save")), "started_at": self._moment(), "duration_ms": self._duration(status),
        }  # fmt: skip

    def _log(self, seq: int) -> dict[str, object]:
        job = self._random.choice((None, *self.jobs[:20]))
        type_ = "system" if job is None else self._random.choice(("job", "task"))
        return {
            "session_id": 1, "seq": seq, "ts": self._moment(), "level": self._random.choices(LEVELS, (4, 9, 1, 2, 2, 1))[0],
            "message": "m", "type": type_, "job_id": None if job is None else job["id"],
            "step_id": "its-step" if type_ == "task" else None,
            "operation": None if job is None else job["operation"],
            "category": self._random.choice(("system", "batch", "web")), "project": None if job is None else job["project"],
        }  # fmt: skip


def within(rows, time, since=None, until=None, **equal):
    """Return the rows of a window."""
    return [
        row
        for row in rows
        if (since is None or row[time] >= since)
        and (until is None or row[time] < until)
        and all(row[name] == value for name, value in equal.items() if value is not None)
    ]


def grouped(rows, *names):
    """Return the rows by the values of *names*."""
    groups = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def nearest_rank(durations, percent):
    """Return the percentile by its definition."""
    return sorted(durations)[math.ceil(len(durations) * percent / 100) - 1] if durations else None


def summary(rows, statuses):
    """Return what a `Summary` of *rows* holds."""
    counts = Counter(row["status"] for row in rows)
    durations = [
        row["duration_ms"]
        for row in rows
        if row["status"] == "completed" and row["duration_ms"] is not None
    ]
    judged = counts["completed"] + counts["failed"] + counts["crashed"]
    return {
        "total": len(rows), **{status: counts[status] for status in statuses},
        "success_rate": 100 * counts["completed"] / judged if judged else None,
        "avg_ms": sum(durations) / len(durations) if durations else None,
        **{f"p{percent}_ms": nearest_rank(durations, percent) for percent in (50, 95, 99)},
    }  # fmt: skip


def job_summary(rows):
    """Return what a `JobSummary` of *rows* holds."""
    cpu = [row["cpu_ms"] for row in rows if row["cpu_ms"] is not None]
    rss = [row["max_rss_kb"] for row in rows if row["max_rss_kb"] is not None]
    return {
        **summary(rows, JOB_STATUSES), "attempts": sum(row["attempt"] for row in rows),
        "avg_cpu_ms": sum(cpu) / len(cpu) if cpu else None, "max_rss_kb": max(rss, default=None),
    }  # fmt: skip


async def events_of_large_jobs(stats, *ids):
    """Count the events of jobs as if each was too large to be counted in the index of jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_counts, "ENTRIES", 0)
        return await stats.events_by_job(ids)


class Store:
    """What the queries ask of a store, on a database, and a list of what they asked for.

    Args:
        database: With tables.
    """

    def __init__(self, database) -> None:
        self.kind = database.kind
        self.flushed = 0
        self.asked: list[sa.Executable] = []
        self._database = database
        self._engine = database.engine

    async def fetch(self, statement):
        """Run a query."""
        self.asked.append(statement)
        return await self._database.fetch(statement)

    async def flush(self) -> None:
        """Count that what is pending was to be delivered."""
        self.flushed += 1

    async def transact(self, call):
        """Run a call in a transaction."""
        async with self._engine.begin() as connection:
            return await connection.run_sync(call)

    async def add(self, table, *rows) -> None:
        """Insert *rows*, which have the same columns."""
        async with self._engine.begin() as connection:
            if rows and table is logs:
                await connection.execute(*inserted(connection, *rows))
            elif rows:
                await connection.execute(table.insert(), list(rows))

    async def keep(self, history):
        """Insert a whole `History`, and return it."""
        await self.add(jobs, *history.jobs)
        await self.add(steps, *history.steps)
        await self.add(logs, *history.logs)
        return history

    async def plan(self, statement):
        """Return how SQLite would run *statement*."""
        return await self._database.plan(statement)

    @property
    def sent(self):
        """The text of every statement that was sent."""
        return [str(statement.compile(dialect=self._engine.dialect)) for statement in self.asked]
