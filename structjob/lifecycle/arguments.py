"""What callers pass to jobs and steps, checked where the mistake is made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from structjob.encoding import normalise
from structjob.exceptions import InvalidArgument


def check_text(what: str, value: str | None, limit: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} must be text, not {type(value).__name__}: {value!r}")
    if not value:
        raise InvalidArgument(f"{what} must not be empty; leave it out instead")
    # The same cleaning as in any logged text, so that every database can hold it; a character may take more room then.
    text = str(normalise(value)) if len(value) <= limit else value
    if len(text) > limit:
        raise InvalidArgument(f"{what} must have at most {limit} characters, this one has {len(text)}: {text[:40]!r}…")
    return text


def check_mapping(what: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidArgument(f"{what} must be a mapping, not {type(value).__name__}")
    try:
        return dict(value)
    except Exception:  # noqa: BLE001 -- a mapping that cannot be copied can still be described
        plain = normalise(value)
        return plain if isinstance(plain, dict) else {"value": plain}


def check_percent(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 100:
        raise InvalidArgument(f"percent must be a number from 0 to 100, not {value!r}")
    return float(value)


def check_units(what: str, value: float, most: float = math.inf) -> float:
    number = math.nan
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        with suppress(OverflowError):  # larger than any column takes
            number = float(value)
    if not math.isfinite(number) or number < 0:
        raise InvalidArgument(f"{what} must be a number that is not negative, not {normalise(value)!r}")
    if number > most:
        raise InvalidArgument(f"{what} must be at most {most:,}, not {normalise(value)!r}")
    # A plain number, whatever subclass it came as (NumPy's, say): that is what can be recorded.
    return number if isinstance(value, float) else int(value)


def check_coroutine_function(function: Any, what: str) -> None:
    if not inspect.iscoroutinefunction(function):
        name = getattr(function, "__qualname__", repr(function))
        raise InvalidArgument(f"{what} decorates coroutine functions (async def), and {name} is none; use it within one, with `async with`")
