"""``structjob migrate``: brings the tables to this version, or prints the SQL for another user to
run.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from structjob.cli import options
from structjob.cli.connection import connected
from structjob.cli.screen import Failure, is_terminal, put_json, say

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from structjob.cli.database import Database


@click.command(
    epilog="""\b
Examples:
  structjob migrate                                   upgrade, or create the tables
  structjob migrate --sql up --dialect postgresql     print what a DBA would run
  structjob migrate --down base --yes                 drop all tables, with everything in them"""
)
@click.option(
    "--sql",
    "direction",
    type=click.Choice(("up", "down")),
    is_flag=False,
    flag_value="up",
    help="Print the SQL instead of running it; up unless told.",
)
@click.option(
    "--dialect",
    type=click.Choice(("sqlite", "mysql", "mariadb", "postgresql")),
    help="The SQL's dialect; by default that of the database.",
)
@click.option(
    "--down",
    "down_to",
    metavar="REVISION",
    help="Take the tables back to this revision; base drops them.",
)
@click.option("--yes", is_flag=True, help="Do not ask before dropping.")
@options.json_output
@options.database
def migrate(
    db: Database,
    *,
    direction: str | None,
    dialect: str | None,
    down_to: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring the tables to the version that this structjob works with."""
    if direction is not None:
        if down_to is not None and direction == "up":
            raise click.UsageError("--sql up and --down contradict each other; use --sql down.")
        _print_sql(direction, dialect, db, down_to, as_json=as_json)
        return
    if dialect is not None:
        raise click.UsageError("--dialect is for --sql; the database knows its own.")
    before, after = _change(db, down_to, yes=yes)
    if after is not None and db.path is None:
        from structjob.store import charset

        for found, advice in connected(db, charset.advice):
            say(f"warning: {found}\n  {advice}")
    if as_json:
        put_json(
            {"database": db.shown, "before": before, "after": after, "changed": before != after}
        )
    elif before == after:
        say(
            f"{db.shown} is at revision {after or 'base'} already: nothing to do"
            if after
            else f"{db.shown} has no tables of structjob: nothing to do"
        )
    elif before is None:
        say(f"{db.shown}: tables created, revision {after}")
    elif after is None:
        say(f"{db.shown}: tables dropped (they were at revision {before})")
    else:
        say(f"{db.shown}: revision {before} → {after}")


def _dialect(db: Database) -> str:
    name = db.url.get_backend_name()
    return "postgresql" if name == "postgres" else name


def _print_sql(
    direction: str, dialect: str | None, db: Database, down_to: str | None, *, as_json: bool
) -> None:
    from structjob.store.driver_options import schema_of
    from structjob.store.migration_sql import render

    own = dialect is None or (db.typed and dialect == _dialect(db))
    dialect = dialect or _dialect(db)
    script = render(
        dialect,
        "down" if direction == "down" else "up",
        end=down_to,
        schema=schema_of(db.url) if own else None,
    )
    if as_json:
        put_json({"dialect": dialect, "direction": direction, "sql": script})
    else:
        sys.stdout.write(script)


def _change(db: Database, down_to: str | None, *, yes: bool) -> tuple[str | None, str | None]:
    """Upgrade, or downgrade to *down_to*; return the revisions before and afterwards.

    A revision is ``None`` if there are no tables.
    """
    from structjob.store import migrations as tables
    from structjob.store.migration_sql import known, order

    if down_to is None:

        def change(connection: Connection) -> tuple[str | None, str | None]:
            before = tables.current(connection)
            tables.upgrade(connection)
            return before, tables.current(connection)

        return connected(db, change, create=True)

    target = known(down_to)
    before = connected(db, tables.current)
    if before is None or order(before) <= order(target):
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
            raise Failure(what, code=2, hint="the same with --yes, if that is meant")
        click.confirm(f"{what} Go on?", abort=True, err=True)

    def back(connection: Connection) -> tuple[str | None, str | None]:
        tables.downgrade(connection, target)
        return before, tables.current(connection)

    return connected(db, back)
