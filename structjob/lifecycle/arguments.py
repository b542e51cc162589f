"""Checks of the arguments of jobs and steps, at the place where the caller makes a mistake."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from structjob.capture.setup import SETUP
from structjob.exceptions import InvalidArgument
from structjob.machine.loops import is_coroutine_function
from structjob.values.bounds import OF_VALUE
from structjob.values.normalizer import normalize
from structjob.values.redaction import identified, is_own_id

T = TypeVar("T")

MAX_DESCRIPTION = 65_536
"""Maximum characters of a description."""

_ROUNDING = 0.01
"""Rounding error allowed in a percentage: 100.00000000000001 means 100."""
_ROUNDING_UNITS = 1e-9
"""Rounding error allowed in units: -1e-17 means 0."""
_SHOWN = 100
"""Maximum characters of an invalid value that a message shows."""


def check_text(what: str, value: Any, limit: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        if callable(value) and hasattr(value, "__name__"):
            raise InvalidArgument(
                f"{what} must be text, not the function {value.__name__!r}; a decorator takes it in "
                f'parentheses: ("{value.__name__}")'
            )
        raise InvalidArgument(f"{what} must be text, not {type(value).__name__}: {value!r}")
    if not value:
        raise InvalidArgument(f"{what} must not be empty; leave it out instead")
    # Clean it like all logged text, so that every database can store it. This may make it longer.
    text = str(normalize(value)) if len(value) <= limit else value
    if len(text) > limit:
        raise InvalidArgument(
            f"{what} must have at most {limit} characters, this one has {len(text)}: {text[:40]!r}…"
        )
    return text


def check_metadata(value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict and not isinstance(value, Mapping):
        raise InvalidArgument(f"metadata must be a mapping, not {type(value).__name__}")
    try:
        return dict(value)
    except Exception:  # noqa: BLE001 -- a mapping that cannot be copied can still be described
        plain = normalize(value, OF_VALUE.limits[0])
        return plain if isinstance(plain, dict) else {"value": plain}


def check_percent(value: Any) -> float:
    number = _number(value)
    if number is None or not -_ROUNDING <= number <= 100 + _ROUNDING:
        raise InvalidArgument(f"percent must be a number from 0 to 100, not {_shown(value)}")
    return min(max(float(number), 0.0), 100.0)


def check_units(what: str, value: Any, most: float = math.inf) -> float:
    number = _number(value)
    if number is None or number < -_ROUNDING_UNITS:
        raise InvalidArgument(f"{what} must be a number that is not negative, not {_shown(value)}")
    if number > most:
        raise InvalidArgument(f"{what} must be at most {most:,}, not {_shown(value)}")
    return max(number, 0)


def _number(value: Any) -> int | float | None:
    """Return *value* as a plain number, or None if it is not a finite number.

    Numbers of other libraries are accepted (NumPy, `decimal`, `fractions`). Booleans are not.
    """
    kind = type(value)
    # Not `isinstance`, because it reads an attribute of the object. NumPy's booleans have
    # `__float__`, too.
    if issubclass(kind, bool) or kind.__name__ in ("bool", "bool_"):
        return None
    try:
        if hasattr(kind, "__index__"):
            whole = operator.index(value)
            return whole if math.isfinite(float(whole)) else None
        if hasattr(kind, "__float__"):
            number = float(value)
            return number if math.isfinite(number) else None
    except Exception:  # noqa: BLE001 -- larger than any column can hold, an array with many numbers, or a signaling NaN
        return None
    return None


def _shown(value: Any) -> str:
    text = repr(normalize(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def decorates_coroutines(function: Any, what: str) -> bool:
    """Return whether *function*, which *what* decorates, is a coroutine function.

    Raises:
        InvalidArgument: if it is not a function, or is a generator function. The body of a
            generator runs during the iteration, and would share its context with the iterating
            code.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function) or isinstance(function, type):
        raise InvalidArgument(f"{what} decorates functions and coroutine functions, not {name}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidArgument(
            f"{what} cannot decorate {name}: it is a generator function, whose body runs while it "
            "is iterated over; write `with` or `async with` within it"
        )
    return is_coroutine_function(function)


def redacted(text: str | None) -> str | None:
    """Return *text* without the credentials in it."""
    redactor = SETUP.redactor
    return text if text is None or redactor is None else redactor.text(text)


def check_label(what: str, value: Any, limit: int) -> str | None:
    """Check a text like `check_text`, and return it without the credentials in it.

    It is cut to *limit* again: the mark may be longer than the credential.
    """
    text = redacted(check_text(what, value, limit))
    return text if text is None else text[:limit]


def required(
    check: Callable[[str, Any, int], str | None], what: str, limit: int
) -> Callable[[Any], str]:
    """Return `check_text` or `check_label` as the check of a text that must not be None."""

    def checked(value: Any) -> str:
        text = check(what, value, limit)
        if text is None:
            raise InvalidArgument(f"{what} must be text, not None")
        return text

    return checked


def identifier(check: Callable[[Any], T]) -> Callable[[Any], T]:
    """Return a function that calls *check* for an id and removes credentials from the id.

    The result still differs from every other id.
    """

    def checked(value: Any) -> Any:
        if type(value) is str and is_own_id(value):
            return value
        text: Any = check(value)
        return text if text is None or SETUP.redactor is None else identified(text)

    return checked


check_operation = required(check_label, "operation", 255)
check_description = partial(check_label, "description", limit=MAX_DESCRIPTION)
check_current_step = partial(check_label, "current_step", limit=200)
check_job_id = identifier(required(check_text, "job_id", 64))
check_root_id = identifier(required(check_text, "root_job_id", 64))
check_correlation_id = identifier(required(check_text, "correlation_id", 128))


def check_category(value: str | None) -> str:
    return "system" if value is None else str(check_label("category", value, 64))


def check_total_steps(value: int | None) -> int | None:
    number = None if value is None else check_units("total_steps", value)
    if number is not None and number != int(number):
        raise InvalidArgument(f"total_steps must be a whole number, not {value!r}")
    return None if number is None else int(number)


def check_total(value: float | None) -> float | None:
    return None if value is None else check_units("total", value)
