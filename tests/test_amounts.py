"""How much is done: counted exactly, and shown in full only where nothing is left."""

import fractions
import sys
import threading
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from structjob.cli import job_page, tables
from structjob.lifecycle.bars import Bar, amount, drawn
from structjob.text import amounts, appearance


@pytest.fixture
def _eager_threads():
    """Threads change places as often as the interpreter lets them."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_eager_threads")
@pytest.mark.parametrize(
    "number",
    [1, 1.0, 0.5, fractions.Fraction(1, 4)],
    ids=lambda number: f"{type(number).__name__} {number}",
)
async def test_counting_from_several_threads_is_exact(tracker, number):
    """faults 20: four threads count the same step; no count is lost, whatever the number is."""
    each = 2_000
    async with tracker.job("a") as job, job.step("s") as step:

        def count():
            for _ in range(each):
                step.advance(number)

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert step.completed == 4 * each * number
    assert [record.completed for record in await tracker.jobs.steps(job.id)] == [4 * each * number]


LEFT = [
    (5_068, 5_080),
    (999_999, 1_000_000),
    (2**53 - 1, 2**53),
    (0.5, 0.50001),
    (9_999_999_999, 10_000_000_000.0),
]


@pytest.mark.parametrize(("done", "total"), LEFT)
async def test_what_is_not_all_is_never_100_percent(tracker, done, total):
    """faults 21: by the API, in the table of jobs, in `show`, and in bars of every kind."""
    async with tracker.job("a") as job, job.step("s", total=total) as step:
        step.update(completed=done)
        assert 99 < step.percent < 100
        assert (await tracker.jobs.steps(job.id))[0].percent_complete < 100
        assert (await tracker.jobs.progress(job.id)).percent < 100
        job.update(percent=step.percent)
        record = await tracker.jobs.get(job.id)
    assert record.percent_complete < 100
    for job_status in ("running", "failed"):
        shown = tables._done(
            SimpleNamespace(percent_complete=record.percent_complete, status=job_status), None
        )
        assert shown.endswith(" 99%" if job_status == "running" else "99%")
    assert appearance.bar(record.percent_complete) != appearance.bar(100.0)
    bar = Bar(("s",), 0, done, total, units=True, began=0.0, cores=())
    assert amount(bar).endswith(" 99%")
    assert drawn(bar, 10, 1.0, colour=False, unicode=False) == "#########-"


@pytest.mark.parametrize(
    ("done", "total"),
    [(5_080, 5_080), (7, 4), (sum([0.1] * 8), 0.8), (1.0, 1), (sum([0.1] * 1000), 100)],
)
async def test_what_is_all_is_100_percent(tracker, done, total):
    """faults 21: also where a sum of fractions is off by rounding, and where more was done than was
    to be done.
    """
    async with tracker.job("a") as job, job.step("s", total=total) as step:
        step.update(completed=done)
        assert step.percent == 100
        assert (await tracker.jobs.steps(job.id))[0].percent_complete == 100
    bar = Bar(("s",), 0, done, total, units=True, began=0.0, cores=())
    assert amount(bar).endswith(" 100%")
    assert drawn(bar, 10, 1.0, colour=False, unicode=False) == "##########"


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0.25, "0.25"), (0.5, "0.5"), (0, "0"), (3, "3"), (3.0, "3"), (5_080, "5,080"), (1_234.5678, "1,234.56"), (0.999, "0.99"),
     (0.29, "0.29"), (0.0012345, "0.0012"), (sum([0.1] * 8), "0.8"), (1.999, "1.99")],
)  # fmt: skip
def test_parts_of_a_unit_are_shown(number, shown):
    """faults 21: 0.25 of 0.5 are these numbers, rounded down to two decimals, and never
    to nothing.
    """
    assert amounts.units(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [(67.41666666666667, "67.4166"), (99.99999999999999, "99.9999"), (100.0, "100"), (12.5, "12.5"), (-3.14159265, "-3.1415"),
     (0.0123456789, "0.01234"), (1e-6, "0.000001"), (1e-7, "1e-07"), (1e20, "1e+20"), (1732912345.123456, "1732912345.1234")],
)  # fmt: skip
def test_a_number_of_a_line_is_shown_without_needless_decimals(number, shown):
    """Its decimals are cut off, so that 100 is shown only for 100 (R44)."""
    assert amounts.fraction(number) == shown


@pytest.mark.parametrize(
    ("percent", "shown"),
    [(0, 0), (0.9, 0), (57 * 0.01 * 100, 57), (99.6, 99), (99.999999999999, 99), (100.0, 100)],
)
def test_a_whole_percentage_is_rounded_down(percent, shown):
    """faults 21: 99.6 is shown as 99; what is off by the rounding of floats only is not a whole
    percent less.
    """
    assert amounts.whole_percent(percent) == shown


async def test_show_and_jobs_tell_parts_of_units(tracker):
    """faults 21: the line of a step in `show` and the detail in `jobs` say 0.25/0.5."""
    async with tracker.job("a") as job, job.step("s", total=0.5) as step:
        step.advance(0.25)
        (record,) = await tracker.jobs.steps(job.id)
        assert job_page._done(record) == "0.25/0.5"
        underway = SimpleNamespace(
            percent=50.0, step="s", completed=record.completed, total=record.total
        )
        running = SimpleNamespace(
            error=None,
            status="running",
            current_step="s",
            description=None,
            started_at=datetime.now(UTC),
        )
        assert tables._detail(running, underway, None).plain == "s 0.25/0.5"
