"""Time limits whose signal handler raises an exception in the middle of the work (R22).

RQ (``JobTimeoutException``), Celery (``SoftTimeLimitExceeded``) and many decorators set an alarm,
whose handler raises. The exception can come at any place of a log call or of the start of a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import enum
import functools
import random
import signal
import threading
from collections.abc import Callable, Iterator
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
        ended = True
        with contextlib.suppress(TimeLimit):  # also one that comes while the timer is stopped
            try:
                signal.setitimer(signal.ITIMER_REAL, self.random.uniform(20e-6, self.longest))
                work()
                ended = False
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        return ended


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


def is_recorded(thing: object, directory: object) -> bool:
    """Return whether an event with *thing*, whose text raises, is recorded."""
    structjob.configure()
    with structjob.Tracker(f"sqlite:///{directory}/jobs.db") as tracker, tracker.job("copy") as job:
        structlog.get_logger().info("copied", thing=thing)
        tracker.run(tracker.flush())
        (event,) = tracker.run(tracker.logs.list(job=job, kind="log"))
    return event.message == "copied"


def interrupted(*_: object) -> None:
    raise TimeLimit


@pytest.mark.parametrize("place", ["job_core.begin_span", "core.Entry"])
async def test_a_start_of_a_job_that_is_interrupted_ends_it(
    place: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an event loop and without."""
    async with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        with monkeypatch.context() as patch:
            patch.setattr(f"structjob.lifecycle.{place}", interrupted)
            with pytest.raises(TimeLimit), tracker.job("with"):
                pytest.fail("it began")
            with pytest.raises(TimeLimit):
                async with tracker.job("async with"):
                    pytest.fail("it began")
        await tracker.flush()
        jobs = await tracker.jobs.list()
    assert [(job.operation, job.status) for job in jobs] == [
        ("async with", "failed"),
        ("with", "failed"),
    ]
    assert all(job.error is not None and job.error.type == "TimeLimit" for job in jobs)


@pytest.mark.parametrize("place", ["step_core.begin_span", "core.Entry"])
async def test_a_start_of_a_step_that_is_interrupted_ends_it(
    place: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job may go on."""
    async with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        async with tracker.job("copy") as job:
            with monkeypatch.context() as patch:
                patch.setattr(f"structjob.lifecycle.{place}", interrupted)
                with pytest.raises(TimeLimit), job.step("part"):
                    pytest.fail("it began")
            await tracker.flush()
            (step,) = await tracker.jobs.steps(job.id)
    assert step.status == "failed"
    assert step.duration_ms is not None
    assert step.duration_ms < 60_000


@pytest.mark.parametrize("alarm", ["function"], indirect=True)
def test_an_exception_of_the_programs_own_object_is_no_time_limit(
    alarm: Alarm, tmp_path: object
) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise TimeLimit

    assert is_recorded(Hostile(), tmp_path)


def test_a_wait_that_a_signal_interrupts_stops_nobody() -> None:
    """`concurrent.futures.Future` may keep its lock then, so that its other side waits for ever."""
    alarm = Alarm(300e-6)
    former = signal.signal(signal.SIGALRM, alarm.over)
    try:
        for number in range(LIMITS):
            promise: Promise[int] = Promise()
            # not for ever: Python may call the handler only after the wait
            alarm.limits(lambda: promise.comes(0.01))  # noqa: B023 -- called at once
            keeper = threading.Thread(target=promise.keep, args=(number,))
            keeper.start()
            keeper.join(10)
            assert not keeper.is_alive()
            assert promise.result() == number
    finally:
        signal.signal(signal.SIGALRM, former)


def test_a_promise_is_kept_once_and_calls_back_once() -> None:
    promise: Promise[int] = Promise()
    called: list[str] = []
    promise.when_done(lambda: called.append("before"))
    assert not promise.comes(0)
    promise.keep(1)
    promise.keep(2)
    promise.fail(ValueError())
    promise.when_done(lambda: called.append("after"))
    assert promise.comes()
    assert promise.result() == 1
    assert called == ["before", "after"]


class Colour(enum.Enum):
    RED = 1


def test_an_unknown_member_of_an_enum_is_no_time_limit(tmp_path: object) -> None:
    """Python's constants of signals are enums, too: they are no handlers."""

    class Painted:
        def __repr__(self) -> str:
            return Colour(5).name

    assert is_recorded(Painted(), tmp_path)


def test_a_limit_that_is_a_timeout_ends_a_wait_for_the_trackers_loop(tmp_path: object) -> None:
    def over(number: int, frame: FrameType | None) -> None:
        raise TimeoutError("the limit")

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    ended = threading.Event()
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        former = signal.signal(signal.SIGALRM, over)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeoutError, match="the limit"):
                tracker.run(works())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former)
        assert ended.wait(60)
