"""Work that is tried again: what is recorded of each try, and what comes out in the end (R12); on
every database.
"""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
import structlog
import tenacity
from each import each

import structjob
from structjob import InvalidArgument, InvalidState, LogFilter, StoreUnavailable
from structjob.lifecycle import contexts, retries

log = structlog.get_logger()


class Refused(OSError):
    """What the work raises."""


def work(failures, error=Refused):
    """Return work that fails so many times and then succeeds."""
    tries = iter(range(1, 100))

    async def run():
        number = next(tries)
        log.info("trying", number=number)
        if number <= failures:
            raise error(f"refused {number}")
        return number

    return run


async def told(tracker, **filters):
    return [event async for event in tracker.logs.iterate(LogFilter(**filters))]


# -- steps
# --------------------------------------------------------------------------


async def test_each_try_is_a_step_and_all_but_the_last_are_retrying(any_tracker):
    """R12: attempts are steps `attempt-N` with attempt_number, max_attempts and retry_delay, on the
    step and in its events.
    """
    run = work(failures=2)
    async with any_tracker.job("backup") as job:
        async for attempt in job.retrying(
            "upload", max_attempts=5, delay=0.001, backoff=3, on=OSError
        ):
            async with attempt as step:
                assert structjob.current_step() is step
                assert (step.name, attempt.number) == (f"attempt-{attempt.number}", step.seq - 1)
                await run()
        assert structjob.current_step() is None
    whole, *tries = await any_tracker.jobs.steps(job.id)
    assert (whole.name, whole.status, whole.metadata) == ("upload", "completed", {})
    assert [(step.name, step.status, step.parent_step_id) for step in tries] == [
        ("attempt-1", "retrying", whole.id),
        ("attempt-2", "retrying", whole.id),
        ("attempt-3", "completed", whole.id),
    ]
    numbers = [{"attempt_number": n, "max_attempts": 5} for n in (1, 2, 3)]
    assert [step.metadata for step in tries] == [
        {**numbers[0], "retry_delay": 0.001},
        {**numbers[1], "retry_delay": 0.003},
        numbers[2],
    ]
    assert [step.error and (step.error.type, step.error.message) for step in tries] == [
        ("Refused", "refused 1"),
        ("Refused", "refused 2"),
        None,
    ]
    # the delays are part of it
    assert whole.duration_ms >= sum(step.duration_ms for step in tries) + 4

    events = await told(any_tracker, step_id=tries[1].id)
    assert [(event.kind, event.level) for event in events] == [
        ("step_start", "info"), ("log", "info"), ("step_error", "warning"), ("step_end", "info"),
    ]  # fmt: skip
    start, _, error, end = (event.attrs for event in events)
    assert numbers[1].items() <= start.items()
    assert {
        **numbers[1],
        "retry_delay": 0.003,
        "error_type": "Refused",
        "retry_possible": True,
    }.items() <= error.items()
    assert {**numbers[1], "retry_delay": 0.003, "status": "retrying"}.items() <= end.items()


def test_code_without_a_loop_sleeps_between_two_tries(db_url, monkeypatch):
    """R12: as long as the options say, and never so long that it misses a cancellation."""
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    with structjob.Tracker(db_url) as tracker, pytest.raises(Refused, match="refused 3"):
        with tracker.job("backup") as job:
            for attempt in job.retrying("upload", max_attempts=3, delay=0.25, on=OSError):
                with attempt as step:
                    assert structjob.current_step() is step
                    raise Refused(f"refused {attempt.number}")
    assert sum(slept) == pytest.approx(0.25 + 0.5)
    assert max(slept) <= 0.2


async def test_the_last_failure_is_one_and_goes_on_its_way(any_tracker):
    """R12, R9: the last try, the step around it and the job are failed; the exception is the user's
    own, with what its tries told.
    """
    run = work(failures=9)
    with pytest.raises(Refused, match="refused 2") as caught:
        async with any_tracker.job("backup") as job:
            async for attempt in job.retrying(
                "upload", max_attempts=2, delay=0, on=(KeyError, OSError)
            ):
                async with attempt:
                    await run()
    assert any(f"job_id={job.id}" in note for note in caught.value.__notes__)
    assert [entry.name for entry in caught.traceback][1:] == [
        "run"
    ]  # no frame of the library or of tenacity
    steps = await any_tracker.jobs.steps(job.id)
    assert [(step.name, step.status, step.error.message) for step in steps] == [
        ("upload", "failed", "refused 2"),
        ("attempt-1", "retrying", "refused 1"),
        ("attempt-2", "failed", "refused 2"),
    ]
    assert "retry_delay" not in steps[2].metadata
    (end,) = await told(any_tracker, job_id=job.id, kind="operation_end")
    assert (end.attrs["status"], end.attrs["failure_step"]) == ("failed", "upload")


async def test_a_failure_that_is_retried_is_an_occurrence(any_tracker):
    """R39: errors are counted each time they occur, also where a later try succeeds; each once,
    whatever it passes through.
    """
    for failures in (2, 3):
        run = work(failures)
        with pytest.raises(Refused) if failures == 3 else contextlib.nullcontext():
            async with any_tracker.job("backup") as job:
                async for attempt in job.retrying("upload", max_attempts=3, delay=0, on=OSError):
                    async with attempt:
                        await run()
    (group,) = await any_tracker.errors.list()
    assert (group.error.type, group.count, group.jobs) == ("Refused", 5, 2)
    counted = {(one.type, one.step): one.count for one in await any_tracker.stats.errors()}
    assert counted == {
        ("Refused", "attempt-1"): 2,
        ("Refused", "attempt-2"): 2,
        ("Refused", "attempt-3"): 1,
    }
    (errors,) = [one for one in await any_tracker.stats.errors_by_job() if one.job_id == job.id]
    assert errors.errors == 3  # the last try, the step and the job: what was retried is a warning


async def test_what_was_tried_again_is_no_work_left_undone(any_tracker):
    """R16, R18: a job whose retries succeeded is complete: they do not count among its steps, in
    `progress()`, the view and the summary.
    """
    run = work(failures=2)
    async with any_tracker.job("backup") as job:
        async for attempt in job.retrying("upload", delay=0, on=OSError):
            async with attempt:
                await run()
        progress = await any_tracker.jobs.progress(job.id)
        assert (
            progress.completed_steps,
            progress.total_steps,
            progress.step_completion,
            progress.percent,
        ) == (2, 2, 100.0, 100.0)
    (end,) = await told(any_tracker, job_id=job.id, kind="operation_end")
    assert (end.attrs["total_steps"], end.attrs["total_steps_completed"]) == (2, 2)


async def test_the_view_does_not_count_them_either(database, tmp_path):
    """R5, R16: plain SQL sees the same."""
    structjob.configure(console=False, strict=True)
    run = work(failures=1)
    async with (
        structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker,
        tracker.job("backup") as job,
    ):
        async for attempt in job.retrying("upload", delay=0, on=OSError):
            async with attempt:
                await run()
        await tracker.flush()
        ((total, completed, share),) = await database.rows(
            "SELECT total_steps, completed_steps, step_completion FROM structjob_job_progress"
        )
        assert (total, completed, float(share)) == (2, 2, 100.0)


async def test_by_default_it_is_tried_again_if_that_may_help(tracker):
    """R12, R25: the classifier's `retry_possible` decides; without one timeouts and lost
    connections are tried again, and nothing else.
    """
    async with tracker.job("backup") as job:
        async for attempt in job.retrying("connect", delay=0):
            async with attempt:
                if attempt.number == 1:
                    raise ConnectionResetError("gone")
        with pytest.raises(ValueError, match="wrong"):
            async for attempt in job.retrying("parse", delay=0):
                async with attempt:
                    raise ValueError("wrong")
    steps = await tracker.jobs.steps(job.id)
    assert [(step.name, step.status) for step in steps] == [
        ("connect", "completed"), ("attempt-1", "retrying"), ("attempt-2", "completed"), ("parse", "failed"), ("attempt-1", "failed"),
    ]  # fmt: skip


async def test_the_trackers_classifier_decides(db_url):
    """R25: what it calls retryable is tried again, what it does not is not; a function may decide
    instead.
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(
        db_url, classifier=lambda exc: {"retry_possible": isinstance(exc, KeyError)}
    ) as tracker:
        for error, figures, tries in (
            (KeyError("busy"), {}, 3), (TimeoutError("slow"), {}, 1), (KeyError("busy"), {"on": lambda exc: False}, 1),
            (OSError("no"), {"on": lambda exc: exc.args == ("no",)}, 3),
        ):  # fmt: skip
            with pytest.raises(type(error)):
                async with tracker.job("a") as job:
                    async for attempt in job.retrying("ask", delay=0, **figures):
                        async with attempt:
                            raise error
            assert len(await tracker.jobs.steps(job.id)) == 1 + tries


async def test_deep_code_needs_no_handle_and_a_decorator_tries_each_call(tracker):
    """R8, R12: `structjob.retrying` is within the job and step that run where it begins; calls at
    once do not disturb each other.
    """
    failed = set()

    @structjob.retrying("fetch", delay=0, on=OSError)
    async def fetch(name):
        await asyncio.sleep(0)
        if name not in failed:
            failed.add(name)
            raise Refused(name)
        return name.upper()

    async with tracker.job("backup") as job, job.step("all") as outer:
        assert await asyncio.gather(fetch("a"), fetch("b")) == ["A", "B"]
    steps = await tracker.jobs.steps(job.id)
    wholes = [step for step in steps if step.name == "fetch"]
    assert [step.parent_step_id for step in wholes] == [outer.id] * 2
    for whole in wholes:
        assert [step.status for step in steps if step.parent_step_id == whole.id] == [
            "retrying",
            "completed",
        ]
    assert fetch.__name__ == "fetch"


async def test_outside_a_job_it_is_tried_all_the_same(monkeypatch, caplog):
    """R8: tracking never breaks a program; what runs outside a job is untracked, and a warning says
    so once, in the user's line.
    """
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr(contexts, "_warned_untracked", False)
    run = work(failures=1)
    async for attempt in structjob.retrying("upload", delay=0, on=OSError):
        async with attempt as step:
            step.advance()
            await run()
    assert attempt.number == 2
    (said,) = [
        record.getMessage()
        for record in caplog.records
        if "'upload' runs outside a job" in record.getMessage()
    ]
    assert __file__ in said


async def test_a_cancellation_between_two_tries_is_told(any_tracker):
    """R12, R9: the try that failed stays what it was; the step around it, and the job, are
    cancelled, with the reason.
    """
    waiting = asyncio.Event()

    async def sleep(seconds):
        assert seconds == 30
        waiting.set()
        await asyncio.Event().wait()

    policy = tenacity.AsyncRetrying(wait=tenacity.wait_fixed(30), sleep=sleep)
    ids = []

    async def main():
        async with any_tracker.job("backup") as job:
            ids.append(job.id)
            async for attempt in job.retrying("upload", policy):
                async with attempt:
                    raise Refused("no")

    task = asyncio.create_task(main())
    await waiting.wait()
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError):
        await task
    steps = await any_tracker.jobs.steps(ids[0])
    assert [(step.name, step.status, step.error.message) for step in steps] == [
        ("upload", "cancelled", "enough"),
        ("attempt-1", "retrying", "no"),
    ]
    assert (await any_tracker.jobs.get(ids[0])).status == "cancelled"


@pytest.mark.parametrize(
    "policy", [None, tenacity.AsyncRetrying(retry=tenacity.retry_if_not_exception_type(ValueError))]
)
async def test_a_cancelled_try_is_not_tried_again(tracker, policy):
    """R9: a cancellation is never swallowed, whatever the policy says."""
    with pytest.raises(asyncio.CancelledError):
        async with tracker.job("backup") as job:
            async for attempt in job.retrying("upload", policy):
                async with attempt:
                    raise asyncio.CancelledError("stop")
    assert [step.status for step in await tracker.jobs.steps(job.id)] == ["cancelled", "cancelled"]


async def test_leaving_a_try_halfway_is_its_success(tracker):
    """R12: `break` and `return` within a try end the step around it, too."""
    async with tracker.job("backup") as job:
        async for attempt in job.retrying("upload"):
            async with attempt:
                break
    assert [(step.name, step.status) for step in await tracker.jobs.steps(job.id)] == [
        ("upload", "completed"),
        ("attempt-1", "completed"),
    ]


async def test_what_was_ended_by_hand_stays_so(tracker):
    """R8: a try that is skipped is not retried, and stays skipped."""
    async with tracker.job("backup") as job:
        async for attempt in job.retrying("upload"):
            async with attempt as step:
                step.skip("nothing to do")
    assert [step.status for step in await tracker.jobs.steps(job.id)] == ["completed", "skipped"]


# -- tenacity
# --------------------------------------------------------------------------


async def test_a_policy_of_tenacitys_decides_all_of_it(any_tracker):
    """R12: stop, wait and callbacks are the policy's; what comes out is its RetryError;
    max_attempts is what its stop says, if it does.
    """
    called = []
    policy = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60),
        wait=tenacity.wait_chain(tenacity.wait_fixed(0.001), tenacity.wait_fixed(0.002)),
        before=lambda state: called.append(("before", state.attempt_number)),
        after=lambda state: called.append(("after", state.attempt_number)),
        before_sleep=lambda state: log.info("sleeping", seconds=state.upcoming_sleep),
    )
    run = work(failures=9)
    with pytest.raises(tenacity.RetryError) as caught:
        async with any_tracker.job("backup") as job:
            async for attempt in job.retrying("upload", policy):
                async with attempt:
                    await run()
    assert str(caught.value.__cause__) == "refused 3"
    assert called == [
        ("before", 1),
        ("after", 1),
        ("before", 2),
        ("after", 2),
        ("before", 3),
        ("after", 3),
    ]
    whole, *tries = await any_tracker.jobs.steps(job.id)
    assert (whole.status, whole.error.type) == ("failed", "RetryError")
    assert [(step.status, step.metadata.get("retry_delay"), step.metadata["max_attempts"]) for step in tries] == [
        ("retrying", 0.001, 3), ("retrying", 0.002, 3), ("failed", None, 3),
    ]  # fmt: skip
    assert tries[2].error.message == "refused 3"
    slept = await told(any_tracker, text="sleeping")
    assert [(event.step_id, event.attrs["seconds"]) for event in slept] == [
        (whole.id, 0.001),
        (whole.id, 0.002),
    ]


async def test_a_policy_is_shared_by_runs_at_the_same_time(tracker):
    """R12: each works on a copy, so that even asynchronous callbacks of one do not reach into the
    other.
    """
    called = []

    async def after(state):
        await asyncio.sleep(0)
        called.append(state.attempt_number)

    policy = tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(5), after=after)
    async with tracker.job("backup") as job:
        tries = job.retrying("upload", policy)
        assert await asyncio.gather(*(tries(work(failures))() for failures in (1, 2, 3))) == [
            2,
            3,
            4,
        ]
    assert sorted(called) == [1, 1, 1, 2, 2, 3]
    assert policy.statistics == {}


async def test_a_decorated_function_keeps_its_policy(tracker):
    """R12: what `@tenacity.retry` decorated is recorded by its own policy, on results, too; without
    a limit there is no max_attempts.
    """

    @tenacity.retry(retry=tenacity.retry_if_result(lambda found: found is None))
    async def poll():
        raise AssertionError("the plain function is called")

    answers = iter([None, "ready"])

    @structjob.retrying("poll", poll.retry)
    async def ask():
        return next(answers)

    async with tracker.job("backup") as job:
        assert await ask() == "ready"
    _, first, second = await tracker.jobs.steps(job.id)
    assert (first.status, first.error, first.metadata) == (
        "retrying",
        None,
        {"attempt_number": 1, "retry_delay": 0},
    )
    assert (second.status, second.metadata) == ("completed", {"attempt_number": 2})


async def test_the_last_word_of_a_policy(tracker):
    """R12: `TryAgain`, a callback instead of an exception, results that never come, a policy that
    is switched off: as tenacity does.
    """
    stop = tenacity.stop_after_attempt(2)
    async with tracker.job("backup") as job:
        fallback = tenacity.AsyncRetrying(stop=stop, retry_error_callback=lambda state: "cached")
        assert await job.retrying("fallback", fallback)(work(9))() == "cached"
        with pytest.raises(tenacity.RetryError):
            await job.retrying(
                "results", tenacity.AsyncRetrying(stop=stop, retry=tenacity.retry_if_result(bool))
            )(work(0))()
        again = iter([tenacity.TryAgain, None])

        @job.retrying("again", tenacity.AsyncRetrying(stop=stop, retry=tenacity.retry_never))
        async def ask():
            if (error := next(again)) is not None:
                raise error

        await ask()
        with pytest.raises(Refused, match="refused 1"):
            await job.retrying("off", tenacity.AsyncRetrying(enabled=False))(work(9))()

        async def answer():
            return 42

        assert await job.retrying("once", tenacity.AsyncRetrying(enabled=False))(answer)() == 42
        for_threads = tenacity.Retrying(stop=stop, wait=tenacity.wait_fixed(0.001))
        await job.retrying("for threads", for_threads)(work(1))()
    steps = await tracker.jobs.steps(job.id)
    assert [(step.name, step.status) for step in steps] == [
        ("fallback", "failed"), ("attempt-1", "retrying"), ("attempt-2", "failed"),
        ("results", "failed"), ("attempt-1", "retrying"), ("attempt-2", "failed"),
        ("again", "completed"), ("attempt-1", "retrying"), ("attempt-2", "completed"),
        ("off", "failed"), ("attempt-1", "failed"),
        ("once", "completed"), ("attempt-1", "completed"),
        ("for threads", "completed"), ("attempt-1", "retrying"), ("attempt-2", "completed"),
    ]  # fmt: skip
    assert steps[0].error.message == "refused 2"


async def test_a_fault_of_a_callback_is_recorded(tracker):
    """R9: what a policy's own code raises ends the tries, and is what the steps failed by."""

    def broken(state):
        raise RuntimeError("no idea")

    for policy, expected in (
        (tenacity.AsyncRetrying(retry=broken), [("a", "failed"), ("attempt-1", "failed")]),
        (tenacity.AsyncRetrying(before=broken), [("a", "failed")]),
    ):
        with pytest.raises(RuntimeError, match="no idea"):
            async with tracker.job("backup") as job:
                async for attempt in job.retrying("a", policy):
                    async with attempt:
                        pass
        assert [(step.name, step.status) for step in await tracker.jobs.steps(job.id)] == expected
        assert structjob.current_job() is None


@pytest.mark.parametrize("ends", ["policy", "cancellation"])
async def test_a_try_that_ended_all_is_the_last_even_if_its_error_is_suppressed(tracker, ends):
    """R12: code that suppresses what ended the tries does not get another one."""

    def broken(state):
        raise RuntimeError("no idea")

    policy = tenacity.AsyncRetrying(retry=broken) if ends == "policy" else tenacity.AsyncRetrying()
    tries = 0
    async with tracker.job("backup") as job:
        async for attempt in job.retrying("a", policy):
            tries += 1
            assert tries == 1
            with contextlib.suppress(RuntimeError, asyncio.CancelledError):
                async with attempt:
                    if ends == "cancellation":
                        raise asyncio.CancelledError
    assert tries == 1


# -- whole jobs
# --------------------------------------------------------------------------


async def test_a_whole_job_is_tried_again_as_its_next_attempt(any_tracker):
    """R12: one job, three attempts, each with its own steps and error; the delay is in the last
    event of each that failed.
    """
    run = work(failures=2)
    ids = set()
    async for attempt in any_tracker.retrying(
        "nightly", max_attempts=4, delay=0.001, on=OSError, owner="ada", metadata={"day": "monday"}
    ):
        async with attempt as job:
            ids.add(job.id)
            assert (job.attempt, structjob.current_job()) == (attempt.number, job)
            job.metadata["tries"] = attempt.number
            async with job.step("load"):
                job.result = await run()
    (id_,) = ids
    record = await any_tracker.jobs.get(id_)
    assert (record.status, record.attempt, record.result, record.error, record.owner) == (
        "completed",
        3,
        3,
        None,
        "ada",
    )
    assert record.metadata == {"day": "monday", "tries": 3}
    history = await any_tracker.jobs.history(id_)
    assert [(one.attempt, one.status, one.error and one.error.message) for one in history] == [
        (1, "failed", "refused 1"), (2, "failed", "refused 2"), (3, "completed", None),
    ]  # fmt: skip
    assert [step.status for n in (1, 2, 3) for step in await any_tracker.jobs.steps(id_, n)] == [
        "failed",
        "failed",
        "completed",
    ]
    ends = await told(any_tracker, job_id=id_, kind="operation_end")
    assert [(end.level, end.attrs["attempt_number"], end.attrs["max_attempts"], end.attrs.get("retry_delay")) for end in ends] == [
        ("warning", 1, 4, 0.001), ("warning", 2, 4, 0.002), ("info", 3, 4, None),
    ]  # fmt: skip
    assert len({event.correlation_id for event in await told(any_tracker, job_id=id_)}) == 1


async def test_a_function_as_a_job_that_is_tried_again(tracker):
    """R8, R12: each call is a job of its own; what comes out is the function's result, or its last
    exception.
    """

    @tracker.retrying("nightly", max_attempts=2, delay=0, on=OSError)
    async def nightly(run):
        return await run()

    assert await nightly(work(1)) == 2
    with pytest.raises(Refused, match="refused 2"):
        await nightly(work(9))
    newest, first = await tracker.jobs.list()
    assert (first.status, first.attempt, first.result) == ("completed", 2, 2)
    assert (newest.status, newest.attempt, newest.error.message) == ("failed", 2, "refused 2")


async def test_a_cancellation_between_two_attempts_is_told(tracker):
    """R12: the job stays failed, for it was; an event says that no further attempt was made, and
    why.
    """

    async def sleep(seconds):
        raise asyncio.CancelledError("shutting down")

    with pytest.raises(asyncio.CancelledError):
        async for attempt in tracker.retrying("nightly", tenacity.AsyncRetrying(sleep=sleep)):
            async with attempt as job:
                raise Refused("no")
    assert [(one.status, one.error.message) for one in await tracker.jobs.history(job.id)] == [
        ("failed", "no")
    ]
    (given_up,) = await told(tracker, kind="retry_given_up")
    assert (given_up.job_id, given_up.level, given_up.attrs["reason"]) == (
        job.id,
        "warning",
        "shutting down",
    )


async def test_the_next_attempt_does_not_need_the_database(tracker, monkeypatch):
    """R12, R29: the process that made the last attempt knows which one follows."""
    run = work(failures=1)

    async def away(row, job, *, pending):
        raise StoreUnavailable("the database is away")

    async for attempt in tracker.retrying("nightly", delay=0, on=OSError):
        async with attempt as job:
            monkeypatch.setattr(tracker._host, "claim", away)
            await run()
    assert [(one.attempt, one.status) for one in await tracker.jobs.history(job.id)] == [
        (1, "failed"),
        (2, "completed"),
    ]


async def test_a_job_that_another_start_holds_is_not_its_to_try_again(tracker):
    """R14: with an idempotency key that another start holds, each try gets that job, and opens no
    attempt of it.
    """
    async with tracker.job("nightly", idempotency_key="monday") as holder:
        with pytest.raises(Refused):
            async for attempt in tracker.retrying(
                "nightly", max_attempts=2, delay=0, on=OSError, idempotency_key="monday"
            ):
                async with attempt as job:
                    assert (job.existing, job.id) == (True, holder.id)
                    raise Refused("no")
    assert [(one.attempt, one.status) for one in await tracker.jobs.history(holder.id)] == [
        (1, "completed")
    ]


# -- wrong use
# --------------------------------------------------------------------------


@each(
    ("figures", "says"),
    [
        ({"max_attempts": 0}, "max_attempts must be a whole number of at least 1, not 0"),
        ({"max_attempts": True}, "max_attempts must be"),
        ({"max_attempts": 2.0}, "max_attempts must be"),
        ({"delay": -1}, "delay must be a number of at least 0, not -1"),
        ({"delay": float("nan")}, "delay must be"),
        ({"backoff": 0.5}, "backoff must be a number of at least 1"),
        ({"max_delay": "60"}, "max_delay must be"),
        ({"jitter": None}, "jitter must be"),
        ({"on": "OSError"}, "on must be a type of exception"),
        ({"on": (OSError, asyncio.CancelledError)}, "a cancellation is never tried again"),
        ({"retries": 3}, "unknown retry option 'retries': use one of max_attempts, delay"),
        ({"policy": tenacity.stop_never}, "policy must be a tenacity.AsyncRetrying or"),
        (
            {"policy": tenacity.AsyncRetrying(), "max_attempts": 2, "delay": 1},
            "a policy replaces the retry options: leave out delay, max_attempts",
        ),
    ],
)
def test_what_is_wrong_is_said_where_it_was_written(figures, says):
    """R12: before anything is tried."""
    with pytest.raises(InvalidArgument, match=says):
        structjob.retrying("upload", **figures)


async def test_other_wrong_use(tracker):
    """R12: names and options are checked, generator functions are not decorated, and an ended job
    is tried no more.
    """
    with pytest.raises(InvalidArgument, match="at most 200 characters"):
        structjob.retrying("x" * 201)
    with pytest.raises(InvalidArgument, match="unknown option 'retries' of a job"):
        tracker.retrying("nightly", retries=3)

    def rows():
        yield 1

    with pytest.raises(InvalidArgument, match=r"tracker.retrying\(\) cannot decorate .*rows"):
        tracker.retrying("nightly")(rows)
    async with tracker.job("a") as job:
        with pytest.raises(
            InvalidState,
            match="try 1 was not made: write `with attempt:` or `async with attempt:` around the work",
        ):
            async for _ in job.retrying("forgotten"):
                pass
    assert [(step.name, step.status) for step in await tracker.jobs.steps(job.id)] == [
        ("forgotten", "cancelled")
    ]
    with pytest.raises(InvalidState, match="is completed"):
        async for _ in job.retrying("late"):
            pass
