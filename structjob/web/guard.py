"""Handles what is common to all requests and answers: access, paths, HEAD, headers."""

from __future__ import annotations

import html
from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from structjob.web.answers import SLASH
from structjob.web.auth import Doors, same_origin
from structjob.web.paths import API, below, shows_page
from structjob.web.prefix import prefix_of
from structjob.web.problems import Refused, answer, page

OPEN = (f"{API}/health", "/login", "/static/login.css")
"""Paths that need no token."""

MAX_ADDRESS = 16 * 1024
"""Maximum number of bytes of a path with its parameters."""

_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors {ancestors}; require-trusted-types-for 'script'; trusted-types 'none'"
)


class Guard:
    """An ASGI application that wraps another one.

    Args:
        app: The application.
        doors: The access rules.
        frame_ancestors: Origins that may show the pages in a frame.
        cors: Origins whose pages may read the API with a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        doors: Doors,
        *,
        frame_ancestors: tuple[str, ...] = (),
        cors: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._doors = doors
        self._ancestors = " ".join(frame_ancestors) or "'none'"
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""
        headers = Headers(scope=scope)
        scope = {**scope, "state": dict(scope.get("state") or {})}
        _as_asked(scope)
        if scope["type"] == "websocket":
            _find_root(scope)
            await self._socket(scope, receive, send, headers)
            return
        head = scope["method"] == "HEAD"
        if head:
            scope |= {"method": "GET", "structjob.head": True}
        _keep_slashes(scope)
        _find_root(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message), scope, headers)
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        if scope["method"] == "OPTIONS" and headers.get("origin") in self._cors:
            await Response(status_code=204)(scope, receive, guarded)
            return
        if (raw := _asked(scope)) and below(scope) == "/" and not raw.endswith("/"):
            # The references of the page are relative to a directory.
            address = f"./{raw.rpartition('/')[2]}/{_query(scope)}"
            redirect = {"Location": address, "Cache-Control": "no-store"}
            await Response(status_code=307, headers=redirect)(scope, receive, guarded)
            return
        try:
            await self._let_in(scope, headers)
        except Refused as exc:
            refusal = self._page_for(exc, scope, headers) or answer(exc)
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    async def _let_in(self, scope: Scope, headers: Headers) -> None:
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string", b"")) > MAX_ADDRESS:
            raise Refused(414, f"the address is longer than {MAX_ADDRESS:,} bytes: POST /stream")
        for part in (scope.get("raw_path") or b"", scope.get("query_string", b"")):
            try:
                unquote_to_bytes(part).decode()
            except UnicodeDecodeError:
                raise Refused(400, "the address is not UTF-8: percent-encode UTF-8") from None
        self._doors.check_host(headers)
        if below(scope) not in OPEN:
            scope["structjob.identity"] = await self._doors.identify(scope, headers)

    async def _socket(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        """Admit a WebSocket; one without a token gets a short time to send it."""
        try:
            self._doors.check_host(headers)
            if same_origin(headers) is False:
                raise Refused(403, "the connection comes from a page of another origin")
            scope["structjob.identity"] = await self._doors.identify(scope, headers)
        except Refused as exc:
            if exc.status == 401 and self._doors.has_tokens and "authorization" not in headers:
                scope["structjob.identity"] = None
            else:
                await receive()
                await send({"type": "websocket.close", "code": 4000 + exc.status})
                return
        await self._app(scope, receive, send)

    def _page_for(self, refused: Refused, scope: Scope, headers: Headers) -> Response | None:
        """Return the page, or the redirect to the login, that a browser gets for a problem."""
        path = below(scope)
        if scope["method"] != "GET" or not shows_page(scope, headers):
            return None
        if refused.status != 401 or not self._doors.has_tokens:
            return page(refused)
        parts = [quote(part.replace(SLASH, "/"), safe="") for part in path[1:].split("/")]
        query = _query(scope)
        if headers.get("sec-fetch-site") == "cross-site":
            # The browser does not send the cookie with a link from another site, but does from our
            # page.
            again = html.escape(f"{parts[-1] or './'}{query}")
            return Response(
                f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={again}">'
                "<title>structjob</title>",
                401,
                {"Cache-Control": "no-store"},
                "text/html",
            )
        up = "../" * (len(parts) - 1) or "./"
        target = quote("/".join(parts) + query, safe="")
        headers_ = {"Location": f"{up}login?next={target}", "Cache-Control": "no-store"}
        return Response(status_code=303, headers=headers_)

    def _add_headers(self, headers: MutableHeaders, scope: Scope, asked: Headers) -> None:
        scripts = scope["state"].get("scripts", "")
        headers["Content-Security-Policy"] = _POLICY.format(
            scripts=f" {scripts}" if scripts else "", ancestors=self._ancestors
        )
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        origin = asked.get("origin")
        if origin is not None and origin in self._cors:
            headers["Access-Control-Allow-Origin"] = origin
            headers["Access-Control-Allow-Headers"] = "authorization, content-type, x-structjob"
            headers["Cross-Origin-Resource-Policy"] = "cross-origin"
            headers.add_vary_header("Origin")


def _find_root(scope: Scope) -> None:
    """Set the root to the prefix that a proxy kept, unless a host application that mounts this one
    set it.
    """
    if not scope.get("root_path"):
        scope["root_path"] = prefix_of(scope["path"])


def _keep_slashes(scope: Scope) -> None:
    """Keep encoded slashes of the path as `SLASH`, because an id may contain them."""
    raw, path = _asked(scope), scope["path"]
    if "%2f" not in raw.lower():
        return
    kept = unquote(raw.replace("%2f", SLASH).replace("%2F", SLASH))
    if kept.replace(SLASH, "/").endswith(path):  # a host application may have removed its prefix
        scope["path"] = kept[-len(path) :]


def _asked(scope: Scope) -> str:
    """Return the path as the client sent it, still quoted; empty if the server does not tell."""
    return (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")


def _query(scope: Scope) -> str:
    """Return the query string with its question mark, or an empty string."""
    query = scope.get("query_string", b"").decode("latin-1")
    return f"?{query}" if query else ""


def _as_asked(scope: Scope) -> None:
    """Remove the slash that Litestar adds to the path of an application that it mounts.

    The slash at the end of an id is one that the client sent.
    """
    raw, path = _asked(scope), scope["path"]
    if raw and path != "/" and _slashes(path) > _slashes(unquote(raw)):
        scope["path"] = path[:-1]


def _slashes(path: str) -> int:
    return len(path) - len(path.rstrip("/"))
