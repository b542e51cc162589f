"""``structjob doctor``: what a person would look at first when something is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.screen import Failure, columns, command_line, console, put_json, put_lines, say

if TYPE_CHECKING:
    from structjob.cli.checks import Finding
    from structjob.cli.database import Database

_LOOKS = {"ok": ("✓", "+", "green"), "warning": ("!", "!", "yellow"), "problem": ("✗", "x", "red")}


@click.command(
    epilog="""\b
Examples:
  structjob doctor
  structjob --db postgresql://ada@db.example/jobs doctor
  structjob doctor --json | jq '.findings[] | select(.verdict != "ok")'

It tries what a program would do: it writes a large event and rolls it back, tests the rights on each table, and has SQLite look for damage
(10 s at most). Nothing is changed: no database is created, no spool is delivered. Missing lines are found by `structjob verify`.

\b
Exit codes, for cron and monitoring:
  0  no problem; there may be warnings
  1  a problem: programs cannot store now, or soon will not
  2  wrong usage, such as an unknown option
Nagios and Icinga: structjob doctor || exit 2"""
)
@options.json_output
@options.database
def doctor(db: Database, *, as_json: bool) -> None:
    """Look at versions, drivers, permissions, tables, spools and clocks."""
    from structjob.cli.checks import checkup

    findings = list(checkup(db))
    problems = sum(finding.verdict == "problem" for finding in findings)
    if as_json:
        put_json({"database": db.shown, "ok": not problems, "findings": findings})
    else:
        _print(findings)
    if problems:
        raise Failure(
            f"{problems} {'problem' if problems == 1 else 'problems'} found with {db.shown}"
        )
    if not as_json:
        warnings = sum(finding.verdict == "warning" for finding in findings)
        say(
            f"no problem found, {warnings} {'warning' if warnings == 1 else 'warnings'}"
            if warnings
            else "no problem found"
        )
        say(f"next:  {command_line('verify', db=db.option)}")


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    from structjob.text.appearance import speaks_unicode
    from structjob.text.escaping import escape

    rows = []
    for finding in findings:
        sign, plain, colour = _LOOKS[finding.verdict]
        rows.append(
            [
                Text(f"{sign if speaks_unicode() else plain} {finding.check}", style=colour),
                Text(escape(finding.found)),
            ]
        )
        if finding.advice is not None:
            rows.append([Text(""), Text(f"do: {escape(finding.advice)}", style="bold")])
    screen = console()
    # What to do must be readable to its end, also on a narrow terminal.
    put_lines(columns(("CHECK", "FOUND"), rows, max(screen.width, 400)), screen)
