"""Bodies of requests: JSON of a known form and a limited size."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from fastapi import Request

from structjob.decoding import NOT_JSON
from structjob.web.problems import Refused

T = TypeVar("T")

MAX_BODY = 64 * 1024
"""Maximum number of bytes of a body, or of a WebSocket's message."""


async def bytes_of(request: Request, most: int = MAX_BODY) -> bytes:
    """Return a request's body.

    Raises:
        Refused: if it has more than *most* bytes.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Refused(413, f"the body is longer than {most:,} bytes")
    return body


async def json_of(request: Request) -> Any:
    """Return the JSON of a request's body; an empty object if there is no body.

    Raises:
        Refused: if the body is too long, or is not JSON.
    """
    body = await bytes_of(request)
    if not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "the body must be JSON: Content-Type: application/json")
    try:
        return msgspec.json.decode(body)
    except NOT_JSON as exc:
        raise Refused(400, f"the body is not JSON: {exc}") from None


async def body_as(request: Request, form: type[T]) -> T:
    """Return the body of a request as a *form*.

    Raises:
        Refused: if the body does not have that form.
    """
    try:
        return msgspec.convert(await json_of(request), form)
    except msgspec.ValidationError as exc:
        raise Refused(400, f"the body: {exc}") from None
