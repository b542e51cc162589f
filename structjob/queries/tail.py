"""Follow the log: each matching event once, from any process, in the order in which they are
stored.

This does not use ids. Ids become visible in the order of the commits, so "all events with a greater
id" would miss events that are committed late. On a cluster, or with a cached sequence, ids do not
even increase. The numbers of a session have no holes, so each session is read by its numbers. If a
number is missing and ``structjob_gaps`` does not explain it, later events of that session wait for
it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from itertools import islice
from typing import Any, Generic, Self, TypeVar, cast
from weakref import WeakSet

from msgspec import structs
from sqlalchemy import func, literal, or_, select
from sqlalchemy.engine import RowMapping

from structjob.exceptions import NotOpen, StoreUnavailable
from structjob.machine.loops import running_loop, wait_until_set
from structjob.models import EncodedEvent, EventRecord, Gap
from structjob.queries import tail_reader
from structjob.queries.event_rows import COLUMNS, line
from structjob.queries.paging import Listing, behind, last_but, place_of, read_page
from structjob.queries.tail_position import Item, Position, advance
from structjob.queries.tail_reader import BRANCHES, Query, SessionReader
from structjob.queries.tail_sessions import OVERLAP, SessionFinder
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import utc_now
from structjob.store.portions import portions
from structjob.store.tables import logs, sessions

T = TypeVar("T")
T_co = TypeVar("T_co", bound=EventRecord | EncodedEvent | Gap, covariant=True)

POLL = 1.0
"""Seconds between two reads while nothing is stored. Events of other processes are seen within this
time.
"""

LOOK = 0.1
"""Seconds between two looks at the file of the database, and until the first read after events were
found in a database that has no file; each further read waits twice as long, up to `POLL`.
"""

MISSING_TIMEOUT = 15.0
"""Seconds to wait for a missing number before the numbers after it are returned."""

CHUNK = 100
"""Default maximum number of events that a poll returns."""

_SPACING = 0.02
"""Minimum seconds between two reads, however often events are committed."""


class Tail(Generic[T_co]):
    """The return value of `Logs.tail`: an asynchronous iterator of events, for one task at a time.

    A wait may be cut off by a timeout and repeated later. No event is lost. While the database is
    unavailable, the tail waits. It ends with `aclose`, or when the tracker is closed.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        prepare: Callable[[], Awaitable[Query]],
        position: Position,
        *,
        show_gaps: bool,
        build: Callable[[Any], Any],
        batch: int,
        stamp: Callable[[], object],
    ) -> None:
        self._stamp = stamp
        self._interval = POLL
        self._fetch = fetch
        self._flush = flush
        self._prepare = prepare
        self._prepared = False
        self._show_gaps = show_gaps
        self._build = build
        self._batch = batch
        self._query: Query
        self._sessions: SessionReader
        self._finder = SessionFinder(fetch)
        self._listing: Listing | None = None
        self._read = position
        """The position up to which events were read."""
        self._returned = position.copy()
        """The position up to which events were returned."""
        self._pending: deque[Item] = deque()
        self._chunk: deque[Item] = deque()
        self._unfinished: set[int] = set()
        """Sessions of which there is more to read."""
        self._older: set[int] = set()
        """Sessions that had ended before the tail started. All of their events in the history are
        from before the start.
        """
        self._blocked: dict[int, tuple[float, int]] = {}
        """For each session that waits for a missing number: since when, and its greatest number at
        that time.
        """
        self._looked = 0.0
        self._connected = False
        self._ended = False
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- for the consumer
    # --------------------------------------------------------------------------

    @property
    def cursor(self) -> str:
        """The position after the last returned event. ``after=cursor`` continues exactly there,
        also in another process.
        """
        return (self._returned if self._chunk or self._pending else self._read).encoded()

    @property
    def waiting(self) -> bool:
        """Whether stored events wait for an earlier event that may be committed late."""
        return bool(self._blocked)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    async def __anext__(self) -> T_co:
        while True:
            while self._chunk:
                item = self._chunk.popleft()
                self._returned.apply(item)
                if (what := self._shown(item)) is not None:
                    return what  # type: ignore[no-any-return]  # an event, or a gap if gaps are requested
            if not await self._refill(None):
                raise StopAsyncIteration

    async def poll(self, timeout: float | None = None) -> list[T_co]:  # noqa: ASYNC109 -- the awaited work must not be cancelled half-way
        """Return the next events as soon as there are any.

        The maximum number is 100 by default (see *batch* of `Logs.tail`).

        Args:
            timeout: Seconds to wait for the first event; 0 reads once. No limit by default.

        Returns:
            The events. The list is empty after the timeout, or if the tail has ended.

        Raises:
            StoreUnavailable: if the database is unavailable at the first read.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        found: list[T_co] = []
        while not found and (self._chunk or await self._refill(deadline)):
            self._returned.apply_all(self._chunk)
            found += [what for one in self._chunk if (what := self._shown(one)) is not None]
            self._chunk.clear()
        return found

    @property
    def ended(self) -> bool:
        """Whether the tail has ended, through `aclose` or because the tracker was closed."""
        return self._ended

    async def aclose(self) -> None:
        """End the tail. Tasks that wait for the next event stop waiting."""
        self._end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        await self.aclose()

    # -- for the functions below
    # --------------------------------------------------------------------------

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is None:
            return
        if running_loop() is loop:
            self._woken.set()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)

    def _meets(self, older: Tail[Any]) -> bool:
        held = (self._chunk, self._pending, older._chunk, older._pending)
        return not any(held) and self._read.meets(older._read, older._unfinished)

    # -- reading
    # --------------------------------------------------------------------------

    async def _refill(self, deadline: float | None) -> bool:
        """Wait until there are events to return, and return whether there are any.

        Return False if the tail has ended or the timeout has passed.
        """
        self._loop = loop = asyncio.get_running_loop()
        while not self._ended:
            stamp = self._stamp()
            try:
                filled = await self._fill()
                self._connected = True
            except NotOpen:  # the tracker was closed
                self._ended = True
                return False
            except StoreUnavailable:
                if not self._connected:
                    raise
                filled = False
            if filled:
                self._interval = LOOK
                return True
            left = POLL if deadline is None else min(POLL, deadline - loop.time())
            if left <= 0:
                return False
            if await self._changes(left, stamp):
                await asyncio.sleep(max(0.0, self._looked + _SPACING - loop.time()))
        return False

    async def _changes(self, seconds: float, stamp: object) -> bool:
        """Wait until something was stored after *stamp*, and return whether it was.

        Return False after *seconds*. Without a stamp, return it earlier if events were found
        recently, because more are likely.
        """
        loop = asyncio.get_running_loop()
        if stamp is None:
            seconds = min(seconds, self._interval)
            self._interval = min(2 * self._interval, POLL)
        end = loop.time() + seconds
        while not self._woken.is_set() and self._stamp() == stamp:
            if (left := end - loop.time()) <= 0:
                return False
            await wait_until_set(self._woken, left if stamp is None else min(left, LOOK))
        return True

    async def _fill(self) -> bool:
        """Read until there are events to return, or nothing more to read."""
        while not self._pending:
            self._woken.clear()
            self._looked = asyncio.get_running_loop().time()
            if not self._prepared:
                await self._flush()  # the requested job may have started just now
                self._query = await self._prepare()
                # a tail that holds few events must not read a thousand, which may be large
                build = self._build if self._batch >= tail_reader.PAGE else None
                self._sessions = SessionReader(self._fetch, self._query, build)
                self._prepared = True
            if not self._read.begun:
                await self._begin()
            if not await (
                self._read_history() if self._read.history is not False else self._read_new()
            ):
                return False
        items = list(islice(self._pending, self._batch))
        if wanted := [one.id for one in items if one.id is not None and one.event is None]:
            read = select(*COLUMNS).where(logs.c.id.in_(wanted))
            found = {row["id"]: self._build(line(row)) for row in await self._fetch(read)}
            # Events that were pruned in the meantime are gone.
            items = [
                structs.replace(one, event=found[one.id]) if one.id in found else one
                for one in items
            ]
        self._chunk.extend(items)
        for _ in items:
            self._pending.popleft()
        return True

    def _shown(self, item: Item) -> Any:
        """Return the event of *item*, or its gap if gaps are requested."""
        return item.event or (item.gap if self._show_gaps else None)

    def _enqueue(self, items: Iterable[Item]) -> None:
        self._returned = self._read.copy()
        found = list(items)
        self._read.apply_all(found)
        self._pending.extend(found)

    async def _begin(self) -> None:
        """Record the position of each session, to distinguish later events from stored ones."""
        await self._flush()
        position = self._read.copy()
        (first,) = await self._fetch(select(utc_now().label("now")))
        position.looked_at = first["now"]
        for row in await self._finder.at_start(position):
            newest = row["newest"] or 0
            position.sessions[row["session_id"]] = max(newest, _end(row))
            if _end(row) > newest:
                position.miss(row["session_id"], (newest + 1, _end(row)))
        for session_id, missing in await self._sessions.missing(position.sessions):
            position.miss(session_id, missing)
        (last,) = await self._fetch(select(func.max(logs.c.ts).label("ts")))
        position.ceiling = last["ts"]
        position.history = position.last != 0 and position.ceiling is not None
        if position.last and position.history:
            edge = await last_but(self._fetch, await self._of_history(position), position.last)
            position.history = (edge[0], cast("int", edge[1])) if edge is not None else True
        position.begun = True
        self._read, self._returned = position, position.copy()

    async def _of_history(self, position: Position) -> Listing:
        if self._listing is None:
            upto = literal(position.ceiling, logs.c.ts.type)
            self._listing = await self._query.listing(logs.c.ts <= upto)
        return self._listing

    async def _read_history(self) -> bool:
        at = self._read.history
        listing = await self._of_history(self._read)
        page = await read_page(
            self._fetch,
            listing,
            behind(listing, *at) if isinstance(at, tuple) else None,
            line,
            COLUMNS,
        )
        unknown = {one.session_id for one in page} - self._read.sessions.keys() - self._older
        younger = await self._younger(unknown)
        self._older |= unknown - younger
        covers, build = self._read.covers, self._build
        self._enqueue(
            # the order of the arguments matters, because building an event invalidates the line
            Item(one.session_id, one.seq, one.ts, one.id, build(one), history=True)
            for one in page
            if covers(one.session_id, one.seq, younger)
        )
        self._read.history = False if page.next_cursor is None else place_of(page.next_cursor)
        return True

    async def _younger(self, ids: Collection[int]) -> set[int]:
        """Return those of these sessions that started after the tail.

        None of them was still open when the tail started.
        """
        if not ids:
            return set()
        assert self._read.looked_at is not None  # noqa: S101 -- it has started
        going_on = or_(
            sessions.c.ended_at.is_(None), sessions.c.ended_at >= self._read.looked_at - OVERLAP
        )
        found = await self._fetch(
            select(sessions.c.session_id).where(sessions.c.session_id.in_(sorted(ids)), going_on)
        )
        return {row["session_id"] for row in found}

    async def _read_new(self) -> bool:
        """Read the sessions once.

        Return whether there was anything to return, or there is more to read.
        """
        look = await self._finder.look(self._read, self._unfinished)
        for session_id in look.rows:
            self._read.sessions.setdefault(session_id, 0)
        going_on = [
            row for row in look.rows.values() if _end(row) > self._read.sessions[row["session_id"]]
        ]
        streams, upto, more = await self._read_sessions(going_on)
        items = [
            *heapq.merge(*streams, key=lambda item: item.ts),
            *await self._sessions.found_after_all(self._read),
        ]
        self._enqueue(items)
        self._read.sessions.update(upto)
        self._read.looked_at = max(
            (row["now"] for row in look.rows.values()), default=self._read.looked_at
        )
        self._unfinished = self._blocked.keys() & upto.keys() | {
            row["session_id"] for row in going_on if _end(row) > upto[row["session_id"]]
        }
        for session_id in look.over:
            if session_id not in self._unfinished:
                self._read.forget(session_id)
                self._blocked.pop(session_id, None)
        return bool(items) or more or look.more

    async def _read_sessions(
        self, going_on: Sequence[RowMapping]
    ) -> tuple[list[list[Item]], dict[int, int], bool]:
        """Read the next events of the sessions.

        Return the items of each session, the number reached in each, and whether there is more to
        read.
        """
        streams: list[list[Item]] = []
        upto: dict[int, int] = {}
        more = False
        now = asyncio.get_running_loop().time()
        for some in portions(going_on, BRANCHES):
            numbers, full = await self._sessions.beyond(self._read, some)
            holes = {
                session_id: (self._read.sessions[session_id] + 1, found[-1].seq)
                for session_id, found in numbers.items()
                if found and found[-1].seq - self._read.sessions[session_id] != len(found)
            }
            explained = await self._sessions.explanations(holes) if holes else {}
            for session_id, found in numbers.items():
                since, highest = self._blocked.get(session_id, (now, 0))
                gave_up = highest if now - since >= MISSING_TIMEOUT else 0
                before = self._read.sessions[session_id]
                explanations = explained.get(session_id, ())
                items, reached = advance(session_id, before, found, explanations, gave_up)
                streams.append(items)
                upto[session_id] = reached
                if found and reached < found[-1].seq:
                    more = more or (
                        len(explanations) == tail_reader.EXPLANATIONS and reached > before
                    )
                    if gave_up or session_id not in self._blocked:
                        self._blocked[session_id] = (now, found[-1].seq)
                else:
                    self._blocked.pop(session_id, None)
                    more = more or session_id in full
        return streams, upto, more


def end(tail: Tail[Any]) -> None:
    """End a tail as `Tail.aclose` does, from any thread."""
    tail._end()  # noqa: SLF001 -- for the library; users have `aclose`


def wake(tail: Tail[Any]) -> None:
    """Have a tail read at once, because events were stored. May be called from any thread."""
    tail._wake()  # noqa: SLF001 -- for the library; a tail of a user reads when it is asked


def meets(newer: Tail[Any], older: Tail[Any]) -> bool:
    """Return whether two tails with the same filter will return the same events from now on.

    They will if *older* has returned exactly the events that *newer* has returned, or that were
    stored before *newer* started. *older* must have started, and read last, before *newer* did. The
    result is False if either holds events that it has not returned yet.
    """
    return newer._meets(older)  # noqa: SLF001 -- for the library; users have no two such tails


class Tails:
    """The tails of one tracker or reader that are in use."""

    def __init__(self) -> None:
        self._tails: WeakSet[Tail[Any]] = WeakSet()

    def add(self, tail: Tail[Any]) -> None:
        """Add a tail; it is forgotten when it is no longer referenced elsewhere."""
        self._tails.add(tail)

    def wake(self) -> None:
        """Have all tails read at once, because events were stored."""
        for tail in list(self._tails):
            wake(tail)

    def end(self) -> None:
        """End all tails."""
        for tail in list(self._tails):
            end(tail)


def _end(session: RowMapping) -> int:
    """Return the last number of a session that can be stored or explained."""
    return max(
        session["newest"] or 0, session["last_seq"] if session["ended_at"] is not None else 0
    )
