"""The time of events: it never runs backwards, whatever is done to the machine's clock."""

from __future__ import annotations

import logging

import pytest
import structlog

import structjob
from structjob.machine import clock

SECOND = 1_000_000_000
T0 = 1_800_000_000 * SECOND


class Machine:
    """A machine whose clock is set by hand; its monotonic time goes on by a millisecond a look."""

    def __init__(self) -> None:
        self.wall, self.monotonic = T0, 0

    def pass_(self, seconds: float) -> None:
        self.wall += int(seconds * SECOND)
        self.monotonic += int(seconds * SECOND)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock, "_wall", lambda: made.wall)
    monkeypatch.setattr(clock, "_monotonic", lambda: made.monotonic)
    monkeypatch.setattr(clock, "_latest", 0)
    monkeypatch.setattr(clock, "_resumed", (0, 0, 0))
    return made


async def test_a_jobs_log_reads_in_order_after_the_clock_was_set_back(
    tracker: structjob.Tracker, machine: Machine
) -> None:
    """faults 59: lines logged after a step of the clock backwards come after those before it, and
    no end lies before its beginning.
    """
    log = structlog.get_logger()
    async with tracker.job("long") as job, job.step("one"):
        for number in range(3):
            log.info("line", number=number)
            machine.pass_(1)
        machine.wall -= 600 * SECOND
        for number in range(3, 6):
            log.info("line", number=number)
            machine.pass_(1)
    events = await tracker.logs.list(job_id=job.id)
    assert [one.seq for one in events] == sorted(one.seq for one in events)
    assert [one.attrs["number"] for one in events if one.kind == "log"] == [0, 1, 2, 3, 4, 5]
    record = await tracker.jobs.get(job.id)
    (step,) = await tracker.jobs.steps(job.id)
    for each in (record, step):
        assert (
            each.created_at <= each.started_at <= each.completed_at
            if each is record
            else each.started_at <= each.completed_at
        )
    assert record.started_at.timestamp() * SECOND == T0


def test_time_goes_on_slowly_until_the_clock_has_caught_up(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 59: a tenth of the time passes until the machine's clock has caught up, and the step
    is reported once.
    """
    assert clock.now() == T0
    machine.wall -= 9 * SECOND
    with caplog.at_level(logging.WARNING, "structjob"):
        assert clock.now() == T0
        machine.pass_(5)
        assert clock.now() == T0 + SECOND // 2
        machine.pass_(5)
        assert clock.now() == machine.wall == T0 + 1 * SECOND
        machine.pass_(1)
        assert clock.now() == T0 + 2 * SECOND
    assert [record.getMessage() for record in caplog.records] == [
        "the clock was set back by 9.000 s: times of events advance slowly until it has caught up"
    ]


def test_a_second_step_is_held_back_too(machine: Machine) -> None:
    """faults 59: the clock is set back twice, and once more before it has caught up: time never
    runs backwards.
    """
    seen = []
    for step in (2, 3, 0, 30):
        machine.wall -= step * SECOND
        for _ in range(3):
            seen.append(clock.now())
            machine.pass_(0.5)
    assert seen == sorted(seen)
    machine.pass_(60)
    assert clock.now() == machine.wall


def test_a_clock_that_was_wrong_by_hours_is_believed_once_it_is_right(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 59: a machine that started with a clock days ahead is not dated wrongly for days; a
    warning says that the order breaks.
    """
    clock.now()
    machine.wall -= 48 * 3600 * SECOND
    with caplog.at_level(logging.WARNING, "structjob"):
        assert clock.now() == machine.wall
    assert "set back by 172800 s" in caplog.text


def test_a_clock_that_is_right_after_two_steps_is_believed(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 59: a step of seconds, then one of days before it has caught up: what is logged later
    is not dated days ahead.
    """
    clock.now()
    machine.wall -= 30 * SECOND
    clock.now()
    machine.wall -= 48 * 3600 * SECOND
    with caplog.at_level(logging.WARNING, "structjob"):
        assert clock.now() == machine.wall
        machine.pass_(1)
        assert clock.now() == machine.wall
    assert caplog.text.count("set back by 172830 s") == 1


def test_a_thread_that_was_held_up_sets_no_clock_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 59: a reading that is late, since another thread asked meanwhile, is no step of the
    clock.
    """
    readings = iter([T0, T0 - SECOND, T0 + 5])
    monkeypatch.setattr(clock, "_wall", lambda: next(readings))
    monkeypatch.setattr(clock, "_latest", 0)
    with caplog.at_level(logging.WARNING, "structjob"):
        assert (clock.now(), clock.now()) == (T0, T0 + 5)
    assert not caplog.records


def test_a_handler_that_logs_between_two_looks_sets_no_clock_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """faults 59: nor is it one if a signal handler asks within the second reading, much later."""
    readings = iter([T0, T0 - SECOND, T0 + 5, T0 + 3 * SECOND])

    def wall() -> int:
        ns = next(readings)
        if ns == T0 + 5:
            assert clock.now() == T0 + 3 * SECOND  # the handler
        return ns

    monkeypatch.setattr(clock, "_wall", wall)
    monkeypatch.setattr(clock, "_latest", 0)
    with caplog.at_level(logging.WARNING, "structjob"):
        assert (clock.now(), clock.now()) == (T0, T0 + 5)
    assert not caplog.records
