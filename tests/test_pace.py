"""How many rows the next transaction of a prune takes, and how long it pauses (R41)."""

import pytest

from structjob.retention.pace import LEAST, Pace


def paced(rows, newest=None):
    """Return a pace of so many rows, which has seen this newest event."""
    pace = Pace()
    pace.rows = rows
    if newest is not None:
        pace.took(0.0, 0, newest, "sqlite")
    return pace


def test_it_begins_with_few_rows():
    """R41: because the speed of the database is not known yet."""
    assert Pace().rows == LEAST


@pytest.mark.parametrize(
    ("dialect", "newest", "longest", "breath"),
    [
        ("sqlite", 7, 0.02, 0.2), ("sqlite", 8, 0.005, 20.0),
        ("postgresql", 7, 0.2, 0.2), ("mysql", 8, 0.02, 20.0),
    ],
)  # fmt: skip
def test_a_writer_makes_it_slow(dialect, newest, longest, breath):
    """R41: transactions are short beside one, and their pauses long."""
    for factor, rows in ((0.8, 375), (0.5, 450), (1.25, 240), (3.0, 150)):
        pace = paced(300, newest=7)
        pause = pace.took(longest * factor, 300, newest, dialect)
        assert pause == pytest.approx(longest * factor * breath)
        assert pace.rows == pytest.approx(rows, abs=1)


def test_the_first_transaction_knows_of_no_writer():
    """R41: the newest event is compared with that of the transaction before."""
    pace = paced(300)
    assert pace.took(0.02, 300, 7, "sqlite") == pytest.approx(0.004)
    assert pace.rows == 300


def test_a_small_transaction_says_little():
    """R41: only that it was too long."""
    for seconds, rows in ((0.001, 300), (0.02, 300), (0.04, 150)):
        pace = paced(300, newest=7)
        pace.took(seconds, 299, 7, "sqlite")
        assert pace.rows == rows


def test_there_are_limits():
    """R41: rows of a server are decoded on the event loop, and a clock may not move at all."""
    for newest, most in ((7, 1_000), (8, 500)):
        pace = paced(900, newest=7)
        pace.took(0.0, 900, newest, "sqlite")
        assert pace.rows == most
    pace = paced(LEAST, newest=7)
    pace.took(1.0, 1, 7, "sqlite")
    assert pace.rows == LEAST
