"""Claiming jobs, and taking back what was claimed where nobody heard the answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from structjob.engine.link import Link
from structjob.exceptions import StoreUnavailable
from structjob.store import claims

_KNOWN = 10_000
"""Jobs whose last attempt is remembered at most."""


_LATE = 60.0
"""Seconds in which a claim whose answer was lost may still be carried out, though the database answers again: it was on its way."""


class Starting(Protocol):
    """A job that is to begin.

    Attributes:
        provisional: When the attempt began that runs though its claim was not answered; None while none does.
    """

    provisional: str | None


@dataclass(slots=True, eq=False)
class _Unanswered:
    row: dict[str, Any]
    job: Starting
    pending: bool
    missed: float | None = None
    """When it was looked for first, and was not there (monotonic)."""

    def due(self) -> bool:
        """Return whether to look for it: as soon as the database answers, and when all that was on its way has arrived or never will."""
        return self.missed is None or time.monotonic() - self.missed >= _LATE


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
        same = ("id", "idempotency_key") if row["idempotency_key"] is not None else ("id",)
        await self._settle_all(lambda each: any(each.row[name] == row[name] for name in same))
        former, attempt = await self._claim(row, job, pending=pending)
        if not attempt and former is not None:
            holder = former["id"]
            if await self._settle_all(lambda each: bool(each.row["id"] == holder)):  # which had only just been entered, for nobody
                former, attempt = await self._claim(row, job, pending=pending)
        if attempt:
            self._know(row["id"], attempt)
        return former, attempt

    async def _claim(self, row: dict[str, Any], job: Starting, *, pending: bool) -> tuple[dict[str, Any] | None, int]:
        try:
            return await self._link.once(lambda: self._link.store.claim(row))
        except StoreUnavailable:
            self._unanswered.append(_Unanswered(row, job, pending))
            raise

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

    async def settle(self, most: int | None = None) -> None:
        """Take back what was entered without an answer, but for what goes on all the same; of so many starts at *most*."""
        for each in [each for each in self._unanswered if each.due()][:most]:
            await self._settle(each)

    async def _settle_all(self, wanted: Callable[[_Unanswered], bool]) -> bool:
        """Settle those that are *wanted*; return whether any of them was taken back."""
        return any([await self._settle(each) for each in self._unanswered[:] if wanted(each)])

    async def _settle(self, each: _Unanswered) -> bool:
        """Take back one; return whether it was there. If not it is looked for once more: it may still be on its way to the server."""
        final = each.missed is not None and each.due()
        runs = each.job.provisional == each.row["started_at"]
        taken = not runs and await self._link.transact(lambda connection: claims.take_back(connection, each.row, pending=each.pending))
        if each.missed is None:
            each.missed = time.monotonic()
        if (runs or taken or final) and each in self._unanswered:  # another may have done the same meanwhile
            self._unanswered.remove(each)
        return taken
