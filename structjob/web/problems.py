"""Errors as RFC 9457 problems: one JSON object that says what is wrong and how to fix it."""

from __future__ import annotations

import html
import http
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from structjob.exceptions import (
    AmbiguousId,
    ErrorGroupNotFound,
    EventNotFound,
    InvalidArgument,
    InvalidState,
    InvalidURL,
    JobNotFound,
    NotOpen,
    PruneInProgress,
    QueryTimeout,
    SchemaMismatch,
    SessionNotFound,
    StoreUnavailable,
    StructjobError,
)
from structjob.web.paths import shows_page

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"

RETRY_AFTER = 5
"""Seconds after which a client may try again while the database is unavailable."""

_STATUSES: Mapping[type[StructjobError], int] = {
    JobNotFound: 404,
    EventNotFound: 404,
    ErrorGroupNotFound: 404,
    SessionNotFound: 404,
    AmbiguousId: 409,
    InvalidState: 409,
    PruneInProgress: 409,
    StoreUnavailable: 503,
    NotOpen: 503,
    QueryTimeout: 504,
    SchemaMismatch: 503,
    InvalidURL: 503,
    InvalidArgument: 400,
}


_FIELDS = {"q": "text", "source": "logger", "job": "job_id", "root": "root_only"}
"""The field of a filter that a parameter of another name is for."""


class Problem(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An error in the format of RFC 9457."""

    type: str
    """The kind of problem, ``urn:structjob:problem:…``."""
    title: str
    """The status in words."""
    status: int
    detail: str
    """What is wrong with this request, and how to fix it."""
    parameter: str | None = None
    """The parameter that is wrong, if one is."""


class Refused(Exception):
    """A request that is answered with a problem.

    Args:
        status: The HTTP status.
        detail: What is wrong and how to fix it.
        parameter: The parameter that is wrong.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        parameter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.parameter = parameter
        self.headers = headers


def answer(refused: Refused) -> Response:
    """Return the response for a problem."""
    status = http.HTTPStatus(refused.status)
    problem = Problem(
        type=f"urn:structjob:problem:{status.name.lower().replace('_', '-')}",
        title=status.phrase,
        status=status.value,
        detail=refused.detail,
        parameter=refused.parameter,
    )
    headers = {"Cache-Control": "no-store", **(refused.headers or {})}
    return Response(msgspec.json.encode(problem), status.value, headers, MEDIA_TYPE)


def page(refused: Refused) -> Response:
    """Return the response for a problem of a person's browser."""
    title = http.HTTPStatus(refused.status).phrase
    document = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" '
        'content="light dark"><meta name="viewport" content="width=device-width">'
        f"<title>{title} · structjob</title><h1>{title}</h1><p>{html.escape(refused.detail)}</p></html>"
    )
    headers = {"Cache-Control": "no-store", **(refused.headers or {})}
    return Response(document, refused.status, headers, "text/html")


def refusal(exc: StructjobError) -> Refused:
    """Return the problem for an error of the library."""
    status = next((_STATUSES[kind] for kind in type(exc).__mro__ if kind in _STATUSES), 500)
    headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else None
    # the message names the database with its password masked
    return Refused(status, str(exc), headers=headers)


def _about(detail: str, request: Request) -> str | None:
    """Return the parameter whose value, path or name *detail* contains."""
    quoted, named = [], []
    for name, value in [*request.path_params.items(), *request.query_params.multi_items()]:
        places = [
            found.start()
            for one in {name, _FIELDS.get(name, name)}
            if one in detail and (found := re.search(rf"\b{re.escape(one)}\b", detail))
        ]
        if any(repr(one) in detail for one in (*value.split(","), *name.split(".", 1)[1:])):
            quoted.append((not places, name))  # two parameters may have the value
        elif places:
            named.append((min(places), name))
    return min(quoted or named, key=lambda one: one[0], default=(0, None))[1]


def describe(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """Return the problem for parameters that were not accepted."""
    first = errors[0]
    place = [str(part) for part in first["loc"][1:]]
    parameter = place[0] if place else (first.get("ctx") or {}).get("parameter")
    detail = str(first["msg"]).removeprefix("Value error, ")
    return Refused(400, f"{parameter}: {detail}" if place else detail, parameter=parameter)


def install(app: FastAPI) -> None:
    """Make *app* answer every error with a problem."""

    async def expected(request: Request, exc: Exception) -> Response:
        if isinstance(exc, StructjobError):
            exc = refusal(exc)
            if exc.status == 400:
                exc.parameter = _about(exc.detail, request)
        elif isinstance(exc, RequestValidationError):
            exc = describe(exc.errors())
        assert isinstance(exc, Refused)  # noqa: S101 -- registered for these three
        return answer(exc)

    async def of_framework(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101 -- registered for it
        for_person = shows_page(request.scope, request.headers)
        details = {
            404: f"there is nothing at {request.url.path}"
            + ("" if for_person else "; the paths are in api/v1/openapi.json"),
            405: f"{request.method} is not allowed at {request.url.path}",
        }
        detail = details.get(exc.status_code, str(exc.detail))
        headers = dict(exc.headers or {})
        if "GET" in (allowed := headers.get("Allow", "")) and "HEAD" not in allowed:
            headers["Allow"] = f"{allowed}, HEAD"
        refused = Refused(exc.status_code, detail, headers=headers)
        return page(refused) if for_person else answer(refused)

    async def unexpected(request: Request, exc: Exception) -> Response:
        return answer(Refused(500, "an error in structjob itself; the server's log has it"))

    for kind in (Refused, StructjobError, RequestValidationError):
        app.add_exception_handler(kind, expected)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(Exception, unexpected)
