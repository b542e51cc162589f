"""``/metrics``: metrics of the database and of this server, for Prometheus.

Metrics of the database include all programs that log to it. Metrics that count jobs or lines cover
a window of 24 hours, and are gauges: rows are pruned, so that a counter could decrease.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

from structjob.exceptions import StructjobError
from structjob.statistics import OperationStatistics
from structjob.web.hub import Hub
from structjob.web.source import Source

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WINDOW = timedelta(hours=24)

_OPERATIONS = 100
"""Number of operations with their own series: those with the most jobs."""

_STATUSES = ("completed", "failed", "cancelled", "crashed", "running", "pending")
_QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}

Series = Iterator[tuple[Mapping[str, str], float]]


async def exposition(source: Source, hub: Hub) -> str:
    """Return the metrics in Prometheus' format.

    While the database is unavailable, the result is only ``structjob_up 0``.
    """
    streams = Counter(one.transport for one in hub.subscriptions)
    try:
        await source.open()
        operations = await source.stats.operations(since=WINDOW, limit=_OPERATIONS)
        volume = await source.stats.volume(since=WINDOW)
        sessions = await source.sessions.list(limit=10_000, live=True)
        open_errors = await source.errors.list(status=["open", "regressed"], since=WINDOW)
    except StructjobError:
        return _family("structjob_up", "Whether the database answers.", iter([({}, 0)]))
    statuses = Counter(one.status.value for one in sessions)
    return "".join(
        (
            _family("structjob_up", "Whether the database answers.", iter([({}, 1)])),
            _family(
                "structjob_jobs",
                "Jobs created within 24 hours, by operation and status.",
                _jobs(operations),
            ),
            _family(
                "structjob_job_duration_seconds",
                "Durations of completed jobs created within 24 hours.",
                _durations(operations),
            ),
            _family(
                "structjob_log_lines",
                "Log lines of the last 24 hours, by level.",
                (({"level": level}, number) for level, number in volume.by_level.items()),
            ),
            _family(
                "structjob_errors_open",
                "Errors seen within 24 hours that are not resolved.",
                iter([({}, len(open_errors))]),
            ),
            _family(
                "structjob_sessions",
                "Sessions that have not ended, by sign of life.",
                (({"status": status}, number) for status, number in statuses.items()),
            ),
            _family(
                "structjob_streams",
                "Live streams of this server, by transport.",
                (({"transport": name}, streams[name]) for name in ("ws", "sse", "poll")),
            ),
        )
    )


def _jobs(operations: list[OperationStatistics]) -> Series:
    for one in operations:
        for status in _STATUSES:
            yield {"operation": one.operation, "status": status}, getattr(one, status)


def _durations(operations: list[OperationStatistics]) -> Series:
    for one in operations:
        for quantile, name in _QUANTILES.items():
            value = getattr(one, name)
            if value is not None:
                yield {"operation": one.operation, "quantile": quantile}, value / 1000


def _family(name: str, help_: str, series: Series) -> str:
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} gauge"]
    for labels, value in series:
        shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"{name}{{{shown}}} {value:g}" if shown else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
