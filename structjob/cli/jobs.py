"""``structjob jobs``: lists jobs: recent, running or failed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.estimates import Estimates
from structjob.cli.filtering import attributes
from structjob.cli.pager import paged
from structjob.cli.screen import columns, command_line, console, put_json, put_lines, suggest
from structjob.cli.times import brief, moment
from structjob.text.amounts import units, whole_percent
from structjob.text.appearance import bar, colour_of, counted, lasting, symbol
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from structjob.cli.database import Database, Reader
    from structjob.models import AttemptRecord, ErrorInfo, JobRecord, Page, StepRecord
    from structjob.queries.families import Family
    from structjob.queries.session_status import Silence
    from structjob.queries.step_progress import Underway
    from structjob.statistics import Expectation

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "crashed")
OURS = frozenset({"CommandFailed", "Crashed"})
FAILED = ("failed", "crashed")

_HEADINGS = ("ID", "OPERATION", "STATUS", "DONE", "STARTED", "TOOK", "LEFT", "DETAIL")

_ATTEMPT_HEADINGS = ("ID", "ATTEMPT", "OPERATION", "STATUS", "STARTED", "TOOK", "DETAIL")

_OPERATION = 32
"""Maximum number of columns for an operation's name on a terminal."""


@click.command(
    epilog="""\b
Examples:
  structjob jobs                       the newest, each with what failed or runs below it
  structjob jobs --status failed --since 1d
  structjob jobs --slower              what takes, or took, longer than usual
  structjob jobs --sort duration --operation nightly
  structjob jobs --attempts -n 50      every try at any of them, the newest first
  structjob jobs --watch               what runs, how far it is, how much is left
  structjob jobs --json | jq -r '.[].id'"""
)
@click.option(
    "--status",
    multiple=True,
    type=click.Choice(STATUSES),
    help="Only jobs of this status; may be repeated.",
)
@click.option("--type", "job_type", metavar="TEXT", help="Only jobs of this type.")
@click.option("--operation", metavar="TEXT", help="Only this operation.")
@click.option("--owner", metavar="TEXT", help="Only this owner's.")
@click.option("--category", metavar="TEXT", help="Only this category.")
@click.option("--project", metavar="TEXT", help="Only this project.")
@click.option(
    "-w",
    "--where",
    "metadata",
    multiple=True,
    metavar="KEY=VALUE",
    callback=attributes,
    help="Only where the metadata have this value; may be repeated.",
)
@click.option(
    "--slower",
    is_flag=True,
    help="Only jobs slower than usual: than 95 % of the 100 of their operation that completed before.",
)
@click.option(
    "--sort",
    type=click.Choice(("created", "duration")),
    help="By duration: the longest of the newest 100,000.",
)
@click.option(
    "--grep", "text", metavar="TEXT", help="Only where operation or description hold this."
)
@click.option(
    "--since", metavar="TIME", callback=moment, help="Created since: -3h, 2d, 1h30m, 2026-05-04."
)
@click.option("--until", metavar="TIME", callback=moment, help="Created before.")
@click.option(
    "--parent-id", "--parent", "parent_job_id", metavar="ID", help="Only children of this job."
)
@click.option("--context-id", metavar="ID", help="Only with this context id of yours.")
@click.option(
    "--correlation-id",
    "--correlation",
    "correlation_id",
    metavar="ID",
    help="Only with this correlation id.",
)
@click.option(
    "--roots",
    "root_only",
    is_flag=True,
    help="Only jobs without a parent, or whose parent is in another database.",
)
@click.option(
    "--flat",
    is_flag=True,
    help="Children among the others, by when they were created, not below the job at the top.",
)
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, 10_000),
    default=25,
    show_default=True,
    help="How many, the newest first.",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Keep the table up to date, those that run on top, until Ctrl-C; in a pipe: a line for each change.",
)
@click.option(
    "--attempts",
    is_flag=True,
    help="Every attempt at any job, by when it began; with --status, --operation, --project, --since, --until and -n.",
)
@options.pager
@options.utc
@options.json_output
@options.database
def jobs(
    db: Database,
    *,
    as_json: bool,
    utc: bool,
    watch: bool,
    attempts: bool,
    flat: bool,
    pager: bool,
    **filters: Any,
) -> None:
    """List jobs, the newest first.

    Without a filter, child jobs stand below the job at the top: all of them if they are few, else
    what failed or runs. With a filter, every job that matches has its own line; so it has with
    --flat and --json.
    """
    from structjob.cli.database import execute
    from structjob.cli.watch import watch_jobs

    wanted = {name: value for name, value in filters.items() if value not in (None, (), False, {})}
    if watch and wanted.keys() & {"slower", "sort"}:
        raise click.UsageError(
            "--watch shows what runs on top: --slower and --sort do not go with it."
        )
    if attempts:
        if watch or wanted.keys() - {"status", "operation", "project", "since", "until", "limit"}:
            raise click.UsageError(
                "--attempts goes with --status, --operation, --project, --since, --until and --limit only."
            )
        execute(_list_attempts(db, wanted, as_json=as_json, utc=utc))
        return
    grouped = not flat and not as_json and not wanted.keys() - {"since", "until", "limit"}
    if watch:
        execute(watch_jobs(db, wanted, as_json=as_json, utc=utc, grouped=grouped))
        return
    with paged(wanted=pager and not as_json):
        execute(_list(db, wanted, as_json=as_json, utc=utc, grouped=grouped))


async def _list(
    db: Database, filters: dict[str, Any], *, as_json: bool, utc: bool, grouped: bool
) -> None:
    from structjob.cli.database import reading
    from structjob.cli.ids import resolve

    async with reading(db) as reader:
        if "parent_job_id" in filters:
            filters["parent_job_id"] = (
                await resolve(reader, filters["parent_job_id"], names=True)
            ).id
        page = await reader.jobs.list(**(filters | ({"root_only": True} if grouped else {})))
        if as_json:
            put_json(page.items)
            return
        screen = console()
        if page:
            below = await reader.jobs.families(page) if grouped else None
            put_lines(
                await table(
                    page,
                    Estimates(reader),
                    screen,
                    utc=utc,
                    roots=filters.get("root_only", False),
                    below=below,
                ),
                screen,
            )
        _advise(page, filters, db)


async def _list_attempts(
    db: Database, filters: Mapping[str, Any], *, as_json: bool, utc: bool
) -> None:
    from structjob.cli.database import reading
    from structjob.cli.screen import say

    async with reading(db) as reader:
        page = await reader.jobs.history(**filters)
        if as_json:
            put_json(page.items)
            return
        screen = console()
        if page:
            put_lines(await _attempt_table(reader, page, screen, utc=utc), screen)
        else:
            say("no attempts match")
        if page.next_cursor is not None:
            say(
                f"Showing the newest {len(page)} (more exist)"
                if page
                else "only the newest 100,000 were looked at: narrow with --until"
            )


async def _attempt_table(
    reader: Reader, found: Sequence[AttemptRecord], screen: Console, *, utc: bool
) -> list[Text]:
    """Return the headings and the attempts as lines of a table."""
    from rich.text import Text

    from structjob.text.escaping import escape
    from structjob.text.rendering import short

    now = datetime.now(UTC)
    ids = {attempt.job_id for attempt in found}
    named = await reader.jobs.operations(ids)
    rows = []
    for attempt in found:
        operation = Text(escape(named.get(attempt.job_id, "")))
        if screen.is_terminal:
            operation.truncate(_OPERATION, overflow="ellipsis")
        rows.append([
            Text(escape(short(attempt.job_id) if screen.is_terminal else attempt.job_id), style="cyan"),
            Text(str(attempt.attempt)),
            operation,
            Text(f"{symbol(attempt.status)} {attempt.status}", style=colour_of(attempt.status)),
            Text(brief(attempt.started_at, utc=utc, now=now) if attempt.started_at is not None else "", style="dim"),
            Text(lasting(took(attempt, now))),
            Text(escape(what_failed(attempt.error)), style=colour_of(attempt.status)) if attempt.error is not None else Text(),
        ])  # fmt: skip
    return columns(_ATTEMPT_HEADINGS, rows, screen.width, right=("ATTEMPT", "TOOK"))


def _advise(page: Page[JobRecord], filters: Mapping[str, Any], db: Database) -> None:
    from structjob.cli.screen import say

    narrowed = [name for name in filters if name != "limit"]
    if not page:
        say(
            f"no jobs match ({', '.join(sorted(narrowed))})"
            if narrowed
            else f"no jobs in {db.shown} yet"
        )
        suggest(
            command_line("jobs", db=db.option)
            if narrowed
            else command_line("run", "--", "echo", "hello", db=db.option)
        )
    elif page.next_cursor is not None:
        say(f"Showing the newest {len(page)} (more exist)")
        suggest(
            command_line(
                "jobs", "--limit", str(min(4 * int(filters["limit"]), 10_000)), db=db.option
            )
        )


async def table(
    jobs: Sequence[JobRecord],
    estimates: Estimates,
    screen: Console,
    *,
    utc: bool,
    dated: bool = True,
    roots: bool = False,
    below: Mapping[str, Family] | None = None,
) -> list[Text]:
    """Return the headings and *jobs* as lines of a table; running jobs with their estimates.

    Args:
        jobs: The jobs to show.
        estimates: Returns the progress and the time left of running jobs.
        screen: The output.
        utc: Times in UTC.
        dated: Include the times at which the jobs started.
        roots: The jobs are roots. A root that has a parent is named with it: the parent is in
            another database.
        below: The families of the jobs, which then are roots, too.
    """
    from rich.text import Text

    from structjob.text.escaping import escape
    from structjob.text.rendering import short

    now = datetime.now(UTC)
    listed = list(jobs)
    if below is not None:
        listed = [
            one for job in jobs for one in (job, *(below[job.id].picked if job.id in below else ()))
        ]
    await estimates.look(listed, now)
    # A pipe gets the whole id; on a terminal, its end is enough to type.
    rows = []
    for job in listed:
        operation = Text("└ " if job.parent_job_id is not None else "", style="dim").append(
            escape(job.operation), style="default"
        )
        if screen.is_terminal:
            operation.truncate(_OPERATION, overflow="ellipsis")
        expected = estimates.expected.get(job.id)
        detail = _detail(job, estimates.underway.get(job.id), estimates.silent.get(job.id))
        if (
            below is not None
            and (family := below.get(job.id)) is not None
            and len(family.picked) < family.counts.total()
        ):
            detail = Text("; ").join([_children(family), *([detail] if detail else [])])
        if (roots or (below is not None and job in jobs)) and job.parent_job_id is not None:
            elsewhere = Text(
                f"child of {escape(job.parent_job_id)}, which is not in this database", style="dim"
            )
            detail = Text("; ").join([elsewhere, detail]) if detail else elsewhere
        rows.append({
            "ID": Text(escape(short(job.id) if screen.is_terminal else job.id), style="cyan"),
            "OPERATION": operation,
            "STATUS": status_of(job.status, estimates.silent.get(job.id)),
            "DONE": Text(_done(job, estimates.underway.get(job.id))),
            "STARTED": Text(brief(job.started_at or job.created_at, utc=utc, now=now), style="dim"),
            "TOOK": Text(lasting(took(job, now))),
            "LEFT": _left(expected) if expected is not None else Text(),
            "DETAIL": detail,
        })  # fmt: skip
    unused = {
        *(() if dated else ("STARTED",)),
        *(() if any(row["LEFT"] for row in rows) else ("LEFT",)),
    }
    headings = [heading for heading in _HEADINGS if heading not in unused]
    spare = ("STARTED",) if any(job.status == "running" for job in listed) else ("DONE", "STARTED")
    cells = [[row[heading] for heading in headings] for row in rows]
    return columns(headings, cells, screen.width, right=("DONE", "TOOK", "LEFT"), spare=spare)


_ALMOST = 99.0
"""Maximum percentage of a running job by its steps, because it may start another step."""


def _done(job: JobRecord, underway: Underway | None) -> str:
    share = job.percent_complete
    if share is None and underway is not None:
        share = min(underway.percent, _ALMOST)
    if share is None:
        return ""
    percent = f"{whole_percent(share)}%"
    return f"{bar(share, 8)} {percent:>4}" if job.status == "running" else percent


def took(what: JobRecord | AttemptRecord | StepRecord, now: datetime) -> float | None:
    """Return how many seconds a job, an attempt or a step has taken; ``None`` if that is unknown.

    If it is still running, the time is counted until *now*.
    """
    if what.duration_ms is not None:
        return what.duration_ms / 1000
    end = what.completed_at if what.status.terminal else now
    return (
        None
        if what.started_at is None or end is None
        else max(0.0, (end - what.started_at).total_seconds())
    )


def what_failed(error: ErrorInfo) -> str:
    """Return an error in one line, with its type.

    The types of structjob are left out, because they add no information.
    """
    message = error.message.split("\n", 1)[0]
    if not message:
        return error.type
    return message if error.type in OURS else f"{error.type}: {message}"


def _left(expected: Expectation) -> Text:
    """Return the time left of a running job, or the usual duration if it is slower than usual.

    Returns an empty text if there is too little history to judge.
    """
    from rich.text import Text

    if not expected.judged or expected.median_ms is None:
        return Text()
    if expected.slower:
        return Text(f"usual {lasting(expected.median_ms / 1000)}", style="yellow")
    return (
        Text(f"~{lasting(expected.remaining_ms / 1000)}")
        if expected.remaining_ms is not None
        else Text()
    )


def status_of(status: str, silence: Silence | None) -> Text:
    """Return a job's status as it is shown.

    A job that is recorded as running, but whose process gives no sign of life, gets a question
    mark.
    """
    from rich.text import Text

    return (
        Text("? running", style="yellow")
        if silence is not None
        else Text(f"{symbol(status)} {status}", style=colour_of(status))
    )


def no_sign(silence: Silence) -> str:
    """Return a text which says that a process seems to be dead."""
    return f"no sign of life for {lasting(silence.seconds)} ({silence.process})"


def _children(family: Family) -> Text:
    """Return how many descendants a job has, and how many of them failed.

    The counts are by status if not all of them ended well.
    """
    from rich.text import Text

    total = family.counts.total()
    number = f"{total:,}+ child jobs" if family.partial else count_of(total, "child job")
    if failed := sum(family.counts[status] for status in FAILED):
        return Text(f"{failed:,} of {number} failed", style="red")
    if family.counts.keys() <= {"completed"}:
        return Text(number, style="dim")
    return Text(f"{number}: ", style="dim").append_text(Text.assemble(*counted(family.counts)))


def _detail(job: JobRecord, underway: Underway | None, silence: Silence | None) -> Text:
    """Return the most useful detail of a job: its error, its current step or its description."""
    from rich.text import Text

    from structjob.text.escaping import escape

    if job.error is not None:
        return Text(escape(what_failed(job.error)), style=colour_of(job.status))
    if silence is not None:
        return Text(escape(no_sign(silence)), style="yellow")
    if job.status == "running" and underway is not None and underway.step is not None:
        return Text(
            f"{escape(underway.step)} {units(underway.completed or 0)}/{units(underway.total or 0)}"
        )
    if job.status == "running" and job.current_step:
        return Text(escape(job.current_step))
    return Text(escape(job.description or ""), style="dim")
