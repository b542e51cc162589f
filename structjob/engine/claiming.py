"""Claims jobs, and withdraws claims whose answer was lost."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structjob.engine.database import DatabaseLink
from structjob.exceptions import StoreUnavailable
from structjob.store import claims

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore

_KNOWN = 10_000
"""Maximum number of jobs whose last attempt is remembered."""

_ANSWER_TIMEOUT = 60.0
"""Seconds during which a claim whose answer was lost may still be executed. It may have been sent
already when the database became unavailable.
"""


@dataclass(slots=True, eq=False)
class _Unanswered:
    row: dict[str, Any]
    job: JobCore
    pending: bool
    missed: float | None = None
    """When the claim was first looked for and not found (monotonic seconds)."""

    def due(self) -> bool:
        """Return whether to look for the claim now.

        The first look is due as soon as the database answers; the second when a claim that was sent
        can no longer arrive.
        """
        return self.missed is None or time.monotonic() - self.missed >= _ANSWER_TIMEOUT


class Claiming:
    """Claims jobs for a tracker.

    A claim whose answer was lost may have inserted a running attempt that no process runs. It is
    withdrawn as soon as the database answers, and before the same job or idempotency key is claimed
    again. Therefore a repeated start with the same id is idempotent.

    Args:
        link: The tracker's database link.
    """

    def __init__(self, link: DatabaseLink) -> None:
        self._link = link
        self._unanswered: list[_Unanswered] = []
        self._known: dict[str, int] = {}
        """The last attempt at each job that this process has claimed, or started without an answer.

        The order is that of these claims and starts.
        """

    async def claim(
        self, row: dict[str, Any], job: JobCore, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Claim *job*; see `structjob.store.contract.StateStore.claim`.

        *pending* says that this process has created the pending job before.
        """
        await self._withdraw(self._about(row))
        former, attempt = await self._claim(row, job, pending=pending)
        if (
            not attempt
            and former is not None
            and await self._withdraw(
                [each for each in self._unanswered if each.row["id"] == former["id"]]
            )
        ):
            # the conflicting row came from a claim whose answer was lost, and is withdrawn now
            former, attempt = await self._claim(row, job, pending=pending)
        if attempt:
            self._know(row["id"], attempt)
        return former, attempt

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Insert a pending job with its idempotency key.

        Return the job that already has the key, if any.

        If the answer is lost, nothing is withdrawn: the next call finds the job by its key.
        """
        await self._withdraw(self._about(row))
        return (await self._link.once(lambda: self._link.store.claim(row)))[0]

    def _about(self, row: dict[str, Any]) -> list[_Unanswered]:
        same = ("id", "idempotency_key") if row["idempotency_key"] is not None else ("id",)
        return [
            each for each in self._unanswered if any(each.row[name] == row[name] for name in same)
        ]

    async def _claim(
        self, row: dict[str, Any], job: JobCore, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        try:
            return await self._link.once(lambda: self._link.store.claim(row))
        except StoreUnavailable:
            self._unanswered.append(_Unanswered(row, job, pending))
            raise

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that starts without an answer, after the attempt *former*.

        No other attempt in this process has this number.
        """
        number = max(self._known.get(job_id, 0), former) + 1
        self._know(job_id, number)
        return number

    def _know(self, job_id: str, attempt: int) -> None:
        self._known.pop(job_id, None)
        self._known[job_id] = attempt
        if len(self._known) > _KNOWN:
            with suppress(KeyError, RuntimeError):  # another thread may remove the same entry
                del self._known[next(iter(self._known))]

    async def withdraw(self, most: int | None = None) -> None:
        """Withdraw claims without an answer, except for attempts that run anyway.

        At most *most* claims are withdrawn in one call.
        """
        await self._withdraw([each for each in self._unanswered if each.due()][:most])

    async def _withdraw(self, starts: list[_Unanswered]) -> bool:
        """Withdraw *starts*; return whether any of them was in the database.

        A claim that was not found is looked for once more, because it may still arrive.
        """
        found = False
        for each in starts:
            final = each.missed is not None and each.due()
            runs = each.job.claim.provisional == each.row["started_at"]
            taken = not runs and await self._take_back(each)
            if each.missed is None:
                each.missed = time.monotonic()
            # another task may have removed it meanwhile
            if (runs or taken or final) and each in self._unanswered:
                self._unanswered.remove(each)
            found = found or taken
        return found

    async def _take_back(self, each: _Unanswered) -> bool:
        return await self._link.transact(
            lambda connection: claims.take_back(connection, each.row, pending=each.pending)
        )
