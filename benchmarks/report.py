"""Converts samples to the table and the JSON file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from benchmarks.registry import Benchmark, Row
from benchmarks.runner import Outcome

LIBRARIES = (
    *(
        "structjob",
        "structlog",
        "msgspec",
        "SQLAlchemy",
        "alembic",
        "aiosqlite",
        "click",
        "rich",
        "tenacity",
        "anyio",
    ),
    *("orjson", "loguru", "opentelemetry-sdk", "logfire", "eliot", "prefect"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row with its numbers: medians over the rounds, and the median of each round's
    comparison.
    """

    label: str
    work: str
    unit: str
    ours: float | None
    peer_name: str | None
    peer: float | None
    compare: str
    value: float | None
    """Ours ÷ peer, or ours - peer, or ours if there is no peer."""
    mark: str
    met: bool | None
    """Whether the mark is met; ``None`` if there is no mark or no value."""


def machine() -> dict[str, Any]:
    """Return the conditions that the numbers depend on, without anything that identifies the
    machine.
    """
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "switch_interval": sys.getswitchinterval(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": versions,
    }


def judge(row: Row, outcomes: dict[str, Outcome]) -> Line:
    """Compare the outcomes for *row*; the best peer is the one with the best median."""
    ours = _values(outcomes[row.ours], row.metric)
    present = {
        name: values
        for name in row.peers
        if (values := _values(outcomes[name], row.peer_metric or row.metric))
    }
    best = (min if row.better == "lower" else max)(
        present, key=lambda name: statistics.median(present[name]), default=None
    )
    mark = _mark(row)
    facts = {
        "label": row.label,
        "work": row.work,
        "unit": row.unit,
        "compare": row.compare if row.peers else "value",
        "mark": mark,
    }
    if not ours or (row.peers and best is None):
        median = statistics.median(ours) if ours else None
        return Line(**facts, ours=median, peer_name=best, peer=None, value=None, met=None)
    beside = present[best] if best else None
    value = _value(row, ours, beside)
    met = (
        None
        if not mark
        else (value <= row.at_most if row.at_most is not None else value >= (row.at_least or 0))
    )
    peer = statistics.median(beside) if beside else None
    return Line(
        **facts, ours=statistics.median(ours), peer_name=best, peer=peer, value=value, met=met
    )


def _values(outcome: Outcome, metric: str) -> list[float]:
    return [sample[metric] for sample in outcome.samples if metric in sample]


def _value(row: Row, ours: list[float], peer: list[float] | None) -> float:
    if peer is None:
        return statistics.median(ours)
    if row.compare == "difference":
        return statistics.median(a - b for a, b in zip(ours, peer, strict=False))
    if not any(peer):
        return float("inf")
    return statistics.median(a / b if b else float("inf") for a, b in zip(ours, peer, strict=False))


def _mark(row: Row) -> str:
    sign, limit = ("≤", row.at_most) if row.at_most is not None else ("≥", row.at_least)
    if limit is None:
        return ""
    if not row.peers:
        return f"{sign} {limit:g} {row.unit}"
    if row.compare == "difference":
        return f"{sign} {limit:+g} {row.unit}"
    return f"{sign} {limit:.2g} ×" if limit >= 0.3 else f"{sign} 1/{1 / limit:.0f} ×"


def notes(outcomes: dict[str, Outcome]) -> list[str]:
    """Return a line for every case without samples: what is not installed, and what failed."""
    missing = [
        f"{name}: {outcome.missing}" for name, outcome in outcomes.items() if outcome.missing
    ]
    return missing + [
        f"{name} failed: {outcome.failed}" for name, outcome in outcomes.items() if outcome.failed
    ]


def table(lines: list[Line], *, judged: bool = True) -> str:
    """Return the lines as a Markdown table that is readable as plain text.

    *judged* decides whether the table says that marks are met.
    """
    head = ["#", "work", "ours", "peer", "ratio", "mark", "met?"]
    cells = [
        head,
        *(
            [
                line.label,
                line.work,
                _ours(line),
                _peer(line),
                _shown(line),
                line.mark or "—",
                _met(line, judged),
            ]
            for line in lines
        ),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rows.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(rows)


def _ours(line: Line) -> str:
    return "—" if line.ours is None else f"{_number(line.ours)} {line.unit}"


def _peer(line: Line) -> str:
    if line.peer is None:
        return line.peer_name or "—"
    return f"{_number(line.peer)} ({line.peer_name})"


def _shown(line: Line) -> str:
    if line.value is None or line.compare == "value":
        return "—"
    if line.compare == "difference":
        return f"{line.value:+.3g} {line.unit}"
    return f"{line.value:.2f} ×" if line.value < 1000 else "∞"


def _met(line: Line, judged: bool) -> str:
    if not line.mark or not judged:
        return "—"
    return {True: "yes", False: "NO", None: "not measured"}[line.met]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def document(
    results: dict[str, tuple[Benchmark, dict[str, Outcome], list[Line]]],
    *,
    smoke: bool,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Return all measurements, ready for JSON."""
    return {
        "machine": facts,
        "smoke": smoke,
        "benchmarks": {
            name: {
                "title": benchmark.title,
                "size": dict(benchmark.smoke if smoke else benchmark.size),
                "cases": {case: _case(outcome) for case, outcome in outcomes.items()},
                "rows": [_finite(asdict(line)) for line in lines],
            }
            for name, (benchmark, outcomes, lines) in results.items()
        },
    }


def _case(outcome: Outcome) -> dict[str, Any]:
    metrics = dict.fromkeys(metric for sample in outcome.samples for metric in sample)
    medians = {metric: statistics.median(_values(outcome, metric)) for metric in metrics}
    return {
        "samples": outcome.samples,
        "medians": medians,
        "missing": outcome.missing,
        "failed": outcome.failed,
    }


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """Replace an infinite value by ``None``, because JSON has no infinity; a peer at 0 causes
    it.
    """
    return {**line, "value": None if line["value"] == float("inf") else line["value"]}
