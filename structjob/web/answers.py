"""Turns a route's record into JSON bytes, and documents its schema in OpenAPI."""

from __future__ import annotations

import asyncio
import functools
import gzip
import inspect
import time
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from structjob.models import Page
from structjob.reader import Reader
from structjob.web.accept import accepts, takes_gzip
from structjob.web.auth import Identity, may_write
from structjob.web.problems import MEDIA_TYPE, Refused
from structjob.web.source import Source

T = TypeVar("T")

_Handler = Callable[..., Coroutine[Any, Any, Any]]

GZIP_FROM = 1024
"""Minimum number of bytes from which an answer is compressed."""

_LOOK = 0.5
"""Seconds between two checks whether the client still waits for its answer."""

SLASH = "\ue02f"
"""Replaces an encoded slash in a path: such a slash is part of an id, and not a separator."""

SCHEMA = "#/components/schemas/{name}"

encode = msgspec.json.Encoder().encode

_MEANINGS = {
    400: "A parameter or its value is refused.",
    401: "A token is needed.",
    403: "The token, or the place the request comes from, does not allow this.",
    404: "There is no such thing.",
    406: "The answer is JSON, which Accept excludes.",
    409: "The state of the thing does not allow this.",
    414: "The address is too long.",
    415: "The body is not JSON.",
    413: "The body is too long.",
    421: "The Host header is not one of this server's.",
    426: "Only a WebSocket is answered here: send Upgrade and Connection.",
    429: "Too many streams, or too many failed logins.",
    503: "The database does not answer; ask again later.",
    504: "The database took longer than 10 seconds.",
}
_COMMON = (400, 401, 403, 406, 414, 421, 429, 503, 504)


class PageOf(msgspec.Struct, Generic[T]):
    """One page of a listing.

    ``next_cursor`` and ``previous_cursor`` lead to the neighboring pages; null if there is no such
    page. ``partial``: the search stopped after 100,000 rows; its cursor continues it.
    """

    items: tuple[T, ...]
    next_cursor: str | None
    previous_cursor: str | None
    partial: bool


class Count(msgspec.Struct):
    """How many match."""

    count: int


def page_of(page: Page[T]) -> PageOf[T]:
    """Return a page in the form in which it is sent."""
    return PageOf(page.items, page.next_cursor, page.previous_cursor, page.partial)


ANSWERS: dict[str, Any] = {}
"""The types of the answers, by their reference in a route's documentation."""


def _reference(answer: Any) -> dict[str, str]:
    name = f"answer:{answer}"
    ANSWERS[name] = answer
    return {"$ref": name}


async def _opened(request: Request) -> Source:
    source: Source = request.app.state.source
    await source.open()
    return source


async def _reader(request: Request) -> Reader:
    return (await _opened(request)).reader


Reads = Annotated[Reader, Depends(_reader)]
"""What reads the database, as a parameter of a route."""

Writes = Annotated[Source, Depends(_opened)]
"""The same for a route that needs a tracker or a tail."""


class _Id(Convertor[str]):
    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return value.replace(SLASH, "/")


register_url_convertor("id", _Id())


def reads(
    router: APIRouter,
    path: str,
    answer: Any,
    *,
    example: Any = None,
    problems: tuple[int, ...] = (),
    etag: bool = False,
    write: bool = False,
    body: Any = None,
    status: int = 200,
) -> Callable[[_Handler], _Handler]:
    """Register a handler that returns a record or a response.

    Args:
        router: The router.
        path: The path, relative to the router's.
        answer: The type of the record.
        example: An example for OpenAPI.
        problems: Problem statuses in addition to the common ones.
        etag: Whether to answer 304 if the record has not changed.
        write: Register a POST that needs the scope write, in place of a GET.
        body: The type of its JSON body.
        status: The status of the answer.
    """

    def register(handler: _Handler) -> _Handler:
        signature = inspect.signature(handler, eval_str=True)
        request = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY, annotation=Request)
        known = "request" in signature.parameters

        @functools.wraps(handler)
        async def run(**values: Any) -> Response:
            asked: Request = values["request"] if known else values.pop("request")
            if not accepts(asked.headers, "application/json"):
                raise Refused(406, "the answer is JSON: send Accept: application/json")
            if write:
                may_write(asked.scope["structjob.identity"], asked.headers)
            began = time.perf_counter()
            # a change goes on without its client, which has sent it
            found = await (handler(**values) if write else _for(asked, handler(**values)))
            read = time.perf_counter() - began
            if isinstance(found, Response):
                return found
            return as_json(asked, found, etag=etag, status=status, seconds=read)

        parameters = [*signature.parameters.values(), *(() if known else (request,))]
        run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what FastAPI reads
            parameters=parameters, return_annotation=Response
        )
        content: dict[str, Any] = {"schema": _reference(answer)}
        if example is not None:
            content["example"] = example
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": "OK", "content": {"application/json": content}},
            **problems_of(*problems, *((413, 415) if write else ())),
        }
        if etag:
            responses[304] = {"description": "Not changed since If-None-Match."}
        router.add_api_route(
            path,
            run,
            methods=["POST" if write else "GET"],
            response_model=None,
            responses=responses,
            status_code=status,
            openapi_extra=None if body is None else _body(body),
        )
        return run

    return register


async def _for(request: Request, work: Coroutine[Any, Any, T]) -> T | Response:
    """Return the result of *work*, or cancel it if the client closes the connection.

    Otherwise a query of seconds, such as a histogram of millions of events, would run to its end.
    """
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait((task,), timeout=_LOOK))[0]:
            if await request.is_disconnected():
                return Response(status_code=499)  # no client receives it
        return task.result()
    finally:
        task.cancel()


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of problems, including the common ones."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA.format(name="Problem")}}},
        }
        for status in sorted({*_COMMON, *statuses})
    }


def _body(form: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": _reference(form)}}}}


def by_of(request: Request) -> str | None:
    """Return the name that is recorded for the author of a change."""
    identity: Identity = request.scope["structjob.identity"]
    return None if identity.id is None else f"token {identity.id}"


def as_json(
    request: Request,
    found: Any,
    *,
    etag: bool = False,
    status: int = 200,
    seconds: float | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return *found* as a response."""
    began = time.perf_counter()
    body = encode(found)
    headers = {"Cache-Control": "no-store", **(headers or {})}
    if etag:
        tag = f'W/"{blake2b(body, digest_size=9).hexdigest()}"'
        headers |= {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    if seconds is not None:
        took = time.perf_counter() - began
        headers["Server-Timing"] = f"db;dur={1000 * seconds:.1f}, json;dur={1000 * took:.1f}"
    return compressed(request, body, "application/json", status=status, headers=headers)


def compressed(
    request: Request, body: bytes, media_type: str, *, status: int = 200, headers: dict[str, str]
) -> Response:
    """Return *body* as a response, compressed if it is long and the client accepts that."""
    headers = {**headers, "Vary": "Accept-Encoding"}
    if len(body) >= GZIP_FROM and takes_gzip(request.headers):
        body = gzip.compress(body, 1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status, headers, media_type)
