"""The tracker as jobs and readers see it, from any loop or thread."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from structjob.capture.setup import SETUP
from structjob.context.errors import Classifier
from structjob.exceptions import InvalidArgument, InvalidState, NotOpen, StoreUnavailable
from structjob.machine.loops import running_loop
from structjob.machine.promise import run_on

if TYPE_CHECKING:
    from sqlalchemy import Connection, Executable, RowMapping

    from structjob.engine.engine import Engine
    from structjob.lifecycle.host import Reporting
    from structjob.lifecycle.job_core import JobCore
    from structjob.spool.recorder import Recorder

T = TypeVar("T")

State = Literal["new", "opening", "open", "closed"]

OPENING_WAITS = 5.0
"""Seconds that a read or a flush waits for an opening in progress. Creating the tables can be slow
on a slow disk.
"""


class Host:
    """The interface of a tracker for jobs (`structjob.lifecycle.host.JobHost`) and readers.

    Args:
        classifier: Derives the fields of an error; default: the classifier of
            `structjob.configure`.
        aclose: Closes the tracker; its argument is the maximum time in seconds.
        project: The project of jobs and events that have no project of their own.

    Attributes:
        state: Whether the tracker is open.
        live: The jobs that run in this process.
        claims: Starts that were interrupted and whose answer is still outstanding.
        threaded: Whether the tracker's loop runs in a thread of its own.
        aclose: See above.
        project: See above.
    """

    tracked = True

    def __init__(
        self,
        classifier: Classifier | None,
        aclose: Callable[[float], Awaitable[bool]],
        project: str | None,
    ) -> None:
        self.aclose = aclose
        self.project = project
        self.state: State = "new"
        self.live: set[JobCore] = set()
        self.claims: set[asyncio.Future[Any]] = set()
        self.threaded = False
        self._classifier = classifier
        self._recorder: Recorder | None = None
        self._engine: Engine | None = None

    def attach(self, recorder: Recorder, engine: Engine) -> None:
        """Store the recorder and the engine that opening has created."""
        self._recorder, self._engine = recorder, engine

    @property
    def recorder(self) -> Recorder:
        """The recorder that takes changes of state and events.

        Raises:
            NotOpen: before the tracker is open.
        """
        if self._recorder is None:
            raise self._not_open()
        return self._recorder

    @property
    def engine(self) -> Engine:
        """The engine that delivers changes of state and events.

        Raises:
            NotOpen: before the tracker is open.
        """
        if self._engine is None:
            raise self._not_open()
        return self._engine

    @property
    def classifier(self) -> Classifier | None:
        """The classifier that derives the fields of an error.

        It is the tracker's own, or else that of `structjob.configure` or `structjob.install`.
        """
        return self._classifier or SETUP.classifier

    def require_open(self) -> None:
        """Raise `NotOpen` unless the tracker is open."""
        if self.state != "open":
            raise self._not_open()

    def require_another_loop(self) -> None:
        """Raise `InvalidState` on the tracker's own loop, which cannot wait for itself."""
        if running_loop() is self.engine.loop:
            raise InvalidState(
                "the tracker's loop cannot wait for itself: await it here, and write `async "
                "with` where you wrote `with`"
            )

    def _not_open(self) -> NotOpen:
        if self.state in ("new", "opening"):
            return NotOpen(
                "the tracker is not open yet; open it with `async with`, `with` or "
                "`await tracker.open()`"
            )
        return NotOpen(
            "the tracker is closed; open it again with `async with`, `with` or `await "
            "tracker.open()`"
        )

    # -- from any loop
    # --------------------------------------------------------------------------

    async def on_own_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* on the tracker's loop, from any loop.

        Raises:
            StoreUnavailable: if the tracker's loop is closed.
        """
        engine = self.engine
        if (fault := engine.without_loop()) is not None:
            work.close()
            raise fault
        if running_loop() is engine.loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, engine.loop))

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        """Return the rows of a query."""
        self.require_open()
        return await self.on_own_loop(self.engine.link.fetch(statement))

    async def transact(self, call: Callable[[Connection], T]) -> T:
        """Return what *call* returns, within a transaction."""
        self.require_open()
        return await self.on_own_loop(self.engine.link.transact(call))

    async def flush(self) -> None:
        """Wait until everything recorded so far is stored, so that readers see their own writes."""
        self.require_open()
        if not self.engine.link.opened:
            await self.on_own_loop(self.engine.link.opening(OPENING_WAITS))
        flush = self.engine.flush()
        try:
            await flush.awaited()
        except asyncio.CancelledError:
            flush.keep(None)  # the engine need not look for its end
            raise

    async def try_again(self, seconds: float) -> None:
        """Try now to reach an unavailable database; return after *seconds* at most."""
        await self.on_own_loop(self.engine.link.try_again(seconds))

    async def claim(
        self, row: dict[str, Any], job: JobCore, *, pending: bool
    ) -> tuple[dict[str, Any] | None, int]:
        """Ask the database for the next attempt at *job*; see `Claiming.claim`."""
        await self._caught_up()
        return await self.on_own_loop(self.engine.claiming.claim(row, job, pending=pending))

    async def reserve(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Insert a pending job with its idempotency key.

        Return the job that already has the key.
        """
        await self._caught_up()
        return await self.on_own_loop(self.engine.claiming.reserve(row))

    async def _caught_up(self) -> None:
        """Wait until everything that this process has recorded is stored.

        Raise if the database is unavailable.
        """
        await self.flush()
        if self.engine.link.down is not None:
            raise self.engine.link.down

    def provisional(self, job_id: str, former: int) -> int:
        """Return a number for an attempt that starts while the database does not answer."""
        return self.engine.claiming.provisional(job_id, former)

    async def committed(self, state_seq: int, seconds: float) -> None:
        """Wait for the commit of a change of state, *seconds* at most.

        Return immediately while the database is unavailable.
        """
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(seconds):
                await self.engine.committed(state_seq).awaited()

    def flush_later(self, core: Reporting) -> None:
        """Have *core* record its progress at the next turn of the writers."""
        self.engine.writers.hold_back(core)

    # -- from code without a loop
    # --------------------------------------------------------------------------

    def wait_committed(self, state_seq: int, seconds: float) -> None:
        """Do the same as `committed`, in code without a loop.

        Never waits on the tracker's own loop, because that loop would have to commit meanwhile.
        """
        if self._reachable():
            self.engine.committed(state_seq).comes(seconds)

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* on the tracker's loop, in the caller's context, and wait for it.

        Args:
            work: A coroutine.
            timeout: Maximum seconds to wait; after that *work* is cancelled. Default: no limit.

        Raises:
            InvalidState: on that loop itself, which cannot wait for itself, or if the loop does not
                run.
            NotOpen: before the tracker is open, and in a forked process.
            TimeoutError: after *timeout* seconds.
            InvalidArgument: if *work* is not a coroutine.
        """
        if not asyncio.iscoroutine(work):
            raise InvalidArgument(
                f"tracker.run() takes a coroutine, such as tracker.jobs.list(), not {work!r}"
            )
        try:
            self.require_open()
            engine = self.engine
            if self.recorder.forked:
                raise NotOpen(
                    "this is a forked process, and the tracker's loop runs in its parent: open a "
                    "tracker here"
                )
            self.require_another_loop()
            if not engine.loop.is_running():
                raise engine.without_loop() or InvalidState(
                    "the event loop in which the tracker was opened does not run at the moment"
                )
        except BaseException:
            work.close()
            raise
        try:
            return run_on(engine.loop, work, timeout, engine.without_loop)
        finally:
            if engine.loop.is_closed():  # it was not begun, or never goes on
                with suppress(RuntimeError, ValueError):  # its own `finally` awaits, or it runs
                    work.close()

    def _reachable(self) -> bool:
        """Whether the tracker's loop runs, in this process and in another thread."""
        loop = self.engine.loop
        return not self.recorder.forked and running_loop() is not loop and loop.is_running()
