"""How far a job is: by hand, by units, derived from its steps; cheap enough for the tightest loop
(R15, R16, R17).
"""

import asyncio
import re
import sys
import threading
import time

import pytest
from each import each

import structjob
from structjob import InvalidArgument
from structjob.lifecycle import core, job_core, shared, step_core
from structjob.lifecycle.handle import core_of
from structjob.queries import step_progress


async def state_lines(tracker):
    """Return how many changes of state were recorded so far."""
    return tracker._recorder.state_numbers.given


async def test_progress_is_readable_while_the_job_runs(any_tracker):
    """R16: completed and total steps, percent, current step, running time, ids, parent and
    children.
    """
    async with any_tracker.job("a", external_job_id="e", context_id="c") as job:
        async with job.step("one"):
            pass
        async with job.step("two", total=10) as step, job.child("b") as child:
            step.advance(5)
            progress = await any_tracker.jobs.progress("e")
            assert (
                progress.job_id,
                progress.status,
                progress.completed_steps,
                progress.total_steps,
            ) == (job.id, "running", 1, 2)
            assert (progress.step_completion, progress.current_step) == (50.0, "two")
            # one step of two, and half of the other, because no percentage was reported
            assert progress.percent == 75.0
            assert progress.child_ids == (child.id,)
            assert progress.runtime_seconds >= 0
            assert (await any_tracker.jobs.progress(child.id)).parent_job_id == job.id
            job.update(percent=12.5, current_step="checking")
            progress = await any_tracker.jobs.progress("c")
            assert (progress.percent, progress.current_step) == (12.5, "checking")
    assert (await any_tracker.jobs.progress(job.id)).percent == 100.0


@each("percent", [-0.1, 100.1, 130, float("nan"), float("inf"), "50", True, 10**400])
async def test_a_percentage_is_from_0_to_100(tracker, percent):
    """R15: anything else is refused, and changes nothing."""
    async with tracker.job("a") as job, job.step("s") as step:
        job.update(percent=50)
        for handle in (job, step):
            with pytest.raises(
                InvalidArgument, match="percent must be a number from 0 to 100, not"
            ):
                handle.update(percent=percent, description="not this")
        assert (await tracker.jobs.get(job.id)).percent_complete == 50
        assert (await tracker.jobs.get(job.id)).description is None


@each(
    "units",
    [-1, float("nan"), float("inf"), 10**400, 10**5000, "1", True, None],
)
async def test_units_are_not_negative(tracker, units):
    """R15: completed and total are numbers from 0 on."""
    async with tracker.job("a") as job, job.step("s", total=5) as step:
        with pytest.raises(InvalidArgument, match="must be a number that is not negative"):
            step.advance(units)
        if units is not None:
            for field in ("total", "completed"):
                with pytest.raises(
                    InvalidArgument,
                    match=re.escape(f"{field} must be a number that is not negative"),
                ):
                    step.update(**{field: units})
            with pytest.raises(InvalidArgument, match="total must be"):
                job.step("s", total=units)
        assert (step.completed, step.total) == (0, 5)


async def test_numbers_of_other_libraries_are_numbers(any_tracker):
    """R15: NumPy's floats are a subclass of Python's; what they count is recorded as any other
    number.
    """

    class Other(float):
        pass

    class Whole(int):
        pass

    async with any_tracker.job("a") as job, job.step("s", total=Other(8)) as step:
        step.advance(Other(1.5))
        step.advance(Whole(2))
        step.update(completed=Other(4))
        job.update(percent=Other(50))
    (record,) = await any_tracker.jobs.steps(job.id)
    assert (record.status, record.completed, record.total) == ("completed", 4, 8)
    assert (await any_tracker.jobs.get(job.id)).status == "completed"


async def test_units_and_totals(any_tracker):
    """R15: `advance` counts, `update` sets; more than the total is still 100 %; a total of 0 tells
    nothing.
    """
    async with any_tracker.job("a") as job, job.step("s") as step:
        assert step.percent is None
        step.update(total=4)
        step.advance()
        step.advance(0.5)
        assert (step.completed, step.percent) == (1.5, 37.5)
        step.update(completed=8)
        assert step.percent == 100.0
        step.update(percent=10)
        assert step.percent == 10
        async with job.step("empty", total=0) as empty:
            assert empty.percent is None
    first, _ = await any_tracker.jobs.steps(job.id)
    assert (first.completed, first.total, first.percent_complete) == (8, 4, 100.0)


@pytest.mark.parametrize("units", [10**308, 1e308], ids=["whole", "float"])
async def test_more_units_than_a_column_holds_are_as_many_as_it_does(any_tracker, units):
    """R15: however much is counted, the step is recorded and ends as it ended."""
    async with any_tracker.job("a") as job, job.step("s") as step:
        step.advance(units)
        step.advance(units)
    (record,) = await any_tracker.jobs.steps(job.id)
    assert (record.status, record.completed) == ("completed", sys.float_info.max)
    assert (await any_tracker.verify()).ok


async def test_track_counts_what_is_done(any_tracker):
    """R17: over iterables and async iterables; each item counts when its turn is over; the length
    is the total.
    """

    async def numbers():
        for n in range(3):
            yield n

    async with any_tracker.job("a") as job:
        async with job.step("list") as step:
            async for n in step.track([10, 20, 30]):
                assert step.completed == n // 10 - 1
            assert (step.completed, step.total) == (3, 3)
        async with job.step("async") as step:
            assert [n async for n in step.track(numbers())] == [0, 1, 2]
            assert (step.completed, step.total) == (3, None)
        async with job.step("generator", total=9) as step:
            assert [n async for n in step.track(n for n in range(3))] == [0, 1, 2]
            assert step.total == 9
        with pytest.raises(ValueError, match="stop"):
            async with job.step("fails") as step:
                async for n in step.track([1, 2, 3]):
                    if n == 2:
                        raise ValueError("stop")
        assert step.completed == 1


async def test_a_million_advances_cost_a_second_at_most_and_few_records(any_tracker):
    """R15: a tight loop cannot flood the store: four records a second, whatever is counted."""
    async with any_tracker.job("a") as job, job.step("s", total=1_000_000) as step:
        before = await state_lines(any_tracker)
        began, worked = time.perf_counter(), time.process_time()
        for _ in range(1_000_000):
            step.advance()
        seconds, cost = time.perf_counter() - began, time.process_time() - worked
        records = await state_lines(any_tracker) - before
    assert cost < 2
    assert records <= 4 * seconds + 2
    (record,) = await any_tracker.jobs.steps(job.id)
    assert (record.completed, record.percent_complete) == (1_000_000, 100.0)


async def test_progress_in_a_busy_program_is_recorded_at_most_four_times_a_second(any_tracker):
    """R15: also where the loop turns in between, and someone reads all the time."""
    async with any_tracker.job("a") as job, job.step("s") as step:
        before = await state_lines(any_tracker)
        began = time.monotonic()
        for n in range(200):
            step.advance()
            job.update(percent=n % 100)
            if n % 20 == 0:
                # reads see what was told
                assert (await any_tracker.jobs.steps(job.id))[0].completed == n + 1
        seconds = time.monotonic() - began
        records = await state_lines(any_tracker) - before
    assert records <= 2 * (4 * seconds + 2 + 10)  # each read settles what was held back


async def test_the_last_progress_is_never_lost(any_tracker):
    """R15: what was held back when the step failed is in its row."""
    with pytest.raises(ValueError, match="x"):
        async with any_tracker.job("a") as job, job.step("s", total=10) as step:
            for _ in range(7):
                step.advance()
            raise ValueError("x")
    (record,) = await any_tracker.jobs.steps(job.id)
    assert (record.completed, record.status, record.percent_complete) == (7, "failed", 70.0)


async def test_progress_of_an_unknown_job_is_an_error(tracker):
    """R19: a clear one."""
    with pytest.raises(structjob.JobNotFound, match="job not found: nope"):
        await tracker.jobs.progress("nope")


async def test_how_far_many_jobs_are_is_asked_at_once(any_tracker):
    """R15, R17: a screen of running jobs has each one's share of completed steps and the units of
    the step that runs, by two statements.
    """
    asked = []

    async def fetch(statement):
        asked.append(statement)
        return await any_tracker._host.fetch(statement)

    async with (
        any_tracker.job("plain"),
        any_tracker.job("a") as first,
        any_tracker.job("b") as second,
    ):
        async with first.step("discover", total=3):
            pass
        async for attempt in first.retrying("copy", delay=0):
            async with attempt as step:
                if attempt.number == 1:
                    raise TimeoutError
                step.update(completed=37, total=100)
                core_of(step).flush_progress()
                async with second.step("load"):
                    await any_tracker.flush()
                    found = await step_progress.look(fetch, [first.id, second.id])
    assert found == {
        # discover is done, the second try at copy is under way
        first.id: step_progress.StepProgress((100 + 0 + 37) / 3, "attempt-2", 37, 100),
        second.id: step_progress.StepProgress(0.0),
    }
    assert len(asked) == 2
    assert await step_progress.look(fetch, []) == {}


@pytest.mark.parametrize("of", ["job", "step"])
async def test_progress_that_another_thread_is_telling_does_not_replace_the_end(tracker, of):
    """Guarantee 4: the end is final, though a thread is in the middle of recording progress when it
    comes.
    """
    seen, go_on = threading.Event(), threading.Event()

    class Slow:
        def __repr__(self):
            if threading.current_thread() is thread:
                seen.set()
                assert go_on.wait(20)
            return "slow"

    async with tracker.job("a") as job, job.step("s") as step:
        handle = job if of == "job" else step
        inner = core_of(handle)
        inner.recorded_at, inner.pending = 0.0, False  # a record is due
        thread = threading.Thread(target=handle.update, kwargs={"metadata": {"slow": Slow()}})
        thread.start()
        assert await asyncio.to_thread(seen.wait, 20)
    go_on.set()
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
    assert (await tracker.jobs.get(job.id)).status == "completed"
    assert [attempt.status for attempt in await tracker.jobs.history(job.id)] == ["completed"]
    assert [step.status for step in await tracker.jobs.steps(job.id)] == ["completed"]


async def test_progress_has_a_history(any_tracker, monkeypatch):
    """R16, faults 27: events of kind progress, at most one a second and job, at each quarter, and
    the last; none of a job that is over sooner; fewer of a job that runs for long.
    """
    clock = [1000.0]
    real = core.time

    class Time:
        monotonic = staticmethod(lambda: clock[0])

        def __getattr__(self, name):
            return getattr(real, name)

    for module in (core, job_core, step_core, shared):
        monkeypatch.setattr(module, "time", Time())
    async with any_tracker.job("long") as job:
        clock[0] += 0.25
        async with job.step("copy", total=100) as step:
            for _ in range(50):  # 12.5 seconds
                clock[0] += 0.25
                step.advance(2)
                job.update(percent=step.completed)
    async with any_tracker.job("short") as job:
        clock[0] += 0.5
        job.update(percent=50)
    async with any_tracker.job("silent") as job, job.step("copy"):
        clock[0] += 60
    async with any_tracker.job("longer") as job, job.step("copy") as step:
        for _ in range(1_000):
            clock[0] += 1.0
            step.advance()
    events = await any_tracker.logs.list(kind="progress", limit=1_000)
    assert {event.operation for event in events} == {"long", "longer"}
    assert 200 < len([event for event in events if event.operation == "longer"]) < 400
    events = [event for event in events if event.operation == "long"]
    told = [(event.type, round(event.attrs.get("percent"))) for event in events]
    of_job = [percent for kind, percent in told if kind == "job"]
    of_step = [percent for kind, percent in told if kind == "task"]
    assert of_job == [26, 50, 76, 100]
    assert of_step == [6, 14, 22, 26, 34, 42, 50, 58, 66, 74, 76, 84, 92, 100]
    assert events[0].attrs["completed"] == 6
