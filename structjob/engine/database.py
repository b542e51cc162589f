"""The database link: it knows whether the database answers, and retries calls until it does."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection, Executable, RowMapping

from structjob.diagnostics import diagnostics
from structjob.exceptions import InvalidArgument, SchemaMismatch, StoreUnavailable
from structjob.machine.loops import wait_until_set
from structjob.store.contract import Store
from structjob.text.wording import count_of

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0
"""Minimum and maximum seconds between two attempts while the database may become available at any
moment.
"""

_DOUBLINGS = 10
"""After so many failures the wait is the longest one."""

PREPARING = 15.0
"""Seconds that opening waits for a database that answers and is creating its tables. This can be
slow on a slow disk.
"""

PERMANENT_WAIT = 30.0
"""Seconds between two attempts at a problem that a person must fix first.

Examples are a wrong password and a missing table.
"""

_WARN_INTERVAL = 60.0
"""Minimum seconds between two warnings about outages.

An unstable database must not flood the log.
"""

_now = time.monotonic


def permanent(exc: BaseException | None) -> bool:
    """Return whether waiting cannot repair *exc*."""
    return isinstance(exc, (SchemaMismatch, InvalidArgument)) or (
        isinstance(exc, StoreUnavailable) and exc.permanent
    )


class DatabaseLink:
    """Calls a store and knows whether it is available.

    Args:
        store: The store to call; not open yet.
        spare: Creates another store of the same database, for a place where this one cannot be
            used, such as another loop.

    Attributes:
        down: Why the database is unavailable at the moment; ``None`` while it is available.
        opened: Whether the store is open.
        place: Where events wait during an outage, for messages.
        on_down: Called with the reason whenever a call has failed.
        on_another: Called with the reason when a different database was opened than before.
        waiting: Returns how many events wait, for messages.
    """

    def __init__(self, store: Store, spare: Callable[[], Store]) -> None:
        self.store = store
        self.spare = spare
        self.down: StoreUnavailable | None = None
        self.opened = False
        self.place = "memory"
        self.on_down: Callable[[StoreUnavailable], None] = lambda _: None
        self.on_another: Callable[[str], None] = lambda _: None
        self.waiting: Callable[[], int] = int
        self._lock = asyncio.Lock()
        self._openings = 0
        self._gone: StoreUnavailable | None = None
        """Why the store must be opened again."""
        self._try_now = asyncio.Event()
        self._news = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._down_since = 0.0
        self._warned_at = -_WARN_INTERVAL
        self._warned = False

    # -- opening
    # --------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store; concurrent and later calls open it only once."""
        async with self._lock:
            if not self.opened:
                began = _now()
                await self.store.open()
                diagnostics.debug(
                    "opened %s in %.1f ms", self.store.masked_url, (_now() - began) * 1000
                )
                self.opened = True
                self._openings += 1
                self.found()
                gone, self._gone = self._gone, None
                if gone is not None:
                    self.on_another(str(gone))

    async def try_open(self, seconds: float) -> StoreUnavailable | None:
        """Open the store; return the reason if the database does not answer within *seconds*.

        An opening that takes longer (it may be creating tables) continues: a later `open` waits for
        it.

        Raises:
            StructjobError: for every other problem with the database.
        """
        self._opening = asyncio.ensure_future(self.open())
        self._opening.add_done_callback(_retrieve)
        try:
            await asyncio.wait({self._opening}, timeout=seconds)
            if self.store.reached:
                await asyncio.wait({self._opening}, timeout=PREPARING)
        except asyncio.CancelledError:
            self._opening.cancel()
            raise
        if not self._opening.done():
            return StoreUnavailable(
                f"the database {self.store.masked_url} has not answered within {seconds:g} s"
            )
        try:
            self._opening.result()
        except StoreUnavailable as exc:
            return exc
        return None

    async def opening(self, seconds: float | None = None) -> None:
        """Wait for the opening that `try_open` stopped waiting for, *seconds* at most."""
        if self._opening is not None and not self._opening.done():
            await asyncio.wait({self._opening}, timeout=seconds)

    async def close(self) -> None:
        """Close the store."""
        if self._opening is not None:
            self._opening.cancel()
        await self.store.close()

    # -- calling
    # --------------------------------------------------------------------------

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns.

        Raises:
            StoreUnavailable: if the database does not answer, or has not answered since the tracker
                was opened.
        """
        if not self.opened and self.down is not None:
            raise self.down
        return await self._call(call)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns.

        If the opened database is gone, open another one and call again.
        """
        if not self.opened and self._openings:
            await self.open()
        opening = self._openings
        try:
            return await call()
        except StoreUnavailable as exc:
            if not exc.gone or not opening:
                raise
            if opening == self._openings:  # otherwise another caller has opened it again
                self.opened, self._gone = False, exc
                if exc.permanent:
                    raise
        await self.open()
        return await call()

    async def fetch(self, statement: Executable) -> Sequence[RowMapping]:
        """Return the rows of a query; see `once`."""
        return await self.once(lambda: self.store.fetch(statement))

    async def transact(self, call: Callable[[Connection], T]) -> T:
        """Return what *call* returns in a transaction; see `once`."""
        return await self.once(lambda: self.store.transact(call))

    async def until_answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns, and retry until the database answers."""
        tried = 0
        while True:
            try:
                if not self.opened:
                    await self.open()
                result = await self._call(call)
            except Exception as exc:  # noqa: BLE001 -- an internal error must not lose what was read
                tried += 1
                pause = self._failed(exc, tried)
            else:
                self.found()
                return result
            await wait_until_set(self._try_now, pause)

    async def try_again(self, seconds: float) -> None:
        """Wake the callers that wait for the database.

        Return after the next outcome or after *seconds*.
        """
        if self.down is None:
            return
        self._news.clear()
        self._wake()
        await wait_until_set(self._news, seconds)

    def _wake(self) -> None:
        self._try_now.set()
        self._try_now.clear()

    def _failed(self, exc: Exception, tried: int) -> float:
        """Record that attempt number *tried* has failed; return the seconds until the next one."""
        if not isinstance(exc, StoreUnavailable):
            message = f"storing into {self.store.masked_url} failed: {type(exc).__name__}: {exc}"
            exc = StoreUnavailable(message, permanent=permanent(exc))
        if permanent(exc):
            pause = PERMANENT_WAIT + random.uniform(0, 1)
        else:
            doubled = min(tried - 1, _DOUBLINGS)
            pause = min(FIRST_WAIT * 2**doubled + random.uniform(0, FIRST_WAIT), LONGEST_WAIT)
        diagnostics.debug("try %d failed, the next one in %.1f s: %s", tried, pause, exc)
        self.lost(exc)
        return pause

    def lost(self, exc: StoreUnavailable) -> None:
        """Record that the database is unavailable because of *exc*, and warn once."""
        now = _now()
        if self.down is None:
            self._down_since = now
        worse = permanent(exc) and not permanent(self.down)
        self.down = exc
        if worse or (not self._warned and now - self._warned_at >= _WARN_INTERVAL):
            self._warned, self._warned_at = True, now
            diagnostics.warning(
                "%s; events wait in %s, delivery continues automatically", exc, self.place
            )
        self.on_down(exc)
        self._news.set()

    def found(self) -> None:
        """Record that the database answers; report it if the outage was reported."""
        if self.down is None:
            return
        self.down = None
        self._news.set()
        self._wake()  # wake all waiting callers: the database is back
        if self._warned:
            self._warned = False
            diagnostics.warning(
                "the database %s answers again after %s; delivering what waited, %s",
                self.store.masked_url,
                _duration(_now() - self._down_since),
                count_of(self.waiting(), "event"),
            )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve the exception: there may be no caller left, and the next attempt reports it."""
    if not task.cancelled():
        task.exception()
