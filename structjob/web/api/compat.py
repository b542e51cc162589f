"""The paths and the message of the unified log service, for clients that were written for it.

A *task run* is a step; the levels are the four that it knows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi import Query as Parameters
from pydantic import Field

from structjob.models import EventRecord
from structjob.web.answers import Reads, as_json, reads
from structjob.web.params import Query
from structjob.web.problems import Refused

router = APIRouter(prefix="/logs", tags=["compatible"])

MAX_OFFSET = 100_000
"""The farthest offset: what is beyond is read by the cursors of ``/logs``."""

ORIGINAL_LEVEL = "structjob.level"
"""The key in a message's metadata with the level of the event, where the service has none such."""

_LEVELS: dict[str, Literal["info", "error", "warn", "debug"]] = {
    "debug": "debug",
    "info": "info",
    "success": "info",
    "warning": "warn",
    "error": "error",
    "critical": "error",
}
_UNCHANGED = ("debug", "info", "warning", "error")
_AT_ONCE = 10_000

_EXAMPLE = {
    "type": "task",
    "job_run_id": "01a22604-4fb7-7057-a486-6bfefb942380",
    "task_run_id": "01a22604-4fdb-7b97-bfd5-ab633e6fb435",
    "timestamp": "2026-11-29T06:35:46.573396Z",
    "level": "info",
    "stream": "stdout",
    "message": "HTTP request completed",
    "metadata": {"status_code": 200, "response_time": "150ms"},
}


class LogMessage(msgspec.Struct, omit_defaults=True):
    """One event."""

    type: Literal["system", "job", "task"]
    job_run_id: str
    """Empty for a line outside of jobs."""
    timestamp: datetime
    level: Literal["info", "error", "warn", "debug"]
    stream: str
    message: str
    task_run_id: str | None = None
    metadata: dict[str, Any] | None = None


class OffsetQuery(Query):
    """Parameters of a page."""

    limit: int = Field(default=100, ge=1, le=10_000, description="Messages at most.")
    offset: int = Field(default=0, ge=0, description="Messages to leave out, up to 100,000.")


class AllQuery(OffsetQuery):
    """Parameters of a page that holds everything by default."""

    limit: int = Field(default=10_000, ge=1, le=10_000, description="Messages at most.")


@reads(router, "/job-runs/{job_run_id:id}", list[LogMessage], problems=(404,), example=[_EXAMPLE])
async def get_job_run_logs(
    request: Request, source: Reads, job_run_id: str, query: Annotated[OffsetQuery, Parameters()]
) -> Any:
    """Return all messages of a job and its steps, the oldest first."""
    return await _page(request, source, query, job=job_run_id)


@reads(router, "/task-runs/{task_run_id:id}", list[LogMessage], problems=(404,), example=[_EXAMPLE])
async def get_task_run_logs(
    request: Request, source: Reads, task_run_id: str, query: Annotated[AllQuery, Parameters()]
) -> Any:
    """Return all messages of a step, the oldest first."""
    found = await _page(request, source, query, step_id=task_run_id)
    if not await source.logs.list(step_id=task_run_id, limit=1):
        raise Refused(404, f"task run not found: {task_run_id}; it is the id of a step with lines")
    return found


@reads(router, "/system", list[LogMessage])
async def get_system_logs(
    request: Request, source: Reads, query: Annotated[OffsetQuery, Parameters()]
) -> Any:
    """Return messages outside of jobs, the oldest first."""
    return await _page(request, source, query, type="system")


@reads(router, "/type/{type}", list[LogMessage])
async def get_logs_by_type(
    request: Request, source: Reads, type: str, query: Annotated[OffsetQuery, Parameters()]
) -> Any:
    """Return messages of one type: `system`, `job` or `task`."""
    return await _page(request, source, query, type=type)


async def _page(request: Request, source: Reads, query: OffsetQuery, **filters: Any) -> Any:
    if query.offset > MAX_OFFSET:
        raise Refused(
            400,
            f"offset: at most {MAX_OFFSET:,}; read on with the cursors of /api/v1/logs",
            parameter="offset",
        )
    left, cursor = query.offset, None
    while left:
        skipped = await source.logs.list(cursor=cursor, limit=min(left, _AT_ONCE), **filters)
        left, cursor = left - len(skipped), skipped.next_cursor
        if cursor is None:
            return []
    page = await source.logs.list(cursor=cursor, limit=query.limit, **filters)
    found = [message_of(event) for event in page]
    if page.next_cursor is None:
        return found
    further = f"?limit={query.limit}&offset={query.offset + query.limit}"
    return as_json(request, found, headers={"Link": f'<{further}>; rel="next"'})


def message_of(event: EventRecord) -> LogMessage:
    """Return an event as a message of this service."""
    metadata = event.attrs
    if event.level not in _UNCHANGED:
        metadata = {**metadata, ORIGINAL_LEVEL: event.level}
    return LogMessage(
        type=event.type,
        job_run_id=event.job_id or "",
        task_run_id=event.step_id,
        timestamp=event.ts,
        level=_LEVELS.get(event.level, "info"),
        stream=event.stream,
        message=event.message,
        metadata=metadata or None,
    )
