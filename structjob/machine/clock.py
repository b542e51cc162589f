"""The time of events, which never runs backward, and the two text forms of a time.

The forms are the databases' and RFC 3339, both in UTC.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from structjob.diagnostics import diagnostics
from structjob.process import on_reset

LONGEST_STEP = 3600
"""Seconds. If the clock is set back by more than this, it was wrong before. Later events then
get the new time at once.
"""

_JITTER = 10_000_000
"""Nanoseconds. If the clock is set back by less, the last time is repeated until the clock has
caught up.
"""

_SLOW = 10
"""The divisor of the speed of time after the clock was set back, until the clock has caught up."""

_wall, _monotonic = time.time_ns, time.monotonic_ns
_latest = 0
"""The last result of `now`."""
_resumed: tuple[int, int, int] = (0, 0, 0)
"""State since the clock was set back: the last result of `now`, its last result before that, and
the monotonic time then.
"""

_second: tuple[int, bytes, bytes] = (-(10**18), b"", b"")
"""The second that was last converted to text: its first nanosecond, and its two texts."""
_DIGITS = [b"%03d" % number for number in range(1000)]


def now() -> int:
    """Return nanoseconds since the epoch.

    After the machine's clock was set back, the result advances slowly until the clock has caught
    up. Logs are ordered by time. So they stay in the order in which they were written, and nothing
    ends before its beginning.
    """
    return stamp()[0]


def _after_step() -> int:
    """Return the time to use while the clock shows less than the last result."""
    global _resumed
    # Both are read again, the clock last: this thread may have been delayed after each look, while
    # another one, or a signal handler, read the clock.
    latest = _latest
    ns = _wall()
    behind = latest - ns
    if behind < _JITTER:
        return max(ns, latest)
    seconds = behind / 1e9
    if seconds > LONGEST_STEP:  # also while it catches up from a shorter step
        diagnostics.warning(
            "the clock was set back by %.0f s: what is logged now is dated before what was logged so far",
            seconds,
        )
        return ns
    if _resumed[0] != latest:  # the clock was set back again
        diagnostics.warning(
            "the clock was set back by %.3f s: times of events advance slowly until it has caught up",
            seconds,
        )
        _resumed = (latest, latest, _monotonic())
    _, before, since = _resumed
    ns = before + (_monotonic() - since) // _SLOW
    _resumed = (ns, before, since)
    return ns


def stamp(ns: int = 0) -> tuple[int, bytes, bytes, bytes]:
    """Return *ns* (since the epoch; default: `now`), and its text in UTC in three parts.

    These are the text up to the decimal point, for the databases and for people (RFC 3339), and the
    microseconds, six digits.
    """
    global _latest
    if not ns:
        ns = _wall()
        if ns < _latest:
            ns = _after_step()
        _latest = ns
    start, stored, shown = _second
    micros = (ns - start) // 1000
    if not 0 <= micros < 1_000_000:
        start, stored, shown = _convert(ns // 1_000_000_000)
        micros = (ns - start) // 1000
    # A quarter of the time of `b"%06d" % micros`.
    return ns, stored, shown, _DIGITS[micros // 1000] + _DIGITS[micros % 1000]


def _convert(second: int) -> tuple[int, bytes, bytes]:
    global _second
    moment = time.gmtime(second)
    _second = converted = (
        second * 1_000_000_000,
        time.strftime("%Y-%m-%d %H:%M:%S.", moment).encode(),
        time.strftime("%Y-%m-%dT%H:%M:%S.", moment).encode(),
    )
    return converted


def _reset() -> None:
    global _latest, _resumed
    _latest, _resumed = 0, (0, 0, 0)


on_reset(_reset, lambda: int)  # a test goes on with the time


def time_text() -> str:
    """Return `now` in the databases' form: ``YYYY-MM-DD HH:MM:SS.ffffff``, UTC."""
    _, second, _, micros = stamp()
    return (second + micros).decode()


def moment(text: str) -> datetime:
    """Parse a time in the databases' form; see `time_text`."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
