"""Time spans as people write them: ``90s``, ``1h30m``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

_SPAN = re.compile(r"-?(?:\d+(?:\.\d+)?(?:mo|min|[ywdhms]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(mo|min|[ywdhms])")
_UNITS = {
    "y": timedelta(days=365), "mo": timedelta(days=30), "w": timedelta(weeks=1), "d": timedelta(days=1), "h": timedelta(hours=1),
    "min": timedelta(minutes=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1),
}  # fmt: skip


def span(text: str) -> timedelta | None:
    """Return the time span in *text* without a leading minus.

    Return None if it is not a time span, or longer than a `timedelta` can be.
    """
    if _SPAN.fullmatch(text) is None:
        return None
    parts = (float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        return sum(parts, timedelta())
    except OverflowError:
        return None


def units(text: str) -> list[str]:
    """Return the units in which *text* is written."""
    return [unit for _, unit in _PART.findall(text)]
