"""Jobs and steps in threads and worker processes (R22)."""

import asyncio
import concurrent.futures.process
import copy
import dataclasses
import multiprocessing.pool
import os
import pickle
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from cli_support import preforked
from database_support import SERVERS

import structjob
from structjob.exceptions import InvalidArgument, InvalidURL

log = structlog.get_logger("app")


def ids():
    return structjob.inject({})


async def test_a_function_keeps_the_context_it_was_made_in(tracker):
    """R22: a thread and a callback that run later belong to the job in which they were made."""
    found = []
    async with tracker.job("a") as job, job.step("s"):
        here = ids()
        later = structjob.in_context(lambda *more, **named: found.append((ids(), more, named)))
    thread = threading.Thread(target=later, args=(1,), kwargs={"x": 2})
    thread.start()
    thread.join()
    async with tracker.job("another"):
        await asyncio.to_thread(later)
        assert ids() != here
    assert found == [(here, (1,), {"x": 2}), (here, (), {})]


@pytest.mark.parametrize(
    "wrapped",
    [
        multiprocessing.pool.ExceptionWithTraceback,
        concurrent.futures.process._ExceptionWithTraceback,
    ],
)
async def test_the_traceback_of_a_worker_is_not_its_cause(tracker, wrapped):
    """A pool attaches it to what the worker raised, as a cause: it is in the traceback, once, and
    does not fill the line (R22).
    """
    raised = pickle.loads(pickle.dumps(wrapped(ValueError("seven"), None)))
    async with tracker.job("a") as job:
        try:
            raise raised
        except ValueError:
            log.exception("not squared")
    (line,) = await tracker.logs.list(job=job, kind="log")
    assert "underlying_error" not in line.attrs
    assert "RemoteTraceback" in line.attrs["exception"]["traceback"]


async def test_it_runs_in_several_threads_at_once(tracker):
    """R22: a context can be entered once at a time, and each call has one of its own."""
    meeting = threading.Barrier(4, timeout=20)

    def work():
        meeting.wait()
        return ids()

    async with tracker.job("a"):
        within = structjob.in_context(work)
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: within(), range(4))) == [ids()] * 4


def test_in_context_is_for_plain_functions():
    """R22: a coroutine runs in the context of its task; the message says so."""

    async def coroutine():
        pass

    with pytest.raises(InvalidArgument, match="create_task"):
        structjob.in_context(coroutine)
    with pytest.raises(InvalidArgument, match="function"):
        structjob.in_context(3)
    assert structjob.in_context(test_in_context_is_for_plain_functions).__name__ == (
        "test_in_context_is_for_plain_functions"
    )


async def test_threads_of_an_executor_know_the_job(tracker):
    """R22: each call belongs to the job in which it is submitted, not to the one in which its
    thread was started.
    """
    with structjob.ContextExecutor(ThreadPoolExecutor(2)) as pool:
        for operation in ("a", "b"):
            async with tracker.job(operation) as job:
                assert pool.submit(structjob.current_job).result() is job
                assert list(pool.map(lambda n: (n, ids()), range(3))) == [
                    (n, ids()) for n in range(3)
                ]
                loop = asyncio.get_running_loop()
                assert await loop.run_in_executor(pool, structjob.current_job) is job
        assert pool.submit(structjob.current_job).result() is None
        with pytest.raises(ZeroDivisionError):
            pool.submit(lambda: 1 / 0).result()
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(ids)
    with pytest.raises(InvalidArgument, match="executor"):
        structjob.ContextExecutor(object())


class Slow(concurrent.futures.Executor):
    """An executor of the program's own, which pickles."""

    def submit(self, fn, /, *args, **kwargs):
        import pickle

        future = concurrent.futures.Future()
        future.set_result(pickle.loads(pickle.dumps(fn))(*args, **kwargs))
        return future


async def test_an_executor_of_ones_own_may_say_that_it_pickles(tracker):
    """R22: with `processes=True` a call carries the ids, and can be pickled."""
    async with tracker.job("a") as job:
        with job.as_current():
            pool = structjob.ContextExecutor(Slow(), processes=True)
            remote = structjob.extract(pool.submit(ids).result())
    assert remote.job_id == job.id


def test_an_initializer_says_at_once_what_is_wrong():
    """R22: a worker that cannot begin breaks the pool without a word."""
    with pytest.raises(InvalidURL):
        structjob.worker_initializer("nonsense://x")
    with pytest.raises((InvalidArgument, TypeError), match="colour"):
        structjob.worker_initializer("sqlite://", colour="red")


WAYS = ("fork", "spawn", "forkserver")

PROGRAM = """
import asyncio, multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor

import structjob, structlog

log = structlog.get_logger()


def work(number):
    log.info("in a worker", number=number, pid=os.getpid())
    return os.getpid()


async def main(how, kind, url, spool):
    structjob.configure(console=False)
    context = multiprocessing.get_context(how)
    initializer = structjob.worker_initializer(url, spool=spool)
    async with structjob.Tracker(url, spool=spool) as tracker:
        if kind == "pool":
            async with tracker.job("a") as job:
                call = structjob.ContextExecutor(Now(), processes=True)
                with context.Pool(2, initializer) as pool:
                    results = [pool.apply_async(call.submit(work, number)) for number in range(6)]
                    await asyncio.to_thread(lambda: [result.get(60) for result in results])
                    pool.close()
                    await asyncio.to_thread(pool.join)
            return
        executor = ProcessPoolExecutor(2, mp_context=context, initializer=initializer)
        with structjob.ContextExecutor(executor) as pool:
            for operation in "ab":
                async with tracker.job(operation):
                    calls = [pool.submit(work, number) for number in range(3)]
                    await asyncio.gather(*map(asyncio.wrap_future, calls))
            await asyncio.wrap_future(pool.submit(work, 99))


class Now:
    def submit(self, fn, /, *args):
        import functools
        return functools.partial(fn, *args)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("database", "how", "kind"),
    [
        *(("sqlite", how, kind) for how in WAYS for kind in ("executor", "pool")),
        # A fork inherits connections to a server; the other ways begin without any.
        *((server, how, "executor") for server in SERVERS for how in ("fork", "spawn")),
        *((server, "fork", "pool") for server in SERVERS),
    ],
    indirect=["database"],
)
async def test_worker_processes_record_what_they_log(database, tmp_path, how, kind):
    """R22: with each way to start them: every line is stored, with the job in which its call was
    submitted; a call of no job has none, though the worker was started in one.
    """
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [preforked.stand_in(), program, how, kind, database.url, tmp_path / "spool"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        jobs = {job.operation: job.id for job in (await tracker.jobs.list()).items}
        found = sorted(
            (str(event.operation), event.attrs["number"], event.job_id)
            for event in await tracker.logs.list(kind="log")
        )
    if kind == "pool":
        assert found == [("a", number, jobs["a"]) for number in range(6)]
    else:
        assert found == sorted(
            [("None", 99, None), *((name, n, jobs[name]) for name in "ab" for n in range(3))]
        )


async def test_a_step_in_a_worker_process_keeps_the_job_of_its_lines(tracker, caplog):
    """R22, R27: what a step logs belongs to the job of the other process; so does a child of it."""
    async with tracker.job("etl", owner="ada") as job:
        headers = ids()

    def work():
        with structjob.extract(headers).as_current():
            log.info("before")
            with structjob.step("part"):
                log.info("within")
                assert ids()["X-Job-ID"] == job.id
                with structjob.step("deeper"):
                    log.info("deeper")
                with structjob.job("kid"):
                    log.info("of the kid")
            log.info("after")

    await asyncio.to_thread(work)
    events = await tracker.logs.list(job=job, kind="log")
    assert [(event.message, event.step, event.operation) for event in events] == [
        ("before", None, None),
        ("within", "part", None),
        ("deeper", "deeper", None),
        ("of the kid", None, "kid"),
        ("after", None, None),
    ]
    (kid,) = await tracker.jobs.children(job.id)
    assert (kid.operation, kid.owner) == ("kid", None)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "structjob"]
    assert f"'part' belongs to the job {job.id} of another process and is not tracked" in said


async def test_what_belongs_to_a_process_says_what_to_send_instead(tracker):
    """R22: for those who submit a job or a tracker to a process pool."""
    async with tracker.job("a") as job, job.step("s") as step:
        for handle, says in (
            (job, "a Job .*inject"),
            (step, "a Step .*ContextExecutor"),
            (tracker, "worker_initializer"),
            (job.log, "the logger of a job .*ContextExecutor"),
        ):
            with pytest.raises(TypeError, match=says):
                pickle.dumps(handle)


async def test_an_object_that_holds_handles_can_be_copied(tracker):
    """Handles are unique, as locks and tasks are: `dataclasses.asdict` and a deep copy of what
    holds them do not fail, and what the copy logs belongs to the same job.
    """

    @dataclasses.dataclass
    class Context:
        job: structjob.Job
        step: structjob.Step
        log: object
        tracker: structjob.Tracker

    async with tracker.job("a") as job, job.step("s") as step:
        held = Context(job, step, job.log, tracker)
        for copied in (dataclasses.asdict(held), vars(copy.deepcopy(held)), vars(copy.copy(held))):
            assert (copied["job"], copied["step"], copied["tracker"]) == (job, step, tracker)
            copied["log"].info("by the copy")
        assert copy.copy(job) is job
    assert len(await tracker.logs.list(job=job, text="by the copy")) == 3
