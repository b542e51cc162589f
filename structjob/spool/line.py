"""The byte format of one record of the spool; no other module knows it.

A record is a line of JSON without spaces between a key and its colon. It ends with its number and a
checksum of everything before it. These are an event, whose columns follow its attributes, and a
change of state::

    {"ts":"2026-01-31 12:00:00.000001","level":"info","message":"a","attrs":{},…,"seq":7,"crc":"…"}
    {"kind":"job","row":{"id":"…",…},"state_seq":4,"crc":"0a1b2c3d"}
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal
from zlib import crc32

import msgspec

_OPENING = re.compile(rb'\{"(?:ts|kind)":"')
_CRC = re.compile(rb',"crc":"([0-9a-f]{8})"}')
_SUBJECT = re.compile(r'\{"kind":"(?:job|step)","row":\{"id":"[^"]{1,255}"')
_NUMBER = re.compile(rb',"(?:state_)?seq":(\d+),"crc":"[0-9a-f]{8}"}\n?$')

OPENING, ATTRS = b'{"ts":"', b',"attrs":'
NUMBER, SEAL = b',"seq":%d', b',"crc":"%08x"}\n'
"""The fixed parts of an event's line.

The two functions that each event passes join them themselves, in the same way as `event_body` and
`seal_event`: a call takes 1 % of the time of a log call.
"""

_join = b"".join
_encode = msgspec.json.Encoder().encode


class EventLine(msgspec.Struct):
    """An event as stored in its line: the columns of ``structjob_logs`` that the process knows.

    A field that is absent from the line has its default, which is also the default of the column.
    Only `provisional` is not a column: it marks events of an attempt that has no number yet, see
    `structjob.store.provisional`.
    """

    ts: str
    level: str
    message: str
    attrs: dict[str, Any]
    seq: int
    kind: str = "log"
    job_id: str | None = None
    attempt: int | None = None
    step_id: str | None = None
    operation: str | None = None
    step: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    stream: str = "system"
    logger: str | None = None
    category: str = "system"
    project: str | None = None
    fingerprint: str | None = None
    provisional: str | None = None

    @property
    def type(self) -> Literal["system", "job", "task"]:
        """The column ``type``, which is derived from the ids."""
        if self.job_id is None:
            return "system"
        return "job" if self.step_id is None else "task"


EVENT_COLUMNS = tuple(name for name in EventLine.__struct_fields__ if name != "provisional")
"""The columns of ``structjob_logs`` that a line can hold."""

EVENT_DEFAULTS: dict[str, str] = {
    field.name: field.default
    for field in msgspec.structs.fields(EventLine)
    if type(field.default) is str
}
"""The value of a column that is absent from the line, if it is not null."""


class StateLine(msgspec.Struct):
    """A change of state as stored in its line: one whole row of the table of its kind.

    A column that is absent from the row is null.
    """

    kind: str
    row: dict[str, msgspec.Raw]
    state_seq: int


read_event = msgspec.json.Decoder(EventLine).decode
"""Return the `EventLine` in a line. Raise `msgspec.MsgspecError` if the line is invalid."""

read_state = msgspec.json.Decoder(StateLine).decode
"""Return the `StateLine` in a line. Raise `msgspec.MsgspecError` if the line is invalid."""


def level_field(level: str) -> bytes:
    """Return the *level* argument for `event_body`; computed once for each level."""
    return b'","level":"%b","message":' % level.encode()


def event_body(
    second: bytes, micros: bytes, level: bytes, message: bytes, attrs: bytes, columns: bytes
) -> bytes:
    """Return an event's line up to its number.

    Args:
        second: The time in UTC up to the second: ``2026-01-31 12:00:00.``
        micros: The microseconds, six digits.
        level: See `level_field`.
        message: JSON string.
        attrs: JSON object.
        columns: Further fields, ``,"key":value…``, or empty.
    """
    # `join` takes half the time of `%`
    return _join((OPENING, second, micros, level, message, ATTRS, attrs, columns))


def event_bodies(
    second: bytes,
    micros: bytes,
    level: bytes,
    messages: Iterable[bytes],
    attrs: bytes,
    columns: bytes,
) -> list[bytes]:
    """Return the `event_body` of each of the *messages* of events that differ in nothing else."""
    before = _join((OPENING, second, micros, level))
    after = _join((ATTRS, attrs, columns))
    return [before + message + after for message in messages]


Row = msgspec.Struct | dict[str, Any]
"""The columns of a changed row: a dict, or a structure that leaves out what is null."""


def state_body(kind: str, row: Row) -> bytes:
    """Return the line of a change of state up to its number.

    Args:
        kind: The table: ``job``, ``step`` or ``gap``.
        row: The row. Most columns of most rows are null, so these are left out.
    """
    if isinstance(row, dict):
        row = {name: value for name, value in row.items() if value is not None}
    return _join((b'{"kind":"', kind.encode(), b'","row":', _encode(row)))


def seal_event(body: bytes, number: int) -> bytes:
    """Return an event's whole line, given its `event_body` and its ``seq``."""
    body += NUMBER % number
    return body + SEAL % crc32(body)


def seal_state(body: bytes, number: int) -> bytes:
    """Return the whole line of a change of state, given its `state_body` and its ``state_seq``."""
    return seal(body, b',"state_seq":%d' % number)


def seal(body: bytes, number: bytes) -> bytes:
    """Return the line for *body* (JSON without its closing brace), with *number* and a checksum.

    *number* is the complete field: ``,"key":value``.
    """
    line = body + number
    return line + SEAL % crc32(line)


def verify_line(line: bytes) -> bool:
    """Return whether *line*, with or without its newline, is complete and unchanged."""
    if line[-1:] == b"\n":
        line = line[:-1]
    # computing the checksum again is the fastest way
    return line[-18:] == b',"crc":"%08x"}' % crc32(line[:-18])


def number_of(line: bytes) -> int:
    """Return the number of a *line*, or 0 if it has no number."""
    match = _NUMBER.search(line, max(0, len(line) - 64))
    return int(match[1]) if match else 0


def time_of(line: bytes) -> datetime | None:
    """Return when the event of a *line* was logged; ``None`` if it is not an event's line."""
    if not line.startswith(OPENING):
        return None
    text, _, _ = line[len(OPENING) :].partition(b'"')
    return datetime.fromisoformat(f"{text.decode()}+00:00")


def subject_of(line: str) -> str:
    """Return the start of the *line* of a change of state.

    It contains the kind and the id of the job or step.

    Return an empty string if the line begins differently.
    """
    match = _SUBJECT.match(line)
    return match[0] if match else ""


class _Owned(msgspec.Struct):
    seq: int = 0
    job_id: str | None = None


_read_owned = msgspec.json.Decoder(_Owned).decode


def owner_of(line: bytes) -> tuple[int, str | None]:
    """Return the number of an event's *line* (0 if it has no number) and the id of its job.

    The line may be one that the database refuses.
    """
    try:
        found = _read_owned(line)
    except msgspec.MsgspecError:
        return number_of(line), None
    return found.seq, found.job_id


def job_of(body: bytes) -> str | None:
    """Return the id of the job of an event, given its `event_body`."""
    return _read_owned(body + b"}").job_id


def marked_late(body: bytes) -> bytes:
    """Return an event's *body* with the attribute ``late``: it was recorded after its time."""
    fields = _read_fields(body + b"}")
    attrs = {"late": True, **_read_fields(fields["attrs"])}
    return _encode({**fields, "attrs": attrs})[:-1]


def field_mark(name: str) -> bytes:
    """Return bytes that a line contains if it has the field *name*.

    A line can also contain them in the value of a text.
    """
    return b'"%b":' % name.encode()


_PROJECT = field_mark("project")
_JOB, _PROVISIONAL = (b"," + field_mark(name) + b'"' for name in ("job_id", "provisional"))


def names_job(body: bytes) -> bool:
    """Return whether an event seems to belong to a job, by a quick search in its body."""
    return _JOB in body


def with_project(body: bytes, project: str) -> bytes:
    """Return an event's *body* with its column ``project``, unless it already has one."""
    if _PROJECT in body and "project" in _read_fields(body + b"}"):  # otherwise it is an attribute
        return body
    return b'%b,"project":%b' % (body, _encode(project))


def is_provisional(lines: bytes) -> bool:
    """Return whether an event in *lines* may have the mark ``provisional``; see `EventLine`."""
    return _PROVISIONAL in lines


_read_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def with_attempt(line: bytes, attempt: int) -> bytes:
    """Return an event's *line* with another attempt number, for use in a statement.

    The result has no newline, and keeps its former checksum.
    """
    return _encode({**_read_fields(line), "attempt": attempt})


def rescue(line: bytes) -> list[bytes]:
    """Return the complete records in a damaged *line*.

    There are two if the newline between them was damaged.
    """
    found: list[bytes] = []
    for opening in _OPENING.finditer(line):
        for closing in _CRC.finditer(line, opening.end()):
            record = line[opening.start() : closing.end()]
            if verify_line(record):
                found.append(record + b"\n")
                break
    return found
