"""The rules for jobs of web requests, under ASGI and WSGI.

They decide which requests are jobs, which headers are trusted, and how the jobs are named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import replace
from fnmatch import translate
from typing import Any, Literal

from structjob.context.errors import correlate_exception
from structjob.context.logged import logged
from structjob.context.propagation import RemoteContext, extract, remote_scope
from structjob.context.scope import current_scope, new_id
from structjob.diagnostics import diagnostics
from structjob.exceptions import InvalidArgument
from structjob.integrations.routes import Route
from structjob.lifecycle.arguments import redacted
from structjob.lifecycle.host import JobHost
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.options import JobOptions
from structjob.lifecycle.outcome import outcome
from structjob.statuses import JobStatus
from structjob.tracker import Tracker, host_of

Request = MutableMapping[str, Any]
"""An ASGI scope, or a WSGI environ."""
Jobs = Literal["all", "changes", "none"] | Callable[[Any], bool]
TrustLevel = Literal["ids", "all", "none"]
Trust = TrustLevel | Callable[[Any], TrustLevel]

SKIPPED = ("/health", "/healthz", "/healthcheck", "/health/*", "/livez", "/readyz", "/metrics", "/favicon.ico")  # fmt: skip
"""Paths that are not tracked by default, because probes request them every few seconds."""

CLIENT_GONE = 499
"""Status of a request whose client left before the response was complete, as in nginx."""

SEEN = "structjob.request"
"""Key of a scope or environ that a structjob middleware already handles."""

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "QUERY", "WEBSOCKET")  # fmt: skip
_UNTRACKED = ("HEAD", "OPTIONS")
_CHANGES = ("POST", "PUT", "PATCH", "DELETE")
_CARRIED = frozenset((b"x-correlation-id", b"x-request-id", b"x-job-id", b"baggage", b"traceparent", b"tracestate"))  # fmt: skip
"""Headers that `extract` reads. Most requests have none of these, and `extract` can be skipped."""
_MAX_PATH = 1_000
"""Maximum number of characters of a path in a job's metadata."""


NOTHING = RemoteContext()
"""The content of the headers of most requests."""


class ResponseError(Exception):
    """The error of a request that failed without an exception.

    It was answered with a status ≥ 500, or its client left.
    """


class Rules:
    """The options of a middleware.

    Args:
        tracker: See `structjob.asgi.JobMiddleware` for this and the other options.
        jobs: Which requests become jobs.
        skip: Patterns of paths that never become jobs.
        trust: Which of their headers are trusted.
        what: What functions given as *jobs* and *trust* take, for messages.

    Raises:
        InvalidArgument: if an option is invalid.
    """

    def __init__(
        self, tracker: Tracker | None, jobs: Jobs, skip: Iterable[str], trust: Trust, what: str
    ) -> None:
        if tracker is not None and not isinstance(tracker, Tracker):
            raise InvalidArgument(f"tracker must be a Tracker, not {type(tracker).__name__}")
        if not callable(jobs) and jobs not in ("all", "changes", "none"):
            raise InvalidArgument(
                f"jobs must be 'all', 'changes', 'none' or a function of the {what}, not {jobs!r}"
            )
        if not callable(trust) and trust not in ("ids", "all", "none"):
            raise InvalidArgument(
                f"trust must be 'ids', 'all', 'none' or a function of the {what}, not {trust!r}"
            )
        patterns = [skip] if isinstance(skip, str) else list(skip)
        for pattern in patterns:
            if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
                raise InvalidArgument(
                    f"skip must be patterns of paths, such as '/internal/*', not {pattern!r}"
                )
        self._tracker = tracker
        self._jobs = jobs
        self._skip = re.compile("|".join(map(translate, patterns)) or r"(?!)")
        self._trust = trust
        self._warned = False

    def believed(self, request: Request, headers: Iterable[tuple[bytes, bytes]]) -> RemoteContext:
        """Return the trusted content of a request's headers.

        It has a correlation id, unless there is nothing to take it from: see `correlated`.
        """
        trust = self._trust(request) if callable(self._trust) else self._trust
        carried = [pair for pair in headers if pair[0] in _CARRIED]
        if not carried and current_scope() is None:  # most requests
            return NOTHING
        remote = extract(carried) if carried and trust != "none" else RemoteContext()
        if carried and trust != "all":
            remote = RemoteContext(
                correlation_id=remote.correlation_id,
                trace_id=remote.trace_id,
                span_id=remote.span_id,
                trace_flags=remote.trace_flags,
                tracestate=remote.tracestate,
            )
        outer = current_scope()
        if outer is not None and remote.job_id is None:  # below `structjob run`, or a client's job
            remote = replace(
                remote,
                job_id=outer.job_id,
                step_id=outer.step_id,
                attempt=outer.attempt,
                operation=outer.operation,
                root_job_id=outer.root_job_id,
                correlation_id=remote.correlation_id or outer.correlation_id,
                **outer.labels,
            )
        return replace(remote, correlation_id=remote.correlation_id or remote.trace_id)

    def host_for(self, request: Request, method: str, path: str) -> JobHost[JobCore] | None:
        """Return the host that creates the job of a request; ``None`` if the request must not have
        a job.
        """
        if callable(self._jobs):
            wanted = bool(self._jobs(request))
        elif self._jobs == "changes":
            wanted = method in _CHANGES
        else:
            wanted = self._jobs == "all" and method not in _UNTRACKED
        return host_of(self._tracker) if wanted and not self._skip.match(path) else None

    def warn_once(self, why: object) -> None:
        """Warn once that requests are not tracked."""
        if not self._warned:
            self._warned = True
            diagnostics.warning("requests are not tracked: %s", why)


def correlated(remote: RemoteContext) -> RemoteContext:
    """Return *remote* with a correlation id, for a request that is no job. A job makes its own."""
    return replace(remote, correlation_id=remote.correlation_id or new_id())


def job_of(
    host: JobHost[JobCore],
    remote: RemoteContext,
    route: Route | None,
    *,
    method: str,
    path: str,
    client: str | None,
) -> Job:
    """Return the job of a request, not started yet."""
    if len(path) > _MAX_PATH:
        path = str(redacted(path))[:_MAX_PATH]
    about = {"method": method[:20], "path": path, "client": client}
    # Not `tracker.job()`, because its checks cost as much as the job itself.
    options = JobOptions(metadata=about, wait=False, correlation_id=remote.correlation_id)
    parent = remote_scope(remote) if remote.job_id or remote.trace_id else None
    return Job(JobCore(host, operation_of(method, route), parent=parent, options=options))


Ending = tuple[str, BaseException | None, dict[str, Any]]
"""The arguments of `JobCore.leave`: the status, the error, and attributes of the last event."""


def ending_of(
    job: JobCore, exc: BaseException | None, result: dict[str, Any], *, gone: bool
) -> Ending:
    """Return how the job of a request ends.

    Args:
        job: The job, which gets *result* unless it has one.
        exc: The exception that the application raised.
        result: What is known about the response.
        gone: Whether the client left before the response was complete.
    """
    logged_error = logged(job.id)
    if exc is not None:
        correlate_exception(exc, job.correlation_id)
    if job.result is None and job.status is JobStatus.RUNNING:
        job.result = result
    if gone:
        left = exc or ResponseError("the client left before the response was complete")
        return "cancelled", left, _summary_of(result)
    if exc is not None:
        return outcome(exc), exc, {}
    status = result.get("status", 0)
    # Frameworks such as Django and Flask answer an exception with 500 and log it.
    error = (logged_error or ResponseError(f"HTTP {status}")) if status >= 500 else None
    return outcome(error), error, _summary_of(result)


def operation_of(method: str, route: Route | None) -> str:
    """Return the operation of the job of a request."""
    known = method if method in _METHODS else "OTHER"
    return known if route is None else f"{known} {route.template or '/'}"


def id_headers(job_id: str | None, correlation_id: str | None) -> list[tuple[str, str]]:
    """Return the response headers with the ids, without ids that are not valid in a header."""
    ids = (("x-job-id", job_id), ("x-correlation-id", correlation_id))
    return [
        (name, value)
        for name, value in ids
        if value is not None and value.isascii() and value.isprintable()
    ]


def _summary_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return a request's result for the job's last event.

    There, `status` is the job's, so the request's status is `http_status`.
    """
    return {"http_status" if name == "status" else name: result[name] for name in result}
