"""The position of a tail: a number for each session, and the items that follow from rows read after
it.

This module runs no queries; see `structjob.queries.tail`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from structjob.exceptions import InvalidFilter
from structjob.models import EncodedEvent, EventRecord, Gap
from structjob.queries import opaque
from structjob.queries.buckets import EPOCH
from structjob.store.gaps import Range
from structjob.store.types import moment

MISSING = "missing"
"""The reason of a `Gap` that is not explained yet."""

_PRESUMED = frozenset({MISSING, "in_flight", "damaged"})
"""Reasons that may turn out to be wrong, because a process that was presumed dead may still
deliver.
"""

ABSENT_MOST = 100
"""Maximum number of ranges of missing numbers per session that are still expected. The oldest are
dropped.
"""


MAX_LAST = 1_000_000_000
"""Maximum number of stored events to return first, if not all."""


class Number(msgspec.Struct, frozen=True, gc=False):
    """The number of a stored event, and whether the event matches the filter.

    With *absent*, it is the last number of an ended session, which is not stored. With *event*, the
    whole row was read.
    """

    id: int
    seq: int
    ts: datetime
    matches: bool
    absent: bool = False
    event: EventRecord | EncodedEvent | None = None


class Item(msgspec.Struct, frozen=True, gc=False):
    """The next item to return, and the position after it.

    Args:
        upto: All numbers of the session up to this one are finished.
        ts: The time, which orders the item among those of other sessions. In history it is the
            value from the driver.
        id: The id of the row to return.
        event: The event, if the row has already been read.
        gap: The gap to return instead of a row.
        history: Whether the event was stored before the tail started.
        late: Whether the event was missing and has arrived.
    """

    session_id: int
    upto: int
    ts: Any
    id: int | None = None
    event: EventRecord | EncodedEvent | None = None
    gap: Gap | None = None
    history: bool = False
    late: bool = False


class Position(msgspec.Struct, array_like=True):
    """The position of a tail. Encoded as text, it is the tail's cursor.

    Args:
        fingerprint: The fingerprint of the filter.
        last: The number of already stored events to return, the last ones; None: all.
        begun: Whether the position at the start was recorded. Before that, the fields below are
            empty.
        ceiling: The time up to which history goes: the time of the latest event stored at the start
            of the tail.
        looked_at: The time of the last read of the sessions, by the database's clock; None before
            the first read.
        sessions: For each session that may continue, the number up to which all numbers are
            finished: returned, excluded by the filter, or missing. The events of any other session
            were stored before the tail started, unless that session started later.
        absent: The missing numbers below that. If they arrive later, they are returned.
        history: The row after which the history continues; True at its start, False when it is
            complete.
    """

    fingerprint: str
    last: int | None = None
    begun: bool = False
    ceiling: datetime | None = None
    looked_at: datetime | None = None
    sessions: dict[int, int] = msgspec.field(default_factory=dict)
    absent: dict[int, list[Range]] = msgspec.field(default_factory=dict)
    history: tuple[datetime, int] | bool = False

    def copy(self) -> Position:
        absent = {session_id: list(ranges) for session_id, ranges in self.absent.items()}
        return structs.replace(self, sessions=dict(self.sessions), absent=absent)

    def apply(self, item: Item) -> None:
        """Move to the position after *item*."""
        if item.history:
            assert item.id is not None  # noqa: S101 -- history has no gaps
            self.history = (moment(item.ts), item.id)
        elif item.late:
            self.found(item.session_id, item.upto)
        else:
            self.sessions[item.session_id] = item.upto
            if item.gap is not None and item.gap.reason in _PRESUMED:
                self.miss(item.session_id, (item.gap.first_seq, item.gap.last_seq))

    def apply_all(self, items: Sequence[Item]) -> None:
        """Move to the position after the last of consecutive *items*."""
        # then all items are history, and the last one contains the position
        if items and items[-1].history:
            self.apply(items[-1])
            return
        for item in items:
            self.apply(item)

    def miss(self, session_id: int, missing: Range) -> None:
        """Record missing numbers that are still expected."""
        ranges = self.absent.setdefault(session_id, [])
        ranges.append(missing)
        del ranges[:-ABSENT_MOST]

    def found(self, session_id: int, seq: int) -> None:
        """Remove *seq* from the missing numbers."""
        left = []
        for first, last in self.absent.get(session_id, ()):
            if first <= seq <= last:
                left += [(a, b) for a, b in ((first, seq - 1), (seq + 1, last)) if a <= b]
            else:
                left.append((first, last))
        if left:
            self.absent[session_id] = left
        else:
            self.absent.pop(session_id, None)

    def forget(self, session_id: int) -> None:
        """Forget a session that is over."""
        self.sessions.pop(session_id, None)
        self.absent.pop(session_id, None)

    def covers(self, session_id: int, seq: int, younger: Collection[int]) -> bool:
        """Return whether an event was stored before the tail started.

        The sessions in *younger* started later.
        """
        upto = self.sessions.get(session_id)
        if upto is None:
            return session_id not in younger
        if seq > upto:
            return False
        absent = self.absent.get(session_id)
        return absent is None or not any(first <= seq <= last for first, last in absent)

    def meets(self, older: Position, unfinished: Collection[int]) -> bool:
        """Return whether the same events follow this position and *older*.

        Args:
            older: A position reached before this one, by a tail that started earlier.
            unfinished: Ended sessions of which *older* has more to read.
        """
        if not (self.begun and older.begun and self.history is older.history is False):
            return False
        if self.sessions.keys() - older.sessions.keys():
            return False  # a session that *older* has not seen
        for session_id, upto in older.sessions.items():
            absent = older.absent.get(session_id, [])
            if session_id not in self.sessions:
                # it ended before this tail started, so all of its events were stored
                if absent or session_id in unfinished:
                    return False
            elif upto != self.sessions[session_id] or absent != self.absent.get(session_id, []):
                return False
        return True

    def encoded(self) -> str:
        return opaque.as_text(msgspec.msgpack.encode(self))


def decoded(cursor: str, fingerprint: str) -> Position:
    """Return the position in *cursor*.

    Raises:
        InvalidFilter: if it is not a cursor of this filter.
    """
    wrong = "this cursor does not come from a tail or a stream: pass its `cursor` as it stands"
    position = opaque.from_text(cursor, msgspec.msgpack.Decoder(Position).decode, wrong)
    numbers = [
        position.last or 0,
        *position.sessions,
        *position.sessions.values(),
        *position.absent,
    ]
    numbers += [number for ranges in position.absent.values() for pair in ranges for number in pair]
    opaque.check_numbers(numbers, wrong)
    opaque.check_times(filter(None, (position.ceiling, position.looked_at)), wrong)
    looked_at = position.looked_at
    if (
        (position.last or 0) > MAX_LAST
        or position.begun is (looked_at is None)
        or (looked_at is not None and looked_at < EPOCH)
    ):
        raise InvalidFilter(wrong)
    if position.fingerprint != fingerprint:
        raise InvalidFilter(
            "the cursor belongs to a tail with another filter: repeat the filter it came from"
        )
    return position


def advance(
    session_id: int, upto: int, numbers: Sequence[Number], gaps: Sequence[Gap], give_up: int
) -> tuple[list[Item], int]:
    """Return the items of a session that can be returned, in order, and the number reached.

    It stops at a number that is neither stored nor explained, because an event may be committed
    long after the next one.

    Args:
        session_id: The session.
        upto: The number up to which all numbers are already finished.
        numbers: The stored events after that, by number.
        gaps: The explanations of missing numbers, by their first number.
        give_up: Do not wait for missing numbers up to this one.
    """
    items: list[Item] = []
    explanations = iter(gaps)
    gap = next(explanations, None)
    for number in numbers:
        there = number.seq + number.absent
        while upto < there - 1:
            first, last = upto + 1, there - 1
            while gap is not None and gap.last_seq < first:
                gap = next(explanations, None)
            if gap is not None and gap.first_seq <= first:
                last, reason = min(last, gap.last_seq), gap.reason
            elif first <= give_up:
                last, reason = (
                    min(last, give_up, gap.first_seq - 1 if gap is not None else last),
                    MISSING,
                )
            else:
                return items, upto
            items.append(
                Item(
                    session_id,
                    last,
                    number.ts,
                    gap=Gap(session_id=session_id, first_seq=first, last_seq=last, reason=reason),
                )
            )
            upto = last
        if not number.absent and number.seq > upto:
            upto = number.seq
            if number.matches:
                items.append(Item(session_id, upto, number.ts, number.id, number.event))
    return items, upto
