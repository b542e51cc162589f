"""Shell completion of job ids, names of operations and fingerprints of errors.

Every function here returns an empty list after any error, because a prompt must not show error
messages. Words that a shell would not read as exactly one word are left out: bash inserts them
unquoted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import click

from structjob.cli.failures import what_failed

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from structjob.cli.database import Database
    from structjob.reader import Reader

OFFERED = 50
"""Maximum number of offered words of each kind."""


def job_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the newest jobs that begin with *incomplete*."""
    return _offered(ctx, _newest, incomplete)


def jobs_and_operations(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return names of operations, and the ids of the newest jobs, that begin with *incomplete*."""
    return [*operations(ctx, param, incomplete), *job_ids(ctx, param, incomplete)]


def operations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the names of operations that begin with *incomplete*."""
    return _offered(ctx, _operations, incomplete)


def fingerprints(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the fingerprints of the latest errors that begin with *incomplete*."""
    return _offered(ctx, _fingerprints, incomplete)


def _offered(
    ctx: click.Context,
    search: Callable[[Reader, str], Awaitable[Sequence[tuple[str, str]]]],
    incomplete: str,
) -> list[CompletionItem]:
    """Return the words that *search* finds, each with a text about it."""
    try:
        import shlex

        from click.shell_completion import CompletionItem

        from structjob.cli.database import Database, execute
        from structjob.text.escaping import escape

        given = ctx.params.get("db") or ctx.find_root().params.get("db")
        db = given if isinstance(given, Database) else Database()
        return [
            CompletionItem(word, help=escape(about))
            for word, about in execute(_searched(db, search, incomplete))
            if shlex.quote(word) == word
        ]
    except Exception:  # noqa: BLE001 -- see above
        return []


async def _searched(
    db: Database,
    search: Callable[[Reader, str], Awaitable[Sequence[tuple[str, str]]]],
    prefix: str,
) -> Sequence[tuple[str, str]]:
    from structjob.reader import Reader

    async with Reader(db.url) as reader:
        return await search(reader, prefix)


async def _newest(reader: Reader, prefix: str) -> Sequence[tuple[str, str]]:
    return await reader.jobs.ids_by_prefix(prefix, limit=OFFERED)


async def _operations(reader: Reader, prefix: str) -> Sequence[tuple[str, str]]:
    found = await reader.jobs.operations_by_prefix(prefix, limit=OFFERED)
    return [(name, "operation") for name in found]


async def _fingerprints(reader: Reader, prefix: str) -> Sequence[tuple[str, str]]:
    return [
        (group.fingerprint, what_failed(group.error))
        for group in await reader.errors.by_prefix(prefix, limit=OFFERED)
    ]
