"""The link to the database: whether it answers, and calling until it does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import tenacity
from sqlalchemy import Connection, Executable, RowMapping

from structjob.diagnostics import diagnostics
from structjob.exceptions import InvalidArgument, SchemaMismatch, StoreUnavailable
from structjob.store.ingest import Store
from structjob.text.wording import count_of

T = TypeVar("T")

LONGEST_WAIT = 5.0
"""Seconds between two attempts at most, while the database may come back any moment."""

PREPARING = 15.0
"""Seconds that opening waits for a database that answers, and is at work on its tables: on a slow
disk they take their time.
"""

PERMANENT_WAIT = 30.0
"""Seconds between two attempts where somebody has to mend it first: a wrong password, a missing
table.
"""

_TELL_EVERY = 60.0
"""Seconds between two words on outages at least: a database that comes and goes must not flood the
log.
"""

_now = time.monotonic


def permanent(exc: BaseException | None) -> bool:
    """Return whether waiting will not mend *exc*."""
    return isinstance(exc, (SchemaMismatch, InvalidArgument)) or (
        isinstance(exc, StoreUnavailable) and exc.permanent
    )


class DatabaseLink:
    """Calls a store, and knows whether it answers.

    Args:
        store: What to call; not open yet.
        spare: Makes another store of the same database, for where this one cannot be used: another
            loop.

    Attributes:
        down: Why the database does not answer at the moment; ``None`` while it does.
        opened: Whether the store is open.
        place: Where events wait meanwhile, for messages.
        on_down: Called with the reason whenever a call has failed.
        on_another: Called with the reason when another database was opened than before.
        waiting: Returns how many events wait, for messages.
    """

    def __init__(self, store: Store, spare: Callable[[], Store]) -> None:
        self.store = store
        self.spare = spare
        self.down: StoreUnavailable | None = None
        self.opened = False
        self.place = "memory"
        self.on_down: Callable[[StoreUnavailable], None] = _ignore
        self.on_another: Callable[[str], None] = _ignore
        self.waiting: Callable[[], int] = int
        self._lock = asyncio.Lock()
        self._openings = 0
        self._gone: StoreUnavailable | None = None
        """Why the store is to be opened anew."""
        self._hurry = asyncio.Event()
        self._news = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._down_since = 0.0
        self._told_at = -_TELL_EVERY
        self._told = False
        self._gently = tenacity.wait_exponential_jitter(
            multiplier=0.1, max=LONGEST_WAIT, jitter=0.1
        )
        self._rarely = tenacity.wait_fixed(PERMANENT_WAIT) + tenacity.wait_random(0, 1)
        self._retrying = tenacity.AsyncRetrying(
            # Whatever it is: what was read is not to be lost to a fault of ours.
            retry=tenacity.retry_if_exception_type(Exception),
            wait=self._wait,
            before_sleep=self._failed,
            sleep=self._sleep,
        )

    # -- opening
    # --------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store, once, whoever asks."""
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
        """Open the store; return why it does not answer, if it does not, after some *seconds* at
        most.

        An opening that takes longer (it may be creating tables) goes on: a later `open` waits for
        it.

        Raises:
            StructjobError: whatever else is wrong with the database.
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
        """Wait for an opening that goes on since `try_open` gave up waiting for it, for some
        *seconds* at most.
        """
        if self._opening is not None and not self._opening.done():
            await asyncio.wait({self._opening}, timeout=seconds)

    async def close(self) -> None:
        """Let go of the store."""
        if self._opening is not None:
            self._opening.cancel()
        await self.store.close()

    # -- calling
    # --------------------------------------------------------------------------

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns.

        Raises:
            StoreUnavailable: if the database does not answer, or has not answered yet since the
                tracker was opened.
        """
        if not self.opened and self.down is not None:
            raise self.down
        return await self._call(call)

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns; if the database that was opened is gone, and another one can
        be opened, what it returns there.
        """
        if not self.opened and self._openings:
            await self.open()
        opening = self._openings
        try:
            return await call()
        except StoreUnavailable as exc:
            if not exc.gone or not opening:
                raise
            if opening == self._openings:  # else another caller has opened it anew
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

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what *call* returns, once the database answers."""
        failed: list[Exception] = []

        async def attempt() -> T:  # tenacity tells by the function whether it is to be awaited
            if failed:
                raise failed.pop()
            if not self.opened:
                await self.open()
            return await self._call(call)

        result: T
        try:
            # most often that is all: tenacity costs as much as a third of a small transaction
            result = await attempt()
        except Exception as exc:  # noqa: BLE001 -- see `_retrying`
            failed.append(exc)
            result = await self._retrying(attempt)
        self.found()
        return result

    async def try_again(self, seconds: float) -> None:
        """Let those who wait for a database that does not answer ask it at once; return when one
        knows more, or after *seconds*.
        """
        if self.down is None:
            return
        self._news.clear()
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _wake(self) -> None:
        self._hurry.set()
        self._hurry.clear()

    async def _sleep(self, seconds: float) -> None:
        await _sleep(seconds, self._hurry)

    def _wait(self, state: tenacity.RetryCallState) -> float:
        exc = state.outcome.exception() if state.outcome is not None else None
        return (self._rarely if permanent(exc) else self._gently)(state)

    def _failed(self, state: tenacity.RetryCallState) -> None:
        exc = state.outcome.exception() if state.outcome is not None else None
        if not isinstance(exc, StoreUnavailable):
            message = f"storing into {self.store.masked_url} failed: {type(exc).__name__}: {exc}"
            exc = StoreUnavailable(message, permanent=permanent(exc))
        diagnostics.debug(
            "try %d failed, the next one in %.1f s: %s",
            state.attempt_number,
            state.upcoming_sleep,
            exc,
        )
        self.lost(exc)

    def lost(self, exc: StoreUnavailable) -> None:
        """Note, and tell once, that the database does not answer, since *exc*."""
        now = _now()
        if self.down is None:
            self._down_since = now
        worse = permanent(exc) and not permanent(self.down)
        self.down = exc
        if worse or (not self._told and now - self._told_at >= _TELL_EVERY):
            self._told, self._told_at = True, now
            diagnostics.warning(
                "%s; events wait in %s, delivery goes on by itself", exc, self.place
            )
        self.on_down(exc)
        self._news.set()

    def found(self) -> None:
        """Note, and tell if its loss was told, that the database answers."""
        if self.down is None:
            return
        self.down = None
        self._news.set()
        self._wake()  # what one was told holds for all
        if self._told:
            self._told = False
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


async def _sleep(seconds: float, hurry: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurry.wait()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Nobody may be waiting for it any more: its exception is told by the next attempt."""
    if not task.cancelled():
        task.exception()


def _ignore(reason: object) -> None:
    pass
