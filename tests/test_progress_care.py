"""Reporting progress never ends the user's work: any number is taken, what is none or comes too
late is ignored, with a warning, at most one a minute.
"""

import collections.abc
import decimal
import fractions
import logging
import math
import re
import sys
import threading
from functools import partial
from types import SimpleNamespace

import hypothesis
import numpy
import pytest
from each import each
from hypothesis import strategies as st

import structjob
from structjob import InvalidArgument, InvalidState

NUMBERS = [
    numpy.int64(2),
    numpy.uint8(2),
    numpy.float32(2),
    numpy.float64(2),
    numpy.array(2),
    decimal.Decimal(2),
    fractions.Fraction(2),
    fractions.Fraction(4, 2),
]


@pytest.fixture
async def lenient(db_url):
    """An open tracker of a program that is no test: its logging is not strict."""
    structjob.configure(console=False)
    async with structjob.Tracker(db_url) as opened:
        yield opened


@each("number", NUMBERS)
async def test_numbers_of_every_library_are_taken(tracker, number):
    """faults A.6: NumPy's integers and floats, `Decimal`, `Fraction` count, as totals, as units and
    as a percentage.
    """
    async with tracker.job("a") as job, job.step("s", total=number) as step:
        step.advance(number)
        step.update(completed=number, total=number, percent=number)
        job.update(percent=number)
        assert (step.completed, step.total, step.percent) == (2, 2, 2)
        assert {type(step.completed), type(step.total), type(step.percent)} <= {int, float}
        async with structjob.step("t", total=number) as other:
            other.advance(number)
    record, _ = await tracker.jobs.steps(job.id)
    assert (record.status, record.completed, record.total) == ("completed", 2, 2)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (100.00000000000001, 100.0),
        (numpy.float32(100.00001), 100.0),
        (-1e-15, 0.0),
        (sum([0.1] * 1000), sum([0.1] * 1000)),
    ],
)
async def test_a_percentage_may_be_off_by_rounding(tracker, given, meant):
    """faults A.6: 100.00000000000001 is 100."""
    async with tracker.job("a") as job, job.step("s") as step:
        job.update(percent=given)
        step.update(percent=given)
        assert step.percent == meant
        assert (await tracker.jobs.get(job.id)).percent_complete == meant


MORE_THAN_ALL = 150.5
WRONG = [
    MORE_THAN_ALL,
    -1,
    math.nan,
    math.inf,
    10**400,
    decimal.Decimal("sNaN"),
    1j,
    "50",
    b"5",
    True,
    numpy.bool_(True),
    object(),
]
WRONG.append(numpy.array([1, 2]))


@pytest.mark.parametrize(
    "wrong", WRONG, ids=lambda wrong: f"{type(wrong).__name__} {str(wrong)[:10]}"
)
async def test_a_wrong_value_is_ignored_with_one_warning(lenient, caplog, wrong):
    """faults A.6: what is no progress changes nothing; what came with it is taken, and the work
    goes on.
    """
    async with lenient.job("a") as job, job.step("s", total=5) as step:
        job.update(percent=50)
        step.advance(2)
        for _ in range(3):
            job.update(percent=wrong, description="at it")
            step.update(percent=wrong)
            if wrong is not MORE_THAN_ALL:
                step.advance(wrong)
                step.update(completed=wrong, total=wrong)
        assert (step.completed, step.total, step.percent, job.description) == (2, 5, 40, "at it")
    record = await lenient.jobs.get(job.id)
    assert (record.status, record.description) == ("completed", "at it")
    told = [
        line.getMessage() for line in caplog.records if "progress is ignored" in line.getMessage()
    ]
    assert len(told) == 1
    assert "percent must be a number from 0 to 100, not " in told[0]


@pytest.mark.parametrize(
    "given",
    [{"description": 5}, {"metadata": [1]}, {"current_step": "x" * 201}],
    ids=lambda given: next(iter(given)),
)
async def test_wrong_words_are_ignored_too(lenient, caplog, given):
    """faults A.6: no argument of `update` ends the work."""
    async with lenient.job("a") as job:
        job.update(percent=10, **given)
    assert (await lenient.jobs.history(job.id))[0].status == "completed"
    assert "progress is ignored: " in caplog.text


async def test_a_thread_that_outlives_its_step_may_go_on_counting(lenient, caplog):
    """faults A.6: a late count is ignored, with one warning that names the step."""
    ended, failures = threading.Event(), []

    def count(job, step):
        ended.wait()
        try:
            for _ in range(100):
                step.advance()
                step.update(completed=7)
                job.update(percent=7)
        except BaseException as exc:
            failures.append(exc)

    async with lenient.job("a") as job, job.step("s") as step:
        thread = threading.Thread(target=count, args=(job, step))
        thread.start()
        step.advance(3)
    ended.set()
    thread.join()
    assert failures == []
    assert [record.completed for record in await lenient.jobs.steps(job.id)] == [3]
    told = [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]
    assert [line for line in told if "progress is ignored" in line] == told
    assert len(told) == 1
    assert "step 's' of job" in told[0]


async def test_a_strict_tracker_raises(tracker):
    """faults A.6: tests of a program see their mistakes."""
    async with tracker.job("a") as job, job.step("s") as step:
        with pytest.raises(
            InvalidArgument, match=re.escape("percent must be a number from 0 to 100, not 150")
        ):
            job.update(percent=150)
    with pytest.raises(InvalidState, match="advance needs it running"):
        step.advance()


async def test_things_without_a_length_that_can_be_told_are_tracked(lenient):
    """faults A.6: `track` needs the length for the total only."""

    class Endless(list):
        def __len__(self):
            raise OverflowError("too many")

    async with lenient.job("a") as job, job.step("s") as step:
        assert [n async for n in step.track(Endless([1, 2]))] == [1, 2]
    assert (step.completed, step.total) == (2, None)


class _Meanwhile(collections.abc.Mapping):
    """Metadata of an update; while it is read, another thread reports progress."""

    def __init__(self, report):
        self._report = report

    def __len__(self):
        return 1

    def __iter__(self):
        self._report()
        return iter(["key"])

    def __getitem__(self, key):
        return 1


_UNITS = st.integers(0, 1 << 40) | st.just(1e308)
_UPDATES = st.lists(
    st.fixed_dictionaries(
        {"meanwhile": _UNITS},
        optional={"advance": _UNITS, "completed": _UNITS, "description": st.just("at it"), "percent": st.just(5)},
    ),
    max_size=5,
)  # fmt: skip


def test_no_unit_is_lost_by_an_update():
    """faults A.6: another thread may count at any point of an update; only `completed` replaces the
    count, and it ends at the largest number of the column.
    """
    structjob.configure(console=False, strict=True)
    with structjob.Tracker("sqlite://") as tracker, tracker.job("a") as job:

        @hypothesis.settings(max_examples=50)
        @hypothesis.given(_UPDATES)
        def check(updates):
            expected = 0
            with job.step("s") as step:
                for fields in updates:
                    units = fields.pop("meanwhile")
                    step.update(**fields, metadata=_Meanwhile(partial(step.advance, units)))
                    expected = fields.get("completed", expected + units) + fields.get("advance", 0)
                    expected = min(expected, sys.float_info.max)
                    assert step.completed == expected

        check()


async def test_an_update_keeps_what_another_thread_reports(tracker):
    """What an update does not name stays as another thread has set it meanwhile."""
    async with tracker.job("a") as job, job.step("s") as step:
        step.update(metadata=_Meanwhile(lambda: step.update(percent=40)))
        assert step.percent == 40
        job.update(metadata=_Meanwhile(lambda: job.update(percent=30, current_step="copying")))
        await tracker.flush()
        progress = await tracker.jobs.progress(job.id)
        assert (progress.percent, progress.current_step) == (30, "copying")


def test_what_is_reported_when_the_job_is_asked_to_stop_counts(tmp_path):
    """In code without a loop, an update raises `Cancelled` after it has counted."""
    structjob.configure(console=False, strict=True)
    with structjob.Tracker(tmp_path / "jobs.db") as tracker:
        with pytest.raises(structjob.Cancelled), tracker.job("a") as job, job.step("s") as step:
            job.cancel()
            step.update(advance=3)
        (record,) = tracker.run(tracker.jobs.steps(job.id))
    assert (record.status, record.completed) == ("cancelled", 3)


async def test_progress_that_is_ignored_changes_nothing(db_url):
    """R15: what was reported before stays, and so does what a report leaves out."""
    structjob.configure(console=False)
    async with structjob.Tracker(db_url) as tracker:
        async with tracker.job("j") as job, job.step("s", total=10) as step:
            step.update(percent=40, completed=3)
            for wrong in ({"percent": "much"}, {"completed": -1}, {"percent": None}):
                step.update(**wrong)
                assert (step.percent, step.completed) == (40, 3)
            step.update(completed=4)
            assert (step.percent, step.completed) == (40, 4)


async def test_a_job_whose_first_warning_was_held_back_is_reported_a_minute_later(
    lenient, caplog, monkeypatch
):
    """faults A.6: the warning says that further cases are reported at most once a minute; so they
    are, whichever job or step they are in.
    """
    now = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr("structjob.spool.recorder.time", now)
    async with lenient.job("a") as one, lenient.job("b") as other:
        one.update(percent=-1)
        other.update(percent=-2)
        now.monotonic = lambda: 1061.0
        other.update(percent=-3)
    told = [line.getMessage() for line in caplog.records if "progress is ignored" in line.msg]
    assert [re.search(r"not (-\d)", line)[1] for line in told] == ["-1", "-3"]
