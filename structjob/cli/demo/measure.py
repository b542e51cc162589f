"""How fast logging is here and now: measured in a database of its own, so that nothing is left of
it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

LINES = 20_000
_BREATH = 500
"""Lines between two turns of the loop: a program does other things as well."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured.

    Args:
        lines: How many were logged.
        logging: Seconds spent in log calls.
        storing: Seconds from the first call until the last line was stored.
        lost: Lines that were not stored.
    """

    lines: int
    logging: float
    storing: float
    lost: int


async def measure(directory: Path) -> Speed:
    """Log some lines within a job, into a database in *directory*."""
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
