"""Builds the application from its parts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from structjob.tracker import Tracker
from structjob.web import openapi, problems, streams
from structjob.web.answers import Reads, reads
from structjob.web.api import ROUTERS, compat
from structjob.web.auth import Authorize, Doors, Identity
from structjob.web.guard import Guard
from structjob.web.hub import Hub
from structjob.web.login import log_in, log_out
from structjob.web.metrics import MEDIA_TYPE, exposition
from structjob.web.params import Asked, NoQuery, once
from structjob.web.paths import API, PAGES
from structjob.web.shell import Shell
from structjob.web.source import Source

if TYPE_CHECKING:
    from structjob.urls.url import URL


class Health(msgspec.Struct):
    """Confirms that the server runs, or that the database answers."""

    status: str = "ok"


service = APIRouter(tags=["service"])


@reads(service, "/health", Health)
async def get_health(query: Asked[NoQuery]) -> Any:
    """Confirm that the server runs; needs no token."""
    return Health()


class Me(msgspec.Struct):
    """The identity of the client."""

    token: str | None
    """The id of the token; null without tokens."""
    scopes: list[str]
    login: bool
    """Whether the client logged in with a cookie, and so can log out."""


@reads(service, "/whoami", Me)
async def who_am_i(request: Request, query: Asked[NoQuery]) -> Any:
    """Return what the client's token, or its address, permits."""
    identity: Identity = request.scope["structjob.identity"]
    return Me(identity.id, sorted(identity.scopes), identity.cookie)


@reads(service, "/ready", Health)
async def get_ready(reader: Reads, query: Asked[NoQuery]) -> Any:
    """Confirm that the database answers."""
    await reader.jobs.list(limit=1)
    return Health()


class Application:
    """The ASGI application that `app` returns.

    Attributes:
        hub: Its live streams.
    """

    def __init__(self, app: ASGIApp, source: Source, hub: Hub) -> None:
        self._app = app
        self._source = source
        self.hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI. The lifespan, if the server supports it, ends streams and
        reads.
        """
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self.end_streams()
                await self.aclose()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def end_streams(self) -> None:
        """End all live streams with a goodbye frame, and accept no new ones."""
        self.hub.close()

    async def aclose(self) -> None:
        """Close the database that was opened for a URL; a host's tracker stays open."""
        await self._source.close()


def app(
    tracker_or_url: Tracker | str | URL,
    *,
    authorize: Authorize | None = None,
    read_only: bool = False,
    name: str | None = None,
) -> Application:
    """Return the HTTP API, the live streams and the pages as one ASGI application.

    Mount it in another application or run it alone. It needs no lifespan. Given a URL, it opens the
    database for reading at the first request, without a session or a spool.

    Args:
        tracker_or_url: A tracker of the host application, or the URL of a database.
        authorize: Takes an ASGI scope and returns what its user may do: ``frozenset({"read"})``,
            ``frozenset({"read", "write"})``, or ``None`` for nothing; may be a coroutine function.
            Without it, only requests from this machine that came through no proxy are answered.
        read_only: Refuse to cancel, resolve and prune.
        name: The title of the pages; default: the name of the database.

    Returns:
        An ASGI application, for example for ``host.mount("/jobs", structjob.web.app(tracker))``.
    """
    return build(tracker_or_url, Doors(authorize=authorize, read_only=read_only), name=name)


def build(
    tracker_or_url: Tracker | str | URL,
    doors: Doors,
    *,
    name: str | None = None,
    frame_ancestors: tuple[str, ...] = (),
    cors: tuple[str, ...] = (),
) -> Application:
    """Return the application with the given access rules; see `app`.

    Args:
        tracker_or_url: See `app`.
        doors: The access rules.
        name: See `app`.
        frame_ancestors: Origins that may show the pages in a frame.
        cors: Origins whose pages may read the API with a token.
    """
    source = Source(tracker_or_url)
    made = FastAPI(
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    made.state.source = source
    made.state.doors = doors
    hub = made.state.hub = Hub(source, doors.knows)
    shell = Shell(name or source.name)
    problems.install(made)
    made.router.routes.extend(_routes())

    async def get_openapi(request: Request) -> Response:
        return Response(_document(), media_type="application/json")

    async def page(request: Request) -> Response:
        return shell.page(request)

    async def file(request: Request) -> Response:
        return shell.file(request, request.path_params["build"], request.path_params["file"])

    async def login(request: Request) -> Response:
        if request.method == "POST":
            return await log_in(request, doors)
        return shell.login(request)

    made.add_route("/login", login, methods=["GET", "POST"], include_in_schema=False)
    made.add_route("/logout", log_out, methods=["POST"], include_in_schema=False)
    made.add_route("/static/login.css", shell.login_style, include_in_schema=False)
    made.add_route(f"{API}/openapi.json", get_openapi, include_in_schema=False)
    made.router.routes.append(WebSocketRoute(f"{API}/stream/ws", streams.websocket))

    async def metrics(request: Request) -> Response:
        return Response(await exposition(source, hub), media_type=MEDIA_TYPE)

    made.router.routes.append(WebSocketRoute(f"{API}/logs/stream/ws", compat.stream_ws))
    made.add_route("/metrics", metrics, include_in_schema=False)
    made.add_route("/static/{build}/{file:path}", file, include_in_schema=False)
    for name_ in PAGES:
        address = f"{name_}{{id}}" if name_.endswith("/") else name_
        made.add_route(f"/{address}", page, include_in_schema=False)
        if address:
            made.add_route(f"/{address}/", page, include_in_schema=False)
    return Application(Guard(made, doors, frame_ancestors=frame_ancestors, cors=cors), source, hub)


@cache
def _routes() -> list[BaseRoute]:
    """Return the routes of the API, the same for every application.

    FastAPI analyzes the parameters of a route once, at the first request.
    """
    made = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for router in (*ROUTERS, streams.router, service):
        made.include_router(
            router,
            prefix=API,
            dependencies=[Depends(once)],
            generate_unique_id_function=_operation_id,
        )
    return made.router.routes


@cache
def _document() -> bytes:
    """Return the OpenAPI document, which is the same for every application: to build it takes a
    quarter of a second.
    """
    return msgspec.json.encode(openapi.document(_routes()))


def _operation_id(route: Any) -> str:
    """Return the name of the client's method: ``listJobs`` for ``list_jobs``."""
    first, *rest = route.name.split("_")
    return str(first) + "".join(word.capitalize() for word in rest)
