"""Programs whose threads are greenlets, after gevent's patches (integrations, 13)."""

import http.client
import json
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from cli_support import environment

GREENLETS = """
{first}
import json, sys
import structjob, structlog
{then}
import gevent

structjob.configure(console=False)
log = structlog.get_logger()
tracker = structjob.init("sqlite:///jobs.db")

def work(number):
    with tracker.job("work", metadata={{"n": number}}) as job, job.step("wait"):
        log.info("before", n=number)
        gevent.sleep(0.01)
        assert structjob.current_job() is job
        log.info("after", n=number)

gevent.joinall([gevent.spawn(work, number) for number in range(20)], raise_error=True)
print(len(tracker.run(tracker.jobs.list(status="completed"))))
"""
PATCH = "from gevent import monkey; monkey.patch_all()"


def run(directory: Path, first: str, then: str) -> subprocess.CompletedProcess[str]:
    program = GREENLETS.format(first=first, then=then)
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def lines(directory: Path) -> list[tuple[int, int]]:
    """Return, of each logged line, its number and that of its job."""
    with closing(sqlite3.connect(directory / "jobs.db")) as database:
        found = database.execute(
            "SELECT l.attrs, j.metadata FROM structjob_logs l JOIN structjob_jobs j ON j.id = l.job_id "
            "WHERE l.message IN ('before', 'after')"
        ).fetchall()
    return [(json.loads(attrs)["n"], json.loads(metadata)["n"]) for attrs, metadata in found]


def test_each_greenlet_has_its_own_job(tmp_path):
    """R22: jobs, steps and log lines of greenlets that take turns are not mixed up, reads work, and
    everything is stored when the program ends.
    """
    done = run(tmp_path, PATCH, "")
    assert (done.returncode, done.stdout, done.stderr) == (0, "20\n", "")
    found = lines(tmp_path)
    assert len(found) == 40
    assert all(line == job for line, job in found)


KILLED = (
    PATCH
    + """
import gevent, structjob
structjob.configure(console=False)
tracker = structjob.init("sqlite:///jobs.db")

def wait():
    with tracker.job("wait"), structjob.step("long"):
        gevent.sleep(60)

waiting = gevent.spawn(wait)
gevent.sleep(0.1)
waiting.kill()
(job,) = tracker.run(tracker.jobs.list())
print(job.status, job.error.type, len(tracker.run(tracker.errors.list())))
"""
)


@pytest.mark.slow
def test_the_job_of_a_greenlet_that_is_killed_is_cancelled(tmp_path):
    """R9: `GreenletExit` is how gevent cancels. It is no error, so no error report counts it."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cancelled GreenletExit 0\n"


@pytest.mark.slow
def test_patches_that_come_too_late_are_refused(tmp_path):
    """Bad day: structjob was in use before. A wait for the tracker's loop could never end, so the
    tracker does not open, and the message says what to do.
    """
    done = run(tmp_path, "", f"structjob.Tracker; {PATCH}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("structjob.InvalidState: gevent's or eventlet's")
    assert "call gevent.monkey.patch_all() at the start of the program" in done.stderr


@pytest.mark.slow
def test_requests_of_gunicorns_gevent_worker_are_jobs(tmp_path):
    """R48: twenty requests at once in one thread, each of which waits, and a graceful stop."""
    (tmp_path / "app.py").write_text(
        """
import time
import structjob, structlog

structjob.configure(console=False)
structjob.init("sqlite:///jobs.db")
log = structlog.get_logger()

def answer(environ, start_response):
    number = int(environ["PATH_INFO"][1:])
    structjob.current_job().update(metadata={"n": number})
    log.info("before", n=number)
    time.sleep(0.05)  # gevent's, in which other requests run
    log.info("after", n=number)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = structjob.wsgi.JobMiddleware(answer)
"""
    )
    command = ("gunicorn", "-k", "gevent", "-b", "127.0.0.1:0", "--log-level", "info", "app:app")
    server = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = []
        while not (said and "Booting worker" in said[-1]):
            said.append(server.stderr.readline())
            assert said[-1], "".join(said)
        port = next(
            int(line.split("127.0.0.1:")[1].split()[0]) for line in said if "127.0.0.1:" in line
        )

        def ask(number: int) -> str | None:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                connection.request("GET", f"/{number}")
                answer = connection.getresponse()
                assert answer.read() == b"ok"
                return answer.headers["X-Job-ID"]

        with ThreadPoolExecutor(20) as threads:
            assert len(set(threads.map(ask, range(20)))) == 20
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()
    found = lines(tmp_path)
    assert len(found) == 40
    assert all(line == job for line, job in found)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as database:
        assert database.execute("SELECT DISTINCT status FROM structjob_jobs").fetchall() == [
            ("completed",)
        ]
