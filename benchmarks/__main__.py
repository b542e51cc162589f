"""The command: ``python -m benchmarks [NAME ...] [--rounds N] [--json FILE] [--smoke]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks import databases, registry, report, runner


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and return 1 if a structjob case failed to run.

    A missed mark is reported, but is not an error.
    """
    known = registry.load()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure structjob beside its peers."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"benchmarks to run: {' '.join(known)} (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=5,
        help="rounds of every benchmark (default 5; some ask for more)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write every sample, the medians and the ratios to FILE",
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="one round of tiny sizes: does everything run? no mark is judged",
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(known)}")

    facts = report.machine()
    results = {}
    with tempfile.TemporaryDirectory(prefix="structjob-bench-", ignore_cleanup_errors=True) as kept:
        os.environ.setdefault(databases.HISTORIES, kept)
        for name in options.names or known:
            benchmark = known[name]
            outcomes = runner.run(benchmark, rounds=options.rounds, smoke=options.smoke, tell=_tell)
            results[name] = (
                benchmark,
                outcomes,
                [report.judge(row, outcomes) for row in benchmark.rows],
            )
            if options.json:  # after each benchmark, so that an interrupted run keeps its results
                document = report.document(results, smoke=options.smoke, facts=facts)
                options.json.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    _tell("")

    print(
        f"Python {facts['python']}, {facts['cores']} cores, SQLite {facts['sqlite']}, {facts['date'][:10]}, ",
        end="",
    )
    print(f"load {facts['load_average'][0]} before and {os.getloadavg()[0]:.2f} after", end="\n\n")
    print(
        report.table(
            [line for _, _, lines in results.values() for line in lines], judged=not options.smoke
        )
    )
    for name, (_, outcomes, _) in results.items():
        for note in report.notes(outcomes):
            print(f"\n{name} {note}", end="")
    print()
    ours = {
        (name, row.ours) for name, (benchmark, _, _) in results.items() for row in benchmark.rows
    }
    return int(any(results[name][1][case].failed for name, case in ours))


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
