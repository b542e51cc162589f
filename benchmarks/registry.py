"""The parts of a benchmark: cases that measure, rows that compare, and the list of all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import benchmarks

Measured = Mapping[str, float]
"""The result of one run of a case: metric → value."""


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, which runs in its own process.

    Args:
        name: Its name in the table and the JSON.
        run: Called with the benchmark's size and *options* as keywords, in an empty working
            directory that is removed afterwards.
        needs: Modules that must be importable; a case whose peer is not installed is reported as
            such.
        server: Environment variable with the URL of the server that it needs; see
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
    """One line of the table: structjob's metric, compared with that of the best of some peers.

    Args:
        label: The benchmark's number, for example ``B1'``.
        work: A description of what is measured.
        metric: The key in the results of the cases.
        unit: The unit of the metric, for the reader.
        ours: structjob's case.
        peers: The cases to compare with; the best of them counts. If empty, the value itself is
            judged.
        peer_metric: The key in the results of the peers, if it differs.
        better: Whether low or high values are good; this decides which peer is the best.
        compare: Whether the mark applies to ours ÷ peer or to ours - peer.
        at_most: The mark, if lower is better.
        at_least: The mark, if higher is better. A row without a mark only informs.
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
        name: Its name on the command line.
        title: What is compared, in one line.
        cases: structjob's and the peers' cases.
        rows: The lines of the table.
        size: The keywords of every case.
        smoke: The same keywords, as small as possible while every line of code still runs.
        rounds: Minimum number of rounds, whatever the command line says.
        timeout: Maximum number of seconds for one run of a case.
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
    return {name: benchmark(name) for name in sorted(_modules(), key=lambda name: int(name[1:]))}


def benchmark(name: str) -> Benchmark:
    """Import and return one of them alone: the others import libraries that it does not measure."""
    found: Benchmark = importlib.import_module(
        f"{benchmarks.__name__}.{_modules()[name]}"
    ).BENCHMARK
    return found


def _modules() -> dict[str, str]:
    """Return the modules by the name of their benchmark: ``b4_saturated`` is B4."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return {
        name.partition("_")[0]: name for name in names if name[0] == "b" and name[1:2].isdigit()
    }
