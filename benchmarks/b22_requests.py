"""B22: a small FastAPI application whose requests are jobs, compared with the same application
without the middleware.

Both answer in turn in one process. The CPU time of the loop's thread is compared, because other
programs share the cores. Then the slowest requests of the application with the middleware are
compared, in turn with the database free, and frozen: another connection holds the file locked.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from statistics import median, quantiles
from time import perf_counter, thread_time
from typing import Any

import structjob as library
from benchmarks.registry import Benchmark, Case, Row

URL = "sqlite:///bench.db"
GROUP = 20
"""Requests that are measured together."""


def _application() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    return app


async def _ask(app: Any, number: int) -> None:
    path = f"/items/{number}"
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 80),
        "headers": [(b"host", b"localhost"), (b"user-agent", b"curl/8"), (b"accept", b"*/*")], "state": {},
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        statuses.append(message.get("status", 0))

    await app(scope, receive, send)
    if statuses[0] != 200:
        raise RuntimeError(f"the application answered {statuses[0]}")


def requests(*, groups: int) -> dict[str, float]:
    """Ask both applications in turn."""
    library.configure(console=False)

    async def work() -> dict[str, float]:
        async with library.Tracker(URL) as tracker:
            plain, tracked = _application(), _application()
            library.asgi.install(tracked, tracker)
            took: dict[str, list[float]] = {"without": [], "with": []}
            for _ in range(groups):
                for name, app in (("without", plain), ("with", tracked)):
                    before = thread_time()
                    for number in range(GROUP):
                        await _ask(app, number)
                    took[name].append((thread_time() - before) / GROUP * 1e6)
                await tracker.flush()
            without, both = median(took["without"]), median(took["with"])
            return {"without_us": without, "added_us": both - without}

    return asyncio.run(work())


async def _latencies(app: Any) -> list[float]:
    """Return how many microseconds each of some requests took, with pauses for the writer."""
    took = []
    for number in range(10 * GROUP):
        before = perf_counter()
        await _ask(app, number)
        took.append((perf_counter() - before) * 1e6)
        await asyncio.sleep(0.001)
    return took


def frozen(*, groups: int) -> dict[str, float]:
    """Ask the application in turn with the database free and frozen."""
    library.configure(console=False)

    async def work() -> dict[str, float]:
        async with library.Tracker(URL) as tracker:
            app = _application()
            library.asgi.install(app, tracker)
            await _latencies(app)
            took: dict[bool, list[float]] = {False: [], True: []}
            with closing(sqlite3.connect(URL.rpartition("/")[2], isolation_level=None)) as other:
                for _ in range(max(groups // 10, 1)):
                    for locked in (False, True):
                        if locked:
                            other.execute("BEGIN IMMEDIATE")
                        took[locked].append(quantiles(await _latencies(app), n=100)[98])
                        if locked:
                            other.execute("ROLLBACK")
                        await tracker.flush()
            return {"free_p99_us": median(took[False]), "frozen_p99_us": median(took[True])}

    return asyncio.run(work())


BENCHMARK = Benchmark(
    name="b22",
    title="a request that is a job: the ASGI middleware beside none",
    cases=(
        Case("requests", requests, needs=("fastapi",)),
        Case("running", frozen, needs=("fastapi",)),
    ),
    rows=(
        Row(
            "B22",
            "CPU time that the middleware adds to a request (median)",
            "added_us",
            "µs",
            ours="requests",
            at_most=150,
        ),
        Row("B22", "a request without it (median)", "without_us", "µs", ours="requests"),
        Row(
            "B22",
            "the slowest of 100 requests with a frozen database, and with a running one",
            "frozen_p99_us",
            "µs",
            ours="running",
            peers=("running",),
            peer_metric="free_p99_us",
            at_most=1.2,
        ),
    ),
    size={"groups": 100},
    smoke={"groups": 2},
    rounds=3,
)
