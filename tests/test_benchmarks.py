"""The benchmarks run, at sizes that measure nothing, and write what their readers expect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import pytest
from cli_support import preforked
from each import each
from servers import server_url

from benchmarks import databases, registry, report, runner
from benchmarks.__main__ import main
from benchmarks.registry import Benchmark, Case, Row
from benchmarks.runner import Outcome

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = registry.load()


def _measured(**samples: list[float]) -> dict[str, Outcome]:
    return {
        name: Outcome(samples=[{"us": value} for value in values])
        for name, values in samples.items()
    }


def _row(**how: object) -> Row:
    return Row("B0", "work", "us", "µs", **{"ours": "ours", "peers": ("slow", "fast"), **how})


def _forked(words: Sequence[str], directory: Path, stderr: IO[bytes], timeout: float) -> int:
    """Run `benchmarks.child` as `runner.child` does, but without the imports of a new process."""
    program = "import sys; from benchmarks import child; child.main(*sys.argv[1:])"
    no = subprocess.DEVNULL
    process = preforked.start(
        program, words, directory, runner.environment(), stdin=no, stdout=no, stderr=stderr
    )
    try:
        return process.wait(timeout)
    finally:
        process.close()


@pytest.mark.slow
@pytest.mark.timeout(310)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_smoke_size_runs_and_writes_json(name, tmp_path, monkeypatch, capsys):
    """`--smoke` runs every case of a benchmark that is installed, servers included; the JSON holds
    the machine, every sample, the rows.
    """
    monkeypatch.setenv("BENCH_POSTGRESQL", server_url("postgresql"))
    monkeypatch.setenv("BENCH_MARIADB", server_url("mariadb"))
    monkeypatch.setenv(databases.HISTORIES, str(tmp_path))
    monkeypatch.setattr(runner, "child", _forked)
    target = tmp_path / "result.json"
    code = main([name, "--smoke", "--json", str(target)])
    assert code == 0, capsys.readouterr()
    document = json.loads(target.read_text())
    assert document["smoke"] is True
    assert {"python", "cores", "sqlite", "libraries", "date"} <= document["machine"].keys()
    measured = document["benchmarks"][name]
    assert measured["cases"].keys() == {case.name for case in BENCHMARKS[name].cases}
    for case, outcome in measured["cases"].items():
        assert outcome["failed"] is None, f"{case}: {outcome['failed']}"
        # a peer, that is
        if outcome["missing"] is None or not outcome["missing"].endswith(" is not installed"):
            assert len(outcome["samples"]) == 1
            assert outcome["medians"] == outcome["samples"][0]
    assert len(measured["rows"]) == len(BENCHMARKS[name].rows)
    assert {"label", "work", "ours", "peer", "value", "mark", "met"} <= measured["rows"][0].keys()


@pytest.mark.slow
def test_the_command_prints_the_table():
    """`python -m benchmarks` prints the table, and ends with 0 where each case has run."""
    command = [sys.executable, "-m", "benchmarks", "b6", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(row.label in done.stdout for row in BENCHMARKS["b6"].rows)


@each("name", BENCHMARKS)
def test_rows_name_cases_that_exist(name):
    """Every row compares cases of its own benchmark."""
    benchmark = BENCHMARKS[name]
    cases = {case.name for case in benchmark.cases}
    assert {row.ours for row in benchmark.rows} | {
        peer for row in benchmark.rows for peer in row.peers
    } <= cases


def test_ratio_is_the_median_of_the_rounds_ratios_beside_the_best_peer():
    """A slow round slows both sides, so each round is compared with itself."""
    line = report.judge(
        _row(at_most=0.5), _measured(ours=[1, 4, 1], slow=[9, 9, 9], fast=[2, 8, 4])
    )
    assert (line.peer_name, line.ours, line.peer, line.value, line.met) == ("fast", 1, 4, 0.5, True)


def test_difference_is_judged_in_the_metrics_unit():
    """`compare="difference"` subtracts the peer."""
    line = report.judge(
        _row(compare="difference", at_most=1),
        _measured(ours=[5, 6, 7], slow=[9, 9, 9], fast=[3, 4, 5]),
    )
    assert (line.value, line.met, line.mark) == (2, False, "≤ +1 µs")


def test_value_alone_is_judged_where_there_is_no_peer():
    """A row without peers judges the value itself."""
    line = report.judge(_row(peers=(), at_most=60), _measured(ours=[70, 50, 55]))
    assert (line.value, line.met, line.mark) == (55, True, "≤ 60 µs")


def test_peer_at_zero_is_beaten_without_limit():
    """Something beside nothing is an infinite ratio in the table, and null in the JSON."""
    line = report.judge(
        _row(better="higher", at_least=1), _measured(ours=[5, 5], slow=[0, 0], fast=[0, 0])
    )
    assert line.met is True
    assert "∞" in report.table([line])


def test_missing_peer_is_told_and_not_an_error():
    """A row whose peer is not installed stays in the table, unjudged, with the reason."""
    outcomes = {
        **_measured(ours=[1, 1]),
        "slow": Outcome(missing="absent is not installed"),
        "fast": Outcome(missing="absent is not installed"),
    }
    line = report.judge(_row(at_most=0.5), outcomes)
    assert line.met is None
    assert "not measured" in report.table([line])
    assert "fast: absent is not installed" in report.notes(outcomes)


def test_missing_and_failing_cases_are_outcomes():
    """A case whose module is absent is not run; one that fails ends with what it said last."""
    cases = (Case("absent", dict, needs=("no_such_module",)), Case("unknown to the child", dict))
    benchmark = Benchmark("b1", "", cases=cases, rows=(), size={}, smoke={})
    outcomes = runner.run(benchmark, rounds=1, smoke=True)
    assert outcomes["absent"].missing == "no_such_module is not installed"
    assert "StopIteration" in outcomes["unknown to the child"].failed


def test_a_server_that_nobody_named_is_told_and_not_an_error(monkeypatch):
    """Without its URL in the environment a case on a server is left out, with the reason."""
    monkeypatch.delenv("BENCH_POSTGRESQL", raising=False)
    benchmark = Benchmark(
        "b0",
        "",
        cases=(Case("server", dict, server="BENCH_POSTGRESQL"),),
        rows=(),
        size={},
        smoke={},
    )
    assert (
        runner.run(benchmark, rounds=1, smoke=True)["server"].missing
        == "BENCH_POSTGRESQL is not set"
    )


def test_measured_processes_run_as_a_users_do(monkeypatch):
    """What tells Python how to run here tells the measured process nothing: it would be compiled at
    each start, for one.
    """
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert runner.environment().keys() & {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} == set()


def test_measured_processes_know_no_database_of_the_users(monkeypatch):
    """No environment variable makes a benchmark write to a real database."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://production")
    monkeypatch.setenv("STRUCTJOB_DATABASE_URL", "postgresql://production")
    environment = runner.environment()
    assert "production" not in " ".join(environment.values())
    assert str(ROOT) in environment["PYTHONPATH"].split(os.pathsep)
