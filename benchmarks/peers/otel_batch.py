"""OpenTelemetry's SDK: standard library logging through LoggingHandler and the batch processor."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    ConsoleLogRecordExporter,
    LogRecordExporter,
    LogRecordExportResult,
)

from benchmarks import payload
from benchmarks.peers.sqlite_rows import BATCH, Rows
from benchmarks.peers.stdlib_queue import CONTEXT, add_context


class SqliteExporter(LogRecordExporter):
    """Writes each batch that the processor exports in one transaction."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self._rows.write([_row(readable) for readable in batch])
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """Release nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class OtelBatch:
    """A logger whose handler translates records for the batch processor; its queue never drops a
    record.
    """

    def __init__(self, exporter: LogRecordExporter) -> None:
        logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
        self._provider = LoggerProvider()
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                exporter,
                schedule_delay_millis=200,
                max_export_batch_size=BATCH,
                max_queue_size=1_000_000,
            )
        )
        with warnings.catch_warnings():  # it moved to a contrib package that wraps the same code
            warnings.simplefilter("ignore", DeprecationWarning)
            handler = LoggingHandler(logger_provider=self._provider)
        handler.addFilter(add_context)
        self._log = logging.getLogger("bench")
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._log.addHandler(handler)

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
        self._provider.force_flush()


class OtelBatchToSqlite(OtelBatch):
    """The same, with an exporter that writes to SQLite."""

    def __init__(self, path: str) -> None:
        self._rows = Rows(path)
        super().__init__(SqliteExporter(self._rows))

    @property
    def stored(self) -> int:
        return self._rows.stored


def _row(readable: ReadableLogRecord) -> tuple[object, ...]:
    record = readable.log_record
    attributes = {
        name: value for name, value in record.attributes.items() if not name.startswith("code.")
    }
    context = [attributes.pop(name) for name in payload.CONTEXT]
    ts = datetime.fromtimestamp(record.timestamp / 1e9, UTC).isoformat(" ", "microseconds")[:26]
    return (
        ts,
        record.severity_text.lower(),
        record.body,
        orjson.dumps(attributes).decode(),
        *context,
    )


def to_devnull() -> OtelBatch:
    """Return the peer with the SDK's own JSON lines to /dev/null."""
    out = Path("/dev/null").open("w")  # noqa: SIM115  # open as long as the process
    return OtelBatch(
        ConsoleLogRecordExporter(
            out=out, formatter=lambda record: record.to_json(indent=None) + "\n"
        )
    )
