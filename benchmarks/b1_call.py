"""B1, B1': the cost of one log call for its caller."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable
from importlib import import_module
from time import perf_counter_ns, thread_time_ns

from benchmarks import payload
from benchmarks.registry import Benchmark, Case, Row

WARM_UP = 1_000
TURN = 100
"""Calls between two turns of the loop in the sustained part."""
REST = 0.005
"""Seconds of rest before each burst, the same for every case.

A caller that waited for a database or slept continues with cold caches.
"""


def structjob(*, bursts: int, calls: int, sustained: int) -> dict[str, float]:
    """Log inside a job and a step: spool on, SQLite connected, JSON lines to the console.

    The console is /dev/null.
    """
    from benchmarks import ours

    async def work() -> dict[str, float]:
        async with ours.step(console="json") as (tracker, log):
            ours.burst(log, WARM_UP)
            return await measure(
                lambda count: ours.burst(log, count), tracker.flush, bursts, calls, sustained
            )

    return asyncio.run(work())


def peer(
    *, bursts: int, calls: int, sustained: int, factory: str, **options: bool
) -> dict[str, float]:
    """Log the same event through *factory*, a function of a module in ``benchmarks.peers``."""
    module, name = factory.split(":")
    logging_peer = getattr(import_module(f"benchmarks.peers.{module}"), name)(**options)

    async def work() -> dict[str, float]:
        logging_peer.bind(payload.CONTEXT)
        logging_peer.burst(WARM_UP)

        async def settle() -> None:
            logging_peer.settle()

        measured = await measure(logging_peer.burst, settle, bursts, calls, sustained)
        logging_peer.settle()
        return measured

    return asyncio.run(work())


async def measure(
    burst: Callable[[int], None],
    settle: Callable[[], Awaitable[None]],
    bursts: int,
    calls: int,
    sustained: int,
) -> dict[str, float]:
    """Measure the time per call, in µs.

    These are the median of bursts after a rest, in wall-clock time and in CPU time of the calling
    thread, and the mean of sustained calls. The median ignores a burst that another process
    interrupted. The CPU time is the same on a busy machine.
    """
    samples, cpu = [], []
    for _ in range(bursts):
        await settle()
        await asyncio.sleep(REST)
        before, start = thread_time_ns(), perf_counter_ns()
        burst(calls)
        samples.append(perf_counter_ns() - start)
        cpu.append(thread_time_ns() - before)
    await settle()
    start = perf_counter_ns()
    for _ in range(sustained // TURN):
        burst(TURN)
        await asyncio.sleep(0)
    return {
        "us": statistics.median(samples) / calls / 1_000,
        "cpu_us": statistics.median(cpu) / calls / 1_000,
        "sustained_us": (perf_counter_ns() - start) / sustained / 1_000,
    }


STRUCTLOG = ("structlog, orjson", "structlog, msgspec")
STDLIB = "stdlib QueueHandler"
STDLIB_UNCOPIED = "stdlib QueueHandler, prepare() overridden"
LOGURU = "loguru, enqueue"
OTEL = "OTel batch"
LOGFIRE = "Logfire, local"


def _rows() -> list[Row]:
    beside = (
        ((STDLIB,), 1 / 4),
        ((STDLIB_UNCOPIED,), None),
        ((LOGURU,), 1 / 12),
        ((OTEL,), 1 / 5),
        ((LOGFIRE,), 1 / 8),
    )
    call, busy = "one log call", "one log call of 20,000 in a row, background busy"
    return [
        Row("B1", call, "us", "µs", ours="structjob", peers=STRUCTLOG, at_most=0.65),
        *(
            Row("B1'", call, "us", "µs", ours="structjob", peers=peers, at_most=mark)
            for peers, mark in beside
        ),
        Row(
            "B1",
            f"{call}, CPU time of its thread",
            "cpu_us",
            "µs",
            ours="structjob",
            peers=STRUCTLOG,
        ),
        Row("B1", busy, "sustained_us", "µs", ours="structjob", peers=STRUCTLOG),
        *(
            Row("B1'", busy, "sustained_us", "µs", ours="structjob", peers=peers, at_most=mark)
            for peers, mark in beside
        ),
    ]


BENCHMARK = Benchmark(
    name="b1",
    title="one log.info inside job and step, spool on, database attached, JSON console to /dev/null; peers to /dev/null without a database",
    cases=(
        Case("structjob", structjob),
        Case(
            "structlog, orjson",
            peer,
            needs=("orjson",),
            options={"factory": "structlog_json:with_orjson"},
        ),
        Case("structlog, msgspec", peer, options={"factory": "structlog_json:with_msgspec"}),
        Case(
            STDLIB,
            peer,
            needs=("orjson",),
            options={"factory": "stdlib_queue:to_devnull", "copy": True},
        ),
        Case(
            STDLIB_UNCOPIED,
            peer,
            needs=("orjson",),
            options={"factory": "stdlib_queue:to_devnull", "copy": False},
        ),
        Case(LOGURU, peer, needs=("loguru",), options={"factory": "loguru_sink:to_devnull"}),
        Case(
            OTEL, peer, needs=("opentelemetry.sdk",), options={"factory": "otel_batch:to_devnull"}
        ),
        Case(LOGFIRE, peer, needs=("logfire",), options={"factory": "logfire_local:LogfireLocal"}),
    ),
    rows=tuple(_rows()),
    size={"bursts": 60, "calls": 300, "sustained": 20_000},
    smoke={"bursts": 2, "calls": 20, "sustained": 200},
)
