"""What tests of the HTTP API need: a client of an application, and some data to ask for."""

from __future__ import annotations

from contextlib import asynccontextmanager

import httpx
import structlog

from structjob.web import app


@asynccontextmanager
async def client(tracker_or_url, *, peer="127.0.0.1", base="http://localhost/api/v1/", **options):
    """A client of the application, as if it asked from *peer*."""
    transport = httpx.ASGITransport(app(tracker_or_url, **options), client=(peer, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url=base) as opened:
        yield opened


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
