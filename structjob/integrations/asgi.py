"""ASGI applications (Starlette, FastAPI, Litestar, Django, your own): a job for each request.

======================  ==========================================================================
job                     a request, from its arrival until the application returns, background tasks
                        included
operation               the method and the route's template: ``GET /items/{id}``
attempt                 always the first
parent                  none, unless ``trust="all"``: the job in ``X-Job-ID``
correlation id          that in ``X-Correlation-ID``, else ``X-Request-ID``, else the trace id
result                  ``{"status": 200, "bytes": 512, "response_ms": 3.1}``, unless the request
                        sets another
======================  ==========================================================================
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypedDict, Unpack

from structjob.context.errors import correlate_exception
from structjob.context.logged import watch
from structjob.context.propagation import RemoteContext
from structjob.diagnostics import fault_types, faults
from structjob.exceptions import InvalidArgument, InvalidState, NotOpen
from structjob.integrations.requests import (
    CLIENT_GONE,
    NOTHING,
    SEEN,
    SKIPPED,
    Jobs,
    ResponseError,
    Rules,
    Trust,
    correlated,
    ending_of,
    id_headers,
    job_of,
    operation_of,
)
from structjob.integrations.routes import (
    UNMATCHED,
    Route,
    find_route,
    is_django,
    route_of_django,
    routes_of,
    taken_route,
)
from structjob.lifecycle.handle import core_of
from structjob.lifecycle.job_core import JobCore
from structjob.lifecycle.jobs import Job
from structjob.lifecycle.outcome import outcome
from structjob.statuses import JobStatus
from structjob.tracker import Tracker

__all__ = ["JobMiddleware", "ResponseError", "install", "lifespan"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Options(TypedDict, total=False):
    """The options of `JobMiddleware` and `install`, besides the tracker."""

    jobs: Jobs
    skip: Iterable[str]
    trust: Trust
    response_headers: bool
    websockets: bool


class JobMiddleware:
    """Runs each request as a job, to which everything that the request logs belongs.

    The application's exceptions, responses and cancellation stay unchanged. Without an open
    tracker, requests get a correlation id only.

    Args:
        app: The ASGI application.
        tracker: The tracker; default: the tracker that was opened first and is still open.
        jobs: Which requests become jobs: ``all`` but HEAD and OPTIONS (the default), ``changes``
            (POST, PUT, PATCH, DELETE), ``none``, or a function of the ASGI scope. The others get
            only a correlation id and the headers.
        skip: Patterns of paths that never become jobs, such as ``/internal/*``. They replace
            `SKIPPED`. Static files never become jobs.
        trust: Which headers of a request are trusted. ``ids`` (the default): the correlation id and
            the trace. ``all``: also the parent job; only for services whose callers are all your
            own, because a foreign caller could log into another caller's job. ``none``: no header.
            Or a function of the ASGI scope that returns one of these.
        response_headers: Whether the response has ``X-Job-ID`` and ``X-Correlation-ID``, unless the
            application sets them.
        websockets: Whether a WebSocket connection is a job, from its beginning to its end.
            Otherwise it has a correlation id only, because it may last for days.

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
        websockets: bool = False,
    ) -> None:
        self.app = app
        self._rules = Rules(tracker, jobs, skip, trust, "scope")
        self._response_headers = response_headers
        self._websockets = websockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or SEEN in scope:
            await self.app(scope, receive, send)
            return
        scope[SEEN] = True
        exchange, job, remote = Exchange(receive, send), None, NOTHING
        try:
            remote = self._rules.believed(scope, scope["headers"])
            job, exchange.route = self._job(scope, remote)
        except fault_types() as exc:  # a fault of structjob must never cost a response
            faults.add("tracking a request", exc)
        if job is not None and await self._started(job):
            await self._run_job(job, scope, exchange)
        else:
            remote = correlated(remote)
            if self._response_headers:
                exchange.add_headers(None, remote.correlation_id)
            with remote.as_current():
                try:
                    await self.app(scope, exchange.receive, exchange.send)
                except Exception as exc:
                    correlate_exception(exc, remote.correlation_id)
                    raise

    # -- before
    # --------------------------------------------------------------------------

    def _job(self, scope: Scope, remote: RemoteContext) -> tuple[Job | None, Route | None]:
        """Return the job of a request and its route; no job if the options exclude the request."""
        method, path = _method(scope), _path(scope)
        if method == "WEBSOCKET" and not self._websockets:
            return None, None
        host = self._rules.host_for(scope, method, path)
        if host is None:
            return None, None
        route = self._route(scope, path)
        if route is not None and route.static:
            return None, route
        client = scope.get("client")
        job = job_of(
            host, remote, route, method=method, path=path, client=client[0] if client else None
        )
        return job, route

    def _route(self, scope: Scope, path: str) -> Route | None:
        if is_django(self.app):
            return route_of_django(path)
        routes = routes_of(scope.get("app")) or routes_of(self.app)
        return (find_route(routes, scope) or UNMATCHED) if routes else None

    async def _started(self, job: Job) -> bool:
        try:
            await job.__aenter__()
        except NotOpen as exc:
            self._rules.warn_once(exc)
        except Exception as exc:  # noqa: BLE001 -- see above
            faults.add("starting the job of a request", exc)
        else:
            return True
        return False

    # -- meanwhile and after
    # --------------------------------------------------------------------------

    async def _run_job(self, job: Job, scope: Scope, exchange: Exchange) -> None:
        watch(job.id)
        if self._response_headers:
            exchange.add_headers(job.id, job.correlation_id)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as exc:
            await self._leave(core_of(job), scope, exchange, exc)
            raise
        await self._leave(core_of(job), scope, exchange, None)

    async def _leave(
        self, job: JobCore, scope: Scope, exchange: Exchange, exc: BaseException | None
    ) -> None:
        late = await job.cancellation.overdue(exc)
        exc = late or exc
        try:
            gone = exchange.gone and (exc is None or _of_client(exc))
            ending = ending_of(job, exc, exchange.result(exc), gone=gone)
            taken = taken_route(scope) if exchange.route in (None, UNMATCHED) else None
            if taken is not None and job.status is JobStatus.RUNNING:
                job.operation = operation_of(_method(scope), taken)
            job.leave(*ending)
        except fault_types() as fault:  # see above
            job.leave(outcome(exc), exc)  # if it has not been left
            faults.add("ending the job of a request", fault)
        if late is not None:
            raise late


class Exchange:
    """A request and its response, as they pass through the middleware.

    Attributes:
        route: The route of the request, if known.
        status: The status of the response, once it has started.
        gone: Whether the client left before the response was complete.
    """

    __slots__ = (
        "_began",
        "_bytes",
        "_close_code",
        "_headers",
        "_receive",
        "_response_ms",
        "_send",
        "gone",
        "route",
        "status",
    )

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._headers: list[tuple[bytes, bytes]] = []
        self._began = time.monotonic()
        self._bytes = 0
        self._response_ms: float | None = None
        self._close_code: int | None = None
        self.route: Route | None = None
        self.status: int | None = None
        self.gone = False

    def add_headers(self, job_id: str | None, correlation_id: str | None) -> None:
        """Add the ids to the response when it starts, if they are valid in a header."""
        self._headers = [
            (name.encode(), value.encode()) for name, value in id_headers(job_id, correlation_id)
        ]

    async def receive(self) -> Message:
        """Pass on what the client sends."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            # A server also sends this after the response, to applications that listen for it.
            self.gone = self.gone or self._response_ms is None
        elif message["type"] == "websocket.disconnect":
            self._close_code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        """Pass on what the application sends."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.accept", "websocket.http.response.start"):
            self.status = message.get("status", 101)
            message = self._with_ids(message)
        elif kind in (
            "http.response.body",
            "http.response.zerocopysend",
            "http.response.pathsend",
        ):
            self._bytes += len(message.get("body", b""))
            if not message.get("more_body", False) and self._response_ms is None:
                # Before sending: an application that listens for a disconnect may get one at once.
                self._response_ms = round((time.monotonic() - self._began) * 1000, 3)
        elif kind == "websocket.close":
            self._close_code = message.get("code", 1000)
        try:
            await self._send(message)
        except OSError:
            self.gone = True
            raise

    def _with_ids(self, message: Message) -> Message:
        given = list(message.get("headers") or ())
        names = {name.lower() for name, _ in given}
        missing = [header for header in self._headers if header[0] not in names]
        return {**message, "headers": [*given, *missing]} if missing else message

    def result(self, exc: BaseException | None) -> dict[str, Any]:
        """Return the result of the request, given the exception that the application raised."""
        status = self.status
        if self.gone:
            status = CLIENT_GONE
        elif status is None and isinstance(exc, Exception):
            status = 500  # the server sends this status
        found = {
            "status": status,
            "bytes": self._bytes,
            "response_ms": self._response_ms,
            "close_code": self._close_code,
        }
        return {name: value for name, value in found.items() if value is not None}


def _method(scope: Scope) -> str:
    method: str = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
    return method


def _path(scope: Scope) -> str:
    """Return the path of a request, relative to the application's mount point."""
    path: str = scope["path"]
    root: str = scope.get("root_path") or ""
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _of_client(exc: BaseException) -> bool:
    """Return whether *exc* means that the client has left."""
    return isinstance(exc, OSError) or any(
        base.__name__ == "ClientDisconnect" for base in type(exc).__mro__
    )


def install(app: Any, tracker: Tracker | None = None, **options: Unpack[Options]) -> None:
    """Track the requests of a Starlette or FastAPI application, outside of all its other
    middlewares.

    In contrast to ``app.add_middleware(JobMiddleware)``, the ids are also in the response to an
    unhandled exception, and in what its handler logs.

    Args:
        app: The application, before it is started.
        tracker: See `JobMiddleware`.
        options: See `JobMiddleware`: jobs, skip, trust, response_headers, websockets.

    Raises:
        InvalidArgument: if *app* is no such application, or an option is invalid.
        InvalidState: if the application already handles requests.
    """
    build = getattr(app, "build_middleware_stack", None)
    if build is None:
        raise InvalidArgument(
            f"{type(app).__name__} is not a Starlette or FastAPI application: wrap it, "
            "app = structjob.asgi.JobMiddleware(app)"
        )
    if app.middleware_stack is not None:
        raise InvalidState("the application has started; call asgi.install(app) before")
    JobMiddleware(app, tracker, **options)  # raises for invalid options here, and not in a request

    def build_middleware_stack() -> JobMiddleware:
        return JobMiddleware(build(), tracker, **options)

    app.build_middleware_stack = build_middleware_stack


Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def lifespan(
    url: Any = None, *, then: Lifespan | None = None, **options: Any
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that opens a tracker before the application starts, and closes it after the
    end.

    Use it as ``FastAPI(lifespan=asgi.lifespan("sqlite:///jobs.db"))``. Requests find the tracker as
    ``request.state.tracker``.

    Args:
        url: See `structjob.Tracker`.
        then: The application's own lifespan, which runs while the tracker is open.
        options: See `structjob.Tracker`.

    Raises:
        InvalidArgument: if an option is invalid.
    """
    Tracker(url, **options)  # raises for invalid options here, and not when the server starts

    @asynccontextmanager
    async def tracked(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        async with Tracker(url, **options) as tracker:
            if then is None:
                yield {"tracker": tracker}
            else:
                async with then(app) as state:
                    yield {"tracker": tracker, **(state or {})}

    return tracked
