"""What the page about the architecture says of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PLACES = sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py)(?::([A-Za-z_.]+))?`", PAGE)))


def names_of(path: Path) -> set[str]:
    """Return the functions, classes and methods of a module, as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


@pytest.mark.parametrize(("file", "name"), PLACES)
def test_each_place_that_the_page_names_exists(file: str, name: str) -> None:
    """A reader who opens the file finds the function."""
    roots = [ROOT / "structjob" / file, ROOT / file]
    path = next((path for path in roots if path.exists()), None)
    assert path is not None, f"docs/architecture.md names {file}, which does not exist"
    assert not name or name in names_of(path), f"docs/architecture.md names {file}:{name}"


def test_the_page_names_each_room() -> None:
    """No package of the library is missing in the table of rooms."""
    rooms = {path.parent.name for path in (ROOT / "structjob").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"`([a-z]+)/`", PAGE))
