"""Bodies of requests: JSON of a known form, and not much of it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from fastapi import Request

from structjob.web.problems import Refused

T = TypeVar("T")

MAX_BODY = 64 * 1024
"""Bytes of a body, or of a WebSocket's message, at most."""


async def json_of(request: Request) -> Any:
    """Return the JSON of a request's body; an empty object where there is none.

    Raises:
        Refused: if it is too long, or no JSON.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise Refused(413, f"the body is longer than {MAX_BODY:,} bytes")
    if not body:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "the body must be JSON: Content-Type: application/json")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise Refused(400, f"the body is no JSON: {exc}") from None


async def body_as(request: Request, form: type[T]) -> T:
    """Return the body of a request as a *form*.

    Raises:
        Refused: if it is none such.
    """
    try:
        return msgspec.convert(await json_of(request), form)
    except msgspec.ValidationError as exc:
        raise Refused(400, f"the body: {exc}") from None
