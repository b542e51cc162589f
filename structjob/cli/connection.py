"""A plain connection to a command's database, without a store, which would create the tables."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from structjob.cli.screen import Failure

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from structjob.cli.database import Database

T = TypeVar("T")


def connected(
    db: Database, work: Callable[[Connection], T], *, create: bool = False, read_only: bool = False
) -> T:
    """Connect to the database, call *work* and return its result.

    Args:
        db: The database.
        work: Takes an SQLAlchemy connection; it may not await.
        create: Create an SQLite file that does not exist.
        read_only: Let SQLite refuse every statement that would change the file.

    Raises:
        Failure: if the database is in memory, or the file does not exist and *create* is false.
        StoreUnavailable: if the database does not answer.
    """
    from sqlalchemy.exc import DBAPIError

    from structjob.exceptions import StoreUnavailable

    try:
        if db.url.get_backend_name() == "sqlite":
            return _on_sqlite(db, work, create=create, read_only=read_only)
        return _on_server(db, work)
    except DBAPIError as exc:
        # SQLAlchemy's own text quotes the statement; the driver's text names the cause.
        raise StoreUnavailable(f"the database {db.shown} does not work: {exc.orig}") from exc


def _on_sqlite(
    db: Database, work: Callable[[Connection], T], *, create: bool, read_only: bool
) -> T:
    from sqlalchemy import create_engine

    from structjob.machine.files import ensure_file

    path = db.path
    if path is None:
        raise Failure(f"{db.shown} is in memory: only the program that made it can read it", code=2)
    if not create and not db.exists():
        raise Failure(f"there is no database {db.shown}")
    if not read_only:
        try:
            ensure_file(path)
        except OSError as exc:
            raise Failure(
                f"cannot {'use' if os.path.exists(path) else 'create'} the database file {db.shown}: {exc.strerror}"
            ) from exc
    # SQLite must not create the file: it would make it readable for every user.
    url = db.url.set(drivername="sqlite", database=path.as_uri()).update_query_dict(
        {"mode": "ro" if read_only else "rw", "uri": "true"}
    )
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return work(connection)
    finally:
        engine.dispose()


def _on_server(db: Database, work: Callable[[Connection], T]) -> T:
    from structjob.cli.database import execute
    from structjob.store.factory import make_store
    from structjob.store.server import ServerStore

    async def run() -> T:
        store = make_store(db.url, {})
        assert isinstance(store, ServerStore)  # noqa: S101 -- SQLite is handled above
        try:
            await store.knock()
            return await store.administer(work)
        finally:
            await store.close()

    return execute(run())
