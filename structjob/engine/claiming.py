"""Claiming jobs, and taking back what was claimed where nobody heard the answer."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from structjob.engine.database import DatabaseLink
from structjob.exceptions import StoreUnavailable
from structjob.store import claims

_KNOWN = 10_000
"""Jobs whose last attempt is remembered at most."""

_LATE = 60.0
"""Seconds in which a claim whose answer was lost may still be carried out, though the database
answers again: it was on its way.
"""


class Starting(Protocol):
    """A job that is to begin.

    Attributes:
        provisional: When the attempt began that runs though its claim was not answered; None while
            none does.
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
        """Return whether to look for it: as soon as the database answers, and when all that was on
        its way has arrived or never will.
        """
        return self.missed is None or time.monotonic() - self.missed >= _LATE


class Claiming:
    """Claims jobs for a tracker.

    A claim whose answer was lost may have entered a running attempt that nobody runs. It is taken
    back as soon as the database answers, before its job or its idempotency key is claimed again:
    the same start, repeated, is the first one.

    Args:
        link: The tracker's database.
    """

    def __init__(self, link: DatabaseLink) -> None:
        self._link = link
        self._unanswered: list[_Unanswered] = []
        self._known: dict[str, int] = {}
        """The last attempt at each job that this process has claimed, or begun unanswered; in the
        order of these.
        """

    async def claim(
        self, row: dict[str, Any], job: Starting, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Do as `structjob.store.ingest.Store.claim` says, for *job*; *pending* says that this
        process has made it before.
        """
        await self._settle(self._about(row))
        former, attempt = await self._claim(row, job, pending=pending)
        if (
            not attempt
            and former is not None
            and await self._settle(
                [each for each in self._unanswered if each.row["id"] == former["id"]]
            )
        ):
            # what was in its way had only just been entered, for nobody
            former, attempt = await self._claim(row, job, pending=pending)
        if attempt:
            self._know(row["id"], attempt)
        return former, attempt

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Enter a job that is to be pending, with its idempotency key; return the job that has the
        key already, if there is one.

        Where the answer is lost nothing is taken back: whoever asks again finds the job by its key.
        """
        await self._settle(self._about(row))
        return (await self._link.once(lambda: self._link.store.claim(row)))[0]

    def _about(self, row: dict[str, Any]) -> list[_Unanswered]:
        same = ("id", "idempotency_key") if row["idempotency_key"] is not None else ("id",)
        return [
            each for each in self._unanswered if any(each.row[name] == row[name] for name in same)
        ]

    async def _claim(
        self, row: dict[str, Any], job: Starting, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        try:
            return await self._link.once(lambda: self._link.store.claim(row))
        except StoreUnavailable:
            self._unanswered.append(_Unanswered(row, job, pending))
            raise

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that begins unanswered, after the attempt *former*; no
        other one of this process has it.
        """
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
        """Take back what was entered without an answer, but for what goes on all the same; of so
        many starts at *most*.
        """
        await self._settle([each for each in self._unanswered if each.due()][:most])

    async def _settle(self, starts: list[_Unanswered]) -> bool:
        """Take back *starts*; return whether any was there. One that was not is looked for once
        more: it may be on its way.
        """
        found = False
        for each in starts:
            final = each.missed is not None and each.due()
            runs = each.job.provisional == each.row["started_at"]
            taken = not runs and await self._take_back(each)
            if each.missed is None:
                each.missed = time.monotonic()
            # another may have done the same meanwhile
            if (runs or taken or final) and each in self._unanswered:
                self._unanswered.remove(each)
            found = found or taken
        return found

    async def _take_back(self, each: _Unanswered) -> bool:
        return await self._link.transact(
            lambda connection: claims.take_back(connection, each.row, pending=each.pending)
        )
