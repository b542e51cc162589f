"""Numbers with nouns in sentences for people."""

from __future__ import annotations


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
