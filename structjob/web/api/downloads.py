"""Complete results as a stream: logs as JSON lines or text, a job as an archive.

The answer has no length. Its last line says that it is complete, so that a client notices a cut
connection.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from structjob.models import EventRecord
from structjob.text.rendering import Lines
from structjob.text.wording import count_of
from structjob.transfer.export import job_lines
from structjob.web.answers import Reads, encode, problems_of
from structjob.web.params import Asked, Flag, LogMatch, Query

router = APIRouter(tags=["downloads"])

Line = Callable[[EventRecord], bytes]
Last = Callable[[int], bytes]

_AT_ONCE = 256 * 1024
"""Approximate number of bytes per send."""


class DownloadQuery(LogMatch):
    """Parameters of a download of logs."""

    order: str = Field(default="asc", pattern="^(asc|desc)$", description="`asc` oldest first.")


class ExportQuery(Query):
    """Parameters of an export of a job."""

    children: Flag = Field(default=True, description="With the jobs below it.")


def _documented(kind: str, *statuses: int) -> dict[int | str, dict[str, object]]:
    shown: dict[int | str, dict[str, object]] = {
        200: {"description": "Streamed.", "content": {kind: {"schema": {"type": "string"}}}}
    }
    return {**shown, **problems_of(*statuses)}


@router.get("/logs.jsonl", response_model=None, responses=_documented("application/jsonl", 404))
async def download_logs(reader: Reads, query: Asked[DownloadQuery]) -> Response:
    """Return all events that match as JSON lines; the last one is `{"complete": true, …}`."""

    def line(event: EventRecord) -> bytes:
        return encode(event) + b"\n"

    def last(number: int) -> bytes:
        return encode({"complete": True, "count": number}) + b"\n"

    return await _download(reader, query, line, last, "application/jsonl", "logs.jsonl")


@router.get("/logs.txt", response_model=None, responses=_documented("text/plain", 404))
async def download_text(reader: Reads, query: Asked[DownloadQuery]) -> Response:
    """Return all events that match as `structjob logs` shows them, in UTC."""
    lines = Lines(color=False, utc=True, about=None, clock_only=False, width=None)

    def line(event: EventRecord) -> bytes:
        return lines.render(event).encode(errors="backslashreplace") + b"\n"

    def last(number: int) -> bytes:
        return f"-- complete: {count_of(number, 'line')}\n".encode()

    return await _download(reader, query, line, last, "text/plain", "logs.txt")


@router.get(
    "/jobs/{id:id}/export", response_model=None, responses=_documented("application/gzip", 404)
)
async def export_job(reader: Reads, id: str, query: Asked[ExportQuery]) -> Response:
    """Return a job with its steps, child jobs and events, for `structjob import`."""
    job = await reader.jobs.find(id)

    async def compressed() -> AsyncIterator[bytes]:
        packer = zlib.compressobj(6, wbits=31)
        waiting = b""
        async for line in job_lines(reader.jobs, reader.logs, job.id, children=query.children):
            waiting += packer.compress(line)
            if len(waiting) >= _AT_ONCE:
                yield waiting
                waiting = b""
        yield waiting + packer.flush()

    return StreamingResponse(
        compressed(), headers=_headers(f"{job.id}.jsonl.gz"), media_type="application/gzip"
    )


async def _download(
    reader: Reads, query: DownloadQuery, line: Line, last: Last, kind: str, name: str
) -> Response:
    events = reader.logs.iterate(**query.values(), limit=1_000)
    # an invalid filter is reported as a problem, before the answer starts
    first = await anext(events, None)

    async def lines() -> AsyncIterator[bytes]:
        waiting, size, number = [], 0, 0
        event = first
        while event is not None:
            encoded = line(event)
            waiting.append(encoded)
            size += len(encoded)
            number += 1
            if size >= _AT_ONCE:
                yield b"".join(waiting)
                waiting, size = [], 0
            event = await anext(events, None)
        waiting.append(last(number))
        yield b"".join(waiting)

    return StreamingResponse(lines(), headers=_headers(name), media_type=kind)


def _headers(name: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="structjob-{name}"',
        "Cache-Control": "no-store",
    }
