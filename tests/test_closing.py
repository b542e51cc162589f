"""Closing a tracker: how its time is divided, and what is closed whatever happens (guarantee 6)."""

import asyncio
import contextlib
import sqlite3
import types

import pytest
import structlog
from faulty_store import FaultyStore, faulty  # noqa: F401 -- a fixture

import structjob
from structjob.engine import closing, shutdown

log = structlog.get_logger("app")

NOW = 1000.0


class Times:
    """Stands for the modules `time`, which stands still, and `asyncio`, of which it notes the
    limits.
    """

    def __init__(self) -> None:
        self.timeouts: list[float] = []
        self.waits: list[float] = []

    def __getattr__(self, name):
        return getattr(asyncio, name)

    def monotonic(self):
        return NOW

    def timeout(self, seconds):
        self.timeouts.append(round(seconds, 6))
        return asyncio.timeout(seconds)

    async def wait(self, tasks, timeout):
        self.waits.append(round(timeout, 6))
        return await asyncio.wait(tasks, timeout=timeout)


class Host:
    """A tracker whose parts note in which order they are closed, and with how many seconds."""

    def __init__(self, *, gone=False, complete=True):
        self.claims, self.live = set(), []
        self.gone, self.complete, self.done = gone, complete, []
        self.left = types.SimpleNamespace(spilled=0, in_memory=0)
        self.engine = self.link = self.store = self.recorder = self
        self.masked_url, self.root = "test://", "/spool"
        self.on_its_loop = 0

    def without_loop(self):
        return structjob.StoreUnavailable("closed") if self.gone else None

    async def on_own_loop(self, work):
        assert not self.gone
        self.on_its_loop += 1
        return await work

    async def close(self, seconds=None):
        if seconds is None:
            await self.disconnect()
            self.done.append("connections")
            return None
        self.done.append(("engine", round(seconds, 6)))
        await self.deliver()
        return self.complete

    async def deliver(self):
        pass

    async def disconnect(self):
        pass

    def close_without_loop(self, seconds):
        self.done.append(("in a thread", round(seconds, 6)))
        return self.complete

    def end_recording(self):
        self.done.append("recording")

    def ledger(self):
        return self.left

    def readers(self):
        self.done.append("readers")


@pytest.fixture
def times(monkeypatch):
    noted = Times()
    monkeypatch.setattr(closing, "asyncio", noted)
    monkeypatch.setattr(closing, "time", noted)
    return noted


@pytest.mark.parametrize(
    ("seconds", "engine", "answers"), [(2.0, 1.8, 0.5), (10.0, 9.0, 1.0), (100.0, 99.0, 1.0)]
)
@pytest.mark.parametrize("complete", [True, False])
async def test_the_connections_have_a_tenth_of_the_time(times, seconds, engine, answers, complete):
    """Guarantee 6: a second at most. They are closed though the database does not answer."""
    host = Host(complete=complete)
    assert await closing.close(host, seconds, host.readers) is complete
    assert host.done == [("engine", engine), "recording", "connections", "readers"]
    assert times.timeouts == [answers, pytest.approx(engine + 0.1)]
    assert times.waits == [seconds]
    assert host.on_its_loop == 2


@pytest.mark.parametrize("complete", [True, False])
async def test_a_tracker_whose_loop_is_closed_is_closed_in_a_thread(times, complete):
    """faults H: its connections are closed here, in the same time; drivers may complain."""
    host = Host(gone=True, complete=complete)

    async def refuse():
        raise RuntimeError("Event loop is closed")

    host.disconnect = refuse
    assert await closing.close(host, 10.0, host.readers) is complete
    assert host.done == [("in a thread", 9.0), "recording", "readers"]
    assert times.waits == [10.0]


async def test_an_interrupted_start_is_waited_for(times):
    """R9: its answer is recorded before the tracker closes, in whichever loop it comes."""
    host = Host()
    host.claims.add("asked")

    def answered():
        host.done.append("answered")
        host.claims.clear()

    asyncio.get_running_loop().call_later(0.02, answered)
    await closing.close(host, 10.0, host.readers)
    assert host.done[:2] == ["answered", ("engine", 9.0)]


async def test_a_start_without_an_answer_is_not_waited_for_longer():
    """Guarantee 6: a quarter of the time."""
    host = Host()
    host.claims.add("asked")
    assert await closing.close(host, 0.04, host.readers)
    assert host.done[1:] == ["recording", "connections", "readers"]


@pytest.mark.parametrize("while_", ["answers", "engine", "connections"])
async def test_a_cancelled_close_closes_everything_at_once(times, while_):
    """Guarantee 6: as after a second Ctrl-C; the connections have their tenth."""
    host = Host()
    if while_ == "answers":
        host.claims.add("asked")
    elif while_ == "engine":
        host.deliver = asyncio.Event().wait
    else:
        host.disconnect = asyncio.Event().wait
    task = asyncio.create_task(closing.close(host, 10.0, host.readers))
    while not (host.done or while_ == "answers") or (while_ == "connections" and not times.waits):
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    engine = ("engine", 0.0 if while_ == "answers" else 9.0)
    connections = [] if while_ == "connections" else ["connections"]
    assert host.done == [engine, "recording", *connections, "readers"]
    assert times.waits == [10.0 if while_ == "connections" else 1.0]


async def test_an_engine_that_does_not_end_is_left(times):
    """Guarantee 6: its loop may not run; not everything is stored then."""
    host = Host()
    host.deliver = asyncio.Event().wait
    assert await closing.close(host, 0.01, host.readers) is False
    assert host.done == [("engine", 0.009), "recording", "connections", "readers"]


async def test_connections_that_do_not_close_are_left():
    """Guarantee 6: a driver that waits for its server is cancelled, and not waited for."""
    host, cancelled = Host(), asyncio.Event()

    async def hang():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    host.disconnect = hang
    assert await closing.close(host, 0.01, host.readers) is True
    assert host.done[1:] == ["recording", "readers"]
    await asyncio.wait_for(cancelled.wait(), 10)


@pytest.mark.parametrize("fault", [None, sqlite3.OperationalError("disk I/O error"), "cancelled"])
async def test_a_driver_that_cannot_close_harms_nobody(caplog, fault):
    """R34: everything is stored, so `aclose()` returns; it once raised the driver's error in place
    of the exception that left the block.
    """
    host = Host()

    async def refuse():
        if fault is not None:
            raise asyncio.CancelledError if fault == "cancelled" else fault

    host.disconnect = refuse
    assert await closing.close(host, 1.0, host.readers) is True
    assert host.done[-1] == "readers"
    said = ["closing the connections to test:// failed: OperationalError: disk I/O error"]
    assert caplog.messages == (said if isinstance(fault, Exception) else [])


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("fails", ["close_without_loop", "end_recording", "deliver"])
async def test_a_fault_of_one_part_leaves_no_other_open(gone, fails):
    """R34: the error comes out, and connections and readers are closed."""
    host = Host(gone=gone)

    def fail(*_):
        raise ZeroDivisionError

    setattr(host, fails, fail)
    reached = fails == "end_recording" or (fails == "close_without_loop") is gone
    with pytest.raises(ZeroDivisionError) if reached else contextlib.nullcontext():
        await closing.close(host, 1.0, host.readers)
    assert host.done[-1] == "readers"


@pytest.mark.parametrize(
    ("spilled", "in_memory", "root", "said"),
    [
        (2, 3, "/spool", ["closed with 5 events not stored in test://; the next tracker delivers what waits in /spool"]),
        (0, 1, None, ["closed with 1 event not stored in test://; what was not stored is lost, because there is no spool"]),
        (7, 0, "/spool", ["closed with 7 events not stored in test://; the next tracker delivers what waits in /spool"]),
        (0, 0, "/spool", []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("complete", [True, False])
async def test_what_is_left_is_said_once(caplog, spilled, in_memory, root, said, complete):
    """Guarantee 1: how many events wait, and where; nothing if no event waits."""
    host = Host(complete=complete)
    host.left = types.SimpleNamespace(spilled=spilled, in_memory=in_memory)
    host.root = root
    await closing.close(host, 1.0, host.readers)
    assert caplog.messages == ([] if complete else said)


@pytest.mark.parametrize("ending", [False, True])
async def test_what_a_job_was_cancelled_by(db_url, monkeypatch, ending):
    """R9: SIGTERM, if it was received before the tracker closes in the normal way."""
    tracker = await structjob.Tracker(db_url).open()
    job = await tracker.job("left").__aenter__()
    monkeypatch.setattr(shutdown, "_ending", ending)
    assert await tracker.aclose() is True
    monkeypatch.setattr(shutdown, "_ending", False)
    async with structjob.Reader(db_url) as reader:
        found = await reader.jobs.get(job.id)
    assert found.error.message == ("SIGTERM" if ending else "its tracker was closed while it ran")


async def test_a_closed_tracker_is_not_open(db_url, faulty: FaultyStore):  # noqa: F811
    """R34: for the handler of SIGTERM, too, whatever its database did."""
    structjob.configure(console=False, strict=True)
    tracker = await structjob.Tracker(db_url).open()
    assert shutdown.open_hosts() == [tracker._host]
    log.info("waits")
    faulty.frozen = True
    assert await tracker.aclose(0.05) is False
    assert shutdown.open_hosts() == []
    faulty.frozen = False
    faulty.thawed.set()
    assert tracker.ledger().stored == 0
