"""What `.ci/run` makes of tests that fail: each runs once more, and at most two may pass then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STAGES = Path(__file__).resolve().parent.parent / ".ci" / "stages.py"

pytestmark = pytest.mark.slow

TESTS = """
from pathlib import Path
import pytest

def fails_once(name):
    if not Path(name).exists():
        Path(name).touch()
        raise AssertionError(name)

@pytest.mark.parametrize("name", {names})
def test_fails_once(name): fails_once(name)

def test_passes(): pass

@pytest.mark.skipif({fails}, reason="not wanted")
def test_fails(): assert {passes}
"""


class Stages:
    """A directory with tests, and the script that runs them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, *names: str, fails: bool = False) -> None:
        """Write tests: one passes, those of *names* fail the first time, and perhaps one fails each
        time.
        """
        (self.directory / "test_it.py").write_text(
            TESTS.format(names=names, fails=not fails, passes=not fails)
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run the script; return its exit code, the last line of its stdout, and all that it
        printed.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
        command = [sys.executable, str(STAGES), str(self.directory / "kept"), *words]
        done = subprocess.run(
            command, cwd=self.directory, env=env, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.splitlines()[-1], done.stdout + done.stderr

    def stage(self, name: str) -> tuple[int, str, str]:
        return self.run(name, sys.executable, "-m", "pytest", "-q", "test_it.py")


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    """A directory of a test's own, which no configuration of ours reaches."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return Stages(tmp_path)


def test_a_test_that_passes_alone_is_named(stages: Stages) -> None:
    """Two tests of two stages fail, and pass when they run once more: the run goes on, names them
    at the end, and its last line counts.
    """
    stages.write("one")
    assert stages.stage("first")[0] == 0
    (stages.directory / "one").unlink()
    assert stages.stage("second")[0] == 0
    code, last, shown = stages.run()
    assert (code, last) == (0, "4 passed, 0 failed")
    assert shown.count("FLAKY: test_it.py::test_fails_once[one]\n") == 2


def test_three_are_too_many(stages: Stages) -> None:
    """The third test that fails ends the run, whichever stage it is of, and nothing is run once
    more.
    """
    stages.write("one", "two")
    assert stages.stage("first")[0] == 0
    stages.write("three")
    code, _, shown = stages.stage("second")
    assert code == 1
    assert "3 tests failed, and at most 2 are run once more" in shown
    assert all(f"test_fails_once[{name}]" in shown for name in ("one", "two", "three"))


def test_a_test_that_fails_again(stages: Stages) -> None:
    """It fails the run, and so does a run of pytest that goes wrong otherwise."""
    stages.write(fails=True)
    assert stages.stage("first")[0] == 0
    code, _, shown = stages.run()
    assert code == 1
    assert "FLAKY" not in shown
    assert "failed again" in shown
    assert stages.run("second", sys.executable, "-m", "pytest", "-q", "no_such_file.py")[0] == 4
