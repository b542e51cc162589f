"""``structjob jobs``: lists jobs: recent, running or failed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.filtering import correlation_id, job_labels, where
from structjob.cli.ids import resolved
from structjob.cli.pager import paged
from structjob.cli.screen import command_line, console, put_json, put_lines, say, suggest
from structjob.cli.tables import FAILED, attempt_table, table
from structjob.cli.watch import watch_jobs
from structjob.text.rendering import short

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.models import JobRecord, Page

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "crashed")


@click.command(
    cls=options.WithoutArguments,
    instead=[
        (("show", "{}"), "one job, or the newest of this name"),
        (("jobs", "--operation", "{}"), "all of this name"),
    ],
    epilog="""\b
Examples:
  structjob jobs                       the newest jobs, each with its child jobs that failed or run
  structjob jobs --status failed,crashed --since 8h --by ended    jobs that failed in the last 8 hours, whenever they began
  structjob jobs --slower              jobs that take, or took, longer than usual
  structjob jobs --sort duration --operation nightly
  structjob jobs --attempts -n 50      the newest 50 attempts of all jobs
  structjob jobs --watch               running jobs with progress and time left
  structjob jobs --json | jq -r '.[].id'""",
)
@options.several("--status", choices=STATUSES, help="Only jobs with this status")
@job_labels
@where("metadata", "Only jobs whose metadata has this value; may be repeated.")
@click.option(
    "--slower",
    is_flag=True,
    help="Only jobs slower than usual: slower than 95 % of the last 100 completed jobs of the same operation.",
)
@click.option(
    "--sort",
    type=click.Choice(("created", "duration")),
    help="Order: newest first (created, the default), or longest first of the newest 100,000 (duration).",
)
@click.option(
    "--grep",
    "text",
    metavar="TEXT",
    help="Only jobs whose operation or description contains this text.",
)
@options.time("--since", "Only jobs created (or ended, see --by) from this time on: 3h, 2d, 1h30m, today, 2026-05-04.")  # fmt: skip
@options.time("--until", "Only jobs created (or ended) before this time.")
@click.option(
    "--by",
    type=click.Choice(("created", "ended")),
    help="Whether --since and --until mean when jobs were created (the default) or when they ended.",
)
@click.option(
    "--parent-id", "--parent", "parent_job_id", metavar="ID", help="Only child jobs of this job."
)
@click.option("--context-id", metavar="ID", help="Only jobs with this context id.")
@correlation_id("Only jobs with this correlation id.")
@click.option(
    "--roots", "root_only", is_flag=True, help="Only jobs that have no parent in this database."
)
@click.option(
    "--flat",
    is_flag=True,
    help="List child jobs by creation time among the others, not below their top job.",
)
@options.limit("Maximum number of jobs.")
@click.option(
    "--watch",
    is_flag=True,
    help="Keep the table up to date, running jobs first, until Ctrl-C. In a pipe: print a line for each change.",
)
@click.option(
    "--attempts",
    is_flag=True,
    help="List attempts instead of jobs, by start time. Works with --status, --operation, --project, --since, --until and -n.",
)
@options.pager
@options.utc
@options.json_and_db
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
    """List jobs, newest first.

    Without a filter, child jobs are listed below their top job: all of them if there are three at
    most, otherwise up to three that failed or run. With a filter, --flat or --json, each matching
    job has its own line.
    """
    wanted = {name: value for name, value in filters.items() if value not in (None, (), False, {})}
    if watch and wanted.keys() & {"slower", "sort"}:
        raise click.UsageError(
            "--watch lists running jobs first: do not use it with --slower or --sort."
        )
    if attempts:
        if watch or wanted.keys() - {"status", "operation", "project", "since", "until", "limit"}:
            raise click.UsageError(
                "--attempts works only with --status, --operation, --project, --since, --until and --limit."
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
    db: Database, filters: Mapping[str, Any], *, as_json: bool, utc: bool, grouped: bool
) -> None:
    async with reading(db) as reader:
        filters = await resolved(reader, filters)
        page = await reader.jobs.list(**{**filters, **({"root_only": True} if grouped else {})})
        if as_json:
            put_json(page.items)
            return
        screen = console()
        if page:
            below = await reader.lookups.families(page) if grouped else None
            slower = filters.get("slower", False)
            compared = await reader.jobs.expectations(page.items) if slower else None
            put_lines(
                await table(
                    reader,
                    page,
                    screen,
                    utc=utc,
                    roots=filters.get("root_only", False),
                    below=below,
                    compared=compared,
                ),
                screen,
            )
        _advise(page, filters, db)


async def _list_attempts(
    db: Database, filters: Mapping[str, Any], *, as_json: bool, utc: bool
) -> None:
    async with reading(db) as reader:
        page = await reader.jobs.history(**filters)
        if as_json:
            put_json(page.items)
            return
        screen = console()
        if page:
            put_lines(await attempt_table(reader, page, screen, utc=utc), screen)
        else:
            say(options.none_found("attempts", db))
        if page.next_cursor is not None:
            say(
                f"Showing the newest {len(page)} (more exist)"
                if page
                else "only the newest 100,000 attempts were searched; to search older ones, add --until"
            )


def _advise(page: Page[JobRecord], filters: Mapping[str, Any], db: Database) -> None:
    narrowed = options.selection()
    if not page:
        say(options.none_found("jobs", db))
        suggest(
            command_line("jobs", db=db.option)
            if narrowed
            else command_line("run", "--", "echo", "hello", db=db.option)
        )
    elif page.next_cursor is not None:
        more = str(min(4 * int(filters["limit"]), 10_000))
        if narrowed:
            say(f"Showing the newest {len(page)} (more exist; add --limit {more})")
        else:
            say(f"Showing the newest {len(page)} (more exist)")
            suggest(command_line("jobs", "--limit", more, db=db.option))
    if narrowed and (failed := next((job for job in page if job.status in FAILED), None)):
        suggest(command_line("show", short(failed.id), db=db.option))
