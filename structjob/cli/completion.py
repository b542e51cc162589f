"""Shell completion of job ids, after a command that takes a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem
    from sqlalchemy import Connection

OFFERED = 50
"""Maximum number of offered jobs, newest first."""


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the newest jobs that begin with *incomplete*.

    Returns an empty list after any error, because a prompt must not show error messages. Ids that a
    shell would not read as exactly one word are left out: bash inserts them unquoted.
    """
    try:
        import shlex

        from click.shell_completion import CompletionItem
        from sqlalchemy import select

        from structjob.cli.connection import connected
        from structjob.cli.database import Database
        from structjob.store.tables import jobs
        from structjob.text.escaping import escape

        given = ctx.params.get("db") or ctx.find_root().params.get("db")
        statement = (
            select(jobs.c.id, jobs.c.operation).order_by(jobs.c.created_at.desc()).limit(OFFERED)
        )
        if incomplete:
            statement = statement.where(
                jobs.c.id >= incomplete, jobs.c.id < incomplete + "\U0010ffff"
            )

        def offered(connection: Connection) -> list[CompletionItem]:
            found = connection.execute(statement)
            return [
                CompletionItem(row.id, help=escape(row.operation))
                for row in found
                if shlex.quote(row.id) == row.id
            ]

        return connected(
            given if isinstance(given, Database) else Database(), offered, read_only=True
        )
    except Exception:  # noqa: BLE001 -- see above
        return []
