"""The interface of a queue of records, and its form in memory.

The queue on disk is in `structjob.spool.disk`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from structjob.machine.loops import running_loop
from structjob.spool.dropped import Dropped
from structjob.spool.line import number_of, owner_of

Overflow = Literal["drop_oldest", "drop_newest", "block"]
OVERFLOW: tuple[Overflow, ...] = ("drop_oldest", "drop_newest", "block")

BLOCK_POLL = 0.002
"""Seconds between two checks of a thread that waits for room."""


@dataclass(slots=True, eq=False)
class Batch:
    """Lines on their way to the database.

    Attributes:
        lines: JSON lines, each with its newline.
        count: Number of lines; 0 if all were damaged.
        queue: The queue that they come from; call its `RecordQueue.ack` when they are stored.
        segment: Number of the segment that they come from.
        start: Where they begin in it, in bytes.
        end: Where they end in it, in bytes.
    """

    lines: bytes
    count: int
    queue: RecordQueue
    segment: int = 0
    start: int = 0
    end: int = 0


class RecordQueue(Protocol):
    """A queue of records in the order in which they were written."""

    dropped: deque[Dropped]
    """Dropped events. The code that reports them removes them from here."""
    closed: bool
    """Whether threads must stop waiting for room."""
    overflow: Overflow
    """What happens to lines for which there is no room."""
    room_comes: Callable[[], bool]
    """Returns whether a caller that waits can get room later."""

    def append(self, line: bytes, number: int) -> None:
        """Take one line; on disk it survives ``kill -9`` when this returns.

        Raises:
            OSError: if it cannot be written.
        """

    def append_all(self, lines: list[bytes]) -> int:
        """Take *lines* with one ``write()``; return how many of them are in the queue.

        Append the others singly: the queue is full, or the disk took only a part of them.
        """

    def read(self, limit: int, most: int) -> Batch | None:
        """Return the next lines, or ``None`` if no line waits.

        At most *limit* bytes (or a single longer line) and *most* lines are returned.
        """

    def filled(self) -> float:
        """Return the used share of its room, 0–1; 0 if there is no limit."""

    def ack(self, batch: Batch, confirmed: int = 0) -> None:
        """Release *batch*, which is stored or dropped.

        The database has *confirmed* that many events.
        """

    def clear(self, reason: str) -> int:
        """Drop what waits and was not read yet; return the number of records."""

    def position(self) -> Any:
        """Return where the queue ends now; pass it to `reached` later."""

    def reached(self, position: Any) -> bool:
        """Return whether everything before *position* is stored or dropped."""

    def sync(self) -> None:
        """Sync what was written, so that it survives a power failure."""

    def close(self) -> None:
        """Close the files; what waits stays on disk."""


def may_block() -> bool:
    """Return whether the caller may be blocked: never inside a running loop."""
    return running_loop() is None


def _ignore(count: int) -> None:
    pass


class MemoryQueue:
    """A queue in memory.

    It is used for in-memory databases, when the spool is switched off, and while the disk refuses
    writes.

    Args:
        capacity: Maximum number of lines; ``None`` (the default) means no limit.
        overflow: What happens beyond that: the oldest is dropped, the newest is dropped, or a
            thread that does not run the loop waits. Default: ``drop_oldest``.
        reason: The reason under which dropped events are counted.
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
        """Called with the number of its events that the database has confirmed."""
        self._capacity = float("inf") if capacity is None else capacity
        self.overflow = overflow
        self._reason = reason
        self._lines: deque[tuple[int, bytes]] = deque()
        self._in_flight = 0
        self._acked = 0

    def filled(self) -> float:
        return len(self) / self._capacity

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: bytes, number: int) -> None:
        # Each of these is one atomic operation of a deque: interrupting code sees it done or not
        # done.
        if len(self._lines) < self._capacity:
            self._lines.append((number, line))
        elif self.overflow == "drop_newest" or (self.overflow == "block" and not self.room_comes()):
            self._drop(number, line, self._reason)
        else:
            while (
                self.overflow == "block"
                and len(self._lines) >= self._capacity
                and not self.closed
                and self.room_comes()
            ):
                time.sleep(BLOCK_POLL)
            self._lines.append((number, line))
            while len(self._lines) > self._capacity and (oldest := self.take()) is not None:
                self._drop(*oldest, self._reason)

    def append_all(self, lines: list[bytes]) -> int:
        return 0

    def clear(self, reason: str) -> int:
        cleared = 0
        for _ in range(len(self._lines)):
            if (line := self.take()) is None:
                break
            self._drop(*line, reason)
            cleared += 1
        return cleared

    def _drop(self, number: int, line: bytes, reason: str) -> None:
        self.dropped.append(Dropped(number, number, reason, owner_of(line)[1]))

    def take(self) -> tuple[int, bytes] | None:
        """Remove the oldest line, for which the caller is then responsible, and return its number
        and itself; None if the queue is empty.
        """
        try:
            return self._lines.popleft()
        except IndexError:
            return None

    def move_to(self, queue: RecordQueue) -> bool:
        """Move the lines to *queue*; return whether the disk took all of them."""
        while (kept := self.take()) is not None:
            try:
                queue.append(kept[1], kept[0])
            except OSError:
                self.append(kept[1], kept[0])
                return False
        return True

    def give_back(self, batch: Batch) -> None:
        """Put *batch* back, which was read and will not be stored."""
        for line in reversed(batch.lines.splitlines(keepends=True)):
            self._lines.appendleft((number_of(line), line))
        self._in_flight -= batch.count

    def read(self, limit: int, most: int) -> Batch | None:
        lines: list[bytes] = []
        size = 0
        while size < limit and len(lines) < most:
            # Counted first: another thread that calls `position` meanwhile must not miss the line
            # between queue and batch.
            self._in_flight += 1
            line = self.take()
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
        # Lines that were dropped meanwhile are never acknowledged, so an empty queue also counts as
        # reached.
        return self._acked >= position or not (self._lines or self._in_flight)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True
