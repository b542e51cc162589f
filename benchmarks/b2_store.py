"""B2, B2': 200,000 events from 100 coroutines, until SQLite has committed them all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from time import perf_counter

from benchmarks import payload
from benchmarks.peers.sqlite_rows import BATCH, connect, count_stored, create_tables, write_numbered
from benchmarks.registry import Benchmark, Case, Row

COROUTINES = 100
DATABASE = "bench.db"


def structjob(*, events: int) -> dict[str, float]:
    """Log in one job with a step per coroutine; the time ends when `flush` returns."""
    from benchmarks import ours

    async def work() -> dict[str, float]:
        async with (
            ours.tracker() as (tracker, log),
            tracker.job(payload.JOB, correlation_id=payload.CORRELATION_ID) as job,
        ):

            async def one(_number: int, count: int) -> None:
                async with job.step(payload.STEP):
                    for _ in range(count):
                        ours.burst(log, 1)
                        await asyncio.sleep(0)

            start = perf_counter()
            await all_of(one, events)
            logged = perf_counter() - start
            await tracker.flush()
            seconds = perf_counter() - start
        assert count_stored(ours.DATABASE, payload.MESSAGE) == events
        return {"per_second": events / seconds, "logging_per_second": events / logged}

    return asyncio.run(work())


def raw(*, events: int) -> dict[str, float]:
    """Insert ready-made rows as the upper limit.

    The rows have as many steps, and go through ``executemany`` in batches of 1,000 in one thread.
    """
    import orjson

    create_tables(DATABASE)
    contexts = [tuple(payload.context(number).values()) for number in range(COROUTINES)]
    rows = [
        (
            number,
            f"2026-01-01 00:{number // 60_000 % 60:02}:{number // 1_000 % 60:02}.{number % 1_000:03}000",
            "info",
            payload.MESSAGE,
            orjson.dumps(payload.attributes(payload.TRANSFERRED + number)).decode(),
            *contexts[number % COROUTINES],
        )
        for number in range(events)
    ]
    connection = connect(DATABASE)
    start = perf_counter()
    for first in range(0, events, BATCH):
        write_numbered(connection, rows[first : first + BATCH])
    seconds = perf_counter() - start
    connection.close()
    assert count_stored(DATABASE, payload.MESSAGE) == events
    return {"per_second": events / seconds}


def peer(*, events: int, factory: str, **options: bool) -> dict[str, float]:
    """Log through *factory*, a peer that stores; the time ends when it has committed everything."""
    create_tables(DATABASE)
    module, name = factory.split(":")
    logging_peer = getattr(import_module(f"benchmarks.peers.{module}"), name)(DATABASE, **options)

    async def one(number: int, count: int) -> None:
        logging_peer.bind(payload.context(number))
        for _ in range(count):
            logging_peer.burst(1)
            await asyncio.sleep(0)

    async def work() -> dict[str, float]:
        start = perf_counter()
        await all_of(one, events)
        logged = perf_counter() - start
        logging_peer.settle()
        seconds = perf_counter() - start
        return {"per_second": events / seconds, "logging_per_second": events / logged}

    measured = asyncio.run(work())
    assert count_stored(DATABASE, payload.MESSAGE) == events
    return measured


def commit_each(*, events: int) -> dict[str, float]:
    """Insert with one aiosqlite connection; every coroutine awaits an insert and a commit per
    event.

    The connection's queue groups these.
    """
    from benchmarks.peers import aiosqlite_each

    create_tables(DATABASE)

    async def work() -> float:
        async with aiosqlite_each.opened(DATABASE) as insert:

            async def one(number: int, count: int) -> None:
                context = tuple(payload.context(number).values())
                for step in range(count):
                    await insert(payload.attributes(payload.TRANSFERRED + step), context)

            start = perf_counter()
            await all_of(one, events)
            return perf_counter() - start

    return {"per_second": events / asyncio.run(work())}


async def all_of(one: Callable[[int, int], Awaitable[None]], events: int) -> None:
    """Run *one* in every coroutine, with its number and its share of the events."""
    async with asyncio.TaskGroup() as group:
        for number in range(COROUTINES):
            group.create_task(one(number, events // COROUTINES))


PEERS = {
    "structlog + queue + thread": (
        peer,
        ("orjson",),
        {"factory": "structlog_thread:StructlogThread"},
    ),
    "stdlib QueueListener": (peer, ("orjson",), {"factory": "stdlib_queue:to_sqlite"}),
    "OTel exporter": (peer, ("opentelemetry.sdk",), {"factory": "otel_batch:OtelBatchToSqlite"}),
    "loguru sink, enqueue": (
        peer,
        ("loguru",),
        {"factory": "loguru_sink:LoguruToSqlite", "enqueue": True},
    ),
    "loguru sink, in the caller": (
        peer,
        ("loguru",),
        {"factory": "loguru_sink:LoguruToSqlite", "enqueue": False},
    ),
    "aiosqlite, commit per event": (commit_each, (), {}),
}

BENCHMARK = Benchmark(
    name="b2",
    title="200,000 events from 100 coroutines until all are committed in SQLite",
    cases=(
        Case("structjob", structjob),
        Case("raw executemany", raw, needs=("orjson",)),
        *(
            Case(name, run, needs=needs, options=options)
            for name, (run, needs, options) in PEERS.items()
        ),
    ),
    rows=(
        Row(
            "B2",
            "events stored",
            "per_second",
            "/s",
            ours="structjob",
            peers=("raw executemany",),
            better="higher",
            at_least=0.65,
        ),
        Row(
            "B2'",
            "events stored, best peer",
            "per_second",
            "/s",
            ours="structjob",
            peers=tuple(PEERS),
            better="higher",
            at_least=1.4,
        ),
        *(
            Row(
                "B2'",
                "events stored",
                "per_second",
                "/s",
                ours="structjob",
                peers=(name,),
                better="higher",
            )
            for name in PEERS
        ),
    ),
    size={"events": 200_000},
    smoke={"events": 1_000},
)
