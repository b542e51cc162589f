"""Lists that users give as arguments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from structjob.exceptions import InvalidArgument

T = TypeVar("T")


def items(name: str, given: Iterable[T]) -> list[T]:
    """Return what the argument *name* lists.

    Raises:
        InvalidArgument: if it is no list, or a text, whose characters would be used as the list.
            The message does not show it, because it may be a secret.
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise InvalidArgument(f"{name} must be a list, not {type(given).__name__}: {name}=[…]")
    return list(given)


def texts(name: str, given: Iterable[str]) -> list[str]:
    """Return the texts that the argument *name* lists.

    Raises:
        InvalidArgument: if it is no list, or lists anything else than texts.
    """
    found = items(name, given)
    for one in found:
        if not isinstance(one, str):
            raise InvalidArgument(f"{name} must list texts only, not {type(one).__name__}")
    return found
