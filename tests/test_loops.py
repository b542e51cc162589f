"""What returns a coroutine is recognized, however it is written."""

import asyncio
import functools
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import structjob
from structjob import InvalidArgument
from structjob.machine.loops import is_coroutine_function


async def plain(*_):
    return 3


class Callable:
    async def __call__(self, *_):
        return 3

    async def method(self, *_):
        return 3


def marked(*_):
    return plain()


if hasattr(inspect, "markcoroutinefunction"):
    inspect.markcoroutinefunction(marked)
else:  # before Python 3.12, as asgiref does it
    marked._is_coroutine = asyncio.coroutines._is_coroutine

COROUTINE_FUNCTIONS = [
    plain,
    functools.partial(plain, 1),
    functools.partial(functools.partial(plain, 1)),
    Callable(),
    Callable().method,
    functools.partial(Callable()),
    functools.wraps(plain)(functools.partial(plain)),
    marked,
]


def run(*_):
    return 3


OTHERS = [run, functools.partial(run), Callable, functools.wraps(plain)(run), len, print, object()]


@pytest.mark.parametrize("function", COROUTINE_FUNCTIONS)
def test_coroutine_functions(function):
    """Hooks, sinks and executors, which await nothing, refuse them with a message."""
    assert is_coroutine_function(function)
    with pytest.raises(InvalidArgument, match="coroutine function"):
        structjob.add_hook(function)
    with pytest.raises(InvalidArgument, match="coroutine function"):
        structjob.configure(console=False, sinks=[function])
    with (
        structjob.ContextExecutor(ThreadPoolExecutor(1)) as executor,
        pytest.raises(InvalidArgument, match="coroutine function"),
    ):
        executor.submit(function)


@pytest.mark.parametrize("function", COROUTINE_FUNCTIONS)
async def test_a_decorated_coroutine_function_is_awaited_in_its_job(tracker, function):
    """R8: the result is that of the coroutine, and the job ends after it."""
    decorated = tracker.job("decorated")(function)
    step = structjob.step("inner")(function)
    assert await decorated() == 3
    async with tracker.job("outer"):
        assert await step() == 3
    assert [job.result for job in await tracker.jobs.list(operation="decorated")] == [3]


@pytest.mark.parametrize("function", OTHERS)
def test_other_functions(function):
    """What runs a coroutine itself is an ordinary function."""
    assert not is_coroutine_function(function)


@pytest.mark.parametrize("executor", ["busy", "shut down"])
async def test_the_loops_own_threads_are_not_needed(database, tmp_path, executor):
    """A tracker opens, stores, reads and closes while all threads of the default executor wait in
    calls of the program, or after the program has shut that executor down.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    release = threading.Event()
    waiting = loop.run_in_executor(None, release.wait)
    if executor == "shut down":
        release.set()
        await loop.shutdown_default_executor()
    try:
        async with asyncio.timeout(60):
            async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
                async with tracker.job("copy") as job:
                    pass
                assert (await tracker.jobs.get(job.id)).status == "completed"
                await tracker.flush()
    finally:
        release.set()
        await waiting
