"""How much is done, in figures: rounded down, so that all of it is shown only where nothing is
left.
"""

from __future__ import annotations

import math
from decimal import ROUND_DOWN, Decimal

_ROUNDING = 1e-9
"""Share of a whole by which a sum of fractions may be off by rounding: eight times 0.1 is all of
0.8.
"""
_DIGITS = 12
"""Digits of a fraction that count, for the same reason."""
_ALMOST_ALL = math.nextafter(100.0, 0.0)


def percent_of(done: float, total: float) -> float:
    """Return *done* as a percentage of *total*, which is not 0: 0–100, and 100 only if nothing is
    left.
    """
    if done >= total or (not _is_whole(done) and done >= total * (1 - _ROUNDING)):
        return 100.0
    return min(done / total * 100, _ALMOST_ALL)


def whole_percent(percent: float) -> int:
    """Return *percent* (0–100) without its fraction."""
    return 100 if percent >= 100 else min(int(percent + _ROUNDING), 99)


def units(value: float) -> str:
    """Return a number of units, rounded down to two decimals; of less than one unit, to two digits
    that are not 0.
    """
    if _is_whole(value):
        return f"{value:,.0f}"
    number = Decimal(f"{value:.{_DIGITS}g}")
    places = max(2, 1 - number.adjusted())
    text = f"{number.quantize(Decimal(1).scaleb(-places), ROUND_DOWN):,f}"
    return text.rstrip("0").rstrip(".")


def _is_whole(value: float) -> bool:
    return type(value) is int or float(value).is_integer()
