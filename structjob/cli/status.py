"""How a status looks: a symbol, a word and a colour, so that it is never told by colour alone; and bars."""

from __future__ import annotations

import sys
from functools import lru_cache

from structjob.amounts import whole_percent

SYMBOLS = {
    "pending": ("○", "o", "dim"),
    "running": ("●", "*", "blue"),
    "completed": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
    "cancelled": ("⊘", "-", "yellow"),
    "crashed": ("✗", "x", "magenta"),
    "skipped": ("–", "-", "dim"),
    "retrying": ("↻", "r", "yellow"),
}
"""Of each status of a job or step: its symbol, what stands for it where there is ASCII only, and its colour."""

LEVELS = {"debug": "dim", "info": "", "success": "green", "warning": "yellow", "error": "red", "critical": "bold red"}
"""The colour of each level."""


def speaks_unicode() -> bool:
    """Return whether stdout can show more than ASCII."""
    # The true one: while bars are shown, something else stands in for it.
    return _is_unicode(getattr(sys.__stdout__, "encoding", None) or "ascii")


@lru_cache
def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").startswith("utf")


def symbol(status: str) -> str:
    """Return the symbol of *status*."""
    rich, plain, _ = SYMBOLS.get(status, ("?", "?", ""))
    return rich if speaks_unicode() else plain


def colour_of(status: str) -> str:
    """Return the colour of *status*."""
    return SYMBOLS.get(status, ("", "", ""))[2]


def bar(percent: float, width: int = 10) -> str:
    """Return a bar that *percent* (0–100) of it fills."""
    filled = whole_percent(max(percent, 0.0)) * width // 100
    full, empty = ("━", "─") if speaks_unicode() else ("#", ".")
    return full * filled + empty * (width - filled)


def span(begin: float, end: float, width: int = 24) -> tuple[str, str, str]:
    """Return a line that shows where in a whole *begin* and *end* (0–1) lie: what is before, in between and after."""
    full, empty = ("━", "─") if speaks_unicode() else ("#", ".")
    first = min(int(max(begin, 0.0) * width), width - 1)
    last = max(first + 1, min(round(end * width), width))
    return empty * first, full * (last - first), empty * (width - last)
