"""The result of a check, and how its numbers are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check.

    Args:
        check: The name of the check.
        verdict: ``ok``, ``warning`` (it works now, but may soon fail) or ``problem``.
        found: What was found.
        advice: How to fix it.
        details: The same as numbers, for programs.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


def ok(check: str, found: str, details: dict[str, Any] | None = None) -> Finding:
    """Return a finding that nothing is wrong; the arguments are those of `Finding`."""
    return Finding(check, "ok", found, None, details or {})


def warning(
    check: str, found: str, advice: str | None = None, details: dict[str, Any] | None = None
) -> Finding:
    """Return a finding that something may soon fail; the arguments are those of `Finding`."""
    return Finding(check, "warning", found, advice, details or {})


def problem(check: str, found: str, advice: str | None = None) -> Finding:
    """Return a finding that something fails; the arguments are those of `Finding`."""
    return Finding(check, "problem", found, advice, {})
