"""A common custom solution: structlog, a queue, and a thread that inserts batches."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import orjson
import structlog

from benchmarks import payload
from benchmarks.peers.sqlite_rows import Rows


class StructlogThread:
    """The last processor puts the event's dict on a queue; a thread converts the dicts to rows."""

    def __init__(self, path: str) -> None:
        self._rows = Rows(path)
        self._queue: queue.SimpleQueue[MutableMapping[str, Any]] = queue.SimpleQueue()
        self._idle = threading.Event()
        structlog.configure(
            cache_logger_on_first_use=True,
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.format_exc_info,
                structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S.%f", utc=True),
                self._put,
            ],
            logger_factory=structlog.ReturnLoggerFactory(),
        )
        self._log = structlog.get_logger().bind()
        threading.Thread(target=self._store, daemon=True).start()

    @property
    def stored(self) -> int:
        return self._rows.stored

    def _put(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
        self._queue.put(event)
        return ""

    def _store(self) -> None:
        while True:
            if self._queue.empty():
                self._idle.set()
            events = [self._queue.get()]
            self._idle.clear()
            try:
                while len(events) < self._rows.batch:
                    events.append(self._queue.get_nowait())
            except queue.Empty:
                pass
            self._rows.write([_row(event) for event in events])

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
        while not (self._queue.empty() and self._idle.is_set()):
            time.sleep(0.002)


def _row(event: MutableMapping[str, Any]) -> tuple[object, ...]:
    take = event.pop
    head = (take("timestamp"), take("level"), take("event"))
    context = [take(name) for name in payload.CONTEXT]
    return (*head, orjson.dumps(event).decode(), *context)
