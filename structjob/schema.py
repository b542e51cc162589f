"""The tables of a database, without a tracker: their revision; to create, upgrade or drop them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from structjob.store import charset, migrations
from structjob.store.connection import Run, connected
from structjob.store.migration_sql import known, order, render
from structjob.store.tables import PREFIX
from structjob.urls.driver_options import schema_of
from structjob.urls.url import masked

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

__all__ = ["Schema", "is_own", "known", "order", "render"]


class Schema:
    """The tables of one database. The methods block.

    Args:
        url: The URL of the database.
        run: Runs a coroutine to its end; called for servers only. Default: `asyncio.run`.
        shown: The name of the database in messages. Default: *url* without its password.

    Each method raises `StoreUnavailable` if the database does not answer, `InvalidURL` if it is in
    memory or its file cannot be used, and `SchemaMismatch` if the tables are newer than this
    version of structjob, or not structjob's.
    """

    def __init__(self, url: URL, *, run: Run = asyncio.run, shown: str | None = None) -> None:
        self._url = url
        self._run = run
        self._shown = shown or masked(url)

    def revision(self) -> str | None:
        """Return the revision of the tables; ``None`` without tables.

        Raises:
            StoreUnavailable: also if the file does not exist.
        """
        return connected(self._url, self._shown, migrations.current, self._run)

    def upgrade(self) -> tuple[str | None, str | None]:
        """Upgrade the tables to the revision of this version of structjob; create absent ones.

        An SQLite file that does not exist is created.

        Returns:
            The revisions before and afterwards.
        """

        def change(connection: Connection) -> tuple[str | None, str | None]:
            before = migrations.current(connection)
            migrations.upgrade(connection)
            return before, migrations.current(connection)

        return connected(self._url, self._shown, change, self._run, create=True)

    def downgrade(self, revision: str) -> str | None:
        """Downgrade the tables to *revision*; ``base`` drops all tables with their content.

        Returns:
            The revision afterwards.

        Raises:
            InvalidArgument: if *revision* is unknown, or newer than the tables.
            StoreUnavailable: also if the file does not exist.
        """

        def change(connection: Connection) -> str | None:
            migrations.downgrade(connection, revision)
            return migrations.current(connection)

        return connected(self._url, self._shown, change, self._run)

    def advice(self) -> list[tuple[str, str]]:
        """Return the problems with storing characters, each with the statement that fixes it."""
        return connected(self._url, self._shown, charset.advice, self._run)

    def sql(self, direction: Literal["up", "down"], *, end: str | None = None) -> str:
        """Return `render` for this database: with its dialect, and the schema of its tables."""
        return render(self._url.get_backend_name(), direction, end=end, schema=schema_of(self._url))


def is_own(table: str) -> bool:
    """Return whether a *table* of this name is structjob's."""
    return table.startswith(PREFIX)
