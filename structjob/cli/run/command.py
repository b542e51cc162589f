"""``structjob run``: records any program as a job.

Faults of structjob never keep the program from running, and the exit code is the program's.
"""

from __future__ import annotations

import os
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.filtering import attributes
from structjob.cli.run.notices import Notices
from structjob.cli.run.program import NOT_FOUND, CannotFork, Program, end_as, exit_code
from structjob.cli.screen import (
    Failure,
    coloured,
    command_line,
    is_terminal,
    put_json,
    say,
    suggest,
)
from structjob.exceptions import InvalidArgument, InvalidURL, SpoolError
from structjob.text.appearance import colour_of, lasting, paint, symbol
from structjob.text.programs import operation_of
from structjob.text.wording import count_of

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

    from structjob.cli.database import Database
    from structjob.cli.run.process import Ended
    from structjob.context.scope import Scope
    from structjob.lifecycle import Job
    from structjob.statuses import EndStatus
    from structjob.tracker import Tracker

_STACK = 2 << 20
"""Bytes of address space that each of our threads reserves, in place of the usual 8 MiB."""

_MEMORY = {"RLIMIT_AS": ("-v", 160_000), "RLIMIT_DATA": ("-d", 100_000)}
"""The least limits of memory with which a program is recorded: the option of ``ulimit``, and KiB.

Recording takes 60 to 128 MB of address space. Where less is left, Python does not always raise
`MemoryError`: it may abort this process, and the exit code of the program would be lost.
"""

LAST_LINE = 500
"""Characters of the program's last line on stderr that the error of its job shows."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  structjob run -- make test
  structjob run --operation nightly --owner ada --metadata vm=pg-01 -- ./backup.sh /srv
  structjob run --job-id import-17 -- python import.py     the next attempt of the same job
  structjob run --json -- make test 2>make.log | jq .result

The program always runs. If its output cannot be stored, one warning on stderr says why. The lines then wait in a directory, and the next
structjob command that can use this database stores them. The directory is the first of these that can be written to: --spool or
$STRUCTJOB_SPOOL; beside the database file; $XDG_STATE_HOME/structjob (~/.local/state/structjob); ./.structjob; a private one in $TMPDIR.

The program's output is copied byte for byte, and each line is recorded as stdout or stderr. The program inherits the same descriptors,
signals, limits and environment as without `structjob run`. Signals are passed on to it. STRUCTJOB_* variables are added to its environment,
so that a Python program that opens a Tracker joins the job. PYTHONUNBUFFERED is set to 1, unless you set it, so that Python's output comes
line by line. With --json, all output of the program goes to stderr, and the job is written to stdout after it has ended.

\b
Exit code: that of the program, or
  128 + N  if signal N ended the program
  127      if the program does not exist
  126      if the program cannot be run
  1        if the program ended with 0, but its stdout cannot be written, because the disk is full, for example
  2        if an option is wrong; then nothing runs

The job is cancelled, not failed, if a signal that was passed on ended the program, if its exit code is 128 plus that signal's number, or if
it fails within 30 seconds of SIGTERM or 3 seconds of SIGINT, SIGHUP or SIGQUIT.""",
)
@click.option(
    "--operation",
    "--name",
    metavar="TEXT",
    help="Operation (name of the job).  [default: the program's name]",
)
@click.option(
    "--type",
    "job_type",
    metavar="TEXT",
    default="command",
    show_default=True,
    help="Type of the job.",
)
@click.option("--owner", metavar="TEXT", help="Owner of the job.")
@click.option("--project", metavar="TEXT", help="Project of the job.")
@click.option("--category", metavar="TEXT", help="Category of the job.")
@click.option("--description", metavar="TEXT", help="Description of the job.")
@click.option("--context-id", metavar="ID", help="Your own id that several jobs may share.")
@click.option("--correlation-id", metavar="ID", help="Correlation id of the job and its lines.")
@click.option("--external-id", "external_job_id", metavar="ID", help="Your own id for this job.")
@click.option(
    "--job-id",
    metavar="ID",
    help="Id of the job. If the job exists, this run becomes its next attempt.",
)
@click.option(
    "-m",
    "--metadata",
    multiple=True,
    metavar="KEY=VALUE",
    callback=attributes,
    help="Metadata of the job; may be repeated.",
)
@click.option("--spool", metavar="DIR", help="Directory for lines that wait for the database.")
@options.json_and_db
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD...")
def run(
    db: Database,
    *,
    command: tuple[str, ...],
    as_json: bool,
    operation: str | None,
    spool: str | None,
    **given: Any,
) -> None:
    """Run any program as a job."""
    recording = _Recording(command, db, as_json=as_json)
    program, notices = recording.program, recording.notices
    try:
        _check_memory()
        program.fork()
        import asyncio

        threading.stack_size(_STACK)
        _check(db)
        notices.listen()
        settings = _settings(command, given)
        asyncio.run(recording.run(operation or operation_of(command), settings, spool), debug=False)
    except BaseException as exc:
        if not program.started and recording.code is None:
            if isinstance(exc, KeyboardInterrupt) or _is_mistake(exc):
                program.abandon()
                raise
            notices.warn(f"{_reason(exc)}. The program runs; nothing is recorded")
            program.instead_of_us()
        notices.warn(f"recording the program failed: {_reason(exc)}")
    if recording.code is not None:
        raise click.exceptions.Exit(recording.code)
    with suppress(Exception):
        sys.stdout.flush()
    end_as(recording.status if recording.status is not None else program.wait())


class _CannotRecord(Exception):
    """There is no database to record in, or too little memory; the message says why."""


def _check_memory() -> None:
    """Refuse to record where memory is too scarce; see `_MEMORY`."""
    import resource

    for name, (option, least) in _MEMORY.items():
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY and limit < least * 1024:
            raise _CannotRecord(
                f"the limit of memory (ulimit {option}) is {limit // 1024:,} KiB, and recording needs {least:,}"
            )


def _check(db: Database) -> None:
    """Refuse a database that is certainly a mistake.

    If the environment names it, it is not a mistake of this command; then nothing is recorded.
    """
    from structjob.urls.url import ENVIRONMENT

    try:
        db.refuse_memory(
            " and would be gone with this command; name a file, such as sqlite:///jobs.db"
        )
    except Failure as exc:
        if db.typed:
            raise
        variable = next((name for name in ENVIRONMENT if os.environ.get(name)), "")
        why = f"${variable}: {exc.message}" if variable else exc.message
        raise _CannotRecord(why) from None


def _is_mistake(exc: BaseException) -> bool:
    """Return whether *exc* is about a mistake on the command line."""
    return isinstance(exc, click.ClickException) or (
        isinstance(exc, InvalidArgument) and not isinstance(exc, InvalidURL)
    )


def _reason(exc: BaseException) -> str:
    if isinstance(exc, CannotFork):
        return f"no process can be made to watch the program ({exc})"
    if isinstance(exc, _CannotRecord | InvalidURL | SpoolError):
        return str(exc)
    return f"{type(exc).__name__}: {exc}"


def _settings(command: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that describe the job."""
    import socket

    from structjob.cli.database import working_directory
    from structjob.values.secret_rules import SecretRules

    settings = {key: value for key, value in given.items() if value is not None}
    about = {
        "command": shlex.join(SecretRules().command(command)),
        "directory": str(working_directory()),
        "host": socket.gethostname(),
    }
    return {**settings, "metadata": {**settings.get("metadata", {}), **about}, "offline": True}


class CommandFailed(Exception):
    """The recorded error of a program that did not end well."""


class _Recording:
    """A program that runs as a job.

    Attributes:
        program: The program.
        notices: The messages to the user.
        status: The program's wait status, once it has ended.
        code: The exit code that represents the program if it cannot be run.
    """

    def __init__(self, command: Sequence[str], db: Database, *, as_json: bool) -> None:
        self.program = Program(command, merged=as_json)
        self.notices = Notices()
        self.status: int | None = None
        self.code: int | None = None
        self._db = db
        self._as_json = as_json
        self._flushing: asyncio.Future[None] | None = None
        self._gave_up = False

    async def run(self, operation: str, settings: Mapping[str, Any], spool: str | None) -> None:
        """Run the program to its end, and wait until its output is stored."""
        import asyncio

        tracker = await _opened(self._db, spool)
        place = tracker.spool_directory
        try:
            self._warn_where_it_waits(tracker, place, ended=False)
            async with tracker.job(operation, **settings) as job:
                await self._supervise(tracker, job)
            # Wait until everything is stored, without a time limit. If the database is unavailable,
            # the rest stays in the spool.
            self._flushing = asyncio.ensure_future(tracker.flush())
            if self._gave_up:
                self._flushing.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await self._flushing
            self._warn_where_it_waits(tracker, place, ended=True)
        finally:
            await tracker.aclose(1.0 if self._gave_up else 10.0)
        if place is None and (lost := tracker.ledger().in_memory):
            self.notices.warn(
                f"{count_of(lost, 'line', 'is', 'are')} lost: the database does not answer, and there is no directory to wait in"
            )
        if self._as_json:
            names = ("id", "operation", "attempt", "status", "error", "result")
            with suppress(OSError):
                put_json({name: getattr(job, name) for name in names})

    def _stop_waiting(self) -> None:
        # After such a signal the command must not wait for a database; the rest stays in the spool.
        self._gave_up = True
        if self._flushing is not None:
            self._flushing.cancel()

    def _warn_where_it_waits(self, tracker: Tracker, place: Path | None, *, ended: bool) -> None:
        """Report why the database cannot be used, if it cannot.

        A database that may answer soon (a slow disk, a server that restarts) is reported only after
        the program has *ended*, because by then usually all is stored.
        """
        fault = tracker.unavailable
        if fault is not None and place is not None:
            if not ended and not fault.permanent:
                return
            runs = "The program's" if ended else "The program runs; its"
            self.notices.warn(
                f"{str(fault).rstrip('?.')}. {runs} output waits in {place} for the next structjob command that can use this database"
            )
        elif fault is not None:
            self.notices.warn(
                f"{fault}. The program runs; nothing is recorded, because there is no directory where its output could wait (see --spool)"
            )
        elif place is None and not ended:
            self.notices.warn(
                "there is no directory where output could wait; what the database does not accept is lost (see --spool)"
            )
        self.notices.show()

    async def _supervise(self, tracker: Tracker, job: Job) -> None:
        """Run the program, and record how it ended."""
        import asyncio

        from structjob.cli.run.output import Output
        from structjob.cli.run.process import Child
        from structjob.context.propagation import to_environment
        from structjob.context.scope import current_scope

        scope, task = current_scope(), asyncio.current_task()
        assert scope is not None and task is not None  # noqa: S101, PT018 -- within the job, in a task
        environment = {**to_environment(scope), "STRUCTJOB_DATABASE_URL": self._db.text}
        if "PYTHONUNBUFFERED" not in os.environ:
            environment["PYTHONUNBUFFERED"] = "1"
        output = Output(tracker, scope)
        try:
            child = Child(self.program, environment, output, stdout=2 if self._as_json else 1)
        except OSError as exc:
            if not self.program.tried:
                raise
            self.code = exit_code(exc)
            await _not_started(job, self.program.command, exc, self._db)
            return
        child.on_late_signal(self._stop_waiting)
        reason = ""
        while True:
            try:
                ended = await child.wait()
                break
            except asyncio.CancelledError as exc:
                # `structjob cancel` requested it; the program may have to clean up.
                reason = f"{exc}: "
                task.uncancel()
                child.terminate()
        self.status = ended.status
        marked = child.marked
        job.result = {
            "exit_code": ended.code, "signal": ended.signal.name if ended.signal is not None else None,
            "seconds": round(ended.seconds, 3),
            **{f"{stream}_lines": output.lines(stream) + marked[stream].lines for stream in marked},
            **({"still_open": list(ended.left)} if ended.left else {}),
        }  # fmt: skip
        self._warn_of_output(ended, job, scope)
        last = output.last or marked["stderr"].last.decode(errors="backslashreplace")
        status, why = outcome(self.program.command, ended, last)
        why = f"{reason}{why}" if why else ""
        await job.end(
            status,
            error=CommandFailed(why) if why else None,
            cpu_ms=round(ended.cpu_seconds * 1000, 3),
            max_rss_kb=ended.max_rss_kb,
        )
        _say_end(job, status, why, ended, self._db)

    def _warn_of_output(self, ended: Ended, job: Job, scope: Scope) -> None:
        """Log which output was not recorded or not passed on."""
        from structjob.capture.emit import emit
        from structjob.cli.run.process import STUCK

        def warn(text: str) -> None:
            emit(scope, "warning", text, {})

        if ended.left:
            warn(
                f"a process that the program left behind still has its {' and '.join(ended.left)}; its further output is not recorded"
            )
        if ended.stuck:
            warn(
                f"the reader of {' and '.join(ended.stuck)} does not read: after SIGTERM and {STUCK:g} s, the rest was neither passed on nor recorded"
            )
        if ended.unrecorded:
            warn(f"some output was not recorded: {ended.unrecorded}")
        for stream, fault in ended.unwritten.items():
            warn(f"cannot write {stream}: {fault}; this log has what the program printed there")
            self.notices.warn(
                f"cannot write {stream}: {fault}; `{command_line('logs', job.id, db=self._db.option)}` has what the program printed there"
            )
        if ended.code == 0 and "stdout" in ended.unwritten:
            self.code = 1  # the program itself could not see that its output was refused


async def _opened(db: Database, spool: str | None) -> Tracker:
    """Return an open tracker. If no directory can be used for a spool, lines wait in memory."""
    from structjob.capture.setup import SETUP
    from structjob.tracker import Tracker

    SETUP.overlooked = False  # this process does not log; the program's output is recorded
    with suppress(SpoolError):
        return await Tracker(db.url, service="structjob run", spool=spool or True).open(
            required=False
        )
    return await Tracker(db.url, service="structjob run", spool=False).open(required=False)


def outcome(command: Sequence[str], ended: Ended, last: str) -> tuple[EndStatus, str]:
    """Return the status that *ended* gives to the job, and the reason if the status is not a good
    one.

    Args:
        command: The program and its arguments.
        ended: How the program ended.
        last: Its last line on stderr.
    """
    import signal

    program = os.path.basename(command[0]) or command[0]
    if ended.code == 0:
        if "stdout" in ended.unwritten:
            return (
                "failed",
                f"{program} ended with exit code 0, but its stdout cannot be written: {ended.unwritten['stdout']}",
            )
        return "completed", ""
    how = (
        f"was ended by {ended.signal.name}"
        if ended.signal is not None
        else f"ended with exit code {ended.code}"
    )
    if ended.asked is not None:
        return "cancelled", f"{program} {how} after {ended.asked.name} was passed on to it"
    if ended.unread and (ended.signal is signal.SIGPIPE or ended.code):
        return "cancelled", f"{program} {how}: the reader of its output stopped reading"
    if last:
        return (
            "failed",
            f"{last[:LAST_LINE]} ({how.removeprefix('was ').removeprefix('ended with ')})",
        )
    return "failed", f"{program} {how}"


async def _not_started(job: Job, command: Sequence[str], exc: OSError, db: Database) -> None:
    code = exit_code(exc)
    why = (
        f"{command[0]}: command not found"
        if code == NOT_FOUND
        else f"{command[0]}: cannot be run: {exc.strerror}"
    )
    job.result = {"exit_code": code}
    await job.end("failed", error=CommandFailed(why))
    with suppress(Exception):
        Failure(why, hint=command_line("show", job.id, db=db.option)).show()


def _say_end(job: Job, status: str, why: str, ended: Ended, db: Database) -> None:
    """Print a final message, only if stderr is a terminal.

    Any other reader of stderr must find there only what the program wrote.
    """
    if not is_terminal(sys.stderr):
        return
    from structjob.text.escaping import escape

    colour = coloured(sys.stderr)
    text = escape(why or f"{job.operation} completed")
    say(
        f"{paint(symbol(status), colour_of(status), colour)} {text} {paint(f'in {lasting(ended.seconds)}', 'dim', colour)}"
    )
    if ended.left:
        left = "it left processes behind; what they print is not recorded any more"
        say(f"  {paint(left, 'dim', colour)}")
    suggest(command_line("show", job.id, db=db.option))
