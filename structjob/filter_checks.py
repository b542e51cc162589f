"""The checks of the values that filters take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from structjob.exceptions import InvalidFilter
from structjob.numeric import is_whole
from structjob.statuses import ErrorStatus, JobStatus

MAX_LIMIT = 10_000
"""Maximum number of rows in one page of a listing."""

Moment = datetime | timedelta
"""A time: a datetime with a time zone, or a `timedelta` before now."""


def as_utc(name: str, value: Moment | None) -> datetime | None:
    """Return the time *value* of the filter *name* in UTC.

    Raises:
        InvalidFilter: if it is not a time, or has no time zone.
    """
    if value is None:
        return None
    try:
        if isinstance(value, timedelta):
            return datetime.now(UTC) - abs(value)
        if isinstance(value, datetime):
            if value.utcoffset() is None:
                raise InvalidFilter(
                    f"{name} has no time zone ({value.isoformat()}): write datetime.now(UTC) for the present, "
                    f"{name}.astimezone() for a local time, {name}.replace(tzinfo=UTC) for one in UTC"
                )
            return value.astimezone(UTC)
    except OverflowError:
        raise InvalidFilter(
            f"{name} is a time before the year 1 or after 9999 ({value}): leave it out"
        ) from None
    raise InvalidFilter(
        f"{name} must be a datetime or a timedelta before now, not {type(value).__name__}"
    )


def as_statuses(
    status: object, kind: type[JobStatus | ErrorStatus] = JobStatus
) -> tuple[str, ...] | None:
    """Return the statuses of a filter, which takes one or several, without duplicates.

    Raises:
        InvalidFilter: if it names no status, or an unknown one.
    """
    if status is None:
        return None
    if not isinstance(status, Iterable):
        raise InvalidFilter(f"status must be a status, or several, not {status!r}")
    given = (status,) if isinstance(status, str) else tuple(status)
    if not given:  # it would find everything, where a program that computes it means nothing
        raise InvalidFilter(f"status must be a status, or several, not {status!r}")
    if kind is JobStatus:
        given = tuple("cancelled" if each == "canceled" else each for each in given)
    known = [each.value for each in kind]
    for each in given:
        if each not in known:
            raise InvalidFilter(f"unknown status {each!r}: use one of {', '.join(known)}")
    return tuple(dict.fromkeys(given))  # each status is queried separately, so remove duplicates


def check_plain(given: object) -> None:
    """Raise `InvalidFilter` for values of a wrong kind.

    These are flags that are not True or False, several values of a field that takes one text, and
    text that no database accepts.
    """
    for field in fields(given):  # type: ignore[arg-type]  # every filter is a dataclass
        value = getattr(given, field.name)
        if (
            field.type in ("bool", "bool | None")
            and not isinstance(value, bool)
            and not (value is None and field.default is None)
        ):
            raise InvalidFilter(f"{field.name} must be True or False, not {value!r}")
        if (
            field.type == "str | None"
            and isinstance(value, Iterable)
            and not isinstance(value, str)
        ):
            raise InvalidFilter(f"{field.name} must be one text, not {value!r}")
        for text in _texts(value):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidFilter(
                    f"{field.name} contains a lone surrogate, which no database can store: {value!r}"
                ) from None


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


MAX_VALUES = 50
"""Maximum number of values that one filter takes."""


def values_of(value: Any) -> tuple[Any, ...]:
    """Return the values of a filter field as a tuple."""
    return () if value is None else value if isinstance(value, tuple) else (value,)


def one_or_several(name: str, value: Any) -> Any:
    """Return a value of the filter *name*: several as a tuple without duplicates.

    Raises:
        InvalidFilter: if there are too many, or not all are text.
    """
    if value is None or isinstance(value, str) or not isinstance(value, Iterable):
        return value
    values = tuple(dict.fromkeys(value))
    if not 1 <= len(values) <= MAX_VALUES or not all(isinstance(one, str) for one in values):
        raise InvalidFilter(f"{name} must be text, or 1 to {MAX_VALUES} of them, not {value!r}")
    return values[0] if len(values) == 1 else values


def check_values(name: str, value: object, known: Iterable[str]) -> None:
    """Raise `InvalidFilter` unless the values of the filter *name* are among *known*."""
    for one in values_of(value):
        if one not in known:
            raise InvalidFilter(f"{name} must be one of {', '.join(known)}, not {one!r}")


def check_paths(name: str, given: object) -> None:
    """Raise `InvalidFilter` unless the filter *name* is a mapping, or None."""
    if given is not None and not isinstance(given, Mapping):
        raise InvalidFilter(
            f"{name} must be a mapping of attribute to value, not {type(given).__name__}"
        )


def check_limit(
    limit: int, name: str = "limit", *, hint: str = "; ask for more with the page's cursors"
) -> None:
    """Raise `InvalidFilter` unless *limit* is a valid number of rows."""
    check_whole(name, limit, 1, MAX_LIMIT, hint)


def check_whole(name: str, value: object, least: int, most: int, hint: str = "") -> None:
    """Raise `InvalidFilter` unless *value* is a whole number from *least* to *most*."""
    if not is_whole(value) or not least <= value <= most:
        raise InvalidFilter(
            f"{name} must be a whole number from {least} to {most:,}, not {value!r}{hint}"
        )


def check_order(order: str) -> None:
    """Raise `InvalidFilter` unless *order* is ``asc`` or ``desc``."""
    if order not in ("asc", "desc"):
        raise InvalidFilter(
            f"order must be 'asc' (oldest first) or 'desc' (newest first), not {order!r}"
        )


def check_window(selection: Any) -> None:
    """Convert the times of a filter to datetimes in UTC.

    Raises:
        InvalidFilter: if a time is invalid, or ``since`` is after ``until``.
    """
    for name in ("since", "until"):
        object.__setattr__(selection, name, as_utc(name, getattr(selection, name)))
    check_span(selection.since, selection.until)


def check_span(since: datetime | None, until: datetime | None) -> None:
    """Raise `InvalidFilter` if *since* is after *until*."""
    if since is not None and until is not None and since > until:
        raise InvalidFilter(
            f"since ({since.isoformat()}) is after until ({until.isoformat()}): swap them"
        )
