"""What users write: mypy --strict and pyright find nothing wrong in it. It is never run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack, assert_type

import structlog

import structjob
from structjob import (
    EventRecord,
    Gap,
    Job,
    JobFilter,
    JobRecord,
    JobStatus,
    LogFilter,
    Page,
    SinkEvent,
    Step,
    StepRecord,
)
from structjob.processors import FanOut, Sampler, add_context, record_event
from structjob.typing import (
    BoundLogger,
    Estimate,
    JobKeywords,
    Jobs,
    Level,
    LogFilterKeywords,
    OperationStatistics,
)

log: BoundLogger = structlog.get_logger()


class Counter:
    """A sink."""

    def emit(self, record: SinkEvent) -> None:
        """Take an event."""


def show(event: SinkEvent) -> None:
    """Take an event: a sink as a function."""


def classify(exc: BaseException) -> dict[str, Any]:
    """Derive the fields of an error."""
    return {"error_type": type(exc).__name__}


async def resolve(any_id: str) -> str | None:
    """Resolve an id of another system."""
    return None


structjob.configure(console="pretty", level="debug", sinks=[Counter(), show], classifier=classify)
structlog.configure(processors=[add_context, Sampler(10), record_event, FanOut()])

tracker = structjob.Tracker(Path("jobs.db"), level="debug", project="apollo", resolve_id=resolve)
memory = structjob.Tracker(":memory:", overflow="block", retention=structjob.Retention(days=30))


@tracker.job("nightly", owner="ada")
async def nightly(day: str) -> int:
    """Have a job around each call."""
    return len(day)


@structjob.step("load", total=3)
async def load(path: str) -> bytes:
    """Have a step around each call."""
    return path.encode()


async def handles() -> None:
    """Use live jobs and steps."""
    assert_type(await nightly("monday"), int)
    assert_type(await load("a"), bytes)
    async with tracker.job("copy", external_job_id="gui-1", metadata={"vm": 1}) as job:
        assert_type(job, Job)
        assert_type(job.status, JobStatus)
        job.result = {"bytes": 7}
        job.update(percent=50, current_step="copy")
        async with job.step("read", total=10) as step:
            assert_type(step, Step)
            step.advance(2)
            step.update(completed=3)
            async for number in step.track([1, 2, 3]):
                assert_type(number, int)
        async with job.child("verify"):
            log.success("verified", n=1)
    async with structjob.step("somewhere") as anywhere:
        assert_type(anywhere, Step)
        anywhere.advance()
    async for attempt in tracker.retrying("upload", max_attempts=3, on=OSError, owner="ada"):
        async with attempt as job:
            assert_type(job, Job)


async def reads(jobs: Jobs, record: JobRecord) -> None:
    """Read jobs, events and statistics."""
    page = await jobs.list(status=("failed", "crashed"), since=timedelta(hours=3), limit=10)
    assert_type(page, Page[JobRecord])
    assert_type(page[0], JobRecord)
    assert_type(page.next_cursor, str | None)
    assert_type(await jobs.find(record), JobRecord)
    assert_type(await jobs.steps("gui-1"), list[StepRecord])
    assert_type(await jobs.estimate("gui-1"), Estimate)
    assert_type(await jobs.lost_events(record), dict[str, int])
    await jobs.list(JobFilter(operation="copy", metadata={"vm": 1}), order="asc")
    async for event in tracker.logs.iterate(LogFilter(job=record), level="warning"):
        assert_type(event, EventRecord)
    async for each in tracker.logs.tail(job="gui-1", gaps=True):
        assert_type(each, EventRecord | Gap)
    assert_type(await tracker.stats.operations(by="ended"), list[OperationStatistics])
    await tracker.errors.list(status=["open", "regressed"], job=record)
    listener = tracker.listen(print, level="error")
    listener.close()


async def wrapper(operation: str, **options: Unpack[JobKeywords]) -> None:
    """Pass the options of a job on."""
    async with tracker.job(operation, **options):
        pass


async def search(least: Level, **filters: Unpack[LogFilterKeywords]) -> Sequence[EventRecord]:
    """Pass a filter on."""
    filters["level"] = least
    return await tracker.logs.list(**filters)


def errors(exc: structjob.StructjobError) -> str:
    """Use what exceptions carry."""
    if isinstance(exc, structjob.JobNotFound):
        return exc.any_id
    if isinstance(exc, structjob.StoreUnavailable):
        return str(exc.permanent)
    return ""
