"""Cancel requests of other processes: passed on to the jobs of this one."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import RowMapping

from structjob.diagnostics import diagnostics
from structjob.engine.database import DatabaseLink
from structjob.exceptions import InvalidState
from structjob.machine.clock import moment
from structjob.store import cancellations

if TYPE_CHECKING:
    from structjob.lifecycle.job_core import JobCore


class Canceller:
    """Passes cancel requests to the jobs that they name.

    Args:
        session_id: The tracker's session.
        link: Its database link.
        live: The jobs that run at the moment.
    """

    def __init__(self, session_id: int, link: DatabaseLink, live: Collection[JobCore]) -> None:
        self._session_id = session_id
        self._link = link
        self._live = live
        self._heard: dict[tuple[str, int], datetime] = {}
        """Time of the last request that was passed on, by job and attempt. A request stays in the
        table, but is passed on once only.
        """

    async def look(self) -> None:
        """Fetch the cancel requests with one query; skip the query while no job runs."""
        if not (self._live or self._heard) or self._link.down is not None:
            return
        for row in await self._link.once(
            lambda: self._link.store.fetch(cancellations.requests(self._session_id))
        ):
            job_id, attempt = row["job_id"], row["attempt"]
            job = next(
                (job for job in list(self._live) if job.id == job_id and _is_meant(job, row)), None
            )
            if job is None:  # the job has ended
                await self._link.store.transact(
                    lambda connection, job_id=job_id, attempt=attempt: cancellations.forget(
                        connection, self._session_id, job_id, attempt
                    )  # type: ignore[misc]  # bound early
                )
                self._heard.pop((job_id, attempt), None)
            elif self._heard.get((job_id, attempt)) != row["requested_at"]:
                self._heard[job_id, attempt] = row["requested_at"]
                try:
                    job.request_cancel(
                        row["reason"] or "", row["requested_by"], force=bool(row["forced"])
                    )
                except InvalidState as exc:
                    diagnostics.warning("a request to cancel failed: %s", exc)


def _is_meant(job: JobCore, row: RowMapping) -> bool:
    if job.claim.provisional is None:
        return bool(job.attempt == row["attempt"])
    # The job's attempt number differs from the number in the database.
    return bool(row["started_at"] == moment(job.claim.provisional))
