"""What Python would only print to stderr, as events (R31)."""

import asyncio
import contextvars
import gc
import re
import subprocess
import sys
import threading
import warnings
import weakref
from pathlib import Path

import pytest
from cli_support import python

import structjob


def run(program, cwd):
    return python("-c", program, cwd=cwd)


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


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_an_exception_in_a_thread_in_context_belongs_to_its_job(recorded):
    """R22, R31: however the function of `in_context` is called: as a thread, or as a callback."""

    def fail():
        raise ValueError("in the thread")

    async with recorded.job("loads") as job, job.step("s"):
        within = structjob.in_context(fail)
        thread = threading.Thread(target=within)
        thread.start()
        thread.join()
    empty = contextvars.Context()
    asyncio.get_running_loop().call_soon(within, context=empty)
    await asyncio.sleep(0)
    events = await recorded.logs.list(kind="uncaught")
    assert [(event.job_id, event.step) for event in events] == [(job.id, "s")] * 2
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    events = await recorded.logs.list(kind="uncaught")
    assert [event.job_id for event in events].count(None) == 1


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
    found = python("-m", "structjob", *command.split(), cwd=tmp_path)
    assert "nothing catches this" in found.stdout


CRASH = """
import ctypes, os, signal, sys, structjob
structjob.configure(console=False, uncaught=True)

def died_here():
    how = sys.argv[1]
    if how == "segfault": ctypes.string_at(0)
    if how == "abort": os.abort()
    if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if how == "child":
        if not os.fork():
            ctypes.string_at(0)
        os.wait()
        os.kill(os.getpid(), signal.SIGKILL)

with structjob.Tracker(sys.argv[2]) as tracker, tracker.job("nightly") as job, job.step("native"):
    died_here()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signals")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("segfault", "Segmentation fault"),
        pytest.param("abort", "Aborted", marks=pytest.mark.slow),
        pytest.param("kill", None, marks=pytest.mark.slow),
        ("child", None),
    ],
)
def test_a_crash_says_why_the_process_died(tmp_path, db_url, how, reason):
    """R31, R34: the stacks at a segmentation fault are with the crash, in the job and its event; a
    forked child that dies says nothing about its parent.
    """
    done = python("-c", CRASH, how, db_url, cwd=tmp_path)
    assert done.returncode < 0
    with structjob.Tracker(db_url) as tracker:
        (job,) = tracker.run(tracker.jobs.list(operation="nightly"))
        record = tracker.run(tracker.jobs.wait(job.id, timeout=20))
        events = tracker.run(tracker.logs.list(job=job.id, kind="operation_crashed"))
    assert record.status == "crashed"
    said = "ended without finishing it" + (f": {reason}" if reason else "")
    assert record.error.message.endswith(said)
    (event,) = events
    assert event.message == f"nightly crashed: its process {said}"
    for text in (record.error.traceback, event.attrs.get("fault_log")):
        if reason is None:
            assert text is None
        else:
            assert text.startswith(f"Fatal Python error: {reason}\n")
            assert "in died_here" in text
            # the other threads are in the event only
            assert ("most recent call first" in text.partition("Current thread")[0]) == (
                text is not record.error.traceback
            )
    assert done.stderr.count("Fatal Python error") == 0


@pytest.mark.slow
def test_a_fault_handler_of_the_program_stays(tmp_path, db_url):
    """R31: it is enabled already, and writes where the program wants it."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", CRASH, "segfault", db_url],
        capture_output=True,
        text=True,
    )
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_the_fault_handler_ends_with_the_tracker(tmp_path, db_url):
    """R31: nothing stays enabled, and nothing is left on the disk."""
    program = """
import faulthandler, sys, structjob
structjob.configure(console=False, uncaught=True)
for _ in range(2):
    with structjob.Tracker(sys.argv[1]), structjob.Tracker(sys.argv[1]):
        print(faulthandler.is_enabled())
    print(faulthandler.is_enabled())
"""
    done = python("-c", program, db_url, check=True)
    assert done.stdout.split() == ["True", "False", "True", "False"]
    assert not list(Path(tmp_path).rglob("fault.log"))


async def test_errors_of_a_loop_are_recorded_once_and_shown_as_before(recorded, caplog):
    """R31: in the job in which the callback was scheduled; asyncio's own record is not a second
    event.
    """

    def fail():
        raise ValueError("in a callback")

    loop = asyncio.get_running_loop()
    async with recorded.job("a") as job:
        loop.call_soon(fail)
    async with recorded.job("another"):
        await asyncio.sleep(0.01)
    (event,) = await recorded.logs.list(text="fail")
    assert (event.level, event.kind, event.job_id, event.logger) == (
        "error", "uncaught", job.id, "asyncio",
    )  # fmt: skip
    assert event.attrs["exception"]["message"] == "in a callback"
    assert [one.name for one in caplog.records if "fail" in one.getMessage()] == ["asyncio"]


def test_a_loop_that_is_closed_is_freed(db_path):
    """A program that runs many loops, such as a test suite: none is kept by the hook that records
    its errors, by a tracker, a job, a listener or a thread.
    """
    structjob.configure(console=False, strict=True)
    structjob.capture_uncaught(unraisable=False)
    loops = []

    async def run() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with structjob.Tracker(f"sqlite:///{db_path}") as tracker:
            tracker.listen()
            async with tracker.job("outer") as job, job.step("step") as step:
                with job.capture_output(echo=False):
                    print("printed")
                await asyncio.to_thread(step.advance)
            async with tracker.reader() as reader:
                assert len(await reader.jobs.list()) == 1

    asyncio.run(run())
    gc.collect()
    left = loops[0]()
    structjob.reset()
    assert left is None


async def test_a_loop_handler_of_the_program_is_called_and_its_own_stays(db_url):
    """R31: a handler that was there is called with the same context; one that is set later wins."""
    loop = asyncio.get_running_loop()
    structjob.configure(console=False, strict=True)
    called = []
    loop.set_exception_handler(lambda loop, context: called.append(context["message"]))
    structjob.capture_uncaught(unraisable=False)
    async with structjob.Tracker(db_url) as tracker:
        loop.call_exception_handler({"message": "odd"})
        (event,) = await tracker.logs.list(kind="uncaught")
    assert (event.message, called) == ("odd", ["odd"])
    mine = called.append
    loop.set_exception_handler(mine)
    structjob.reset()
    assert loop.get_exception_handler() is mine
    loop.set_exception_handler(None)


AT_THE_END = """
import asyncio, structlog, structjob

structjob.configure(console=False, file="app.jsonl")

class Late:
    def __del__(self):
        structlog.get_logger().error("late")
        try:
            raise ValueError("later")
        except ValueError:
            structlog.get_logger().exception("latest")

async def main():
    await structjob.Tracker("jobs.db").open()
    asyncio.get_running_loop().call_soon(asyncio.get_running_loop().stop)
    await asyncio.sleep(1)

loop = asyncio.new_event_loop()
task = loop.create_task(main())
loop.run_forever()
loop.close()
late = Late()
late.itself = late
"""


def test_an_error_that_is_logged_when_python_has_no_modules_any_more(tmp_path):
    """asyncio's "Task was destroyed but it is pending" and what a `__del__` logs reach a log file;
    what cannot is reported in words that say why, not as an ImportError.
    """
    command = [sys.executable, "-c", AT_THE_END]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    written = (tmp_path / "app.jsonl").read_text()
    assert '"level":"error","event":"late"' in written
    assert "ImportError" not in done.stderr
    assert done.stderr.count("Python is ending and has no modules any more") <= 1
