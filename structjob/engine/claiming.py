"""Claiming jobs, and taking back what was claimed where nobody heard the answer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from structjob.engine.link import Link
from structjob.exceptions import StoreUnavailable
from structjob.store import claims

_KNOWN = 10_000
"""Jobs whose last attempt is remembered at most."""


class Starting(Protocol):
    """A job that is to begin.

    Attributes:
        provisional: When the attempt began that runs though its claim was not answered; None while none does.
    """

    provisional: str | None


class _Unanswered(NamedTuple):
    row: dict[str, Any]
    job: Starting
    pending: bool


class Claiming:
    """Claims jobs for a tracker.

    A claim whose answer was lost may have entered a running attempt that nobody runs. It is taken back as soon as the database answers,
    before its job or its idempotency key is claimed again: the same start, repeated, is the first one.

    Args:
        link: The tracker's database.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unanswered: list[_Unanswered] = []
        self._known: dict[str, int] = {}
        """The last attempt at each job that this process has claimed, or begun unanswered; in the order of these."""

    async def claim(self, row: dict[str, Any], job: Starting, *, pending: bool) -> tuple[dict[str, Any] | None, int]:
        """Do as `structjob.store.ingest.Store.claim` says, for *job*; *pending* says that this process has made it before."""
        for each in self._unanswered[:]:
            if each.row["id"] == row["id"] or (
                row["idempotency_key"] is not None and each.row["idempotency_key"] == row["idempotency_key"]
            ):
                await self._settle(each)
        try:
            former, attempt = await self._link.once(lambda: self._link.store.claim(row))
        except StoreUnavailable:
            self._unanswered.append(_Unanswered(row, job, pending))
            raise
        if attempt:
            self._know(row["id"], attempt)
        return former, attempt

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that begins unanswered, after the attempt *former*; no other one of this process has it."""
        number = max(self._known.get(job_id, 0), former) + 1
        self._know(job_id, number)
        return number

    def _know(self, job_id: str, attempt: int) -> None:
        self._known.pop(job_id, None)
        self._known[job_id] = attempt
        if len(self._known) > _KNOWN:
            with suppress(KeyError, RuntimeError):  # another thread forgets as well
                del self._known[next(iter(self._known))]

    async def settle(self) -> None:
        """Take back what was entered without an answer, but for what goes on all the same."""
        for each in self._unanswered[:]:
            await self._settle(each)

    async def _settle(self, each: _Unanswered) -> None:
        if each.job.provisional != each.row["started_at"]:
            await self._link.once(
                lambda: self._link.store.transact(lambda connection: claims.take_back(connection, each.row, pending=each.pending))
            )
        if each in self._unanswered:  # another may have done the same meanwhile, which harms nothing
            self._unanswered.remove(each)
