"""structlog as its performance page recommends it: JSON bytes to /dev/null only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from benchmarks import payload


class StructlogJson:
    """The recommended configuration, with the given encoder."""

    def __init__(self, dumps: Callable[..., bytes]) -> None:
        structlog.configure(
            cache_logger_on_first_use=True,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(serializer=dumps),
            ],
            logger_factory=structlog.BytesLoggerFactory(file=Path("/dev/null").open("wb")),  # noqa: SIM115  # open as long as the process
        )
        # not the lazy proxy, as the performance page recommends
        self._log = structlog.get_logger().bind()

    def bind(self, context: Mapping[str, str]) -> None:
        structlog.contextvars.bind_contextvars(**context)

    def burst(self, count: int) -> None:
        log = self._log
        for number in range(count):
            log.info(
                payload.MESSAGE,
                vm=payload.VM,
                transferred=payload.TRANSFERRED + number,
                ratio=payload.RATIO,
                verified=True,
                path=payload.PATH,
            )

    def settle(self) -> None:
        """Do nothing, because every call wrote its line."""


def with_orjson() -> StructlogJson:
    """Return the peer with orjson, which the performance page names."""
    import orjson

    return StructlogJson(orjson.dumps)


def with_msgspec() -> StructlogJson:
    """Return the peer with msgspec.

    Its encoder accepts no ``default``, so a wrapper drops the one that structlog passes.
    """
    import msgspec

    encode = msgspec.json.Encoder().encode

    def dumps(event: dict[str, Any], **_: Any) -> bytes:
        return encode(event)

    return StructlogJson(dumps)
