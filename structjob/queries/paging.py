"""Pages of a listing, by keyset: a page starts where another page ended.

Rows added or deleted in the meantime do not matter. A listing is ordered by a time (or a duration),
and for equal times by the primary key: an id, or a job id and a number. A cursor contains the time
and the key of the row at the edge of a page, and the side of it to read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from hashlib import blake2b
from typing import Any, Literal, TypeVar, cast

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    FromClause,
    Integer,
    Select,
    and_,
    column,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.engine import RowMapping

from structjob.exceptions import InvalidFilter
from structjob.filters import AttemptFilter, ErrorFilter, JobFilter, LogFilter, make_filter
from structjob.models import Page
from structjob.queries import opaque
from structjob.statistics import StatsFilter
from structjob.store.contract import Fetch
from structjob.store.expressions import ordering
from structjob.store.types import moment

R = TypeVar("R")
F = TypeVar("F", LogFilter, JobFilter, AttemptFilter, ErrorFilter, StatsFilter)

SCAN_LIMIT = 100_000
"""Maximum number of rows that one page of a search examines, if there is no index for the
search.
"""

_FIRST_LOOK = 20
"""Rows that the first look of a search examines per row of the page.

The next look examines ten times as many. Most searches find enough in the first look.
"""

Key = int | str | tuple[str, int]
"""The primary key of a row."""

Place = tuple[datetime, Key]
"""The time and the key of a row."""

_Side = Literal["after", "from", "before", "upto"]
_BACKWARD = ("before", "upto")
_INCLUSIVE = ("from", "upto")
_NO_CURSOR = "the cursor is not one that structjob gave out: pass a page's `next_cursor` or `previous_cursor` as it stands"


@dataclass(frozen=True, slots=True)
class Listing:
    """The rows to list.

    Args:
        table: The source of the rows.
        time: The column that orders the rows, before the primary key.
        conditions: All of these must hold.
        branches: If there are any, one of these must hold, too. No row may satisfy two of them.
            Each is read with its own index and limited to the page's size before they are merged.
            With ``IN``, a database would read and sort all rows of all branches for one page.
        order: ``asc`` or ``desc``, by time.
        limit: Rows per page.
        fingerprint: Distinguishes this listing's cursors from those of other listings.
        primary: The primary key, if *table* is a query.
        searches: These must hold, too, but there is no index for them. A page examines `SCAN_LIMIT`
            rows at most.
    """

    table: FromClause
    time: ColumnElement[Any]
    conditions: tuple[ColumnElement[bool], ...]
    branches: tuple[ColumnElement[bool], ...]
    order: str
    limit: int
    fingerprint: str
    searches: tuple[ColumnElement[bool], ...] = ()
    primary: tuple[ColumnElement[Any], ...] = ()

    @property
    def key(self) -> tuple[ColumnElement[Any], ...]:
        """The primary key, which orders rows with the same time."""
        return self.primary or tuple(self.table.primary_key)


class _Cursor(msgspec.Struct, array_like=True, frozen=True):
    fingerprint: str
    side: _Side
    time: datetime | float
    key: Key


def fingerprint(what: str, filter_: LogFilter | JobFilter | AttemptFilter) -> str:
    """Return a hash that distinguishes the cursors of this query from those of other queries.

    The page size may change between pages. So may the values of ``since`` and ``until``, because
    "an hour ago" moves with the clock. But whether they are set must not change.
    """
    values = {
        field.name: getattr(filter_, field.name)
        for field in fields(filter_)
        if field.name != "limit"
    }
    for name in ("since", "until"):
        values[name] = values[name] is not None
    encoded = msgspec.json.encode([what, values], order="deterministic", enc_hook=_encode_rest)
    return blake2b(encoded, digest_size=6).hexdigest()


def merged(kind: type[F], filter_: F | None, keywords: Mapping[str, Any]) -> F:
    """Return *filter_* with the values of *keywords*, which replace its own.

    Raises:
        InvalidFilter: if a keyword is not one of the filter's fields, a value is invalid, or
            *filter_* is of another kind.
    """
    if filter_ is None:
        return make_filter(kind, **keywords)
    if not isinstance(filter_, kind):
        raise InvalidFilter(f"the filter must be a {kind.__name__}, not {type(filter_).__name__}")
    if not keywords:
        return filter_
    return make_filter(
        kind,
        **{field.name: getattr(filter_, field.name) for field in fields(filter_)} | dict(keywords),
    )


def first(listing: Listing, columns: tuple[ColumnElement[Any], ...]) -> Select[Any]:
    """Return the query for *columns* of the first rows of a listing, as many as a page has."""
    return _ordered(listing, None, columns, listing.conditions + listing.searches, listing.limit)


async def read_page(
    fetch: Fetch,
    listing: Listing,
    cursor: str | None,
    build: Callable[[RowMapping], R],
    columns: tuple[ColumnElement[Any], ...] | None = None,
) -> Page[R]:
    """Read one page: the first page, or the page at *cursor*.

    Args:
        listing: What to list.
        cursor: A cursor of another page.
        build: A function that turns a row into an item of the page.
        columns: The columns to read, including time and key; by default all columns of the table.

    Raises:
        InvalidFilter: if *cursor* does not belong to this listing.
    """
    at = None if cursor is None else _opened(cursor, listing)
    backward = at is not None and at.side in _BACKWARD
    rows, edge = await _looked_at(fetch, listing, at, columns)
    more = len(rows) > listing.limit
    del rows[listing.limit :]
    if backward:
        rows.reverse()
    if rows:
        # There are rows on the side where the cursor came from. On the other side, the one extra
        # row shows whether there are more.
        earlier = more if backward else at is not None
        next_ = _cursor(listing, "after", _place(listing, rows[-1])) if more or backward else None
        previous = _cursor(listing, "before", _place(listing, rows[0])) if earlier else None
    else:
        next_, previous = _beside_nothing(listing, at)
    partial = edge is not None and not more
    if edge is not None and partial:
        further = _cursor(listing, "before" if backward else "after", edge)
        next_, previous = (next_, further) if backward else (further, previous)
    return Page(
        tuple(map(build, rows)), next_cursor=next_, previous_cursor=previous, partial=partial
    )


async def last_but(fetch: Fetch, listing: Listing, number: int) -> Place | None:
    """Return time and key of the row before the last *number* rows of an ascending listing.

    Return None if it has no more rows than *number*. A search examines `SCAN_LIMIT` rows at a time,
    as far back as necessary. Other queries can run in between.
    """
    descending = replace(listing, order="desc", limit=number)
    if not listing.searches:
        return await _nth(fetch, descending, None, number + 1)
    at: _Cursor | None = None
    while True:
        edge = await _nth(fetch, descending, at, SCAN_LIMIT)
        found = await fetch(_statement(descending, at, edge, (listing.time, *listing.key)))
        if len(found) > descending.limit:
            return _place(listing, found[-1])
        if edge is None:
            return None
        descending = replace(descending, limit=descending.limit - len(found))
        at = _Cursor(listing.fingerprint, "after", *edge)


def behind(listing: Listing, time: datetime, key: Key) -> str:
    """Return the cursor after the row with this time and key."""
    return _cursor(listing, "after", (time, key))


def place_of(cursor: str) -> tuple[datetime, Any]:
    """Return time and key of the row of a cursor that this module created."""
    found = _decoded(cursor)
    return cast("datetime", found.time), found.key


async def _looked_at(
    fetch: Fetch,
    listing: Listing,
    at: _Cursor | None,
    columns: tuple[ColumnElement[Any], ...] | None,
) -> tuple[list[RowMapping], Place | None]:
    """Return the rows from *at* on, at most one more than a page holds, and where a search stopped.

    The second value is None if the search reached the end.
    """
    if not listing.searches:
        return list(await fetch(_statement(listing, at, None, columns))), None
    number = min(_FIRST_LOOK * listing.limit, SCAN_LIMIT)
    while True:
        edge = await _nth(fetch, listing, at, number)
        rows = list(await fetch(_statement(listing, at, edge, columns)))
        if edge is None or number == SCAN_LIMIT or len(rows) > listing.limit:
            return rows, edge
        number = min(10 * number, SCAN_LIMIT)


def beginning_at(listing: Listing, time: datetime, key: Key) -> str:
    """Return the cursor of the page that starts with the row of this time and key, or at its
    place.
    """
    return _cursor(listing, "from", (time, key))


async def skipping(fetch: Fetch, listing: Listing, number: int) -> str | None:
    """Return the cursor after the first *number* rows of a listing without searches.

    Return None if there are no more rows.
    """
    edge = await _nth(fetch, listing, None, number)
    return None if edge is None else behind(listing, *edge)


async def count_all(fetch: Fetch, listing: Listing) -> int:
    """Count the rows of a listing; see `count_by`."""
    return (await count_by(fetch, listing))[()]


async def count_by(
    fetch: Fetch, listing: Listing, *keys: ColumnElement[Any]
) -> Counter[tuple[Any, ...]]:
    """Count the rows of a listing for each combination of the values of *keys*.

    A search runs in chunks of `SCAN_LIMIT` rows with pauses in between.
    """
    counted = (
        select(*keys, func.count().label("n"))
        .select_from(listing.table)
        .where(*every_condition(listing))
        .group_by(*keys)
    )
    found: Counter[tuple[Any, ...]] = Counter()

    async def add(statement: Select[Any]) -> None:
        for row in await fetch(statement):
            *values, number = tuple[Any, ...](row.values())
            found[tuple(values)] += number

    if not listing.searches:
        await add(counted)
    else:
        async for stretch in stretches(fetch, listing):
            await add(counted.where(*stretch.conditions))
    return found


def every_condition(listing: Listing) -> tuple[ColumnElement[bool], ...]:
    """Return all conditions of the rows of a listing, for a query without an order."""
    found = listing.conditions + listing.searches
    return (*found, or_(*listing.branches)) if listing.branches else found


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive rows of a listing.

    Args:
        conditions: The conditions of these rows, in addition to those of the listing.
        begins: The time of the row before the first one; None at the start of the listing.
        ends: The time of the last row; None at the end of the listing.
    """

    conditions: tuple[ColumnElement[bool], ...]
    begins: datetime | None
    ends: datetime | None


async def stretches(fetch: Fetch, listing: Listing) -> AsyncIterator[Stretch]:
    """Yield a listing in chunks of `SCAN_LIMIT` rows, without its searches.

    Other queries can run between the chunks.
    """
    ascending = listing.order == "asc"
    at: _Cursor | None = None
    while True:
        edge = await _nth(fetch, listing, at, SCAN_LIMIT)
        within: tuple[ColumnElement[bool], ...] = (
            () if at is None else (_beyond(listing, at, ascending=ascending),)
        )
        if edge is not None:
            upto = _Cursor(listing.fingerprint, "upto", *edge)
            within += (_beyond(listing, upto, ascending=not ascending),)
        began = None if at is None else cast("datetime", at.time)
        yield Stretch(within, began, None if edge is None else edge[0])
        if edge is None:
            return
        at = _Cursor(listing.fingerprint, "after", *edge)


async def _nth(fetch: Fetch, listing: Listing, at: _Cursor | None, number: int) -> Place | None:
    """Return time and key of the *number*-th row of a listing from *at* on, without its searches.

    Return None if there are fewer rows.
    """
    columns = (listing.time, *listing.key)
    found = await fetch(
        _ordered(listing, at, columns, listing.conditions, number).offset(number - 1).limit(1)
    )
    return _place(listing, found[0]) if found else None


def _place(listing: Listing, row: RowMapping) -> Place:
    values = tuple(row[column.key or ""] for column in listing.key)
    time = row[listing.time.key or ""]
    # the value may come as the driver returns it, depending on the requested columns
    at = moment(time) if isinstance(time, (str, datetime)) else time
    return at, values[0] if len(values) == 1 else values


def _statement(
    listing: Listing,
    at: _Cursor | None,
    edge: Place | None,
    columns: tuple[ColumnElement[Any], ...] | None,
) -> Select[Any]:
    conditions = listing.conditions + listing.searches
    if edge is not None:
        until = _Cursor(listing.fingerprint, "from", *edge)
        conditions += (_beyond(listing, until, ascending=not _ascending(listing, at)),)
    return _ordered(listing, at, columns or tuple(listing.table.c), conditions, listing.limit + 1)


def _ascending(listing: Listing, at: _Cursor | None) -> bool:
    return (listing.order == "asc") != (at is not None and at.side in _BACKWARD)


def _ordered(
    listing: Listing,
    at: _Cursor | None,
    columns: tuple[ColumnElement[Any], ...],
    conditions: tuple[ColumnElement[bool], ...],
    limit: int,
) -> Select[Any]:
    """Return the first *limit* rows from *at* on."""
    ascending = _ascending(listing, at)
    if at is not None:
        conditions += (_beyond(listing, at, ascending=ascending),)

    def branch(*more: ColumnElement[bool]) -> Select[Any]:
        found = (*more, *conditions)
        by = ordering(found, listing.time, *listing.key, ascending=ascending)
        return select(*columns).where(*found).order_by(*by).limit(limit)

    if len(listing.branches) < 2:
        return branch(*listing.branches)
    # Only names: a copy of each column for each branch costs more time than the query.
    every: ColumnElement[Any] = literal_column("*")
    together = union_all(
        *(select(every).select_from(branch(one).subquery()) for one in listing.branches)
    ).subquery()
    by = ordering((), *map(_named, (listing.time, *listing.key)), ascending=ascending)
    return select(*map(_named, columns)).select_from(together).order_by(*by).limit(limit)


def _named(selected: ColumnElement[Any]) -> ColumnElement[Any]:
    return column(selected.key or "", selected.type)


def _beyond(listing: Listing, at: _Cursor, *, ascending: bool) -> ColumnElement[bool]:
    # Not as a comparison of tuples, because MySQL and MariaDB use no index for (time, id) > (:time,
    # :id).
    time = listing.time
    further = _further(listing.key, _values(at), at, ascending=ascending)
    if ascending:
        return and_(time >= at.time, or_(time > at.time, further))
    return and_(time <= at.time, or_(time < at.time, further))


def _further(
    columns: Sequence[ColumnElement[Any]],
    values: Sequence[int | str],
    at: _Cursor,
    *,
    ascending: bool,
) -> ColumnElement[bool]:
    column, value = columns[0], values[0]
    further: ColumnElement[bool] = column > value if ascending else column < value
    if len(columns) > 1:
        return or_(
            further,
            and_(column == value, _further(columns[1:], values[1:], at, ascending=ascending)),
        )
    return or_(further, column == value) if at.side in _INCLUSIVE else further


def _values(at: _Cursor) -> tuple[int | str, ...]:
    return at.key if isinstance(at.key, tuple) else (at.key,)


def _beside_nothing(listing: Listing, at: _Cursor | None) -> tuple[str | None, str | None]:
    """Return the next and the previous cursor of an empty page.

    One of them leads back to the page it was reached from, including the row at the edge.
    """
    if at is None:
        return None, None
    side: _Side = "from" if at.side in _BACKWARD else "upto"
    back = _cursor(listing, side, (at.time, at.key))
    return (back, None) if side == "from" else (None, back)


def _cursor(listing: Listing, side: _Side, place: tuple[datetime | float, Key]) -> str:
    cursor = _Cursor(listing.fingerprint, side, *place)
    return opaque.as_text(msgspec.json.encode(cursor))


def _opened(text: str, listing: Listing) -> _Cursor:
    cursor = _decoded(text)
    # A cursor can be forged, but that harms only the caller, because its values are bound like all
    # other values. The checks ensure that the drivers accept the values.
    values = _values(cursor)
    if len(values) != len(listing.key) or not all(map(_holds, listing.key, values)):
        raise InvalidFilter(_NO_CURSOR)
    if isinstance(cursor.time, datetime):
        opaque.check_times((cursor.time,), _NO_CURSOR)
    if cursor.fingerprint != listing.fingerprint:
        raise InvalidFilter(
            "the cursor belongs to another query: repeat the filter it came from (limit, since and until may differ)"
        )
    if isinstance(cursor.time, float) != isinstance(listing.time.type, Double):
        raise InvalidFilter(_NO_CURSOR)
    return cursor


def _holds(column: ColumnElement[Any], value: int | str) -> bool:
    """Return whether *column* can hold *value*."""
    if isinstance(column.type, Integer):
        bits = 63 if isinstance(column.type, BigInteger) else 31
        return isinstance(value, int) and -(1 << bits) <= value < 1 << bits
    return isinstance(value, str) and "\x00" not in value


def _decoded(text: str) -> _Cursor:
    return opaque.from_text(text, msgspec.json.Decoder(_Cursor).decode, _NO_CURSOR)


def _encode_rest(value: Any) -> Any:
    return dict(value) if hasattr(value, "keys") else repr(value)
