"""The records of an imported file, read line by line and checked against the tables' columns."""

from __future__ import annotations

import codecs
import gzip
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Double, Integer, Table

from structjob.decoding import NOT_JSON
from structjob.exceptions import ImportRefused
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.models import STREAMS
from structjob.numeric import is_number, is_whole
from structjob.statuses import JobStatus, StepStatus
from structjob.store import tables
from structjob.store.types import Exact, JSONValue, UTCDateTime
from structjob.values.normalizer import normalize

MAX_LINE = 16 * 1024 * 1024
"""Maximum length of a line, in bytes."""

_STATUSES = {
    "success": "completed",
    "succeeded": "completed",
    "done": "completed",
    "error": "failed",
    "canceled": "cancelled",
}
"""Status names of other trackers → our names."""

TABLES = {
    "job": tables.jobs,
    "attempt": tables.attempts,
    "step": tables.steps,
    "event": tables.logs,
}
"""The table for each kind of record."""

_TIMES = {
    "start_time": "started_at",
    "end_time": "completed_at",
    "ended_at": "completed_at",
    "finished_at": "completed_at",
}
_ALIASES = {
    "job": {
        "job_id": "id",
        "name": "operation",
        **_TIMES,
    },
    "attempt": {},
    "step": {"step_id": "id", **_TIMES},
    "event": {"timestamp": "ts", "event": "message"},
}
"""Field names of other trackers and of log files → our names."""

_NEEDED = {
    "job": ("id", "operation", "created_at"),
    "attempt": ("job_id", "attempt"),
    "step": ("id", "job_id", "name"),
    "event": ("ts", "message"),
}
_OURS = frozenset({"session_id", "state_seq", "stored_at", "type"})
"""Columns that the import itself fills."""

BLANK_LIMIT = 100_000
"""Maximum number of blank lines in a file: a small compressed file may contain hundreds of
millions.
"""

NOTES = ("export", "dead_letter")
"""Records for people, which are not imported."""


_OTHERS = {
    b"\x28\xb5\x2f\xfd": "is compressed by zstd: decompress it first",
    b"\xfd7zXZ": "is compressed by xz: decompress it first",
    b"BZh": "is compressed by bzip2: decompress it first",
    b"PK\x03\x04": "is a zip archive: unpack it first",
    codecs.BOM_UTF32_LE: "is UTF-32: convert it to UTF-8 first",  # begins as UTF-16 does
    codecs.BOM_UTF32_BE: "is UTF-32: convert it to UTF-8 first",
    codecs.BOM_UTF16_LE: "is UTF-16: convert it to UTF-8 first",
    codecs.BOM_UTF16_BE: "is UTF-16: convert it to UTF-8 first",
}
"""Files that are not read, by how they begin."""


def read_records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the records of a file with the numbers of their lines.

    Raises:
        ImportRefused: if a line is not a valid record.
    """
    with open(path, "rb") as raw:
        begin = raw.peek(6)
        for mark, what in _OTHERS.items():
            if begin.startswith(mark):
                raise ImportRefused(f"{path} {what} (gzip and plain UTF-8 are read)")
        compressed = begin.startswith(b"\x1f\x8b")
        with gzip.GzipFile(fileobj=raw) if compressed else nullcontext(raw) as file:
            number = blank = 0
            try:
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    if number == 1:  # editors and shells of Windows begin a text with a mark
                        line = line.removeprefix(codecs.BOM_UTF8)
                    if len(line) > MAX_LINE:
                        raise ImportRefused(f"line {number} has more than {MAX_LINE:,} bytes")
                    if line.strip():
                        yield (number, *_record(number, line))
                    elif (blank := blank + 1) > BLANK_LIMIT:
                        raise ImportRefused(
                            f"line {number}: {path} has more than {BLANK_LIMIT:,} blank lines: remove them (grep .)"
                        )
            except (EOFError, zlib.error, OSError) as exc:
                raise ImportRefused(f"{path} cannot be read beyond line {number}: {exc}") from exc


def _record(number: int, line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        record = msgspec.json.decode(line)
    except NOT_JSON as exc:
        raise ImportRefused(f"line {number} is not JSON: {exc}") from exc
    kind = record.pop("record", None) if isinstance(record, dict) else None
    if not isinstance(kind, str) or (kind not in NOTES and kind not in TABLES):
        raise ImportRefused(
            f'line {number} is not a record: it must be an object with the key "record": job, attempt, step or event'
        )
    return kind, record


def row_of(kind: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as a row of its table; other keys go into ``attrs`` or ``metadata``.

    Raises:
        ValueError: if a value is missing, or does not fit its column.
    """
    table = TABLES[kind]
    row: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for given, value in record.items():
        name = _ALIASES[kind].get(given, given)
        if name == "error" and kind != "event":
            row |= _error(value)
        elif name == "error" and isinstance(value, Mapping) and value and {*value} <= {*_ERROR}:
            rest |= _exception(value)
        elif name in _OURS or (name in ("id", "seq") and kind == "event"):
            continue
        # Another name of a stream becomes an attribute, as in logging.
        elif name in table.c and (name != "stream" or value is None or value in STREAMS):
            if value is not None:
                row[name] = _value(table, name, value)
        else:
            rest[name] = value
    if kind == "job":
        row.setdefault("created_at", row.get("started_at"))
    for name in _NEEDED[kind]:
        # an empty message is valid, because programs print blank lines
        if row.get(name) is None or (row[name] == "" and name != "message"):
            raise ValueError(f"{name} is missing")
    if kind == "event":
        row["level"] = _level(row.get("level", "info"))
    else:
        row["status"] = _status(kind, row.get("status", "completed"))
        if kind == "job" and row["status"] == JobStatus.COMPLETED:
            row.setdefault("percent_complete", 100.0)
    extra = "attrs" if kind == "event" else "metadata"
    if rest and extra in table.c:
        held = row.get(extra) or {}
        row[extra] = {**rest, **held} if isinstance(held, dict) else {**rest, extra: held}
    return row


def _value(table: Table, name: str, value: Any) -> Any:
    column = table.c[name].type
    if isinstance(column, JSONValue):
        return value
    if isinstance(column, UTCDateTime):
        return _time(name, value)
    if isinstance(column, Double | Integer):
        whole = isinstance(column, Integer)
        if not is_number(value) or (whole and value != int(value)):
            raise ValueError(f"{name} must be a number, not {value!r}")
        if not 0 <= value <= _most(column):
            raise ValueError(f"{name} is out of range: {value!r}")
        return int(value) if whole else float(value)
    if is_whole(value):
        value = str(value)  # other trackers use numbers as job ids
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, not {type(value).__name__}")  # noqa: TRY004 -- the caller adds the line's number to a ValueError
    text = str(normalize(value))
    if isinstance(column, Exact) and len(text) > column.length:
        raise ValueError(
            f"{name} has {len(text):,} characters; at most {column.length} are allowed"
        )
    return text


def _most(column: Double[Any] | Integer) -> float:
    """Return the greatest number that a column can store on every database."""
    if isinstance(column, Double):
        return sys.float_info.max
    return 2**53 if isinstance(column, BigInteger) else 2**31 - 1


def _time(name: str, value: Any) -> str:
    """Return a time in the databases' form.

    *value* is ISO 8601 text (UTC if it has no time zone) or a number of seconds since 1970.
    """
    try:
        if is_number(value):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            moment = datetime.fromisoformat(value)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError(
            f"{name} is not a time: {value!r}; write ISO 8601, such as 2026-05-04T13:30:00Z"
        ) from None
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f").rjust(26, "0")


_ERROR = ("type", "message", "traceback")
"""The keys of an error."""


def _error(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    given = value if isinstance(value, Mapping) else {"message": value}
    texts = {
        name: None if given.get(name) is None else str(normalize(str(given[name])))
        for name in _ERROR
    }
    return {
        "error_type": (texts["type"] or "Error")[:200],
        "error_message": texts["message"] or "",
        "error_traceback": texts["traceback"],
    }


def _exception(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's error as the attributes that a log call records for an exception."""
    found = {name.removeprefix("error_"): text for name, text in _error(value).items()}
    return {"error_type": found["type"], "error_message": found["message"], "exception": found}


def _level(value: Any) -> str:
    level = str(value).lower()
    level = LEVEL_ALIASES.get(level, level)
    if level not in LEVELS:
        raise ValueError(f"unknown level {value!r}: use one of {', '.join(LEVELS)}")
    return level


def _status(kind: str, value: Any) -> str:
    status = str(value).lower()
    status = _STATUSES.get(status, status)
    known = [one.value for one in (StepStatus if kind == "step" else JobStatus)]
    if status not in known:
        raise ValueError(f"unknown status {value!r}: use one of {', '.join(known)}")
    return status
