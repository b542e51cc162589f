"""Web servers that stop in an orderly way: the job of a background task is cancelled, not crashed
(guarantees 4 and 5).
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

import pytest

import structjob

pytestmark = pytest.mark.slow

REASON = "its tracker was closed while it ran"

APP = """
import asyncio, contextlib, os
import structlog, structjob
from starlette.applications import Starlette

structjob.configure(console=False)
log = structlog.get_logger("app")

async def background(tracker):
    async with tracker.job("background") as job, job.step("endless"):
        log.info("at work")
        print("ready", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            job.update(percent=50)  # which comes too late, and must harm nothing
            await job.end("failed")

@contextlib.asynccontextmanager
async def lifespan(app):
    async with structjob.Tracker(os.environ["STRUCTJOB_DATABASE_URL"]) as tracker:
        task = asyncio.create_task(background(tracker))
        yield

app = Starlette(lifespan=lifespan)
"""


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def command(server):
    """Return how *server* is started, with one worker."""
    port = free_port()
    arguments = {
        "uvicorn": ("uvicorn", "app:app", "--port", port),
        "hypercorn": ("hypercorn", "app:app", "--bind", f"127.0.0.1:{port}"),
        "gunicorn": (
            "gunicorn",
            "app:app",
            "-k",
            "uvicorn_worker.UvicornWorker",
            "-w",
            1,
            "--bind",
            f"127.0.0.1:{port}",
        ),
        "granian": (
            "granian",
            "app:app",
            "--interface",
            "asgi",
            "--host",
            "127.0.0.1",
            "--port",
            port,
        ),
    }[server]
    return [sys.executable, "-m", *map(str, arguments)]


class Server:
    """A web server in processes of its own."""

    def __init__(self, name, directory, url):
        (directory / "app.py").write_text(APP)
        self.errors = directory / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command(name), cwd=directory, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
                env={**os.environ, "STRUCTJOB_DATABASE_URL": url, "PYTHONPATH": str(directory)},
            )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def await_job(self):
        """Wait until the background task of a worker runs."""
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        pytest.fail(self.errors.read_text())

    def stop(self):
        """Send SIGTERM, wait for the end, and return what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=60)
        return self.errors.read_text()


async def check(url, jobs):
    """Check that so many *jobs* and their steps were cancelled with the reason, and that nothing is
    lost.
    """
    async with structjob.Tracker(url) as tracker:
        await tracker.flush()
        found = await tracker.jobs.list()
        assert [(job.status.value, job.error.message) for job in found] == [
            ("cancelled", REASON)
        ] * jobs
        for job in found:
            assert [
                (step.status.value, step.error.message) for step in await tracker.jobs.steps(job.id)
            ] == [("cancelled", REASON)]
            events = [
                event.message if event.kind == "log" else event.kind
                for event in await tracker.logs.list(job_id=job.id)
            ]
            assert events == [
                "operation_start",
                "step_start",
                "at work",
                "step_end",
                "operation_end",
            ]
        assert await tracker.errors.list() == []
        assert (await tracker.verify()).ok


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "gunicorn", "granian"])
async def test_a_server_that_stops_cancels_the_jobs_of_background_tasks(name, tmp_path, db_url):
    """Faults 56: SIGTERM ends the lifespan, and with it the tracker, while the task runs."""
    with Server(name, tmp_path, db_url) as server:
        await asyncio.to_thread(server.await_job)
        errors = await asyncio.to_thread(server.stop)
    assert "InvalidState" not in errors
    assert "was still running when its tracker closed" in errors
    await check(db_url, jobs=1)


async def test_a_server_that_reloads_cancels_the_jobs_of_background_tasks(tmp_path, db_url):
    """Faults 56: gunicorn gets SIGHUP, and replaces its worker; the new worker's job is ended by
    SIGTERM.
    """
    with Server("gunicorn", tmp_path, db_url) as server:
        await asyncio.to_thread(server.await_job)
        server.process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(server.await_job)
        errors = await asyncio.to_thread(server.stop)
    assert "InvalidState" not in errors
    await check(db_url, jobs=2)
