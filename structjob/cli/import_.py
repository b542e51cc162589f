"""``structjob import``: imports what ``structjob export`` or an older tracker wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.database import execute
from structjob.cli.screen import Failure, command_line, put_json, say, suggest
from structjob.machine.files import open_file
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.transfer.imports import ImportResult

_STDIN = Path("/dev/stdin")


@click.command(
    "import",
    epilog="""\b
Examples:
  structjob import job.jsonl.gz --dry-run          check every line and store nothing
  structjob import job.jsonl.gz
  structjob import old.jsonl --new-ids --map ids.json
  ssh vm-9 cat job.jsonl | structjob import -

Each line is a JSON object whose key "record" is job, attempt, step or event; docs/reading.md describes the others. All lines are checked
before any is stored. The same file is stored once, however often it is imported.""",
)
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option("--dry-run", is_flag=True, help="Only check the file and say what would be stored.")
@click.option("--new-ids", is_flag=True, help="Give jobs and steps new ids.")
@click.option(
    "--map",
    "map_",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write old and new ids to this file, as JSON.",
)
@options.json_and_db
def import_(
    file: Path, db: Database, *, dry_run: bool, new_ids: bool, map_: Path | None, as_json: bool
) -> None:
    """Import jobs from a file of JSON lines; - is stdin."""
    from structjob.transfer.imports import to_be_read_twice

    if map_ is not None and not map_.absolute().parent.is_dir():
        # before the import: its ids would be lost
        raise click.UsageError(f"--map: there is no directory {map_.absolute().parent}.")
    # In the main thread, where Ctrl-C ends it: a thread that waits for a pipe cannot be stopped.
    with to_be_read_twice(_STDIN if str(file) == "-" else file) as readable:
        found = execute(_import(db, readable, dry_run=dry_run, new_ids=new_ids))
    if map_ is not None:
        _write_map(map_, found)
    if as_json:
        put_json(found)
    _report(found, db, dry_run=dry_run)


async def _import(db: Database, file: Path, *, dry_run: bool, new_ids: bool) -> ImportResult:
    from structjob.transfer.imports import import_into

    db.refuse_memory(
        ", so imported data would be lost at once; name a file, such as sqlite:///jobs.db"
    )
    return await import_into(db.url, file, ids="new" if new_ids else "keep", dry_run=dry_run)


def _write_map(path: Path, found: ImportResult) -> None:
    import msgspec

    try:
        with open(
            open_file(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, special=True), "wb"
        ) as file:
            file.write(
                msgspec.json.format(
                    msgspec.json.encode({"jobs": found.job_ids, "steps": found.step_ids})
                )
                + b"\n"
            )
    except OSError as exc:
        raise Failure(f"cannot write the map of ids {path}: {exc.strerror or exc}") from exc


def _report(found: ImportResult, db: Database, *, dry_run: bool) -> None:
    if found.known:
        say(f"this file was imported into {db.shown} before: nothing was stored")
    else:
        steps, lines = count_of(found.steps, "step"), count_of(found.events, "line")
        what = f"{count_of(found.jobs, 'job')}, {count_of(found.attempts, 'attempt')}, {steps} and {lines}"
        say(f"would store {what} in {db.shown}" if dry_run else f"stored {what} in {db.shown}")
    if found.refused:
        raise Failure(
            f"the database refused {count_of(found.refused, 'line')}; the table structjob_dead_letters has them with the reason"
        )
    if found.job_ids and not dry_run:
        suggest(command_line("show", next(iter(found.job_ids.values())), db=db.option))
