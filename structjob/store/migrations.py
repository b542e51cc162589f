"""Create or upgrade the tables: when a tracker starts, by `structjob migrate`, or as SQL for a DBA.

The migrations in ``schema/`` are first rendered to SQL, and then run as rendered. So `render`
prints exactly what is run. All functions here are synchronous; call them with ``run_sync`` from
asyncio. The functions that change something need a `Connection` without an open transaction. They
commit their changes and leave no transaction open.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from structjob.exceptions import InvalidArgument, SchemaMismatch, StoreUnavailable
from structjob.store.migration_sql import (
    REVISIONS,
    VERSION_TABLE,
    head,
    known,
    order,
    render,
    statements,
)

__all__ = [
    "LOCK_TIMEOUT",
    "REVISIONS",
    "VERSION_TABLE",
    "check",
    "current",
    "downgrade",
    "head",
    "prepare",
    "render",
    "upgrade",
]

LOCK_TIMEOUT = 60
"""Seconds to wait while another process creates or upgrades the tables."""

STALLED = 5.0
"""Seconds without a new table after which another program's creation of the tables counts as
abandoned. This program then finishes it.
"""

_LOOK_EVERY = 0.05
"""Seconds between two checks of a creation that another program began."""

_TRIES = 20
"""Maximum number of tries for a statement of a migration that conflicts with another
transaction.
"""

# Error codes for a table, column, key or view that exists already, because another program did not
# finish its migration.
_THERE_ALREADY = frozenset({1050, 1060, 1061, "42P07", "42701", "42710"})
_GONE_ALREADY = frozenset({1051, 1091, 4092})
_DUPLICATE_ROW = 1062
_CONFLICTS = frozenset({1205, 1213})

SCHEMA = "structjob_schema"
"""The key in a connection's ``info`` for the schema of the tables, on PostgreSQL. The schema is
created with the tables.
"""

# "strucjob" in ASCII: any constant that other programs are unlikely to use
_POSTGRESQL_LOCK = 0x73747275636A6F62
_MYSQL_LOCK = "structjob.schema"


def prepare(connection: Connection, *, anew: bool = False) -> None:
    """Ensure that the tables exist at the version that this version of structjob works with.

    Absent tables are created, on every database. Older tables are upgraded on SQLite only: a
    server's tables may be shared with programs that are not upgraded yet, so there the operator
    decides. Any number of processes may call this at once.

    Args:
        connection: A connection without a transaction.
        anew: Whether the tables existed before. If so, single tables that were dropped since are
            also created again.

    Raises:
        SchemaMismatch: if the tables are older (not on SQLite), newer, or not structjob's.
        StoreUnavailable: if another process holds the lock for longer than `LOCK_TIMEOUT` seconds.
        InvalidArgument: if a transaction is open on *connection*.
    """
    _refuse_open_transaction(connection)
    if not anew and _is_current(connection):
        return
    with _exclusive(connection):
        found = _examine(connection)
        if found is None:
            _create(connection, head())
        elif found == head():
            if anew:
                _complete(connection)
        elif connection.dialect.name == "sqlite":
            _run(connection, found, head())
        else:
            raise SchemaMismatch(
                f"the tables in {_where(connection)} are at revision {found}; this version of structjob needs {head()}: "
                "run `structjob migrate` once all programs that write to them can be upgraded",
                older=True,
            )


def check(connection: Connection) -> None:
    """Raise an error if this version of structjob cannot read the tables, and change nothing.

    Args:
        connection: A connection without a transaction.

    Raises:
        SchemaMismatch: if the tables are absent, older, newer, or not structjob's.
    """
    if _is_current(connection):
        return
    found = current(connection)
    if found is None:
        raise SchemaMismatch(
            f"{_where(connection)} holds no jobs or logs of structjob", absent=True
        )
    if found != head():
        raise SchemaMismatch(
            f"the tables in {_where(connection)} are at revision {found}; this version of structjob needs {head()}: run `structjob migrate`",
            older=True,
        )


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Upgrade the tables to *revision*; create them if they are absent.

    Raises:
        InvalidArgument: if *revision* is unknown or older than the tables, or a transaction is open
            on *connection*.
        SchemaMismatch: if the tables are newer than this version of structjob, or not structjob's.
        StoreUnavailable: if another process holds the lock for longer than `LOCK_TIMEOUT` seconds.
    """
    target = known(revision)
    _refuse_open_transaction(connection)
    with _exclusive(connection):
        found = _examine(connection) or "base"
        if order(found) > order(target):
            raise InvalidArgument(
                f"the tables are at revision {found}, newer than {target}: to go back, downgrade"
            )
        if found == "base" != target:
            _create(connection, target)
        elif found != target:
            _run(connection, found, target)


def downgrade(connection: Connection, revision: str) -> None:
    """Downgrade the tables to *revision*; ``base`` drops all tables with their content.

    Raises:
        InvalidArgument: if *revision* is unknown or newer than the tables, or a transaction is open
            on *connection*.
        SchemaMismatch: if the tables are newer than this version of structjob, or not structjob's.
        StoreUnavailable: if another process holds the lock for longer than `LOCK_TIMEOUT` seconds.
    """
    target = known(revision)
    _refuse_open_transaction(connection)
    with _exclusive(connection):
        found = _examine(connection) or "base"
        if order(found) < order(target):
            raise InvalidArgument(
                f"the tables are at revision {found}, older than {target}: to go forward, upgrade"
            )
        if found != target:
            _run(connection, found, target)


def current(connection: Connection) -> str | None:
    """Return the revision of the tables, or ``None`` if there are no tables.

    Raises:
        SchemaMismatch: if the tables are not structjob's, or newer than this version of structjob.
    """
    began = not connection.in_transaction()
    try:
        return _examine(connection)
    finally:
        if began:
            connection.rollback()


def _refuse_open_transaction(connection: Connection) -> None:
    if connection.in_transaction():
        raise InvalidArgument(
            "a transaction is open on this connection: use engine.connect(), not engine.begin(), and commit first"
        )


def _where(connection: Connection) -> str:
    # the engine's URL may be artificial, so an SQLite file is named by its path
    if connection.dialect.name == "sqlite":
        return (
            connection.execute(
                text("SELECT file FROM pragma_database_list WHERE name = 'main'")
            ).scalar()
            or "sqlite://"
        )
    url = connection.engine.url
    url = url.set(drivername=url.get_backend_name())  # as users write it, without the driver
    return url.render_as_string(hide_password=True)


def _read_revision(connection: Connection) -> str | None:
    rows = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalars().all()  # noqa: S608  # a constant
    if len(rows) > 1:
        raise SchemaMismatch(
            f"{VERSION_TABLE} in {_where(connection)} holds {len(rows)} revisions, not one: restore it from a backup"
        )
    return rows[0] if rows else None


def _is_current(connection: Connection) -> bool:
    """Return whether the tables have the newest revision; False after any error."""
    try:
        return _read_revision(connection) == head()
    except DBAPIError:  # the table is probably absent; the caller meets any other error again
        return False
    finally:
        connection.rollback()


def _examine(connection: Connection) -> str | None:
    """Return the revision of the tables; ``None`` if there are no tables yet.

    Raises:
        SchemaMismatch: if the tables must not be touched, because they are not structjob's or are
            newer.
    """
    tables, views = _names(connection)
    if VERSION_TABLE not in tables and (tables or views):
        # the version table is created first, but another program may create tables while the list
        # is read
        tables, views = _names(connection)
    where = _where(connection)
    if VERSION_TABLE not in tables:
        if tables or views:
            raise SchemaMismatch(
                f"{where} has {', '.join(sorted(tables + views))} but no {VERSION_TABLE}, so structjob did not make them: "
                "use another database, or rename them"
            )
        return None
    revision = _read_revision(connection)
    if revision is None and (filled := _with_rows(connection, tables)) is not None:
        connection.rollback()
        # another program may just have finished the creation and begun to write
        revision = _read_revision(connection)
        if revision is None:
            raise SchemaMismatch(
                f"{VERSION_TABLE} in {where} names no revision though {filled} has rows: "
                f"put the revision of the tables back into its only column, for example '{head()}'"
            )
    if revision is not None and revision not in REVISIONS:
        if re.fullmatch(r"\d{4}", revision) and revision > head():
            raise SchemaMismatch(
                f"the tables in {where} are at revision {revision}; this version of structjob knows {head()} at most: upgrade structjob"
            )
        raise SchemaMismatch(
            f"{VERSION_TABLE} in {where} names revision {revision!r}, which is not structjob's: use another database"
        )
    return revision


def _names(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the tables and the views whose names begin as structjob's do."""
    inspector = inspect(connection)
    views = [name for name in inspector.get_view_names() if name.startswith("structjob_")]
    return [
        name
        for name in inspector.get_table_names()
        if name.startswith("structjob_") and name not in views
    ], views


def _with_rows(connection: Connection, tables: list[str]) -> str | None:
    """Return the first of *tables* that has rows; ``None`` if all are empty.

    A creation that was not finished leaves them all empty.
    """
    for name in tables:
        quoted = connection.dialect.identifier_preparer.quote(name)
        if connection.exec_driver_sql(f"SELECT 1 FROM {quoted} LIMIT 1").first() is not None:  # noqa: S608  # quoted, from the catalog
            return name
    return None


def _create(connection: Connection, target: str) -> None:
    """Create the tables up to revision *target*, or finish a creation that another program left
    unfinished.

    Nothing is ever dropped.

    MariaDB and MySQL commit each ``CREATE`` separately, and on a cluster (Galera) their locks are
    local to one node. So programs on several nodes may be here at the same time. The cluster orders
    each ``CREATE TABLE``, and it succeeds for only one program. That program continues. The others
    wait for the revision, which is written last. If no table has been added for `STALLED` seconds,
    they continue in its place. Two programs that both continue do no harm: every statement succeeds
    once in the cluster, and `_run` skips what exists.
    """
    schema = connection.info.get(SCHEMA)
    # IF NOT EXISTS needs the right to create a schema even if the schema exists
    if schema and not inspect(connection).has_schema(schema):
        connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    if _is_mysql(connection):
        name = _dialect(connection)
        first = statements(name, "base", target)[0]
        if not _apply(connection, first) and _finished_by_another(connection):
            return
    _run(connection, "base", target)


_MADE = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|VIEW|INDEX \w+ ON) (\w+)")


def _complete(connection: Connection) -> None:
    """Create the absent tables and views, with their indexes.

    The revision shows that they existed before.
    """
    tables, views = _names(connection)
    for statement in statements(_dialect(connection), "base", head()):
        made = _MADE.match(statement)
        if made is not None and made[1] not in (*tables, *views):
            _apply(connection, statement)


def _finished_by_another(connection: Connection) -> bool:
    """Wait for another program that creates the tables.

    Return whether it finished; false if it has stopped.
    """
    made, since = -1, 0.0
    while True:
        tables, views = _names(connection)
        finished = _read_revision(connection) is not None
        # until the transaction ends, the tables that were read stay locked against changes, on all
        # nodes
        connection.rollback()
        if finished:
            return True
        now = time.monotonic()
        if len(tables) + len(views) != made:
            made, since = len(tables) + len(views), now
        elif now - since >= STALLED:
            return False
        # sleep on the server: a sleep here would block the event loop
        connection.exec_driver_sql(f"DO SLEEP({_LOOK_EVERY})")


def _is_mysql(connection: Connection) -> bool:
    return connection.dialect.name in ("mysql", "mariadb")


def _dialect(connection: Connection) -> str:
    return (
        "mariadb" if getattr(connection.dialect, "is_mariadb", False) else connection.dialect.name
    )


def _run(connection: Connection, start: str, end: str) -> None:
    for statement in statements(_dialect(connection), start, end):
        _apply(connection, statement)


def _apply(connection: Connection, statement: str) -> bool:
    """Run one statement of a migration.

    Return false if what it creates exists already, or what it drops does not exist.
    """
    for tried in range(1, _TRIES + 1):
        try:
            # On PostgreSQL, an error would abort the whole transaction without this savepoint.
            with (
                connection.begin_nested()
                if connection.dialect.name == "postgresql"
                else nullcontext()
            ):
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            if _is_mysql(connection):
                # commit here, not at the end: on a cluster the commit may fail, and is tried again
                connection.commit()
            return True
        except DBAPIError as error:
            if _needless(error, statement):
                return False
            if not _is_mysql(connection) or _code(error) not in _CONFLICTS or tried == _TRIES:
                raise
            connection.rollback()
            connection.exec_driver_sql(f"DO SLEEP({_LOOK_EVERY})")
    raise AssertionError  # the last try returns or raises


def _code(error: DBAPIError) -> object:
    """Return the code of the *error*: MySQL's number, or PostgreSQL's SQLSTATE."""
    said = error.orig.args if error.orig is not None else ()
    return said[0] if said and isinstance(said[0], int) else getattr(error.orig, "sqlstate", None)


def _needless(error: DBAPIError, statement: str) -> bool:
    code = _code(error)
    if code == _DUPLICATE_ROW:
        return statement.startswith(f"INSERT INTO {VERSION_TABLE} ")
    on_sqlite = isinstance(error.orig, sqlite3.Error) and "already exists" in str(error.orig)
    return code in _THERE_ALREADY or code in _GONE_ALREADY or on_sqlite


@contextmanager
def _exclusive(connection: Connection) -> Iterator[None]:
    """Prevent all other processes from creating or altering the tables.

    Commit at the end; roll back on an error.
    """
    lock = {"sqlite": _sqlite_lock, "postgresql": _postgresql_lock}.get(
        connection.dialect.name, _mysql_lock
    )
    try:
        with lock(connection):
            yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


@contextmanager
def _sqlite_lock(connection: Connection) -> Iterator[None]:
    patience = connection.exec_driver_sql("PRAGMA busy_timeout").scalar_one()
    connection.exec_driver_sql(f"PRAGMA busy_timeout = {LOCK_TIMEOUT * 1000}")
    try:
        # An explicit BEGIN, because the driver begins a transaction only before INSERT: each CREATE
        # would be committed separately.
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except DBAPIError as error:
            if "locked" in str(error.orig):
                raise _busy(connection) from error
            raise
        try:
            yield
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            with suppress(DBAPIError):
                connection.exec_driver_sql("ROLLBACK")
            raise
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {patience}")


@contextmanager
def _postgresql_lock(connection: Connection) -> Iterator[None]:
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
    try:
        # The lock is held until the end of the transaction. So it needs no release, and works
        # through a pooler in transaction mode.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRESQL_LOCK})
    except DBAPIError as error:
        if "lock timeout" in str(error.orig):
            raise _busy(connection) from error
        raise
    yield


@contextmanager
def _mysql_lock(connection: Connection) -> Iterator[None]:
    got = connection.execute(
        text("SELECT GET_LOCK(:name, :seconds)"), {"name": _MYSQL_LOCK, "seconds": LOCK_TIMEOUT}
    ).scalar()
    if got != 1:
        raise _busy(connection)
    try:
        yield
        connection.commit()  # before the next program gets the lock
    finally:
        with suppress(DBAPIError):  # a broken connection has released the lock already
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": _MYSQL_LOCK})


def _busy(connection: Connection) -> StoreUnavailable:
    return StoreUnavailable(
        f"another process has been changing the tables in {_where(connection)} for {LOCK_TIMEOUT} s: try again when it is done"
    )
