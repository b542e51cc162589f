"""Login with a token, for browsers: a page without scripts, and a cookie."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from structjob.decoding import NOT_JSON
from structjob.web.auth import COOKIE, COOKIE_SECONDS, Doors, same_origin
from structjob.web.body import bytes_of
from structjob.web.problems import Refused, answer
from structjob.web.tokens import Token

_MAX_BODY = 4_096


async def log_in(request: Request, doors: Doors) -> Response:
    """Check a token, and set the cookie that represents it.

    A form redirects to the page that its user came from.
    """
    try:
        if same_origin(request.headers) is False:
            raise Refused(403, "the login comes from a page of another origin")
        fields = await _fields(request)
        token, value = doors.log_in(request.scope, fields.get("token", "").strip())
    except Refused as exc:
        if exc.status not in (401, 429) or not _is_form(request):
            return answer(exc)
        wanted = request.query_params.get("next", "")
        return _redirect(f"./login?failed={exc.status}&next={quote(wanted, safe='')}")
    response = (
        _redirect("./" + local_address(request.query_params.get("next", "")))
        if _is_form(request)
        else Response(msgspec.json.encode({"scope": token.scope}), media_type="application/json")
    )
    response.headers["Set-Cookie"] = _cookie(request, value, _seconds(token))
    response.headers["Cache-Control"] = "no-store"
    return response


async def log_out(request: Request) -> Response:
    """Delete the cookie."""
    if same_origin(request.headers) is False:
        return answer(Refused(403, "the request comes from a page of another origin"))
    return Response(status_code=204, headers={"Set-Cookie": _cookie(request, "", 0)})


def local_address(text: str) -> str:
    """Return *text* if it is an address below the root, or else an empty string."""
    path = text.partition("?")[0]
    if ":" in path or "//" in path or path.startswith("/"):
        return ""
    return "" if any(char < " " or char == "\\" for char in text) else text


def _cookie(request: Request, value: str, seconds: int) -> str:
    # Without a path, a browser uses the directory of the login, which is the prefix.
    secure = "; Secure" if request.url.scheme == "https" else ""
    return f"{COOKIE}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"


def _seconds(token: Token) -> int:
    if token.expires_at is None:
        return COOKIE_SECONDS
    return min(COOKIE_SECONDS, int((token.expires_at - datetime.now(UTC)).total_seconds()))


async def _fields(request: Request) -> dict[str, str]:
    body = await bytes_of(request, _MAX_BODY)
    if _is_form(request):
        return {name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()}
    try:
        return msgspec.json.decode(body, type=dict[str, str])
    except NOT_JSON:
        raise Refused(400, 'the body must be a form, or {"token": "…"}') from None


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")


def _redirect(address: str) -> Response:
    return Response(status_code=303, headers={"Location": address, "Cache-Control": "no-store"})
