"""Databases for tests: one that others use, too; and a fresh one on each kind of server."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from servers import server_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from structjob.store import migrations
from structjob.store.tables import logs, metadata
from structjob.urls.url import parse

SERVERS = ("mariadb", "postgresql")
KINDS = ("sqlite", *SERVERS)

_prepared: dict[str, sa.URL] = {}
"""Per kind of server, this process's database with the tables in it: emptied between tests, for
making one takes a second.
"""

_file: list[bytes] = []
"""An SQLite file with the tables in it, once there is one."""


@contextlib.contextmanager
def locked(path) -> Iterator[None]:
    """Hold the database locked, as another program's long transaction does."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


class Database:
    """A database with structjob's tables, empty.

    Attributes:
        kind: ``sqlite``, ``mariadb`` or ``postgresql``.
        url: As a user writes it.
        engine: SQLAlchemy's, for looking into the database beside structjob.
    """

    def __init__(self, kind: str, url: sa.URL) -> None:
        self.kind = kind
        self.url = url.set(drivername=kind).render_as_string(hide_password=False)
        self.engine: AsyncEngine = create_async_engine(url)

    async def fetch(self, statement: sa.Executable):
        """Run a query, as the queries of structjob ask for it."""
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).mappings().all()

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what *sql* finds, as plain tuples."""
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.exec_driver_sql(sql)]

    async def execute(self, *statements: str) -> None:
        """Run *statements* in one transaction."""
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def add(self, table: sa.Table, *rows: dict[str, Any]) -> None:
        """Insert *rows*, which need not have the same columns."""
        async with self.engine.begin() as connection:
            for row in rows:
                if table is logs:
                    await connection.execute(*inserted(connection, row))
                else:
                    await connection.execute(table.insert().values(row))

    async def plan(self, statement: sa.Executable) -> str:
        """Return how the database would run *statement*, in its own words: one line a step; on
        MariaDB table, type, key, rows, extra.
        """
        how = "EXPLAIN QUERY PLAN" if self.kind == "sqlite" else "EXPLAIN"
        compiled = statement.compile(
            dialect=self.engine.dialect, compile_kwargs={"literal_binds": True}
        )
        async with self.engine.connect() as connection:
            # which rather reads all of a small table: could it do better with a large one?
            if self.kind == "postgresql":
                await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            found = [tuple(row) for row in await connection.exec_driver_sql(f"{how} {compiled}")]
        if self.kind == "mariadb":
            return "\n".join(" ".join(str(row[n]) for n in (2, 3, 5, 8, 9)) for row in found)
        return (
            "\n".join(row[0] for row in found)
            if self.kind == "postgresql"
            else " / ".join(row[3] for row in found)
        )

    async def know_itself(self) -> None:
        """Have the database look at what is in its tables, as a server does automatically
        now and then.
        """
        if self.kind == "mariadb":
            await self.rows(f"ANALYZE TABLE {', '.join(metadata.tables)}")
        elif self.kind == "postgresql":
            await self.execute("ANALYZE")

    async def empty(self) -> None:
        """Delete every row, and let the numbers begin anew."""
        async with self.engine.begin() as connection:
            if self.kind == "postgresql":  # what is deleted here need not survive a power cut
                await connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
            deleted = [
                table
                for table in metadata.tables
                if (await connection.exec_driver_sql(f"DELETE FROM {table}")).rowcount
            ]
            numbered = [
                f"structjob_{name}"
                for name in ("logs", "dead_letters")
                if f"structjob_{name}" in deleted
            ]
            for table in numbered:
                if self.kind == "postgresql":
                    await connection.exec_driver_sql(f"ALTER SEQUENCE {table}_id_seq RESTART")
                else:
                    await connection.exec_driver_sql(f"ALTER TABLE {table} AUTO_INCREMENT = 1")


def create_tables(connection: sa.Connection) -> None:
    """Create the tables as the code describes them, and not as the migrations do."""
    dialect = connection.dialect.name
    for index in {index for table in metadata.tables.values() for index in table.indexes}:
        if dialect in ("sqlite", "postgresql") and "where" in index.info:
            index.dialect_options[dialect]["where"] = sa.text(index.info["where"])
    metadata.create_all(connection)


def inserted(
    connection: sa.Connection | AsyncConnection, *events: Mapping[str, Any]
) -> tuple[sa.Insert, list[dict[str, Any]]]:
    """Return the statement and the rows that store *events*, for ``execute``.

    SQLite derives their type, and the other databases take it.
    """
    derived = "type" if connection.dialect.name == "sqlite" else ""
    rows = [{name: value for name, value in row.items() if name != derived} for row in events]
    return logs.insert(), rows


async def make_file(path: Path) -> None:
    """Make an SQLite file with empty tables, as the first tracker does: by a copy, if this process
    has made one before.
    """
    if not _file:
        engine = create_async_engine(parse(f"sqlite:///{path}"))
        await _prepare(engine)
        await engine.dispose()
        _file.append(path.read_bytes())
    else:
        path.touch(0o600)
        path.write_bytes(_file[0])


@contextlib.asynccontextmanager
async def fresh(kind: str, directory: Path) -> AsyncIterator[Database]:
    """Give a database with empty tables."""
    if kind == "sqlite":
        await make_file(directory / "jobs.db")
        database = Database(kind, parse(f"sqlite:///{directory / 'jobs.db'}"))
    else:
        made = kind not in _prepared
        if made:
            _prepared[kind] = await create(kind)
        database = Database(kind, _prepared[kind])
        if made:
            await _prepare(database.engine)
        else:
            await database.empty()
    try:
        yield database
    finally:
        await database.engine.dispose()


@contextlib.asynccontextmanager
async def bare(kind: str, directory: Path) -> AsyncIterator[Database]:
    """Give a database without tables, of the test's own."""
    url = parse(f"sqlite:///{directory / 'bare.db'}") if kind == "sqlite" else await create(kind)
    database = Database(kind, url)
    try:
        yield database
    finally:
        await database.engine.dispose()
        if kind != "sqlite":
            await drop(url)


async def _prepare(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(migrations.prepare)


async def create(kind: str, options: str = "", *, name: str | None = None) -> sa.URL:
    """Create an empty database on the server, with *options* and a *name* of its own; return its
    URL.
    """
    url = parse(server_url(kind))
    name = name or f"structjob_test_{secrets.token_hex(6)}"
    await _on_server(url, f"CREATE DATABASE {name} {options}")
    return url.set(database=name)


async def drop(url: sa.URL) -> None:
    """Drop what `create` created, even if programs are connected to it."""
    force = " WITH (FORCE)" if url.get_backend_name() == "postgresql" else ""
    await on_server(url, f"DROP DATABASE {url.database}{force}")


async def on_server(url: sa.URL, statement: str) -> None:
    """Run *statement* on the server of *url*, whose database may be absent."""
    usual = parse(server_url("postgresql" if url.get_backend_name() == "postgresql" else "mariadb"))
    await _on_server(url.set(database=usual.database), statement)


async def _on_server(url: sa.URL, statement: str) -> None:
    engine = create_async_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        await connection.exec_driver_sql(statement)
    await engine.dispose()


def drop_databases() -> None:
    """Drop what this process created for its tests."""
    for kind in list(_prepared):
        asyncio.run(drop(_prepared.pop(kind)))
