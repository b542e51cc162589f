"""What a benchmark is: cases that measure, rows that compare, and the list of all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import benchmarks

Measured = Mapping[str, float]
"""What one run of a case returns: metric → value."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure, run in a process of its own.

    Args:
        name: How the table and the JSON call it.
        run: Called with the benchmark's size and *options* as keywords, in an empty working
            directory that is removed afterwards.
        needs: Modules that must be importable; a case whose peer is not installed is reported as
            such.
        server: Environment variable with the URL of a server that it needs, see
            `benchmarks.databases`.
        options: Keywords of this case only.
    """

    name: str
    run: Callable[..., Measured]
    needs: tuple[str, ...] = ()
    server: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a metric of ours beside the same metric of the best of some peers.

    Args:
        label: The benchmark's number, as ``B1'``.
        work: What is measured, in words.
        metric: The key in what the cases return.
        unit: What the metric counts, for the reader.
        ours: The case that is ours.
        peers: The cases to stand beside; the best of them counts. None of them: the value itself is
            judged.
        peer_metric: The key in what the peers return, where it is another.
        better: Which end of the metric is good; it decides who is the best peer.
        compare: Whether the mark is on ours ÷ peer, or on ours - peer.
        at_most: The mark, where less is wanted.
        at_least: The mark, where more is wanted; with neither the row only informs.
    """

    label: str
    work: str
    metric: str
    unit: str
    ours: str
    peers: tuple[str, ...] = ()
    peer_metric: str | None = None
    better: Literal["lower", "higher"] = "lower"
    compare: Literal["ratio", "difference"] = "ratio"
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A set of cases that are measured in turn, and the rows that compare them.

    Args:
        name: What the command line calls it.
        title: What is compared, in one line.
        cases: Ours and the peers'.
        rows: The lines of the table.
        size: The keywords every case gets.
        smoke: The same keywords, as small as still runs every line of code.
        rounds: At least so many, whatever the command line says.
        timeout: Seconds one run of a case may take.
    """

    name: str
    title: str
    cases: tuple[Case, ...]
    rows: tuple[Row, ...]
    size: Mapping[str, Any]
    smoke: Mapping[str, Any]
    rounds: int = 5
    timeout: float = 180

    def case(self, name: str) -> Case:
        """Return the case called *name*."""
        return next(case for case in self.cases if case.name == name)


def load() -> dict[str, Benchmark]:
    """Import every ``b*.py`` and return the benchmarks by name, in order."""
    found = [
        importlib.import_module(f"{benchmarks.__name__}.{module.name}").BENCHMARK
        for module in pkgutil.iter_modules(benchmarks.__path__)
        if module.name.startswith("b") and module.name[1:2].isdigit()
    ]
    return {benchmark.name: benchmark for benchmark in sorted(found, key=lambda b: int(b.name[1:]))}
