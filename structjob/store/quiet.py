"""Keep what SQLAlchemy logs about our engines out of the program's own log.

A program that logs the statements of its own engines (``sqlalchemy.engine`` at INFO) would get ours
with them. Our engines have loggers of their own, so that the program's engines log as before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine

NAMES = {"logging_name": "structjob", "pool_logging_name": "structjob"}
"""Options of ``create_engine``; their loggers are known by the end of their names, see
`structjob.diagnostics.is_own`.
"""


def names(given: Mapping[str, Any]) -> dict[str, str]:
    """Return `NAMES` with the names that a program gave in *given* before them.

    Its levels and handlers hold for our loggers, too, which are still known as ours: storing an
    event must not record the statements that store it.
    """
    return {
        option: f"{given[option]}.{name}" if given.get(option) else name
        for option, name in NAMES.items()
    }


def quiet(engine: Engine) -> Engine:
    """Suppress the statements of *engine*, and what its pool logs; return *engine*.

    If a connection fails when it is returned, its pool logs a traceback. Our own message says more.

    Args:
        engine: An engine that was created with `NAMES`.
    """
    owners: tuple[tuple[Any, int], ...] = (
        (engine, logging.WARNING),
        (engine.pool, logging.CRITICAL),
    )
    for owner, least in owners:
        logger = getattr(owner.logger, "logger", owner.logger)  # SQLAlchemy wraps it with `echo`
        logger.setLevel(least)
        # `dictConfig` resets the level of a logger below one that it configures, and no filter
        logger.addFilter(_FILTERS[least])
    return engine


class _AtLeast(logging.Filter):
    def __init__(self, level: int) -> None:
        super().__init__()
        self._level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self._level


_FILTERS = {level: _AtLeast(level) for level in (logging.WARNING, logging.CRITICAL)}
