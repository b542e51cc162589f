"""Code without an event loop: the same handles in plain ``with`` blocks (R8, R9, R12, R14, R15)."""

import asyncio
import contextlib
import logging
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
import tenacity
from faulty_store import faulty
from stopwatch import Stopwatch

import structjob
from structjob import InvalidArgument, InvalidState, NotOpen
from structjob import diagnostics as diagnostics_module
from structjob.diagnostics import diagnostics
from structjob.machine import loops

__all__ = ["faulty"]
log = structlog.get_logger("app")


@pytest.fixture
def opened(db_url):
    """A tracker in code without a loop, strict: a fault of logging fails the test."""
    structjob.configure(console=False, strict=True)
    with structjob.Tracker(db_url) as tracker:
        yield tracker


def jobs_of(tracker):
    """Return status and error message of each job, by operation."""
    return {
        job.operation: (job.status.value, job.error and job.error.message)
        for job in tracker.run(tracker.jobs.list(limit=1000))
    }


def test_a_block_is_a_job_and_its_events_belong_to_it(opened):
    """R8, R14: job, step, child and log lines, without a loop or an await."""
    with opened.job("nightly", metadata={"night": 7}) as job:
        assert structjob.current_job() is job
        with job.step("load", total=2) as step:
            assert structjob.current_step() is step
            for number in step.track([1, 2]):
                log.info("loading", number=number)
        with structjob.step("index"):
            pass
        with job.child("report") as child:
            log.info("within the child")
        job.result = {"rows": 2}
    assert structjob.current_job() is None
    record = opened.run(opened.jobs.get(job.id))
    assert (record.status, record.result, record.attempt) == ("completed", {"rows": 2}, 1)
    steps = opened.run(opened.jobs.steps(job.id))
    assert [(one.name, one.status.value, one.total) for one in steps] == [
        ("load", "completed", 2),
        ("index", "completed", None),
    ]
    assert opened.run(opened.jobs.get(child.id)).parent_job_id == job.id
    lines = opened.run(opened.logs.list(kind="log"))
    assert [(line.message, line.job_id, line.step) for line in lines] == [
        ("loading", job.id, "load"),
        ("loading", job.id, "load"),
        ("within the child", child.id, None),
    ]
    assert opened.run(opened.verify()).ok


@pytest.mark.parametrize(
    ("exc", "status"),
    [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "cancelled"), (SystemExit(3), "failed")],
    ids=["ValueError", "Ctrl-C", "exit 3"],
)
def test_an_exception_ends_the_job_and_goes_on(opened, exc, status):
    """R9, R15: the same object leaves the blocks of step and job."""
    with pytest.raises(type(exc)) as caught, opened.job("a") as job, job.step("s"):
        raise exc
    assert caught.value is exc
    assert opened.run(opened.jobs.get(job.id)).status == status
    assert [one.status for one in opened.run(opened.jobs.steps(job.id))] == [status]


def test_the_job_is_found_when_its_block_begins(opened):
    """R8: the start waits for its commit."""
    with opened.job("a", external_job_id="gui-17"):
        assert opened.run(opened.jobs.find("gui-17")).status == "running"


def test_a_known_id_is_the_next_attempt(opened):
    """R12: across blocks, and an idempotency key is the job that is there."""
    for attempt in (1, 2):
        with opened.job("load", job_id="load-1") as job:
            assert job.attempt == attempt
    with opened.job("a", idempotency_key="k") as first:
        pass
    with opened.job("a", idempotency_key="k") as second:
        assert (second.existing, second.id) == (True, first.id)


def test_functions_are_decorated(opened):
    """R8: plain functions as well as coroutine functions."""

    @opened.job("adding")
    def add(a, b):
        return inner(a, b)

    @structjob.step("inner")
    def inner(a, b):
        assert structjob.current_step().name == "inner"
        return a + b

    assert add(1, b=2) == 3
    (record,) = opened.run(opened.jobs.list())
    assert (record.operation, record.result, record.status) == ("adding", 3, "completed")

    @opened.job("later")
    async def later():
        return 5

    assert asyncio.run(later()) == 5


def test_handles_end_when_they_are_told_to(opened):
    """R8: end() and start() do their work when called; awaiting is optional."""
    with opened.job("a") as job:
        step = job.step("by hand")
        step.start()
        assert step.status == "running"
        step.end(rows=3)
        assert step.status == "completed"
        job.end("failed")
        assert job.status == "failed"


async def test_what_they_return_can_be_awaited(tracker):
    """R8: one method for code with and without a loop."""
    async with tracker.job("a") as job:
        step = await job.step("by hand").start()
        assert (step.name, step.status) == ("by hand", "running")
        assert await step.end() is None
        assert await job.end(result=1) is None
    assert (job.status, job.result) == ("completed", 1)


def test_eight_threads_have_contexts_of_their_own(opened):
    """R14: jobs of threads do not mix; each line is with its own job."""

    def work(thread):
        for number in range(20):
            with opened.job(f"t{thread}", wait=False) as job, job.step("s"):
                log.info("line", of=job.id, number=number)
            assert structjob.current_job() is None

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    lines = opened.run(_all(opened))
    assert len(lines) == 160
    assert all(line.attrs["of"] == line.job_id and line.step == "s" for line in lines)
    assert {job.status for job in opened.run(opened.jobs.list(limit=1000))} == {"completed"}


async def _all(tracker):
    return [event async for event in tracker.logs.iterate(kind="log")]


def test_run_keeps_the_context_and_gives_up_in_time(opened):
    """R14: what a coroutine logs belongs to the caller's job; *timeout* cancels it."""

    async def logs():
        log.info("within")
        return structjob.current_job()

    async def waits():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ended = threading.Event()
    with opened.job("a") as job:
        assert opened.run(logs()) is job
        with pytest.raises(TimeoutError):
            opened.run(waits(), timeout=0.5)  # it begins within this time
        assert ended.wait(60)
    (line,) = opened.run(opened.logs.list(kind="log"))
    assert line.job_id == job.id


def test_the_trackers_own_loop_does_not_wait_for_itself(opened):
    """R8: it would have to make the commit that it waits for."""

    async def within():
        watch = Stopwatch()
        with opened.job("a"):
            pass
        took = watch.seconds
        with pytest.raises(InvalidState, match="await it here"), opened.job("b", job_id="b"):
            pass
        with pytest.raises(InvalidState, match="await it here"):
            opened.run(asyncio.sleep(0))
        return took

    assert opened.run(within()) < 0.5
    assert jobs_of(opened) == {"a": ("completed", None)}


def test_a_block_in_another_loop(opened):
    """R8: in a notebook, whose cells run in a loop."""

    async def cell():
        with opened.job("cell") as job:
            async with job.step("s"):
                await asyncio.sleep(0)

    asyncio.run(cell())
    assert jobs_of(opened) == {"cell": ("completed", None)}


def test_a_block_ends_quietly_whose_tracker_was_closed_by_another_call(db_url):
    """R34: such as an exit handler: Python 3.13 runs those of `atexit` before those of a worker."""
    tracker = structjob.Tracker(db_url)
    with tracker:
        assert tracker.run(tracker.aclose())
    assert tracker.close()
    assert not [one for one in threading.enumerate() if one.name == "structjob-loop"]


def test_closing_on_its_own_loop_is_refused_and_harms_nothing(opened):
    """R34: a loop that stopped itself would deliver nothing any more."""

    async def within():
        with pytest.raises(InvalidState, match="await it here"):
            opened.close()
        await opened.aclose()
        return opened.close()

    with opened.job("a"):
        pass
    assert jobs_of(opened) == {"a": ("completed", None)}
    assert opened.run(within())


def test_use_before_and_after(db_url):
    """R34: a tracker that is not open says so; closing it twice does no harm."""
    tracker = structjob.Tracker(db_url)
    with pytest.raises(NotOpen, match="not open yet"), tracker.job("early"):
        pass
    assert tracker.close()
    with tracker:
        assert tracker.close()
        assert tracker.close()
    with pytest.raises(NotOpen, match="closed; open it again"), tracker.job("late"):
        pass
    with pytest.raises(NotOpen, match="closed"):
        tracker.run(asyncio.sleep(0))
    assert not [one for one in threading.enumerate() if one.name == "structjob-loop"]


def test_a_tracker_that_cannot_open_leaves_no_thread(tmp_path):
    """R34: the error is raised where the block begins."""
    (tmp_path / "jobs.db").write_bytes(b"this is no database, and never was" * 100)
    with (
        pytest.raises(structjob.SchemaMismatch),
        structjob.Tracker(f"sqlite:///{tmp_path}/jobs.db"),
    ):
        pass
    assert not [one for one in threading.enumerate() if one.name == "structjob-loop"]


# -- cancelling
# --------------------------------------------------------------------------


def _cancelled_by_another_thread(tracker, job):
    thread = threading.Thread(target=lambda: tracker.run(tracker.cancel(job.id, "enough")))
    thread.start()
    thread.join()


@pytest.mark.parametrize("notices", ["step", "track", "update", "check", "pause", "child"])
def test_a_job_that_was_asked_to_stop_does(opened, notices):
    """R9: at the next step, item, report, pause or child; the reason is recorded."""
    with pytest.raises(structjob.Cancelled, match="enough"), opened.job("a") as job:
        if notices != "pause":
            _cancelled_by_another_thread(opened, job)
            assert job.cancel_requested
        if notices == "step":
            with job.step("next"):
                pass
        elif notices == "track":
            for _ in structjob.current_job().step("s").track([1]):
                pass
        elif notices == "update":
            job.update(percent=1)
        elif notices == "check":
            job.check_cancelled()
        elif notices == "child":
            with job.child("c"):
                pass
        else:
            for attempt in job.retrying("r", delay=60, on=OSError):
                with attempt:
                    _cancelled_by_another_thread(opened, job)
                    raise OSError
        pytest.fail("it went on")
    assert jobs_of(opened) == {"a": ("cancelled", "enough")}


def test_cleaning_up_is_not_interrupted_again(opened):
    """R9: the request is raised once; steps that clean up run, and a check says so still."""
    with pytest.raises(structjob.Cancelled), opened.job("a") as job:
        _cancelled_by_another_thread(opened, job)
        try:
            job.update(percent=1)
        finally:
            with job.step("clean up"):
                job.update(percent=2)
            with pytest.raises(structjob.Cancelled):
                job.check_cancelled()
    assert [one.status for one in opened.run(opened.jobs.steps(job.id))] == ["completed"]


def test_an_exception_handler_does_not_swallow_it(opened):
    """R9: `except Exception` is everywhere."""
    with pytest.raises(structjob.Cancelled), opened.job("a") as job:
        _cancelled_by_another_thread(opened, job)
        try:
            job.check_cancelled()
        except Exception:
            pytest.fail("swallowed")


# -- retries
# --------------------------------------------------------------------------


def test_work_is_tried_again(opened):
    """R12: each try is a step; the last exception or the result comes out."""
    tries = []
    with opened.job("a") as job:
        for attempt in structjob.retrying("download", delay=0.01, on=OSError):
            with attempt as step:
                tries.append(step.name)
                if len(tries) < 3:
                    raise OSError("not yet")
    assert tries == ["attempt-1", "attempt-2", "attempt-3"]
    steps = opened.run(opened.jobs.steps(job.id))
    assert [(one.name, one.status.value) for one in steps] == [
        ("download", "completed"),
        ("attempt-1", "retrying"),
        ("attempt-2", "retrying"),
        ("attempt-3", "completed"),
    ]


def test_a_function_and_a_job_are_tried_again(opened):
    """R12: decorated functions, policies of tenacity without a loop, and whole jobs."""
    seen = []

    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(0.05), reraise=True
    )

    @structjob.retrying("flaky", policy)
    def flaky(value):
        seen.append(time.monotonic())
        if len(seen) < 2:
            raise ValueError("once")
        return value * 2

    with opened.job("a"):
        assert flaky(4) == 8
    assert seen[1] - seen[0] >= 0.05
    for attempt in opened.retrying("whole", delay=0, on=OSError):
        with attempt as job:
            if job.attempt == 1:
                raise OSError("first")
    assert [one.status.value for one in opened.run(opened.jobs.history(job.id))] == [
        "failed",
        "completed",
    ]
    with pytest.raises(OSError, match="always"):
        for attempt in structjob.retrying("untracked", delay=0, on=OSError):
            with attempt:
                raise OSError("always")


def test_a_policy_that_awaits_is_refused_in_plain_code(opened):
    """R12: with a message that says what to write."""

    async def before(state):
        await asyncio.sleep(0)

    policy = tenacity.AsyncRetrying(before=before)
    with pytest.raises(InvalidState, match="write `async for`"), opened.job("a"):
        for attempt in structjob.retrying("x", policy):
            with attempt:
                pass


def test_items_that_are_async_say_so(opened):
    """R18: `for` over an async iterable."""

    async def chunks():
        yield 1

    with opened.job("a") as job, job.step("s") as step:
        with pytest.raises(InvalidArgument, match="write `async for`"):
            for _ in step.track(chunks()):
                pass
        step.advance()


def test_a_frozen_database_does_not_hold_the_program_up(db_url, faulty, monkeypatch):
    """R29: opening and the start of a job are bounded; what was recorded is stored later."""
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr("structjob.engine.opening.OPEN_WAITS_FILE", 0.1)
    monkeypatch.setattr("structjob.lifecycle.job_core.START_WAITS", 0.1)
    faulty.frozen = True
    with structjob.Tracker(db_url) as tracker:
        with tracker.job("a") as job:  # otherwise it would begin when the database answers: never
            log.info("meanwhile")
        faulty.frozen = False
        tracker.run(_thawed(faulty))
        assert tracker.run(tracker.jobs.get(job.id), timeout=20).status == "completed"


async def _thawed(faulty):
    faulty.thawed.set()


# -- whatever tracker is open
# --------------------------------------------------------------------------


@structjob.job("sorting", job_type="library")
def sorting(numbers):
    """A library's function: it knows no tracker."""
    with structjob.step("sort", total=len(numbers)) as step:
        step.advance(len(numbers))
        structjob.current_job().metadata["sorted"] = len(numbers)
        return sorted(numbers)


def test_a_decorated_function_is_a_job_of_the_tracker_that_is_open(opened):
    """R8: at module level, without a tracker at hand; within a job it is a child of that."""
    assert sorting([2, 1]) == [1, 2]
    (record,) = opened.run(opened.jobs.list())
    assert (record.operation, record.job_type, record.result) == ("sorting", "library", [1, 2])
    assert record.metadata == {"sorted": 2}
    with opened.job("outer") as outer:
        sorting([3])
    assert [one.job.operation for one in opened.run(opened.jobs.tree(outer.id)).children] == [
        "sorting"
    ]


def test_it_belongs_to_the_tracker_of_the_job_around_it(opened, tmp_path):
    """R8: with two trackers open, and to the first one outside jobs."""
    with structjob.Tracker(f"sqlite:///{tmp_path}/second.db") as second:
        with second.job("outer"):
            sorting([1])
        sorting([2])
        assert set(jobs_of(second)) == {"outer", "sorting"}
    assert set(jobs_of(opened)) == {"sorting"}


def test_without_a_tracker_the_work_runs_and_nothing_is_said(caplog, capsys):
    """R8: a library's decorators harm no program that tracks nothing."""
    structjob.configure(strict=True)
    assert sorting([2, 1]) == [1, 2]
    with pytest.raises(ValueError, match="bad") as caught, structjob.job("a", job_id="a") as job:
        with job.child("c") as child, child.step("s") as step:
            step.update(completed=1, percent=50)
            step.skip()
            step.end()
        for attempt in structjob.retrying("r", delay=0):
            with attempt:
                pass
        job.update(percent=10)
        raise ValueError("bad")
    assert (job.status, child.status, step.status) == ("failed", "completed", "skipped")
    assert not hasattr(caught.value, "__notes__")
    assert structjob.current_job() is None
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []


async def test_without_a_tracker_in_a_loop(capsys):
    """R8: the same with `async with`."""
    structjob.configure(strict=True)
    async with structjob.job("a", idempotency_key="k") as job, job.step("s") as step:
        assert structjob.current_job() is job
        assert [item async for item in step.track([1, 2])] == [1, 2]
        assert step.percent == 100
    assert job.status == "completed"
    structjob.configure(console=False)
    async with structjob.job("b") as job, job.step("s") as step:
        step.update(percent=-1)
        job.update(percent="half")
    assert job.status == "completed"
    assert capsys.readouterr() == ("", "")


def test_wrong_options_are_refused_where_they_are_written():
    """R8: not when the function is called for the first time."""
    with pytest.raises(InvalidArgument, match="unknown option 'ownr' of a job"):
        structjob.job("a", ownr="ada")


def test_init_opens_one_tracker_for_each_database(db_url, tmp_path):
    """R8: a second call returns the first one's tracker, while that is open."""
    structjob.configure(console=False, strict=True)
    first = structjob.init(db_url)
    try:
        assert structjob.init(db_url) is first
        with sorting_job(first) as job:
            pass
        assert first.run(first.jobs.get(job.id)).status == "completed"
        other = structjob.init(f"sqlite:///{tmp_path}/other.db")
        assert other is not first
        other.close()
    finally:
        first.close()
    again = structjob.init(db_url)
    assert again is not first
    again.close()


def sorting_job(tracker):
    return tracker.job("sorting")


def test_run_names_its_mistakes(db_url):
    """R18: a function instead of a coroutine, and a time limit that is over."""
    with structjob.Tracker(db_url) as tracker:
        with pytest.raises(InvalidArgument, match=r"tracker.run\(\) takes a coroutine, such as"):
            tracker.run(len)
        with pytest.raises(TimeoutError, match=r"did not end within 0.01 s, and was cancelled"):
            tracker.run(asyncio.sleep(60), timeout=0.01)
        assert repr(tracker.job("a").begin().end()) == "<done>"


def test_items_that_cannot_be_iterated_are_named(db_url):
    """R17: not taken for something asynchronous."""
    with structjob.Tracker(db_url) as tracker, tracker.job("a") as job, job.step("s") as step:
        with pytest.raises(InvalidArgument, match=r"step.track\(\) takes an iterable, not 5"):
            list(step.track(5))


def test_a_greenlet_does_not_take_the_trackers_loop_for_its_own():
    """After gevent's patches the loop runs in a greenlet of the same thread, where asyncio finds it
    from everywhere: `tracker.run()` would be refused.
    """

    class OfAnotherGreenlet:
        _thread_id = threading.get_ident() + 1

    class OfThisOne:
        _thread_id = threading.get_ident()

    own = OfThisOne()
    before = asyncio._get_running_loop()
    try:
        for loop, found in ((OfAnotherGreenlet(), None), (own, own), (None, None)):
            asyncio._set_running_loop(loop)
            assert loops._of_this_greenlet() is found
    finally:
        asyncio._set_running_loop(before)


def test_gevents_patches_are_noticed(monkeypatch):
    """They are made before anything else is imported; eventlet's, too."""
    assert not loops.threads_are_greenlets()
    for name, asked in (
        ("gevent.monkey", "is_module_patched"),
        ("eventlet.patcher", "is_monkey_patched"),
    ):
        for patched in (True, False):
            module = types.SimpleNamespace(**{asked: lambda _, patched=patched: patched})
            monkeypatch.setitem(sys.modules, name, module)
            assert loops.threads_are_greenlets() is patched
        monkeypatch.delitem(sys.modules, name)


class Cancelled(BaseException):
    """As Trio has it."""


def test_a_cancellation_by_trio_is_recorded_as_one(db_url, monkeypatch):
    """R9: `trio.Cancelled` ends a job and its step as cancelled, and is in no error report."""
    trio = types.ModuleType("trio")
    trio.Cancelled = Cancelled
    monkeypatch.setitem(sys.modules, "trio", trio)
    with structjob.Tracker(db_url) as tracker:
        with pytest.raises(Cancelled), tracker.job("copy") as job, job.step("read"):
            raise Cancelled
        assert tracker.run(tracker.jobs.get(job.id)).status == "cancelled"
        assert [one.status for one in tracker.run(tracker.jobs.steps(job))] == ["cancelled"]
        assert not tracker.run(tracker.errors.list())


@pytest.mark.parametrize(
    ("others", "status"), [([], "cancelled"), ([OSError("disk full")], "failed")], ids=str
)
def test_a_nursery_of_trio_whose_tasks_are_all_cancelled_is_cancelled(
    db_url, monkeypatch, others, status
):
    """R9: a nursery raises what its tasks raised as a group, also after its deadline. An
    error of one of them is a failure.
    """
    trio = types.ModuleType("trio")
    trio.Cancelled = Cancelled
    monkeypatch.setitem(sys.modules, "trio", trio)
    inner = BaseExceptionGroup("inner nursery", [Cancelled(), *others])
    nursery = BaseExceptionGroup("nursery", [Cancelled(), inner, inner])
    with structjob.Tracker(db_url) as tracker:
        with (
            pytest.raises(BaseExceptionGroup) as raised,
            tracker.job("copy") as job,
            job.step("read"),
        ):
            raise nursery
        assert raised.value is nursery
        assert tracker.run(tracker.jobs.get(job.id)).status == status
        assert [one.status for one in tracker.run(tracker.jobs.steps(job))] == [status]
        assert len(tracker.run(tracker.errors.list())) == len(others)


def test_without_a_loop_of_asyncio_the_message_says_what_works(db_url):
    """`async with` in Trio once said "no running event loop", and the job was recorded as failed;
    now nothing is recorded, and the tracker and the job can be used with `with`.
    """
    tracker = structjob.Tracker(db_url)
    with pytest.raises(structjob.InvalidState, match="use `with`"):
        tracker.__aenter__().send(None)
    with tracker:
        job = tracker.job("copy")
        with pytest.raises(structjob.InvalidState, match="use `with`"):
            job.__aenter__().send(None)
        assert not tracker.run(tracker.jobs.list())
        with job:
            pass
        (stored,) = tracker.run(tracker.jobs.list())
        assert stored.status == "completed"


class _Blocked(logging.Handler):
    """A handler that nothing releases: nothing reads its pipe."""

    def __init__(self):
        super().__init__()
        self.called, self.released = threading.Event(), threading.Event()
        self.records = []

    def emit(self, record):
        self.called.set()
        self.released.wait()
        self.records.append(record)


def test_a_handler_that_blocks_does_not_stop_delivery(db_url, faulty):
    """Guarantee 1: the tracker's own thread warns through the program's handlers of `logging`."""
    structjob.configure(console=False)
    handler = _Blocked()
    logging.getLogger("structjob").addHandler(handler)
    with structjob.Tracker(db_url) as tracker:
        try:
            for number in range(2):
                faulty.before = structjob.StoreUnavailable("no route to host")
                log.info("logged", number=number)
                handler.called.wait()
                faulty.before = None
                while True:
                    with contextlib.suppress(structjob.StoreUnavailable):  # it notices it soon
                        found = tracker.run(tracker.logs.count(text="logged"), timeout=60)
                        break
                assert found == number + 1
        finally:
            logging.getLogger("structjob").removeHandler(handler)
            handler.released.set()


def test_a_slow_handler_gets_each_message_and_the_place_it_is_from(monkeypatch):
    """The tracker's own thread waits only briefly for a handler that sends mail. What it drops if
    the handler stays busy is counted.
    """
    monkeypatch.setattr(diagnostics_module, "_HANDLERS_TIMEOUT", 0.0)
    monkeypatch.setattr(diagnostics_module, "_EXIT_TIMEOUT", None)
    diagnostics.await_handlers()
    handler = _Blocked()
    records = handler.records

    def work():
        for number in range(12):
            diagnostics.warning("message %d", number)
        handler.released.set()
        diagnostics.await_handlers()
        diagnostics.warning("the end")
        try:
            raise KeyError("odd")
        except KeyError:
            diagnostics.exception("it failed")
        diagnostics.await_handlers()

    logging.getLogger("structjob").addHandler(handler)
    try:
        thread = threading.Thread(target=work, name="structjob-loop")
        thread.start()
        thread.join()
    finally:
        logging.getLogger("structjob").removeHandler(handler)
    assert [record.getMessage() for record in records] == [
        *(f"message {number}" for number in range(10)),
        "the end (2 messages were dropped before, while a handler was busy)",
        "it failed",
    ]
    assert "KeyError: 'odd'" in logging.Formatter().format(records[-1])
    assert {(record.filename, record.funcName, record.threadName) for record in records} == {
        ("test_without_loop.py", "work", "structjob-loop")
    }
