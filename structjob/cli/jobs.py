"""``structjob jobs``: lists jobs: recent, running or failed ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.database import execute, reading
from structjob.cli.estimates import Estimates
from structjob.cli.filtering import attributes
from structjob.cli.ids import resolve
from structjob.cli.pager import paged
from structjob.cli.screen import command_line, console, put_json, put_lines, say, suggest
from structjob.cli.tables import attempt_table, table
from structjob.cli.times import moment
from structjob.cli.watch import watch_jobs

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.models import JobRecord, Page

STATUSES = ("pending", "running", "completed", "failed", "cancelled", "crashed")


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
@options.limit("How many, the newest first.")
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
    async with reading(db) as reader:
        page = await reader.jobs.history(**filters)
        if as_json:
            put_json(page.items)
            return
        screen = console()
        if page:
            put_lines(await attempt_table(reader, page, screen, utc=utc), screen)
        else:
            say("no attempts match")
        if page.next_cursor is not None:
            say(
                f"Showing the newest {len(page)} (more exist)"
                if page
                else "only the newest 100,000 were looked at: narrow with --until"
            )


def _advise(page: Page[JobRecord], filters: Mapping[str, Any], db: Database) -> None:
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
