"""The types that calls take or return and that `structjob` itself does not export, for annotations.

A tracker returns the readers (`Jobs`, `Logs`, …) and handles. Do not create them yourself.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

from structjob.context.errors import Classifier
from structjob.context.propagation import RemoteContext
from structjob.context.scope import Binding
from structjob.engine.listeners import Callback, Listener
from structjob.engine.queue import Queue
from structjob.filter_checks import Moment
from structjob.filters import (
    AttemptFilterKeywords,
    ErrorFilterKeywords,
    EventType,
    JobFilterKeywords,
    LogFilterKeywords,
    Order,
    Sort,
    Status,
    Stream,
)
from structjob.levels import Level
from structjob.lifecycle.bars import Bars
from structjob.lifecycle.contexts import StepContext
from structjob.lifecycle.handle import Guard
from structjob.lifecycle.hooks import BeginSpan, EndSpan
from structjob.lifecycle.items import Items
from structjob.lifecycle.jobs import JobContext, JobKeywords, JobUpdate, RetryKeywords
from structjob.lifecycle.options import IdOfCall
from structjob.lifecycle.policy import RetryOptions
from structjob.lifecycle.printed import CapturedOutput
from structjob.lifecycle.processes import ProcessKeywords
from structjob.lifecycle.retries import Retrying
from structjob.lifecycle.waiting import Done
from structjob.models import AnyJob, EncodedEvent
from structjob.queries.errors import Errors
from structjob.queries.health import Health
from structjob.queries.job_finder import IdResolver
from structjob.queries.job_watch import JobChanges, JobWatch
from structjob.queries.jobs import Jobs
from structjob.queries.logs import Logs
from structjob.queries.session_status import Sessions
from structjob.queries.statistics import Statistics
from structjob.queries.tail import Tail
from structjob.queries.verify import Orphans, SessionState, SessionVerification
from structjob.retention.policy import Age
from structjob.sinks.console import Console
from structjob.sinks.sink import AnySink
from structjob.spool.queue import Overflow
from structjob.statistics import (
    ErrorInterval,
    ErrorStatistics,
    Estimate,
    Expectation,
    JobErrors,
    JobEvents,
    JobSummary,
    LogBar,
    LogHistogram,
    OperationStatistics,
    ProjectStatistics,
    StatsFilterKeywords,
    StepEstimate,
    StepStatistics,
    Storage,
    Summary,
    TableStorage,
    Throughput,
    Volume,
)
from structjob.statuses import (
    EndStatus,
    ErrorOutcome,
    ErrorStatus,
    ErrorStatusName,
    JobStatusName,
    StepEndStatus,
    StepStatusName,
)
from structjob.tracker import TrackerKeywords
from structjob.transfer.export import ExportFormat
from structjob.values.secret_rules import Rule
from structjob.worker_processes import WorkerInitializer


class BoundLogger(Protocol):
    """The type of ``structlog.get_logger()`` after `structjob.configure`: structlog's methods, and
    ``success``.
    """

    def bind(self, **new_values: Any) -> Self:
        """Return a logger with these additional attributes."""

    def unbind(self, *keys: str) -> Self:
        """Return a logger without these attributes."""

    def new(self, **new_values: Any) -> Self:
        """Return a logger with these attributes only."""

    def debug(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``debug`` (10)."""

    def info(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``info`` (20)."""

    def success(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``success`` (25)."""

    def warning(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``warning`` (30)."""

    def error(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``error`` (40)."""

    def exception(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``error`` with the exception that is being handled."""

    def critical(self, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at level ``critical`` (50)."""

    def log(self, level: int, event: Any = ..., /, *args: Any, **attrs: Any) -> Any:
        """Log at a level given as a number."""


__all__ = [
    "Age",
    "AnyJob",
    "AnySink",
    "AttemptFilterKeywords",
    "Bars",
    "BeginSpan",
    "Binding",
    "BoundLogger",
    "Callback",
    "CapturedOutput",
    "Classifier",
    "Console",
    "Done",
    "EncodedEvent",
    "EndSpan",
    "EndStatus",
    "ErrorFilterKeywords",
    "ErrorInterval",
    "ErrorOutcome",
    "ErrorStatistics",
    "ErrorStatus",
    "ErrorStatusName",
    "Errors",
    "Estimate",
    "EventType",
    "Expectation",
    "ExportFormat",
    "Guard",
    "Health",
    "IdOfCall",
    "IdResolver",
    "Items",
    "JobChanges",
    "JobContext",
    "JobErrors",
    "JobEvents",
    "JobFilterKeywords",
    "JobKeywords",
    "JobStatusName",
    "JobSummary",
    "JobUpdate",
    "JobWatch",
    "Jobs",
    "Level",
    "Listener",
    "LogBar",
    "LogFilterKeywords",
    "LogHistogram",
    "Logs",
    "Moment",
    "OperationStatistics",
    "Order",
    "Orphans",
    "Overflow",
    "ProcessKeywords",
    "ProjectStatistics",
    "Queue",
    "RemoteContext",
    "RetryKeywords",
    "RetryOptions",
    "Retrying",
    "Rule",
    "SessionState",
    "SessionVerification",
    "Sessions",
    "Sort",
    "Statistics",
    "StatsFilterKeywords",
    "Status",
    "StepContext",
    "StepEndStatus",
    "StepEstimate",
    "StepStatistics",
    "StepStatusName",
    "Storage",
    "Stream",
    "Summary",
    "TableStorage",
    "Tail",
    "Throughput",
    "TrackerKeywords",
    "Volume",
    "WorkerInitializer",
]
