"""Times as people write them on the command line: days begin at midnight of the zone that they are
shown in.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from structjob.cli import stats, times

NOON = datetime(2026, 10, 25, 11, tzinfo=UTC)
"""In Berlin, of the day on whose early morning clocks were put back: it began at 22:00 UTC, when
they were two hours ahead.
"""


class Clock(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return NOON


@pytest.fixture
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(text: str, *, utc: bool = False) -> datetime | None:
    context: Any = SimpleNamespace(params={"utc": utc})
    parameter: Any = None
    return times.moment(context, parameter, text)


@pytest.mark.usefixtures("_berlin")
@pytest.mark.parametrize(
    ("text", "local", "utc"),
    [
        ("today", datetime(2026, 10, 24, 22), datetime(2026, 10, 25)),
        ("yesterday", datetime(2026, 10, 23, 22), datetime(2026, 10, 24)),
        ("2026-10-25", datetime(2026, 10, 24, 22), datetime(2026, 10, 25)),
        ("9:41", datetime(2026, 10, 25, 8, 41), datetime(2026, 10, 25, 9, 41)),
        ("2026-10-26", datetime(2026, 10, 25, 23), datetime(2026, 10, 26)),
        ("2026-10-25T12:00+05:00", datetime(2026, 10, 25, 7), datetime(2026, 10, 25, 7)),
    ],
)
def test_a_day_begins_at_its_midnight(
    text: str, local: datetime, utc: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where clocks were put back since: no line of the day is left out, and none of another is
    in it (R49).
    """
    monkeypatch.setattr(times, "datetime", Clock)
    assert read(text) == local.replace(tzinfo=UTC)
    assert read(text, utc=True) == utc.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "moment", "shown"),
    [
        ("America/New_York", datetime.min, "0001-01-01T00:00:00+00:00"),
        ("Asia/Tokyo", datetime.max, "9999-12-31T23:59:59+00:00"),
    ],
)
def test_a_time_that_no_clock_of_the_zone_shows(
    zone: str, moment: datetime, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be in the year 0 or 10000 there is shown in UTC, and hides no other line (R36,
    R49).
    """
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert (
            times.local(moment.replace(tzinfo=UTC), utc=False).isoformat(timespec="seconds")
            == shown
        )
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.usefixtures("_berlin")
def test_buckets_of_a_day_begin_at_midnight() -> None:
    """`stats throughput --bucket 1d` begins with a whole day (R38, R49)."""
    asked: Any = SimpleNamespace(
        filters={"since": NOON, "until": NOON + timedelta(days=2), "bucket": timedelta(days=1)},
        utc=False,
    )
    assert stats._bucketed(asked)["since"] == datetime(2026, 10, 24, 22, tzinfo=UTC)


@pytest.mark.usefixtures("_berlin")
def test_buckets_before_which_there_is_no_midnight() -> None:
    """A window at the first moment that there is begins there (R38, R49)."""
    first = datetime.min.replace(tzinfo=UTC)
    for filters in (
        {"since": first, "until": first + timedelta(hours=1)},
        {"until": first + timedelta(hours=1)},
    ):
        asked: Any = SimpleNamespace(filters=filters, utc=False)
        assert stats._bucketed(asked).get("since", first) == first


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("30d", timedelta(30)),
        ("2w", timedelta(14)),
        ("6mo", timedelta(180)),
        ("1y", timedelta(365)),
        ("90min", timedelta(0, 5400)),
    ],
)
def test_ages_have_weeks_months_and_years(text: str, age: timedelta) -> None:
    """faults 44: what is kept for months or years can be said so."""
    context: Any = None
    assert times.age(context, context, text) == age
