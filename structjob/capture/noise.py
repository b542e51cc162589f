"""Processors against noise: if there are too many equal events, only some of them pass."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from time import monotonic

import structlog
from structlog.typing import EventDict, WrappedLogger

from structjob.capture.emit import emit
from structjob.capture.event import BY_NAME
from structjob.context.scope import current_scope
from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, level_name
from structjob.numeric import is_number, is_whole
from structjob.values.encoding import encode_text
from structjob.values.lists import texts

_KEYS = 1_000
"""Maximum number of pairs of a job and a message whose rate is remembered."""

_MESSAGES = 10_000
"""Maximum number of messages that a sampler counts."""

_REPORTED = 60.0
"""Seconds between two events that report what was suppressed."""

_Key = tuple[str | None, str]


def _limited(
    method_name: str, event_dict: EventDict, events: Collection[str] | None, below: int
) -> str | None:
    """Return the message of an event whose rate is limited; None if it passes in any case.

    Args:
        method_name: The method that was called.
        event_dict: The event.
        events: The messages of the events that are limited; None: all messages.
        below: Number of the level below which they are.
    """
    message = event_dict.get("event")
    if not isinstance(message, str):
        message = encode_text(message).decode()  # any object can be logged
    level = BY_NAME.get(method_name)
    if level is not None and level.number >= below:
        return None
    return message if events is None or message in events else None


class Sampler:
    """A processor that passes the first of equal events and then each *every*-th one.

    Warnings and above always pass. An event that passes carries ``sampled=every``. The others are
    never numbered, shown or stored.

    Args:
        every: How many equal events count as one, at least 1.
        events: Only these messages; default: all messages.
    """

    def __init__(self, every: int, events: Iterable[str] | None = None) -> None:
        if not is_whole(every) or every < 1:
            raise InvalidArgument(f"every must be a whole number of at least 1, not {every!r}")
        self._every = every
        self._events = None if events is None else frozenset(texts("events", events))
        self._seen: dict[str, int] = {}

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        message = _limited(method_name, event_dict, self._events, LEVELS["warning"])
        if message is None:
            return event_dict
        if len(self._seen) > _MESSAGES:
            self._seen.clear()
        seen = self._seen.get(message, 0)
        self._seen[message] = seen + 1
        if seen % self._every:
            raise structlog.DropEvent
        event_dict["sampled"] = self._every
        return event_dict


class RateLimit:
    """A processor that limits the rate of equal events in each job and suppresses the others.

    The next event that passes carries ``suppressed``, the number of events suppressed before it.
    Numbers that no later event carries are in the last event of the job, as ``suppressed`` by
    message. Those outside jobs, and those of a job that runs for long, are reported once a minute,
    with the next event of any kind, and when the tracker closes: by an event ``suppressed`` with
    ``count`` and ``messages``. Suppressed events are never numbered, shown or stored.

    Args:
        per_second: How many events with the same message pass per second, in each job.
        burst: How many may come at once; default: *per_second*, and at least 1.
        events: Only these messages; default: all messages.
        level_below: Only events below this level, default ``warning``; events of this level and
            above always pass.

    Raises:
        InvalidArgument: if a number is not positive, or *events* is no list of texts.
        InvalidFilter: if the level is unknown.
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: float | None = None,
        events: Iterable[str] | None = None,
        level_below: str | int = "warning",
    ) -> None:
        is_rate = is_number(per_second) and per_second > 0
        if not is_rate or not (burst is None or (is_number(burst) and burst >= 1)):
            raise InvalidArgument(
                f"per_second must be positive and burst at least 1, not {per_second!r} and {burst!r}"
            )
        self._rate = per_second
        self._burst = max(per_second, 1.0) if burst is None else burst
        self._events = None if events is None else frozenset(texts("events", events))
        self._below = LEVELS[level_name(level_below)]
        self._left: dict[_Key, tuple[float, float]] = {}
        """How many may pass, and the time of this value (monotonic seconds)."""
        self._suppressed = _Suppressed()

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        now = monotonic()
        if now >= self._suppressed.report_at:
            self._suppressed.report()
        message = _limited(method_name, event_dict, self._events, self._below)
        if message is None:
            return event_dict
        scope = current_scope()
        key = (None if scope is None else scope.job_id, message)
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        # Inserted at the end, so that the key that was not logged for the longest time is the
        # first.
        self._left[key] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > _KEYS:
            self._left.pop(next(iter(self._left)), None)
        if left < 1:
            self._suppressed.add(key)
            raise structlog.DropEvent
        if before := self._suppressed.take(key):
            event_dict["suppressed"] = before
        return event_dict


class _Suppressed:
    """How many events one rate limit has suppressed that are not reported yet."""

    def __init__(self) -> None:
        self.report_at = monotonic() + _REPORTED
        """The time of the next report (monotonic seconds)."""
        self._counts: dict[_Key, int] = {}
        LIMITS.add(self)

    def add(self, key: _Key) -> None:
        if key not in self._counts and len(self._counts) >= _KEYS:
            key = (None, "…")
        self._counts[key] = self._counts.get(key, 0) + 1

    def take(self, key: _Key) -> int:
        """Return the number of *key*, and forget it."""
        return self._counts.pop(key, 0)

    def of_job(self, job_id: str) -> dict[str, int]:
        """Return the numbers of a job by message, and forget them."""
        return {key[1]: self.take(key) for key in list(self._counts) if key[0] == job_id}

    def report(self) -> None:
        """Log the numbers."""
        self.report_at = monotonic() + _REPORTED
        counts, self._counts = self._counts, {}
        messages: dict[str, int] = {}
        for (_, message), count in counts.items():
            messages[message] = messages.get(message, 0) + count
        if messages:
            emit(
                None, "info", "suppressed", {"count": sum(messages.values()), "messages": messages}
            )


LIMITS: weakref.WeakSet[_Suppressed] = weakref.WeakSet()
"""What each rate limit of this process has suppressed."""


def suppressed_in(job_id: str) -> dict[str, int]:
    """Return how many events of a job were suppressed and not reported, by message."""
    found: dict[str, int] = {}
    for limit in list(LIMITS):
        for message, count in limit.of_job(job_id).items():
            found[message] = found.get(message, 0) + count
    return found


def report_suppressed() -> None:
    """Log what is suppressed and not reported yet, before a tracker closes."""
    for limit in list(LIMITS):
        limit.report()
