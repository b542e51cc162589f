"""The words of the code and the pages: plain English, one word for each thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BANNED = {
    r"[Ww]ho[e]ver|[Nn]obody|[Ss]omebody|[Ee]verybody": "name the subject: a process, a reader, a user",
    r"(?:is|are) none(?=[.,;:)\"]|$)": "say what does not exist: `if there is no such job`",
    r"(?:is|are|was|were) told (?!to\b)": "report, record, warn, say",
    r"puts? down": "record",
    r"lets? go|letting go": "release, close",
    r"felt by|in a crowd|takes its time|has his turn|goes its way": "say what happens",
    r"by itself|by themselves": "automatically, alone",
    r"[Mm]end(?:s|ed|ing)?": "repair, fix",
    r"[Ff]are[sd]?": "outcome",
}
PAGES = ("structjob/**/*.py", "schema/**/*.py", "docs/**/*.md", "*.md")
PROGRAMS = ("tests/**/*.py", "benchmarks/**/*.py")
"""Their strings are data. Only docstrings and comments are for readers."""


def _files(patterns: tuple[str, ...]) -> list[Path]:
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the docstrings and comments of a module, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from enumerate(str(node.value.value).splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _riddles(lines: Iterator[tuple[int, str]]) -> str:
    return "\n".join(
        f"{number}: {match[0]!r}; {better}"
        for number, line in lines
        for banned, better in BANNED.items()
        if (match := re.search(rf"\b(?:{banned})\b", line))
    )


@pytest.mark.parametrize("path", _files(PAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_riddles(path: Path) -> None:
    """A reader whose English is good and not native reads on without stopping."""
    found = _riddles(iter(enumerate(path.read_text("utf-8").splitlines(), 1)))
    assert not found, found


@pytest.mark.parametrize("path", _files(PROGRAMS), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_riddles_in_tests(path: Path) -> None:
    """The same reader learns from a test what is guaranteed."""
    found = _riddles(_prose(path.read_text("utf-8")))
    assert not found, found


@pytest.mark.parametrize("path", _files(PAGES[:2]), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_first_sentence_of_a_docstring_is_short(path: Path) -> None:
    """It says what the thing is or does, in at most 20 words; the details follow."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            first = re.split(r"(?<=[.:;])\s|\n\n", text, maxsplit=1)[0]
            assert len(first.split()) <= 20, first
