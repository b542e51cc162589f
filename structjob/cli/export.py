"""``structjob export``: writes a job as a file to import, or lines as CSV or JSON."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from structjob.cli import options
from structjob.cli.completion import jobs_and_operations
from structjob.cli.database import reading, running
from structjob.cli.filtering import chosen, filtered
from structjob.cli.ids import resolve, resolved
from structjob.cli.screen import Failure, command_line, is_terminal, put_json, say, suggest
from structjob.exceptions import InvalidArgument
from structjob.text.escaping import escape, escape_json
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.transfer.event_lines import Form


@click.command(
    epilog="""\b
Examples:
  structjob export 019a3f7c -o job.jsonl.gz        a job with its child jobs, steps and lines
  structjob export --logs --since 1d -l error      log lines, as JSON lines
  structjob export gui-17 -o lines.csv             log lines of one job, for a spreadsheet
  structjob export gui-17 -o job.txt               the same as text

`structjob import` reads the files that `structjob export JOB` writes. The options that select lines work only with --logs and --csv. In CSV,
an apostrophe is put before text that a spreadsheet would read as a formula. Without -o, JSON lines are written to stdout, with or without
--json. With -o, --json reports the file and its number of lines as JSON."""
)
@click.argument("id_", metavar="[JOB]", required=False, shell_complete=jobs_and_operations)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="File to write: NAME.jsonl for the job, NAME.csv or NAME.txt for its log lines; compressed if it ends in .gz.  [default: stdout]",
)
@click.option("--logs", is_flag=True, help="Write only log lines, as JSON lines.")
@click.option("--csv", "as_csv", is_flag=True, help="Write only log lines, as CSV.")
@filtered
@options.json_and_db
@running
async def export(
    id_: str | None,
    db: Database,
    *,
    output: Path | None,
    logs: bool,
    as_csv: bool,
    as_json: bool,
    no_children: bool,
    **given: Any,
) -> None:
    """Write a job, or log lines, to a file or stdout."""
    if output is not None and str(output) == "-":
        output = None
    if as_json and as_csv and output is None:
        raise click.UsageError(
            "--json and --csv cannot both write to stdout: use one of them, or name a file with -o."
        )
    filters = chosen(given, id_)
    what: Form | Literal["job"] = "csv" if as_csv else "json" if logs else _form_of(output)
    if what == "job":
        if id_ is None:
            raise click.UsageError(
                "Name a job, or use --logs or --csv for the log lines of all jobs."
            )
        if filters:
            raise click.UsageError(
                "A job is exported as a whole: the options that select lines need --logs or --csv."
            )
    from structjob.transfer.event_lines import event_lines
    from structjob.transfer.export import job_lines, write_lines

    children = not no_children
    async with reading(db) as reader:
        job = None if id_ is None else await resolve(reader, id_)
        if what == "job":
            assert job is not None  # noqa: S101 -- the options were checked
            written = job_lines(reader.jobs, reader.logs, job.id, children=children)
        else:
            scope = {} if job is None else {"job_id": job.id, "children": children}
            wanted = {**scope, **await resolved(reader, filters)}
            # On a terminal, CSV must contain nothing that a terminal would interpret. JSON never
            # contains such characters.
            shown = output is None and is_terminal(sys.stdout)
            written = event_lines(reader.logs, what, wanted, clean=escape if shown else None)
        if output is None:
            async for line in written:
                sys.stdout.buffer.write(
                    escape_json(line[:-1]) + b"\n" if what in ("job", "json") else line
                )
            return
        try:
            number = await write_lines(written, output)
        except OSError as exc:
            raise Failure(f"cannot write {output}: {exc.strerror or exc}") from exc
    if as_json:
        put_json({"file": str(output), "lines": number})
        return
    say(f"wrote {count_of(number, 'line')} to {output}")
    if what == "job":
        suggest(command_line("import", str(output), "--dry-run"))


def _form_of(output: Path | None) -> Form | Literal["job"]:
    """Return what a file of this name holds."""
    from structjob.transfer.export import format_of

    if output is None:
        return "job"
    try:
        found = format_of(output)
    except InvalidArgument as exc:
        raise click.UsageError(f"{exc}.") from exc
    return "job" if found == "jsonl" else found
