"""What a queue of records is asked for, and its form in memory. The one on disk is in
`structjob.spool`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from structjob.spool.line import number_of, owner_of

Overflow = Literal["drop_oldest", "drop_newest", "block"]
OVERFLOW: tuple[Overflow, ...] = ("drop_oldest", "drop_newest", "block")

BLOCK_POLL = 0.002
"""Seconds between two looks of a thread that waits for room."""


def ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield *numbers*, which may stand in any order, as first and last of each run."""
    first = last = 0
    for number in sorted(numbers):
        if first and number > last + 1:
            yield first, last
            first = 0
        first, last = first or number, number
    if first:
        yield first, last


@dataclass(slots=True, eq=False)
class Batch:
    """Lines on their way to the database.

    Attributes:
        lines: JSON lines, each with its newline.
        count: How many; 0 where there was nothing but damage.
        lane: Where they are from, to be told with `RecordQueue.ack` when they are stored.
        segment: Number of the segment they are from.
        start: Where they begin in it.
        end: Where they end in it.
    """

    lines: bytes
    count: int
    lane: RecordQueue
    segment: int = 0
    start: int = 0
    end: int = 0


class Dropped(NamedTuple):
    """Events that were given up: numbers *first* to *last*, all of one job (or of none),
    and why.
    """

    first: int
    last: int
    reason: str
    job_id: str | None = None


class RecordQueue(Protocol):
    """One queue of records, in the order in which they were written."""

    dropped: deque[Dropped]
    """What was given up. Whoever reports it takes it out."""
    closed: bool
    """Whether nobody shall wait for room any more."""
    room_comes: Callable[[], bool]
    """Whether there can be room later on for a caller who waits."""

    def append(self, line: bytes, number: int) -> None:
        """Take one line; on disk it is safe against ``kill -9`` when this returns. Raises `OSError`
        if it cannot be written.
        """

    def read(self, limit: int, most: int) -> Batch | None:
        """Return the next lines, or ``None`` if nothing waits: at most *limit* bytes (or a single
        line) and *most* lines.
        """

    def filled(self) -> float:
        """Return the share of its room that is taken, 0–1; 0 where there is no limit."""

    def ack(self, batch: Batch, confirmed: int = 0) -> None:
        """Forget *batch*: it is dealt with. The database has *confirmed* so many of its events."""

    def clear(self, reason: str) -> int:
        """Give up what waits and was not read yet; return how many records."""

    def position(self) -> Any:
        """Return where the lane ends now, to be asked of `reached` later."""

    def reached(self, position: Any) -> bool:
        """Return whether everything before *position* is stored (or was given up)."""

    def sync(self) -> None:
        """Make what was written safe against a power cut."""

    def close(self) -> None:
        """Let go of the files; what waits stays on disk."""


def may_block() -> bool:
    """Return whether the caller may be held up: never a running loop."""
    return asyncio._get_running_loop() is None


def _ignore(count: int) -> None:
    pass


class MemoryQueue:
    """The in-memory twin: for in-memory databases, where the spool is switched off, and while the
    disk refuses.

    Args:
        capacity: Lines it holds at most; ``None`` without bound.
        overflow: What happens to the next one: the oldest goes, the newest goes, or a foreign
            thread waits.
        reason: What the drops are counted under.
    """

    def __init__(
        self,
        capacity: int | None = None,
        overflow: Overflow = "drop_oldest",
        reason: str = "queue_full",
    ) -> None:
        self.dropped: deque[Dropped] = deque()
        self.closed = False
        self.room_comes = may_block
        self.confirm: Callable[[int], object] = _ignore
        """Called with how many of its events the database has confirmed."""
        self._capacity = float("inf") if capacity is None else capacity
        self._overflow = overflow
        self._reason = reason
        self._lines: deque[tuple[int, bytes]] = deque()
        self._in_flight = 0
        self._acked = 0

    def filled(self) -> float:
        return len(self) / self._capacity if self._capacity else 0.0

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: bytes, number: int) -> None:
        # Each of these is one atomic operation of a deque: whoever comes in between sees it done or
        # not done.
        if len(self._lines) < self._capacity:
            self._lines.append((number, line))
        elif self._overflow == "drop_newest" or (
            self._overflow == "block" and not self.room_comes()
        ):
            self._drop(number, line, self._reason)
        else:
            while (
                self._overflow == "block"
                and len(self._lines) >= self._capacity
                and not self.closed
                and self.room_comes()
            ):
                time.sleep(BLOCK_POLL)
            self._lines.append((number, line))
            while len(self._lines) > self._capacity and (oldest := self._pop()) is not None:
                self._drop(*oldest, self._reason)

    def clear(self, reason: str) -> int:
        cleared = 0
        for _ in range(len(self._lines)):
            if (line := self._pop()) is None:
                break
            self._drop(*line, reason)
            cleared += 1
        return cleared

    def _drop(self, number: int, line: bytes, reason: str) -> None:
        self.dropped.append(Dropped(number, number, reason, owner_of(line)[1]))

    def take(self) -> tuple[int, bytes] | None:
        """Take the oldest line out, with its number; whoever does it looks after it."""
        return self._pop()

    def give_back(self, batch: Batch) -> None:
        """Take *batch* back, which was read and will not be stored."""
        for line in reversed(batch.lines.splitlines(keepends=True)):
            self._lines.appendleft((number_of(line), line))
        self._in_flight -= batch.count

    def _pop(self) -> tuple[int, bytes] | None:
        try:
            return self._lines.popleft()
        except IndexError:
            return None

    def read(self, limit: int, most: int) -> Batch | None:
        lines: list[bytes] = []
        size = 0
        while size < limit and len(lines) < most:
            # Counted first: another thread that asks for the position meanwhile must not miss the
            # line between queue and batch.
            self._in_flight += 1
            line = self._pop()
            if line is None:
                self._in_flight -= 1
                break
            lines.append(line[1])
            size += len(line[1])
        return Batch(b"".join(lines), len(lines), self) if lines else None

    def ack(self, batch: Batch, confirmed: int = 0) -> None:
        self._acked += batch.count
        self._in_flight -= batch.count
        if confirmed:
            self.confirm(confirmed)

    def position(self) -> int:
        return self._acked + self._in_flight + len(self._lines)

    def reached(self, position: int) -> bool:
        # What was dropped meanwhile is never acknowledged: emptiness will do as well.
        return self._acked >= position or not (self._lines or self._in_flight)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
