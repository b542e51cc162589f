"""What the README promises a newcomer."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from cli_support import environment, python

import structjob

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_quick_start_runs_as_it_stands(tmp_path: Path) -> None:
    """A newcomer copies the quick start into a file, and it prints the job and its log (R51)."""
    program = re.search(
        r"<!-- executed by tests/test_readme.py -->\n```python\n(.*?)```", README, re.DOTALL
    )
    assert program is not None
    (tmp_path / "quick_start.py").write_text(program[1], "utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", "quick_start.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert [event["part"] for event in logged if event["event"] == "part copied"] == ["a", "b", "c"]
    assert "vm-migrate completed {'parts': 3}" in lines
    assert sum(line.endswith("'part': 'c'}") for line in lines) == 1
    assert done.stderr == ""


def test_the_commands_of_the_quick_start_explain_what_it_did(tmp_path: Path) -> None:
    """The shell commands below the quick start work on the database it leaves (R49, R51)."""
    program = re.search(
        r"<!-- executed by tests/test_readme.py -->\n```python\n(.*?)```", README, re.DOTALL
    )
    assert program is not None
    python("-c", program[1], cwd=tmp_path, check=True)
    (named,) = re.findall(r"^export (STRUCTJOB_DATABASE_URL)=(sqlite:\S+)", README, re.MULTILINE)
    commands = re.findall(r"^structjob ((?:jobs|show|logs)\b.*?)\s+#", README, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        env = environment(**{named[0]: named[1]})
        done = python("-m", "structjob", *command.split(), cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        assert "vm-migrate" in done.stdout or "part copied" in done.stdout


def _anchor(heading: str) -> str:
    """The fragment by which a heading of Markdown is linked to."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def test_the_links_lead_somewhere() -> None:
    """No link in the README or the documentation is dead, and each one's section exists."""
    for page in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("**/*.md")):
        links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)", page.read_text("utf-8"))
        for target, section in links:
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.name} links to {target}"
            if section:
                headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
                assert section in map(_anchor, headings), f"{page.name} links to {target}#{section}"


def test_the_pages_name_what_exists() -> None:
    """Every `structjob.NAME` of the README and the documentation can be used (R51)."""
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("**/*.md")):
        text = page.read_text("utf-8")
        named = set(re.findall(r'(?<![\w./"-])structjob\.([A-Za-z]\w*)', text))
        absent = {
            name
            for name in named
            if not hasattr(structjob, name) and find_spec(f"structjob.{name}") is None
        }
        assert not absent, f"{page.name} names {absent}"


def test_the_options_of_a_tracker_are_explained() -> None:
    """The page about delivery has a row for each option of `Tracker`, with its default (R51)."""
    page = (ROOT / "docs" / "delivery.md").read_text("utf-8")
    explained = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    options = inspect.signature(structjob.Tracker).parameters
    assert set(options) - {"url"} <= set(explained)
    for name in ("level", "overflow", "strict", "handle_signals", "queue_size", "writers"):
        default = options[name].default
        shown = f"{default:,}" if type(default) is int else str(default)
        assert explained[name].strip('`"') == shown
