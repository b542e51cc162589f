"""Cancellation of a job: through its task, or cooperatively in code without an event loop."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from structjob.exceptions import Cancelled
from structjob.machine.loops import running_loop

if TYPE_CHECKING:
    from structjob.context.scope import Scope


class _Stoppable(Protocol):
    """The live job of a scope. Only this package makes scopes with a job."""

    cancellation: Cancellation


@dataclass(slots=True, eq=False)
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

    _parent: Scope | None
    task: asyncio.Task[Any] | None = None
    thread: int | None = None
    requested: bool = False
    name: str = ""
    reason: str | None = None
    _noticed: bool = False
    """Whether `Cancelled` was raised in that thread. Cleanup code is not interrupted again."""
    _interrupted: bool = False

    @property
    def around(self) -> Cancellation | None:
        """The cancellation of the live job in which this job was started."""
        above = self._parent.job if self._parent is not None else None
        return None if above is None else cast(_Stoppable, above).cancellation

    @property
    def possible(self) -> bool:
        """Whether a task or a thread may still run the job.

        A task whose loop is closed never runs again.
        """
        if self.task is None:
            return self.thread is not None
        return not self.task.get_loop().is_closed()

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
