"""Times that are given to the library have a time zone; on the command line they are those of the
wall.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from structjob import JobFilter, LogFilter
from structjob.cli.times import in_utc, midnight, moment
from structjob.exceptions import InvalidFilter
from structjob.filters import AttemptFilter
from structjob.statistics import StatsFilter
from structjob.text.appearance import local

NAIVE = datetime(2026, 5, 4, 13, 30)


@pytest.mark.parametrize("side", ["since", "until"])
@pytest.mark.parametrize("kind", [LogFilter, JobFilter, AttemptFilter, StatsFilter])
def test_a_filter_refuses_a_time_without_a_zone(kind, side):
    """faults 33g: a naive time is UTC to some and local to others; the error says how to write
    either.
    """
    with pytest.raises(
        InvalidFilter,
        match=rf"{side} has no time zone \(2026-05-04T13:30:00\): write datetime.now\(UTC\).*astimezone",
    ):
        kind(**{side: NAIVE})


@pytest.mark.parametrize("side", ["since", "until"])
async def test_every_read_refuses_a_time_without_a_zone(tracker, side):
    """faults 33g: each function that takes a time, not those alone that have a filter."""
    given = {side: NAIVE}
    reads = (
        tracker.jobs.list, tracker.jobs.history, tracker.logs.list, tracker.logs.count, tracker.errors.list,
        *(getattr(tracker.stats, name) for name in ("operations", "projects", "throughput", "steps", "errors", "errors_by_job", "volume")),
    )  # fmt: skip
    for read in reads:
        with pytest.raises(InvalidFilter, match=f"{side} has no time zone"):
            await read(**given)
    with pytest.raises(InvalidFilter, match=f"{side} has no time zone"):
        [event async for event in tracker.logs.iterate(**given)]
    for stream in (tracker.logs.tail, tracker.listen):
        with pytest.raises(InvalidFilter, match=f"{side} has no time zone"):
            stream(**given)


async def test_a_time_is_the_same_in_the_library_and_on_the_command_line(tracker, monkeypatch):
    """faults 33g: "five minutes ago", as each side writes it, finds the same event in Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        async with tracker.job("copy"):
            pass
        local = (datetime.now() - timedelta(minutes=5)).isoformat(timespec="seconds")
        typed = moment(SimpleNamespace(params={"utc": False}), None, local)
        assert abs(typed - (datetime.now(UTC) - timedelta(minutes=5))) < timedelta(seconds=10)
        before = datetime.now().astimezone() - timedelta(minutes=5)
        assert await tracker.logs.count(since=typed) == await tracker.logs.count(since=before) > 0
        as_utc = moment(SimpleNamespace(params={"utc": True}), None, "2026-05-04T13:30")
        assert as_utc == NAIVE.replace(tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_an_impossible_time_zone_shows_utc(monkeypatch):
    """faults 50: TZ=UTC+25 is no offset that a datetime may have."""
    monkeypatch.setenv("TZ", "UTC+25")
    time.tzset()
    try:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        assert local(noon, utc=False) == noon
        assert local(noon, utc=False).utcoffset() == timedelta()
        assert in_utc(datetime(2026, 1, 1, 12), utc=False) == noon
        assert midnight(noon, utc=False) == datetime(2026, 1, 1, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()
