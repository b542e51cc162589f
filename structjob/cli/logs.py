"""``structjob logs``: shows the lines of one job or of all jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.filtering import chosen, filtered
from structjob.cli.follow import FOLLOWED, show_tail
from structjob.cli.ids import resolve, resolved
from structjob.cli.lines import Screen
from structjob.cli.pager import paged
from structjob.cli.screen import command_line, in_shell, put_json, put_json_array, say, suggest

if TYPE_CHECKING:
    from structjob.cli.database import Database, Reader
    from structjob.models import EventRecord

AT_ONCE = 1_000
"""Number of events per read."""

AROUND = 5
"""Default number of lines before and after the one of ``--around``; ``--context`` sets another."""

_DIGITS = 20
"""Maximum number of digits of a 64-bit number."""


def event_name(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Parse the name of an event: its session and its number in that session."""
    if value is None:
        return None
    session, colon, number = value.partition(":")
    if (
        not colon
        or not session.isdecimal()
        or not number.isdecimal()
        or max(len(session), len(number)) > _DIGITS
    ):
        raise click.BadParameter(
            f"{value!r} does not name a line: write its session and number, such as 17:25; `logs --json` shows both",
            ctx,
            param,
        )
    return int(session), int(number)


@click.command(
    cls=options.JsonForms,
    epilog="""\b
Examples:
  structjob logs                            every line of every job
  structjob logs 019a3f7c -l warning        warnings and errors of one job and its child jobs
  structjob logs gui-17 -f                  follow a job until it ends
  structjob logs --since 3h -w vm=pg-01 --grep timeout --context 3
  structjob logs --around 17:25             line 25 of session 17 and its neighbors
  structjob logs --json -f | jq .message    JSON lines; --json=array for one array""",
)
@options.optional_job
@filtered
@click.option(
    "-n", "--last", type=click.IntRange(0), metavar="N", help="Show only the last N lines."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Show only the first N lines.")
@click.option(
    "--context",
    type=click.IntRange(0, 1_000),
    metavar="N",
    help="Also show N lines before and after each matching line.",
)
@click.option(
    "--around",
    metavar="SESSION:NUMBER",
    callback=event_name,
    help="Show this line and its neighbors in the same job; `logs --json` shows both numbers.",
)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Follow the log: keep showing new lines, until Ctrl-C or the end of the given job.",
)
@options.pager
@options.utc
@options.json_forms
@options.database
def logs(
    id_: str | None,
    db: Database,
    *,
    json_form: str | None,
    utc: bool,
    pager: bool,
    follow: bool,
    context: int | None,
    around: tuple[int, int] | None,
    last: int | None,
    limit: int | None,
    no_children: bool,
    **given: Any,
) -> None:
    """Show log lines, oldest first."""
    if last is not None and limit is not None:
        raise click.UsageError("--last takes the last lines, --limit the first: use one of them.")
    if follow and (limit is not None or context or given["until"] is not None):
        raise click.UsageError("--follow cannot be used with --limit, --until or --context.")
    if context and last is not None:
        raise click.UsageError("--context cannot be used with --last: use --since instead.")
    if follow and json_form == "array":
        raise click.UsageError(
            "--follow cannot be used with --json=array: use --json for JSON lines."
        )
    filters = chosen(given, id_)
    if around is not None:
        if id_ is not None or filters or follow or last is not None or limit is not None:
            raise click.UsageError(
                "--around shows one line: it can be combined only with --context."
            )
        execute(
            _neighbours(
                db, around, AROUND if context is None else context, json_form=json_form, utc=utc
            )
        )
    elif follow:
        if last is None and id_ is None and "since" not in filters:
            last = FOLLOWED
        execute(
            show_tail(
                db,
                id_,
                filters,
                as_json=json_form is not None,
                utc=utc,
                last=last,
                children=not no_children,
            )
        )
    else:
        wish = _Wish(
            json_form=json_form,
            utc=utc,
            context=context or 0,
            last=last,
            limit=limit,
            no_children=no_children,
        )
        with paged(wanted=pager and json_form is None):
            execute(_logs(db, id_, filters, wish))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """The requested selection and format of the lines."""

    json_form: str | None
    utc: bool
    context: int
    last: int | None
    limit: int | None
    no_children: bool


async def _neighbours(
    db: Database, event: tuple[int, int], context: int, *, json_form: str | None, utc: bool
) -> None:
    async with reading(db) as reader:
        found = await reader.logs.around(event, before=context, after=context)
    events = (*found.before, found.event, *found.after)
    if json_form == "array":
        put_json(events)
        return
    screen = Screen(as_json=json_form is not None, utc=utc, about=found.event.job_id)
    screen.marked = {found.event.id}
    for one in events:
        screen.put(one)


async def _logs(db: Database, given: str | None, filters: Mapping[str, Any], wish: _Wish) -> None:
    async with reading(db) as reader:
        job = None if given is None else await resolve(reader, given)
        filters = await resolved(reader, filters)
        scope: dict[str, Any] = (
            {} if job is None else {"job_id": job.id, "children": not wish.no_children}
        )
        screen = Screen(
            as_json=wish.json_form is not None, utc=wish.utc, about=None if job is None else job.id
        )
        if wish.last is not None:
            events = _last(reader, {**scope, **filters}, wish.last)
        elif wish.context:
            events = _around(reader, scope, filters, wish, screen)
        else:
            events = _first(reader, {**scope, **filters}, wish.limit)
        if wish.json_form == "array":
            await put_json_array(events)
            return
        async for event in events:
            screen.put(event)
        if wish.json_form is None:
            _advise(db, given, screen, wish, narrowed=bool(filters))


def _advise(
    db: Database, given: str | None, screen: Screen, wish: _Wish, *, narrowed: bool
) -> None:
    """Suggest the next command where nothing was found, or where the output does not fit.

    The output does not fit if it is longer than a terminal without a pager can show.
    """
    named = () if given is None else (given,)
    if screen.shown:
        if screen.overflown and wish.last is None and wish.limit is None:
            suggest(command_line("logs", *named, "--last", "50", db=db.option))
        return
    say(options.none_found("lines" if given is None else f"lines of {in_shell(given)}", db))
    if narrowed:
        suggest(command_line("logs", *named, db=db.option))
    elif given is not None:
        suggest(command_line("jobs", db=db.option))
    else:
        suggest(command_line("run", "--", "echo", "hello", db=db.option))


async def _first(
    reader: Reader, filters: Mapping[str, Any], limit: int | None
) -> AsyncIterator[EventRecord]:
    shown = 0
    async for event in reader.logs.iterate(limit=min(AT_ONCE, limit or AT_ONCE), **filters):
        yield event
        shown += 1
        if shown == limit:
            return


async def _last(
    reader: Reader, filters: Mapping[str, Any], number: int
) -> AsyncIterator[EventRecord]:
    """Yield the last *number* events; they are read from the end."""
    found: list[EventRecord] = []
    cursor: str | None = None
    while len(found) < number:
        page = await reader.logs.list(order="desc", limit=AT_ONCE, cursor=cursor, **filters)
        found.extend(page.items[: number - len(found)])
        cursor = page.next_cursor
        if cursor is None:
            break
    for event in reversed(found):
        yield event


async def _around(
    reader: Reader,
    scope: Mapping[str, Any],
    filters: Mapping[str, Any],
    wish: _Wish,
    screen: Screen,
) -> AsyncIterator[EventRecord]:
    """Yield each matching event with its neighbors, as ``grep -C`` does.

    All events of the scope and the matching events come in the same order. So both are read in
    parallel, and only the neighbors are kept in memory.
    """
    span = {name: filters[name] for name in ("since", "until", "type") if name in filters}
    everything = reader.logs.iterate(limit=AT_ONCE, **scope, **span)
    matches = _first(reader, {**scope, **filters}, wish.limit)
    match = await anext(matches, None)
    before: deque[EventRecord] = deque(maxlen=wish.context)
    after = skipped = 0
    screen.marked = set()
    async for event in everything:
        if match is not None and event.id == match.id:
            if skipped:
                screen.separate()
            for earlier in before:
                yield earlier
            before.clear()
            screen.marked = {event.id}
            yield event
            match, after, skipped = await anext(matches, None), wish.context, 0
        elif after:
            after -= 1
            yield event
        elif match is None:
            return
        else:
            skipped += len(before) == before.maxlen
            before.append(event)
