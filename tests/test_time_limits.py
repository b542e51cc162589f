"""Time limits whose signal handler raises an exception in the middle of the work (R22).

RQ (``JobTimeoutException``), Celery (``SoftTimeLimitExceeded``) and many decorators set an alarm,
whose handler raises. The exception can come at any place of a log call or of the start of a job.
"""

from __future__ import annotations

import contextvars
import functools
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType

import pytest
import structlog

import structjob
from structjob.machine.promise import Promise

LIMITS = 500


class TimeLimit(Exception):
    """The work takes too long."""


class Alarm:
    """A time limit that ends after a random time, at most *longest* seconds."""

    def __init__(self, longest: float) -> None:
        self.random, self.longest, self.ended = random.Random(1), longest, 0

    def over(self, number: int, frame: FrameType | None) -> None:
        self.ended += 1
        raise TimeLimit

    def limits(self, work: Callable[[], object]) -> bool:
        """Return whether *work* was ended."""
        try:
            signal.setitimer(signal.ITIMER_REAL, self.random.uniform(20e-6, self.longest))
            work()
        except TimeLimit:
            return True
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return False


@pytest.fixture(params=["function", "partial", "object"])
def alarm(request: pytest.FixtureRequest) -> Iterator[Alarm]:
    class Handler:
        def __call__(self, number: int, frame: FrameType | None) -> None:
            alarm.over(number, frame)

    alarm = Alarm(400e-6)
    handlers = {
        "function": alarm.over,
        "partial": functools.partial(alarm.over),
        "object": Handler(),
    }
    former = signal.signal(signal.SIGALRM, handlers[request.param])
    yield alarm
    signal.signal(signal.SIGALRM, former)


class Described:
    def __repr__(self) -> str:
        return "described"


def test_a_time_limit_ends_the_work_wherever_a_log_call_is(alarm: Alarm, tmp_path: object) -> None:
    log = structlog.get_logger()

    def work() -> None:
        for _ in range(10_000):
            log.info("copied", part=1, thing=Described(), odd="\ud800", password="x")

    structjob.configure()
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker, tracker.job("copy"):
        for _ in range(LIMITS):
            assert alarm.limits(work), "the work went on beyond its limit"
    assert alarm.ended == LIMITS


@pytest.mark.parametrize("alarm", ["function"], indirect=True)
def test_a_time_limit_ends_the_job_and_is_the_exception_that_the_program_gets(
    alarm: Alarm, tmp_path: object
) -> None:
    alarm.longest = 3e-3
    structjob.configure()
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:

        def work() -> None:
            with tracker.job("copy") as job, job.step("part"):
                pass

        for _ in range(LIMITS // 2):
            contextvars.copy_context().run(alarm.limits, work)
        tracker.run(tracker.flush())
        left = tracker.run(tracker.jobs.list(status="running"))
    # Python may raise between the end of the block and the first line of `__exit__`
    assert len(left) <= 2
    assert alarm.ended > LIMITS // 8


@pytest.mark.parametrize("alarm", ["function"], indirect=True)
def test_an_exception_of_the_programs_own_object_is_no_time_limit(
    alarm: Alarm, tmp_path: object
) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise TimeLimit

    structjob.configure()
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker, tracker.job("copy") as job:
        structlog.get_logger().info("copied", thing=Hostile())
        tracker.run(tracker.flush())
        (event,) = tracker.run(tracker.logs.list(job=job, kind="log"))
    assert event.message == "copied"


def test_a_wait_that_a_signal_interrupts_stops_nobody() -> None:
    """`concurrent.futures.Future` may keep its lock then, so that its other side waits for ever."""
    alarm = Alarm(300e-6)
    former = signal.signal(signal.SIGALRM, alarm.over)
    try:
        for number in range(LIMITS):
            promise: Promise[int] = Promise()
            # not for ever: Python may call the handler only after the wait
            with suppress(TimeoutError):
                alarm.limits(lambda: promise.wait(0.01))  # noqa: B023 -- called at once
            keeper = threading.Thread(target=promise.keep, args=(number,))
            keeper.start()
            keeper.join(10)
            assert not keeper.is_alive()
            assert promise.wait(0) == number
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_promise_is_kept_once_and_calls_back_once() -> None:
    promise: Promise[int] = Promise()
    called: list[str] = []
    promise.when_done(lambda: called.append("before"))
    with pytest.raises(TimeoutError):
        promise.wait(0)
    promise.keep(1)
    promise.keep(2)
    promise.fail(ValueError())
    promise.when_done(lambda: called.append("after"))
    assert promise.wait() == 1
    assert called == ["before", "after"]
