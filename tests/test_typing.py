"""What type checkers find in programs that use structjob: nothing in good ones, every mistake."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest

from structjob import (
    AttemptFilter,
    ErrorFilter,
    JobFilter,
    LogFilter,
    StatsFilter,
    filters,
    statistics,
)
from structjob.tracker import Tracker, TrackerKeywords

PROGRAMS = Path(__file__).parent / "typing"
ROOT = PROGRAMS.parent.parent


def mypy() -> dict[str, set[int]]:
    """Return the lines in which mypy finds errors, by program."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", str(PROGRAMS)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found: dict[str, set[int]] = {}
    for name, line in re.findall(r"^.*?(\w+\.py):(\d+): error", done.stdout, re.MULTILINE):
        found.setdefault(name, set()).add(int(line))
    assert found, done.stdout + done.stderr
    return found


def pyright() -> dict[str, set[int]]:
    """Return the lines in which pyright finds errors, by program."""
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(PROGRAMS)],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    found: dict[str, set[int]] = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        if each["severity"] == "error":
            found.setdefault(Path(each["file"]).name, set()).add(each["range"]["start"]["line"] + 1)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("check", [mypy, pyright])
def test_checkers_find_each_mistake_and_nothing_else(check):
    """Ruling 11: misspelt names, filters, options, levels and statuses are errors; programs that
    use everything right have none.
    """
    lines = (PROGRAMS / "mistakes.py").read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if line.endswith("# mistake")}
    assert len(marked) > 30
    found = check()
    assert found.keys() == {"mistakes.py"}
    assert found["mistakes.py"] == marked


def test_the_keywords_of_a_tracker_are_its_parameters():
    """What a checker accepts of `init` and `worker_initializer` is what `Tracker` has."""
    parameters = inspect.signature(Tracker.__init__).parameters.values()
    given = {one.name: one.annotation for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert {
        name: hint.__forward_arg__ for name, hint in TrackerKeywords.__annotations__.items()
    } == given


@pytest.mark.parametrize("kind", [AttemptFilter, ErrorFilter, JobFilter, LogFilter, StatsFilter])
def test_the_keywords_of_a_filter_are_its_fields(kind):
    """Ruling 11: what a checker accepts is what the filter has, with the same types."""
    module = statistics if kind is StatsFilter else filters
    keywords = get_type_hints(getattr(module, f"{kind.__name__}Keywords"))
    hints = get_type_hints(kind)
    assert keywords == {field.name: hints[field.name] for field in fields(kind)}
