"""Measure the speed of logging on this machine, in a temporary database."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

LINES = 20_000
_BREATH = 500
"""Lines between two turns of the event loop, because a real program also does other things."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The result of the measurement.

    Args:
        lines: How many lines were logged.
        logging: Seconds spent in log calls.
        storing: Seconds from the first call until the last line was stored.
        lost: Lines that were not stored.
    """

    lines: int
    logging: float
    storing: float
    lost: int


async def measure(directory: Path) -> Speed:
    """Log lines within a job, into a database in *directory*, and return the measured speed."""
    import structlog

    import structjob

    structjob.configure(console=False)
    log = structlog.get_logger("demo.measure")
    logging = 0.0
    async with (
        structjob.Tracker(
            f"sqlite:///{directory / 'measure.db'}", service="structjob demo"
        ) as tracker,
        tracker.job("measure"),
    ):
        began = time.perf_counter()
        for first in range(0, LINES, _BREATH):
            start = time.perf_counter()
            for number in range(first, first + _BREATH):
                log.info("line measured", number=number, part="photos", bytes=48_213)
            logging += time.perf_counter() - start
            await asyncio.sleep(0)
        await tracker.flush()
        storing = time.perf_counter() - began
        ledger = tracker.ledger()
    return Speed(LINES, logging, storing, ledger.accepted - ledger.stored + ledger.rejected)
