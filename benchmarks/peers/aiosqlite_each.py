"""The simplest solution: aiosqlite, with an insert and a commit for every event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count

import aiosqlite
import orjson

from benchmarks import payload
from benchmarks.peers.sqlite_rows import INSERT

Insert = Callable[[dict[str, object], tuple[str, ...]], Awaitable[None]]


@asynccontextmanager
async def opened(path: str) -> AsyncIterator[Insert]:
    """Yield a coroutine function that stores one event with the given attributes and context, and
    commits.
    """
    seq = count(1)
    async with aiosqlite.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=NORMAL")

        async def insert(attributes: dict[str, object], context: tuple[str, ...]) -> None:
            ts = datetime.now(UTC).isoformat(" ", "microseconds")[:26]
            row = (
                next(seq),
                ts,
                "info",
                payload.MESSAGE,
                orjson.dumps(attributes).decode(),
                *context,
            )
            await connection.execute(INSERT, row)
            await connection.commit()

        yield insert
