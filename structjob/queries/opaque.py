"""Positions that callers keep as text: the cursor of a page or a tail, the state of a watch."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from structjob.exceptions import InvalidFilter

T = TypeVar("T")


def as_text(packed: bytes) -> str:
    """Return bytes as text that an address may contain."""
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def from_text(text: object, unpack: Callable[[bytes], T], wrong: str) -> T:
    """Return what *unpack* makes of the bytes in *text*.

    Raises:
        InvalidFilter: with the message *wrong*, if `as_text` did not return this text.
    """
    if not isinstance(text, str):
        raise InvalidFilter(wrong)
    try:
        padded = text + "=" * (-len(text) % 4)
        return unpack(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise InvalidFilter(wrong) from None


def check_times(times: Iterable[datetime], wrong: str) -> None:
    """Refuse the times of a forged text that have no time zone, or no equivalent in UTC."""
    for time in times:
        try:
            if time.tzinfo is not None and time.astimezone(UTC):
                continue
        except OverflowError:
            pass
        raise InvalidFilter(wrong)


def check_numbers(numbers: Iterable[int], wrong: str) -> None:
    """Refuse the numbers of a forged text, which a driver would refuse in its own way."""
    if not all(0 <= number < 2**63 for number in numbers):
        raise InvalidFilter(wrong)
