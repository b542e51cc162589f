"""Structured logging and job tracking for asyncio, on structlog.

Log as you already do: every event knows its job, is safe the moment the call returns, and can be asked for afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structjob.configuration import configure
    from structjob.context import current_job, current_step, enrich, environment, extract, inject
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
    from structjob.installation import install
    from structjob.jobfiles import JobFileSink
    from structjob.lifecycle import Attempt, Job, Step, retrying, step
    from structjob.logfile import FileSink
    from structjob.logger import success
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
    from structjob.pipeline import FanOut
    from structjob.processors import Sample, add_context, capture
    from structjob.redaction import Redactor, secret
    from structjob.retention import Pruned, Retention
    from structjob.sinks import ConsoleSink, Record, Sink
    from structjob.statistics import ErrorGroup, StatisticsFilter
    from structjob.tracker import Tracker

_WHERE = {
    "configuration": ("configure",),
    "context": ("current_job", "current_step", "enrich", "environment", "extract", "inject"),
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
    "installation": ("install",),
    "jobfiles": ("JobFileSink",),
    "lifecycle": ("Attempt", "Job", "Step", "retrying", "step"),
    "logfile": ("FileSink",),
    "logger": ("success",),
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
    "pipeline": ("FanOut",),
    "processors": ("Sample", "add_context", "capture"),
    "redaction": ("Redactor", "secret"),
    "retention": ("Pruned", "Retention"),
    "sinks": ("ConsoleSink", "Record", "Sink"),
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
    "capture",
    "configure",
    "current_job",
    "current_step",
    "enrich",
    "environment",
    "extract",
    "inject",
    "install",
    "retrying",
    "secret",
    "step",
    "success",
]


def __getattr__(name: str) -> Any:
    # Each name is imported when it is first used: a command line that prints its help need not load a database layer.
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'structjob' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"structjob.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
