"""A signal handler that raises at any place where Python may call it while a block ends (R9, R14).

Python calls signal handlers where a function begins and where a call of C code returns. A profile
function is called there, too, so that each of these places is tried once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import structjob
from structjob.context.scope import SCOPE

PACKAGE = str(Path(structjob.__file__).parent)


class Timeout(BaseException):
    pass


class Interruption:
    """Raises `Timeout` at one place of the library, the one with this number after `begin`."""

    def __init__(self, number: int) -> None:
        self.left = number

    def begin(self) -> None:
        sys.setprofile(self._reach)

    def _reach(self, frame: FrameType, event: str, arg: object) -> None:
        code, caller = frame.f_code, frame.f_back
        if event not in ("call", "c_return") or not code.co_filename.startswith(PACKAGE):
            return
        if (
            event == "call"
            and code.co_name in ("__exit__", "__aexit__")
            and caller is not None
            and caller.f_code.co_filename == __file__
        ):
            return  # before its first line: no library can know that the block was left
        self.left -= 1
        if not self.left:
            sys.setprofile(None)
            raise Timeout


def a_step(tracker: structjob.Tracker, interruption: Interruption) -> None:
    with tracker.job("copy", wait=False), structjob.step("part"):
        interruption.begin()


def a_retried_step(tracker: structjob.Tracker, interruption: Interruption) -> None:
    with tracker.job("copy", wait=False) as job:
        for attempt in job.retrying("part"):
            with attempt:
                interruption.begin()


def a_retried_job(tracker: structjob.Tracker, interruption: Interruption) -> None:
    for attempt in tracker.retrying("copy", wait=False):
        with attempt as job, job.step("part"):
            interruption.begin()


def an_async_job(tracker: structjob.Tracker, interruption: Interruption) -> None:
    async def main() -> None:
        try:
            async with tracker.job("copy", wait=False):
                interruption.begin()
        finally:
            sys.setprofile(None)
            assert SCOPE.get() is None

    with asyncio.Runner() as runner:
        runner.run(main())


@pytest.mark.parametrize("work", [a_step, a_retried_step, a_retried_job, an_async_job])
def test_a_job_whose_end_is_interrupted_anywhere_has_ended_and_is_not_current(
    tmp_path: Path, work: Callable[[structjob.Tracker, Interruption], None]
) -> None:
    """What the process does next does not belong to it, and it does not run for ever."""
    with structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db") as tracker:
        places, interruption = 0, Interruption(0)
        while interruption.left <= 0:
            places += 1
            interruption = Interruption(places)
            try:
                work(tracker, interruption)
            except Timeout:
                pass
            finally:
                sys.setprofile(None)
            assert SCOPE.get() is None, f"still current after place {places}"
        tracker.run(tracker.flush())
        jobs = tracker.run(tracker.jobs.count_by_status())
        steps = tracker.run(tracker.stats.steps())
    assert jobs["completed"] + jobs["failed"] == places > 100
    assert sum(step.completed + step.failed for step in steps) == sum(s.total for s in steps)
