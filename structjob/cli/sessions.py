"""``structjob sessions``: lists the sessions of trackers that log to the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import reading, running
from structjob.cli.screen import command_line, console, put_json, put_table, say, suggest
from structjob.cli.times import brief
from structjob.text.appearance import lasting, speaks_unicode
from structjob.text.escaping import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structjob.cli.database import Database
    from structjob.models import SessionRecord

_LOOKS = {
    "live": ("●", "*", "blue"),
    "silent": ("?", "?", "yellow"),
    "closed": ("✓", "+", "green"),
    "died": ("✗", "x", "red"),
}


@click.command(
    cls=options.WithoutArguments,
    instead=[
        (("sessions",), "all sessions, with their programs"),
        (("jobs", "--operation", "{}"), "the jobs of this name"),
    ],
    epilog="""\b
Examples:
  structjob sessions
  structjob sessions --live
  structjob sessions --json | jq '.[] | select(.status == "died")'

A session is one tracker in one process. `structjob verify` tells whether all of its lines are stored.""",
)
@click.option("--live", is_flag=True, help="Only sessions that have not ended.")
@options.limit("Maximum number of sessions.")
@options.utc
@options.json_and_db
@running
async def sessions(db: Database, *, as_json: bool, utc: bool, live: bool, limit: int) -> None:
    """List sessions: programs that log to this database.

    The newest comes first.
    """
    async with reading(db) as reader:
        found = await reader.sessions.list(live=live, limit=limit)
    if as_json:
        put_json(found)
        return
    if found:
        _print(found, utc=utc)
        if db.path is None and (places := db.places) is not None:
            say(f"spools of this user on this host: {places.candidates[0]}")
    else:
        say("no live sessions" if live else f"no sessions in {db.shown} yet")
        if live:
            suggest(command_line("sessions", db=db.option))


def _print(found: Sequence[SessionRecord], *, utc: bool) -> None:
    from rich.text import Text

    rows = []
    for one in found:
        rich, plain, colour = _LOOKS[one.status]
        stopped = one.status == "silent" and one.process_exists
        rows.append([
            Text(str(one.session_id), style="cyan"),
            Text(f"{rich if speaks_unicode() else plain} {one.status}{' (process exists)' if stopped else ''}", style=colour),
            Text(f"{one.last_seq:,}"),
            Text(f"{one.running_jobs:,}"),
            Text(brief(one.started_at, utc=utc), style="dim"),
            Text(lasting(one.heartbeat_age_seconds) if one.ended_at is None else "", style="dim"),
            Text(brief(one.ended_at, utc=utc), style="dim"),
            Text(escape(f"{one.service or 'pid'} {one.pid} on {one.host}")),
        ])  # fmt: skip
    put_table(
        console(),
        ("SESSION", "STATUS", "LINES", "RUNNING", "STARTED", "HEARTBEAT", "ENDED", "PROCESS"),
        rows,
        right=("LINES", "RUNNING", "HEARTBEAT"),
        spare=("ENDED", "LINES", "HEARTBEAT"),
    )
