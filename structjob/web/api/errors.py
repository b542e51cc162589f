"""Errors, grouped by their fingerprints."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field

from structjob.models import EventRecord
from structjob.statistics import ErrorGroup
from structjob.web.answers import Count, Reads, by_of, reads
from structjob.web.body import body_as
from structjob.web.params import LIMIT, SINCE, UNTIL, Asked, Moment, NoQuery, Query, Several

router = APIRouter(tags=["errors"])

_SAMPLES = 10


class ErrorMatch(Query):
    """Filter of errors: the fields of `structjob.ErrorFilter`, without the page."""

    status: Several | None = Field(
        default=None, description="`open`, `resolved`, `regressed`.", examples=[["open"]]
    )
    outcome: Literal["final", "recovered"] | None = Field(
        default=None, description="`final`: it ended a job; `recovered`: its job went on."
    )
    since: Moment | None = SINCE
    until: Moment | None = UNTIL
    operation: Several | None = None
    step: Several | None = None
    job: str | None = Field(default=None, description="Any id of a job in which it occurred.")
    project: Several | None = None


class ErrorQuery(ErrorMatch):
    """Parameters of a list of errors."""

    limit: int = LIMIT


class ErrorDetail(msgspec.Struct):
    """An error, with its first and its newest occurrences."""

    group: ErrorGroup
    first: EventRecord | None
    newest: list[EventRecord]


@reads(router, "/errors", list[ErrorGroup])
async def list_errors(reader: Reads, query: Asked[ErrorQuery]) -> Any:
    """List errors, most recently seen first."""
    return await reader.errors.list(**query.given())


@reads(router, "/errors/count", Count)
async def count_error_groups(reader: Reads, query: Asked[ErrorMatch]) -> Any:
    """Count the matching errors, each once however often it occurred."""
    return Count(await reader.errors.count(**query.given()))


@reads(router, "/errors/{fingerprint:id}", ErrorDetail, problems=(404, 409))
async def get_error(reader: Reads, fingerprint: str, query: Asked[NoQuery]) -> Any:
    """Return an error by its fingerprint, or the beginning of it, with some of its occurrences."""
    group = await reader.errors.get(fingerprint)
    first = await reader.logs.list(fingerprint=group.fingerprint, limit=1)
    newest = await reader.logs.list(fingerprint=group.fingerprint, limit=_SAMPLES, order="desc")
    return ErrorDetail(group, first[0] if first else None, list(newest))


class By(msgspec.Struct, forbid_unknown_fields=True):
    """The author of the change."""

    by: str | None = None
    """At most 128 characters; default: the token."""


_marks = partial(reads, router, answer=ErrorGroup, body=By, problems=(404, 409), write=True)


@_marks("/errors/{fingerprint:id}/resolve")
async def resolve_error(
    request: Request, reader: Reads, fingerprint: str, query: Asked[NoQuery]
) -> Any:
    """Mark an error as resolved; if it occurs again, it has regressed."""
    wanted = await body_as(request, By)
    return await reader.errors.resolve(fingerprint, by=wanted.by or by_of(request))


@_marks("/errors/{fingerprint:id}/reopen")
async def reopen_error(
    request: Request, reader: Reads, fingerprint: str, query: Asked[NoQuery]
) -> Any:
    """Reopen a resolved error."""
    await body_as(request, By)
    return await reader.errors.reopen(fingerprint)
