"""Write events for people and other programs: as CSV, as JSON lines, or as text.

`structjob.transfer.export` writes whole jobs, which can be imported again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, Literal

import msgspec

from structjob.models import EventRecord
from structjob.queries.logs import Logs

Form = Literal["json", "csv", "text"]

AT_ONCE = 1_000
"""Number of events per read."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def event_lines(
    logs: Logs, form: Form, filters: Mapping[str, Any], *, clean: Callable[[str], str] | None = None
) -> AsyncIterator[bytes]:
    """Yield the matching events in a form, with the line end; for CSV first the headings.

    In CSV, a text that a spreadsheet would read as a formula gets an apostrophe before it.

    Args:
        logs: The query interface for events.
        form: ``json``: an object for each event. ``csv``: a row for each event. ``text``: the event
            as the console shows it, with its traceback.
        filters: Fields of `LogFilter`.
        clean: Applied to each cell of CSV, for output to a terminal.
    """
    names = [field.name for field in fields(EventRecord)]
    if form == "csv":
        yield _row(names)
    async for event in logs.iterate(limit=AT_ONCE, **filters):
        if form == "json":
            yield msgspec.json.encode(event) + b"\n"
        elif form == "csv":
            cells = [_cell(getattr(event, name)) for name in names]
            yield _row(cells if clean is None else [*map(clean, cells)])
        else:
            yield f"{event}\n".encode("utf-8", "backslashreplace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return msgspec.json.encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else str(value)


def _row(cells: list[str]) -> bytes:
    row = io.StringIO(newline="")
    csv.writer(row).writerow(cells)
    return row.getvalue().encode("utf-8", "backslashreplace")
