"""A tracker that is opened again after it was closed (faults 47)."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import structlog

import structjob
from structjob import NotOpen

log = structlog.get_logger()


@pytest.fixture(autouse=True)
def _configured():
    structjob.configure(console=False, strict=True)


async def test_it_records_again(db_url):
    """Faults 47: each opening is a session; a decorated function uses the present one."""
    tracker = structjob.Tracker(db_url)

    @tracker.job("nightly")
    async def nightly(number):
        log.info("worked", number=number)

    for number in range(3):
        async with tracker:
            await nightly(number)
            assert tracker.is_open
        with pytest.raises(NotOpen, match="closed; open it again"):
            await nightly(number)

    async with structjob.Reader(db_url) as reader:
        jobs = await reader.jobs.list(operation="nightly")
        assert [job.status for job in jobs] == ["completed"] * 3
        assert len({job.session_id for job in jobs}) == 3
        lines = await reader.logs.list(text="worked", order="asc")
        assert [line.attrs["number"] for line in lines] == [0, 1, 2]
        assert (await reader.verify()).ok


def test_it_records_again_on_other_loops(db_url):
    """Faults 47: with `asyncio.run` and with `with`, in turns."""
    tracker = structjob.Tracker(db_url)

    async def once():
        async with tracker, tracker.job("a"):
            log.info("in a loop")

    for _ in range(2):
        asyncio.run(once())
        with tracker, tracker.job("b"):
            log.info("without a loop")
    with tracker:
        jobs = tracker.run(tracker.jobs.list())
        assert sorted(job.operation for job in jobs) == ["a", "a", "b", "b"]
        assert {job.status for job in jobs} == {"completed"}


async def test_handles_of_the_former_session_stay_closed(db_url):
    """Faults 47: they change nothing in the new session, and raise nothing."""
    tracker = structjob.Tracker(db_url)
    async with tracker:
        ended = await tracker.job("ended").start()
        await ended.end()
        left = await tracker.job("left").start()
        step = left.start_step("s")
    async with tracker:
        ended.result = 5
        left.update(percent=50)
        step.end()
        await left.end()
        with pytest.raises(NotOpen):
            await left.child("below").start()
        async with tracker.job("new"):
            pass
        await tracker.flush()
        assert {job.operation: job.status for job in await tracker.jobs.list()} == {
            "ended": "completed",
            "left": "cancelled",
            "new": "completed",
        }
        assert (await tracker.jobs.get(ended.id)).result is None
    async with structjob.Reader(db_url) as reader:
        assert (await reader.verify()).ok


async def test_it_is_not_opened_while_it_is_open_or_closing(db_url):
    """Faults 47, bad day: each refusal says what the tracker does at present."""
    tracker = structjob.Tracker(db_url)
    async with tracker:
        with pytest.raises(NotOpen, match="the tracker is open; close it before"):
            await tracker.open()
        closing = asyncio.create_task(tracker.aclose())
        await asyncio.sleep(0)
        with pytest.raises(NotOpen, match="is being closed; open it again when"):
            await tracker.open()
        await closing
    opening = asyncio.create_task(tracker.open())
    await asyncio.sleep(0)
    with pytest.raises(NotOpen, match="is being opened by another call"):
        await tracker.open()
    await opening
    await tracker.aclose()


def test_a_lifespan_that_is_entered_twice(db_url):
    """Faults 47: two tests of one application, with the tracker of its module."""
    fastapi = pytest.importorskip("fastapi")
    testclient = pytest.importorskip("fastapi.testclient")
    tracker = structjob.Tracker(db_url)

    @asynccontextmanager
    async def lifespan(app):
        async with tracker:
            yield

    app = fastapi.FastAPI(lifespan=lifespan)
    structjob.asgi.install(app, tracker)

    @app.get("/orders")
    async def orders():
        return structjob.current_job().operation

    for _ in range(2):
        with testclient.TestClient(app) as client:
            assert client.get("/orders").json() == "GET /orders"
    with tracker:
        jobs = tracker.run(tracker.jobs.list(operation="GET /orders"))
        assert [job.status for job in jobs] == ["completed", "completed"]
