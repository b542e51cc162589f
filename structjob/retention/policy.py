"""The retention of jobs and events: its rules, and the result of a prune."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVEL_ALIASES, LEVELS, Level
from structjob.numeric import is_number
from structjob.statuses import JOB_TERMINAL, JobStatus, JobStatusName

MAX_DAYS = 36_500
"""Maximum age in days: a hundred years."""

Age = float | timedelta | None
"""Days, or a `timedelta`; ``None`` means forever."""

_ENDED = tuple(status.value for status in JobStatus if status in JOB_TERMINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long jobs and events are kept.

    An age is a number of days (0.5 is twelve hours) or a `timedelta`; ``None`` means forever.

    A job is deleted together with its attempts, steps and events. It is deleted when it, all its
    descendants and all its ended ancestors ended longer ago than the ages of their statuses. A
    running ancestor does not protect it. Pending and running jobs are never deleted. Events without
    a job are deleted by their own time.

    Args:
        days: The age of everything that the other arguments do not name. Default: ``None``.
        levels: Level → age of its events. Events of a job are deleted at this age although the job
            stays, but never later than their job. Events without a job are deleted at this age
            instead of *days*.
        statuses: Status (``completed``, ``failed``, ``cancelled``, ``crashed``) → age of jobs with
            this status, instead of *days*.
        archive: A directory for compressed files that ``structjob import`` can restore. Everything
            is written there before it is deleted. The directory is created if it is absent.
            Default: no archive, so deleted data cannot be restored.

    Raises:
        InvalidArgument: if an age, a level or a status is invalid, or if everything would be kept
            forever.
    """

    days: Age = None
    levels: Mapping[Level, Age] = field(default_factory=dict)
    statuses: Mapping[JobStatusName, Age] = field(default_factory=dict)
    archive: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "days", _days("days", self.days))
        object.__setattr__(
            self, "levels", _ages("levels", "level", self.levels, tuple(LEVELS), LEVEL_ALIASES)
        )
        object.__setattr__(
            self,
            "statuses",
            _ages("statuses", "status", self.statuses, _ENDED, {"canceled": "cancelled"}),
        )
        if all(age is None for age in (self.days, *self.levels.values(), *self.statuses.values())):
            raise InvalidArgument(
                "this retention keeps everything for ever: give days, or an age in levels or statuses"
            )
        if self.archive is not None:
            if not isinstance(self.archive, str | os.PathLike) or not os.fspath(self.archive):
                raise InvalidArgument(
                    f"archive must be the path of a directory, not {self.archive!r}"
                )
            # absolute, because the program may change its working directory
            object.__setattr__(self, "archive", Path(self.archive).absolute())


def retention_of(given: Retention | timedelta | None) -> Retention | None:
    """Return *given* as a retention. A plain age applies to everything; ``None`` stays ``None``.

    Raises:
        InvalidArgument: if *given* is neither a retention nor a `timedelta`.
    """
    if given is None or isinstance(given, Retention):
        return given
    if not isinstance(given, timedelta):
        raise InvalidArgument(
            f"retention must be a Retention or a timedelta, not {given!r}: write "
            "timedelta(days=30), or structjob.Retention(days=30)"
        )
    return Retention(days=given)


def age_of_rest(retention: Retention) -> timedelta | None:
    """Return the age of everything without its own age; ``None`` means forever."""
    return _span(retention.days)


def age_of_level(retention: Retention, level: str) -> timedelta | None:
    """Return the age of events of a *level*; ``None`` means forever."""
    return _span(retention.levels.get(cast(Level, level), retention.days))


def age_of_status(retention: Retention, status: str) -> timedelta | None:
    """Return the age of jobs of a *status*; ``None`` means forever."""
    return _span(retention.statuses.get(cast(JobStatusName, status), retention.days))


def _ages(
    name: str, kind: str, given: Any, known: tuple[str, ...], aliases: Mapping[str, str]
) -> dict[str, float | None]:
    if not isinstance(given, Mapping):
        raise InvalidArgument(
            f"{name} must be a mapping of {kind} to days, such as {{{known[0]!r}: 2}}, not {given!r}"
        )
    found: dict[str, float | None] = {}
    for key, age in given.items():
        plain = aliases.get(key.lower(), key.lower()) if isinstance(key, str) else key
        if plain not in known:
            raise InvalidArgument(
                f"{name}: there is no {kind} {key!r} that could be kept for a time; use one of {', '.join(known)}"
            )
        found[plain] = _days(f"{name}[{key!r}]", age)
    return found


def _days(name: str, age: Any) -> float | None:
    if age is None:
        return None
    days = age / timedelta(days=1) if isinstance(age, timedelta) else age
    if not is_number(days) or not 0 <= days <= MAX_DAYS:
        raise InvalidArgument(
            f"{name} must be 0 to {MAX_DAYS:,} days (a number, or a timedelta), or None for ever, not {age!r}"
        )
    return days


def _span(days: Any) -> timedelta | None:
    return None if days is None else timedelta(days=days)
