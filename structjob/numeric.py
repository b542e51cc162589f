"""Which values are numbers. A bool is not, although Python treats it as one."""

from __future__ import annotations

from typing import TypeGuard


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether *value* is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether *value* is an integer or a float."""
    return isinstance(value, int | float) and not isinstance(value, bool)
