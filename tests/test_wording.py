"""Numbers of things in messages: one is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import structjob
from structjob.engine.adopted import warn_of_loss
from structjob.spool.session import Session
from structjob.store.contract import Ended
from structjob.text.wording import count_of


@pytest.mark.parametrize(
    ("number", "verbs", "said"),
    [
        (0, (), "0 events"),
        (1, (), "1 event"),
        (1200, (), "1,200 events"),
        (1, ("is", "are"), "1 event is"),
        (2, ("is", "are"), "2 events are"),
    ],
)
def test_a_number_agrees_with_its_noun_and_verb(number, verbs, said):
    """R49: one event is, two events are."""
    assert count_of(number, "event", *verbs) == said


def test_one_lost_event_is_reported_as_one(caplog):
    """R49: the message about a loss."""
    warn_of_loss(Session(), Ended(left=[], missing=1, fewer=1), None)
    assert " lost 1 event: the database holds 1 event fewer than" in caplog.text


PLURALS = "events|lines|jobs|steps|attempts|rows|records|sessions|programs|times|exceptions|spools|characters|files|keys|items|groups"
COUNT = re.compile(rf"""(?:%d|%s|:,\}}|\)\}}|\d,\}}|[a-z]\}}) (?:[a-z]+ )?(?:{PLURALS})\b""")
MANY = (
    "the newest {",
    "{size:,} characters",
    "lines/s",
    "BLANK_LIMIT",
    "most",
    "+ child jobs",
    "_bytes(",
    "{filled} has rows",
    "{status} jobs",
    "{level} lines",
    "{job_id} gets events",
    ":.1f} times ",
)
"""What stands in lines that count in the plural alone: limits and what exceeds them, rates, what is
no number.
"""


def test_no_message_counts_in_the_plural_alone():
    """R49: every message that counts things takes `count_of`, so that it never says "1 events";
    limits, which are many, need not.
    """
    found = []
    for path in Path(structjob.__file__).parent.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if COUNT.search(line) and not any(allowed in line for allowed in MANY):
                found.append(f"{path.name}:{number}: {line.strip()}")
    assert found == []
