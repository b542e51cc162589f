"""How a status looks: a symbol, a word and a colour, so that it is never told by colour alone; and bars."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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


def interval(begin: float, end: float, width: int, *, still: bool = False) -> str:
    """Return *width* columns that stand for a whole, with a mark from *begin* to *end* (0–1); without an end if it is *still* running."""
    first, line, last = ("├", "─", "┤") if speaks_unicode() else ("|", "-", "|")
    start = min(int(max(begin, 0.0) * width), width - 1)
    size = max(1, min(round(end * width), width) - start)
    mark = "│" if first == "├" else "|"
    if size > 1:
        mark = first + line * (size - 2) + (line if still else last)
    return f"{' ' * start}{mark}{' ' * (width - start - size)}"


def counted(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return how many there are of each status, worst first, as pieces of a line."""
    pieces: list[tuple[str, str]] = []
    for status in sorted(counts, key=lambda status: (_ORDER.get(status, len(_ORDER)), status)):
        pieces += [(", ", "dim")] * bool(pieces) + [(f"{counts[status]:,} {status}", colour_of(status))]
    return pieces


_ORDER = {status: rank for rank, status in enumerate(("failed", "crashed", "running", "pending", "cancelled", "completed"))}
