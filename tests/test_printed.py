"""What a block prints, as events of its job (R31)."""

import asyncio
import contextlib
import ctypes
import io
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
import structlog
from cli_support import python

import structjob
from structjob import InvalidArgument, InvalidState


async def printed(tracker, **filters):
    found = await tracker.logs.list(limit=10_000, order="asc", **filters)
    return [(event.stream, event.message) for event in found if event.kind == "output"]


async def test_what_a_job_prints_is_recorded(any_tracker, capsys):
    """R31: print, write and writelines, to both streams; it is shown as before, and the last line
    needs no newline.
    """
    before = sys.stdout
    async with any_tracker.job("legacy") as job:
        with job.capture_output():
            print("one", 1)
            sys.stdout.write("two\nthr")
            sys.stderr.writelines(["bad\n", "worse"])
            sys.stdout.write("ee")
        print("not this")
        async with job.step("more") as step, step.capture_output(stderr=False, echo=False):
            print("four")
            print("shown", file=sys.stderr)
    assert sys.stdout is before
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("one 1\ntwo\nthreenot this\n", "bad\nworseshown\n")
    assert sorted(await printed(any_tracker, job_id=job.id)) == [
        ("stderr", "bad"),
        ("stderr", "worse"),
        ("stdout", "four"),
        ("stdout", "one 1"),
        ("stdout", "three"),
        ("stdout", "two"),
    ]
    (event,) = await any_tracker.logs.list(text="four")
    assert event.step_id == step.id


class Notebook:
    """A stream as Jupyter's kernel has it: without a descriptor, and without bytes below it."""

    encoding, errors, closed = "UTF-8", None, False

    def __init__(self):
        self.shown = []

    def write(self, text):
        self.shown.append(text)
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

    def fileno(self):
        raise io.UnsupportedOperation("fileno")


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("place", ["pytest", "notebook"])
async def test_twenty_jobs_at_once_are_kept_apart(tracker, capsys, monkeypatch, place, echo):
    """Acceptance test 8. R31: jobs print side by side, in tasks and threads; each line belongs to
    its job, whole.
    """

    async def one(number):
        async with tracker.job("noisy") as job, job.capture_output(echo=echo):
            for line in range(100):
                print(number, end=" ")
                await asyncio.sleep(0)
                print(line)
            await asyncio.to_thread(print, number, "thread")
            await asyncio.create_task(asyncio.to_thread(print, number, "task"))
        return job.id

    notebook = Notebook()
    if place == "notebook":
        monkeypatch.setattr("sys.stdout", notebook)
    ids = await asyncio.gather(*map(one, range(20)))
    for number, id_ in enumerate(ids):
        lines = [line for _, line in await printed(tracker, job_id=id_)]
        assert lines == [f"{number} {line}" for line in [*range(100), "thread", "task"]]
    shown = "".join(notebook.shown) if place == "notebook" else capsys.readouterr().out
    assert shown.count("\n") == (20 * 102 if echo else 0)


async def test_outside_jobs_they_are_system_events(tracker, capsys):
    """R35: `structjob.capture_output` needs no job; nested blocks have their own."""
    with structjob.capture_output(echo=False):
        print("no job")
        async with tracker.job("inner") as job:
            print("of the job")
            with job.capture_output(stdout=False):
                print("shown only")
        print("no job again")
    assert await printed(tracker, type="system") == [("stdout", "no job"), ("stdout", "no job again")]  # fmt: skip
    assert await printed(tracker, job_id=job.id) == [("stdout", "of the job")]
    assert capsys.readouterr().out == "shown only\n"


async def test_log_lines_are_not_recorded_twice(tracker_of_console, capsys):
    """Bad day: the console of structjob, structlog's own printer and `logging` write to the
    captured stream.
    """
    tracker = tracker_of_console
    import logging

    async with tracker.job("chatty") as job:
        with job.capture_output():
            structlog.get_logger("app").info("an event")
            print("a print")
            handler = logging.StreamHandler()
            logging.getLogger("lib").addHandler(handler)
            try:
                logging.getLogger("lib").warning("a record")
            finally:
                logging.getLogger("lib").removeHandler(handler)
    found = [event.message for event in await tracker.logs.list(job_id=job.id, limit=100)]
    assert [found.count(text) for text in ("an event", "a print", "a record")] == [1, 1, 1]
    shown = capsys.readouterr()
    assert shown.out.count("an event") == 1
    assert shown.out.count("a print") == 1
    assert not await tracker.logs.list(kind="output", text="an event")


@pytest.fixture
async def tracker_of_console(db_url):
    """A tracker beside a console that shows JSON on whatever stdout is."""
    structjob.configure(console="json", strict=True)
    async with structjob.Tracker(db_url) as tracker:
        yield tracker


async def test_binary_streams_and_what_programs_ask_of_a_stream(tracker, monkeypatch):
    """R31: `sys.stdout.buffer`, `fileno`, `isatty`, `encoding` and the like work as without."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    async with tracker.job("binary") as job:
        with job.capture_output():
            sys.stdout.buffer.write(b"caf\xc3\xa9\n")
            sys.stdout.buffer.flush()
            assert not sys.stdout.isatty()
            assert sys.stdout.encoding == "utf-8"
            with pytest.raises(OSError):
                sys.stdout.fileno()
            sys.stdout.flush()
    assert await printed(tracker, job_id=job.id) == [("stdout", "café")]
    assert raw.getvalue() == "café\n".encode()


async def test_without_a_console(tracker, monkeypatch):
    """Bad day: a process without stdout (`None`), or with a closed one."""
    monkeypatch.setattr(sys, "stdout", None)
    async with tracker.job("silent") as job:
        with job.capture_output():
            print("heard")
    assert sys.stdout is None
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    async with tracker.job("closed") as job2:
        with job2.capture_output(), pytest.raises(ValueError, match="closed"):
            print("recorded before it fails")
    assert await printed(tracker, job_id=job.id) == [("stdout", "heard")]
    assert await printed(tracker, job_id=job2.id) == [("stdout", "recorded before it fails")]


async def test_another_program_replaces_the_stream_meanwhile(tracker):
    """Bad day: pytest, a notebook or `redirect_stdout` goes on top; only what is ours is put
    back.
    """
    before, theirs = sys.stdout, io.StringIO()
    async with tracker.job("nested") as job:
        with contextlib.ExitStack() as stack:
            with job.capture_output(echo=False):
                print("one")
                stack.enter_context(contextlib.redirect_stdout(theirs))
                print("to theirs")
            assert sys.stdout is theirs
            print("still theirs")
        print("passed on by what was kept")
    sys.stdout = before
    assert theirs.getvalue() == "to theirs\nstill theirs\n"
    assert await printed(tracker, job_id=job.id) == [("stdout", "one")]


async def test_bare_threads_are_not_captured(tracker, capsys):
    """R31: the output of a thread without a context belongs to no job; it is printed as usual."""
    async with tracker.job("threads") as job:
        with job.capture_output(echo=False):
            thread = threading.Thread(target=print, args=("loose",))
            thread.start()
            thread.join()
    assert await printed(tracker, job_id=job.id) == []
    assert capsys.readouterr().out == "loose\n"


async def test_misuse_is_named(tracker):
    """A block is entered once, and captures something."""
    async with tracker.job("misuse") as job:
        with pytest.raises(InvalidArgument, match="neither"):
            job.capture_output(stdout=False, stderr=False)
        block = job.capture_output()
        with block, pytest.raises(InvalidState, match="already"), block:
            pass


async def test_descriptors(tracker, capfd):
    """R31: with fd=True what C code and child processes write is recorded and shown, whole, and
    what was there comes back.
    """
    libc = ctypes.PyDLL(None)
    async with tracker.job("native") as job:
        with job.capture_output(fd=True):
            print("from Python", flush=True)
            os.write(1, b"from os.write\n")
            libc.printf(b"from C %d\n", 7)
            libc.fflush(None)
            subprocess.run(["sh", "-c", "echo from a child; echo from its stderr >&2"], check=True)
            with pytest.raises(InvalidState, match="one at a time"):
                job.capture_output(fd=True).__enter__()
        os.write(1, b"afterwards\n")
    found = await printed(tracker, job_id=job.id)
    assert sorted(found) == [
        ("stderr", "from its stderr"),
        ("stdout", "from C 7"),
        ("stdout", "from Python"),
        ("stdout", "from a child"),
        ("stdout", "from os.write"),
    ]
    shown = capfd.readouterr()
    assert shown.out.splitlines()[-1] == "afterwards"
    assert sorted(shown.out.splitlines()[:-1]) == sorted(text for stream, text in found if stream == "stdout")  # fmt: skip


INTERRUPTED = """
import asyncio, signal
import structjob

async def main():
    signals = looped = 0

    def handler(*_):
        nonlocal signals
        signals += 1
        print("from a signal", signals)
        signal.setitimer(signal.ITIMER_REAL, 0.0002)  # one at a time

    signal.signal(signal.SIGALRM, handler)
    async with structjob.Tracker("sqlite:///jobs.db") as tracker, tracker.job("interrupted") as job:
        with job.capture_output(fd=True, stderr=False), job.capture_output():
            signal.setitimer(signal.ITIMER_REAL, 0.0002)
            while signals < 300:
                looped += 1
                print("from the loop", looped)
            signal.setitimer(signal.ITIMER_REAL, 0)
        found = await tracker.logs.count(job_id=job.id, text="from the loop")
    print("counted", found == looped)

asyncio.run(main())
"""


def test_signal_handlers_may_print_anywhere(tmp_path):
    """R31: a handler that prints while its own thread reads what the descriptor got does not wait
    for itself, and no line of the interrupted code is lost or recorded twice.
    """
    done = python("-c", INTERRUPTED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "counted True"


DESCRIPTORS = """
import asyncio, ctypes, sys
import structjob, structlog
structjob.configure(console="json")

async def main():
    async with structjob.Tracker("sqlite:///jobs.db") as tracker, tracker.job("flood") as job:
        with job.capture_output(fd=True, echo=False):
            libc = ctypes.PyDLL(None)
            for n in range(100_000):
                libc.printf(b"line %d of a flood\\n", n)
            libc.fflush(None)
            structlog.get_logger().info("meanwhile")
            print("at the end")
        events = await tracker.logs.count(job_id=job.id, kind="output")
        logged = await tracker.logs.count(job_id=job.id, text="meanwhile")
    print("counted", events, logged)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_flood_from_c_code_does_not_hang(tmp_path):
    """Bad day: C code that holds the GIL writes megabytes; the console does not feed itself."""
    done = python("-c", DESCRIPTORS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "counted 100001 1"
    assert sum('"event":"meanwhile"' in line for line in lines) == 1
    assert not any(line == "line 7 of a flood" for line in lines)


def test_printing_at_the_exit_and_in_a_forked_child(tmp_path):
    """Bad day: `__del__` prints when the interpreter ends; a child is forked within the block."""
    program = """
import os, sys, structjob
structjob.configure(console=False)

class Late:
    def __del__(self):
        print("late")

late = Late()
block = structjob.capture_output()
block.__enter__()
print("early", flush=True)
if not (pid := os.fork()):
    print("child", flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "early\nchild\nlate\n", "")


def test_the_program_of_the_documentation_runs(tmp_path):
    """R51: the page's program runs as it stands, and its command finds what was printed."""
    page = (Path(__file__).parent.parent / "docs/integrations/output.md").read_text("utf-8")
    (program,) = re.findall(r"<!-- legacy.py -->\n```python\n(.*?)```", page, re.DOTALL)
    (command,) = re.findall(r"^structjob (logs .*)$", page, re.MULTILINE)
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reading a.csv\ndone\nfrom a child process\n"
    for text in ("reading", "child"):
        words = command.replace("reading", text).split()
        found = python("-m", "structjob", *words, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert text in found.stdout


def test_a_block_within_a_block_of_descriptors_records_its_lines_once(db_url, capfd):
    """R31: a library captures what it prints, and so does the script around it; in order."""
    program = """
import os, sys, structjob
structjob.configure(console=False)
with structjob.Tracker(sys.argv[1]) as tracker, tracker.job("a") as job:
    with job.capture_output(fd=True):
        print("first")
        os.write(1, b"second\\n")
        with job.capture_output():
            print("third")
        with job.capture_output(echo=False):
            print("hidden")
        print("last")
"""
    done = python("-c", program, db_url, check=True)
    assert done.stdout.splitlines() == ["second", "first", "third", "last"] or (
        done.stdout.splitlines() == ["first", "second", "third", "last"]
    )
    with structjob.Tracker(db_url) as tracker:
        events = tracker.run(tracker.logs.list(kind="output"))
    assert sorted(event.message for event in events) == [
        "first", "hidden", "last", "second", "third",
    ]  # fmt: skip


def test_a_warning_that_is_an_event_is_not_recorded_as_output_too(db_url, capsys, monkeypatch):
    """R31: it is shown as before."""
    shown = lambda message, *_: print(message, file=sys.stderr)  # noqa: E731
    shown.__module__ = "warnings"  # pytest's own keeps them
    monkeypatch.setattr(warnings, "showwarning", shown)
    structjob.configure(console=False, uncaught=True)
    with structjob.Tracker(db_url) as tracker, tracker.job("a") as job:
        with job.capture_output():
            warnings.showwarning("careful", UserWarning, "a.py", 7)
            warnings.showwarning("careful", UserWarning, "a.py", 7)
        events = tracker.run(tracker.logs.list(job=job))
    assert [event.kind for event in events if "careful" in event.message] == ["uncaught", "output"]
    assert capsys.readouterr().err.count("careful") == 2
