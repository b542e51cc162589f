"""Handle content that a database refuses: find the refused line and store it as a dead letter.

The batch is divided until the refused line is alone. That line goes to the dead letters with the
reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Column, Connection, Double, Integer, delete, func, insert, select

from structjob.diagnostics import diagnostics
from structjob.numeric import is_number
from structjob.spool.line import number_of, rescue, seal_state, state_body, subject_of, verify_line
from structjob.store import tables
from structjob.store.contract import StateIngest, Write, Written
from structjob.store.expressions import utc_now
from structjob.store.gaps import DEAD_LETTERED
from structjob.store.types import Exact, JSONValue, LongText, UTCDateTime
from structjob.values.bounds import OF_VALUE
from structjob.values.normalizer import normalize


def divided(write: Write) -> list[Write]:
    """Return the parts of *write* to try one by one, or an empty list if it is a single line.

    Changes of state are tried before events. Lines of one kind are divided into halves.
    """
    if write.states and write.events:
        return [Write(write.session_id, states=write.states), Write(write.session_id, write.events)]
    halves = _halves(write.states or write.events)
    if not all(halves):
        return []
    return [
        Write(write.session_id, states=half) if write.states else Write(write.session_id, half)
        for half in halves
    ]


def _halves(lines: bytes) -> tuple[bytes, bytes]:
    split = lines.split(b"\n")[:-1]
    middle = len(split) // 2
    return b"".join(line + b"\n" for line in split[:middle]), b"".join(
        line + b"\n" for line in split[middle:]
    )


def salvage(write: Write) -> tuple[Written, Write] | None:
    """Return the counts and the intact records of a broken line; ``None`` if the line is whole.

    *write* is a single line. The caller stores the records again. A broken line is not what we
    wrote: the disk took only a part of a record, and another record may follow in the same line.
    """
    line = write.states or write.events
    if verify_line(line):
        return None
    whole = b"".join(rescue(line))
    found = Write(write.session_id, b"", whole) if write.states else Write(write.session_id, whole)
    return Written(torn=1 - whole.count(b"\n")), found


def reduced(write: Write) -> Iterator[Write]:
    """Yield a single change of state that was refused, with less and less content.

    First its values are made to fit the columns. Then its large JSON is left out, and then its
    texts and all of its JSON. So a job's final status is stored, whatever else is wrong with its
    row. Nothing is yielded if nothing can be left out.
    """
    try:
        state = msgspec.json.decode(write.states)
        kind, number, row = state["kind"], state["state_seq"], state["row"]
        table = _TABLES.get(kind)
        if table is None or not isinstance(row, dict):
            return
        row = {column.name: None for column in table.c if not column.nullable} | row
        columns = [
            (name, table.c[name])
            for name in row
            if name in table.c and name not in ("id", "job_id")
        ]
    except (msgspec.MsgspecError, KeyError, TypeError):  # an event, or not a change of state
        return
    fitting = {**row, **{name: _fitting(column, row[name]) for name, column in columns}}
    left_out = {
        name: _left_out(column)
        for name, column in columns
        if _may_be_left_out(column) and row[name] is not None
    }
    diagnostics.warning(
        "the database refuses a value of %s %s: it is stored without what does not fit; structjob_dead_letters has it, and the reason",
        kind, row.get("id"),
    )  # fmt: skip
    large = {
        name: value
        for name, value in left_out.items()
        if isinstance(value, dict) and len(msgspec.json.encode(row[name])) > _LARGE
    }
    former = row
    for smaller in (fitting, {**fitting, **large}, {**fitting, **left_out}):
        if smaller != former:
            former = smaller
            yield Write(write.session_id, states=seal_state(state_body(kind, smaller), number))


_TABLES = {"job": tables.jobs, "step": tables.steps}
_LARGE = 16 * 1024
"""Size of a JSON value, in bytes, above which it may be too large for a database."""
_LEFT_OUT = "[left out: the database refused the record]"
"""ASCII, so that every database accepts it."""
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")


def _fitting(column: Column[Any], value: Any) -> Any:
    """Return *value* as *column* can store it; a value that cannot be converted is left out."""
    kind = column.type
    if isinstance(kind, JSONValue):
        return value
    if value is None:
        return "" if isinstance(kind, Exact) and not column.nullable else None
    if isinstance(kind, UTCDateTime):
        return value if isinstance(value, str) and _MOMENT.fullmatch(value) else None
    if isinstance(kind, (Integer, Double)):  # includes `BigInteger`
        least = None if column.nullable else 0
        if not is_number(value):
            return least
        most = (
            sys.float_info.max
            if isinstance(kind, Double)
            else 2**63 - 1
            if isinstance(kind, BigInteger)
            else 2**31 - 1
        )
        fits = abs(value) <= most and (isinstance(kind, Double) or isinstance(value, int))
        return value if fits else least
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = text.replace("\x00", "␀")
    return text[: kind.length] if isinstance(kind, Exact) else text


def _may_be_left_out(column: Column[Any]) -> bool:
    return isinstance(column.type, (JSONValue, LongText)) or (
        isinstance(column.type, Exact) and bool(column.nullable)
    )


def _left_out(column: Column[Any]) -> Any:
    return (
        None
        if isinstance(column.type, Exact)
        else {"left_out": _LEFT_OUT}
        if isinstance(column.type, JSONValue)
        else _LEFT_OUT
    )


def store_dead_letter(
    connection: Connection,
    ingest: StateIngest,
    write: Write,
    error: str,
    *,
    ascii_only: bool = False,
) -> Written:
    """Store the single line of *write* as a dead letter, with the *error* that it causes.

    If the same line is read again, it stays one row. With *ascii_only*, other characters are
    escaped, so that every database can store it.
    """
    letters = tables.dead_letters
    payload = (
        (write.states or write.events).decode("utf-8", "backslashreplace").replace("\x00", "␀")
    )
    if ascii_only:
        payload, error = (
            given.encode("ascii", "backslashreplace").decode() for given in (payload, error)
        )
    payload = normalize(payload, OF_VALUE.limits[0]._replace(string=ingest.most))
    number = number_of(write.states or write.events)
    # Events are identified by their number, if it is valid. Changes of state have a different
    # sequence of numbers.
    numbered = bool(write.events) and 0 < number < 1 << 63
    seq = number if numbered else None
    same = (
        letters.c.seq == seq
        if numbered
        else letters.c.seq.is_(None) & (letters.c.payload == payload)
    )
    if not connection.execute(
        select(letters.c.id).where(letters.c.session_id == write.session_id, same).limit(1)
    ).first():
        if write.states and len(payload) > _LARGE:
            _forget_former(connection, write.session_id, payload)
        connection.execute(
            insert(letters).values(
                session_id=write.session_id,
                seq=seq,
                reason="refused",
                error=error.replace("\x00", "␀"),
                payload=payload,
                ts=utc_now(),
            )
        )
    if write.events and not numbered:
        return Written(torn=1)
    if write.events:
        gap = {
            "session_id": write.session_id,
            "first_seq": number,
            "last_seq": number,
            "reason": DEAD_LETTERED,
        }
        ingest.upsert(connection, "structjob_gaps", msgspec.json.encode([gap]))
        return Written(dead=1, refused=1)
    return Written(states=[number], refused=1)


def _forget_former(connection: Connection, session_id: int, payload: str) -> None:
    """Delete the earlier dead letters of the same job or step.

    Without this, four large ones a second would fill a disk.
    """
    if not (subject := subject_of(payload)):
        return
    letters = tables.dead_letters
    begins = func.substr(letters.c.payload, 1, len(subject))
    found = select(letters.c.id, begins).where(
        letters.c.session_id == session_id, letters.c.seq.is_(None), begins == subject
    )
    # a database may treat "j" and "J" as equal
    former = [id_ for id_, text in connection.execute(found) if text == subject]
    if former:
        connection.execute(delete(letters).where(letters.c.id.in_(former)))
