"""``structjob tail``: shows the last lines, and then each new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import running
from structjob.cli.filtering import chosen, followed
from structjob.cli.follow import show_tail

if TYPE_CHECKING:
    from structjob.cli.database import Database


@click.command(
    epilog="""\b
Examples:
  structjob tail                            the last ten lines of all jobs, then each new line
  structjob tail gui-17                     the same for one job and its child jobs, until it ends
  structjob tail -n 0 -l error --json       new errors only, as JSON lines

Each line is shown exactly once, whichever process logs it. If lines were dropped, a message says how many and why."""
)
@options.optional_job
@click.option(
    "-n",
    "--last",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="Number of existing lines to show first.",
)
@click.option("-f", "--follow", is_flag=True, expose_value=False, hidden=True)  # it always does
@followed
@options.utc
@options.json_lines_and_db
@running
async def tail(
    id_: str | None,
    db: Database,
    *,
    as_json: bool,
    utc: bool,
    last: int,
    no_children: bool,
    **given: Any,
) -> None:
    """Show new log lines as they are written.

    It ends with Ctrl-C, or when the given job ends.
    """
    if given["until"] is not None:
        raise click.UsageError("A tail has no end: use `structjob logs` with --until.")
    filters = chosen(given, id_)
    await show_tail(db, id_, filters, as_json=as_json, utc=utc, last=last, children=not no_children)
