"""What a database refuses for its content: the batch is divided until the culprit stands alone, and that is put aside with the reason."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, insert, select

from structjob.line import number_of, rescue, verify_line
from structjob.store import tables
from structjob.store.expressions import utc_now
from structjob.store.gaps import DEAD_LETTERED
from structjob.store.ingest import Ingest, Write, Written


def divided(write: Write) -> list[Write]:
    """Return the parts to try one by one, none where *write* is a single line: changes of state first, then halves."""
    if write.states and write.events:
        return [Write(write.session_id, states=write.states), Write(write.session_id, write.events)]
    halves = _halves(write.states or write.events)
    if not all(halves):
        return []
    return [Write(write.session_id, states=half) if write.states else Write(write.session_id, half) for half in halves]


def _halves(lines: bytes) -> tuple[bytes, bytes]:
    split = lines.split(b"\n")[:-1]
    middle = len(split) // 2
    return b"".join(line + b"\n" for line in split[:middle]), b"".join(line + b"\n" for line in split[middle:])


def salvage(write: Write) -> tuple[Written, Write] | None:
    """Return what is to be counted of a single line that is not whole, and the records in it to try anew; None if it is whole.

    A broken line is not what we wrote: the disk took a part of a record only, and perhaps another one follows it in the same line.
    """
    line = write.states or write.events
    if verify_line(line):
        return None
    whole = b"".join(rescue(line))
    found = Write(write.session_id, b"", whole) if write.states else Write(write.session_id, whole)
    return Written(torn=1 - whole.count(b"\n")), found


def put_aside(connection: Connection, ingest: Ingest, write: Write, error: str, *, ascii_only: bool = False) -> Written:
    """Put the single line of *write* among the dead letters, with the *error* it causes.

    Whoever reads the line once more puts it aside once more: it stays one row. With *ascii_only*, other characters are escaped: there is no
    database that cannot store it.
    """
    letters = tables.dead_letters
    payload = (write.states or write.events).decode("utf-8", "backslashreplace").replace("\x00", "␀")
    if ascii_only:
        payload, error = (given.encode("ascii", "backslashreplace").decode() for given in (payload, error))
    number = number_of(write.states or write.events)
    # Events are known by their number, if it is one; changes of state have another row of numbers.
    numbered = bool(write.events) and 0 < number < 1 << 63
    seq = number if numbered else None
    same = letters.c.seq == seq if numbered else letters.c.seq.is_(None) & (letters.c.payload == payload)
    if not connection.execute(select(letters.c.id).where(letters.c.session_id == write.session_id, same).limit(1)).first():
        connection.execute(
            insert(letters).values(
                session_id=write.session_id, seq=seq, reason="refused", error=error.replace("\x00", "␀"), payload=payload, ts=utc_now()
            )
        )
    if write.events and not numbered:
        return Written(torn=1)
    if write.events:
        gap = {"session_id": write.session_id, "first_seq": number, "last_seq": number, "reason": DEAD_LETTERED}
        ingest.upsert(connection, "structjob_gaps", msgspec.json.encode([gap]))
        return Written(dead=1)
    return Written(states=[number])
