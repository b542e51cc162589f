"""Programs that a job runs: their output, their end, and what they leave behind (R31)."""

import asyncio
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
from cli_support import preforked

import structjob
from structjob import CommandFailed, CommandTimeout, InvalidArgument
from structjob.lifecycle import processes

PYTHON = sys.executable


def python(program):
    return [PYTHON, "-c", program]


async def lines_of(tracker, job, **filters):
    found = await tracker.logs.list(job_id=job.id, limit=1000, order="asc", **filters)
    return [event for event in found if event.kind == "output"]


def alive(pid):
    """Whether a process exists and has not ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_its_output_is_recorded(any_tracker):
    """R31: each line is an event by its stream and level; the program is a step that says what it
    used.
    """
    program = "import sys; print('one'); print('two', file=sys.stderr); print('three', end='')"
    async with any_tracker.job("build") as job:
        result = await job.run_process(python(program), levels={"stderr": "warning"})
    assert (result.returncode, result.signal, result.lines, result.left) == (0, None, 3, False)
    assert sorted(result.tail) == ["one", "three", "two"]
    assert result.seconds > 0
    assert result.cpu_seconds > 0
    found = await lines_of(any_tracker, job)
    assert sorted((one.stream, one.level, one.message) for one in found) == [
        ("stderr", "warning", "two"),
        ("stdout", "info", "one"),
        ("stdout", "info", "three"),
    ]
    (step,) = await any_tracker.jobs.steps(job.id)
    assert (step.name, step.status) == (os.path.basename(PYTHON), "completed")
    assert {one.step_id for one in found} == {step.id}
    (end,) = await any_tracker.logs.list(job_id=job.id, kind="step_end")
    assert (end.attrs["returncode"], end.attrs["lines"]) == (0, 3)


FAILING_JOB = """
import structjob
structjob.configure(console=False)
with structjob.Tracker("sqlite:///child.db") as tracker, tracker.job("pack"):
    with structjob.step("wrap"):
        raise RuntimeError("no tape left")
"""


async def test_the_reason_is_the_exception_and_not_the_note_with_its_ids(tracker, tmp_path):
    """R31: a program that records jobs itself ends its traceback with a note of their ids. The
    failure says what the exception said.
    """
    with pytest.raises(CommandFailed) as caught:
        async with tracker.job("build") as job:
            await job.run_process([preforked.stand_in(), "-c", FAILING_JOB], cwd=tmp_path)
    assert str(caught.value).endswith(" ended with exit code 1: RuntimeError: no tape left")
    assert caught.value.tail[-1].startswith("[job_id=")


async def test_the_reason_is_the_last_exception_of_a_group(tracker):
    """R31: the traceback of an exception group ends with a ruler, which is no reason."""
    program = "raise ExceptionGroup('parts', [ValueError('no tape left')])"
    with pytest.raises(CommandFailed) as caught:
        async with tracker.job("build") as job:
            await job.run_process(python(program))
    assert str(caught.value).endswith(" ended with exit code 1: ValueError: no tape left")


async def test_a_failure_is_raised(tracker):
    """R31: another exit code fails the step and says what the program said last."""
    with pytest.raises(CommandFailed, match="ended with exit code 3: no disk") as caught:
        async with tracker.job("build") as job:
            await job.run_process(python("import sys; print('no disk'); sys.exit(3)"))
    assert (caught.value.returncode, caught.value.signal, caught.value.tail) == (3, None, ("no disk",))  # fmt: skip
    assert pickle.loads(pickle.dumps(caught.value)).result == caught.value.result
    (step,) = await tracker.jobs.steps(job.id)
    assert (step.status, step.error.type) == ("failed", "CommandFailed")
    async with tracker.job("build") as job:
        result = await job.run_process(python("raise SystemExit(3)"), check=False, step="try it")
        killed = await job.run_process(["sh", "-c", "kill -9 $$"], check=False)
    assert result.returncode == 3
    assert (killed.returncode, killed.signal) == (-9, "SIGKILL")
    assert [step.name for step in await tracker.jobs.steps(job.id)] == ["try it", "sh"]


async def test_a_program_that_is_not_there(tracker):
    """Bad day: FileNotFoundError as it is, and a failed step."""
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        async with tracker.job("build") as job:
            await job.run_process(["no-such-program"])
    (step,) = await tracker.jobs.steps(job.id)
    assert (step.status, step.error.type) == ("failed", "FileNotFoundError")


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("make -j4", {}, "list of words"),
        ([], {}, "a program and its arguments"),
        (["make", 4], {}, r"command\[1\] must be text or a path, not int: 4"),
        ([b"make"], {}, r"command\[0\] must be text or a path, not bytes"),
        (["make"], {"env": {"JOBS": 4}}, "not int for 'JOBS'"),
        (["make"], {"input": 4}, "input must be text or bytes, not int"),
        (["make"], {"timeout": -1}, "timeout"),
        (["make"], {"levels": {"stdin": "info"}}, "levels"),
        (["make"], {"levels": {"stdout": "loud"}}, "level"),
    ],
)
async def test_wrong_arguments_are_named(tracker, command, options, says):
    """No shell reads the command; a mistake starts nothing."""
    async with tracker.job("build") as job:
        with pytest.raises(InvalidArgument, match=says):
            await job.run_process(command, **options)


async def test_its_input_and_environment(tracker, tmp_path):
    """R22, R31: it reads what it is given, belongs to the job, and sees the ids of the step."""
    program = (
        "import os, sys; print(len(sys.stdin.read()), os.environ['STRUCTJOB_JOB_ID'], os.getcwd());"
        "print(os.environ['STRUCTJOB_STEP_ID'], os.environ.get('HOME'), os.environ['MINE'])"
    )
    async with tracker.job("build") as job:
        result = await job.run_process(
            python(program), input="x" * 1_000_000, cwd=tmp_path, env={"MINE": "yes"}
        )
    (step,) = await tracker.jobs.steps(job.id)
    assert result.tail == (f"1000000 {job.id} {tmp_path}", f"{step.id} None yes")


async def test_a_program_that_reads_nothing(tracker):
    """Bad day: it closes its stdin, or ends, with most of the input unread."""
    async with tracker.job("build") as job:
        for program in ("import os, time; os.close(0); time.sleep(.1)", "pass"):
            result = await job.run_process(python(program), input=b"x" * 5_000_000)
            assert result.returncode == 0


async def test_without_a_step(tracker):
    """R31: with step=False the lines belong to the job itself."""
    async with tracker.job("build") as job:
        await job.run_process(["echo", "hello"], step=False)
    (event,) = await lines_of(tracker, job)
    assert (event.message, event.step_id) == ("hello", None)
    assert not await tracker.jobs.steps(job.id)


async def test_a_secret_in_the_command_or_its_output_is_hidden(tracker):
    """R33: neither the command, the lines nor the tail show it."""
    async with tracker.job("build") as job:
        result = await job.run_process(["echo", "--password", "hunter2secret", "password=hunter2secret"])  # fmt: skip
    shown = [event.message for event in await lines_of(tracker, job)]
    (step,) = await tracker.jobs.steps(job.id)
    assert "hunter2secret" not in repr((shown, step.metadata, result.tail))


# -- the zoo
# ------------------------------------------------------------------------------


async def test_a_daemon_that_holds_the_output(tracker):
    """Acceptance test 7. Bad day: what it leaves in the background does not hold the job up; it is
    reported, and goes on.
    """
    program = (
        "import os, subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60); print(1)']);"
        "print(p.pid)"
    )
    began = time.monotonic()
    async with tracker.job("build") as job:
        result = await job.run_process(python(program))
    assert time.monotonic() - began < 30
    pid = int(result.tail[0])
    try:
        assert result.left
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("way", ["timeout", "cancelled"])
@pytest.mark.parametrize("child", ["obedient", "deaf", "in a session of its own"])
async def test_it_is_ended_with_all_that_it_started(tracker, tmp_path, way, child):
    """Acceptance test 7. R9, R31: when its time is up, or its job is cancelled, TERM and then KILL
    go to its whole group; only what left its session stays, and is reported.
    """
    pids = tmp_path / "pids"
    # The grandchild inherits that SIGTERM is ignored.
    program = (
        ("trap '' TERM; " if child == "deaf" else "")
        + ("setsid " if child.startswith("in") else "")
        + "sh -c 'echo $$ > grandchild; exec sleep 60' & "
        + "while [ ! -s grandchild ]; do sleep 0.01; done; "
        + "echo $$ $(cat grandchild) > new; mv new pids; wait"
    )
    job = None

    async def work():
        nonlocal job
        async with tracker.job("build") as job:
            timeout = 2 if way == "timeout" else None
            await job.run_process(["sh", "-c", program], cwd=tmp_path, grace=0.5, timeout=timeout)

    task = asyncio.create_task(work())
    await until(pids.exists)
    began = time.monotonic()
    if way == "cancelled":
        await tracker.cancel(job.id, "enough")
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        with pytest.raises(CommandTimeout, match="took longer than 2 s") as caught:
            await task
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.result.left == (child == "in a session of its own")
    assert time.monotonic() - began < 30
    own, grand = map(int, pids.read_text().split())
    await until(lambda: not alive(own))
    if child == "in a session of its own":
        assert alive(grand)
        os.kill(grand, signal.SIGKILL)
    else:
        await until(lambda: not alive(grand))
    (step,) = await tracker.jobs.steps(job.id)
    assert step.status == ("failed" if way == "timeout" else "cancelled")


@pytest.mark.slow
async def test_junk_and_progress_bars(tracker):
    """Acceptance test 7. Bad day: a line of 1 MB comes in parts and loses nothing; a bar that
    overwrites itself is recorded now and then.
    """
    program = (
        "import os, sys; os.write(1, bytes(range(256)).replace(b'\\n', b'').replace(b'\\r', b'') * 4000 + b'\\n');"
        "[print(f'\\r{n}%', end='', flush=True) for n in range(200)]; print()"
    )
    async with tracker.job("build") as job:
        result = await job.run_process(python(program))
    found = await lines_of(tracker, job)
    parts = [event for event in found if "part" in event.attrs]
    assert len(parts) > 50
    assert [event.attrs["part"] for event in parts] == list(range(1, len(parts) + 1))
    assert len(found) - len(parts) <= 10
    assert found[-1].message == "199%"
    assert result.lines == len(found)


@pytest.mark.parametrize("count", [5_000, pytest.param(200_000, marks=pytest.mark.slow)])
async def test_many_lines_leave_the_loop_to_others(tracker, monkeypatch, count):
    """Acceptance test 7. Bad day: a flood of short lines is recorded whole, and other tasks have
    their turns meanwhile: when the time of a turn is over, after 200 further lines at most. How
    long that is, and how many lines a second are recorded, is measured by benchmark B21.
    """
    monkeypatch.setattr(processes, "_TURN", 0.0)
    seen = []

    async def watch():
        while True:
            seen.append(tracker.ledger().accepted)
            await asyncio.sleep(0)

    async with tracker.job("build") as job:
        watching = asyncio.create_task(watch())
        result = await job.run_process(python(f"for n in range({count}): print(n)"))
        watching.cancel()
    assert result.lines == count
    assert max(after - before for before, after in itertools.pairwise(seen)) == 200
    events = [event async for event in tracker.logs.iterate(job_id=job.id, kind="output")]
    assert [event.message for event in events] == [str(n) for n in range(count)]
    assert (await tracker.verify()).ok


async def test_each_of_many_lines_is_a_complete_event(any_tracker):
    """R31: lines that are recorded together have all that an event has, each its own number, and
    secrets are removed in the lines that hold them.
    """
    lines = [f"line {n}" for n in range(500)]
    lines[3] = "password=hunter2hunter2"
    lines[5], lines[7] = 'quoted ",", "it"', "ümläut \\ \t"
    lines[400] = "nul \x00 in it"
    async with any_tracker.job("build", correlation_id="web-42", project="shop") as job:
        await job.run_process(["cat"], input="\n".join(lines), levels={"stdout": "warning"})
    (step,) = await any_tracker.jobs.steps(job.id)
    found = await lines_of(any_tracker, job)
    lines[3], lines[400] = "password=[redacted]", found[400].message
    assert "nul" in lines[400]
    assert "\x00" not in lines[400]
    assert [event.message for event in found] == lines
    assert len({event.seq for event in found}) == len(lines)
    for event in (found[0], found[3], found[-1]):
        assert (event.level, event.stream, event.step, event.operation) == (
            "warning",
            "stdout",
            "cat",
            "build",
        )
        assert (event.step_id, event.correlation_id, event.project, event.attempt) == (
            step.id,
            "web-42",
            "shop",
            1,
        )


async def test_many_lines_are_shown_as_they_are_recorded(tracker, tmp_path):
    """R31: a file of the log gets each line of the output, with its ids."""
    structjob.configure(console=False, file=tmp_path / "app.jsonl")
    async with tracker.job("build") as job:
        await job.run_process(["seq", "300"])
    shown = [json.loads(line) for line in (tmp_path / "app.jsonl").read_text().splitlines()]
    output = [event for event in shown if event.get("kind") == "output"]
    assert [event["event"] for event in output] == [str(n) for n in range(1, 301)]
    assert {event["job_id"] for event in output} == {job.id}
    assert {event["stream"] for event in output} == {"stdout"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_line_without_an_end_takes_no_memory(db_url):
    """Acceptance test 7. Bad day: a dump without a newline comes in parts, each of which is
    recorded and gone before the next. It has 128 MB; 1 GB with STRUCTJOB_TEST_FULL=1.
    """
    size = 1 << (30 if os.environ.get("STRUCTJOB_TEST_FULL") == "1" else 27)
    dump = f"import os; [os.write(1, b'x' * 65536) for _ in range({size // 65536})]"
    program = (
        "import asyncio, resource, sys, structjob\n"
        "structjob.configure(console=False)\n"
        "async def main():\n"
        "    async with structjob.Tracker(sys.argv[1]) as tracker, tracker.job('dump') as job:\n"
        "        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "        await job.run_process([sys.executable, '-c', 'print(1)'])\n"
        "        before = peak()\n"
        "        result = await job.run_process([sys.executable, '-c', sys.argv[2]], levels={'stdout': 'debug'})\n"
        "        print(result.lines, peak() - before)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [*python(program), str(db_url), dump], capture_output=True, text=True, check=True
    )
    parts, grown = map(int, done.stdout.split())
    assert parts == size / 16_384
    assert grown <= 32 * 1024  # kilobytes


@pytest.mark.slow
async def test_a_flood_of_lines_survives_kill_9(db_path, db_url):
    """Acceptance test 1: the process is killed while it records a flood of output: what it had
    recorded is stored, from the first line on, without a hole, and the job has crashed.
    """
    program = (
        "import asyncio, sys, structjob\n"
        "structjob.configure(console=False)\n"
        "async def main():\n"
        "    async with structjob.Tracker(sys.argv[1]) as tracker, tracker.job('flood', job_id='flood-1') as job:\n"
        "        print('begun', flush=True)\n"
        "        await job.run_process(['yes', 'a line of output'])\n"
        "asyncio.run(main())\n"
    )
    child = await asyncio.create_subprocess_exec(
        *python(program), str(db_url), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await child.stdout.readline()
        async with structjob.Tracker(db_url) as tracker:
            while not await tracker.logs.count(job_id="flood-1", kind="output"):
                await asyncio.sleep(0.01)
            child.kill()
            await child.wait()
            assert (await tracker.jobs.wait("flood-1", timeout=30)).status == "crashed"
            found = [event async for event in tracker.logs.iterate(job_id="flood-1", kind="output")]
            assert (await tracker.verify()).ok
        numbers = [event.seq for event in found]
        assert numbers == list(range(numbers[0], numbers[0] + len(found)))
        assert {event.message for event in found} == {"a line of output"}
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_echo_shows_the_lines_here(tracker, capsys):
    """R31: with echo=True they are printed, too."""
    async with tracker.job("build") as job:
        await job.run_process(["sh", "-c", "echo out; echo err >&2"], echo=True)
    assert capsys.readouterr() == ("out\n", "err\n")


async def test_without_a_descriptor_of_the_process(tracker, monkeypatch):
    """Bad day: no pidfd (macOS, some containers): a thread tells of the exit."""
    monkeypatch.delattr(os, "pidfd_open")
    async with tracker.job("build") as job:
        result = await job.run_process(["sh", "-c", "echo hello; exit 3"], check=False)
        with pytest.raises(CommandTimeout):
            await job.run_process(["sleep", "60"], timeout=0.1, grace=0.5)
    assert (result.returncode, result.tail) == (3, ("hello",))


async def test_a_program_that_ignores_its_children(tracker):
    """Bad day: SIGCHLD is ignored here, so that no exit code is left: it counts as 255."""
    former = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with tracker.job("build") as job:
            result = await job.run_process(["echo", "hello"], check=False)
    finally:
        signal.signal(signal.SIGCHLD, former)
    assert (result.returncode, result.tail) == (255, ("hello",))


def test_the_exceptions_have_one_root():
    """Style: one can be caught as TimeoutError, both as StructjobError."""
    assert issubclass(CommandTimeout, (CommandFailed,))
    assert issubclass(CommandTimeout, TimeoutError)
    assert issubclass(CommandFailed, structjob.StructjobError)


def test_the_program_of_the_documentation_runs(tmp_path):
    """R51: the page's program runs as it stands, and prints what its comments say."""
    page = (Path(__file__).parent.parent / "docs/integrations/processes.md").read_text("utf-8")
    (program,) = re.findall(r"<!-- backup.py -->\n```python\n(.*?)```", page, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert printed[1:] == re.findall(r"print\(exc\)  # (.*)", program)


async def test_what_is_in_the_pipe_at_the_exit_is_recorded(tracker, monkeypatch):
    """Bad day: the loop is so busy that the time for the rest of the output is over before any of
    it was read.
    """
    monkeypatch.setattr(processes, "LINGER", 0)
    async with tracker.job("build") as job:
        running = asyncio.create_task(job.run_process(["seq", "5000"]))
        await asyncio.sleep(0)
        # until it has exited; then it has printed everything
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        result = await running
    assert result.lines == 5000


async def test_the_command_is_redacted_as_configured(tracker, caplog):
    """R33: further keys and patterns apply to it, and so does `redact=False`."""
    found = []
    for redact in (structjob.Redactor(rules=[r"CUST-\d+"]), False):
        structjob.configure(console=False, redact=redact)
        async with tracker.job("build") as job:
            await job.run_process(["true", "CUST-77", "--password", "swordfish"])
        (step,) = await tracker.jobs.steps(job.id)
        found.append(step.metadata["command"])
    assert found == [
        "true '[redacted]' --password '[redacted]'",
        "true CUST-77 --password swordfish",
    ]


async def test_a_failure_has_the_name_that_programs_import(tracker):
    """R31: also in the traceback, and when it is pickled."""
    async with tracker.job("build") as job:
        with pytest.raises(CommandFailed) as caught:
            await job.run_process(["false"])
    assert traceback.format_exception_only(caught.value)[0].startswith("structjob.CommandFailed: ")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows it while a program runs")
async def test_the_peak_memory_is_the_programs_own(tracker):
    """R42: not that of this process, which the kernel counts as the child's."""
    block = bytearray(150_000_000)
    block[::4096] = b"x" * len(block[::4096])  # this process needs more than the program
    async with tracker.job("build") as job:
        small = await job.run_process(["sleep", "0.05"])
        short = await job.run_process(["true"])
    assert 100 < small.max_rss_kb < 50_000
    assert short.max_rss_kb is None or short.max_rss_kb < 50_000
