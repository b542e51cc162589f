"""``structjob run``: any program becomes a job."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.filtering import attributes
from structjob.cli.moments import lasting
from structjob.cli.screen import Failure, coloured, command_line, is_terminal, paint, put_json, say
from structjob.cli.status import colour_of, symbol

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.cli.process import Ended
    from structjob.lifecycle import Job
    from structjob.tracker import Tracker

NOT_FOUND = 127
NOT_EXECUTABLE = 126

WAITING = 50_000
"""Lines that may wait for the database before the program has to wait, too: a pipe that is full does that to it."""

_INTERPRETERS = ("python", "pypy", "bash", "sh", "zsh", "node", "ruby", "perl", "php", "java")
_OPTION_WITH_VALUE = ("-W", "-X")


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  structjob run -- make test
  structjob run --name nightly --owner ada --metadata vm=pg-01 -- ./backup.sh /srv
  structjob run --job-id import-17 -- python import.py     again: the job's next attempt
  structjob run --json -- make test 2>make.log | jq .result

What the program prints still appears, byte for byte; each line is recorded, tagged stdout or stderr. Its exit code is ours; it is 128
and the signal's number if a signal ended it, 127 if there is no such program, 126 if it cannot be run. Signals are passed on to it.
STRUCTJOB_* and STRUCTJOB_DATABASE_URL are in its environment: a Python program that opens a Tracker joins the job. So that Python's
output comes line by line, PYTHONUNBUFFERED is 1 unless you set it. With --json all that the program prints appears on stderr, and
stdout has the job once it has ended.""",
)
@click.option("--name", metavar="TEXT", help="Operation; by default the program's name.")
@click.option("--type", "job_type", metavar="TEXT", default="command", show_default=True, help="Type of the job.")
@click.option("--owner", metavar="TEXT", help="Whose it is.")
@click.option("--project", metavar="TEXT", help="Its project.")
@click.option("--category", metavar="TEXT", help="Its category.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("--context-id", metavar="ID", help="An id of yours that several jobs may have.")
@click.option("--external-id", "external_job_id", metavar="ID", help="Your own id for this job.")
@click.option("--job-id", metavar="ID", help="The job's id; one that is known already gets its next attempt.")
@click.option(
    "-m", "--metadata", multiple=True, metavar="KEY=VALUE", callback=attributes, help="What else to remember of it; may be repeated."
)
@options.json_output
@options.database
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
def run(db: Database, *, command: tuple[str, ...], as_json: bool, name: str | None, metadata: Mapping[str, Any], **given: Any) -> None:
    """Run any program as a job."""
    import asyncio
    import socket

    if db.in_memory:
        raise Failure(f"{db.shown} is in memory and would be gone with this command; name a file, such as sqlite:///jobs.db", code=2)
    settings = {key: value for key, value in given.items() if value is not None}
    about = {**metadata, "command": shlex.join(_without_secrets(command)), "directory": os.getcwd(), "host": socket.gethostname()}
    work = _run(db, command, name or operation_of(command), {**settings, "metadata": about}, as_json=as_json)
    raise click.exceptions.Exit(asyncio.run(work))


def operation_of(command: Sequence[str]) -> str:
    """Return what to call *command*: the program, and with an interpreter what it runs, since statistics are by operation."""
    program = os.path.basename(command[0]) or command[0]
    if not program.rstrip("0123456789.").startswith(_INTERPRETERS) or program.rstrip("0123456789.") not in _INTERPRETERS:
        return program[:255]
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            return f"{program} -m {next(words, '')}".strip()[:255]
        if word in _OPTION_WITH_VALUE:
            next(words, None)
        elif word == "-c":
            return program
        elif not word.startswith("-"):
            return f"{program} {os.path.basename(word)}"[:255]
    return program


def _without_secrets(command: Sequence[str]) -> list[str]:
    """Return *command* with what follows an option like ``--password`` replaced; texts are redacted by the job itself."""
    from structjob.redaction import MARK, Redactor

    redactor = Redactor()
    shown: list[str] = []
    hide = False
    for word in command:
        if hide and not word.startswith("-"):
            shown.append(MARK)
            hide = False
            continue
        name, equals, _ = word.partition("=")
        hide = word.startswith("--") and not equals and redactor.is_secret(name.lstrip("-"))
        secret = equals and redactor.is_secret(name.lstrip("-"))
        shown.append(f"{name}={MARK}" if secret else redactor.text(word))
    return shown


class CommandFailed(Exception):
    """What is recorded of a program that did not end well."""


async def _run(db: Database, command: Sequence[str], operation: str, settings: Mapping[str, Any], *, as_json: bool) -> int:
    from structjob.tracker import Tracker

    tracker = Tracker(db.url, service="structjob run")
    await tracker.open()
    try:
        async with tracker.job(operation, **settings) as job:
            code = await _supervise(tracker, job, db, command, stdout=2 if as_json else 1)
        # Everything, however long it takes; what a database that is away does not take stays in the spool.
        with suppress(Exception):
            await tracker.flush()
    finally:
        await tracker.aclose()
    if as_json:
        put_json({name: getattr(job, name) for name in ("id", "operation", "attempt", "status", "error", "result")})
    return code


async def _supervise(tracker: Tracker, job: Job, db: Database, command: Sequence[str], *, stdout: int) -> int:
    import asyncio

    from structjob.cli.output import LineSplitter
    from structjob.cli.process import Child, Heard
    from structjob.context import current_scope, to_environment
    from structjob.exceptions import StructjobError
    from structjob.pipeline import emit

    scope = current_scope()
    assert scope is not None  # noqa: S101 -- within the job
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101 -- a coroutine runs in one

    def hold_back() -> None:
        # In a stream's own thread: the program waits at its full pipe, and nothing piles up.
        if tracker.queue.size > WAITING:
            with suppress(StructjobError):
                asyncio.run_coroutine_threadsafe(tracker.flush(), loop).result()

    def listener(stream: str) -> tuple[LineSplitter, Heard]:
        splitter = LineSplitter(partial(_record, stream))

        def heard(chunk: bytes) -> None:
            if not chunk:
                splitter.end()
                return
            hold_back()
            splitter.feed(chunk)

        return splitter, heard

    def _record(stream: str, line: str, attrs: dict[str, int]) -> None:
        emit(scope, "info", line, dict(attrs), kind="output", stream=stream)

    splitters: dict[str, LineSplitter] = {}
    listeners: dict[str, Heard] = {}
    for stream in ("stdout", "stderr"):
        splitters[stream], listeners[stream] = listener(stream)
    environment = {"PYTHONUNBUFFERED": "1", **os.environ, **to_environment(scope), "STRUCTJOB_DATABASE_URL": db.text}
    try:
        child = Child(command, environment, listeners, stdout=stdout)
    except OSError as exc:
        return await _not_started(job, command, exc, db)
    try:
        ended, reason = await child.wait(), ""
    except asyncio.CancelledError as exc:
        # Somebody asked for it with `structjob cancel`; the program may have something to clean up.
        reason = f"{exc}: "
        task.uncancel()
        child.terminate()
        ended = await child.wait()
    job.result = {
        "exit_code": ended.code, "signal": ended.signal.name if ended.signal is not None else None,
        "seconds": round(ended.seconds, 3),
        "stdout_lines": splitters["stdout"].lines, "stderr_lines": splitters["stderr"].lines,
    }  # fmt: skip
    status, why = outcome(command, ended)
    why = f"{reason}{why}" if why else ""
    await job.end(
        status,
        error=CommandFailed(why) if why else None,
        cpu_ms=round(ended.cpu_seconds * 1000, 3),
        max_rss_kb=ended.max_rss_kb,
    )
    _close(job, status, why, ended, db)
    return ended.code


def outcome(command: Sequence[str], ended: Ended) -> tuple[str, str]:
    """Return the status that *ended* gives to the job, and why if it is not a good one."""
    import signal

    program = os.path.basename(command[0]) or command[0]
    if ended.code == 0:
        return "completed", ""
    how = f"was ended by {ended.signal.name}" if ended.signal is not None else f"ended with exit code {ended.code}"
    if ended.asked is not None:
        return "cancelled", f"{program} {how} after {ended.asked.name} was passed on to it"
    if ended.unread and (ended.signal is signal.SIGPIPE or ended.code):
        return "cancelled", f"{program} {how}: whoever read its output stopped reading"
    return "failed", f"{program} {how}"


async def _not_started(job: Job, command: Sequence[str], exc: OSError, db: Database) -> int:
    absent = isinstance(exc, FileNotFoundError) and exc.filename == command[0]
    why = f"{command[0]}: command not found" if absent else f"{command[0]}: cannot be run: {exc.strerror}"
    code = NOT_FOUND if absent else NOT_EXECUTABLE
    job.result = {"exit_code": code}
    await job.end("failed", error=CommandFailed(why))
    Failure(why, hint=command_line("show", job.id, db=db.option)).show()
    return code


def _close(job: Job, status: str, why: str, ended: Ended, db: Database) -> None:
    """Say a last word, to a person only: whatever else reads our stderr is to find there what the program wrote, and nothing more."""
    if not is_terminal(sys.stderr):
        return
    from structjob.sinks import escape

    colour = coloured(sys.stderr)
    text = escape(why or f"{job.operation} completed")
    say(f"{paint(symbol(status), colour_of(status), colour)} {text} {paint(f'in {lasting(ended.seconds)}', 'dim', colour)}")
    if ended.left:
        say(paint("  it left processes behind; what they print from now on is not recorded", "dim", colour))
    say(f"{paint('next:', 'dim', colour)}  {command_line('show', job.id, db=db.option)}")
