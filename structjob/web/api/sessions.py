"""Sessions: the trackers that log to this database."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from structjob.models import Gap, SessionRecord
from structjob.queries.verify import VerifyResult
from structjob.web.answers import Reads, reads
from structjob.web.params import LIMIT, Asked, Flag, NoQuery, Query
from structjob.web.problems import Refused

router = APIRouter(tags=["sessions"])


class SessionQuery(Query):
    """Parameters of a list of sessions."""

    live: Flag = Field(default=False, description="Only those that have not ended.")
    limit: int = LIMIT


@reads(router, "/sessions", list[SessionRecord])
async def list_sessions(reader: Reads, query: Asked[SessionQuery]) -> Any:
    """List sessions, newest first."""
    return await reader.sessions.list(limit=query.limit, live=query.live)


@reads(router, "/sessions/{number}", SessionRecord, problems=(404,))
async def get_session(reader: Reads, number: str, query: Asked[NoQuery]) -> Any:
    """Return one session by its number."""
    return await reader.sessions.get(_number(number))


@reads(router, "/sessions/{number}/gaps", list[Gap], problems=(404,))
async def list_gaps(reader: Reads, number: str, query: Asked[NoQuery]) -> Any:
    """Return the numbers of a session for which no event is stored, with the reason."""
    return await reader.sessions.gaps(_number(number))


@reads(router, "/verify", VerifyResult)
async def verify(reader: Reads, query: Asked[NoQuery]) -> Any:
    """Prove that no event is lost: each number that a session assigned is stored or explained."""
    return await reader.verify()


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < 2**63):
        raise Refused(404, f"session not found: {text}; a session is named by its number")
    return int(text)
