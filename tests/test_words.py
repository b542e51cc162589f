"""The words of the code and the pages: plain English, one word for each thing."""

from __future__ import annotations

import re
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
PAGES = sorted(
    path
    for pattern in ("structjob/**/*.py", "schema/**/*.py", "docs/**/*.md", "*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_riddles(path: Path) -> None:
    """A reader whose English is good and not native reads on without stopping."""
    found = [
        f"{number}: {match[0]!r}; {better}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for banned, better in BANNED.items()
        if (match := re.search(rf"\b(?:{banned})\b", line))
    ]
    assert not found, "\n".join(found)
