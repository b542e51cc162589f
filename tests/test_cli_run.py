"""``structjob run``: any program becomes a job (R31, R42, R48, R49)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import database_support
import pytest
from cli_support import COMMAND, Shell, environment
from prefork import Forked


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """An empty directory, in which what was started ends with the test."""
    shell = Shell(tmp_path)
    yield shell
    shell.close()


def job_of(shell: Shell) -> Any:
    """Return the newest job."""
    return shell.json("jobs", "--limit", "1")[0]


def lines_of(shell: Shell, *options: str) -> list[str]:
    """Return what was recorded of the program's output."""
    return [event["message"] for event in shell.json("logs", *options) if event["kind"] == "output"]


def wait_for(process: Forked | subprocess.Popen[bytes], text: bytes) -> bytes:
    """Read the stdout of *process* until *text* has come."""
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        chunk = process.stdout.read1(4096)
        assert chunk, f"it ended after {seen!r}"
        seen += chunk
    return seen


def test_output_appears_byte_for_byte_and_is_recorded_by_stream(shell: Shell) -> None:
    """stdout and stderr reach ours unchanged, each line is an event tagged with its stream, and the
    exit code is ours (R31, R48).

    faults 43: lines of stderr are warnings; the error is the last of them, with the exit code.
    """
    done = shell.run("run", "--", "sh", "-c", "echo out; echo err >&2; printf 'no newline'; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\nno newline", b"err\n")
    assert lines_of(shell, "--stream", "stdout") == ["out", "no newline"]
    assert (
        lines_of(shell, "--stream", "stderr")
        == lines_of(shell, "-l", "warning", "--kind", "output")
        == ["err"]
    )
    job = job_of(shell)
    assert job["status"] == "failed"
    assert job["error"]["message"] == "err (exit code 3)"
    assert (job["operation"], job["job_type"]) == ("sh", "command")
    assert job["result"]["exit_code"] == 3


def test_json_leaves_stdout_to_the_job(shell: Shell) -> None:
    """With --json all that the program prints is on stderr, and stdout is one JSON document; the
    exit code is the program's (R48, R49).
    """
    done = shell.run("run", "--json", "--operation", "n", "--", "sh", "-c", "echo out; exit 3")
    assert (done.returncode, done.stderr) == (3, b"out\n")
    told, stored = json.loads(done.stdout), job_of(shell)
    assert told == {
        name: stored[name] for name in ("id", "operation", "attempt", "status", "error", "result")
    }
    assert (told["status"], told["result"]["exit_code"], told["result"]["stdout_lines"]) == (
        "failed",
        3,
        1,
    )
    assert lines_of(shell, "--stream", "stdout") == ["out"]
    absent = shell.run("run", "--json", "--", "no-such-program")
    assert (absent.returncode, json.loads(absent.stdout)["result"]) == (127, {"exit_code": 127})


def test_an_option_that_is_unknown_is_no_program(shell: Shell) -> None:
    """A misspelt option of ours is misuse, and no job; behind the program's name options are the
    program's (R49).
    """
    done = shell.run("run", "--nmae", "x", "--", "true")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"No such option '--nmae'" in done.stderr
    assert not (shell.directory / "structjob.db").exists()
    assert shell.run("run", "sh", "-c", "exit 5").returncode == 5


def test_success_is_silent(shell: Shell) -> None:
    """A program that does well ends with 0, and nothing of ours is on its streams (R48)."""
    done = shell.run("run", "--", "true")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert job_of(shell)["status"] == "completed"


def test_a_person_is_told_how_it_went(shell: Shell) -> None:
    """On a terminal a last line says how it ended, and which command shows more (R49)."""
    code, shown = shell.in_a_terminal("run", "--", "sh", "-c", "exit 4")
    assert code == 4
    assert "sh ended with exit code 4" in shown
    assert f"structjob show {job_of(shell)['id']}" in shown


def test_the_error_is_the_exception_and_not_the_note_with_its_ids(shell: Shell) -> None:
    """R48: a program that records jobs itself ends its traceback with a note of their ids. The
    error of the run is what the exception said.
    """
    program = (
        "import structjob\n"
        "with structjob.Tracker('sqlite:///child.db') as tracker, tracker.job('pack'):\n"
        "    raise RuntimeError('no tape left')\n"
    )
    done = shell.run("run", "--", sys.executable, "-c", program)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith(b", operation=pack]")
    assert job_of(shell)["error"]["message"] == "RuntimeError: no tape left (exit code 1)"


def test_stdin_is_passed_through(shell: Shell) -> None:
    """What is piped into the command is the program's stdin (R48)."""
    assert shell.ok("run", "--", "cat", input=b"one\ntwo\n") == "one\ntwo\n"
    assert lines_of(shell) == ["one", "two"]


def test_the_options_describe_the_job(shell: Shell) -> None:
    """Name, type, owner, ids and metadata are the job's; the command, directory and host are added
    (R1, R19, R48).
    """
    options = (
        "--operation",
        "nightly",
        "--type",
        "backup",
        "--owner",
        "ada",
        "--project",
        "moon",
        "--category",
        "batch",
        "--context-id",
        "vm-9",
        "--correlation-id",
        "request-42",
    )
    shell.ok(
        "run",
        *options,
        "--external-id",
        "gui-17",
        "--job-id",
        "mine-1",
        "--metadata",
        "vm=pg-01",
        "--metadata",
        "n=3",
        "--",
        "echo",
        "a b",
    )
    job = shell.json("show", "gui-17")["job"]
    expected = {
        "operation": "nightly",
        "job_type": "backup",
        "owner": "ada",
        "project": "moon",
        "category": "batch",
        "context_id": "vm-9",
        "correlation_id": "request-42",
        "id": "mine-1",
    }
    assert {name: job[name] for name in expected} == expected
    assert job["metadata"]["vm"] == "pg-01"
    assert job["metadata"]["n"] == 3
    assert job["metadata"]["command"] == "echo 'a b'"
    assert job["metadata"]["directory"] == str(shell.directory)


def test_what_is_said_of_it_need_not_be_utf_8(shell: Shell) -> None:
    """Bytes in the name of a file that are no UTF-8 are recorded as their numbers; they may be
    asked for, too (R31, R49).
    """
    assert (
        shell.ok("run", "-m", "file=caf\udce9.txt", "--operation", "\udcff", "--", "echo", "hi")
        == "hi\n"
    )
    job = job_of(shell)
    assert (job["operation"], job["metadata"]["file"]) == ("\\udcff", "caf\\udce9.txt")
    assert shell.json("logs", "-w", "file=caf\udce9.txt") == []


def test_a_known_job_id_is_the_next_attempt(shell: Shell) -> None:
    """``--job-id`` of a job that is there runs it again, as its next attempt (R2)."""
    shell.ok("run", "--job-id", "import-17", "--", "false", code=1)
    shell.ok("run", "--job-id", "import-17", "--", "true")
    assert [attempt["status"] for attempt in shell.json("show", "import-17")["attempts"]] == [
        "failed",
        "completed",
    ]


def test_secrets_on_the_command_line_are_not_stored(shell: Shell) -> None:
    """A password among the arguments is replaced, in both ways of writing it, and in a
    URL (R33).
    """
    shell.ok(
        "run",
        "--",
        "true",
        "--password",
        "hunter2",
        "--token=hunter3",
        "postgresql://me:hunter4@host/db",
    )
    assert "hunter" not in shell.ok("jobs", "--json")
    assert "[redacted]" in job_of(shell)["metadata"]["command"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("python3", "-m", "compileall", "-q", "x"), "python3 -m compileall"),
        (("bash", "-e", "./nightly.sh"), "bash nightly.sh"),
        (("python3", "-c", "pass"), "python3"),
        (("/usr/bin/env", "true"), "env"),
        (("make", "test"), "make"),
        (("python3", "-W", "error", "tool.py"), "python3 tool.py"),
    ],
)
def test_the_operation_is_named_after_what_runs(command: tuple[str, ...], name: str) -> None:
    """Statistics are by operation: an interpreter alone would say little (R38, R48)."""
    from structjob.text.programs import operation_of

    assert operation_of(command) == name


@pytest.mark.slow
def test_resources_are_recorded(shell: Shell) -> None:
    """Duration, CPU time and peak memory are the program's own, not those of what watches
    it (R42).
    """
    shell.ok("run", "--", sys.executable, "-c", "x = bytearray(400_000_000); sum(range(3_000_000))")
    large = job_of(shell)
    assert 380_000 < large["max_rss_kb"] < 600_000
    assert large["cpu_ms"] > 20
    assert large["result"]["seconds"] > 0
    assert "peak memory" in shell.ok("show", job_of(shell)["id"])
    if sys.platform == "linux":
        shell.ok("run", "--", "sleep", "0.1")
        assert job_of(shell)["max_rss_kb"] < 20_000


def test_a_program_that_is_not_there(shell: Shell) -> None:
    """127, a clear message with the next command, and a failed job (R48)."""
    done = shell.run("run", "--", "no-such-program", "x")
    assert done.returncode == 127
    assert b"no-such-program: command not found" in done.stderr
    assert b"structjob show" in done.stderr
    assert b"Traceback" not in done.stderr
    job = job_of(shell)
    assert (job["status"], job["error"]["message"]) == (
        "failed",
        "no-such-program: command not found",
    )


def test_a_file_that_cannot_be_run(shell: Shell) -> None:
    """126, as shells have it (R48)."""
    (shell.directory / "data").write_text("no program")
    done = shell.run("run", "--", "./data")
    assert done.returncode == 126
    assert b"./data: " in done.stderr


def warnings_in(stderr: bytes) -> list[str]:
    """Return our own lines."""
    return [line for line in stderr.decode().splitlines() if line.startswith("structjob: ")]


@pytest.mark.parametrize("reader", [("run", "--", "true"), ("logs",)])
def test_without_a_database_the_program_runs(shell: Shell, reader: tuple[str, ...]) -> None:
    """A file that cannot be made: one warning; the lines wait, and the next run or reading command
    stores them (R48, faults A1).
    """
    env = environment(
        STRUCTJOB_DATABASE_URL="sqlite:///later/jobs.db",
        XDG_STATE_HOME=str(shell.directory / "state"),
    )
    done = shell.run(
        "run", "--job-id", "early", "--", "sh", "-c", "echo out; echo err >&2; exit 3", env=env
    )
    assert (done.returncode, done.stdout) == (3, b"out\n")
    assert done.stderr.endswith(b"err\n")
    (warning,) = warnings_in(done.stderr)
    assert "its directory does not exist" in warning
    assert str(shell.directory / "state" / "structjob") in warning
    (shell.directory / "later").mkdir()
    if reader == ("logs",):  # which makes no database
        missing = shell.run("logs", env=env)
        assert missing.returncode == 1
        assert b"B of programs that died wait for it" in missing.stderr
        shell.ok("migrate", env=env)
    shell.ok(*reader, env=env)
    job = json.loads(shell.ok("show", "early", "--json", env=env))["job"]
    assert (job["status"], job["result"]["exit_code"]) == ("failed", 3)
    assert {
        event["message"] for event in json.loads(shell.ok("logs", "early", "--json=array", env=env))
    } >= {"out", "err"}
    assert json.loads(shell.ok("verify", "--json", env=env))["missing"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mariadb", "postgresql"])
def test_a_server_without_the_database(shell: Shell, kind: str) -> None:
    """The database is made later: what waited in a directory that is named for it is stored then,
    and its job is known (faults A1).
    """
    url = asyncio.run(database_support.create(kind))
    asyncio.run(database_support.drop(url))
    shown = url.set(drivername=kind).render_as_string(hide_password=False)
    env = environment(STRUCTJOB_DATABASE_URL=shown, STRUCTJOB_SPOOL=str(shell.directory / "spool"))
    done = shell.run("run", "--job-id", "early", "--", "echo", "out", env=env)
    assert (done.returncode, done.stdout) == (0, b"out\n")
    assert len(warnings_in(done.stderr)) == len(done.stderr.splitlines()) == 1
    assert os.listdir(shell.directory) == ["spool"]
    asyncio.run(database_support.create(kind, name=url.database))
    try:
        shell.ok("run", "--", "true", env=env)
        job = json.loads(shell.ok("show", "early", "--json", env=env))["job"]
        assert (job["status"], job["attempt"]) == ("completed", 1)
    finally:
        asyncio.run(database_support.drop(url))


def test_a_mistake_on_the_command_line_runs_nothing(shell: Shell) -> None:
    """An invalid URL or a database in memory on the command line: exit code 2. In the environment
    it is no mistake of the command: the program runs (faults A1).
    """
    for url in ("nonsense://x", "sqlite://"):
        assert shell.run("run", "--db", url, "--", "touch", "ran").returncode == 2
        assert not (shell.directory / "ran").exists()
        done = shell.run(
            "run", "--", "sh", "-c", "echo in; exit 4", env=environment(STRUCTJOB_DATABASE_URL=url)
        )
        assert (done.returncode, done.stdout) == (4, b"in\n")
        (warning,) = warnings_in(done.stderr)
        assert "$STRUCTJOB_DATABASE_URL" in warning
        assert "nothing is recorded" in warning


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_descriptors(shell: Shell, closed: str) -> None:
    """The program finds them closed, as without us, and what it writes to the others is recorded;
    other commands work, too (faults A2).
    """
    program = "for n in 0 1 2; do [ -e /proc/$$/fd/$n ] && all=$all$n; done; echo $all >open; echo out; echo err >&2; exit 3"
    alone, watched = shell.directory / "alone", shell.directory / "watched"
    for directory, words in ((alone, ()), (watched, (*COMMAND, "run", "--"))):
        directory.mkdir()
        line = f'exec "$@" {closed}'
        done = subprocess.run(
            ["bash", "-c", line, "-", *words, "sh", "-c", program],
            cwd=directory,
            env=environment(),
            check=False,
        )
        assert done.returncode == 3
    assert (watched / "open").read_text() == (alone / "open").read_text() != "012\n"
    recorded = Shell(watched)
    assert job_of(recorded)["result"]["exit_code"] == 3
    open_streams = [line for number, line in (("1", "out"), ("2", "err")) if number not in closed]
    assert sorted(line for line in lines_of(recorded) if line in ("out", "err")) == sorted(
        open_streams
    )
    for words, code in ((("jobs",), 0), (("show", "none"), 3)):
        line = f'exec "$@" {closed}'
        assert (
            subprocess.run(
                ["bash", "-c", line, "-", *COMMAND, *words],
                cwd=watched,
                env=environment(),
                check=False,
            ).returncode
            == code
        )


@pytest.mark.slow
def test_a_process_left_behind_lives(shell: Shell) -> None:
    """A daemon goes on to print, to where it would without us, and is not killed for it; the job
    says what is not recorded (faults A3).
    """
    daemon = "(while [ ! -e go ]; do sleep 0.05; done; echo late; echo late >&2; echo $? >alive) & echo early"
    out = shell.directory / "out"
    with out.open("wb") as file:
        process = shell.start(
            "run",
            "--",
            "sh",
            "-c",
            daemon,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        assert process.wait(60) == 0
    job = job_of(shell)
    assert (job["status"], job["result"]["still_open"]) == ("completed", ["stdout", "stderr"])
    (warning,) = [event for event in shell.json("logs", job["id"]) if event["level"] == "warning"]
    assert "not recorded" in warning["message"]
    (shell.directory / "go").touch()
    deadline = time.monotonic() + 60
    while (
        out.read_text() != "early\nlate\nlate\n" or (shell.directory / "alive").read_text() != "0\n"
    ):
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.02)


@pytest.mark.slow
def test_what_copies_for_a_process_left_behind(shell: Shell) -> None:
    """It holds the pipe, the target and nothing else, and ends with the last writer (faults A3)."""
    copiers = f"grep -l cat /proc/[0-9]*/comm 2>/dev/null; : {secrets.token_hex(8)}"
    with (
        (shell.directory / "out").open("wb") as file,
        (shell.directory / "other").open("wb") as other,
    ):
        number = os.dup(other.fileno())
        os.set_inheritable(number, True)
        command = [*COMMAND, "run", "--", "sh", "-c", "sleep 300 2>/dev/null & echo $!"]
        subprocess.run(
            command,
            cwd=shell.directory,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            pass_fds=[number],
            timeout=60,
            check=True,
        )
        os.close(number)
    sleeper = int((shell.directory / "out").read_text())
    (pipe,) = {os.readlink(f"/proc/{sleeper}/fd/1")}
    found = []
    for name in subprocess.run(
        ["sh", "-c", copiers], capture_output=True, check=False, text=True
    ).stdout.split():
        directory = os.path.dirname(name)
        with contextlib.suppress(OSError):
            held = {
                number: os.readlink(f"{directory}/fd/{number}")
                for number in os.listdir(f"{directory}/fd")
            }
            if pipe in held.values():
                found.append((int(os.path.basename(directory)), held))
    ((copier, held),) = found
    os.kill(sleeper, signal.SIGKILL)
    assert held == {"0": pipe, "1": str(shell.directory / "out"), "2": "/dev/null"}
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{copier}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("passed_on", "code", "ended", "asked"),
    [
        ({signal.SIGHUP: 0.0}, 129, 500.0, signal.SIGHUP),
        ({signal.SIGINT: 0.0}, 130, 500.0, signal.SIGINT),
        ({signal.SIGUSR1: 0.0}, 128 + signal.SIGUSR1, 500.0, signal.SIGUSR1),
        ({signal.SIGHUP: 0.0}, 3, 2.0, signal.SIGHUP),
        ({signal.SIGHUP: 0.0}, 3, 5.0, None),
        ({signal.SIGINT: 0.0}, 3, 5.0, None),
        ({signal.SIGINT: 0.0}, 137, 5.0, None),
        ({signal.SIGTERM: 0.0}, 3, 9.0, signal.SIGTERM),
        ({signal.SIGTERM: 0.0}, 137, 9.0, signal.SIGTERM),
        ({signal.SIGTERM: 0.0}, 3, 60.0, None),
        ({signal.SIGHUP: 0.0, signal.SIGTERM: 50.0}, 3, 60.0, signal.SIGTERM),
        ({signal.SIGUSR1: 0.0}, 3, 1.0, None),
        ({}, 130, 1.0, None),
    ],
)
def test_which_signal_asked_a_program_to_end(
    passed_on: dict[int, float], code: int, ended: float, asked: signal.Signals | None
) -> None:
    """One that ended it, or was passed on shortly before it failed; a signal that the program
    survived is forgotten (faults A4).
    """
    from structjob.cli.run.process import asked_to_end

    assert asked_to_end(passed_on, code, ended) is asked


@pytest.mark.slow
def test_a_signal_that_the_program_survived(shell: Shell) -> None:
    """SIGHUP is handled, and much later the program fails of its own: failed, not cancelled (faults
    A4).
    """
    program = "trap 'echo reloaded' HUP; echo ready; while [ ! -e go ]; do sleep 0.05; done; exit 3"
    process = shell.start("run", "--", "bash", "-c", program)
    wait_for(process, b"ready")
    process.send_signal(signal.SIGHUP)
    wait_for(process, b"reloaded")
    time.sleep(3.2)  # longer than a program has to end after it
    (shell.directory / "go").touch()
    process.communicate(timeout=30)
    assert process.returncode == 3
    assert job_of(shell)["status"] == "failed"


STARTER = """
import os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL), signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which Python ignores
{}
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])",
        "signal.signal(signal.SIGUSR2, signal.SIG_IGN)",
    ],
)
def test_what_is_ignored_or_blocked_by_the_starter(shell: Shell, changed: str) -> None:
    """It ends, the program has the signals that it would have without us, and those that are sent
    to us reach it (faults 52).
    """
    words = (sys.executable, "-c", STARTER.format(changed))
    show = ("grep", "^Sig[IB]", "/proc/self/status")
    alone = subprocess.run([*words, *show], capture_output=True, env=environment(), check=True)
    done = subprocess.run(
        [*words, *COMMAND, "run", "--", *show],
        capture_output=True,
        env=environment(),
        cwd=shell.directory,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, alone.stdout, b"")
    program = "import signal, sys; signal.signal(12, lambda *a: sys.exit(7)); signal.pthread_sigmask(signal.SIG_UNBLOCK, [12])\n"
    program += "print('ready')\nwhile True: signal.pause()"
    process = subprocess.Popen(
        [*words, *COMMAND, "run", "--", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env=environment(),
        cwd=shell.directory,
    )
    wait_for(process, b"ready")
    process.send_signal(signal.SIGUSR2)
    process.communicate(timeout=60)
    assert process.returncode == 7


@pytest.mark.slow
def test_limits_and_priorities_are_the_programs(shell: Shell) -> None:
    """Limits, mask and priority are those of a bare start, and a limit that is too small for us is
    no reason not to run (faults 52).
    """
    show = "ulimit -a; umask; nice; ls /proc/self/fd | wc -l"
    for limits in ("ulimit -Sn 20; umask 027", "ulimit -n 9", "ulimit -Sf 1; ulimit -Sv 1500000"):
        words = ("bash", "-c", f'{limits}; exec nice -n 3 "$@"', "-")
        alone = subprocess.run(
            [*words, "bash", "-c", show], capture_output=True, env=environment(), check=True
        )
        done = shell.run_in(*words, *COMMAND, "run", "--", "bash", "-c", show)
        assert (done.returncode, done.stdout) == (0, alone.stdout)
        assert len(warnings_in(done.stderr)) == len(done.stderr.splitlines()) <= 1


@pytest.mark.slow
def test_inherited_descriptors_reach_the_program(shell: Shell) -> None:
    """Process substitution, a file as descriptor 3, and socket activation work; none of our own
    descriptors is there (faults 53).
    """
    script = f"""
set -e
run() {{ {" ".join(COMMAND)} run -- "$@"; }}
run diff <(printf 'a\nb\n') <(printf 'a\nb\n')
run sh -c 'echo three >&3' 3>three
ls /proc/self/fd | wc -l >alone
run ls /proc/self/fd | wc -l >watched
( export LISTEN_FDS=1 LISTEN_PID=$BASHPID; exec {" ".join(COMMAND)} run -- sh -c 'test $LISTEN_PID = $$' )
"""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=shell.directory,
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (shell.directory / "three").read_text() == "three\n"
    assert (shell.directory / "watched").read_text() == (shell.directory / "alone").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", ["0", "1", "3"])
def test_who_is_at_the_other_end_learns_that_a_descriptor_was_closed(
    shell: Shell, number: str
) -> None:
    """A running program that closes a pipe is the last to hold it: we keep none open
    (faults 53).
    """
    program = f"exec {number}>&-; echo closed >&2; while [ ! -e go ]; do sleep 0.05; done"
    read, write = os.pipe()
    line = f'exec "$@" {number}{"<" if number == "0" else ">"}&"$END" {{END}}>&-'
    end = read if number == "0" else write
    words = ("bash", "-c", line, "-", *COMMAND, "run", "--", "sh", "-c", program)
    process = subprocess.Popen(
        words,
        cwd=shell.directory,
        env=environment(END=str(end)),
        stdin=subprocess.DEVNULL,
        pass_fds=[end],
    )
    os.close(end)
    try:
        if number == "0":
            with pytest.raises(BrokenPipeError):
                while True:
                    os.write(write, b"x")
                    time.sleep(0.02)
        else:
            assert os.read(read, 1) == b""
        assert process.poll() is None
        (shell.directory / "go").touch()
        assert process.wait(60) == 0
    finally:
        process.terminate()
        process.wait()
        os.close(write if number == "0" else read)


def test_a_reader_that_goes_away_ends_a_program_that_looks_for_it(shell: Shell) -> None:
    """``tail -f`` looks whether its output is still read, though it has nothing to write (faults
    53).
    """
    (shell.directory / "log").write_text("first\n")
    process = shell.start("run", "--", "tail", "-f", "log")
    wait_for(process, b"first\n")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(60)
    assert job_of(shell)["status"] == "cancelled"


@pytest.mark.slow
def test_as_the_first_process_it_reaps(shell: Shell) -> None:
    """In a container it is process 1: what the program's children leave behind is waited for
    (faults 53).
    """
    if subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("namespaces cannot be made here")
    program = "sh -c 'sh -c \"exit 0\" & exit 0'; while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.05; done; exit 5"
    done = shell.run_in(
        "unshare", "--pid", "--fork", "--mount-proc", *COMMAND, "run", "--", "sh", "-c", program
    )
    assert (done.returncode, done.stderr) == (5, b"")
    done = shell.run_in(
        "unshare", "--pid", "--fork", *COMMAND, "run", "--", "sh", "-c", "kill -9 $$"
    )
    assert done.returncode == 137


def test_scripts_without_an_interpreter(shell: Shell) -> None:
    """They run in the shell, as they do when they are typed (faults 53)."""
    (shell.directory / "script").write_text("echo ran $1; exit 6\n")
    (shell.directory / "script").chmod(0o755)
    done = shell.run("run", "--", "./script", "well")
    assert (done.returncode, done.stdout) == (6, b"ran well\n")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, "failed"), (signal.SIGSEGV, "failed")]
)
def test_a_program_that_a_signal_ended(shell: Shell, number: signal.Signals, status: str) -> None:
    """We end by the same signal, which a shell shows as 128 and its number; the error names it
    (R48, faults 53).
    """
    shell.ok("run", "--", "sh", "-c", f"kill -{int(number)} $$", code=-number)
    job = job_of(shell)
    assert (job["status"], job["result"]["signal"]) == (status, number.name)
    assert number.name in job["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on_to_the_whole_group(shell: Shell, number: signal.Signals) -> None:
    """A signal that we get reaches the program and its own children; the job is cancelled (R34,
    R48).
    """
    program = "import subprocess; child = subprocess.Popen(['sleep', '60']); print('ready', child.pid); child.wait()"
    process = shell.start("run", "--", sys.executable, "-c", program)
    child = int(wait_for(process, b"\n").split()[1])
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    job = job_of(shell)
    assert job["status"] == "cancelled"
    assert number.name in job["error"]["message"]
    with pytest.raises(ProcessLookupError):
        while True:
            os.kill(child, 0)


def test_a_program_that_ends_well_when_it_is_asked_to(shell: Shell) -> None:
    """A server that catches SIGTERM and exits with 0 has completed (R34)."""
    process = shell.start(
        "run",
        "--",
        "bash",
        "-c",
        "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
    )
    wait_for(process, b"ready\n")
    process.terminate()
    assert process.communicate(timeout=30)[0] == b"bye\n"
    assert process.returncode == 0
    assert job_of(shell)["status"] == "completed"


@pytest.mark.slow
def test_sigterm_ends_it_though_nobody_reads_its_output(shell: Shell) -> None:
    """faults 53: the reader of the output lives, and does not read any more. Who sent SIGTERM waits
    for the end and sends SIGKILL next, as systemd and Docker do: the job would be a crashed one.
    """
    process = shell.start("run", "--", "yes")
    wait_for(process, b"y\n")
    process.terminate()
    assert process.wait(60) == -signal.SIGTERM
    assert job_of(shell)["status"] == "cancelled"
    assert shell.json("verify")["ok"]


def test_user_signals_are_passed_on_and_end_nothing(shell: Shell) -> None:
    """SIGUSR1 is the program's affair (R48)."""
    process = shell.start(
        "run",
        "--",
        "bash",
        "-c",
        "trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done",
    )
    wait_for(process, b"ready")
    process.send_signal(signal.SIGUSR1)
    wait_for(process, b"got it")
    process.communicate(timeout=30)
    assert process.returncode == 5
    assert job_of(shell)["status"] == "failed"


def test_output_comes_at_once(shell: Shell) -> None:
    """A prompt without a newline appears while the program waits for its answer; Python's output is
    not held back (R48).
    """
    program = "print('name? ', end=''); print('hello', input())"
    process = shell.start("run", "--", sys.executable, "-c", program)
    wait_for(process, b"name? ")
    assert process.communicate(b"ada\n", timeout=30)[0] == b"hello ada\n"
    assert lines_of(shell) == ["name? hello ada"]


@pytest.mark.slow
def test_a_python_child_joins_the_job(shell: Shell) -> None:
    """A program below it that opens a Tracker logs into the job, and its jobs are children of it,
    wherever it runs (R22, R48).
    """
    program = """
import asyncio, structlog, structjob
async def main():
    structjob.configure(console=False)
    async with structjob.Tracker() as tracker:
        structlog.get_logger().info("from within")
        async with tracker.job("inner"):
            pass
asyncio.run(main())
"""
    shell.ok(
        "run",
        "--operation",
        "outer",
        "--",
        "sh",
        "-c",
        'cd / && exec "$0" -c "$1"',
        sys.executable,
        program,
    )
    jobs = {job["operation"]: job for job in shell.json("jobs")}
    assert jobs["inner"]["parent_job_id"] == jobs["outer"]["id"]
    assert jobs["inner"]["correlation_id"] == jobs["outer"]["correlation_id"]
    within = next(
        event
        for event in shell.json("logs", jobs["outer"]["id"])
        if event["message"] == "from within"
    )
    assert within["job_id"] == jobs["outer"]["id"]


@pytest.mark.slow
def test_a_closed_pipe_ends_the_program_as_it_would_without_us(shell: Shell) -> None:
    """``structjob run -- yes | head -1`` ends quietly; the job says that its output was not read to
    the end (R48).
    """
    command = f"{sys.executable} -m structjob run -- yes | head -1"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=shell.directory,
        env=environment(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")
    job = job_of(shell)
    assert job["status"] == "cancelled"
    assert "stopped reading" in job["error"]["message"]


@pytest.mark.slow
def test_output_that_a_full_disk_refuses_is_no_success(shell: Shell) -> None:
    """A program whose stdout cannot be written goes on, and the command fails: a dump that is cut
    off is not taken for a good one (R44).
    """
    for program, code in (("echo one; echo two; exit 0", 1), ("echo one; exit 7", 7)):
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                [*COMMAND, "run", "--", "sh", "-c", program],
                cwd=shell.directory,
                env=environment(),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert ended.returncode == code
        assert b"cannot write stdout: No space left on device" in ended.stderr
        assert job_of(shell)["status"] == "failed"
        assert "one" in lines_of(shell)
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [*COMMAND, "run", "--", "sh", "-c", "echo lost >&2; echo kept"],
            cwd=shell.directory,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=full,
            timeout=60,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (0, b"kept\n")
    assert job_of(shell)["status"] == "completed"


def test_processes_left_behind_do_not_keep_it(shell: Shell) -> None:
    """A program that leaves a background process behind ends when it ends, though that one holds
    its output (R48).
    """
    done = shell.run("run", "--", "sh", "-c", "sleep 300 & echo $!")
    assert done.returncode == 0
    os.kill(int(done.stdout), signal.SIGKILL)


def test_binary_output_and_long_lines(shell: Shell) -> None:
    """Bytes that are no text come through unchanged; a line of a megabyte is recorded in parts, all
    of it (R31).
    """
    program = "import sys; w = sys.stdout.buffer.write; w(bytes(range(256))); w(b'\\n' + 'ä'.encode() * 500_000 + b'\\nlast')"
    done = shell.run("run", "--", sys.executable, "-c", program)
    assert done.stdout == bytes(range(256)) + b"\n" + "ä".encode() * 500_000 + b"\nlast"
    events = [event for event in shell.json("logs") if event["kind"] == "output"]
    long = [event for event in events if "part" in event["attrs"]]
    assert "".join(event["message"] for event in long) == "ä" * 500_000
    assert [event["attrs"]["part"] for event in long] == list(range(1, len(long) + 1))
    assert "\\xff" in "".join(event["message"] for event in events)
    assert events[-1]["message"] == "last"


def test_a_progress_bar_does_not_flood_the_log(shell: Shell) -> None:
    """A line that overwrites itself a thousand times is a few events that say how many they stand
    for; what stayed is there (R15, R31).
    """
    program = (
        "import sys\nfor n in range(1001): sys.stdout.write(f'\\r{n / 10:.1f}%')\nprint('\\ndone')"
    )
    done = shell.run("run", "--", sys.executable, "-c", program)
    assert done.stdout.count(b"\r") == 1001
    events = [event for event in shell.json("logs") if event["kind"] == "output"]
    assert len(events) < 100
    assert [event["message"] for event in events][-2:] == ["100.0%", "done"]
    assert sum(event["attrs"].get("overwritten", 0) for event in events) + len(events) == 1002


def test_windows_line_ends(shell: Shell) -> None:
    """CR LF ends a line, once (R31)."""
    shell.run("run", "--", "printf", "one\\r\\ntwo\\r\\n\\r\\nthree")
    assert lines_of(shell) == ["one", "two", "", "three"]


def test_ctrl_c_at_the_terminal(shell: Shell) -> None:
    """Ctrl-C ends the program and cancels the job; the command ends by the same signal, which a
    shell shows as exit code 130 (R49).
    """
    # `tail` itself says that it is ready. Where a shell says so before it starts a program, Ctrl-C
    # may reach the shell alone.
    (shell.directory / "said").write_text("ready\n")
    process = shell.start_in_a_terminal("run", "--", "sh", "-c", "tail -f said; exit 1")
    wait_for(process, b"ready")
    process.communicate(b"\x03", timeout=30)
    assert process.returncode == -signal.SIGINT
    assert job_of(shell)["status"] == "cancelled"


def test_a_program_may_read_from_the_terminal(shell: Shell) -> None:
    """A program that asks at the terminal gets the answer, and Ctrl-D ends its input (R48)."""
    process = shell.start_in_a_terminal("run", "--", "sh", "-c", "echo ready; cat; echo after")
    wait_for(process, b"ready")
    assert process.stdin is not None
    process.stdin.write(b"typed\n")
    process.stdin.flush()
    wait_for(process, b"typed\r\ntyped")
    shown = process.communicate(b"\x04", timeout=30)[0]
    assert process.returncode == 0
    assert b"after" in shown
    assert lines_of(shell) == ["ready", "typed", "after"]


@pytest.mark.slow
def test_killed_with_its_program_running(shell: Shell) -> None:
    """After kill -9 of the wrapper itself, the job is crashed and every line that was seen is there
    (R11, R48).
    """
    process = shell.start(
        "run",
        "--operation",
        "victim",
        "--",
        "bash",
        "-c",
        "echo $$; for n in $(seq 500); do echo line $n; done; echo ready; sleep 300",
    )
    seen = wait_for(process, b"ready\n").decode().splitlines()
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(int(seen[0]), signal.SIGKILL)
    assert lines_of(shell) == seen
    job = job_of(shell)
    assert job["status"] == "crashed"
    assert "line 500" in shell.ok("show", job["id"])
    assert "✗ victim  crashed" in shell.ok("show", job["id"])
    assert shell.json("verify")["missing"] == 0


@pytest.mark.slow
def test_a_real_program_with_much_output(shell: Shell) -> None:
    """``python -m compileall`` over a package of the standard library: its output, line by line,
    and its exit code (R31, R48).
    """
    source = Path(sysconfig.get_path("stdlib")) / "json"
    same_as_alone(shell, sys.executable, "-m", "compileall", "-f", str(source))
    assert job_of(shell)["operation"].endswith("-m compileall")


@pytest.mark.slow
def test_a_real_program_that_prints_thousands_of_lines(shell: Shell) -> None:
    """The same of ``tar``, with each file of the standard library, without what is installed beside
    it (R31, R48).
    """
    source = sysconfig.get_path("stdlib")
    printed = same_as_alone(
        shell,
        "tar",
        "--create",
        "--verbose",
        "--sort=name",
        "--exclude",
        "site-packages",
        "--file",
        "/dev/null",
        source,
    )
    assert printed.count(b"\n") > 2_000


def same_as_alone(shell: Shell, *command: str) -> bytes:
    """Run a program alone, and below ``structjob run``; compare them, and return its output."""
    cache = {"PYTHONPYCACHEPREFIX": str(shell.directory / "cache")}
    alone = subprocess.run(
        command,
        env=environment(**cache),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=600,
    )
    assert alone.stdout
    done = shell.run("run", "--", *command, env=environment(**cache))
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout)
    recorded = "".join(f"{line}\n" for line in lines_of(shell, "--stream", "stdout"))
    assert recorded == alone.stdout.decode()
    return alone.stdout


@pytest.mark.slow
def test_a_hundred_megabytes(shell: Shell) -> None:
    """100 MB at full speed arrive unchanged and are all recorded, and memory stays small: the
    program waits for the database (R28, R31).
    """
    program = "import sys\nline = b'x' * 999 + b'\\n'\nfor _ in range(100): sys.stdout.buffer.write(line * 1000)"
    measure = (
        "import resource, subprocess, sys; print(subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    words = [
        sys.executable,
        "-c",
        measure,
        sys.executable,
        "-m",
        "structjob",
        "run",
        "--",
        sys.executable,
        "-c",
        program,
    ]
    done = subprocess.run(
        words, cwd=shell.directory, env=environment(), capture_output=True, check=True, timeout=110
    )
    code, peak = map(int, done.stdout.split())
    assert code == 0
    assert peak < 300_000
    assert job_of(shell)["result"]["stdout_lines"] == 100_000
    verified = shell.json("verify")
    assert (verified["missing"], verified["sessions"][0]["stored"]) == (0, 100_002)
