"""A plain connection to a database, for what must not open a store: a store creates the tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from sqlalchemy import URL, Connection, create_engine
from sqlalchemy.exc import DBAPIError

from structjob.exceptions import InvalidURL, SchemaMismatch, StoreUnavailable
from structjob.store.database_file import ensure_private, is_unchanging, not_a_database
from structjob.store.factory import make_store
from structjob.store.quiet import NAMES, quiet
from structjob.urls.url import sqlite_path

T = TypeVar("T")


class Run(Protocol):
    """A function that runs a coroutine to its end and returns its result, as `asyncio.run` does."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


def connected(
    url: URL,
    shown: str,
    work: Callable[[Connection], T],
    run: Run,
    *,
    create: bool = False,
    read_only: bool = False,
) -> T:
    """Connect to a database, call *work* and return its result.

    Args:
        url: The URL of the database.
        shown: Its name in messages.
        work: Takes an SQLAlchemy connection; it may not await.
        run: Runs the coroutine that asks a server; not called for SQLite, which blocks.
        create: Create an SQLite file that does not exist.
        read_only: Let SQLite refuse every statement that would change the file.

    Raises:
        InvalidURL: if the database is in memory, or the file cannot be used.
        StoreUnavailable: if there is no such file and *create* is false, or the database does not
            answer.
        SchemaMismatch: if the file is not an SQLite database.
    """
    try:
        if url.get_backend_name() == "sqlite":
            return _on_sqlite(url, shown, work, create=create, read_only=read_only)
        return run(_on_server(url, work))
    except DBAPIError as exc:
        path = sqlite_path(url)
        if path is not None and "not a database" in str(exc.orig):
            raise SchemaMismatch(not_a_database(path)) from exc
        # SQLAlchemy's own text quotes the statement; the driver's text names the cause.
        raise StoreUnavailable(f"the database {shown} does not work: {exc.orig}") from exc


def _on_sqlite(
    url: URL, shown: str, work: Callable[[Connection], T], *, create: bool, read_only: bool
) -> T:
    path = sqlite_path(url)
    if path is None:
        raise InvalidURL(f"{shown} is in memory: only the program that made it can read it")
    if not create and not os.path.exists(path):
        raise StoreUnavailable(f"there is no database {shown}")
    if not read_only:
        ensure_private(path)
    # SQLite must not create the file: it would make it readable for every user.
    query = {"mode": "ro" if read_only else "rw", "uri": "true"}
    if read_only and is_unchanging(path):
        query["immutable"] = "1"
    url = url.set(drivername="sqlite", database=path.as_uri()).update_query_dict(query)
    engine = quiet(create_engine(url, **NAMES))
    try:
        with engine.connect() as connection:
            return work(connection)
    finally:
        engine.dispose()


async def _on_server(url: URL, work: Callable[[Connection], T]) -> T:
    from structjob.store.server import ServerStore

    store = make_store(url, {})
    assert isinstance(store, ServerStore)  # noqa: S101 -- SQLite is handled above
    try:
        await store.knock()
        return await store.administer(work)
    finally:
        await store.close()
