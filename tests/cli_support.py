"""The command line as a user has it: a process of its own, in a directory of its own."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefork import Forked, Preforked

# Spools of servers' databases stand below the user's state directory: no test writes to the home of
# the user who runs it.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="structjob-test-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)
os.environ.pop("STRUCTJOB_SPOOL", None)

REPOSITORY = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "structjob")
SAMPLE = """
import asyncio, sys
import structlog, structjob

log = structlog.get_logger("sample")

async def main():
    structjob.configure(console=False)
    async with structjob.Tracker(sys.argv[1], service="sample") as tracker:
        log.info("service started", port=8080)
        async with tracker.job("vm-migrate", job_type="migration", owner="ada", project="moon", external_job_id="gui-17", context_id="vm-9",
                               metadata={"vm": "pg-01", "password": "hunter2"}) as job:
            async with job.step("copy", total=5) as step:
                async for n in step.track(range(5)):
                    log.info("chunk copied", n=n, vm="pg-01")
            log.warning("disk is slow", ms=912)
            async with job.child("verify-checksums", description="of pg-01") as child:
                log.success("checksums match")
            job.result = {"bytes": 1048576}
        for attempt in (1, 2):
            async with tracker.job("import", job_id="import-17", owner="bob"):
                log.info("rows imported", rows=attempt)
        try:
            async with tracker.job("nightly", category="batch") as job, job.step("load"):
                raise ValueError("the source is empty")
        except ValueError:
            pass
        async with tracker.job("evil\\x1b[2Jname", description="[red]markup[/red]"):
            log.info("clear \\x1b[2J the screen\\nand forge a line", key="\\x1b]0;title\\x07")

asyncio.run(main())
"""
"""A program that leaves jobs of every kind behind."""

WRITER = """
import asyncio, sys
import structlog, structjob

log = structlog.get_logger("writer")

async def main():
    structjob.configure(console=False)
    loop = asyncio.get_running_loop()
    async with structjob.Tracker(sys.argv[1], service="writer") as tracker:
        async with tracker.job("watched", external_job_id="watched-1") as job, job.step("work") as step:
            await tracker.flush()  # whoever looks finds the step, too
            print(job.id, flush=True)
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                log.info(line.strip())
                if line.strip() == "units":
                    step.update(completed=40, total=100)
                    await tracker.flush()
                print("logged", flush=True)

asyncio.run(main())
"""
"""A program that logs each line it is told, and ends with its input."""


def environment(**changes: str) -> dict[str, str]:
    """Return an environment without anything of ours, or of this terminal's, in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STRUCTJOB_")}
    for name in (
        "DATABASE_URL",
        "NO_COLOR",
        "FORCE_COLOR",
        "COLUMNS",
        "PYTHONUNBUFFERED",
        "PAGER",
        "LESS",
    ):
        kept.pop(name, None)
    usual = {
        "PYTHONPATH": str(REPOSITORY),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        "NO_PAGER": "1",
    }
    return {**kept, **usual, **changes}


def typed(db: str, *words: str, code: int = 0) -> str:
    """Return what ``structjob *words`` on the database *db* writes to stdout, then to stderr; in
    this process, which is faster.

    For commands that only read or import, in tests that are no coroutines: a command has a loop of
    its own.
    """
    from click.testing import CliRunner

    from structjob.cli.app import cli

    done = CliRunner().invoke(cli, ["--db", db, *words], prog_name="structjob")
    assert done.exit_code == code, (words, done.exit_code, done.output, done.exception)
    return done.stdout + done.stderr


_READING = frozenset(("errors", "jobs", "logs", "sessions", "show", "stats", "verify"))


def _only_reads(words: Sequence[str]) -> bool:
    """Whether a command ends after it has read, and can have its loop in this thread."""
    if asyncio._get_running_loop() is not None or "--follow" in words:
        return False
    command = words[2] if words[0] == "--db" and len(words) > 2 else words[0]
    return command in _READING


def _read(directory: Path, *words: str) -> str:
    """Return what ``structjob *words`` writes to stdout in *directory*; in this process."""
    from click.testing import CliRunner

    from structjob.cli.app import cli

    environ = {**dict.fromkeys(os.environ), **_USUAL}
    with contextlib.chdir(directory):
        done = CliRunner(env=environ).invoke(
            cli, words, prog_name="structjob", standalone_mode=False
        )
    assert (done.exception, done.return_value or 0) == (None, 0), (words, done.output, done)
    return done.stdout


def python(
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str = "",
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run ``python *words`` to its end without its imports, where *words* begin with ``-c
    PROGRAM`` or ``-m structjob``.
    """
    how, program, *rest = map(str, words)
    assert how == "-c" or (how, program) == ("-m", "structjob")
    program = program if how == "-c" else MAIN
    done = preforked.run(program, rest, cwd or Path.cwd(), input.encode(), env)
    if check:
        done.check_returncode()
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


_USUAL = environment()
preforked = Preforked(_USUAL, whole_end=False)
in_development = Preforked(_USUAL, "-X", "dev")
"""Python's development mode, in which what is not closed or not awaited is reported."""
MAIN = "from structjob.cli import main; main()"


_sampled: list[bytes] = []
"""The database that `SAMPLE` leaves, once it has run."""


class Shell:
    """A directory in which commands are typed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Forked] = []

    def close(self) -> None:
        """End what was started and is still running."""
        for process in self._started:
            process.close()

    def run(
        self, *words: str, input: bytes = b"", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``structjob *words``; without the imports of a new process, unless *env* has what an
        interpreter looks at when it begins.
        """
        if env is None or not any(
            name.startswith("PYTHON") and value != _USUAL.get(name) for name, value in env.items()
        ):
            return preforked.run(MAIN, words, self.directory, input, env)
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.directory,
            env=env,
            input=input,
            capture_output=True,
            timeout=100,
            check=False,
        )

    def run_in(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run any *command* to its end."""
        return subprocess.run(
            command,
            cwd=self.directory,
            env=environment(),
            capture_output=True,
            timeout=100,
            check=False,
        )

    def ok(self, *words: str, code: int = 0, **options: Any) -> str:
        """Run ``structjob *words``, which ends with *code*; return its stdout. A command that only
        reads, and is to succeed, runs in this process, which takes a third of the time.
        """
        if code == 0 and not options and _only_reads(words):
            return _read(self.directory, *words)
        done = self.run(*words, **options)
        assert done.returncode == code, (
            words,
            done.returncode,
            done.stdout.decode(),
            done.stderr.decode(),
        )
        assert b"Traceback (most recent" not in done.stderr, done.stderr.decode()
        return done.stdout.decode()

    def json(self, *words: str) -> Any:
        """Run ``structjob *words --json``; return what it says."""
        return json.loads(self.ok(*words, "--json=array" if "logs" in words else "--json"))

    def start(self, *words: str, env: dict[str, str] | None = None, **options: Any) -> Forked:
        """Start ``structjob *words``, its streams as pipes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return self._keep(preforked.start(MAIN, words, self.directory, env, **{**pipes, **options}))

    def python(self, program: str, *words: str) -> str:
        """Run a Python program to its end; return its stderr."""
        done = preforked.run(program, words, self.directory)
        done.check_returncode()
        return done.stderr.decode()

    def sample(self) -> None:
        """Leave `structjob.db` as `SAMPLE` does, which runs for the first test only."""
        path = self.directory / "structjob.db"
        if not _sampled:
            self.python(SAMPLE, f"sqlite:///{path.name}")
            assert not path.with_name("structjob.db-wal").exists()
            _sampled.append(path.read_bytes())
        else:
            path.touch(0o600)
            path.write_bytes(_sampled[0])
            path.with_name("structjob.db.spool").mkdir(0o700)

    def start_python(self, program: str, *words: str) -> Forked:
        """Start a Python program, stdin and stdout as pipes."""
        pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
        return self._keep(preforked.start(program, words, self.directory, **pipes))

    def start_in_a_terminal(self, *words: str, env: dict[str, str] | None = None) -> Forked:
        """Start ``structjob *words`` in a terminal, whose keyboard is its stdin and whose screen
        its stdout.
        """
        return self._keep(preforked.start_in_a_terminal(MAIN, words, self.directory, env))

    def in_a_terminal(self, *words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
        """Run ``structjob *words`` in a terminal; return the exit code, and what the
        terminal got.
        """
        process = self.start_in_a_terminal(*words, env=env)
        shown, _ = process.communicate()
        return process.wait(), (shown or b"").decode()

    def _keep(self, process: Forked) -> Forked:
        self._started.append(process)
        return process
