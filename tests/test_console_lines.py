"""The console on pipes and non-blocking descriptors: a line is there whole, or not at all."""

import fcntl
import io
import json
import os
import select
import subprocess
import threading
from pathlib import Path

import pytest
import structlog
from cli_support import preforked

import structjob
from structjob import ConsoleSink
from structjob.machine import descriptor

log = structlog.get_logger("app")

PROGRAM = """
import asyncio, os, signal, sys, threading, time
import structlog, structjob
structjob.configure(console="json", strict=True)
log = structlog.get_logger()
"""

THREADS = """
def work(name):
    for n in range(150):
        log.info(f"{name} {n}", pad=name * 9000)
threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""

EXCEPTIONS = """
class TooLong(Exception): pass
async def work(name):
    for n in range(50):
        try:
            raise TooLong(name * 9000)
        except TooLong:
            await log.aexception(f"{name} {n}")
async def main():
    await asyncio.gather(*map(work, "abcd"))
asyncio.run(main())
"""


def run(program, *, nonblocking=False):
    """Return the lines that a program writes to a pipe."""
    reading, writing = os.pipe()
    if nonblocking:
        os.set_blocking(writing, False)
    # Without PYTHONUNBUFFERED, with which Python itself loses what `print` cannot write.
    child = preforked.start(
        PROGRAM + program, (), Path.cwd(), stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    with open(reading, "rb") as stream:
        text = stream.read()
    with child.stderr:
        errors = child.stderr.read()
    child.wait(60)
    assert (child.returncode, errors) == (0, b"")
    return text.splitlines()


def names(lines):
    """Return the events of *lines*, each of which must be whole."""
    return sorted(json.loads(line)["event"] for line in lines)


def expected(count):
    return sorted(f"{name} {n}" for name in "abcd" for n in range(count))


def test_long_lines_of_several_threads_are_whole_on_a_pipe():
    """faults A10: lines above 4 KiB were torn as soon as two threads logged."""
    assert names(run(THREADS)) == expected(150)


def test_exceptions_that_asyncio_logs_are_whole_on_a_pipe():
    """faults A10: `await log.aexception` renders in executor threads; 80 of 200 lines were torn."""
    assert names(run(EXCEPTIONS)) == expected(50)


@pytest.mark.parametrize(
    "program",
    [
        THREADS,
        "for name in 'abcd':\n    for n in range(150): log.info(f'{name} {n}', pad='x' * n * 60)",
    ],
)
def test_a_non_blocking_stdout_loses_and_tears_nothing(program):
    """faults A10: a slow reader at the other end of a non-blocking pipe means waiting, and no
    failure.
    """
    assert names(run(program, nonblocking=True)) == expected(150)


def test_what_print_left_in_a_non_blocking_stdout_is_written_first():
    """faults A10: the text that `print` has buffered is no reason to lose the line that is logged
    after it.
    """
    lines = run(
        "for n in range(300):\n    print('p' * 500)\n    log.info('x' * 5000)", nonblocking=True
    )
    assert [len(line) for line in lines[::2]] == [500] * 300
    assert names(lines[1::2]) == ["x" * 5000] * 300


def test_a_signal_handler_that_logs_neither_waits_for_itself_nor_tears_a_line():
    """faults A10: the handler comes while its own thread holds the console, in the middle of a long
    line.
    """
    lines = run("""
signal.signal(signal.SIGALRM, lambda *_: log.info("handler", pad="h" * 20_000))
signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
for n in range(500): log.info("main", pad="m" * 60_000)
signal.setitimer(signal.ITIMER_REAL, 0)
""")
    found = names(lines)
    assert found.count("main") == 500
    assert 0 < found.count("handler") == len(found) - 500


def test_a_signal_handler_that_raises_leaves_no_torn_line():
    """faults A10: Ctrl-C in the middle of a long line; the next one finishes it."""
    lines = run(
        """
class Interrupted(Exception): pass
def interrupt(*_): raise Interrupted
def interrupted():
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0007)
        while True: log.info("main", pad="m" * 60_000)
    except Interrupted: pass
structjob.diagnostics.faults.strict = False
signal.signal(signal.SIGALRM, interrupt)
for n in range(200): interrupted()
log.info("last")
""".replace("(Exception)", "(BaseException)")
    )
    assert "last" in names(lines)


def test_a_forked_child_logs_while_a_thread_of_its_parent_held_the_console():
    """faults A10: the child has no such thread; its lock is a new one."""
    lines = run("""
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: that a process with threads forks is what this is about
def work():
    for n in range(300): log.info("thread", pad="t" * 20_000)
thread = threading.Thread(target=work)
thread.start()
for n in range(30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        log.info("child")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
thread.join()
""")
    # Processes share the pipe without a lock: a short line of the child's may stand within a long
    # one of its parent's.
    text = b"\n".join(lines)
    assert text.count(b'"event":"child"') == 30
    assert text.count(b'"event":"thread"') == 300


@pytest.fixture
def full(monkeypatch):
    """A console on a non-blocking pipe whose reader takes nothing; return both ends."""
    monkeypatch.setattr(descriptor, "STUCK_TIMEOUT", 0.05)
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    with open(writing, "wb", buffering=0) as stream:
        structjob.configure(console=structjob.ConsoleSink(stream, format="json"), stdlib=False)
        yield reading
        structjob.configure(console=False)
    os.close(reading)


def drained(reading):
    text = b""
    while select.select([reading], [], [], 0)[0]:
        text += os.read(reading, 1 << 20)
    return text


def test_a_reader_that_is_stuck_costs_lines_and_not_the_program(full):
    """faults A10: after one wait, lines are dropped whole and counted; once the reader reads on,
    nothing is dropped any more.
    """
    for n in range(100):
        log.info(f"{n}", pad="x" * 300)
    dropped = structjob.diagnostics.faults.counts["the sink ConsoleSink"]
    assert 80 < dropped < 100
    found = names(drained(full).splitlines())
    assert len(found) == 100 - dropped
    log.info("again")
    assert names(drained(full).splitlines()) == ["again"]


def test_a_line_that_was_begun_is_finished_before_the_next(full):
    """faults A10: a line longer than the pipe is there whole in the end."""
    log.info("long", pad="x" * 10_000)
    first = drained(full)
    assert not first.endswith(b"\n")
    while b"last" not in first:
        log.info("last")
        first += drained(full)
    found = [json.loads(line)["event"] for line in first.splitlines()]
    assert found[0] == "long"
    assert set(found[1:]) == {"last"}


def test_two_sinks_on_one_pipe_tear_nothing(tmp_path):
    """faults A10: stdout and stderr are one pipe, and a `FileSink` is told /dev/stderr."""
    lines = run("""
os.dup2(1, 2)
structjob.configure(console="json", file="/dev/stderr")
def work(name):
    for n in range(100): log.info(name, pad=name * 9000)
threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""")
    assert names(lines) == ["a"] * 200 + ["b"] * 200


def test_a_thread_waits_for_the_line_of_another_and_no_longer(full):
    """faults A10: what waits for a stuck reader ends, and the lines of other threads with it."""
    threads = [
        threading.Thread(target=lambda: [log.info("x", pad="x" * 2000) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert set(names(drained(full).splitlines())) <= {"x"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1251", "utf-16"])
def test_a_stream_whose_encoding_lacks_a_character_loses_no_line(encoding):
    """Bad day: a stream without a descriptor, with an old encoding: what it lacks is shown as
    escapes, and a line of JSON means the same.
    """
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    structjob.configure(console=ConsoleSink(stream, format="json"), strict=True)
    log.info("für 😀 ж", to="é")
    line = json.loads(stream.buffer.getvalue().decode(encoding))
    assert (line["event"], line["to"]) == ("für 😀 ж", "é")


def test_a_stream_that_only_writes_is_enough():
    """Bad day: `print` writes to an object that has nothing but `write`, such as a tee; so does the
    console.
    """

    class Tee:
        written = ""

        def write(self, text):
            self.written += text

    tee = Tee()
    structjob.configure(console=ConsoleSink(tee, format="json"), strict=True)
    log.info("für")
    assert json.loads(tee.written)["event"] == "für"


def test_a_stream_that_does_more_than_write_gets_the_lines():
    """R27: a notebook's stream names the descriptor of the stream that it replaced, as does one
    that copies its text to a file. The console wrote past them: cells of a notebook showed nothing.
    """
    reading, writing = os.pipe()
    shown = io.StringIO()

    class Copying:
        def write(self, text):
            return shown.write(text)

        def flush(self):
            pass

        def fileno(self):
            return writing

    structjob.configure(console=structjob.ConsoleSink(Copying(), format="pretty"), strict=True)
    log.info("copied")
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""
    assert shown.getvalue().endswith("info     copied · app\n")
