"""A pattern that looks for many words in a text, in as little time as possible."""

from __future__ import annotations

import re
from collections.abc import Iterable

_RAREST = "qjxzkvbwygfpmculdhnrisoate"
"""The letters, the rarest in logs first; blanks, digits and signs are taken for more frequent."""


def any_word(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that finds one of *words*; a match may be only a part of the word.

    Each alternative begins at the rarest letter of its word, and looks back from its end for the
    rest. So few characters of a text begin an alternative, and the search skips the others quickly.
    """
    alternatives: dict[str, list[str]] = {}
    for word in words:
        at = min(range(len(word)), key=lambda index: _rank(word[index]))
        found = re.escape(word[at + 1 :]) + (f"(?<={re.escape(word)})" if at else "")
        alternatives.setdefault(word[at], []).append(found)
    return re.compile(
        "|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in alternatives.items())
    )


def _rank(character: str) -> int:
    return _RAREST.find(character.lower()) % 1000
