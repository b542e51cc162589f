"""How far a tail has come: a number for each session, and what follows from the rows that were read
beyond it.

Nothing here asks the database; see `structjob.queries.tail`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs

from structjob.exceptions import InvalidFilter
from structjob.models import EncodedEvent, EventRecord, Gap
from structjob.store.types import moment

MISSING = "missing"
"""The reason of a `Gap` that nothing explains yet."""

_PRESUMED = frozenset({MISSING, "in_flight", "damaged"})
"""Reasons that may turn out wrong: a process that was taken for dead may still deliver."""

ABSENT_MOST = 100
"""Runs of missing numbers of one session that are still looked out for, at most; the oldest are let
go.
"""

Range = tuple[int, int]
"""The first and the last number of a run, both included."""


class Number(msgspec.Struct, frozen=True, gc=False):
    """A stored event as far as its number is concerned, and whether it matches the filter.

    With *absent*, the last number of a session that has ended, which is not stored.
    """

    id: int
    seq: int
    ts: datetime
    matches: bool
    absent: bool = False


class Item(msgspec.Struct, frozen=True):
    """The next thing to return, and how far the position is once it is returned.

    Args:
        upto: All numbers of the session up to this one are settled.
        ts: What sorts it among those of other sessions: a moment; of history, as the driver has it.
        id: Of the row to return.
        event: What is made of the row, where that has been read already.
        gap: To return in place of a row.
        history: Whether it belongs to what was there before the tail began.
        late: Whether it is one of those that were missing.
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
    """How far a tail has come; as text, its cursor.

    Args:
        fingerprint: Of the filter.
        last: How many of the events that are stored already are wanted, the last; None: all.
        begun: Whether what is stored was told from what comes; before that, there is nothing below.
        ceiling: The time up to which history goes: of the latest event that was stored when the
            tail began.
        looked_at: When the sessions were looked at last, by the database's clock; None before the
            first time.
        sessions: Of each session that may go on, the number up to which all is settled: returned,
            left out by the filter, or missing. What is stored of any other one was there before the
            tail began, unless that session began later.
        absent: Of the numbers below that, those that are missing; should they turn up after all,
            they are returned.
        history: Behind which row what was stored before the tail began goes on; True at its
            beginning, False when it is over.
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
        """Go to behind *item*."""
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
        """Go to behind the last of *items*, which follow each other."""
        if items and items[-1].history:  # so all are, and the last one says it
            self.apply(items[-1])
            return
        for item in items:
            self.apply(item)

    def miss(self, session_id: int, missing: Range) -> None:
        """Look out for numbers that are missing."""
        ranges = self.absent.setdefault(session_id, [])
        ranges.append(missing)
        del ranges[:-ABSENT_MOST]

    def found(self, session_id: int, seq: int) -> None:
        """Look no longer out for *seq*."""
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
        """Return whether an event was stored before the tail began; the sessions in *younger* began
        later.
        """
        upto = self.sessions.get(session_id)
        if upto is None:
            return session_id not in younger
        if seq > upto:
            return False
        absent = self.absent.get(session_id)
        return absent is None or not any(first <= seq <= last for first, last in absent)

    def meets(self, older: Position, unfinished: Collection[int]) -> bool:
        """Return whether all that follows this position follows *older* too, and the reverse.

        Args:
            older: A position that was reached before this one, by a tail that began before.
            unfinished: Sessions that have ended, of which *older* has more to read.
        """
        if not (self.begun and older.begun and self.history is older.history is False):
            return False
        if self.sessions.keys() - older.sessions.keys():
            return False  # one that *older* has not seen
        for session_id, upto in older.sessions.items():
            absent = older.absent.get(session_id, [])
            if session_id not in self.sessions:
                # it ended before this one began, so that all of it was there
                if absent or session_id in unfinished:
                    return False
            elif upto != self.sessions[session_id] or absent != self.absent.get(session_id, []):
                return False
        return True

    def encoded(self) -> str:
        return base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).rstrip(b"=").decode()


def decoded(cursor: str, fingerprint: str) -> Position:
    """Return the position that *cursor* stands for.

    Raises:
        InvalidFilter: if it is none of this filter's.
    """
    wrong = "the cursor is none that a tail gave: use `tail.cursor` as it is"
    if not isinstance(cursor, str):
        raise InvalidFilter(wrong)
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = msgspec.msgpack.decode(packed, type=Position)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        raise InvalidFilter(wrong) from None
    numbers = [
        position.last or 0,
        *position.sessions,
        *position.sessions.values(),
        *position.absent,
    ]
    numbers += [number for ranges in position.absent.values() for pair in ranges for number in pair]
    # what anybody can forge must not reach a driver that refuses it
    if not all(0 <= number < 2**63 for number in numbers):
        raise InvalidFilter(wrong)
    if position.fingerprint != fingerprint:
        raise InvalidFilter(
            "the cursor belongs to a tail with another filter: repeat the filter it came from"
        )
    return position


def settle(
    session_id: int, upto: int, numbers: Sequence[Number], gaps: Sequence[Gap], give_up: int
) -> tuple[list[Item], int]:
    """Return what can be returned of a session, in the order of its numbers, and the number up to
    which all is settled then.

    It ends at a number that is neither there nor explained: a commit may come long after its
    successor's.

    Args:
        session_id: Whose they are.
        upto: The number up to which all is settled already.
        numbers: What is stored beyond that, by number.
        gaps: Explanations for what is not, by their first number.
        give_up: Numbers up to this one are waited for no longer.
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
                Item(session_id, last, number.ts, gap=Gap(session_id, first, last, reason))
            )
            upto = last
        if not number.absent and number.seq > upto:
            upto = number.seq
            if number.matches:
                items.append(Item(session_id, upto, number.ts, number.id))
    return items, upto
