"""Least levels by the names of loggers."""

from __future__ import annotations

from collections.abc import Mapping

from structjob.exceptions import InvalidArgument
from structjob.levels import LEVELS, Level, level_name

_REMEMBERED = 10_000
"""Names of loggers whose level is remembered, at most."""


class Thresholds:
    """Which events are logged at all: by their level and their logger's name.

    Args:
        default: Number of the least level of every other logger.
        named: Name of a logger → its least level; it holds for the loggers below it, too.

    Raises:
        InvalidArgument: if *named* is no mapping of names to levels.
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
        """The least level that any logger has."""
        return min(self._default, *self._named.values())

    def passes(self, logger: str | None, level: int) -> bool:
        """Return whether an event of *level* is logged, given the name of its logger."""
        if logger is None:
            return level >= self._default
        least = self._known.get(logger)
        if least is None:
            least = self._look_up(logger)
            if len(self._known) < _REMEMBERED:
                self._known[logger] = least
        return level >= least

    def _look_up(self, logger: str) -> int:
        name = logger
        while name:
            if name in self._named:
                return self._named[name]
            name = name.rpartition(".")[0]
        return self._default
