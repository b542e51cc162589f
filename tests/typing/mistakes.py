"""What users get wrong: mypy --strict and pyright must find each marked line, and no other. It is
never run.
"""

from __future__ import annotations

import structjob
from structjob import LogFilter, SinkEvent, Tracker

tracker = Tracker()


class AsyncSink:
    """A sink that would never be awaited."""

    async def emit(self, record: SinkEvent) -> None:
        """Take an event."""


def seven(any_id: str) -> int:
    """Resolve an id to a value that is no id."""
    return 7


structjob.Trakcer  # mistake
structjob.JobRecrod  # mistake
structjob.configure(console="prety")  # mistake
structjob.configure(level="eror")  # mistake
structjob.configure(sinks=[7])  # mistake
structjob.configure(sinks=[AsyncSink()])  # mistake
Tracker(levl="info")  # mistake
structjob.init(levl="info")  # mistake
Tracker(level="verbose")  # mistake
Tracker(overflow="drop")  # mistake
Tracker(resolve_id=seven)  # mistake
Tracker(classifier=7)  # mistake
LogFilter(type="step")  # mistake
LogFilter(level="eror")  # mistake


async def reads() -> None:
    """Misspell filters and values."""
    await tracker.jobs.list(statuss="failed")  # mistake
    await tracker.jobs.list(status="faild")  # mistake
    await tracker.jobs.list(order="up")  # mistake
    await tracker.logs.list(levl="error")  # mistake
    await tracker.logs.list(level="eror")  # mistake
    await tracker.logs.count(since="yesterday")  # mistake
    tracker.logs.tail(levl="error")  # mistake
    tracker.listen(print, levl="error")  # mistake
    await tracker.stats.operations(sinc=1)  # mistake
    await tracker.errors.list(since="yesterday")  # mistake
    await tracker.errors.list(status="closed")  # mistake
    await tracker.jobs.history(statuss="failed")  # mistake
    (await tracker.jobs.list()).next  # mistake


async def handles() -> None:
    """Misuse live jobs and steps."""
    tracker.job("copy", ownr="ada")  # mistake
    tracker.retrying("upload", attempts=3)  # mistake
    async with tracker.job("copy") as job:
        job.percent = 50  # mistake
        job.status = "failed"  # mistake
        job.id = "gui-1"  # mistake
        job.owner = "ada"  # mistake
        await job.end("complete")  # mistake
        job.step("read", totl=3)  # mistake
        async with job.step("read") as step:
            step.completed = 3  # mistake
            step.total = 3  # mistake
            await step.end("done")  # mistake
