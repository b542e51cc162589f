"""``/metrics``: metrics of the database and of this server, for Prometheus.

Metrics of the database include all programs that log to it. Metrics that count ended jobs or lines
cover a window of 24 hours, and are gauges: rows are pruned, so that a counter could decrease. Jobs
that have not ended are counted whenever they were created: one that hangs for days is among them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta

from structjob.exceptions import StructjobError
from structjob.statistics import OperationStatistics
from structjob.statuses import JobStatus
from structjob.web.hub import Hub
from structjob.web.source import Source

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WINDOW = timedelta(hours=24)

_OPERATIONS = 100
"""Number of operations with their own series: those with the most jobs."""

_ENDED = ("completed", "failed", "cancelled", "crashed")
_OPEN = (JobStatus.RUNNING, JobStatus.PENDING)
_SESSION_STATUSES = ("live", "silent", "died")
_QUANTILES = {"0.5": "p50_ms", "0.95": "p95_ms", "0.99": "p99_ms"}

Series = Iterator[tuple[Mapping[str, str], float]]


async def exposition(source: Source, hub: Hub) -> str:
    """Return the metrics in Prometheus' format.

    While the database is unavailable, the result is only ``structjob_up 0``.
    """
    streams = Counter(one.transport for one in hub.subscriptions)
    try:
        await source.open()
        reader = source.reader
        operations = await reader.stats.operations(since=WINDOW, by="ended", limit=_OPERATIONS)
        open_jobs = await reader.jobs.count_by_operation(status=_OPEN)
        volume = await reader.stats.volume(since=WINDOW)
        sessions = await reader.sessions.list(limit=10_000, live=True)
        open_errors = await reader.errors.count(status=("open", "regressed"), since=WINDOW)
    except StructjobError:
        return family("structjob_up", "Whether the database answers.", iter([({}, 0)]))
    statuses = Counter(one.status.value for one in sessions)
    return "".join(
        (
            family("structjob_up", "Whether the database answers.", iter([({}, 1)])),
            family(
                "structjob_jobs",
                "Jobs that ended within 24 hours, and all that run or are pending, by operation and status.",
                _jobs(operations, open_jobs),
            ),
            family(
                "structjob_job_duration_seconds",
                "Durations of the jobs that completed within 24 hours.",
                _durations(operations),
            ),
            family(
                "structjob_log_lines",
                "Log lines of the last 24 hours, by level.",
                (({"level": level}, number) for level, number in volume.by_level.items()),
            ),
            family(
                "structjob_errors_open",
                "Errors seen within 24 hours that are not resolved.",
                iter([({}, open_errors)]),
            ),
            family(
                "structjob_sessions",
                "Sessions that have not ended, by sign of life.",
                (({"status": status}, statuses[status]) for status in _SESSION_STATUSES),
            ),
            family(
                "structjob_streams",
                "Live streams of this server, by transport.",
                (({"transport": name}, streams[name]) for name in ("ws", "sse", "poll")),
            ),
        )
    )


def _jobs(
    operations: list[OperationStatistics], open_jobs: Mapping[str, Mapping[JobStatus, int]]
) -> Series:
    ended = {one.operation: one for one in operations}
    for name in dict.fromkeys([*ended, *open_jobs]):
        for status in _ENDED:
            number = getattr(ended[name], status) if name in ended else 0
            yield {"operation": name, "status": status}, number
        for status in _OPEN:
            number = open_jobs[name][status] if name in open_jobs else 0
            yield {"operation": name, "status": status.value}, number


def _durations(operations: list[OperationStatistics]) -> Series:
    for one in operations:
        for quantile, name in _QUANTILES.items():
            value = getattr(one, name)
            if value is not None:
                yield {"operation": one.operation, "quantile": quantile}, value / 1000


def family(name: str, help_: str, series: Series) -> str:
    """Return one metric with its series, in Prometheus' format.

    Args:
        name: The name of the metric.
        help_: What it counts.
        series: The labels and the value of each series.
    """
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} gauge"]
    for labels, value in series:
        shown = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
