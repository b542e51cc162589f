"""The databases for benchmarks: SQLite in the working directory, and servers from the environment.

``BENCH_POSTGRESQL`` and ``BENCH_MARIADB`` contain the URL of a server with a user who may create
databases, for example ``postgresql://postgres@127.0.0.1/postgres``. Each measurement creates its
own database there and drops it afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

SQLITE = "SQLite"
POSTGRESQL = "PostgreSQL"
MARIADB = "MariaDB"
SERVERS = {POSTGRESQL: "BENCH_POSTGRESQL", MARIADB: "BENCH_MARIADB"}
NEEDS = {SQLITE: (), POSTGRESQL: ("asyncpg",), MARIADB: ("asyncmy",)}
"""Modules that must be installed, by database."""
SYSTEM = {SQLITE: ("", ""), POSTGRESQL: (", type", ", 'system'"), MARIADB: (", type", ", 'system'")}
"""The column for the type of an event without a job, and its value; SQLite derives the type."""
FILE = "bench.db"
HISTORIES = "BENCH_HISTORIES"
"""The environment variable for the directory with the generated histories."""


def history(jobs: int, events: int) -> Path:
    """Return an SQLite file with a generated history (see `benchmarks.history`).

    It is generated now if it does not exist yet.
    """
    from benchmarks.generate import fill
    from benchmarks.history import History

    kept = Path(os.environ[HISTORIES], f"history-{jobs}-{events}.db")
    if not kept.exists():
        making = kept.with_suffix(".making")
        making.unlink(missing_ok=True)
        asyncio.run(fill(f"sqlite:///{making}", History(jobs, events)))
        making.rename(kept)
    return kept


@contextlib.contextmanager
def database(name: str) -> Iterator[str]:
    """Yield the URL of a new database.

    It is an SQLite file that does not exist yet, or empty structjob tables on a server.
    """
    if name == SQLITE:
        yield f"sqlite:///{FILE}"
        return
    from sqlalchemy import make_url

    server, fresh = make_url(os.environ[SERVERS[name]]), f"bench_{secrets.token_hex(6)}"
    quoted = f'"{fresh}"' if name == POSTGRESQL else f"`{fresh}`"
    asyncio.run(_execute(name, server, f"CREATE DATABASE {quoted}"))
    try:
        url = server.set(database=fresh).render_as_string(hide_password=False)
        asyncio.run(_create_tables(url))
        yield url
    finally:
        asyncio.run(
            _execute(
                name,
                server,
                f"DROP DATABASE {quoted}" + (" WITH (FORCE)" if name == POSTGRESQL else ""),
            )
        )


async def _create_tables(url: str) -> None:
    """Create the tables and wait for them: on a busy server that takes longer than a tracker's time
    limit.
    """
    import structjob

    async with asyncio.timeout(60), structjob.Tracker(url, spool=False) as tracker:
        while True:
            try:
                await tracker.jobs.list()
            except structjob.StoreUnavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def _execute(name: str, url: Any, statement: str) -> None:
    async with connected(name, url) as execute:
        await execute(statement)


@contextlib.asynccontextmanager
async def connected(name: str, url: Any) -> AsyncIterator[Callable[[str], Any]]:
    """Connect with the plain driver; yield a function that runs a statement.

    The function returns the first column of its first row, if any.
    """
    from sqlalchemy import make_url

    where = make_url(url)
    if name == POSTGRESQL:
        connection = await postgresql(where)
        try:
            yield connection.fetchval
        finally:
            await connection.close()
        return
    connection = await mariadb(where)

    async def execute(statement: str) -> Any:
        async with connection.cursor() as cursor:
            await cursor.execute(statement)
            row = await cursor.fetchone()
            return row[0] if row else None

    try:
        yield execute
    finally:
        await connection.ensure_closed()


async def postgresql(url: Any) -> Any:
    """Return an asyncpg connection."""
    import asyncpg

    return await asyncpg.connect(
        host=url.host,
        port=url.port or 5432,
        user=url.username,
        password=url.password,
        database=url.database,
    )


async def mariadb(url: Any) -> Any:
    """Return an asyncmy connection."""
    import asyncmy

    return await asyncmy.connect(
        host=url.host,
        port=url.port or 3306,
        user=url.username,
        password=url.password or "",
        db=url.database,
        charset="utf8mb4",
    )


def count_stored(name: str, url: str, message: str) -> int:
    """Return how many events with *message* the table has, as another process would see it."""
    if name == SQLITE:
        from benchmarks.peers.sqlite_rows import count_stored as count_rows

        return count_rows(FILE, message)

    async def count() -> int:
        async with connected(name, url) as execute:
            return int(
                await execute(f"SELECT count(*) FROM structjob_logs WHERE message = '{message}'")
            )

    return asyncio.run(count())
