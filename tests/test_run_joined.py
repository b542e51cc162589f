"""A Python program that itself records with structjob, below ``structjob run`` (faults 46)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_support import Shell, preforked

import structjob
from structjob.context.propagation import from_environment as from_environment_of_a_job
from structjob.sinks.marks import (
    MarkedOutput,
    MarkedStream,
    from_environment,
    new_mark,
    to_environment,
)

PROGRAM = """
import sys

import structlog
import structjob

structjob.configure({configure})
log = structlog.get_logger()
with structjob.Tracker({tracker}) as tracker:
    print("printed")
    log.info("logged", number=1)
    log.debug("only shown")
    with structjob.step("load"):
        with structjob.step("parse"):
            log.info("parsed")
    for attempt in structjob.retrying("publish", max_attempts=2, delay=0, on=OSError):
        with attempt as step:
            if step.name == "attempt-1":
                raise OSError("busy")
    with tracker.job("below"), structjob.step("inner"):
        log.info("in a job of its own")
    assert structjob.current_job() is None
    {end}
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """An empty directory, in which what was started ends with the test."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def run(shell: Shell, *, python: str = "", code: int = 0, end: str = "pass", **given: str) -> bytes:
    """Run the program as a job named ``outer``; return what it has shown on stdout."""
    given = {"configure": "", "tracker": "", "end": end} | given
    done = run_below(shell, PROGRAM.format(**given), python)
    assert done.returncode == code, done.stderr
    return done.stdout


def run_below(shell: Shell, program: str, python: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run *program* as a job named ``outer``; without its imports, unless an interpreter is
    given.
    """
    (shell.directory / "program.py").write_text(program)
    command = (python or preforked.stand_in(), "program.py")
    return shell.run("run", "--name", "outer", "--", *command)


def messages(shell: Shell, *options: str) -> list[str]:
    return [event["message"] for event in shell.json("logs", "outer", *options)]


def steps_of(shell: Shell, job: str) -> dict[str, dict[str, Any]]:
    """Return the steps of a job by name."""
    (found,) = [one for one in shell.json("jobs", "--roots") if one["operation"] == job] or [{}]
    return {step["name"]: step for step in shell.json("show", found["id"])["steps"]}


@pytest.mark.parametrize("form", ["'json'", "'pretty'"])
def test_each_event_is_recorded_once(shell: Shell, form: str) -> None:
    """Faults 46: the console line of an event is shown and not recorded again; all that is only
    printed is recorded. The output holds no trace of it.
    """
    python = sys.executable if form == "'json'" else ""
    configure = f"console={form}, level='debug', levels={{'asyncio': 'info'}}"
    shown = run(shell, python=python, configure=configure)
    assert b"\x1b" not in shown
    assert b"structjob-" not in shown
    for text in (b"printed", b"logged", b"parsed", b"in a job of its own", b"only shown"):
        assert shown.count(text) == 1
    found = messages(shell)
    for text in ("printed", "logged", "parsed", "in a job of its own"):
        assert found.count(text) == 1
    output = [event["message"] for event in shell.json("logs", "outer", "--kind", "output")]
    assert [line for line in output if "only shown" not in line] == ["printed"]
    # The tracker does not take debug events, so this one is recorded as what it is: output.
    assert len([line for line in output if "only shown" in line]) == 1
    job = next(one for one in shell.json("jobs", "--roots") if one["operation"] == "outer")
    assert job["result"]["stdout_lines"] == len(shown.splitlines())
    assert shell.json("verify")["ok"]


def test_its_steps_belong_to_the_job(shell: Shell) -> None:
    """Faults 46: with their parents, retries and times; a job of its own is a child."""
    run(shell)
    steps = steps_of(shell, "outer")
    assert {name: step["status"] for name, step in steps.items()} == {
        "load": "completed",
        "parse": "completed",
        "publish": "completed",
        "attempt-1": "retrying",
        "attempt-2": "completed",
    }
    assert steps["parse"]["parent_step_id"] == steps["load"]["id"]
    (line,) = shell.json("logs", "outer", "--grep", "parsed")
    assert (line["step"], line["step_id"]) == ("parse", steps["parse"]["id"])
    assert "inner" not in steps
    assert shell.json("verify")["ok"]


def test_another_database_gets_its_own(shell: Shell) -> None:
    """Faults 46, bad day: what the program records elsewhere is output here, and a step that has
    no job there is not recorded there.
    """
    run(shell, tracker="'sqlite:///other.db'")
    assert steps_of(shell, "outer") == {}
    output = [event["message"] for event in shell.json("logs", "outer", "--kind", "output")]
    assert len([line for line in output if '"logged"' in line]) == 1
    # There, its events belong to no job, for that database does not have it.
    other = ("--db", "sqlite:///other.db")
    assert shell.json(*other, "verify")["ok"]
    (line,) = shell.json(*other, "logs", "--grep", "logged")
    (job,) = [one for one in shell.json("jobs", "--roots") if one["operation"] == "outer"]
    assert (line["job_id"], line["correlation_id"]) == (None, job["correlation_id"])
    (below,) = shell.json(*other, "jobs")
    assert (below["operation"], below["parent_job_id"]) == ("below", job["id"])


def test_without_a_tracker_all_is_output(shell: Shell) -> None:
    """Faults 46, bad day: no event is taken for recorded that is not."""
    program = "import structjob, structlog\nstructjob.configure()\nstructlog.get_logger().info('logged')\n"
    assert run_below(shell, program).returncode == 0
    assert len([line for line in messages(shell) if '"logged"' in line]) == 1


def test_a_program_that_is_killed(shell: Shell) -> None:
    """Faults 46, bad day: its step is crashed or cancelled, the job has the program's outcome."""
    end = "structjob.step('last').__enter__(); import os; os.kill(os.getpid(), 9)"
    run(shell, code=-9, end=end)
    shell.ok("verify", code=0)
    assert steps_of(shell, "outer")["last"]["status"] == "crashed"
    assert next(j for j in shell.json("jobs", "--roots") if j["operation"] == "outer")[
        "status"
    ] == ("failed")


def test_the_error_is_the_last_line_of_stderr_marked_or_not(shell: Shell) -> None:
    """Faults 46, 43: also if the program has logged that line itself."""
    run(
        shell,
        code=3,
        configure="console=structjob.ConsoleSink(sys.stderr, format='pretty')",
        end="log.error('no such table'); sys.exit(3)",
    )
    job = next(one for one in shell.json("jobs", "--roots") if one["operation"] == "outer")
    assert "no such table" in job["error"]["message"]
    assert "\x1b" not in job["error"]["message"]


def test_handlers_of_logging(shell: Shell) -> None:
    """Faults 46, same kind: what `basicConfig` shows of a recorded record is recorded once, with
    all the lines of its traceback; what is only shown is output.
    """
    program = """
import io, logging, sys
import structjob
logging.basicConfig(level="DEBUG", format="%(levelname)s %(message)s")
logging.getLogger("asyncio").setLevel("INFO")
logging.getLogger("structjob").setLevel("WARNING")
structjob.configure(console=False)
with structjob.Tracker():
    log = logging.getLogger("app")
    log.debug("only shown")
    log.warning("caf\\u00e9")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
    alone = logging.getLogger("alone")
    alone.propagate = False
    own = logging.StreamHandler(sys.stdout)
    elsewhere = logging.StreamHandler(text := io.StringIO())
    alone.addHandler(own), alone.addHandler(elsewhere)
    alone.error("own handler")
    assert own.stream.fileno() == 1
    assert elsewhere.stream is text and text.getvalue() == "own handler\\n"
"""
    done = run_below(shell, program)
    shown = done.stderr.decode()
    assert done.returncode == 0, shown
    assert done.stdout == b"own handler\n"
    assert shown.startswith("DEBUG only shown\nWARNING café\nERROR failed\nTraceback (most")
    events = shell.json("logs", "outer")
    assert [event["message"] for event in events if event["kind"] == "output"] == [
        "DEBUG only shown"
    ]
    logged = [event["message"] for event in events if event["kind"] == "log"]
    assert logged == ["café", "failed", "own handler"]


def once(shell: Shell, done: Any, *, events: tuple[str, ...], output: tuple[str, ...] = ()) -> None:
    """Check that each text is shown once and recorded once: as an event, or as output."""
    shown = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, shown
    assert "structjob-" not in shown
    found = shell.json("logs", "outer")
    for text in (*events, *output):
        (event,) = [event for event in found if text in event["message"]]
        assert (event["kind"] == "output") == (text in output), event
        assert shown.count(text) == 1
    assert shell.json("verify")["ok"]


def test_a_run_within_a_run(shell: Shell) -> None:
    """Faults 46, same kind: a line belongs to the inner job only, and the bytes stay the same."""
    output = b"of the inner\n" + bytes(range(256)) * 600
    (shell.directory / "output").write_bytes(output)
    inner = (preforked.stand_in(), "-m", "structjob", "run", "--name", "inner", "--")
    program = "cat output; printf 'no newline' >&2; exit 3"
    done = shell.run("run", "--name", "outer", "--", *inner, "sh", "-c", program)
    assert (done.returncode, done.stderr, done.stdout) == (3, b"no newline", output)
    found = {job["operation"]: job for job in shell.json("jobs")}
    assert found["inner"]["parent_job_id"] == found["outer"]["id"]
    for text in ("of the inner", "no newline"):
        (line,) = shell.json("logs", "--grep", text, "--kind", "output")
        assert line["job_id"] == found["inner"]["id"]
    of_outer, of_inner = found["outer"]["result"], found["inner"]["result"]
    assert of_outer["stdout_lines"] == of_inner["stdout_lines"]
    assert "no newline" in found["outer"]["error"]["message"]
    assert shell.json("verify")["ok"]


def test_a_run_within_a_run_with_another_database(shell: Shell) -> None:
    """Faults 46, bad day: each database has the line."""
    inner = (preforked.stand_in(), "-m", "structjob", "--db", "sqlite:///other.db", "run", "--")
    shell.ok("run", "--name", "outer", "--", *inner, "echo", "of the inner")
    for db in ((), ("--db", "sqlite:///other.db")):
        (line,) = shell.json(*db, "logs", "--grep", "of the inner")
        assert line["kind"] == "output"


@pytest.mark.parametrize("fd", [False, True])
def test_captured_output_that_is_printed_too(shell: Shell, fd: bool) -> None:
    """Faults 46, same kind: `capture_output` records it, so the command does not; a child process
    is captured with *fd* only.
    """
    program = f"""
import os, sys, structjob, structlog
structjob.configure(console="json")
log = structlog.get_logger()
print("before", flush=True)
with structjob.Tracker():
    with structjob.capture_output(fd={fd}):
        print("one", "and", "two")
        sys.stdout.write("a prompt: ")
        print("answered")
        sys.stdout.buffer.write(b"in bytes\\n")
        sys.stdout.flush()
        print("an error", file=sys.stderr)
        log.info("logged within")
        os.system("echo of a child")
    print("after", flush=True)
"""
    done = run_below(shell, program)
    shown = ("before", "one and two", "a prompt: answered", "in bytes", "an error", "after")
    once(shell, done, events=("logged within",), output=(*shown, "of a child"))


@pytest.mark.parametrize("factory", ["PrintLogger", "WriteLogger", "BytesLogger"])
@pytest.mark.parametrize("recording", ["install", "by hand"])
def test_loggers_of_structlog_itself(shell: Shell, factory: str, recording: str) -> None:
    """Faults 46, same kind: `install`, or `record_event` in the program's own list, records the
    events, and the set-up as it was shows them.
    """
    by_hand = recording == "by hand"
    last = ".encode()" if factory == "BytesLogger" else ""
    program = f"""
import logging, structlog, structjob
structlog.configure(
    processors=[
        {"structjob.processors.record_event," if by_hand else ""}
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(lambda event, **_: repr(event){last}),
    ],
    logger_factory=structlog.{factory}Factory(),
)
{"" if by_hand else "structjob.install()"}
log = structlog.get_logger()
with structjob.Tracker(level="info"):
    log.info("logged")
    log.debug("only shown")
    {"" if by_hand else 'logging.getLogger("app").warning("of logging")'}
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
"""
    done = run_below(shell, program)
    once(
        shell,
        done,
        events=("logged", "failed", *(() if by_hand else ("of logging",))),
        output=("only shown",),
    )
    kinds = [event["kind"] for event in shell.json("logs", "outer")]
    assert kinds.count("output") == 1  # no line of the traceback


def test_what_python_prints_of_uncaught_errors(shell: Shell) -> None:
    """Faults 46, same kind: `capture_uncaught` records the error, and Python prints it."""
    program = """
import threading, warnings, structjob
structjob.configure(console=False, uncaught=True)
def failing():
    raise ValueError("in a thread")
with structjob.Tracker():
    warnings.warn("deprecated")
    thread = threading.Thread(target=failing)
    thread.start(), thread.join()
    print("printed")
"""
    done = run_below(shell, program)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"ValueError: in a thread") == 1
    assert done.stderr.count(b"UserWarning: deprecated") == 1
    output = [event["message"] for event in shell.json("logs", "outer", "--kind", "output")]
    assert output == ["printed"]
    # a thread is in no job
    assert len(shell.json("logs", "--kind", "uncaught")) == 2


def test_the_lines_of_run_process(shell: Shell) -> None:
    """Faults 46, same kind: with *echo* they are recorded once, and shown."""
    program = """
import asyncio, structjob
async def main():
    async with structjob.Tracker() as tracker, tracker.job("below") as job:
        await job.run_process(["sh", "-c", "echo one; echo two >&2"], echo=True)
structjob.configure(console=False)
asyncio.run(main())
"""
    done = run_below(shell, program)
    assert (done.stdout, done.stderr) == (b"one\n", b"two\n")
    output = [event["message"] for event in shell.json("logs", "outer", "--kind", "output")]
    assert sorted(output) == ["one", "two"]


# -- workers of a pool
# --------------------------------------------------------------------------


def test_steps_in_the_workers_of_a_pool(tmp_path: Path) -> None:
    """Faults 46, same kind: a spawned worker's tracker records its steps as steps of the job."""
    program = tmp_path / "pool.py"
    program.write_text("""
import concurrent.futures as futures, multiprocessing, sys
import structlog, structjob

def work(number):
    with structjob.step("part"):
        structlog.get_logger().info("worked", number=number)
    with structjob.step("rest"):
        pass

if __name__ == "__main__":
    structjob.configure(console=False)
    with structjob.Tracker("jobs.db") as tracker, tracker.job("pool") as job:
        pool = futures.ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), structjob.worker_initializer("jobs.db")
        )
        with job.step("all"), structjob.ContextExecutor(pool) as executor:
            list(executor.map(work, range(3)))
        with job.step("last"):
            pass
""")
    shell = Shell(tmp_path)
    done = shell.run_in(preforked.stand_in(), "pool.py")
    assert done.returncode == 0, done.stderr
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        (job,) = tracker.run(tracker.jobs.list())
        steps = tracker.run(tracker.jobs.steps(job.id))
        # Each task counts its own steps; all are listed as they started.
        assert [step.name for step in steps] == ["all", *["part", "rest"] * 3, "last"]
        assert [step.seq for step in steps] == [1, *[1, 2] * 3, 2]
        assert list(tracker.run(tracker.jobs.tree(job.id)).steps) == steps
        (whole,) = [step for step in steps if step.name == "all"]
        parts = [step for step in steps if step.name == "part"]
        assert [(part.status, part.parent_step_id) for part in parts] == [
            ("completed", whole.id)
        ] * 3
        lines = tracker.run(tracker.logs.list(job=job, text="worked"))
        assert {line.step_id for line in lines} == {part.id for part in parts}
        assert tracker.run(tracker.verify()).ok
    shell.close()


# -- the job of another process
# --------------------------------------------------------------------------


def joined(environ: dict[str, str]) -> Any:
    """Return the block of what another process with this environment runs."""
    return from_environment_of_a_job(environ).as_current()


async def test_the_job_of_another_process_gets_steps_and_nothing_else(db_url: str) -> None:
    """Faults 46: only the process that started a job records it, and ends it; steps that this one
    records have the attempt, and are below the step around them.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, project="nightly") as tracker:
        with pytest.raises(OSError, match="first"):
            async with tracker.job("outer", job_id="a", owner="ada"):
                raise OSError("first")
        async with tracker.job("outer", job_id="a", owner="ada", correlation_id="c") as job:
            async with job.step("around"):
                environ = structjob.environment({})
            before = await tracker.jobs.get("a")
            with joined(environ):
                assert structjob.current_job() is None
                with structjob.step("load", total=2) as load:
                    load.advance()
                    assert structjob.current_job() is None
                    other = load.job
                    with structjob.step("parse") as parse:
                        assert parse.job is other
                with pytest.raises(KeyError), structjob.step("fails"):
                    raise KeyError("x")
                assert (other.id, other.attempt, other.status) == ("a", 2, "running")
                assert (other.operation, other.project, other.owner) == ("outer", "nightly", "ada")
                assert (other.correlation_id, other.root_job_id) == ("c", "a")
                for ending in (other.end, lambda: other.end("failed", error=OSError("x"))):
                    with pytest.raises(
                        structjob.InvalidState, match="run by another process; end is"
                    ):
                        ending()
                async with other.child("below") as below:
                    assert (below.parent_job_id, below.root_job_id) == ("a", "a")
            assert await tracker.jobs.get("a") == before
        steps = {one.name: one for one in await tracker.jobs.steps("a")}
        assert {name: one.status for name, one in steps.items()} == {
            "around": "completed", "load": "completed", "parse": "completed", "fails": "failed"
        }  # fmt: skip
        assert {one.attempt for one in steps.values()} == {2}
        assert steps["parse"].parent_step_id == steps["load"].id
        events = await tracker.logs.list(
            job="a", attempt=2, children=False, kind="operation_progress"
        )
        assert not events.items
        assert (await tracker.jobs.get("a")).status == "completed"
    with joined(environ):  # also if the tracker is another one by then, or none
        for _ in range(2):
            with structjob.step("late") as late:
                assert late.job.id != "a"
            async with structjob.Tracker(db_url):
                with structjob.step("again") as again:
                    assert again.job.id == "a"
    with pytest.raises(structjob.NotOpen):
        other.step("later").start()


# -- the marks
# --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 31, 1000])
def test_marks_are_removed_wherever_the_output_is_cut(size: int) -> None:
    """Faults 46: reads end anywhere, also within a mark; other escape sequences stay."""
    mark = new_mark()
    end = mark.replace(b"\x1b\\", b".\x1b\\")
    text = (
        b"plain\n%(m)sone\n\x1b[31mred\x1b[0m\nhalf %(m)stwo %(m)sagain\n"
        b"%(m)s\nlast\x1b_structjob-other\x1b\\ \xff\n%(m)sno %(e)soutput\n%(m)sline%(e)s %(m)send"
    ) % {b"m": mark, b"e": end}
    output = MarkedOutput(mark)
    shown, plain = b"", b""
    for at in range(0, len(text) + size, size):
        one, other = output.split(text[at : at + size])
        shown, plain = shown + one, plain + other
    one, other = output.split(b"")
    assert shown + one == text.replace(mark, b"").replace(end, b"")
    expected = b"plain\n\x1b[31mred\x1b[0m\nhalf last\x1b_structjob-other\x1b\\ \xff\noutput\n "
    assert plain + other == expected
    assert (output.lines, output.last) == (4, b"lineend")
    assert output.marks == (mark, end)


def test_the_end_of_the_output_is_not_held_back() -> None:
    """Faults 46: what ends like the beginning of a mark is shown when the output ends."""
    output = MarkedOutput(new_mark())
    assert output.split(b"color \x1b") == (b"color ",) * 2
    assert output.split(b"") == (b"\x1b",) * 2


def test_what_cannot_be_a_mark_is_not_held_back() -> None:
    """Faults 46: a prompt with colors appears at once."""
    output = MarkedOutput(new_mark())
    assert output.split(b"\x1b[1mname? \x1b[0m") == (b"\x1b[1mname? \x1b[0m",) * 2
    assert output.split(b"x") == (b"x", b"x")
    assert output.marks == ()


@pytest.mark.parametrize(
    "value", ["", "structjob-1", "x 1:2", "structjob-1 1:x", "structjob-1 12", "structjob-é 1:2"]
)
def test_an_environment_that_says_nothing(value: str) -> None:
    """Faults 46, bad input: a variable of this name that the command has not written."""
    environ = {"STRUCTJOB_OUTPUT": value, "STRUCTJOB_DATABASE": "sqlite:x"}
    assert from_environment(environ) is None


def test_only_what_goes_to_the_pipe_of_the_command_is_marked(tmp_path: Path) -> None:
    """Faults 46: a program that redirects its console keeps it free of marks."""
    with (tmp_path / "a").open("wb") as ours, (tmp_path / "b").open("wb") as other:
        variables = to_environment(mark := new_mark(), (ours.fileno(),))
        marks = from_environment({**variables, "STRUCTJOB_DATABASE": "sqlite:x"})
        assert marks is not None
        with marks.showing("sqlite:x"):
            assert marks.on(b"a\nb\n", ours) == mark + b"a\n" + mark + b"b\n"
            assert marks.on(b"a\n", other) == b"a\n"
            assert marks.on(b"a\n", object()) == b"a\n"
            end = mark.replace(b"\x1b\\", b".\x1b\\")
            assert marks.on(b"\na", ours.fileno()) == mark + b"\n" + mark + b"a" + end
            assert marks.on(b"", ours) == b""
        assert marks.on(b"a\n", ours) == b"a\n"
        for recorded_in in (None, "sqlite:y"):
            with marks.showing(recorded_in):
                assert marks.on(b"a\n", ours) == b"a\n"


def test_the_stream_of_a_handler_marks_once(tmp_path: Path) -> None:
    """Faults 46: a handler of `logging` shows recorded records with one mark, all others without,
    and its stream is otherwise the one that it had.
    """
    path = tmp_path / "shown"
    with path.open("w+", encoding="utf-8") as stream:
        variables = to_environment(mark := new_mark(), (stream.fileno(),))
        marks = from_environment({**variables, "STRUCTJOB_DATABASE": "sqlite:x"})
        assert marks is not None
        assert marks.on(b"a\n", stream) == b"a\n"
        assert marks.reaches(stream)
        marked: Any = MarkedStream(stream, marks)
        assert not marks.reaches(marked)
        assert marked.fileno() == stream.fileno()
        assert marked.write("plain\n") == 6
        with marks.showing("sqlite:x"):
            marked.write("récorded\n")
    assert path.read_bytes() == b"plain\n" + mark + "récorded\n".encode()
