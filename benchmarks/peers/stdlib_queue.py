"""The standard library's QueueHandler and QueueListener, with JSON to /dev/null or rows to
SQLite.
"""

from __future__ import annotations

import contextvars
import logging
import logging.handlers
import queue
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import orjson

from benchmarks import payload
from benchmarks.peers.sqlite_rows import Rows

CONTEXT: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("context")
RESERVED = (
    frozenset(vars(logging.makeLogRecord({})))
    | {"message", "asctime", "taskName"}
    | set(payload.CONTEXT)
)


def add_context(record: logging.LogRecord) -> bool:
    """Copy the task's ids to the record, with the logging cookbook's filter for contextual
    information.
    """
    record.__dict__.update(CONTEXT.get())
    return True


class UncopiedQueueHandler(logging.handlers.QueueHandler):
    """Puts the record on the queue unchanged: within one process it need not be formatted and
    copied.
    """

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record


class JsonFormatter(logging.Formatter):
    """Writes a record's own fields as one JSON line, as python-json-logger does, without its
    generality.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "event": record.getMessage(),
            **{
                name: value
                for name, value in vars(record).items()
                if name not in RESERVED or name in payload.CONTEXT
            },
        }
        return orjson.dumps(fields).decode()


class RowsHandler(logging.Handler):
    """Collects rows and writes them in batches."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        self._batch: list[tuple[object, ...]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        attributes = {name: value for name, value in fields.items() if name not in RESERVED}
        ts = datetime.fromtimestamp(record.created, UTC).isoformat(" ", "microseconds")[:26]
        context = [fields[name] for name in payload.CONTEXT]
        self._batch.append(
            (
                ts,
                record.levelname.lower(),
                record.getMessage(),
                orjson.dumps(attributes).decode(),
                *context,
            )
        )
        if len(self._batch) >= self._rows.batch:
            self.flush()

    def flush(self) -> None:
        batch, self._batch = self._batch, []
        self._rows.write(batch)


class BatchingListener(logging.handlers.QueueListener):
    """Flushes its handlers whenever the queue is empty, so that no record waits for a full
    batch.
    """

    def dequeue(self, block: bool) -> logging.LogRecord:
        try:
            return self.queue.get_nowait()
        except queue.Empty:
            for handler in self.handlers:
                handler.flush()
            return self.queue.get(block)


class StdlibQueue:
    """A logger whose only handler is a QueueHandler, with the optimizations of the logging
    HOWTO.
    """

    def __init__(self, handler: logging.Handler, *, copy: bool = True) -> None:
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        # the HOWTO's way to omit the caller's line; structjob does not look it up either
        logging._srcfile = None
        self._queue: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        front = (logging.handlers.QueueHandler if copy else UncopiedQueueHandler)(self._queue)
        front.addFilter(add_context)
        self._log = logging.getLogger("bench")
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._log.addHandler(front)
        self._handler = handler
        self._listener = BatchingListener(self._queue, handler)
        self._listener.start()

    def bind(self, context: Mapping[str, str]) -> None:
        CONTEXT.set(dict(context))

    def burst(self, count: int) -> None:
        log = self._log
        for number in range(count):
            log.info(
                payload.MESSAGE,
                extra={
                    "vm": payload.VM,
                    "transferred": payload.TRANSFERRED + number,
                    "ratio": payload.RATIO,
                    "verified": True,
                    "path": payload.PATH,
                },
            )

    def settle(self) -> None:
        while not self._queue.empty():
            time.sleep(0.002)
        self._listener.stop()  # joins the thread: the last batch is written
        self._handler.flush()
        self._listener.start()


class StdlibQueueToSqlite(StdlibQueue):
    """The same, with rows to SQLite behind the queue."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        super().__init__(RowsHandler(rows), copy=False)

    @property
    def stored(self) -> int:
        return self._rows.stored


def to_devnull(*, copy: bool) -> StdlibQueue:
    """Return the peer with JSON lines to /dev/null behind the queue."""
    handler = logging.StreamHandler(Path("/dev/null").open("w"))  # noqa: SIM115  # open as long as the process
    handler.setFormatter(JsonFormatter())
    return StdlibQueue(handler, copy=copy)


def to_sqlite(path: str) -> StdlibQueueToSqlite:
    """Return the peer with SQLite behind the queue."""
    return StdlibQueueToSqlite(Rows(path))
