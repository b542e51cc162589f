"""WSGI applications (Flask, Django, Pyramid, your own): a job for each request.

The same as `structjob.integrations.asgi`, for applications without an event loop. A request is a
job from its arrival until the server closes the response. The routes of Flask and Django are read;
for other applications, *operation* returns them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Self

from structjob.context.errors import correlate_exception
from structjob.context.logged import watch
from structjob.context.propagation import RemoteContext
from structjob.diagnostics import fault_types, faults
from structjob.exceptions import InvalidArgument, NotOpen
from structjob.integrations.requests import (
    CLIENT_GONE,
    NOTHING,
    SEEN,
    SKIPPED,
    Jobs,
    Request,
    ResponseError,
    Rules,
    Trust,
    correlated,
    ending_of,
    id_headers,
    job_of,
)
from structjob.integrations.routes import UNMATCHED, Route, is_django, route_of_django
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.outcome import outcome
from structjob.tracker import Tracker

__all__ = ["JobMiddleware", "ResponseError"]

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Operation = Callable[[Request], str | None]


class JobMiddleware:
    """Runs each request as a job, to which everything that the request logs belongs.

    Use ``app.wsgi_app = JobMiddleware(app.wsgi_app)`` for Flask, and ``application =
    JobMiddleware(get_wsgi_application())`` for Django. Without an open tracker, requests get a
    correlation id only; `structjob.init` opens a tracker for the process.

    Args:
        app: The WSGI application.
        tracker: The tracker; default: the tracker that was opened first and is still open.
        jobs: Which requests become jobs: ``all`` but HEAD and OPTIONS (the default), ``changes``
            (POST, PUT, PATCH, DELETE), ``none``, or a function of the environ.
        skip: Patterns of paths that never become jobs, see `structjob.asgi.JobMiddleware`.
        trust: Which headers of a request are trusted: ``ids``, ``all``, ``none``, or a function of
            the environ; see `structjob.asgi.JobMiddleware`.
        response_headers: Whether the response has ``X-Job-ID`` and ``X-Correlation-ID``, unless the
            application sets them.
        operation: A function of the environ that returns the template of a request's route, for
            applications other than those of Flask and Django.

    Raises:
        InvalidArgument: if an option is invalid.
    """

    def __init__(
        self,
        app: Application,
        tracker: Tracker | None = None,
        *,
        jobs: Jobs = "all",
        skip: Iterable[str] = SKIPPED,
        trust: Trust = "ids",
        response_headers: bool = True,
        operation: Operation | None = None,
    ) -> None:
        if operation is not None and not callable(operation):
            raise InvalidArgument(f"operation must be a function of the environ, not {operation!r}")
        self.app = app
        self._rules = Rules(tracker, jobs, skip, trust, "environ")
        self._response_headers = response_headers
        self._operation = operation

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        if SEEN in environ:
            return self.app(environ, start_response)
        environ[SEEN] = True
        job, remote = None, NOTHING
        try:
            remote = self._rules.believed(environ, _headers(environ))
            job = self._started(environ, remote)
        except NotOpen as exc:
            self._rules.warn_once(exc)
        except fault_types() as exc:  # a fault of structjob must never cost a response
            faults.add("tracking a request", exc)
        if job is None:
            remote = correlated(remote)
        response = Response(job, remote, start_response, headers=self._response_headers)
        return response.of(self.app, environ)

    def _started(self, environ: dict[str, Any], remote: RemoteContext) -> Job | None:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO") or "/"
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        host = self._rules.host_for(environ, method, path)
        if host is None:
            return None
        if self._operation is not None:
            template = self._operation(environ)
            route = None if template is None else Route(template[:200])
        else:
            route = route_of(self.app, environ, path)
        if route is not None and route.static:
            return None
        client = environ.get("REMOTE_ADDR")
        job = job_of(host, remote, route, method=method, path=path, client=client).__enter__()
        watch(job.id)
        return job


class Response:
    """The response to a request, which the server iterates over; its job ends when it is closed.

    Args:
        job: The started job; ``None`` if the request has no job.
        remote: The trusted content of the request's headers.
        start_response: The server's function.
        headers: Whether the ids are added to the response's headers.
    """

    def __init__(
        self,
        job: Job | None,
        remote: RemoteContext,
        start_response: Callable[..., Any],
        *,
        headers: bool,
    ) -> None:
        self._job = job
        self._start_response = start_response
        self._correlation_id = remote.correlation_id if job is None else job.correlation_id
        self._headers = (
            id_headers(None if job is None else job.id, self._correlation_id) if headers else []
        )
        self._scope: Any = None if job is not None else remote.as_current()
        self._began = time.monotonic()
        self._bytes = 0
        self._status: int | None = None
        self._response_ms: float | None = None
        self._body: Any = ()
        self._chunks: Iterator[bytes] = iter(())
        self._ended = False

    def of(self, app: Application, environ: dict[str, Any]) -> Iterable[bytes]:
        """Return the response of *app*."""
        if self._scope is not None:
            self._scope.__enter__()
        try:
            self._body = app(environ, self._start)
            self._chunks = iter(self._body)
            if hasattr(self._body, "__len__"):
                self.__class__ = _Counted
        except BaseException as exc:
            self._end(exc)
            raise
        return self

    def _start(self, status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[..., Any]:
        self._status = int(status.split(None, 1)[0])
        names = {name.lower() for name, _ in headers}
        given = [*headers, *(header for header in self._headers if header[0] not in names)]
        write = self._start_response(status, given, *more)

        def written(chunk: bytes) -> Any:
            self._bytes += len(chunk)
            return write(chunk)

        return written

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            if self._response_ms is None:
                self._response_ms = round((time.monotonic() - self._began) * 1000, 3)
            raise
        except BaseException as exc:
            self._end(exc)
            raise
        self._bytes += len(chunk)
        return chunk

    def close(self) -> None:
        """End the request: the server has sent everything, or its client has left."""
        close = getattr(self._body, "close", None)
        try:
            if close is not None:
                close()
        except BaseException as exc:
            self._end(exc)
            raise
        self._end(None)

    def __del__(self) -> None:
        # A server that does not close the response, as WSGI requires, has dropped it. Its job
        # would remain that of the thread's next request.
        with suppress(Exception):
            self._end(None)

    def _end(self, exc: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        if self._job is None:
            if exc is not None:
                correlate_exception(exc, self._correlation_id)
            kind, trace = (None, None) if exc is None else (type(exc), exc.__traceback__)
            self._scope.__exit__(kind, exc, trace)
            return
        job = core_of(self._job)
        try:
            gone = exc is None and self._response_ms is None
            job.leave(*ending_of(job, exc, self._result(exc, gone=gone), gone=gone))
        except fault_types() as fault:  # a fault of structjob must never cost a response
            job.leave(outcome(exc), exc)  # if it has not been left
            faults.add("ending the job of a request", fault)

    def _result(self, exc: BaseException | None, *, gone: bool) -> dict[str, Any]:
        status = CLIENT_GONE if gone else self._status
        if status is None and isinstance(exc, Exception):
            status = 500  # the server sends this status
        found = {"status": status, "bytes": self._bytes, "response_ms": self._response_ms}
        return {name: value for name, value in found.items() if value is not None}


class _Counted(Response):
    """A response whose number of chunks is known.

    A server derives ``Content-Length`` from it if there is only one chunk. waitress fails if an
    object has the method and no length.
    """

    def __len__(self) -> int:
        return len(self._body)

    def __bool__(self) -> bool:
        return True


def _headers(environ: dict[str, Any]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            header = name[5:].replace("_", "-").lower()
            yield header.encode("latin-1", "replace"), str(value).encode("latin-1", "replace")


def route_of(app: Any, environ: dict[str, Any], path: str) -> Route | None:
    """Return the route of a request to a Flask or Django application, without calling it.

    Returns ``None`` for any other application.
    """
    owner = getattr(app, "__self__", app)  # of `flask_app.wsgi_app`
    if hasattr(owner, "url_map"):
        return _route_of_flask(owner, environ)
    return route_of_django(path) if is_django(owner) else None


def _route_of_flask(app: Any, environ: dict[str, Any]) -> Route:
    errors = sys.modules["werkzeug.exceptions"]
    try:
        rule, _ = app.url_map.bind_to_environ(environ).match(return_rule=True)
    # there is no such route, the method differs, or the route redirects
    except errors.HTTPException:
        return UNMATCHED
    return Route(rule.rule[:200], static=rule.endpoint == "static")
