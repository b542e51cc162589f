"""Parts of sentences for people."""

from __future__ import annotations

from collections.abc import Iterable


def count_of(number: int, noun: str, one: str = "", many: str = "") -> str:
    """Return a number with its noun, and a verb if one is given: ``1 event is``, ``1,200 events
    are``.

    Args:
        number: The number.
        noun: The noun in the singular; its plural ends in ``s``.
        one: The verb for one.
        many: The verb for any other number.
    """
    verb = one if number == 1 else many
    return f"{number:,} {noun}{'' if number == 1 else 's'}{' ' if verb else ''}{verb}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the name in *known* that is most like *given*.

    The text is empty if none is.
    """
    from difflib import get_close_matches  # only after a mistake

    close = get_close_matches(given, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
