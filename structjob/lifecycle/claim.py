"""Which attempt at a job a handle is, and how it gets this attempt from the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from structjob.exceptions import JobCancelled, StoreUnavailable

if TYPE_CHECKING:
    from structjob.lifecycle.host import JobHost
    from structjob.lifecycle.options import JobOptions

Answer = tuple[dict[str, Any] | None, int]
"""What the database answers to a claim: its row of the job, if it has one, and the number of the
attempt. The number is 0 if the attempt belongs to another start.
"""


class Claimant(Protocol):
    """A job, as far as its claim needs it."""

    @property
    def id(self) -> str: ...
    def named(self) -> str: ...


J = TypeVar("J", bound=Claimant)


class Claim:
    """The attempt of one handle of a job: a new job's first one, or the next one of a known job.

    Args:
        options: The options of the job.

    Attributes:
        options: See above.
        attempt: See `structjob.Job`; so do *provisional* and *existing*.
        known: Whether the database may know the job already.
    """

    __slots__ = ("_before", "attempt", "existing", "known", "options", "provisional")

    def __init__(self, options: JobOptions) -> None:
        self.options = options
        self.attempt = 0
        self.provisional: str | None = None
        self.existing = False
        self.known = options.job_id is not None
        self._before: int | None = None
        """The attempt before this one, if this process made it."""

    def follow(self, former: Claim) -> None:
        """Become the attempt after *former*, so that the database need not confirm it."""
        self._before, self.known = former.attempt, True

    async def reserve(self, host: JobHost[Any], row: dict[str, Any]) -> dict[str, Any] | None:
        """Store a pending job with its idempotency key.

        Return the job that already has the key, or None if there is no such job.

        Raises:
            StoreUnavailable: if the database is unavailable, unless the job may start *offline*.
        """
        try:
            return await host.reserve(row)
        except StoreUnavailable:
            if not self.options.offline:
                raise
            return None

    async def ask(
        self,
        host: JobHost[J],
        job: J,
        row: dict[str, Any],
        *,
        pending: bool,
        late: Callable[[asyncio.Future[Answer]], None],
    ) -> Answer:
        """Ask the database for the attempt, because another process may have made earlier attempts.

        Args:
            host: The tracker.
            job: The job.
            row: Its row, as if it were running.
            pending: Whether it is stored as pending.
            late: Called with the answer if the caller is cancelled while it waits.

        Raises:
            JobCancelled: if the job was cancelled before it began.
            StoreUnavailable: see `reserve`.
        """
        claim = asyncio.ensure_future(host.claim(row, job, pending=pending))
        try:
            answer = await asyncio.shield(claim)
        except asyncio.CancelledError:
            # The database continues with the request and stores a running attempt. It must be
            # ended, even if no caller waits for it any more.
            host.claims.add(claim)
            claim.add_done_callback(late)
            raise
        except StoreUnavailable:
            if self._before is None and not self.options.offline:
                raise
            # The claim may have reached the database although no answer came. Then it has stored
            # this time.
            self.provisional = row["started_at"]
            return None, host.provisional(job.id, self._before or 0)
        if refused(job, answer):
            assert answer[0] is not None  # noqa: S101 -- see `refused`
            raise JobCancelled(
                f"{job.named()} was cancelled before it began: {answer[0]['error_message']}"
            )
        return answer

    def answered(self, answer: Answer) -> None:
        """Keep the attempt: this job's own, or the one of the job that exists already."""
        former, self.attempt = answer
        if former is not None and self.attempt == 0:
            self.existing, self.attempt = True, former["attempt"]


def refused(job: Claimant, answer: Answer) -> bool:
    """Return whether *answer* says that *job* itself was cancelled before it began."""
    former, attempt = answer
    return former is not None and attempt == 0 and former["id"] == job.id


def decoded(value: Any) -> Any:
    """Return a value of the database's row; its JSON columns may be text."""
    return msgspec.json.decode(value) if isinstance(value, (str, bytes)) else value
