"""Errors of jobs and steps in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structjob.text.wording import count_of

if TYPE_CHECKING:
    from structjob.models import ErrorInfo

_OURS = frozenset({"CommandFailed", "Crashed"})
"""Types of structjob; they are left out, because they add no information to the message."""
_TRACEBACK = 12
"""Number of lines shown of a traceback: its end, where the error is."""


def what_failed(error: ErrorInfo) -> str:
    """Return an error in one line, with its type."""
    return _named(error, error.message.split("\n", 1)[0])


def in_full(error: ErrorInfo) -> str:
    """Return an error with all lines of its message, and its type."""
    return _named(error, error.message)


def _named(error: ErrorInfo, message: str) -> str:
    if not message:
        return error.type
    return message if error.type in _OURS else f"{error.type}: {message}"


def raised(traceback: str | None) -> bool:
    """Return whether *traceback* shows more than the error's message."""
    return traceback is not None and 'File "' in traceback


def traceback_lines(traceback: str | None, *, whole: bool = False) -> list[str]:
    """Return the lines to show of a traceback: the last ones, or the *whole* of it.

    There are none if it shows no more than the error's message.
    """
    if traceback is None or not raised(traceback):
        return []
    lines = traceback.rstrip("\n").split("\n")
    if whole or len(lines) <= _TRACEBACK:
        return lines
    return [f"… {count_of(len(lines) - _TRACEBACK, 'line')} before", *lines[-_TRACEBACK:]]
