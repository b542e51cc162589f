"""Sessions: the programs that log here."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field

from structjob.queries.session_status import SessionStatus
from structjob.web.answers import Reads, reads
from structjob.web.params import LIMIT, Flag, NoQuery, Query
from structjob.web.problems import Refused

router = APIRouter(tags=["sessions"])

_ALL = 10_000


class SessionQuery(Query):
    """Parameters of a list of sessions."""

    live: Flag = Field(default=False, description="Only those that have not ended.")
    limit: int = LIMIT


@reads(router, "/sessions", list[SessionStatus])
async def list_sessions(source: Reads, query: Annotated[SessionQuery, Parameters()]) -> Any:
    """List sessions, the newest first."""
    return await source.sessions.list(limit=query.limit, live=query.live)


@reads(router, "/sessions/{number}", SessionStatus, problems=(404,))
async def get_session(source: Reads, number: str, query: Annotated[NoQuery, Parameters()]) -> Any:
    """Return one session by its number."""
    for one in await source.sessions.list(limit=_ALL):
        if str(one.session.session_id) == number:
            return one
    raise Refused(404, f"session not found: {number}")
