"""Runs the cases of a benchmark: each in a new process and an empty directory, in turn, in
rounds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.registry import Benchmark, Case

ROOT = Path(__file__).resolve().parent.parent


@dataclass(slots=True)
class Outcome:
    """The result of one case: a sample per round, or the reason why there are no samples."""

    samples: list[dict[str, float]] = field(default_factory=list)
    missing: str | None = None
    """The missing requirement."""
    failed: str | None = None
    """The last line of the process's output."""


def run(
    benchmark: Benchmark, *, rounds: int, smoke: bool, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Outcome]:
    """Measure every case of *benchmark* and return the outcomes by case name.

    The order rotates by one case each round, so that no case always follows the same one. A case
    that failed once is not run again.
    """
    size = benchmark.smoke if smoke else benchmark.size
    rounds = 1 if smoke else max(rounds, benchmark.rounds)
    outcomes = {case.name: Outcome(missing=_missing(case)) for case in benchmark.cases}
    for number in range(rounds):
        turn = number % len(benchmark.cases)
        for case in benchmark.cases[turn:] + benchmark.cases[:turn]:
            outcome = outcomes[case.name]
            if outcome.missing or outcome.failed:
                continue
            tell(f"{benchmark.name} {number + 1}/{rounds} {case.name}")
            try:
                outcome.samples.append(measure(benchmark, case, {**size, **case.options}))
            except RuntimeError as error:
                outcome.failed = str(error)
    return outcomes


def measure(benchmark: Benchmark, case: Case, keywords: dict[str, Any]) -> dict[str, float]:
    """Run one case once in its own process.

    Raises:
        RuntimeError: if the process fails or takes too long; the message is its last output.
    """
    with tempfile.TemporaryDirectory(
        prefix="structjob-bench-", ignore_cleanup_errors=True
    ) as directory:
        work = Path(directory, "work")
        work.mkdir()
        result, said = Path(directory, "result.json"), Path(directory, "stderr")
        words = (benchmark.name, case.name, json.dumps(keywords), str(result))
        with said.open("wb") as stderr:
            try:
                code = child(words, work, stderr, benchmark.timeout)
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"not done within {benchmark.timeout:g} s") from None
        if code or not result.exists():
            raise RuntimeError(_last_line(said) or f"exit code {code}")
        return json.loads(result.read_text())


def child(words: Sequence[str], directory: Path, stderr: IO[bytes], timeout: float) -> int:
    """Run `benchmarks.child` in a new process; return its exit code."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.child", *words],
        cwd=directory,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        timeout=timeout,
        check=False,
    ).returncode


def environment() -> dict[str, str]:
    """Return the environment of a measured process.

    The checkout is importable, and no variable configures where structjob writes. Variables that
    configure Python are removed, too: for example, with PYTHONDONTWRITEBYTECODE each start would
    compile what is not installed.
    """
    foreign = ("STRUCTJOB_", "OTEL_", "LOGFIRE_", "LOGURU_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    kept.pop("DATABASE_URL", None)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _missing(case: Case) -> str | None:
    if module := next((module for module in case.needs if not _importable(module)), None):
        return f"{module} is not installed"
    return (
        f"{case.server} is not set"
        if case.server is not None and not os.environ.get(case.server)
        else None
    )


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the parent package is absent
        return False


def _last_line(said: Path) -> str:
    lines = said.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
