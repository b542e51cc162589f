"""structjob's side of the comparison, through its public API only.

It is imported in the process that measures, whose standard output is /dev/null.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

import structjob
from benchmarks import payload

DATABASE = "bench.db"
"""A file in the empty working directory of each measured process."""


@asynccontextmanager
async def tracker(
    *, console: str | bool = False, url: str = f"sqlite:///{DATABASE}", **options: Any
) -> AsyncIterator[tuple[structjob.Tracker, Any]]:
    """Configure logging, open a tracker with its defaults, and yield it with a logger.

    The default database is a new SQLite file.
    """
    structjob.configure(console=console, level="info")
    async with structjob.Tracker(url, **options) as opened:
        yield opened, structlog.get_logger().bind()  # as the structlog peers do


@asynccontextmanager
async def step(**options: Any) -> AsyncIterator[tuple[structjob.Tracker, Any]]:
    """Yield the same, inside a job and a step with a correlation id."""
    async with (
        tracker(**options) as (opened, log),
        opened.job(payload.JOB, correlation_id=payload.CORRELATION_ID) as job,
        job.step(payload.STEP),
    ):
        yield opened, log


def burst(log: Any, count: int) -> None:
    """Log *count* events, exactly as the structlog peer does."""
    for number in range(count):
        log.info(
            payload.MESSAGE,
            vm=payload.VM,
            transferred=payload.TRANSFERRED + number,
            ratio=payload.RATIO,
            verified=True,
            path=payload.PATH,
        )
