"""Cancelling by request: what other processes ask this one to cancel."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from sqlalchemy import RowMapping

from structjob.diagnostics import diagnostics
from structjob.engine.database import DatabaseLink
from structjob.exceptions import InvalidState
from structjob.machine.clock import moment
from structjob.store import cancellations


class LiveJob(Protocol):
    """A job that runs in this process."""

    id: str
    operation: str
    attempt: int
    provisional: str | None

    def request_cancel(self, reason: str, requested_by: str | None, *, force: bool) -> None:
        """Cancel its task. Raises `InvalidState` if it has none, or is being cancelled already
        and *force* is not set.
        """

    def restate(self) -> None:
        """Record it and its open steps anew, as they are."""

    def abandon(self, reason: str) -> bool:
        """Record it and its open steps as cancelled, for *reason*; return whether it was running.
        What its code does later is ignored.
        """


class Canceller:
    """Hands requests on to the jobs they are about.

    Args:
        session_id: The tracker's session.
        link: Its database.
        live: The jobs that run at the moment.
    """

    def __init__(self, session_id: int, link: DatabaseLink, live: Collection[LiveJob]) -> None:
        self._session_id = session_id
        self._link = link
        self._live = live
        self._heard: dict[tuple[str, int], datetime] = {}
        """When the last request was made that was passed on, by job and attempt: each is passed on
        once, though it stays in the table.
        """

    async def look(self) -> None:
        """Look for requests, with one query; with none while no job runs."""
        if not (self._live or self._heard) or self._link.down is not None:
            return
        for row in await self._link.once(
            lambda: self._link.store.fetch(cancellations.requests(self._session_id))
        ):
            job_id, attempt = row["job_id"], row["attempt"]
            job = next(
                (job for job in list(self._live) if job.id == job_id and _is_meant(job, row)), None
            )
            if job is None:  # it has ended
                await self._link.store.transact(
                    lambda connection, job_id=job_id, attempt=attempt: cancellations.settle(
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
                    diagnostics.warning("a request to cancel could not be met: %s", exc)


def _is_meant(job: LiveJob, row: RowMapping) -> bool:
    if job.provisional is None:
        return bool(job.attempt == row["attempt"])
    # Its number is not the one in the database.
    return bool(row["started_at"] == moment(job.provisional))
