"""Consecutive intervals of equal length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement

from structjob.exceptions import InvalidArgument
from structjob.store.expressions import Native

MAX_BUCKETS = 10_000
"""More than a person can read: a chart has fewer columns."""

FIRST = datetime.min.replace(tzinfo=UTC)
"""The earliest possible time."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class microseconds(Native[int]):  # noqa: N801  # reads like the SQL function that it stands for
    """The time of a column as microseconds since 1970, exact because only integers are used."""

    type = BigInteger()
    # Only the seconds go through strftime. With a fraction it would round to milliseconds, and
    # possibly up to the next second.
    sqlite = (
        "(CAST(strftime('%s', substr({0}, 1, 19)) AS INTEGER) * 1000000 "
        "+ CAST(substr({0}, 21, 6) AS INTEGER))"
    )
    mysql = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {0})"
    postgresql = "CAST(extract(epoch FROM {0}) * 1000000 AS BIGINT)"


def start_of(column: ColumnElement[Any], since: datetime, width: int) -> ColumnElement[int]:
    """Return the start of the interval that contains the time of *column*.

    The intervals begin at *since*. All numbers are microseconds; the result is one since *since*.
    """
    # Without a division, because each database rounds its result differently.
    elapsed = microseconds(column) - (since - EPOCH) // MICROSECOND
    start: ColumnElement[int] = elapsed - elapsed % width
    return start


@dataclass(frozen=True, slots=True)
class Buckets:
    """The intervals of a window. The first starts with the window; the last ends with it, and may
    be shorter.

    Args:
        since: Start of the first interval.
        until: End of the last interval.
        width: Length of each interval, at least 1 second.

    Raises:
        InvalidArgument: if *width* is too short, or there would be more than `MAX_BUCKETS`
            intervals.
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
                f"bucket must be at least 1 second, not {self.width.total_seconds():g} s"
            )
        if (self.until - self.since) / self.width > MAX_BUCKETS:
            raise InvalidArgument(
                f"{self.until - self.since} in buckets of {self.width} are more than {MAX_BUCKETS:,}: use a longer bucket"
            )

    def start_of(self, column: ColumnElement[Any]) -> ColumnElement[int]:
        """Return the start of the interval that contains the time of *column*.

        It is in microseconds since the start of the window.
        """
        # An interval that is longer than the window contains only the window. Its own length may
        # exceed a 64-bit integer.
        width = min(self.width, max(self.until - self.since, MICROSECOND))
        return start_of(column, self.since, width // MICROSECOND)

    def __iter__(self) -> Iterator[tuple[int, datetime, datetime]]:
        """Yield for each interval the value of `start_of`, its start and its end."""
        start = self.since
        while start < self.until:
            end = self.until if self.until - start <= self.width else start + self.width
            yield (start - self.since) // MICROSECOND, start, end
            start = end
