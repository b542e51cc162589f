"""The paths and messages of the unified log service, for clients written for it.

A *task run* is a step. The service knows only four levels.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field, ValidationError
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from structjob.exceptions import StructjobError
from structjob.filters import LogFilter, make_filter
from structjob.models import EventRecord
from structjob.web.answers import Reads, as_json, encode, problems_of, reads
from structjob.web.frames import MAX_ID, Frame
from structjob.web.hub import Hub, Selection
from structjob.web.params import Asked, NoQuery, Query
from structjob.web.problems import Refused, describe, refusal
from structjob.web.sse import HEARTBEAT, SEND_TIMEOUT, EventStream
from structjob.web.streams import (
    SOCKET,
    admitted,
    close,
    no_socket,
    owner_of,
    ping_of,
    subscribed,
)
from structjob.web.subscription import Subscription

router = APIRouter(prefix="/logs", tags=["compatible"])

MAX_OFFSET = 100_000
"""The maximum offset; rows beyond it are read with the cursors of ``/logs``."""

ORIGINAL_LEVEL = "structjob.level"
"""The key in a message's metadata for the event's level, if the service does not know that
level.
"""

_LEVELS: dict[str, Literal["info", "error", "warn", "debug"]] = {
    "debug": "debug",
    "info": "info",
    "success": "info",
    "warning": "warn",
    "error": "error",
    "critical": "error",
}
_UNCHANGED = ("debug", "info", "warning", "error")

_NOTICES = {
    "gap": "missing lines: {count:,} of session {session_id} ({reason})",
    "lag": "skipped lines: {skipped:,}, because this connection is slow",
}
"""The text of the message that a stream sends in the place of lines that it cannot send."""

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


_SYSTEM = {
    "type": "system",
    "job_run_id": "",
    "timestamp": "2026-11-29T06:35:40.104522Z",
    "level": "info",
    "stream": "system",
    "message": "Server started successfully",
    "metadata": {"port": 8080, "version": "1.0.0"},
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
    """Parameters of a page that contains everything by default."""

    limit: int = Field(default=10_000, ge=1, le=10_000, description="Messages at most.")


@reads(router, "/job-runs/{job_run_id:id}", list[LogMessage], problems=(404,), example=[_EXAMPLE])
async def get_job_run_logs(
    request: Request, reader: Reads, job_run_id: str, query: Asked[OffsetQuery]
) -> Any:
    """Return all messages of a job and its steps, the oldest first."""
    return await _page(request, reader, query, job=job_run_id)


@reads(router, "/task-runs/{task_run_id:id}", list[LogMessage], problems=(404,), example=[_EXAMPLE])
async def get_task_run_logs(
    request: Request, reader: Reads, task_run_id: str, query: Asked[AllQuery]
) -> Any:
    """Return all messages of a step, the oldest first."""
    found = await _page(request, reader, query, step_id=task_run_id)
    if not await reader.logs.list(step_id=task_run_id, limit=1):
        raise Refused(404, f"task run not found: {task_run_id}; it is the id of a step with lines")
    return found


@reads(router, "/system", list[LogMessage], example=[_SYSTEM])
async def get_system_logs(request: Request, reader: Reads, query: Asked[OffsetQuery]) -> Any:
    """Return messages outside of jobs, the oldest first."""
    return await _page(request, reader, query, type="system")


@reads(router, "/type/{type}", list[LogMessage], example=[_EXAMPLE])
async def get_logs_by_type(
    request: Request, reader: Reads, type: str, query: Asked[OffsetQuery]
) -> Any:
    """Return messages of one type: `system`, `job` or `task`."""
    return await _page(request, reader, query, type=type)


class StreamQuery(Query):
    """Parameters of a stream."""

    job_run_id: str | None = Field(default=None, description="Any id of a job.")
    type: Literal["system", "job", "task"] | None = None

    def selection(self) -> Selection:
        """Return what the stream sends."""
        given = {"job": self.job_run_id, "type": self.type}
        wanted = make_filter(
            LogFilter, **{name: one for name, one in given.items() if one is not None}
        )
        shown = self.model_dump(exclude_none=True)
        return Selection(("logs",), wanted, shown=shown)


class StreamState(msgspec.Struct):
    """One open stream."""

    transport: str
    since: datetime
    filter: Any
    sent: int
    behind_ms: int
    skipped: int


class StreamStatus(msgspec.Struct):
    """The open streams, their number by transport, and what they send."""

    status: str
    websocket: int
    sse: int
    poll: int
    streams: list[StreamState]


@router.get(
    "/stream/sse",
    response_model=None,
    responses={
        200: {
            "description": "One LogMessage an event.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems_of(404, 429),
    },
)
async def stream_sse(request: Request, query: Asked[StreamQuery]) -> Response:
    """Follow the log from now on, or after the event that Last-Event-ID names."""
    hub: Hub = request.app.state.hub
    after = request.headers.get("last-event-id")
    selection = msgspec.structs.replace(query.selection(), after=after or None)
    subscription, _ = await subscribed(hub, "sse", selection, owner_of(request.scope))
    ping = ping_of(hub, subscription)
    return EventStream(hub, subscription, None, ping, _as_messages)


@reads(router, "/stream/status", StreamStatus)
async def get_stream_status(request: Request, query: Asked[NoQuery]) -> Any:
    """Return what streams are open."""
    hub: Hub = request.app.state.hub
    open_ = [
        StreamState(
            one.transport,
            datetime.fromtimestamp(one.since, UTC),
            one.shown,
            one.sent,
            hub.behind_ms(one),
            one.skipped,
        )
        for one in hub.subscriptions
    ]
    numbers = Counter(one.transport for one in open_)
    return StreamStatus("ok", numbers["ws"], numbers["sse"], numbers["poll"], open_)


@router.get(
    "/stream/ws", response_model=None, status_code=101, responses=SOCKET, name="stream_messages_ws"
)
async def no_stream_ws(query: Asked[StreamQuery]) -> None:
    """Follow the log from now on over a WebSocket: one LogMessage a message."""
    raise no_socket()


async def stream_ws(socket: WebSocket) -> None:
    """Serve ``/logs/stream/ws``: one LogMessage per WebSocket message."""
    await socket.accept()
    owner = await admitted(socket)
    if owner is False:
        return
    hub: Hub = socket.app.state.hub
    try:
        StreamQuery.check_once(socket.query_params)
        query = StreamQuery.model_validate(dict(socket.query_params))
        subscription = await hub.open("ws", query.selection(), owner)
    except ValidationError as exc:
        errors = [{**error, "loc": ("query", *error["loc"])} for error in exc.errors()]
        await close(socket, describe(errors))
        return
    except (StructjobError, Refused) as exc:
        await close(socket, exc if isinstance(exc, Refused) else refusal(exc))
        return
    try:
        await _send_messages(socket, subscription)
    finally:
        hub.leave(subscription)


async def _send_messages(socket: WebSocket, subscription: Subscription) -> None:
    sending = asyncio.create_task(_send_all(socket, subscription))
    gone = asyncio.create_task(_read_until_closed(socket))
    await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, gone):
        task.cancel()
    await asyncio.gather(sending, gone, return_exceptions=True)


async def _send_all(socket: WebSocket, subscription: Subscription) -> None:
    while True:
        one = await subscription.next(HEARTBEAT)
        if one is None and subscription.ended:
            break
        async with asyncio.timeout(SEND_TIMEOUT):
            for message in _messages(one):
                await socket.send_text(message.decode())
    await socket.close(subscription.close_code or 1012)


async def _read_until_closed(socket: WebSocket) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        while True:
            await socket.receive()


def _messages(one: Frame | None) -> list[bytes]:
    if one is None:
        return []
    if one.event == "lines":
        lines = msgspec.json.decode(one.data, type=_Lines).lines
        return [encode(message_of(line)) for line in lines]
    if one.event not in _NOTICES:
        return []
    data = msgspec.json.decode(one.data, type=dict[str, Any])
    said = _NOTICES[one.event].format(**data)
    return [encode(LogMessage("system", "", datetime.now(UTC), "warn", "system", said, None, data))]


def _as_messages(one: Frame) -> bytes:
    """Return the messages of a frame as server-sent events; the last one has the cursor."""
    if one.event == "ping":
        return b": ping\n\n"
    parts = [b"data: " + message + b"\n" for message in _messages(one)]
    if parts and one.cursor is not None and len(one.cursor) <= MAX_ID:
        parts[-1] = b"id: " + one.cursor.encode() + b"\n" + parts[-1]
    return b"\n".join((*parts, b"")) if parts else b""


class _Lines(msgspec.Struct):
    lines: list[EventRecord]


async def _page(request: Request, reader: Reads, query: OffsetQuery, **filters: Any) -> Any:
    if query.offset > MAX_OFFSET:
        raise Refused(
            400,
            f"offset: at most {MAX_OFFSET:,}; read on with the cursors of /api/v1/logs",
            parameter="offset",
        )
    page = await reader.logs.list(offset=query.offset, limit=query.limit, **filters)
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
