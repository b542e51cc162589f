"""Structured logging and job tracking for asyncio, based on structlog.

Log as you already do. Every event carries its job, is safe when the call returns, and can be
queried later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from structjob import alembic as alembic
    from structjob import asgi as asgi
    from structjob import click as click
    from structjob import exceptions as exceptions
    from structjob import http as http
    from structjob import processors as processors
    from structjob import typing as typing
    from structjob import wsgi as wsgi
    from structjob.capture.configure import configure
    from structjob.capture.install import install
    from structjob.capture.logger import success
    from structjob.capture.processors import add_context
    from structjob.capture.record_ids import IdFilter, add_ids_to_logging
    from structjob.capture.uncaught import capture_uncaught
    from structjob.context.errors import classify, enrich
    from structjob.context.executors import ContextExecutor, in_context
    from structjob.context.propagation import environment, extract, inject
    from structjob.context.tracing import Span
    from structjob.deliverer import Deliverer
    from structjob.exceptions import (
        AmbiguousId,
        Cancelled,
        ErrorGroupNotFound,
        EventNotFound,
        ImportRefused,
        InvalidArgument,
        InvalidFilter,
        InvalidState,
        InvalidURL,
        JobCancelled,
        JobNotFound,
        NotOpen,
        PruneInProgress,
        QueryTimeout,
        SchemaMismatch,
        SessionNotFound,
        SpoolError,
        StoreUnavailable,
        StructjobError,
        Terminated,
    )
    from structjob.filters import AttemptFilter, ErrorFilter, JobFilter, LogFilter
    from structjob.lifecycle import Job, Step, Try, job, retrying, step
    from structjob.lifecycle.correlation import correlate, current_correlation_id, detached
    from structjob.lifecycle.current import current_job, current_step
    from structjob.lifecycle.hooks import Hook, Transition, add_hook, set_tracing
    from structjob.lifecycle.operations import OperationLogger
    from structjob.lifecycle.printed import capture_output
    from structjob.lifecycle.process_result import CommandFailed, CommandTimeout, ProcessResult
    from structjob.models import (
        AttemptRecord,
        ErrorInfo,
        EventContext,
        EventRecord,
        Gap,
        JobProgress,
        JobRecord,
        JobTree,
        Ledger,
        Page,
        PruneResult,
        SessionRecord,
        StepRecord,
    )
    from structjob.process import reset
    from structjob.process_tracker import init
    from structjob.queries.verify import VerifyResult
    from structjob.reader import Reader
    from structjob.retention.policy import Retention
    from structjob.sinks.console import ConsoleSink
    from structjob.sinks.file import FileSink
    from structjob.sinks.jobfile import JobFileSink
    from structjob.sinks.sink import Sink, SinkEvent
    from structjob.statistics import ErrorGroup, StatsFilter
    from structjob.statuses import JobStatus, SessionStatus, StepStatus
    from structjob.tracker import Tracker
    from structjob.transfer.imports import ImportResult
    from structjob.values.redaction import Redactor, secret, secrets_from_environment
    from structjob.worker_processes import worker_initializer

_WHERE = {
    "capture.configure": ("configure",),
    "capture.record_ids": ("IdFilter", "add_ids_to_logging"),
    "capture.uncaught": ("capture_uncaught",),
    "context.errors": ("classify", "enrich"),
    "context.executors": ("ContextExecutor", "in_context"),
    "worker_processes": ("worker_initializer",),
    "context.propagation": ("environment", "extract", "inject"),
    "deliverer": ("Deliverer",),
    "context.tracing": ("Span",),
    "lifecycle.hooks": ("Hook", "Transition", "add_hook", "set_tracing"),
    "lifecycle.correlation": ("correlate", "current_correlation_id", "detached"),
    "lifecycle.operations": ("OperationLogger",),
    "lifecycle.current": ("current_job", "current_step"),
    "exceptions": (
        "AmbiguousId",
        "Cancelled",
        "ErrorGroupNotFound",
        "EventNotFound",
        "InvalidState",
        "ImportRefused",
        "InvalidArgument",
        "InvalidFilter",
        "InvalidURL",
        "JobCancelled",
        "JobNotFound",
        "NotOpen",
        "PruneInProgress",
        "QueryTimeout",
        "SchemaMismatch",
        "SessionNotFound",
        "SpoolError",
        "StoreUnavailable",
        "StructjobError",
        "Terminated",
    ),
    "filters": ("AttemptFilter", "ErrorFilter", "JobFilter", "LogFilter"),
    "capture.install": ("install",),
    "sinks.jobfile": ("JobFileSink",),
    "lifecycle": ("Try", "Job", "Step", "job", "retrying", "step"),
    "lifecycle.printed": ("capture_output",),
    "process_tracker": ("init",),
    "lifecycle.process_result": ("CommandFailed", "CommandTimeout", "ProcessResult"),
    "sinks.file": ("FileSink",),
    "capture.logger": ("success",),
    "models": (
        "AttemptRecord",
        "ErrorInfo",
        "EventRecord",
        "Gap",
        "JobRecord",
        "JobTree",
        "Ledger",
        "Page",
        "JobProgress",
        "PruneResult",
        "SessionRecord",
        "StepRecord",
        "EventContext",
    ),
    "statuses": ("JobStatus", "SessionStatus", "StepStatus"),
    "capture.processors": ("add_context",),
    "process": ("reset",),
    "values.redaction": ("Redactor", "secret", "secrets_from_environment"),
    "reader": ("Reader",),
    "retention.policy": ("Retention",),
    "sinks.console": ("ConsoleSink",),
    "sinks.sink": ("Sink", "SinkEvent"),
    "statistics": ("ErrorGroup", "StatsFilter"),
    "queries.verify": ("VerifyResult",),
    "tracker": ("Tracker",),
    "transfer.imports": ("ImportResult",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

_MODULES = ("alembic", "asgi", "click", "exceptions", "http", "processors", "typing", "wsgi")
"""Public modules, which ``structjob.NAME`` imports. All others are internal."""

__all__ = [
    "AmbiguousId",
    "AttemptFilter",
    "AttemptRecord",
    "Cancelled",
    "CommandFailed",
    "CommandTimeout",
    "ConsoleSink",
    "ContextExecutor",
    "Deliverer",
    "ErrorFilter",
    "ErrorGroup",
    "ErrorGroupNotFound",
    "ErrorInfo",
    "EventContext",
    "EventNotFound",
    "EventRecord",
    "FileSink",
    "Gap",
    "Hook",
    "IdFilter",
    "ImportRefused",
    "ImportResult",
    "InvalidArgument",
    "InvalidFilter",
    "InvalidState",
    "InvalidURL",
    "Job",
    "JobCancelled",
    "JobFileSink",
    "JobFilter",
    "JobNotFound",
    "JobProgress",
    "JobRecord",
    "JobStatus",
    "JobTree",
    "Ledger",
    "LogFilter",
    "NotOpen",
    "OperationLogger",
    "Page",
    "ProcessResult",
    "PruneInProgress",
    "PruneResult",
    "QueryTimeout",
    "Reader",
    "Redactor",
    "Retention",
    "SchemaMismatch",
    "SessionNotFound",
    "SessionRecord",
    "SessionStatus",
    "Sink",
    "SinkEvent",
    "Span",
    "SpoolError",
    "StatsFilter",
    "Step",
    "StepRecord",
    "StepStatus",
    "StoreUnavailable",
    "StructjobError",
    "Terminated",
    "Tracker",
    "Transition",
    "Try",
    "VerifyResult",
    "add_context",
    "add_hook",
    "add_ids_to_logging",
    "capture_output",
    "capture_uncaught",
    "classify",
    "configure",
    "correlate",
    "current_correlation_id",
    "current_job",
    "current_step",
    "detached",
    "enrich",
    "environment",
    "extract",
    "in_context",
    "init",
    "inject",
    "install",
    "job",
    "reset",
    "retrying",
    "secret",
    "secrets_from_environment",
    "set_tracing",
    "step",
    "success",
    "worker_initializer",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name, also misspelled ones

    def __getattr__(name: str) -> Any:
        # Each name is imported at its first use. So a command that prints its help need not load a
        # database layer.
        import importlib

        if name in _MODULES or name == "web":  # type checkers want `import structjob.web`
            return importlib.import_module(f"structjob.{name}")
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'structjob' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"structjob.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
