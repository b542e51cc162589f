"""Structured logging and job tracking for asyncio, on structlog.

Log as you already do: every event knows its job, is safe the moment the call returns, and can be
asked for afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structjob.capture.configure import configure
    from structjob.capture.fanout import FanOut
    from structjob.capture.install import install
    from structjob.capture.logger import success
    from structjob.capture.processors import Sample, add_context, record_event
    from structjob.context.scope import (
        current_job,
        current_step,
        enrich,
        environment,
        extract,
        inject,
    )
    from structjob.exceptions import (
        Cancelled,
        ErrorGroupNotFound,
        EventNotFound,
        IllegalTransition,
        ImportRefused,
        InvalidArgument,
        InvalidFilter,
        InvalidURL,
        JobNotFound,
        NotOpen,
        PruneInProgress,
        SchemaMismatch,
        SpoolError,
        StoreUnavailable,
        StructjobError,
    )
    from structjob.filters import AttemptFilter, JobFilter, LogFilter
    from structjob.lifecycle import Attempt, Job, Step, retrying, step
    from structjob.models import (
        AttemptRecord,
        ErrorInfo,
        Event,
        Gap,
        JobRecord,
        JobStatus,
        JobTree,
        Ledger,
        Page,
        Progress,
        SessionRecord,
        StepRecord,
        StepStatus,
        Surroundings,
    )
    from structjob.retention.policy import Pruned, Retention
    from structjob.sinks.console import ConsoleSink, Record, Sink
    from structjob.sinks.file import FileSink
    from structjob.sinks.jobfile import JobFileSink
    from structjob.statistics import ErrorGroup, StatisticsFilter
    from structjob.tracker import Tracker
    from structjob.values.redaction import Redactor, secret

_WHERE = {
    "capture.configure": ("configure",),
    "context.scope": ("current_job", "current_step", "enrich", "environment", "extract", "inject"),
    "exceptions": (
        "Cancelled",
        "ErrorGroupNotFound",
        "EventNotFound",
        "IllegalTransition",
        "ImportRefused",
        "InvalidArgument",
        "InvalidFilter",
        "InvalidURL",
        "JobNotFound",
        "NotOpen",
        "PruneInProgress",
        "SchemaMismatch",
        "SpoolError",
        "StoreUnavailable",
        "StructjobError",
    ),
    "filters": ("AttemptFilter", "JobFilter", "LogFilter"),
    "capture.install": ("install",),
    "sinks.jobfile": ("JobFileSink",),
    "lifecycle": ("Attempt", "Job", "Step", "retrying", "step"),
    "sinks.file": ("FileSink",),
    "capture.logger": ("success",),
    "models": (
        "AttemptRecord",
        "ErrorInfo",
        "Event",
        "Gap",
        "JobRecord",
        "JobStatus",
        "JobTree",
        "Ledger",
        "Page",
        "Progress",
        "SessionRecord",
        "StepRecord",
        "StepStatus",
        "Surroundings",
    ),
    "capture.fanout": ("FanOut",),
    "capture.processors": ("Sample", "add_context", "record_event"),
    "values.redaction": ("Redactor", "secret"),
    "retention.policy": ("Pruned", "Retention"),
    "sinks.console": ("ConsoleSink", "Record", "Sink"),
    "statistics": ("ErrorGroup", "StatisticsFilter"),
    "tracker": ("Tracker",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Attempt",
    "AttemptFilter",
    "AttemptRecord",
    "Cancelled",
    "ConsoleSink",
    "ErrorGroup",
    "ErrorGroupNotFound",
    "ErrorInfo",
    "Event",
    "EventNotFound",
    "FanOut",
    "FileSink",
    "Gap",
    "IllegalTransition",
    "ImportRefused",
    "InvalidArgument",
    "InvalidFilter",
    "InvalidURL",
    "Job",
    "JobFileSink",
    "JobFilter",
    "JobNotFound",
    "JobRecord",
    "JobStatus",
    "JobTree",
    "Ledger",
    "LogFilter",
    "NotOpen",
    "Page",
    "Progress",
    "PruneInProgress",
    "Pruned",
    "Record",
    "Redactor",
    "Retention",
    "Sample",
    "SchemaMismatch",
    "SessionRecord",
    "Sink",
    "SpoolError",
    "StatisticsFilter",
    "Step",
    "StepRecord",
    "StepStatus",
    "StoreUnavailable",
    "StructjobError",
    "Surroundings",
    "Tracker",
    "add_context",
    "configure",
    "current_job",
    "current_step",
    "enrich",
    "environment",
    "extract",
    "inject",
    "install",
    "record_event",
    "retrying",
    "secret",
    "step",
    "success",
]


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used: a command line that prints its help need not load
    # a database layer.
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'structjob' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"structjob.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
