"""Claiming jobs, and taking back what was claimed where nobody heard the answer."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from structjob.engine.link import Link
from structjob.exceptions import StoreUnavailable
from structjob.store import claims


class Starting(Protocol):
    """A job that is to begin.

    Attributes:
        attempt: The attempt that runs, 0 while none does.
    """

    attempt: int


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

    async def claim(self, row: dict[str, Any], job: Starting, *, pending: bool) -> tuple[dict[str, Any] | None, int]:
        """Do as `structjob.store.ingest.Store.claim` says, for *job*; *pending* says that this process has made it before."""
        for each in self._unanswered[:]:
            if each.row["id"] == row["id"] or (
                row["idempotency_key"] is not None and each.row["idempotency_key"] == row["idempotency_key"]
            ):
                await self._settle(each)
        try:
            return await self._link.once(lambda: self._link.store.claim(row))
        except StoreUnavailable:
            self._unanswered.append(_Unanswered(row, job, pending))
            raise

    async def settle(self) -> None:
        """Take back what was entered without an answer, but for what goes on all the same."""
        for each in self._unanswered[:]:
            await self._settle(each)

    async def _settle(self, each: _Unanswered) -> None:
        goes_on = each.job.attempt
        await self._link.once(
            lambda: self._link.store.transact(
                lambda connection: claims.take_back(connection, each.row, goes_on=goes_on, pending=each.pending)
            )
        )
        if each in self._unanswered:  # another may have done the same meanwhile, which harms nothing
            self._unanswered.remove(each)
