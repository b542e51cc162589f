"""How jobs and steps end: their status and their error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from structjob.context.errors import exits_cleanly, imported
from structjob.exceptions import Cancelled, InvalidArgument, JobCancelled, Terminated
from structjob.lifecycle.arguments import redacted
from structjob.lifecycle.rows import ErrorColumns
from structjob.models import ErrorInfo
from structjob.text.appearance import lasting
from structjob.values.normalizer import normalize, redacted_text

_CANCELLATIONS = (
    asyncio.CancelledError,
    Cancelled,
    GeneratorExit,
    JobCancelled,
    KeyboardInterrupt,
    Terminated,
)
_OTHER_CANCELLATIONS = (
    ("greenlet", "GreenletExit"),
    ("trio", "Cancelled"),
    ("click.exceptions", "Abort"),
    ("typer", "Abort"),
)
"""Cancellations of other schedulers, and of an unanswered prompt, by module and name. None of these
modules is imported here.
"""


_exceptions: Any = vars(BaseExceptionGroup)["exceptions"]
"""Reads the exceptions of a group, whatever its class defines under this name."""


def outcome(exc: BaseException | None) -> str:
    """Return the status of a job or step that *exc* leaves, or that ends without an exception."""
    if exc is None:
        return "completed"
    if _only(exc, (*_CANCELLATIONS, *imported(_OTHER_CANCELLATIONS))):
        return "cancelled"
    return "completed" if exits_cleanly(exc) else "failed"


def _only(exc: BaseException, kinds: tuple[type[BaseException], ...]) -> bool:
    """Return whether *exc* is one of *kinds*, or a group of nothing else: a nursery of Trio groups
    the cancellations of its tasks.
    """
    left, groups = [exc], set[int]()
    while left:
        one = left.pop()
        # not `isinstance`, because it reads an attribute of the exception, which may raise
        if issubclass(type(one), BaseExceptionGroup):
            if id(one) not in groups:
                groups.add(id(one))
                left.extend(_exceptions.__get__(one))
        elif not issubclass(type(one), kinds):
            return False
    return True


def ending(
    what: str, status: str | None, error: BaseException | None, choices: tuple[str, ...]
) -> str:
    """Return the status with which *what* ends.

    The caller may give it as *status*. By default it follows from *error*.

    Raises:
        InvalidArgument: if the status is not one of *choices*, *error* is not an exception, or the
            two contradict each other.
    """
    # Not `isinstance`, because it reads an attribute of the object, which may raise.
    if error is not None and not issubclass(type(error), BaseException):
        raise InvalidArgument(
            f"error must be an exception, not {type(error).__name__}: {str(normalize(error))[:100]!r}"
        )
    if status is None:
        return outcome(error)
    if status not in choices:
        raise InvalidArgument(
            f"{what} ends {', '.join(choices[:-1])} or {choices[-1]}, not {status!r}"
        )
    if status == "completed" and error is not None and not exits_cleanly(error):
        raise InvalidArgument(
            f"{what} that is completed has no error: leave out the status, or end it failed"
        )
    return status


def duration_fields(seconds: float) -> dict[str, Any]:
    return {"duration_ms": round(seconds * 1000, 3), "duration_str": lasting(seconds)}


def add_error(row: ErrorColumns, error: ErrorInfo | None) -> None:
    """Put *error*, if there is one, into the *row* of the job or step that it ended."""
    if type(error) is not ErrorInfo:
        return
    row.error_type = normalize(redacted(error.type))[:200]
    row.error_message, row.error_traceback = (
        None if text is None else redacted_text(text, redacted)
        for text in (error.message, error.traceback)
    )


def followed(summary: Mapping[str, Any]) -> bool:
    """Return whether another attempt follows the one with *summary*: it is not yet a failure."""
    return "retry_delay" in summary
