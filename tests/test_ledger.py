"""The ledger adds up whenever it is asked, and what it calls dropped stands in structjob_gaps,
number by number.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
from collections import Counter
from contextlib import closing

import pytest
import structlog
from database_support import locked

import structjob
from structjob.exceptions import StoreUnavailable


class Asker(threading.Thread):
    """Asks for the ledger as long as it changes, from another thread, and keeps what does not add
    up.
    """

    def __init__(self, tracker: structjob.Tracker) -> None:
        super().__init__()
        self.tracker, self.stop, self.asked, self.wrong = tracker, threading.Event(), 0, []

    def run(self) -> None:
        before, former, same = 0, None, 0
        while not self.stop.is_set():
            ledger = self.tracker.ledger()
            same = same + 1 if ledger == former else 0
            former = ledger
            if same > 500:  # the threads are held up: ask less often, and see as much
                self.stop.wait(0.001)
            self.asked += 1
            parts = (
                ledger.stored,
                ledger.spilled,
                ledger.in_memory,
                *ledger.dropped.values(),
                ledger.dead_lettered,
            )
            if sum(parts) != ledger.accepted or min(parts) < 0 or ledger.stored < before:
                self.wrong.append(ledger)
            before = ledger.stored


def flood(threads: int, each: int) -> None:
    """Log from several threads at once, and wait for them."""
    log = structlog.get_logger("flood")

    def work(index: int) -> None:
        for n in range(each):
            log.info("flood", thread=index, n=n)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def compare(path, session: int, ledger: structjob.Ledger) -> None:
    """Compare the ledger with what the database holds."""
    with closing(sqlite3.connect(path)) as connection, connection:
        stored = {
            seq
            for (seq,) in connection.execute(
                "SELECT seq FROM structjob_logs WHERE session_id = ?", (session,)
            )
        }
        rows = connection.execute(
            "SELECT COUNT(*) FROM structjob_logs WHERE session_id = ?", (session,)
        ).fetchone()[0]
        gaps = connection.execute(
            "SELECT first_seq, last_seq, reason FROM structjob_gaps WHERE session_id = ?",
            (session,),
        ).fetchall()
    told = [number for first, last, _ in gaps for number in range(first, last + 1)]
    assert rows == len(stored) == ledger.stored
    assert len(told) == len(set(told))
    assert not stored & set(told)
    reasons: Counter[str] = Counter()
    for first, last, reason in gaps:
        reasons[reason] += last - first + 1
    assert dict(reasons) == ledger.dropped
    assert stored | set(told) == set(range(1, ledger.accepted + 1))


EACH = 700
"""Events of each thread; together they are more than the queue and the spool have room for."""


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "block"])
@pytest.mark.parametrize("spool", [True, False])
@pytest.mark.parametrize("blocked", [True, False])
async def test_the_ledger_is_exact(db_path, overflow, spool, blocked, impatient):
    """Eight threads at the shortest switch interval, hardly any room, the database locked for a
    while or not: whenever it is asked the ledger adds up, and at the end it equals, number by
    number, what the database holds (guarantee 2).
    """
    structjob.configure(console=False, strict=True)
    interval, more = sys.getswitchinterval(), 0
    async with structjob.Tracker(
        f"sqlite:///{db_path}",
        overflow=overflow,
        spool=spool,
        queue_size=200,
        spool_max_bytes=65_536,
        batch_size=100,
    ) as tracker:
        asker = Asker(tracker)
        asker.start()
        sys.setswitchinterval(1e-6)
        try:
            with locked(db_path) if blocked else contextlib.nullcontext():
                flooding = asyncio.create_task(asyncio.to_thread(flood, 8, EACH))
                done, _ = await asyncio.wait([flooding], timeout=1.0)
                if overflow != "block":
                    await flooding
                    # What is on disk is dropped only after a twentieth of a second, and the flood
                    # may be faster: log until it is.
                    while blocked and not tracker.ledger().dropped:
                        structlog.get_logger("flood").info("more", n=more)
                        more += 1
                        await asyncio.sleep(0)
                elif blocked:
                    assert not done  # they are held up
            await flooding
        finally:
            sys.setswitchinterval(interval)
            asker.stop.set()
            asker.join()
        await structjob_flush(tracker)
        session = tracker.session_id
    assert asker.asked > 3
    assert not asker.wrong
    ledger = tracker.ledger()
    assert ledger.accepted == 8 * EACH + more
    assert ledger.spilled == ledger.in_memory == ledger.rejected == 0
    if overflow == "block":
        assert not ledger.dropped
    elif blocked:
        assert ledger.dropped
    compare(db_path, session, ledger)


async def structjob_flush(tracker: structjob.Tracker) -> None:
    """Flush, however long the database takes to be found again."""
    while True:
        with contextlib.suppress(StoreUnavailable):
            return await tracker.flush()
        await asyncio.sleep(0.01)


async def test_what_waits_is_told_apart(db_path, impatient):
    """While the database is locked, events wait in the spool or in a batch on its way; afterwards
    they are stored (guarantee 2).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{db_path}", batch_size=50) as tracker:
        with locked(db_path):
            for n in range(200):
                structlog.get_logger().info("wait", n=n)
            with pytest.raises(StoreUnavailable, match="database is locked"):
                await tracker.flush()
            ledger = tracker.ledger()
            assert (ledger.accepted, ledger.stored) == (200, 0)
            # a batch with the database, and perhaps the next one behind it
            assert ledger.in_memory in (50, 100)
            assert ledger.spilled == 200 - ledger.in_memory
        await structjob_flush(tracker)
        assert tracker.ledger().stored == 200


async def test_dead_letters_are_counted_apart(db_path, tracker, caplog):
    """An event that the database refuses is neither stored nor dropped: it is dead-lettered
    (guarantees 2 and 7), and a warning says so.
    """
    structlog.get_logger().info("good")
    number = next(tracker._recorder.numbers.counter)
    from structjob.spool.line import seal

    tracker._recorder.events.append(
        seal(b'{"ts":"x","level":null,"message":"bad","attrs":{}', b',"seq":%d' % number), number
    )
    structlog.get_logger().info("good")
    await tracker.flush()
    ledger = tracker.ledger()
    assert (ledger.accepted, ledger.stored, ledger.dead_lettered, ledger.dropped) == (3, 2, 1, {})
    (said,) = [one.getMessage() for one in caplog.records if "dead_letters" in one.getMessage()]
    assert said.startswith("the database refuses 1 record of session")


async def test_drops_are_told_once_in_a_while(db_path, caplog):
    """Losses are never silent: the library says on its own logger how many there were, and not once
    for each (guarantee 2).
    """
    structjob.configure(console=False, strict=True)
    async with structjob.Tracker(f"sqlite:///{db_path}", spool=False, queue_size=10) as tracker:
        for n in range(500):
            structlog.get_logger().info("flood", n=n)
        await tracker.flush()
        assert tracker.ledger().dropped == {"queue_full": 490}
    assert [
        record.getMessage() for record in caplog.records if "dropped" in record.getMessage()
    ] == ["490 events were dropped so far ({'queue_full': 490}); see structjob_gaps"]
