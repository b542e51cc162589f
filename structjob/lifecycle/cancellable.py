"""The methods of a live job with which users ask it to stop."""

from __future__ import annotations

from structjob.lifecycle.vocabulary import JobVocabulary


class Cancellable(JobVocabulary):
    """The part of a job that handles its cancellation."""

    __slots__ = ()

    def cancel(self, reason: str | None = None, *, force: bool = False) -> None:
        """Ask the job to stop. It is recorded as cancelled when it stops.

        Under ``async with`` its task is cancelled. Under ``with`` there is no task: `Cancelled` is
        raised in the block when the next step or item starts, in `update`, during the delay before
        a retry, and in `check_cancelled`.

        An attempt is cancelled only once, because a second cancellation would interrupt its cleanup
        and replace the reason.

        Args:
            reason: Recorded as the job's error message.
            force: Cancel the job again although it is already being cancelled.

        Raises:
            InvalidState: if the job was started manually, so that there is nothing to cancel. Also
                if it, or an enclosing job in the same task, is already being cancelled and *force*
                is not set.
        """
        self._core.cancel(reason, force=force)

    @property
    def cancel_requested(self) -> bool:
        """Whether this attempt was asked to stop by `cancel` or `Tracker.cancel`."""
        return self._core.cancellation.requested

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if this job, or an enclosing job, was asked to stop. Use it in long
        work without steps.

        It applies to jobs in a ``with`` block. Under ``async with`` it does nothing, because there
        the task is cancelled at its next ``await``.
        """
        if (asked := self._core.cancellation.asked()) is not None:
            asked.stop()
