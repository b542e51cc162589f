"""A feed: one session's lanes on their way to the database, and how far it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from structjob.spool.directory import SessionSpool
from structjob.spool.queue import Batch, MemoryQueue, RecordQueue
from structjob.spool.session import Session
from structjob.store.ingest import Write, Written

LINE_BYTES = 512
"""What a line of the spool takes, roughly: bounds a batch in bytes before its lines are counted."""

_EMPTY = MemoryQueue()


class Reached:
    """Which changes of state are stored: all up to a number, and some beyond it."""

    def __init__(self) -> None:
        self._up_to = 0
        self._beyond: set[int] = set()

    def add(self, numbers: Iterable[int]) -> None:
        """Note that *numbers* are stored, or will never be."""
        self._beyond.update(numbers)
        while self._up_to + 1 in self._beyond:
            self._up_to += 1
            self._beyond.discard(self._up_to)

    def __contains__(self, number: int) -> bool:
        return number <= self._up_to or number in self._beyond


@dataclass(slots=True, eq=False)
class Source:
    """The tracker's own lanes, or those of an orphan."""

    session: Session
    lanes: Callable[[], tuple[RecordQueue, RecordQueue, RecordQueue, RecordQueue]]
    spool: SessionSpool | None = None
    """An orphan's directory."""
    entered: bool = False
    """Whether the database knows the session."""
    ended: bool = False
    stored: int = 0
    in_flight: int = 0
    dead: int = 0
    states: Reached = field(default_factory=Reached)
    dropped: Counter[str] = field(default_factory=Counter)
    confirmed_before: int = 0
    """Events of an orphan that the database has confirmed before, and whose lines are gone."""

    @classmethod
    def of_orphan(cls, spool: SessionSpool) -> Source:
        """Return the feed of a directory that was taken over."""
        before = spool.tally.confirmed if spool.tally is not None else 0
        return cls(
            spool.session,
            lambda: (spool.states, _EMPTY, spool.events, _EMPTY),
            spool,
            confirmed_before=before,
        )

    @property
    def confirmed(self) -> int:
        """How many of the session's events the database has confirmed to have stored, or put among
        the dead letters.
        """
        return self.confirmed_before + self.stored + self.dead

    def over(self) -> bool:
        """Return whether its process is gone and all it wrote is stored."""
        spool = self.spool
        return spool is not None and not spool.alive and spool.events.done() and spool.states.done()

    def read(self, most: int, *, states: bool) -> tuple[Batch | None, Batch | None]:
        """Return the next changes of state, if *states* are wanted, and the next events; of each
        about *most* at most.
        """
        lanes = self.lanes()
        limit = most * LINE_BYTES
        changes = (lanes[0].read(limit, most) or lanes[1].read(limit, most)) if states else None
        try:
            events = lanes[2].read(limit, most) or lanes[3].read(limit, most)
        except Exception:
            if changes is None:
                raise
            # no descriptor is left, say; its lane will not give out again what is in hand, and the
            # next turn tells
            events = None
        if events is not None:
            self.in_flight += events.count
        return changes, events

    def as_write(self, states: Batch | None, events: Batch | None, last_seq: int) -> Write:
        """Return what the store is given of a batch."""
        return Write(
            self.session.session_id,
            events.lines if events is not None else b"",
            states.lines if states is not None else b"",
            last_seq,
        )

    def acknowledge(self, states: Batch | None, events: Batch | None, written: Written) -> None:
        """Note that a batch is stored."""
        if events is not None:
            records = events.count - written.torn
            self.stored += records - written.dead
            self.dead += written.dead
            self.in_flight -= events.count
            events.lane.ack(events, records)
        if states is not None:
            self.states.add(written.states)
            states.lane.ack(states)

    def settled(self) -> int:
        """Return how many events have been dealt with, or are in hand."""
        return self.stored + self.dead + self.in_flight + sum(self.dropped.values())


Work = tuple[Source, Batch | None, Batch | None]
"""A feed, and what was read of its changes of state and of its events."""


def waiting(lanes: Iterable[RecordQueue]) -> bool:
    """Return whether anything in *lanes* is not stored yet."""
    return any(not lane.reached(lane.position()) for lane in lanes)
