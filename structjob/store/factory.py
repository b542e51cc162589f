"""From a URL to the store that speaks its database's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL

from structjob.exceptions import InvalidArgument
from structjob.store.ingest import Store
from structjob.store.url import parse


def make_store(url: str | URL | None, engine_options: Mapping[str, Any]) -> Store:
    """Return the store for *url*, not yet open.

    Raises:
        InvalidURL: if the URL cannot be understood, or there is no store for its database.
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
        return SQLiteStore(parsed)
    if backend == "postgresql":
        from structjob.store.postgres import PostgresStore

        return PostgresStore(parsed, engine_options)
    from structjob.store.mysql import MySQLStore

    return MySQLStore(parsed, engine_options)
