"""What there is no room for is given up by a policy, counted to the number, and each job shows how
much of its log is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3

import pytest
import structlog
from faulty_store import FaultyStore, faulty

import structjob
from structjob.exceptions import StoreUnavailable

__all__ = ["faulty"]

log = structlog.get_logger("overflow")

JOBS = ("alpha", "beta")


def rows(path, query: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


async def flood(tracker: structjob.Tracker, name: str, count: int) -> None:
    async with tracker.job(name, job_id=name, wait=False, offline=True):
        for number in range(count):
            # Names a job, and belongs to none of that name.
            log.info(
                "flood", number=number, job_id="nobody", nested={"job_id": "beta"}, text="x" * 200
            )
            if number % 10 == 9:
                await asyncio.sleep(0)


@pytest.mark.parametrize("spool", [True, False])
@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
async def test_each_job_shows_how_many_of_its_lines_are_missing(
    db_path, db_url, faulty: FaultyStore, overflow, spool
):
    """Two jobs and the program itself flood a database that is away: stored and missing are all
    there was, per job and in all (R28).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(
        db_url, spool=spool, overflow=overflow, spool_max_bytes=65_536, queue_size=200
    ) as tracker:
        faulty.before = StoreUnavailable("away")
        tasks = [flood(tracker, name, 600 + 100 * index) for index, name in enumerate(JOBS)]
        await asyncio.gather(*tasks)
        for number in range(300):
            log.info("of no job", number=number, text="x" * 200)
        faulty.before = None
        async with asyncio.timeout(30):
            while tracker.ledger().spilled + tracker.ledger().in_memory:
                await asyncio.sleep(0.02)
        await tracker.flush()
        ledger = tracker.ledger()
        reason = "spool_full" if spool else "queue_full"
        assert list(ledger.dropped) == [reason]
        missing = {name: await tracker.jobs.lost_events(name) for name in JOBS}
        for index, name in enumerate(JOBS):
            ((kept,),) = rows(
                db_path, f"SELECT count(*) FROM structjob_logs WHERE job_id = '{name}'"
            )
            assert missing[name].keys() <= {reason}
            # Its beginning and its end are events, too.
            assert kept + missing[name].get(reason, 0) == 600 + 100 * index + 2
            # What flooded was logs: no change of state was lost to it.
            assert (await tracker.jobs.get(name)).status == "completed"
        assert any(missing.values())
        gaps = rows(
            db_path, "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM structjob_gaps"
        )
        assert gaps == [(ledger.dropped[reason],)]
        assert ledger.stored + ledger.dropped[reason] == ledger.accepted
        assert (await tracker.verify()).ok


async def test_a_job_that_lost_nothing_says_so(tracker):
    """Nothing is missing where nothing was given up (R28)."""
    async with tracker.job("complete", job_id="complete"):
        log.info("here")
    assert await tracker.jobs.lost_events("complete") == {}
    with pytest.raises(structjob.JobNotFound):
        await tracker.jobs.lost_events("nobody")


async def test_what_was_dropped_is_put_down_while_the_database_is_away(db_url, faulty: FaultyStore):
    """The account of drops is written to disk while the database is unavailable, and memory does
    not grow with what is dropped (guarantee 2).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(db_url, spool=False, queue_size=10) as tracker:
        await tracker.flush()
        faulty.before = StoreUnavailable("away")
        for number in range(5000):
            log.info("dropped", number=number)
        async with asyncio.timeout(60):
            while tracker._recorder.events.dropped:
                await asyncio.sleep(0.02)
        assert tracker.ledger().stored == 0
        assert tracker.ledger().dropped["queue_full"] > 4900
        faulty.before = None


async def test_what_the_disk_refuses_to_the_end_is_told_and_explained(
    db_path, db_url, faulty: FaultyStore, caplog
):
    """Neither database nor disk takes what is logged: what is lost is not said to wait, and is
    explained (R28).
    """
    structjob.configure(console=False)
    async with structjob.Tracker(db_url) as tracker:
        faulty.before = StoreUnavailable("away")
        async with tracker.job("work", external_job_id="w-1", wait=False):
            log.info("in the spool")
            recorder = tracker._recorder

            def refuse(line: bytes, number: int) -> None:
                raise OSError(28, "No space left on device")

            recorder.events.append = recorder._append = refuse  # type: ignore[method-assign]
            for number in range(50):
                log.info("refused", number=number)
        await tracker.aclose(timeout=1)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("structjob")]
    # and the job's end
    assert sum(text.startswith("51 events are lost: the disk refused them") for text in said) == 1
    assert sum(text.startswith("closed with 2 events not stored") for text in said) == 1

    faulty.before = None
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        assert await tracker.jobs.lost_events("w-1") == {"disk_refused": 51}
        assert (await tracker.jobs.find("w-1")).status == "completed"
    assert rows(db_path, "SELECT first_seq, last_seq, reason FROM structjob_gaps") == [
        (3, 53, "disk_refused")
    ]


@pytest.mark.parametrize("newline", ["taken", "refused"])
async def test_a_record_that_a_full_disk_took_without_its_newline_is_counted_once(
    db_path, db_url, monkeypatch, newline
):
    """The ledger is exact, and the database is not said to have confirmed more than there is."""
    structjob.configure(console=False)
    write, cut = os.write, []

    def take_some(fd: int, data: bytes) -> int:
        if b'"message":"cut"' in data:
            cut.append(data)
            return write(fd, data[:-1])
        if data == b"\n" and newline == "refused":
            raise OSError(28, "No space left on device")
        return write(fd, data)

    async with structjob.Tracker(db_url) as tracker:
        log.info("before")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", take_some)
            log.info("cut")
        log.info("after")
        await tracker.flush()
        ledger = tracker.ledger()
        assert (ledger.accepted, ledger.stored, ledger.in_memory) == (3, 3, 0)
        assert len(cut) == 1
    assert rows(db_path, "SELECT message FROM structjob_logs ORDER BY seq") == [
        ("before",), ("cut",), ("after",),
    ]  # fmt: skip
    assert rows(db_path, "SELECT last_seq, confirmed FROM structjob_sessions") == [(3, 3)]


async def test_what_the_disk_refused_goes_there_once_it_has_room(
    db_url, faulty: FaultyStore, caplog
):
    """A disk that was full for a while costs nothing, though the database is away until the end
    (guarantee 1).
    """
    structjob.configure(console=False)
    async with structjob.Tracker(db_url) as tracker:
        faulty.before = StoreUnavailable("away")
        recorder = tracker._recorder
        append = recorder._append

        def refuse(line: bytes, number: int) -> None:
            raise OSError(28, "No space left on device")

        recorder._append = refuse
        for number in range(50):
            log.info("refused", number=number)
        recorder._append = append
        await tracker.aclose(timeout=1)
    assert not [record for record in caplog.records if "are lost" in record.getMessage()]

    faulty.before = None
    async with structjob.Tracker(db_url) as tracker:
        await tracker.flush()
        found = await tracker.logs.list(text="refused", limit=100)
        assert sorted(event.attrs["number"] for event in found) == list(range(50))
        assert (await tracker.verify()).ok
