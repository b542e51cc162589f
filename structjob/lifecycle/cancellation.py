"""Cancellation of a job: through its task, or cooperatively in code without an event loop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, NoReturn, cast

from structjob.exceptions import Cancelled
from structjob.lifecycle.vocabulary import JobVocabulary
from structjob.machine.loops import running_loop

if TYPE_CHECKING:
    from structjob.context.scope import Scope
    from structjob.lifecycle.job_core import JobCore


class Cancellation:
    """Whether a job was asked to stop, and what stops it.

    Args:
        parent: The scope in which the job was started.

    Attributes:
        task: The task of a job in ``async with``.
        thread: The thread of a job in ``with``.
        requested: Whether this attempt was asked to stop.
        name: The name of the job, for messages, once it was asked to stop.
        reason: Why it was asked to stop.
    """

    __slots__ = (
        "_interrupted", "_noticed", "_parent", "name", "reason", "requested", "task", "thread",
    )  # fmt: skip

    def __init__(self, parent: Scope | None) -> None:
        self._parent = parent
        self.task: asyncio.Task[Any] | None = None
        self.thread: int | None = None
        self.requested = False
        self.name = ""
        self.reason: str | None = None
        self._noticed = False
        """Whether `Cancelled` was raised in that thread. Cleanup code is not interrupted again."""
        self._interrupted = False

    @property
    def around(self) -> Cancellation | None:
        """The cancellation of the live job in which this job was started."""
        above = self._parent.job if self._parent is not None else None
        return None if above is None else cast("JobCore", above).cancellation

    def request(self, name: str, reason: str | None) -> None:
        """Ask the job to stop: cancel its task, or let `stop_if_asked` raise.

        Args:
            name: The name of the job, for messages.
            reason: Why.
        """
        self.requested, self.name, self.reason, self._noticed = True, name, reason, False
        if self.task is None:
            return
        task, loop = self.task, self.task.get_loop()
        if running_loop() is loop:
            self._interrupt(task)
        else:
            loop.call_soon_threadsafe(self._interrupt, task)

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        # otherwise the task has left the job in the meantime, and its present work must not be
        # cancelled
        if self.task is task:
            self._interrupted = True
            task.cancel(self.reason)

    def first(self) -> Cancellation | None:
        """Return the one that was requested: this one, or that of an enclosing job in the same
        task.
        """
        one: Cancellation | None = self
        while one is not None and one.task is self.task:
            if one.requested:
                return one
            one = one.around
        return None

    def asked(self) -> Cancellation | None:
        """Return the one that was requested of a job without a task: this job, or an enclosing
        one.
        """
        one: Cancellation | None = self
        while one is not None:
            if one.requested and one.thread is not None:
                return one
            one = one.around
        return None

    def stop(self) -> NoReturn:
        """Raise `Cancelled`."""
        if self.thread == threading.get_ident():
            self._noticed = True
        raise Cancelled(self.reason or "cancelled")

    @property
    def noticed(self) -> bool:
        """Whether `Cancelled` was raised in the block's thread, which is the present one."""
        return self._noticed and self.thread == threading.get_ident()

    def stop_if_asked(self) -> None:
        """Raise `Cancelled` as `Job.check_cancelled` does, but only once in the block's thread.

        Cleanup code may use steps, too, and must not be interrupted again.
        """
        asked = self.asked()
        if asked is not None and not asked.noticed:
            asked.stop()

    async def overdue(self, exc: BaseException | None) -> asyncio.CancelledError | None:
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
