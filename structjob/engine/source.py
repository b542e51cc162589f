"""A source: one session's queues on their way to the database, and the progress of their
delivery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from structjob.diagnostics import diagnostics
from structjob.spool.directory import SessionSpool
from structjob.spool.queue import Batch, MemoryQueue, RecordQueue
from structjob.spool.session import Session
from structjob.store.contract import Write, Written
from structjob.text.wording import count_of

LINE_BYTES = 512
"""Approximate bytes of a spool line; limits a batch in bytes before its lines are counted."""

_EMPTY = MemoryQueue()


class Reached:
    """The changes of state that are stored: all up to a number, and some beyond it."""

    def __init__(self) -> None:
        self._up_to = 0
        self._beyond: set[int] = set()

    def add(self, numbers: Iterable[int]) -> None:
        """Add *numbers*, which are stored or will never be stored."""
        self._beyond.update(numbers)
        while self._up_to + 1 in self._beyond:
            self._up_to += 1
            self._beyond.discard(self._up_to)

    def __contains__(self, number: int) -> bool:
        return number <= self._up_to or number in self._beyond


@dataclass(slots=True, eq=False)
class Source:
    """The queues of one session: the tracker's own, or those of an `AdoptedSource`."""

    session: Session
    queues: Callable[[], tuple[RecordQueue, RecordQueue, RecordQueue, RecordQueue]]
    entered: bool = False
    """Whether the database knows the session."""
    ended: bool = False
    stored: int = 0
    in_flight: int = 0
    dead: int = 0
    refused: int = 0
    states: Reached = field(default_factory=Reached)
    dropped: Counter[str] = field(default_factory=Counter)
    given: Callable[[], int] = int
    """Returns how many numbers its session has given out; 0 for an adopted spool, of which the end
    of the session says it.
    """

    @property
    def confirmed(self) -> int:
        """How many of the session's events the database has confirmed as stored or as dead
        letters.
        """
        return self.stored + self.dead

    def read(self, most: int, *, states: bool) -> tuple[Batch | None, Batch | None]:
        """Return the next changes of state (only with *states*) and the next events.

        Read about *most* of each at most.
        """
        queues = self.queues()
        limit = most * LINE_BYTES
        changes = (queues[0].read(limit, most) or queues[1].read(limit, most)) if states else None
        try:
            events = queues[2].read(limit, most) or queues[3].read(limit, most)
        except Exception:
            if changes is None:
                raise
            # For example no free file descriptor. The queue will not return again what was already
            # read, and the next turn reports the error.
            events = None
        if events is not None:
            self.in_flight += events.count
        return changes, events

    def as_write(self, states: Batch | None, events: Batch | None) -> Write:
        """Return the write for the store that a batch makes."""
        return Write(
            self.session.session_id,
            events.lines if events is not None else b"",
            states.lines if states is not None else b"",
            self.given(),
        )

    def acknowledge(self, states: Batch | None, events: Batch | None, written: Written) -> None:
        """Record that a batch is stored."""
        if written.refused and not self.refused:
            diagnostics.warning(
                "the database refuses %s of session %s: %s in structjob_dead_letters, with the reason; `structjob doctor` "
                "counts them, and further ones are not reported here",
                count_of(written.refused, "record"),
                self.session.session_id,
                "it is" if written.refused == 1 else "they are",
            )
        self.refused += written.refused
        if events is not None:
            records = events.count - written.torn
            self.stored += records - written.dead
            self.dead += written.dead
            self.in_flight -= events.count
            events.queue.ack(events, records)
        if states is not None:
            self.states.add(written.states)
            states.queue.ack(states)

    def accounted(self) -> int:
        """Return how many events are stored, dead, dropped or held by a writer."""
        return self.stored + self.dead + self.in_flight + sum(self.dropped.values())


class AdoptedSource(Source):
    """The queues of an adopted *spool*."""

    def __init__(self, spool: SessionSpool) -> None:
        super().__init__(spool.session, lambda: (spool.states, _EMPTY, spool.events, _EMPTY))
        self.spool = spool
        # What the database had confirmed before, and whose lines are deleted.
        self._confirmed_before = spool.tally.confirmed if spool.tally is not None else 0

    @property
    def confirmed(self) -> int:
        return self._confirmed_before + super().confirmed

    def over(self) -> bool:
        """Return whether its process is gone and all that it wrote is stored."""
        spool = self.spool
        return not spool.alive and spool.events.done() and spool.states.done()


Work = tuple[Source, Batch | None, Batch | None]
"""A source, and the batches of its changes of state and of its events."""


def waiting(queues: Iterable[RecordQueue]) -> bool:
    """Return whether *queues* hold anything that is not stored yet."""
    return any(not queue.reached(queue.position()) for queue in queues)
