"""Shell completion of job ids, after a command that takes a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from structjob.cli.database import Database

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

        from structjob.cli.database import Database, execute
        from structjob.text.escaping import escape

        given = ctx.params.get("db") or ctx.find_root().params.get("db")
        db = given if isinstance(given, Database) else Database()
        return [
            CompletionItem(id_, help=escape(operation))
            for id_, operation in execute(_newest(db, incomplete))
            if shlex.quote(id_) == id_
        ]
    except Exception:  # noqa: BLE001 -- see above
        return []


async def _newest(db: Database, prefix: str) -> list[tuple[str, str]]:
    from structjob.reader import Reader

    async with Reader(db.url) as reader:
        return await reader.jobs.ids_by_prefix(prefix, limit=OFFERED)
