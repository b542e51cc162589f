"""What tests of the HTTP API need: a client of an application, and some data to ask for."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, contextmanager

import httpx
import structlog
from asgi_support import NO_TLS

from structjob.web import app
from structjob.web.server import Server


@asynccontextmanager
async def client(tracker_or_url, *, peer="127.0.0.1", base="http://localhost/api/v1/", **options):
    """A client of the application, as if it asked from *peer*."""
    made = app(tracker_or_url, **options)
    transport = httpx.ASGITransport(made, client=(peer, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url=base) as opened:
        yield opened
    await made.aclose()


async def some_work(tracker):
    """A job with a step, a child, an error and a line outside of jobs."""
    log = structlog.get_logger("app")
    log.info("server started", port=8080)
    try:
        async with tracker.job(
            "vm-migrate",
            job_type="migration",
            owner="ada",
            external_job_id="gui/17",
            context_id="vm-9",
            metadata={"vm": "pg-01"},
        ) as job:
            async with job.step("copy", total=4) as step:
                log.info("copied", n=3, vm={"name": "pg-01"})
                step.advance(4)
            async with tracker.job("verify", parent=job):
                log.warning("slow", ms=812)
            raise ValueError("checksum mismatch")
    except ValueError:
        pass
    await tracker.flush()
    return job


class _Quiet(Server):
    """A server that leaves the signals of the test's process alone."""

    @contextmanager
    def capture_signals(self):
        yield


@asynccontextmanager
async def served(asgi, kind=_Quiet):
    """A real server of an application, on a free port; its address."""
    server = kind(asgi, host="127.0.0.1", port=0)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


class Events:
    """The events of an SSE stream, as a browser reads them."""

    def __init__(self, response):
        self._lines = response.aiter_lines()
        self.last_id = None

    async def next(self):
        """The next event: its name and its data."""
        name, data = None, None
        async for line in self._lines:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "id":
                self.last_id = value
            elif field == "data":
                data = value
            elif not line and data is not None:
                return name, json.loads(data)
        return None

    async def until(self, name):
        """The data of the next event of that name."""
        while (found := await self.next()) is not None:
            if found[0] == name:
                return found[1]
        raise AssertionError(f"the stream ended without {name}")

    async def lines(self, number):
        """The next lines, that many at least."""
        found = []
        while len(found) < number:
            found += (await self.until("lines"))["lines"]
        return found


@asynccontextmanager
async def events(address, query="", *, api="/api/v1/stream", method="GET", **options):
    """An SSE stream of a server."""
    async with (
        httpx.AsyncClient(timeout=20, verify=NO_TLS) as web,
        web.stream(method, f"{address}{api}?{query}", **options) as response,
    ):
        assert response.status_code == 200, await response.aread()
        yield Events(response)
