"""How long jobs and events are kept: a rule, and what came of applying it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVEL_ALIASES, LEVELS
from structjob.models import JOB_TERMINAL, JobStatus

MAX_DAYS = 36_500
"""Days that an age may have at most: a hundred years."""

Age = float | timedelta | None
"""Days, or a length of time; None: for ever."""

_ENDED = tuple(status.value for status in JobStatus if status in JOB_TERMINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long jobs and events are kept. An age is a number of days (0.5 is twelve hours) or a
    `timedelta`; None is for ever.

    A job goes when it, everything below it, and whatever above it has ended, all ended longer ago
    than their statuses' ages; with it go its attempts, steps and events. What is pending or running
    never goes. Events without a job go by their own time.

    Args:
        days: The age of everything that the other arguments do not name.
        levels: Level → age of its events. Those of a job go at this age though the job stays, but
            never later than their job; those without a job go at this age in place of *days*.
        statuses: Status (``completed``, ``failed``, ``cancelled``, ``crashed``) → age of such jobs,
            in place of *days*.
        archive: A directory into which all that goes is written first, as compressed files that
            ``structjob import`` takes back; made if it is absent. By default what goes is gone.

    Raises:
        InvalidArgument: if an age, a level or a status is none, or nothing is ever to go.
    """

    days: Age = None
    levels: Mapping[str, Age] = field(default_factory=dict)
    statuses: Mapping[str, Age] = field(default_factory=dict)
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
            # wherever the program goes meanwhile
            object.__setattr__(self, "archive", Path(self.archive).absolute())

    @classmethod
    def of(cls, given: Retention | Age) -> Retention | None:
        """Return *given* as a retention: a plain age is that of everything; None stays None.

        Raises:
            InvalidArgument: if it is neither.
        """
        return given if given is None or isinstance(given, cls) else cls(days=given)  # type: ignore[arg-type]  # checked there

    def of_rest(self) -> timedelta | None:
        """Return the age of what has none of its own; None is for ever."""
        return _span(self.days)

    def of_level(self, level: str) -> timedelta | None:
        """Return the age of events of a *level*; None is for ever."""
        return _span(self.levels.get(level, self.days))

    def of_status(self, status: str) -> timedelta | None:
        """Return the age of jobs of a *status*; None is for ever."""
        return _span(self.statuses.get(status, self.days))


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """What a prune deleted; after a dry run, what it would.

    Args:
        dry_run: Whether nothing was deleted.
        events: Events, those of the jobs included.
        jobs: Jobs.
        attempts: Attempts at them.
        steps: Steps of them.
        dead_letters: Dead letters.
        sessions: Sessions of which nothing was left.
        archived: The files into which it was written before; empty after a dry run.
        oldest: The time of the oldest event that is kept; None if there is none, and after a dry
            run.
    """

    dry_run: bool = False
    events: int = 0
    jobs: int = 0
    attempts: int = 0
    steps: int = 0
    dead_letters: int = 0
    sessions: int = 0
    archived: tuple[str, ...] = ()
    oldest: datetime | None = None

    def __bool__(self) -> bool:
        return any(
            (self.events, self.jobs, self.attempts, self.steps, self.dead_letters, self.sessions)
        )


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
    if (
        not isinstance(days, int | float)
        or isinstance(days, bool)
        or not math.isfinite(days)
        or not 0 <= days <= MAX_DAYS
    ):
        raise InvalidArgument(
            f"{name} must be 0 to {MAX_DAYS:,} days (a number, or a timedelta), or None for ever, not {age!r}"
        )
    return days


def _span(days: Any) -> timedelta | None:
    return None if days is None else timedelta(days=days)
