"""Record pruned numbers in ``structjob_gaps`` as ranges.

A range is extended when adjacent numbers are pruned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, and_, case, delete, insert, or_, select

from structjob.store.portions import portions
from structjob.store.tables import gaps

PRUNED = "pruned"
"""The ``reason`` of numbers whose events were deleted after their retention."""

DEAD_LETTERED = "dead_lettered"
"""The ``reason`` of numbers whose events the database refused; these events are dead letters."""

TAKEN = case(
    (gaps.c.reason.in_((PRUNED, DEAD_LETTERED)), gaps.c.last_seq - gaps.c.first_seq + 1), else_=0
)
"""The number of confirmed events that a row accounts for."""

_SESSIONS_AT_ONCE = 100

Range = tuple[int, int]
"""The first and the last number of a run, both included."""


def put_down(connection: Connection, numbers: Iterable[tuple[int, int]]) -> None:
    """Record that events are gone; *numbers* are pairs of session id and event number."""
    by_session: dict[int, list[int]] = defaultdict(list)
    for session_id, seq in numbers:
        by_session[session_id].append(seq)
    for some in portions(sorted(by_session), _SESSIONS_AT_ONCE):
        _put_down(
            connection,
            {
                session_id: merged((seq, seq) for seq in by_session[session_id])
                for session_id in some
            },
        )


def _put_down(connection: Connection, found: dict[int, list[Range]]) -> None:
    beside: dict[int, list[Range]] = defaultdict(list)
    taken: dict[int, dict[int, int]] = defaultdict(dict)
    for row in connection.execute(_neighbours(found)).mappings():
        if row["reason"] == PRUNED:
            beside[row["session_id"]].append((row["first_seq"], row["last_seq"]))
        else:
            taken[row["session_id"]][row["first_seq"]] = row["last_seq"]
    new: list[dict[str, object]] = []
    old: dict[int, list[int]] = {}
    for session_id, runs in found.items():
        old[session_id] = [first for first, _ in beside[session_id]]
        for first, last in merged([*beside[session_id], *runs]):
            # A number may already be explained by another reason, although its event came later. A
            # key may exist only once.
            at = first
            while at <= last and at in taken[session_id]:
                at = taken[session_id][at] + 1
            if at <= last:
                new.append(
                    {"session_id": session_id, "first_seq": at, "last_seq": last, "reason": PRUNED}
                )
    if any(old.values()):
        absorbed = (
            and_(gaps.c.session_id == number, gaps.c.first_seq.in_(several))
            for number, several in old.items()
            if several
        )
        connection.execute(delete(gaps).where(or_(*absorbed)))
    if new:
        connection.execute(insert(gaps), new)


def _neighbours(found: dict[int, list[Range]]) -> Select[Any]:
    """Return the query for the rows that begin in a range or directly after it, or end directly
    before it.
    """
    conditions = []
    for session_id, runs in found.items():
        its = gaps.c.session_id == session_id
        begins = {first for first, _ in runs} | {last + 1 for _, last in runs}
        conditions += [
            and_(its, gaps.c.first_seq.in_(sorted(begins))),
            and_(its, gaps.c.last_seq.in_([first - 1 for first, _ in runs])),
            *(
                and_(its, gaps.c.first_seq.between(first, last))
                for first, last in runs
                if first < last
            ),
        ]
    return select(gaps.c.session_id, gaps.c.first_seq, gaps.c.last_seq, gaps.c.reason).where(
        or_(*conditions)
    )


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return *ranges* with overlapping and adjacent ranges merged."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
