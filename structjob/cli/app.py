"""The ``structjob`` command: its subcommands, and how an error becomes an exit code."""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from structjob.cli.database import Database
from structjob.cli.help import wrapping
from structjob.cli.options import database, keep_typed
from structjob.cli.run.command import run
from structjob.cli.run.inherited import open_missing
from structjob.cli.screen import Failure, command_line
from structjob.exceptions import (
    ErrorGroupNotFound,
    EventNotFound,
    InvalidArgument,
    InvalidURL,
    JobNotFound,
    SchemaMismatch,
    StoreUnavailable,
    StructjobError,
)
from structjob.text.wording import did_you_mean

INTERRUPTED = 130
CLOSED_PIPE = 141
"""The exit code that a shell shows for a program ended by SIGPIPE."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""The reasons for which a file that stdout is redirected to may refuse a write."""


COMMANDS = {
    "cancel": ("cancel", "Request that a job stops, in whichever process it runs."),
    "delete": ("delete", "Delete one job with its child jobs, steps and lines."),
    "demo": ("demo.command", "Record a sample workload, and measure it."),
    "doctor": ("doctor", "Find problems and suggest fixes."),
    "errors": ("errors", "List errors, show one, or mark one as resolved."),
    "export": ("export", "Write a job, or log lines, to a file or stdout."),
    "import": ("import_", "Import jobs from a file of JSON lines; - is stdin."),
    "jobs": ("jobs", "List jobs, newest first."),
    "logs": ("logs", "Show log lines, oldest first."),
    "migrate": ("migrate", "Create the tables, or upgrade them."),
    "prune": ("prune", "Delete jobs and lines past their retention."),
    "serve": ("serve", "Serve the HTTP API and the web pages."),
    "sessions": ("sessions", "List sessions: programs that log to this database."),
    "show": ("show", "Show one job: its steps, attempts, child jobs, result and error."),
    "stats": ("stats", "Show statistics of jobs, steps and lines."),
    "tail": ("tail", "Show new log lines as they are written."),
    "token": ("token", "Create, list and revoke tokens for structjob serve."),
    "verify": ("verify", "Prove that no log line was lost."),
    "wait": ("wait", "Wait until a job has ended; the exit code is its outcome."),
}
"""The module of each command in `structjob.cli`, and the beginning of its help.

A module is imported when its command is used. `structjob.cli.run` is not here: it must be known to
work before a program is run with it.
"""


class Commands(click.Group):
    """A group that turns the errors of its commands into one line on stderr and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = import_module(f"structjob.cli.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, "import_" if cmd_name == "import" else cmd_name)
        return wrapping(found)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        shown = {name: click.Command(name, help=text) for name, (_, text) in COMMANDS.items()}
        shown |= self.commands
        room = formatter.width - 6 - max(map(len, shown))
        rows = [(name, shown[name].get_short_help_str(room)) for name in sorted(shown)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _writing(), _escaped():  # --help and --version are answered here
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> object:
        try:
            with _writing(), _escaped():
                keep_typed(ctx)
                result = super().invoke(ctx)
                sys.stdout.flush()
        except StructjobError as exc:
            raise _failure(exc, ctx.obj.option if isinstance(ctx.obj, Database) else "") from exc
        return result

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            meant = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"Unknown command {args[0]!r}{meant or '.'}")
        return super().resolve_command(ctx, args)


@contextmanager
def _writing() -> Iterator[None]:
    """End the command if the reader of stdout has closed it, or the disk is full."""
    try:
        yield
    except BrokenPipeError:
        _forget_stdout()
        raise click.exceptions.Exit(CLOSED_PIPE) from None
    except OSError as exc:
        if exc.errno not in FULL:
            raise
        _forget_stdout()
        raise Failure(f"cannot write: {exc.strerror}") from exc


@contextmanager
def _escaped() -> Iterator[None]:
    """Escape terminal control characters in click's own errors; `Failure` does this on its own."""
    try:
        yield
    except click.ClickException as exc:
        if not isinstance(exc, Failure):
            from structjob.text.escaping import escape

            exc.message = escape(exc.message)  # type: ignore[misc]  # click marks it as final
        raise


def _forget_stdout() -> None:
    # The rest of the buffer must not raise again when the interpreter ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _failure(exc: StructjobError, db: str) -> Failure:
    """Return the message for *exc*, with its exit code and the command that helps.

    Args:
        exc: The error.
        db: What ``--db`` needs in that command.
    """
    if isinstance(exc, JobNotFound):
        return Failure(str(exc), code=3, hint=command_line("jobs", db=db))
    if isinstance(exc, EventNotFound):
        return Failure(str(exc), code=3, hint=command_line("logs", "--last", "20", db=db))
    if isinstance(exc, ErrorGroupNotFound):
        return Failure(str(exc), code=3, hint=command_line("errors", "--all", db=db))
    if isinstance(exc, InvalidArgument) and not isinstance(exc, InvalidURL):
        return Failure(str(exc), code=2)
    if isinstance(exc, SchemaMismatch | StoreUnavailable):
        return Failure(str(exc), hint=command_line("doctor", db=db))
    return Failure(str(exc))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Examples:
  structjob demo                       watch a sample workload, for a few seconds
  structjob run -- make test           any program becomes a job
  structjob jobs --status failed       jobs that failed
  structjob logs 019a3f7c -f           follow one job

The database is --db, else $STRUCTJOB_DATABASE_URL, else $DATABASE_URL, else ./structjob.db.

\b
Exit codes, unless the help of a command names others:
  0    done
  1    not done, for example because the database does not answer
  2    wrong usage, such as an unknown option or an invalid URL
  3    there is no such job, line, error or token
  130  ended by Ctrl-C; 141 by the reader of the output, 143 by SIGTERM""",
)
@click.version_option(package_name="structjob", message="structjob %(version)s")
@database
def cli(db: object) -> None:
    """Structured logs and jobs, in your own database."""


cli.add_command(run)
wrapping(cli)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    The help of `cli` lists the codes.
    """
    # Garbage collection during the imports and at the end took a third of a short command's time.
    gc.set_threshold(100_000)
    open_missing()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # a name that the terminal cannot encode must not make the command fail
            stream.reconfigure(errors="backslashreplace")
    if "_STRUCTJOB_COMPLETE" in os.environ:
        from structjob.cli.completion import register

        register()
    try:
        code = cli.main(args, prog_name="structjob", standalone_mode=False)
    except click.Abort:
        code = INTERRUPTED
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    gc.freeze()
    sys.exit(code if isinstance(code, int) else 0)
