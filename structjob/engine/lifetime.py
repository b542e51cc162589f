"""One lifetime of a tracker: opened once and closed once, with an event loop or without."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress

from structjob.capture.noise import report_suppressed
from structjob.capture.processors import check_setup
from structjob.capture.uncaught import hook_loop
from structjob.context.propagation import from_environment, remote_scope
from structjob.context.scope import Scope, current_scope, enter_scope
from structjob.diagnostics import faults
from structjob.engine import closing, shutdown
from structjob.engine.hosting import Host
from structjob.engine.loop_thread import LoopThread
from structjob.engine.opening import Connected, Options, connect, start
from structjob.exceptions import InvalidState, NotOpen, StoreUnavailable
from structjob.lifecycle.open_hosts import OPEN_HOSTS
from structjob.machine.loops import require_asyncio
from structjob.machine.promise import Promise

CLOSING_WAITS = 10.0
"""Default maximum of seconds that closing takes."""

_NOT_NEW = {
    "opening": "the tracker is being opened by another call",
    "open": "the tracker is open; close it before you open it again, or make a new one",
    "closed": "the tracker is being closed; open it again when that has ended",
}

_CLOSING_MARGIN = 1.0
"""Extra seconds that the thread of the tracker's loop may take beyond that limit."""


class Lifetime:
    """Opens and closes what a tracker consists of.

    Args:
        host: The tracker, as jobs and readers see it. Its `state` is changed here only.
        options: The tracker's options.
        opened: Called with what opening has created, before the delivery starts.
        closed: Called when everything is closed.
    """

    def __init__(
        self,
        host: Host,
        options: Options,
        *,
        opened: Callable[[Connected], None],
        closed: Callable[[], None],
    ) -> None:
        self._host = host
        self._options = options
        self._opened = opened
        self._closed = closed
        self._joined: Scope | None = None
        """The job of the command below which this process runs, while it is the current one."""
        self._thread: LoopThread | None = None
        self._closing: Promise[bool] = Promise()

    @property
    def over(self) -> bool:
        """Whether the tracker was opened and is closed completely."""
        return self._host.state == "closed" and self._closing.done

    async def open(self, level: int, *, required: bool) -> None:
        """Open the tracker on the running loop; see `structjob.Tracker.open`.

        Args:
            level: Number of the lowest level to record.
            required: See `structjob.Tracker.open`.
        """
        require_asyncio()
        host = self._host
        if host.state != "new":
            raise NotOpen(_NOT_NEW[host.state])
        host.state = "opening"
        try:
            connected = await connect(self._options, host, level, required=required)
            host.attach(connected.recorder, connected.engine)
            self._opened(connected)
            await start(host, handle_signals=self._options.handle_signals)
            if self._options.strict:
                faults.strict_trackers.add(self)
            check_setup()
            hook_loop(asyncio.get_running_loop())
            self._join_environment()
        except BaseException:
            host.state = "new"
            raise
        host.state = "open"
        OPEN_HOSTS.add(host)

    def _join_environment(self) -> None:
        """Let events without a job belong to the job of the command when running below ``structjob
        run``.
        """
        remote = from_environment(os.environ)
        if remote.job_id is not None and current_scope() is None:
            joined = remote_scope(remote)
            here = self._host.recorder.session.database
            self._joined = joined if remote.database in (None, here) else joined.elsewhere()
            enter_scope(self._joined)

    def _leave_environment(self) -> None:
        if self._joined is not None and current_scope() is self._joined:
            enter_scope(None)

    async def close(self, seconds: float) -> bool:
        """Close the tracker.

        Args:
            seconds: Maximum time in seconds.
        """
        host = self._host
        if host.state == "closed":
            return await self._closed_by_another(seconds)
        if host.state != "open":
            return True
        self._end()
        # the engine, its loop and the database connections belong to the parent
        if host.recorder.forked:
            return self._close_in_child()
        complete = False
        try:
            check_setup()
            report_suppressed()
            self._leave_environment()
            faults.strict_trackers.discard(self)
            complete = await closing.close(host, seconds, self._closed)
        finally:
            self._closing.keep(complete)
        return complete

    def _end(self) -> None:
        self._host.state = "closed"
        OPEN_HOSTS.remove(self._host)

    async def _closed_by_another(self, seconds: float) -> bool:
        """Wait for a close that another caller started, and return its result.

        Return False if it takes longer than *seconds*.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._closing.awaited()
        return False

    def _close_without_loop(self, seconds: float) -> bool:
        """Close after the tracker's loop was closed. What is not stored waits in the spool.

        Args:
            seconds: Maximum time to store what waits. With 0 the database is not touched any more:
                if the loop has lost its files, those of the database are probably lost, too, and
                their descriptors may belong to other files.
        """
        self._end()
        host, complete = self._host, False
        try:
            complete = host.engine.close_without_loop(seconds)
        finally:
            shutdown.leave(host)
            faults.strict_trackers.discard(self)
            self._closed()
            self._closing.keep(complete)
        return complete

    def _close_in_child(self) -> bool:
        """Close in a forked child, where the engine, its loop and the connections belong to the
        parent.
        """
        self._host.engine.end_recording()
        shutdown.leave(self._host)
        self._closing.keep(True)
        return True

    async def aclose_by_hand(self, seconds: float) -> bool:
        """Close the tracker for its program; see `structjob.Tracker.aclose`.

        Args:
            seconds: Maximum time in seconds.
        """
        ends_at = time.monotonic() + seconds
        try:
            await shutdown.await_threads(seconds / 2)
        finally:
            stored = await self.close(ends_at - time.monotonic())
        return stored

    # -- without an event loop
    # --------------------------------------------------------------------------

    def open_here(self, level: int) -> None:
        """Open the tracker in code without an event loop: its loop runs in a thread of its own.

        Args:
            level: See `open`.
        """
        thread = LoopThread()
        try:
            thread.run(self.open(level, required=True))
        except BaseException:
            thread.stop(_CLOSING_MARGIN)
            raise
        self._thread, self._host.threaded = thread, True
        # Opening did this in the loop's thread, but it must apply to this thread.
        if self._joined is not None and current_scope() is None:
            enter_scope(self._joined)
        if self._options.handle_signals:
            shutdown.handle_signals()

    def leave_here(self) -> None:
        """Close the tracker at the end of its ``with`` block."""
        shutdown.await_threads_here()
        self.close_here(shutdown.CLOSING if shutdown.under_way() else CLOSING_WAITS)
        shutdown.finish()

    def close_by_hand(self, seconds: float) -> bool:
        """Close the tracker for its program; see `structjob.Tracker.close`.

        Args:
            seconds: Maximum time in seconds.
        """
        if shutdown.under_way() and self._host.state not in ("new", "opening") and not self.over:
            self._host.require_another_loop()
        ends_at = time.monotonic() + seconds
        try:
            shutdown.await_threads_here(seconds / 2)
        finally:
            stored = self.close_here(ends_at - time.monotonic())
        return stored

    def close_here(self, seconds: float) -> bool:
        """Close the tracker in code without an event loop.

        Args:
            seconds: Maximum time in seconds.
        """
        host = self._host
        if host.state in ("new", "opening"):
            return True
        if host.state == "open" and host.recorder.forked:
            self._end()
            return self._close_in_child()
        if not self.over:
            host.require_another_loop()
        self._leave_environment()
        thread, self._thread = self._thread, None
        try:
            # closed by another caller, such as an exit handler that ran before this one
            with suppress(NotOpen):
                try:
                    return host.run(self.close(seconds), seconds + _CLOSING_MARGIN)
                except StoreUnavailable:
                    if host.state != "open" or host.engine.without_loop() is None:
                        raise
                    return self._close_without_loop(
                        0.0 if thread is not None and thread.lost else seconds
                    )
            return self._closing.comes(seconds) and self._closing.result()
        except (TimeoutError, StoreUnavailable):
            return False
        except InvalidState:
            if thread is None:
                raise
            return False  # its loop has just failed, and is not run again yet
        finally:
            if thread is not None:
                thread.stop(_CLOSING_MARGIN)
                shutdown.leave_signals()  # the loop's thread could not
