"""The size of the tables, and their retention."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from fastapi import APIRouter, Request
from pydantic import Field

from structjob.models import PruneResult
from structjob.retention.policy import Retention
from structjob.statistics import Storage
from structjob.web.answers import Reads, Writes, reads
from structjob.web.body import body_as
from structjob.web.params import Asked, Flag, NoQuery, Query
from structjob.web.problems import Refused

router = APIRouter(tags=["storage"])


class StorageQuery(Query):
    """Parameters of the storage."""

    quick: Flag = Field(default=False, description="The bytes of all tables together only.")


@reads(router, "/storage", Storage)
async def get_storage(reader: Reads, query: Asked[StorageQuery]) -> Any:
    """Return rows and bytes of each table."""
    return await reader.stats.storage(quick=query.quick)


class RetentionQuery(Query):
    """Parameters of a preview."""

    days: float | None = Field(
        default=None,
        ge=0,
        le=36_500,
        description="Keep what is younger than this many days; by default the retention of the tracker that the application was given.",
    )


class PruneRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The retention in days; see `structjob.Retention`."""

    days: float | None = None
    levels: dict[str, float | None] = {}
    statuses: dict[str, float | None] = {}
    dry_run: bool = True
    """Count what would be deleted, and delete nothing."""


@reads(router, "/retention", PruneResult)
async def preview_prune(source: Writes, query: Asked[RetentionQuery]) -> Any:
    """Count what is past its retention; nothing is deleted."""
    if query.days is not None:
        return await source.reader.preview_prune(Retention(days=query.days))
    if source.tracker is None:
        raise Refused(
            400, "days is required, because this server has no retention", parameter="days"
        )
    return await source.tracker.prune(dry_run=True)


@reads(router, "/retention/prune", PruneResult, body=PruneRequest, problems=(409,), write=True)
async def prune(request: Request, source: Writes, query: Asked[NoQuery]) -> Any:
    """Delete what is past its retention, permanently; by default only count it."""
    wanted = await body_as(request, PruneRequest)
    # `Retention` checks the names
    levels, statuses = cast(Any, wanted.levels), cast(Any, wanted.statuses)
    kept = Retention(days=wanted.days, levels=levels, statuses=statuses)
    async with source.writing() as tracker:
        return await tracker.prune(kept, dry_run=wanted.dry_run, patience=0)
