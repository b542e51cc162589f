"""Automatic retention: about once an hour, by one process at a time, without slowing down or
breaking the program (R41, R34).
"""

import asyncio
import logging
from datetime import timedelta

import pytest
from retention_support import age, log, rows_of, work

import structjob
from structjob import Retention
from structjob.engine import pruner
from structjob.retention.prune import LOCK
from structjob.store.locks import Lock


@pytest.fixture
def hasty(monkeypatch):
    """The first look is at once, the next ones in a moment."""
    monkeypatch.setattr(pruner, "FIRST", 0.01)
    monkeypatch.setattr(pruner, "EVERY", 0.05)


async def until(condition):
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.01)


async def old(database, tmp_path):
    """Leave an old job behind."""
    async with structjob.Tracker(database.url, spool=tmp_path / "before") as tracker:
        await work(tracker)
    await age(database, 40)


async def test_it_goes_by_itself(database, tmp_path, hasty):
    """A tracker with a retention deletes what is older while it is open (R41)."""
    structjob.configure(console=False, strict=True)
    await old(database, tmp_path)
    async with structjob.Tracker(
        database.url, spool=tmp_path / "spool", retention=timedelta(days=30)
    ) as tracker:

        async def gone():
            return not (await tracker.jobs.list()) and (await rows_of(database))["sessions"] == 1

        await until(gone)
        log.info("goes on")
        assert (await tracker.verify()).ok
        assert len(await tracker.logs.list()) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_it_begins_minutes_after_the_start(database, tmp_path):
    """A short program deletes nothing, and one without a retention never does (R41)."""
    structjob.configure(console=False, strict=True)
    await old(database, tmp_path)
    async with structjob.Tracker(database.url, retention=Retention(days=30)) as tracker:
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert "structjob-pruner" in names
        assert len(await tracker.jobs.list()) == 1
        assert (await tracker.prune()).jobs == 1  # by hand it is the same
    async with structjob.Tracker(database.url):
        assert "structjob-pruner" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_one_process_an_hour(database, tmp_path, monkeypatch):
    """Of several processes one does it; the others leave it for as long as it was done lately
    (R41).
    """
    structjob.configure(console=False, strict=True)
    monkeypatch.setattr(pruner, "FIRST", 0.01)
    looks = []
    original = pruner.Pruner._look

    async def look(self):
        await original(self)
        looks.append(await rows_of(database))

    monkeypatch.setattr(pruner.Pruner, "_look", look)
    async with structjob.Tracker(database.url, spool=tmp_path / "a", retention=timedelta(days=30)):

        async def looked():
            return len(looks) == 1

        await until(looked)
        ((done, holder),) = await database.rows("SELECT done_at, holder FROM structjob_locks")
        assert done is not None
        assert holder is None
        async with structjob.Tracker(
            database.url, spool=tmp_path / "c", retention=timedelta(days=30)
        ):

            async def looked_again():
                return len(looks) >= 2

            await until(looked_again)
        assert await database.rows("SELECT done_at FROM structjob_locks") == [(done,)]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_its_faults_are_told_once(database, tmp_path, hasty, caplog, monkeypatch):
    """An error of the retention is logged as one warning, and raised nowhere (R41)."""
    structjob.configure(console=False)
    await old(database, tmp_path)
    (tmp_path / "file").touch()
    looks = []
    original = pruner.Pruner._look

    async def look(self):
        await original(self)
        looks.append(True)

    async def often():
        return len(looks) >= 3

    monkeypatch.setattr(pruner.Pruner, "_look", look)
    with caplog.at_level(logging.WARNING, "structjob"):
        async with structjob.Tracker(
            database.url, retention=Retention(days=30, archive=tmp_path / "file")
        ) as tracker:
            await until(often)
            assert (await work(tracker)) in {job.id for job in await tracker.jobs.list()}
    told = [record.getMessage() for record in caplog.records if "due" in record.getMessage()]
    assert len(told) == 1
    assert "cannot be made: File exists" in told[0]


async def test_closing_ends_it_at_once(database, tmp_path, hasty, monkeypatch):
    """A tracker that is closed in the middle of it closes as fast as ever, and leaves no lock
    behind that counts (R41, R34).
    """
    structjob.configure(console=False, strict=True)
    await old(database, tmp_path)
    asleep = asyncio.Event()
    real = asyncio.sleep

    async def sleep(seconds):
        asleep.set()
        await real(3600)

    monkeypatch.setattr(
        "structjob.retention.deleter.asyncio", type("Asyncio", (), {"sleep": staticmethod(sleep)})
    )
    tracker = await structjob.Tracker(
        database.url, spool=tmp_path / "spool", retention=timedelta(days=30)
    ).open()
    async with asyncio.timeout(20):
        await asleep.wait()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await tracker.aclose(timeout=10)
    assert loop.time() - began < 5
    monkeypatch.undo()
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as other:
        await other.prune(timedelta(days=30), patience=0)
        assert not await other.jobs.list()
        assert (await other.verify()).ok


async def test_a_prune_by_hand_and_by_itself_exclude_each_other(database, tmp_path):
    """Two prunes of one process are two (R41)."""
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(database.url, spool=tmp_path / "spool") as tracker:
        first, second = Lock(LOCK, tracker.session_id), Lock(LOCK, tracker.session_id)
        assert await tracker._host.transact(first.take)
        assert not await tracker._host.transact(second.take)
