"""What the tables take, and how long it is kept."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field

from structjob.statistics import Storage
from structjob.web.answers import Reads, reads
from structjob.web.params import Flag, Query

router = APIRouter(tags=["storage"])


class StorageQuery(Query):
    """Parameters of the storage."""

    quick: Flag = Field(default=False, description="The bytes of all tables together only.")


@reads(router, "/storage", Storage)
async def get_storage(source: Reads, query: Annotated[StorageQuery, Parameters()]) -> Any:
    """Return rows and bytes of each table."""
    return await source.stats.storage(quick=query.quick)
