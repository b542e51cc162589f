"""Code that the library calls without `await` may raise asyncio's `CancelledError`, which is no
`Exception`: a canceled future raises it when it is asked for its result. It cancels nothing.
"""

import asyncio

import pytest
import structlog

import structjob

log = structlog.get_logger()


def canceled(*_):
    raise asyncio.CancelledError


class Value:
    """An attribute, message, argument, result or metadata of the program."""

    __repr__ = __str__ = canceled


class Failure(Exception):
    """An exception whose text and code ask a canceled future."""

    __str__ = canceled
    code = property(canceled)


class Sink:
    emit = canceled


async def test_what_is_logged_is_recorded_and_the_job_completes(tracker):
    """R27: whatever its values raise when they are shown."""
    async with tracker.job("load", metadata={"of": Value()}) as job:
        log.info("with an attribute", of=Value())
        log.info(Value())
        log.info("with an argument %s", Value())
        job.result = Value()
    assert (await tracker.jobs.get(job.id)).status == "completed"
    assert await tracker.logs.count(job=job, kind="log") == 3


async def test_the_exception_of_the_program_comes_out(tracker):
    """R9: and fails its job, whatever its own methods raise."""
    with pytest.raises(Failure):
        async with tracker.job("load") as job:
            raise Failure
    found = await tracker.jobs.get(job.id)
    assert (found.status, found.error.type) == ("failed", "Failure")


async def test_sinks_hooks_and_classifiers_do_not_reach_the_job(db_url):
    """R27: their errors are counted, and the job completes, or fails with its own exception."""
    structjob.configure(console=False, sinks=[Sink()], classifier=canceled)
    remove = structjob.add_hook(canceled)
    try:
        async with structjob.Tracker(db_url) as tracker:
            async with tracker.job("load") as job:
                log.info("copied")
            with pytest.raises(ValueError, match="mine"):
                async with tracker.job("load") as failed:
                    raise ValueError("mine")
            assert (await tracker.jobs.get(job.id)).status == "completed"
            assert (await tracker.jobs.get(failed.id)).status == "failed"
    finally:
        remove()


@pytest.mark.parametrize("waits", [False, True])
async def test_a_listener_goes_on(tracker, waits):
    """R30: whether its callback asks a canceled future or awaits it: the next event is heard."""
    heard = asyncio.Event()

    def ask(event):
        if event.message != "second":
            canceled()
        heard.set()

    async def wait(event):
        ask(event)

    with tracker.listen(wait if waits else ask):
        log.info("first")
        log.info("second")
        async with asyncio.timeout(20):
            await heard.wait()


def test_what_a_signal_handler_raises_ends_the_program():
    """R9: Ctrl-C while a value is shown is no error of that value."""

    class Interrupted:
        def __repr__(self):
            raise KeyboardInterrupt

    structjob.configure(console=False)
    with pytest.raises(KeyboardInterrupt):
        log.info("copied", of=Interrupted())
