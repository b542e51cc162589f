"""loguru: ``enqueue=True`` to /dev/null, and two sinks that write SQLite."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from loguru import logger

from benchmarks import payload
from benchmarks.peers.sqlite_rows import Rows


class Loguru:
    """A logger with one sink; loguru's expensive extras (``backtrace``, ``diagnose``, ``catch``)
    are off.
    """

    def __init__(self, sink: Any, **options: Any) -> None:
        self._bound: list[Any] = []
        logger.remove()
        logger.add(sink, level="INFO", backtrace=False, diagnose=False, catch=False, **options)

    def bind(self, context: Mapping[str, str]) -> None:
        bound = logger.contextualize(**context)
        bound.__enter__()  # for the whole task
        self._bound.append(bound)  # without a reference it would end

    def burst(self, count: int) -> None:
        for number in range(count):
            logger.info(
                payload.MESSAGE,
                vm=payload.VM,
                transferred=payload.TRANSFERRED + number,
                ratio=payload.RATIO,
                verified=True,
                path=payload.PATH,
            )

    def settle(self) -> None:
        logger.complete()


class LoguruToSqlite(Loguru):
    """A sink that collects rows and writes them in batches, behind the queue or in the caller."""

    def __init__(self, path: str, *, enqueue: bool) -> None:
        self._rows = Rows(path)
        self._batch: list[tuple[object, ...]] = []
        super().__init__(self._sink, format="{message}", enqueue=enqueue)

    @property
    def stored(self) -> int:
        return self._rows.stored

    def _sink(self, message: Any) -> None:
        record = message.record
        extra = dict(record["extra"])
        context = [extra.pop(name) for name in payload.CONTEXT]
        ts = record["time"].isoformat(" ", "microseconds")[:26]
        self._batch.append(
            (
                ts,
                record["level"].name.lower(),
                record["message"],
                orjson.dumps(extra).decode(),
                *context,
            )
        )
        if len(self._batch) >= self._rows.batch:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._rows.write(batch)

    def settle(self) -> None:
        logger.complete()
        self._flush()


def to_devnull() -> Loguru:
    """Return the peer with serialized JSON to /dev/null behind loguru's queue."""
    # open as long as the process
    return Loguru(Path("/dev/null").open("w"), format="{message}", enqueue=True, serialize=True)
