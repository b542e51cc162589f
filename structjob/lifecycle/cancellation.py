"""Cancellation of a job: through its task, or cooperatively in code without an event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from structjob.exceptions import Cancelled, InvalidState
from structjob.lifecycle.vocabulary import JobVocabulary
from structjob.models import being_cancelled

if TYPE_CHECKING:
    from structjob.context.scope import Scope


class Cancellable(JobVocabulary):
    """The part of a job that handles its cancellation."""

    __slots__ = (
        "_cancel_reason",
        "_cancelled",
        "_interrupted",
        "_noticed",
        "_task",
        "_thread",
    )
    if TYPE_CHECKING:
        _parent: Scope | None

        @property
        def _runs(self) -> bool: ...

    def _not_cancelled(self) -> None:
        """Start without a cancel request."""
        self._task: asyncio.Task[Any] | None = None
        """The task of a job in ``async with``."""
        self._thread: int | None = None
        """The thread of a job in ``with``."""
        self._noticed = False
        """Whether `Cancelled` was raised in that thread. Cleanup code is not interrupted again."""
        self._interrupted = False
        self._cancelled = False
        self._cancel_reason: str | None = None

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
        if (self._task is None and self._thread is None) or not self._runs:
            raise InvalidState(
                f"{self._named()} has no running task to cancel; end it with job.end('cancelled')"
            )
        if not force and (first := self._first_cancelled()) is not None:
            raise InvalidState(being_cancelled(first._named(), first._cancel_reason))
        self._cancelled, self._cancel_reason, self._noticed = True, reason, False
        if self._task is None:
            return
        task, loop = self._task, self._task.get_loop()
        if asyncio._get_running_loop() is loop:
            self._interrupt(task, reason)
        else:
            loop.call_soon_threadsafe(self._interrupt, task, reason)

    def _first_cancelled(self) -> Cancellable | None:
        """Return the job that is being cancelled: this job, or an enclosing job in the same
        task.
        """
        job: Cancellable | None = self
        while job is not None and job._task is self._task:
            if job._cancelled:
                return job
            job = job._job_around()
        return None

    @property
    def cancel_requested(self) -> bool:
        """Whether this attempt was asked to stop by `cancel` or `Tracker.cancel`."""
        return self._cancelled

    def check_cancelled(self) -> None:
        """Raise `Cancelled` if this job, or an enclosing job, was asked to stop. Use it in long
        work without steps.

        It applies to jobs in a ``with`` block. Under ``async with`` it does nothing, because there
        the task is cancelled at its next ``await``.
        """
        if (asked := self._asked()) is not None:
            asked._notice()

    def _stop_if_asked(self) -> None:
        """Raise `Cancelled` as `check_cancelled` does, but only once in the block's thread.

        Cleanup code may use steps, too, and must not be interrupted again.
        """
        asked = self._asked()
        if asked is not None and not (asked._noticed and asked._thread == threading.get_ident()):
            asked._notice()

    def _asked(self) -> Cancellable | None:
        """Return the job without a task that was asked to stop: this job, or an enclosing job."""
        job: Cancellable | None = self
        while job is not None:
            if job._cancelled and job._thread is not None:
                return job
            job = job._job_around()
        return None

    def _job_around(self) -> Cancellable | None:
        """Return the live job in which this job was started."""
        above = self._parent.job if self._parent is not None else None
        return above if isinstance(above, Cancellable) else None

    def _notice(self) -> NoReturn:
        if self._thread == threading.get_ident():
            self._noticed = True
        raise Cancelled(self._cancel_reason or "cancelled")

    def ask_to_stop(self, reason: str) -> None:
        """Make a ``with`` block in another thread end, because the process ends."""
        if self._thread is not None and not self._cancelled:
            self._cancelled, self._cancel_reason = True, reason

    def _interrupt(self, task: asyncio.Task[Any], reason: str | None) -> None:
        # otherwise the task has left the job in the meantime, and its present work must not be
        # cancelled
        if self._task is task:
            self._interrupted = True
            task.cancel(reason)

    def request_cancel(self, reason: str, requested_by: str | None, *, force: bool = False) -> None:
        """Cancel the job as `cancel` does, and record the request in the job's log.

        See `Tracker.cancel`.
        """
        self.cancel(reason, force=force)
        self._event(
            "warning",
            "cancel_requested",
            {"reason": reason, **({"requested_by": requested_by} if requested_by else {})},
        )

    async def _overdue(self, exc: BaseException | None) -> asyncio.CancelledError | None:
        """Return the cancellation that was requested after the job's code awaited for the last
        time.

        The code has ended, or failed with *exc*. Without this, the cancellation would reach the
        code after the job.
        """
        if self._interrupted and (exc is None or issubclass(type(exc), Exception)):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as late:
                return late
        return None
