"""The engine alone: who waits for what, and what closing does with what is left; without its tasks,
and with a database that only keeps what it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import types

import pytest
from engine_support import sites
from test_capture import make_recorder

from structjob.engine import engine as engines
from structjob.engine.engine import Engine
from structjob.exceptions import StoreUnavailable
from structjob.store.contract import Ended, Written

BODY = b'{"ts":"2026-01-31 12:00:00.000001","level":"info","message":"m","attrs":{}'


class Link:
    """A database link, and its store."""

    writers = 2
    masked_url = "test://"

    def __init__(self) -> None:
        self.store = self
        self.down = None
        self.ended = Ended(left=[])
        self.endings = []
        self.written: list[int] = []
        self.asked_again = 0
        self.begin = _nothing

    async def opening(self):
        pass

    async def once(self, call):
        return await call()

    async def try_again(self, seconds):
        self.asked_again += 1

    async def begin_session(self, session):
        await self.begin()

    async def end_session(self, session, ending):
        self.endings.append(ending)
        return self.ended

    def write_now(self, write, seconds):
        assert 0 < seconds <= 1.0
        self.written.append(write.events.count(b"\n"))
        return Written()


async def _nothing(*_):
    pass


class Site:
    """An engine, and all that it works with."""

    def __init__(self, root=None, *, retention=None):
        self.recorder = make_recorder(root)
        self.link, self.live = Link(), []
        self.engine = Engine(
            self.recorder, self.link, batch_size=10, flush_interval=3600.0, writers=1,
            heartbeat=10.0, live=self.live, retention=retention,
        )  # fmt: skip
        self.own = self.engine._own
        self.own.entered = True

    def log(self, count: int) -> None:
        for _ in range(count):
            self.recorder.put(BODY, 10)

    def idle(self) -> None:
        """Have nothing to do but to close."""
        self.engine._maintenance.take_back_own = _nothing
        self.engine.claiming.withdraw = _nothing
        self.engine._deliver_most = self.engine._deliver_rest = _nothing


@pytest.fixture
async def make(tmp_path):
    """Make engines; in memory, or on disk if a name is given."""
    with sites(Site, tmp_path) as new:
        yield new


def why(promise) -> str:
    assert promise.done
    with pytest.raises(StoreUnavailable) as failed:
        promise.result()
    return str(failed.value)


# -- start
# --------------------------------------------------------------------------


async def test_a_session_is_entered_in_time(make, tmp_path):
    """faults H: otherwise the reason is returned, and the program goes on."""
    site = make()
    site.own.entered = False
    away = StoreUnavailable("away")

    async def refuse():
        raise away

    async def hang():
        await asyncio.sleep(3600)

    site.link.begin = refuse
    assert await site.engine.enter(60) is away
    site.link.begin = hang
    assert "test:// has not answered within 0.01 s" in str(await site.engine.enter(0.01))
    site.link.begin = _nothing
    assert await site.engine.enter(60) is None
    assert site.link.place == "memory"
    assert make("spool").link.place == str(tmp_path / "spool")


@pytest.mark.parametrize("retention", [None, object()])
async def test_a_pruner_runs_if_something_is_to_be_pruned(make, retention):
    """faults H: the tasks are the writers, the maintenance, and where a retention is set the
    pruner.
    """
    site = make(retention=retention)
    names = []

    def spawn(work, name):
        work.close()
        names.append(name.removeprefix("structjob-"))

    site.engine._spawn = spawn
    site.engine.start()
    assert names == ["writer-0", "maintenance", *(["pruner"] if retention else [])]


@pytest.mark.parametrize(
    ("done", "cancelling", "closing", "closed", "restarted"),
    [
        (False, False, False, False, False),
        (True, False, False, False, True),
        (False, True, False, False, False),
        (False, True, True, False, True),
        (False, False, True, False, False),
        (True, False, True, True, False),
    ],
)
async def test_tasks_that_somebody_cancelled_are_started_again(
    make, done, cancelling, closing, closed, restarted
):
    """faults H: all of them, unless the engine is closed; one that is being cancelled may end by
    itself, but not while the tracker closes.
    """
    site = make()
    cancelled, started = [], []
    site.engine._tasks = [
        types.SimpleNamespace(
            done=lambda: done,
            cancelling=lambda: int(cancelling),
            cancel=lambda: cancelled.append(1),
        )
    ]
    site.engine.start = lambda: started.append(1)
    site.engine._closing = closed
    if closing:
        site.engine._revive(closing=True)
    else:
        site.engine._revive()
    assert (cancelled, started) == (([1], [1]) if restarted else ([], []))
    site.engine._tasks = []
    site.engine._revive(closing=True)
    assert started == ([1] if restarted else [])


# -- waiting
# --------------------------------------------------------------------------


async def test_who_must_not_wait(make, monkeypatch):
    """faults H: no caller waits for an unavailable database, a closed tracker or a closed loop, or
    in a forked child. The error says which it is.
    """
    site = make()
    waits = site.engine.committed(1)
    assert not waits.done
    assert site.engine.writers._urgent
    site.link.down = StoreUnavailable("away")
    assert why(site.engine.committed(1)) == "away"
    assert why(waits) == "away"
    site.own.states.add([1])
    assert site.engine.committed(1).done
    loop = asyncio.new_event_loop()
    loop.close()
    site.engine.loop = loop
    assert "the event loop in which the tracker was opened is closed" in why(
        site.engine.committed(2)
    )
    site.engine._closing = True
    assert "the tracker is closed" in why(site.engine.committed(2))
    monkeypatch.setattr(engines.os, "getpid", lambda: 1)
    assert "this is a forked process" in why(site.engine.committed(2))


async def test_a_flush_waits_for_what_is_recorded(make):
    """faults H: it is over at once where nothing waits; on the engine's loop it looks for spools to
    adopt, and elsewhere, or once the tracker is closed, it does not.
    """
    site = make()
    looks, revived = [], []
    site.engine._adopted.look = lambda: looks.append(threading.get_ident())
    site.engine._revive = lambda: revived.append(1)
    assert site.engine.flush().done
    assert not site.engine.writers._urgent
    assert (len(looks), len(revived)) == (1, 1)
    site.log(1)
    flush = site.engine.flush()
    assert not flush.done
    assert site.engine.writers._urgent
    await asyncio.to_thread(site.engine.flush)
    assert len(looks) == 2
    site.engine._closing = True
    site.engine.flush()
    assert len(looks) == 2
    assert "the tracker is closed" in why(flush)


async def test_who_may_wait_for_room(make):
    """faults H: a thread that is not the loop's and runs no loop, while the loop exists."""
    site = make()
    assert not site.engine._room_comes()
    assert await asyncio.to_thread(site.engine._room_comes)

    async def within():
        return site.engine._room_comes()

    assert not await asyncio.to_thread(asyncio.run, within())
    loop = asyncio.new_event_loop()
    loop.close()
    site.engine.loop = loop
    assert not await asyncio.to_thread(site.engine._room_comes)


# -- closing
# --------------------------------------------------------------------------


class Running:
    """A job that runs."""

    def __init__(self, ended=True, fault=None):
        self.id, self.operation = "a", "backup"
        self.ended, self.fault, self.abandoned = ended, fault, []

    def abandon(self, reason):
        self.abandoned.append(reason)
        if self.fault is not None:
            raise self.fault
        return self.ended


async def test_jobs_that_run_are_ended_once(make, caplog):
    """faults H: an error of one does not keep the next from being recorded, and one that has ended
    meanwhile is not reported.
    """
    site = make()
    site.live[:] = Running(fault=RuntimeError("odd")), Running(ended=False), Running()
    site.engine.end_recording()
    site.engine.end_recording()
    assert [len(job.abandoned) for job in site.live] == [1, 1, 1]
    assert caplog.messages == [
        "job a (backup) was still running when its tracker closed; it is recorded as cancelled"
    ]
    assert site.recorder.closed


async def test_many_jobs_that_run_are_reported_in_one_line(make, caplog):
    """Bad day: 600 jobs that run when the tracker closes are no 600 lines on the terminal."""
    site = make()
    operations = ["sync"] * 595 + ["copy"] * 2 + ["a", "b", "c"]
    site.live[:] = [Running() for _ in operations]
    for job, operation in zip(site.live, operations, strict=True):
        job.operation = operation
    site.engine.end_recording()
    assert caplog.messages == [
        "600 jobs were still running when their tracker closed; they are recorded as cancelled: "
        "sync (595), copy (2), a (1), …"
    ]


@pytest.mark.parametrize("seconds", [1.0, 100.0])
async def test_closing_keeps_a_tenth_of_its_time(make, monkeypatch, caplog, seconds):
    """faults H: but a second at most, in which its tasks end; then everything is stored and the
    directory is gone.
    """
    site = make("spool")
    site.idle()
    limits = []
    timeout = asyncio.timeout

    def limited(limit):
        limits.append(limit)
        return timeout(limit)

    monkeypatch.setattr(engines.asyncio, "timeout", limited)
    with caplog.at_level(logging.DEBUG, logger="structjob"):
        assert await site.engine.close(seconds) is True
    assert limits == [seconds - min(seconds / 10, 1.0)]
    assert not site.recorder.spool.directory.exists()
    assert [ending.reason for ending in site.link.endings] == ["closed"]
    (said,) = [text for text in caplog.messages if text.startswith("closed session")]
    assert said.endswith(" ms, everything stored")
    assert 0 <= float(said.split(" in ")[1].split(" ms")[0]) < 900
    assert site.engine.ledger().dropped == {}


async def test_closing_that_takes_too_long_leaves_the_rest(make, caplog):
    """faults H: it returns False, the session stays open, and so does its directory."""
    site = make("spool")
    site.idle()
    revived = []
    site.engine._revive = lambda *, closing: revived.append(closing)

    async def hang():
        await asyncio.sleep(3600)

    site.engine._deliver_most = hang
    with caplog.at_level(logging.DEBUG, logger="structjob"):
        assert await site.engine.close(0.05) is False
    assert revived == [True]
    assert site.recorder.spool.directory.exists()
    assert site.link.endings == []
    assert [text for text in caplog.messages if text.endswith(" ms, not everything stored")]
    assert "the tracker is closed" in why(site.engine.committed(9))


@pytest.mark.parametrize("disk", [None, "spool"])
@pytest.mark.parametrize("entered", [True, False])
async def test_an_engine_whose_loop_is_closed_stores_what_it_can(make, disk, entered):
    """faults H: it stores in the calling thread. What the database has not got stays in the spool,
    and the directory stays for the process that ends the session.
    """
    site = make(disk)
    site.log(25)
    site.own.entered = entered
    waits = site.engine.committed(1)
    assert await asyncio.to_thread(site.engine.close_without_loop, 60.0) is entered
    assert site.link.written == ([10, 10, 5] if entered else [])
    assert site.own.stored == (25 if entered else 0)
    assert "event loop in which the tracker was opened is closed" in why(waits)
    assert "the tracker is closed" in why(site.engine.committed(1))
    assert site.recorder.closed
    if disk:
        assert site.recorder.spool.directory.exists()


@pytest.mark.parametrize(
    ("seconds", "about", "stored"),
    [(0.9, "", 5), (0.0, "", 0), (60.0, "a store without", 0), (60.0, "a child", 0)],
)
async def test_what_is_drained_in_time(make, monkeypatch, seconds, about, stored):
    """faults H: nothing without a way to write now, and nothing in a forked child, which must not
    use its parent's connection.
    """
    site = make()
    site.log(5)
    if about == "a store without":
        monkeypatch.delattr(Link, "write_now")
    if about == "a child":
        monkeypatch.setattr(engines.os, "getpid", lambda: 1)
    site.engine.drain(seconds)
    assert site.own.stored == stored


@pytest.mark.parametrize("explained", [0, 1])
async def test_what_waits_when_the_session_has_ended_is_lost(make, caplog, explained):
    """faults H: counted by whether its numbers were explained; jobs that began meanwhile are
    reported.
    """
    site = make()
    site.log(3)
    next(site.recorder.broken_off.counter)
    site.link.ended = Ended(left=[{"id": "late", "operation": "x"}], explained=explained)
    await site.engine._end_own()
    assert dict(site.own.dropped) == {"interrupted" if explained else "missing": 3}
    (ending,) = site.link.endings
    assert (ending.last_seq, ending.confirmed, ending.most) == (3, 0, 1)
    assert any("job late (x) was still running" in text for text in caplog.messages)


async def test_what_a_cancelled_writer_held_goes_to_the_spool(make):
    """faults H: if it was in memory, because the disk had refused it; what came from the disk is
    there.
    """
    site = make("spool")
    site.log(2)
    recorder = site.recorder
    append, recorder._append = recorder._append, _refuse
    site.log(3)
    recorder._append = append
    number = next(recorder.state_numbers.counter)
    recorder.fallback_states.append(b'{"state_seq":%d}\n' % number, number)
    states = recorder.fallback_states.read(1000, 10)
    held = recorder.fallback.read(10_000, 10)
    on_disk = recorder.events.read(10_000, 10)
    site.own.in_flight = held.count + on_disk.count
    assert (held.count, on_disk.count) == (3, 2)
    site.engine.delivery.returned.extend([(site.own, states, held), (site.own, None, on_disk)])
    site.engine._leave_to_spool()
    assert site.own.in_flight == 2
    assert not site.engine.delivery.returned
    assert len(recorder.fallback) == len(recorder.fallback_states) == 0
    lines = b"".join(file.read_bytes() for file in recorder.spool.directory.glob("*.jsonl"))
    assert lines.count(b'"message"') == 5
    assert lines.count(b"state_seq") == 1


@pytest.mark.parametrize("entered", [True, False])
async def test_what_could_not_be_stored_without_the_loop_goes_to_the_spool(
    make, monkeypatch, entered
):
    """Guarantee 1: the disk had refused events that are in memory, and the loop is closed; the
    database refuses them, too, or does not know the session. These events were once lost, and the
    ledger said that they waited.
    """
    site = make("spool")
    site.own.entered = entered
    recorder = site.recorder
    append, recorder._append = recorder._append, _refuse
    site.log(3)
    recorder._append = append
    asked = []

    def refuse(self, write, seconds):
        asked.append(write.events.count(b"\n"))
        raise StoreUnavailable("locked")

    monkeypatch.setattr(Link, "write_now", refuse)
    assert site.engine.close_without_loop(60.0) is False
    assert asked == ([3] if entered else [])
    lines = b"".join(file.read_bytes() for file in recorder.spool.directory.glob("*.jsonl"))
    assert lines.count(b'"message"') == 3
    ledger = site.engine.ledger()
    assert (ledger.spilled, ledger.in_memory, ledger.lost) == (3, 0, 0)


def _refuse(line, number):
    raise OSError(28, "No space left on device")


async def test_what_the_disk_refuses_until_the_end_is_lost_and_named(make, caplog):
    """faults H: once, with how many and where; nothing is said where all found room."""
    site = make("spool")
    site.engine._leave_to_spool()
    assert not caplog.messages
    site.recorder._append = site.recorder.events.append = _refuse
    site.log(2)
    caplog.clear()
    site.engine._leave_to_spool()
    assert sum("2 events are lost: the disk refused them" in text for text in caplog.messages) == 1
    assert site.own.dropped["disk_refused"] == 2


@pytest.mark.parametrize(
    ("busy", "complete", "left"),
    [(0, True, "nothing"), (0, False, "closed"), (2, True, "nothing"), (None, False, "open")],
)
async def test_files_are_closed_when_no_thread_records(make, monkeypatch, busy, complete, left):
    """faults H: it is waited for, a moment; a thread that takes longer keeps its files. Threads
    that wait for room go on.
    """
    site = make("spool")
    asked, slept = [], []
    site.recorder.quiet = lambda: asked.append(1) or (busy is not None and len(asked) > busy)
    monkeypatch.setattr(
        engines, "time", types.SimpleNamespace(monotonic=lambda: 0.04 * len(slept), sleep=slept.append)
    )  # fmt: skip
    site.engine._release(complete)
    spool = site.recorder.spool
    assert all(queue.closed for queue in site.recorder.queues())
    assert spool.directory.exists() is (left != "nothing")
    assert bool(spool._locks) is (left == "open")
    assert len(slept) == (busy if busy is not None else 3)
    assert all(0 < seconds < 0.01 for seconds in slept)
    memory = make()
    memory.recorder.quiet = lambda: True
    memory.engine._release(True)


async def test_the_last_delivery_waits_until_nothing_is_on_its_way(make, monkeypatch):
    """faults H: a thread that has a number, drops that are not recorded, events that came
    meanwhile.
    """
    site = make()
    flushed, slept = [], []
    real = asyncio.sleep

    async def flush():
        flushed.append(1)
        if len(flushed) == 3:
            site.recorder.lost.clear()
        if len(flushed) == 4:
            site.recorder.events.clear("x")
            site.recorder.events.dropped.clear()

    async def sleep(seconds):
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(engines.asyncio, "sleep", sleep)
    site.engine._flush_or_ask_again = flush
    site.recorder.quiet = lambda: len(flushed) > 1
    site.recorder.lost.append(types.SimpleNamespace(first=1, last=1, reason="x"))
    site.log(1)
    await site.engine._deliver_rest()
    assert len(flushed) == 4
    assert max(slept) < 0.01


@pytest.mark.parametrize(
    ("disk", "fault", "attempts"),
    [
        (None, StoreUnavailable("away"), 3),
        (None, StoreUnavailable("gone", permanent=True), 1),
        ("spool", StoreUnavailable("away"), 1),
    ],
)
async def test_what_no_spool_keeps_is_tried_until_it_is_stored(make, disk, fault, attempts):
    """faults H: not if the database must be repaired first."""
    site = make(disk)
    tries = []

    async def flush():
        tries.append(1)
        if len(tries) < 3:
            raise fault

    site.engine._flush_or_ask_again = flush
    await site.engine._deliver_most()
    assert len(tries) == attempts


async def test_a_database_that_is_away_is_asked_once_more(make):
    """faults H: it may have come back; only then is the rest given up."""
    site = make()
    site.log(1)
    site.link.down = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable, match="away"):
        await site.engine._flush_or_ask_again()
    assert site.link.asked_again == 1


async def test_tasks_have_ended_when_they_were_cancelled(make):
    """faults H: nothing is delivered afterwards, and without tasks there is nothing to wait for."""
    site = make()
    await site.engine._cancel_tasks(60)
    assert "the tracker is closed" in why(site.engine.committed(1))
    ended = []

    async def work():
        try:
            await asyncio.sleep(3600)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
            ended.append(1)

    site.engine._tasks = [asyncio.create_task(work())]
    await asyncio.sleep(0)
    await site.engine._cancel_tasks(60)
    assert ended == [1]
