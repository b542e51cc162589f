"""The appearance of things on a terminal: statuses, levels, times, durations, bars and long lines.

A status is never shown by color alone.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from structjob.text.amounts import whole_percent

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
"""For each status of a job or step: its symbol, the ASCII symbol, and its color."""

LEVELS = {
    "debug": "dim",
    "info": "",
    "success": "green",
    "warning": "yellow",
    "error": "red",
    "critical": "bold red",
}
"""The color of each level."""


def speaks_unicode() -> bool:
    """Return whether stdout can show more than ASCII."""
    # Use the original stdout, because another object replaces `sys.stdout` while bars are shown.
    return _is_unicode(getattr(sys.__stdout__, "encoding", None) or "ascii")


@lru_cache
def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").startswith("utf")


def symbol(status: str, *, unicode: bool | None = None) -> str:
    """Return the symbol of *status*, in ASCII if *unicode* is False.

    The default depends on stdout.
    """
    rich, plain, _ = SYMBOLS.get(status, ("?", "?", ""))
    return rich if (speaks_unicode() if unicode is None else unicode) else plain


def colour_of(status: str) -> str:
    """Return the color of *status*."""
    return SYMBOLS.get(status, ("", "", ""))[2]


def bar(percent: float, width: int = 10) -> str:
    """Return a bar of which *percent* (0–100) is filled."""
    filled = whole_percent(max(percent, 0.0)) * width // 100
    full, empty = ("━", "─") if speaks_unicode() else ("#", ".")
    return full * filled + empty * (width - filled)


def interval(begin: float, end: float, width: int, *, still: bool = False) -> str:
    """Return *width* columns that stand for a whole, with a mark from *begin* to *end* (0–1).

    The mark has no end if it is *still* running.
    """
    first, line, last = ("├", "─", "┤") if speaks_unicode() else ("|", "-", "|")
    start = min(int(max(begin, 0.0) * width), width - 1)
    size = max(1, min(round(end * width), width) - start)
    mark = "│" if first == "├" else "|"
    if size > 1:
        mark = first + line * (size - 2) + (line if still else last)
    return f"{' ' * start}{mark}{' ' * (width - start - size)}"


def counted(counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return the number of each status, the worst first, as pieces of a line."""
    pieces: list[tuple[str, str]] = []
    for status in sorted(counts, key=lambda status: (_ORDER.get(status, len(_ORDER)), status)):
        pieces += [(", ", "dim")] * bool(pieces) + [
            (f"{counts[status]:,} {status}", colour_of(status))
        ]
    return pieces


_ORDER = {
    status: rank
    for rank, status in enumerate(
        ("failed", "crashed", "running", "pending", "cancelled", "completed")
    )
}


_CODES = {
    "bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "magenta": "35", "cyan": "36", "bold red": "1;31",
}  # fmt: skip


def paint(text: str, style: str, colour: bool) -> str:
    """Return *text* in *style* if *colour* is True. *style* may be empty."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour and style and text else text


def local(moment: datetime, *, utc: bool) -> datetime:
    """Return *moment* in the displayed time zone.

    Return it in UTC if it would be in the year 0 or 10000 there, or if the local time zone is a day
    or more away from UTC (``TZ=UTC+25``).
    """
    try:
        return moment.astimezone(UTC if utc else None)
    except (OverflowError, ValueError):
        return moment.astimezone(UTC)


def lasting(seconds: float | None) -> str:
    """Return a duration as text, with a useful precision: ``<1ms``, ``20ms``, ``4.48s``,
    ``2m 05s``, ``1d 04h``.

    ``duration`` of web/static/format.js has the same rule.
    """
    if seconds is None:
        return ""
    if seconds < 0.001:
        return "<1ms"
    if seconds < 0.9995:
        return f"{_rounded(seconds * 1000)}ms"
    if seconds < 9.995:
        return f"{_rounded(seconds * 100) / 100:.2f}s"
    if seconds < 59.95:
        return f"{_rounded(seconds * 10) / 10:.1f}s"
    minutes, rest = divmod(_rounded(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours:02}h"
    return f"{hours}h {minutes:02}m" if hours else f"{minutes}m {rest:02}s"


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)  # half up: ``round`` would differ from JavaScript's rounding


Piece = tuple[str, str]
"""A piece of a line, and its style for `paint`."""

_WORDS = re.compile(r"\s+|\S+")


def wrapped(row: Sequence[Piece], width: int, indent: int) -> Iterator[Sequence[Piece]]:
    """Yield *row* as lines of at most *width* columns, broken between words.

    All lines except the first start with *indent* spaces. A word is broken only if it is longer
    than a line.
    """
    if fits(row, width):
        yield row
        return
    room = max(width, indent + 10)
    line: list[Piece] = []
    used = 0
    for word in _words(row):
        size = sum(cells(text) for text, _ in word)
        if used + size > room and used > indent:
            yield line
            line, used = [(" " * indent, "")], indent
            if word[0][0].isspace():
                continue
        for given, style in word:
            text = given
            while used + cells(text) > room:
                head = text[: room - used]
                while cells(head) > room - used:
                    head = head[:-1]
                yield [*line, (head, style)]
                text = text[len(head) :]
                line, used = [(" " * indent, "")], indent
            used += cells(text)
            if line and line[-1][1] == style:
                text = line.pop()[0] + text
            line.append((text, style))
    yield line


def _words(row: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Yield the words of *row* and the spaces between them. A word may consist of several
    pieces.
    """
    word: list[Piece] = []
    for text, style in row:
        for part in _WORDS.findall(text):
            if part.isspace():
                if word:
                    yield word
                yield [(part, style)]
                word = []
            else:
                word.append((part, style))
    if word:
        yield word


def fits(row: Sequence[Piece], width: int) -> bool:
    """Return whether *row* takes at most *width* columns."""
    return cells("".join([text for text, _ in row])) <= width


def cells(text: str) -> int:
    """Return the number of columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
