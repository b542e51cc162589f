"""B3: the work of B2, with PostgreSQL and MariaDB."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any

from benchmarks import payload
from benchmarks.b2_store import COROUTINES, all_of
from benchmarks.databases import (
    MARIADB,
    NEEDS,
    POSTGRESQL,
    SERVERS,
    count_stored,
    database,
    mariadb,
    postgresql,
)
from benchmarks.registry import Benchmark, Case, Row

BATCH = 1_000
COLUMNS = (
    *(
        "seq",
        "ts",
        "level",
        "message",
        "attrs",
        "job_id",
        "step_id",
        "operation",
        "step",
        "correlation_id",
    ),
    *("session_id", "stored_at", "type", "kind", "attempt", "stream", "logger", "category"),
)
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

Insert = Callable[[list[tuple[Any, ...]]], Awaitable[Any]]


def structjob(*, events: int, name: str) -> dict[str, float]:
    """Log in one job with a step per coroutine; the time ends when `flush` returns."""
    from benchmarks import ours

    async def work(url: str) -> float:
        async with (
            ours.tracker(url=url) as (tracker, log),
            tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID) as job,
        ):

            async def one(_number: int, count: int) -> None:
                async with job.step(payload.STEP):
                    for _ in range(count):
                        ours.burst(log, 1)
                        await asyncio.sleep(0)

            start = perf_counter()
            await all_of(one, events)
            await tracker.flush()
            return perf_counter() - start

    with database(name) as url:
        seconds = asyncio.run(work(url))
        assert count_stored(name, url, payload.MESSAGE) == events
    return {"per_second": events / seconds}


def raw(*, events: int, name: str) -> dict[str, float]:
    """Insert ready-made rows as the upper limit.

    The rows have as many steps, and go into the same table with the same indexes: 1,000 per
    transaction, on one connection.
    """
    import orjson

    contexts = [tuple(payload.context(number).values()) for number in range(COROUTINES)]
    rows = [
        (
            number + 1,
            BEGAN + timedelta(milliseconds=number),
            "info",
            payload.MESSAGE,
            orjson.dumps(payload.attributes(payload.TRANSFERRED + number)).decode(),
            *contexts[number % COROUTINES],
            *(1, BEGAN, "task", "log", 1, "system", "bench", "system"),
        )
        for number in range(events)
    ]

    async def work(url: str) -> float:
        insert, close = await (_copy if name == POSTGRESQL else _executemany)(url)
        start = perf_counter()
        for first in range(0, events, BATCH):
            await insert(rows[first : first + BATCH])
        seconds = perf_counter() - start
        await close()
        return seconds

    with database(name) as url:
        seconds = asyncio.run(work(url))
        assert count_stored(name, url, payload.MESSAGE) == events
    return {"per_second": events / seconds}


async def _copy(url: str) -> tuple[Insert, Callable[[], Awaitable[None]]]:
    """Return an insert with asyncpg's COPY, which commits each time."""
    from sqlalchemy import make_url

    connection = await postgresql(make_url(url))
    return lambda rows: connection.copy_records_to_table(
        "structjob_logs", records=rows, columns=COLUMNS
    ), connection.close


async def _executemany(url: str) -> tuple[Insert, Callable[[], Awaitable[None]]]:
    """Return an insert with asyncmy's ``executemany``, which makes one statement of many rows, and
    a commit.
    """
    from sqlalchemy import make_url

    connection = await mariadb(make_url(url))
    statement = f"INSERT INTO structjob_logs ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"

    async def insert(rows: list[tuple[Any, ...]]) -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany(statement, rows)
        await connection.commit()

    return insert, connection.ensure_closed


def _cases(name: str) -> tuple[Case, Case]:
    options = {"name": name}
    return (
        Case(
            f"structjob, {name}",
            structjob,
            needs=NEEDS[name],
            server=SERVERS[name],
            options=options,
        ),
        Case(RAW[name], raw, needs=("orjson", *NEEDS[name]), server=SERVERS[name], options=options),
    )


RAW = {POSTGRESQL: "raw asyncpg COPY", MARIADB: "raw asyncmy executemany"}
MARKS = {POSTGRESQL: 0.6, MARIADB: 0.9}

BENCHMARK = Benchmark(
    name="b3",
    title="200,000 events from 100 coroutines until all are committed in PostgreSQL, and in MariaDB",
    cases=tuple(case for name in SERVERS for case in _cases(name)),
    rows=tuple(
        Row(
            *(
                "B3",
                f"events stored in {name}",
                "per_second",
                "/s",
                f"structjob, {name}",
                (RAW[name],),
            ),
            better="higher",
            at_least=MARKS[name],
        )
        for name in SERVERS
    ),
    size={"events": 200_000},
    smoke={"events": 1_000},
)
