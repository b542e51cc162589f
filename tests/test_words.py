"""The words of the code and the pages: plain English, one word for each thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

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


_ANY = re.compile("|".join(BANNED), re.MULTILINE)
"""Also finds parts of words. Most files contain none of them, and need no closer look."""


def _files(patterns: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the names and the texts of the files."""
    found = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    assert len(found) > 50
    return [(str(path.relative_to(ROOT)), path.read_text("utf-8")) for path in found]


def _prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of the docstrings and comments of a module, with their numbers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from enumerate(str(node.value.value).splitlines(), node.lineno)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _riddles(name: str, lines: Iterable[tuple[int, str]]) -> list[str]:
    return [
        f"{name}:{number}: {match[0]!r}; {better}"
        for number, line in lines
        for banned, better in BANNED.items()
        if (match := re.search(rf"\b(?:{banned})\b", line))
    ]


def test_no_riddles() -> None:
    """A reader whose English is good and not native reads on without stopping."""
    found = [
        riddle
        for name, text in _files(PAGES)
        if _ANY.search(text)
        for riddle in _riddles(name, enumerate(text.splitlines(), 1))
    ]
    assert not found, "\n".join(found)


def test_no_riddles_in_tests() -> None:
    """The same reader learns from a test what is guaranteed."""
    found = [
        riddle
        for name, text in _files(PROGRAMS)
        if _ANY.search(text)
        for riddle in _riddles(name, _prose(text))
    ]
    assert not found, "\n".join(found)


def test_the_first_sentence_of_a_docstring_is_short() -> None:
    """It says what the thing is or does, in at most 20 words; the details follow."""
    long = [
        f"{name}: {first}"
        for name, text in _files(PAGES[:2])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and len((first := _first_sentence(node)).split()) > 20
    ]
    assert not long, "\n".join(long)


def _first_sentence(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> str:
    return re.split(r"(?<=[.:;])\s|\n\n", ast.get_docstring(node) or "", maxsplit=1)[0]
