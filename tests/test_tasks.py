"""The twenty tasks of ``docs/tasks.md``: the page is run from top to bottom, and prints what it
says (review, section 2).
"""

import ast
import contextlib
import csv
import inspect
import io
import re
from pathlib import Path

import structjob

PAGE = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
TASKS = 20


async def _run(block: str, names: dict[str, object]) -> list[str]:
    """Run a block, whose statements may await, and return what it prints."""
    code = compile(block, "docs/tasks.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        done = eval(code, names)
        if inspect.isawaitable(done):
            await done
    return printed.getvalue().splitlines()


async def test_the_page_does_what_it_says(tmp_path, monkeypatch, db_url):
    """Each ``print`` prints its comment; no block needs more than the blocks above it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    assert len(BLOCKS) == TASKS + 1
    try:
        for block in BLOCKS:
            expected = re.findall(
                r"(?:print\(.*\)  # |the sink prints: )(.*)$", block, re.MULTILINE
            )
            printed = [line for line in await _run(block, names) if not line.startswith('{"')]
            assert " ".join(printed) == " ".join(expected), block
    finally:
        await names["tracker"].aclose()  # type: ignore[attr-defined]  # the page made it
    with open("gui-17.csv", encoding="utf-8", newline="") as file:
        assert [
            row["message"] for row in csv.DictReader(file) if row["kind"] in ("log", "step_info")
        ] == [
            "started",
            "copied",
        ]


def test_every_task_has_a_heading_that_the_table_links_to():
    """The page has one section a task."""
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert len(headings) == len(re.findall(r"\]\(#", PAGE)) == TASKS
    assert structjob.__all__
