"""The time of events, which never runs backwards; and times as text: the databases' form and RFC
3339, both in UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from structjob.diagnostics import diagnostics
from structjob.process import on_reset

LONGEST_STEP = 3600
"""Seconds. A clock that is set back by more than this was wrong, not early: what is logged from
then on has the new time at once.
"""

_JITTER = 10_000_000
"""Nanoseconds. A clock that is set back by less is waited for."""

_SLOW = 10
"""After a step backwards time goes on at one part in so many of its speed, until the machine's
clock has caught up.
"""

_wall, _monotonic = time.time_ns, time.monotonic_ns
_latest = 0
"""What `now` returned last."""
_resumed: tuple[int, int, int] = (0, 0, 0)
"""Since a step backwards: what `now` returned last, what it returned before the step, and the
monotonic time then.
"""

present: tuple[int, bytes, bytes] = (0, b"", b"")
"""The last second that was asked for, as `second_text` returns it: the hot path looks here first.
"""


def now() -> int:
    """Return nanoseconds since the epoch; after the machine's clock was set back, time goes on
    slowly until the clock has caught up.

    A log is ordered by time: so it stays in the order in which it was written, and no end lies
    before its beginning.
    """
    global _latest
    ns = _wall()
    if ns < _latest:
        ns = _after_step()
    _latest = ns
    return ns


def _after_step() -> int:
    """Return the time to go by where the clock said less than what was returned last."""
    global _resumed
    ns = _wall()  # once more: this thread may have been held up while another one asked
    behind = _latest - ns
    if behind < _JITTER:
        return max(ns, _latest)
    if _resumed[0] != _latest:  # another step than the one before
        seconds = behind / 1e9
        if seconds > LONGEST_STEP:
            diagnostics.warning(
                "the clock was set back by %.0f s: what is logged now is dated before what was logged so far",
                seconds,
            )
            return ns
        diagnostics.warning(
            "the clock was set back by %.3f s: times of events go on slowly until it has caught up",
            seconds,
        )
        _resumed = (_latest, _latest, _monotonic())
    _, before, since = _resumed
    ns = before + (_monotonic() - since) // _SLOW
    _resumed = (ns, before, since)
    return ns


def second_text(second: int) -> tuple[int, bytes, bytes]:
    """Return *second* (since the epoch), its text for the databases and for people (RFC 3339), UTC,
    each up to the decimal point.
    """
    global present
    if present[0] == second:
        return present
    moment = time.gmtime(second)
    known = (
        second,
        time.strftime("%Y-%m-%d %H:%M:%S.", moment).encode(),
        time.strftime("%Y-%m-%dT%H:%M:%S.", moment).encode(),
    )
    present = known
    return known


def _reset() -> None:
    global _latest, _resumed
    _latest, _resumed = 0, (0, 0, 0)


on_reset(_reset)


def database_time(ns: int) -> str:
    """Return *ns* (since the epoch) as the databases take it: ``YYYY-MM-DD
    HH:MM:SS.ffffff``, UTC.
    """
    second, rest = divmod(ns, 1_000_000_000)
    return f"{second_text(second)[1].decode()}{rest // 1000:06}"


def moment(text: str) -> datetime:
    """Return what `database_time` wrote as *text*."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
