"""``structjob migrate``: brings the tables to this version, or prints the SQL for another user to
run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from structjob.cli import options
from structjob.cli.database import execute
from structjob.cli.screen import Failure, is_terminal, put_json, say

if TYPE_CHECKING:
    from structjob.cli.database import Database
    from structjob.schema import Schema


@click.command(
    epilog="""\b
Examples:
  structjob migrate                                   upgrade, or create the tables
  structjob migrate --sql up --dialect postgresql     print the SQL for an administrator to run
  structjob migrate --down base --yes                 drop all tables and all data in them"""
)
@click.option(
    "--sql",
    "direction",
    type=click.Choice(("up", "down")),
    is_flag=False,
    flag_value="up",
    help="Print the SQL instead of running it.  [default: up]",
)
@click.option(
    "--dialect",
    type=click.Choice(("sqlite", "mysql", "mariadb", "postgresql")),
    help="With --sql: dialect of the SQL.  [default: that of the database]",
)
@click.option(
    "--down",
    "down_to",
    metavar="REVISION",
    help="Downgrade the tables to this revision; base drops them.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation before dropping.")
@options.json_and_db
def migrate(
    db: Database,
    *,
    direction: str | None,
    dialect: str | None,
    down_to: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Create the tables, or upgrade them.

    An upgrade is to the version of this structjob.
    """
    if direction is not None:
        if down_to is not None and direction == "up":
            raise click.UsageError("--sql up and --down contradict each other; use --sql down.")
        _print_sql(direction, dialect, db, down_to, as_json=as_json)
        return
    if dialect is not None:
        raise click.UsageError("--dialect needs --sql.")
    tables = _tables(db, create=down_to is None)
    before, after = tables.upgrade() if down_to is None else _back(tables, db, down_to, yes=yes)
    if after is not None and db.path is None:
        for found, advice in tables.advice():
            say(f"warning: {found}\n  {advice}")
    if as_json:
        put_json(
            {"database": db.shown, "before": before, "after": after, "changed": before != after}
        )
    elif before == after:
        say(
            f"{db.shown} is already at revision {after or 'base'}: nothing to do"
            if after
            else f"{db.shown} has no tables of structjob: nothing to do"
        )
    elif before is None:
        say(f"{db.shown}: tables created, revision {after}")
    elif after is None:
        say(f"{db.shown}: tables dropped (they were at revision {before})")
    else:
        say(f"{db.shown}: revision {before} → {after}")


def _tables(db: Database, *, create: bool) -> Schema:
    """Return the tables of a database.

    Raises:
        Failure: if the database is in memory, or the file does not exist and *create* is false.
    """
    from structjob.schema import Schema

    db.refuse_memory(": only the program that made it can read it")
    if not create and db.path is not None and not db.exists():
        raise Failure(f"there is no database {db.shown}")
    return Schema(db.url, run=execute, shown=db.shown)


def _print_sql(
    direction: str, dialect: str | None, db: Database, down_to: str | None, *, as_json: bool
) -> None:
    from structjob.schema import Schema, render

    way: Literal["up", "down"] = "down" if direction == "down" else "up"
    own = db.url.get_backend_name()
    if dialect is None or (db.typed and dialect == own):
        script = Schema(db.url).sql(way, end=down_to)
    else:
        script = render(dialect, way, end=down_to)
    if as_json:
        put_json({"dialect": dialect or own, "direction": direction, "sql": script})
    else:
        sys.stdout.write(script)


def _back(
    tables: Schema, db: Database, down_to: str, *, yes: bool
) -> tuple[str | None, str | None]:
    """Downgrade to *down_to*; return the revisions before and afterwards.

    A revision is ``None`` if there are no tables.
    """
    from structjob.schema import known, order

    target = known(down_to)
    before = tables.revision()
    if before is None or order(target) >= order(before):
        if before is not None and before != target:
            raise Failure(
                f"the tables are at revision {before}, older than {target}",
                code=2,
                hint="structjob migrate",
            )
        return before, before
    if not yes:
        what = (
            f"This drops all tables of structjob in {db.shown}, with everything in them."
            if target == "base"
            else f"This takes {db.shown} from revision {before} back to {target}."
        )
        if not is_terminal(sys.stdin):
            raise Failure(what, code=2, hint="to do it, repeat the command with --yes")
        click.confirm(f"{what} Go on?", abort=True, err=True)
    return before, tables.downgrade(target)
