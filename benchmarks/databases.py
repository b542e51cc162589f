"""The databases that a benchmark can run on: SQLite in the working directory, and servers that the
environment names.

``BENCH_POSTGRESQL`` and ``BENCH_MARIADB`` hold the URL of a server and of a user who may create
databases, such as ``postgresql://postgres@127.0.0.1/postgres``. Each measurement has a database of
its own there, which is dropped afterwards.
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
"""What must be installed."""
FILE = "bench.db"
HISTORIES = "BENCH_HISTORIES"
"""The environment variable of the directory where made-up histories are kept."""


def history(jobs: int, events: int) -> Path:
    """Return an SQLite file with a made-up history (see `benchmarks.history`), made now if it is
    not kept yet.
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
    """Yield the URL of a new database: an SQLite file that does not exist yet, or structjob's
    tables, empty, on a server.
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
    """Wait for the tables: on a busy server they take longer than a tracker lets anybody wait."""
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
    """Connect with the bare driver; yield what runs a statement and returns the first column of its
    first row, if any.
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
    """Return how many events with *message* the table holds, as another process would see it."""
    if name == SQLITE:
        from benchmarks.peers.sqlite_rows import count_stored as count_rows

        return count_rows(FILE, message)

    async def count() -> int:
        async with connected(name, url) as execute:
            return int(
                await execute(f"SELECT count(*) FROM structjob_logs WHERE message = '{message}'")
            )

    return asyncio.run(count())
