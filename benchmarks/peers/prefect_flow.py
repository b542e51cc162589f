"""Prefect: a flow with a task for each step, on the local server that it starts, with SQLite."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

# Prefect reads these at import; the user's own configuration stays unchanged.
os.environ |= {
    "PREFECT_HOME": str(Path("prefect").absolute()),
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "INFO",
}

from prefect import flow, get_run_logger, task
from prefect.logging.handlers import APILogHandler

from benchmarks import payload


@task
def step(number: int, lines: int) -> None:
    log = get_run_logger()
    for line in range(lines):
        log.info("%s %s", payload.MESSAGE, payload.attributes(payload.TRANSFERRED + line))


@flow
def migrate(steps: int, lines: int) -> None:
    for number in range(steps):
        step(number, lines)


def flows(count: int, steps: int, lines: int) -> list[float]:
    """Run *count* flows; return the seconds of each, including the sending of its lines to the
    server.
    """
    took = []
    for _ in range(count):
        start = perf_counter()
        migrate(steps, lines)
        APILogHandler().flush()
        took.append(perf_counter() - start)
    return took
