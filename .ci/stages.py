#!/usr/bin/env python3
"""Runs stages of tests, and at the end, once more and alone, the tests that failed.

    .ci/stages.py KEPT NAME COMMAND...

runs a command that ends in pytest, as the stage NAME. Failed tests are kept in the directory KEPT,
and the exit code is 0 as long as there are at most two of them in all stages together. The ten
slowest tests are printed.

    .ci/stages.py KEPT

runs each of them once more, with nothing beside it. It prints `FLAKY: name` for each one that
passes now, and last how many passed; the exit code is 1 if one fails again.

A stage's pytest is the one that its command finds: what it needs is told by the environment, so
that the command runs as it stands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

MOST = 2
"""Tests that may fail and pass when they run once more, in all stages together."""

_FAILED = 1
"""pytest's exit code where tests failed. Any other says that the run itself went wrong."""


class Stage:
    """One run of pytest: its command, how many tests passed, and the names of those that failed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def command(self) -> list[str]:
        return json.loads((self.directory / "command.json").read_text())

    @property
    def failed(self) -> list[str]:
        kept = self.directory / "cache/v/cache/lastfailed"
        return sorted(json.loads(kept.read_text())) if kept.exists() else []

    @property
    def passed(self) -> int:
        tests = ElementTree.parse(self.directory / "junit.xml").iter("testcase")
        return sum(
            all(test.find(how) is None for how in ("failure", "error", "skipped")) for test in tests
        )

    def run(self, command: list[str]) -> int:
        self.directory.mkdir(parents=True)
        (self.directory / "command.json").write_text(json.dumps(command))
        return self._run(f"--junitxml={self.directory / 'junit.xml'}")

    def run_failed(self) -> int:
        return self._run("--lf --lfnf=none -n 0")

    def _run(self, options: str) -> int:
        usual = f"--durations=10 --durations-min=1 -o cache_dir={self.directory / 'cache'}"
        options = f"{os.environ.get('PYTEST_ADDOPTS', '')} {usual} {options}"
        return subprocess.run(
            self.command, env={**os.environ, "PYTEST_ADDOPTS": options.strip()}, check=False
        ).returncode


def run(kept: Path, name: str, command: list[str]) -> int:
    """Run a stage; return the exit code."""
    kept.mkdir(exist_ok=True)
    stage = Stage(kept / f"{len(_stages(kept))}-{name}")
    if (code := stage.run(command)) != _FAILED:
        return code
    failed = [test for stage in _stages(kept) for test in stage.failed]
    if not failed or len(failed) > MOST:
        print(
            f"{len(failed)} tests failed, and at most {MOST} are run once more:",
            *failed,
            sep="\n  ",
            file=sys.stderr,
        )
        return 1
    print(f"{len(failed)} failed so far; at the end they are run once more")
    return 0


def finish(kept: Path) -> int:
    """Run what failed once more; return the exit code."""
    passed = 0
    for stage in _stages(kept):
        failed = stage.failed
        if failed and stage.run_failed():
            print(f"failed again, of: {' '.join(failed)}", file=sys.stderr)
            return 1
        for name in failed:
            print(f"FLAKY: {name}")
        passed += stage.passed + len(failed)
    print(f"{passed} passed, 0 failed")
    return 0


def _stages(kept: Path) -> list[Stage]:
    return [Stage(directory) for directory in sorted(kept.iterdir())]


if __name__ == "__main__":
    where, *rest = sys.argv[1:]
    sys.exit(run(Path(where), rest[0], rest[1:]) if rest else finish(Path(where)))
