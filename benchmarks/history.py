"""A realistic history of a generated service: months of jobs with attempts, steps, children and
events.

It yields lines of the spool. Few operations make up most jobs. The duration of a job and its number
of lines are heavy-tailed. A few percent of the jobs fail, in a few dozen ways. There is more work
by day than at night, and less at the weekend. The same seed generates the same history, byte for
byte.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from benchmarks.happenings import SECOND, Happening, Lines, MadeUpJob, Service, moment_text
from benchmarks.operations import OPERATIONS, SYSTEM_SAYS, Operation
from structjob.spool.line import seal_event, seal_state
from structjob.spool.session import Session
from structjob.store.contract import Write

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
PER_DAY = 1_111
"""Jobs per day: 100,000 jobs take 90 days."""
FEWEST = 5
"""Minimum average number of events per job."""

_SYSTEM = 0.02
"""The share of events outside of any job."""
_WORKERS = ("worker-1", "worker-2", "worker-3")
_WEEK = 7 * 86_400 * SECOND
"""The lifetime of a process, in microseconds."""
_BATCH = 64
"""Number of jobs that are generated together. Their events are then sorted by time, together with
the rest of earlier jobs.
"""
_HOURS = (2, 1, 1, 1, 1, 2, 4, 7, 11, 13, 13, 12, 10, 12, 13, 13, 12, 10, 8, 6, 5, 4, 3, 2)
_WEEKEND = 0.35


@dataclass(frozen=True, slots=True)
class Batch:
    """What the processes delivered in one time interval.

    Attributes:
        begun: The new sessions.
        writes: One for each session that had something to deliver.
        events: The number of events in them.
    """

    begun: tuple[Session, ...]
    writes: tuple[Write, ...]
    events: int


class _Process:
    """A session, the numbers that it assigned, and the lines that it has not delivered yet."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.entered = False
        self.seq = self._state_seq = 0
        self._events: list[bytes] = []
        self._states: list[bytes] = []

    def log(self, line: Happening) -> None:
        if line.event:
            self.seq += 1
            self._events.append(seal_event(line.body, self.seq))
        else:
            self._state_seq += 1
            self._states.append(seal_state(line.body, self._state_seq))

    def deliver(self) -> Write:
        write = Write(
            self.session.session_id, b"".join(self._events), b"".join(self._states), self.seq
        )
        self._events, self._states = [], []
        return write


class History:
    """The history; it can be iterated once.

    Args:
        jobs: The number of jobs, including children.
        events: The number of events; at least `FEWEST` per job.
        seed: The seed of the random generator.
        until: The time of its end.
        days: Its length; default: the length that gives `PER_DAY` jobs per day.

    Raises:
        ValueError: if there is no job, or there are too few events.
    """

    def __init__(
        self,
        jobs: int,
        events: int,
        *,
        seed: int = 1,
        until: datetime = UNTIL,
        days: float | None = None,
    ) -> None:
        if jobs < 1 or events < FEWEST * jobs:
            raise ValueError(
                f"{events:,} events are too few for {jobs:,} jobs: take {FEWEST} a job at least, and a job at least"
            )
        self._random = random.Random(seed)
        self._until = (until - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        self._since = self._until - int(
            (jobs / PER_DAY if days is None else days) * 86_400 * SECOND
        )
        self._service = Service(self._random, self._until)
        self._processes: dict[tuple[str, int], _Process] = {}
        self._system = self._moments(int(events * _SYSTEM))
        self._starts = self._moments(jobs)
        kinds = self._random.choices(
            OPERATIONS, [operation.share for operation in OPERATIONS], k=jobs
        )
        self._jobs = zip(
            kinds, self._sizes(kinds, events - len(self._system)), self._starts, strict=True
        )
        self._recent: dict[str, list[MadeUpJob]] = {operation.name: [] for operation in OPERATIONS}

    @property
    def sessions(self) -> list[tuple[Session, int]]:
        """The sessions so far, each with the number of lines that it assigned."""
        return [(process.session, process.seq) for process in self._processes.values()]

    def __iter__(self) -> Iterator[Batch]:
        waiting: list[tuple[_Process, Happening]] = []
        outside = self._outside()
        following = next(outside, None)
        for edge in [*self._starts[_BATCH::_BATCH], self._until]:
            for operation, size, start in itertools.islice(self._jobs, _BATCH):
                job = self._job(operation, size, start)
                process = self._process(self._random.choice(_WORKERS), start)
                waiting.extend((process, line) for line in job.happenings())
            while following is not None and following[1].moment < edge:
                waiting.append(following)
                following = next(outside, None)
            waiting.sort(key=_when)
            ready = bisect.bisect_left(waiting, edge, key=_when)
            yield self._delivered(waiting[:ready])
            del waiting[:ready]

    def _moments(self, count: int) -> list[int]:
        """Return *count* sorted moments, most of them in working hours."""
        found: list[int] = []
        busiest = max(_HOURS)
        while len(found) < count:
            moment = self._random.randrange(self._since, self._until)
            hour = moment // (3600 * SECOND)
            weekend = (hour // 24 + 3) % 7 >= 5  # 1970 began on a Thursday
            if self._random.random() * busiest < _HOURS[hour % 24] * (_WEEKEND if weekend else 1):
                found.append(moment)
        return sorted(found)

    def _sizes(self, kinds: list[Operation], events: int) -> list[int]:
        """Return the number of events of each job: heavy-tailed, at least 4, *events* in total."""
        weights = [kind.lines * math.exp(self._random.gauss(0, kind.spread)) for kind in kinds]
        scale = (events - 4 * len(kinds)) / sum(weights)
        edges = [round(edge * scale) for edge in itertools.accumulate(weights, initial=0.0)]
        return [4 + after - before for before, after in itertools.pairwise(edges)]

    def _job(self, operation: Operation, size: int, start: int) -> MadeUpJob:
        parents = [job for name in operation.parents for job in self._recent[name]]
        job = MadeUpJob(
            self._service, operation, size, start, self._random.choice(parents) if parents else None
        )
        self._recent[operation.name] = [*self._recent[operation.name][-4:], job]
        return job

    def _outside(self) -> Iterator[tuple[_Process, Happening]]:
        """Yield the lines outside of jobs."""
        lines = Lines(self._random, SYSTEM_SAYS)
        for moment in self._system:
            values = {"host": f"10.0.{moment % 4}.{moment % 251}"}
            body = lines.draw(moment, values, b'},"category":"web","logger":"app.web"')
            yield self._process("web-1", moment), Happening(moment, True, body)

    def _process(self, host: str, moment: int) -> _Process:
        """Return the process of a host; an old process stays until its jobs have ended."""
        week = moment // _WEEK
        found = self._processes.get((host, week))
        if found is None:
            number, pid = self._random.getrandbits(52) | 1, 1_000 + self._random.getrandbits(14)
            session = Session(
                number,
                host,
                None,
                pid,
                host.partition("-")[0],
                "1.4.2",
                moment_text(moment).decode(),
            )
            found = self._processes[host, week] = _Process(session)
        return found

    def _delivered(self, lines: list[tuple[_Process, Happening]]) -> Batch:
        concerned = dict.fromkeys(process for process, _ in lines)
        for process, line in lines:
            process.log(line)
        begun = tuple(process.session for process in concerned if not process.entered)
        for process in concerned:
            process.entered = True
        return Batch(
            begun,
            tuple(process.deliver() for process in concerned),
            sum(line.event for _, line in lines),
        )


def _when(item: tuple[_Process, Happening]) -> int:
    return item[1].moment
