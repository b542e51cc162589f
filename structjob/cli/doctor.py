"""``structjob doctor``: the first checks to make when something is wrong."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.screen import (
    UNBOUNDED,
    Failure,
    columns,
    command_line,
    console,
    put_json,
    put_lines,
    put_table,
    say,
    suggest,
    width_of,
)
from structjob.filters import LogFilter
from structjob.text.appearance import speaks_unicode
from structjob.text.escaping import escape
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.checkup.finding import Finding
    from structjob.cli.database import Database

_LOOKS = {"ok": ("✓", "+", "green"), "warning": ("!", "!", "yellow"), "problem": ("✗", "x", "red")}


@click.command(
    epilog="""\b
Examples:
  structjob doctor
  structjob --db postgresql://ada@db.example/jobs doctor
  structjob doctor --correlation --since 7d
  structjob doctor --json | jq '.findings[] | select(.verdict != "ok")'

It tests what a program needs: it writes a large event and rolls it back, tests the rights on each table, and lets SQLite search for damage
(10 s at most). Nothing is changed: no database is created, no spool is delivered. To search for missing lines, use `structjob verify`.

\b
Exit codes, for cron and monitoring:
  0  no problem; there may be warnings
  1  a problem: programs cannot store lines now, or soon cannot
  2  wrong usage, such as an unknown option
Nagios and Icinga: structjob doctor || exit 2"""
)
@click.option(
    "--correlation",
    is_flag=True,
    help="Count lines without a correlation id, by logger and operation, instead of the checks. Exit code 1 if there are any.",
)
@options.time("--since", "With --correlation: only lines from this time on: 90s, 15m, 7d, today, 2026-05-04.  [default: 1d]")  # fmt: skip
@options.json_and_db
def doctor(db: Database, *, correlation: bool, since: datetime | None, as_json: bool) -> None:
    """Find problems and suggest fixes.

    Checks versions, drivers, permissions, tables, spools and clocks.
    """
    if correlation:
        execute(_uncorrelated(db, since or datetime.now(UTC) - timedelta(days=1), as_json=as_json))
        return
    if since is not None:
        raise click.UsageError("--since needs --correlation.")
    from structjob.checkup.checks import checkup

    findings = list(checkup(db.url, db.shown, run=execute))
    problems = sum(finding.verdict == "problem" for finding in findings)
    if as_json:
        put_json({"database": db.shown, "ok": not problems, "findings": findings})
    else:
        _print(findings)
    if problems:
        raise Failure(f"{count_of(problems, 'problem')} found with {db.shown}")
    if not as_json:
        warnings = sum(finding.verdict == "warning" for finding in findings)
        say(
            f"no problem found, {count_of(warnings, 'warning')}" if warnings else "no problem found"
        )
        suggest(command_line("verify", db=db.option))


_LOOKED_AT = 100_000
"""Maximum number of lines without a correlation id that are counted, newest first."""


async def _uncorrelated(db: Database, since: datetime, *, as_json: bool) -> None:
    """Show where lines without a correlation id come from."""
    from rich.text import Text

    found: Counter[tuple[str, str, str]] = Counter()
    wanted = LogFilter(correlated=False, since=since, kind="log", order="desc", limit=1_000)
    async with reading(db) as reader:
        async for event in reader.logs.iterate(wanted):
            found[event.logger or "", event.operation or "", event.message[:60]] += 1
            if found.total() >= _LOOKED_AT:
                break
    names = ("logger", "operation", "message", "lines")
    places = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rows = [(*where, number) for where, number in places]
    if as_json:
        put_json({"ok": not rows, "found": [dict(zip(names, row, strict=True)) for row in rows]})
    elif rows:
        shown = [[Text(escape(str(value)) or "-") for value in row] for row in rows[:_SHOWN]]
        put_table(console(), ("LOGGER", "OPERATION", "MESSAGE", "LINES"), shown)
    if rows:
        raise Failure(
            f"{count_of(found.total(), 'line')} without a correlation id in {db.shown}",
            hint="log within a job, or in `with structjob.extract(headers).as_current():`",
        )
    if not as_json:
        say("every line has a correlation id")


_SHOWN = 50
"""Maximum number of places in the list."""


_LEAST = 40
"""Minimum width of what was found."""


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    screen = console()
    # All of it must be readable, also on a narrow terminal.
    room = max(width_of(screen) - 2 - max(len(one.check) + 2 for one in findings), _LEAST)
    rows = []
    for finding in findings:
        sign, plain, colour = _LOOKS[finding.verdict]
        title = Text(f"{sign if speaks_unicode() else plain} {finding.check}", style=colour)
        texts = [Text(escape(finding.found))]
        if finding.advice is not None:
            texts.append(Text(f"do: {escape(finding.advice)}", style="bold"))
        for text in texts:
            for line in text.wrap(screen, room):
                rows.append([title, line])
                title = Text("")
    put_lines(columns(("CHECK", "FOUND"), rows, UNBOUNDED), screen)
