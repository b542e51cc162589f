"""Read events: in pages, as an iteration over all matches, or counted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, Unpack, overload

from sqlalchemy import ColumnElement, and_, func, or_, select

from structjob.exceptions import EventNotFound, InvalidFilter
from structjob.filter_checks import check_limit, check_whole, values_of
from structjob.filters import LogFilter, LogFilterKeywords
from structjob.models import EncodedEvent, EventContext, EventRecord, Gap, Page
from structjob.numeric import is_whole
from structjob.queries import event_rows, histograms, rows
from structjob.queries.job_finder import JobFinder
from structjob.queries.log_listing import (
    conditions,
    listing_of,
    of_unusual_levels,
    query_of,
    searches,
)
from structjob.queries.paging import (
    Listing,
    beginning_at,
    count_all,
    fingerprint,
    merged,
    read_page,
    skipping,
)
from structjob.queries.tail import CHUNK, Tail, Tails
from structjob.queries.tail_position import MAX_LAST, Position, decoded
from structjob.queries.tail_reader import Query
from structjob.statistics import LogHistogram
from structjob.store.contract import Fetch, Flush
from structjob.store.expressions import equals, leads, ordering
from structjob.store.tables import gaps, logs

_BATCH = 1000

MAX_OFFSET = 100_000
"""Maximum offset of a page. The skipped events are all counted."""

MOST_AROUND = 1_000
"""Maximum number of events before, and of events after, a given event."""


class Logs:
    """Reads the events in the store.

    Each read first delivers pending events, so a program always reads its own writes.

    Args:
        finder: Finds the job that a filter refers to.
        stamp: Returns a value that changes when anything is stored; None if that is not known. It
            is called often, so it must be quick.
        tails: Gets the tails, so that its owner can wake and end them.
    """

    def __init__(
        self,
        fetch: Fetch,
        flush: Flush,
        finder: JobFinder | None = None,
        stamp: Callable[[], object] = lambda: None,
        tails: Tails | None = None,
    ) -> None:
        self._fetch = fetch
        self._flush = flush
        self._stamp = stamp
        self._finder = finder or JobFinder(fetch)
        self._tails = tails or Tails()

    async def list(
        self,
        filter: LogFilter | None = None,
        *,
        cursor: str | None = None,
        start: tuple[int, int] | EventRecord | None = None,
        offset: int = 0,
        last: int | None = None,
        **filters: Unpack[LogFilterKeywords],
    ) -> Page[EventRecord]:
        """Return one page of the matching events, in the order of their time.

        Args:
            filter: Which events to list. By default all events, oldest first, 100 per page.
            cursor: The ``next_cursor`` or ``previous_cursor`` of another page of the same query.
            start: The first event of the page, or its position if it does not match: an event, or
                its ``(session_id, seq)``. The page's ``previous_cursor`` leads to the events before
                it; with ``order="desc"``, to the events after it.
            offset: Skip the first *offset* events, 0–100,000; 0 by default. They are counted in an
                index each time, so a cursor is faster. It cannot be used with filters that have no
                index (``text``, ``attrs``; see `LogFilter`).
            last: Return the last *last* matching events, 1–10,000, oldest first. The page has no
                cursors.
            **filters: Fields of `LogFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, the cursor belongs to
                another query, or more than one of *cursor*, *start*, *offset* and *last* is given.
            EventNotFound: if the event to start with is not stored.
        """
        if last is not None:
            if cursor is not None or start is not None or offset or {"limit", "order"} & {*filters}:
                raise InvalidFilter(
                    "last cannot be combined with cursor, start, offset, limit or order"
                )
            check_limit(last, "last", hint="")
            newest = merged(LogFilter, filter, {**filters, "order": "desc", "limit": last})
            return Page((await self.list(newest)).items[::-1])
        wanted = merged(LogFilter, filter, filters)
        _check(wanted)
        number = None if start is None else _number("start", start)
        _check_beginning(wanted, cursor, number, offset)
        await self._flush()
        listing = await listing_of(self._fetch, await self._resolved(wanted))
        if number is not None:
            row = await self._row(*number)
            cursor = beginning_at(listing, row["ts"], row["id"])
        elif offset:
            cursor = await skipping(self._fetch, listing, offset)
            if cursor is None:
                return Page(())
        return await self._page(listing, cursor)

    async def iterate(
        self, filter: LogFilter | None = None, **filters: Unpack[LogFilterKeywords]
    ) -> AsyncIterator[EventRecord]:
        """Yield every matching event that is stored when the iteration starts, in the order of
        their time.

        Later events are left out, including events that the loop's own body logs. So the iteration
        ends. To follow a log, use `tail`.

        Args:
            filter: Which events to read. Its ``limit`` is the number of rows read at a time.
            **filters: Fields of `LogFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        if filter is None and "limit" not in filters:
            filters["limit"] = _BATCH
        wanted = merged(LogFilter, filter, filters)
        _check(wanted)
        await self._flush()
        # Both conditions hold for all events stored now. One alone does not end the iteration: ids
        # need not increase, and the clock of another machine may be ahead.
        (last,) = await self._fetch(
            select(func.max(logs.c.id).label("id"), func.max(logs.c.ts).label("ts"))
        )
        if last["id"] is None:
            return
        stored = (logs.c.id <= last["id"], logs.c.ts <= last["ts"])
        listing = await listing_of(self._fetch, await self._resolved(wanted), *stored)
        cursor: str | None = None
        while True:
            page = await self._page(listing, cursor)
            for event in page:
                yield event
            cursor = page.next_cursor
            if cursor is None:
                return

    async def count(
        self, filter: LogFilter | None = None, **filters: Unpack[LogFilterKeywords]
    ) -> int:
        """Return the number of matching events. ``limit`` and ``order`` have no effect.

        If the filter has no index (see `LogFilter`), all events of the time window are examined in
        chunks of 100,000, each of which takes half a second or more. Other queries can run between
        the chunks.

        Raises:
            InvalidFilter: if a filter is unknown or its value is invalid.
        """
        wanted = merged(LogFilter, filter, {**filters, "order": "asc"})
        _check(wanted)
        await self._flush()
        until: tuple[ColumnElement[bool], ...] = ()
        if searches(wanted):  # so that it ends, however much is logged in the meantime
            (last,) = await self._fetch(select(func.max(logs.c.id).label("id")))
            until = (logs.c.id <= (last["id"] or 0),)
        return await count_all(
            self._fetch, await listing_of(self._fetch, await self._resolved(wanted), *until)
        )

    async def histogram(
        self,
        filter: LogFilter | None = None,
        *,
        buckets: int = 60,
        max_seconds: float = 2.0,
        **filters: Unpack[LogFilterKeywords],
    ) -> LogHistogram:
        """Return the number of matching events by level and interval.

        The intervals cover the filter's ``since`` and ``until``, or all matching events. They have
        a round length (1 s, 5 min, 1 h, …) and start at round times, in UTC.

        Args:
            filter: Which events to count. ``limit`` and ``order`` have no effect.
            buckets: Maximum number of intervals, 1–240; 60 by default.
            max_seconds: Start no further chunk after this number of seconds, 2 by default. The
                newest 100,000 events are counted first, then those before them, and so on. One
                chunk usually takes less than half a second, so the call ends soon after the limit.
            **filters: Fields of `LogFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, or *buckets* is out of
                range.
        """
        wanted = merged(LogFilter, filter, {**filters, "order": "desc"})
        _check(wanted)
        histograms.check(buckets, max_seconds)
        await self._flush()
        resolved = await self._resolved(wanted)
        listing = await listing_of(self._fetch, resolved)
        return await histograms.count(
            self._fetch,
            listing,
            _moment(wanted.since),
            _moment(wanted.until),
            buckets,
            max_seconds,
            of_unusual_levels(resolved, listing),
        )

    async def around(
        self,
        event: tuple[int, int] | EventRecord,
        *,
        before: int = 5,
        after: int = 5,
        within: Literal["job", "session"] | None = None,
    ) -> EventContext:
        """Return an event with the events before and after it.

        Args:
            event: The event, or its ``(session_id, seq)``.
            before: Number of events before it, 0–1,000; 5 by default.
            after: Number of events after it, 0–1,000; 5 by default.
            within: Which neighbors to return: events of the same ``job``, by time, or of the same
                ``session``, by number. By default those of the job, if the event has a job.

        Raises:
            EventNotFound: if there is no such event. The message contains the reason, if it is
                known.
            InvalidFilter: if a number is out of range, or *within* is ``job`` and the event belongs
                to no job.
        """
        check_whole("before", before, 0, MOST_AROUND)
        check_whole("after", after, 0, MOST_AROUND)
        if within not in (None, "job", "session"):
            raise InvalidFilter(f"within must be 'job' or 'session', not {within!r}")
        session_id, seq = _number("event", event)
        await self._flush()
        event = rows.event(await self._row(session_id, seq))
        if within == "job" and event.job_id is None:
            raise InvalidFilter(
                f"the event {session_id}:{seq} belongs to no job: ask for its neighbours with within='session'"
            )
        one: ColumnElement[bool]
        order: list[ColumnElement[Any]]
        if within == "session" or event.job_id is None:
            one, order = logs.c.session_id == session_id, [logs.c.seq]
            earlier: ColumnElement[bool] = logs.c.seq < seq
            later: ColumnElement[bool] = logs.c.seq > seq
        else:
            one = leads(logs.c.job_id == event.job_id)
            order = [logs.c.ts, logs.c.id]
            # For this form of the condition see `structjob.queries.paging`.
            earlier = and_(logs.c.ts <= event.ts, or_(logs.c.ts < event.ts, logs.c.id < event.id))
            later = and_(logs.c.ts >= event.ts, or_(logs.c.ts > event.ts, logs.c.id > event.id))
        backward = (
            select(logs)
            .where(one, earlier)
            .order_by(*ordering((one,), *order, ascending=False))
            .limit(before)
        )
        forward = select(logs).where(one, later).order_by(*ordering((one,), *order)).limit(after)
        return EventContext(
            before=tuple(rows.event(row) for row in reversed(await self._fetch(backward))),
            event=event,
            after=tuple(rows.event(row) for row in await self._fetch(forward)),
        )

    async def _row(self, session_id: int, seq: int) -> rows.Row:
        its = (equals("session_id", logs.c.session_id, session_id), equals("seq", logs.c.seq, seq))
        if found := await self._fetch(select(logs).where(*its)):
            return found[0]
        explains = and_(
            gaps.c.session_id == session_id, gaps.c.first_seq <= seq, gaps.c.last_seq >= seq
        )
        why = await self._fetch(select(gaps.c.reason).where(explains).limit(1))
        raise EventNotFound(session_id, seq, why[0]["reason"] if why else None)

    @overload
    def tail(
        self,
        filter: LogFilter | None = None,
        *,
        after: str | None = None,
        last: int | None = None,
        gaps: Literal[False] = False,
        encoded: Literal[False] = False,
        batch: int = CHUNK,
        **filters: Unpack[LogFilterKeywords],
    ) -> Tail[EventRecord]: ...
    @overload
    def tail(
        self,
        filter: LogFilter | None = None,
        *,
        after: str | None = None,
        last: int | None = None,
        gaps: Literal[True],
        encoded: Literal[False] = False,
        batch: int = CHUNK,
        **filters: Unpack[LogFilterKeywords],
    ) -> Tail[EventRecord | Gap]: ...
    @overload
    def tail(
        self,
        filter: LogFilter | None = None,
        *,
        after: str | None = None,
        last: int | None = None,
        gaps: Literal[False] = False,
        encoded: Literal[True],
        batch: int = CHUNK,
        **filters: Unpack[LogFilterKeywords],
    ) -> Tail[EncodedEvent]: ...
    @overload
    def tail(
        self,
        filter: LogFilter | None = None,
        *,
        after: str | None = None,
        last: int | None = None,
        gaps: Literal[True],
        encoded: Literal[True],
        batch: int = CHUNK,
        **filters: Unpack[LogFilterKeywords],
    ) -> Tail[EncodedEvent | Gap]: ...
    def tail(
        self,
        filter: LogFilter | None = None,
        *,
        after: str | None = None,
        last: int | None = None,
        gaps: bool = False,
        encoded: bool = False,
        batch: int = CHUNK,
        **filters: Unpack[LogFilterKeywords],
    ) -> Tail[Any]:
        """Return an asynchronous iterator of the matching events: stored events first, then new
        ones.

        Each event is returned once, from any process. Stored events come in the order of their
        time. After that, the events of each session come in their order, and the events of several
        sessions in the order in which they are stored. If a session has assigned a number that is
        neither stored nor explained, the tail waits for it for 15 seconds at most. Later events of
        that session wait with it. If the missing event arrives after that, it is returned then.
        Events of other processes are seen within 1 second, and mostly within 0.1 seconds on SQLite.
        With more than 100 living sessions, an event whose transaction was open for more than a
        second may be seen up to 30 seconds later.

        Args:
            filter: Which events to follow. Its ``limit`` has no effect.
            after: The `Tail.cursor` of another tail with the same filter. The new tail continues
                exactly there.
            last: Start with the last *last* matching events, 0–1,000,000,000; 0: only new events.
                By default start with all stored events.
            gaps: Also return a `Gap` for numbers without a stored event. False by default.
            encoded: Return each event as an `EncodedEvent`, which holds its JSON as bytes. Use it
                to send or write events without creating records. False by default.
            batch: Maximum number of events that `Tail.poll` returns, 1–1,000. Memory holds as many
                new events. Stored events are read up to 1,000 at a time.
            **filters: Fields of `LogFilter`, instead of *filter* or in addition to it.

        Raises:
            InvalidFilter: if a filter is unknown, its value is invalid, or *after* belongs to
                another filter.

        The iteration raises `JobNotFound` if the filter refers to a job that does not exist.
        """
        wanted = merged(LogFilter, filter, filters)
        if wanted.order != "asc" or wanted.until is not None:
            raise InvalidFilter(
                "a tail has no end: leave out `order` and `until`, or list the events"
            )
        if last is not None:
            check_whole("last", last, 0, MAX_LAST)
        if after is not None and last is not None:
            raise InvalidFilter("a cursor continues at its own position: leave last out")
        check_whole("batch", batch, 1, _BATCH)
        _check(wanted)
        mark = fingerprint("tail", wanted)

        async def prepare() -> Query:
            return query_of(self._fetch, await self._resolved(wanted), mark)

        opened: Tail[Any] = Tail(
            self._fetch,
            self._flush,
            prepare,
            Position(mark, last) if after is None else decoded(after, mark),
            show_gaps=gaps,
            build=event_rows.encoded if encoded else event_rows.record,
            batch=batch,
            stamp=self._stamp,
        )
        self._tails.add(opened)
        return opened

    async def _resolved(self, wanted: LogFilter) -> LogFilter:
        """Return the filter with the job's own id, and with *children* set."""
        if wanted.job is not None:
            ids = [(await self._finder.find(one)).id for one in values_of(wanted.job)]
        elif wanted.job_id is not None:
            ids = [await self._finder.exact_id(one) for one in values_of(wanted.job_id)]
        else:
            return wanted
        return replace(wanted, job=None, job_id=ids, children=wanted.children is not False)

    async def _page(self, listing: Listing, cursor: str | None) -> Page[EventRecord]:
        return await read_page(
            self._fetch, listing, cursor, event_rows.record_of, event_rows.COLUMNS
        )


def _number(name: str, given: tuple[int, int] | EventRecord) -> tuple[int, int]:
    """Return the session and the number of an event."""
    if isinstance(given, EventRecord):
        return given.session_id, given.seq
    if not isinstance(given, tuple) or len(given) != 2 or not all(map(is_whole, given)):
        raise InvalidFilter(f"{name} must be an event, or its (session_id, seq), not {given!r}")
    return given


def _check_beginning(
    wanted: LogFilter, cursor: str | None, start: tuple[int, int] | None, offset: int
) -> None:
    """Raise `InvalidFilter` for a page with several starting points, or one that takes too long to
    find.
    """
    check_whole("offset", offset, 0, MAX_OFFSET, ": go further with a page's next_cursor")
    places = {"cursor": cursor, "start": start, "offset": offset or None}
    given = [name for name, place in places.items() if place is not None]
    if len(given) > 1:
        raise InvalidFilter(f"a page begins at one place: give {' or '.join(given)}, not both")
    if offset and searches(wanted):
        raise InvalidFilter(
            "offset is for filters that an index serves: go on with the page's next_cursor, or leave the other filters out"
        )


def _moment(given: datetime | timedelta | None) -> datetime | None:
    """Return a time of a filter, which is a datetime after the filter was created."""
    assert not isinstance(given, timedelta)  # noqa: S101
    return given


def _check(wanted: LogFilter) -> None:
    """Raise `InvalidFilter` for an impossible query, before anything is delivered or queried."""
    conditions(wanted)
    searches(wanted)
