"""The names of the levels and their numbers."""

from __future__ import annotations

from typing import Literal

from structjob.exceptions import InvalidFilter
from structjob.numeric import is_whole

Level = Literal["debug", "info", "success", "warning", "error", "critical"]
"""The name of a level."""

LEVELS: dict[str, int] = {
    "debug": 10,
    "info": 20,
    "success": 25,
    "warning": 30,
    "error": 40,
    "critical": 50,
}
"""The levels and their numbers. ``warn`` is stored as ``warning``, ``exception`` as ``error``, and
``fatal`` as ``critical``.
"""

LEVEL_ALIASES: dict[str, str] = {
    "warn": "warning",
    "exception": "error",
    "fatal": "critical",
    "notset": "debug",
    "msg": "info",
}


def level_name(level: str | int) -> str:
    """Return the canonical name of *level* (``"WARN"`` → ``"warning"``, ``35`` → ``"warning"``).

    Raises:
        InvalidFilter: if it is not a level.
    """
    if is_whole(level):
        names = [name for name, number in LEVELS.items() if number <= level]
        return names[-1] if names else "debug"
    if isinstance(level, str):
        name = level.lower()
        name = LEVEL_ALIASES.get(name, name)
        if name in LEVELS:
            return name
    raise InvalidFilter(f"unknown level {level!r}: use one of {', '.join(LEVELS)}")
