"""Times as text: the databases' form and RFC 3339, both in UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime

present: tuple[int, bytes, bytes] = (0, b"", b"")
"""The last second that was asked for, as `second_text` returns it: the hot path looks here first."""


def second_text(second: int) -> tuple[int, bytes, bytes]:
    """Return *second* (since the epoch), its text for the databases and for people (RFC 3339), UTC, each up to the decimal point."""
    global present
    if present[0] == second:
        return present
    moment = time.gmtime(second)
    known = (second, time.strftime("%Y-%m-%d %H:%M:%S.", moment).encode(), time.strftime("%Y-%m-%dT%H:%M:%S.", moment).encode())
    present = known
    return known


def database_time(ns: int) -> str:
    """Return *ns* (since the epoch) as the databases take it: ``YYYY-MM-DD HH:MM:SS.ffffff``, UTC."""
    second, rest = divmod(ns, 1_000_000_000)
    return f"{second_text(second)[1].decode()}{rest // 1000:06}"


def moment(text: str) -> datetime:
    """Return what `database_time` wrote as *text*."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
