"""Prefect: a flow with a task for each step, on the local server that it starts by itself, with
SQLite.
"""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

# Read when it is imported; nothing of the user's own set-up is touched.
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
    """Run *count* flows; return the seconds that each took, its lines sent to the server
    included.
    """
    took = []
    for _ in range(count):
        start = perf_counter()
        migrate(steps, lines)
        APILogHandler().flush()
        took.append(perf_counter() - start)
    return took
