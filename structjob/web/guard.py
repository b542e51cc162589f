"""What holds for every request before it is routed, and for every answer: paths, HEAD, headers."""

from __future__ import annotations

from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from structjob.web.answers import SLASH

_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors {ancestors}; require-trusted-types-for 'script'; trusted-types 'none'"
)


class Guard:
    """An ASGI application around another one.

    Args:
        app: The application.
        frame_ancestors: Origins that may show the pages in a frame.
    """

    def __init__(self, app: ASGIApp, frame_ancestors: tuple[str, ...] = ()) -> None:
        self._app = app
        self._ancestors = " ".join(frame_ancestors) or "'none'"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"
        scope = {**scope, "state": dict(scope.get("state") or {})}
        if head:
            scope |= {"method": "GET", "structjob.head": True}
        _keep_slashes(scope)

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(MutableHeaders(scope=message), scope)
            elif head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app(scope, receive, guarded)

    def _add_headers(self, headers: MutableHeaders, scope: Scope) -> None:
        scripts = scope["state"].get("scripts", "")
        headers["Content-Security-Policy"] = _POLICY.format(
            scripts=f" {scripts}" if scripts else "", ancestors=self._ancestors
        )
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Opener-Policy"] = "same-origin"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"


def _keep_slashes(scope: Scope) -> None:
    """Have encoded slashes of the path stand for themselves: an id may hold them."""
    raw = scope.get("raw_path")
    if raw is None or b"%2f" not in raw.lower():
        return
    text = raw.partition(b"?")[0].decode("latin-1")
    kept = unquote(text.replace("%2f", SLASH).replace("%2F", SLASH))
    if kept.replace(SLASH, "/") == scope["path"]:
        scope["path"] = kept
