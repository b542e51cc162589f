"""Dropped events: numbers that were given out, and under which nothing is stored."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_JOBS = 200
"""Maximum number of jobs in one row of ``structjob_gaps``."""


class Dropped(NamedTuple):
    """Dropped events: numbers *first* to *last*, all of one job or without a job, and the
    reason.
    """

    first: int
    last: int
    reason: str
    job_id: str | None = None


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last number of each run in *numbers*, which may be in any order."""
    first = last = 0
    for number in sorted(numbers):
        if first and number > last + 1:
            yield first, last
            first = 0
        first, last = first or number, number
    if first:
        yield first, last


def taken_runs(source: deque[Dropped]) -> Iterator[tuple[Dropped, dict[str, int]]]:
    """Remove the dropped events from *source*; yield each run of numbers without a gap and with the
    same reason, and the number of events of each job in it.
    """
    dropped: dict[str, list[Dropped]] = {}
    while source:
        event = source.popleft()
        dropped.setdefault(event.reason, []).append(event)
    for reason, events in dropped.items():
        first = last = 0
        jobs: dict[str, int] = {}
        for event in sorted(events):
            if first and (event.first > last + 1 or len(jobs) >= _JOBS):
                yield Dropped(first, last, reason), jobs
                first, jobs = 0, {}
            first, last = first or event.first, event.last
            if event.job_id is not None:
                jobs[event.job_id] = jobs.get(event.job_id, 0) + event.last - event.first + 1
        yield Dropped(first, last, reason), jobs
