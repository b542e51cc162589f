"""``structjob export``: writes a job as a file to import, or lines as CSV or JSON."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from structjob.cli import options
from structjob.cli.completion import job_ids
from structjob.cli.filtering import chosen, filtered
from structjob.cli.screen import Failure, as_json, command_line, is_terminal, put_json, say, suggest
from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.cli.database import Database, Reader

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@click.command(
    epilog="""\b
Examples:
  structjob export 019a3f7c -o job.jsonl.gz        a job with its children, steps and lines
  structjob export --logs --since -1d -l error    log lines, as JSON lines
  structjob export gui-17 --csv -o lines.csv       log lines of one job, for a spreadsheet

`structjob import` takes back what `structjob export JOB` wrote. The options that choose lines go with --logs and --csv only. In CSV, text
that a spreadsheet would take for a formula gets an apostrophe before it. What goes to stdout is JSON lines, with or without --json; with
-o, --json says what was written."""
)
@click.argument("id_", metavar="[JOB]", required=False, shell_complete=job_ids)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Where to; compressed if it ends in .gz; - is stdout.",
)
@click.option("--logs", is_flag=True, help="Log lines only, as JSON lines.")
@click.option("--csv", "as_csv", is_flag=True, help="Log lines only, as CSV.")
@filtered
@options.json_output
@options.database
def export(
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
    """Write a job, or log lines, to a file or to stdout."""
    from structjob.cli.database import execute

    if output is not None and str(output) == "-":
        output = None
    if as_json and as_csv and output is None:
        raise click.UsageError(
            "--json and --csv both say what stdout has: leave one out, or name a file with -o."
        )
    filters = chosen(given, id_)
    if not logs and not as_csv:
        if id_ is None:
            raise click.UsageError("Name a job, or say --logs or --csv for log lines of all jobs.")
        if output is not None:
            _check_name(output)
        if filters:
            raise click.UsageError(
                "A job is exported as a whole: the options that choose lines go with --logs or --csv."
            )
    what = "csv" if as_csv else "logs" if logs else "job"
    execute(_export(db, id_, filters, output, what, children=not no_children, as_json=as_json))


def _check_name(output: Path) -> None:
    from structjob.exceptions import InvalidArgument
    from structjob.transfer.export import check_name

    try:
        check_name(output)
    except InvalidArgument as exc:
        raise click.UsageError(f"{exc}.") from exc


async def _export(
    db: Database,
    given: str | None,
    filters: Mapping[str, Any],
    output: Path | None,
    what: str,
    *,
    children: bool,
    as_json: bool,
) -> None:
    from structjob.cli.database import reading
    from structjob.cli.ids import resolve
    from structjob.text.escaping import escape_json
    from structjob.transfer.export import job_lines, write_lines

    async with reading(db) as reader:
        job = None if given is None else await resolve(reader, given, names=True)
        if job is not None and what == "job":
            written = job_lines(reader.jobs, reader.logs, job.id, children=children)
        else:
            scope = {} if job is None else {"job_id": job.id, "children": children}
            shown = output is None and is_terminal(sys.stdout)
            written = _lines(reader, {**scope, **filters}, as_csv=what == "csv", shown=shown)
        if output is None:
            async for line in written:
                sys.stdout.buffer.write(escape_json(line[:-1]) + b"\n" if what == "job" else line)
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


async def _lines(
    reader: Reader, filters: Mapping[str, Any], *, as_csv: bool, shown: bool
) -> AsyncIterator[bytes]:
    """Yield log lines as CSV or JSON.

    With *shown*, CSV is escaped so that it contains nothing that a terminal would interpret. JSON
    never contains such characters.
    """
    from structjob.models import EventRecord
    from structjob.text.escaping import escape

    names = [field.name for field in fields(EventRecord)]
    if as_csv:
        yield _row(names)
    async for event in reader.logs.iterate(limit=1_000, **filters):
        if as_csv:
            cells = [_cell(getattr(event, name)) for name in names]
            yield _row([*map(escape, cells)] if shown else cells)
        else:
            yield as_json(event) + b"\n"


def _cell(value: Any) -> str:
    import msgspec

    if value is None:
        return ""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)


class _Taken:
    """A file for `csv` to write to; each written text is taken out at once."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text = text


def _row(cells: list[str]) -> bytes:
    import csv

    taken = _Taken()
    csv.writer(taken).writerow(cells)
    return taken.text.encode("utf-8", "backslashreplace")
