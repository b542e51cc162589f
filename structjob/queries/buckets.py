"""Stretches of time of equal length, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from structjob.exceptions import InvalidArgument

MAX_BUCKETS = 10_000
"""More than anybody can look at: a chart has fewer columns than that."""

FIRST = datetime.min.replace(tzinfo=UTC)
"""The first moment that there is."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class microseconds(FunctionElement[int]):  # noqa: N801  # reads like the SQL function it stands for
    """A column's moment as microseconds since 1970, exactly: whole numbers all the way."""

    type = BigInteger()
    inherit_cache = True


@compiles(microseconds, "sqlite")
def _sqlite(element: microseconds, compiler: SQLCompiler, **kw: Any) -> str:
    (column,) = (compiler.process(clause, **kw) for clause in element.clauses)
    # The seconds alone: with their fraction, strftime would round to milliseconds, and so into the
    # next second.
    return f"(CAST(strftime('%s', substr({column}, 1, 19)) AS INTEGER) * 1000000 + CAST(substr({column}, 21, 6) AS INTEGER))"


@compiles(microseconds, "mysql")
@compiles(microseconds, "mariadb")
def _mysql(element: microseconds, compiler: SQLCompiler, **kw: Any) -> str:
    (column,) = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column})"


@compiles(microseconds, "postgresql")
def _postgresql(element: microseconds, compiler: SQLCompiler, **kw: Any) -> str:
    (column,) = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST(extract(epoch FROM {column}) * 1000000 AS BIGINT)"


@dataclass(frozen=True, slots=True)
class Buckets:
    """The buckets of a window, the first beginning where it does; the last ends with it, and may be
    shorter.

    Args:
        since: Where the first begins.
        until: Where the last ends.
        width: How long each is; a second at least.

    Raises:
        InvalidArgument: if *width* is too short, or there would be more than `MAX_BUCKETS` of them.
    """

    since: datetime
    until: datetime
    width: timedelta

    def __post_init__(self) -> None:
        if not isinstance(self.width, timedelta):
            raise InvalidArgument(
                f"bucket must be a timedelta, not {type(self.width).__name__}: for example timedelta(hours=1)"
            )
        if self.width < timedelta(seconds=1):
            raise InvalidArgument(
                f"bucket must be a second at least, not {self.width.total_seconds():g} s"
            )
        if (self.until - self.since) / self.width > MAX_BUCKETS:
            raise InvalidArgument(
                f"{self.until - self.since} in buckets of {self.width} are more than {MAX_BUCKETS:,}: take a longer bucket"
            )

    def start_of(self, column: ColumnElement[Any]) -> ColumnElement[int]:
        """Return where the bucket of *column*'s moment begins, in microseconds since the window
        does.
        """
        # Not by division, whose result each database rounds in its own way.
        elapsed = microseconds(column) - (self.since - _EPOCH) // _MICROSECOND
        # A bucket that is longer than the window holds no more than it, and may be too long for a
        # whole number of 64 bits.
        width = min(self.width, max(self.until - self.since, _MICROSECOND))
        start: ColumnElement[int] = elapsed - elapsed % (width // _MICROSECOND)
        return start

    def __iter__(self) -> Iterator[tuple[int, datetime, datetime]]:
        """Yield for each bucket what `start_of` returns for it, its start and its end."""
        start = self.since
        while start < self.until:
            end = self.until if self.until - start <= self.width else start + self.width
            yield (start - self.since) // _MICROSECOND, start, end
            start = end
