"""Scripts without a loop are killed at random lines, 50 times (R9, R34)."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import structjob

VICTIM = """
import os, sys, threading
import structjob, structlog
structjob.configure(console=False)
log = structlog.get_logger()
told = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work(job, name):
    with job.as_current():
        for number in range(1_000_000):
            with job.step(f"step {number}", total=20) as step:
                for row in step.track(range(20)):
                    log.info("row", line=f"{name} {number} {row}")
                    # the log call has returned: the line must survive
                    os.write(told, f"{name} {number} {row}\\n".encode())

with structjob.Tracker(sys.argv[1]) as tracker, tracker.job("victim", external_job_id=sys.argv[2]) as job:
    threading.Thread(target=work, args=(job, "thread"), daemon=True).start()
    work(job, "main")
"""
_SCRIPTS, _AT_ONCE = 50, 5
_MEAN_LIFE = 0.1
"""Seconds that a script lives after its first line, on average: some scripts die with their first
lines, some when many are stored.
"""


def logged(path):
    """Return the lines whose log call has returned; the last one may be half written."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_line_of_a_killed_script_is_stored(live, tmp_path, db_url):
    """Acceptance test 1. R9, R34: 50 scripts, each with a thread, five at once on one database, are
    killed at a random moment: each line that was logged is stored once, and each job is crashed.
    """
    chance = random.Random(12)
    told = [tmp_path / f"{number}.txt" for number in range(_SCRIPTS)]

    def kill(path, after):
        victim = live.start_python(VICTIM, db_url, str(path))
        until = time.monotonic() + 60
        while not logged(path) and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(after)
        victim.kill()
        victim.wait()

    with ThreadPoolExecutor(_AT_ONCE) as killers:
        moments = [chance.expovariate(1 / _MEAN_LIFE) for _ in told]
        list(killers.map(kill, told, moments))
    with structjob.Tracker(db_url) as tracker:

        async def stored(job):
            found = tracker.logs.iterate(job=job, kind="log")
            return [event.attrs["line"] async for event in found]

        for path in told:
            job = tracker.run(tracker.jobs.find(str(path)))
            job = tracker.run(tracker.jobs.wait(job.id, timeout=60))
            assert job.status == "crashed"
            lines, found = logged(path), tracker.run(stored(job))
            assert lines
            assert set(lines) <= set(found)
            # at most one line a thread was logged, and its report not written
            assert len(found) == len(set(found)) <= len(lines) + 2
        assert tracker.run(tracker.verify()).ok
