"""Rows of ``structjob_logs`` as JSON, and as the records that reads return.

The columns are fetched as the driver returns them, without a Python function for each value. A row
becomes JSON with its attributes inserted as stored, and a record is decoded from this JSON. This is
three times as fast as converting each value and calling the record's constructor.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import msgspec
import sqlalchemy
from sqlalchemy import ColumnElement, String, type_coerce

from structjob.models import EncodedEvent, EventRecord
from structjob.queries.rows import Row
from structjob.store.expressions import Native
from structjob.store.tables import logs
from structjob.store.types import JSONValue, UTCDateTime, moment


class stored_json(Native[str]):  # noqa: N801  # reads like an SQL function
    """A JSON column as text, which drivers return unchanged."""

    type = String()
    sqlite = mysql = "{0}"
    postgresql = "CAST({0} AS TEXT)"


def _plain(name: str) -> ColumnElement[Any]:
    column = logs.c[name]
    if isinstance(column.type, JSONValue):
        return stored_json(column).label(name)
    if isinstance(column.type, UTCDateTime):
        return type_coerce(column, String()).label(name)
    return column


_NAMES = tuple(field.name for field in fields(EventRecord))
COLUMNS = tuple(_plain(name) for name in _NAMES)
"""The columns to select for `line` and `record_of`."""

Line: Any = msgspec.defstruct("Line", [(name, object) for name in _NAMES], gc=False)
"""A row of `COLUMNS`, with the values as the driver returns them."""

_OF_LINE = slice(len(_NAMES))
_values_of: Any = sqlalchemy.Row.__getitem__
"""Reads values by position from a mapping, too, as both have the same base. By name, it takes three
times as long.
"""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(EventRecord).decode
_validated = msgspec.json.Decoder(msgspec.Raw).decode


def line(row: Row) -> Any:
    """Return a row that begins with `COLUMNS` as a `Line`."""
    return Line(*_values_of(row, _OF_LINE))


def encoded(found: Any) -> EncodedEvent:
    """Return a `Line` as JSON. The `Line` cannot be used again."""
    return EncodedEvent(found.session_id, found.seq, found.level, _json(found))


def record(found: Any) -> EventRecord:
    """Return a `Line` as a record. The `Line` cannot be used again."""
    times = found.ts, found.stored_at
    data = _json(found)
    try:
        return _decode(data)
    except msgspec.ValidationError:  # a column that another program has written
        known = msgspec.json.decode(data)
        known["ts"], known["stored_at"] = (time and moment(time) for time in times)
        return EventRecord(**known)


def record_of(row: Row) -> EventRecord:
    """Return a row that begins with `COLUMNS` as a record."""
    return record(line(row))


def _json(found: Any) -> bytes:
    ts, stored_at = found.ts, found.stored_at
    # SQLite stores the text in UTC
    found.ts = ts.replace(" ", "T") + "Z" if type(ts) is str else moment(ts)
    if type(stored_at) is str:
        found.stored_at = stored_at.replace(" ", "T") + "Z"
    elif stored_at is not None:
        found.stored_at = moment(stored_at)
    found.attrs = _attrs(found.attrs)
    return _encode(found)


def _attrs(value: Any) -> Any:
    """Return the attributes for the JSON. A value that is not a JSON object gets the key
    ``value``.
    """
    if value is None:
        return {}
    try:
        found = _validated(value)
    except (msgspec.DecodeError, UnicodeError):
        text = value if isinstance(value, str) else bytes(value).decode(errors="replace")
        return {"value": text}
    return found if value[:1] == "{" or value.lstrip()[:1] in ("{", b"{") else {"value": found}
