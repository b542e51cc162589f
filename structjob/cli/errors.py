"""``structjob errors``: errors grouped by fingerprint, and whether they are resolved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.completion import fingerprints
from structjob.cli.database import reading, running
from structjob.cli.failures import traceback_lines, what_failed
from structjob.cli.filtering import operation
from structjob.cli.ids import LEAST
from structjob.cli.screen import command_line, console, put_json, put_table, say, suggest
from structjob.cli.times import brief, full
from structjob.text.escaping import escape
from structjob.text.rendering import short
from structjob.text.wording import count_of, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from structjob.cli.database import Database
    from structjob.models import EventRecord
    from structjob.statistics import ErrorGroup

OCCURRENCES = 5
"""Number of occurrences shown of an error, latest first."""

_LOOKS = {"open": "red", "regressed": "magenta", "resolved": "green"}
_OUTCOMES = {
    "final": "final: it ended a job",
    "recovered": "recovered: the jobs continued",
    None: "",
}
_WHERE = 40


_INSTEAD = [
    (("errors", "show", "{}"), "one error, by the beginning of its id"),
    (("errors", "--operation", "{}"), "the errors of this operation"),
]
"""What to type for an argument of ``errors``; see `options.WithoutArguments`."""


class _Default(click.Group):
    """A group that runs its command ``list`` if it is given only options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            meant = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(
                f"Unknown command {args[0]!r}{meant}"
                if meant
                else options.misplaced(ctx, args[0], _INSTEAD)
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Default,
    epilog="""\b
Examples:
  structjob errors                       errors that are not resolved, the latest first
  structjob errors --final               only errors that ended a job, not those that a retry recovered from
  structjob errors list --since 1d --operation nightly
  structjob errors show 3fa2             one error; the beginning of its id is enough
  structjob errors resolve 3fa2          mark it as resolved; if it occurs again, its status is "regressed"
  structjob errors --json | jq -r '.[].error.message'

Two exceptions are the same error if their type, their message (without numbers, ids, paths and quoted text) and the innermost functions of
your own code are the same. One exception is counted once, although steps, jobs and log calls report it. Lines of level error without an
exception are the same error if their logger, message template and error_type are the same.""",
)
def errors() -> None:
    """List errors, show one, or mark one as resolved."""


@errors.command("list", cls=options.WithoutArguments, instead=_INSTEAD)
@options.several("--status", choices=tuple(_LOOKS), help="Only errors of this status")
@click.option("--all", "every", is_flag=True, help="Include resolved errors.")
@click.option(
    "--final",
    is_flag=True,
    help="Only errors that ended a job, not those that a retry or the job itself recovered from.",
)
@options.time("--since", "Only errors that occurred from this time on: 3h, 2d, 1h30m, today, 2026-05-04. Counts are those of all time.")  # fmt: skip
@options.time("--until", "Only errors that occurred before this time.")
@operation("Only errors that occurred in this operation.")
@click.option("--step", metavar="NAME", help="Only errors that occurred in a step of this name.")
@click.option("--project", metavar="TEXT", help="Only errors that occurred in this project.")
@options.limit("Maximum number of errors.")
@options.utc
@options.json_and_db
@running
async def list_(
    db: Database,
    *,
    as_json: bool,
    utc: bool,
    every: bool,
    final: bool,
    status: Sequence[str],
    **given: Any,
) -> None:
    """List unresolved errors, the most recent first."""
    if every and status:
        raise click.UsageError("--all shows every status: do not use it with --status.")
    wanted = {name: value for name, value in given.items() if value is not None}
    if final:
        wanted["outcome"] = "final"
    if not every:
        wanted["status"] = tuple(status) or ("open", "regressed")
    async with reading(db) as reader:
        found = await reader.errors.list(**wanted)
    if as_json:
        put_json(found)
    elif found:
        screen = console()
        headings = (
            "ID",
            "STATUS",
            "OUTCOME",
            "COUNT",
            "JOBS",
            "FIRST SEEN",
            "LAST SEEN",
            "WHERE",
            "ERROR",
        )
        rows = [_row(group, screen, utc=utc) for group in found]
        spare = ("FIRST SEEN", "JOBS", "STATUS", "LAST SEEN", "OUTCOME")
        put_table(screen, headings, rows, right=("COUNT", "JOBS"), spare=spare)
        if len(found) == wanted["limit"]:
            say(
                f"Showing the {len(found):,} most recent (more may exist): --limit {min(4 * len(found), 10_000)}"
            )
        suggest(command_line("errors", "show", found[0].fingerprint[:LEAST], db=db.option))
    else:
        say(options.none_found("errors" if every or status else "unresolved errors", db))
        if not every or options.selection():
            suggest(command_line("errors", "--all", db=db.option))


def _row(group: ErrorGroup, screen: Console, *, utc: bool) -> list[Text]:
    from rich.text import Text

    now = datetime.now(UTC)
    where = Text(escape(_where(group.operation, group.step)))
    if screen.is_terminal:
        where.truncate(_WHERE, overflow="ellipsis")
    return [
        Text(group.fingerprint[:LEAST] if screen.is_terminal else group.fingerprint, style="cyan"),
        Text(group.status, style=_LOOKS[group.status]),
        Text(group.outcome or "", style="dim" if group.outcome == "recovered" else ""),
        Text(f"{group.count:,}"),
        Text(f"{group.jobs:,}"),
        Text(brief(group.first_seen, utc=utc, now=now), style="dim"),
        Text(brief(group.last_seen, utc=utc, now=now)),
        where,
        Text(escape(what_failed(group.error)), style="" if group.status == "resolved" else "red"),
    ]


def _where(operation: str | None, step: str | None) -> str:
    return " › ".join(part for part in (operation, step) if part) or "(no job)"


@errors.command(
    epilog="""\b
Examples:
  structjob errors show 3fa2           the beginning of its id is enough

`structjob logs --fingerprint ID` shows each line that reports it."""
)
@click.argument("id_", metavar="ID", shell_complete=fingerprints)
@options.utc
@options.json_and_db
@running
async def show(id_: str, db: Database, *, as_json: bool, utc: bool) -> None:
    """Show one error: its count, times, traceback and latest jobs."""
    async with reading(db) as reader:
        group = await reader.errors.get(id_)
        latest = await reader.logs.list(
            fingerprint=group.fingerprint, order="desc", limit=OCCURRENCES
        )
    if as_json:
        put_json({"group": group, "occurrences": latest.items})
        return
    _print(group, latest.items, console(), utc=utc)
    if latest.next_cursor is not None:
        suggest(command_line("logs", "--fingerprint", group.fingerprint, db=db.option))
    for event in latest.items[:1]:
        suggest(command_line("logs", "--around", f"{event.session_id}:{event.seq}", db=db.option))
    if group.job_id is not None:
        suggest(command_line("show", group.job_id, db=db.option))


def _print(group: ErrorGroup, latest: Sequence[EventRecord], screen: Console, *, utc: bool) -> None:
    from rich.text import Text

    screen.print(Text(escape(what_failed(group.error)), style="bold"), soft_wrap=True)
    resolved = full(group.resolved_at, utc=utc) + (
        f" by {group.resolved_by}" if group.resolved_by else ""
    )
    facts = {
        "id": group.fingerprint, "status": group.status, "outcome": _OUTCOMES[group.outcome],
        "resolved": resolved if group.resolved_at is not None else "",
        "seen": f"{count_of(group.count, 'time')}, in {count_of(group.jobs, 'job')}", "first": full(group.first_seen, utc=utc),
        "last": full(group.last_seen, utc=utc), "where": _where(group.operation, group.step),
    }  # fmt: skip
    for name, value in facts.items():
        if value:
            screen.print(Text(f"  {name:<12}", style="dim") + Text(escape(value)), soft_wrap=True)
    if lines := traceback_lines(group.error.traceback):
        screen.print()
        for line in lines:
            screen.print(Text(f"    {escape(line)}", style="dim"), soft_wrap=True)
    screen.print()
    screen.print(Text("Latest occurrences", style="bold"))
    for event in latest:
        about = f"{_where(event.operation, event.step)}{f'  {short(event.job_id)}' if event.job_id else ''}"
        screen.print(
            Text(f"  {full(event.ts, utc=utc)}  ", style="dim") + Text(escape(about)),
            soft_wrap=True,
        )


@errors.command()
@click.argument("id_", metavar="ID", shell_complete=fingerprints)
@click.option(
    "--by",
    metavar="NAME",
    default=lambda: os.environ.get("USER") or None,
    help="Name of the person who resolved it.  [default: $USER]",
)
@options.json_and_db
@running
async def resolve(id_: str, db: Database, *, as_json: bool, by: str | None) -> None:
    """Mark an error as resolved; if it occurs again, it has regressed."""
    async with reading(db) as reader:
        group = await reader.errors.resolve(id_, by=by)
    _report(group, db, as_json=as_json)


@errors.command()
@click.argument("id_", metavar="ID", shell_complete=fingerprints)
@options.json_and_db
@running
async def reopen(id_: str, db: Database, *, as_json: bool) -> None:
    """Reopen a resolved error."""
    async with reading(db) as reader:
        group = await reader.errors.reopen(id_)
    _report(group, db, as_json=as_json)


def _report(group: ErrorGroup, db: Database, *, as_json: bool) -> None:
    if as_json:
        put_json(group)
        return
    say(f"{group.fingerprint} is {group.status}: {escape(what_failed(group.error))}")
    suggest(command_line("errors", db=db.option))
