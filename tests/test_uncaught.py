"""What Python would only print to stderr, as events (R31)."""

import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

import structjob


def run(program, cwd):
    return subprocess.run(
        [sys.executable, "-c", program], cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
async def recorded(db_url):
    """An open tracker, with the hooks in place until the end of the test."""
    structjob.configure(console=False, strict=True)
    structjob.capture_uncaught(unraisable=False)
    async with structjob.Tracker(db_url) as tracker:
        yield tracker
    structjob.reset()


async def test_an_exception_in_a_thread(recorded, db_url, monkeypatch):
    """R31: recorded with its traceback, then shown by the hook that was there."""
    shown = []
    structjob.reset()
    structjob.configure(console=False)
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_value))
    structjob.capture_uncaught(unraisable=False)
    structjob.capture_uncaught(unraisable=False)  # once more changes nothing

    def fail():
        raise ValueError("in the thread")

    async with structjob.Tracker(db_url) as tracker:
        thread = threading.Thread(target=fail, name="worker-7")
        thread.start()
        thread.join()
        (event,) = await tracker.logs.list(kind="uncaught")
    assert (event.level, event.attrs["thread"]) == ("error", "worker-7")
    assert event.attrs["exception"]["message"] == "in the thread"
    assert [str(exc) for exc in shown] == ["in the thread"]


async def test_warnings_are_recorded_once_a_place(recorded):
    """R31: of the job in which they are given; and shown as before."""

    def warn():
        warnings.warn("mind the gap", UserWarning, stacklevel=1)

    with warnings.catch_warnings(record=False):
        warnings.simplefilter("always")
        async with recorded.job("careless") as job:
            for _ in range(3):
                warn()
    found = await recorded.logs.list(job_id=job.id, kind="uncaught")
    assert [(event.message, event.level, event.logger) for event in found] == [
        ("mind the gap", "warning", "py.warnings")
    ]
    assert found[0].attrs["file"] == __file__


PROGRAM = """
import structjob
structjob.configure(console=False, file="app.jsonl", uncaught=True)

class Late:
    def __del__(self):
        raise OSError("in __del__")

tracker = structjob.Tracker("sqlite:///jobs.db")
tracker.__enter__()
late = Late()
del late
raise ValueError("nobody catches this")
"""


def test_the_exception_that_ends_the_program(tmp_path):
    """R31: it is in the database, with what could not be raised; stderr and the exit code are as
    without.
    """
    done = run(PROGRAM, tmp_path)
    plain = run("raise ValueError('nobody catches this')", tmp_path)
    assert done.returncode == plain.returncode == 1
    assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        found = tracker.run(tracker.logs.list(kind="uncaught", order="asc"))
    assert [(event.level, event.message) for event in found][-1] == ("critical", "uncaught exception")  # fmt: skip
    assert found[0].attrs["exception"]["message"] == "in __del__"
    assert found[-1].attrs["exception"]["message"] == "nobody catches this"


def test_after_the_tracker_is_closed_it_is_only_shown(tmp_path):
    """Bad day: the exception has left the tracker's block, too: its job has recorded it, the file
    shows it, and no event is reported as lost.
    """
    program = """
import structjob
structjob.configure(console=False, file="app.jsonl", uncaught=True)
with structjob.Tracker("sqlite:///jobs.db") as tracker, tracker.job("nightly"):
    raise ValueError("nobody catches this")
"""
    done = run(program, tmp_path)
    assert done.returncode == 1
    assert "lost" not in done.stderr
    assert '"event":"uncaught"' in (tmp_path / "app.jsonl").read_text()


def test_the_program_of_the_documentation_runs(tmp_path):
    """R51: the page's program ends as it says, and its command finds why."""
    page = (Path(__file__).parent.parent / "docs/integrations/uncaught.md").read_text("utf-8")
    (program,) = re.findall(r"<!-- nightly.py -->\n```python\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^structjob (logs .*?)\s+#", page, re.MULTILINE)
    assert run(program, tmp_path).returncode == 1
    words = [sys.executable, "-m", "structjob", *command.split()]
    found = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "nothing catches this" in found.stdout
