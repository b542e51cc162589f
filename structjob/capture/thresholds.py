"""Lowest levels by the names of loggers."""

from __future__ import annotations

from collections.abc import Mapping

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, Level, level_name

_REMEMBERED = 10_000
"""Maximum number of logger names whose level is remembered."""


class Thresholds:
    """Decides which events are logged, by their level and their logger's name.

    Args:
        default: Number of the lowest level of every other logger.
        named: Name of a logger → its lowest level; it also applies to child loggers.

    Raises:
        InvalidArgument: if *named* is not a mapping of names to levels.
    """

    def __init__(self, default: int, named: Mapping[str, Level | int]) -> None:
        if not isinstance(named, Mapping) or not all(
            isinstance(name, str) and name for name in named
        ):
            raise InvalidArgument(
                f"levels must map names of loggers to levels, such as {{'httpx': 'warning'}}, not {named!r}"
            )
        self._default = default
        self._named = {name: LEVELS[level_name(level)] for name, level in named.items()}
        self._known: dict[str, int] = {}

    @property
    def least(self) -> int:
        """The lowest level of all loggers."""
        return min(self._default, *self._named.values())

    def passes(self, logger: str | None, level: int) -> bool:
        """Return whether an event of *level* is logged by the logger of this name."""
        if logger is None:
            return level >= self._default
        least = self._known.get(logger)
        if least is None:
            least = self._look_up(logger)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[logger] = least
        return level >= least

    def _look_up(self, logger: str) -> int:
        name = logger
        while name:
            if name in self._named:
                return self._named[name]
            name = name.rpartition(".")[0]
        return self._default
