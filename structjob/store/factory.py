"""Create the store for the database in a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from structjob.exceptions import InvalidArgument
from structjob.store.contract import Store
from structjob.urls.url import parse


def make_store(
    url: str | URL | None, engine_options: Mapping[str, Any], *, read_timeout: float | None = None
) -> Store:
    """Return the store for *url*, not yet open.

    Args:
        url: See `structjob.urls.url.parse`.
        engine_options: Options for SQLAlchemy's ``create_async_engine``; servers only.
        read_timeout: Seconds that a query may take; see `structjob.Reader`.

    Raises:
        InvalidURL: if the URL cannot be understood, or structjob has no store for its database.
        InvalidArgument: if there are engine options for SQLite.
    """
    parsed = parse(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        from structjob.store.sqlite import SQLiteStore

        if engine_options:
            raise InvalidArgument(
                f"engine_options ({', '.join(engine_options)}) are for servers; SQLite has none"
            )
        return SQLiteStore(parsed, read_timeout=read_timeout)
    if backend == "postgresql":
        from structjob.store.postgres import PostgresStore

        return PostgresStore(parsed, engine_options, read_timeout=read_timeout)
    from structjob.store.mysql import MySQLStore

    return MySQLStore(parsed, engine_options, read_timeout=read_timeout)
