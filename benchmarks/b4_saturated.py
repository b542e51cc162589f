"""B4: how much is stored while the event loop is saturated."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Callable
from importlib import import_module
from multiprocessing.synchronize import Event
from time import perf_counter

from benchmarks import payload
from benchmarks.databases import MARIADB, NEEDS, POSTGRESQL, SERVERS, SQLITE, connected, database
from benchmarks.peers.sqlite_rows import create_tables
from benchmarks.registry import Benchmark, Case, Row

DATABASE = "bench.db"
PATIENCE = 20.0
"""Seconds after which a backlog counts as not being stored."""
_WORK = {
    POSTGRESQL: "SELECT count(*) FROM generate_series(1, 400000)",
    MARIADB: "SELECT BENCHMARK(120000, MD5('x'))",
}
"""Statements that keep a server busy about as long as a batch does, without work for the waiting
client.
"""


def burn(seconds: float) -> None:
    """Keep the interpreter busy, as a computing callback does."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


async def saturate(
    seconds: float,
    slice_ms: float,
    log: Callable[[], object],
    done: Callable[[], bool] = lambda: False,
) -> tuple[int, float]:
    """Repeatedly log, compute for a slice and yield to the loop; return the turns and the longest
    pause in ms.

    A pause is the time of a turn beyond its slice: the logging, whatever else the loop ran, and the
    time for which another thread held the interpreter.
    """
    slice_s, turns, longest = slice_ms / 1_000, 0, 0.0
    before = start = perf_counter()
    while before < start + seconds and not done():
        log()
        burn(slice_s)
        await asyncio.sleep(0)
        now = perf_counter()
        longest = max(longest, now - before - slice_s)
        before = now
        turns += 1
    return turns, longest * 1_000


def steady(
    *, seconds: float, backlog: int, slice_ms: float, per_turn: int, name: str
) -> dict[str, float]:
    """Log a few events each turn, without a backlog, and count those stored when the time is up."""
    from benchmarks import ours

    async def work(url: str) -> dict[str, float]:
        async with ours.step(url=url) as (tracker, log):
            await tracker.flush()
            await asyncio.sleep(0.1)
            before = tracker.ledger().stored
            turns, longest = await saturate(seconds, slice_ms, lambda: ours.burst(log, per_turn))
            return _steady(turns * per_turn, tracker.ledger().stored - before, seconds, longest)

    with database(name) as url:
        return asyncio.run(work(url))


def peer(
    *, seconds: float, backlog: int, slice_ms: float, per_turn: int, factory: str
) -> dict[str, float]:
    """Do the same through *factory*, a peer that stores."""
    create_tables(DATABASE)
    module, name = factory.split(":")
    logging_peer = getattr(import_module(f"benchmarks.peers.{module}"), name)(DATABASE)

    async def work() -> dict[str, float]:
        logging_peer.bind(payload.CONTEXT)
        logging_peer.burst(10)
        logging_peer.settle()
        await asyncio.sleep(0.1)
        before = logging_peer.stored
        turns, longest = await saturate(seconds, slice_ms, lambda: logging_peer.burst(per_turn))
        return _steady(turns * per_turn, logging_peer.stored - before, seconds, longest)

    measured = asyncio.run(work())
    logging_peer.settle()
    return measured


def no_logging(*, seconds: float, backlog: int, slice_ms: float, per_turn: int) -> dict[str, float]:
    """Run the saturated loop alone, to measure the pauses that the machine causes."""
    _, longest = asyncio.run(saturate(seconds, slice_ms, lambda: None))
    return {"pause_ms": longest}


def beside_server(
    *, seconds: float, backlog: int, slice_ms: float, per_turn: int, name: str
) -> dict[str, float]:
    """Run the saturated loop while its server computes for another process.

    This measures the pauses from sharing the machine's cores with the server.
    """
    spawned = multiprocessing.get_context("spawn")
    at_work = spawned.Event()
    other = spawned.Process(target=_keep_at_work, args=(name, at_work), daemon=True)
    other.start()
    try:
        if not at_work.wait(PATIENCE):
            raise RuntimeError(f"{name} has not answered within {PATIENCE:g} s")
        return no_logging(seconds=seconds, backlog=backlog, slice_ms=slice_ms, per_turn=per_turn)
    finally:
        other.kill()
        other.join()


def _keep_at_work(name: str, at_work: Event) -> None:
    async def ask() -> None:
        async with connected(name, os.environ[SERVERS[name]]) as execute:
            while True:
                await execute(_WORK[name])
                at_work.set()

    async def ask_twice() -> None:
        await asyncio.gather(ask(), ask())

    asyncio.run(ask_twice())


def _steady(offered: int, stored: int, seconds: float, longest: float) -> dict[str, float]:
    return {
        "offered_per_second": offered / seconds,
        "stored_per_second": stored / seconds,
        "stored_percent": 100 * stored / offered,
        "pause_ms": longest,
    }


def drain(
    *, seconds: float, backlog: int, slice_ms: float, per_turn: int, name: str
) -> dict[str, float]:
    """Store a backlog while a few events are logged each turn; measure the rate and the pauses.

    At 0 ms the loop is idle. The rate is measured from the first commit to the last, so that the
    time for which the engine waits to fill a batch does not count.
    """
    from benchmarks import ours

    async def work(url: str) -> dict[str, float]:
        async with ours.step(url=url) as (tracker, log):
            await tracker.flush()
            before = tracker.ledger().stored
            first: tuple[float, int] | None = None

            def done() -> bool:
                nonlocal first
                stored = tracker.ledger().stored - before
                if first is None and stored:
                    first = (perf_counter(), stored)
                return stored >= backlog

            ours.burst(log, backlog)
            end, longest = perf_counter() + PATIENCE, 0.0
            if slice_ms:
                _, longest = await saturate(
                    PATIENCE, slice_ms, lambda: ours.burst(log, per_turn), done
                )
            else:
                while not done() and perf_counter() < end:
                    await asyncio.sleep(0.001)
            since, stored = first or (end - PATIENCE, 0)
            return {
                "drained_per_second": (tracker.ledger().stored - before - stored)
                / (perf_counter() - since),
                "pause_ms": longest,
            }

    with database(name) as url:
        return asyncio.run(work(url))


SLICES = {"1 ms": {"slice_ms": 1.0, "per_turn": 5}, "0.1 ms": {"slice_ms": 0.1, "per_turn": 1}}
PEERS = {
    "stdlib QueueListener": (("orjson",), "stdlib_queue:to_sqlite"),
    "OTel batch": (("opentelemetry.sdk",), "otel_batch:OtelBatchToSqlite"),
    "structlog + thread": (("orjson",), "structlog_thread:StructlogThread"),
}


def _cases() -> list[Case]:
    cases = []
    for slices, options in SLICES.items():
        cases.append(Case(f"no logging, {slices}", no_logging, options=options))
        cases += [
            Case(f"{label}, {slices}", peer, needs=needs, options={**options, "factory": factory})
            for label, (needs, factory) in PEERS.items()
        ]
    for name, needs in NEEDS.items():
        where = {"needs": needs, "server": SERVERS.get(name)}
        cases.append(
            Case(
                f"{name}, backlog, idle",
                drain,
                **where,
                options={"name": name, "slice_ms": 0, "per_turn": 0},
            )
        )
        for slices, options in SLICES.items():
            cases.append(
                Case(
                    f"{name}, backlog, {slices}", drain, **where, options={**options, "name": name}
                )
            )
            cases.append(
                Case(f"{name}, {slices}", steady, **where, options={**options, "name": name})
            )
            if name in SERVERS:
                cases.append(
                    Case(
                        f"{name} at work, {slices}",
                        beside_server,
                        **where,
                        options={**options, "name": name},
                    )
                )
    return cases


def _rows() -> list[Row]:
    rows = []
    for name in NEEDS:
        for slices in SLICES:
            ours, backlog, quiet = (
                f"{name}, {slices}",
                f"{name}, backlog, {slices}",
                (f"no logging, {slices}",),
            )
            where = f"in a loop of {slices} slices, {name}"
            peers = tuple(f"{label}, {slices}" for label in PEERS) if name == SQLITE else ()
            rows += [
                Row(
                    "B4",
                    f"stored {where}",
                    "stored_per_second",
                    "/s",
                    ours=ours,
                    peers=peers,
                    better="higher",
                    at_least=1,
                ),
                Row("B4", f"share stored {where}", "stored_percent", "%", ours=ours),
                Row(
                    *(
                        "B4",
                        f"backlog stored {where}",
                        "drained_per_second",
                        "/s",
                        backlog,
                        (f"{name}, backlog, idle",),
                    ),
                    better="higher",
                    at_least=0.6,
                ),
                Row(
                    "B4",
                    f"longest pause {where}",
                    "pause_ms",
                    "ms",
                    ours=ours,
                    peers=quiet,
                    compare="difference",
                    at_most=5,
                ),
                Row(
                    "B4",
                    f"the same, with a backlog, {where}",
                    "pause_ms",
                    "ms",
                    backlog,
                    quiet,
                    compare="difference",
                    at_most=5,
                ),
            ]
            if name in SERVERS:
                busy, beside = (
                    (f"{name} at work, {slices}",),
                    f"the same, beside a server at work, {where}",
                )
                rows.append(
                    Row("B4", beside, "pause_ms", "ms", backlog, busy, compare="difference")
                )
    return rows


BENCHMARK = Benchmark(
    name="b4",
    title="events stored while the event loop is saturated by callbacks of 1 ms and of 0.1 ms",
    cases=tuple(_cases()),
    rows=tuple(_rows()),
    size={"seconds": 5.0, "backlog": 100_000},
    smoke={"seconds": 0.1, "backlog": 500},
)
