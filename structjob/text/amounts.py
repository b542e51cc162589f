"""Amounts as text. What is done is rounded down, so that 100 % is shown only if nothing is left."""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Decimal

_ROUNDING = 1e-9
"""Relative rounding error allowed in a sum of fractions: eight times 0.1 is all of 0.8."""
_DIGITS = 12
"""Number of significant digits of a fraction, because of rounding errors."""
_ALMOST_ALL = math.nextafter(100.0, 0.0)


def percent_of(done: float, total: float) -> float:
    """Return *done* as a percentage of *total*, which must not be 0.

    The result is 0–100, and 100 only if nothing is left.
    """
    if done >= total or (not _is_whole(done) and done >= total * (1 - _ROUNDING)):
        return 100.0
    return min(done / total * 100, _ALMOST_ALL)


def whole_percent(percent: float) -> int:
    """Return *percent* (0–100) without its fraction."""
    return 100 if percent >= 100 else min(int(percent + _ROUNDING), 99)


def units(value: float) -> str:
    """Return a number of units as text, rounded down to two decimals.

    A number below 1 has two digits that are not 0.
    """
    if _is_whole(value):
        return f"{value:,.0f}"
    number = Decimal(f"{value:.{_DIGITS}g}")
    places = max(2, 1 - number.adjusted())
    return _cut(number, places, ",")


def fraction(value: float) -> str:
    """Return a number of a log line as shown: with four decimals, or four digits that are not 0 if
    it is below 1.

    Further digits are cut off, so that 99.99999 does not become 100. Very small and very large
    numbers have all their digits. `numberText` of the web pages does the same.
    """
    size = abs(value)
    if not 1e-6 <= size < 1e15:
        return str(value)
    number = Decimal(str(value))
    places = 4 if size >= 1 else 3 - number.adjusted()
    return _cut(number, places)


def in_bytes(number: int | None) -> str:
    """Return a number of bytes with a readable unit; ``?`` for None. `bytes` of the web pages does
    the same.
    """
    if number is None:
        return "?"
    value, names = float(number), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(names)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(names)
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def _cut(number: Decimal, places: int, grouping: str = "") -> str:
    """Return *number* without decimals after *places*, and without zeros at its end."""
    text = f"{number.quantize(Decimal(1).scaleb(-places), ROUND_DOWN):{grouping}f}"
    return text.rstrip("0").rstrip(".")


def _is_whole(value: float) -> bool:
    return type(value) is int or float(value).is_integer()
